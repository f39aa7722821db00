//! Rings of records: which of them are live, when they are folded, and what a call must leave alone.

use crate::device::Device;
use crate::problem::{Out, Problem, Source, StartFlags, Target, Tokens};
use crate::random::Plain;
use crate::replay::{ReplayProblem, Solution};
use crate::strided::Strided;
use crate::table::TableForm;
use anyhow::{Result, ensure};
use gdn_host::{DType, Entry, Family, HeadShape, Tile};

const SHAPE: HeadShape = HeadShape { h: 1, hv: 2, k: 128, v: 64 };
pub(super) const FAMILIES: [Family; 2] = [Family::Gdn, Family::Kda];
const TYPES: [DType; 3] = [DType::F32, DType::Bf16, DType::F16];

/// A decode of so many sequences with rings of `records`.
pub(super) fn decode(family: Family, state: DType, batch: usize, records: usize, seed: u64) -> ReplayProblem {
    let plain = Plain::new(SHAPE, Tokens::One { batch }, state, seed);
    ReplayProblem::new(&Plain { family, ..plain }, records)
}

/// Drafts of so many sequences.
pub(super) fn drafts(
    family: Family,
    state: DType,
    batch: usize,
    tokens: usize,
    records: usize,
    seed: u64,
) -> ReplayProblem {
    let plain = Plain::new(SHAPE, Tokens::Each { batch, tokens }, state, seed);
    ReplayProblem::new(&Plain { family, ..plain }, records)
}

/// A sequence for each number of live records, up to `most`, that begin at different places, and so wrap around.
fn levels(records: usize, most: usize) -> Vec<(i32, i32)> {
    (0..=most).map(|len| ((3 * len + 2) as i32 % records as i32, len as i32)).collect()
}

/// Every number of live records, wherever the window begins; the full ring folds. Records that are not live are NaN.
pub fn replay_decode_at_every_fill_level(device: &mut dyn Device) -> Result<()> {
    for (family, state) in FAMILIES.into_iter().flat_map(|family| TYPES.map(|state| (family, state))) {
        let p = decode(family, state, 6, 5, 701).with_windows(&levels(5, 5));
        p.run_and_check(device, Tile::Auto)?;
    }
    // The longest rings.
    for (family, records) in [(Family::Gdn, 32), (Family::Kda, 16)] {
        let windows = [(7, records - 1), (1, records), (0, records / 2)];
        let p = decode(family, DType::F32, 3, records as usize, 702).with_windows(&windows);
        p.run_and_check(device, Tile::Auto)?;
    }
    Ok(())
}

/// The same of drafts, up to the ring's end.
pub fn replay_verify_at_every_fill_level(device: &mut dyn Device) -> Result<()> {
    for (family, state) in FAMILIES.into_iter().flat_map(|family| TYPES.map(|state| (family, state))) {
        let p = drafts(family, state, 6, 3, 8, 703).with_windows(&levels(8, 5));
        p.run_and_check(device, Tile::Auto)?;
    }
    for (family, records) in [(Family::Gdn, 32), (Family::Kda, 16)] {
        let windows = [(7, records - 8), (1, records - 9), (0, 0)];
        let p = drafts(family, DType::F32, 3, 8, records as usize, 704).with_windows(&windows);
        p.run_and_check(device, Tile::Auto)?;
    }
    Ok(())
}

/// Folds that are asked for, with every number of live records; outputs are those of a call that does not fold.
pub fn replay_force_folds_at_every_fill_level(device: &mut dyn Device) -> Result<()> {
    for (family, long) in FAMILIES.into_iter().zip([32, 16]) {
        for p in [
            decode(family, DType::F32, 5, 5, 705).with_windows(&levels(5, 4)),
            drafts(family, DType::F32, 5, 2, 8, 706).with_windows(&levels(8, 4)),
            drafts(family, DType::Bf16, 5, 3, long as usize, 728).with_windows(&[
                (long - 2, 9),
                (5, 13),
                (0, 1),
                (1, long - 3),
                (7, long / 2 + 1),
            ]),
            drafts(family, DType::F32, 5, 6, 16, 730).with_windows(&[
                (3, 1),
                (15, 10),
                (2, 0),
                (9, 7),
                (0, 4),
            ]),
        ] {
            let kept = p.run_and_check(device, Tile::Auto)?;
            let forced = ReplayProblem { force: Some(vec![1; 5]), ..p.clone() };
            let folded = forced.run_and_check(device, Tile::Auto)?;
            ensure!(kept.out == folded.out, "{family:?}: a fold changes the output");
            let some = ReplayProblem { force: Some(vec![0, 3, 0, 255, 0]), ..p };
            some.run_and_check(device, Tile::Auto)?;
        }
    }
    Ok(())
}

