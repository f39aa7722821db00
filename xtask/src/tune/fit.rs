//! From times to steps: the simplest piecewise constant choice over loads that loses next to nothing.
//!
//! A point is a measured shape: its load and the time of each candidate. The steps that cost least are found by dynamic
//! programming over the loads. A choice within 1 % of a point's best costs nothing there, as repetitions differ by so much;
//! further off it costs what it loses, above 2 % much more, above 5 % as much as can be. A step costs 1 %: one that gains
//! less than that at all its loads together is merged with its neighbour.

use gdn_host::plan::Load;
use std::collections::BTreeMap;

/// A measured shape.
#[derive(Clone, Debug)]
pub struct Point<T> {
    /// States a multiprocessor.
    pub load: Load,
    /// Microseconds of each candidate.
    pub us: BTreeMap<T, f64>,
}

/// A choice up to a load; the last one is for any.
pub type Steps<T> = Vec<(Option<Load>, T)>;

/// What a step has to gain.
const STEP: f64 = 0.01;

/// Times that differ by less are the same.
const NOISE: f64 = 1.01;

/// What a candidate that takes `over` times the best costs: first what counts, then what tells equals apart.
fn cost(over: f64) -> f64 {
    let above = |limit: f64| (over - limit).max(0.0);
    above(NOISE) + 2.0 * above(1.02) + 100.0 * above(1.05) + 1e-4 * above(1.0)
}

impl<T: Ord + Clone> Point<T> {
    /// Time of a candidate over the best; infinite if it was not measured.
    pub fn over_best(&self, candidate: &T) -> f64 {
        let best = self.us.values().copied().fold(f64::INFINITY, f64::min);
        self.us.get(candidate).map_or(f64::INFINITY, |us| us / best)
    }
}

/// The steps for some points; none without a point, or if no candidate was measured at all points of a load.
pub fn steps<T: Ord + Clone>(points: &[Point<T>]) -> Steps<T> {
    let mut loads: Vec<Load> = points.iter().map(|point| point.load).collect();
    loads.sort();
    loads.dedup();
    let mut candidates: Vec<&T> = points.iter().flat_map(|point| point.us.keys()).collect();
    candidates.sort();
    candidates.dedup();
    let at = |load: Load, candidate: &T| -> f64 {
        points.iter().filter(|point| point.load == load).map(|point| cost(point.over_best(candidate))).sum()
    };
    let costs: Vec<Vec<f64>> =
        loads.iter().map(|&load| candidates.iter().map(|candidate| at(load, candidate)).collect()).collect();

    // `best[j]`: cost of the loads before j, where the last step begins, and its candidate.
    let mut best = vec![(0.0, 0, 0)];
    for end in 1..=loads.len() {
        let mut found = (f64::INFINITY, 0, 0);
        let mut sums = vec![0.0; candidates.len()];
        for begin in (0..end).rev() {
            for (candidate, sum) in sums.iter_mut().enumerate() {
                *sum += costs[begin][candidate];
                let total = best[begin].0 + *sum + STEP;
                if total < found.0 {
                    found = (total, begin, candidate);
                }
            }
        }
        best.push(found);
    }
    let mut steps = Vec::new();
    let mut end = loads.len();
    while end > 0 && best[end].0.is_finite() {
        let (_, begin, candidate) = best[end];
        let up_to = loads.get(end).map(|&next| between(loads[end - 1], next));
        steps.push((up_to, candidates[candidate].clone()));
        end = begin;
    }
    steps.reverse();
    steps
}

/// Where a step ends whose last load and whose successor's first load were measured: at a whole number of states a
/// multiprocessor, where waves of blocks end, the one nearest to the middle; if there is none, at the last load.
fn between(last: Load, next: Load) -> Load {
    let middle = ((last.0 * next.0) as f64).sqrt();
    let whole = [(middle / 8.0).floor(), (middle / 8.0).ceil()].map(|states| states as u64 * 8);
    let fits = whole.into_iter().filter(|eighths| (last.0..next.0).contains(eighths));
    Load(
        fits.min_by(|a, b| (*a as f64 - middle).abs().total_cmp(&(*b as f64 - middle).abs()))
            .unwrap_or(last.0),
    )
}

/// What is chosen for a load.
pub fn look_up<T>(steps: &Steps<T>, load: Load) -> Option<&T> {
    let step = steps.iter().find(|(up_to, _)| up_to.is_none_or(|up_to| load <= up_to));
    step.or(steps.last()).map(|(_, choice)| choice)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(load: u64, us: &[(&'static str, f64)]) -> Point<&'static str> {
        Point { load: Load(load), us: us.iter().copied().collect() }
    }

    fn ends(steps: &Steps<&'static str>) -> Vec<(Option<u64>, &'static str)> {
        steps.iter().map(|(up_to, choice)| (up_to.map(|load| load.0), *choice)).collect()
    }

    #[test]
    fn a_step_is_where_the_best_changes() {
        let points = [
            point(2, &[("a", 1.0), ("b", 1.2)]),
            point(4, &[("a", 1.0), ("b", 1.1)]),
            point(20, &[("a", 1.3), ("b", 1.0)]),
        ];
        // Between 4 and 20 eighths lies one state a multiprocessor.
        assert_eq!(ends(&steps(&points)), [(Some(8), "a"), (None, "b")]);
        assert_eq!(look_up(&steps(&points), Load(8)), Some(&"a"));
        assert_eq!(look_up(&steps(&points), Load(9)), Some(&"b"));
    }

    #[test]
    fn a_step_that_gains_less_than_a_percent_is_merged() {
        let points = [
            point(1, &[("a", 1.0), ("b", 1.2)]),
            point(2, &[("a", 1.005), ("b", 1.0)]),
            point(3, &[("a", 1.0), ("b", 1.2)]),
            // Noise and a little: 0.5 % above it.
            point(4, &[("a", 1.015), ("b", 1.0)]),
        ];
        assert_eq!(ends(&steps(&points)), [(None, "a")]);
        let far = [point(1, &[("a", 1.0), ("b", 1.2)]), point(2, &[("a", 1.03), ("b", 1.0)])];
        assert_eq!(ends(&steps(&far)), [(Some(1), "a"), (None, "b")]);
    }

    #[test]
    fn what_is_far_off_at_one_shape_of_a_load_is_not_taken() {
        let points = [
            point(5, &[("a", 1.0), ("b", 1.015)]),
            point(5, &[("a", 1.0), ("b", 1.015)]),
            point(5, &[("a", 1.1), ("b", 1.0)]),
        ];
        assert_eq!(ends(&steps(&points)), [(None, "b")]);
    }

    #[test]
    fn candidates_that_were_not_measured_are_not_chosen() {
        let points = [point(1, &[("a", 1.0)]), point(1, &[("b", 1.0), ("a", 2.0)])];
        assert_eq!(ends(&steps(&points)), [(None, "a")]);
        assert!(steps::<&str>(&[]).is_empty());
    }
}
