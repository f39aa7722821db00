//! What a launch costs the host: check, plan, parameters and the driver's call; the driver's call alone; a call captured into a
//! graph of its own; and what the driver takes for a kernel that does nothing.

use super::case::Case;
use super::probe::Probe;
use super::{EARLY, Gpu, Spec, report::say};
use anyhow::Result;
use gdn_host::driver::{Graph, OwnedStream, launch};
use gdn_host::{HeadShape, Launch};
use serde_json::{Value, json};
use std::time::Instant;

/// Launches timed together; few enough that the driver's queue never fills and blocks.
const BURST: usize = 100;
const BURSTS: usize = 200;

/// Microseconds a launch, of bursts.
struct Times {
    /// Of the host, over all bursts.
    median_us: f64,
    /// Of the host, in the fastest burst.
    best_us: f64,
    /// Until the last kernel of a burst has ended, over all bursts.
    done_us: f64,
}

/// Launches of a call.
struct Cost {
    /// From the call's arguments on.
    whole: Times,
    /// Of calls whose parameters are ready: the driver's part.
    prepared: Times,
}

/// Plain launches (`cuLaunchKernel`), and early ones (`cuLaunchKernelEx`) where they are possible.
pub(super) struct Costs {
    plain: Cost,
    early: Option<Cost>,
    /// Replays of graphs of a single plain launch (`cuGraphLaunch`).
    graph: Times,
    /// Of a kernel without parameters that does nothing.
    nothing: Times,
}

/// Times launches of an operation on a small shape; between bursts the stream is drained.
pub(super) fn launch_costs(gpu: &Gpu, spec: Spec) -> Result<Costs> {
    let case = Case::new(gpu, Spec { shape: HeadShape::new(2, 4, 128, 128)?, batch: 1, ..spec })?;
    let stream = OwnedStream::new(&gpu.context)?;
    let plain = cost(gpu, &stream, &case, Launch::default())?;
    let is_early = gpu.gdn.plan(case.first()?, EARLY)?.early;
    let early = is_early.then(|| cost(gpu, &stream, &case, EARLY)).transpose()?;
    let capture = |call: &_| {
        // SAFETY: the call's buffers are alive in case.
        Graph::capture(&stream, |stream| unsafe { gpu.gdn.run(call, stream) })
    };
    let graphs = case.calls.iter().map(|call| capture(call.as_ref())).collect::<Result<Vec<_>, _>>()?;
    let graph = bursts(&stream, &|i| {
        // SAFETY: as above.
        unsafe { Ok(graphs[i % graphs.len()].launch(stream.as_stream())?) }
    })?;
    let probe = Probe::nothing(&gpu.context)?;
    let nothing = bursts(&stream, &|_| {
        // SAFETY: the kernel has no parameters, and reads and writes nothing.
        unsafe { Ok(launch(probe.function, [1; 3], 32, 0, stream.as_stream(), &())?) }
    })?;
    Ok(Costs { plain, early, graph, nothing })
}

fn cost(gpu: &Gpu, stream: &OwnedStream, case: &Case, launch: Launch) -> Result<Cost> {
    // Calls take turns, so that a launch made early never reads states that the one in front of it writes.
    let calls = &case.calls;
    let whole = bursts(stream, &|i| {
        // SAFETY: the call's buffers are alive in case.
        unsafe { gpu.gdn.run_with(calls[i % calls.len()].as_ref(), launch, stream.as_stream())? };
        Ok(())
    })?;
    let prepared = calls.iter().map(|call| gpu.gdn.prepare(call.as_ref(), launch));
    let prepared = prepared.collect::<Result<Vec<_>, _>>()?;
    let prepared = bursts(stream, &|i| {
        // SAFETY: as above.
        unsafe { prepared[i % prepared.len()].launch(stream.as_stream())? };
        Ok(())
    })?;
    Ok(Cost { whole, prepared })
}

/// Times bursts of launches.
fn bursts(stream: &OwnedStream, launch: &dyn Fn(usize) -> Result<()>) -> Result<Times> {
    let (mut host, mut done) = (Vec::new(), Vec::new());
    for _ in 0..BURSTS {
        let start = Instant::now();
        let so_far = || start.elapsed().as_secs_f64() * 1e6 / BURST as f64;
        for i in 0..BURST {
            launch(i)?;
        }
        host.push(so_far());
        stream.synchronize()?;
        done.push(so_far());
    }
    host.sort_by(f64::total_cmp);
    done.sort_by(f64::total_cmp);
    Ok(Times { median_us: host[BURSTS / 2], best_us: host[0], done_us: done[BURSTS / 2] })
}

impl Costs {
    /// Of plain launches, with the others inside.
    pub(super) fn to_json(&self) -> Value {
        let mut value = self.plain.to_json();
        if let Some(early) = &self.early {
            value["early"] = early.to_json();
        }
        value["graph"] = self.graph.to_json();
        value["nothing"] = self.nothing.to_json();
        value
    }

    pub(super) fn print(&self) {
        self.plain.print("a launch");
        match &self.early {
            Some(cost) => cost.print("an early launch"),
            None => say!("host: no early launch of this operation on this device"),
        }
        self.graph.print("a launch replayed as a graph of its own");
        self.nothing.print("a kernel that does nothing, without parameters,");
    }
}

impl Cost {
    fn to_json(&self) -> Value {
        let mut value = self.whole.to_json();
        value["driver"] = json!(self.prepared.median_us);
        value
    }

    fn print(&self, what: &str) {
        self.whole.print(what);
        say!("host:   {:.2} us of it in the driver", self.prepared.median_us);
    }
}

impl Times {
    fn to_json(&self) -> Value {
        json!({ "median": self.median_us, "best": self.best_us, "done": self.done_us })
    }

    fn print(&self, what: &str) {
        let Times { median_us, best_us, done_us } = self;
        say!("host: {what} takes {median_us:.2} us ({best_us:.2} at best); {done_us:.2} us until it has run");
    }
}
