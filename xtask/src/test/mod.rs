//! `cargo xtask test`: everything that can be checked on this machine, and at the end what could not be.

mod candle;
mod counted;
pub mod proof;
mod suite;

use crate::{dist, tools, wheel};
use anyhow::Result;
use clap::Args as ClapArgs;
use std::path::Path;
use std::process::{Command, ExitCode};
use suite::{Suite, Work};

/// Check everything that can be checked here, and say what could not
#[derive(ClapArgs)]
pub struct Args {
    /// Only format, unit tests and recorded cases on the simulator
    #[arg(long, conflicts_with = "strict")]
    quick: bool,
    /// Also what is built on candle, which takes as long to compile as all the rest
    #[arg(long, conflicts_with = "quick")]
    candle: bool,
    /// All of it, and a check that could not be made counts as failed: for machines that have all tools
    #[arg(long)]
    strict: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let root = tools::workspace_root()?;
    let mut suite = Suite::default();
    suite.add("format", Work::Command(cargo(&["fmt", "--all", "--check"])));
    if args.quick {
        quick(&mut suite)?;
    } else {
        full(&mut suite, &root, args)?;
    }
    Ok(suite.run(&root).verdict(&root, args.strict))
}

/// What the demo's build gives almost for nothing.
fn quick(suite: &mut Suite) -> Result<()> {
    // Profile dev: the tests run short, so the simulator is used as the demo compiled it.
    let unit = ["--profile", "dev", "-p", "gdn-kernels", "-p", "gdn-host", "-p", "xtask", "--lib", "--bins"];
    suite.add("unit tests", Work::Tests(unit.to_vec()));
    suite.add("recorded cases on the simulator", Work::Command(xtask(&["parity", "--device", "sim"])?));
    suite.not_checked(
        "the rest: `cargo xtask test` runs lints, hazards, random problems, documents and kernels too",
    );
    Ok(())
}

/// One set of packages and features is linted and one is tested, so that a crate is compiled once for each.
fn full(suite: &mut Suite, root: &Path, args: &Args) -> Result<()> {
    const FEATURES: &str = "xtask/kernels,gdn-host/cudarc,gdn-host/cust,gdn-kernels/cuda_std";
    // The wheel is tested from Python, gdn-pack by the packs.
    const ALL: [&str; 5] = ["--workspace", "--exclude", "gdn-python", "--exclude", "gdn-pack"];
    let strict = args.strict;
    let toolkit = (strict || args.candle).then(|| candle::toolkit(suite, root));
    let warnings = ["--all-targets", "--", "-Dwarnings"];
    let (tested, lints) = match &toolkit {
        Some(toolkit) => {
            let features = format!("{FEATURES},gdn-candle/cuda");
            let clippy = [&["clippy", "--workspace", "--features", &features][..], &warnings].concat();
            (&ALL[..], toolkit.given_to(cargo(&clippy)))
        }
        None => {
            suite.not_checked(
                "gdn-candle and examples/qwen3: `cargo xtask test --candle` does, in four minutes of CPU time more",
            );
            (&[][..], documented(&[&["clippy", "--features", FEATURES][..], &warnings].concat()))
        }
    };
    suite.add("lints", Work::Command(lints));
    let abi = ["clippy", "-p", "gdn-kernels", "--no-default-features", "--", "-Dwarnings"];
    suite.add("lints of the kernels' ABI alone", Work::Command(cargo(&abi)));
    // What a program may choose alone; the last is README's choice for one model.
    let alone = ["cudarc", "cust", "gdn,vk,state-f32,io-bf16,k128,cubin"].map(|features| {
        documented(&["check", "-p", "gdn-host", "--no-default-features", "--features", features])
    });
    suite.add("features of gdn-host alone", Work::Commands(alone.into()));
    let tested = [tested, &["--features", "xtask/kernels"]].concat();
    // Chosen by names: a choice by files would have cargo compile everything for them again.
    let proof = ["--quiet", "--", "--ignored", "was_assembled", "was_proven_on_a_gpu"];
    let proof = cargo(&[&["test"][..], &tested, &proof].concat());
    suite.add("tests", Work::Tests(tested));
    suite.add(suite::PROOF, Work::Command(proof));
    let doc = ["doc", "--no-deps", "--document-private-items", "--features", FEATURES];
    suite.add("documents", Work::Command(documented(&doc)));
    suite.add("recorded cases on the simulator", Work::Command(xtask(&["parity", "--device", "sim"])?));
    libgdn(suite)?;
    if let Some(toolkit) = &toolkit {
        candle::example(suite, root, toolkit);
    }
    if gdn_host::driver::Driver::open().is_ok() {
        let gpu = xtask(&["parity", "--device", "gpu", "--hazards"])?;
        suite.add("recorded cases, hazards and random problems on the GPU", Work::Command(gpu));
    } else {
        suite.not_checked(
            "kernels on a GPU: there is none here. What was proven on cards is in docs/evidence, and a test holds \
             the committed files against it; `cargo xtask parity --device gpu` repeats it",
        );
    }
    wheel(suite, toolkit.is_some())?;
    kernels(suite, root, strict)
}

