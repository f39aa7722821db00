//! A tile of state rows: load, decay, correct, read out, store.
//!
//! # How lanes map to data
//!
//! A row of the state (one v, all K) belongs to a *lane group*, of which each lane holds eight of its elements, a
//! *piece*, in f32 registers: 8 lanes for K = 64, 16 for 96 and 128, 32 for 256. With K contiguous a group is neighbouring
//! lanes of a warp, which therefore works on 4, 2 or 1 rows side by side, and each of its groups on `R` such rows. With V contiguous a group may be
//! spread over a *team* of up to 8 warps, which together cover longer runs. Which rows those are, and how they lie in
//! memory, is the [`Layout`]'s; either way loads cover long runs: with K contiguous and f32 1 KiB, with V contiguous 64 to
//! 256 bytes for each k.
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
//! A sum over the lane group is a butterfly with the distances 8 (of 16 lanes), 4, 2, 1. The rows' sums share their first
//! steps: at each, a lane keeps half of its rows and hands the others over, so that after log2(ROWS) steps every
//! lane is left with one row, whose sum the remaining steps complete. For eight rows that is 8 shuffles instead
//! of 32, and what follows a sum (correction, output) is computed once a row and not by every lane. One
//! broadcast a row brings the correction back. With a bf16 state, where instructions and not memory bound small
//! batches, this took a fifth of a warp's instructions away.
//!
//! Where a group is spread over a team, the first steps are those within the warp, which leave one to four rows to a lane;
//! the last ones are those of [`mod@exchange`], in shared memory, where a thread of the team carries a row.
//!
//! # Why the result does not depend on the tile
//!
//! A row's sums run over its own lanes only: one product and seven fused multiply-adds in a fixed order, then
//! the butterfly, whose additions have the same operands whoever makes them. Neither the tile's height, nor the number of
//! warps, nor the layout, nor the row's place in a tile enters, so a row's bits are the same for every BV, batch size and
//! position.

use crate::arch::{compiler, float, memory, warp};
use crate::element::{Element, ROW};
use crate::keys::{Decay, Keys, Token, dot};
use crate::layout::{Form, Layout, MOST_ROWS, Place, lanes};
use core::marker::PhantomData;

mod exchange;
mod narrow;

pub(crate) use narrow::buffer_at;
pub(crate) use exchange::{CORRECTIONS_BYTES, Exchange, Front, Shared};

/// By how much of the key rows are corrected: the row that the lane carries, or where warps work together each row of the lane.
type Along = [f32; MOST_ROWS];

/// A lane's vectors of a tile as they are in memory, and zeros behind them.
pub(crate) type Raw = [[u32; 4]; 2 * MOST_ROWS];

/// A lane's pieces of the rows of its group, in registers; `S` and `L` are type and layout of the state in memory.
pub(crate) struct Tile<S, L, const K: u32, const R: usize> {
    /// One of each row.
    pieces: [[f32; ROW]; MOST_ROWS],
    memory: PhantomData<(S, L)>,
}

impl<S: Element, L: Layout, const K: u32, const R: usize> Tile<S, L, K, R> {
    const ROWS: usize = Form::<L, S, K, R>::ROWS;
    const LANES: u32 = Form::<L, S, K, R>::LANES;
    const APART: u32 = Form::<L, S, K, R>::APART;
    const WARPS: u32 = Form::<L, S, K, R>::WARPS;

    /// Rows of V that a team covers.
    pub(crate) const TEAM_ROWS: u32 = Form::<L, S, K, R>::TEAM_ROWS;

