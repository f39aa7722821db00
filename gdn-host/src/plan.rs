//! Which kernel, which BV, which grid.
//!
//! A [`Plan`] follows from the call's shape, the device and a table of measured choices (whether it is launched early also
//! from the PTX that is loaded); no GPU is needed to make, print or test one. The result of a launch does not depend on it
//! (see `gdn-kernels/src/tile.rs`), only its time does. [`class`] says what a choice depends on, [`tuning`] looks it up, and
//! here the launch gets its shape.

use crate::key::ModuleKey;
use crate::shape::HeadShape;
use gdn_kernels::abi::DType;
use std::fmt;
use thiserror::Error;

mod class;
mod early;
pub mod tuning;

pub use class::{Class, Load, Work};
pub use early::{Launch, Overlap};
pub use tuning::{Height, Step, Tuned, Tuning, TuningError};

/// What is known of a device. Tiles depend on its multiprocessors and its memory, [`Plan::early`] on its compute capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Caps {
    /// Streaming multiprocessors.
    pub sms: u32,
    /// Compute capability as `10 * major + minor`.
    pub compute: u32,
    /// Peak bandwidth of the device memory in GB/s; 0 if it is not known.
    pub memory_gbps: u32,
}

impl Caps {
    /// GB/s that the memory gives a multiprocessor; 0 if that is not known.
    pub fn gbps_per_sm(&self) -> f64 {
        f64::from(self.memory_gbps) / f64::from(self.sms.max(1))
    }
}

/// An operation on tiles of states: what its plan follows from, besides the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// The module that holds the kernels.
    pub module: ModuleKey,
    /// A checked shape.
    pub shape: HeadShape,
    /// Sequences; at least 1 is planned for.
    pub batch: u32,
    /// Whether the state after every token is stored, which then takes most of the time of several tokens.
    pub stores_each: bool,
}

/// How the tile is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Tile {
    /// By measurement, from N * HV and the number of multiprocessors.
    #[default]
    Auto,
    /// BV rows of V a block.
    Rows(u32),
    /// A kernel by the height of its warps' tiles, and `warps` warps a block, for sweeps.
    Exact {
        /// One of [`rows`].
        rows: u32,
        /// Warps of a block.
        warps: u32,
    },
    /// A step of a table, for measuring one.
    Step(Step),
}

/// One launch, ready but for its pointers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The module that holds the kernel.
    pub module: ModuleKey,
    /// Height of a warp's tile, see [`rows`]; 0 if the operation has no tiles.
    pub rows: u32,
    /// Warps of a block.
    pub warps: u32,
    /// Rows of V a block works on; 0 if the operation has no tiles.
    pub bv: u32,
    /// Blocks.
    pub grid: [u32; 3],
    /// log2(V / BV).
    pub tiles_log2: u32,
    /// How many sequences later one is whose state a block asks for into the L2; 0: none.
    pub ahead: u32,
    /// Whose table of choices it follows.
    pub tuned: Tuned,
    /// Whether an early launch pays.
    pub early_pays: bool,
    /// Launched early, as [`Launch::early`] asked for. [`Operation::plan`](crate::Operation::plan) leaves it `false`:
    /// [`Gdn::plan`](crate::Gdn::plan) knows which PTX is loaded.
    pub early: bool,
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
        let early = if self.early { " early" } else { "" };
        write!(f, "{}{bv} grid {x}x{y}x{z} block {}{early}", self.entry(), self.block())?;
        if self.tuned == Tuned::Untuned { Ok(()) } else { write!(f, ", {}", self.tuned) }
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
    #[error("tile: {rows} rows with {warps} warps is not possible for K = {k}, V = {v}")]
    Exact {
        /// Rows asked for.
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

/// Heights of tiles that kernels exist for, from the smallest to the largest, for each operation, layout, element type and
/// key dimension. The unit is `256 / k` rows of V, of which a lane holds 8 elements each. In VK a tile is a warp's, 4 to 16
/// rows of V. In KV, where a lane has the rows of a 16-byte vector, it is that of a team.
pub fn rows(module: ModuleKey) -> &'static [u32] {
    let several = module.has_several_tokens();
    match (module.is_kv(), module.state.unwrap_or(DType::F32), module.k) {
        (false, DType::F32, _) if several => &[4],
        (false, _, 64) if several => &[2, 4],
        (false, ..) if several => &[4, 8],
        (false, _, 64) => &[1, 4],
        (false, ..) => &[2, 8],
        (true, DType::F32, 64) if several => &[8],
        // Inputs of f32 leave large tiles too few registers.
        (true, _, k) if several && (k == 64 || module.io == Some(DType::F32)) => &[16],
        (true, ..) if several => &[16, 32],
        (true, DType::F32, 64) => &[4, 16],
        (true, _, 64) => &[8, 16],
        (true, DType::F32, _) => &[8, 32],
        (true, ..) => &[16, 32, 64],
    }
}