/// New tokens for a problem, and for the plain one beside it.
fn next_tokens(p: &mut ReplayProblem, plain: &Plain, step: u64) {
    let next = Plain { seed: plain.seed + 100 * (step + 1), ..plain.clone() }.problem();
    (p.problem.q, p.problem.k, p.problem.v) = (next.q, next.k, next.v);
    (p.problem.a, p.problem.b) = (next.a, next.b);
}

/// A window that does not lie in its ring, or leaves no room for drafts, marks a padded row.
pub fn replay_cursors_out_of_range_are_padding(device: &mut dyn Device) -> Result<()> {
    for family in FAMILIES {
        let windows = [(4, 1), (-1, 1), (i32::MIN, 1), (0, 5), (0, -1), (1, i32::MAX), (3, 2)];
        decode(family, DType::F32, 7, 4, 709).with_windows(&windows).run_and_check(device, Tile::Auto)?;
        let windows = [(6, 1), (-1, 1), (0, 4), (0, -1), (5, i32::MAX), (5, 3)];
        drafts(family, DType::F32, 6, 3, 6, 710).with_windows(&windows).run_and_check(device, Tile::Auto)?;
    }
    Ok(())
}

/// Rows without a slot: nothing of them is touched.
pub fn replay_padded_rows_touch_nothing(device: &mut dyn Device) -> Result<()> {
    for family in FAMILIES {
        for mut p in [
            decode(family, DType::F32, 5, 4, 711).with_windows(&[(0, 2), (3, 1), (1, 4), (0, 3), (2, 0)]),
            drafts(family, DType::Bf16, 5, 2, 5, 712).with_windows(&[(0, 2), (3, 1), (1, 3), (0, 3), (2, 0)]),
        ] {
            p.problem.source = Source::Slots(vec![3, -1, 99, 0, 2]);
            p.problem.null_slot = Some(0);
            p.spoil_stale();
            p.run_and_check(device, Tile::Auto)?;
        }
    }
    Ok(())
}

/// A fresh sequence begins with zeros and an empty ring, whatever slot, ring and cursors hold.
pub fn replay_reset_ignores_slot_ring_and_cursors(device: &mut dyn Device) -> Result<()> {
    for family in FAMILIES {
        for mut p in [decode(family, DType::F32, 3, 4, 713), drafts(family, DType::F16, 3, 3, 6, 714)] {
            p.problem.start = StartFlags::Reset(vec![0, 1, 1]);
            let mut p = p.with_windows(&[(1, 2), (99, -7), (3, 3)]);
            let elements = p.problem.elements();
            p.problem.pool.data[elements..].fill(f32::NAN);
            let reset = p.run_and_check(device, Tile::Auto)?;
            p.problem.start = StartFlags::HasInitialState(vec![1, 0, 0]);
            ensure!(p.run_and_check(device, Tile::Auto)? == reset, "the two flags do not agree");
        }
    }
    Ok(())
}

/// A decode and drafts with every table.
fn with_every_table(family: Family) -> [ReplayProblem; 2] {
    [decode(family, DType::F32, 4, 4, 715), drafts(family, DType::F32, 4, 2, 6, 716)].map(|mut p| {
        p.problem.fill_pool(6, 717);
        p.rings = crate::replay::RingData::random(&p.problem, p.rings.records, 718);
        p.problem.source = Source::Slots(vec![5, -1, 0, 3]);
        p.problem.start = StartFlags::Reset(vec![0, 1, 0, 1]);
        p.force = Some(vec![1, 1, 0, 0]);
        if !p.is_decode() {
            p.parent = Some(vec![-1, 0, 0, 0, -1, -1, 7, 0]);
        }
        p.with_windows(&[(1, 2), (0, 0), (3, 1), (2, 2)])
    })
}

