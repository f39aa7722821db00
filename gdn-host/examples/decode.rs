//! Decodes with nothing but this crate, whose `driver` module holds context, buffers and stream: once launched, once replayed as
//! a graph of the launch. Needs a GPU and its driver: `cargo run --release -p gdn-host --example decode`

mod common;

use bytemuck::{Pod, cast_slice, pod_read_unaligned};
use common::{Host, Tensors};
use gdn_host::driver::{Context, DeviceBuffer, DriverError, Graph, OwnedStream};
use gdn_host::{DType, Family, Gdn, Launch, Layout, ModuleKey, Table, Tensor};
use half::bf16;
use half::slice::HalfFloatSliceExt as _;
use half::vec::HalfBitsVecExt as _;

fn download<T: Pod>(buffer: &DeviceBuffer) -> Result<Vec<T>, DriverError> {
    let bytes = buffer.read(0, buffer.len())?;
    Ok(bytes.chunks_exact(size_of::<T>()).map(pod_read_unaligned).collect())
}

/// What a call knows of a buffer.
fn tensor(buffer: &DeviceBuffer, dtype: DType) -> Tensor {
    Tensor { address: buffer.address(), dtype, len: (buffer.len() / dtype.size()) as u64 }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Current on this thread from here on, which is all that loading asks for.
    let context = Context::primary(0)?;
    let stream = OwnedStream::new(&context)?;
    let gdn =
        Gdn::load(&[ModuleKey::decode(Family::Gdn, Layout::Vk, DType::F32, DType::Bf16, common::SHAPE.k)])?;

    let host = Host::new();
    let upload = |bytes: &[u8]| DeviceBuffer::from_slice(&context, bytes);
    let upload_bf16 = |values: &[bf16]| upload(cast_slice(values.reinterpret_cast()));
    let (q, k, v) = (upload_bf16(&host.q)?, upload_bf16(&host.k)?, upload_bf16(&host.v)?);
    let (a, b) = (upload_bf16(&host.a)?, upload_bf16(&host.b)?);
    let (a_log, dt_bias) = (upload(cast_slice(&host.a_log))?, upload(cast_slice(&host.dt_bias))?);
    let (state, slots) = (upload(cast_slice(&host.state))?, upload(cast_slice(&host.slots))?);
    let out = upload_bf16(&host.out)?;
    let call = common::call(&Tensors {
        q: tensor(&q, DType::Bf16),
        k: tensor(&k, DType::Bf16),
        v: tensor(&v, DType::Bf16),
        a: tensor(&a, DType::Bf16),
        b: tensor(&b, DType::Bf16),
        a_log: tensor(&a_log, DType::F32),
        dt_bias: tensor(&dt_bias, DType::F32),
        state: tensor(&state, DType::F32),
        slots: Table::i32(slots.address(), host.slots.len() as u64),
        out: tensor(&out, DType::Bf16),
    });
    let judge = |what: &str| -> Result<(), DriverError> {
        let got_out = download::<u16>(&out)?.reinterpret_into::<bf16>();
        common::judge(what, &host, &got_out, &download::<f32>(&state)?);
        Ok(())
    };

    // SAFETY: the tensors are live buffers of the current context, and the stream is waited for.
    unsafe { gdn.run(&call, stream.as_stream())? };
    stream.synchronize()?;
    judge("launched")?;

    // Checked, planned and captured once. Where a call repeats with the same addresses, this costs the host least.
    state.write(0, cast_slice(&host.state))?;
    let prepared = gdn.prepare(&call, Launch::default())?;
    // SAFETY: as above; gdn outlives the graph.
    let graph = Graph::capture(&stream, |stream| unsafe { prepared.launch(stream) })?;
    // SAFETY: as above.
    unsafe { graph.launch(stream.as_stream())? };
    stream.synchronize()?;
    judge("replayed")?;
    Ok(())
}
