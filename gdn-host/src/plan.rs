//! Pure policy: which kernel, which BV, which grid.
//!
//! A [`Plan`] follows from the call's shape and the device's multiprocessor count alone; no GPU is needed to
//! make, print or test one. The result of a launch does not depend on it (see `gdn-kernels/src/tile.rs`),
//! only its time does.

use crate::artifact::ModuleKey;
use crate::call::Layout;
use crate::shape::HeadShape;
use gdn_kernels::abi::DType;
use std::fmt;
use thiserror::Error;

/// What is known of a device. Plans depend on its multiprocessors alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Streaming multiprocessors.
    pub sms: u32,
    /// Compute capability as `10 * major + minor`.
    pub compute: u32,
    /// Peak bandwidth of the device memory in GB/s, for reports; 0 if it is not known.
    pub memory_gbps: u32,
}

/// How the tile is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Tile {
    /// By measurement, from N * HV and the number of multiprocessors.
    #[default]
    Auto,
    /// BV rows of V a block.
    Rows(u32),
    /// `rows` rows a lane group and `warps` warps a block, for sweeps.
    Exact {
        /// Rows of a lane group, one of [`rows`].
        rows: u32,
        /// Warps of a block.
        warps: u32,
    },
}

/// One launch, ready but for its pointers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The module that holds the kernel.
    pub module: ModuleKey,
    /// Rows of V a lane group works on; 0 if the operation has no tiles.
    pub rows: u32,
    /// Warps of a block.
    pub warps: u32,
    /// Rows of V a block works on; 0 if the operation has no tiles.
    pub bv: u32,
    /// Blocks.
    pub grid: [u32; 3],
    /// log2(V / BV).
    pub tiles_log2: u32,
}

impl Plan {
    /// Threads of a block.
    pub fn block(&self) -> u32 {
        32 * self.warps
    }

    /// Name of the kernel's PTX entry.
    pub fn entry(&self) -> String {
        let rows = if self.rows > 0 { format!("_r{}", self.rows) } else { String::new() };
        format!("gdn_{}{rows}", self.module)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [x, y, z] = self.grid;
        let bv = if self.bv > 0 { format!(" BV {}", self.bv) } else { String::new() };
        write!(f, "{}{bv} grid {x}x{y}x{z} block {}", self.entry(), self.block())
    }
}

/// A tile that cannot be launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    /// No kernel makes blocks of that many rows.
    #[error(
        "tile: BV {bv} is not possible for K = {k}, V = {v}: it must be one of {min}..={max}, a power of two"
    )]
    Tile {
        /// Rows asked for.
        bv: u32,
        /// Key dimension.
        k: u32,
        /// Value dimension.
        v: u32,
        /// Smallest BV.
        min: u32,
        /// Largest BV.
        max: u32,
    },
    /// No such kernel or block.
    #[error("tile: {rows} rows a lane group with {warps} warps is not possible for K = {k}, V = {v}")]
    Exact {
        /// Rows of a lane group.
        rows: u32,
        /// Warps.
        warps: u32,
        /// Key dimension.
        k: u32,
        /// Value dimension.
        v: u32,
    },
    /// An operation without tiles.
    #[error("tile: {op} has none: take Tile::Auto, or Tile::Exact with 0 rows and 1 to {max} warps")]
    Untiled {
        /// Operation.
        op: &'static str,
        /// Most warps of a block.
        max: u32,
    },
}

/// Rows of a lane group that kernels exist for, from the smallest tile to the largest, for each operation, layout,
/// element type and key dimension. A warp has `256 / k` lane groups, so in VK its smallest tile is 4 rows of V and its
/// largest one 16. In KV a lane group has at least the rows of a 16-byte vector.
pub fn rows(module: ModuleKey, layout: Layout) -> &'static [u32] {
    match (layout, module.state.unwrap_or(DType::F32), module.k) {
        (Layout::Vk, _, 64) => &[1, 4],
        (Layout::Vk, ..) if is_recurrent(module) => &[2, 4, 8],
        (Layout::Vk, ..) => &[2, 8],
        (Layout::Kv, DType::F32, 64) => &[4],
        (Layout::Kv, DType::F32, _) => &[4, 8],
        (Layout::Kv, ..) => &[8],
    }
}

/// Whether the operation takes several tokens.
fn is_recurrent(module: ModuleKey) -> bool {
    module.op.contains("recurrent")
}

/// Warps of a block that tile sweeps go up to.
pub const MAX_WARPS: u32 = 16;

/// Largest number of warps of a block with `rows` rows a lane group: the launch bound of its kernel. The small tile
/// of decode with one decay in layout VK has few enough registers for larger blocks.
fn max_warps(module: ModuleKey, kernels: &[u32], rows: u32) -> u32 {
    let is_small = rows == kernels[0] && module.op == "decode";
    if is_small { MAX_WARPS } else { MAX_WARPS / 2 }
}

/// Sequences along y; further ones go along z.
const MAX_GRID_Y: u32 = 65_535;

