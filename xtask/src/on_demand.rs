//! What only some commands need is built when one of them is called, so that a fresh `cargo xtask demo` compiles no
//! parser of Rust, no plots and no generator of random problems.
//!
//! A command says what it needs ([`Needs`]). Where this binary lacks some of it, cargo builds another one and runs the
//! same command line there. A binary that has everything never asks for cargo.

use crate::tools;
use anyhow::{Context as _, Result, ensure};
use gdn_host::driver::Context;
use std::process::{Command, ExitCode};

/// What a command needs of the binary that runs it.
#[derive(Clone, Copy, Default)]
pub struct Needs {
    /// A feature of xtask, and whether this binary has it.
    pub feature: Option<(&'static str, bool)>,
    /// Optimised code and a GPU, since it measures launches.
    pub optimised: bool,
}

impl Needs {
    /// Whether this binary has it all.
    pub fn are_met(&self) -> bool {
        self.feature.is_none_or(|(_, here)| here) && !(self.optimised && cfg!(debug_assertions))
    }

    /// Has cargo build a binary that meets the needs, and runs this command line there.
    ///
    /// # Errors
    /// No cargo, or no checkout to build in.
    pub fn run_there(&self) -> Result<ExitCode> {
        let alone = "this binary lacks a part that the command needs, and cargo would have to build it in a checkout of gdn. \
                     A binary that runs alone has every part if it comes from \
                     `cargo build --release --package xtask --all-features`";
        ensure!(tools::workspace_root().is_ok(), "{alone}");
        let mut cargo = Command::new(tools::cargo());
        cargo.args(["run", "--package", "xtask"]);
        if self.optimised {
            // Minutes of compiling would end in this.
            Context::primary(0).context("no GPU to measure on")?;
            cargo.arg("--release");
        }
        if let Some((feature, _)) = self.feature {
            cargo.args(["--features", feature]);
        }
        let status = cargo.arg("--").args(std::env::args_os().skip(1)).status().context(alone)?;
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
    }
}
