//! `cargo xtask parity`: recorded cases, hazards and random problems on a device, as a table and as JSON.

#[cfg(feature = "hazards")]
mod proof;

use crate::on_demand::Needs;
use crate::other_build::OtherBuild;
use crate::report::say;
use crate::test::proof as open_kernels;
use crate::{report, tools};
use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args as ClapArgs, ValueEnum};
use console::style;
use gdn_host::driver::Context;
use gdn_host::{Code, Files, LoadedFile, all_modules, artifact, device_caps};
use gdn_tests::device::{Device, Gpu, Sim};
use gdn_tests::parity::Outcome;
use gdn_tests::{case, parity};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Hold the kernels against recorded cases; exit 1 if one fails
#[derive(ClapArgs)]
pub struct Args {
    /// Where the kernels run
    #[arg(long, default_value = "sim")]
    device: Where,
    /// Directory of case files in the format of tests/golden/README.md [default: tests/golden]
    #[arg(long, value_name = "DIR")]
    cases: Option<PathBuf>,
    /// Only cases of this operation [default: all]
    #[arg(long)]
    op: Option<String>,
    /// Also run every hazard and this many random problems [64 where no number is given]
    #[arg(long, num_args = 0..=1, default_missing_value = "64", value_name = "RANDOM")]
    hazards: Option<u32>,
    /// Write the result as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// GPU only: also run the hazards, with the PTX of every target and with the GPU's machine code, and write
    /// `docs/evidence/<gpu>.json`
    #[arg(long)]
    record: bool,
    /// GPU only: the modules of this folder, which `build-kernels --out` wrote, instead of the embedded ones
    #[arg(long, value_name = "DIR", conflicts_with = "record")]
    ptx: Option<PathBuf>,
}

/// Where kernels run.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum Where {
    /// The lane-accurate simulator
    Sim,
    /// The first GPU
    Gpu,
}

impl Args {
    /// The hazards, if they are asked for.
    pub fn needs(&self) -> Needs {
        // A record of the simulator is refused, which needs nothing.
        let hazards = self.record && self.device == Where::Gpu || self.hazards.is_some();
        Needs { feature: hazards.then_some(("hazards", cfg!(feature = "hazards"))), ..Needs::default() }
    }
}

/// Targets that PTX is built for; each runs on its own compute capability and all later ones.
const TARGETS: [u32; 2] = [80, 90];

/// All code that runs on the GPU at hand, with the name that its outcomes have in a record.
fn every_code() -> Result<Vec<(String, Code)>> {
    let compute = device_caps(Context::primary(0)?.device())?.compute;
    let targets = TARGETS.iter().filter(|&&target| target <= compute);
    let mut all: Vec<_> =
        targets.map(|&target| (format!("sm_{target}"), Code::Ptx { most: Some(target) })).collect();
    let newest = artifact::modules().iter().filter_map(|module| module.binary(compute)).map(|b| b.gpu).max();
    all.extend(newest.map(|gpu| (format!("sm_{gpu} binary"), Code::Binary)));
    Ok(all)
}

