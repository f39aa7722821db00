//! Pure policy: which kernel, which BV, which grid.
//!
//! A [`Plan`] follows from the call's shape and the device's multiprocessor count alone; no GPU is needed to
//! make, print or test one. The result of a launch does not depend on it (see `gdn-kernels/src/tile.rs`),
//! only its time does.

use crate::shape::HeadShape;
use gdn_kernels::abi::DType;
use std::fmt;
use thiserror::Error;

/// Capabilities of the device that a plan depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Streaming multiprocessors.
    pub sms: u32,
    /// Compute capability as `10 * major + minor`.
    pub compute: u32,
    /// Peak bandwidth of the device memory in GB/s; 0 if it is not known.
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
    /// Type of the state.
    pub state: DType,
    /// Type of q, k and v.
    pub io: DType,
    /// Key dimension.
    pub k: u32,
    /// Rows of V a lane group works on.
    pub rows: u32,
    /// Warps of a block.
    pub warps: u32,
    /// Rows of V a block works on.
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
        let (state, io) = (self.state.name(), self.io.name());
        format!("gdn_decode_{state}_{io}_k{}_r{}", self.k, self.rows)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [x, y, z] = self.grid;
        write!(f, "{} BV {} grid {x}x{y}x{z} block {}", self.entry(), self.bv, self.block())
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
}

/// Rows of a lane group that kernels exist for: a small and a large tile for each key dimension. A warp has
/// `256 / k` lane groups, so its small tile is 4 rows of V and its large one 16.
pub const fn rows(k: u32) -> [u32; 2] {
    if k == 64 { [1, 4] } else { [2, 8] }
}

/// Warps of a block that tile sweeps go up to.
pub const MAX_WARPS: u32 = 16;

/// Largest number of warps of a block with `rows` rows a lane group: the launch bound of its kernel.
const fn max_warps(k: u32, rows: u32) -> u32 {
    if rows == self::rows(k)[0] { MAX_WARPS } else { MAX_WARPS / 2 }
}

/// Sequences along y; further ones go along z.
const MAX_GRID_Y: u32 = 65_535;

/// Plans a decode of `batch` sequences (at least 1) of a checked shape.
///
/// # Errors
/// [`PlanError`] when a tile asked for does not exist. [`Tile::Auto`] never fails.
pub fn decode(
    shape: &HeadShape,
    batch: u32,
    state: DType,
    io: DType,
    caps: &Caps,
    tile: Tile,
) -> Result<Plan, PlanError> {
    let &HeadShape { hv, k, v, .. } = shape;
    let (rows, warps) = match tile {
        Tile::Auto => choose(shape, batch, state, caps),
        Tile::Rows(bv) => with_bv(k, v, bv)?,
        Tile::Exact { rows, warps } => {
            let bv = rows * (256 / k) * warps;
            let known = self::rows(k).contains(&rows) && (1..=max_warps(k, rows)).contains(&warps);
            let fits = known && bv <= v && v % bv == 0;
            if !fits {
                return Err(PlanError::Exact { rows, warps, k, v });
            }
            (rows, warps)
        }
    };
    let bv = rows * (256 / k) * warps;
    let tiles = v / bv;
    let y = batch.min(MAX_GRID_Y);
    Ok(Plan {
        state,
        io,
        k,
        rows,
        warps,
        bv,
        grid: [tiles * hv, y, batch.div_ceil(y)],
        tiles_log2: tiles.ilog2(),
    })
}

/// Every tile there is for a shape, for sweeps and proofs.
pub fn tiles(shape: &HeadShape) -> impl Iterator<Item = Tile> {
    let &HeadShape { k, v, .. } = shape;
    let fits = move |rows, warps| warps <= max_warps(k, rows) && rows * (256 / k) * warps <= v;
    let warps = (0..=MAX_WARPS.ilog2()).map(|log2| 1 << log2);
    let pairs = warps.flat_map(move |warps| rows(k).map(|rows| (rows, warps)));
    pairs.filter(move |&(rows, warps)| fits(rows, warps)).map(|(rows, warps)| Tile::Exact { rows, warps })
}

/// Rows and warps of a block of `bv` rows: small tiles up to four warps, large ones above.
fn with_bv(k: u32, v: u32, bv: u32) -> Result<(u32, u32), PlanError> {
    const MIN: u32 = 4;
    if !(MIN..=v).contains(&bv) || !bv.is_power_of_two() {
        return Err(PlanError::Tile { bv, k, v, min: MIN, max: v });
    }
    let [small, large] = rows(k);
    let rows = if bv <= 4 * small * (256 / k) { small } else { large };
    Ok((rows, bv / (rows * (256 / k))))
}

