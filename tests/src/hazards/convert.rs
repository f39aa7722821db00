//! Conversions of states between the layouts.

use crate::device::Device;
use crate::movement::convert::{ConvertProblem, other};
use crate::movement::copy::state_pool;
use crate::movement::{Bytes, TILES, TYPES, place_decode, place_inputs};
use crate::table::TableForm;
use anyhow::{Context as _, Result, ensure};
use gdn_host::{ConvertLayout, DType, HeadShape, Layout, StatePool, Tile};

const SHAPE: HeadShape = HeadShape { h: 1, hv: 2, k: 64, v: 128 };
const LAYOUTS: [Layout; 2] = [Layout::Vk, Layout::Kv];

/// K and V each 64 or 128, with an odd number of heads.
fn shapes() -> [HeadShape; 4] {
    [(64, 64), (64, 128), (128, 64), (128, 128)].map(|(k, v)| HeadShape { h: 1, hv: 3, k, v })
}

/// Every type, layout, K and V, and every block.
pub fn conversion_moves_every_element_to_its_place(device: &mut dyn Device) -> Result<()> {
    for (shape, dtype) in shapes().into_iter().flat_map(|shape| TYPES.map(|dtype| (shape, dtype))) {
        for (layout, tile) in LAYOUTS.into_iter().flat_map(|layout| TILES.map(|tile| (layout, tile))) {
            let p = ConvertProblem::plain(shape, dtype, layout, 2, 331);
            let text = || format!("{} from {layout:?}, {shape:?}, {tile:?}", dtype.name());
            p.run_and_check(device, tile).with_context(text)?;
        }
    }
    Ok(())
}

/// The conversion of every slot of one pool to another one.
fn convert(shape: HeadShape, source: StatePool, target: StatePool) -> ConvertLayout {
    ConvertLayout {
        shape,
        copies: source.slots,
        source,
        source_slots: None,
        target,
        target_slots: None,
        null_slot: None,
    }
}

/// VK -> KV -> VK, NaN patterns included.
pub fn conversion_there_and_back_is_the_identity(device: &mut dyn Device) -> Result<()> {
    for (shape, dtype) in shapes().into_iter().flat_map(|shape| TYPES.map(|dtype| (shape, dtype))) {
        device.reset();
        let elements = shape.state_elements() as usize;
        let before = Bytes::random(dtype, 2, elements, 332);
        let empty = Bytes::unwritten(dtype, 2, elements);
        let vk = state_pool(&before.place_pool(device)?, Layout::Vk);
        let kv = state_pool(&empty.place_pool(device)?, Layout::Kv);
        let back = state_pool(&empty.place_pool(device)?, Layout::Vk);
        device.run(&convert(shape, vk, kv), Tile::Auto)?;
        device.run(&convert(shape, kv, back), Tile::Auto)?;
        before.check(device, back.tensor.address, "state").with_context(|| format!("{shape:?}"))?;
    }
    Ok(())
}

/// Padding and indices past the pool, on either side, between copies that are done.
pub fn conversion_with_an_index_that_names_nothing(device: &mut dyn Device) -> Result<()> {
    for index in [-1, i32::MIN, 3, i32::MAX] {
        let mut p = ConvertProblem::plain(SHAPE, DType::Bf16, Layout::Vk, 3, 333);
        (p.source_slots, p.target_slots) = (Some(vec![0, index, 2]), Some(vec![1, 0, 2]));
        p.run_and_check(device, Tile::Auto).with_context(|| format!("source {index}"))?;
        (p.source_slots, p.target_slots) = (Some(vec![0, 1, 2]), Some(vec![1, 0, index]));
        p.run_and_check(device, Tile::Auto).with_context(|| format!("target {index}"))?;
    }
    Ok(())
}

/// Slot 0 is nobody's, on either side; without a table, numbers are slots.
pub fn conversion_with_a_null_slot(device: &mut dyn Device) -> Result<()> {
    let mut p = ConvertProblem::plain(SHAPE, DType::F32, Layout::Kv, 3, 334);
    (p.source_slots, p.target_slots) = (Some(vec![0, 1, 2]), Some(vec![2, 0, 1]));
    p.null_slot = Some(0);
    p.run_and_check(device, Tile::Auto)?;
    p.source_slots = None;
    p.run_and_check(device, Tile::Auto)
}

/// Padded pages on both sides, each with a pitch of its own.
pub fn conversion_pitches_that_differ(device: &mut dyn Device) -> Result<()> {
    for (dtype, layout) in TYPES.into_iter().flat_map(|dtype| LAYOUTS.map(|layout| (dtype, layout))) {
        let mut p = ConvertProblem::plain(SHAPE, dtype, layout, 3, 335);
        p.source = p.source.spaced(8, 16);
        p.target = p.target.spaced(2048, 8);
        p.target_slots = Some(vec![2, 0, 1]);
        p.run_and_check(device, Tile::Auto)?;
    }
    Ok(())
}

