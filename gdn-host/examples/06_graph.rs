//! A step captured into a CUDA graph: `cargo run --release -p gdn-host --example 06_graph`
//!
//! Addresses and the batch are fixed when a launch is captured. Tables are read when the graph runs, so one graph of a
//! padded batch serves every smaller one: rows without a sequence get slot -1.

mod common;

use bytemuck::cast_slice;
use common::{Gpu, Layer, SHAPE, STATE, VALUES, judge, pool, rows, states, table, tensor};
use gdn_host::driver::Graph;
use gdn_host::{DType, Decode, Family, Gdn, Launch, Layout, ModuleKey};

/// Rows of the padded batch.
const ROWS: usize = 4;

fn main() -> common::Outcome {
    let gpu = Gpu::open();
    let gdn = Gdn::load(&[ModuleKey::decode(Family::Gdn, Layout::Vk, DType::F32, DType::F32, SHAPE.k)])?;

    let (layer, before) = (Layer::new(Family::Gdn, ROWS), states(ROWS));
    let (inputs, state, slot_table) = (layer.upload(&gpu)?, gpu.upload(&before)?, gpu.upload(&[-1; ROWS])?);
    let out = gpu.empty(ROWS * VALUES)?;
    let call = Decode::new(inputs.inputs(Family::Gdn), ROWS as u32, pool(tensor(&state)), rows(&out, VALUES))
        .with_slots(table(&slot_table));
    // Checked and planned once.
    let prepared = gdn.prepare(&call, Launch::default())?;
    // SAFETY: the buffers are live and as long as the call says, and `gdn` outlives the graph.
    let graph = Graph::capture(&gpu.stream, |stream| unsafe { prepared.launch(stream) })?;

    for slots in [[3, -1, -1, -1], [0, 2, 1, -1]] {
        state.write(0, cast_slice(&before))?;
        slot_table.write(0, cast_slice(&slots))?;
        // SAFETY: as above; the stream is idle when the tables are written.
        unsafe { graph.launch(gpu.stream.as_stream())? };
        let want = slots.iter().enumerate().flat_map(|(n, &slot)| match usize::try_from(slot) {
            Ok(slot) => layer.oracle(n..n + 1, &before[slot * STATE..][..STATE]).remove(0).out,
            Err(_) => vec![0.0; VALUES],
        });
        judge(&format!("slots {slots:?}"), &gpu.download(&out)?, &want.collect::<Vec<_>>())?;
    }
    Ok(())
}