/// The same tables of every type and stride give the same bits, and so do cursors by slot.
pub fn replay_tables_of_every_type_and_stride(device: &mut dyn Device) -> Result<()> {
    for mut p in FAMILIES.into_iter().flat_map(with_every_table) {
        let dense = p.run_and_check(device, Tile::Auto)?;
        for index in [Entry::I32, Entry::U32, Entry::I64] {
            for (flag, gap) in [(Entry::U8, 3), (Entry::I32, 0), (Entry::U32, 1)] {
                p.problem.tables = TableForm { index, flag, gap };
                ensure!(p.run(device, Tile::Auto)? == dense, "{:?} gives other bits", p.problem.tables);
            }
        }
        // Row 0 is in slot 5, row 2 in slot 0, row 3 in slot 3.
        (p.base, p.len, p.by_slot) = (Some(vec![3, -1, -1, 2, -1, 1]), vec![1, 9, 9, 2, 9, 2], true);
        ensure!(p.run_and_check(device, Tile::Auto)? == dense, "cursors by slot give other bits");
    }
    Ok(())
}

/// Slots, rings and rows further apart than they are long.
pub fn replay_pitches_and_strides(device: &mut dyn Device) -> Result<()> {
    for family in FAMILIES {
        for mut p in [
            decode(family, DType::Bf16, 3, 4, 719).with_windows(&[(1, 2), (0, 4), (3, 1)]),
            drafts(family, DType::F32, 3, 2, 5, 720).with_windows(&[(1, 2), (0, 3), (3, 1)]),
        ] {
            p.problem.pool.pitch += 1024;
            p.rings.k.stride += 8;
            p.rings.d.stride += 4;
            p.rings.g.stride += if family == Family::Kda { 12 } else { 3 };
            p.problem.k.stride += 16;
            p.problem.out =
                p.problem.out.map(|Out { stride, .. }| Out { dtype: DType::F32, stride: stride + 5 });
            p.run_and_check(device, Tile::Auto)?;
        }
    }
    Ok(())
}

/// One to eight value heads a key head, in either order, and other shapes.
pub fn replay_heads_and_shapes(device: &mut dyn Device) -> Result<()> {
    for (h, hv, v) in [(1, 4, 32), (2, 6, 32), (2, 2, 96), (1, 8, 32)] {
        let shape = HeadShape { h, hv, k: 128, v };
        for heads in [gdn_host::HeadMap::Grouped, gdn_host::HeadMap::Tiled] {
            for tokens in [Tokens::One { batch: 2 }, Tokens::Each { batch: 2, tokens: 2 }] {
                let mut p = ReplayProblem::new(&Plain::new(shape, tokens, DType::F32, 721), 5);
                p.problem.heads = heads;
                p.with_windows(&[(4, 2), (1, 3)]).run_and_check(device, Tile::Auto)?;
            }
        }
    }
    let shape = HeadShape { h: 1, hv: 2, k: 64, v: 64 };
    let p = ReplayProblem::new(&Plain::new(shape, Tokens::One { batch: 2 }, DType::F32, 722), 5);
    p.with_windows(&[(4, 2), (1, 5)]).run_and_check(device, Tile::Auto).map(drop)
}

/// Inputs of every type with every state that there are kernels for.
pub fn replay_every_pair_of_types(device: &mut dyn Device) -> Result<()> {
    for (state, io) in [
        (DType::F32, DType::F32),
        (DType::F32, DType::Bf16),
        (DType::F32, DType::F16),
        (DType::Bf16, DType::Bf16),
        (DType::F16, DType::F16),
        (DType::F16, DType::Bf16),
    ] {
        for family in FAMILIES {
            for tokens in [Tokens::One { batch: 2 }, Tokens::Each { batch: 2, tokens: 2 }] {
                let plain = Plain { family, io, ..Plain::new(SHAPE, tokens, state, 723) };
                let p = ReplayProblem::new(&plain, 4).with_windows(&[(3, 2), (1, 2)]);
                ReplayProblem { force: Some(vec![0, 1]), ..p }.run_and_check(device, Tile::Auto)?;
            }
        }
    }
    Ok(())
}

/// A decay near zero in the middle of a ring wipes out what was before it and nothing behind it.
pub fn replay_strong_decay_is_exact(device: &mut dyn Device) -> Result<()> {
    for family in FAMILIES {
        let mut p = decode(family, DType::F32, 2, 8, 724);
        let decays = if family == Family::Kda { SHAPE.k as usize } else { 1 };
        for (i, g) in p.rings.g.data.iter_mut().enumerate() {
            match i / decays % 8 {
                3 => *g = -300.0,
                _ => *g = -1e-3,
            }
        }
        p.with_windows(&[(0, 7), (0, 8)]).run_and_check(device, Tile::Auto)?;
    }
    Ok(())
}

