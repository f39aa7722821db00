//! Problems in a fixed order, for records.

use super::{decode, recurrent, replay};
use crate::problem::Problem;
use crate::replay::ReplayProblem;
use anyhow::{Result, anyhow};
use proptest::strategy::{BoxedStrategy, Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use std::fmt::Debug;

/// The first `count` problems of [`decode()`] and [`recurrent()`] in turn, the same every time: a record must be
/// repeatable.
///
/// # Errors
/// A draw that proptest gave up on.
pub fn fixed(count: u32) -> impl Iterator<Item = Result<Problem>> {
    in_turn([decode().boxed(), recurrent().boxed()], count)
}

/// The first `count` problems of [`replay()`], the same every time.
///
/// # Errors
/// A draw that proptest gave up on.
pub fn fixed_replay(count: u32) -> impl Iterator<Item = Result<ReplayProblem>> {
    in_turn([replay().boxed()], count)
}

/// `count` draws, from each strategy in turn, the same every time.
fn in_turn<P: Debug, const N: usize>(
    strategies: [BoxedStrategy<P>; N],
    count: u32,
) -> impl Iterator<Item = Result<P>> {
    let mut runner = TestRunner::deterministic();
    (0..count as usize).map(move |i| {
        let tree = strategies[i % N].new_tree(&mut runner).map_err(|reason| anyhow!("{reason}"))?;
        Ok(tree.current())
    })
}
