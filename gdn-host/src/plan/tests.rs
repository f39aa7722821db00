//! Plans are complete, and pinned for named models and parts.

use super::tiles::max_warps;
use super::*;
use crate::artifact;
use crate::key::{Family, Layout};
use crate::shape::MODELS;
use gdn_kernels::abi::{DType, MOST_BLOCK_ROWS};

const H100: Caps = Caps { sms: 132, compute: 90, memory_gbps: 3352 };

const LAYOUTS: [Layout; 2] = [Layout::Vk, Layout::Kv];
const TYPES: [DType; 2] = [DType::F32, DType::Bf16];

fn tile(
    shape: &HeadShape,
    layout: Layout,
    batch: u32,
    state: DType,
    caps: &Caps,
    tile: Tile,
) -> Result<Plan, PlanError> {
    let module = ModuleKey::decode(Family::Gdn, layout, state, DType::Bf16, shape.k);
    tiled(&job(module, shape, batch), caps, Tuning::nearest(caps), tile)
}

fn job(module: ModuleKey, &shape: &HeadShape, batch: u32) -> Job {
    Job { module, shape, batch, stores_each: false }
}

fn auto(shape: &HeadShape, batch: u32, state: DType, caps: &Caps) -> Plan {
    tile(shape, Layout::Vk, batch, state, caps, Tile::Auto).unwrap()
}

#[test]
fn a_plan_is_printed_with_the_table_that_it_follows() {
    let shape = HeadShape { h: 16, hv: 32, k: 128, v: 128 };
    let plan = auto(&shape, 8, DType::F32, &H100);
    let text = "gdn_decode_f32_bf16_k128_r8 BV 64 grid 64x8x1 block 128, tuned for NVIDIA H100 80GB HBM3";
    assert_eq!(plan.to_string(), text);
}

#[test]
fn every_plan_covers_each_row_once() {
    let shapes =
        MODELS.iter().flat_map(|m| [1, 2, 4, 8].into_iter().filter_map(|ranks| m.shape.shard(ranks).ok()));
    let dims = [64, 96, 128, 256].into_iter().flat_map(|k| (1..=16).map(move |v| (k, 32 * v)));
    let small = dims.map(|(k, v)| HeadShape { h: 1, hv: 2, k, v });
    let of_shape = |shape: HeadShape| {
        for (sms, layout) in [40, 108, 132, 200].into_iter().flat_map(|s| LAYOUTS.map(|l| (s, l))) {
            for (batch, state) in [1, 7, 64, 512, 70_000].into_iter().flat_map(|n| TYPES.map(|t| (n, t))) {
                let caps = Caps { sms, memory_gbps: 30 * (sms - 40), ..H100 };
                let plan = tile(&shape, layout, batch, state, &caps, Tile::Auto).unwrap();
                let [x, y, z] = plan.grid;
                assert_eq!(x * plan.bv, shape.hv * shape.v, "{plan}");
                assert_eq!(plan.tiles * plan.bv, shape.v, "{plan}");
                assert!(plan.bv <= MOST_BLOCK_ROWS, "{plan}");
                assert!(y <= MAX_GRID_YZ && y * z >= batch && y * (z - 1) < batch, "{plan}");
                let same = Tile::Exact { rows: plan.rows, warps: plan.warps };
                assert_eq!(tile(&shape, layout, batch, state, &caps, same), Ok(plan));
            }
        }
    };
    shapes.chain(small).for_each(of_shape);
}

