//! Random decode problems.

use super::options::options;
use crate::problem::{Problem, Source, StartFlags, Target, Tokens};
use proptest::prelude::*;

/// A decode problem with everything drawn that may vary.
pub fn decode() -> impl Strategy<Value = Problem> {
    let rows = (1usize..=4).prop_flat_map(|batch| {
        let index = prop_oneof![3 => Just(0i32), 1 => Just(-1i32), 1 => Just(i32::MIN), 1 => Just(1000)];
        (
            Just(batch),
            prop::collection::vec(index.clone(), batch),
            prop::collection::vec(index, batch),
            prop::collection::vec(any::<bool>(), batch),
            Just((0..(2 * batch + 1) as i32).collect::<Vec<_>>()).prop_shuffle(),
        )
    });
    (options(), rows).prop_map(|(options, (batch, read, write, fresh, order))| {
        let mut p = options.problem(Tokens::One { batch });
        let gaps = options.gaps;
        p.fill_pool(2 * batch + 1, options.seed + 1);
        p.pool.pitch += 8 * gaps[4];
        // Read and write slots are distinct numbers of one shuffled list; some rows are padding. Without a table sequence n is
        // in slot n.
        let absent = gaps[2] == 4;
        let order: Vec<i32> = order.into_iter().filter(|slot| !absent || *slot >= batch as i32).collect();
        let first = if absent { 0 } else { batch };
        let pick = |index: &i32, at: usize| if *index == 0 { order[at] } else { *index };
        p.source = match absent {
            true => Source::Sequences,
            false => Source::Slots(read.iter().enumerate().map(|(n, i)| pick(i, n)).collect()),
        };
        if gaps[0] > 0 {
            let targets = write.iter().enumerate().map(|(n, i)| pick(i, first + n));
            p.target = Target::Slots(targets.collect());
        }
        p.null_slot = (gaps[3] == 1).then_some(order[0]);
        let bytes: Vec<u8> = fresh.iter().map(|f| if *f { 3 } else { 0 }).collect();
        p.start = match gaps[1] {
            0 => StartFlags::None,
            1 => StartFlags::Reset(bytes),
            _ => StartFlags::HasInitialState(bytes),
        };
        p
    })
}
