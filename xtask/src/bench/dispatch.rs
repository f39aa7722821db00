//! The choice of a tile, held against the sweeps in `docs/benchmarks`: the times of every tile of a shape.

use super::args::parse_spec;
use super::row::{Shape, tile_name};
use super::sweep::GOOD;
use gdn_host::plan::{Tuning, tiled};
use gdn_host::{Caps, Tile};
use serde::Deserialize;
use std::collections::BTreeMap;

/// So many choices of a hundred are [`GOOD`].
const GOOD_PERCENT: usize = 98;

/// No choice is further from the best tile.
const FURTHEST: f64 = 1.05;

/// What `--sweep` wrote.
#[derive(Deserialize)]
struct File {
    sweeps: Vec<Saved>,
}

#[derive(Deserialize)]
struct Saved {
    chosen: Timed,
    /// Microseconds by the tile's name.
    tiles: BTreeMap<String, f64>,
}

#[derive(Debug, Deserialize)]
struct Timed {
    #[serde(flatten)]
    shape: Shape,
    tokens: u32,
}

/// The tile that is chosen for a shape.
fn choice(timed: &Timed, caps: &Caps) -> String {
    let spec = parse_spec(&timed.shape, timed.tokens).unwrap();
    assert_eq!(Shape::from(&spec), timed.shape);
    tile_name(&tiled(&spec.job(), caps, Tuning::nearest(caps), Tile::Auto).unwrap())
}

/// Asserts that the choices for a sweep's shapes are near the best tiles; only those that `counts` picks are of today's kernels.
#[track_caller]
fn assert_near_the_best(file: &str, caps: &Caps, least: usize, counts: impl Fn(&Timed) -> bool) {
    let path = format!("{}/../docs/benchmarks/{file}", env!("CARGO_MANIFEST_DIR"));
    let file: File = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let (mut shapes, mut off) = (0, Vec::new());
    for Saved { chosen, tiles } in file.sweeps.iter().filter(|sweep| counts(&sweep.chosen)) {
        let best = tiles.values().copied().fold(f64::INFINITY, f64::min);
        let tile = choice(chosen, caps);
        let us = tiles.get(&tile).unwrap_or_else(|| panic!("{tile} was not timed: {chosen:?}"));
        let over = us / best;
        shapes += 1;
        if over > GOOD {
            off.push(format!("{over:.3} {tile} {chosen:?}"));
        }
        assert!(over <= FURTHEST, "{over:.3} {tile} {chosen:?}");
    }
    assert!(shapes >= least, "{shapes} shapes");
    assert!(100 * off.len() <= (100 - GOOD_PERCENT) * shapes, "of {shapes} shapes:\n{}", off.join("\n"));
}

#[test]
fn tiles_on_an_h200_are_near_the_best() {
    let caps = Caps { sms: 132, compute: 90, memory_gbps: 4814 };
    assert_near_the_best("h200-sweep.json", &caps, 1640, |_| true);
}

/// Its tiles of layout KV and of several tokens are those of earlier kernels.
#[test]
fn tiles_of_one_token_on_an_h100_are_near_the_best() {
    let caps = Caps { sms: 132, compute: 90, memory_gbps: 3352 };
    assert_near_the_best("h100-sweep.json", &caps, 600, |timed| {
        timed.shape.layout == "vk" && timed.tokens == 1
    });
}