/// Warps that work on a tile together.
fn team(module: ModuleKey, rows: u32) -> u32 {
    match module.state {
        _ if !module.is_kv() => 1,
        Some(DType::F32) | None => rows / 4,
        _ => rows / 8,
    }
}

/// How a step of a table names a module's tile of `rows` in blocks of `warps` warps.
pub fn height_and_teams(module: ModuleKey, rows: u32, warps: u32) -> Option<(Height, u32)> {
    let height = self::rows(module).iter().position(|&height| height == rows)?;
    Some((*Height::ALL.get(height)?, warps / team(module, rows)))
}

/// Rows of V of a tile.
fn tile_rows(rows: u32, k: u32) -> u32 {
    rows * (256 / k)
}

/// Rows of V of a block of `warps` warps.
fn block_rows(module: ModuleKey, rows: u32, warps: u32) -> u32 {
    tile_rows(rows, module.k) * (warps / team(module, rows))
}

/// Warps of a block that tile sweeps go up to.
pub const MAX_WARPS: u32 = 16;

/// Largest number of warps of a block of tiles of a height: the launch bound of its kernel. The small tile of decode with one
/// decay in layout VK has few enough registers for larger blocks. In KV it is made for few teams, whose sums take so little
/// shared memory that an early launch overlaps.
fn max_warps(module: ModuleKey, rows: u32) -> u32 {
    let is_small = rows == self::rows(module)[0] && !module.has_several_tokens();
    let is_f32 = module.state == Some(DType::F32);
    match (module.is_kv(), module.is_kda()) {
        (false, false) if is_small => MAX_WARPS,
        (true, is_kda) if is_small && module.k == 128 => {
            team(module, rows) * if is_kda || is_f32 { 2 } else { 1 }
        }
        _ => MAX_WARPS / 2,
    }
}

/// Sequences along y; further ones go along z.
const MAX_GRID_Y: u32 = 65_535;

/// A grid with `x` blocks for each of `batch` sequences (at least 1).
fn grid(x: u32, batch: u32) -> [u32; 3] {
    let y = batch.clamp(1, MAX_GRID_Y);
    [x, y, batch.max(1).div_ceil(y)]
}

/// Plans an operation on tiles of states.
///
/// # Errors
/// [`PlanError`] when a tile asked for does not exist. [`Tile::Auto`] never fails.
pub fn tiled(job: &Job, caps: &Caps, tuning: &Tuning, tile: Tile) -> Result<Plan, PlanError> {
    let &Job { module, shape: HeadShape { hv, k, v, .. }, batch, .. } = job;
    let (tuned, step) = match tile {
        Tile::Step(step) => (Tuned::ByCaller, step),
        _ => tuning.choose(Class::of(job), Load::of(job, caps.sms), caps),
    };
    let (rows, warps) = match tile {
        Tile::Auto | Tile::Step(_) => fitting(module, v, &step),
        Tile::Rows(bv) => with_bv(module, v, bv)?,
        Tile::Exact { rows, warps } => {
            if !exists(module, v, rows, warps) {
                return Err(PlanError::Exact { rows, warps, k, v });
            }
            (rows, warps)
        }
    };
    let bv = block_rows(module, rows, warps);
    let tiles = v / bv;
    let grid = grid(tiles * hv, batch);
    let ahead = sequences_ahead(job, step.ahead_kib, caps);
    let early_pays = step.early;
    Ok(Plan {
        module,
        rows,
        warps,
        bv,
        grid,
        tiles_log2: tiles.ilog2(),
        ahead,
        tuned,
        early_pays,
        early: false,
    })
}

