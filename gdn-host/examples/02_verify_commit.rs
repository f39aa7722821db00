//! Drafts of three tokens, and the commit of those accepted: `cargo run --release -p gdn-host --example 02_verify_commit`
//!
//! `Recurrent` keeps the state after each token in a buffer and leaves the pool alone. When the sampler has said how many
//! tokens it takes, `CommitState` moves the state after the last of them to the pool.

mod common;

use common::{Gpu, Layer, SHAPE, STATE, VALUES, judge, pool, rows, states, table, tensor, wide};
use gdn_host::{
    CommitState, DType, Family, Gdn, Intermediate, Layout, ModuleKey, Recurrent, Source, Target, Tokens,
};

const DRAFT: usize = 3;

fn main() -> common::Outcome {
    let gpu = Gpu::open();
    let gdn = Gdn::load(&[
        ModuleKey::recurrent(Family::Gdn, Layout::Vk, DType::F32, DType::F32, SHAPE.k),
        ModuleKey::copy_state(),
    ])?;

    let slots = [2, 0];
    let (layer, before) = (Layer::new(Family::Gdn, slots.len() * DRAFT), states(3));
    let (inputs, state, slot_table) = (layer.upload(&gpu)?, gpu.upload(&before)?, gpu.upload(&slots)?);
    let out = gpu.empty(slots.len() * DRAFT * VALUES)?;
    let buffer = gpu.empty(slots.len() * DRAFT * STATE)?;
    let (batch, drafts) = (slots.len() as u32, DRAFT as u32);
    let intermediate = Intermediate::packed(buffer.address(), DType::F32, batch, drafts, &SHAPE);
    let tokens = Tokens::Each { batch, tokens: drafts };
    let source = Source::Slots { pool: pool(tensor(&state)), slots: table(&slot_table) };
    let verify =
        Recurrent::new(inputs.inputs(Family::Gdn), tokens, source, Target::Nowhere, rows(&out, VALUES))
            .with_intermediate(intermediate);
    // SAFETY: the buffers are live and as long as the call says, and nothing else works on them.
    unsafe { gdn.run(&verify, gpu.stream.as_stream())? };

    let steps: Vec<_> = slots
        .iter()
        .enumerate()
        .map(|(n, &slot)| layer.oracle(n * DRAFT..(n + 1) * DRAFT, &before[slot as usize * STATE..][..STATE]))
        .collect();
    let want_out: Vec<f64> = steps.iter().flatten().flat_map(|step| step.out.clone()).collect();
    judge("outputs", &gpu.download(&out)?, &want_out)?;
    judge("the pool, untouched", &gpu.download(&state)?, &wide(&before))?;

    // The sampler takes all three tokens of the first sequence, and one of the second.
    let accepted = [3, 1];
    let accepted_table = gpu.upload(&accepted)?;
    let commit = CommitState {
        shape: SHAPE,
        batch,
        intermediate,
        accepted: table(&accepted_table),
        state: pool(tensor(&state)),
        slots: Some(table(&slot_table)),
        null_slot: None,
    };
    // SAFETY: as above; both calls are queued on one stream.
    unsafe { gdn.run(&commit, gpu.stream.as_stream())? };

    let mut want_state = wide(&before);
    for ((draft, slot), accepted) in steps.iter().zip(slots).zip(accepted) {
        let last = &draft[accepted as usize - 1].state;
        want_state[slot as usize * STATE..][..STATE].copy_from_slice(last);
    }
    judge("the pool, committed", &gpu.download(&state)?, &want_state)?;
    Ok(())
}