/// A grid with `x` blocks for each of `batch` sequences (at least 1).
fn grid(x: u32, batch: u32) -> [u32; 3] {
    let y = batch.clamp(1, MAX_GRID_Y);
    [x, y, batch.max(1).div_ceil(y)]
}

/// Plans an operation on tiles of the states of `batch` sequences (at least 1 is planned for), of a checked shape.
///
/// # Errors
/// [`PlanError`] when a tile asked for does not exist. [`Tile::Auto`] never fails.
pub fn tiled(
    module: ModuleKey,
    shape: &HeadShape,
    layout: Layout,
    batch: u32,
    caps: &Caps,
    tile: Tile,
) -> Result<Plan, PlanError> {
    let &HeadShape { hv, k, v, .. } = shape;
    let kernels = rows(module, layout);
    let (rows, warps) = match tile {
        Tile::Auto => choose(module, shape, layout, kernels, batch, caps),
        Tile::Rows(bv) => with_bv(kernels, k, v, bv)?,
        Tile::Exact { rows, warps } => {
            let bv = rows * (256 / k) * warps;
            let known = kernels.contains(&rows) && (1..=max_warps(module, kernels, rows)).contains(&warps);
            let fits = known && bv <= v && v % bv == 0;
            if !fits {
                return Err(PlanError::Exact { rows, warps, k, v });
            }
            (rows, warps)
        }
    };
    let bv = rows * (256 / k) * warps;
    let tiles = v / bv;
    Ok(Plan { module, rows, warps, bv, grid: grid(tiles * hv, batch), tiles_log2: tiles.ilog2() })
}

/// Largest number of warps of a block of an operation without tiles.
const MAX_SPREAD_WARPS: u32 = 8;

/// Plans an operation without tiles that has work for `threads` threads in each of `batch` sequences or copies. Blocks
/// are as large as possible while each multiprocessor has two of them: a single state is spread over many blocks.
///
/// # Errors
/// [`PlanError::Untiled`] when a tile of rows is asked for. [`Tile::Auto`] never fails.
pub fn spread(
    module: ModuleKey,
    threads: u64,
    batch: u32,
    caps: &Caps,
    tile: Tile,
) -> Result<Plan, PlanError> {
    let blocks = |warps: u32| threads.div_ceil(32 * u64::from(warps)).max(1);
    let enough = |warps: &u32| blocks(*warps) * u64::from(batch) >= 2 * u64::from(caps.sms);
    let warps = match tile {
        Tile::Auto => {
            let warps = [MAX_SPREAD_WARPS, 4, 2].into_iter().find(enough).unwrap_or(1);
            // Where one block is enough, none of its warps is without work.
            u64::from(warps).min(blocks(1)) as u32
        }
        Tile::Exact { rows: 0, warps } if (1..=MAX_SPREAD_WARPS).contains(&warps) => warps,
        Tile::Rows(_) | Tile::Exact { .. } => {
            return Err(PlanError::Untiled { op: module.op, max: MAX_SPREAD_WARPS });
        }
    };
    Ok(Plan { module, rows: 0, warps, bv: 0, grid: grid(blocks(warps) as u32, batch), tiles_log2: 0 })
}

/// Every tile there is for a shape, for sweeps and proofs.
pub fn tiles(module: ModuleKey, shape: &HeadShape, layout: Layout) -> impl Iterator<Item = Tile> {
    let &HeadShape { k, v, .. } = shape;
    let kernels = rows(module, layout);
    let fits = move |rows, warps| warps <= max_warps(module, kernels, rows) && rows * (256 / k) * warps <= v;
    let warps = (0..=MAX_WARPS.ilog2()).map(|log2| 1 << log2);
    let pairs = warps.flat_map(move |warps| kernels.iter().map(move |&rows| (rows, warps)));
    pairs.filter(move |&(rows, warps)| fits(rows, warps)).map(|(rows, warps)| Tile::Exact { rows, warps })
}

/// Rows and warps of a block of `bv` rows: the smallest tile with which it has at most four warps, or the largest.
fn with_bv(kernels: &[u32], k: u32, v: u32, bv: u32) -> Result<(u32, u32), PlanError> {
    let (small, large) = (kernels[0], kernels[kernels.len() - 1]);
    let min = small * (256 / k);
    if !(min..=v).contains(&bv) || !bv.is_power_of_two() {
        return Err(PlanError::Tile { bv, k, v, min, max: v });
    }
    let rows = kernels.iter().copied().find(|rows| bv <= 4 * rows * (256 / k)).unwrap_or(large);
    Ok((rows, bv / (rows * (256 / k))))
}

