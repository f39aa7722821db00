//! Decode from cust's own buffers, on cust's own stream: with kernels that this crate loaded, and with the same PTX loaded
//! by cust. cust links libcuda, so this wants a CUDA toolkit to build:
//! `cargo run --release -p gdn-host --features cust --example 08_cust`

mod common;

use common::{Handles, Layer, SHAPE, VALUES, judge, pool, states};
use cust::memory::{CopyDestination, DeviceBuffer};
use cust::module::Module;
use cust::stream::{Stream, StreamFlags};
use gdn_host::interop::cust as interop;
use gdn_host::{DType, Decode, Family, Files, Gdn, Layout, ModuleKey, Rows, Tile, artifact};

fn main() -> common::Outcome {
    let _context = cust::quick_init()?;
    let stream = Stream::new(StreamFlags::NON_BLOCKING, None)?;
    let key = ModuleKey::decode(Family::Gdn, Layout::Vk, DType::F32, DType::F32, SHAPE.k);
    let gdn = Gdn::load(&[key])?;

    let (layer, before) = (Layer::new(Family::Gdn, 1), states(1));
    let step = layer.oracle(0..1, &before).remove(0);
    let upload = |values: &[f32]| DeviceBuffer::from_slice(values);
    let (q, k, v) = (upload(&layer.q)?, upload(&layer.k)?, upload(&layer.v)?);
    let (a, b) = (upload(&layer.a)?, upload(&layer.b)?);
    let (a_log, dt_bias) = (upload(&layer.a_log)?, upload(&layer.dt_bias)?);
    let slots = DeviceBuffer::from_slice(&[0_i32])?;
    let (mut state, out) = (upload(&before)?, upload(&[0.0; VALUES])?);
    let tensor = interop::tensor::<f32>;
    let handles = Handles {
        q: tensor(&q),
        k: tensor(&k),
        v: tensor(&v),
        a: tensor(&a),
        b: tensor(&b),
        a_log: tensor(&a_log),
        dt_bias: tensor(&dt_bias),
    };
    let call = Decode::new(
        handles.inputs(Family::Gdn),
        1,
        pool(tensor(&state)),
        Rows { tensor: tensor(&out), stride: VALUES as u64 },
    )
    .with_slots(interop::table(&slots));
    let check = |what: &str, state: &DeviceBuffer<f32>| -> common::Outcome {
        stream.synchronize()?;
        let (mut got_out, mut got_state) = (vec![0.0; VALUES], before.clone());
        out.copy_to(&mut got_out)?;
        state.copy_to(&mut got_state)?;
        judge(&format!("{what}: output"), &got_out, &step.out)?;
        Ok(judge(&format!("{what}: state"), &got_state, &step.state)?)
    };

    // SAFETY: the tensors are live buffers of the current context, and the stream is waited for.
    unsafe { gdn.run(&call, interop::stream(&stream))? };
    check("kernels loaded here", &state)?;

    let embedded = artifact::select(key, gdn.caps().compute).ok_or("no module for this device")?;
    let module = Module::from_ptx_cstr(embedded.contents(None, Files::Embedded)?.text(), &[])?;
    state.copy_from(&before)?;
    // SAFETY: as above; the module is the one for the call's types.
    unsafe { interop::run(&module, &call, gdn.caps(), Tile::Auto, &stream)? };
    check("kernels loaded by cust", &state)?;
    Ok(())
}
