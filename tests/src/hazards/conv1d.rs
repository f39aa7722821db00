//! Conv1d update: padding, where data lies, and arithmetic. Drafts are in [`super::conv1d_drafts`].

use crate::device::Device;
use crate::neighbours::conv1d::{ConvProblem, OutPlace, PoolData};
use crate::neighbours::random::plain_conv;
use crate::problem::StartFlags;
use crate::random::Noise;
use crate::strided::{Strided, round};
use anyhow::{Context as _, Result, ensure};
use gdn_host::{DType, Tile};

const TYPES: [DType; 3] = [DType::F32, DType::Bf16, DType::F16];
/// More than a warp's strips of either size.
const DIM: usize = 264;

/// A batch of three with padding where `padded` says; the padded rows' inputs are NaN.
fn padded(padded: [bool; 3], index: i32, seed: u64) -> ConvProblem {
    let mut p = plain_conv(DIM, 4, 3, 1, DType::Bf16, seed);
    for n in (0..3).filter(|n| padded[*n]) {
        p.slot[n] = index;
        p.x.data[n * DIM..(n + 1) * DIM].fill(f32::NAN);
    }
    p
}

/// More slots than sequences, with states of their own.
pub(super) fn with_slots(p: &mut ConvProblem, slots: usize, len: usize, taps_contiguous: bool, seed: u64) {
    let values = Noise::new(seed).normals(slots * p.dim * len, 1.0);
    let state = values.iter().map(|&x| round(x, p.io())).collect();
    p.pool = PoolData::dense(state, slots, p.dim, len, taps_contiguous);
}

/// The same conv states in the other layout.
pub(super) fn relaid(p: &ConvProblem) -> ConvProblem {
    let (pool, mut other) = (&p.pool, p.clone());
    other.pool = PoolData::dense(pool.state.clone(), pool.slots, p.dim, pool.len, pool.tap_stride != 1);
    other
}

/// Row 0 is padding.
pub fn conv_padded_first_row_is_zero_and_slot_untouched(device: &mut dyn Device) -> Result<()> {
    padded([true, false, false], -1, 101).run_and_check(device).map(drop)
}

/// A row between two others is padding.
pub fn conv_padded_middle_row_is_zero_and_slot_untouched(device: &mut dyn Device) -> Result<()> {
    padded([false, true, false], -1, 102).run_and_check(device).map(drop)
}

/// The last row is padding, marked by the most negative index; its tokens are several.
pub fn conv_padded_last_row_is_zero_and_slot_untouched(device: &mut dyn Device) -> Result<()> {
    padded([false, false, true], i32::MIN, 103).run_and_check(device)?;
    let mut p = plain_conv(DIM, 4, 3, 3, DType::F16, 103);
    p.slot[2] = -1;
    p.run_and_check(device).map(drop)
}

/// vLLM's convention: slot 0 is nobody's.
pub fn conv_null_slot_is_padding(device: &mut dyn Device) -> Result<()> {
    let mut p = padded([true, false, false], 0, 104);
    p.null_slot = Some(0);
    let solution = p.run_and_check(device)?;
    ensure!(p.read_slots()[0].is_none(), "the problem has no padded row");
    let real = plain_conv(DIM, 4, 3, 1, DType::Bf16, 104).run_and_check(device)?;
    ensure!(real.state != solution.state, "slot 0 was not updated without a null slot");
    Ok(())
}

/// An index at or past the pool's size is a caller's error; it must not reach memory.
pub fn conv_index_past_the_pool_is_padding(device: &mut dyn Device) -> Result<()> {
    for index in [3, 4, 1 << 20, i32::MAX] {
        padded([false, true, false], index, 105).run_and_check(device)?;
    }
    Ok(())
}

/// N = 0: nothing to do is no error.
pub fn conv_of_no_sequence_at_all(device: &mut dyn Device) -> Result<()> {
    let solution = plain_conv(DIM, 4, 0, 1, DType::Bf16, 106).run_and_check(device)?;
    ensure!(solution.out.is_empty(), "an output without a sequence");
    Ok(())
}

