//! The measured choice of a tile.

use super::{Caps, Job, max_warps, rows, team, tile_rows};
use gdn_kernels::abi::DType;

/// The measured choice (H100 and H200, `docs/BENCHMARKS.md`), by the number of states there are for each multiprocessor.
///
/// - One token: large tiles, half a state a block. Their warps have the fewest instructions for a row, with gate and norms
///   worked out once for 64 of them, and a batch is in flight at once as long as may be. The smallest grids (up to three
///   eighths of a state a multiprocessor in f32, half a one in 16 bits) have small tiles, with the fewest rows to go through
///   and no barrier: there each latency counts. From 24 states a multiprocessor on blocks have twice the warps, which start
///   and end less often, and those of an f32 state small tiles: it has twice the memory traffic to hide their instructions
///   behind, and they spread it best.
/// - Fast memory ([`Caps::has_fast_memory`]) leaves less time for each instruction. There an f32 state wants small tiles
///   earlier, in many small blocks from five states a multiprocessor on (until, from 32 on, states are asked for ahead), and a
///   16-bit one no larger blocks than four warps.
/// - With a decay per key blocks of eight warps from the first: preparing a token is more work to share. An f32 state goes
///   back to small tiles earlier, from eight states a multiprocessor on (two where memory is fast).
/// - Several tokens with a decay per key have eight warps as well: with four, update takes up to 11 % more. The
///   smallest grids have four, up to a quarter of a state a multiprocessor in f32, and in KV up to half a one in 16 bits. In VK
///   large tiles pay for a 16-bit state only, from one state a multiprocessor on; in KV a 16-bit state always has them, an f32
///   one where it has eight warps.
/// - Several tokens with a decay per head, four warps a block: an f32 state has one tile; a 16-bit state has small tiles as long
///   as all blocks are on the device at once, then large ones, whose warps have the fewest instructions for a row. Where each
///   token's state is stored, those stores hide the instructions, and small tiles store sooner (but not in fast memory).
/// - In layout KV a block has one team of warps. Several tokens with a decay per head have small tiles, whose sums have the
///   shorter way, for an f32 state and up to two states a multiprocessor for a 16-bit one (in two teams from half a one on where
///   memory is not fast); then large ones, up to 5 % faster. Where each token's state is stored, the length of the runs counts,
///   so that an f32 state has large tiles too, from three quarters of a state a multiprocessor on, and a 16-bit one two teams.
///   Of one token small tiles have the shortest way to a sum, large ones the longest runs of memory, which count from one or
///   two states on. Two teams share the decays per key where a state has the multiprocessors to itself, and read longer runs
///   side by side where a 16-bit state has many. Where memory is fast, a 16-bit state's runs of 128 bytes take 8 % longer than
///   runs of 256, whatever is done with them, so from ten states a multiprocessor on (five with a decay per key) a team has the
///   whole state of a head; below, its longer way to a sum costs more.
pub(super) fn choose(job: &Job, caps: &Caps) -> (u32, u32) {
    let &Job { module, shape, stores_each, .. } = job;
    let kernels = rows(module);
    let [small, large, widest] = [0, 1, 2].map(|i| kernels[i.min(kernels.len() - 1)]);
    let (states, sms) = (job.states(), u64::from(caps.sms.max(1)));
    let is_f32 = module.state == Some(DType::F32);
    let bytes = module.state.map_or(0, DType::size) as u64;
    let (is_kda, is_recurrent) = (module.is_kda(), module.has_several_tokens());
    let is_fast = caps.has_fast_memory();
    let is_kv = module.is_kv();
    // The widest tile in KV is a whole head's state.
    let is_whole = tile_rows(widest, shape.k) == shape.v;
    let (rows, teams) = match states / sms {
        _ if is_recurrent && is_kda => {
            let is_few = states * bytes < sms;
            let warps = if (is_kv || is_f32) && is_few { 4 } else { 8 };
            let pays = if is_kv { !(is_f32 && is_few) } else { states > sms && !is_f32 };
            let rows = if pays { large } else { small };
            (rows, warps / team(module, rows))
        }
        _ if is_kv && is_recurrent && is_f32 => {
            (if stores_each && 4 * states > 3 * sms { large } else { small }, 1)
        }
        _ if is_kv && is_recurrent && states <= 2 * sms => {
            (small, if is_fast || 2 * states <= sms { 1 } else { 2 })
        }
        _ if is_kv && is_recurrent => (large, if stores_each { 2 } else { 1 }),
        0 if is_kv && is_kda && states * bytes * 4 < sms => (small, 2),
        _ if is_kv && is_f32 && is_kda => (if states < sms { small } else { large }, 1),
        _ if is_kv && is_f32 => (if 2 * states < 3 * sms { small } else { large }, 1),
        _ if is_kv && states <= 2 * sms => (small, 1),
        24.. if is_kv && !(is_kda || is_fast) => (large, 2),
        10.. if is_kv && is_fast && is_whole => (widest, 1),
        5.. if is_kv && is_kda && is_fast && is_whole => (widest, 1),
        _ if is_kv => (large, 1),
        _ if is_recurrent && states <= sms => (small, 4),
        _ if is_recurrent && stores_each && !(is_f32 || is_fast) => (small, 8),
        _ if is_recurrent => (large, 4),
        _ if is_kda && 2 * states < sms => (small, 8),
        2.. if is_kda && is_f32 && is_fast => (small, 8),
        8.. if is_kda && is_f32 => (small, 8),
        24.. if is_kda && is_fast => (large, 4),
        _ if is_kda => (large, 8),
        0 if is_f32 && 8 * states < 3 * sms => (small, 4),
        0 if !is_f32 && 2 * states < sms => (small, 4),
        5..32 if is_f32 && is_fast => (small, 2),
        24.. if is_f32 => (small, 16),
        24.. if !is_fast => (large, 8),
        _ => (large, 4),
    };
    let team = team(module, rows);
    // A block has no more rows than a state, and no more threads than its kernel takes.
    let most = max_warps(module, rows).min(shape.v / tile_rows(rows, shape.k) * team);
    (rows, (teams * team).min(most))
}
