//! The measured choice of a tile (H100 and H200, `docs/BENCHMARKS.md`), by the number of states there are for each
//! multiprocessor: one function for one or several tokens in either layout.

use super::{Caps, Job, ModuleKey, max_warps, rows, team, tile_rows};
use gdn_kernels::abi::DType;

/// Height of the tile and warps of a block.
pub(super) fn choose(job: &Job, caps: &Caps) -> (u32, u32) {
    let &Job { module, shape, stores_each, .. } = job;
    let kernels = rows(module);
    let [small, large, widest] = [0, 1, 2].map(|i| kernels[i.min(kernels.len() - 1)]);
    let grid = Grid {
        module,
        small,
        large,
        whole: (tile_rows(widest, shape.k) == shape.v).then_some(widest),
        states: job.states(),
        sms: u64::from(caps.sms.max(1)),
        is_f32: module.state == Some(DType::F32),
        is_kda: module.is_kda(),
        is_fast: caps.has_fast_memory(),
        stores_each,
    };
    let (rows, teams) = match (module.is_kv(), module.has_several_tokens()) {
        (false, false) => grid.one_token_in_vk(),
        (false, true) => grid.several_tokens_in_vk(),
        (true, false) => grid.one_token_in_kv(),
        (true, true) => grid.several_tokens_in_kv(),
    };
    let team = team(module, rows);
    // A block has no more rows than a state, and no more threads than its kernel takes.
    let most = max_warps(module, rows).min(shape.v / tile_rows(rows, shape.k) * team);
    (rows, (teams * team).min(most))
}

/// What the choice depends on. Each function gives the height of the tile, and how many teams a block has: warps in layout VK.
struct Grid {
    module: ModuleKey,
    small: u32,
    large: u32,
    /// The tallest tile, if that is the whole state of a head.
    whole: Option<u32>,
    states: u64,
    sms: u64,
    is_f32: bool,
    is_kda: bool,
    /// [`Caps::has_fast_memory`]: it leaves less time for each instruction.
    is_fast: bool,
    stores_each: bool,
}

impl Grid {
    /// Large tiles, half a state a block: their warps have the fewest instructions for a row, with gate and norms worked out
    /// once for 64 of them, and a batch is in flight at once as long as may be. But:
    ///
    /// - The smallest grids (up to three eighths of a state a multiprocessor in f32, half a one in 16 bits) have small tiles,
    ///   with the fewest rows to go through and no barrier: there each latency counts.
    /// - From 24 states a multiprocessor on blocks have twice the warps, which start and end less often, and those of an f32
    ///   state small tiles: it has twice the memory traffic to hide their instructions behind, and they spread it best.
    /// - Where memory is fast, an f32 state wants small tiles earlier, in many small blocks, above two states a multiprocessor (but
    ///   not where four just hold them), until, from 32 on, states are asked for ahead; and a 16-bit one no larger blocks than
    ///   four warps.
    /// - With a decay per key it is [`Self::one_token_in_vk_of_kda`].
    fn one_token_in_vk(&self) -> (u32, u32) {
        let &Grid { small, large, states, sms, is_f32, is_fast, .. } = self;
        match states / sms {
            _ if self.is_kda => self.one_token_in_vk_of_kda(),
            0 if is_f32 && 8 * states < 3 * sms => (small, 4),
            0 if !is_f32 && 2 * states < sms => (small, 4),
            ..32 if is_f32 && is_fast && matches!(self.quarters(), 9..=12 | 17..) => (small, 2),
            24.. if is_f32 => (small, 16),
            24.. if !is_fast => (large, 8),
            _ => (large, 4),
        }
    }

    /// Blocks have eight warps from the first, as preparing a token is more work to share: small tiles below half a state a
    /// multiprocessor, then large ones. An f32 state goes back to small tiles from eight on.
    ///
    /// Where memory is fast, small tiles go up to three quarters of a state a multiprocessor, and an f32 state goes back to them
    /// above two. Blocks of a whole state leave most of the last wave empty just above one (f32) or between two and three (16 bits),
    /// and a 16-bit state does not need them above four: there they are half a state, of four warps.
    fn one_token_in_vk_of_kda(&self) -> (u32, u32) {
        let &Grid { small, large, states, sms, is_f32, .. } = self;
        match (self.is_fast, self.quarters()) {
            (true, ..=3) => (small, 8),
            (true, 9..) if is_f32 => (small, 8),
            (true, 5 | 6) if is_f32 => (large, 4),
            (true, 9..=12 | 17..) => (large, 4),
            (false, _) if 2 * states < sms || is_f32 && states >= 8 * sms => (small, 8),
            _ => (large, 8),
        }
    }

