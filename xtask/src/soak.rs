//! `cargo xtask soak`: a made-up server over the slot allocator, whose sequences must keep the states that are theirs.

use crate::parity::Where;
use crate::report::{self, say};
use anyhow::{Context as _, Result, ensure};
use clap::Args as ClapArgs;
use console::style;
use gdn_host::Code;
use gdn_tests::device::{Device, Gpu, Sim};
use gdn_tests::soak::{self, Options, Size, Summary};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Run a made-up server and hold its sequences against themselves alone; exit 1 if a state is not its own
#[derive(ClapArgs)]
pub struct Args {
    /// Where the kernels run
    #[arg(long, default_value = "sim")]
    device: Where,
    /// What everything is drawn from [default: the time]; a run says it, and the same seed repeats the run
    #[arg(long)]
    seed: Option<u64>,
    /// Sequence-steps: sequences, summed up over the steps [default: 10000, on a GPU 1000000]
    #[arg(long)]
    steps: Option<u64>,
    /// Stop after so many seconds even if steps are left; then every sequence is checked once more
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Check a sequence after one in so many of its steps, besides the checks when it finishes and at the end [default: 100, on
    /// a GPU 500]
    #[arg(long, value_name = "N")]
    check_one_in: Option<usize>,
    /// Write what was done as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    ensure!(args.check_one_in != Some(0), "--check-one-in is 0: 1 checks a sequence after each of its steps");
    let is_gpu = args.device == Where::Gpu;
    let options = Options {
        seed: args.seed.unwrap_or_else(|| {
            // 31 bits, to be typed.
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |time| time.as_millis() as u64 & 0x7fff_ffff)
        }),
        steps: args.steps.unwrap_or(if is_gpu { 1_000_000 } else { 10_000 }),
        time: Some(Duration::from_secs(args.seconds)),
        check_one_in: args.check_one_in.unwrap_or(if is_gpu { 500 } else { 100 }),
        size: if is_gpu { Size::LARGE } else { Size::SMALL },
        plant: None,
    };
    let mut device: Box<dyn Device> = match args.device {
        Where::Sim => Box::new(Sim::default()),
        Where::Gpu => Box::new(Gpu::open(Code::Auto).context("cannot load on a GPU")?),
    };
    let name = device.name();
    say!("{}, seed {}", style(&name).bold(), options.seed);
    let bar = report::progress(options.steps as usize, "soak");
    let result = soak::run(device.as_mut(), &options, &mut |summary| {
        bar.set_position(summary.get("sequence-steps").min(options.steps));
    });
    bar.finish_and_clear();
    if let Some(path) = &args.json {
        report::write_json(path, &to_json(&name, &options, &result))?;
    }
    let summary = match result {
        Ok(summary) => summary,
        Err(error) => {
            say!("{}", style(report::wrapped(&format!("FAILED: {error:#}"), "")).red());
            return Ok(ExitCode::FAILURE);
        }
    };
    let counts = summary.iter().map(|(name, count)| [name.to_owned(), count.to_string()]);
    report::table(&["what", "times"], counts);
    for (what, off) in &summary.furthest {
        say!("{what}: within {off:.1e} of plain decode");
    }
    let (done, seconds) = (summary.get("sequence-steps"), summary.time.as_secs_f64());
    say!(
        "{done} sequence-steps in {seconds:.1} s: every state that was looked at is that of its tokens alone"
    );
    Ok(ExitCode::SUCCESS)
}

fn to_json(device: &str, options: &Options, result: &Result<Summary>) -> Value {
    let mut json = json!({ "device": device, "seed": options.seed, "pass": result.is_ok() });
    match result {
        Ok(summary) => {
            json["seconds"] = json!(summary.time.as_secs_f64());
            json["counts"] =
                summary.iter().map(|(name, count)| (name.to_owned(), Value::from(count))).collect();
            let furthest = summary.furthest.iter().map(|(what, off)| (what.clone(), Value::from(*off)));
            json["furthest_from_plain_decode"] = furthest.collect();
        }
        Err(error) => json["error"] = json!(format!("{error:#}")),
    }
    json
}
