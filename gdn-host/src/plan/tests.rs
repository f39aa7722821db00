//! Plans are complete, and pinned for named models and parts.

use super::*;
use crate::artifact;
use crate::key::{Family, Layout};
use crate::shape::MODELS;

const H100: Caps = Caps { sms: 132, compute: 90, memory_gbps: 3352 };
const H200: Caps = Caps { memory_gbps: 4814, ..H100 };

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
    tiled(&job(module, shape, batch), caps, tile)
}

fn job(module: ModuleKey, &shape: &HeadShape, batch: u32) -> Job {
    Job { module, shape, batch, stores_each: false }
}

fn auto(shape: &HeadShape, batch: u32, state: DType, caps: &Caps) -> Plan {
    tile(shape, Layout::Vk, batch, state, caps, Tile::Auto).unwrap()
}

/// Choices for Qwen3-Next: whoever changes the policy changes this table knowingly.
#[test]
fn choices_for_qwen3_next_on_h100_and_h200() {
    let shape = HeadShape { h: 16, hv: 32, k: 128, v: 128 };
    let bv = |state, caps| [1, 4, 8, 16, 64, 512].map(|batch| auto(&shape, batch, state, caps).bv);
    assert_eq!(bv(DType::F32, &H100), [16, 64, 64, 64, 64, 64]);
    assert_eq!(bv(DType::Bf16, &H100), [16, 64, 64, 64, 64, 128]);
    assert_eq!(bv(DType::F32, &H200), [16, 64, 64, 64, 8, 64]);
    assert_eq!(bv(DType::Bf16, &H200), [16, 64, 64, 64, 64, 64]);
    let plan = auto(&shape, 8, DType::F32, &H100);
    assert_eq!(plan.to_string(), "gdn_decode_f32_bf16_k128_r8 BV 64 grid 64x8x1 block 128");
}

