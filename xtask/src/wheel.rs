//! `cargo xtask wheel`: the Python wheel, and its tests.

use crate::report::say;
use crate::tools;
use anyhow::{Context as _, Result, ensure};
use clap::Args as ClapArgs;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Build the Python wheel into dist/python, with maturin
#[derive(ClapArgs)]
pub struct Args {
    /// Test it, too, in a folder of its own: with numpy, and with torch and transformers if they are installed
    #[arg(long)]
    test: bool,
}

/// What the tests need, by the names that are imported.
const NEEDED: [&str; 4] = ["maturin", "pytest", "numpy", "ml_dtypes"];

/// What more they test with, and what is not tested without it.
const MORE: [(&str, &str); 2] =
    [("torch", "the Python wheel on torch tensors"), ("transformers", "the Python wheel under transformers")];

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let root = tools::workspace_root()?;
    let wheel = build(&root)?;
    say!("{}", wheel.display());
    if args.test {
        test(&root, &wheel)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The interpreter that `GDN_PYTHON` names, or the one in `PATH`.
fn python() -> OsString {
    std::env::var_os("GDN_PYTHON").filter(|path| !path.is_empty()).unwrap_or_else(|| "python3".into())
}

fn has(module: &str) -> bool {
    let find = format!("import importlib.util, sys; sys.exit(importlib.util.find_spec('{module}') is None)");
    Command::new(python()).args(["-c", &find]).output().is_ok_and(|output| output.status.success())
}

/// Whether the tests can run here, and what of them cannot.
pub fn missing() -> (bool, Vec<String>) {
    let name = python().to_string_lossy().into_owned();
    let absent: Vec<&str> = NEEDED.into_iter().filter(|module| !has(module)).collect();
    if !absent.is_empty() {
        let how = "pip install maturin pytest numpy ml_dtypes torch transformers into a venv, and GDN_PYTHON=<its python>";
        return (false, vec![format!("the Python wheel: {name} has no {}. {how}", absent.join(", "))]);
    }
    let absent = MORE.into_iter().filter(|(module, _)| !has(module));
    (true, absent.map(|(module, what)| format!("{what}: {name} has no {module}")).collect())
}

/// Builds the wheel; where it is.
fn build(root: &Path) -> Result<PathBuf> {
    ensure!(has("maturin"), "{} has no maturin: pip install maturin", python().to_string_lossy());
    let folder = root.join("dist/python");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    let mut maturin = Command::new(python());
    maturin.args(["-m", "maturin", "build", "--release", "--out"]).arg(&folder);
    shown(maturin.current_dir(root.join("python")))?;
    let mut files =
        std::fs::read_dir(&folder).context("maturin wrote nothing")?.flatten().map(|file| file.path());
    files.find(|path| path.extension() == Some(OsStr::new("whl"))).context("maturin wrote no wheel")
}

/// Installs the wheel into a folder of its own and runs its tests there.
fn test(root: &Path, wheel: &Path) -> Result<()> {
    let site = root.join("target/python-site");
    if site.exists() {
        std::fs::remove_dir_all(&site).with_context(|| format!("cannot empty {}", site.display()))?;
    }
    let mut pip = Command::new(python());
    pip.args(["-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target"])
        .arg(&site)
        .arg(wheel);
    shown(&mut pip)?;
    let mut pytest = Command::new(python());
    pytest.args(["-m", "pytest", "--quiet", "-p", "no:cacheprovider", "python/tests"]);
    shown(pytest.env("PYTHONPATH", &site).current_dir(root))
}

fn shown(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("cannot start {program}"))?;
    ensure!(status.success(), "{program}: {status}");
    Ok(())
}
