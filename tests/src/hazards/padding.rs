//! Padded rows: batches are padded to the sizes CUDA graphs were captured for.

use crate::device::Device;
use crate::problem::{Problem, Source, Target};
use crate::random::plain;
use anyhow::{Context as _, Result, ensure};
use gdn_host::{DType, HeadShape, Layout, Tile};

const SHAPE: HeadShape = HeadShape { h: 1, hv: 2, k: 128, v: 128 };

/// A batch of three with padding where `padded` says; the padded rows' inputs are NaN.
fn padded(padded: [bool; 3], index: i32, seed: u64) -> Problem {
    let mut p = plain(SHAPE, 3, DType::F32, seed);
    p.source = Source::Slots((0..3).map(|n| if padded[n] { index } else { n as i32 }).collect());
    for n in (0..3).filter(|n| padded[*n]) {
        for x in [&mut p.q, &mut p.k, &mut p.v, &mut p.a, &mut p.b] {
            let width = x.width;
            x.data[n * width..(n + 1) * width].fill(f32::NAN);
        }
    }
    p
}

/// Row 0 is padding.
pub fn padded_first_row_is_zero_and_slot_untouched(device: &mut dyn Device) -> Result<()> {
    padded([true, false, false], -1, 1).run_and_check(device, Tile::Auto).map(drop)
}

/// A row between two others is padding.
pub fn padded_middle_row_is_zero_and_slot_untouched(device: &mut dyn Device) -> Result<()> {
    padded([false, true, false], -1, 2).run_and_check(device, Tile::Auto).map(drop)
}

/// The last row is padding, marked by the most negative index.
pub fn padded_last_row_is_zero_and_slot_untouched(device: &mut dyn Device) -> Result<()> {
    padded([false, false, true], i32::MIN, 3).run_and_check(device, Tile::Auto).map(drop)
}

/// Nothing but padding: the warm-up of a graph.
pub fn batch_of_padded_rows_only(device: &mut dyn Device) -> Result<()> {
    padded([true; 3], -1, 4).run_and_check(device, Tile::Auto).map(drop)
}

/// vLLM's convention: slot 0 is nobody's.
pub fn null_slot_is_padding(device: &mut dyn Device) -> Result<()> {
    let mut p = padded([true, false, false], 0, 5);
    p.null_slot = Some(0);
    let solution = p.run_and_check(device, Tile::Auto)?;
    ensure!(p.routes()[0].is_padding(), "the problem has no padded row");
    // Without the null slot, slot 0 is a slot like any other.
    let mut real = plain(SHAPE, 3, DType::F32, 5);
    real.null_slot = None;
    let other = real.run_and_check(device, Tile::Auto)?;
    ensure!(other.state != solution.state, "slot 0 was not decoded");
    Ok(())
}

/// An index at or past the pool's size is a caller's error; it must not reach memory.
pub fn index_past_the_pool_is_padding(device: &mut dyn Device) -> Result<()> {
    for index in [3, 4, 1 << 20, i32::MAX] {
        padded([false, true, false], index, 6).run_and_check(device, Tile::Auto)?;
    }
    Ok(())
}

/// A padded row whose write slot names a slot of the pool: nothing is stored there, whichever tile works on it. Small tiles
/// have no branch around what they work out of a padded row.
pub fn padded_row_with_a_write_slot_touches_nothing(device: &mut dyn Device) -> Result<()> {
    for (state, layout) in [(DType::F32, Layout::Vk), (DType::F32, Layout::Kv), (DType::Bf16, Layout::Vk)] {
        let mut p = padded([false, true, false], -1, 8);
        (p.pool.dtype, p.pool.layout) = (state, layout);
        p.fill_pool(5, 9);
        p.target = Target::Slots(vec![0, 3, 4]);
        let routes = p.routes();
        ensure!(routes[1].is_padding() && routes[1].stores.is_empty(), "the row is no padding");
        for tile in p.tiles() {
            p.run_and_check(device, tile).with_context(|| format!("{tile:?}, {layout:?}"))?;
        }
    }
    Ok(())
}

/// N = 0: nothing to do is no error.
pub fn no_sequence_at_all(device: &mut dyn Device) -> Result<()> {
    let p = plain(SHAPE, 0, DType::Bf16, 7);
    let solution = p.run_and_check(device, Tile::Auto)?;
    ensure!(solution.out.is_empty(), "an output without a sequence");
    Ok(())
}
