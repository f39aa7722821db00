//! A warp's tile of state rows: load, decay, correct, read out, store.
//!
//! # How lanes map to data
//!
//! A row of the state (one v, all K) belongs to `K / 8` neighbouring lanes, a *lane group*; each lane holds
//! eight of its elements, a *piece*, in f32 registers. A warp therefore works on `256 / K` rows side by side (2 for
//! K = 128, 4 for K = 64), and each of its lane groups on `N` such rows. (Large tiles of layout KV have groups of
//! half as many lanes, with two pieces of each of half as many rows.) Which rows those are, and how they lie in
//! memory, is the [`Layout`]'s; either way each of a warp's loads covers whole sectors, with K contiguous and f32
//! 1 KiB in a run.
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
//! A sum over the lane group is a butterfly with the distances K/16, ..., 2, 1. The rows' sums share their first
//! steps: at each, a lane keeps half of its rows and hands the others over, so that after log2(ROWS) steps every
//! lane is left with one row, whose sum the remaining steps complete. For eight rows that is 8 shuffles instead
//! of 32, and what follows a sum (correction, output) is computed once a row and not by every lane. One
//! broadcast a row brings the correction back. With a bf16 state, where instructions and not memory bound small
//! batches, this took a fifth of a warp's instructions away.
//!
//! # Why the result does not depend on the tile
//!
//! A row's sums run over its own lanes only: one product and seven fused multiply-adds in a fixed order, then
//! the butterfly, whose additions have the same operands whichever lane makes them. Where a lane has two pieces
//! of a row, they are those that the first step adds up. Neither `N`, nor the number of warps, nor the layout, nor the row's place in a tile enters, so a row's bits are the same for every
//! BV, batch size and position.

use crate::arch::{float, warp};
use crate::element::{Element, ROW, Vectors};
use crate::layout::{Form, Layout, MOST_PIECES};
use core::marker::PhantomData;

/// Where a lane stands: its lane group, and its place in the group.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    /// Lane group within the warp.
    pub(crate) group: u32,
    /// Lane within the group.
    pub(crate) lane: u32,
    /// Warp within the block.
    pub(crate) warp: u32,
}

impl Place {
    /// Place of a thread of the block, with lane groups of so many neighbouring lanes.
    #[inline(always)]
    pub(crate) fn of_thread(thread: u32, lanes: u32) -> Place {
        let lane = thread % 32;
        Place { group: lane / lanes, lane: lane % lanes, warp: thread / 32 }
    }

    /// Place of a thread of a warp of so many interleaved lane groups: neighbouring lanes are of different groups.
    #[inline(always)]
    fn of_thread_interleaved(thread: u32, groups: u32) -> Place {
        let lane = thread % 32;
        Place { group: lane % groups, lane: lane / groups, warp: thread / 32 }
    }
}

/// Lanes that share a row of K elements, with a piece each.
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

/// The sum of `value` over the lanes that share a row, a piece each and `apart` lanes apart, in every one of them.
#[inline(always)]
pub(crate) fn reduce<const K: u32>(value: f32, apart: u32) -> f32 {
    butterfly(value, lanes(K) / 2, apart)
}

/// The steps of a butterfly from `distance` on, over lanes that are `apart` lanes of the warp apart.
#[inline(always)]
fn butterfly(mut value: f32, mut distance: u32, apart: u32) -> f32 {
    while distance > 0 {
        // SAFETY: kernels call this from all 32 lanes (padded rows leave block by block).
        value += unsafe { warp::shuffle_xor(value, distance * apart) };
        distance /= 2;
    }
    value
}

/// The sums of a tile's rows over the lane group: each lane gets that of the row it carries.
#[inline(always)]
fn reduce_rows<S: Element, L: Layout, const K: u32, const N: usize>(mut values: [f32; N], place: Place) -> f32 {
    let apart = Form::<L, S, K, N>::APART;
    let mut distance = Form::<L, S, K, N>::LANES / 2;
    let mut kept = Form::<L, S, K, N>::ROWS;
    while kept > 1 {
        kept /= 2;
        let upper = place.lane & distance != 0;
        let mut r = 0;
        while r < kept {
            let (low, high) = (values[r], values[r + kept]);
            let (keep, hand_over) = if upper { (high, low) } else { (low, high) };
            // SAFETY: as in `butterfly`.
            values[r] = keep + unsafe { warp::shuffle_xor(hand_over, distance * apart) };
            r += 1;
        }
        distance /= 2;
    }
    butterfly(values[0], distance, apart)
}

/// A lane's pieces of a vector over K: those that its [`Form`] has, and zeros behind them.
pub(crate) type Pieces = [[f32; ROW]; MOST_PIECES];

