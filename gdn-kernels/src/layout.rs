//! The two layouts of a state in memory, and how a warp's tile lies in each.
//!
//! A lane holds the same in both: eight elements along K of each of its rows (see [`crate::tile`]), and which
//! eight depends on the element type alone. So sums over K run in the same order, and the layouts give the same
//! bits. What differs is which rows of V a lane group holds, and how its 16-byte vectors run:
//!
//! ```text
//! VK  (K contiguous)   a vector runs along K    row(r, group) = r * groups + group
//! KV  (V contiguous)   a vector runs along V    row(r, group) = (r / m * groups + group) * m + r % m
//! ```
//!
//! with `m` the elements of a vector. In KV one load of a warp thus covers `groups * 16` consecutive bytes for
//! each of `K / 8` values of k: with K = 128, 32 bytes, a whole sector. The transposition happens between names
//! of registers and costs nothing.

use crate::arch::memory;
use crate::element::{Element, ROW, Vectors};
use crate::tile::{Place, groups, lanes};

/// A layout of the state.
pub(crate) trait Layout: 'static {
    /// Elements from the start of a head's state to its row `row`.
    fn row_offset<const K: u32>(row: u32) -> u32;

    /// Bytes from the warp's first row to this lane's part of the tile.
    fn lane_offset<S: Element, const K: u32>(place: Place, v: u32) -> u64;

    /// The row of the warp that is row `r` of this lane's group.
    fn row<S: Element, const K: u32>(r: u32, place: Place) -> u32;

    /// Issues the loads of a tile, from the address of the lane's part of it.
    ///
    /// # Safety
    /// The tile is readable and 16-byte aligned.
    unsafe fn load<S: Element, const K: u32, const ROWS: usize>(at: u64, v: u32) -> [Vectors; ROWS];

    /// The rows of a loaded tile.
    fn unpack<S: Element, const ROWS: usize>(raw: [Vectors; ROWS]) -> [[f32; ROW]; ROWS];

    /// Stores a tile, each element rounded once.
    ///
    /// # Safety
    /// As for [`Self::load`], and writable.
    unsafe fn store<S: Element, const K: u32, const ROWS: usize>(at: u64, v: u32, rows: &[[f32; ROW]; ROWS]);
}

/// K contiguous, `[V, K]`: SGLang, vLLM, FlashInfer.
pub(crate) struct Vk;

/// V contiguous, `[K, V]`: FLA, Hugging Face.
pub(crate) struct Kv;

/// Vectors of a lane's part of a row.
const fn vectors<S: Element>() -> usize {
    ROW / S::VECTOR
}

impl Vk {
    /// Bytes from a lane's first vector to vector `i` of row `r`.
    #[inline(always)]
    const fn vector_offset<S: Element, const K: u32>(r: usize, i: usize) -> u64 {
        let row = r as u64 * (groups(K) * K) as u64;
        (row + (i * S::VECTOR) as u64 * lanes(K) as u64) * S::SIZE
    }
}

impl Layout for Vk {
    #[inline(always)]
    fn row_offset<const K: u32>(row: u32) -> u32 {
        row * K
    }

    #[inline(always)]
    fn lane_offset<S: Element, const K: u32>(place: Place, _v: u32) -> u64 {
        (place.group * K) as u64 * S::SIZE + 16 * place.lane as u64
    }

    #[inline(always)]
    fn row<S: Element, const K: u32>(r: u32, place: Place) -> u32 {
        r * groups(K) + place.group
    }

    #[inline(always)]
    unsafe fn load<S: Element, const K: u32, const ROWS: usize>(at: u64, _v: u32) -> [Vectors; ROWS] {
        let mut raw = [[[0; 4]; 2]; ROWS];
        let mut r = 0;
        while r < ROWS {
            let mut i = 0;
            while i < vectors::<S>() {
                // SAFETY: the vector lies in the tile.
                raw[r][i] = unsafe { memory::load_u32x4_streaming(at + Self::vector_offset::<S, K>(r, i)) };
                i += 1;
            }
            r += 1;
        }
        raw
    }

    #[inline(always)]
    fn unpack<S: Element, const ROWS: usize>(raw: [Vectors; ROWS]) -> [[f32; ROW]; ROWS] {
        raw.map(S::widen_row)
    }

