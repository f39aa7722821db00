//! Cases of the recurrence.

use super::Outcome;
use crate::case::recurrence::Recorded;
use crate::compare::{Tolerance, rel_l2, worst_vector};
use crate::device::{Device, POISON};
use crate::problem::{Place, Written};
use anyhow::Result;
use gdn_host::{DType, Tile};

/// Relative L2 errors between two results of a problem.
#[derive(Clone, Copy, Debug)]
pub struct Distance {
    /// Output.
    pub out: f64,
    /// Each head's output vector on its own.
    pub head: f64,
    /// States of the pool and final states.
    pub state: f64,
    /// States of the buffer.
    pub intermediate: f64,
}

impl Distance {
    /// The distance of what one result wrote from what another did; output vectors have `v` elements.
    pub fn between(got: &Written, want: &Written, v: usize) -> Distance {
        let out = |written: &Written| written.out.iter().flat_map(|(_, row)| row.clone()).collect::<Vec<_>>();
        let states = |written: &Written, in_buffer: bool| {
            let kept = written.states.iter();
            let kept = kept.filter(|(place, _)| matches!(place, Place::Buffer(_)) == in_buffer);
            kept.flat_map(|(_, state)| state.clone()).collect::<Vec<_>>()
        };
        let (got_out, want_out) = (out(got), out(want));
        Distance {
            out: rel_l2(&got_out, &want_out),
            head: worst_vector(&got_out, &want_out, v),
            state: rel_l2(&states(got, false), &states(want, false)),
            intermediate: rel_l2(&states(got, true), &states(want, true)),
        }
    }

    /// What is further than a tolerance allows, in words.
    pub fn beyond(&self, limit: &Tolerance) -> Vec<String> {
        let errors = [
            ("out", self.out, limit.out),
            ("a head of out", self.head, limit.head),
            ("state", self.state, limit.state),
            ("intermediate", self.intermediate, limit.state),
        ];
        let beyond = errors.into_iter().filter(|(_, error, allowed)| error > allowed);
        beyond.map(|(what, error, _)| format!("{what} is off by {error:.2e}")).collect()
    }
}

/// Runs a case: outputs and written states within tolerance, outputs also head by head; padded rows zero; what
/// nobody writes exact.
pub fn run(case: &Recorded, device: &mut dyn Device) -> Result<Outcome> {
    let problem = &case.problem;
    let solution = problem.run(device, Tile::Auto)?;
    let out_type = problem.out.map_or(DType::F32, |out| out.dtype);
    let limit = Tolerance::recorded(out_type, problem.pool.dtype);
    let (got, want) = (problem.written(&solution), problem.written(&case.solution));
    let distance = Distance::between(&got, &want, problem.shape.v as usize);
    let mut notes = distance.beyond(&limit);
    notes.extend(problem.check_untouched(&solution, POISON).err().map(|error| error.to_string()));
    Ok(Outcome {
        pass: notes.is_empty(),
        rel_l2_out: Some(distance.out),
        rel_l2_state: Some(distance.state.max(distance.intermediate)),
        tolerance: format!("{:.0e} / head {:.0e} / state {:.0e}", limit.out, limit.head, limit.state),
        note: notes.join("; "),
        ..Outcome::default()
    })
}
