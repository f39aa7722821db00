//! `cargo test` with a running count instead of a thousand lines; what failed is shown in full.

use crate::tools;
use anyhow::{Context as _, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

/// Compiles the tests that the arguments name, under cargo's own progress, and then runs them all.
///
/// # Errors
/// A test that does not compile, or that fails.
pub fn run(arguments: &[&str], root: &Path) -> Result<()> {
    let cargo = |more: &[&str]| {
        let mut command = Command::new(tools::cargo());
        command.arg("test").args(arguments).args(more).current_dir(root);
        command
    };
    let status = cargo(&["--no-run"]).status().context("cannot start cargo")?;
    ensure!(status.success(), "the tests do not compile");
    let mut child = cargo(&["--no-fail-fast"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start cargo")?;
    let count = Count::new();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        scope.spawn(|| lines(stderr).for_each(|line| count.of_cargo(&line)));
        lines(stdout).for_each(|line| count.of_tests(&line));
    });
    let status = child.wait()?;
    count.bar.finish_and_clear();
    let Seen { passed, failed, rest, .. } = count.seen.into_inner().unwrap_or_default();
    if !status.success() {
        eprintln!("{}", rest.join("\n"));
    }
    eprintln!("      {passed} tests passed, {failed} failed");
    ensure!(status.success(), "{status}");
    Ok(())
}

fn lines(pipe: Option<impl Read>) -> impl Iterator<Item = String> {
    pipe.into_iter().flat_map(|pipe| BufReader::new(pipe).lines().map_while(Result::ok))
}

#[derive(Default)]
struct Seen {
    /// What runs now.
    name: String,
    /// Tests of it that passed so far.
    here: usize,
    passed: usize,
    failed: usize,
    /// What is not a passed test, to be shown if something fails.
    rest: Vec<String>,
}

struct Count {
    bar: ProgressBar,
    seen: Mutex<Seen>,
}

impl Count {
    fn new() -> Count {
        let style = ProgressStyle::with_template("      {spinner} {msg} {elapsed}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = ProgressBar::new_spinner().with_style(style);
        bar.enable_steady_tick(Duration::from_millis(200));
        Count { bar, seen: Mutex::default() }
    }

    /// A line of standard error: cargo names what it runs.
    fn of_cargo(&self, line: &str) {
        let Ok(mut seen) = self.seen.lock() else { return };
        match name(line) {
            Some(name) => (seen.name, seen.here) = (name, 0),
            None => seen.rest.push(line.to_owned()),
        }
    }

    /// A line of standard output: tests and their results.
    fn of_tests(&self, line: &str) {
        let Ok(mut seen) = self.seen.lock() else { return };
        let verdict = line.strip_prefix("test ").and_then(|line| line.rsplit_once(" ... "));
        match verdict {
            Some((_, "ok")) => (seen.passed, seen.here) = (seen.passed + 1, seen.here + 1),
            Some((_, "ignored")) => {}
            Some((name, "FAILED")) => {
                seen.failed += 1;
                self.bar.suspend(|| eprintln!("      FAILED {name}"));
            }
            _ if line.starts_with("test result: ") => {
                if seen.here > 0 && self.bar.is_hidden() {
                    eprintln!("      {:>4} passed in {}", seen.here, seen.name);
                }
            }
            _ => seen.rest.push(line.to_owned()),
        }
        let Seen { name, passed, failed, .. } = &*seen;
        self.bar.set_message(format!("{passed} passed, {failed} failed, now {name}"));
    }
}

/// What cargo says that it runs: `tests/hazards.rs`, `unittests src/lib.rs of gdn_host`, `documents of gdn_host`.
fn name(line: &str) -> Option<String> {
    let line = line.trim_start();
    if let Some(name) = line.strip_prefix("Doc-tests ") {
        return Some(format!("documents of {name}"));
    }
    let (source, program) = line.strip_prefix("Running ")?.rsplit_once(" (")?;
    let program = program.rsplit('/').next()?.split('-').next()?;
    Some(if source.starts_with("unittests") { format!("{source} of {program}") } else { source.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cargo_runs_has_a_name() {
        let of = |line| name(line).unwrap();
        assert_eq!(of("     Running tests/hazards.rs (target/debug/deps/hazards-0f)"), "tests/hazards.rs");
        assert_eq!(
            of("     Running unittests src/lib.rs (target/debug/deps/gdn_host-1)"),
            "unittests src/lib.rs of gdn_host"
        );
        assert_eq!(of("   Doc-tests gdn_host"), "documents of gdn_host");
        assert_eq!(name("    Finished `test` profile"), None);
    }

    #[test]
    fn passed_and_failed_tests_are_counted() {
        let count = Count::new();
        for line in ["running 3 tests", "test a::b ... ok", "test c ... FAILED", "test d ... ignored", "why"]
        {
            count.of_tests(line);
        }
        let seen = count.seen.into_inner().unwrap();
        assert_eq!((seen.passed, seen.failed), (1, 1));
        assert_eq!(seen.rest, ["running 3 tests", "why"]);
    }
}
