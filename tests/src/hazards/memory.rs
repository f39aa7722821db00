//! Where data lies: strides, offsets, types, and sizes past 16 and 32 bits.

use crate::device::Device;
use crate::problem::{Intermediate, Out, Problem, Source, Tokens};
use crate::random::{Plain, draft, plain};
use crate::strided::round;
use anyhow::{Context as _, Result, ensure};
use gdn_host::{DType, Family, HeadShape, Layout, Tile};

const SHAPE: HeadShape = HeadShape { h: 2, hv: 4, k: 64, v: 64 };
const TYPES: [DType; 3] = [DType::F32, DType::Bf16, DType::F16];

/// A decode of three sequences, and a call of two whose tokens are three.
fn three_rows(state: DType, seed: u64) -> [Problem; 2] {
    let tokens = [Tokens::One { batch: 3 }, Tokens::packed(&[2, 1], false)];
    tokens.map(|tokens| Plain::new(SHAPE, tokens, state, seed).problem())
}

/// Rows with gaps, each input with a gap of its own.
pub fn token_strides_larger_than_rows(device: &mut dyn Device) -> Result<()> {
    for mut p in three_rows(DType::F32, 21) {
        p.q.stride += 8;
        p.k.stride += 64;
        p.v.stride += 3;
        p.a.stride += 1;
        p.b.stride += 5;
        p.out = p.out.map(|out| Out { stride: out.stride + 7, ..out });
        p.run_and_check(device, Tile::Auto)?;
    }
    Ok(())
}

/// Views into wider rows: `ba` holds b and a side by side, and v starts at an odd element.
pub fn views_at_an_offset(device: &mut dyn Device) -> Result<()> {
    for mut p in three_rows(DType::Bf16, 22) {
        let hv = SHAPE.hv as usize;
        (p.b.stride, p.a.stride, p.a.offset) = (2 * hv, 2 * hv, hv);
        (p.v.offset, p.v.stride) = (5, p.v.width + 11);
        (p.q.offset, p.q.stride) = (8, p.q.width + 8);
        p.run_and_check(device, Tile::Auto)?;
    }
    Ok(())
}

/// `mixed_qkv` with filler behind each row.
pub fn packed_row_of_q_k_and_v(device: &mut dyn Device) -> Result<()> {
    for mut p in three_rows(DType::F32, 23) {
        let dense = p.run_and_check(device, Tile::Auto)?;
        p.packed_stride = Some(p.q.width + p.k.width + p.v.width + 16);
        p.q.offset = 8;
        let packed = p.run_and_check(device, Tile::Auto)?;
        ensure!(packed == dense, "the packed form gives other bits");
    }
    Ok(())
}

/// An f32 output of 16-bit inputs rounds to what the 16-bit output holds.
pub fn output_in_f32(device: &mut dyn Device) -> Result<()> {
    let problems = [DType::Bf16, DType::F16].map(|io| three_rows(DType::F32, 24).map(|p| (p, io)));
    for (mut p, io) in problems.into_iter().flatten() {
        p.retype_inputs(io);
        p.out = p.out.map(|out| Out { dtype: io, ..out });
        let narrow = p.run_and_check(device, Tile::Auto)?;
        p.out = p.out.map(|out| Out { dtype: DType::F32, ..out });
        let wide = p.run_and_check(device, Tile::Auto)?;
        let rounded = wide.out.iter().map(|&x| round(x, io));
        ensure!(rounded.eq(narrow.out.iter().copied()), "rounding differs from the 16-bit output");
        ensure!(wide.out != narrow.out, "the f32 output was rounded");
    }
    Ok(())
}

