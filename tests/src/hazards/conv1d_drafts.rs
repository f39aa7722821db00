//! Conv1d update of several tokens: chains, drafts that are taken back, trees, and the windows after each token.

use super::conv1d::{relaid, with_slots};
use crate::device::Device;
use crate::neighbours::conv1d::{ConvProblem, ConvSolution, OutPlace, Packing, WindowData};
use crate::neighbours::random::plain_conv;
use crate::random::Noise;
use crate::strided::{Strided, decode_values};
use anyhow::{Context as _, Result, ensure};
use gdn_host::{DType, Tile};

const TYPES: [DType; 3] = [DType::F32, DType::Bf16, DType::F16];
const DIM: usize = 72;

/// A buffer of a row for each sequence.
fn windows(p: &ConvProblem, tokens: usize) -> Option<WindowData> {
    let pitch = tokens * p.dim * (p.width - 1);
    Some(WindowData { rows: p.lens.len(), steps: tokens, pitch, row: None })
}

/// The rows of tokens `t..t + count` of each sequence of `p`.
fn tokens(p: &ConvProblem, x: &[f32], t: usize, count: usize) -> Vec<f32> {
    let all = x.chunks(p.lens[0] * p.dim);
    all.flat_map(|x| x[t * p.dim..(t + count) * p.dim].to_vec()).collect()
}

/// `p` with the state that a solution left.
fn after(p: &ConvProblem, solution: &ConvSolution) -> ConvProblem {
    let mut p = p.clone();
    p.pool.state = decode_values(&solution.state, p.io());
    p
}

/// T tokens give the bits of T calls, outputs and states, and each window after a token is the state after that call.
pub fn conv_tokens_at_once_equal_single_tokens(device: &mut dyn Device) -> Result<()> {
    for io in TYPES {
        for (width, len, taps_contiguous) in
            [(4, 3, true), (4, 3, false), (4, 5, false), (3, 2, true), (2, 4, true), (2, 1, false)]
        {
            let mut p = plain_conv(DIM, width, 2, 5, io, 131);
            with_slots(&mut p, 3, len, taps_contiguous, 131);
            p.slot = vec![2, 0];
            p.windows = windows(&p, 5);
            let whole = p.run_and_check(device)?;
            let mut single = p.clone();
            single.windows = None;
            single.lens = vec![1; 2];
            for t in 0..5 {
                single.x.data = tokens(&p, &p.x.data, t, 1);
                let solution = single.run_and_check(device)?;
                let what = || format!("{}, width {width}, {len} entries, token {t}", io.name());
                ensure!(solution.out == tokens(&p, &whole.out, t, 1), "other outputs: {}", what());
                single = after(&single, &solution);
                if len == width - 1 {
                    let size = DIM * len * io.size();
                    for (n, slot) in [2, 0].into_iter().enumerate() {
                        let window = &whole.windows[(n * 5 + t) * size..][..size];
                        ensure!(window == &solution.state[slot * size..][..size], "other window: {}", what());
                    }
                }
            }
            ensure!(single.pool.state == after(&p, &whole).pool.state, "other states at the end");
        }
    }
    Ok(())
}

/// Sequences of different lengths, an empty one among them, by i32 and by i64 tables.
pub fn conv_sequences_of_different_lengths(device: &mut dyn Device) -> Result<()> {
    for (packing, io) in [(Packing::I32, DType::Bf16), (Packing::I64, DType::F32)] {
        let mut p = plain_conv(DIM, 4, 4, 1, io, 132);
        p.lens = vec![3, 0, 1, 6];
        p.packing = packing;
        p.x = Strided::dense(io, DIM, Noise::new(132).normals(10 * DIM, 1.0));
        p.windows = windows(&p, 4);
        let whole = p.run_and_check(device)?;
        for (n, (begin, end)) in p.tokens().into_iter().enumerate() {
            let mut one = p.clone();
            (one.lens, one.packing, one.windows) = (vec![end - begin], Packing::Each, None);
            (one.slot, one.x.data) = (vec![n as i32], p.x.data[begin * DIM..end * DIM].to_vec());
            let out = one.run_and_check(device)?.out;
            ensure!(out == whole.out[begin * DIM..end * DIM], "sequence {n} has other outputs alone");
        }
    }
    Ok(())
}

