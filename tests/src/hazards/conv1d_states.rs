//! Conv1d update: types, lengths and slots of the conv state, tables of any type, and rows that are nobody's.

use super::conv1d::{relaid, with_slots};
use crate::device::Device;
use crate::neighbours::conv1d::{Chosen, ConvProblem, OutPlace, Packing, WindowData};
use crate::neighbours::random::plain_conv;
use crate::problem::StartFlags;
use crate::random::Noise;
use crate::strided::{Strided, decode_values, round};
use crate::table::TableForm;
use anyhow::{Context as _, Result, ensure};
use gdn_host::{DType, Entry};

const TYPES: [DType; 3] = [DType::F32, DType::Bf16, DType::F16];
const DIM: usize = 72;

/// The same problem with a conv state in f32, of values that no 16-bit type holds.
fn with_f32_state(p: &ConvProblem, seed: u64) -> ConvProblem {
    let mut p = p.clone();
    (p.state_type, p.window_type) = (DType::F32, DType::F32);
    p.pool.state = Noise::new(seed).normals(p.pool.state.len(), 1.0);
    p
}

fn windows(p: &ConvProblem, steps: usize) -> Option<WindowData> {
    Some(WindowData { rows: p.lens.len(), steps, pitch: steps * p.dim * (p.width - 1), row: None })
}

/// A state in f32 under inputs of 16 bits is read and kept as it is; windows go to a buffer of either type.
pub fn conv_f32_states_under_16_bit_inputs(device: &mut dyn Device) -> Result<()> {
    for io in [DType::Bf16, DType::F16] {
        for (dim, len, tokens) in [(DIM, 3, 1), (DIM, 3, 4), (DIM, 4, 2), (DIM, 7, 3), (33, 3, 2)] {
            let mut p = plain_conv(dim, 4, 2, tokens, io, 151);
            with_slots(&mut p, 3, len, true, 151);
            (p.slot, p.windows) = (vec![2, 0], windows(&p, tokens));
            let mut p = with_f32_state(&p, 152);
            for window_type in [DType::F32, io] {
                p.window_type = window_type;
                let what = || format!("{}, {dim} channels of {len} entries", io.name());
                let by_channel = p.run_and_check(device).with_context(what)?;
                ensure!(relaid(&p).run_and_check(device)? == by_channel, "other bits by tap: {}", what());
            }
        }
    }
    Ok(())
}

/// States of two entries to nine, in either layout, of filters of two to four taps: at once, token by token, in place, and
/// read only. Four entries are a layout of their own.
pub fn conv_states_of_every_length(device: &mut dyn Device) -> Result<()> {
    for (io, width) in [(DType::F32, 4), (DType::Bf16, 4), (DType::F16, 4), (DType::Bf16, 2), (DType::F32, 3)]
    {
        for len in width - 1..=9 {
            for tokens in [1, 2, 3, 6, 11] {
                let mut p = plain_conv(DIM, width, 2, tokens, io, 153);
                with_slots(&mut p, 3, len, true, 153);
                p.slot = vec![2, 0];
                let what = || format!("{}, width {width}, {len} entries, {tokens} tokens", io.name());
                let apart = p.run_and_check(device).with_context(what)?;
                p.out = OutPlace::InPlace;
                let same = relaid(&p).run_and_check(device).with_context(what)? == apart;
                ensure!(same, "other bits by tap and in place: {}", what());
                p.start = StartFlags::Reset(vec![1, 0]);
                p.run_and_check(device).with_context(what)?;
            }
        }
    }
    Ok(())
}

/// The state after token t goes to the t-th slot of the sequence's row, from where the next call starts; indices that name
/// none keep nothing, and so do tokens without a slot.
pub fn conv_a_slot_for_each_token(device: &mut dyn Device) -> Result<()> {
    for io in TYPES {
        for (width, len, by_tap) in [(4, 3, false), (4, 3, true), (4, 4, false), (4, 4, true), (2, 3, false)]
        {
            let mut p = plain_conv(DIM, width, 2, 3, io, 154);
            with_slots(&mut p, 9, len, true, 154);
            p.slot = vec![8, 7];
            p.token_slots = Some((vec![0, 1, 2, 3, -1, 5], 3));
            let p = if by_tap { relaid(&p) } else { p };
            let what = || format!("{}, width {width}, {len} entries", io.name());
            let drafted = p.run_and_check(device).with_context(what)?;
            // Two of the first sequence's drafts were accepted, of the second's one.
            let mut next = p.clone();
            next.pool.state = decode_values(&drafted.state, io);
            let (slots, _) = p.token_slots.clone().unwrap_or_default();
            next.chosen = Some(Chosen { slots, columns: 3, accepted: vec![2, 1] });
            let out = next.run_and_check(device).with_context(what)?.out;
            let mut plain = next.clone();
            (plain.chosen, plain.token_slots, plain.slot) = (None, None, vec![1, 3]);
            ensure!(
                plain.run_and_check(device)?.out == out,
                "other outputs from the slot itself: {}",
                what()
            );
            // Counts that choose none, and fewer slots than tokens.
            next.chosen = Some(Chosen { slots: vec![0, 1, 2, 3], columns: 2, accepted: vec![3, 0] });
            next.token_slots = Some((vec![4, 5], 1));
            next.run_and_check(device).with_context(what)?;
        }
    }
    Ok(())
}

