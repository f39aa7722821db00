//! What records and drafts count in each token's sums.

use super::Drafts;
use super::fragment::{AT_ONCE, HALVES, RECORDS, lane, multiply_rows, vectors, words};
use crate::abi::{MOST_DRAFTS, flags};
use crate::arch::{float, shared, thread, warp};
use crate::element::Element;
use crate::entry::is_there;
use crate::gate::Gate;
use crate::math::exp;
use crate::replay::ring::sums_behind;
use crate::replay::step::Ancestors;

impl<G: Gate, S: Element, T: Element, const K: u32, const R: usize, const THREADS: u32>
    Drafts<'_, G, S, T, K, R, THREADS>
{
    /// Warps of the block, and this one's number.
    #[inline(always)]
    pub(super) fn warps() -> (u32, u32) {
        (thread::block_dim_x() / 32, thread::thread_idx_x() / 32)
    }

    /// The first 16 records that the warp multiplies, if there are so many: the first warp has the tokens, and so comes last.
    #[inline(always)]
    fn first_records() -> u32 {
        let (warps, warp) = Self::warps();
        RECORDS * (if warp == 0 { warps } else { warp } - 1)
    }

    /// Whether the warp multiplies records.
    #[inline(always)]
    pub(super) fn multiplies_records(&self) -> bool {
        !G::PER_KEY && Self::first_records() < self.window.len
    }

    /// Leaves coefficients, factors and scalars of up to `4 * B` tokens and of records. `log_decay` is that of the lane's record.
    ///
    /// # Safety
    /// Tokens, records and gates are there, and a barrier passed since. The warp is together, and passes one before it uses what
    /// is left.
    #[inline(always)]
    pub(super) unsafe fn coefficients<const B: usize>(&self, ancestors: Ancestors, log_decay: f32) {
        let (warps, warp) = Self::warps();
        // SAFETY: the caller's promise.
        unsafe {
            if warp == 0 {
                self.tokens::<B>(ancestors.get(is_there(&self.p.parent)));
            }
            if G::PER_KEY {
                self.coefficients_by_key::<B>(ancestors.get(is_there(&self.p.parent)));
            }
            if self.multiplies_records() {
                let (behind, all) = sums_behind(log_decay);
                let mut j = Self::first_records();
                if j == 0 && thread::thread_idx_x().is_multiple_of(32) {
                    shared::store_f32(self.room.whole(), exp(all));
                }
                while j < self.window.len {
                    self.records::<B>(j, behind);
                    j += RECORDS * warps;
                }
            }
        }
    }

    /// What a key or query comes to by its norm, given the sum of its squares.
    #[inline(always)]
    pub(super) fn norm(&self, squares: f32) -> f32 {
        match self.p.layer.flags & flags::L2NORM != 0 {
            true => float::rsqrt(squares + self.p.inputs.eps),
            false => 1.0,
        }
    }

    /// The columns that the lane has a part of, as vectors of tokens, four tokens on each time; that of the last token if there is
    /// none.
    #[inline(always)]
    pub(super) fn columns<const B: usize>(&self) -> [u32; B] {
        let g = lane().0;
        let last = 2 * self.p.tokens - 2 + g % 2;
        core::array::from_fn(|b| {
            let vector = 2 * AT_ONCE * b as u32 + g;
            if vector < last { vector } else { last }
        })
    }

    /// The tokens' decays.
    ///
    /// # Safety
    /// Gates are there.
    #[inline(always)]
    unsafe fn decays<const B: usize>(&self) -> [[f32; AT_ONCE as usize]; B] {
        let last = self.p.tokens - 1;
        if G::PER_KEY {
            // They are in the operands.
            return [[1.0; AT_ONCE as usize]; B];
        }
        core::array::from_fn(|b| {
            core::array::from_fn(|i| {
                let t = AT_ONCE * b as u32 + i as u32;
                // SAFETY: the caller's promise.
                let [decay, _] = unsafe { shared::load_f32x2(self.room.gate(if t < last { t } else { last })) };
                decay
            })
        })
    }

    /// Tokens by tokens: their norms, k q, and what drafts count. Row and column of every product are tokens' keys and queries.
    ///
    /// # Safety
    /// As for [`Self::coefficients`].
    #[inline(always)]
    unsafe fn tokens<const B: usize>(&self, ancestors: f32) {
        let (g, own) = lane();
        let (count, columns) = (self.p.tokens, self.columns::<B>().map(|vector| self.room.token(vector)));
        // SAFETY: the caller's promise.
        unsafe {
            let (decays, mut sums, mut i) = (self.decays::<B>(), [[0.0; 4]; B], 0);
            while i < vectors::<T>() {
                let words: [[u32; 4]; B] = core::array::from_fn(|b| words::<T>(columns[b], i, own));
                sums = multiply_rows::<T, T, B>(sums, [words[0], words[B - 1]], &words);
                i += 1;
            }
            let (mut keys, mut b) = ([0.0; B], 0);
            while b < B {
                let of_own = [sums[b][HALVES * b], sums[b][HALVES * b + 1]];
                // Squares of the lane's token came to the lanes of their own columns.
                let [of_k, of_q] = [4 * (2 * own) + own, 4 * (2 * own + 1) + own];
                let squares = [warp::broadcast(of_own[0], of_k, 32), warp::broadcast(of_own[1], of_q, 32)];
                let kq = warp::broadcast(of_own[1], of_k, 32);
                let [k, q] = squares.map(|squares| self.norm(squares));
                let q = q * self.p.inputs.scale;
                keys[b] = k;

                let t = AT_ONCE * b as u32 + own;
                let is_token = t < count;
                let t = if is_token { t } else { 0 };
                let ancestors = warp::broadcast(ancestors, t, 32).to_bits();
                if g == 0 && is_token {
                    let decay = path(&decays, ancestors, 0, MOST_DRAFTS);
                    let scalars = [k * decay, q * decay, kq * (k * q), f32::from_bits(ancestors)];
                    shared::store_f32x4(self.room.scalars(t), scalars);
                }
                let mut a = 0;
                while a <= b && !G::PER_KEY {
                    let s = AT_ONCE * a as u32 + g / 2;
                    let of_draft = warp::broadcast(keys[a], g / 2, 32);
                    if g.is_multiple_of(2) && is_token && s < t {
                        let factor = of_draft * path(&decays, ancestors, s + 1, MOST_DRAFTS);
                        let [of_k, of_q] = [sums[b][HALVES * a], sums[b][HALVES * a + 1]];
                        let pair = [of_k * (factor * k), of_q * (factor * q)];
                        shared::store_f32x2(self.room.draft(s, t), pair);
                    }
                    a += 1;
                }
                b += 1;
            }
        }
    }

    /// Records by tokens, 16 from record `from` on. A record's norm is its key's product with itself.
    ///
    /// # Safety
    /// As for [`Self::coefficients`].
    #[inline(always)]
    unsafe fn records<const B: usize>(&self, from: u32, behind: f32) {
        let (g, own) = lane();
        let (len, columns) = (self.window.len, self.columns::<B>().map(|vector| self.room.token(vector)));
        let records = [from + g, from + g + 8];
        let keys = records.map(|j| self.room.key(if j < len { j } else { len - 1 }));
        // SAFETY: the caller's promise.
        unsafe {
            let (mut sums, mut squares, mut i) = ([[0.0; 4]; B], [[0.0; 4]; HALVES], 0);
            while i < vectors::<T>() {
                let keys = keys.map(|at| words::<T>(at, i, own));
                let words = core::array::from_fn(|b| words::<T>(columns[b], i, own));
                sums = multiply_rows::<T, T, B>(sums, keys, &words);
                squares = multiply_rows::<T, T, HALVES>(squares, keys, &keys);
                i += 1;
            }
            // They came to the lanes of their own columns.
            let is_even = g.is_multiple_of(2);
            let [[low, after_low, ..], [.., high, after_high]] = squares;
            let squares = [if is_even { low } else { after_low }, if is_even { high } else { after_high }];
            let (mut factors, mut half) = ([0.0; HALVES], 0);
            while half < HALVES {
                let square = warp::broadcast(squares[half], 4 * g + g / 2, 32);
                let j = records[half];
                factors[half] = self.norm(square) * exp(warp::broadcast(behind, j, 32));
                if own == 0 {
                    shared::store_f32(self.room.factor(j), factors[half]);
                }
                half += 1;
            }
            let mut b = 0;
            while b < B {
                let mut half = 0;
                while half < HALVES {
                    let pair = [sums[b][HALVES * half] * factors[half], sums[b][HALVES * half + 1] * factors[half]];
                    let at = self.room.coefficients(records[half], AT_ONCE * b as u32 + own);
                    shared::store_f32x2(at, pair);
                    half += 1;
                }
                b += 1;
            }
        }
    }
}

/// The decay on the way to a token from draft `from` on, its own included. `ancestors` are those that it follows, and itself; none
/// of them is behind draft `last`.
#[inline(always)]
pub(super) fn path<const B: usize>(decays: &[[f32; AT_ONCE as usize]; B], ancestors: u32, from: u32, last: u32) -> f32 {
    let (mut decay, mut u) = (1.0, 0);
    while u < B * AT_ONCE as usize {
        if u as u32 >= from && u as u32 <= last && ancestors >> u & 1 != 0 {
            decay *= decays[u / AT_ONCE as usize][u % AT_ONCE as usize];
        }
        u += 1;
    }
    decay
}
