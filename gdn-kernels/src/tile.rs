//! A warp's tile of state rows: load, decay, correct, read out, store.
//!
//! # How lanes map to data
//!
//! A row of the state (one v, all K) belongs to `K / 8` neighbouring lanes, a *lane group*; each lane holds
//! eight of its elements in f32 registers. A warp therefore works on `256 / K` rows side by side (2 for
//! K = 128, 4 for K = 64), and each of its lane groups on `ROWS` such rows. Which rows those are, and how they
//! lie in memory, is the [`Layout`]'s; either way each of a warp's loads covers whole sectors, with K contiguous
//! and f32 1 KiB in a piece.
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
//! (a decay per key is folded into k and q first: `s = h0 (e k)`). Even the normalisation of q and k is a factor
//! on `s`, `t` and `c`, so that all sums over K (two a row, and `|q|^2`, `|k|^2`, `k q`) are independent of each
//! other and their shuffles overlap.
//!
//! # Sums of several rows at once
//!
//! A sum over the lane group is a butterfly with the distances K/16, ..., 2, 1. `ROWS` sums share their first
//! steps: at each, a lane keeps half of its rows and hands the others over, so that after log2(ROWS) steps every
//! lane is left with one row, whose sum the remaining steps complete. For eight rows that is 8 shuffles instead
//! of 32, and what follows a sum (correction, output) is computed once a row and not by every lane. One
//! broadcast a row brings the correction back. With a bf16 state, where instructions and not memory bound small
//! batches, this took a fifth of a warp's instructions away.
//!
//! # Why the result does not depend on the tile
//!
//! A row's sums run over its own lanes only: one product and seven fused multiply-adds in a fixed order, then
//! the butterfly, whose additions have the same operands whichever lane makes them. Neither `ROWS`, nor the
//! number of warps, nor the layout, nor the row's place in a tile enters, so a row's bits are the same for every
//! BV, batch size and position.

use crate::arch::{float, thread, warp};
use crate::element::{Element, ROW, Vectors};
use crate::layout::Layout;
use core::marker::PhantomData;

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
pub(crate) fn reduce<const K: u32>(value: f32) -> f32 {
    butterfly(value, lanes(K) / 2)
}

/// The steps of a butterfly from `distance` on.
#[inline(always)]
fn butterfly(mut value: f32, mut distance: u32) -> f32 {
    while distance > 0 {
        // SAFETY: kernels call this from all 32 lanes (padded rows leave block by block).
        value += unsafe { warp::shuffle_xor(value, distance) };
        distance /= 2;
    }
    value
}

/// The sums of `ROWS` values over the lane group: each lane gets that of row [`carried_row`].
#[inline(always)]
fn reduce_rows<const K: u32, const ROWS: usize>(mut values: [f32; ROWS], place: Place) -> f32 {
    let mut distance = lanes(K) / 2;
    let mut kept = ROWS;
    while kept > 1 {
        kept /= 2;
        let upper = place.lane & distance != 0;
        let mut r = 0;
        while r < kept {
            let (low, high) = (values[r], values[r + kept]);
            let (keep, hand_over) = if upper { (high, low) } else { (low, high) };
            // SAFETY: as in `butterfly`.
            values[r] = keep + unsafe { warp::shuffle_xor(hand_over, distance) };
            r += 1;
        }
        distance /= 2;
    }
    butterfly(values[0], distance)
}

/// Lanes of a group that carry the same row.
#[inline(always)]
const fn carriers<const K: u32, const ROWS: usize>() -> u32 {
    const { assert!(ROWS as u32 <= lanes(K) && ROWS.is_power_of_two()) }
    lanes(K) / ROWS as u32
}

/// The row, of those of its lane group, whose sums, v, beta and output this lane carries.
#[inline(always)]
fn carried_row<const K: u32, const ROWS: usize>(place: Place) -> u32 {
    place.lane / carriers::<K, ROWS>()
}

/// Query and key of a token as a lane sees them, and the factors that normalisation and scale come to.
pub(crate) struct Keys {
    pub(crate) q: [f32; ROW],
    pub(crate) k: [f32; ROW],
    /// Factor on q: l2norm and scale.
    pub(crate) q_factor: f32,
    /// Factor on k: l2norm.
    pub(crate) k_factor: f32,
    /// Dot product of the scaled vectors.
    pub(crate) kq: f32,
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

/// A token's decay as a lane applies it.
pub(crate) trait Decay: Copy {
    /// A key or query with the decay of its elements, if elements have decays of their own.
    fn on_key(self, x: &[f32; ROW]) -> [f32; ROW];
    /// The decay of a row's sum, if it is not in the key already.
    fn on_sum(self) -> f32;
    /// The decay of a row's element `i`.
    fn on_element(self, i: usize) -> f32;
}

/// GDN: one decay for the whole state of a head.
impl Decay for f32 {
    #[inline(always)]
    fn on_key(self, x: &[f32; ROW]) -> [f32; ROW] {
        *x
    }

