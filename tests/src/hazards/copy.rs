//! Copies of states between slots, and commits of drafts.

use crate::device::Device;
use crate::movement::copy::{CommitProblem, CopyProblem, intermediate, state_pool};
use crate::movement::{Bytes, TILES, TYPES, place_decode, place_inputs, place_table};
use crate::table::TableForm;
use anyhow::{Context as _, Result, ensure};
use gdn_host::{
    Beta, CommitState, DType, Decay, HeadShape, Inputs, Layout, Recurrent, Rows, Source, Target, Tile, Tokens,
};

const SHAPE: HeadShape = HeadShape { h: 1, hv: 2, k: 64, v: 64 };

/// Indices that name no slot of a pool of `slots` slots.
fn none(slots: usize) -> [i32; 4] {
    [-1, i32::MIN, slots as i32, i32::MAX]
}

/// Every type and block; slots hold more than is copied, and the rest must stay.
pub fn copies_move_every_byte_and_nothing_else(device: &mut dyn Device) -> Result<()> {
    for (dtype, tile) in TYPES.into_iter().flat_map(|dtype| TILES.map(|tile| (dtype, tile))) {
        let mut p = CopyProblem::plain(dtype, 3, 4096, 301);
        p.elements = 4000;
        (p.source_slots, p.target_slots) = (Some(vec![2, 0, 1]), Some(vec![0, 2, 1]));
        p.run_and_check(device, tile).with_context(|| format!("{} {tile:?}", dtype.name()))?;
    }
    Ok(())
}

/// Copy-on-write: source and target are one tensor.
pub fn copies_within_one_pool(device: &mut dyn Device) -> Result<()> {
    let mut p = CopyProblem::plain(DType::F32, 5, 2048, 302);
    (p.target, p.copies) = (None, 2);
    (p.source_slots, p.target_slots) = (Some(vec![4, 1]), Some(vec![0, 3]));
    p.run_and_check(device, Tile::Auto)?;
    // Without one of the tables: copy n comes from slot n.
    p.source_slots = None;
    p.target_slots = Some(vec![4, 2]);
    p.run_and_check(device, Tile::Auto)
}

/// Padding and indices past the pool, on either side, between copies that are done.
pub fn copy_with_an_index_that_names_nothing(device: &mut dyn Device) -> Result<()> {
    for index in none(3) {
        let mut p = CopyProblem::plain(DType::Bf16, 3, 1024, 303);
        (p.source_slots, p.target_slots) = (Some(vec![0, index, 2]), Some(vec![1, 0, 2]));
        p.run_and_check(device, Tile::Auto).with_context(|| format!("source {index}"))?;
        (p.source_slots, p.target_slots) = (Some(vec![0, 1, 2]), Some(vec![1, 0, index]));
        p.run_and_check(device, Tile::Auto).with_context(|| format!("target {index}"))?;
        // The two pools have their own numbers of slots.
        let mut few = CopyProblem::plain(DType::Bf16, 4, 1024, 303);
        few.target = Some(Bytes::random(DType::Bf16, 3, 1024, 304));
        (few.copies, few.source_slots, few.target_slots) = (2, Some(vec![3, 2]), Some(vec![2, 3]));
        few.run_and_check(device, Tile::Auto)?;
    }
    Ok(())
}

/// Slot 0 is nobody's, on either side; without a table, numbers are slots.
pub fn copy_with_a_null_slot(device: &mut dyn Device) -> Result<()> {
    let mut p = CopyProblem::plain(DType::F32, 3, 512, 305);
    (p.source_slots, p.target_slots) = (Some(vec![0, 1, 2]), Some(vec![2, 0, 1]));
    p.run_and_check(device, Tile::Auto)?;
    p.null_slot = Some(0);
    p.run_and_check(device, Tile::Auto)?;
    p.source_slots = None;
    p.run_and_check(device, Tile::Auto)
}

/// Copy n is slot n's on the side, or the sides, without a table.
pub fn copies_without_a_table(device: &mut dyn Device) -> Result<()> {
    let mut p = CopyProblem::plain(DType::F16, 4, 256, 306);
    p.copies = 3;
    p.run_and_check(device, Tile::Auto)?;
    p.source_slots = Some(vec![3, -1, 0]);
    p.run_and_check(device, Tile::Auto)?;
    (p.source_slots, p.target_slots) = (None, Some(vec![3, 1, -1]));
    p.run_and_check(device, Tile::Auto)
}

/// One vector, and numbers of vectors around those of a thread, a warp and a block.
pub fn copies_of_one_vector_and_of_odd_lengths(device: &mut dyn Device) -> Result<()> {
    for vectors in [1, 3, 31, 33, 127, 128, 129, 1023, 1025] {
        for tile in TILES {
            let p = CopyProblem::plain(DType::F32, 2, 4 * vectors, 307);
            p.run_and_check(device, tile).with_context(|| format!("{vectors} vectors, {tile:?}"))?;
        }
    }
    Ok(())
}

