//! The two layouts of a state in memory, and how the tile of a team of warps lies in each.
//!
//! A *piece* is eight elements along K of one row, and `K / 8` pieces make a row; which eight depends on the element
//! type alone. A lane holds a piece of each of its rows, always the same one of a row. A lane group has as many lanes as
//! there are pieces, rounded up to a power of two: of K = 96, whose rows have twelve, the last four of sixteen lanes hold
//! zeros, load nothing and store nothing ([`Place::holds_piece`]). So sums over K run in the
//! same order whatever the [`Form`], and both layouts give the same bits. What differs is which rows of V a lane group
//! holds, how its 16-byte vectors run, and over how many warps a group is spread:
//!
//! ```text
//!                         a vector runs   row r of a group     a group's lanes are in
//! VK  (K contiguous)      along K         r * groups + group   one warp
//! KV  (V contiguous)      along V         group * m + r        a team of warps
//! ```
//!
//! with `m` the elements of a vector, which are a lane's rows in KV. There a row of the state in memory is one k, and how
//! many of its bytes a warp reads in a run decides what the memory gives: on an H100, with one read and one write of
//! everything, 1.8 TB/s in runs of 32 bytes, 2.2 in runs of 64, 2.8 in runs of 128, 2.9 in runs of 256. (A warp of its own
//! for 128 bytes of all K would hold 32 vectors a lane; that is as slow as short runs, for too few warps fit.) So a team's
//! warps lie side by side along K, each with some of the pieces of the same rows of V, and what they sum up they add in
//! shared memory. The transposition happens between names of registers and costs nothing.

use crate::arch::memory;
use crate::element::{Element, ROW};
use core::marker::PhantomData;

/// Where a lane stands: its lane group, and its place in the group.
///
/// It is two numbers, as a pair is handed on in registers: three would go through memory, which LLVM does not always see
/// through.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    /// Lane within the group, which is the piece that it holds of each row.
    pub(crate) lane: u32,
    /// Team and group: [`Self::team`] times 32 and [`Self::group`].
    pub(crate) group_of_block: u32,
}

impl Place {
    /// `group` and `team` are below 32.
    #[inline(always)]
    pub(crate) fn new(lane: u32, group: u32, team: u32) -> Place {
        debug_assert!(group < 32 && team < 32);
        // SAFETY: a warp has at most 32 groups, and a block at most 32 warps. Told so, LLVM takes the two apart again for nothing.
        unsafe { core::hint::assert_unchecked(group < 32 && team < 32) };
        Place { lane, group_of_block: team << 5 | group }
    }

    /// Lane group within the warp.
    #[inline(always)]
    pub(crate) fn group(self) -> u32 {
        self.group_of_block & 31
    }

    /// Team within the block; where a group is within a warp, each warp is a team.
    #[inline(always)]
    pub(crate) fn team(self) -> u32 {
        self.group_of_block >> 5
    }

    /// Place of a thread of the block, with lane groups of so many neighbouring lanes.
    #[inline(always)]
    pub(crate) fn of_thread(thread: u32, lanes: u32) -> Place {
        let lane = thread % 32;
        Place::new(lane % lanes, lane / lanes, thread / 32)
    }

    /// Whether the lane holds a piece of rows of K elements. With K a power of two every lane does.
    #[inline(always)]
    pub(crate) fn holds_piece(self, k: u32) -> bool {
        k.is_power_of_two() || self.lane < pieces(k)
    }

    /// Place of a thread where so many groups are interleaved in a warp and spread over so many warps. The steps of a sum
    /// within the warp come first: neighbours in the warp hold pieces that are `warps` apart.
    #[inline(always)]
    pub(crate) fn of_thread_in_team(thread: u32, groups: u32, warps: u32) -> Place {
        let (lane, warp) = (thread % 32, thread / 32);
        Place::new(lane / groups * warps + warp % warps, lane % groups, warp / warps)
    }
}

/// Pieces of a row of K elements.
#[inline(always)]
pub(crate) const fn pieces(k: u32) -> u32 {
    k / ROW as u32
}

/// Lanes that share a row of K elements, with a piece each, or none ([`Place::holds_piece`]).
#[inline(always)]
pub(crate) const fn lanes(k: u32) -> u32 {
    pieces(k).next_power_of_two()
}

/// Rows a warp works on side by side.
#[inline(always)]
pub(crate) const fn groups(k: u32) -> u32 {
    32 / lanes(k)
}

/// A layout of the state.
pub(crate) trait Layout: 'static {
    /// Whether V is contiguous.
    const ALONG_V: bool;

    /// Elements from the start of a head's state to its row `row`.
    fn row_offset<const K: u32>(row: u32) -> u32;

    /// Bytes from the team's first row to this lane's part of the tile.
    fn lane_offset<S: Element, const K: u32>(place: Place, v: u32) -> u64;

    /// The row of the team that is row `r` of a lane group.
    fn row<S: Element, const K: u32, const R: usize>(r: u32, group: u32) -> u32;

    /// Bytes from the lane's part of a tile to its vector `x`.
    fn vector_offset<S: Element, const K: u32, const R: usize>(x: usize, v: u32) -> u64;

    /// Which row of the lane, and which element of its piece, element `e` of the lane's vector `x` is.
    fn element<S: Element, const K: u32, const R: usize>(x: usize, e: usize) -> (usize, usize);

    /// Asks for the state of a team's tile into the L2, from the address of its first row; all of its threads call it.
    ///
    /// # Safety
    /// The tile is readable.
    unsafe fn prefetch<S: Element, const K: u32, const R: usize>(first: u64, thread: u32, v: u32);
}

/// Rows of a lane at most.
pub(crate) const MOST_ROWS: usize = 8;

