//! Decays of each key: on their way into the operands of products.
//!
//! The point that decays are taken from is the border of records and drafts, so that none of them grows:
//!
//! ```text
//! token's columns      of records   x P              P the decays on the way to the token, x its key or query
//!                      of the state x P E            E those of all records
//! record's row         k W                           W those of the records behind it
//! fold                 E h0 + sum_j d_j (k_j W_j)^T
//! draft s, token t     (k_s D) k_t, (k_s D) q_t      D those on the way from s to t, in multiply-adds
//! ```
//!
//! Both factors of the last one cannot be kept small apart from each other, and there are few of them.
//!
//! A warp takes a quarter of K from log decays to a quarter's share of what records count, and needs no other warp for that:
//! first a lane has a column, then a part of a product's operands.

use super::Drafts;
use super::fragment::{
    AT_ONCE, HALVES, PARTS, both, lane, multiply_parts, multiply_rows, parts, store_words, words,
};
use super::room::{QUARTERS, RoomOfProducts};
use crate::abi::MOST_DRAFTS;
use crate::arch::{shared, thread, warp};
use crate::element::{Element, ROW};
use crate::entry::is_there;
use crate::gate::Gate;
use crate::keys::{Decay, dot, reduce};
use crate::replay::room::piece;
use crate::replay::step::Ancestors;

