//! `cargo xtask bench`: the operations on the GPU, cold in L2, under CUDA graphs.
//!
//! The method is that of the peers' benchmark, so that rows may stand side by side: one graph holds L
//! launches, each on a state pool of its own, the pools together at least 600 MB so that no launch finds
//! its state in L2; three warm replays, then the median of 15 timed ones, divided by L. Where several ways
//! to do a shape's work are timed, their replays take turns.

mod args;
mod calls;
mod case;
mod chained;
#[cfg(test)]
mod dispatch;
mod host;
mod layer;
mod load;
mod ops;
mod page;
mod plot;
mod probe;
mod roofs;
mod row;
mod saved;
mod sweep;
mod swept;
mod table;

use crate::other_build::OtherBuild;
use crate::report::{self, say};
use anyhow::{Context as _, Result};
pub use args::{Args, Shapes};
use case::Case;
pub use chained::Producers;
use gdn_host::driver::Context;
use gdn_host::{Code, Files, Gdn, Launch, ModuleKey, Tile};
pub use ops::{Op, Spec};
pub use row::Row;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
pub use swept::Swept;

/// An early launch, of the tile that dispatch chooses.
const EARLY: Launch = Launch { tile: Tile::Auto, early: true };

/// A GPU with kernels loaded.
pub struct Gpu {
    context: Context,
    /// Its kernels.
    pub gdn: Gdn,
    load_ms: f64,
}

impl Gpu {
    /// The card's name.
    pub fn device(&self) -> Result<String> {
        Ok(self.context.device().name()?)
    }
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    if args.report {
        return page::run(args.check);
    }
    if let Some(file) = &args.from {
        return from_file(args, file);
    }
    let specs = args.specs()?;
    // A layer's step needs more modules than the recurrence that names it.
    let loaded = if args.layer { specs.iter().flat_map(layer::operations).collect() } else { specs.clone() };
    if let Some(code) = args.load_only {
        load::only(&loaded, code)?;
        return Ok(ExitCode::SUCCESS);
    }
    let other = args.ptx.as_deref().map(OtherBuild::read).transpose()?;
    let gpu = open_from(&loaded, other.as_ref().map_or(Files::Embedded, OtherBuild::files))?;
    let device = gpu.device()?;
    let binaries = gpu.gdn.files().filter(|file| file.is_binary).count();
    let ptx = gpu.gdn.files().count() - binaries;
    say!("{device}, modules loaded in {:.1} ms ({binaries} binaries, {ptx} PTX)", gpu.load_ms);

    let times = measure(args, &gpu, &specs)?;
    let load = if args.load { Some(load::measure()?) } else { None };
    let host = if args.host { Some(host::launch_costs(&gpu, specs[0])?) } else { None };

    // Files first: whoever reads the tables may stop before their end.
    if let Some(path) = &args.json {
        let mut result = json!({
            "device": device,
            "caps": swept::Card::from(gpu.gdn.caps()),
            "driver": report::driver_version(),
            "date": report::today(),
            "load_ms": gpu.load_ms,
            "rows": times.rows,
        });
        if let Some(load) = &load {
            result["load_ms"] = json!(load);
        }
        if args.sweep {
            result["sweeps"] = json!(times.sweeps);
            result["sweep_summary"] = json!(sweep::summary(&times.sweeps));
        }
        if args.chained {
            result["chained"] = json!(times.chained);
        }
        if args.layer {
            result["layer"] = json!(times.layer);
        }
        if let Some(host) = &host {
            result["host_launch_us"] = host.to_json();
        }
        report::write_json(path, &result)?;
    }
    let plots = plot(args, &device, &times.rows)?;
    times.print();
    if let Some(load) = &load {
        load::print(load);
    }
    if let Some(host) = &host {
        host.print();
    }
    plots.iter().for_each(|file| say!("{}", file.display()));
    Ok(ExitCode::SUCCESS)
}

