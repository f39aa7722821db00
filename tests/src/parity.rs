//! Runs recorded cases on a device and holds the results against the recording.

use crate::case::{Case, DecodeCase};
use crate::compare::{Tolerance, rel_l2, widen, worst_vector};
use crate::device::Device;
use anyhow::Result;
use gdn_host::Tile;
use std::path::Path;

/// The outcome of one case.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// File name.
    pub file: String,
    /// Operation.
    pub op: String,
    /// Whether everything held.
    pub pass: bool,
    /// Relative L2 error of the output against the recording, over rows that are defined there.
    pub rel_l2_out: Option<f64>,
    /// The same of the state.
    pub rel_l2_state: Option<f64>,
    /// What was allowed, for people.
    pub tolerance: String,
    /// What did not hold, or why the case did not run.
    pub note: String,
}

/// Runs a case file. Whatever goes wrong is the outcome's note.
pub fn run_file(path: &Path, device: &mut dyn Device) -> Outcome {
    let file = path.file_name().map_or_else(String::new, |f| f.to_string_lossy().into_owned());
    let case = match Case::read(path) {
        Ok(case) => case,
        Err(error) => return failed(file, String::new(), format!("{error:#}")),
    };
    let op = case.op().to_string();
    match case.decode().and_then(|case| run_decode(&case, device)) {
        Ok(mut outcome) => {
            (outcome.file, outcome.op) = (file, op);
            outcome
        }
        Err(error) => failed(file, op, format!("{error:#}")),
    }
}

fn failed(file: String, op: String, note: String) -> Outcome {
    let (rel_l2_out, rel_l2_state, tolerance) = (None, None, String::new());
    Outcome { file, op, pass: false, rel_l2_out, rel_l2_state, tolerance, note }
}

/// Runs a decode case: outputs and written slots within tolerance, as a whole and head by head; padded rows
/// zero; untouched slots exact.
pub fn run_decode(case: &DecodeCase, device: &mut dyn Device) -> Result<Outcome> {
    let problem = &case.problem;
    let solution = problem.run(device, Tile::Auto)?;
    let limit = Tolerance::recorded(problem.out_type, problem.state_type);
    let mut notes = Vec::new();

    let width = problem.shape.value_elements() as usize;
    let slots = problem.read_slots();
    let (mut got, mut want) = (Vec::new(), Vec::new());
    for (n, slot) in slots.iter().enumerate() {
        let row = n * width..(n + 1) * width;
        if slot.is_none() && !solution.out[row.clone()].iter().all(|x| x.to_bits() == 0) {
            notes.push(format!("padded row {n} is not zero"));
        }
        if slot.is_some() || case.pad_rows_defined {
            got.extend(widen(&solution.out[row.clone()]));
            want.extend(widen(&case.out[row]));
        }
    }
    let out = rel_l2(&got, &want);
    let head = worst_vector(&got, &want, problem.shape.v as usize);

    let width = problem.shape.state_elements() as usize;
    let written = problem.written_slots();
    let (mut got, mut want) = (Vec::new(), Vec::new());
    for slot in 0..problem.slots {
        let range = slot * width..(slot + 1) * width;
        if written.contains(&Some(slot)) {
            got.extend(widen(&solution.state[range.clone()]));
            want.extend(widen(&case.state[range]));
        } else {
            let pairs = solution.state[range.clone()].iter().zip(&case.state[range]);
            if !pairs.into_iter().all(|(a, b)| a.to_bits() == b.to_bits()) {
                notes.push(format!("slot {slot} was touched"));
            }
        }
    }
    let state = rel_l2(&got, &want);
    for (what, error, allowed) in
        [("out", out, limit.out), ("a head of out", head, limit.head), ("state", state, limit.state)]
    {
        if error > allowed {
            notes.push(format!("{what} is off by {error:.2e}"));
        }
    }
    Ok(Outcome {
        file: String::new(),
        op: String::new(),
        pass: notes.is_empty(),
        rel_l2_out: Some(out),
        rel_l2_state: Some(state),
        tolerance: format!("{:.0e} / head {:.0e} / state {:.0e}", limit.out, limit.head, limit.state),
        note: notes.join("; "),
    })
}
