//! The choice of a tile, held against the sweeps in `docs/benchmarks`: the times of every tile of a shape.

use gdn_host::plan::{Job, tiled};
use gdn_host::{Caps, DType, Family, HeadShape, Layout, ModuleKey, Tile};
use serde_json::Value;

/// A choice within this factor of the best tile is as good as it, and so are so many of a hundred.
const GOOD: f64 = 1.02;
const GOOD_PERCENT: usize = 98;

/// No choice is further from the best tile.
const FURTHEST: f64 = 1.05;

fn text<'a>(row: &'a Value, key: &str) -> &'a str {
    row[key].as_str().unwrap_or_else(|| panic!("{key} in {row}"))
}

fn number(row: &Value, key: &str) -> u32 {
    row[key].as_u64().and_then(|n| n.try_into().ok()).unwrap_or_else(|| panic!("{key} in {row}"))
}

fn dtype(name: &str) -> DType {
    [DType::F32, DType::Bf16, DType::F16].into_iter().find(|dtype| dtype.name() == name).unwrap()
}

/// The tile that is chosen for a row's shape, as sweeps name it.
fn choice(row: &Value, caps: &Caps) -> String {
    let op = text(row, "op");
    let (family, operation) = match op.strip_prefix("kda_") {
        Some(operation) => (Family::Kda, operation),
        None => (Family::Gdn, op),
    };
    let layout = if text(row, "layout") == "kv" { Layout::Kv } else { Layout::Vk };
    let key = if operation == "decode" { ModuleKey::decode } else { ModuleKey::recurrent };
    let module = key(family, layout, dtype(text(row, "state")), dtype(text(row, "io")), 128);
    let shape = HeadShape::new(number(row, "h"), number(row, "hv"), 128, 128).unwrap();
    let job = Job { module, shape, batch: number(row, "batch"), stores_each: operation == "verify" };
    let plan = tiled(&job, caps, Tile::Auto).unwrap();
    format!("BV {} ({}x{})", plan.bv, plan.rows, plan.warps)
}

/// Asserts that the choices for a sweep's shapes are near the best tiles; only rows that `counts` picks are of today's kernels.
#[track_caller]
fn assert_near_the_best(file: &str, caps: &Caps, least: usize, counts: impl Fn(&Value) -> bool) {
    let path = format!("{}/../docs/benchmarks/{file}", env!("CARGO_MANIFEST_DIR"));
    let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let (mut shapes, mut off) = (0, Vec::new());
    for sweep in file["sweeps"].as_array().unwrap() {
        let row = &sweep["chosen"];
        if !counts(row) {
            continue;
        }
        let times = sweep["tiles"].as_object().unwrap();
        let best = times.values().filter_map(Value::as_f64).fold(f64::INFINITY, f64::min);
        let tile = choice(row, caps);
        let us = times.get(&tile).and_then(Value::as_f64);
        let over = us.unwrap_or_else(|| panic!("{tile} was not timed: {row}")) / best;
        shapes += 1;
        if over > GOOD {
            off.push(format!("{over:.3} {tile} {row}"));
        }
        assert!(over <= FURTHEST, "{over:.3} {tile} {row}");
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
    let counts = |row: &Value| text(row, "layout") == "vk" && number(row, "tokens") == 1;
    assert_near_the_best("h100-sweep.json", &caps, 600, counts);
}
