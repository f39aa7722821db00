//! The oracle on host memory: recorded cases, hazards and random problems, as the kernels have them.

use gdn_host::Tile;
use gdn_tests::case::list;
use gdn_tests::device::{Device, Host};
use gdn_tests::random::{self, Tiled};
use gdn_tests::{for_each_hazard, golden_dir, parity};
use proptest::prelude::*;

#[test]
fn every_recorded_case_passes_on_host_memory() {
    for file in list(&golden_dir()).unwrap() {
        let outcome = parity::run_file(&file, &mut Host::default());
        assert!(outcome.pass, "{}: {}", outcome.file, outcome.note);
    }
}

macro_rules! hazards {
    ($($module:ident::{$($name:ident,)*})*) => {
        /// Every hazard by name.
        fn hazards() -> Vec<(String, gdn_tests::hazards::Hazard)> {
            let name = |module: &str, name: &str| format!("{module}::{name}");
            vec![$($((name(stringify!($module), stringify!($name)), gdn_tests::hazards::$module::$name as _),)*)*]
        }
    };
}
for_each_hazard!(hazards);

/// What is about kernels and not about calls, and takes the oracle long: tiles, grids, memory of gigabytes, long runs.
const LEFT_OUT: [&str; 15] = [
    "for_every_tile",
    "replay_does_not_drift",
    "past_2_31_elements",
    "past_65535",
    "more_than_65535_tokens",
    "identity::",
    "early::",
    "gate::",
    "layout::kv_gives_the_bits",
    "convert::decode_after_conversion",
    "every_head_dimension",
    "every_pair_of_types",
    "of_every_type",
    "of_every_length",
    "narrow_buffer",
];

#[test]
fn hazards_hold_on_host_memory() {
    let is_left_out = |name: &str| LEFT_OUT.iter().any(|part| name.contains(part));
    let mut failed = Vec::new();
    for (name, hazard) in hazards().into_iter().filter(|(name, _)| !is_left_out(name)) {
        if let Err(error) = hazard(&mut Host::default()) {
            failed.push(format!("{name}: {error:#}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

fn agrees(problem: &impl Tiled) -> Result<(), TestCaseError> {
    let mut host = Host::default();
    host.reset();
    let result = problem.run_and_check(&mut host, Tile::Auto);
    result.map(drop).map_err(|error| TestCaseError::fail(format!("{error:#}")))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn random_decode_agrees_on_host_memory(problem in random::decode()) {
        agrees(&problem)?;
    }

    #[test]
    fn random_recurrent_agrees_on_host_memory(problem in random::recurrent()) {
        agrees(&problem)?;
    }

    #[test]
    fn random_replay_agrees_on_host_memory(problem in random::replay()) {
        agrees(&problem)?;
    }
}
