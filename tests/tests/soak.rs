//! The made-up server on the simulator: a short run, and the mistakes that a run must find.

use gdn_tests::device::Sim;
use gdn_tests::soak::{Options, Plant, Size, Summary, run};

fn options(seed: u64, steps: u64) -> Options {
    Options { seed, steps, time: None, check_one_in: 100, size: Size::SMALL, plant: None }
}

/// Few multiprocessors, so that small batches are planned as large ones.
fn soak(options: &Options) -> anyhow::Result<Summary> {
    run(&mut Sim::of(4), options, &mut |_| ())
}

#[test]
fn every_sequence_of_a_server_keeps_its_own_state() {
    let summary = soak(&options(1, 10_000)).unwrap_or_else(|error| panic!("{error:#}"));
    assert!(summary.get("sequence-steps") >= 10_000);
    for (name, count) in summary.iter() {
        eprintln!("{name}: {count}");
        // The simulator has no graphs.
        let is_expected = count > 0 || name == "steps from a graph";
        assert!(is_expected, "a run of 10,000 sequence-steps has none of: {name}");
    }
}

#[test]
fn a_seed_repeats_a_run() {
    let counts = |seed| soak(&options(seed, 100)).unwrap().iter().collect::<Vec<_>>();
    assert_eq!(counts(7), counts(7));
    assert_ne!(counts(7), counts(8));
}

#[test]
fn a_mistake_of_the_server_is_found_where_it_happens() {
    for (plant, kind) in [
        (Plant::DroppedCommit, "draft steps with a buffer"),
        (Plant::SwappedCopies, "draft steps with slots by token"),
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
        assert!(error.ends_with(kind), "{error}");
    }
}