/// The same bits for every tile.
pub fn replay_same_bits_for_every_tile(device: &mut dyn Device) -> Result<()> {
    for (family, state) in FAMILIES.into_iter().flat_map(|family| TYPES.map(|state| (family, state))) {
        for p in [decode(family, state, 2, 6, 725), drafts(family, state, 2, 3, 6, 726)] {
            let p = p.with_windows(&[(4, 3), (0, 3)]);
            let p = ReplayProblem { force: Some(vec![0, 1]), ..p };
            let first = p.run_and_check(device, Tile::Auto)?;
            for tile in p.tiles() {
                ensure!(p.run(device, tile)? == first, "{tile:?} gives other bits; {p:?}");
            }
        }
    }
    Ok(())
}

/// Row `n` of a problem alone, in another slot, with its window beginning elsewhere.
fn moved(p: &ReplayProblem, n: usize, slot: usize, base: usize) -> Result<ReplayProblem> {
    let Some((home, window)) = p.window(n) else { anyhow::bail!("row {n} is padding") };
    let (tokens, records) = (p.tokens(), p.rings.records);
    let cut = |x: &Strided| {
        let data = x.data[n * tokens * x.width..(n + 1) * tokens * x.width].to_vec();
        Strided { data, ..x.clone() }
    };
    let mut one = p.clone();
    let from = &p.problem;
    let (q, k, v, a, b) = (cut(&from.q), cut(&from.k), cut(&from.v), cut(&from.a), cut(&from.b));
    let of_one = if p.is_decode() { Tokens::One { batch: 1 } } else { Tokens::Each { batch: 1, tokens } };
    one.problem =
        Problem { tokens: of_one, q, k, v, a, b, source: Source::Slots(vec![slot as i32]), ..from.clone() };
    let elements = from.elements();
    one.problem.pool.data.copy_within(home * elements..(home + 1) * elements, slot * elements);
    let widths = [from.shape.k as usize, from.shape.v as usize, p.decays()];
    for ((ring, before), width) in
        [(&mut one.rings.k, &p.rings.k), (&mut one.rings.d, &p.rings.d), (&mut one.rings.g, &p.rings.g)]
            .into_iter()
            .zip(widths)
    {
        for head in 0..ring.width / (records * width) {
            for j in 0..window.len {
                let at = |slot: usize, place: usize| {
                    slot * before.width + (head * records + place % records) * width
                };
                let (from, to) = (at(home, window.base + j), at(slot, base + j));
                ring.data[to..to + width].copy_from_slice(&before.data[from..from + width]);
            }
        }
    }
    one.parent = p.parent.as_ref().map(|parent| parent[n * tokens..(n + 1) * tokens].to_vec());
    one.force = p.force.as_ref().map(|force| vec![force[n]]);
    (one.base, one.len) = (Some(vec![base as i32]), vec![window.len as i32]);
    one.spoil_stale();
    Ok(one)
}

/// The same bits alone as in a batch, in any slot, wherever the window begins.
pub fn replay_same_bits_at_every_place(device: &mut dyn Device) -> Result<()> {
    for family in FAMILIES {
        for p in [decode(family, DType::F32, 3, 6, 727), drafts(family, DType::Bf16, 3, 2, 6, 728)] {
            let p = ReplayProblem { force: Some(vec![0, 1, 0]), ..p.with_windows(&[(4, 3), (0, 4), (2, 2)]) };
            let whole = p.run_and_check(device, Tile::Auto)?;
            let (elements, width) = (p.problem.elements(), p.tokens() * p.problem.width());
            for n in 0..3 {
                let (slot, base) = ((n + 1) % 3, 5 - n);
                let one = moved(&p, n, slot, base)?.run_and_check(device, Tile::Auto)?;
                ensure!(
                    *one.out == whole.out[n * width..(n + 1) * width],
                    "row {n} alone has another output"
                );
                if p.folds(n) {
                    let state =
                        |s: &Solution, at: usize| s.state[at * elements..(at + 1) * elements].to_vec();
                    ensure!(state(&one, slot) == state(&whole, n), "row {n} alone folds to another state");
                }
            }
        }
    }
    Ok(())
}