/// Slots that start past 2^31 and 2^32 elements, on either side.
pub fn conversion_offset_past_2_31_elements(device: &mut dyn Device) -> Result<()> {
    let shape = HeadShape { hv: 1, ..SHAPE };
    for dtype in [DType::F32, DType::Bf16] {
        let plain = ConvertProblem::plain(shape, dtype, Layout::Vk, 5, 336);
        let mut p = plain.clone();
        p.source = p.source.spaced(1 << 30, 0);
        p.run_and_check(device, Tile::Auto)?;
        let mut p = plain;
        p.target = p.target.spaced(1 << 30, 0);
        p.run_and_check(device, Tile::Auto)?;
    }
    Ok(())
}

/// More copies than a grid has blocks along y, all but a few of them padding.
pub fn conversions_past_65535(device: &mut dyn Device) -> Result<()> {
    let copies = 65_535 + 3;
    let shape = HeadShape { h: 1, hv: 1, k: 64, v: 64 };
    let mut p = ConvertProblem::plain(shape, DType::Bf16, Layout::Vk, 4, 337);
    p.copies = copies;
    let (mut from, mut to) = (vec![1; copies], vec![-1; copies]);
    for (slot, n) in [0, 65_534, 65_535, copies - 1].into_iter().enumerate() {
        (from[n], to[n]) = (slot as i32, 3 - slot as i32);
    }
    (p.source_slots, p.target_slots) = (Some(from), Some(to));
    p.run_and_check(device, Tile::Auto)
}

/// No copy is no error.
pub fn no_conversion_at_all(device: &mut dyn Device) -> Result<()> {
    let mut p = ConvertProblem::plain(SHAPE, DType::F32, Layout::Vk, 2, 338);
    p.copies = 0;
    p.run_and_check(device, Tile::Auto)
}

/// Converting and decoding commute, bit for bit: a state may change its layout between any two tokens.
pub fn decode_after_conversion_equals_conversion_after_decode(device: &mut dyn Device) -> Result<()> {
    let (rows, slots) = ([2, 0, -1], 3);
    for (shape, dtype) in shapes().into_iter().flat_map(|shape| TYPES.map(|dtype| (shape, dtype))) {
        for layout in LAYOUTS {
            device.reset();
            let io = if dtype == DType::F32 { DType::Bf16 } else { dtype };
            let (elements, values) = (shape.state_elements() as usize, shape.value_elements() as usize);
            let inputs = place_inputs(device, shape, io, rows.len(), 339)?;
            let before = Bytes::states(dtype, slots, elements, 340);
            let empty = Bytes::unwritten(dtype, slots, elements);
            let here = state_pool(&before.place_pool(device)?, layout);
            let mut there = || anyhow::Ok(state_pool(&empty.place_pool(device)?, other(layout)));
            let (first, after) = (there()?, there()?);

            device.run(&convert(shape, here, first), Tile::Auto)?;
            let decode_there = place_decode(device, &inputs, first, &rows)?;
            device.run(&decode_there, Tile::Auto)?;
            let decode_here = place_decode(device, &inputs, here, &rows)?;
            device.run(&decode_here, Tile::Auto)?;
            device.run(&convert(shape, here, after), Tile::Auto)?;

            let text = || format!("{} from {layout:?}, {shape:?}", dtype.name());
            let read = |address, elements: usize, dtype: DType| {
                device.read(address, (elements * dtype.size()) as u64)
            };
            let state = |pool: StatePool| read(pool.tensor.address, slots * elements, dtype);
            ensure!(state(here)? != before.data, "decoding changed nothing");
            ensure!(state(first)? == state(after)?, "{}: the states have other bits", text());
            let out = |rows: gdn_host::Rows| read(rows.tensor.address, 3 * values, io);
            ensure!(out(decode_here.out)? == out(decode_there.out)?, "{}: the outputs differ", text());
        }
    }
    Ok(())
}

/// Tables of every type, with gaps between their rows: an index past 2^31 names no slot, whatever its lower half.
pub fn conversion_tables_of_every_type_and_stride(device: &mut dyn Device) -> Result<()> {
    for seed in [0, 1, 2, 9, 10, 20] {
        let mut p = ConvertProblem::plain(SHAPE, DType::Bf16, Layout::Vk, 3, 330);
        p.tables = TableForm::drawn(seed);
        (p.source_slots, p.target_slots) = (Some(vec![2, 0, i32::MIN]), Some(vec![1, i32::MIN, 0]));
        p.run_and_check(device, Tile::Auto).with_context(|| format!("conversions by {:?}", p.tables))?;
    }
    Ok(())
}
