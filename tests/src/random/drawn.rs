//! Problems in a fixed order, for records.

use super::{decode, recurrent, replay};
use crate::problem::Problem;
use crate::replay::ReplayProblem;
use anyhow::{Result, anyhow};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

/// The first `count` problems of [`decode()`] and [`recurrent()`] in turn, the same every time: a record must be
/// repeatable.
///
/// # Errors
/// A draw that proptest gave up on.
pub fn fixed(count: u32) -> impl Iterator<Item = Result<Problem>> {
    let mut runner = TestRunner::deterministic();
    let strategies = [decode().boxed(), recurrent().boxed()];
    (0..count).map(move |i| {
        let tree = strategies[i as usize % 2].new_tree(&mut runner).map_err(|reason| anyhow!("{reason}"))?;
        Ok(tree.current())
    })
}

/// The first `count` problems of [`replay()`], the same every time.
///
/// # Errors
/// A draw that proptest gave up on.
pub fn fixed_replay(count: u32) -> impl Iterator<Item = Result<ReplayProblem>> {
    let mut runner = TestRunner::deterministic();
    let strategy = replay();
    (0..count).map(move |_| {
        let tree = strategy.new_tree(&mut runner).map_err(|reason| anyhow!("{reason}"))?;
        Ok(tree.current())
    })
}