#[test]
fn spread_work_is_covered_by_the_largest_blocks_that_fill_the_device() {
    let plan = |threads, batch| spread(ModuleKey::copy_state(), threads, batch, &H100, Tile::Auto).unwrap();
    for threads in [1, 31, 33, 255, 257, 8_192, 1 << 28] {
        for batch in [1, 7, 512, 70_000] {
            let plan = plan(threads, batch);
            let [x, y, z] = plan.grid.map(u64::from);
            let block = u64::from(plan.block());
            assert!(x * block >= threads && (x - 1) * block < threads, "{plan}");
            assert!(y * z >= batch.into() && y * (z - 1) < batch.into(), "{plan}");
            assert_eq!((plan.rows, plan.bv, plan.tiles), (0, 0, 1));
        }
    }
    // A state of 2 MiB is 32,768 threads of four vectors.
    assert_eq!(plan(32_768, 1).to_string(), "gdn_copy_state grid 512x1x1 block 64");
    assert_eq!(plan(32_768, 8).to_string(), "gdn_copy_state grid 128x8x1 block 256");
    assert_eq!(plan(8, 65_538).to_string(), "gdn_copy_state grid 1x65535x2 block 32");
}

/// A BV asked for is made, or refused with a list of those that are.
#[test]
fn every_bv_is_made_of_kernels_that_exist() {
    let bvs = |layout, state, k, v| {
        let shape = HeadShape { h: 1, hv: 1, k, v };
        let module = ModuleKey::decode(Family::Gdn, layout, state, DType::Bf16, k);
        let of_bv = |bv: &u32| {
            let plan = tile(&shape, layout, 1, state, &H100, Tile::Rows(*bv));
            match plan {
                Ok(plan) => {
                    assert_eq!(plan.bv, *bv);
                    assert!(exists(module, v, plan.rows, plan.warps), "{plan}");
                }
                Err(error) => assert_eq!(error, PlanError::Tile { bv: *bv, module, v }),
            }
            plan.is_ok()
        };
        (1..=512).filter(of_bv).collect::<Vec<u32>>()
    };
    let (vk, kv, f32, bf16) = (Layout::Vk, Layout::Kv, DType::F32, DType::Bf16);
    assert_eq!(bvs(vk, f32, 64, 64), [4, 8, 16, 32, 64]);
    assert_eq!(bvs(vk, f32, 128, 128), [4, 8, 16, 32, 64, 128]);
    assert_eq!(bvs(vk, bf16, 128, 96), [4, 8, 16, 32]);
    assert_eq!(bvs(vk, f32, 96, 192), [4, 8, 16, 32, 64]);
    assert_eq!(bvs(vk, bf16, 96, 512), [4, 8, 16, 32, 64, 128]);
    assert_eq!(bvs(vk, f32, 256, 512), [8, 16, 32, 64]);
    // An f32 state of K = 128 has 8 warps for 64 rows in KV, which is a block's limit.
    assert_eq!(bvs(kv, f32, 128, 128), [16, 32, 64]);
    assert_eq!(bvs(kv, bf16, 128, 128), [32, 64, 128]);
    assert_eq!(bvs(kv, bf16, 128, 160), [32]);
    assert_eq!(bvs(kv, bf16, 64, 512), [32, 64, 128]);
    assert_eq!(bvs(kv, f32, 96, 192), [32, 64]);
    assert_eq!(bvs(kv, bf16, 96, 192), [32, 64]);
    assert_eq!(bvs(kv, f32, 256, 512), [32]);
    assert_eq!(bvs(kv, bf16, 256, 512), [32, 64]);
}

/// Every pair of types that calls take has a tile for every V.
#[test]
fn every_module_has_a_tile_for_every_v() {
    let types = [DType::F32, DType::Bf16, DType::F16];
    let pairs = types.into_iter().flat_map(|state| types.map(|io| (state, io)));
    let kinds = [Family::Gdn, Family::Kda].into_iter().flat_map(|family| LAYOUTS.map(|l| (family, l)));
    let mut count = 0;
    for ((family, layout), (state, io)) in kinds.flat_map(|kind| pairs.clone().map(move |pair| (kind, pair)))
    {
        for (k, v) in [64, 96, 128, 256].into_iter().flat_map(|k| (1..=16).map(move |v| (k, 32 * v))) {
            let shape = HeadShape { h: 1, hv: 1, k, v };
            for key in [ModuleKey::decode, ModuleKey::recurrent] {
                let module = key(family, layout, state, io, k);
                let plan = tiled(&job(module, &shape, 1), &H100, Tuning::nearest(&H100), Tile::Auto);
                assert_eq!(plan.is_ok(), is_served(module), "{module} with V = {v}");
                assert_eq!(tiles(module, &shape).next().is_some(), is_served(module), "{module}");
                count += u32::from(plan.is_ok());
            }
        }
    }
    // K = 128: nine pairs in VK, six in KV; K = 64: six; either for two gates and operations, and three more for a decode of GDN.
    // K = 96 and 256: three pairs, one gate.
    assert_eq!(count, 16 * (2 * 2 * (9 + 6 + 6 + 6) + 3 + 2 * 2 * 2 * 3));
}