    /// Four warps a block. An f32 state has one tile; a 16-bit state has small tiles as long as all blocks are on the device at
    /// once, then large ones, whose warps have the fewest instructions for a row (just above one state a multiprocessor in two
    /// warps). Where each token's state is stored, those stores hide the instructions, and small tiles store sooner (but not in
    /// fast memory).
    ///
    /// With a decay per key eight warps, which share the work of preparing tokens; but four where eight leave the last wave too
    /// empty: an f32 state, whose blocks are then half a state, up to a quarter of a state a multiprocessor, just above a half, one
    /// and two, and above three; a 16-bit one, whose blocks are a whole state, between one and one and a half.
    fn several_tokens_in_vk(&self) -> (u32, u32) {
        let (&Grid { small, large, states, sms, is_f32, .. }, quarters) = (self, self.quarters());
        // Of an f32 state the two are the same tile.
        let by_states = if states > sms { large } else { small };
        match self.is_kda {
            true if is_f32 && (self.is_few() || matches!(quarters, 3 | 5 | 9 | 10 | 13..)) => (small, 4),
            true if !is_f32 && matches!(quarters, 5 | 6) => (large, 4),
            true => (by_states, 8),
            false if states > sms && self.stores_each && !(is_f32 || self.is_fast) => (small, 8),
            false if !is_f32 && quarters == 5 => (large, 2),
            false => (by_states, 4),
        }
    }

    /// One team of warps a block. Small tiles have the shortest way to a sum, large ones the longest runs of memory, which count
    /// from one to three states a multiprocessor on. Two teams share the decays per key where a state has the multiprocessors
    /// to itself, and read longer runs side by side where a 16-bit state has many.
    ///
    /// Where memory is fast, a 16-bit state's runs of 128 bytes take 8 % longer than runs of 256, whatever is done with them,
    /// so from ten states a multiprocessor on (five with a decay per key) a team has the whole state of a head; below, its
    /// longer way to a sum costs more.
    fn one_token_in_kv(&self) -> (u32, u32) {
        let &Grid { small, large, states, sms, is_f32, is_kda, is_fast, .. } = self;
        if is_kda && 4 * self.bytes() < sms {
            return (small, 2);
        }
        let most_quarters = match (is_f32, is_kda) {
            (true, true) => 5,
            (true, false) => 6,
            (false, true) => 8,
            (false, false) => 11,
        };
        match (self.whole, states / sms) {
            _ if self.quarters() <= most_quarters => (small, 1),
            _ if is_f32 => (large, 1),
            (Some(whole), 10..) if is_fast => (whole, 1),
            (Some(whole), 5..) if is_fast && is_kda => (whole, 1),
            (_, 24..) if !(is_fast || is_kda) => (large, 2),
            _ => (large, 1),
        }
    }

    /// Small tiles, whose sums have the shorter way, for an f32 state and up to two states a multiprocessor for a 16-bit one (in
    /// two teams from half a one on where memory is not fast); then large ones, up to 5 % faster, as they are (7 %, where memory
    /// is fast) up to an eighth of a state. Where each token's state is stored, the length of the runs counts, so that an f32 state
    /// has large tiles too, from three quarters of a state a multiprocessor on (but not just above one), and a 16-bit one two
    /// teams (where memory is fast above eight states).
    ///
    /// With a decay per key large tiles, in eight warps; in four (an f32 state's tiles are then small) up to a quarter of a state a
    /// multiprocessor in f32, half a one in 16 bits, and where eight leave the last wave too empty: just above a half in f32,
    /// between one and one and a half in 16 bits.
    fn several_tokens_in_kv(&self) -> (u32, u32) {
        let (&Grid { small, large, states, sms, is_f32, is_fast, stores_each, .. }, quarters) =
            (self, self.quarters());
        if self.is_kda {
            let is_uneven = if is_f32 { quarters == 3 } else { matches!(quarters, 5 | 6) };
            let has_four = self.is_few() || is_uneven;
            let rows = if is_f32 && has_four { small } else { large };
            return (rows, if has_four { 4 } else { 8 } / team(self.module, rows));
        }
        match is_f32 {
            true if stores_each && matches!(quarters, 4 | 6..) => (large, 1),
            true => (small, 1),
            false if is_fast && 8 * states <= sms => (large, 1),
            false if states > 2 * sms => {
                (large, if stores_each && (quarters > 32 || !is_fast) { 2 } else { 1 })
            }
            false if is_fast || 2 * states <= sms => (small, 1),
            false => (small, 2),
        }
    }

    /// States for each multiprocessor in quarters, rounded up. A wave of large blocks, which have several warps, is one state a
    /// multiprocessor or half a one, so what decides between them and smaller ones is often how full the last wave is: just
    /// above one (5) or two (9) most multiprocessors wait for the few that have one block more.
    fn quarters(&self) -> u64 {
        (4 * self.states).div_ceil(self.sms)
    }

    /// States times the bytes of an element.
    fn bytes(&self) -> u64 {
        self.states * self.module.state.map_or(0, DType::size) as u64
    }

    /// Up to a quarter of a state a multiprocessor in f32, half a one in 16 bits.
    fn is_few(&self) -> bool {
        self.bytes() < self.sms
    }
}
