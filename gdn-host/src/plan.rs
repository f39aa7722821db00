//! Which kernel, which BV, which grid.
//!
//! A [`Plan`] follows from the call's shape, the device and a table of measured choices (whether it is launched early also
//! from the PTX that is loaded); no GPU is needed to make, print or test one. The result of a launch does not depend on it
//! (see `gdn-kernels/src/tile.rs`), only its time does. `class` says what a choice depends on, [`tuning`] looks it up, and
//! here the launch gets its shape.

use crate::key::ModuleKey;
use crate::shape::HeadShape;
use gdn_kernels::abi::DType;
use std::fmt;
use thiserror::Error;

mod class;
mod early;
mod tiles;
pub mod tuning;

pub use class::{Class, Load, Work};
pub use early::{Launch, Overlap};
pub(crate) use tiles::is_served;
pub use tiles::{MAX_WARPS, height_and_teams, rows, tiles};
pub use tuning::{Height, Step, Tuned, Tuning, TuningError};

use tiles::{PossibleRows, PossibleTiles, block_rows, exists, fitting, with_bv};

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
    /// Tiles of a state, V / BV; 1 if the operation has none.
    pub tiles: u32,
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
    #[error("tile: BV {bv} is not possible for {module} with V = {v}: it must be {}", PossibleRows(*module, *v))]
    Tile {
        /// Rows asked for.
        bv: u32,
        /// The module that has the kernels.
        module: ModuleKey,
        /// Value dimension.
        v: u32,
    },
    /// No such kernel or block.
    #[error(
        "tile: {rows} rows with {warps} warps is not possible for {module} with V = {v}: it must be {} warps, a power of two",
        PossibleTiles(*module, *v)
    )]
    Exact {
        /// Rows asked for.
        rows: u32,
        /// Warps.
        warps: u32,
        /// The module that has the kernels.
        module: ModuleKey,
        /// Value dimension.
        v: u32,
    },
    /// No kernel for the types, layout, gate and K.
    #[error("there is no kernel {module} for V = {v}")]
    NoKernel {
        /// The module that would have it.
        module: ModuleKey,
        /// Value dimension.
        v: u32,
    },
    /// More blocks than a grid has.
    #[error(
        "grid: {x} blocks for each of {batch} sequences are too many: a grid has {MAX_GRID_X} along x, and {MAX_GRID_YZ} along y and z"
    )]
    Grid {
        /// Blocks for a sequence (or token, or copy).
        x: u64,
        /// Sequences.
        batch: u32,
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

/// Most blocks of a grid along x.
const MAX_GRID_X: u32 = i32::MAX as u32;
/// Most blocks of a grid along y, and along z.
const MAX_GRID_YZ: u32 = 65_535;

/// A grid with `x` blocks for each of `batch` sequences (at least 1): along y, and those that find no place there along z.
fn grid(x: u64, batch: u32) -> Result<[u32; 3], PlanError> {
    let y = batch.clamp(1, MAX_GRID_YZ);
    let z = batch.max(1).div_ceil(y);
    match u32::try_from(x) {
        Ok(x) if x <= MAX_GRID_X && z <= MAX_GRID_YZ => Ok([x, y, z]),
        _ => Err(PlanError::Grid { x, batch }),
    }
}

/// Plans an operation on tiles of states.
///
/// # Errors
/// [`PlanError`] when a tile asked for does not exist, when no kernel does, or when there are more than 65,535 * 65,535 sequences.
pub fn tiled(job: &Job, caps: &Caps, tuning: &Tuning, tile: Tile) -> Result<Plan, PlanError> {
    let &Job { module, shape: HeadShape { hv, v, .. }, batch, .. } = job;
    let (tuned, step) = match tile {
        Tile::Step(step) => (Tuned::ByCaller, step),
        _ => tuning.choose(Class::of(job), Load::of(job, caps.sms), caps),
    };
    let (rows, warps) = match tile {
        Tile::Auto | Tile::Step(_) => fitting(module, v, &step).ok_or(PlanError::NoKernel { module, v })?,
        Tile::Rows(bv) => with_bv(module, v, bv)?,
        Tile::Exact { rows, warps } => {
            if !exists(module, v, rows, warps) {
                return Err(PlanError::Exact { rows, warps, module, v });
            }
            (rows, warps)
        }
    };
    let bv = block_rows(module, rows, warps);
    let tiles = v / bv;
    let grid = grid(u64::from(tiles) * u64::from(hv), batch)?;
    let ahead = sequences_ahead(job, step.ahead_kib, caps);
    let early_pays = step.early;
    Ok(Plan { module, rows, warps, bv, grid, tiles, ahead, tuned, early_pays, early: false })
}

/// Sequences whose states are so many KiB for each multiprocessor: at least one, unless it is 0 KiB.
fn sequences_ahead(job: &Job, kib: u32, caps: &Caps) -> u32 {
    let state = job.module.state.map_or(0, DType::size) as u64;
    let of_sequence = job.shape.state_elements() * state;
    let bytes = (u64::from(kib) * 1024).saturating_mul(caps.sms.into());
    match (kib, of_sequence) {
        (0, _) | (_, 0) => 0,
        _ => u32::try_from(bytes.saturating_add(of_sequence / 2) / of_sequence).unwrap_or(u32::MAX).max(1),
    }
}

/// Largest number of warps of a block of an operation without tiles.
const MAX_SPREAD_WARPS: u32 = 8;

/// Plans an operation without tiles that has work for `threads` threads in each of `batch` sequences or copies. Blocks
/// are as large as possible while each multiprocessor has two of them: a single state is spread over many blocks.
///
/// # Errors
/// [`PlanError::Untiled`] when a tile of rows is asked for; [`PlanError::Grid`] as [`tiled`].
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
    let grid = grid(blocks(warps), batch)?;
    let tuned = Tuned::Untuned;
    // Where only the start overlaps, an early launch pays.
    Ok(Plan {
        module,
        rows: 0,
        warps,
        bv: 0,
        grid,
        tiles: 1,
        ahead: 0,
        tuned,
        early_pays: true,
        early: false,
    })
}

#[cfg(test)]
mod tests;