/// Rows of a file instead of a GPU.
fn from_file(args: &Args, file: &Path) -> Result<ExitCode> {
    let saved = saved::Saved::read(file)?;
    let plots = plot(args, &saved.device, &saved.rows)?;
    say!("{}, from {}", saved.device, file.display());
    table::print(&saved.rows);
    plots.iter().for_each(|file| say!("{}", file.display()));
    Ok(ExitCode::SUCCESS)
}

/// Draws what `--plot` asks for: the files written.
fn plot(args: &Args, device: &str, rows: &[Row]) -> Result<Vec<PathBuf>> {
    let Some(dir) = &args.plot else { return Ok(Vec::new()) };
    let peers = match &args.peers {
        Some(path) => saved::Saved::peers(path, device)?,
        None => Vec::new(),
    };
    plot::write(dir, &plot::draw(device, rows, &peers)?)
}

/// What was measured: one of the four is filled.
#[derive(Default)]
struct Times {
    rows: Vec<Row>,
    sweeps: Vec<sweep::Sweep>,
    chained: Vec<chained::Chained>,
    layer: Vec<layer::Layer>,
}

impl Times {
    fn print(&self) {
        table::print(&self.rows);
        sweep::print(&self.sweeps);
        chained::print(&self.chained);
        layer::print(&self.layer);
    }
}

/// Times every shape in the way that was asked for.
fn measure(args: &Args, gpu: &Gpu, specs: &[Spec]) -> Result<Times> {
    let mut times = Times::default();
    let roofs = if args.roofs { Some(roofs::Roofs::new(gpu)?) } else { None };
    if let (Some(option), Some(why)) = (args.needs_early(), chained::unsupported(gpu.gdn.caps())) {
        say!("{option}: skipped, {why}");
        return Ok(times);
    }
    let producer = if args.chained { Some(chained::Producer::new(gpu)?) } else { None };
    let bar = report::progress(specs.len(), "bench");
    for &spec in specs {
        let case = Case::new(gpu, spec)?;
        if let Some(producer) = &producer {
            times.chained.extend(producer.time(gpu, &case)?);
        } else if args.layer {
            times.layer.push(layer::Layer::time(gpu, case)?);
        } else if args.sweep {
            times.sweeps.extend(sweep::Sweep::time(gpu, &case, args.launch())?);
        } else if let Some(roofs) = &roofs {
            times.rows.extend(roofs.time(gpu, &case, args.launch())?);
        } else {
            times.rows.extend(case.time(gpu, &[args.launch()])?);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(times)
}

/// The modules that shapes need, each once.
fn modules(specs: &[Spec]) -> Vec<ModuleKey> {
    let mut keys: Vec<_> = specs.iter().map(Spec::module).collect();
    keys.sort_by_key(ToString::to_string);
    keys.dedup();
    keys
}

/// Opens GPU 0 and loads the kernels of some shapes.
pub fn open(specs: &[Spec]) -> Result<Gpu> {
    open_from(specs, Files::Embedded)
}

fn open_from(specs: &[Spec], files: Files) -> Result<Gpu> {
    let context = Context::primary(0).context("no GPU to measure on")?;
    let start = Instant::now();
    let gdn = Gdn::load_from(&modules(specs), Code::Auto, files)?;
    Ok(Gpu { context, gdn, load_ms: start.elapsed().as_secs_f64() * 1e3 })
}

/// Times one shape as dispatch would run it.
pub fn time(gpu: &Gpu, spec: Spec) -> Result<Row> {
    Case::new(gpu, spec)?.time(gpu, &[Launch::default()])?.pop().context("no time")
}

/// Microseconds of a shape by each way to launch it; their replays alternate.
pub fn time_each(gpu: &Gpu, spec: Spec, launches: &[Launch]) -> Result<Vec<f64>> {
    Ok(Case::new(gpu, spec)?.time(gpu, launches)?.iter().map(|row| row.us).collect())
}
