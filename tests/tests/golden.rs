//! Every recorded case in `tests/golden`, on the simulator and in the oracle.

use gdn_host::{DType, Family, HeadMap, Layout};
use gdn_tests::case::recurrence::{Recorded, records};
use gdn_tests::case::{Case, list};
use gdn_tests::compare::Tolerance;
use gdn_tests::device::Sim;
use gdn_tests::parity::recurrence::Distance;
use gdn_tests::problem::{Problem, Source, Tokens};
use gdn_tests::{golden_dir, parity};

fn recorded(name: &str) -> Recorded {
    Case::read(&golden_dir().join(name)).and_then(|case| case.recurrence()).unwrap()
}

#[test]
fn every_recorded_case_passes_on_the_simulator() {
    let files = list(&golden_dir()).unwrap();
    assert!(files.len() >= 16, "only {} case files", files.len());
    for file in files {
        let outcome = parity::run_file(&file, &mut Sim::default());
        assert!(outcome.pass, "{}: {}", outcome.file, outcome.note);
    }
}

/// The oracle against the recordings: were it wrong, the other tests would prove nothing.
#[test]
fn oracle_agrees_with_every_recorded_recurrence() {
    let cases = list(&golden_dir()).unwrap().into_iter().map(|file| Case::read(&file).unwrap());
    let mut count = 0;
    for case in cases.filter(|case| records(case.op())) {
        let Recorded { problem: p, solution } = case.recurrence().unwrap();
        let limit = Tolerance::oracle(p.out.unwrap().dtype, p.pool.dtype);
        let (recorded, oracle) = (p.written(&solution), p.oracle());
        let distance = Distance::between(&recorded, &oracle, p.shape.v as usize);
        assert_eq!(distance.beyond(&limit), [""; 0], "{}: {distance:?}", case.file);
        // What nobody writes is as it was: in the recording, unused states of the buffer are zeros.
        p.check_untouched(&solution, 0).unwrap_or_else(|error| panic!("{}: {error}", case.file));
        count += 1;
    }
    assert_eq!(count, 16);
}

/// A recording with a change that must not pass.
fn plant(name: &str, change: impl FnOnce(&mut Recorded)) -> String {
    let mut case = recorded(name);
    change(&mut case);
    let outcome = parity::recurrence::run(&case, &mut Sim::default()).unwrap();
    assert!(!outcome.pass, "a planted error passed: {outcome:?}");
    outcome.note
}

#[test]
fn a_planted_error_fails_parity() {
    const CASE: &str = "decode_sigmoid_gating__f32_state.safetensors";
    let Recorded { problem, .. } = recorded(CASE);
    let row = problem.routes().iter().position(|route| !route.is_padding()).unwrap();
    assert!(problem.routes().iter().any(|route| route.is_padding()), "the case has a padded row");
    assert!(plant(CASE, |c| c.problem.l2norm = None).contains("out is off"));
    assert!(plant(CASE, |c| c.problem.scale = Some(0.0886)).contains("out is off"));
    let swap = |p: &mut Problem| match &mut p.source {
        Source::Slots(slots) => slots.swap(0, 1),
        other => panic!("decode starts from {other:?}"),
    };
    assert!(plant(CASE, |c| swap(&mut c.problem)).contains("off"));
    let width = problem.shape.v as usize;
    assert!(plant(CASE, |c| c.solution.out.values[2 * row * width + 3] *= 1.1).contains("head"));
}

#[test]
fn a_planted_error_in_a_draft_fails_parity() {
    let tree = "verify_sigmoid_gating__tree.safetensors";
    // A chain instead of the tree, and a tree with one other edge.
    let parents = |p: &mut Problem| p.intermediate.as_mut().and_then(|i| i.parent.take()).unwrap();
    let chain = plant(tree, |c| drop(parents(&mut c.problem)));
    assert!(chain.contains("out is off") && chain.contains("intermediate is off"), "{chain}");
    let edge = plant(tree, |c| {
        let mut parent = parents(&mut c.problem);
        parent[3] = 2;
        c.problem.intermediate.as_mut().unwrap().parent = Some(parent);
    });
    assert!(edge.contains("intermediate is off"), "{edge}");
    // One state of the buffer, and a state that was to be left alone.
    let elements = recorded(tree).problem.elements();
    let state = plant(tree, |c| c.solution.intermediate.values[3 * elements..][..64].fill(0.0));
    assert_eq!(state.matches("off").count(), 1, "{state}");
    let update = "verify_sigmoid_gating__update.safetensors";
    let last = plant(update, |c| c.problem.tokens = Tokens::Each { batch: 2, tokens: 2 });
    assert!(last.contains("state is off"), "{last}");
}

/// What the recordings are for: every operation, family, layout, gate and option that they know.
#[test]
fn recordings_state_what_they_are_for() {
    let kda = recorded("packed_decode__kda_ratio2.safetensors").problem;
    assert_eq!((kda.family, kda.heads, kda.shape.ratio()), (Family::Kda, HeadMap::Grouped, 2));
    let fla = recorded("fla_kv_layout__seq.safetensors").problem;
    assert_eq!((fla.pool.layout, fla.shape.k, fla.shape.v), (Layout::Kv, 128, 64));
    let varlen = recorded("recurrent_fwd__varlen.safetensors").problem;
    assert_eq!([0, 1, 2].map(|n| varlen.tokens.range(n)), [0..1, 1..5, 5..7]);
    let zeros = recorded("recurrent_fwd__no_initial_state.safetensors").problem;
    assert_eq!((zeros.source, zeros.pool.dtype), (Source::Zeros, DType::F32));
}