/// Drafts are taken back: the next call starts from the accepted prefix, as if the others had never been.
pub fn conv_rollback_equals_rerunning_from_the_accepted_prefix(device: &mut dyn Device) -> Result<()> {
    let drafts = 4;
    for (io, width) in [(DType::F32, 4), (DType::Bf16, 4), (DType::F16, 3), (DType::Bf16, 2)] {
        for taps_contiguous in [true, false] {
            let mut p = plain_conv(DIM, width, drafts, drafts, io, 133);
            with_slots(&mut p, drafts, width - 2 + drafts, taps_contiguous, 133);
            p.accepted = Some(vec![1; drafts]);
            let drafted = p.run_and_check(device)?;
            // Sequence n accepts n + 1 of its four drafts.
            let mut next = after(&p, &drafted);
            next.accepted = Some((1..=drafts as i32).collect());
            next.x.data = Noise::new(134).normals(drafts * drafts * DIM, 1.0);
            next.x = Strided::dense(io, DIM, next.x.data);
            let next_out = next.run_and_check(device)?.out;
            for n in 0..drafts {
                let rows = |x: &[f32], count: usize| x[n * drafts * DIM..][..count * DIM].to_vec();
                let mut again = p.clone();
                again.slot = vec![n as i32];
                again.accepted = Some(vec![1]);
                (again.lens, again.packing) = (vec![n + 1 + drafts], Packing::Each);
                again.x.data = [rows(&p.x.data, n + 1), rows(&next.x.data, drafts)].concat();
                // One call of the prefix and what follows, from the window that the first call started from.
                again.accepted = None;
                let entries = |channel: &[f32]| channel[..width - 1].to_vec();
                let state = p.pool.state.chunks(p.pool.len).flat_map(entries).collect::<Vec<_>>();
                with_slots(&mut again, drafts, width - 1, taps_contiguous, 133);
                again.pool.state = state;
                let out = again.run_and_check(device)?.out;
                let same = out[(n + 1) * DIM..] == next_out[n * drafts * DIM..][..drafts * DIM];
                ensure!(same, "{}, width {width}: {} accepted drafts give other outputs", io.name(), n + 1);
            }
        }
    }
    Ok(())
}

/// A count of accepted tokens that the window cannot have had is padding, and so are more tokens than it has room for.
pub fn conv_accepted_out_of_range_is_padding(device: &mut dyn Device) -> Result<()> {
    let mut p = plain_conv(DIM, 4, 6, 3, DType::Bf16, 135);
    with_slots(&mut p, 6, 5, false, 135);
    p.accepted = Some(vec![0, 1, 3, 4, -1, i32::MIN]);
    ensure!(p.read_slots().iter().filter(|slot| slot.is_some()).count() == 2, "two rows are real");
    p.run_and_check(device)?;
    relaid(&p).run_and_check(device)?;
    p.accepted = Some(vec![i32::MAX, 2, 2, 1, 1, 3]);
    (p.lens, p.packing) = (vec![3, 4, 3, 1, 0, 2], Packing::I32);
    p.x.data.truncate(13 * DIM);
    p.run_and_check(device).map(drop)
}

/// A tree that is a chain gives the bits of the chain.
pub fn conv_tree_of_a_chain_equals_the_chain(device: &mut dyn Device) -> Result<()> {
    for io in TYPES {
        for (width, dim) in [(4, DIM), (4, 30), (3, DIM), (2, DIM)] {
            let mut p = plain_conv(dim, width, 2, 6, io, 136);
            p.windows = windows(&p, 6);
            let chain = p.run_and_check(device)?;
            // The entry of token 0 does not count.
            p.parent = Some([7, 0, 1, 2, 3, 4].repeat(2));
            let tree = p.run_and_check(device)?;
            ensure!(tree == chain, "{}, width {width}: other bits", io.name());
        }
    }
    Ok(())
}