/// Every state type with every input type, one token and several, GDN and KDA.
pub fn every_pair_of_types(device: &mut dyn Device) -> Result<()> {
    let shape = HeadShape { k: 128, ..SHAPE };
    let kinds = [Family::Gdn, Family::Kda]
        .map(|f| [(f, Tokens::One { batch: 2 }), (f, Tokens::Each { batch: 1, tokens: 2 })]);
    for (family, tokens) in kinds.into_iter().flatten() {
        for (state, io) in TYPES.into_iter().flat_map(|state| TYPES.map(|io| (state, io))) {
            let p = Plain { family, io, ..Plain::new(shape, tokens.clone(), state, 25) }.problem();
            let pair = || format!("{family:?}, state {}, inputs {}", state.name(), io.name());
            p.run_and_check(device, Tile::Auto).with_context(pair)?;
        }
    }
    Ok(())
}

/// K and V of published models and between them, in both layouts; values of 96, 160 and 192 rows are tiles of no power of two.
pub fn every_head_dimension(device: &mut dyn Device) -> Result<()> {
    let dims = [
        (64, 64),
        (64, 128),
        (64, 96),
        (128, 64),
        (128, 128),
        (128, 32),
        (128, 160),
        (96, 192),
        (96, 64),
        (256, 512),
        (256, 96),
    ];
    for (k, v) in dims {
        let states = if matches!(k, 64 | 128) { &TYPES[..] } else { &[DType::F32, DType::Bf16] };
        for (&state, layout) in states.iter().flat_map(|state| [(state, Layout::Vk), (state, Layout::Kv)]) {
            let tokens = Tokens::One { batch: 2 };
            let p =
                Plain { layout, ..Plain::new(HeadShape { h: 1, hv: 2, k, v }, tokens, state, 26) }.problem();
            let shape = || format!("state {}, {layout:?}, {k}x{v}", state.name());
            p.run_and_check(device, Tile::Auto).with_context(shape)?;
        }
    }
    Ok(())
}

/// More sequences than a grid has blocks along y, all but a few of them padding.
pub fn grid_past_65535(device: &mut dyn Device) -> Result<()> {
    let batch = 65_535 + 3;
    let shape = HeadShape { h: 1, hv: 1, k: 64, v: 64 };
    let mut p = plain(shape, 4, DType::F32, 27);
    let real = [0, 65_534, 65_535, batch - 1];
    for x in [&mut p.q, &mut p.k, &mut p.v, &mut p.a, &mut p.b] {
        let mut data = vec![0.0; batch * x.width];
        for (i, row) in x.data.chunks(x.width).enumerate() {
            data[real[i] * x.width..][..x.width].copy_from_slice(row);
        }
        x.data = data;
    }
    p.tokens = Tokens::One { batch };
    let mut slots = vec![-1; batch];
    for (slot, n) in real.into_iter().enumerate() {
        slots[n] = slot as i32;
    }
    p.source = Source::Slots(slots);
    p.run_and_check(device, Tile::Rows(64)).map(drop)
}

/// A slot whose first element lies past 2^31: 32-bit index arithmetic would wrap to another slot.
pub fn pool_offset_past_2_31_elements(device: &mut dyn Device) -> Result<()> {
    let shape = HeadShape { h: 1, hv: 1, k: 64, v: 64 };
    for state in [DType::F32, DType::Bf16] {
        let mut p = plain(shape, 3, state, 28);
        // Slot 2 starts at 2^31 + 128, slot 4 at 2^32 + 256.
        p.fill_pool(5, 29);
        p.pool.pitch = (1 << 30) + 64;
        p.source = Source::Slots(vec![4, 2, 0]);
        p.run_and_check(device, Tile::Auto)?;
    }
    Ok(())
}

/// The same of a buffer of states.
pub fn buffer_offset_past_2_31_elements(device: &mut dyn Device) -> Result<()> {
    let mut p = draft(HeadShape { h: 1, hv: 1, k: 64, v: 64 }, 2, 2, DType::Bf16, 30);
    let pitch = (1 << 30) + 64;
    p.intermediate =
        Some(Intermediate { dtype: None, rows: 5, steps: 2, pitch, row: Some(vec![4, 2]), parent: None });
    p.run_and_check(device, Tile::Auto).map(drop)
}
