//! Random copies, commits, conversions and projections: every byte against what must be there, with the planned block
//! and with another one.

use anyhow::Result;
use gdn_host::Tile;
use gdn_tests::device::Sim;
use gdn_tests::movement::{convert, copy, unpack, warps};
use proptest::prelude::*;

/// Runs a problem with both blocks.
fn both(run: impl Fn(&mut Sim, Tile) -> Result<()>, block: u32) -> Result<(), TestCaseError> {
    let mut sim = Sim::default();
    let result = run(&mut sim, Tile::Auto).and_then(|()| run(&mut sim, warps(block)));
    result.map_err(|error| TestCaseError::fail(format!("{error:#}")))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn random_copies(problem in copy::copies(), block in 1u32..=8) {
        both(|sim, tile| problem.run_and_check(sim, tile), block)?;
    }

    #[test]
    fn random_commits(problem in copy::commits(), block in 1u32..=8) {
        both(|sim, tile| problem.run_and_check(sim, tile), block)?;
    }

    #[test]
    fn random_conversions(problem in convert::conversions(), block in 1u32..=8) {
        both(|sim, tile| problem.run_and_check(sim, tile), block)?;
    }

    #[test]
    fn random_projections(problem in unpack::projections(), block in 1u32..=8) {
        both(|sim, tile| problem.run_and_check(sim, tile), block)?;
    }
}
