//! Decodes from cudarc's own buffers on cudarc's own stream. Needs a GPU:
//! `cargo run --release -p gdn-host --features cudarc --example decode_cudarc`

mod common;

use common::{Host, Tensors};
use cudarc::driver::CudaContext;
use gdn_host::interop::cudarc as interop;
use gdn_host::{DType, Family, Gdn, Layout, ModuleKey};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let context = CudaContext::new(0)?;
    let stream = context.new_stream()?;
    // The context is current on this thread now, which is all that loading asks for.
    let gdn =
        Gdn::load(&[ModuleKey::decode(Family::Gdn, Layout::Vk, DType::F32, DType::Bf16, common::SHAPE.k)])?;

    let host = Host::new();
    let (q, k, v) = (stream.clone_htod(&host.q)?, stream.clone_htod(&host.k)?, stream.clone_htod(&host.v)?);
    let (a, b) = (stream.clone_htod(&host.a)?, stream.clone_htod(&host.b)?);
    let (a_log, dt_bias) = (stream.clone_htod(&host.a_log)?, stream.clone_htod(&host.dt_bias)?);
    let slots = stream.clone_htod(&host.slots)?;
    let mut state = stream.clone_htod(&host.state)?;
    let mut out = stream.clone_htod(&host.out)?;
    {
        // Each guard lives until the launch was made.
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
        let call = common::call(&Tensors { q, k, v, a, b, a_log, dt_bias, state, slots, out });
        // SAFETY: the tensors are live buffers of the current context, borrowed until here.
        unsafe { gdn.run(&call, interop::stream(&stream))? };
    }
    let (out, state) = (stream.clone_dtoh(&out)?, stream.clone_dtoh(&state)?);
    stream.synchronize()?;
    common::judge("cudarc", &host, &out, &state);
    Ok(())
}
