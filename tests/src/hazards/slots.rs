//! Which slot is read, which is written, and what must not leak from others.

use crate::device::Device;
use crate::problem::{Problem, Source, StartFlags, Target};
use crate::random::plain;
use anyhow::{Result, ensure};
use gdn_host::{DType, HeadShape, Tile};

const SHAPE: HeadShape = HeadShape { h: 1, hv: 2, k: 128, v: 64 };

/// A problem with more slots than sequences.
fn with_slots(batch: usize, slots: usize, state: DType, seed: u64) -> Problem {
    let mut p = plain(SHAPE, batch, state, seed);
    p.fill_pool(slots, seed + 1);
    p
}

/// Copy-on-write: the state moves to another slot and the old one stays.
pub fn separate_write_slots_leave_read_slots_alone(device: &mut dyn Device) -> Result<()> {
    let mut p = with_slots(2, 5, DType::F32, 11);
    (p.source, p.target) = (Source::Slots(vec![3, 1]), Target::Slots(vec![0, 4]));
    p.run_and_check(device, Tile::Auto).map(drop)
}

/// A write index of padding: the output counts, the state is not kept.
pub fn write_slot_that_names_nothing_keeps_nothing(device: &mut dyn Device) -> Result<()> {
    let mut p = with_slots(3, 4, DType::Bf16, 12);
    (p.source, p.target) = (Source::Slots(vec![3, 1, 0]), Target::Slots(vec![-1, 99, 2]));
    let solution = p.run_and_check(device, Tile::Auto)?;
    ensure!(solution.out.iter().any(|x| *x != 0.0), "the output is missing");
    p.null_slot = Some(2);
    p.run_and_check(device, Tile::Auto).map(drop)
}

/// Sequences that fork from one prefix read one slot and write their own.
pub fn one_read_slot_for_many_sequences(device: &mut dyn Device) -> Result<()> {
    let mut p = with_slots(3, 4, DType::F32, 13);
    (p.source, p.target) = (Source::Slots(vec![3, 3, 3]), Target::Slots(vec![0, 1, 2]));
    p.run_and_check(device, Tile::Auto).map(drop)
}

/// A recycled slot holds NaN; a sequence that starts there must not see it.
pub fn reset_ignores_what_the_slot_holds(device: &mut dyn Device) -> Result<()> {
    let mut p = with_slots(3, 3, DType::F32, 14);
    let elements = SHAPE.state_elements() as usize;
    p.pool.data[elements..2 * elements].fill(f32::NAN);
    p.start = StartFlags::Reset(vec![0, 1, 0]);
    p.run_and_check(device, Tile::Auto).map(drop)
}

/// The flag of engines that store the opposite.
pub fn has_initial_state_is_reset_inverted(device: &mut dyn Device) -> Result<()> {
    let mut p = with_slots(3, 3, DType::Bf16, 15);
    p.start = StartFlags::HasInitialState(vec![0, 255, 0]);
    let inverted = p.run_and_check(device, Tile::Auto)?;
    p.start = StartFlags::Reset(vec![7, 0, 1]);
    let reset = p.run_and_check(device, Tile::Auto)?;
    ensure!(inverted == reset, "the two flags do not agree");
    Ok(())
}

/// A slot that no row names holds NaN: no output may show it, and it must come out as it was.
pub fn nan_in_unselected_slot(device: &mut dyn Device) -> Result<()> {
    for state in [DType::F32, DType::Bf16, DType::F16] {
        let mut p = with_slots(2, 4, state, 16);
        let elements = SHAPE.state_elements() as usize;
        p.source = Source::Slots(vec![2, -1]);
        for slot in [0, 1, 3] {
            p.pool.data[slot * elements..(slot + 1) * elements].fill(f32::NAN);
        }
        let solution = p.run_and_check(device, Tile::Auto)?;
        ensure!(solution.out.iter().all(|x| x.is_finite()), "NaN reached the output");
    }
    Ok(())
}

/// Padded pages: what lies between two slots belongs to others.
pub fn pitch_larger_than_state(device: &mut dyn Device) -> Result<()> {
    for (state, gap) in [(DType::F32, 4), (DType::Bf16, 8), (DType::F16, 1024)] {
        let mut p = with_slots(2, 3, state, 17);
        p.pool.pitch += gap;
        p.source = Source::Slots(vec![2, 0]);
        p.run_and_check(device, Tile::Auto)?;
    }
    Ok(())
}
