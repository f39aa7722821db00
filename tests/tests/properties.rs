//! Random problems: the simulated kernels against the oracle, and against themselves with another tile.

use gdn_host::Tile;
use gdn_tests::device::Sim;
use gdn_tests::problem::Problem;
use gdn_tests::random;
use proptest::prelude::*;

fn agrees(problem: &Problem, pick: prop::sample::Index) -> Result<(), TestCaseError> {
    let mut sim = Sim::default();
    let fail = |error: anyhow::Error| TestCaseError::fail(format!("{error:#}"));
    let solution = problem.run_and_check(&mut sim, Tile::Auto).map_err(fail)?;
    let tile = *pick.get(&problem.tiles());
    let again = problem.run(&mut sim, tile).map_err(fail)?;
    prop_assert!(again == solution, "{:?} gives other bits", tile);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn random_decode_agrees_with_the_oracle(problem in random::decode(), tile: prop::sample::Index) {
        agrees(&problem, tile)?;
    }

    #[test]
    fn random_recurrent_agrees_with_the_oracle(problem in random::recurrent(), tile: prop::sample::Index) {
        agrees(&problem, tile)?;
    }
}
