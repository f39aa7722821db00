//! Which tiles there are: heights, teams of warps, sizes of blocks. They follow from the kernels' table.

use super::{Height, PlanError, Step, Tile};
use crate::key::{ModuleKey, OpKind};
use crate::shape::HeadShape;
use gdn_kernels::abi::{DType, MOST_BLOCK_ROWS};
use std::fmt;

/// Warps of a block that tile sweeps go up to.
pub const MAX_WARPS: u32 = 16;

/// Whether there are kernels of the recurrence for the module's layout, gate, types and K.
///
/// With a ring of records there are those for states `[V, K]` with K = 128 in f32, in the type of the inputs, or in f16 under
/// bf16; and for decode of GDN with K = 64.
///
/// K = 64 and 128 have a state in f32, in the type of the inputs, or in f16 under bf16. The other pairs of types are there for
/// states `[V, K]` with K = 128, and for decode of GDN with K = 64. K = 96 and 256 have GDN alone, with f32 and bf16 states
/// under bf16 inputs, and f32 under f32.
pub(crate) fn is_served(module: ModuleKey) -> bool {
    let (Some(state), Some(io)) = (module.state, module.io) else {
        return false;
    };
    if module.op.has_records() {
        let is_known = !is_mixed(module) || (state, io) == (DType::F16, DType::Bf16);
        let is_64 =
            module.op != OpKind::ReplayVerify && !module.is_kda() && io != DType::F16 && !is_mixed(module);
        return is_known && !module.is_kv() && (module.k == 128 || module.k == 64 && is_64);
    }
    match module.k {
        64 | 128 if !is_mixed(module) || (state, io) == (DType::F16, DType::Bf16) => true,
        64 => !(module.is_kv() || module.is_kda() || module.has_several_tokens()),
        128 => !module.is_kv(),
        96 | 256 => !module.is_kda() && io != DType::F16 && !is_mixed(module),
        _ => false,
    }
}

/// Whether the state is of a 16-bit type that is not the inputs'.
fn is_mixed(module: ModuleKey) -> bool {
    module.state != Some(DType::F32) && module.state != module.io
}

/// Heights of tiles that kernels exist for, from the smallest to the largest, for each operation, layout, pair of types and
/// key dimension; none if there is no module. The unit is the rows of V that a warp works on side by side: 4 for K = 64, 2 for
/// 96 and 128, 1 for 256. A lane holds 8 elements of each. In VK a tile is a warp's, 4 to 16 rows of V. In KV, where a lane has
/// the rows of a 16-byte vector, it is that of a team.
///
/// Rare pairs of types have one height. Some module of every kind has one that divides 32, and so every V.
pub fn rows(module: ModuleKey) -> &'static [u32] {
    if !is_served(module) {
        return &[];
    }
    match module.op {
        OpKind::ReplayDecode if module.k == 128 => return &[2, 8],
        OpKind::ReplayFold if module.k == 128 => return &[8],
        OpKind::ReplayDecode | OpKind::ReplayFold => return &[4],
        // Where sums of drafts are products of matrices, a warp has registers for more.
        OpKind::ReplayVerify => {
            let (state, io) = (module.state, module.io);
            let is_tall = match module.is_kda() {
                true => io == Some(DType::Bf16) && state != Some(DType::F16),
                false => io == state && io != Some(DType::F32),
            };
            return if is_tall { &[8, 16] } else { &[8] };
        }
        _ => {}
    }
    let is_f32 = module.state == Some(DType::F32);
    // Decode of GDN in layout VK has its two heights for every pair.
    let is_rare = is_mixed(module) && (module.is_kv() || module.is_kda() || module.has_several_tokens());
    match (module.is_kv(), module.has_several_tokens(), module.k) {
        (false, false, 64) if is_rare => &[4],
        (false, false, 64) => &[1, 4],
        (false, false, 256) => &[8],
        (false, false, _) if is_rare => &[8],
        (false, false, _) => &[2, 8],
        (false, true, 64) if is_f32 || is_rare => &[4],
        (false, true, 64) => &[2, 4],
        (false, true, _) if is_f32 => &[4],
        (false, true, 128) if !is_rare => &[4, 8],
        (false, true, _) => &[8],
        (true, false, 64) if is_f32 => &[4, 16],
        (true, false, 64) if is_rare => &[8],
        (true, false, 64) => &[8, 16],
        (true, false, 96) => &[16, 32],
        (true, false, 256) if is_f32 => &[32],
        (true, false, 256) => &[32, 64],
        (true, false, _) if is_f32 => &[8, 32],
        (true, false, _) if is_rare => &[16],
        (true, false, _) => &[16, 32, 64],
        (true, true, 64) if is_f32 || is_rare => &[8],
        (true, true, 64) => &[8, 16],
        (true, true, 256) => &[32],
        // Inputs of f32 leave large tiles too few registers.
        (true, true, 128) if !is_rare && module.io != Some(DType::F32) => &[16, 32],
        (true, true, _) => &[16],
    }
}

