//! Every tile of a shape, and how near the one that dispatch chose is to the best.

use super::Gpu;
use super::case::Case;
use super::row::Row;
use crate::report::say;
use anyhow::Result;
use gdn_host::Launch;
use serde::{Serialize, Serializer};

/// The times of every tile of a shape.
#[derive(Serialize)]
pub(super) struct Sweep {
    chosen: Row,
    /// In JSON the time of each, by its name.
    #[serde(serialize_with = "times")]
    tiles: Vec<Row>,
}

fn times<S: Serializer>(tiles: &[Row], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(tiles.iter().map(|row| (&row.tile, row.us)))
}

/// A choice within this factor of the best is as good as it.
pub(super) const GOOD: f64 = 1.02;

impl Sweep {
    /// Times the choice and every tile; their replays alternate.
    pub(super) fn time(gpu: &Gpu, case: &Case, launch: Launch) -> Result<Option<Sweep>> {
        let tiles = case.spec.tiles().into_iter().map(|tile| Launch { tile, ..launch });
        let launches: Vec<Launch> = [launch].into_iter().chain(tiles).collect();
        let mut rows = case.time(gpu, &launches)?.into_iter();
        Ok(rows.next().map(|chosen| Sweep { chosen, tiles: rows.collect() }))
    }

    fn best_us(&self) -> f64 {
        self.tiles.iter().map(|t| t.us).fold(f64::INFINITY, f64::min)
    }

    /// Time of the choice over that of the best tile.
    fn over_best(&self) -> f64 {
        self.chosen.us / self.best_us()
    }

    fn name(&self) -> String {
        let c = &self.chosen.shape;
        format!("{} {} {} {:4} batch {:4}", c.op, c.heads(), c.layout, c.state, c.batch)
    }
}

/// Of all shapes.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Summary {
    /// Shapes.
    shapes: usize,
    /// Those whose choice is within 2 % of the best tile.
    within_2_percent: usize,
    /// The shape whose choice is furthest from its best tile.
    worst: String,
    /// Time of that choice over the best tile's.
    worst_over_best: f64,
}

/// What the sweeps say in all; `None` without one.
pub(super) fn summary(sweeps: &[Sweep]) -> Option<Summary> {
    let worst = sweeps.iter().max_by(|a, b| a.over_best().total_cmp(&b.over_best()))?;
    Some(Summary {
        shapes: sweeps.len(),
        within_2_percent: sweeps.iter().filter(|s| s.over_best() <= GOOD).count(),
        worst: worst.name(),
        worst_over_best: worst.over_best(),
    })
}

/// A paragraph a shape, and the summary.
pub(super) fn print(sweeps: &[Sweep]) {
    for s in sweeps {
        let verdict = if s.over_best() <= GOOD { "" } else { "  <- over 2 % from the best" };
        let (chosen, best) = (&s.chosen, s.best_us());
        say!("{}: {} {:.2} us, best {best:.2}{verdict}", s.name(), chosen.tile, chosen.us);
        let mut tiles: Vec<_> = s.tiles.iter().collect();
        tiles.sort_by(|a, b| a.us.total_cmp(&b.us));
        let cells = tiles.iter().map(|t| format!("{} {:.2}", t.tile, t.us));
        say!("    {}", cells.collect::<Vec<_>>().join(", "));
    }
    if let Some(s) = summary(sweeps) {
        let percent = (s.worst_over_best - 1.0) * 100.0;
        let (good, all) = (s.within_2_percent, s.shapes);
        say!("{good} of {all} shapes within 2 % of the best tile; worst: {}, {percent:.1} %", s.worst);
    }
}

#[cfg(test)]
mod tests {
    use super::super::ops::{Op, Spec};
    use super::super::row::GDN;
    use super::*;
    use gdn_host::{DType, HeadShape, Layout};

    fn sweep(batch: u32, chosen: f64, tiles: &[f64]) -> Sweep {
        let shape = HeadShape::new(4, 8, 128, 128).unwrap();
        let spec = Spec::new(Op::Decode, shape, DType::F32, Layout::Vk, batch, 1);
        let row = |us: &f64| Row { tile: format!("tile of {us}"), ..Row::new(&spec, GDN, &[*us], 1, 1) };
        Sweep { chosen: row(&chosen), tiles: tiles.iter().map(row).collect() }
    }

    #[test]
    fn summary_counts_good_choices_and_names_the_worst() {
        let sweeps = [sweep(1, 5.0, &[5.0, 6.0]), sweep(2, 10.1, &[12.0, 10.0]), sweep(4, 22.0, &[20.0])];
        let summary = summary(&sweeps).unwrap();
        assert_eq!((summary.shapes, summary.within_2_percent), (3, 2));
        assert_eq!(summary.worst, "decode 4:8 vk f32  batch    4");
        assert!((summary.worst_over_best - 1.1).abs() < 1e-12);
        assert_eq!(super::summary(&[]), None);
    }

    #[test]
    fn json_has_the_time_of_each_tile() {
        let json = serde_json::to_value(sweep(8, 5.5, &[5.5, 6.5])).unwrap();
        assert_eq!(json["tiles"], serde_json::json!({ "tile of 5.5": 5.5, "tile of 6.5": 6.5 }));
        assert_eq!((&json["chosen"]["batch"], &json["chosen"]["us"]), (&8.into(), &5.5.into()));
    }
}
