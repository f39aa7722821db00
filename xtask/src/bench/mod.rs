//! `cargo xtask bench`: decode on the GPU, cold in L2, under CUDA graphs.
//!
//! The method is that of the peers' benchmark, so that rows may stand side by side: one graph holds L
//! launches, each on a state pool of its own, the pools together at least 600 MB so that no launch finds
//! its state in L2; three warm replays, then the median of 15 timed ones, divided by L.

mod case;
mod host;
mod plot;

use crate::report;
use anyhow::{Context as _, Result, bail, ensure};
use case::Case;
use clap::Args as ClapArgs;
use gdn_host::driver::Context;
use gdn_host::{DType, Gdn, HeadShape, ModuleKey, Tile, plan};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Time the kernels on the GPU
#[derive(ClapArgs)]
pub struct Args {
    /// Operations
    #[arg(long, value_delimiter = ',', default_value = "decode")]
    ops: Vec<String>,
    /// Heads, as H:HV
    #[arg(long, value_delimiter = ',', default_value = "16:32")]
    heads: Vec<String>,
    /// Types of the state
    #[arg(long, value_delimiter = ',', default_value = "f32,bf16")]
    states: Vec<String>,
    /// Batch sizes
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8,16,32,64,128,256,512")]
    batches: Vec<u32>,
    /// Time every tile, and say how far the one that dispatch chose is from the best
    #[arg(long)]
    sweep: bool,
    /// Also time what a launch costs the host
    #[arg(long)]
    host: bool,
    /// Write the rows as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Draw the rows as SVG plots into this folder
    #[arg(long)]
    plot: Option<PathBuf>,
}

/// A GPU with kernels loaded.
pub struct Gpu {
    context: Context,
    /// Its kernels.
    pub gdn: Gdn,
    load_ms: f64,
}

/// A timed shape.
pub struct Row {
    /// Operation.
    pub op: &'static str,
    /// Heads.
    pub shape: HeadShape,
    /// Type of the state.
    pub state: DType,
    /// Type of q, k and v.
    pub io: DType,
    /// Sequences.
    pub batch: u32,
    /// The tile, as `rows x warps` and BV.
    pub tile: String,
    /// Microseconds a launch: the median.
    pub us: f64,
    /// Fastest and slowest replay.
    pub range: (f64, f64),
    /// Gigabytes of state read and written a second.
    pub gbps: f64,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    if let Some(op) = args.ops.iter().find(|op| *op != "decode") {
        bail!("operation {op} has no benchmark: decode has");
    }
    let shapes = args.heads.iter().map(|text| parse_heads(text)).collect::<Result<Vec<_>>>()?;
    let states = args.states.iter().map(|text| parse_type(text)).collect::<Result<Vec<_>>>()?;
    let gpu = open(&states)?;
    let device = gpu.context.device().name()?;
    println!("{device}, modules loaded in {:.1} ms", gpu.load_ms);