/// Warps that work on a tile together.
pub(super) fn team(module: ModuleKey, rows: u32) -> u32 {
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
pub(super) fn tile_rows(rows: u32, k: u32) -> u32 {
    rows * (256 / k)
}

/// Rows of V of a block of `warps` warps.
pub(super) fn block_rows(module: ModuleKey, rows: u32, warps: u32) -> u32 {
    tile_rows(rows, module.k) * (warps / team(module, rows))
}

/// Largest number of warps of a block of tiles of a height: the launch bound of its kernel. The small tile of decode with one
/// decay in layout VK has few enough registers for larger blocks. In KV it is made for few teams, whose sums take so little
/// shared memory that an early launch overlaps.
pub(super) fn max_warps(module: ModuleKey, rows: u32) -> u32 {
    match module.op {
        OpKind::ReplayDecode | OpKind::ReplayFold => return MAX_WARPS / 2,
        // Prepared tokens take the shared memory of half the rows.
        OpKind::ReplayVerify => return MAX_WARPS / 4,
        _ => {}
    }
    let heights = self::rows(module);
    let is_small = heights.len() > 1 && heights[0] == rows && !module.has_several_tokens();
    let is_f32 = module.state == Some(DType::F32);
    match (module.is_kv(), module.is_kda()) {
        (false, false) if is_small => MAX_WARPS,
        (true, is_kda) if is_small && module.k == 128 => {
            team(module, rows) * if is_kda || is_f32 { 2 } else { 1 }
        }
        _ => MAX_WARPS / 2,
    }
}

/// Whether there is a kernel with tiles of that height whose blocks may have so many warps, and V is a multiple of its BV.
pub(super) fn exists(module: ModuleKey, v: u32, rows: u32, warps: u32) -> bool {
    let is_known = self::rows(module).contains(&rows) && (1..=max_warps(module, rows)).contains(&warps);
    is_known && warps.is_multiple_of(team(module, rows)) && {
        let bv = block_rows(module, rows, warps);
        bv <= MOST_BLOCK_ROWS && v.is_multiple_of(bv)
    }
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
pub(super) fn with_bv(module: ModuleKey, v: u32, bv: u32) -> Result<(u32, u32), PlanError> {
    let few = |&(rows, _): &(u32, u32)| bv <= 4 * tile_rows(rows, module.k);
    let of_bv = || pairs(module, v).filter(|&(rows, warps)| block_rows(module, rows, warps) == bv);
    of_bv().filter(few).min().or_else(|| of_bv().max()).ok_or(PlanError::Tile { bv, module, v })
}

/// The tile of a step that there is for V rows: of its height, or of the tallest below it, and of as many teams as a block may
/// have up to the step's; `None` if there is no kernel at all.
pub(super) fn fitting(module: ModuleKey, v: u32, step: &Step) -> Option<(u32, u32)> {
    let kernels = rows(module);
    let of_height = |&rows: &u32| {
        let most = step.teams.saturating_mul(team(module, rows));
        pairs(module, v).filter(|pair| pair.0 == rows && pair.1 <= most).max()
    };
    let up_to_step = &kernels[..kernels.len().min(step.tile as usize + 1)];
    up_to_step.iter().rev().find_map(of_height).or_else(|| pairs(module, v).min())
}

/// A list in words: `4, 8 or 16`.
fn list(f: &mut fmt::Formatter<'_>, items: &[String]) -> fmt::Result {
    match items {
        [] => f.write_str("none"),
        [one] => f.write_str(one),
        [front @ .., last] => write!(f, "{} or {last}", front.join(", ")),
    }
}

/// Every BV that there is for V rows, in words.
pub(super) struct PossibleRows(pub(super) ModuleKey, pub(super) u32);

impl fmt::Display for PossibleRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bv: Vec<u32> =
            pairs(self.0, self.1).map(|(rows, warps)| block_rows(self.0, rows, warps)).collect();
        bv.sort_unstable();
        bv.dedup();
        list(f, &bv.iter().map(u32::to_string).collect::<Vec<_>>())
    }
}

/// Every height of a tile with the warps of its blocks that there is for V rows, in words.
pub(super) struct PossibleTiles(pub(super) ModuleKey, pub(super) u32);

impl fmt::Display for PossibleTiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of_rows = |rows: &u32| {
            let warps: Vec<u32> = pairs(self.0, self.1).filter(|p| p.0 == *rows).map(|p| p.1).collect();
            let most = warps.last()?;
            Some(format!("{rows} with {} to {most}", warps[0]))
        };
        list(f, &rows(self.0).iter().filter_map(of_rows).collect::<Vec<_>>())
    }
}
