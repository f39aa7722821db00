//! Random decode problems: the simulated kernel against the oracle, and against itself with another tile.

use gdn_host::Tile;
use gdn_tests::device::Sim;
use gdn_tests::random;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn random_problem_agrees_with_the_oracle(problem in random::decode(), bv in 0u32..4) {
        let mut sim = Sim::default();
        let solution = problem.run_and_check(&mut sim, Tile::Auto);
        let solution = solution.map_err(|e| TestCaseError::fail(format!("{e:#}")))?;
        let tile = Tile::Rows(8 << bv);
        let again = problem.run(&mut sim, tile).map_err(|e| TestCaseError::fail(format!("{e:#}")))?;
        prop_assert!(again == solution, "{tile:?} gives other bits");
    }
}
