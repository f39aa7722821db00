//! Decode from cudarc's own buffers on cudarc's own stream:
//! `cargo run --release -p gdn-host --features cudarc --example 07_cudarc`
//!
//! The application chooses cudarc's CUDA version. Guards are kept until the launch is made.

mod common;

use common::{Handles, Layer, SHAPE, VALUES, judge, pool, states};
use cudarc::driver::CudaContext;
use gdn_host::interop::cudarc as interop;
use gdn_host::{DType, Decode, Family, Gdn, Layout, ModuleKey, Rows};

fn main() -> common::Outcome {
    // Says in one sentence what is missing; cudarc would panic without a driver.
    drop(common::Gpu::open());
    let context = CudaContext::new(0)?;
    let stream = context.new_stream()?;
    // The context is current on this thread now, which is all that loading asks for.
    let gdn = Gdn::load(&[ModuleKey::decode(Family::Gdn, Layout::Vk, DType::F32, DType::F32, SHAPE.k)])?;

    let (layer, before) = (Layer::new(Family::Gdn, 1), states(1));
    let (q, k, v) =
        (stream.clone_htod(&layer.q)?, stream.clone_htod(&layer.k)?, stream.clone_htod(&layer.v)?);
    let (a, b) = (stream.clone_htod(&layer.a)?, stream.clone_htod(&layer.b)?);
    let (a_log, dt_bias) = (stream.clone_htod(&layer.a_log)?, stream.clone_htod(&layer.dt_bias)?);
    let slots = stream.clone_htod(&[0_i32])?;
    let mut state = stream.clone_htod(&before)?;
    let mut out = stream.alloc_zeros::<f32>(VALUES)?;
    {
        let (q, _q) = interop::tensor(&q, &stream);
        let (k, _k) = interop::tensor(&k, &stream);
        let (v, _v) = interop::tensor(&v, &stream);
        let (a, _a) = interop::tensor(&a, &stream);
        let (b, _b) = interop::tensor(&b, &stream);
        let (a_log, _l) = interop::tensor(&a_log, &stream);
        let (dt_bias, _d) = interop::tensor(&dt_bias, &stream);
        let (slots, _s) = interop::table(&slots, &stream);
        let (state, _h) = interop::tensor_mut(&mut state, &stream);
        let (out, _o) = interop::tensor_mut(&mut out, &stream);
        let call = Decode::new(
            Handles { q, k, v, a, b, a_log, dt_bias }.inputs(Family::Gdn),
            1,
            pool(state),
            Rows { tensor: out, stride: VALUES as u64 },
        )
        .with_slots(slots);
        // SAFETY: the tensors are live buffers of the current context, borrowed until here.
        unsafe { gdn.run(&call, interop::stream(&stream))? };
    }
    let (out, state) = (stream.clone_dtoh(&out)?, stream.clone_dtoh(&state)?);
    stream.synchronize()?;
    let step = layer.oracle(0..1, &before).remove(0);
    judge("output", &out, &step.out)?;
    judge("state", &state, &step.state)?;
    Ok(())
}
