//! Runs recorded cases on a device and holds the results against the recording. What that means for the cases of an
//! operation is said in a file of its own.

pub mod recurrence;

use crate::case::{self, Case};
use crate::device::Device;
use crate::{neighbours, replay};
use anyhow::{Result, anyhow, bail};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// The outcome of one case.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// File name.
    pub file: String,
    /// Operation.
    pub op: String,
    /// Whether everything held.
    pub pass: bool,
    /// Relative L2 error of the output against the recording, over rows that are defined there.
    pub rel_l2_out: Option<f64>,
    /// The same of the states: pool, final states or buffer, whichever is worst.
    pub rel_l2_state: Option<f64>,
    /// What was allowed, for people.
    pub tolerance: String,
    /// What did not hold, or why the case did not run.
    pub note: String,
}

/// Runs the cases of an operation.
type Run = fn(&Case, &mut dyn Device) -> Result<Outcome>;

/// How the cases of an operation are run, if they are.
fn runner(op: &str) -> Option<Run> {
    match op {
        op if case::recurrence::records(op) => {
            Some(|case, device| recurrence::run(&case.recurrence()?, device))
        }
        op if neighbours::recorded::records(op) => Some(neighbours::recorded::run),
        op if replay::recorded::records(op) => Some(replay::recorded::run),
        _ => None,
    }
}

/// Runs a case file. Whatever goes wrong is the outcome's note.
pub fn run_file(path: &Path, device: &mut dyn Device) -> Outcome {
    let case = Case::read(path);
    let op = case.as_ref().map_or_else(|_| String::new(), |case| case.op().to_string());
    let file = path.file_name().map_or_else(String::new, |f| f.to_string_lossy().into_owned());
    // Metadata may ask for what no machine has: one such file must not end the others' run.
    let result = catch_unwind(AssertUnwindSafe(|| case.and_then(|case| run(&case, device))));
    match result.unwrap_or_else(|_| Err(anyhow!("the case broke its reader: its sizes make no sense"))) {
        Ok(outcome) => Outcome { file, op, ..outcome },
        Err(error) => Outcome { file, op, note: format!("{error:#}"), ..Outcome::default() },
    }
}

fn run(case: &Case, device: &mut dyn Device) -> Result<Outcome> {
    match runner(case.meta("op")?) {
        Some(run) => run(case, device),
        None => {
            bail!("operation `{}` is not one that can be run: tests/golden/README.md lists them", case.op())
        }
    }
}
