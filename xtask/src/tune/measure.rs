//! The measurements of `tune`: every tile of a shape, then distances ahead and early launches with the tile that won.

use super::fit::{self, Point};
use super::table::Tile;
use super::{Args, Classes, Measurement, specs};
use crate::bench::{self, Gpu, Spec};
use crate::report;
use anyhow::{Context as _, Result};
use gdn_host::Launch;
use gdn_host::plan::{Class, Load, Step, height_and_teams};
use std::collections::BTreeMap;

/// KiB of states a multiprocessor that are tried ahead.
const AHEAD_KIB: [u32; 6] = [0, 64, 72, 82, 96, 128];

/// States a multiprocessor up to which an early launch is tried, in eighths: beyond, the start of a launch is a small part of it.
const EARLY_LOAD: Load = Load(8 * 8);

/// Measures what was asked for on GPU 0.
pub fn measure(args: &Args) -> Result<Measurement> {
    let specs = specs(args)?;
    let gpu = bench::open(&specs)?;
    let caps = *gpu.gdn.caps();
    let bar = report::progress(if args.tiles_only { 1 } else { 2 } * specs.len(), "tune");
    let mut classes = Classes::new();
    let mut kept = Vec::new();
    let source = format!("{} shapes on {}", specs.len(), report::today());
    for spec in specs {
        bar.set_message(spec.name());
        let job = spec.job();
        let (class, load) = (Class::of(&job), Load::of(&job, caps.sms));
        let point = Point { load, us: tiles(&gpu, spec)? };
        classes.entry(class).or_default().tiles.push((spec.name(), point));
        kept.push((spec, class, load));
        bar.inc(1);
    }
    if !args.tiles_only {
        let behind = bench::Producers::new(&gpu)?;
        for (spec, class, load) in kept {
            bar.set_message(spec.name());
            let Some(measured) = classes.get_mut(&class) else { continue };
            let points: Vec<_> = measured.tiles.iter().map(|(_, point)| point.clone()).collect();
            let steps = fit::steps(&points);
            let &(tile, teams) = fit::look_up(&steps, load).context("a class without a step")?;
            let step = Step { up_to: None, tile, teams, ahead_kib: 0, early: true };
            measured.ahead.push(Point { load, us: ahead(&gpu, spec, step)? });
            if let Some(producers) = behind.as_ref().filter(|_| spec.is_one_token() && load <= EARLY_LOAD) {
                let [plain, early] = producers.marginal(&gpu, spec, step)?;
                measured.early.push(Point { load, us: BTreeMap::from([(false, plain), (true, early)]) });
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    // Beyond the loads that were tried early launches do not pay.
    for measured in classes.values_mut().filter(|measured| !measured.early.is_empty()) {
        let beyond = Load(EARLY_LOAD.0 + 1);
        measured.early.push(Point { load: beyond, us: BTreeMap::from([(false, 1.0), (true, 2.0)]) });
    }
    Ok(Measurement { device: gpu.device()?, caps, classes, source })
}

/// Microseconds of every tile of a shape; their replays alternate.
fn tiles(gpu: &Gpu, spec: Spec) -> Result<BTreeMap<Tile, f64>> {
    let tiles = spec.tiles();
    let launches: Vec<Launch> = tiles.iter().map(|&tile| tile.into()).collect();
    let rows = bench::time_each(gpu, spec, &launches)?;
    let timed = tiles.iter().zip(rows).map(|(tile, us)| {
        let gdn_host::Tile::Exact { rows, warps } = *tile else { return None };
        Some((height_and_teams(spec.module(), rows, warps)?, us))
    });
    timed.collect::<Option<_>>().context("a tile that no step can name")
}

/// Microseconds of a step's tile by how far ahead it asks.
fn ahead(gpu: &Gpu, spec: Spec, step: Step) -> Result<BTreeMap<u32, f64>> {
    let launches = AHEAD_KIB.map(|ahead_kib| gdn_host::Tile::Step(Step { ahead_kib, ..step }).into());
    Ok(AHEAD_KIB.into_iter().zip(bench::time_each(gpu, spec, &launches)?).collect())
}
