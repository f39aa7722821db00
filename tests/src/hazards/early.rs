//! Early launches: a kernel that starts before its predecessor has ended gives the bits of one that does not.

use crate::device::Device;
use crate::movement::Bytes;
use crate::movement::unpack::UnpackProblem;
use crate::neighbours::layer::{connect, gate_rows};
use crate::neighbours::random::{plain_conv, plain_norm};
use crate::problem::{Call, Problem, Solution, Source, Tokens};
use crate::random::{Plain, plain};
use crate::replay::{self, ReplayProblem};
use anyhow::{Result, bail, ensure};
use gdn_host::{DType, Family, HeadShape, Launch, Layout, Operation, ReplayAdvance, Tile};

const FAMILIES: [Family; 2] = [Family::Gdn, Family::Kda];
const LAYOUTS: [Layout; 2] = [Layout::Vk, Layout::Kv];

/// Steps in a row: each starts while the one before may still store the states that it reads.
const STEPS: usize = 12;

/// A problem's call, `STEPS` times on the same states.
fn steps(p: &Problem, device: &mut dyn Device, launch: Launch) -> Result<Solution> {
    device.reset();
    let placed = p.place(device)?;
    let calls: [&dyn Operation; STEPS] = [placed.call.operation(); STEPS];
    device.run_all(&calls, launch)?;
    p.collect(device, &placed)
}

fn same(p: &Problem, device: &mut dyn Device) -> Result<()> {
    let plain = steps(p, device, Launch::default())?;
    for tile in p.tiles() {
        let early = steps(p, device, Launch { tile, early: true })?;
        ensure!(early == plain, "{tile:?}, launched early, gives other bits; {p:?}");
    }
    Ok(())
}

/// Every type of state, both families and layouts, grids of one block to several a multiprocessor.
pub fn early_steps_in_a_row_give_the_bits_of_plain_ones(device: &mut dyn Device) -> Result<()> {
    for state in [DType::F32, DType::Bf16, DType::F16] {
        for (family, layout) in FAMILIES.into_iter().flat_map(|family| LAYOUTS.map(|layout| (family, layout)))
        {
            let shape = HeadShape { h: 1, hv: 2, k: 128, v: 128 };
            let plain = Plain::new(shape, Tokens::One { batch: 2 }, state, 71);
            let mut p = Plain { family, ..plain }.problem();
            p.pool.layout = layout;
            same(&p, device)?;
        }
    }
    Ok(())
}

/// A padded row's zeros are written, and nothing else of it.
pub fn early_padded_rows_stay_zero(device: &mut dyn Device) -> Result<()> {
    let mut p = plain(HeadShape { h: 1, hv: 1, k: 64, v: 64 }, 3, DType::F32, 72);
    p.source = Source::Slots(vec![0, -1, 2]);
    let launch = Launch { tile: Tile::Auto, early: true };
    ensure!(steps(&p, device, launch)? == steps(&p, device, Launch::default())?, "padded rows differ; {p:?}");
    Ok(())
}

/// The steps of a whole layer, every operation launched early behind the one whose output it reads: projections taken apart,
/// convolution, decode, norm. The states, and what every operation wrote last, have the bits of plain launches.
pub fn early_layer_steps_give_the_bits_of_plain_ones(device: &mut dyn Device) -> Result<()> {
    let (shape, batch, io) = (HeadShape { h: 2, hv: 4, k: 128, v: 128 }, 3, DType::Bf16);
    let dim = (2 * shape.key_elements() + shape.value_elements()) as usize;
    let mut unpack = UnpackProblem::plain(shape, io, io, batch, 73);
    // Numbers, where a problem that only moves bits has any.
    unpack.qkvz = Bytes::states(io, batch, unpack.qkvz.width, 74);
    unpack.ba = Bytes::states(io, batch, unpack.ba.width, 75);
    let conv = plain_conv(dim, 4, batch, 1, io, 76);
    let decode = plain(shape, batch, DType::F32, 77);
    let norm = plain_norm(shape.hv as usize, shape.v as usize, batch, io, io, 78);
    let mut run = |early: bool| {
        device.reset();
        let unpack = unpack.place(device)?;
        let (mut conv_call, mut norm_call) = (conv.place(device)?, norm.place(device)?);
        let mut placed = decode.place(device)?;
        let Call::Decode(call) = &mut placed.call else { bail!("one token is no decode") };
        conv_call.x = unpack.mixed_qkv;
        connect(&conv_call, &mut call.inputs, &call.out, &mut norm_call);
        let (a, b) = gate_rows(&mut call.inputs)?;
        (*a, *b, norm_call.z) = (unpack.a, unpack.b, unpack.z);
        let step: [&dyn Operation; 4] = [&unpack, &conv_call, call, &norm_call];
        device.run_all(&[step; STEPS].concat(), Launch { tile: Tile::Auto, early })?;
        let decoded = decode.collect(device, &placed)?;
        Ok((conv.collect(device, &conv_call)?, decoded, norm.collect(device, &norm_call)?))
    };
    let plain = run(false)?;
    ensure!(run(true)? == plain, "a layer's steps, launched early, give other bits");
    let is_number = |x: &[f32]| x.iter().all(|x| x.is_finite()) && x.iter().any(|x| *x != 0.0);
    ensure!(
        is_number(&plain.0.out) && is_number(&plain.1.out) && is_number(&plain.2.out),
        "an output says nothing"
    );
    Ok(())
}

/// Steps with records, drafts among them, each launched early behind the one that moved its cursors.
pub fn early_steps_with_records_give_the_bits_of_plain_ones(device: &mut dyn Device) -> Result<()> {
    for (family, tokens) in FAMILIES.into_iter().flat_map(|family| [(family, 1), (family, 3)]) {
        let shape = HeadShape { h: 1, hv: 2, k: 128, v: 128 };
        let each = if tokens == 1 { Tokens::One { batch: 3 } } else { Tokens::Each { batch: 3, tokens } };
        let plain = Plain { family, ..Plain::new(shape, each, DType::F32, 79) };
        let p = ReplayProblem::new(&plain, 8).with_windows(&[(0, 0), (5, 2), (7, 4)]);
        let mut run = |early: bool| {
            device.reset();
            let placed = p.place(device)?;
            let accepted = p.problem.tables.indices(device, &[1, 3, 0], 1)?;
            let advance = match &placed.call {
                replay::Call::Decode(call) => ReplayAdvance::behind_decode(call),
                replay::Call::Verify(call) => ReplayAdvance::behind_verify(call, accepted),
            };
            let step: [&dyn Operation; 2] = [placed.call.operation(), &advance];
            device.run_all(&[step; STEPS].concat(), Launch { tile: Tile::Auto, early })?;
            p.collect(device, &placed)
        };
        let plain = run(false)?;
        ensure!(run(true)? == plain, "{family:?}, {tokens} tokens: early launches give other bits");
    }
    Ok(())
}
