//! Checks that run one after the other, all of them, whatever fails.

use super::{counted, proof};
use crate::report::say;
use anyhow::{Context as _, Result, ensure};
use console::style;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

/// How a check is made.
pub enum Work {
    /// By a command, whose output is shown.
    Command(Command),
    /// By commands that all have to succeed.
    Commands(Vec<Command>),
    /// By `cargo test` with these arguments; its tests are counted.
    Tests(Vec<&'static str>),
}

/// The check that the committed kernels are those of a record in `docs/evidence`. Who changes a kernel without a GPU cannot
/// make one: that is open, not wrong, but where everything has to be there.
pub const PROOF: &str = "kernels proven on a GPU";

/// The checks to make, and what this machine cannot check.
#[derive(Default)]
pub struct Suite {
    checks: Vec<(&'static str, Work)>,
    unchecked: Vec<String>,
}

/// What came of a suite.
pub struct Results {
    passed: Vec<&'static str>,
    failed: Vec<&'static str>,
    unchecked: Vec<String>,
}

impl Suite {
    pub fn add(&mut self, name: &'static str, work: Work) {
        self.checks.push((name, work));
    }

    pub fn not_checked(&mut self, why: &str) {
        self.unchecked.push(why.into());
    }

    /// Runs the checks in the order they were added.
    pub fn run(self, root: &Path) -> Results {
        let mut results = Results { passed: Vec::new(), failed: Vec::new(), unchecked: self.unchecked };
        let count = self.checks.len();
        for (i, (name, work)) in self.checks.into_iter().enumerate() {
            let place = format!("[{}/{count}]", i + 1);
            eprintln!("{}", style(format!("{place} {name}")).for_stderr().bold());
            let start = Instant::now();
            let result = match work {
                Work::Command(command) => shown(command, root),
                Work::Commands(commands) => commands.into_iter().try_for_each(|command| shown(command, root)),
                Work::Tests(arguments) => counted::run(&arguments, root),
            };
            let seconds = start.elapsed().as_secs();
            match result {
                Ok(()) => {
                    eprintln!("{place} {} in {seconds} s", style("ok").for_stderr().green());
                    results.passed.push(name);
                }
                Err(error) => {
                    eprintln!(
                        "{place} {} in {seconds} s: {error:#}",
                        style("FAILED").for_stderr().red().bold()
                    );
                    results.failed.push(name);
                }
            }
        }
        results
    }
}

fn shown(mut command: Command, root: &Path) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.current_dir(root).status().with_context(|| format!("cannot start {program}"))?;
    ensure!(status.success(), "{status}");
    Ok(())
}

impl Results {
    /// Says what failed and what was not checked; the last line is alone, for whoever reads it by program.
    pub fn verdict(self, root: &Path, strict: bool) -> ExitCode {
        let Results { passed, mut failed, mut unchecked } = self;
        // What a person has said to be open is no surprise to continuous integration either.
        let declared = proof::declared_open(root);
        if let Some(complaint) = contradiction(&passed, proof::is_declared(root)) {
            if strict {
                failed.push(complaint);
            } else {
                say!("{complaint}");
            }
        }
        let mut known = usize::from(gdn_host::driver::Driver::open().is_err());
        if failed.contains(&PROOF) && (!strict || declared.is_some()) {
            failed.retain(|name| *name != PROOF);
            known += usize::from(declared.is_some());
            let how = "`cargo xtask parity --device gpu --record` on a GPU proves the committed kernels";
            let why = declared.map_or(String::new(), |why| format!(" ({why})"));
            unchecked.push(format!("not proven on a GPU yet{why}: {how}"));
        }
        say!("");
        for name in &failed {
            say!("{}", style(format!("FAILED: {name}")).red().bold());
        }
        for text in &unchecked {
            say!("not checked here: {text}");
        }
        // A machine without a GPU is complete as far as continuous integration goes.
        let incomplete = strict && unchecked.len() > known;
        say!("{} passed, {} failed", passed.len(), failed.len());
        if failed.is_empty() && !incomplete { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Kernels cannot be proven and open at once.
fn contradiction(passed: &[&str], is_declared_open: bool) -> Option<&'static str> {
    (is_declared_open && passed.contains(&PROOF))
        .then_some("docs/evidence-open.json is there, but a record proves the committed kernels: remove it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_not_proven_and_open_at_once() {
        let complaint = contradiction(&["format", PROOF], true);
        assert!(complaint.is_some_and(|text| text.contains(proof::FILE)));
        assert_eq!(contradiction(&["format", PROOF], false), None);
        assert_eq!(contradiction(&["format"], true), None);
    }
}
