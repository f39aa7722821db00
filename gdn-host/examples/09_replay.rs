//! Drafts without writing states, and a decode behind them: `cargo run --release -p gdn-host --example 09_replay`
//!
//! Each slot has a ring of records beside its state. A verification appends a record of each draft and leaves the state alone;
//! accepting drafts moves a cursor. What another process would be handed is the true state, records and all.

mod common;

use common::{Gpu, Layer, SHAPE, STATE, VALUES, judge, pool, rows, states, table, tensor, wide};
use gdn_host::{
    DType, Family, Gdn, RecordForm, ReplayAdvance, ReplayDecode, ReplayLayers, ReplayShape, ReplayState,
    ReplayVerify,
};

const SLOTS: u32 = 3;
const DRAFT: usize = 3;

fn main() -> common::Outcome {
    let gpu = Gpu::open();
    let form = RecordForm::new(SHAPE, Family::Gdn);
    let shape = ReplayShape::new(form, DType::F32, DType::F32, SLOTS, 8).with_drafts(DRAFT as u32);
    let gdn = Gdn::load(&shape.modules())?;

    // One layer: checkpoints, rings, cursors.
    let (slots, before) = ([2, 0], states(SLOTS as usize));
    let mut memory = before.clone();
    memory.resize(shape.layer_bytes() as usize / size_of::<f32>(), f32::NAN);
    let memory = gpu.upload(&memory)?;
    let list = [shape.layer_at(memory.address())];
    let layer_table = gpu.upload(&list[0].row())?;
    let (base, len) = (gpu.upload(&[0; SLOTS as usize])?, gpu.upload(&[0; SLOTS as usize])?);
    let replay = ReplayState::new(shape, list.to_vec(), layer_table.address(), table(&base), table(&len))?;

    // Three drafts for each of two sequences. The sampler takes two of the first, none of the second; then a token of each.
    let (batch, accepted) = (slots.len(), [2, 0]);
    let (drafts, token) = (Layer::new(Family::Gdn, batch * DRAFT), Layer::new(Family::Gdn, batch));
    let (draft_inputs, token_inputs) = (drafts.upload(&gpu)?, token.upload(&gpu)?);
    let (verified, decoded) = (gpu.empty(batch * DRAFT * VALUES)?, gpu.empty(batch * VALUES)?);
    let (slot_table, accepted_table) = (gpu.upload(&slots)?, gpu.upload(&accepted)?);
    let (count, pool_of_layer) = (batch as u32, replay.pool(0)?.with_slots(table(&slot_table)));
    let (inputs, out) = (draft_inputs.inputs(Family::Gdn), rows(&verified, VALUES));
    let verify = ReplayVerify::new(inputs, count, DRAFT as u32, pool_of_layer, out);
    let (inputs, out) = (token_inputs.inputs(Family::Gdn), rows(&decoded, VALUES));
    let decode = ReplayDecode::new(inputs, count, pool_of_layer, out);
    let stream = gpu.stream.as_stream();
    // SAFETY: the buffers are live and as long as the calls say, and nothing else works on them.
    unsafe {
        gdn.run(&verify, stream)?;
        gdn.run(&ReplayAdvance::behind_verify(&verify, table(&accepted_table)), stream)?;
        gdn.run(&decode, stream)?;
        gdn.run(&ReplayAdvance::behind_decode(&decode), stream)?;
    }

    let (mut want_verified, mut want_decoded, mut want_states) = (Vec::new(), Vec::new(), Vec::new());
    for (n, slot) in slots.into_iter().enumerate() {
        let start = &before[slot as usize * STATE..][..STATE];
        let steps = drafts.oracle(n * DRAFT..(n + 1) * DRAFT, start);
        want_verified.extend(steps.iter().flat_map(|step| step.out.clone()));
        let reached: Vec<f32> = match accepted[n] {
            0 => start.to_vec(),
            count => steps[count as usize - 1].state.iter().map(|x| *x as f32).collect(),
        };
        let step = token.oracle(n..n + 1, &reached).remove(0);
        want_decoded.extend(step.out);
        want_states.extend(step.state);
    }
    judge("outputs of drafts", &gpu.download(&verified)?, &want_verified)?;
    judge("outputs behind them", &gpu.download(&decoded)?, &want_decoded)?;
    let checkpoints = gpu.download(&memory)?;
    judge("the checkpoints, untouched", &checkpoints[..before.len()], &wide(&before))?;

    // The true states, as plain ones.
    let elsewhere = gpu.empty(batch * STATE)?;
    let targets = replay.layers_to(&[elsewhere.address()]);
    let target_table = gpu.upload(&targets[0].row())?;
    let layers = ReplayLayers { list: &targets, table: target_table.address() };
    let order = gpu.upload(&[0, 1])?;
    let target = pool(tensor(&elsewhere));
    let store = replay.store(count, table(&slot_table), layers, target, table(&order));
    // SAFETY: as above; all calls are queued on one stream.
    unsafe { gdn.run(&store, stream)? };
    judge("true states", &gpu.download(&elsewhere)?, &want_states)?;
    Ok(())
}