    #[inline(always)]
    unsafe fn store<S: Element, const K: u32, const ROWS: usize>(
        at: u64,
        _v: u32,
        rows: &[[f32; ROW]; ROWS],
    ) {
        let mut r = 0;
        while r < ROWS {
            let mut i = 0;
            while i < vectors::<S>() {
                let values = core::array::from_fn(|e| rows[r][(i * S::VECTOR + e) % ROW]);
                let at = at + Self::vector_offset::<S, K>(r, i);
                // SAFETY: the vector lies in the tile.
                unsafe { memory::store_u32x4_streaming(at, S::pack_vector(&values)) };
                i += 1;
            }
            r += 1;
        }
    }
}

impl Kv {
    /// Elements along V from a lane's first vector to the one that holds its row `r`.
    #[inline(always)]
    const fn set_offset<S: Element, const K: u32>(r: usize) -> u64 {
        (r / S::VECTOR * S::VECTOR) as u64 * groups(K) as u64
    }

    /// Places along K from a lane's first element to its element `i`.
    #[inline(always)]
    const fn key_offset<S: Element, const K: u32>(i: usize) -> u64 {
        (i / S::VECTOR * S::VECTOR) as u64 * lanes(K) as u64 + (i % S::VECTOR) as u64
    }

    /// Bytes from a lane's first vector to the one of element `i` that holds its row `r`.
    #[inline(always)]
    fn vector_offset<S: Element, const K: u32>(r: usize, i: usize, v: u32) -> u64 {
        (Self::key_offset::<S, K>(i) * v as u64 + Self::set_offset::<S, K>(r)) * S::SIZE
    }

    /// Where the vector of element `i` of the set of rows that starts at `r` is among the loaded ones.
    #[inline(always)]
    const fn index<S: Element>(r: usize, i: usize) -> (usize, usize) {
        let flat = r / S::VECTOR * ROW + i;
        (flat / vectors::<S>(), flat % vectors::<S>())
    }
}

impl Layout for Kv {
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
    fn row<S: Element, const K: u32>(r: u32, place: Place) -> u32 {
        let m = S::VECTOR as u32;
        (r / m * groups(K) + place.group) * m + r % m
    }

    #[inline(always)]
    unsafe fn load<S: Element, const K: u32, const ROWS: usize>(at: u64, v: u32) -> [Vectors; ROWS] {
        let mut raw = [[[0; 4]; 2]; ROWS];
        let mut r = 0;
        while r < ROWS {
            let mut i = 0;
            while i < ROW {
                let (x, y) = Self::index::<S>(r, i);
                let at = at + Self::vector_offset::<S, K>(r, i, v);
                // SAFETY: the vector lies in the tile.
                raw[x][y] = unsafe { memory::load_u32x4_streaming(at) };
                i += 1;
            }
            r += S::VECTOR;
        }
        raw
    }

    #[inline(always)]
    fn unpack<S: Element, const ROWS: usize>(raw: [Vectors; ROWS]) -> [[f32; ROW]; ROWS] {
        let mut rows = [[0.0; ROW]; ROWS];
        let mut r = 0;
        while r < ROWS {
            let mut i = 0;
            while i < ROW {
                let (x, y) = Self::index::<S>(r, i);
                let values = S::widen_vector(raw[x][y]);
                let mut e = 0;
                while e < S::VECTOR {
                    rows[r + e][i] = values[e];
                    e += 1;
                }
                i += 1;
            }
            r += S::VECTOR;
        }
        rows
    }

    #[inline(always)]
    unsafe fn store<S: Element, const K: u32, const ROWS: usize>(at: u64, v: u32, rows: &[[f32; ROW]; ROWS]) {
        let mut r = 0;
        while r < ROWS {
            let mut i = 0;
            while i < ROW {
                let values = core::array::from_fn(|e| if e < S::VECTOR { rows[r + e][i] } else { 0.0 });
                let at = at + Self::vector_offset::<S, K>(r, i, v);
                // SAFETY: the vector lies in the tile.
                unsafe { memory::store_u32x4_streaming(at, S::pack_vector(&values)) };
                i += 1;
            }
            r += S::VECTOR;
        }
    }
}