/// The measured choice (H100 and H200, `docs/BENCHMARKS.md`), by the number of states there are for each
/// multiprocessor.
///
/// - A 16-bit state wants large tiles, half a state a block: its warps' instructions count, and these have the fewest
///   for a row, with gate and norms worked out once for 64 of them; but for the smallest grids, where latency counts.
/// - An f32 state has twice the memory traffic to hide instructions behind. Below a quarter of a state each latency
///   counts, and small tiles have the fewest rows to go through; up to six the same large tiles as above have the
///   whole batch in flight at once; from there on many small blocks spread it best.
/// - With a decay per key blocks are of eight warps, which share more work; of small tiles where an f32 state has few
///   or many, and of large ones, a state a block, otherwise.
/// - Several tokens are bound by latency between tokens: large blocks of small tiles, then tiles in between, then large
///   tiles, of which a multiprocessor holds three blocks.
/// - In layout KV one load of a warp covers 32 bytes of a row over V only, so blocks cover as much of it as they can.
fn choose(
    module: ModuleKey,
    shape: &HeadShape,
    layout: Layout,
    kernels: &[u32],
    batch: u32,
    caps: &Caps,
) -> (u32, u32) {
    let (small, middle, large) = (kernels[0], kernels[kernels.len() / 2], kernels[kernels.len() - 1]);
    let states = u64::from(batch) * u64::from(shape.hv);
    let sms = u64::from(caps.sms.max(1));
    let is_f32 = module.state == Some(DType::F32);
    let is_kda = module.op.starts_with("kda");
    let (rows, warps) = match states / sms {
        _ if is_recurrent(module) && 2 * states < sms => (small, 8),
        0..2 if is_recurrent(module) => (middle, 8),
        _ if is_recurrent(module) => (large, 4),
        _ if layout == Layout::Kv && 2 * states < sms => (small, 2),
        _ if layout == Layout::Kv && is_f32 => (small, 8),
        _ if layout == Layout::Kv => (large, 4),
        _ if is_kda && is_f32 && 2 * states < sms => (small, 8),
        _ if is_kda && 4 * states < sms => (large, 4),
        6.. if is_kda && is_f32 => (small, 8),
        _ if is_kda => (large, 8),
        _ if !is_f32 && 6 * states < sms => (small, 4),
        _ if !is_f32 => (large, 4),
        _ if 4 * states < sms => (small, 4),
        0..6 => (large, 4),
        _ => (small, 2),
    };
    // A block has no more rows than a state, and no more threads than its kernel takes.
    (rows, warps.min(max_warps(module, kernels, rows)).min(shape.v / (rows * (256 / shape.k))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Family;
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
        tiled(module, shape, layout, batch, caps, tile)
    }

    fn auto(shape: &HeadShape, batch: u32, state: DType, caps: &Caps) -> Plan {
        tile(shape, Layout::Vk, batch, state, caps, Tile::Auto).unwrap()
    }

    /// Choices for Qwen3-Next: whoever changes the policy changes this table knowingly.
    #[test]
    fn choices_for_qwen3_next_on_h100_and_h200() {
        let shape = HeadShape { h: 16, hv: 32, k: 128, v: 128 };
        let bv = |state, caps| [1, 4, 8, 16, 64, 512].map(|batch| auto(&shape, batch, state, caps).bv);
        for caps in [&H100, &H200] {
            assert_eq!(bv(DType::F32, caps), [16, 64, 64, 64, 8, 8]);
            assert_eq!(bv(DType::Bf16, caps), [64; 6]);
        }
        let plan = auto(&shape, 8, DType::F32, &H100);
        assert_eq!(plan.to_string(), "gdn_decode_f32_bf16_k128_r8 BV 64 grid 64x8x1 block 128");
    }

    #[test]
    fn every_plan_covers_each_row_once() {
        let shapes = MODELS.iter().flat_map(|m| [1, 2, 4, 8].map(|ranks| m.shape.shard(ranks).unwrap()));
        let small = [(64, 64), (64, 128), (128, 64)].map(|(k, v)| HeadShape { h: 1, hv: 2, k, v });
        let of_shape = |shape: HeadShape| {
            for (sms, layout) in [40, 108, 132, 200].into_iter().flat_map(|s| LAYOUTS.map(|l| (s, l))) {
                for (batch, state) in [1, 7, 64, 512, 70_000].into_iter().flat_map(|n| TYPES.map(|t| (n, t)))
                {
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
        let plan =
            |threads, batch| spread(ModuleKey::copy_state(), threads, batch, &H100, Tile::Auto).unwrap();
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
                let kernels = rows(module, layout);
                let least = kernels[0] * (256 / k);
                for bv in [4, 8, 16, 32, 64, 128].into_iter().filter(|bv| *bv <= v) {
                    let plan = tile(&shape, layout, 1, state, &H100, Tile::Rows(bv));
                    assert_eq!(plan.is_ok(), bv >= least, "BV {bv} of {least}");
                    let Ok(plan) = plan else { continue };
                    assert_eq!(plan.bv, bv);
                    let exists = kernels.contains(&plan.rows)
                        && plan.warps <= max_warps(plan.module, kernels, plan.rows);
                    assert!(exists, "{plan}");
                }
            }
        }
    }
}
