//! The fold: the decayed state and the records, stored.
//!
//! What 16 records add is a product of their corrections, rows by records, and their keys, records by K. A key of 16 bits is an
//! exact operand, a correction is the sum of three parts in bf16; beside a state of 16 bits, which is rounded to 8 or 11 of them,
//! of two, which leave 2^-16 of it. (f16 has fewer powers of two than corrections, so its keys are cut in two parts of bf16.) The
//! product is rounded once more where it is added to the decayed state.
//!
//! Which element of K is which column is free again: column `2 t + e` of tile m of a lane's vector is element
//! `VECTOR / 2 * e + m` of lane t's, so that its column's elements lie side by side. Record `t + 4 x` is a lane's x-th.

use super::Drafts;
use super::fragment::{
    self, HALVES, HELD, PARTS, RECORDS, lane, multiply, pair_of_lower, pair_of_upper, parts, rest, vector_offset, vectors,
};
use crate::abi::{DType, MOST_RECORDS};
use crate::arch::{float, memory, shared, warp};
use crate::element::{Element, ROW};
use crate::gate::Gate;
use half::bf16;

/// Records of a lane in a product.
const OWN: usize = 4;
/// Products that the records of a ring take.
pub(super) const CHUNKS: usize = (MOST_RECORDS / RECORDS) as usize;

/// A unit's corrections as a product's rows, for each part.
pub(super) type Corrections = [[u32; 4]; PARTS];

impl<G: Gate, S: Element, T: Element, const K: u32, const R: usize, const THREADS: u32>
    Drafts<'_, G, S, T, K, R, THREADS>
{
    /// Stores the true state of the rows, which are loaded once more.
    ///
    /// # Safety
    /// As for [`Self::sums`]; the rows are writable.
    #[inline(always)]
    pub(super) unsafe fn fold_rows(&self, fresh: bool) {
        let (mut pairs, mut corrections, mut pair) = (fragment::ZEROS, [[[0; 4]; PARTS]; CHUNKS], 0);
        while pair < fragment::pairs::<S>(R) {
            // SAFETY: the caller's promise.
            unsafe {
                if pair.is_multiple_of(HELD) && !fresh && !G::PER_KEY {
                    pairs = fragment::load::<S, K>(self.state_at(), pair);
                }
                if G::PER_KEY && !fresh {
                    // Parts of keys take the registers.
                    pairs[pair % HELD] = fragment::load_pair::<S, K>(self.state_at(), pair);
                }
                self.fold(pair, pairs[pair % HELD], &mut corrections);
                // One pair's registers are free before the next takes them.
                warp::sync_warp();
            }
            pair += 1;
        }
    }

    /// Stores the true state of a pair of the rows' vectors, `loaded`. `corrections` are those of its unit, which the unit's first
    /// pair leaves there.
    ///
    /// # Safety
    /// As for [`Self::sums`]; the rows are writable.
    #[inline(always)]
    pub(super) unsafe fn fold(&self, pair: usize, loaded: [[u32; 4]; HALVES], corrections: &mut [Corrections; CHUNKS]) {
        let (unit, i) = (pair / vectors::<S>(), pair % vectors::<S>());
        let (mut sums, mut chunk) = ([[0.0; 4]; ROW / 2], 0);
        // SAFETY: the caller's promise.
        unsafe {
            let whole = self.whole();
            while chunk < if G::PER_KEY { 1 } else { CHUNKS } {
                let from = RECORDS * chunk as u32;
                if from < self.window.len {
                    if i == 0 {
                        corrections[chunk] = self.corrections_of_unit(from, unit);
                    }
                    sums = self.add_keys(sums, &corrections[chunk], from, i);
                }
                chunk += 1;
            }
            let (decays, mut half) = (if G::PER_KEY { self.whole_of_vector(i) } else { [whole; ROW] }, 0);
            while half < HALVES {
                let elements = S::widen_vector(loaded[half]);
                let elements = core::array::from_fn(|x| {
                    let (e, m) = (x / (S::VECTOR / 2), x % (S::VECTOR / 2));
                    match x < S::VECTOR {
                        true => float::fma(elements[x], decays[x], sums[m][2 * half + e]),
                        false => 0.0,
                    }
                });
                let at = self.state_at() + vector_offset::<S>(pair, half, K);
                memory::store_u32x4_streaming(at, S::pack_vector(&elements));
                half += 1;
            }
        }
    }

    /// The unit's corrections of 16 records from record `from` on, with the factors on them; zeros where there is none.
    ///
    /// # Safety
    /// As for [`Self::sums`].
    #[inline(always)]
    unsafe fn corrections_of_unit(&self, from: u32, unit: usize) -> Corrections {
        let (len, row) = (self.window.len, self.row_of_block() + (HALVES * unit) as u32);
        let (mut own, mut x) = ([[0.0; HALVES]; OWN], 0);
        while x < OWN {
            let j = from + lane().1 + OWN as u32 * x as u32;
            let or_last = if j < len { j } else { len - 1 };
            // SAFETY: the caller's promise.
            let (factor, both) = unsafe {
                (shared::load_f32(self.room.factor(or_last)), shared::load_f32x2(self.room.correction(or_last, row)))
            };
            own[x] = both.map(|correction| if j < len { factor * correction } else { 0.0 });
            x += 1;
        }
        let pairs = |half: usize, x: usize| correction_parts::<G, S>(own[x][half], own[x + 1][half]);
        let [a, b, c, d] = [pairs(0, 0), pairs(1, 0), pairs(0, 2), pairs(1, 2)];
        core::array::from_fn(|part| [a[part], b[part], c[part], d[part]])
    }

    /// `sums` of each tile of the lane's vector `i`, and the products of corrections and keys of 16 records from record `from` on.
    ///
    /// # Safety
    /// As for [`Self::sums`].
    #[inline(always)]
    unsafe fn add_keys(&self, mut sums: [[f32; 4]; ROW / 2], corrections: &Corrections, from: u32, i: usize) -> [[f32; 4]; ROW / 2] {
        let (g, t) = lane();
        let len = self.window.len;
        // Words of the lane's column in each of its records.
        let (mut words, mut x) = ([[0; 2]; OWN], 0);
        while x < OWN {
            let j = from + t + OWN as u32 * x as u32;
            let key = self.room.key(if j < len { j } else { len - 1 });
            // SAFETY: the caller's promise.
            words[x] = unsafe {
                if S::VECTOR == 8 {
                    shared::load_f32x2(key + 64 * i as u32 + 8 * g).map(f32::to_bits)
                } else {
                    [shared::load_f32(key + 32 * i as u32 + 4 * g).to_bits(), 0]
                }
            };
            x += 1;
        }
        let mut decays = [[0.0; ROW / 2]; OWN];
        if G::PER_KEY {
            // SAFETY: the caller's promise.
            decays = unsafe { self.decays_of_column(from, i) };
        }
        let mut m = 0;
        while m < S::VECTOR / 2 {
            let pair = |x: usize| {
                let (a, b) = (words[x][m / 2], words[x + 1][m / 2]);
                let pair = if m.is_multiple_of(2) { pair_of_lower(a, b) } else { pair_of_upper(a, b) };
                if !G::PER_KEY {
                    return in_bf16::<T>(pair);
                }
                let [a, b] = [pair & 0xffff, pair >> 16].map(T::widen);
                parts((a * decays[x][m]).to_bits(), (b * decays[x + 1][m]).to_bits())
            };
            let [low, high] = [pair(0), pair(2)];
            let mut of_key = 0;
            while of_key < key_parts::<G, T>() {
                // What is below 2^-24 of the product is left out.
                let mut part = if G::PER_KEY { PARTS - 1 - of_key } else { first_part::<G, S>() };
                while part < PARTS {
                    sums[m] = multiply::<bf16>(sums[m], corrections[part], [low[of_key], high[of_key]]);
                    part += 1;
                }
                of_key += 1;
            }
            m += 1;
        }
        sums
    }
}

