//! `cargo xtask demo`: decodes recorded tensors of real kernels, on the GPU if there is one, and shows how
//! close the result is and how fast.

use crate::report::say;
use crate::{bench, report, tools};
use anyhow::{Result, ensure};
use clap::Args as ClapArgs;
use gdn_host::{DType, HeadShape, Layout};
use gdn_tests::{case, device, parity};
use std::path::PathBuf;
use std::process::ExitCode;

/// Decode recorded tensors of SGLang's kernels; on the GPU if there is one, else simulated
#[derive(ClapArgs)]
pub struct Args {
    /// Directory of case files [default: tests/golden]
    #[arg(long)]
    cases: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let dir = match &args.cases {
        Some(dir) => dir.clone(),
        None => tools::workspace_root()?.join("tests/golden"),
    };
    let (mut device, reason) = device::best()?;
    match &reason {
        None => say!("Decoding on {}.\n", device.name()),
        Some(why) => {
            say!("No usable GPU ({why}):\nthe same kernels run in the lane-accurate simulator.\n")
        }
    }

    let mut rows = Vec::new();
    let mut failed = 0;
    for file in case::list(&dir)? {
        let outcome = parity::run_file(&file, device.as_mut());
        let case = case::Case::read(&file)?;
        let meta = |key| case.meta(key).unwrap_or("?").to_owned();
        let what = format!(
            "{} sequences, {}/{} heads, {}x{}",
            meta("B"),
            meta("H"),
            meta("HV"),
            meta("K"),
            meta("V")
        );
        let error = |e: Option<f64>| e.map_or_else(|| "-".into(), |e| format!("{e:.1e}"));
        let verdict = if outcome.pass { "matches".into() } else { format!("FAILS: {}", outcome.note) };
        failed += usize::from(!outcome.pass);
        let (out, state) = (error(outcome.rel_l2_out), error(outcome.rel_l2_state));
        let source = meta("source").split(',').next().unwrap_or("?").to_owned();
        let name = outcome.file.trim_end_matches(".safetensors").to_owned();
        rows.push([name, what, source, out, state, verdict]);
    }
    report::table(&["recording", "what is decoded", "recorded from", "out off by", "state off by", ""], rows);
    ensure!(failed == 0, "{failed} recordings do not match");

    if reason.is_none() {
        drop(device);
        say!("\nOne decode step of a Qwen3-Next-80B layer (16/32 heads, 128x128, f32 state, cold L2):");
        let shape = HeadShape::new(16, 32, 128, 128)?;
        let specs =
            [1, 8, 64].map(|n| bench::Spec::new(bench::Op::Decode, shape, DType::F32, Layout::Vk, n, 1));
        let gpu = bench::open(&specs)?;
        let rows = specs.map(|spec| {
            let row = bench::time(&gpu, spec)?;
            let share = row.gbps / f64::from(gpu.gdn.caps().memory_gbps) * 100.0;
            let (us, gbps) = (format!("{:.2} us", row.us), format!("{:.0} GB/s", row.gbps));
            Ok([format!("batch {}", spec.batch), us, gbps, format!("{share:.0} % of the memory's peak")])
        });
        report::table(&["", "time", "state traffic", ""], rows.into_iter().collect::<Result<Vec<_>>>()?);
    }
    Ok(ExitCode::SUCCESS)
}