/// A lane's one piece.
#[inline(always)]
pub(crate) fn single(piece: [f32; ROW]) -> Pieces {
    [piece, [0.0; ROW]]
}

/// Query and key of a token as a lane sees them, and the factors that normalisation and scale come to.
pub(crate) struct Keys {
    pub(crate) q: Pieces,
    pub(crate) k: Pieces,
    pub(crate) factors: Factors,
}

/// What a token's query and key come to besides themselves.
#[derive(Clone, Copy)]
pub(crate) struct Factors {
    /// Factor on q: l2norm and scale.
    pub(crate) q: f32,
    /// Factor on k: l2norm.
    pub(crate) k: f32,
    /// Dot product of the scaled vectors.
    pub(crate) kq: f32,
}

impl Factors {
    /// Takes the sums of a token's query and key over lanes that hold a piece each and are `apart` lanes apart.
    #[inline(always)]
    pub(crate) fn new<const K: u32>(
        [q, k]: [[f32; ROW]; 2],
        apart: u32,
        l2norm: bool,
        eps: f32,
        scale: f32,
    ) -> Factors {
        let kq = reduce::<K>(dot(&k, &q), apart);
        let q_norm = float::rsqrt(reduce::<K>(dot(&q, &q), apart) + eps);
        let k_norm = float::rsqrt(reduce::<K>(dot(&k, &k), apart) + eps);
        let q_factor = if l2norm { q_norm * scale } else { scale };
        let k_factor = if l2norm { k_norm } else { 1.0 };
        Factors { q: q_factor, k: k_factor, kq: kq * (k_factor * q_factor) }
    }
}

/// A token's decay as a lane applies it.
pub(crate) trait Decay: Copy {
    /// Piece `p` of a key or query with the decay of its elements, if elements have decays of their own.
    fn on_key(self, p: usize, x: &[f32; ROW]) -> [f32; ROW];
    /// The decay of a row's sum, if it is not in the key already.
    fn on_sum(self) -> f32;
    /// The decay of element `i` of a row's piece `p`.
    fn on_element(self, p: usize, i: usize) -> f32;
}

/// GDN: one decay for the whole state of a head.
impl Decay for f32 {
    #[inline(always)]
    fn on_key(self, _p: usize, x: &[f32; ROW]) -> [f32; ROW] {
        *x
    }

    #[inline(always)]
    fn on_sum(self) -> f32 {
        self
    }

    #[inline(always)]
    fn on_element(self, _p: usize, _i: usize) -> f32 {
        self
    }
}

/// KDA: one decay for each element along K.
impl Decay for Pieces {
    #[inline(always)]
    fn on_key(self, p: usize, x: &[f32; ROW]) -> [f32; ROW] {
        core::array::from_fn(|i| self[p][i] * x[i])
    }

    #[inline(always)]
    fn on_sum(self) -> f32 {
        1.0
    }

    #[inline(always)]
    fn on_element(self, p: usize, i: usize) -> f32 {
        self[p][i]
    }
}

/// `N` pieces a lane of a warp's rows, in registers; `S` and `L` are type and layout of the state in memory.
pub(crate) struct Tile<S, L, const K: u32, const N: usize> {
    /// Those of a row side by side.
    pieces: [[f32; ROW]; N],
    memory: PhantomData<(S, L)>,
}

impl<S: Element, L: Layout, const K: u32, const N: usize> Tile<S, L, K, N> {
    const PIECES: usize = Form::<L, S, K, N>::PIECES;
    const ROWS: usize = Form::<L, S, K, N>::ROWS;
    const LANES: u32 = Form::<L, S, K, N>::LANES;

    /// Rows of V that a warp covers.
    pub(crate) const WARP_ROWS: u32 = Form::<L, S, K, N>::WARP_ROWS;

    /// Lanes of a group that carry the same row.
    const CARRIERS: u32 = {
        assert!(Self::ROWS as u32 <= Self::LANES && Self::ROWS.is_power_of_two());
        Self::LANES / Self::ROWS as u32
    };

    /// A tile not loaded but known to be zero.
    pub(crate) const ZEROS: [Vectors; N] = [[[0; 4]; 2]; N];

    /// Issues the loads of a tile, from the address of the lane's part of it.
    ///
    /// # Safety
    /// `at` is the address of a slot's head plus [`L::row_offset`](Layout::row_offset) of the warp's first row, in
    /// bytes, and [`L::lane_offset`](Layout::lane_offset); the state is readable and 16-byte aligned.
    #[inline(always)]
    pub(crate) unsafe fn load(at: u64, v: u32) -> [Vectors; N] {
        // SAFETY: the caller's promise.
        unsafe { L::load::<S, K, N>(at, v) }
    }

