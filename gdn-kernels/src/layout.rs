//! The two layouts of a state in memory, and how a warp's tile lies in each.
//!
//! A *piece* is eight elements along K of one row, and `K / 8` pieces make a row; which eight depends on the element
//! type alone. A lane holds `N` pieces: one of each of its rows, or two of each of half as many, namely those that
//! the first step of a sum over K would bring together. So sums over K run in the same order whatever the
//! [`Form`], and all layouts and forms give the same bits. What differs is which rows of V a lane group holds, and
//! how its 16-byte vectors run:
//!
//! ```text
//! VK  (K contiguous)   a vector runs along K    row(r, group) = r * groups + group
//! KV  (V contiguous)   a vector runs along V    row(r, group) = (r / m * groups + group) * m + r % m
//! ```
//!
//! with `m` the elements of a vector. In KV one load of a warp covers `groups * 16` consecutive bytes for each k
//! that its lanes are at: with K = 128 and one piece of a row a lane 32 bytes, a whole sector, with two pieces 64. A
//! load of 16 bytes a lane goes through the L1 eight lanes at a time, at the price of the lines that these eight touch,
//! so in KV neighbouring lanes are those of different groups, which read neighbouring vectors. The transposition happens
//! between names of registers and costs nothing.

use crate::arch::memory;
use crate::element::{Element, ROW, Vectors};
use crate::tile::Place;
use core::marker::PhantomData;

/// A layout of the state.
pub(crate) trait Layout: 'static {
    /// Whether V is contiguous.
    const ALONG_V: bool;

    /// Elements from the start of a head's state to its row `row`.
    fn row_offset<const K: u32>(row: u32) -> u32;

    /// Bytes from the warp's first row to this lane's part of the tile.
    fn lane_offset<S: Element, const K: u32>(place: Place, v: u32) -> u64;

    /// The row of the warp that is row `r` of this lane's group.
    fn row<S: Element, const K: u32, const N: usize>(r: u32, place: Place) -> u32;

    /// Issues the loads of a tile, from the address of the lane's part of it.
    ///
    /// # Safety
    /// The tile is readable and 16-byte aligned.
    unsafe fn load<S: Element, const K: u32, const N: usize>(at: u64, v: u32) -> [Vectors; N];

    /// Asks for the state of a warp's tile into the L2, from the address of its first row.
    ///
    /// # Safety
    /// As for [`Self::load`].
    unsafe fn prefetch<S: Element, const K: u32, const N: usize>(first: u64, lane: u32, v: u32);

    /// The pieces of a loaded tile, those of a row side by side.
    fn unpack<S: Element, const K: u32, const N: usize>(raw: [Vectors; N]) -> [[f32; ROW]; N];

    /// Stores a tile, each element rounded once.
    ///
    /// # Safety
    /// As for [`Self::load`], and writable.
    unsafe fn store<S: Element, const K: u32, const N: usize>(at: u64, v: u32, pieces: &[[f32; ROW]; N]);
}

/// Pieces of a row that a lane holds at most.
pub(crate) const MOST_PIECES: usize = 2;

/// How a tile of `N` pieces a lane lies over the lanes of a warp.
pub(crate) struct Form<L, S, const K: u32, const N: usize>(PhantomData<(L, S)>);

