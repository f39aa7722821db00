//! `cargo xtask <command>`: everything around the kernels that is not the kernels.
//!
//! One command a file: each has an `Args` (its part of the command line) and a `run`. A command that looks
//! and finds something wrong returns `ExitCode::FAILURE`; one that cannot do its work returns an error.
// Shared code of which a part serves the parts that are left out.
#![cfg_attr(not(feature = "kernels"), allow(dead_code))]

mod bench;
#[cfg(feature = "kernels")]
mod build_kernels;
#[cfg(feature = "kernels")]
mod c_header;
mod demo;
mod dist;
mod doctor;
#[cfg(test)]
mod documents;
mod on_demand;
mod other_build;
mod pack;
mod parity;
mod report;
mod soak;
mod test;
mod tools;
mod tune;
mod wheel;

use anyhow::Result;
use clap::{Parser, Subcommand};
use on_demand::Needs;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Args),
    Test(test::Args),
    Parity(parity::Args),
    Soak(soak::Args),
    #[cfg(feature = "kernels")]
    BuildKernels(build_kernels::Args),
    /// Compile the kernels to PTX, lint and assemble them, and embed the result
    #[cfg(not(feature = "kernels"))]
    #[command(disable_help_flag = true)]
    BuildKernels(Elsewhere),
    Pack(pack::Args),
    #[cfg(feature = "kernels")]
    CHeader(c_header::Args),
    /// Write gdn-c/include/gdn.h from the sources of libgdn
    #[cfg(not(feature = "kernels"))]
    #[command(disable_help_flag = true)]
    CHeader(Elsewhere),
    Bench(bench::Args),
    Tune(tune::Args),
    Dist(dist::Args),
    Wheel(wheel::Args),
    Doctor(doctor::Args),
}

/// The arguments of a command that another build knows.
#[cfg(not(feature = "kernels"))]
#[derive(clap::Args)]
struct Elsewhere {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    _arguments: Vec<std::ffi::OsString>,
}

impl Command {
    fn needs(&self) -> Needs {
        match self {
            Command::BuildKernels(_) | Command::CHeader(_) => {
                Needs { feature: Some(("kernels", cfg!(feature = "kernels"))), ..Needs::default() }
            }
            Command::Parity(args) => args.needs(),
            Command::Bench(args) => args.needs(),
            Command::Tune(args) => args.needs(),
            Command::Demo(_)
            | Command::Test(_)
            | Command::Soak(_)
            | Command::Pack(_)
            | Command::Dist(_)
            | Command::Wheel(_)
            | Command::Doctor(_) => Needs::default(),
        }
    }

    fn run(&self) -> Result<ExitCode> {
        let needs = self.needs();
        if !needs.are_met() {
            return needs.run_there();
        }
        match self {
            Command::Demo(args) => demo::run(args),
            Command::Test(args) => test::run(args),
            Command::Parity(args) => parity::run(args),
            Command::Soak(args) => soak::run(args),
            #[cfg(feature = "kernels")]
            Command::BuildKernels(args) => build_kernels::run(args),
            Command::Pack(args) => pack::run(args),
            #[cfg(feature = "kernels")]
            Command::CHeader(args) => c_header::run(args),
            #[cfg(not(feature = "kernels"))]
            Command::BuildKernels(_) | Command::CHeader(_) => needs.run_there(),
            Command::Bench(args) => bench::run(args),
            Command::Tune(args) => tune::run(args),
            Command::Dist(args) => dist::run(args),
            Command::Wheel(args) => wheel::run(args),
            Command::Doctor(args) => doctor::run(args),
        }
    }
}

fn main() -> ExitCode {
    Cli::parse().command.run().unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
