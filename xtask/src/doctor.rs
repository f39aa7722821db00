//! `cargo xtask doctor`: what is here, and what each missing piece costs.

use crate::tools::{self, Ptxas, Toolchain};
use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::path::Path;
use std::process::{Command, ExitCode};

/// Show what is here: GPU, kernel toolchain, ptxas, C compilers
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
        println!("{}", serde_json::to_string_pretty(&serde_json::json!({ "pieces": pieces }))?);
    } else {
        print!("{}", table(&pieces));
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
            "build-kernels does not see registers and spills; drivers assemble PTX by themselves",
            "pip install nvidia-cuda-nvcc (in .venv, or GDN_PTXAS=<venv>)",
        ),
        piece(
            "gcc",
            version_line("gcc"),
            "proc macros do not link, gdn.h is not tried as C",
            "apt install gcc",
        ),
        piece("g++", version_line("g++"), "gdn.h is not tried as C++", "apt install g++"),
    ]
}

fn table(pieces: &[Piece]) -> String {
    let width = pieces.iter().map(|piece| piece.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for piece in pieces {
        let Piece { name, without, get, .. } = piece;
        let mark = if piece.present { "yes" } else { "no " };
        let indent = " ".repeat(width + 6);
        let what = piece.what.replace('\n', &format!("\n{indent}"));
        text += &format!("{name:width$}  {mark} {what}\n");
        if !piece.present {
            text += &format!("{indent}without: {without}\n{indent}get it:  {get}\n");
        }
    }
    text
}

fn toolchain_line(root: &Path) -> Result<String> {
    let Toolchain { origin, rustc, version, llvm, .. } = Toolchain::find(root, None)?;
    Ok(format!("{version}, LLVM {llvm} ({origin}, {})", rustc.display()))
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
    type Status = i32;
    // SAFETY: loading the driver runs its constructors, as every CUDA program does.
    let cuda = unsafe { libloading::Library::new("libcuda.so.1") };
    let cuda = cuda.context("no driver (libcuda.so.1)")?;
    let check = |call: &str, status: Status| match status {
        0 => Ok(()),
        status => bail!("{call} returns {status}"),
    };
    // SAFETY: the signatures are those of cuda.h, and the pointers are to locals of those types.
    unsafe {
        let init = cuda.get::<unsafe extern "C" fn(u32) -> Status>("cuInit")?;
        let version = cuda.get::<unsafe extern "C" fn(*mut i32) -> Status>("cuDriverGetVersion")?;
        let count = cuda.get::<unsafe extern "C" fn(*mut i32) -> Status>("cuDeviceGetCount")?;
        let name = cuda.get::<unsafe extern "C" fn(*mut u8, i32, i32) -> Status>("cuDeviceGetName")?;
        let attribute =
            cuda.get::<unsafe extern "C" fn(*mut i32, i32, i32) -> Status>("cuDeviceGetAttribute")?;
        let (mut driver, mut devices, mut major, mut minor) = (0, 0, 0, 0);
        let mut text = [0u8; 256];
        const MAJOR: i32 = 75;
        const MINOR: i32 = 76;
        check("cuInit", init(0))?;
        check("cuDriverGetVersion", version(&mut driver))?;
        check("cuDeviceGetCount", count(&mut devices))?;
        if devices == 0 {
            bail!("the driver sees no GPU");
        }
        check("cuDeviceGetName", name(text.as_mut_ptr(), text.len() as i32, 0))?;
        check("cuDeviceGetAttribute", attribute(&mut major, MAJOR, 0))?;
        check("cuDeviceGetAttribute", attribute(&mut minor, MINOR, 0))?;
        let name = text.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(format!(
            "{devices} x {}, sm_{major}{minor}, driver for CUDA {}.{}",
            String::from_utf8_lossy(name),
            driver / 1000,
            driver % 1000 / 10
        ))
    }
}
