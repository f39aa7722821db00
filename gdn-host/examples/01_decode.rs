//! One token for each sequence, states in a pool: `cargo run --release -p gdn-host --example 01_decode`
//!
//! Sequences name the slots that their states are in. A negative slot marks a padded row, whose output is zeros.

mod common;

use common::{Gpu, Layer, SHAPE, STATE, VALUES, judge, pool, rows, states, table, tensor, wide};
use gdn_host::{DType, Decode, Family, Gdn, Layout, ModuleKey};

fn main() -> common::Outcome {
    let gpu = Gpu::open();
    // Once, before anything is launched: the kernels of this operation for these types.
    let gdn = Gdn::load(&[ModuleKey::decode(Family::Gdn, Layout::Vk, DType::F32, DType::F32, SHAPE.k)])?;

    let slots = [2, -1, 0];
    let (layer, before) = (Layer::new(Family::Gdn, slots.len()), states(3));
    let (inputs, state, slot_table) = (layer.upload(&gpu)?, gpu.upload(&before)?, gpu.upload(&slots)?);
    let out = gpu.empty(slots.len() * VALUES)?;
    let call =
        Decode::new(inputs.inputs(Family::Gdn), slots.len() as u32, pool(tensor(&state)), rows(&out, VALUES))
            .with_slots(table(&slot_table));
    // SAFETY: the buffers are live and as long as the call says, and nothing else works on them.
    unsafe { gdn.run(&call, gpu.stream.as_stream())? };

    let (mut want_out, mut want_state) = (Vec::new(), wide(&before));
    for (n, slot) in slots.into_iter().enumerate() {
        let Ok(slot) = usize::try_from(slot) else {
            want_out.extend([0.0; VALUES]);
            continue;
        };
        let at = slot * STATE..(slot + 1) * STATE;
        let step = layer.oracle(n..n + 1, &before[at.clone()]).remove(0);
        want_out.extend(step.out);
        want_state[at].copy_from_slice(&step.state);
    }
    judge("outputs", &gpu.download(&out)?, &want_out)?;
    judge("states", &gpu.download(&state)?, &want_state)?;
    Ok(())
}