impl<L: Layout, S: Element, const K: u32, const N: usize> Form<L, S, K, N> {
    /// Pieces of a row that a lane holds: two where that makes longer runs along V, and where there are rows enough
    /// for whole vectors all the same.
    pub(crate) const PIECES: usize = if L::ALONG_V && K == 128 && N >= 2 * S::VECTOR { 2 } else { 1 };
    /// Rows of a lane group.
    pub(crate) const ROWS: usize = N / Self::PIECES;
    /// Lanes of a group.
    pub(crate) const LANES: u32 = K / (ROW * Self::PIECES) as u32;
    /// Lane groups of a warp.
    pub(crate) const GROUPS: u32 = 32 / Self::LANES;
    /// Rows of V that a warp covers.
    pub(crate) const WARP_ROWS: u32 = Self::GROUPS * Self::ROWS as u32;
    /// Lanes of the warp from one lane of a group to the next: along V, groups are interleaved, so that neighbouring
    /// lanes read neighbouring vectors.
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

impl Vk {
    /// Bytes from a lane's first vector to vector `i` of row `r`.
    #[inline(always)]
    const fn vector_offset<S: Element, const K: u32, const N: usize>(r: usize, i: usize) -> u64 {
        let row = r as u64 * (Form::<Vk, S, K, N>::GROUPS * K) as u64;
        (row + (i * S::VECTOR) as u64 * Form::<Vk, S, K, N>::LANES as u64) * S::SIZE
    }
}

impl Layout for Vk {
    const ALONG_V: bool = false;

    #[inline(always)]
    fn row_offset<const K: u32>(row: u32) -> u32 {
        row * K
    }

    #[inline(always)]
    fn lane_offset<S: Element, const K: u32>(place: Place, _v: u32) -> u64 {
        (place.group * K) as u64 * S::SIZE + 16 * place.lane as u64
    }

    #[inline(always)]
    fn row<S: Element, const K: u32, const N: usize>(r: u32, place: Place) -> u32 {
        r * Form::<Self, S, K, N>::GROUPS + place.group
    }

    #[inline(always)]
    unsafe fn load<S: Element, const K: u32, const N: usize>(at: u64, _v: u32) -> [Vectors; N] {
        let mut raw = [[[0; 4]; 2]; N];
        let mut r = 0;
        while r < N {
            let mut i = 0;
            while i < vectors::<S>() {
                let at = at + Self::vector_offset::<S, K, N>(r, i);
                // SAFETY: the vector lies in the tile.
                raw[r][i] = unsafe { memory::load_u32x4_streaming(at) };
                i += 1;
            }
            r += 1;
        }
        raw
    }

    #[inline(always)]
    unsafe fn prefetch<S: Element, const K: u32, const N: usize>(first: u64, lane: u32, _v: u32) {
        // A warp's rows are one run of memory.
        let bytes = (Form::<Self, S, K, N>::WARP_ROWS * K) as u64 * S::SIZE;
        let mut line = 0;
        while line * LINE_BYTES < bytes {
            let at = (line + lane as u64) * LINE_BYTES;
            // SAFETY: the line lies in the tile.
            unsafe { memory::prefetch_if(at < bytes, first + at) };
            line += 32;
        }
    }

    #[inline(always)]
    fn unpack<S: Element, const K: u32, const N: usize>(raw: [Vectors; N]) -> [[f32; ROW]; N] {
        raw.map(S::widen_row)
    }

    #[inline(always)]
    unsafe fn store<S: Element, const K: u32, const N: usize>(at: u64, _v: u32, pieces: &[[f32; ROW]; N]) {
        let mut r = 0;
        while r < N {
            let mut i = 0;
            while i < vectors::<S>() {
                let values = core::array::from_fn(|e| pieces[r][(i * S::VECTOR + e) % ROW]);
                let at = at + Self::vector_offset::<S, K, N>(r, i);
                // SAFETY: the vector lies in the tile.
                unsafe { memory::store_u32x4_streaming(at, S::pack_vector(&values)) };
                i += 1;
            }
            r += 1;
        }
    }
}

/// Where a lane's vector is in a tile whose vectors run along V.
struct Along {
    /// Row of the group that its first element belongs to.
    r: usize,
    /// Piece of the row.
    p: usize,
    /// Element of the piece.
    i: usize,
}

impl Kv {
    /// Vectors of a tile.
    const fn count<S: Element, const N: usize>() -> usize {
        N * vectors::<S>()
    }