impl<G: Gate, S: Element, T: Element, const K: u32, const R: usize, const THREADS: u32>
    Drafts<'_, G, S, T, K, R, THREADS>
{
    /// Leaves the decays of records and of all of them, the tokens' operands, and the shares of coefficients, of the warp's
    /// quarters of K.
    ///
    /// # Safety
    /// Tokens, records and their decays are there, and a barrier passed since. The warp is together, and passes one before it uses
    /// what is left.
    #[inline(always)]
    pub(super) unsafe fn decay<const B: usize>(&self, ancestors: Ancestors) {
        let ancestors = ancestors.get(is_there(&self.p.parent));
        let (warps, mut quarter) = Self::warps();
        while quarter < QUARTERS {
            // SAFETY: the caller's promise.
            unsafe {
                self.decay_column::<B>(quarter, ancestors);
                warp::sync_warp();
                self.shares::<B>(quarter);
            }
            quarter += warps;
        }
    }

    /// Leaves the operands of the state's products of a quarter, of the `b`-th four tokens; gives those of the records', not yet in
    /// parts.
    ///
    /// # Safety
    /// As for [`Self::decay`], behind [`Self::decay_column`].
    #[inline(always)]
    unsafe fn operands<const B: usize>(&self, quarter: u32, b: usize) -> [f32; ROW] {
        let ((g, own), vector) = (lane(), self.columns::<B>()[b]);
        // SAFETY: the caller's promise.
        unsafe {
            let token = T::widen_vector(words::<T>(self.room.token(vector), quarter as usize, own));
            let of_records = eight(self.room.way(quarter, vector / 2) + 32 * own).on_key(&token);
            let whole = eight(self.room.whole() + K / QUARTERS * 4 * quarter + 32 * own);
            let of_state = in_parts(&whole.on_key(&of_records));
            let mut part = 0;
            while part < PARTS && vector == 2 * AT_ONCE * b as u32 + g {
                let at = self.room.operand(vector) + part as u32 * RoomOfProducts::<G, K, R, THREADS>::PART;
                store_words::<S>(at + 64 * quarter, own, of_state[part]);
                part += 1;
            }
            of_records
        }
    }

    /// The lane's records of a quarter, 8 apart, as a product's rows in parts, four of their elements at a time; and their products
    /// with themselves.
    ///
    /// # Safety
    /// As for [`Self::decay`], behind [`Self::decay_column`]; there is a record.
    #[inline(always)]
    unsafe fn rows_of_records(&self, quarter: u32) -> ([[[u32; 4]; PARTS]; 2], [[f32; 4]; HALVES]) {
        let ((g, own), len) = (lane(), self.window.len);
        let (mut keys, mut rows, mut half) = ([[0; 4]; HALVES], [[[0; 4]; PARTS]; 2], 0);
        while half < HALVES {
            let j = 8 * half as u32 + g;
            let j = if j < len { j } else { len - 1 };
            if len > 8 * half as u32 {
                // SAFETY: the caller's promise.
                let decays = unsafe {
                    keys[half] = words::<T>(self.room.key(j), quarter as usize, own);
                    eight(self.room.decays(j) + K / QUARTERS * 4 * quarter + 32 * own)
                };
                let decayed = in_parts(&decays.on_key(&T::widen_vector(keys[half])));
                let mut part = 0;
                while part < PARTS {
                    let [a, b, c, d] = decayed[part];
                    [rows[0][part][half], rows[0][part][2 + half]] = [a, b];
                    [rows[1][part][half], rows[1][part][2 + half]] = [c, d];
                    part += 1;
                }
            }
            half += 1;
        }
        (rows, multiply_rows::<T, T, HALVES>([[0.0; 4]; HALVES], keys, &keys))
    }

    /// Leaves the operands of a quarter, and what it counts in records' products with the tokens' columns, and with themselves.
    ///
    /// # Safety
    /// As for [`Self::decay`], behind [`Self::decay_column`].
    #[inline(always)]
    unsafe fn shares<const B: usize>(&self, quarter: u32) {
        let (g, own) = lane();
        // SAFETY: the caller's promise.
        unsafe {
            let columns: [[f32; ROW]; B] = core::array::from_fn(|b| self.operands::<B>(quarter, b));
            if self.window.len == 0 {
                return;
            }
            let (rows, squares) = self.rows_of_records(quarter);
            let sums = columns.map(|column| {
                let [low, high] = halves(&in_parts(&column));
                let sums = multiply_parts([[0.0; 4]; 2], &rows[0], 0, &low);
                both(multiply_parts(sums, &rows[1], 0, &high))
            });
            // The ways give place to the shares.
            warp::sync_warp();
            let mut half = 0;
            while half < HALVES {
                let (j, mut b) = (8 * half as u32 + g, 0);
                while b < B {
                    let pair = [sums[b][HALVES * half], sums[b][HALVES * half + 1]];
                    shared::store_f32x2(self.room.share(quarter, j, AT_ONCE * b as u32 + own), pair);
                    b += 1;
                }
                // Squares came to the lanes of their own columns.
                let [of_even, of_odd] = [squares[half][HALVES * half], squares[half][HALVES * half + 1]];
                if own == g / 2 {
                    shared::store_f32(self.room.square(quarter, j), if g.is_multiple_of(2) { of_even } else { of_odd });
                }
                half += 1;
            }
        }
    }

    /// Leaves what records count, from the quarters' shares, and what drafts count, but for the norms of tokens.
    ///
    /// # Safety
    /// [`Self::decay`] left all it does, and a barrier passed since. The warp is together, and passes one before it uses what is left.
    #[inline(always)]
    pub(super) unsafe fn coefficients_by_key<const B: usize>(&self, ancestors: f32) {
        // SAFETY: the caller's promise.
        unsafe {
            let tokens = AT_ONCE * B as u32;
            let mut i = thread::block_dim_x() - 1 - thread::thread_idx_x();
            while i < self.window.len * tokens {
                let (j, t) = (i / tokens, i % tokens);
                let ([mut k, mut q], mut square, mut quarter) = ([0.0; 2], 0.0, 0);
                while quarter < QUARTERS {
                    let [of_k, of_q] = shared::load_f32x2(self.room.share(quarter, j, t));
                    square += shared::load_f32(self.room.square(quarter, j));
                    [k, q] = [k + of_k, q + of_q];
                    quarter += 1;
                }
                let norm = self.norm(square);
                shared::store_f32x2(self.room.coefficients(j, t), [k * norm, q * norm]);
                if t == 0 {
                    shared::store_f32(self.room.factor(j), norm);
                }
                i += thread::block_dim_x();
            }
            self.drafts_by_key(ancestors);
        }
    }

    /// What drafts count in the sums of tokens behind them: a lane group a pair, the first warp last, as it has the tokens' norms.
    ///
    /// # Safety
    /// As for [`Self::coefficients_by_key`].
    #[inline(always)]
    unsafe fn drafts_by_key(&self, ancestors: f32) {
        const LANES: u32 = 16;
        let (warps, warp) = Self::warps();
        let (count, lane) = (self.p.tokens, thread::thread_idx_x() % LANES);
        let (pairs, mut first) = (count * (count - 1) / 2, 2 * (if warp == 0 { warps } else { warp } - 1));
        while first < pairs {
            let mine = first + thread::thread_idx_x() % 32 / LANES;
            let is_pair = mine < pairs;
            // Pairs are (1, 0), (2, 0), (2, 1), (3, 0) and so on.
            let (mine, mut t, mut u) = (if is_pair { mine } else { 0 }, 1, 2);
            while u < MOST_DRAFTS {
                t = if mine >= u * (u - 1) / 2 { u } else { t };
                u += 1;
            }
            let s = mine - t * (t - 1) / 2;
            // SAFETY: the caller's promise.
            unsafe {
                let ancestors = warp::broadcast(ancestors, t, 32).to_bits();
                let (mut way, mut u) = (<[f32; ROW]>::NONE, 1);
                while u < count {
                    if u > s && u <= t && ancestors >> u & 1 != 0 {
                        way = way.and(piece::<f32, K>(self.room.decays(self.window.len + u), lane, ROW));
                    }
                    u += 1;
                }
                let [draft, k, q] =
                    [2 * s, 2 * t, 2 * t + 1].map(|vector| piece::<T, K>(self.room.token(vector), lane, ROW));
                let draft = way.on_key(&draft);
                let pair = [k, q].map(|x| reduce::<K>(dot(&draft, &x)));
                if is_pair && lane == 0 {
                    shared::store_f32x2(self.room.draft(s, t), pair);
                }
            }
            first += 2 * warps;
        }
    }

    /// The decays of all records of the elements of the lane's vector `i` of a row.
    ///
    /// # Safety
    /// As for [`Self::sums`].
    #[inline(always)]
    pub(super) unsafe fn whole_of_vector(&self, i: usize) -> [f32; ROW] {
        let at = self.room.whole() + 4 * S::VECTOR as u32 * (4 * i as u32 + lane().1);
        // SAFETY: the caller's promise.
        unsafe {
            if S::VECTOR == 8 {
                return eight(at);
            }
            let [a, b, c, d] = shared::load_f32x4(at);
            [a, b, c, d, 0.0, 0.0, 0.0, 0.0]
        }
    }

    /// The decays behind the lane's records of 16 from record `from` on, of the elements of its column in each tile of vector `i`.
    ///
    /// # Safety
    /// As for [`Self::sums`].
    #[inline(always)]
    pub(super) unsafe fn decays_of_column(&self, from: u32, i: usize) -> [[f32; ROW / 2]; 4] {
        let ((g, t), len) = (lane(), self.window.len);
        core::array::from_fn(|x| {
            let j = from + t + 4 * x as u32;
            let at = self.room.decays(if j < len { j } else { len - 1 }) + 2 * S::VECTOR as u32 * (8 * i as u32 + g);
            // SAFETY: the caller's promise.
            unsafe {
                if S::VECTOR == 8 {
                    return shared::load_f32x4(at);
                }
                let [a, b] = shared::load_f32x2(at);
                [a, b, 0.0, 0.0]
            }
        })
    }
}

/// Eight neighbours of shared memory.
///
/// # Safety
/// They are there, 16-byte aligned.
#[inline(always)]
unsafe fn eight(at: u32) -> [f32; ROW] {
    // SAFETY: the caller's promise.
    let ([a, b, c, d], [e, f, g, h]) = unsafe { (shared::load_f32x4(at), shared::load_f32x4(at + 16)) };
    [a, b, c, d, e, f, g, h]
}

/// Eight f32 as words of pairs of bf16, for each part.
#[inline(always)]
fn in_parts(x: &[f32; ROW]) -> [[u32; 4]; PARTS] {
    let pairs: [[u32; PARTS]; 4] = core::array::from_fn(|i| parts(x[2 * i].to_bits(), x[2 * i + 1].to_bits()));
    core::array::from_fn(|part| core::array::from_fn(|i| pairs[i][part]))
}

/// The first two words of each part, and the others.
#[inline(always)]
fn halves(parts: &[[u32; 4]; PARTS]) -> [[[u32; 2]; PARTS]; 2] {
    [parts.map(|[a, b, _, _]| [a, b]), parts.map(|[_, _, c, d]| [c, d])]
}