    /// The tile of loaded rows.
    #[inline(always)]
    pub(crate) fn unpack(raw: [Vectors; N]) -> Self {
        Tile { pieces: L::unpack::<S, K, N>(raw), memory: PhantomData }
    }

    /// A tile that holds the bits of loaded rows and does not look at them: [`Self::settle`] makes rows of them. So a
    /// tile may be on its way while something else is computed, in the registers that it takes up anyway.
    #[inline(always)]
    pub(crate) fn pending(raw: [Vectors; N]) -> Self {
        let piece = |[l, h]: Vectors| [l[0], l[1], l[2], l[3], h[0], h[1], h[2], h[3]].map(f32::from_bits);
        Tile { pieces: raw.map(piece), memory: PhantomData }
    }

    /// Makes rows of a [`Self::pending`] tile's bits.
    #[inline(always)]
    pub(crate) fn settle(&mut self) {
        let vectors = |piece: [f32; ROW]| {
            let [a, b, c, d, e, f, g, h] = piece.map(f32::to_bits);
            [[a, b, c, d], [e, f, g, h]]
        };
        *self = Self::unpack(self.pieces.map(vectors));
    }

    /// Stores the tile, each element rounded once to `S`.
    ///
    /// # Safety
    /// As for [`Self::load`], and writable.
    #[inline(always)]
    pub(crate) unsafe fn store(&self, at: u64, v: u32) {
        // SAFETY: the caller's promise.
        unsafe { L::store::<S, K, N>(at, v, &self.pieces) }
    }

    /// Rounds every element to `S`, as storing and loading it would.
    #[inline(always)]
    pub(crate) fn round(&mut self) {
        self.pieces = self.pieces.map(|piece| piece.map(S::round));
    }

    /// Where a thread of the block stands.
    #[inline(always)]
    pub(crate) fn place(thread: u32) -> Place {
        if L::ALONG_V {
            Place::of_thread_interleaved(thread, Form::<L, S, K, N>::GROUPS)
        } else {
            Place::of_thread(thread, Self::LANES)
        }
    }

    /// Which row of the warp this lane carries: it gives the row's v and beta and gets its output.
    #[inline(always)]
    pub(crate) fn carried(place: Place) -> u32 {
        L::row::<S, K, N>(place.lane / Self::CARRIERS, place)
    }

    /// Whether this lane is the one that stores its row's output, of those that carry the row.
    #[inline(always)]
    pub(crate) fn stores_output(place: Place) -> bool {
        place.lane.is_multiple_of(Self::CARRIERS)
    }

    /// Each row's dot product with a vector over K, summed over the lane's pieces.
    #[inline(always)]
    fn dots(&self, x: &Pieces) -> [f32; N] {
        let mut dots = [0.0; N];
        let mut r = 0;
        while r < Self::ROWS {
            let mut p = 1;
            dots[r] = dot(&self.pieces[r * Self::PIECES], &x[0]);
            while p < Self::PIECES {
                dots[r] += dot(&self.pieces[r * Self::PIECES + p], &x[p]);
                p += 1;
            }
            r += 1;
        }
        dots
    }

    /// One token: decays the rows, corrects them towards v, and returns the output of the row that this lane
    /// carries; `v` and `beta` are that row's.
    #[inline(always)]
    pub(crate) fn step<D: Decay>(&mut self, x: &Keys, decay: D, beta: f32, v: f32, place: Place) -> f32 {
        let decayed = |x: &Pieces| core::array::from_fn(|p| decay.on_key(p, &x[p]));
        let (hk, hq) = (self.dots(&decayed(&x.k)), self.dots(&decayed(&x.q)));
        let hk = reduce_rows::<S, L, K, N>(hk, place) * x.factors.k;
        let hq = reduce_rows::<S, L, K, N>(hq, place) * x.factors.q;
        let delta = beta * float::fma(-decay.on_sum(), hk, v);
        let out = float::fma(delta, x.factors.kq, decay.on_sum() * hq);
        let along = delta * x.factors.k;
        let mut r = 0;
        while r < Self::ROWS {
            // SAFETY: as in `butterfly`.
            let along = unsafe {
                let carrier = r as u32 * Self::CARRIERS;
                match L::ALONG_V {
                    true => warp::broadcast(along, carrier * Form::<L, S, K, N>::APART + place.group, 32),
                    false => warp::broadcast(along, carrier, Self::LANES),
                }
            };
            let mut p = 0;
            while p < Self::PIECES {
                let piece = &mut self.pieces[r * Self::PIECES + p];
                let mut i = 0;
                while i < ROW {
                    piece[i] = float::fma(along, x.k[p][i], decay.on_element(p, i) * piece[i]);
                    i += 1;
                }
                p += 1;
            }
            r += 1;
        }
        out
    }
}