    /// Rows of V of a block of so many threads.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) fn block_rows(threads: u32) -> u32 {
        threads / (32 * Self::WARPS) * Self::TEAM_ROWS
    }

    /// Rows whose sums are left to a lane within its warp: as few as there are lanes for.
    const LEFT: usize = {
        let lanes = Self::LANES as usize;
        let left = if Self::ROWS > lanes { Self::ROWS / lanes } else { 1 };
        assert!(left == 1 || Self::WARPS > 1);
        left
    };

    /// Lanes of a group's part of a warp to which the same rows are left.
    const SHARERS: u32 = Self::LANES * Self::LEFT as u32 / Self::ROWS as u32;

    /// Vectors of a lane.
    const VECTORS: usize = Self::ROWS * ROW / S::VECTOR;

    /// A tile not loaded but known to be zero.
    pub(crate) const ZEROS: Raw = [[0; 4]; 2 * MOST_ROWS];

    /// Issues the loads of a tile, from the address of the lane's part of it.
    ///
    /// # Safety
    /// `at` is the address of a slot's head plus [`L::row_offset`](Layout::row_offset) of the team's first row, in
    /// bytes, and [`L::lane_offset`](Layout::lane_offset); the state is readable and 16-byte aligned.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) unsafe fn load(at: u64, v: u32, place: Place) -> Raw {
        if !K.is_power_of_two() {
            // SAFETY: the caller's promise.
            return unsafe { Self::load_if(true, at, v, place) };
        }
        // SAFETY: the vectors lie in the tile.
        Self::vectors(at, v, |at| unsafe { memory::load_u32x4_streaming(at) })
    }

    /// [`Self::load`] without a branch, or zeros where the condition is false.
    ///
    /// # Safety
    /// As for [`Self::load`] if the condition is true.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) unsafe fn load_if(condition: bool, at: u64, v: u32, place: Place) -> Raw {
        let condition = condition & place.holds_piece(K);
        // SAFETY: the vectors lie in the tile.
        Self::vectors(at, v, |at| unsafe { memory::load_u32x4_streaming_if(condition, at) })
    }

    /// What `load` gives for the address of each of the lane's vectors.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    fn vectors(at: u64, v: u32, load: impl Fn(u64) -> [u32; 4]) -> Raw {
        let (mut raw, mut x) = (Self::ZEROS, 0);
        while x < Self::VECTORS {
            raw[x] = load(at + L::vector_offset::<S, K, R>(x, v));
            x += 1;
        }
        raw
    }

    /// The tile of loaded rows.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) fn unpack(raw: Raw) -> Self {
        let mut pieces = [[0.0; ROW]; MOST_ROWS];
        let mut x = 0;
        while x < Self::VECTORS {
            let values = S::widen_vector(raw[x]);
            let mut e = 0;
            while e < S::VECTOR {
                let (r, i) = L::element::<S, K, R>(x, e);
                pieces[r][i] = values[e];
                e += 1;
            }
            x += 1;
        }
        Tile { pieces, memory: PhantomData }
    }

    /// Stores the tile, each element rounded once to `S`.
    ///
    /// # Safety
    /// As for [`Self::load`], and writable.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) unsafe fn store(&self, at: u64, v: u32, place: Place) {
        if !place.holds_piece(K) {
            return;
        }
        // The addresses of the loads would be kept all the time.
        let v = if L::ALONG_V { compiler::opaque(v) } else { v };
        let mut x = 0;
        while x < Self::VECTORS {
            let element = |e| {
                let (r, i) = L::element::<S, K, R>(x, e);
                self.pieces[r][i]
            };
            let values = core::array::from_fn(|e| if e < S::VECTOR { element(e) } else { 0.0 });
            let at = at + L::vector_offset::<S, K, R>(x, v);
            // SAFETY: the vector lies in the tile.
            unsafe { memory::store_u32x4_streaming(at, S::pack_vector(&values)) };
            x += 1;
        }
    }

    /// Rounds every element to `S`, as storing and loading it would.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) fn round(&mut self) {
        self.pieces = self.pieces.map(|piece| piece.map(S::round));
    }

    /// Where a thread of the block stands.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) fn place(thread: u32) -> Place {
        if L::ALONG_V {
            Place::of_thread_in_team(thread, Form::<L, S, K, R>::GROUPS, Self::WARPS)
        } else {
            Place::of_thread(thread, Self::LANES)
        }
    }

    /// The thread of the team that stands there.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    fn thread(place: Place) -> u32 {
        place.lane % Self::WARPS * 32 + place.lane / Self::WARPS * Self::APART + place.group()
    }

    /// The row of the team that this lane carries: it gives the row's v and beta and gets its output.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) fn carried(place: Place) -> u32 {
        match Self::WARPS {
            1 => L::row::<S, K, R>(place.lane / Self::SHARERS, place.group()),
            _ => Self::thread(place) % Self::TEAM_ROWS,
        }
    }

    /// Whether this lane is the one that stores its row's output, of those that carry the row.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) fn stores_output(place: Place) -> bool {
        match Self::WARPS {
            1 => place.lane.is_multiple_of(Self::SHARERS),
            _ => Self::thread(place) < Self::TEAM_ROWS,
        }
    }

    /// Each row's dot product with a vector over K, of the lane's pieces.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    fn dots(&self, x: &[f32; ROW]) -> [f32; MOST_ROWS] {
        let mut dots = [0.0; MOST_ROWS];
        let mut r = 0;
        while r < Self::ROWS {
            dots[r] = dot(&self.pieces[r], x);
            r += 1;
        }
        dots
    }

    /// The sums of the rows over a group's lanes in this warp: each lane gets those of the rows that are left to it, first.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    fn reduce_rows(mut values: [f32; MOST_ROWS], place: Place) -> [f32; MOST_ROWS] {
        let (mut distance, mut kept) = (lanes(K) / 2, Self::ROWS);
        while distance >= Self::WARPS {
            let lanes_apart = distance / Self::WARPS * Self::APART;
            if kept > 1 {
                kept /= 2;
                let upper = place.lane & distance != 0;
                let mut r = 0;
                while r < kept {
                    let (low, high) = (values[r], values[r + kept]);
                    let (keep, hand_over) = if upper { (high, low) } else { (low, high) };
                    // SAFETY: as in `reduce`.
                    values[r] = keep + unsafe { warp::shuffle_xor(hand_over, lanes_apart) };
                    r += 1;
                }
            } else {
                // SAFETY: as in `reduce`.
                values[0] += unsafe { warp::shuffle_xor(values[0], lanes_apart) };
            }
            distance /= 2;
        }
        values
    }

    /// One token: decays the rows, corrects them towards v, and returns the output of the row that this lane carries;
    /// `v` is that row's.
    ///
    /// Where teams have several warps, all threads of the block call it together.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) fn step<D: Decay>(
        &mut self,
        token: &Token<D>,
        v: f32,
        place: Place,
        exchange: Exchange,
    ) -> f32 {
        let (out, along) = self.read(token, v, place, exchange);
        self.correct(token, along, place);
        out
    }

    /// [`Self::step`] of a tile that was just loaded and is stored behind it. A 16-bit state is widened twice, for what
    /// is read out and for what is stored: in between it takes half the registers.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) fn step_of<D: Decay>(
        raw: Raw,
        token: &Token<D>,
        v: f32,
        place: Place,
        exchange: Exchange,
    ) -> (f32, Self) {
        let (out, along) = Self::unpack(raw).read(token, v, place, exchange);
        let mut tile = Self::unpack_anew(raw);
        tile.correct(token, along, place);
        (out, tile)
    }

    /// The tile of loaded rows, once more: of a 16-bit state what was widened before is not kept for it.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) fn unpack_anew(mut raw: Raw) -> Self {
        if S::VECTOR == 8 {
            let mut x = 0;
            while x < Self::VECTORS {
                raw[x] = raw[x].map(compiler::opaque);
                x += 1;
            }
        }
        Self::unpack(raw)
    }

    /// The carried row's output, and by how much of the key rows are corrected.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    fn read<D: Decay>(&self, token: &Token<D>, v: f32, place: Place, exchange: Exchange) -> (f32, Along) {
        let (x, decay) = (&token.keys, token.decay);
        let (hk, hq) = (self.dots(&decay.on_key(&x.k)), self.dots(&decay.on_key(&x.q)));
        let sums = [Self::reduce_rows(hk, place), Self::reduce_rows(hq, place)];
        // A row's output and correction, given its sums.
        let of_row = |[hk, hq]: [f32; 2]| {
            let (hk, hq) = (hk * x.factors.k, hq * x.factors.q);
            let delta = token.beta * float::fma(-decay.on_sum(), hk, v);
            (float::fma(delta, x.factors.kq, decay.on_sum() * hq), delta * x.factors.k)
        };
        if Self::WARPS > 1 {
            return Self::exchange(sums, place, exchange, of_row);
        }
        let (out, along) = of_row(sums.map(|sums| sums[0]));
        (out, [along; MOST_ROWS])
    }

    /// The dot products of the row that this lane carries with a token's key and query, without the factors on them; where
    /// the group is within a warp.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) fn sums<D: Decay>(&self, keys: &Keys, decay: D, place: Place) -> [f32; 2] {
        let dots = [self.dots(&decay.on_key(&keys.k)), self.dots(&decay.on_key(&keys.q))];
        dots.map(|dots| Self::reduce_rows(dots, place)[0])
    }

    /// Decays the rows.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) fn scale<D: Decay>(&mut self, decay: D) {
        let mut r = 0;
        while r < Self::ROWS {
            let mut i = 0;
            while i < ROW {
                self.pieces[r][i] *= decay.on_element(i);
                i += 1;
            }
            r += 1;
        }
    }

    /// Adds to each row so much of `x`, a vector over K of which lanes hold pieces.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) fn add(&mut self, of_rows: impl Fn(u32) -> f32, x: &[f32; ROW]) {
        let mut r = 0;
        while r < Self::ROWS {
            let of_row = of_rows(r as u32);
            let mut i = 0;
            while i < ROW {
                self.pieces[r][i] = float::fma(of_row, x[i], self.pieces[r][i]);
                i += 1;
            }
            r += 1;
        }
    }

    /// What a lane knows of the row that it carries, as the lanes that hold row `r` of the group get it; where the group is
    /// within a warp.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) fn of_row(carried: f32, r: u32) -> f32 {
        // SAFETY: as in `reduce`.
        unsafe { warp::broadcast(carried, r * Self::SHARERS, Self::LANES) }
    }

    /// Decays the rows and corrects each by so much of the key.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    fn correct<D: Decay>(&mut self, token: &Token<D>, along: Along, place: Place) {
        let mut of_rows = along;
        let mut r = 0;
        while r < Self::ROWS {
            let carrier = r as u32 * Self::SHARERS;
            // SAFETY: as in `reduce`.
            of_rows[r] = unsafe {
                match (Self::WARPS, L::ALONG_V) {
                    (1, true) => warp::broadcast(along[0], carrier * Self::APART + place.group(), 32),
                    (1, false) => warp::broadcast(along[0], carrier, Self::LANES),
                    _ => along[r],
                }
            };
            // The products do not wait for the correction.
            let piece = &mut self.pieces[r];
            let mut i = 0;
            while i < ROW {
                piece[i] *= token.decay.on_element(i);
                i += 1;
            }
            r += 1;
        }
        let mut r = 0;
        while r < Self::ROWS {
            let piece = &mut self.pieces[r];
            let mut i = 0;
            while i < ROW {
                piece[i] = float::fma(of_rows[r], token.keys.k[i], piece[i]);
                i += 1;
            }
            r += 1;
        }
    }
}
