//! A table made of fits, and what it gains over another.

use super::fit::{self, Point, Steps};
use crate::report;
use gdn_host::plan::{Class, Height, Load, Step, Tuning};
use std::collections::BTreeMap;

/// Height of the tile and teams of a block.
pub type Tile = (Height, u32);

/// What was measured of a class.
#[derive(Default)]
pub struct Measured {
    /// Every tile of each shape, and the shape's name.
    pub tiles: Vec<(String, Point<Tile>)>,
    /// The chosen tile by how many KiB ahead.
    pub ahead: Vec<Point<u32>>,
    /// The chosen tile behind a producer, by whether the launch is early.
    pub early: Vec<Point<bool>>,
}

/// The steps of a class: tiles as measured; how far ahead and whether early as measured, else as `base` has it.
pub fn steps(measured: &Measured, base: &[Step]) -> Vec<Step> {
    let points: Vec<_> = measured.tiles.iter().map(|(_, point)| point.clone()).collect();
    let tiles = fit::steps(&points);
    let of_base = |what: fn(&Step) -> (u32, bool)| -> Steps<(u32, bool)> {
        base.iter().map(|step| (step.up_to, what(step))).collect()
    };
    let both = of_base(|step| (step.ahead_kib, step.early));
    let ahead = match measured.ahead.is_empty() {
        true => both.iter().map(|(up_to, (kib, _))| (*up_to, *kib)).collect(),
        false => fit::steps(&measured.ahead),
    };
    let early = match measured.early.is_empty() {
        true => both.iter().map(|(up_to, (_, early))| (*up_to, *early)).collect(),
        false => fit::steps(&measured.early),
    };
    overlay(&tiles, &ahead, &early)
}

/// Steps that end wherever one of the three does, and differ from their neighbours.
fn overlay(tiles: &Steps<Tile>, ahead: &Steps<u32>, early: &Steps<bool>) -> Vec<Step> {
    // No end is the largest.
    let ends = |load: Option<Load>| load.map_or(u64::MAX, |load| load.0);
    let all = tiles.iter().map(|s| s.0).chain(ahead.iter().map(|s| s.0)).chain(early.iter().map(|s| s.0));
    let mut all: Vec<u64> = all.map(ends).collect();
    all.sort_unstable();
    all.dedup();
    let mut steps: Vec<Step> = Vec::new();
    for end in all {
        let load = Load(end);
        let Some(&(tile, teams)) = fit::look_up(tiles, load) else { continue };
        let ahead_kib = fit::look_up(ahead, load).copied().unwrap_or(0);
        let early = fit::look_up(early, load).copied().unwrap_or(false);
        let up_to = (end != u64::MAX).then_some(load);
        let step = Step { up_to, tile, teams, ahead_kib, early };
        match steps.last_mut() {
            Some(last) if Step { up_to, ..*last } == step => last.up_to = up_to,
            _ => steps.push(step),
        }
    }
    steps
}

/// How far a table's tiles are from the best, shape by shape.
pub struct Comparison {
    /// Shape, time under the new table over the best, and under the other one.
    shapes: Vec<(String, f64, f64)>,
}

impl Comparison {
    /// By the measured times of tiles.
    pub fn of(measured: &BTreeMap<Class, Measured>, new: &Tuning, old: &Tuning) -> Comparison {
        let shapes = measured.iter().flat_map(|(class, measured)| {
            measured.tiles.iter().map(|(name, point)| {
                let over = |table: &Tuning| {
                    let step = table.look_up(*class, point.load);
                    step.map_or(f64::NAN, |step| fitting(point, (step.tile, step.teams)))
                };
                (name.clone(), over(new), over(old))
            })
        });
        Comparison { shapes: shapes.collect() }
    }

    /// Shapes that differ, and the summary.
    pub fn print(&self, all: bool) {
        let percent = |x: f64| format!("{:+.1} %", 100.0 * (x - 1.0));
        let rows = self.shapes.iter().filter(|(_, new, old)| all || (new / old - 1.0).abs() > 0.005);
        let rows =
            rows.map(|(name, new, old)| [name.clone(), percent(new / old), percent(*new), percent(*old)]);
        report::table(&["shape", "new over embedded", "new over best", "embedded over best"], rows);
        let mean = |of: &dyn Fn(&(String, f64, f64)) -> f64| {
            let sum: f64 = self.shapes.iter().map(|shape| of(shape).ln()).sum();
            (sum / self.shapes.len().max(1) as f64).exp()
        };
        let worst = self.shapes.iter().max_by(|a, b| a.1.total_cmp(&b.1));
        report::line(format_args!(
            "{} shapes: new over embedded {} in the geometric mean; within 2 % of the best tile {}, embedded {}",
            self.shapes.len(),
            percent(mean(&|(_, new, old)| new / old)),
            self.shapes.iter().filter(|(_, new, _)| *new <= 1.02).count(),
            self.shapes.iter().filter(|(.., old)| *old <= 1.02).count(),
        ));
        if let Some((name, over, _)) = worst {
            report::line(format_args!("worst: {name}, {} over the best tile", percent(*over)));
        }
    }
}

/// Time over the best of the tile that a step comes to: where the step's was not measured, of the same height with fewer
/// teams, or of the tallest below.
fn fitting(point: &Point<Tile>, (height, teams): Tile) -> f64 {
    let not_above = point.us.keys().filter(|(h, t)| *h < height || *h == height && *t <= teams).max();
    not_above.map_or(f64::NAN, |tile| point.over_best(tile))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_end_where_any_of_the_three_does() {
        let at = |eighths| Some(Load(eighths));
        let tiles = vec![(at(8), (Height::Small, 4)), (None, (Height::Large, 4))];
        let ahead = vec![(at(256), 0), (None, 96)];
        let early = vec![(at(8), true), (None, false)];
        let step = |up_to, tile, ahead_kib, early| Step { up_to, tile, teams: 4, ahead_kib, early };
        assert_eq!(
            overlay(&tiles, &ahead, &early),
            [
                step(at(8), Height::Small, 0, true),
                step(at(256), Height::Large, 0, false),
                step(None, Height::Large, 96, false),
            ]
        );
    }

    #[test]
    fn neighbours_that_agree_are_one_step() {
        let tiles = vec![(Some(Load(8)), (Height::Small, 4)), (None, (Height::Small, 4))];
        let steps = overlay(&tiles, &vec![(Some(Load(16)), 0), (None, 0)], &vec![(None, false)]);
        assert_eq!(steps.len(), 1);
        assert_eq!(steps[0].up_to, None);
    }

    #[test]
    fn a_tile_that_was_not_measured_is_the_one_that_dispatch_falls_back_to() {
        let us = BTreeMap::from([((Height::Small, 4), 1.0), ((Height::Large, 4), 1.5)]);
        let point = Point { load: Load(1), us };
        assert_eq!(fitting(&point, (Height::Large, 8)), 1.5);
        assert_eq!(fitting(&point, (Height::Whole, 1)), 1.5);
        assert_eq!(fitting(&point, (Height::Small, 16)), 1.0);
    }
}
