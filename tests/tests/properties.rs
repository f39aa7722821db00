//! Random problems: the simulated kernels against the oracle, and against themselves with another tile.

use gdn_host::plan::{Height, Step};
use gdn_host::{DType, Family, HeadShape, Layout, Tile};
use gdn_tests::device::{Device, Sim};
use gdn_tests::problem::{Source, Target, Tokens};
use gdn_tests::random::{self, Plain, Tiled};
use proptest::prelude::*;

fn agrees(problem: &impl Tiled, pick: prop::sample::Index) -> Result<(), TestCaseError> {
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
    fn random_replay_agrees_with_the_oracle(problem in random::replay(), tile: prop::sample::Index) {
        agrees(&problem, tile)?;
    }

    #[test]
    fn random_recurrent_agrees_with_the_oracle(problem in random::recurrent(), tile: prop::sample::Index) {
        agrees(&problem, tile)?;
    }
}

/// A padded row that names a write slot: nothing is written there, whichever tile goes over it.
#[test]
fn padded_rows_leave_their_write_slots_alone() {
    let shape = HeadShape { h: 1, hv: 2, k: 128, v: 128 };
    for family in [Family::Gdn, Family::Kda] {
        for (layout, state) in
            [(Layout::Vk, DType::F32), (Layout::Vk, DType::Bf16), (Layout::Kv, DType::Bf16)]
        {
            let plain = Plain::new(shape, Tokens::One { batch: 3 }, state, 82);
            let mut problem = Plain { family, layout, ..plain }.problem();
            problem.fill_pool(4, 83);
            (problem.source, problem.target) = (Source::Slots(vec![3, -1, 99]), Target::Slots(vec![0, 1, 2]));
            for tile in problem.tiles() {
                problem.run_and_check(&mut Sim::default(), tile).unwrap();
            }
        }
    }
}

/// On a part of one multiprocessor a small batch has several waves, so that blocks ask for states of later sequences; the
/// simulator tells who asks for what it may not read.
#[test]
fn blocks_ask_ahead_for_states_that_are_there() {
    let shape = HeadShape { h: 1, hv: 2, k: 64, v: 64 };
    let mut sim = Sim::of(1);
    let whole =
        [Family::Gdn, Family::Kda].map(|family| [Layout::Vk, Layout::Kv].map(|layout| (family, layout)));
    for (family, layout) in whole.into_iter().flatten() {
        for tokens in [Tokens::One { batch: 20 }, Tokens::Each { batch: 20, tokens: 2 }] {
            let plain = Plain::new(shape, tokens, DType::Bf16, 81);
            let mut problem = Plain { family, layout, ..plain }.problem();
            // Slots in another order, some of them padding.
            let slot = |n: i32| if n % 6 == 5 { -1 } else { 7 * n % 20 };
            problem.source = Source::Slots((0..20).map(slot).collect());
            let steps = [Height::Small, Height::Large].map(|tile| [1, 4].map(|teams| (tile, teams)));
            for (tile, teams) in steps.into_iter().flatten() {
                // A sequence is 16 KiB.
                let tile = Tile::Step(Step { up_to: None, tile, teams, ahead_kib: 72, early: false });
                sim.reset();
                let placed = problem.place(&mut sim).unwrap();
                let plan = placed.call.operation().plan(&sim.caps(), tile).unwrap();
                assert_eq!(plan.ahead, 5, "{plan}");
                problem.run_and_check(&mut sim, tile).unwrap();
            }
        }
    }
}