    #[inline(always)]
    fn on_sum(self) -> f32 {
        self
    }

    #[inline(always)]
    fn on_element(self, _i: usize) -> f32 {
        self
    }
}

/// KDA: one decay for each element along K.
impl Decay for [f32; ROW] {
    #[inline(always)]
    fn on_key(self, x: &[f32; ROW]) -> [f32; ROW] {
        core::array::from_fn(|i| self[i] * x[i])
    }

    #[inline(always)]
    fn on_sum(self) -> f32 {
        1.0
    }

    #[inline(always)]
    fn on_element(self, i: usize) -> f32 {
        self[i]
    }
}

/// `ROWS` rows of a lane group in registers; `S` and `L` are type and layout of the state in memory.
pub(crate) struct Tile<S, L, const K: u32, const ROWS: usize> {
    rows: [[f32; ROW]; ROWS],
    memory: PhantomData<(S, L)>,
}

impl<S: Element, L: Layout, const K: u32, const ROWS: usize> Tile<S, L, K, ROWS> {
    /// Rows of V that a warp covers.
    pub(crate) const WARP_ROWS: u32 = groups(K) * ROWS as u32;

    /// A tile not loaded but known to be zero.
    pub(crate) const ZEROS: [Vectors; ROWS] = [[[0; 4]; 2]; ROWS];

    /// Issues the loads of a tile, from the address of the lane's part of it.
    ///
    /// # Safety
    /// `at` is the address of a slot's head plus [`L::row_offset`](Layout::row_offset) of the warp's first row, in
    /// bytes, and [`L::lane_offset`](Layout::lane_offset); the state is readable and 16-byte aligned.
    #[inline(always)]
    pub(crate) unsafe fn load(at: u64, v: u32) -> [Vectors; ROWS] {
        // SAFETY: the caller's promise.
        unsafe { L::load::<S, K, ROWS>(at, v) }
    }

    /// The tile of loaded rows.
    #[inline(always)]
    pub(crate) fn unpack(raw: [Vectors; ROWS]) -> Self {
        Tile { rows: L::unpack::<S, ROWS>(raw), memory: PhantomData }
    }

    /// Stores the tile, each element rounded once to `S`.
    ///
    /// # Safety
    /// As for [`Self::load`], and writable.
    #[inline(always)]
    pub(crate) unsafe fn store(&self, at: u64, v: u32) {
        // SAFETY: the caller's promise.
        unsafe { L::store::<S, K, ROWS>(at, v, &self.rows) }
    }

    /// Rounds every element to `S`, as storing and loading it would.
    #[inline(always)]
    pub(crate) fn round(&mut self) {
        self.rows = self.rows.map(|row| row.map(S::round));
    }

    /// Which row of the warp this lane carries: it gives the row's v and beta and gets its output.
    #[inline(always)]
    pub(crate) fn carried(place: Place) -> u32 {
        L::row::<S, K>(carried_row::<K, ROWS>(place), place)
    }

    /// Whether this lane is the one that stores its row's output, of those that carry the row.
    #[inline(always)]
    pub(crate) fn stores_output(place: Place) -> bool {
        place.lane.is_multiple_of(carriers::<K, ROWS>())
    }

    /// One token: decays the rows, corrects them towards v, and returns the output of the row that this lane
    /// carries; `v` and `beta` are that row's.
    #[inline(always)]
    pub(crate) fn step<D: Decay>(&mut self, x: &Keys, decay: D, beta: f32, v: f32, place: Place) -> f32 {
        let (k, q) = (decay.on_key(&x.k), decay.on_key(&x.q));
        let (mut hk, mut hq) = ([0.0; ROWS], [0.0; ROWS]);
        let mut r = 0;
        while r < ROWS {
            hk[r] = dot(&self.rows[r], &k);
            hq[r] = dot(&self.rows[r], &q);
            r += 1;
        }
        let hk = reduce_rows::<K, ROWS>(hk, place) * x.k_factor;
        let hq = reduce_rows::<K, ROWS>(hq, place) * x.q_factor;
        let delta = beta * float::fma(-decay.on_sum(), hk, v);
        let out = float::fma(delta, x.kq, decay.on_sum() * hq);
        let along = delta * x.k_factor;
        let mut r = 0;
        while r < ROWS {
            // SAFETY: as in `butterfly`.
            let along = unsafe { warp::broadcast(along, r as u32 * carriers::<K, ROWS>(), lanes(K)) };
            let row = &mut self.rows[r];
            let mut i = 0;
            while i < ROW {
                row[i] = float::fma(along, x.k[i], decay.on_element(i) * row[i]);
                i += 1;
            }
            r += 1;
        }
        out
    }
}