#[test]
fn every_plan_covers_each_row_once() {
    let shapes = MODELS.iter().flat_map(|m| [1, 2, 4, 8].map(|ranks| m.shape.shard(ranks).unwrap()));
    let small = [(64, 64), (64, 128), (128, 64)].map(|(k, v)| HeadShape { h: 1, hv: 2, k, v });
    let of_shape = |shape: HeadShape| {
        for (sms, layout) in [40, 108, 132, 200].into_iter().flat_map(|s| LAYOUTS.map(|l| (s, l))) {
            for (batch, state) in [1, 7, 64, 512, 70_000].into_iter().flat_map(|n| TYPES.map(|t| (n, t))) {
                let caps = Caps { sms, memory_gbps: 30 * (sms - 40), ..H100 };
                let plan = tile(&shape, layout, batch, state, &caps, Tile::Auto).unwrap();
                let [x, y, z] = plan.grid;
                assert_eq!(x * plan.bv, shape.hv * shape.v, "{plan}");
                assert_eq!(shape.v >> plan.tiles_log2, plan.bv, "{plan}");
                assert!(y <= MAX_GRID_Y && y * z >= batch && y * (z - 1) < batch, "{plan}");
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
            assert_eq!((plan.rows, plan.bv, plan.tiles_log2), (0, 0, 0));
        }
    }
    // A state of 2 MiB is 32,768 threads of four vectors.
    assert_eq!(plan(32_768, 1).to_string(), "gdn_copy_state grid 512x1x1 block 64");
    assert_eq!(plan(32_768, 8).to_string(), "gdn_copy_state grid 128x8x1 block 256");
    assert_eq!(plan(8, 65_538).to_string(), "gdn_copy_state grid 1x65535x2 block 32");
}

#[test]
fn every_bv_is_made_of_kernels_that_exist() {
    let dims = [(64, 64), (64, 128), (128, 64), (128, 128)];
    for ((k, v), layout) in dims.into_iter().flat_map(|d| LAYOUTS.map(|l| (d, l))) {
        let shape = HeadShape { h: 1, hv: 1, k, v };
        for state in TYPES {
            let module = ModuleKey::decode(Family::Gdn, layout, state, DType::Bf16, k);
            // An f32 state of K = 128 has 8 warps for 64 rows in KV, which is a block's limit.
            let most = if (layout, state, k) == (Layout::Kv, DType::F32, 128) { 64.min(v) } else { v };
            let range = tile_rows(rows(module)[0], k)..=most;
            for bv in [1, 2, 4, 8, 16, 24, 32, 64, 128, 256] {
                let plan = tile(&shape, layout, 1, state, &H100, Tile::Rows(bv));
                if !(range.contains(&bv) && bv != 24) {
                    let (min, max) = (*range.start(), *range.end());
                    assert_eq!(plan, Err(PlanError::Tile { bv, k, v, min, max }));
                    continue;
                }
                let plan = plan.unwrap();
                assert_eq!(plan.bv, bv);
                assert!(exists(module, v, plan.rows, plan.warps), "{plan}");
            }
        }
    }
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
  decode bf16 vk         8x4 8x4 8x4 8x4 8x4 8x8 8x8
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
  decode bf16 vk         2x4 8x4 8x4 8x4 8x4 8x4 8x8
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
  decode f32 vk          2x4 8x4 8x4 2x2 8x4 2x2 2x16
  decode f32 kv          8x2 8x2 8x2 32x8 32x8 32x8 32x8
  decode bf16 vk         2x4 8x4 8x4 8x4 8x4 8x4 8x4
  decode bf16 kv         16x2 16x2 16x2 16x2 32x4 64x8 64x8
  update f32 vk          4x4 4x4 4x4 4x4 4x4 4x4 4x4
  update f32 kv          16x4 16x4 16x4 16x4 16x4 16x4 16x4
  update bf16 vk         4x4 4x4 8x2 8x4 8x4 8x4 8x4
  update bf16 kv         16x2 16x2 16x2 32x4 32x4 32x4 32x4
  verify f32 vk          4x4 4x4 4x4 4x4 4x4 4x4 4x4
  verify f32 kv          16x4 32x8 16x4 32x8 32x8 32x8 32x8
  verify bf16 vk         4x4 4x4 8x2 8x4 8x4 8x4 8x4
  verify bf16 kv         16x2 16x2 16x2 32x4 32x4 32x8 32x8
Qwen3.5-397B-A17B over 4, A100
  decode f32 vk          2x4 8x4 8x4 8x4 8x4 8x4 2x16
  decode f32 kv          8x2 8x2 8x2 8x2 32x8 32x8 32x8
  decode bf16 vk         2x4 8x4 8x4 8x4 8x4 8x4 8x8
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
  decode f32 vk          2x8 2x8 8x8 8x8 8x8 8x8 2x8
  decode f32 kv          8x2 8x2 8x2 8x2 32x8 32x8 32x8
  decode bf16 vk         2x8 2x8 8x8 8x8 8x8 8x8 8x8
  decode bf16 kv         16x4 16x2 16x2 16x2 16x2 32x4 32x4
  update f32 vk          4x4 4x8 4x4 4x4 4x8 4x4 4x4
  update f32 kv          16x4 32x8 16x4 32x8 32x8 32x8 32x8
  update bf16 vk         4x8 4x8 4x8 8x4 8x8 8x8 8x8
  update bf16 kv         32x4 32x4 32x8 32x4 32x8 32x8 32x8
  verify f32 vk          4x4 4x8 4x4 4x4 4x8 4x4 4x4
  verify f32 kv          16x4 32x8 16x4 32x8 32x8 32x8 32x8
  verify bf16 vk         4x8 4x8 4x8 8x4 8x8 8x8 8x8
  verify bf16 kv         32x4 32x4 32x8 32x4 32x8 32x8 32x8
Kimi-Linear-48B-A3B over 2, H200
  decode f32 vk          2x8 2x8 2x8 8x4 8x8 2x8 2x8
  decode f32 kv          8x2 8x2 8x2 8x2 32x8 32x8 32x8
  decode bf16 vk         2x8 2x8 2x8 8x8 8x8 8x4 8x4
  decode bf16 kv         16x4 16x2 16x2 16x2 16x2 64x8 64x8
  update f32 vk          4x4 4x8 4x4 4x4 4x8 4x4 4x4
  update f32 kv          16x4 32x8 16x4 32x8 32x8 32x8 32x8
  update bf16 vk         4x8 4x8 4x8 8x4 8x8 8x8 8x8
  update bf16 kv         32x4 32x4 32x8 32x4 32x8 32x8 32x8
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
                    let plan = tiled(&job, &caps, Tile::Auto).unwrap();
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
fn a_block_asks_for_the_state_that_follows_its_wave() {
    let shape = HeadShape { h: 16, hv: 32, k: 128, v: 128 };
    let ahead_in = |layout, state, stores_each, warps| {
        let module = ModuleKey::recurrent(Family::Gdn, layout, state, DType::Bf16, 128);
        let kernels = rows(module);
        let rows = if layout == Layout::Kv { kernels[0] } else { kernels[kernels.len() - 1] };
        let tile = Tile::Exact { rows, warps };
        tiled(&Job { stores_each, ..job(module, &shape, 256) }, &H100, tile).unwrap().ahead
    };
    let ahead = |state, stores_each, warps| ahead_in(Layout::Vk, state, stores_each, warps);
    // Rounded down while all blocks are less than four waves: 16 sequences of 128 blocks, four to each of 132 multiprocessors.
    let f32 = ModuleKey::recurrent(Family::Gdn, Layout::Vk, DType::F32, DType::Bf16, 128);
    let small = Tile::Exact { rows: 4, warps: 4 };
    let few = [8, 16, 17].map(|batch| tiled(&job(f32, &shape, batch), &H100, small).unwrap().ahead);
    assert_eq!(few, [4, 4, 5]);
    // Four blocks of four warps on each of 132 multiprocessors, 64 blocks a sequence.
    assert_eq!(ahead(DType::Bf16, false, 4), 9);
    // 8 blocks of two warps, 128 a sequence.
    assert_eq!(ahead(DType::Bf16, false, 2), 9);
    // Lower tiles of an f32 state: 128 blocks of four warps a sequence. Its stores after each token leave no time for it.
    assert_eq!(ahead(DType::F32, false, 4), 5);
    assert_eq!([DType::Bf16, DType::F32].map(|state| ahead(state, true, 4)), [9, 0]);
    // As many blocks, but rounded down.
    assert_eq!(ahead_in(Layout::Kv, DType::F32, false, 4), 4);
    // Never the sequence itself: one of 8,192 blocks.
    let kv = ModuleKey::recurrent(Family::Gdn, Layout::Kv, DType::F32, DType::Bf16, 128);
    let wide = HeadShape { hv: 2048, ..shape };
    assert_eq!(tiled(&job(kv, &wide, 256), &H100, Tile::Auto).unwrap().ahead, 1);
}

#[test]
fn a_block_of_a_single_token_asks_nine_or_ten_megabytes_ahead() {
    let ahead_of = |family, layout, state, hv, batch, caps: &Caps| {
        let module = ModuleKey::decode(family, layout, state, DType::Bf16, 128);
        let shape = HeadShape { h: 2, hv, k: 128, v: 128 };
        tiled(&job(module, &shape, batch), caps, Tile::Auto).unwrap().ahead
    };
    let ahead = |layout, state, hv, batch, caps: &Caps| ahead_of(Family::Gdn, layout, state, hv, batch, caps);
    let (f32, bf16) = (DType::F32, DType::Bf16);
    // 132 * 82 KiB are five sequences of 2 MiB, ten of 1 MiB.
    assert_eq!(ahead(Layout::Vk, f32, 32, 256, &H100), 5);
    assert_eq!(ahead(Layout::Vk, bf16, 32, 256, &H100), 10);
    // From 32 states a multiprocessor on: 4224; a 16-bit state with a decay per head from the first on.
    assert_eq!([131, 132].map(|batch| ahead(Layout::Vk, f32, 32, batch, &H100)), [0, 5]);
    assert_eq!([1, 16].map(|batch| ahead(Layout::Vk, bf16, 32, batch, &H100)), [10, 10]);
    let kda = |batch| ahead_of(Family::Kda, Layout::Vk, bf16, 32, batch, &H100);
    assert_eq!([131, 132].map(kda), [0, 10]);
    // 72 KiB in layout KV, from the first state on.
    assert_eq!([f32, bf16].map(|state| ahead(Layout::Kv, state, 32, 8, &H100)), [4, 9]);
    // A sequence of more than all that: the next one.
    assert_eq!(ahead(Layout::Vk, f32, 32_768, 1, &H100), 1);
    assert_eq!(ahead(Layout::Kv, f32, 32, 8, &Caps { sms: 1, memory_gbps: 25, ..H100 }), 1);
    // Where memory is fast: 96 KiB for an f32 state in VK, from 32 states a multiprocessor on, with a decay per key from 96 on.
    assert_eq!([131, 132].map(|batch| ahead(Layout::Vk, f32, 32, batch, &H200)), [0, 6]);
    assert_eq!([131, 132].map(|batch| ahead(Layout::Vk, bf16, 32, batch, &H200)), [0, 10]);
    // Two waves of blocks of a 16-bit state: 396 to 528.
    assert_eq!([12, 13, 16, 17].map(|batch| ahead(Layout::Vk, bf16, 32, batch, &H200)), [0, 10, 10, 0]);
    assert_eq!(ahead(Layout::Vk, f32, 32, 16, &H200), 0);
    let kda = |batch| ahead_of(Family::Kda, Layout::Vk, bf16, 32, batch, &H200);
    assert_eq!([395, 396].map(kda), [0, 10]);
    // In layout KV a 16-bit state throughout, an f32 one below 600 KiB a multiprocessor (77 MiB), and from 64 states on.
    assert_eq!([1, 98].map(|batch| ahead(Layout::Kv, bf16, 32, batch, &H200)), [9, 9]);
    let f32_kv = |batch| ahead(Layout::Kv, f32, 32, batch, &H200);
    assert_eq!([1, 38, 39, 263, 264].map(f32_kv), [4, 4, 0, 0, 4]);
}
