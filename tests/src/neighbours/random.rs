//! Random problems of the neighbours: shapes, types, layouts, options and indices drawn by proptest.

use super::conv1d::{ConvProblem, OutPlace, Packing, PoolData, WindowData};
use super::norm::NormProblem;
use crate::problem::StartFlags;
use crate::random::Noise;
use crate::strided::{Strided, round};
use crate::table::TableForm;
use gdn_host::{Activation, DType};
use proptest::prelude::*;

/// A plain conv1d update of `batch` sequences of `tokens` tokens: sequence n in slot n, states of `width - 1` entries with
/// taps contiguous, SiLU, no bias.
pub fn plain_conv(
    dim: usize,
    width: usize,
    batch: usize,
    tokens: usize,
    io: DType,
    seed: u64,
) -> ConvProblem {
    let mut noise = Noise::new(seed);
    let (slots, len) = (batch.max(1), width - 1);
    let state = noise.normals(slots * dim * len, 1.0).iter().map(|&x| round(x, io)).collect();
    let x = Strided::dense(io, dim, noise.normals(batch * tokens * dim, 1.0));
    let weight = Strided::dense(io, width, noise.normals(dim * width, 0.5));
    let pool = PoolData::dense(state, slots, dim, len, true);
    ConvProblem::new(tokens, x, weight, pool, (0..batch as i32).collect())
}

/// A plain gated RMSNorm of dense rows.
pub fn plain_norm(hv: usize, v: usize, tokens: usize, x: DType, io: DType, seed: u64) -> NormProblem {
    let mut noise = Noise::new(seed);
    let width = hv * v;
    NormProblem {
        hv,
        v,
        tokens,
        x: Strided::dense(x, width, noise.normals(tokens * width, 1.0)),
        z: Strided::dense(io, width, noise.normals(tokens * width, 2.0)),
        weight: Strided::dense(io, v, noise.normals(v, 1.0)),
        activation: Activation::Silu,
        eps: 1e-6,
        out_stride: width,
        in_place: false,
        head_gaps: [0; 3],
    }
}

fn dtype() -> impl Strategy<Value = DType> {
    prop_oneof![Just(DType::F32), Just(DType::Bf16), Just(DType::F16)]
}

/// What a sequence of drafts is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Drafts {
    Plain,
    Accepted,
    Tree,
}

/// An index that names a slot, or, now and then, none.
fn index_of(slot: i32, drawn: usize) -> i32 {
    if drawn == 0 { -1 } else { slot }
}