/// A token of a tree sees its ancestors, and its window is that of its path: each path equals a chain of its own.
pub fn conv_paths_of_a_tree_equal_chains(device: &mut dyn Device) -> Result<()> {
    let parents = [-1, 0, 0, 1, 2, 4, 4];
    let paths: [&[usize]; 3] = [&[0, 1, 3], &[0, 2, 4, 5], &[0, 2, 4, 6]];
    for io in TYPES {
        let mut p = plain_conv(DIM, 4, 1, 7, io, 137);
        (p.parent, p.windows, p.update) = (Some(parents.to_vec()), windows(&p, 7), false);
        let tree = p.run_and_check(device)?;
        for path in paths {
            let rows =
                |x: &[f32]| path.iter().flat_map(|t| x[t * DIM..(t + 1) * DIM].to_vec()).collect::<Vec<_>>();
            let mut chain = p.clone();
            (chain.parent, chain.lens, chain.x.data) = (None, vec![path.len()], rows(&p.x.data));
            chain.windows = windows(&p, path.len());
            let solution = chain.run_and_check(device)?;
            ensure!(solution.out == rows(&tree.out), "{}: path {path:?} has other outputs", io.name());
            let size = DIM * 3 * io.size();
            let window = |t: usize| tree.windows[t * size..(t + 1) * size].to_vec();
            let windows: Vec<u8> = path.iter().flat_map(|t| window(*t)).collect();
            ensure!(solution.windows == windows, "{}: path {path:?} has other windows", io.name());
        }
    }
    Ok(())
}

/// A parent that is not in front of its token means that the window is: no token sees itself or a later one.
pub fn conv_parent_out_of_range_is_the_window(device: &mut dyn Device) -> Result<()> {
    for parent in [-1, i32::MIN, 3, 5, 1 << 20, i32::MAX] {
        let mut p = plain_conv(DIM, 4, 1, 5, DType::Bf16, 138);
        p.parent = Some(vec![parent, 0, 1, parent, 3]);
        let solution = p.run_and_check(device)?;
        let mut root = p.clone();
        (root.parent, root.lens) = (None, vec![1]);
        root.x.data = p.x.data[3 * DIM..4 * DIM].to_vec();
        let out = root.run_and_check(device)?.out;
        ensure!(out == solution.out[3 * DIM..4 * DIM], "token 3 with parent {parent} is no root");
    }
    Ok(())
}

/// Windows go where the row table says, and nowhere for an index that names no row; further tokens than a row has room
/// for leave no window. What lies between rows belongs to others.
pub fn conv_windows_by_row_index(device: &mut dyn Device) -> Result<()> {
    for (io, gap) in [(DType::Bf16, 8), (DType::F32, 1), (DType::F16, 0)] {
        let mut p = plain_conv(DIM, 4, 5, 3, io, 139);
        let row = Some(vec![3, -1, 0, 4, i32::MAX]);
        p.windows = Some(WindowData { rows: 4, steps: 2, pitch: 2 * DIM * 3 + gap, row });
        p.slot[2] = -1;
        p.run_and_check(device).with_context(|| io.name())?;
    }
    Ok(())
}

/// Verification leaves the pool as it is.
pub fn conv_read_only_pool(device: &mut dyn Device) -> Result<()> {
    for (len, taps_contiguous) in [(3, true), (3, false), (6, true), (6, false)] {
        let mut p = plain_conv(DIM, 4, 2, 3, DType::Bf16, 140);
        with_slots(&mut p, 2, len, taps_contiguous, 140);
        let updated = p.run_and_check(device)?;
        p.update = false;
        let verified = p.run_and_check(device)?;
        ensure!(verified.out == updated.out, "other outputs without update");
        ensure!(verified.state != updated.state, "the pool was written");
    }
    Ok(())
}

/// In place and with drafts taken back, all at once.
pub fn conv_rollback_in_place(device: &mut dyn Device) -> Result<()> {
    let mut p = plain_conv(DIM, 4, 3, 4, DType::Bf16, 141);
    with_slots(&mut p, 5, 6, false, 141);
    (p.slot, p.accepted, p.null_slot) = (vec![4, 0, 2], Some(vec![4, 2, 1]), Some(0));
    let apart = p.run_and_check(device)?;
    p.out = OutPlace::InPlace;
    ensure!(p.run(device, Tile::Auto)? == apart, "in place gives other bits");
    Ok(())
}