/// Padded pages: what lies between two slots belongs to others, and so does what lies between channels or entries.
pub fn conv_pitch_larger_than_state(device: &mut dyn Device) -> Result<()> {
    for io in TYPES {
        // Gaps that keep vectors aligned, and gaps that do not.
        for (taps_contiguous, gap) in [(true, 8), (false, 8), (true, 1), (false, 1)] {
            let mut p = plain_conv(DIM, 4, 2, 1, io, 107);
            with_slots(&mut p, 4, 3, taps_contiguous, 107);
            p.slot = vec![3, 1];
            p.pool.pitch += gap;
            p.run_and_check(device)?;
            *if taps_contiguous { &mut p.pool.channel_stride } else { &mut p.pool.tap_stride } += gap;
            p.pool.pitch = p.pool.span(DIM) + gap;
            p.pool.offset = gap;
            p.run_and_check(device)?;
        }
    }
    Ok(())
}

/// `[slots, dim, L]` and `[slots, L, dim]` give the same bits, for L of a window and longer.
pub fn conv_state_layouts_give_the_same_bits(device: &mut dyn Device) -> Result<()> {
    for io in TYPES {
        for (tokens, len) in [(1, 3), (2, 3), (5, 3), (1, 4), (3, 7), (9, 5)] {
            let mut p = plain_conv(DIM, 4, 3, tokens, io, 108);
            with_slots(&mut p, 4, len, true, 108);
            p.slot = vec![2, 0, 3];
            let what = || format!("{}, {tokens} tokens, {len} entries", io.name());
            let by_channel = p.run_and_check(device).with_context(what)?;
            let by_tap = relaid(&p).run_and_check(device).with_context(what)?;
            ensure!(by_channel == by_tap, "the layouts give different bits: {}", what());
        }
    }
    Ok(())
}

/// Filters of two, three and four taps; the taps a narrow filter does not have must not count, whatever lies there.
pub fn conv_widths_2_to_4(device: &mut dyn Device) -> Result<()> {
    for io in TYPES {
        for (width, tokens) in [(2, 1), (2, 5), (3, 1), (3, 5), (4, 1), (4, 5)] {
            let mut p = plain_conv(DIM, width, 2, tokens, io, 109);
            if width < 4 && tokens == 5 {
                // Three tokens back and more an infinity does not reach.
                p.x.data[..DIM].fill(f32::INFINITY);
                let solution = p.run(device, Tile::Auto)?;
                let reached = &solution.out[DIM * width..DIM * tokens];
                ensure!(reached.iter().all(|x| x.is_finite()), "width {width} reaches too far back");
                p.x.data[..DIM].fill(0.5);
            }
            p.run_and_check(device).with_context(|| format!("{}, width {width}", io.name()))?;
            relaid(&p).run_and_check(device).with_context(|| format!("{}, width {width}", io.name()))?;
        }
    }
    Ok(())
}

/// With and without a bias, with and without SiLU.
pub fn conv_bias_and_silu_are_options(device: &mut dyn Device) -> Result<()> {
    let bias = Strided::dense(DType::F32, DIM, Noise::new(110).normals(DIM, 1.0));
    let mut seen: Vec<Vec<f32>> = Vec::new();
    for (bias, silu) in [(None, true), (None, false), (Some(&bias), true), (Some(&bias), false)] {
        let mut p = plain_conv(DIM, 4, 2, 2, DType::F32, 110);
        (p.bias, p.silu) = (bias.cloned(), silu);
        let out = p.run_and_check(device)?.out;
        ensure!(!seen.contains(&out), "an option without effect");
        seen.push(out);
    }
    Ok(())
}

/// Every type of inputs with every type of weights and bias.
pub fn conv_every_type_of_inputs_and_weights(device: &mut dyn Device) -> Result<()> {
    for io in TYPES {
        for (weight, bias) in TYPES.into_iter().zip([DType::Bf16, DType::F16, DType::F32]) {
            // A row of vectors, and one that is none.
            for dim in [DIM, 27] {
                let mut p = plain_conv(dim, 4, 2, 2, io, 111);
                p.weight = Strided::dense(weight, 4, p.weight.data);
                p.bias = Some(Strided::dense(bias, dim, Noise::new(112).normals(dim, 1.0)));
                let types = || format!("x {}, weight {}, bias {}", io.name(), weight.name(), bias.name());
                p.run_and_check(device).with_context(types)?;
            }
        }
    }
    Ok(())
}

