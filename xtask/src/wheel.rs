//! `cargo xtask wheel`: the Python wheel, and its tests.

use crate::report::say;
use crate::tools;
use anyhow::{Context as _, Result, ensure};
use clap::Args as ClapArgs;
use std::ffi::OsStr;
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
fn python() -> PathBuf {
    let named = std::env::var_os("GDN_PYTHON").filter(|path| !path.is_empty());
    wherever_it_is_started(Path::new(&named.unwrap_or_else(|| "python3".into())))
}

/// A path as it is from here, since it is started in other folders; a bare name is looked for in `PATH`.
fn wherever_it_is_started(named: &Path) -> PathBuf {
    match named.components().count() {
        1 => named.into(),
        _ => std::path::absolute(named).unwrap_or_else(|_| named.into()),
    }
}

/// What the interpreter calls itself.
///
/// # Errors
/// There is none, or it does not start.
fn version() -> Result<String> {
    let python = python();
    let output = Command::new(&python).arg("--version").output();
    let output = output.with_context(|| format!("cannot start {}", python.display()))?;
    ensure!(output.status.success(), "{}: {}", python.display(), output.status);
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The interpreter and its maturin: what builds the wheel.
///
/// # Errors
/// One of them is not there.
pub fn builder() -> Result<String> {
    let (version, python) = (version()?, python());
    ensure!(has("maturin"), "{} ({version}) has no maturin: pip install maturin", python.display());
    Ok(format!("{version} with maturin ({})", python.display()))
}

fn has(module: &str) -> bool {
    let find = format!("import importlib.util, sys; sys.exit(importlib.util.find_spec('{module}') is None)");
    Command::new(python()).args(["-c", &find]).output().is_ok_and(|output| output.status.success())
}

/// Whether the tests can run here, and what of them cannot.
pub fn missing() -> (bool, Vec<String>) {
    let name = python().display().to_string();
    if let Err(error) = version() {
        return (false, vec![format!("the Python wheel: {error:#}. GDN_PYTHON names another one")]);
    }
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
    builder()?;
    let (folder, new) = (root.join("dist/python"), root.join("target/wheel"));
    empty(&new)?;
    let mut maturin = Command::new(python());
    maturin.args(["-m", "maturin", "build", "--release", "--out"]).arg(&new);
    shown(maturin.current_dir(root.join("python")))?;
    let mut files =
        std::fs::read_dir(&new).context("maturin wrote nothing")?.flatten().map(|file| file.path());
    let wheel = files.find(|path| path.extension() == Some(OsStr::new("whl")));
    let wheel = wheel.context("maturin wrote no wheel")?;
    // One that was built before stays until there is another.
    empty(&folder)?;
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let built = folder.join(wheel.file_name().unwrap_or_default());
    std::fs::copy(&wheel, &built).with_context(|| format!("cannot write {}", built.display()))?;
    Ok(built)
}

/// Removes a folder, if it is there.
fn empty(folder: &Path) -> Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    Ok(())
}

/// Installs the wheel into a folder of its own and runs its tests there.
fn test(root: &Path, wheel: &Path) -> Result<()> {
    let site = root.join("target/python-site");
    empty(&site)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interpreter_is_the_same_from_every_folder() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(wherever_it_is_started(Path::new(".venv/bin/python")), here.join(".venv/bin/python"));
        assert_eq!(wherever_it_is_started(Path::new("/usr/bin/python3")), Path::new("/usr/bin/python3"));
        assert_eq!(wherever_it_is_started(Path::new("python3")), Path::new("python3"), "PATH has it");
    }
}