/// Random problems of a record.
const RECORDED_PROBLEMS: u32 = 256;

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    ensure!(!args.record || args.device == Where::Gpu, "--record proves kernels on a GPU: add --device gpu");
    ensure!(args.ptx.is_none() || args.device == Where::Gpu, "--ptx is what a GPU loads: add --device gpu");
    let other = args.ptx.as_deref().map(OtherBuild::read).transpose()?;
    let dir = match &args.cases {
        Some(dir) => dir.clone(),
        None => tools::workspace_root()?.join("tests/golden"),
    };
    let files = select(&dir, args.op.as_deref())?;
    let random = args.hazards.or(args.record.then_some(RECORDED_PROBLEMS));

    let (mut runs, mut loaded) = (Vec::new(), Vec::new());
    match args.device {
        Where::Sim => runs.push(run_on("", &files, &mut Sim::default(), random)?),
        Where::Gpu if args.record => {
            let codes = every_code().context("no GPU to run on")?;
            for (name, code) in &codes {
                let mut gpu =
                    Gpu::open(*code).with_context(|| format!("cannot load {name}"))?.for_long_runs();
                loaded.extend(gpu.gdn().files());
                runs.push(run_on(&format!("{name}: "), &files, &mut gpu, random)?);
            }
            #[cfg(feature = "hazards")]
            {
                let outcome = proof::same_bits_from_all(&codes, random.unwrap_or(RECORDED_PROBLEMS));
                runs.extend(runs.last().map(|r| Run { device: r.device.clone(), outcomes: vec![outcome] }));
            }
        }
        Where::Gpu => {
            let keys = all_modules();
            let source = other.as_ref().map_or(Files::Embedded, OtherBuild::files);
            let mut gpu = Gpu::open_from(&keys, Code::Auto, source).context("cannot load on a GPU")?;
            loaded.extend(gpu.gdn().files());
            runs.push(run_on("", &files, &mut gpu, random)?);
        }
    }

    let device = runs[0].device.clone();
    let cases: Vec<Outcome> = runs.into_iter().flat_map(|r| r.outcomes).collect();
    print(&device, &cases);
    let failed = cases.iter().filter(|c| !c.pass).count();
    say!("{} passed, {failed} failed", cases.len() - failed);
    let result = to_json(&device, &cases, &loaded);
    if let Some(path) = &args.json {
        report::write_json(path, &result)?;
    }
    if args.record {
        ensure!(failed == 0, "nothing was recorded: {failed} of {} failed", cases.len());
        let root = tools::workspace_root()?;
        let file = root.join("docs/evidence").join(report::gpu_file_name(&device));
        report::write_json(&file, &with_provenance(result)?)?;
        say!("recorded in {}", file.display());
        if open_kernels::close(&root)? {
            say!("{} is removed: these kernels are proven now", open_kernels::FILE);
        }
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The case files of a directory, of one operation if it is named.
fn select(dir: &Path, op: Option<&str>) -> Result<Vec<PathBuf>> {
    let files = case::list(dir)?;
    let Some(op) = op else { return Ok(files) };
    let ops: Vec<_> =
        files.iter().map(|file| case::Case::read(file).ok().map(|c| c.op().to_owned())).collect();
    if !ops.iter().flatten().any(|name| name == op) {
        let known: BTreeSet<_> = ops.iter().flatten().map(String::as_str).collect();
        let known: Vec<_> = known.into_iter().collect();
        bail!("--op {op}: {} has no case of it, but of {}", dir.display(), known.join(", "));
    }
    // An unreadable file stays: its outcome says why.
    let wanted = files.into_iter().zip(ops).filter(|(_, name)| name.as_ref().is_none_or(|name| name == op));
    Ok(wanted.map(|(file, _)| file).collect())
}

/// The outcomes of one device.
struct Run {
    device: String,
    outcomes: Vec<Outcome>,
}

fn run_on(label: &str, files: &[PathBuf], device: &mut dyn Device, random: Option<u32>) -> Result<Run> {
    let bar = report::progress(files.len(), "parity");
    let mut outcomes = Vec::new();
    for file in files {
        outcomes.push(parity::run_file(file, device));
        bar.inc(1);
    }
    bar.finish_and_clear();
    #[cfg(feature = "hazards")]
    outcomes.extend(random.into_iter().flat_map(|count| proof::run(count, device)));
    #[cfg(not(feature = "hazards"))]
    ensure!(random.is_none(), "this binary has no hazards");
    for outcome in &mut outcomes {
        outcome.file.insert_str(0, label);
    }
    Ok(Run { device: device.name(), outcomes })
}

fn print(device: &str, cases: &[Outcome]) {
    say!("{}", style(device).bold());
    let rows = cases.iter().map(|case| (case, [case.file.clone(), case.op.clone()]));
    report::outcomes(["", "case", "op", "output", "state"], rows);
}

/// The outcomes, and the hashes of the files that ran; the simulator runs none.
fn to_json(device: &str, cases: &[Outcome], loaded: &[LoadedFile]) -> Value {
    let cases = cases.iter().map(|c| {
        json!({
            "file": c.file, "op": c.op, "pass": c.pass, "rel_l2_out": c.rel_l2_out,
            "rel_l2_state": c.rel_l2_state, "tolerance": c.tolerance, "note": c.note,
        })
    });
    let hashes = |is_binary| -> serde_json::Map<_, _> {
        let files = loaded.iter().filter(|file| file.is_binary == is_binary);
        files.map(|file| (file.name.to_owned(), Value::from(file.sha256.as_str()))).collect()
    };
    json!({
        "device": device,
        "ptx_sha256": hashes(false),
        "cubin_sha256": hashes(true),
        "cases": cases.collect::<Vec<_>>(),
    })
}

/// What a record says besides the results: driver and day.
fn with_provenance(mut result: Value) -> Result<Value> {
    let (major, minor) = gdn_host::driver::Driver::open()?.version()?;
    result["driver"] = json!({
        "cuda": format!("{major}.{minor}"),
        "kernel_module": report::driver_version().unwrap_or_default(),
    });
    result["date"] = json!(report::today());
    Ok(result)
}