/// Products rounded to the type of x, as Triton's: the rounding is there, and nothing else is rounded.
pub fn conv_products_rounded_to_the_type_of_inputs(device: &mut dyn Device) -> Result<()> {
    for io in [DType::Bf16, DType::F16] {
        let mut p = plain_conv(DIM, 4, 2, 2, io, 113);
        let exact = p.run_and_check(device)?;
        p.round_products = true;
        let rounded = p.run_and_check(device)?;
        ensure!(exact.out != rounded.out, "products were not rounded");
        ensure!(exact.state == rounded.state, "the state was rounded");
    }
    Ok(())
}

/// Rows with gaps and views at an offset, aligned and not.
pub fn conv_strides_and_offsets(device: &mut dyn Device) -> Result<()> {
    for io in TYPES {
        for (x, out) in
            [((8, 16), (16, 8)), ((3, 0), (0, 0)), ((0, 1), (0, 0)), ((8, 8), (8, 5)), ((0, 0), (7, 0))]
        {
            let mut p = plain_conv(DIM, 4, 3, 2, io, 114);
            (p.x.stride, p.x.offset) = (DIM + x.0, x.1);
            p.out = OutPlace::Own { stride: DIM + out.0, offset: out.1 };
            p.run_and_check(device).with_context(|| format!("{} x {x:?} out {out:?}", io.name()))?;
        }
    }
    Ok(())
}

/// Outputs that take the place of the inputs, as engines have it: the state keeps the raw inputs all the same.
pub fn conv_output_in_place_of_the_input(device: &mut dyn Device) -> Result<()> {
    for (io, len) in [(DType::F32, 3), (DType::Bf16, 3), (DType::F16, 6)] {
        for (tokens, gap) in [(1, 0), (4, 8), (4, 3)] {
            let mut p = plain_conv(DIM, 4, 2, tokens, io, 115);
            with_slots(&mut p, 2, len, false, 115);
            p.x.stride += gap;
            let apart = p.run_and_check(device)?;
            p.out = OutPlace::InPlace;
            let in_place = p.run_and_check(device)?;
            ensure!(apart == in_place, "in place gives other bits");
        }
    }
    Ok(())
}

/// The state moves to another slot, or is kept nowhere.
pub fn conv_separate_write_slots(device: &mut dyn Device) -> Result<()> {
    for (len, taps_contiguous) in [(3, true), (3, false), (5, false), (5, true)] {
        let mut p = plain_conv(DIM, 4, 3, 1, DType::Bf16, 116);
        with_slots(&mut p, 6, len, taps_contiguous, 116);
        (p.slot, p.write_slot) = (vec![3, 1, 2], Some(vec![0, 4, -1]));
        p.run_and_check(device)?;
        // A prefix that forks.
        (p.slot, p.write_slot) = (vec![3, 3, 3], Some(vec![0, 1, 99]));
        p.run_and_check(device)?;
    }
    Ok(())
}

/// A recycled slot holds NaN; a sequence that starts there must not see it.
pub fn conv_reset_ignores_what_the_slot_holds(device: &mut dyn Device) -> Result<()> {
    for len in [3, 5] {
        let mut p = plain_conv(DIM, 4, 3, 2, DType::Bf16, 117);
        with_slots(&mut p, 3, len, true, 117);
        p.pool.state[DIM * len..2 * DIM * len].fill(f32::NAN);
        p.start = StartFlags::Reset(vec![0, 9, 0]);
        let reset = p.run_and_check(device)?;
        ensure!(reset.out.iter().all(|x| x.is_finite()), "NaN reached the output");
        p.start = StartFlags::HasInitialState(vec![1, 0, 255]);
        ensure!(p.run_and_check(device)? == reset, "the two flags do not agree");
    }
    Ok(())
}

