//! `cargo xtask doctor`: what is here, and what each missing piece costs.

use crate::report::{self, say};
use crate::tools::{self, Ptxas, Toolchain};
use crate::wheel;
use anyhow::{Context, Result, ensure};
use gdn_host::driver::{Device, Driver};
use serde::Serialize;
use std::path::Path;
use std::process::{Command, ExitCode};

/// Show what is here: GPU, kernel toolchain, ptxas, C compilers, Python
///
/// Always succeeds: nothing of it is needed to use the crates on a machine with a driver.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print JSON instead of the table
    #[arg(long)]
    json: bool,
}

/// A piece of the machine.
#[derive(Serialize)]
struct Piece {
    name: &'static str,
    present: bool,
    /// What it is, or why it is not there.
    what: String,
    /// What does not work without it.
    without: &'static str,
    get: &'static str,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let pieces = pieces(&tools::workspace_root().unwrap_or_default());
    if args.json {
        say!("{}", serde_json::to_string_pretty(&serde_json::json!({ "pieces": pieces }))?);
    } else {
        say!("{}", table(&pieces).trim_end());
    }
    Ok(ExitCode::SUCCESS)
}

fn pieces(root: &Path) -> Vec<Piece> {
    let piece = |name, found: Result<String>, without, get| Piece {
        name,
        present: found.is_ok(),
        what: found.unwrap_or_else(|error| format!("{error:#}")),
        without,
        get,
    };
    vec![
        piece(
            "GPU",
            gpu_line(),
            "parity and demo run in the simulator, bench does not run",
            "an NVIDIA GPU of compute capability 8.0 or later and its driver (libcuda.so.1)",
        ),
        piece(
            "kernel toolchain",
            toolchain_line(root),
            "build-kernels does not run; the committed PTX is all that others need",
            "rustup component add rust-src, or apt install rustc-web cargo-web rust-web-src",
        ),
        piece(
            "ptxas",
            ptxas_line(root),
            "build-kernels does not see registers and spills and makes no machine code; drivers assemble PTX by themselves",
            "pip install nvidia-cuda-nvcc (in .venv, or GDN_PTXAS=<venv>)",
        ),
        piece(
            "gcc",
            version_line("gcc"),
            "no Rust program links, this one included; headers and examples are not tried as C",
            "apt install gcc (or another C compiler as cc)",
        ),
        piece("g++", version_line("g++"), "headers and examples are not tried as C++", "apt install g++"),
        piece(
            "cmake",
            version_line("cmake"),
            "examples are not built on libgdn as `dist` lays it out",
            "apt install cmake, or pip install cmake",
        ),
        piece("pkg-config", version_line("pkg-config"), "as without cmake", "apt install pkg-config"),
        piece(
            "Python",
            wheel::builder(),
            "the Python wheel is not built; nothing else needs it",
            "python3 -m venv .venv && .venv/bin/pip install maturin, and GDN_PYTHON=.venv/bin/python",
        ),
    ]
}

fn table(pieces: &[Piece]) -> String {
    let width = pieces.iter().map(|piece| piece.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for piece in pieces {
        let Piece { name, without, get, .. } = piece;
        let mark = if piece.present { "yes" } else { "no " };
        let indent = " ".repeat(width + 6);
        let lines: Vec<_> = piece.what.lines().map(|line| report::wrapped(line, &indent)).collect();
        let what = lines.join("\n");
        text += &format!("{name:width$}  {mark} {}\n", what.trim_start());
        if !piece.present {
            for line in [format!("without: {without}"), format!("get it:  {get}")] {
                text += &format!("{}\n", report::wrapped(&line, &indent));
            }
        }
    }
    text
}

fn toolchain_line(root: &Path) -> Result<String> {
    let Toolchain { origin, rustc, version, llvm, .. } = Toolchain::find(root, None)?;
    let against = against_committed(&tools::committed_compiler()?, &version, &llvm);
    Ok(format!("{version}, LLVM {llvm} ({origin}, {})\n{against}", rustc.display()))
}

/// Whether a compiler is the one that made the committed PTX, which the manifest names.
fn against_committed(committed: &serde_json::Value, version: &str, llvm: &str) -> String {
    let name = |field: &str| committed[field].as_str().unwrap_or("unknown").to_owned();
    let (rustc, of) = (name("rustc"), name("llvm"));
    if (rustc.as_str(), of.as_str()) == (version, llvm) {
        return "the compiler of the committed PTX: build-kernels --check compares bytes".to_owned();
    }
    format!("the committed PTX is from {rustc}, LLVM {of}: build-kernels --check compares no bytes of it")
}

fn ptxas_line(root: &Path) -> Result<String> {
    let found = Ptxas::find(root, None)?;
    let Ptxas { path, version, .. } = found.context("not in PATH, CUDA_HOME or a virtual environment")?;
    Ok(format!("{version} ({})", path.display()))
}

/// The first line of a program's `--version`.
fn version_line(program: &str) -> Result<String> {
    let output = Command::new(program).arg("--version").output().context("not in PATH")?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().map(str::to_owned).context("says nothing")
}

/// Driver and first GPU, asked of the driver itself.
fn gpu_line() -> Result<String> {
    let (major, minor) = Driver::open()?.version()?;
    let count = Device::count()?;
    ensure!(count > 0, "the driver sees no GPU");
    let device = Device::new(0)?;
    let (compute_major, compute_minor) = device.compute_capability()?;
    let (name, sms) = (device.name()?, device.sm_count()?);
    let more = if count > 1 { format!(", first of {count}") } else { String::new() };
    let compute = format!("compute capability {compute_major}.{compute_minor}, {sms} multiprocessors");
    Ok(format!("{name}{more}, {compute}, driver of CUDA {major}.{minor}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compiler_is_held_against_the_one_that_the_manifest_names() {
        let committed = serde_json::json!({ "rustc": "rustc 1.96.0", "llvm": "22.1.8" });
        let same = against_committed(&committed, "rustc 1.96.0", "22.1.8");
        assert!(same.starts_with("the compiler of the committed PTX"), "{same}");
        let other = "the committed PTX is from rustc 1.96.0, LLVM 22.1.8: build-kernels --check compares no bytes of it";
        assert_eq!(against_committed(&committed, "rustc 1.97.0", "22.1.8"), other);
        assert_eq!(against_committed(&committed, "rustc 1.96.0", "23.0.0"), other);
    }
}
