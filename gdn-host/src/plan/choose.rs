//! The measured choice of a tile.

use super::{is_recurrent, max_warps, team, tile_rows};
use crate::artifact::ModuleKey;
use crate::call::Layout;
use crate::plan::Caps;
use crate::shape::HeadShape;
use gdn_kernels::abi::DType;

/// The measured choice (H100, `docs/BENCHMARKS.md`), by the number of states there are for each multiprocessor.
///
/// - A 16-bit state wants large tiles, half a state a block: its warps' instructions count, and these have the fewest
///   for a row, with gate and norms worked out once for 64 of them; but for the smallest grids, where latency counts.
/// - An f32 state has twice the memory traffic to hide instructions behind. Below a quarter of a state each latency
///   counts, and small tiles have the fewest rows to go through; up to six the same large tiles as above have the
///   whole batch in flight at once; from there on many small blocks spread it best.
/// - With a decay per key large tiles, but for the smallest grids, there in blocks of eight warps, which share more work.
/// - Several tokens: four warps of small tiles as long as all blocks are on the device at once, then large tiles, whose
///   warps have the fewest instructions for a row. An f32 state goes back to small tiles where batches have several
///   waves of blocks anyway.
/// - In layout KV there is one tile; a block has one team of warps.
pub(super) fn choose(
    module: ModuleKey,
    shape: &HeadShape,
    layout: Layout,
    kernels: &[u32],
    batch: u32,
    caps: &Caps,
) -> (u32, u32) {
    let (small, large) = (kernels[0], kernels[kernels.len() - 1]);
    let states = u64::from(batch) * u64::from(shape.hv);
    let sms = u64::from(caps.sms.max(1));
    let is_f32 = module.state == Some(DType::F32);
    let is_kda = module.op.starts_with("kda");
    if layout == Layout::Kv {
        let is_small = match (is_f32, is_kda) {
            (true, true) => states < sms,
            (true, false) => 2 * states < 3 * sms,
            (false, _) => states <= 2 * sms,
        };
        let rows = if is_small { small } else { large };
        return (rows, team(module, layout, rows));
    }
    let (rows, warps) = match states / sms {
        _ if is_recurrent(module) && states <= sms => (small, 4),
        2.. if is_recurrent(module) && is_f32 => (small, 4),
        _ if is_recurrent(module) => (large, 4),
        _ if is_kda && 2 * states < sms => (small, 8),
        _ if is_kda => (large, 4),
        _ if !is_f32 && 6 * states < sms => (small, 4),
        _ if !is_f32 => (large, 4),
        _ if 4 * states < sms => (small, 4),
        0..6 => (large, 4),
        _ => (small, 2),
    };
    // A block has no more rows than a state, and no more threads than its kernel takes.
    (rows, warps.min(max_warps(module, kernels, rows)).min(shape.v / tile_rows(rows, shape.k)))
}