/// A slot that no row names holds NaN: no output may show it, and it must come out as it was.
pub fn conv_nan_in_unselected_slot(device: &mut dyn Device) -> Result<()> {
    for (io, taps_contiguous) in [(DType::F32, true), (DType::Bf16, false), (DType::F16, true)] {
        let mut p = plain_conv(DIM, 4, 2, 1, io, 118);
        with_slots(&mut p, 4, 3, taps_contiguous, 118);
        p.slot = vec![2, -1];
        for slot in [0, 1, 3] {
            p.pool.state[slot * DIM * 3..(slot + 1) * DIM * 3].fill(f32::NAN);
        }
        let solution = p.run_and_check(device)?;
        ensure!(solution.out.iter().all(|x| x.is_finite()), "NaN reached the output");
    }
    Ok(())
}

/// Large sums of either sign: SiLU is x or 0 there, not an infinity or NaN.
pub fn conv_large_sums_do_not_overflow_silu(device: &mut dyn Device) -> Result<()> {
    for (io, size) in [(DType::F32, 1e30), (DType::F32, 1e4), (DType::Bf16, 1e30), (DType::F16, 1e4)] {
        let mut p = plain_conv(DIM, 4, 1, 3, io, 119);
        p.x.data = Strided::dense(io, DIM, p.x.data.iter().map(|x| x.signum() * size).collect()).data;
        let solution = p.run_and_check(device)?;
        ensure!(solution.out.iter().all(|x| x.is_finite()), "a result is not finite");
        ensure!(solution.out.iter().any(|x| *x > 0.1 * size), "no sum is large");
    }
    Ok(())
}

/// More sequences than a grid has blocks along y, all but a few of them padding.
pub fn conv_grid_past_65535(device: &mut dyn Device) -> Result<()> {
    let (batch, dim) = (65_535 + 3, 8);
    let mut p = plain_conv(dim, 4, 4, 1, DType::Bf16, 120);
    let real = [0, 65_534, 65_535, batch - 1];
    let mut data = vec![0.0; batch * dim];
    for (row, n) in p.x.data.chunks(dim).zip(real) {
        data[n * dim..(n + 1) * dim].copy_from_slice(row);
    }
    (p.x.data, p.lens, p.slot) = (data, vec![1; batch], vec![-1; batch]);
    for (slot, n) in real.into_iter().enumerate() {
        p.slot[n] = slot as i32;
    }
    p.run_and_check(device).map(drop)
}

/// A slot whose first element lies past 2^31: 32-bit index arithmetic would wrap to another slot.
pub fn conv_pool_offset_past_2_31_elements(device: &mut dyn Device) -> Result<()> {
    for taps_contiguous in [true, false] {
        let mut p = plain_conv(8, 4, 3, 1, DType::Bf16, 121);
        with_slots(&mut p, 5, 3, taps_contiguous, 121);
        p.pool.pitch = (1 << 30) + 64;
        p.slot = vec![4, 2, 0];
        p.run_and_check(device)?;
    }
    Ok(())
}

/// The same sequence first, last, alone, and in blocks of any size.
pub fn conv_same_bits_for_every_block_and_place(device: &mut dyn Device) -> Result<()> {
    let mut p = plain_conv(DIM, 4, 5, 2, DType::Bf16, 122);
    p.slot = vec![3, 0, 4, 2, 1];
    let whole = p.run_and_check(device)?;
    for warps in [1, 2, 4, 8] {
        let same = p.run(device, Tile::Exact { rows: 0, warps })? == whole;
        ensure!(same, "blocks of {warps} warps give other bits");
    }
    for n in 0..5 {
        let rows = 2 * n * DIM..2 * (n + 1) * DIM;
        let mut one = p.clone();
        (one.lens, one.slot, one.x.data) = (vec![2], vec![p.slot[n]], p.x.data[rows.clone()].to_vec());
        ensure!(one.run(device, Tile::Auto)?.out == whole.out[rows], "row {n} alone has another output");
    }
    Ok(())
}