/// Sequences that fork from one prefix.
pub fn one_source_for_many_copies(device: &mut dyn Device) -> Result<()> {
    let mut p = CopyProblem::plain(DType::F32, 4, 1024, 308);
    (p.target, p.copies) = (None, 3);
    (p.source_slots, p.target_slots) = (Some(vec![2, 2, 2]), Some(vec![0, 1, 3]));
    p.run_and_check(device, Tile::Auto)
}

/// Padded pages on both sides, each with a pitch of its own.
pub fn copy_pitches_that_differ(device: &mut dyn Device) -> Result<()> {
    let mut p = CopyProblem::plain(DType::Bf16, 3, 1000, 309);
    p.source = p.source.spaced(8, 16);
    p.target = p.target.map(|target| target.spaced(2048, 8));
    p.target_slots = Some(vec![2, 0, 1]);
    p.run_and_check(device, Tile::Auto)
}

/// Slots that start past 2^31 and 2^32 elements, on either side.
pub fn copy_offset_past_2_31_elements(device: &mut dyn Device) -> Result<()> {
    let mut p = CopyProblem::plain(DType::F32, 5, 1024, 310);
    p.source = p.source.spaced((1 << 30) - 960, 0);
    (p.target, p.copies) = (None, 2);
    (p.source_slots, p.target_slots) = (Some(vec![4, 0]), Some(vec![1, 2]));
    p.run_and_check(device, Tile::Auto)?;
    (p.source_slots, p.target_slots) = (Some(vec![1, 0]), Some(vec![4, 2]));
    p.run_and_check(device, Tile::Auto)
}

/// More copies than a grid has blocks along y, all but a few of them padding.
pub fn copies_past_65535(device: &mut dyn Device) -> Result<()> {
    let copies = 65_535 + 3;
    let mut p = CopyProblem::plain(DType::F32, 4, 8, 311);
    p.copies = copies;
    let (mut from, mut to) = (vec![-1; copies], vec![1; copies]);
    for (slot, n) in [0, 65_534, 65_535, copies - 1].into_iter().enumerate() {
        (from[n], to[n]) = (slot as i32, 3 - slot as i32);
    }
    (p.source_slots, p.target_slots) = (Some(from), Some(to));
    p.run_and_check(device, Tile::Auto)
}

/// No copy is no error.
pub fn no_copy_at_all(device: &mut dyn Device) -> Result<()> {
    let mut p = CopyProblem::plain(DType::F32, 2, 64, 312);
    p.copies = 0;
    p.run_and_check(device, Tile::Auto)
}

/// Each sequence its own step, row and slot.
pub fn commit_takes_the_accepted_step(device: &mut dyn Device) -> Result<()> {
    for (dtype, tile) in TYPES.into_iter().flat_map(|dtype| TILES.map(|tile| (dtype, tile))) {
        let mut p = CommitProblem::plain(SHAPE, dtype, 3, 4, 313);
        p.accepted = vec![4, 1, 3];
        p.run_and_check(device, tile).with_context(|| format!("{} {tile:?}", dtype.name()))?;
        (p.row, p.slots) = (Some(vec![1, 2, 0]), Some(vec![2, 0, 1]));
        p.run_and_check(device, tile).with_context(|| format!("{} {tile:?}", dtype.name()))?;
    }
    Ok(())
}

/// A draft that was refused as a whole, and counts that are none.
pub fn commit_of_nothing_accepted_or_too_much(device: &mut dyn Device) -> Result<()> {
    for accepted in [0, 3, -1, i32::MIN, i32::MAX] {
        let mut p = CommitProblem::plain(SHAPE, DType::Bf16, 3, 2, 314);
        p.accepted = vec![2, accepted, 1];
        p.run_and_check(device, Tile::Auto).with_context(|| format!("accepted {accepted}"))?;
    }
    Ok(())
}

/// A sequence without a row or without a slot, and a null slot.
pub fn commit_with_an_index_that_names_nothing(device: &mut dyn Device) -> Result<()> {
    for index in none(3) {
        let mut p = CommitProblem::plain(SHAPE, DType::F32, 3, 2, 315);
        p.row = Some(vec![2, index, 0]);
        p.run_and_check(device, Tile::Auto).with_context(|| format!("row {index}"))?;
        p.slots = Some(vec![1, 0, index]);
        p.run_and_check(device, Tile::Auto).with_context(|| format!("slot {index}"))?;
    }
    // The null slot is one of the pool's: row 0 of the buffer is a row like any other.
    let mut p = CommitProblem::plain(SHAPE, DType::F32, 3, 2, 316);
    (p.row, p.slots, p.null_slot) = (Some(vec![0, 1, 2]), Some(vec![2, 0, 1]), Some(0));
    p.run_and_check(device, Tile::Auto)
}

/// Gaps between the rows of the buffer and between slots.
pub fn commit_pitch_larger_than_steps(device: &mut dyn Device) -> Result<()> {
    let mut p = CommitProblem::plain(SHAPE, DType::F16, 3, 2, 317);
    p.intermediate = p.intermediate.spaced(24, 8);
    p.state = p.state.spaced(8, 16);
    p.accepted = vec![2, 1, 2];
    p.run_and_check(device, Tile::Auto)
}