/// How a tile lies over the lanes of a team of warps. Its height `R` counts rows of V in units of [`groups`].
pub(crate) struct Form<L, S, const K: u32, const R: usize>(PhantomData<(L, S)>);

impl<L: Layout, S: Element, const K: u32, const R: usize> Form<L, S, K, R> {
    /// Rows of a lane: those of a vector where vectors run along V, and the height of the tile otherwise.
    pub(crate) const ROWS: usize = {
        let rows = if L::ALONG_V { S::VECTOR } else { R };
        assert!(rows <= MOST_ROWS && R.is_multiple_of(rows) && R.is_power_of_two());
        rows
    };
    /// Rows of V that a team covers.
    pub(crate) const TEAM_ROWS: u32 = R as u32 * groups(K);
    /// Warps of a team, over which a group is spread.
    pub(crate) const WARPS: u32 = (R / Self::ROWS) as u32;
    /// Lanes of a group that are in the same warp.
    pub(crate) const LANES: u32 = lanes(K) / Self::WARPS;
    /// Lane groups of a warp.
    pub(crate) const GROUPS: u32 = 32 / Self::LANES;
    /// Lanes of the warp from one lane of a group to the next. Along V groups are interleaved: a load of 16 bytes a
    /// lane goes through the L1 eight lanes at a time, at the price of the lines that these eight touch.
    pub(crate) const APART: u32 = if L::ALONG_V { Self::GROUPS } else { 1 };
}

/// K contiguous, `[V, K]`: SGLang, vLLM, FlashInfer.
pub(crate) struct Vk;

/// V contiguous, `[K, V]`: FLA, Hugging Face.
pub(crate) struct Kv;

/// Bytes of a line of the L2.
const LINE_BYTES: u64 = 128;

/// Vectors of a piece.
const fn vectors<S: Element>() -> usize {
    ROW / S::VECTOR
}

impl Layout for Vk {
    const ALONG_V: bool = false;

    #[inline(always)]
    fn row_offset<const K: u32>(row: u32) -> u32 {
        row * K
    }

    #[inline(always)]
    fn lane_offset<S: Element, const K: u32>(place: Place, _v: u32) -> u64 {
        (place.group() * K) as u64 * S::SIZE + 16 * place.lane as u64
    }

    #[inline(always)]
    fn row<S: Element, const K: u32, const R: usize>(r: u32, group: u32) -> u32 {
        r * Form::<Self, S, K, R>::GROUPS + group
    }

    #[inline(always)]
    fn vector_offset<S: Element, const K: u32, const R: usize>(x: usize, _v: u32) -> u64 {
        let (r, i) = (x / vectors::<S>(), x % vectors::<S>());
        let row = r as u64 * (Form::<Vk, S, K, R>::GROUPS * K) as u64;
        (row + (i * S::VECTOR) as u64 * pieces(K) as u64) * S::SIZE
    }

    #[inline(always)]
    fn element<S: Element, const K: u32, const R: usize>(x: usize, e: usize) -> (usize, usize) {
        (x / vectors::<S>(), x % vectors::<S>() * S::VECTOR + e)
    }

    #[inline(always)]
    unsafe fn prefetch<S: Element, const K: u32, const R: usize>(first: u64, thread: u32, _v: u32) {
        // A warp's rows are one run of memory.
        let bytes = (Form::<Self, S, K, R>::TEAM_ROWS * K) as u64 * S::SIZE;
        let mut line = 0;
        while line * LINE_BYTES < bytes {
            let at = (line + (thread % 32) as u64) * LINE_BYTES;
            // SAFETY: the line lies in the tile.
            unsafe { memory::prefetch_if(at < bytes, first + at) };
            line += 32;
        }
    }
}

impl Layout for Kv {
    const ALONG_V: bool = true;

    #[inline(always)]
    fn row_offset<const K: u32>(row: u32) -> u32 {
        row
    }

    #[inline(always)]
    fn lane_offset<S: Element, const K: u32>(place: Place, v: u32) -> u64 {
        // A lane's first element along K is that of its first vector in VK.
        (place.lane * S::VECTOR as u32 * v) as u64 * S::SIZE + 16 * place.group() as u64
    }

    #[inline(always)]
    fn row<S: Element, const K: u32, const R: usize>(r: u32, group: u32) -> u32 {
        group * S::VECTOR as u32 + r
    }

    #[inline(always)]
    fn vector_offset<S: Element, const K: u32, const R: usize>(x: usize, v: u32) -> u64 {
        // A piece's vectors in VK are as many vectors apart as a row has pieces.
        let along_k = x / S::VECTOR * pieces(K) as usize * S::VECTOR + x % S::VECTOR;
        along_k as u64 * v as u64 * S::SIZE
    }

    #[inline(always)]
    fn element<S: Element, const K: u32, const R: usize>(x: usize, e: usize) -> (usize, usize) {
        (e, x)
    }

    #[inline(always)]
    unsafe fn prefetch<S: Element, const K: u32, const R: usize>(first: u64, thread: u32, v: u32) {
        let bytes = Form::<Self, S, K, R>::TEAM_ROWS as u64 * S::SIZE;
        let threads = 32 * Form::<Self, S, K, R>::WARPS;
        // The team's rows are a run for each k, of two lines, one or a part of one.
        let lines = bytes.div_ceil(LINE_BYTES) as u32;
        let mut i = 0;
        while i < K * lines {
            let of_tile = i + thread % threads;
            let (k, line) = (of_tile / lines, of_tile % lines);
            let at = (k * v) as u64 * S::SIZE + line as u64 * LINE_BYTES;
            // SAFETY: the line lies in the tile.
            unsafe { memory::prefetch_if(k < K, first + at) };
            i += threads;
        }
    }
}
