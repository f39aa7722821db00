//! The last steps of a sum whose lane group is spread over a team of warps, in shared memory.
//!
//! Each warp puts there what its lanes have added up, two sums for each row that they carry, and after a barrier every warp
//! reads those of all warps of its team. Of lanes that carry the same rows one stores: a block's shared memory decides whether
//! it can start beside the kernel in front of it.

use super::{Carried, Tile};
use crate::arch::{Piece, shared, thread};
use crate::element::Element;
use crate::layout::{Form, Layout};
use core::marker::PhantomData;

/// Shared memory of a block of at most `THREADS` threads: `FRONT` bytes, and behind them the sums of teams, of `TURNS` tokens in
/// turn.
pub(crate) struct Shared<L, S, const K: u32, const R: usize, const THREADS: u32, const FRONT: usize, const TURNS: u32>(
    PhantomData<(L, S)>,
);

impl<L: Layout, S: Element, const K: u32, const R: usize, const THREADS: u32, const FRONT: usize, const TURNS: u32> Piece
    for Shared<L, S, K, R, THREADS, FRONT, TURNS>
{
    const BYTES: usize = FRONT + (TURNS * Tile::<S, L, K, R>::exchange_bytes(THREADS)) as usize;
}

impl<S: Element, L: Layout, const K: u32, const R: usize> Tile<S, L, K, R> {
    /// Bytes of a lane's sums of a token, two for each row that it carries.
    const SUMS_BYTES: u32 = 8 * Self::CARRIED as u32;

    /// Bytes of a warp's, of one of the lanes that carry the same rows.
    const WARP_SUMS_BYTES: u32 = 32 / Self::CARRIERS * Self::SUMS_BYTES;

    /// Bytes of shared memory in which the teams of a block of so many threads add up the sums of a token.
    pub(crate) const fn exchange_bytes(threads: u32) -> u32 {
        if Self::WARPS > 1 { threads / 32 * Self::WARP_SUMS_BYTES } else { 0 }
    }

    /// Adds up two sums of each carried row over the warps of the team, through the shared memory at `exchange`.
    #[inline(always)]
    pub(super) fn add_up([x, y]: [Carried; 2], exchange: u32) -> [Carried; 2] {
        let thread = thread::thread_idx_x();
        let (lane, groups) = (thread % 32, Form::<L, S, K, R>::GROUPS);
        // Of the lanes that carry the same rows the first one stores them.
        let (stores, of_rows) = match Self::CARRIERS {
            1 => (true, lane),
            carriers => ((lane / groups).is_multiple_of(carriers), lane / (groups * carriers) * groups + lane % groups),
        };
        let of_lane = exchange + Self::SUMS_BYTES * of_rows;
        let own = of_lane + Self::WARP_SUMS_BYTES * (thread / 32);
        let first = of_lane + Self::WARP_SUMS_BYTES * (thread / 32 / Self::WARPS * Self::WARPS);
        // SAFETY: a warp's rows have so many bytes of their own there, nobody reads what a token before left there any more (see
        // `step`), and whole blocks come here.
        unsafe {
            if stores && Self::CARRIED == 1 {
                shared::store_f32x2(own, [x[0], y[0]]);
            } else if stores {
                shared::store_f32x4(own, [x[0], x[1], y[0], y[1]]);
            }
            thread::sync_threads();
        }
        // A butterfly over the warps, in an order in which few of its sums wait for others: `sums[i]` is one of 2^i warps.
        let levels = Self::WARPS.ilog2();
        let mut sums = [[0.0; 4]; 4];
        let mut i = 0u32;
        while i < Self::WARPS {
            let at = first + Self::WARP_SUMS_BYTES * (i.reverse_bits() >> (32 - levels));
            // SAFETY: as above, behind the barrier.
            let mut sum = unsafe {
                if Self::CARRIED == 1 {
                    let [x, y] = shared::load_f32x2(at);
                    [x, 0.0, y, 0.0]
                } else {
                    shared::load_f32x4(at)
                }
            };
            let mut level = 0;
            while i >> level & 1 == 1 {
                let [a, b, c, d] = sums[level];
                sum = [a + sum[0], b + sum[1], c + sum[2], d + sum[3]];
                level += 1;
            }
            sums[level] = sum;
            i += 1;
        }
        let [a, b, c, d] = sums[levels as usize];
        [[a, b], [c, d]]
    }
}