/// Rows of the buffer, then slots, that start past 2^31 and 2^32 elements.
pub fn commit_offset_past_2_31_elements(device: &mut dyn Device) -> Result<()> {
    let gap = (1 << 30) + 64;
    let mut p = CommitProblem::plain(SHAPE, DType::Bf16, 5, 2, 318);
    p.accepted = vec![1, 2, 1, 2, 2];
    let plain = p.clone();
    p.intermediate = p.intermediate.spaced(gap, 0);
    p.run_and_check(device, Tile::Auto)?;
    p = plain;
    p.state = p.state.spaced(gap, 0);
    p.run_and_check(device, Tile::Auto)
}

/// Token `t` of each sequence of `tokens` tokens: a row for each.
fn token(inputs: &Inputs, t: u64, tokens: u64) -> Inputs {
    let every = |rows: Rows| Rows { stride: tokens * rows.stride, ..rows.view(t * rows.stride) };
    let mut inputs = *inputs;
    (inputs.q, inputs.k, inputs.v) = (every(inputs.q), every(inputs.k), every(inputs.v));
    if let (Decay::Softplus(gate), Beta::Logits(logits)) = (&mut inputs.decay, &mut inputs.beta) {
        (gate.a, logits.b) = (every(gate.a), every(logits.b));
    }
    inputs
}

/// Drafts verified as a whole and committed leave what decoding their accepted tokens leaves, bit for bit.
pub fn commit_equals_as_many_decodes(device: &mut dyn Device) -> Result<()> {
    const TOKENS: usize = 3;
    let (slots, accepted) = ([3, 0, 4, 1], [2, 3, 0, 1]);
    let shape = HeadShape { h: 1, hv: 2, k: 64, v: 128 };
    let elements = shape.state_elements() as usize;
    for (dtype, layout) in TYPES.into_iter().flat_map(|t| [Layout::Vk, Layout::Kv].map(|l| (t, l))) {
        device.reset();
        let io = if dtype == DType::F32 { DType::Bf16 } else { dtype };
        let inputs = place_inputs(device, shape, io, slots.len() * TOKENS, 319)?;
        let before = Bytes::states(dtype, 5, elements, 320);
        let committed = state_pool(&before.place_pool(device)?, layout);
        let buffer = Bytes::unwritten(dtype, slots.len(), TOKENS * elements).place_pool(device)?;
        let tokens = Tokens::Each { batch: slots.len() as u32, tokens: TOKENS as u32 };
        let source = Source::Slots { pool: committed, slots: place_table(device, &slots)? };
        // A decode stores the state after each token; of a 16-bit type this rounds.
        let verify = Recurrent::new(inputs, tokens, source, Target::Nowhere, None)
            .with_intermediate(intermediate(&buffer, TOKENS, None))
            .with_rounded_state();
        device.run(&verify, Tile::Auto)?;
        before.check(device, committed.tensor.address, "state")?;
        let commit = CommitState {
            shape,
            batch: slots.len() as u32,
            intermediate: intermediate(&buffer, TOKENS, None),
            accepted: place_table(device, &accepted)?,
            state: committed,
            slots: Some(place_table(device, &slots)?),
            null_slot: None,
        };
        device.run(&commit, Tile::Auto)?;

        let decoded = state_pool(&before.place_pool(device)?, layout);
        for t in 0..TOKENS {
            let still = |(slot, &count): (&i32, &i32)| if (t as i32) < count { *slot } else { -1 };
            let rows: Vec<i32> = slots.iter().zip(&accepted).map(still).collect();
            let inputs = token(&inputs, t as u64, TOKENS as u64);
            let decode = place_decode(device, &inputs, decoded, &rows)?;
            device.run(&decode, Tile::Auto)?;
        }
        let read = |address| device.read(address, before.data.len() as u64);
        let (got, want) = (read(committed.tensor.address)?, read(decoded.tensor.address)?);
        ensure!(want != before.data, "decoding changed nothing");
        ensure!(got == want, "the commit of state {} in {layout:?} has other bits", dtype.name());
    }
    Ok(())
}

/// Tables of every type, with gaps between their rows: an index past 2^31 names no slot, whatever its lower half.
pub fn copy_tables_of_every_type_and_stride(device: &mut dyn Device) -> Result<()> {
    for seed in [0, 1, 2, 9, 10, 20] {
        let tables = TableForm::drawn(seed);
        let mut p = CopyProblem::plain(DType::Bf16, 3, 64, 320);
        p.tables = tables;
        (p.source_slots, p.target_slots) = (Some(vec![2, 0, i32::MIN]), Some(vec![1, i32::MIN, 0]));
        p.run_and_check(device, Tile::Auto).with_context(|| format!("copies by {tables:?}"))?;
        let mut p = CommitProblem::plain(SHAPE, DType::F32, 3, 2, 321);
        p.tables = tables;
        (p.row, p.slots) = (Some(vec![2, 0, 1]), Some(vec![1, 0, i32::MIN]));
        p.accepted = vec![2, i32::MIN, 1];
        p.run_and_check(device, Tile::Auto).with_context(|| format!("commits by {tables:?}"))?;
    }
    Ok(())
}
