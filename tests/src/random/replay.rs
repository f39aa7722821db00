//! Random problems with a ring of records.

use super::options::options;
use crate::problem::{Source, StartFlags, Target, Tokens};
use crate::replay::{ReplayProblem, RingData};
use crate::strided::round;
use gdn_host::{DType, Family, Layout};
use proptest::prelude::*;

/// A step of a layer with a ring of records, decode or drafts, with everything drawn that may vary.
pub fn replay() -> impl Strategy<Value = ReplayProblem> {
    let rows = (1usize..=3, 0usize..=5).prop_flat_map(|(batch, tokens)| {
        let index = prop_oneof![4 => Just(0i32), 1 => Just(-1i32), 1 => Just(1000)];
        let cursor = (any::<u32>(), any::<u32>(), 0u32..12);
        (
            Just((batch, tokens)),
            prop::collection::vec(index, batch),
            prop::collection::vec(any::<[bool; 2]>(), batch),
            prop::collection::vec(cursor, 2 * batch + 1),
            prop::collection::vec(-1i32..6, batch * tokens.max(1)),
            Just((0..(2 * batch + 1) as i32).collect::<Vec<_>>()).prop_shuffle(),
        )
    });
    // Records of a ring, by its length and what is kept free of it; options of the cursors.
    let ring = (1usize..=32, 0u32..4, any::<[bool; 5]>());
    (options().prop_filter("kernels", |o| o.has_records()), rows, ring).prop_map(
        |(options, ((batch, tokens), read, flags, cursors, parents, order), ring)| {
            let (length, spare, [by_slot, based, forced, starts, tree]) = ring;
            let is_decode = tokens == 0 || options.is_for_decode();
            let of = if is_decode { Tokens::One { batch } } else { Tokens::Each { batch, tokens } };
            let mut p = options.problem(of);
            // The nearest that kernels exist for.
            p.pool.layout = Layout::Vk;
            let is_mixed = p.pool.dtype != DType::F32 && p.pool.dtype != p.io();
            if is_mixed && (p.shape.k != 128 || (p.pool.dtype, p.io()) != (DType::F16, DType::Bf16)) {
                p.pool.dtype = DType::F32;
            }
            let gaps = options.gaps;
            p.fill_pool(2 * batch + 1, options.seed + 1);
            p.pool.pitch += 8 * gaps[4];
            let slots = |n: usize| if read[n] == 0 { order[n] } else { read[n] };
            p.source =
                if gaps[2] == 4 { Source::Sequences } else { Source::Slots((0..batch).map(slots).collect()) };
            p.null_slot = (gaps[3] == 1).then_some(order[0]);
            let bytes = |which: usize| flags.iter().map(|f| u8::from(f[which]) * 3).collect();
            if starts {
                p.start = if gaps[1] == 1 {
                    StartFlags::Reset(bytes(0))
                } else {
                    StartFlags::HasInitialState(bytes(0))
                };
            }
            let most = if p.family == Family::Kda { 16 } else { 32 };
            let free = if is_decode { 0 } else { tokens };
            let records = length.min(most).max(free);
            if !is_decode {
                p.target = Target::Nowhere;
            }
            let mut rings = RingData::random(&p, records, options.seed + 2);
            for x in [&mut rings.k, &mut rings.d] {
                x.stride += 8 * gaps[0];
            }
            rings.g.stride += 4 * gaps[0];
            let dtype = rings.k.dtype;
            rings.k.data.iter_mut().for_each(|x| *x = round(*x, dtype));
            // Some cursors name no window.
            let base = |&(base, _, odd): &(u32, u32, u32)| match odd {
                0 => -3,
                _ if based => (base as usize % records) as i32,
                _ => 0,
            };
            let len = |&(_, len, odd): &(u32, u32, u32)| match odd {
                1 => records as i32 + 1,
                _ => (len as usize % (records - free + 1)) as i32,
            };
            let cursors = if by_slot { &cursors[..] } else { &cursors[..batch] };
            let mut problem = ReplayProblem {
                problem: p,
                rings,
                base: based.then(|| cursors.iter().map(base).collect()),
                len: cursors.iter().map(len).collect(),
                by_slot,
                force: forced.then(|| bytes(1)),
                most: (spare > 0).then(|| (records - free).saturating_sub(spare as usize) as u32),
                parent: (tree && !is_decode).then(|| parents.clone()),
            };
            problem.spoil_stale();
            problem
        },
    )
}
