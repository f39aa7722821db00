//! Every recorded case in `tests/golden`, on the simulator and in the oracle.

use gdn_tests::case::{Case, list};
use gdn_tests::compare::{Tolerance, rel_l2, widen, worst_vector};
use gdn_tests::device::Sim;
use gdn_tests::{golden_dir, parity};

#[test]
fn every_recorded_case_passes_on_the_simulator() {
    let files = list(&golden_dir()).unwrap();
    assert!(files.len() >= 4, "only {} case files", files.len());
    for file in files {
        let outcome = parity::run_file(&file, &mut Sim::default());
        assert!(outcome.pass, "{}: {}", outcome.file, outcome.note);
    }
}

/// The oracle against the recordings: were it wrong, the other tests would prove nothing.
#[test]
fn oracle_agrees_with_every_recorded_case() {
    for file in list(&golden_dir()).unwrap() {
        let case = Case::read(&file).unwrap().decode().unwrap();
        let p = &case.problem;
        let (mut out, state) = p.oracle();
        let mut recorded = widen(&case.out);
        // What the recorded kernel leaves undefined is not compared.
        let width = p.shape.value_elements() as usize;
        for (n, slot) in p.read_slots().iter().enumerate() {
            if slot.is_none() {
                out[n * width..(n + 1) * width].fill(0.0);
                recorded[n * width..(n + 1) * width].fill(0.0);
            }
        }
        let limit = Tolerance::oracle(p.out_type, p.state_type);
        let name = file.display();
        assert!(rel_l2(&recorded, &out) <= limit.out, "{name}: out");
        assert!(worst_vector(&recorded, &out, p.shape.v as usize) <= limit.head, "{name}: head");
        assert!(rel_l2(&widen(&case.state), &state) <= limit.state, "{name}: state");
    }
}

#[test]
fn a_planted_error_fails_parity() {
    let file = golden_dir().join("decode_sigmoid_gating__f32_state.safetensors");
    let case = Case::read(&file).unwrap().decode().unwrap();
    let plant = |change: &dyn Fn(&mut gdn_tests::case::DecodeCase)| {
        let mut case = Case::read(&file).unwrap().decode().unwrap();
        change(&mut case);
        let outcome = parity::run_decode(&case, &mut Sim::default()).unwrap();
        assert!(!outcome.pass, "a planted error passed: {outcome:?}");
        outcome.note
    };
    assert!(case.problem.slot.iter().any(|s| *s < 0), "the case has a padded row");
    assert!(plant(&|c| c.problem.l2norm = None).contains("out is off"));
    assert!(plant(&|c| c.problem.scale = Some(0.0886)).contains("out is off"));
    assert!(plant(&|c| c.problem.slot.swap(0, 1)).contains("off"));
    let width = case.problem.shape.v as usize;
    let row = case.problem.slot.iter().position(|s| *s >= 0).unwrap();
    assert!(plant(&|c| c.out[2 * row * width + 3] *= 1.1).contains("head"));
}