/// A block has no more threads than its kernel takes, and tiles go as far as that.
#[test]
fn largest_blocks_are_the_launch_bounds_of_the_kernels() {
    let mut count = 0;
    for module in artifact::modules().iter().filter(|module| module.key.op.is_recurrence()) {
        for entry in module.entries {
            assert_eq!(32 * max_warps(module.key, entry.rows), entry.max_threads, "{:?}", entry.name);
            count += 1;
        }
    }
    assert!(count > 0);
}

/// What is pinned: model, tensor-parallel size, part, its multiprocessors and the GB/s of its memory.
const PARTS: [(&str, u32, &str, u32, u32); 8] = [
    ("Qwen3-Next-80B-A3B", 1, "L4", 58, 300),
    ("Qwen3-Next-80B-A3B", 1, "H100", 132, 3352),
    ("Qwen3-Next-80B-A3B", 8, "H100", 132, 3352),
    ("Qwen3-Next-80B-A3B", 1, "H200", 132, 4814),
    ("Qwen3.5-397B-A17B", 4, "A100", 108, 2039),
    ("Kimi-Linear-48B-A3B", 2, "H100", 132, 3352),
    ("Kimi-Linear-48B-A3B", 2, "H200", 132, 4814),
    ("Kimi-K3", 1, "RTX PRO 6000", 188, 1792),
];

/// Rows x warps at batch 1, 4, 5, 9, 16, 64 and 256; `verify` stores the state after every token, `update` does not. Whoever changes
/// the policy changes this table knowingly.
const PINNED: &str = "\
Qwen3-Next-80B-A3B over 1, L4
  decode f32 vk          8x4 8x4 8x4 8x4 8x4 2x16 2x16
  decode f32 kv          8x2 32x8 32x8 32x8 32x8 32x8 32x8
  decode bf16 vk         8x4 8x4 8x4 8x4 8x4 8x4 8x4
  decode bf16 kv         16x2 16x2 32x4 32x4 32x4 32x8 32x8
  update f32 vk          4x4 4x4 4x4 4x4 4x4 4x4 4x4
  update f32 kv          16x4 16x4 16x4 16x4 16x4 16x4 16x4
  update bf16 vk         4x4 8x4 8x4 8x4 8x4 8x4 8x4
  update bf16 kv         16x4 32x4 32x4 32x4 32x4 32x4 32x4
  verify f32 vk          4x4 4x4 4x4 4x4 4x4 4x4 4x4
  verify f32 kv          16x4 32x8 32x8 32x8 32x8 32x8 32x8
  verify bf16 vk         4x4 4x8 4x8 4x8 4x8 4x8 4x8
  verify bf16 kv         16x4 32x8 32x8 32x8 32x8 32x8 32x8
Qwen3-Next-80B-A3B over 1, H100
  decode f32 vk          2x4 8x4 8x4 8x4 8x4 8x4 2x16
  decode f32 kv          8x2 8x2 8x2 32x8 32x8 32x8 32x8
  decode bf16 vk         2x4 8x4 8x4 8x4 8x4 8x4 8x4
  decode bf16 kv         16x2 16x2 16x2 16x2 32x4 32x4 32x8
  update f32 vk          4x4 4x4 4x4 4x4 4x4 4x4 4x4
  update f32 kv          16x4 16x4 16x4 16x4 16x4 16x4 16x4
  update bf16 vk         4x4 4x4 8x2 8x4 8x4 8x4 8x4
  update bf16 kv         16x2 16x4 16x4 32x4 32x4 32x4 32x4
  verify f32 vk          4x4 4x4 4x4 4x4 4x4 4x4 4x4
  verify f32 kv          16x4 32x8 16x4 32x8 32x8 32x8 32x8
  verify bf16 vk         4x4 4x4 4x8 4x8 4x8 4x8 4x8
  verify bf16 kv         16x2 16x4 16x4 32x8 32x8 32x8 32x8
