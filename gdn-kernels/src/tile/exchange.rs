//! The last steps of a sum whose lane group is spread over a team of warps, in shared memory.
//!
//! Each warp puts there what its lanes have added up, two sums for each row of the team. After a barrier as many threads as the
//! team has rows take one each: they add up the warps' sums, work out the row's output and correction, and leave the latter for
//! the lanes that hold the row, behind another barrier. (That every warp reads all sums instead spares the second barrier, but is
//! up to sixteen loads of 16 bytes a lane at once, which took up to 4 % longer.)
//!
//! Of lanes that have added up the same rows one stores: a block's shared memory decides whether it can start beside the kernel
//! in front of it.

use super::{Along, Tile};
use crate::abi::MOST_BLOCK_ROWS;
use crate::arch::{Piece, shared, thread};
use crate::element::Element;
use crate::layout::{Layout, MOST_ROWS, Place};
use core::marker::PhantomData;

/// Bytes of a correction for each row of a block.
pub(crate) const CORRECTIONS_BYTES: usize = 4 * MOST_BLOCK_ROWS as usize;

/// Where the teams of a block work together, in shared memory.
#[derive(Clone, Copy)]
pub(crate) struct Exchange {
    /// Behind the [`Front`] of [`Shared`].
    pub(crate) sums: u32,
    /// [`CORRECTIONS_BYTES`], which nobody else uses from the first of the two barriers on.
    pub(crate) corrections: u32,
}

/// What an operation keeps in a block's shared memory, in front of the sums of its warps.
pub(crate) trait Front<const K: u32> {
    /// Bytes that it takes.
    const BYTES: usize;
}

/// Shared memory of a block of at most `THREADS` threads: `F`, and behind it the sums of the block's warps.
pub(crate) struct Shared<L, S, F, const K: u32, const R: usize, const THREADS: u32>(PhantomData<(L, S, F)>);

impl<L: Layout, S: Element, F: Front<K>, const K: u32, const R: usize, const THREADS: u32> Piece
    for Shared<L, S, F, K, R, THREADS>
{
    const BYTES: usize = F::BYTES + Tile::<S, L, K, R>::sums_bytes(THREADS) as usize;
}

impl<S: Element, L: Layout, const K: u32, const R: usize> Tile<S, L, K, R> {
    /// Bytes of a value for each of the team's rows.
    const ROWS_BYTES: u32 = 4 * Self::TEAM_ROWS;

    /// Bytes of a warp: two sums of each row.
    const WARP_BYTES: u32 = 2 * Self::ROWS_BYTES;

    /// Bytes of the sums of a block of so many threads.
    const fn sums_bytes(threads: u32) -> u32 {
        if Self::WARPS > 1 { threads / 32 * Self::WARP_BYTES } else { 0 }
    }

    /// Adds up two sums of each row over the warps of the team. Gives the output of the row that the thread carries, and the
    /// corrections of its lane's rows, both as `of_row` makes them of a row's sums.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(super) fn exchange(
        [x, y]: [[f32; MOST_ROWS]; 2],
        place: Place,
        exchange: Exchange,
        of_row: impl FnOnce([f32; 2]) -> (f32, f32),
    ) -> (f32, Along) {
        let (part, warp) = (place.lane / Self::WARPS, place.lane % Self::WARPS);
        let team = exchange.sums + place.team() * Self::WARPS * Self::WARP_BYTES;
        let corrections = exchange.corrections + place.team() * Self::ROWS_BYTES;
        // Rows that are left to a lane are neighbours.
        let first_row = L::row::<S, K, R>(part / Self::SHARERS * Self::LEFT as u32, place.group());
        let own = team + warp * Self::WARP_BYTES + 4 * first_row;
        let (mut out, mut along) = (0.0, [0.0; MOST_ROWS]);
        // SAFETY: a team has so many bytes there; whole blocks come here, and nobody reads sums behind the second barrier, or
        // corrections behind the next first one.
        unsafe {
            if part.is_multiple_of(Self::SHARERS) {
                for (at, sums) in [(own, x), (own + Self::ROWS_BYTES, y)] {
                    match Self::LEFT {
                        1 => shared::store_f32(at, sums[0]),
                        2 => shared::store_f32x2(at, [sums[0], sums[1]]),
                        _ => shared::store_f32x4(at, [sums[0], sums[1], sums[2], sums[3]]),
                    }
                }
            }
            thread::sync_threads();
            if Self::stores_output(place) {
                let of_row_at = 4 * Self::carried(place);
                let sums = [team, team + Self::ROWS_BYTES].map(|sums| Self::over_warps(sums + of_row_at));
                let (of_carried, correction) = of_row(sums);
                out = of_carried;
                shared::store_f32(corrections + of_row_at, correction);
            }
            thread::sync_threads();
            let mut r = 0;
            while r < Self::ROWS {
                let at = corrections + 4 * L::row::<S, K, R>(r as u32, place.group());
                let [a, b, c, d] = shared::load_f32x4(at);
                [along[r], along[r + 1], along[r + 2], along[r + 3]] = [a, b, c, d];
                r += 4;
            }
        }
        (out, along)
    }

    /// A row's sum over the warps, of which the first one's is at `first`: a butterfly, in an order in which few of its sums wait
    /// for others.
    ///
    /// # Safety
    /// The warps of the team have stored theirs, and a barrier passed since.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    unsafe fn over_warps(first: u32) -> f32 {
        let levels = Self::WARPS.ilog2();
        // `sums[i]` is one of 2^i warps.
        let mut sums = [0.0; 4];
        let mut i = 0u32;
        while i < Self::WARPS {
            let warp = i.reverse_bits() >> (32 - levels);
            // SAFETY: the caller's promise.
            let mut sum = unsafe { shared::load_f32(first + warp * Self::WARP_BYTES) };
            let mut level = 0;
            while i >> level & 1 == 1 {
                sum += sums[level];
                level += 1;
            }
            sums[level] = sum;
            i += 1;
        }
        sums[levels as usize]
    }
}
