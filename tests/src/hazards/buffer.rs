//! The buffer for the state after each token: its rows, its steps, and what lies between.

use crate::device::Device;
use crate::problem::{Intermediate, Place, Problem, Source, Target, Tokens};
use crate::random::{Plain, draft};
use anyhow::{Result, ensure};
use gdn_host::{DType, Family, HeadShape, Layout, Tile};

const SHAPE: HeadShape = HeadShape { h: 1, hv: 2, k: 64, v: 64 };
const TYPES: [DType; 3] = [DType::F32, DType::Bf16, DType::F16];

/// A draft of three tokens for each of three sequences, with a buffer of these rows, steps and elements between rows.
fn kept(state: DType, rows: usize, steps: usize, gap: usize, row: Option<Vec<i32>>, seed: u64) -> Problem {
    let mut p = draft(SHAPE, 3, 3, state, seed);
    let pitch = steps * p.elements() + gap;
    p.intermediate = Some(Intermediate { dtype: None, rows, steps, pitch, row, parent: None });
    p
}

/// The states that a problem writes to the buffer, in order.
fn steps_written(p: &Problem) -> Vec<usize> {
    let stores = p.routes().into_iter().flat_map(|route| route.stores);
    stores.filter_map(|(_, place)| if let Place::Buffer(i) = place { Some(i) } else { None }).collect()
}

/// Rows in another order than sequences.
pub fn buffer_rows_by_table(device: &mut dyn Device) -> Result<()> {
    for state in TYPES {
        let p = kept(state, 4, 3, 0, Some(vec![3, 0, 2]), 151);
        ensure!(steps_written(&p) == [9, 10, 11, 0, 1, 2, 6, 7, 8], "{:?}", steps_written(&p));
        p.run_and_check(device, Tile::Auto)?;
    }
    Ok(())
}

/// A row index that is negative or past the buffer: nothing is stored, and the draft is computed all the same.
pub fn buffer_row_that_does_not_exist_stores_nothing(device: &mut dyn Device) -> Result<()> {
    let dense = kept(DType::F32, 3, 3, 0, None, 152).run_and_check(device, Tile::Auto)?;
    for row in [-1, 3, 4, 1 << 20, i32::MIN, i32::MAX] {
        let p = kept(DType::F32, 3, 3, 0, Some(vec![0, row, 2]), 152);
        ensure!(steps_written(&p) == [0, 1, 2, 6, 7, 8], "{:?}", steps_written(&p));
        let solution = p.run_and_check(device, Tile::Auto)?;
        ensure!(solution.out == dense.out && solution.state == dense.state, "row {row} changes the draft");
    }
    Ok(())
}

/// Without a table sequence n's row is n, and a buffer of fewer rows keeps the first ones.
pub fn buffer_of_fewer_rows_than_sequences(device: &mut dyn Device) -> Result<()> {
    let p = kept(DType::F32, 2, 3, 0, None, 153);
    ensure!(steps_written(&p) == [0, 1, 2, 3, 4, 5], "{:?}", steps_written(&p));
    p.run_and_check(device, Tile::Auto).map(drop)
}

/// More tokens than steps: their states are not stored, not even in the next row.
pub fn more_tokens_than_steps(device: &mut dyn Device) -> Result<()> {
    for steps in [1, 2] {
        let p = kept(DType::Bf16, 4, steps, 0, Some(vec![0, 2, -1]), 154);
        ensure!(steps_written(&p).len() == 2 * steps, "{:?}", steps_written(&p));
        p.run_and_check(device, Tile::Auto)?;
    }
    Ok(())
}

/// Fewer tokens than steps, of each sequence another number.
pub fn fewer_tokens_than_steps(device: &mut dyn Device) -> Result<()> {
    let mut p = kept(DType::F16, 3, 5, 0, None, 155);
    p.tokens = Tokens::packed(&[4, 0, 5], false);
    ensure!(steps_written(&p) == [0, 1, 2, 3, 10, 11, 12, 13, 14], "{:?}", steps_written(&p));
    p.run_and_check(device, Tile::Auto).map(drop)
}

/// Padded rows of the buffer: what lies between two rows belongs to others.
pub fn buffer_pitch_larger_than_a_row(device: &mut dyn Device) -> Result<()> {
    for (state, gap) in [(DType::F32, 4), (DType::Bf16, 8), (DType::F16, 1024)] {
        for layout in [Layout::Vk, Layout::Kv] {
            let mut p = kept(state, 3, 3, gap, Some(vec![2, 0, 1]), 156);
            p.pool.layout = layout;
            p.run_and_check(device, Tile::Auto)?;
        }
    }
    Ok(())
}

/// The buffer has every state, the one place that the call writes: no pool is updated, no output asked for.
pub fn buffer_is_all_that_is_written(device: &mut dyn Device) -> Result<()> {
    let mut p = kept(DType::F32, 3, 3, 0, None, 157);
    p.target = Target::Nowhere;
    p.out = None;
    p.run_and_check(device, Tile::Auto)?;
    // Not even a pool to start from: the buffer says what type the state has.
    for state in TYPES {
        let mut p = kept(state, 3, 3, 0, None, 158);
        p.fill_pool(0, 0);
        (p.source, p.target) = (Source::Zeros, Target::Nowhere);
        p.run_and_check(device, Tile::Auto)?;
    }
    Ok(())
}

/// Final states, states by token in slots and the buffer at once.
pub fn every_place_at_once(device: &mut dyn Device) -> Result<()> {
    for family in [Family::Gdn, Family::Kda] {
        let tokens = Tokens::packed(&[3, 1, 2], true);
        let mut p = Plain { family, ..Plain::new(SHAPE, tokens, DType::Bf16, 159) }.problem();
        p.keep_each_state(3);
        p.fill_pool(9, 160);
        let slots = vec![8, 1, 6, 3, 4, 5, 2, 7, 0];
        p.source = Source::Accepted { slots: slots.clone(), width: 3, accepted: vec![3, 1, 2] };
        p.target = Target::EachToken { slots, width: 3 };
        p.run_and_check(device, Tile::Auto)?;
        p.target = Target::Sequences { slots: 4, pitch: p.elements() + 8 };
        p.run_and_check(device, Tile::Auto)?;
    }
    Ok(())
}