    let bar = report::progress(shapes.len() * states.len() * args.batches.len(), "bench");
    let (mut rows, mut sweeps) = (Vec::new(), Vec::new());
    for &shape in &shapes {
        for &state in &states {
            for &batch in &args.batches {
                let case = Case::new(&gpu, shape, state, DType::Bf16, batch)?;
                if args.sweep {
                    sweeps.extend(sweep(&gpu, &case)?);
                } else {
                    rows.push(row(&gpu, &case)?);
                }
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    print(&rows);
    print_sweeps(&sweeps);
    let mut result = json!({ "device": device, "load_ms": gpu.load_ms, "rows": rows.iter().map(to_json).collect::<Vec<_>>() });
    if args.sweep {
        let tiles = |s: &Sweep| {
            let tiles = s.tiles.iter().map(to_json).collect::<Vec<_>>();
            json!({ "chosen": to_json(&s.chosen), "tiles": tiles })
        };
        result["sweeps"] = sweeps.iter().map(tiles).collect();
    }
    if args.host {
        let cost = host::launch_cost(&gpu)?;
        let (median, best, driver) = (cost.median_us, cost.best_us, cost.driver_us);
        println!(
            "host: a launch takes {median:.2} us ({best:.2} at best), {driver:.2} us of it in the driver"
        );
        result["host_launch_us"] = json!({ "median": median, "best": best, "driver": driver });
    }
    if let Some(path) = &args.json {
        report::write_json(path, &result)?;
    }
    if let Some(dir) = &args.plot {
        plot::draw(dir, &device, &rows)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Opens GPU 0 and loads the decode kernels of some state types, with bf16 inputs.
pub fn open(states: &[DType]) -> Result<Gpu> {
    let context = Context::primary(0).context("no GPU to measure on")?;
    let keys: Vec<_> = states.iter().map(|&s| ModuleKey::decode(s, DType::Bf16, 128)).collect();
    let start = Instant::now();
    let gdn = Gdn::load(&keys)?;
    Ok(Gpu { context, gdn, load_ms: start.elapsed().as_secs_f64() * 1e3 })
}

/// Times one shape as dispatch would run it.
pub fn decode_row(gpu: &Gpu, shape: HeadShape, state: DType, io: DType, batch: u32) -> Result<Row> {
    row(gpu, &Case::new(gpu, shape, state, io, batch)?)
}

fn row(gpu: &Gpu, case: &Case) -> Result<Row> {
    let mut times = case.time(gpu, &[Tile::Auto])?;
    times.pop().context("no time")
}

/// The times of every tile of a shape.
struct Sweep {
    chosen: Row,
    tiles: Vec<Row>,
}

fn sweep(gpu: &Gpu, case: &Case) -> Result<Option<Sweep>> {
    let tiles: Vec<Tile> = [Tile::Auto].into_iter().chain(plan::tiles(&case.shape)).collect();
    let mut rows = case.time(gpu, &tiles)?.into_iter();
    Ok(rows.next().map(|chosen| Sweep { chosen, tiles: rows.collect() }))
}

fn print(rows: &[Row]) {
    if rows.is_empty() {
        return;
    }
    let cells = rows.iter().map(|r| {
        let heads = format!("{}:{}", r.shape.h, r.shape.hv);
        let us = format!("{:.2}", r.us);
        let range = format!("{:.2}..{:.2}", r.range.0, r.range.1);
        let gbps = format!("{:.0}", r.gbps);
        [r.op.into(), heads, r.state.name().into(), r.batch.to_string(), r.tile.clone(), us, range, gbps]
    });
    report::table(&["op", "heads", "state", "batch", "tile", "us", "range", "GB/s"], cells);
}

fn print_sweeps(sweeps: &[Sweep]) {
    for s in sweeps {
        let c = &s.chosen;
        let best = s.tiles.iter().map(|t| t.us).fold(f64::INFINITY, f64::min);
        let verdict = if c.us <= best * 1.02 { "" } else { "  <- over 2 % from the best" };
        print!("{}:{} {:4} batch {:4}: ", c.shape.h, c.shape.hv, c.state.name(), c.batch);
        println!("{} {:.2} us, best {best:.2}{verdict}", c.tile, c.us);
        let mut tiles: Vec<_> = s.tiles.iter().collect();
        tiles.sort_by(|a, b| a.us.total_cmp(&b.us));
        let cells = tiles.iter().map(|t| format!("{} {:.2}", t.tile, t.us));
        println!("    {}", cells.collect::<Vec<_>>().join(", "));
    }
}

fn to_json(r: &Row) -> Value {
    json!({
        "op": r.op, "impl": "gdn", "h": r.shape.h, "hv": r.shape.hv, "state": r.state.name(),
        "io": r.io.name(), "layout": "vk", "batch": r.batch, "tokens": 1, "us": r.us,
        "us_min": r.range.0, "us_max": r.range.1, "gbps": r.gbps, "tile": r.tile,
    })
}

fn parse_heads(text: &str) -> Result<HeadShape> {
    let (h, hv) = text.split_once(':').with_context(|| format!("--heads {text}: it is H:HV, as 16:32"))?;
    let number = |x: &str| x.parse().with_context(|| format!("--heads {text}: {x} is no number"));
    Ok(HeadShape::new(number(h)?, number(hv)?, 128, 128)?)
}

fn parse_type(text: &str) -> Result<DType> {
    let types = [DType::F32, DType::Bf16, DType::F16];
    let found = types.into_iter().find(|t| t.name() == text);
    ensure!(found.is_some(), "--states {text}: a state is f32, bf16 or f16");
    found.context("no type")
}
