//! Decodes from cust's own buffers, on cust's own stream: once with kernels this crate loaded, once with the
//! same PTX loaded by cust. Needs a GPU, and a CUDA toolkit to link:
//! `cargo run --release -p gdn-host --features cust --example decode_cust`

mod common;

use common::{Host, Tensors};
use cust::memory::{CopyDestination, DeviceBuffer, DeviceCopy};
use cust::module::Module;
use cust::stream::{Stream, StreamFlags};
use gdn_host::interop::cust as interop;
use gdn_host::{DType, Family, Files, Gdn, Layout, ModuleKey, Tile, artifact};
use half::bf16;
use half::slice::HalfFloatSliceExt as _;
use half::vec::HalfBitsVecExt as _;

/// bf16 values as the bits cust copies; the element type is named again when the tensor is made.
fn upload<T: DeviceCopy>(values: &[T]) -> Result<DeviceBuffer<T>, cust::error::CudaError> {
    DeviceBuffer::from_slice(values)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let _context = cust::quick_init()?;
    let stream = Stream::new(StreamFlags::NON_BLOCKING, None)?;
    let key = ModuleKey::decode(Family::Gdn, Layout::Vk, DType::F32, DType::Bf16, common::SHAPE.k);
    let gdn = Gdn::load(&[key])?;

    let host = Host::new();
    let (q, k, v) = (
        upload(host.q.reinterpret_cast())?,
        upload(host.k.reinterpret_cast())?,
        upload(host.v.reinterpret_cast())?,
    );
    let (a, b) = (upload(host.a.reinterpret_cast())?, upload(host.b.reinterpret_cast())?);
    let (a_log, dt_bias, slots) = (upload(&host.a_log)?, upload(&host.dt_bias)?, upload(&host.slots)?);
    let (mut state, out) = (upload(&host.state)?, upload(host.out.reinterpret_cast())?);
    let call = common::call(&Tensors {
        q: interop::tensor_of(&q, DType::Bf16),
        k: interop::tensor_of(&k, DType::Bf16),
        v: interop::tensor_of(&v, DType::Bf16),
        a: interop::tensor_of(&a, DType::Bf16),
        b: interop::tensor_of(&b, DType::Bf16),
        a_log: interop::tensor(&a_log),
        dt_bias: interop::tensor(&dt_bias),
        state: interop::tensor(&state),
        slots: interop::table(&slots),
        out: interop::tensor_of(&out, DType::Bf16),
    });
    let judge = |what: &str, state: &DeviceBuffer<f32>| -> Result<(), cust::error::CudaError> {
        let (mut got_out, mut got_state) = (host.out.reinterpret_cast().to_vec(), host.state.clone());
        out.copy_to(&mut got_out)?;
        state.copy_to(&mut got_state)?;
        common::judge(what, &host, &got_out.reinterpret_into::<bf16>(), &got_state);
        Ok(())
    };

    // SAFETY: the tensors are live buffers of the current context, and the stream is waited for.
    unsafe { gdn.run(&call, interop::stream(&stream))? };
    stream.synchronize()?;
    judge("cust's buffers and stream", &state)?;

    let embedded = artifact::select(key, gdn.caps().compute).ok_or("no module for this device")?;
    let module = Module::from_ptx_cstr(embedded.contents(None, Files::Embedded)?.text(), &[])?;
    state.copy_from(&host.state)?;
    // SAFETY: as above; the module is the one for the call's types.
    unsafe { interop::run(&module, &call, gdn.caps(), Tile::Auto, &stream)? };
    stream.synchronize()?;
    judge("cust's module too", &state)?;
    Ok(())
}
