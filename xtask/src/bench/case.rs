//! A shape in device memory, and the timing of launches on it.

use super::Gpu;
use super::calls::{self, Work};
use super::ops::Spec;
use super::row::{GDN, Row, tile_name};
use anyhow::{Context as _, Result};
use gdn_host::driver::{DeviceBuffer, Event, Graph, OwnedStream};
use gdn_host::{Launch, Operation, Table, Tensor};

/// What the launches of a graph go through, at least: several times any L2.
const COLD_BYTES: f64 = 600e6;
const WARM_REPLAYS: usize = 3;
const REPLAYS: usize = 15;

/// A shape with its inputs, and as many sets of states as a graph has launches.
pub(super) struct Case {
    pub(super) spec: Spec,
    /// One call a set of states.
    pub(super) calls: Vec<Box<dyn Operation>>,
    /// The states that each call starts from; empty if the operation has no recurrence.
    pub(super) pools: Vec<Tensor>,
    /// The slots of the sequences in each pool.
    pub(super) slots: Option<Table>,
    /// Of a call for all layers: memory as large as what it reads, and as large as what it writes.
    pub(super) copied: Option<[Tensor; 2]>,
    _buffers: Vec<DeviceBuffer>,
}

impl Case {
    pub(super) fn new(gpu: &Gpu, spec: Spec) -> Result<Case> {
        let launches =
            ((COLD_BYTES / spec.cold_bytes() as f64).ceil() as usize).clamp(6, spec.most_launches());
        let Work { calls, pools, slots, copied, buffers } = calls::calls(gpu, &spec, launches)?;
        Ok(Case { spec, calls, pools, slots, copied, _buffers: buffers })
    }

    /// Times each way to launch; their replays alternate, so that drift of the clock meets all alike.
    pub(super) fn time(&self, gpu: &Gpu, launches: &[Launch]) -> Result<Vec<Row>> {
        let stream = OwnedStream::new(&gpu.context)?;
        let graph = |&launch: &Launch| self.graph(gpu, &stream, launch);
        let graphs = launches.iter().map(graph).collect::<Result<Vec<_>>>()?;
        let times = interleaved(gpu, &stream, &graphs)?;
        launches.iter().zip(times).map(|(&launch, times)| self.row(gpu, launch, &times)).collect()
    }

    /// The call on every set of states, one behind the other.
    pub(super) fn graph(&self, gpu: &Gpu, stream: &OwnedStream, launch: Launch) -> Result<Graph> {
        let graph = Graph::capture(stream, |stream| {
            for call in &self.calls {
                // SAFETY: the call's buffers are alive in self and used by nothing else. Launched early, it reads
                // states and tables that no call in front of it writes: each has states of its own.
                unsafe { gpu.gdn.run_with(call.as_ref(), launch, stream)? };
            }
            Ok::<(), gdn_host::Error>(())
        });
        Ok(graph?)
    }

    /// The row for sorted times of such a graph.
    pub(super) fn row(&self, gpu: &Gpu, launch: Launch, times: &[f64]) -> Result<Row> {
        let plan = gpu.gdn.plan(self.first()?, launch)?;
        let row = Row::new(&self.spec, GDN, times, self.calls.len(), self.spec.moved_bytes());
        Ok(Row { tile: tile_name(&plan), early: plan.early, ..row })
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

/// The median of each graph's [`interleaved`] replays.
pub(super) fn medians(gpu: &Gpu, stream: &OwnedStream, graphs: &[Graph]) -> Result<Vec<f64>> {
    let times = interleaved(gpu, stream, graphs)?;
    Ok(times.iter().map(|times| times[times.len() / 2]).collect())
}
