//! `cargo xtask pack`: runs gdn-pack, optimised.

use crate::tools;
use anyhow::{Context as _, Result};
use std::process::{Command, ExitCode};

/// Compress the kernels of gdn-host/ptx into gdn-host/packs, after `build-kernels` has changed them
#[derive(clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_: &Args) -> Result<ExitCode> {
    let mut cargo = Command::new(tools::cargo());
    cargo.args(["run", "--release", "--package", "gdn-pack"]).current_dir(tools::workspace_root()?);
    let is_done = cargo.status().context("cannot start cargo")?.success();
    Ok(if is_done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
