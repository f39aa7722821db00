//! `cargo xtask bench`: the operations on the GPU, cold in L2, under CUDA graphs.
//!
//! The method is that of the peers' benchmark, so that rows may stand side by side: one graph holds L
//! launches, each on a state pool of its own, the pools together at least 600 MB so that no launch finds
//! its state in L2; three warm replays, then the median of 15 timed ones, divided by L.

mod case;
mod host;
mod ops;
mod plot;

use crate::report;
use anyhow::{Context as _, Result, ensure};
use case::Case;
use clap::Args as ClapArgs;
use gdn_host::driver::Context;
use gdn_host::{DType, Gdn, HeadShape, Layout, Tile};
pub use ops::{Op, Spec};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Time the kernels on the GPU
#[derive(ClapArgs)]
pub struct Args {
    /// Operations
    #[arg(long, value_delimiter = ',', default_value = "decode")]
    ops: Vec<Op>,
    /// Heads, as H:HV
    #[arg(long, value_delimiter = ',', default_value = "16:32")]
    heads: Vec<String>,
    /// Types of the state
    #[arg(long, value_delimiter = ',', default_value = "f32,bf16")]
    states: Vec<String>,
    /// Layouts of the state: vk, kv
    #[arg(long, value_delimiter = ',', default_value = "vk")]
    layouts: Vec<String>,
    /// Tokens of a sequence, for operations with several
    #[arg(long, default_value_t = 4)]
    tokens: u32,
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
    /// What was timed.
    pub spec: Spec,
    /// The tile, as BV and `rows x warps`.
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
    let specs = specs(args)?;
    let gpu = open(&specs)?;
    let device = gpu.context.device().name()?;
    println!("{device}, modules loaded in {:.1} ms", gpu.load_ms);

    let bar = report::progress(specs.len(), "bench");
    let (mut rows, mut sweeps) = (Vec::new(), Vec::new());
    for &spec in &specs {
        let case = Case::new(&gpu, spec)?;
        if args.sweep {
            sweeps.extend(sweep(&gpu, &case)?);
        } else {
            rows.push(row(&gpu, &case)?);
        }
        bar.inc(1);
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
        let cost = host::launch_cost(&gpu, specs[0])?;
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

/// Every shape that was asked for.
fn specs(args: &Args) -> Result<Vec<Spec>> {
    let shapes = args.heads.iter().map(|text| parse_heads(text)).collect::<Result<Vec<_>>>()?;
    let states = args.states.iter().map(|text| parse_type(text)).collect::<Result<Vec<_>>>()?;
    let layouts = args.layouts.iter().map(|text| parse_layout(text)).collect::<Result<Vec<_>>>()?;
    ensure!(args.tokens > 0, "--tokens 0: a sequence has at least one");
    let mut specs = Vec::new();
    for (&op, &layout) in args.ops.iter().flat_map(|op| layouts.iter().map(move |layout| (op, layout))) {
        for (&shape, &state) in shapes.iter().flat_map(|shape| states.iter().map(move |state| (shape, state)))
        {
            specs.extend(args.batches.iter().map(|&n| Spec::new(op, shape, state, layout, n, args.tokens)));
        }
    }
    Ok(specs)
}

/// Opens GPU 0 and loads the kernels of some shapes.
pub fn open(specs: &[Spec]) -> Result<Gpu> {
    let context = Context::primary(0).context("no GPU to measure on")?;
    let mut keys: Vec<_> = specs.iter().map(Spec::module).collect();
    keys.sort_by_key(ToString::to_string);
    keys.dedup();
    let start = Instant::now();
    let gdn = Gdn::load(&keys)?;
    Ok(Gpu { context, gdn, load_ms: start.elapsed().as_secs_f64() * 1e3 })
}

/// Times one shape as dispatch would run it.
pub fn time(gpu: &Gpu, spec: Spec) -> Result<Row> {
    row(gpu, &Case::new(gpu, spec)?)
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
    let tiles: Vec<Tile> = [Tile::Auto].into_iter().chain(case.spec.tiles()).collect();
    let mut rows = case.time(gpu, &tiles)?.into_iter();
    Ok(rows.next().map(|chosen| Sweep { chosen, tiles: rows.collect() }))
}

fn print(rows: &[Row]) {
    if rows.is_empty() {
        return;
    }
    let cells = rows.iter().map(|r| {
        let Spec { op, state, batch, tokens, .. } = r.spec;
        let us = format!("{:.2}", r.us);
        let range = format!("{:.2}..{:.2}", r.range.0, r.range.1);
        let gbps = format!("{:.0}", r.gbps);
        let (heads, layout) = (heads(&r.spec), layout_name(r.spec.layout).into());
        let (batch, tokens) = (batch.to_string(), tokens.to_string());
        [op.name().into(), heads, state.name().into(), layout, batch, tokens, r.tile.clone(), us, range, gbps]
    });
    let headings = ["op", "heads", "state", "layout", "batch", "tokens", "tile", "us", "range", "GB/s"];
    report::table(&headings, cells);
}

fn heads(spec: &Spec) -> String {
    format!("{}:{}", spec.shape.h, spec.shape.hv)
}

fn layout_name(layout: Layout) -> &'static str {
    match layout {
        Layout::Vk => "vk",
        Layout::Kv => "kv",
    }
}

fn print_sweeps(sweeps: &[Sweep]) {
    for s in sweeps {
        let (c, spec) = (&s.chosen, &s.chosen.spec);
        let best = s.tiles.iter().map(|t| t.us).fold(f64::INFINITY, f64::min);
        let verdict = if c.us <= best * 1.02 { "" } else { "  <- over 2 % from the best" };
        let layout = layout_name(spec.layout);
        print!(
            "{} {} {} {:4} batch {:4}: ",
            spec.op.name(),
            heads(spec),
            layout,
            spec.state.name(),
            spec.batch
        );
        println!("{} {:.2} us, best {best:.2}{verdict}", c.tile, c.us);
        let mut tiles: Vec<_> = s.tiles.iter().collect();
        tiles.sort_by(|a, b| a.us.total_cmp(&b.us));
        let cells = tiles.iter().map(|t| format!("{} {:.2}", t.tile, t.us));
        println!("    {}", cells.collect::<Vec<_>>().join(", "));
    }
}

fn to_json(r: &Row) -> Value {
    let s = &r.spec;
    json!({
        "op": s.op.name(), "impl": "gdn", "h": s.shape.h, "hv": s.shape.hv, "state": s.state.name(),
        "io": s.io.name(), "layout": layout_name(s.layout), "batch": s.batch, "tokens": s.tokens, "us": r.us,
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
    found.with_context(|| format!("--states {text}: a state is f32, bf16 or f16"))
}

fn parse_layout(text: &str) -> Result<Layout> {
    let found = [Layout::Vk, Layout::Kv].into_iter().find(|l| layout_name(*l) == text);
    found.with_context(|| format!("--layouts {text}: a layout is vk or kv"))
}