/// A conv1d update with everything drawn that may vary.
pub fn conv1d() -> impl Strategy<Value = ConvProblem> {
    let shape = (
        // Vectors, and what is none; more than one block.
        prop_oneof![Just(8usize), Just(64), Just(264), Just(5), Just(20), Just(33)],
        prop_oneof![3 => Just(4usize), 1 => Just(3), 1 => Just(2)],
        prop::collection::vec(prop_oneof![1 => Just(0usize), 3 => Just(1), 4 => 2usize..6], 1..4),
        prop_oneof![2 => Just(Packing::Each), 1 => Just(Packing::I32), 1 => Just(Packing::I64)],
        prop_oneof![3 => Just(Drafts::Plain), 2 => Just(Drafts::Accepted), 2 => Just(Drafts::Tree)],
    );
    let types = (dtype(), dtype(), dtype());
    let gaps = (0usize..3, 0usize..3, 0usize..4, 0usize..3, any::<bool>());
    (shape, types, any::<[bool; 8]>(), gaps, any::<u64>()).prop_map(|(shape, types, options, gaps, seed)| {
        let (dim, width, lens, packing, drafts) = shape;
        let (io, weight_type, bias_type) = types;
        let [has_bias, silu, rounds, taps_contiguous, in_place, update, separate, buffered] = options;
        let mut noise = Noise::new(seed ^ 0xc0de);
        let mut draw = |below: usize| (noise.uniform() * below as f32) as usize;
        let batch = lens.len();
        let packing = if drafts == Drafts::Tree { Packing::Each } else { packing };
        let lens = if packing == Packing::Each { vec![lens[0].max(1); batch] } else { lens };
        let (total, longest) = (lens.iter().sum::<usize>(), lens.iter().copied().max().unwrap_or(0));

        let mut p = plain_conv(dim, width, batch, 1, io, seed);
        let mut values = Noise::new(seed ^ 0x1dea);
        p.x = Strided::dense(io, dim, values.normals(total * dim, 1.0));
        p.weight = Strided::dense(weight_type, width, p.weight.data);
        p.bias = has_bias.then(|| Strided::dense(bias_type, dim, values.normals(dim, 0.5)));
        (p.silu, p.round_products) = (silu, rounds);
        (p.lens, p.packing) = (lens, packing);
        // Gaps that keep vectors aligned, and gaps that do not.
        let step = if gaps.4 { 8 } else { 1 };
        (p.x.stride, p.x.offset) = (dim + step * gaps.0, step * gaps.1);
        p.out = match in_place && drafts != Drafts::Tree {
            true => OutPlace::InPlace,
            false => OutPlace::Own { stride: dim + step * gaps.1, offset: step * gaps.0 },
        };

        let len = match drafts {
            // A window of drafts, now and then longer than this call needs.
            Drafts::Accepted => (width - 2 + longest.max(1)).max(width - 1) + draw(2),
            Drafts::Plain | Drafts::Tree => width - 1 + gaps.2.saturating_sub(1),
        };
        let slots = 2 * batch + 1;
        let state = values.normals(slots * dim * len, 1.0).iter().map(|&x| round(x, io)).collect();
        p.pool = PoolData::dense(state, slots, dim, len, taps_contiguous);
        if gaps.3 == 1 {
            *if taps_contiguous { &mut p.pool.channel_stride } else { &mut p.pool.tap_stride } += step;
        }
        p.pool.pitch = p.pool.span(dim).next_multiple_of(step) + step * gaps.0;
        p.pool.offset = step * gaps.3;

        // Read and write slots are distinct numbers of one shuffled list; some rows are padding.
        let mut order: Vec<i32> = (0..slots as i32).collect();
        for i in (1..slots).rev() {
            order.swap(i, draw(i + 1));
        }
        let mut index = |slot: i32| [slot, slot, slot, slot, -1, 1000][draw(6)];
        p.slot = order[..batch].iter().map(|slot| index(*slot)).collect();
        p.update = update || separate;
        p.write_slot = separate.then(|| order[batch..2 * batch].iter().map(|slot| index(*slot)).collect());
        p.null_slot = (gaps.1 == 1).then_some(order[0]);
        let bytes: Vec<u8> = (0..batch).map(|_| [0, 3][draw(2)]).collect();
        p.start = match gaps.2 {
            0 => StartFlags::Reset(bytes),
            1 => StartFlags::HasInitialState(bytes),
            _ => StartFlags::None,
        };
        if drafts == Drafts::Accepted {
            // From 0, which is padding, to one too many.
            p.accepted = Some((0..batch).map(|_| draw(len + 4 - width) as i32).collect());
        }
        if drafts == Drafts::Tree {
            let parent = |i: usize| draw(i % longest + 3) as i32 - 1;
            p.parent = Some((0..total).map(parent).collect());
        }
        // Tables of any type, states of f32 under 16 bits, rows that are nobody's.
        p.tables = TableForm::drawn(seed);
        if draw(3) == 0 {
            p.state_type = DType::F32;
            p.pool.state = values.normals(slots * dim * len, 1.0);
        }
        p.window_type = [io, p.state_type][draw(2)];
        if p.packing != Packing::Each {
            p.padding = draw(4);
            p.x.data.extend(values.normals(p.padding * dim, 1.0).iter().map(|&x| round(x, io)));
        }
        if drafts == Drafts::Plain && len <= 4 && draw(3) == 0 {
            (p.write_slot, p.update) = (None, true);
            p.token_slots =
                Some((order[batch..2 * batch].iter().map(|slot| index_of(*slot, draw(4))).collect(), 1));
        }
        p.windows = buffered.then(|| {
            // Sometimes fewer steps than tokens.
            let steps = (longest + gaps.3).saturating_sub(1).max(1);
            let pitch = steps * dim * (width - 1) + step * gaps.2;
            let rows = (0..batch as i32).rev().map(|row| [row, row, row, -1, 99][draw(5)]).collect();
            WindowData { rows: batch, steps, pitch, row: (gaps.0 > 0).then_some(rows) }
        });
        p
    })
}

/// A gated RMSNorm with everything drawn that may vary.
pub fn norm() -> impl Strategy<Value = NormProblem> {
    let shape =
        (1usize..=9, prop_oneof![Just(64usize), Just(128), (1usize..=16).prop_map(|n| 32 * n)], 1usize..=4);
    let gaps = (0usize..3, 0usize..3, 0usize..3);
    let eps = prop_oneof![Just(1e-6f32), Just(1e-5), Just(0.5)];
    (shape, dtype(), dtype(), any::<[bool; 4]>(), gaps, eps, any::<u64>()).prop_map(
        |((hv, v, tokens), io, weight_type, [sigmoid, wide, in_place, odd], gaps, eps, seed)| {
            let x_type = if wide { DType::F32 } else { io };
            let mut p = plain_norm(hv, v, tokens, x_type, io, seed);
            p.weight = Strided::dense(weight_type, v, p.weight.data);
            p.weight.offset = 8 * gaps.2;
            (p.x.stride, p.x.offset) = (p.x.width + 8 * gaps.0, 8 * gaps.1);
            (p.z.stride, p.z.offset) = (p.z.width + 8 * gaps.1, 8 * gaps.2);
            p.out_stride += 8 * gaps.2;
            p.activation = if sigmoid { Activation::Sigmoid } else { Activation::Silu };
            p.eps = eps;
            p.head_gaps = [8 * gaps.2, if odd { gaps.0 } else { 8 * gaps.0 }, 8 * gaps.1];
            p.z.offset += usize::from(odd);
            p.in_place = in_place && x_type == io;
            p
        },
    )
}
