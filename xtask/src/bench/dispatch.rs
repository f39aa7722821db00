//! The choice of a tile, held against the sweeps in `docs/benchmarks`: the times of every tile of a shape.

use super::row::tile_name;
use super::sweep::GOOD;
use super::swept::Swept;
use gdn_host::Tile;
use gdn_host::plan::{Class, Tuning, tiled};
use std::path::Path;

/// So many choices of a hundred are [`GOOD`].
const GOOD_PERCENT: usize = 98;

/// No choice is further from the best tile.
const FURTHEST: f64 = 1.05;

/// Shapes of a class at least.
const SHAPES: usize = 40;

/// Asserts that the choices for a sweep's shapes are near the best tiles. `counts` says for which classes the sweep is of
/// today's kernels; it has shapes of each.
#[track_caller]
fn assert_near_the_best(file: &str, counts: impl Fn(&Class) -> bool) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/benchmarks").join(file);
    let Swept { caps, shapes, .. } = Swept::read(&file).unwrap();
    let (mut all, mut off) = (0, Vec::new());
    for class in Class::all().filter(counts) {
        let of_class = shapes.iter().filter(|(spec, _)| Class::of(&spec.job()) == class);
        let before = all;
        for (spec, tiles) in of_class {
            let best = tiles.values().copied().fold(f64::INFINITY, f64::min);
            let plan = tiled(&spec.job(), &caps, Tuning::nearest(&caps), Tile::Auto).unwrap();
            let (tile, name) = (tile_name(&plan), spec.name());
            let us = tiles.get(&tile).unwrap_or_else(|| panic!("{tile} was not timed: {name}"));
            let over = us / best;
            all += 1;
            if over > GOOD {
                off.push(format!("{over:.3} {tile} {name}"));
            }
            assert!(over <= FURTHEST, "{over:.3} {tile} {name}");
        }
        assert!(all - before >= SHAPES, "{} shapes of {class}", all - before);
    }
    assert!(100 * off.len() <= (100 - GOOD_PERCENT) * all, "of {all} shapes:\n{}", off.join("\n"));
}

/// What has rings of records was swept elsewhere.
#[test]
fn tiles_on_an_h200_are_near_the_best() {
    assert_near_the_best("h200-sweep.json", |class| !class.work.has_records());
}

/// Its tiles of layout KV and of several tokens are those of earlier kernels.
#[test]
fn tiles_of_one_token_on_an_h100_are_near_the_best() {
    assert_near_the_best("h100-sweep.json", |class| {
        let name = class.to_string();
        name.starts_with("decode vk ")
    });
}