/// The measured choice (H100 and H200, `docs/BENCHMARKS.md`), by the number of states there are for each
/// multiprocessor, and by the bandwidth that each has.
///
/// - Small tiles, four warps a block, are best nearly everywhere: many warps hide each other's latency.
/// - From one to three states a multiprocessor, small tiles would need a second, mostly empty wave of blocks;
///   a quarter as many warps with large tiles have the whole batch in flight at once.
/// - A 16-bit state has half as many bytes a row, so blocks of two warps spread it better, and where there are
///   so many blocks that their prologues add up, large tiles have fewer.
/// - An f32 state in large batches gains from fewer, larger blocks: sixteen warps.
/// - Where memory is so fast that a multiprocessor is busy with instructions first (an H200 gives each 36 GB/s,
///   an H100 25), a 16-bit state wants the fewest instructions a row, which is large tiles from one state a
///   multiprocessor on, and either state wants small blocks, since blocks then finish at different times.
fn choose(shape: &HeadShape, batch: u32, state: DType, caps: &Caps) -> (u32, u32) {
    let [small, large] = rows(shape.k);
    let states = u64::from(batch) * u64::from(shape.hv);
    let sms = u64::from(caps.sms.max(1));
    let is_f32 = state == DType::F32;
    let fast_memory = u64::from(caps.memory_gbps) >= 30 * sms;
    let (rows, warps) = match states / sms {
        0 => (small, 4),
        1..3 => (large, 2),
        _ if fast_memory && is_f32 => (small, 2),
        _ if fast_memory => (large, 1),
        3..24 if is_f32 => (small, 4),
        3..96 if !is_f32 => (small, 2),
        _ if is_f32 => (small, 16),
        _ => (large, 4),
    };
    // A block has no more rows than a state.
    (rows, warps.min(shape.v / (rows * (256 / shape.k))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::MODELS;

    const H100: Caps = Caps { sms: 132, compute: 90, memory_gbps: 3352 };
    const H200: Caps = Caps { memory_gbps: 4814, ..H100 };

    fn auto(shape: &HeadShape, batch: u32, state: DType, caps: &Caps) -> Plan {
        decode(shape, batch, state, DType::Bf16, caps, Tile::Auto).unwrap()
    }

    /// Choices for Qwen3-Next: whoever changes the policy changes this table knowingly.
    #[test]
    fn choices_for_qwen3_next_on_h100_and_h200() {
        let shape = HeadShape { h: 16, hv: 32, k: 128, v: 128 };
        let bv = |state| [1, 4, 8, 16, 64, 512].map(|batch| auto(&shape, batch, state, &H100).bv);
        assert_eq!(bv(DType::F32), [16, 16, 32, 16, 16, 64]);
        assert_eq!(bv(DType::Bf16), [16, 16, 32, 8, 8, 64]);
        let bv = |state| [1, 4, 8, 16, 64, 512].map(|batch| auto(&shape, batch, state, &H200).bv);
        assert_eq!(bv(DType::F32), [16, 16, 32, 8, 8, 8]);
        assert_eq!(bv(DType::Bf16), [16, 16, 32, 16, 16, 16]);
        let plan = auto(&shape, 8, DType::F32, &H100);
        assert_eq!(plan.to_string(), "gdn_decode_f32_bf16_k128_r8 BV 32 grid 128x8x1 block 64");
    }

    #[test]
    fn every_plan_covers_each_row_once() {
        let shapes = MODELS.iter().flat_map(|m| [1, 2, 4, 8].map(|ranks| m.shape.shard(ranks).unwrap()));
        let small = [(64, 64), (64, 128), (128, 64)].map(|(k, v)| HeadShape { h: 1, hv: 2, k, v });
        for shape in shapes.chain(small) {
            for sms in [40, 108, 132, 200] {
                for batch in [1, 7, 64, 512, 70_000] {
                    for state in [DType::F32, DType::Bf16] {
                        let caps = Caps { sms, memory_gbps: 30 * (sms - 40), ..H100 };
                        let plan = auto(&shape, batch, state, &caps);
                        let [x, y, z] = plan.grid;
                        assert_eq!(x * plan.bv, shape.hv * shape.v, "{plan}");
                        assert_eq!(shape.v >> plan.tiles_log2, plan.bv, "{plan}");
                        assert!(y <= MAX_GRID_Y && y * z >= batch && y * (z - 1) < batch, "{plan}");
                        let same = Tile::Exact { rows: plan.rows, warps: plan.warps };
                        let again = decode(&shape, batch, state, DType::Bf16, &caps, same).unwrap();
                        assert_eq!(again, plan);
                    }
                }
            }
        }
    }

    #[test]
    fn every_bv_is_made_of_kernels_that_exist() {
        for (k, v) in [(64, 64), (64, 128), (128, 64), (128, 128)] {
            let shape = HeadShape { h: 1, hv: 1, k, v };
            for bv in [4, 8, 16, 32, 64, 128].into_iter().filter(|bv| *bv <= v) {
                let plan = decode(&shape, 1, DType::F32, DType::Bf16, &H100, Tile::Rows(bv)).unwrap();
                assert_eq!(plan.bv, bv);
                assert!(rows(k).contains(&plan.rows) && plan.warps <= max_warps(k, plan.rows), "{plan}");
            }
        }
    }
}
