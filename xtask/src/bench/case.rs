//! A shape in device memory, and the timing of launches on it.

use super::ops::{self, Spec};
use super::{Gpu, Row};
use anyhow::{Context as _, Result};
use gdn_host::driver::{DeviceBuffer, Event, Graph, OwnedStream};
use gdn_host::{Operation, Tile};

/// What the launches of a graph go through, at least: several times any L2.
const COLD_BYTES: f64 = 600e6;
const WARM_REPLAYS: usize = 3;
const REPLAYS: usize = 15;

/// A shape with its inputs, and as many sets of states as a graph has launches.
pub(super) struct Case {
    pub(super) spec: Spec,
    /// One call a set of states.
    pub(super) calls: Vec<Box<dyn Operation>>,
    _buffers: Vec<DeviceBuffer>,
}

impl Case {
    pub(super) fn new(gpu: &Gpu, spec: Spec) -> Result<Case> {
        let launches =
            ((COLD_BYTES / spec.cold_bytes() as f64).ceil() as usize).clamp(6, spec.most_launches());
        let (calls, buffers) = ops::calls(gpu, &spec, launches)?;
        Ok(Case { spec, calls, _buffers: buffers })
    }

    /// Times each tile; their replays alternate, so that drift of the clock meets all alike.
    pub(super) fn time(&self, gpu: &Gpu, tiles: &[Tile]) -> Result<Vec<Row>> {
        let stream = OwnedStream::new(&gpu.context)?;
        let graph = |&tile: &Tile| {
            Graph::capture(&stream, |stream| {
                for call in &self.calls {
                    // SAFETY: the call's buffers are alive in self and used by nothing else.
                    unsafe { gpu.gdn.run_tiled(call.as_ref(), tile, stream)? };
                }
                Ok(())
            })
        };
        let graphs = tiles.iter().map(graph).collect::<Result<Vec<_>, gdn_host::Error>>()?;
        let times = interleaved(gpu, &stream, &graphs)?;
        tiles.iter().zip(times).map(|(&tile, times)| self.row(gpu, tile, times)).collect()
    }

    fn row(&self, gpu: &Gpu, tile: Tile, times: Vec<f64>) -> Result<Row> {
        let plan = gpu.gdn.plan(self.first()?, tile)?;
        let launches = self.calls.len() as f64;
        let us = times[times.len() / 2] / launches;
        Ok(Row {
            spec: self.spec,
            tile: match plan.bv {
                0 => format!("{} threads", plan.block()),
                bv => format!("BV {bv} ({}x{})", plan.rows, plan.warps),
            },
            us,
            range: (times[0] / launches, times[times.len() - 1] / launches),
            gbps: self.spec.moved_bytes() as f64 / us / 1e3,
        })
    }

    /// The call on the first set of states.
    pub(super) fn first(&self) -> Result<&dyn Operation> {
        Ok(self.calls.first().context("a case without calls")?.as_ref())
    }
}

/// Microseconds of each graph's replays, sorted: a few to warm up, then timed ones, the graphs taking turns.
pub(super) fn interleaved(gpu: &Gpu, stream: &OwnedStream, graphs: &[Graph]) -> Result<Vec<Vec<f64>>> {
    let (start, end) = (Event::new(&gpu.context)?, Event::new(&gpu.context)?);
    let mut times = vec![Vec::new(); graphs.len()];
    for replay in 0..WARM_REPLAYS + REPLAYS {
        for (graph, times) in graphs.iter().zip(&mut times) {
            start.record(stream)?;
            // SAFETY: whoever captured the graph keeps its buffers alive.
            unsafe { graph.launch(stream.as_stream())? };
            end.record(stream)?;
            end.synchronize()?;
            if replay >= WARM_REPLAYS {
                times.push(f64::from(Event::elapsed_ms(&start, &end)?) * 1e3);
            }
        }
    }
    times.iter_mut().for_each(|times| times.sort_by(f64::total_cmp));
    Ok(times)
}
