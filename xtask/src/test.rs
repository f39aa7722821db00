//! `cargo xtask test`: everything that can be checked on this machine, and at the end what could not be.

use crate::report::say;
use crate::tools;
use anyhow::Result;
use clap::Args as ClapArgs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

/// Check everything that can be checked here, and say what could not
#[derive(ClapArgs)]
pub struct Args {
    /// A check that could not be made counts as failed: for machines that have all tools
    #[arg(long)]
    strict: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let root = tools::workspace_root()?;
    let mut suite = Suite::new(&root);

    suite.cargo("format", &["fmt", "--all", "--check"]);
    suite.cargo("clippy", &["clippy", "--workspace", "--all-targets", "--", "-Dwarnings"]);
    suite.cargo(
        "clippy, abi only",
        &["clippy", "-p", "gdn-kernels", "--no-default-features", "--", "-Dwarnings"],
    );
    let cudarc = ["clippy", "-p", "gdn-host", "--features", "cudarc", "--all-targets", "--", "-Dwarnings"];
    suite.cargo("clippy, cudarc", &cudarc);
    // cust's build script wants a CUDA toolkit; DOCS_RS tells it that nothing will be linked.
    let cust = ["clippy", "-p", "gdn-host", "--features", "cust", "--lib", "--examples", "--", "-Dwarnings"];
    suite.cargo_with("clippy, cust", &cust, &[("DOCS_RS", "1")]);
    suite.cargo("unit, simulator, golden, hazards, properties", &["test", "--workspace", "--quiet"]);
    let doc = ["doc", "--workspace", "--no-deps", "--document-private-items", "--quiet"];
    suite.cargo_with("docs", &doc, &[("RUSTDOCFLAGS", "-Dwarnings")]);
    let features = ["doc", "-p", "gdn-host", "--features", "cudarc,cust", "--no-deps", "--quiet"];
    let environment = [("RUSTDOCFLAGS", "-Dwarnings"), ("DOCS_RS", "1"), ("CUDARC_CUDA_VERSION", "12000")];
    suite.cargo_with("docs, interop", &features, &environment);
    suite.parity()?;
    suite.kernels()?;

    Ok(suite.verdict(args.strict))
}

/// Checks run one after the other; all of them, whatever fails.
struct Suite<'a> {
    root: &'a Path,
    passed: usize,
    failed: Vec<String>,
    unchecked: Vec<String>,
}

impl<'a> Suite<'a> {
    fn new(root: &'a Path) -> Self {
        Suite { root, passed: 0, failed: Vec::new(), unchecked: Vec::new() }
    }

    fn cargo(&mut self, name: &str, arguments: &[&str]) {
        self.cargo_with(name, arguments, &[]);
    }

    fn cargo_with(&mut self, name: &str, arguments: &[&str], environment: &[(&str, &str)]) {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(arguments).envs(environment.iter().copied());
        self.command(name, command);
    }

    /// Runs this very binary with other arguments.
    fn xtask(&mut self, name: &str, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments);
        self.command(name, command);
        Ok(())
    }

    fn command(&mut self, name: &str, mut command: Command) {
        eprintln!("--- {name}");
        let start = Instant::now();
        let succeeded = match command.current_dir(self.root).status() {
            Ok(status) => status.success(),
            Err(error) => {
                eprintln!("cannot start {:?}: {error}", command.get_program());
                false
            }
        };
        let verdict = if succeeded { "ok" } else { "FAILED" };
        eprintln!("--- {name}: {verdict}, {:.0} s", start.elapsed().as_secs_f64());
        if succeeded {
            self.passed += 1;
        } else {
            self.failed.push(name.into());
        }
    }

    fn parity(&mut self) -> Result<()> {
        self.xtask("parity on the simulator", &["parity", "--device", "sim"])?;
        if gdn_host::driver::Driver::open().is_ok() {
            return self.xtask("parity on the GPU", &["parity", "--device", "gpu", "--hazards"]);
        }
        self.unchecked.push(
            "kernels on a GPU: there is none here. The committed PTX was proven on the cards in docs/evidence \
             (a test holds its hashes against them); `cargo xtask parity --device gpu` repeats it"
                .into(),
        );
        Ok(())
    }

    /// Rebuilds the kernels and compares, where the tools are there.
    fn kernels(&mut self) -> Result<()> {
        let compiler = tools::Toolchain::find(self.root, None);
        match &compiler {
            Ok(_) => self.xtask("kernels rebuilt and compared", &["build-kernels", "--check"])?,
            Err(error) => self.unchecked.push(format!("the kernels' build: {error:#}")),
        }
        if compiler.is_ok() && tools::Ptxas::find(self.root, None)?.is_none() {
            let how = "pip install nvidia-cuda-nvcc (into any venv), then set PTXAS to its bin/ptxas";
            self.unchecked.push(format!("assembly by ptxas: it was not found. {how}"));
        }
        Ok(())
    }

    fn verdict(self, strict: bool) -> ExitCode {
        let Suite { passed, failed, unchecked, .. } = self;
        say!("");
        for name in &failed {
            say!("FAILED: {name}");
        }
        for text in &unchecked {
            say!("not checked here: {text}");
        }
        let no_gpu = usize::from(gdn_host::driver::Driver::open().is_err());
        // A machine without a GPU is complete as far as continuous integration goes.
        let incomplete = strict && unchecked.len() > no_gpu;
        say!("{passed} passed, {} failed", failed.len());
        if failed.is_empty() && !incomplete { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
