//! A warp's tile of state rows: load, decay, correct, read out, store.
//!
//! # How lanes map to data
//!
//! A row of the state (one v, all K) belongs to `K / 8` neighbouring lanes, a *lane group*; each lane holds
//! eight of its elements in f32 registers. A warp therefore works on `256 / K` rows side by side (2 for
//! K = 128, 4 for K = 64), and on `ROWS` such sets one after the other in memory:
//!
//! ```text
//! row(r, group) = first row of the warp + r * (256 / K) + group          r in 0..ROWS
//! ```
//!
//! so that each of a warp's loads covers consecutive bytes, 1 KiB for f32 and K = 128.
//!
//! # One pass over the state
//!
//! The textbook order is decay, `h k`, correct, update, `h q`: the state is read twice, the second time
//! after the update. Both dot products of a row can be taken of the state as it was loaded:
//!
//! ```text
//! s = h0 k      t = h0 q      c = k q
//! d = beta * (v - e * s)      o = e * t + d * c      h = e * h0 + d * k
//! ```
//!
//! Even the normalisation of q and k is a factor on `s`, `t` and `c`, so that all sums over K (two a row,
//! and `|q|^2`, `|k|^2`, `k q`) are independent of each other and their shuffles overlap: one latency of
//! four shuffles instead of three in a row.
//!
//! # Why the result does not depend on the tile
//!
//! A row's sums run over its own lanes only: eight fused multiply-adds in a fixed order, then a butterfly
//! over the lane group with the distances K/16, ..., 2, 1. Neither `ROWS`, nor the number of warps, nor the
//! row's place in a tile enters, so a row's bits are the same for every BV, batch size and position.

use crate::arch::{float, thread, warp};
use crate::math::{Element, ROW};

/// Where a lane stands: its lane group, and its place in the group.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    /// Lane group within the warp, `0..256 / K`.
    pub(crate) group: u32,
    /// Lane within the group, `0..K / 8`.
    pub(crate) lane: u32,
    /// Warp within the block.
    pub(crate) warp: u32,
}

impl Place {
    #[inline(always)]
    pub(crate) fn of_this_thread<const K: u32>() -> Place {
        let thread = thread::thread_idx_x();
        let lane = thread % 32;
        Place { group: lane / lanes(K), lane: lane % lanes(K), warp: thread / 32 }
    }
}

/// Lanes that share a row of K elements.
#[inline(always)]
pub(crate) const fn lanes(k: u32) -> u32 {
    k / ROW as u32
}

/// Rows a warp works on side by side.
#[inline(always)]
pub(crate) const fn groups(k: u32) -> u32 {
    32 / lanes(k)
}

/// A lane's share of the dot product of two vectors.
#[inline(always)]
pub(crate) fn dot(x: &[f32; ROW], y: &[f32; ROW]) -> f32 {
    let mut sum = x[0] * y[0];
    let mut i = 1;
    while i < ROW {
        sum = float::fma(x[i], y[i], sum);
        i += 1;
    }
    sum
}

/// The sum of `value` over the lane group, in every lane of it.
#[inline(always)]
pub(crate) fn reduce<const K: u32>(mut value: f32) -> f32 {
    let mut distance = lanes(K) / 2;
    while distance > 0 {
        // SAFETY: kernels call this from all 32 lanes (padded rows leave block by block).
        value += unsafe { warp::shuffle_xor(value, distance) };
        distance /= 2;
    }
    value
}

/// Query and key of a token as a lane sees them, and the factors that normalisation and scale come to.
pub(crate) struct Keys {
    q: [f32; ROW],
    k: [f32; ROW],
    /// Factor on q: l2norm and scale.
    q_factor: f32,
    /// Factor on k: l2norm.
    k_factor: f32,
    /// Dot product of the scaled vectors.
    kq: f32,
}