Qwen3-Next-80B-A3B over 8, H100
  decode f32 vk          2x4 2x4 2x4 2x4 8x4 8x4 8x4
  decode f32 kv          8x2 8x2 8x2 8x2 8x2 32x8 32x8
  decode bf16 vk         2x4 2x4 2x4 2x4 2x4 8x4 8x4
  decode bf16 kv         16x2 16x2 16x2 16x2 16x2 16x2 32x4
  update f32 vk          4x4 4x4 4x4 4x4 4x4 4x4 4x4
  update f32 kv          16x4 16x4 16x4 16x4 16x4 16x4 16x4
  update bf16 vk         4x4 4x4 4x4 4x4 4x4 8x4 8x4
  update bf16 kv         16x2 16x2 16x2 16x2 16x2 16x4 32x4
  verify f32 vk          4x4 4x4 4x4 4x4 4x4 4x4 4x4
  verify f32 kv          16x4 16x4 16x4 16x4 16x4 32x8 32x8
  verify bf16 vk         4x4 4x4 4x4 4x4 4x4 4x8 4x8
  verify bf16 kv         16x2 16x2 16x2 16x2 16x2 16x4 32x8
Qwen3-Next-80B-A3B over 1, H200
  decode f32 vk          2x4 8x4 8x4 8x4 8x4 2x2 2x2
  decode f32 kv          8x2 8x2 8x2 32x8 32x8 32x8 32x8
  decode bf16 vk         2x4 8x4 8x4 8x4 8x4 8x4 8x4
  decode bf16 kv         16x2 16x2 16x2 16x2 32x4 32x4 32x4
  update f32 vk          4x4 4x4 4x4 4x4 4x4 4x4 4x4
  update f32 kv          16x4 16x4 16x4 16x4 16x4 16x4 16x4
  update bf16 vk         4x4 4x4 8x4 8x4 8x4 8x4 8x4
  update bf16 kv         16x2 16x2 16x2 32x4 32x4 32x4 32x4
  verify f32 vk          4x4 4x4 4x4 4x4 4x4 4x4 4x4
  verify f32 kv          16x4 32x8 16x4 16x4 32x8 32x8 32x8
  verify bf16 vk         4x4 4x4 8x4 8x4 8x4 8x4 8x4
  verify bf16 kv         32x4 16x2 16x2 32x4 32x4 32x8 32x8
Qwen3.5-397B-A17B over 4, A100
  decode f32 vk          2x4 8x4 8x4 8x4 8x4 8x4 2x16
  decode f32 kv          8x2 8x2 8x2 8x2 32x8 32x8 32x8
  decode bf16 vk         2x4 8x4 8x4 8x4 8x4 8x4 8x4
  decode bf16 kv         16x2 16x2 16x2 16x2 16x2 32x4 32x8
  update f32 vk          4x4 4x4 4x4 4x4 4x4 4x4 4x4
  update f32 kv          16x4 16x4 16x4 16x4 16x4 16x4 16x4
  update bf16 vk         4x4 4x4 4x4 8x4 8x4 8x4 8x4
  update bf16 kv         16x2 16x4 16x4 16x4 32x4 32x4 32x4
  verify f32 vk          4x4 4x4 4x4 4x4 4x4 4x4 4x4
  verify f32 kv          16x4 16x4 16x4 32x8 32x8 32x8 32x8
  verify bf16 vk         4x4 4x4 4x4 4x8 4x8 4x8 4x8
  verify bf16 kv         16x2 16x4 16x4 16x4 32x8 32x8 32x8
