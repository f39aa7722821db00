//! `cargo xtask <command>`: everything around the kernels that is not the kernels.
//!
//! One command a file: each has an `Args` (its part of the command line) and a `run`. A command that looks
//! and finds something wrong returns `ExitCode::FAILURE`; one that cannot do its work returns an error.

mod bench;
mod build_kernels;
mod demo;
mod dist;
mod doctor;
mod parity;
mod report;
mod test;
mod tools;
mod tune;

use clap::{Parser, Subcommand};
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
    BuildKernels(build_kernels::Args),
    Bench(bench::Args),
    Tune(tune::Args),
    Dist(dist::Args),
    Doctor(doctor::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Demo(args) => demo::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Parity(args) => parity::run(&args),
        Command::BuildKernels(args) => build_kernels::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Tune(args) => tune::run(&args),
        Command::Dist(args) => dist::run(&args),
        Command::Doctor(args) => doctor::run(&args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