/// Sequences whose states are so many KiB for each multiprocessor: at least one, unless it is 0 KiB.
fn sequences_ahead(job: &Job, kib: u32, caps: &Caps) -> u32 {
    let state = job.module.state.map_or(0, DType::size) as u64;
    let of_sequence = job.shape.state_elements() * state;
    let bytes = u64::from(kib) * 1024 * u64::from(caps.sms);
    match (kib, of_sequence) {
        (0, _) | (_, 0) => 0,
        _ => u32::try_from((bytes + of_sequence / 2) / of_sequence).unwrap_or(u32::MAX).max(1),
    }
}

/// The tile of a step that there is for V rows: of its height, or of the tallest below it, and of as many teams as a block may
/// have up to the step's.
fn fitting(module: ModuleKey, v: u32, step: &Step) -> (u32, u32) {
    let kernels = rows(module);
    let tallest = kernels.len().saturating_sub(1).min(step.tile as usize);
    let of_height = |&rows: &u32| {
        let most = step.teams * team(module, rows);
        pairs(module, v).filter(|pair| pair.0 == rows && pair.1 <= most).max()
    };
    let fitting = kernels[..=tallest].iter().rev().find_map(of_height);
    fitting.or_else(|| pairs(module, v).min()).unwrap_or((kernels[0], team(module, kernels[0])))
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
        Tile::Rows(_) | Tile::Exact { .. } | Tile::Step(_) => {
            return Err(PlanError::Untiled { op: module.op.name(), max: MAX_SPREAD_WARPS });
        }
    };
    let grid = grid(blocks(warps) as u32, batch);
    let tuned = Tuned::Untuned;
    // Where only the start overlaps, an early launch pays.
    Ok(Plan {
        module,
        rows: 0,
        warps,
        bv: 0,
        grid,
        tiles_log2: 0,
        ahead: 0,
        tuned,
        early_pays: true,
        early: false,
    })
}

/// Whether there is a kernel with tiles of that height whose blocks may have so many warps, and V is a multiple of its BV.
fn exists(module: ModuleKey, v: u32, rows: u32, warps: u32) -> bool {
    let is_known = self::rows(module).contains(&rows) && (1..=max_warps(module, rows)).contains(&warps);
    is_known && warps.is_multiple_of(team(module, rows)) && v.is_multiple_of(block_rows(module, rows, warps))
}

/// Rows and warps of every tile that there is for V rows.
fn pairs(module: ModuleKey, v: u32) -> impl Iterator<Item = (u32, u32)> {
    let warps = (0..=MAX_WARPS.ilog2()).map(|log2| 1 << log2);
    let pairs = warps.flat_map(move |warps| rows(module).iter().map(move |&rows| (rows, warps)));
    pairs.filter(move |&(rows, warps)| exists(module, v, rows, warps))
}

/// Every tile there is for a shape, for sweeps and proofs.
pub fn tiles(module: ModuleKey, shape: &HeadShape) -> impl Iterator<Item = Tile> {
    pairs(module, shape.v).map(|(rows, warps)| Tile::Exact { rows, warps })
}

/// Rows and warps of a block of `bv` rows: the smallest tile with which it has at most four, or the largest.
fn with_bv(module: ModuleKey, v: u32, bv: u32) -> Result<(u32, u32), PlanError> {
    let rows_of = |(rows, warps)| block_rows(module, rows, warps);
    let all = || pairs(module, v);
    let few = |&(rows, _): &(u32, u32)| bv <= 4 * tile_rows(rows, module.k);
    let of_bv = || all().filter(|pair| rows_of(*pair) == bv);
    of_bv().filter(few).min().or_else(|| of_bv().max()).ok_or_else(|| PlanError::Tile {
        bv,
        k: module.k,
        v,
        min: all().map(rows_of).min().unwrap_or(0),
        max: all().map(rows_of).max().unwrap_or(0),
    })
}

#[cfg(test)]
mod tests;