/// Drafts of which nothing is accepted leave no trace: the next call gives the bits that it gives without them.
pub fn replay_rejected_drafts_leave_no_trace(device: &mut dyn Device) -> Result<()> {
    for family in FAMILIES {
        for windows in [[(2, 3), (0, 0)], [(5, 6), (1, 4)]] {
            let p = drafts(family, DType::F32, 2, 3, 9, 729).with_windows(&windows);
            let plain =
                Plain { family, ..Plain::new(SHAPE, Tokens::Each { batch: 2, tokens: 3 }, DType::F32, 730) };
            let mut next = p.clone();
            next_tokens(&mut next, &plain, 0);
            let untried = next.run_and_check(device, Tile::Auto)?;
            let rejected = p.run_and_check(device, Tile::Auto)?;
            for (ring, left) in
                [&mut next.rings.k, &mut next.rings.d, &mut next.rings.g].into_iter().zip(&rejected.rings)
            {
                ring.data.clone_from(&left.values);
            }
            let again = next.run(device, Tile::Auto)?;
            ensure!(
                again.out == untried.out && again.state == untried.state,
                "{family:?}: rejected drafts show"
            );
        }
    }
    Ok(())
}

/// Each path of a tree is the chain of its tokens, bit by bit.
pub fn replay_paths_of_a_tree_equal_chains(device: &mut dyn Device) -> Result<()> {
    // Tokens 1 and 2 follow 0, 3 follows 1, 4 and 5 follow 2, 6 starts anew.
    const PARENTS: [i32; 7] = [9, 0, 0, 1, 2, 2, -1];
    const PATHS: [&[usize]; 4] = [&[0, 1, 3], &[0, 2, 4], &[0, 2, 5], &[6]];
    for (family, state) in FAMILIES.into_iter().flat_map(|family| TYPES.map(|state| (family, state))) {
        let mut p = drafts(family, state, 1, 7, 12, 731);
        p.parent = Some(PARENTS.to_vec());
        let p = p.with_windows(&[(9, 4)]);
        let tree = p.run_and_check(device, Tile::Auto)?;
        for path in PATHS {
            let pick = |x: &Strided| {
                let data =
                    path.iter().flat_map(|t| x.data[t * x.width..(t + 1) * x.width].to_vec()).collect();
                Strided { data, ..x.clone() }
            };
            let mut chain = p.clone();
            let from = &p.problem;
            let (q, k, v, a, b) = (pick(&from.q), pick(&from.k), pick(&from.v), pick(&from.a), pick(&from.b));
            let tokens = Tokens::Each { batch: 1, tokens: path.len() };
            chain.problem = Problem { tokens, q, k, v, a, b, ..from.clone() };
            chain.parent = None;
            let chain = chain.run_and_check(device, Tile::Auto)?;
            let width = from.width();
            for (i, t) in path.iter().enumerate() {
                let (of_chain, of_tree) = (&chain.out[i * width..][..width], &tree.out[t * width..][..width]);
                ensure!(of_chain == of_tree, "{family:?}, {state:?}: token {t} differs from its chain's");
            }
        }
    }
    Ok(())
}

/// One draft is a token: the bits of decode, where both are multiply-adds.
pub fn replay_verify_of_one_token_is_decode(device: &mut dyn Device) -> Result<()> {
    for (family, state) in FAMILIES.into_iter().flat_map(|family| TYPES.map(|state| (family, state))) {
        let p = decode(family, state, 3, 6, 732).with_windows(&[(4, 3), (0, 0), (2, 5)]);
        let mut one = p.clone();
        (one.problem.tokens, one.problem.target) = (Tokens::Each { batch: 3, tokens: 1 }, Target::Nowhere);
        let (decoded, verified) =
            (p.run_and_check(device, Tile::Auto)?, one.run_and_check(device, Tile::Auto)?);
        // Sums of GDN's drafts are products of matrices under inputs of 16 bits, KDA's under bf16: both are right, but not bit by bit.
        let multiplies = match family {
            Family::Gdn => p.problem.io() != DType::F32,
            Family::Kda => p.problem.io() == DType::Bf16,
        };
        let is_same = decoded.out == verified.out;
        ensure!(is_same || multiplies, "{family:?}, {state:?}: the outputs differ");
    }
    Ok(())
}
