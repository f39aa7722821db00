//! Kimi delta attention, a decay for each key: `cargo run --release -p gdn-host --example 03_kda`
//!
//! The same calls as GDN with `Family::Kda`. Rows of `a` have HV * K elements, `dt_bias` is `[HV, K]`, and the gate of
//! Kimi-K3 has a lower bound.

mod common;

use common::{Gpu, Layer, SHAPE, VALUES, judge, pool, rows, states, tensor};
use gdn_host::{DType, Decode, Family, Gdn, Layout, ModuleKey};

fn main() -> common::Outcome {
    let gpu = Gpu::open();
    let gdn = Gdn::load(&[ModuleKey::decode(Family::Kda, Layout::Vk, DType::F32, DType::F32, SHAPE.k)])?;

    let (layer, before) = (Layer::new(Family::Kda, 1), states(1));
    let (inputs, state) = (layer.upload(&gpu)?, gpu.upload(&before)?);
    let out = gpu.empty(VALUES)?;
    let call = Decode::new(inputs.inputs(Family::Kda), 1, pool(tensor(&state)), rows(&out, VALUES));
    // SAFETY: the buffers are live and as long as the call says, and nothing else works on them.
    unsafe { gdn.run(&call, gpu.stream.as_stream())? };

    let step = layer.oracle(0..1, &before).remove(0);
    judge("output", &gpu.download(&out)?, &step.out)?;
    judge("state", &gpu.download(&state)?, &step.state)?;
    Ok(())
}
