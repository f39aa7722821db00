//! The made-up server on the simulator: a short run, and the mistakes that a run must find.

use gdn_tests::device::Sim;
use gdn_tests::soak::{Options, Plant, Size, Summary, run};

/// Sequence-steps of a run.
const STEPS: u64 = 1000;

fn options(seed: u64, steps: u64) -> Options {
    Options { seed, steps, time: None, check_one_in: 100, size: Size::SMALL, plant: None }
}

/// Few multiprocessors, so that small batches are planned as large ones.
fn soak(options: &Options) -> anyhow::Result<Summary> {
    run(&mut Sim::of(4), options, &mut |_| ())
}

#[test]
fn every_sequence_of_a_server_keeps_its_own_state() {
    let summary = soak(&options(1, STEPS)).unwrap_or_else(|error| panic!("{error:#}"));
    assert!(summary.get("sequence-steps") >= STEPS);
    for (name, count) in summary.iter() {
        eprintln!("{name}: {count}");
        // The simulator has no graphs.
        let is_expected = count > 0 || name == "steps from a graph";
        assert!(is_expected, "a run of {STEPS} sequence-steps has none of: {name}");
    }
    for (what, off) in &summary.furthest {
        eprintln!("{what}: {off:.1e} from plain decode");
        assert!(*off > 0.0, "{what}: nothing was compared, or records have the bits of plain decode");
    }
    assert_eq!(summary.furthest.len(), 2);
}

#[test]
fn a_seed_repeats_a_run() {
    let counts = |seed| soak(&options(seed, 100)).unwrap().iter().collect::<Vec<_>>();
    assert_eq!(counts(7), counts(7));
    assert_ne!(counts(7), counts(8));
}

#[test]
fn a_mistake_of_the_server_is_found_where_it_happens() {
    for (plant, kind, how) in [
        (Plant::DroppedCommit, "draft steps with a buffer", "bytes differ"),
        (Plant::SwappedCopies, "draft steps with slots by token", "bytes differ"),
        (Plant::MissingCopy, "decode steps", "with the same folds"),
        (Plant::SecretFold, "decode steps", "live records"),
    ] {
        // Every sequence is looked at after each of its steps.
        let options = Options { plant: Some(plant), check_one_in: 1, ..options(3, 2000) };
        let error = format!("{:#}", soak(&options).expect_err("the mistake passed"));
        assert!(error.starts_with("seed 3: sequence "), "{error}");
        let step = |text: &str| {
            let (_, rest) = error.split_once(text).unwrap_or_else(|| panic!("{error}"));
            rest.chars().take_while(char::is_ascii_digit).collect::<String>()
        };
        assert_eq!(step(" at step "), step("written last at step "), "{error}");
        assert!(error.contains(how) && error.ends_with(kind), "{plant:?}: {error}");
    }
}