/// Rows behind the last sequence's are written with zeros, however many, in place as well, and where every sequence is empty.
pub fn conv_rows_behind_the_last_sequence_are_zeros(device: &mut dyn Device) -> Result<()> {
    for (packing, io) in [(Packing::I32, DType::Bf16), (Packing::I64, DType::F32)] {
        for lens in [vec![2, 0, 1], vec![0, 0, 0], vec![1]] {
            for (padding, dim) in [(1, DIM), (11, DIM), (4, 27)] {
                let rows = lens.iter().sum::<usize>() + padding;
                let mut p = plain_conv(dim, 4, lens.len(), 1, io, 155);
                (p.lens, p.packing, p.padding) = (lens.clone(), packing, padding);
                p.x = Strided::dense(io, dim, Noise::new(155).normals(rows * dim, 1.0));
                let apart = p.run_and_check(device)?;
                p.out = OutPlace::InPlace;
                ensure!(p.run_and_check(device)? == apart, "in place gives other bits");
            }
        }
    }
    Ok(())
}

/// Tables of every type, with gaps between their rows: an index past 2^31 names no slot, whatever its lower half.
pub fn conv_tables_of_every_type_and_stride(device: &mut dyn Device) -> Result<()> {
    for index in [Entry::I32, Entry::U32, Entry::I64] {
        for (flag, gap) in [(Entry::U8, 0), (Entry::U8, 3), (Entry::I32, 2), (Entry::U32, 0)] {
            let mut p = plain_conv(DIM, 4, 3, 3, DType::Bf16, 156);
            with_slots(&mut p, 7, 5, true, 156);
            p.tables = TableForm { index, flag, gap };
            (p.slot, p.write_slot) = (vec![3, i32::MIN, 1], Some(vec![0, 2, 4]));
            p.start = StartFlags::HasInitialState(vec![1, 1, 0]);
            p.windows = windows(&p, 3);
            if let Some(windows) = &mut p.windows {
                windows.row = Some(vec![2, 1, i32::MIN]);
            }
            let what = || format!("{}, flags {}, gap {gap}", index.name(), flag.name());
            p.run_and_check(device).with_context(what)?;
            (p.accepted, p.packing) = (Some(vec![2, 1, i32::MIN]), Packing::I64);
            p.run_and_check(device).with_context(what)?;
            (p.accepted, p.packing) = (None, Packing::Each);
            p.parent = Some(vec![0, 0, i32::MIN, 0, 0, 1, 0, 0, 0]);
            p.run_and_check(device).with_context(what)?;
        }
    }
    Ok(())
}

/// Without a table sequence n's slot is n, the null slot as well.
pub fn conv_without_a_table_of_slots(device: &mut dyn Device) -> Result<()> {
    for len in [3, 4, 6] {
        let mut p = plain_conv(DIM, 4, 3, 2, DType::F16, 157);
        with_slots(&mut p, 4, len, true, 157);
        let by_table = p.run_and_check(device)?;
        (p.has_slots, p.null_slot) = (false, Some(1));
        ensure!(p.run_and_check(device)? == by_table, "other bits without a table");
    }
    Ok(())
}

/// What a 16-bit state cannot hold comes out of an f32 one as it went in, so the test above would see a rounding.
pub fn conv_f32_states_hold_more_than_16_bits(device: &mut dyn Device) -> Result<()> {
    let p = with_f32_state(&plain_conv(DIM, 4, 2, 1, DType::Bf16, 158), 158);
    ensure!(p.pool.state.iter().any(|&x| round(x, DType::Bf16) != x), "the state fits 16 bits");
    let exact = p.run_and_check(device)?;
    let mut rounded = p.clone();
    rounded.pool.state = p.pool.state.iter().map(|&x| round(x, DType::Bf16)).collect();
    ensure!(rounded.run_and_check(device)?.state != exact.state, "the state was rounded");
    Ok(())
}