Kimi-Linear-48B-A3B over 2, H100
  decode f32 vk          2x8 2x8 8x8 8x8 8x8 2x8 2x8
  decode f32 kv          8x2 8x2 8x2 8x2 32x8 32x8 32x8
  decode bf16 vk         2x8 2x8 8x8 8x8 8x8 8x8 8x8
  decode bf16 kv         16x4 16x2 16x2 16x2 16x2 32x4 32x4
  update f32 vk          4x4 4x8 4x4 4x4 4x8 4x4 4x4
  update f32 kv          16x4 32x8 16x4 32x8 32x8 32x8 32x8
  update bf16 vk         4x8 4x8 4x8 8x4 8x8 8x8 8x8
  update bf16 kv         32x4 32x8 32x8 32x4 32x8 32x8 32x8
  verify f32 vk          4x4 4x8 4x4 4x4 4x8 4x4 4x4
  verify f32 kv          16x4 32x8 16x4 32x8 32x8 32x8 32x8
  verify bf16 vk         4x8 4x8 4x8 8x4 8x8 8x8 8x8
  verify bf16 kv         32x4 32x8 32x8 32x4 32x8 32x8 32x8
Kimi-Linear-48B-A3B over 2, H200
  decode f32 vk          2x8 2x8 2x8 8x4 8x4 2x8 2x8
  decode f32 kv          8x4 8x2 8x2 8x4 32x8 32x8 32x8
  decode bf16 vk         2x4 2x8 2x8 8x8 8x8 8x8 8x8
  decode bf16 kv         32x4 16x2 16x2 16x2 16x2 32x4 32x4
  update f32 vk          4x8 4x8 4x8 4x4 4x8 4x4 4x4
  update f32 kv          32x8 32x8 32x8 16x8 16x8 16x8 16x8
  update bf16 vk         4x8 4x8 4x8 8x4 8x8 8x8 8x8
  update bf16 kv         32x4 16x8 16x8 16x8 16x8 32x8 32x8
  verify f32 vk          4x4 4x8 4x4 4x4 4x8 4x4 4x4
  verify f32 kv          16x4 32x8 16x4 32x8 32x8 32x8 32x8
  verify bf16 vk         4x8 4x8 4x8 8x4 8x8 8x8 8x8
  verify bf16 kv         32x4 32x4 32x8 32x4 32x8 32x8 32x8
Kimi-K3 over 1, RTX PRO 6000
  decode f32 vk          8x8 8x8 8x8 8x8 2x8 2x8 2x8
  decode f32 kv          8x2 32x8 32x8 32x8 32x8 32x8 32x8
  decode bf16 vk         8x8 8x8 8x8 8x8 8x8 8x8 8x8
  decode bf16 kv         16x2 32x4 32x4 32x4 32x4 32x4 32x4
  update f32 vk          4x4 4x4 4x8 4x4 4x4 4x4 4x4
  update f32 kv          16x4 32x8 32x8 32x8 32x8 32x8 32x8
  update bf16 vk         4x8 8x8 8x8 8x8 8x8 8x8 8x8
  update bf16 kv         32x8 32x8 32x8 32x8 32x8 32x8 32x8
  verify f32 vk          4x4 4x4 4x8 4x4 4x4 4x4 4x4
  verify f32 kv          16x4 32x8 32x8 32x8 32x8 32x8 32x8
  verify bf16 vk         4x8 8x8 8x8 8x8 8x8 8x8 8x8
  verify bf16 kv         32x8 32x8 32x8 32x8 32x8 32x8 32x8
";

