//! A shape in device memory, and the timing of launches on it.

use super::{Gpu, Row};
use anyhow::Result;
use gdn_host::driver::{DeviceBuffer, Event, Graph, OwnedStream};
use gdn_host::{Beta, DType, Decay, Decode, HeadMap, HeadShape, Rows, Start, StatePool, Table, Tensor, Tile};
use gdn_tests::random::Noise;
use gdn_tests::strided::encode_values;

/// State that the launches of a graph go through, at least: several times any L2.
const COLD_BYTES: f64 = 600e6;
const WARM_REPLAYS: usize = 3;
const REPLAYS: usize = 15;

/// A shape with its inputs, and as many state pools as a graph has launches.
pub(super) struct Case {
    pub(super) shape: HeadShape,
    state: DType,
    io: DType,
    batch: u32,
    /// One call a pool.
    calls: Vec<Decode>,
    _buffers: Vec<DeviceBuffer>,
}

impl Case {
    pub(super) fn new(gpu: &Gpu, shape: HeadShape, state: DType, io: DType, batch: u32) -> Result<Case> {
        let mut noise = Noise::new(7);
        let mut buffers = Vec::new();
        let n = u64::from(batch);
        let mut rows = |values: Vec<f32>, dtype: DType, width: u64| -> Result<Rows> {
            let buffer = DeviceBuffer::from_slice(&gpu.context, &encode_values(&values, dtype))?;
            let tensor = Tensor { address: buffer.address(), dtype, len: values.len() as u64 };
            buffers.push(buffer);
            Ok(Rows { tensor, stride: width })
        };
        let mut inputs =
            |width: u64, dtype: DType| rows(noise.normals((n * width) as usize, 1.0), dtype, width);
        let (keys, values, hv) = (shape.key_elements(), shape.value_elements(), u64::from(shape.hv));
        let (q, k, v) = (inputs(keys, io)?, inputs(keys, io)?, inputs(values, io)?);
        let (a, b, dt_bias) = (inputs(hv, io)?, inputs(hv, io)?, inputs(hv, DType::F32)?);
        let out = inputs(values, io)?;
        // The decay rates of a trained layer: log of uniform in (0, 16).
        let rates = (0..hv).map(|_| (16.0 * noise.uniform()).max(1e-3).ln()).collect();
        let a_log = rows(rates, DType::F32, hv)?;

        let slots = shuffled(batch, &mut noise);
        let table = DeviceBuffer::from_slice(&gpu.context, &slots)?;
        let state_bytes = n * shape.state_elements() * state.size() as u64;
        let launches = ((COLD_BYTES / state_bytes as f64).ceil() as usize).clamp(6, 48);
        let pools = pools(gpu, state, state_bytes as usize, launches, &mut noise)?;
        let calls = pools.iter().map(|pool| Decode {
            shape,
            batch,
            q,
            k,
            v,
            decay: Decay::Softplus { a, a_log: a_log.tensor, dt_bias: dt_bias.tensor, threshold: 20.0 },
            beta: Beta::Logits { b, rounded: false },
            state: StatePool {
                tensor: Tensor { address: pool.address(), dtype: state, len: n * shape.state_elements() },
                slots: batch,
                pitch: shape.state_elements(),
            },
            slots: Table { address: table.address(), len: n },
            write_slots: None,
            null_slot: None,
            start: Start::FromSlot,
            out,
            l2norm: Some(1e-6),
            scale: None,
            heads: HeadMap::Grouped,
        });
        let calls = calls.collect();
        buffers.extend(pools);
        buffers.push(table);
        Ok(Case { shape, state, io, batch, calls, _buffers: buffers })
    }

    /// The call on the first pool.
    pub(super) fn first(&self) -> &Decode {
        &self.calls[0]
    }

    /// Times each tile; their replays alternate, so that drift of the clock meets all alike.
    pub(super) fn time(&self, gpu: &Gpu, tiles: &[Tile]) -> Result<Vec<Row>> {
        let stream = OwnedStream::new(&gpu.context)?;
        let (start, end) = (Event::new(&gpu.context)?, Event::new(&gpu.context)?);
        let graphs = tiles.iter().map(|&tile| self.graph(gpu, &stream, tile));
        let graphs = graphs.collect::<Result<Vec<_>>>()?;
        let mut times = vec![Vec::new(); tiles.len()];
        for replay in 0..WARM_REPLAYS + REPLAYS {
            for (graph, times) in graphs.iter().zip(&mut times) {
                start.record(&stream)?;
                // SAFETY: the graph's buffers are alive in self.
                unsafe { graph.launch(stream.as_stream())? };
                end.record(&stream)?;
                end.synchronize()?;
                if replay >= WARM_REPLAYS {
                    let ms = f64::from(Event::elapsed_ms(&start, &end)?);
                    times.push(ms * 1e3 / self.calls.len() as f64);
                }
            }
        }
        tiles.iter().zip(times).map(|(&tile, times)| self.row(gpu, tile, times)).collect()
    }

    fn graph(&self, gpu: &Gpu, stream: &OwnedStream, tile: Tile) -> Result<Graph> {
        Graph::capture(stream, |stream| {
            for call in &self.calls {
                // SAFETY: the call's buffers are alive in self and used by nothing else.
                unsafe { gpu.gdn.decode_tiled(call, tile, stream)? };
            }
            Ok(())
        })
    }

    fn row(&self, gpu: &Gpu, tile: Tile, mut times: Vec<f64>) -> Result<Row> {
        let plan = gpu.gdn.plan_decode(self.first(), tile)?;
        times.sort_by(f64::total_cmp);
        let us = times[times.len() / 2];
        let bytes = self.shape.state_elements() * u64::from(self.batch) * self.state.size() as u64 * 2;
        Ok(Row {
            op: "decode",
            shape: self.shape,
            state: self.state,
            io: self.io,
            batch: self.batch,
            tile: format!("BV {} ({}x{})", plan.bv, plan.rows, plan.warps),
            us,
            range: (times[0], times[times.len() - 1]),
            gbps: bytes as f64 / us / 1e3,
        })
    }
}

/// A random order of the slots: `i32`, little-endian.
fn shuffled(batch: u32, noise: &mut Noise) -> Vec<u8> {
    let mut slots: Vec<(u32, u32)> = (0..batch).map(|i| (noise.uniform().to_bits(), i)).collect();
    slots.sort_unstable();
    slots.iter().flat_map(|(_, slot)| slot.to_le_bytes()).collect()
}

/// Pools of random states: one block of values, copied as often as it takes.
fn pools(
    gpu: &Gpu,
    dtype: DType,
    bytes: usize,
    count: usize,
    noise: &mut Noise,
) -> Result<Vec<DeviceBuffer>> {
    const BLOCK: usize = 4 << 20;
    let values = noise.normals(BLOCK.min(bytes) / dtype.size(), 1.0);
    let block = DeviceBuffer::from_slice(&gpu.context, &encode_values(&values, dtype))?;
    let stream = OwnedStream::new(&gpu.context)?;
    let mut pools = Vec::new();
    for _ in 0..count {
        let pool = DeviceBuffer::alloc(&gpu.context, bytes)?;
        for offset in (0..bytes).step_by(block.len()) {
            let len = block.len().min(bytes - offset);
            // SAFETY: both buffers live until the stream was waited for below.
            unsafe { pool.copy_from_async(offset, &block, 0, len, stream.as_stream())? };
        }
        pools.push(pool);
    }
    stream.synchronize()?;
    Ok(pools)
}