/// Whether blocks that fold do so beside the products of state and tokens, while the state is in registers. Four tokens and a state
/// in f32 are products of three parts: there it takes less time to load the state once more behind them. With a decay for each
/// key parts of keys take the registers.
#[inline(always)]
pub(super) const fn folds_with_products<G: Gate, S: Element, const B: usize>() -> bool {
    !G::PER_KEY && (S::VECTOR == 8 || B > 1)
}

/// The first of the parts of a correction that count: the least is left out beside a state of 16 bits.
#[inline(always)]
const fn first_part<G: Gate, S: Element>() -> usize {
    if S::VECTOR == 8 && !G::PER_KEY { 1 } else { 0 }
}

/// Two corrections as pairs of bf16, the least first.
#[inline(always)]
fn correction_parts<G: Gate, S: Element>(x: f32, y: f32) -> [u32; PARTS] {
    match first_part::<G, S>() {
        0 => parts(x.to_bits(), y.to_bits()),
        _ => [0, float::pack_bf16(rest(x), rest(y)), pair_of_upper(x.to_bits(), y.to_bits())],
    }
}

/// Parts of a key.
const fn key_parts<G: Gate, T: Element>() -> usize {
    if G::PER_KEY {
        PARTS
    } else if T::DTYPE as u32 == DType::F16 as u32 { 2 } else { 1 }
}

/// Two elements of keys as pairs of bf16 that add up to them, the least first.
#[inline(always)]
fn in_bf16<T: Element>(pair: u32) -> [u32; PARTS] {
    match T::DTYPE {
        DType::F16 => {
            let [x, y] = [pair & 0xffff, pair >> 16].map(|x| T::widen(x).to_bits());
            // Eleven bits are two parts.
            let [_, second, first] = parts(x, y);
            [second, first, 0]
        }
        _ => [pair, 0, 0],
    }
}
