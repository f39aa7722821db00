//! `cargo xtask demo`: runs the recordings of other projects' kernels, on the GPU if there is one, and shows how close the
//! results are and how fast.

use crate::report::say;
use crate::{bench, report, tools};
use anyhow::Result;
use clap::Args as ClapArgs;
use console::style;
use gdn_host::{DType, HeadShape, Layout};
use gdn_tests::case::{self, Case, Recorder};
use gdn_tests::compare::Tolerance;
use gdn_tests::device::{self, Device};
use gdn_tests::parity::{self, Outcome};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Decode what SGLang's and FLA's kernels decoded, and compare; on the GPU if there is one, else simulated
#[derive(ClapArgs)]
pub struct Args {
    /// Directory of case files in the format of tests/golden/README.md [default: tests/golden]
    #[arg(long, value_name = "DIR")]
    cases: Option<PathBuf>,
}

/// A case file and what came of it.
struct Row {
    outcome: Outcome,
    /// What is recorded, and by whom; none if the file cannot be read.
    what: Option<(String, Recorder)>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let dir = match &args.cases {
        Some(dir) => dir.clone(),
        None => tools::workspace_root()?.join("tests/golden"),
    };
    let files = case::list(&dir)?;
    let (mut device, reason) = device::best()?;
    say!(
        "gdn decodes what kernels of other projects decoded, from the same inputs, and compares the results."
    );
    match &reason {
        None => say!("The kernels run on {}.\n", style(device.name()).bold()),
        Some(why) => {
            say!("There is no GPU to use, so the kernels run in a simulator, lane by lane on the CPU.");
            say!("{}\n", style(report::wrapped(why, "  ")).dim());
        }
    }
    let rows = run_all(&files, device.as_mut());
    print(&rows);
    let failed = rows.iter().filter(|row| !row.outcome.pass).count();
    verdict(&rows, failed);
    if reason.is_none() {
        drop(device);
        times()?;
    }
    next(reason.is_none());
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_all(files: &[PathBuf], device: &mut dyn Device) -> Vec<Row> {
    let bar = report::progress(files.len(), "recordings");
    let run = |file: &PathBuf| {
        let outcome = parity::run_file(file, device);
        bar.inc(1);
        Row { outcome, what: describe(file) }
    };
    let rows = files.iter().map(run).collect();
    bar.finish_and_clear();
    rows
}

fn describe(file: &Path) -> Option<(String, Recorder)> {
    let case = Case::read(file).ok()?;
    Some((case.summary(), case.recorder()))
}

/// A table for each recorder, then the files that nobody can be named for.
fn print(rows: &[Row]) {
    let recorder = |row: &Row| row.what.as_ref().map(|(_, recorder)| recorder.clone());
    let mut recorders: Vec<_> = rows.iter().map(recorder).collect();
    recorders.sort_by_key(|recorder| recorder.as_ref().map(|r| (r.software.clone(), r.place.clone())));
    recorders.dedup();
    // Whoever recorded most comes first, files without a recorder last.
    let count = |who: &Option<Recorder>| rows.iter().filter(|row| recorder(row) == *who).count();
    recorders.sort_by_key(|who| (who.is_none(), usize::MAX - count(who)));
    for who in recorders {
        let place = who.as_ref().map_or("", |who| &who.place);
        match &who {
            None => say!("{}", style("Not readable").bold()),
            Some(who) if place.is_empty() => {
                say!("{}", style(format!("Recorded from {}", who.software)).bold())
            }
            Some(who) => say!("{} ({place})", style(format!("Recorded from {}", who.software)).bold()),
        }
        let mine = rows.iter().filter(|row| recorder(row) == who);
        report::outcomes(
            ["", "recording", "what is decoded", "output", "state"],
            mine.map(|row| {
                let name = row.outcome.file.trim_end_matches(".safetensors").to_owned();
                (&row.outcome, [name, row.what.as_ref().map_or_else(String::new, |(what, _)| what.clone())])
            }),
        );
        say!("");
    }
}

/// One line that says it all, and what "match" means.
fn verdict(rows: &[Row], failed: usize) {
    let worst = |error: fn(&Outcome) -> Option<f64>| {
        rows.iter().filter_map(|row| error(&row.outcome)).fold(0.0, f64::max)
    };
    let (out, state) = (worst(|o| o.rel_l2_out), worst(|o| o.rel_l2_state));
    let matching = format!("{} of {} match", rows.len() - failed, rows.len());
    let matching = if failed == 0 { style(matching).green() } else { style(matching).red() };
    say!("{}, worst output off by {out:.1e}, worst state by {state:.1e} (relative L2)", matching.bold());
    let [half, full] = [DType::Bf16, DType::F32].map(|dtype| Tolerance::recorded(dtype, dtype));
    let both = |of: fn(&Tolerance) -> f64| format!("{:.0e} / {:.0e}", of(&full), of(&half));
    let (outputs, heads, states) = (both(|t| t.out), both(|t| t.head), both(|t| t.state));
    say!("Allowed (f32 / 16 bits): outputs {outputs}, any one head {heads}, states {states}.");
    let layer = Tolerance::layer(DType::Bf16).out;
    say!("Whole layers and replay round more often: in 16 bits up to {layer:.0e} there.");
}

/// What a decode step takes on the GPU.
fn times() -> Result<()> {
    let shape = HeadShape::new(16, 32, 128, 128)?;
    let specs = [1, 8, 64, 256]
        .map(|batch| bench::Spec::new(bench::Op::Decode, shape, DType::F32, Layout::Vk, batch, 1));
    let gpu = bench::open(&specs)?;
    say!("");
    say!("{}", style("Time of a decode step of a Qwen3-Next-80B layer").bold());
    say!("heads 16:32, 128x128, f32 state, bf16 inputs, states not in the L2\n");
    let mut rows = Vec::new();
    for spec in specs {
        let row = bench::time(&gpu, spec)?;
        let share = row.gbps / f64::from(gpu.gdn.caps().memory_gbps) * 100.0;
        rows.push([
            spec.batch.to_string(),
            format!("{:.2} us", row.us),
            format!("{:.0} GB/s", row.gbps),
            format!("{share:.0} % of the memory's peak"),
        ]);
    }
    report::table(&["sequences", "a launch", "state traffic", "share of the roof"], rows);
    Ok(())
}

/// What to try next.
fn next(has_gpu: bool) {
    const HERE: [(&str, &str); 3] = [
        ("cargo xtask parity --cases DIR", "your own recordings (format: tests/golden/README.md)"),
        ("cargo xtask test --quick", "format, unit tests and recordings"),
        ("cargo xtask doctor", "what this machine has, and what is missing for what"),
    ];
    const ON_A_GPU: [(&str, &str); 2] = [
        ("cargo xtask bench", "all shapes, with --help for the choice"),
        ("cargo run -p gdn-host --example 01_decode", "the same call from your own program"),
    ];
    say!("\n{}", style("Next").bold());
    let commands = HERE.iter().chain(ON_A_GPU.iter().filter(|_| has_gpu));
    report::plain(commands.map(|(command, what)| vec![(*command).to_owned(), (*what).to_owned()]).collect());
}