impl Keys {
    /// Takes the sums of a token's query and key over the lane group.
    #[inline(always)]
    pub(crate) fn new<const K: u32>(
        q: [f32; ROW],
        k: [f32; ROW],
        l2norm: bool,
        eps: f32,
        scale: f32,
    ) -> Keys {
        let kq = reduce::<K>(dot(&k, &q));
        let q_norm = float::rsqrt(reduce::<K>(dot(&q, &q)) + eps);
        let k_norm = float::rsqrt(reduce::<K>(dot(&k, &k)) + eps);
        let q_factor = if l2norm { q_norm * scale } else { scale };
        let k_factor = if l2norm { k_norm } else { 1.0 };
        Keys { q, k, q_factor, k_factor, kq: kq * (k_factor * q_factor) }
    }
}

/// `ROWS` rows of a lane group in registers.
pub(crate) struct Tile<const K: u32, const ROWS: usize> {
    rows: [[f32; ROW]; ROWS],
}

impl<const K: u32, const ROWS: usize> Tile<K, ROWS> {
    /// Rows of V that a warp covers.
    pub(crate) const WARP_ROWS: u32 = groups(K) * ROWS as u32;

    /// Where this lane's part of a tile starts, from the address of the warp's first row.
    #[inline(always)]
    pub(crate) fn lane_address<S: Element>(first_row: u64, place: Place) -> u64 {
        first_row + (place.group * K) as u64 * S::SIZE + 16 * place.lane as u64
    }

    /// Issues the loads of a tile.
    ///
    /// # Safety
    /// `lane_address` belongs to a readable, 16-byte aligned block of [`Self::WARP_ROWS`] rows of `S`.
    #[inline(always)]
    pub(crate) unsafe fn load<S: Element>(lane_address: u64) -> [S::Raw; ROWS] {
        core::array::from_fn(|r| {
            // SAFETY: row r lies in the tile.
            unsafe { S::load_row(lane_address + Self::pitch::<S>(r), K) }
        })
    }

    /// The tile of loaded rows.
    #[inline(always)]
    pub(crate) fn unpack<S: Element>(raw: [S::Raw; ROWS]) -> Self {
        Tile { rows: raw.map(S::unpack) }
    }

    /// Stores the tile, each element rounded once to `S`.
    ///
    /// # Safety
    /// As for [`Self::load`], and writable.
    #[inline(always)]
    pub(crate) unsafe fn store<S: Element>(&self, lane_address: u64) {
        let mut r = 0;
        while r < ROWS {
            // SAFETY: row r lies in the tile.
            unsafe { S::store_row(lane_address + Self::pitch::<S>(r), K, &self.rows[r]) };
            r += 1;
        }
    }

    /// Bytes from a lane's first row to its row `r`.
    #[inline(always)]
    const fn pitch<S: Element>(r: usize) -> u64 {
        r as u64 * (groups(K) * K) as u64 * S::SIZE
    }

    /// Whether this lane carries a row's v and output (lane `r` of a group carries row `r`'s), and which row
    /// of the warp that is.
    #[inline(always)]
    pub(crate) fn carried(place: Place) -> (bool, u32) {
        (place.lane < ROWS as u32, place.lane * groups(K) + place.group)
    }

    /// One token: decays the rows by `decay`, corrects them towards `v` and returns their outputs. Lane `r` of
    /// a group gives row `r`'s v and gets its output: one load and one store a lane instead of `ROWS`.
    #[inline(always)]
    pub(crate) fn step(&mut self, x: &Keys, decay: f32, beta: f32, v: f32, place: Place) -> f32 {
        let mut out = 0.0;
        let mut r = 0;
        while r < ROWS {
            let row = &mut self.rows[r];
            let hk = reduce::<K>(dot(row, &x.k)) * x.k_factor;
            let hq = reduce::<K>(dot(row, &x.q)) * x.q_factor;
            // SAFETY: as in `reduce`.
            let v = unsafe { warp::broadcast(v, r as u32, lanes(K)) };
            let delta = beta * float::fma(-decay, hk, v);
            let o = float::fma(delta, x.kq, decay * hq);
            out = if place.lane == r as u32 { o } else { out };
            let along = delta * x.k_factor;
            let mut i = 0;
            while i < ROW {
                row[i] = float::fma(along, x.k[i], decay * row[i]);
                i += 1;
            }
            r += 1;
        }
        out
    }
}