    /// Vector `x` of a tile: element by element, piece by piece, then the next rows.
    #[inline(always)]
    const fn vector<S: Element, const K: u32, const N: usize>(x: usize) -> Along {
        let pieces = Form::<Kv, S, K, N>::PIECES;
        Along { r: x / (pieces * ROW) * S::VECTOR, p: x / ROW % pieces, i: x % ROW }
    }

    /// Bytes from a lane's first vector to a vector.
    #[inline(always)]
    fn offset<S: Element, const K: u32, const N: usize>(x: &Along, v: u32) -> u64 {
        let lanes = Form::<Kv, S, K, N>::LANES as usize;
        // A piece's vectors in VK are K / ROW vectors apart; further pieces follow where the lanes end.
        let vector = x.i / S::VECTOR * (K as usize / ROW) + x.p * lanes;
        let along_k = (vector * S::VECTOR + x.i % S::VECTOR) as u64;
        let along_v = x.r as u64 * Form::<Kv, S, K, N>::GROUPS as u64;
        (along_k * v as u64 + along_v) * S::SIZE
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
        // A lane's first element along K is its first vector's in VK.
        (place.lane * S::VECTOR as u32 * v) as u64 * S::SIZE + 16 * place.group as u64
    }

    #[inline(always)]
    fn row<S: Element, const K: u32, const N: usize>(r: u32, place: Place) -> u32 {
        let m = S::VECTOR as u32;
        (r / m * Form::<Self, S, K, N>::GROUPS + place.group) * m + r % m
    }

    #[inline(always)]
    unsafe fn load<S: Element, const K: u32, const N: usize>(at: u64, v: u32) -> [Vectors; N] {
        let mut raw = [[[0; 4]; 2]; N];
        let mut x = 0;
        while x < Self::count::<S, N>() {
            let at = at + Self::offset::<S, K, N>(&Self::vector::<S, K, N>(x), v);
            // SAFETY: the vector lies in the tile.
            raw[x / vectors::<S>()][x % vectors::<S>()] = unsafe { memory::load_u32x4_streaming(at) };
            x += 1;
        }
        raw
    }

    #[inline(always)]
    unsafe fn prefetch<S: Element, const K: u32, const N: usize>(first: u64, lane: u32, v: u32) {
        // A warp's rows are a run of at most a line for each k.
        let mut k = 0;
        while k < K {
            let at = (k + lane) as u64 * v as u64 * S::SIZE;
            // SAFETY: the run lies in the tile.
            unsafe { memory::prefetch_if(true, first + at) };
            k += 32;
        }
    }

    #[inline(always)]
    fn unpack<S: Element, const K: u32, const N: usize>(raw: [Vectors; N]) -> [[f32; ROW]; N] {
        let mut pieces = [[0.0; ROW]; N];
        let mut x = 0;
        while x < Self::count::<S, N>() {
            let Along { r, p, i } = Self::vector::<S, K, N>(x);
            let values = S::widen_vector(raw[x / vectors::<S>()][x % vectors::<S>()]);
            let mut e = 0;
            while e < S::VECTOR {
                pieces[(r + e) * Form::<Self, S, K, N>::PIECES + p][i] = values[e];
                e += 1;
            }
            x += 1;
        }
        pieces
    }

    #[inline(always)]
    unsafe fn store<S: Element, const K: u32, const N: usize>(at: u64, v: u32, pieces: &[[f32; ROW]; N]) {
        let mut x = 0;
        while x < Self::count::<S, N>() {
            let along = Self::vector::<S, K, N>(x);
            let Along { r, p, i } = along;
            let values = core::array::from_fn(|e| match e < S::VECTOR {
                true => pieces[(r + e) * Form::<Self, S, K, N>::PIECES + p][i],
                false => 0.0,
            });
            let at = at + Self::offset::<S, K, N>(&along, v);
            // SAFETY: the vector lies in the tile.
            unsafe { memory::store_u32x4_streaming(at, S::pack_vector(&values)) };
            x += 1;
        }
    }
}
