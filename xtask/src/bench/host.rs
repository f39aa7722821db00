//! What a launch costs the host: check, plan, parameters and the driver's call; and the driver's call alone.

use super::{Gpu, Spec, case::Case};
use anyhow::Result;
use gdn_host::driver::OwnedStream;
use gdn_host::{HeadShape, Tile};
use std::time::Instant;

/// Launches timed together; few enough that the driver's queue never fills and blocks.
const BURST: usize = 100;
const BURSTS: usize = 200;

/// Microseconds a launch.
pub(super) struct Cost {
    /// Over all bursts.
    pub(super) median_us: f64,
    /// The fastest burst.
    pub(super) best_us: f64,
    /// The driver's part of it: the median of launches whose parameters are ready.
    pub(super) driver_us: f64,
}

/// Times launches of an operation on a small shape; between bursts the stream is drained.
pub(super) fn launch_cost(gpu: &Gpu, spec: Spec) -> Result<Cost> {
    let case = Case::new(gpu, Spec { shape: HeadShape::new(2, 4, 128, 128)?, batch: 1, ..spec })?;
    let call = case.first()?;
    let stream = OwnedStream::new(&gpu.context)?;
    let whole = bursts(&stream, &|| {
        // SAFETY: the call's buffers are alive in case.
        unsafe { gpu.gdn.run(call, stream.as_stream())? };
        Ok(())
    })?;
    let prepared = gpu.gdn.prepare(call, Tile::Auto)?;
    let driver = bursts(&stream, &|| {
        // SAFETY: as above.
        unsafe { prepared.launch(stream.as_stream())? };
        Ok(())
    })?;
    Ok(Cost { median_us: whole[BURSTS / 2], best_us: whole[0], driver_us: driver[BURSTS / 2] })
}

/// Microseconds a launch of each burst, sorted.
fn bursts(stream: &OwnedStream, launch: &dyn Fn() -> Result<()>) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    for _ in 0..BURSTS {
        let start = Instant::now();
        for _ in 0..BURST {
            launch()?;
        }
        times.push(start.elapsed().as_secs_f64() * 1e6 / BURST as f64);
        stream.synchronize()?;
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}