fn pinned() -> String {
    let mut table = String::new();
    for (name, ranks, part, sms, memory_gbps) in PARTS {
        let shape = MODELS.iter().find(|m| m.name == name).unwrap().shape.shard(ranks).unwrap();
        let family = if name.starts_with("Kimi") { Family::Kda } else { Family::Gdn };
        let caps = Caps { sms, memory_gbps, ..H100 };
        table += &format!("{name} over {ranks}, {part}\n");
        for (op, state) in ["decode", "update", "verify"].into_iter().flat_map(|op| TYPES.map(|t| (op, t))) {
            for layout in LAYOUTS {
                let key = if op == "decode" { ModuleKey::decode } else { ModuleKey::recurrent };
                let module = key(family, layout, state, DType::Bf16, shape.k);
                let tile = |batch| {
                    let job = Job { stores_each: op == "verify", ..job(module, &shape, batch) };
                    let plan = tiled(&job, &caps, Tuning::nearest(&caps), Tile::Auto).unwrap();
                    format!("{}x{}", plan.rows, plan.warps)
                };
                let tiles = [1, 4, 5, 9, 16, 64, 256].map(tile).join(" ");
                table +=
                    &format!("  {:22} {tiles}\n", format!("{op} {} {layout:?}", state.name()).to_lowercase());
            }
        }
    }
    table
}

#[test]
fn choices_for_named_models_and_parts() {
    let pinned = pinned();
    assert!(pinned == PINNED, "{pinned}");
}

#[test]
fn a_block_asks_as_far_ahead_as_the_table_says() {
    let module = ModuleKey::decode(Family::Gdn, Layout::Vk, DType::F32, DType::Bf16, 128);
    let ahead = |hv, kib, caps: &Caps| {
        let shape = HeadShape { h: 1, hv, k: 128, v: 128 };
        let step = Step { up_to: None, tile: Height::Small, teams: 4, ahead_kib: kib, early: false };
        let mut tuning = Tuning::new("a test".into(), caps);
        tuning.classes.push((Class::of(&job(module, &shape, 1)), vec![step]));
        tiled(&job(module, &shape, 256), caps, &tuning, Tile::Auto).unwrap().ahead
    };
    // 132 * 82 KiB are five sequences of 2 MiB, and a quarter of one; 132 * 72 KiB four and six tenths.
    assert_eq!([0, 64, 72, 82].map(|kib| ahead(32, kib, &H100)), [0, 4, 5, 5]);
    // A sequence of more than all that: the next one.
    assert_eq!(ahead(32_768, 72, &H100), 1);
    assert_eq!(ahead(32, 72, &Caps { sms: 1, ..H100 }), 1);
}

#[test]
fn a_tile_that_a_module_lacks_is_replaced_by_the_tallest_below_it() {
    let module = ModuleKey::recurrent(Family::Gdn, Layout::Vk, DType::F32, DType::Bf16, 128);
    let step = |tile, teams| Step { up_to: None, tile, teams, ahead_kib: 0, early: false };
    assert_eq!(fitting(module, 128, &step(Height::Whole, 4)), Some((4, 4)));
    // No more warps than the kernel takes, and no more rows than the state has.
    assert_eq!(fitting(module, 128, &step(Height::Small, 16)), Some((4, 8)));
    assert_eq!(fitting(module, 64, &step(Height::Small, 16)), Some((4, 8)));
    let decode = ModuleKey::decode(Family::Gdn, Layout::Vk, DType::F32, DType::Bf16, 128);
    assert_eq!(fitting(decode, 64, &step(Height::Large, 16)), Some((8, 4)));
}

#[test]
fn more_sequences_than_a_grid_has_places_are_refused() {
    let shape = HeadShape { h: 2, hv: 4, k: 128, v: 128 };
    let plan = |batch| tile(&shape, Layout::Vk, batch, DType::F32, &H100, Tile::Auto);
    let most = MAX_GRID_YZ * MAX_GRID_YZ;
    assert_eq!(plan(most).unwrap().grid[1..], [MAX_GRID_YZ; 2]);
    for batch in [most + 1, u32::MAX] {
        assert!(matches!(plan(batch), Err(PlanError::Grid { batch: refused, .. }) if refused == batch));
    }
    let copies = |threads, batch| spread(ModuleKey::copy_state(), threads, batch, &H100, Tile::Auto);
    assert!(matches!(copies(32, u32::MAX), Err(PlanError::Grid { x: 1, .. })));
    let error = copies(1 << 40, 1).unwrap_err().to_string();
    assert!(error.starts_with("grid: 4294967296 blocks for each of 1 sequences are too many"), "{error}");
}