/// The C library as it is handed out, and for the other CPU that GPUs stand beside.
fn libgdn(suite: &mut Suite) -> Result<()> {
    const AARCH64: &str = "aarch64-unknown-linux-gnu";
    let missing = dist::missing_tools();
    if missing.is_empty() {
        let check = xtask(&["dist", "--check"])?;
        suite.add("libgdn laid out, C and C++ examples built on it", Work::Command(check));
    } else {
        suite.not_checked(&format!("examples built on libgdn: there is no {}", missing.join(", ")));
    }
    if tools::has_target(AARCH64) {
        // What is embedded is the same for every CPU.
        let check = ["check", "--package", "gdn-c", "--no-default-features", "--target", AARCH64];
        let check = cargo(&check);
        suite.add("libgdn for aarch64", Work::Command(check));
    } else {
        suite.not_checked(&format!("libgdn for aarch64: `rustup target add {AARCH64}` brings what it needs"));
    }
    Ok(())
}

/// The Python wheel and its tests, with what the interpreter has of what they need.
fn wheel(suite: &mut Suite, is_linted: bool) -> Result<()> {
    let (can_run, missing) = wheel::missing();
    if can_run {
        if !is_linted {
            let clippy = ["clippy", "-p", "gdn-python", "--all-targets", "--", "-Dwarnings"];
            suite.add("lints of the Python wheel", Work::Command(cargo(&clippy)));
        }
        suite.add("Python wheel", Work::Command(xtask(&["wheel", "--test"])?));
    }
    missing.iter().for_each(|what| suite.not_checked(what));
    Ok(())
}

/// Rebuilds the kernels and compares, where the tools are there. Unless `strict`, only with the compiler that made what is
/// committed, for another one's bytes differ, and only those for the target whose machine code is kept: the others are of the
/// same source, and take as long again.
fn kernels(suite: &mut Suite, root: &Path, strict: bool) -> Result<()> {
    match tools::Toolchain::find(root, None) {
        Ok(toolchain) if !strict && !toolchain.made_the_committed()? => suite.not_checked(
            "PTX rebuilt: another compiler made what is committed, so that bytes would not be compared. `cargo xtask \
             build-kernels --check` compiles and lints, in minutes; `cargo xtask doctor` names the compilers",
        ),
        Ok(_) => {
            let mut check = vec!["build-kernels", "--check"];
            if !strict {
                check.extend(["--arch", "sm_90"]);
                suite.not_checked("PTX for sm_80 rebuilt and compared: `cargo xtask build-kernels --check` does, in two minutes more");
            }
            suite.add("kernels rebuilt and compared", Work::Command(xtask(&check)?));
        }
        Err(error) => {
            suite.not_checked(&format!("the kernels' build: {error:#}"));
            return Ok(());
        }
    }
    if tools::Ptxas::find(root, None)?.is_none() {
        let how = "pip install nvidia-cuda-nvcc (into any venv), then set PTXAS to its bin/ptxas";
        suite.not_checked(&format!("assembly by ptxas: it was not found. {how}"));
    }
    Ok(())
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(tools::cargo());
    command.args(arguments);
    command
}

/// cargo for what is read and not linked: cust's build script then asks for no CUDA toolkit.
fn documented(arguments: &[&str]) -> Command {
    let mut command = cargo(arguments);
    command.envs([("DOCS_RS", "1"), ("RUSTDOCFLAGS", "-Dwarnings")]);
    command
}

/// This very binary with other arguments.
fn xtask(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments);
    Ok(command)
}
