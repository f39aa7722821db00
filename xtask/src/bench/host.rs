//! What a launch costs the host: check, plan, parameters and the driver's call; and the driver's call alone.

use super::case::Case;
use super::{Gpu, Spec, report::say};
use anyhow::Result;
use gdn_host::driver::OwnedStream;
use gdn_host::{HeadShape, Launch, Tile};
use serde_json::{Value, json};
use std::time::Instant;

/// Launches timed together; few enough that the driver's queue never fills and blocks.
const BURST: usize = 100;
const BURSTS: usize = 200;

/// Microseconds a launch.
pub(super) struct Cost {
    /// Over all bursts.
    median_us: f64,
    /// The fastest burst.
    best_us: f64,
    /// The driver's part of it: the median of launches whose parameters are ready.
    driver_us: f64,
}

/// Plain launches (`cuLaunchKernel`), and early ones (`cuLaunchKernelEx`) where they are possible.
pub(super) struct Costs {
    plain: Cost,
    early: Option<Cost>,
}

/// Times launches of an operation on a small shape; between bursts the stream is drained.
pub(super) fn launch_costs(gpu: &Gpu, spec: Spec) -> Result<Costs> {
    let case = Case::new(gpu, Spec { shape: HeadShape::new(2, 4, 128, 128)?, batch: 1, ..spec })?;
    let plain = cost(gpu, &case, Launch::default())?;
    let early = Launch { tile: Tile::Auto, early: true };
    let is_early = gpu.gdn.plan(case.first()?, early)?.early;
    Ok(Costs { plain, early: is_early.then(|| cost(gpu, &case, early)).transpose()? })
}

fn cost(gpu: &Gpu, case: &Case, launch: Launch) -> Result<Cost> {
    // Calls take turns, so that a launch made early never reads states that the one in front of it writes.
    let calls = &case.calls;
    let stream = OwnedStream::new(&gpu.context)?;
    let whole = bursts(&stream, &|i| {
        // SAFETY: the call's buffers are alive in case.
        unsafe { gpu.gdn.run_with(calls[i % calls.len()].as_ref(), launch, stream.as_stream())? };
        Ok(())
    })?;
    let prepared = calls.iter().map(|call| gpu.gdn.prepare(call.as_ref(), launch));
    let prepared = prepared.collect::<Result<Vec<_>, _>>()?;
    let driver = bursts(&stream, &|i| {
        // SAFETY: as above.
        unsafe { prepared[i % prepared.len()].launch(stream.as_stream())? };
        Ok(())
    })?;
    Ok(Cost { median_us: whole[BURSTS / 2], best_us: whole[0], driver_us: driver[BURSTS / 2] })
}

/// Microseconds a launch of each burst, sorted.
fn bursts(stream: &OwnedStream, launch: &dyn Fn(usize) -> Result<()>) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    for _ in 0..BURSTS {
        let start = Instant::now();
        for i in 0..BURST {
            launch(i)?;
        }
        times.push(start.elapsed().as_secs_f64() * 1e6 / BURST as f64);
        stream.synchronize()?;
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

impl Costs {
    /// Of plain launches, with those of early ones inside.
    pub(super) fn to_json(&self) -> Value {
        let mut value = self.plain.to_json();
        if let Some(early) = &self.early {
            value["early"] = early.to_json();
        }
        value
    }

    pub(super) fn print(&self) {
        self.plain.print("a launch");
        match &self.early {
            Some(cost) => cost.print("an early launch"),
            None => say!("host: no early launch of this operation on this device"),
        }
    }
}

impl Cost {
    fn to_json(&self) -> Value {
        json!({ "median": self.median_us, "best": self.best_us, "driver": self.driver_us })
    }

    fn print(&self, what: &str) {
        let Cost { median_us, best_us, driver_us } = self;
        say!(
            "host: {what} takes {median_us:.2} us ({best_us:.2} at best), {driver_us:.2} us of it in the driver"
        );
    }
}
