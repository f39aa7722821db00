//! A warp's rows on their way through the tokens.

use super::{Drafts, RoomOfProducts};
use super::fold::CHUNKS;
use super::fragment::{
    self, AT_ONCE, HALVES, HELD, LANE_ROWS, MOST_UNITS, PARTS, Pairs, both, lane, lane_rows, multiply_in_parts,
    multiply_rows, own_words, team_rows, units, vectors, words,
};
use crate::abi::{Inputs, flags};
use crate::arch::{float, memory, shared, warp};
use crate::element::Element;
use crate::gate::{self, Gate};
use crate::replay::step::over_records;
use crate::token::{Output, Work, wide};

/// The values of a lane's rows, of its token of each four: two a word.
#[derive(Clone, Copy)]
pub(super) struct Values<const B: usize>([[u32; LANE_ROWS / 2]; B]);

/// Whether elements of 16 bits at `at`, with so many from one token to the next, may be taken in words.
#[inline(always)]
fn are_words(at: u64, stride: u32) -> bool {
    (at as u32 | stride << 1).is_multiple_of(4)
}

impl<const B: usize> Values<B> {
    /// None, yet.
    pub(super) const NONE: Self = Values([[0; LANE_ROWS / 2]; B]);

    /// Issues the loads, of `4 * B` tokens at most.
    ///
    /// # Safety
    /// The tokens lie in the inputs.
    #[inline(always)]
    pub(super) unsafe fn ask<T: Element, const R: usize>(
        inputs: &Inputs,
        work: &Work,
        v: u32,
        first: u32,
        count: u32,
    ) -> Self {
        let (g, t) = lane();
        let row = work.heads.value * v + work.first_row + lane_rows(R) * g;
        let (mut values, mut b) = ([[0; LANE_ROWS / 2]; B], 0);
        let are_words = are_words(inputs.v, inputs.v_stride);
        while b < B {
            let own = AT_ONCE * b as u32 + t;
            let at = inputs.v + (wide(first + own, inputs.v_stride) + row as u64) * T::SIZE;
            let mut x = 0;
            while x < lane_rows(R) as usize / 2 {
                // SAFETY: the caller's promise.
                values[b][x] = unsafe { memory::load_u32_if(are_words & (own < count), at + 4 * x as u64) };
                x += 1;
            }
            if !are_words {
                let mut x = 0;
                while x < lane_rows(R) as usize / 2 {
                    let at = at + 4 * x as u64;
                    // SAFETY: the caller's promise.
                    let [low, high] = [at, at + 2].map(|at| unsafe { memory::load_u16_if(own < count, at) });
                    values[b][x] = high << 16 | low;
                    x += 1;
                }
            }
            b += 1;
        }
        Values(values)
    }

    /// The value of a row.
    #[inline(always)]
    fn get<T: Element>(&self, b: usize, row: usize) -> f32 {
        let word = self.0[b][row / 2];
        T::widen(if row.is_multiple_of(2) { word & 0xffff } else { word >> 16 })
    }
}

/// Products of the lane's units and four tokens at a time.
pub(super) type OfState<const B: usize> = [[[f32; 4]; MOST_UNITS]; B];

/// Sums of a token, `h k` and `h q` of each of the lane's rows.
pub(super) type Sums = [[f32; 2]; LANE_ROWS];

impl<G: Gate, S: Element, T: Element, const K: u32, const R: usize, const THREADS: u32>
    Drafts<'_, G, S, T, K, R, THREADS>
{
    /// The lane's first row of the block.
    #[inline(always)]
    pub(super) fn row_of_block(&self) -> u32 {
        self.work.place.team() * team_rows(R) + lane_rows(R) * lane().0
    }

    /// The products of the lane's rows and the tokens; also stores the true state of those rows if it `FOLDS`. `pairs` is what
    /// [`fragment::load`] gave of the first ones.
    ///
    /// # Safety
    /// As for [`Self::take`], and to fold as for [`Self::fold`].
    #[inline(always)]
    pub(super) unsafe fn of_state<const B: usize, const FOLDS: bool>(&self, mut pairs: Pairs, fresh: bool) -> OfState<B> {
        // Where there are registers for it, the next pair is asked for as soon as one was used, and not with all that are held.
        let rolls = !G::PER_KEY && S::VECTOR == 8 && B == 1;
        let mut corrections = [[[0; 4]; PARTS]; CHUNKS];
        let (own, mut sums) = (lane().1, [[[0.0; 4]; MOST_UNITS]; B]);
        let columns = self.columns::<B>().map(|vector| match G::PER_KEY {
            true => self.room.operand(vector),
            false => self.room.token(vector),
        });
        pairs = fragment::anew(pairs);
        let (mut of_unit, mut first) = ([[[0.0; 4]; 2]; B], 0);
        while first < fragment::pairs::<S>(R) {
            // SAFETY: the caller's promise.
            unsafe {
                if first > 0 && !rolls && !fresh {
                    pairs = fragment::load::<S, K>(self.state_at(), first);
                }
                let (place, mut b) = (|x: usize| ((first + x) / vectors::<S>(), (first + x) % vectors::<S>()), 0);
                while b < B && G::PER_KEY {
                    let (mut words, mut x) = ([[0; 4]; PARTS], 0);
                    while x < HELD {
                        let (unit, i) = place(x);
                        if S::VECTOR == 8 || i.is_multiple_of(2) {
                            let part = |part: usize| part as u32 * RoomOfProducts::<G, K, R, THREADS>::PART;
                            words = core::array::from_fn(|x| own_words::<S>(columns[b] + part(x), i, own));
                        } else {
                            words = words.map(|[_, _, a, b]| [a, b, 0, 0]);
                        }
                        let before = if i == 0 { [[0.0; 4]; 2] } else { of_unit[b] };
                        of_unit[b] = multiply_in_parts::<S>(before, pairs[x], &words);
                        sums[b][unit] = both(of_unit[b]);
                        x += 1;
                    }
                    b += 1;
                }
                let mut x = 0;
                while x < HELD && !G::PER_KEY {
                    let (unit, i) = place(x);
                    let words = core::array::from_fn(|b| words::<S>(columns[b], i, own));
                    let before = core::array::from_fn(|b| sums[b][unit]);
                    let after = multiply_rows::<S, T, B>(before, pairs[x], &words);
                    let mut b = 0;
                    while b < B {
                        sums[b][unit] = after[b];
                        b += 1;
                    }
                    if FOLDS {
                        self.fold(first + x, pairs[x], &mut corrections);
                        // One pair's registers are free before the next takes them.
                        warp::sync_warp();
                    }
                    if rolls && first + x + HELD < fragment::pairs::<S>(R) && !fresh {
                        pairs[x] = fragment::load_pair::<S, K>(self.state_at(), first + x + HELD);
                    }
                    x += 1;
                }
            }
            first += HELD;
        }
        sums
    }

    /// The sums of the lane's rows, of state and records: `h k` and `h q` of its token of each four, with all factors.
    ///
    /// # Safety
    /// As for [`Self::take`]; coefficients are there, and a barrier passed since.
    #[inline(always)]
    pub(super) unsafe fn sums<const B: usize>(&self, of_state: OfState<B>) -> [Sums; B] {
        // SAFETY: the caller's promise.
        unsafe {
            let (whole, mut sums, mut b) = (self.whole(), [[[0.0; 2]; LANE_ROWS]; B], 0);
            while b < B {
                sums[b] = self.records_of_rows(b);
                let [of_k, of_q, _, _] = shared::load_f32x4(self.room.scalars(self.own(b)));
                let mut row = 0;
                while row < lane_rows(R) as usize {
                    let [k, q] = sums[b][row];
                    let half = row % HALVES * 2;
                    let product = of_state[b][row / HALVES];
                    sums[b][row] =
                        [float::fma(product[half], whole, k) * of_k, float::fma(product[half + 1], whole, q) * of_q];
                    row += 1;
                }
                b += 1;
            }
            sums
        }
    }

    /// The decay of all records, if keys have none of their own.
    ///
    /// # Safety
    /// As for [`Self::sums`].
    #[inline(always)]
    pub(super) unsafe fn whole(&self) -> f32 {
        // SAFETY: the caller's promise.
        if self.window.len > 0 && !G::PER_KEY { unsafe { shared::load_f32(self.room.whole()) } } else { 1.0 }
    }

    /// The lane's token of the `b`-th four; the first one if there is none.
    #[inline(always)]
    fn own(&self, b: usize) -> u32 {
        let t = AT_ONCE * b as u32 + lane().1;
        if t < self.p.tokens { t } else { 0 }
    }

    /// What the records count in the sums of the lane's rows, but for the token's factors.
    ///
    /// # Safety
    /// As for [`Self::sums`].
    #[inline(always)]
    unsafe fn records_of_rows(&self, b: usize) -> Sums {
        let (t, row) = (self.own(b), self.row_of_block());
        // SAFETY: the caller's promise.
        let ask = |j: u32| unsafe {
            (shared::load_f32x2(self.room.coefficients(j, t)), self.corrections(j, row))
        };
        over_records(self.window.len, [[0.0; 2]; LANE_ROWS], ask, |sums, (pair, corrections)| {
            add(sums, pair, corrections)
        })
    }

    /// A record's corrections of the lane's rows.
    ///
    /// # Safety
    /// As for [`Self::sums`].
    #[inline(always)]
    unsafe fn corrections(&self, j: u32, row: u32) -> [f32; LANE_ROWS] {
        let (mut all, mut x) = ([0.0; LANE_ROWS], 0);
        while x < lane_rows(R) as usize {
            let at = self.room.correction(j, row + x as u32);
            // SAFETY: the caller's promise.
            unsafe {
                if units(R) > 1 {
                    [all[x], all[x + 1], all[x + 2], all[x + 3]] = shared::load_f32x4(at);
                    x += 4;
                } else {
                    [all[x], all[x + 1]] = shared::load_f32x2(at);
                    x += 2;
                }
            }
        }
        all
    }

    /// Corrections of the lane's rows at its token, given the sums.
    #[inline(always)]
    fn correct<const B: usize>(&self, b: usize, sums: &[Sums; B], betas: &[[f32; LANE_ROWS]; B], values: &Values<B>) -> [f32; LANE_ROWS] {
        core::array::from_fn(|row| match row < lane_rows(R) as usize {
            true => betas[b][row] * (values.get::<T>(b, row) - sums[b][row][0]),
            false => 0.0,
        })
    }

    /// Beta of the lane's rows at token `t`.
    ///
    /// # Safety
    /// As for [`Self::sums`].
    #[inline(always)]
    unsafe fn betas(&self, t: u32) -> [f32; LANE_ROWS] {
        let (p, work) = (self.p, &self.work);
        // SAFETY: the caller's promise.
        unsafe {
            if p.layer.flags & flags::BETA_PER_VALUE == 0 {
                let [_, beta] = shared::load_f32x2(self.room.gate(t));
                return [beta; LANE_ROWS];
            }
            let at = wide(work.n * p.tokens + t, p.gate.b_stride);
            let row = work.heads.value * p.layer.v + work.first_row + lane_rows(R) * lane().0;
            core::array::from_fn(|r| match r < lane_rows(R) as usize {
                true => {
                    let beta = gate::load_beta(&p.gate, at + (row + r as u32) as u64);
                    gate::beta(&p.gate, p.layer.flags, beta)
                }
                false => 0.0,
            })
        }
    }

    /// Drafts in front of a token count in its sums; then its outputs and corrections are known. A token's corrections come from
    /// the lane that carries it.
    ///
    /// # Safety
    /// As for [`Self::sums`].
    #[inline(always)]
    pub(super) unsafe fn token_by_token<const B: usize>(&self, mut sums: [Sums; B], values: Values<B>) {
        let (g, own) = lane();
        let count = self.p.tokens;
        let (mut betas, mut of_kq, mut ancestors) = ([[0.0; LANE_ROWS]; B], [0.0; B], [0; B]);
        // SAFETY: the caller's promise.
        unsafe {
            let mut b = 0;
            while b < B {
                let t = self.own(b);
                betas[b] = self.betas(t);
                let [_, _, kq, bits] = shared::load_f32x4(self.room.scalars(t));
                of_kq[b] = kq;
                ancestors[b] = if AT_ONCE * b as u32 + own < count { bits.to_bits() } else { 0 };
                b += 1;
            }
            let mut s = 0;
            while s + 1 < AT_ONCE * B as u32 {
                // Nothing follows the last one.
                if s + 1 < count {
                    let first = (s / AT_ONCE) as usize;
                    let carrier = 4 * g + s % AT_ONCE;
                    let deltas = self.correct(first, &sums, &betas, &values).map(|x| warp::broadcast(x, carrier, 32));
                    let mut b = first;
                    while b < B {
                        let t = AT_ONCE * b as u32 + own;
                        if t > s && ancestors[b] >> s & 1 != 0 {
                            sums[b] = add(sums[b], self.of_draft(s, t), deltas);
                        }
                        b += 1;
                    }
                }
                s += 1;
            }
            let mut b = 0;
            while b < B {
                let t = AT_ONCE * b as u32 + own;
                if t < count {
                    let deltas = self.correct(b, &sums, &betas, &values);
                    let out = core::array::from_fn(|row| float::fma(deltas[row], of_kq[b], sums[b][row][1]));
                    self.keep(t, deltas, out);
                }
                b += 1;
            }
        }
    }

    /// What draft `s` counts in the sums of token `t`, with all factors.
    ///
    /// # Safety
    /// As for [`Self::sums`].
    #[inline(always)]
    unsafe fn of_draft(&self, s: u32, t: u32) -> [f32; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let [k, q] = shared::load_f32x2(self.room.draft(s, t));
            if !G::PER_KEY {
                return [k, q];
            }
            let [of_draft, ..] = shared::load_f32x4(self.room.scalars(s));
            let [of_k, of_q, ..] = shared::load_f32x4(self.room.scalars(t));
            [k * (of_draft * of_k), q * (of_draft * of_q)]
        }
    }

    /// Stores a token's outputs and corrections of the lane's rows.
    ///
    /// # Safety
    /// As for [`Self::sums`].
    #[inline(always)]
    unsafe fn keep(&self, t: u32, deltas: [f32; LANE_ROWS], out: [f32; LANE_ROWS]) {
        let p = self.p;
        let (row, token) = (self.work.first_row + lane_rows(R) * lane().0, self.work.n * p.tokens + t);
        let is_f32 = p.layer.flags & flags::OUT_F32 != 0;
        let output = Output { out: p.out, stride: p.out_stride, is_f32, stores: true };
        let of_token = self.work.heads.value * p.layer.v + row;
        // SAFETY: the caller's promise.
        unsafe {
            if !is_f32 && are_words(p.out, p.out_stride) {
                let at = p.out + (wide(token, p.out_stride) + of_token as u64) * T::SIZE;
                let mut x = 0;
                while x < lane_rows(R) as usize / 2 {
                    let [word, ..] = T::pack_vector(&core::array::from_fn(|e| if e < 2 { out[2 * x + e] } else { 0.0 }));
                    memory::store_u32(at + 4 * x as u64, word);
                    x += 1;
                }
            } else {
                let mut x = 0;
                while x < lane_rows(R) as usize {
                    output.store::<T>(token, of_token + x as u32, out[x]);
                    x += 1;
                }
            }
            let (deltas, mut x) = (deltas.map(f32::to_bits), 0);
            let at = self.ring().correction(self.window.len + t, row);
            while x < lane_rows(R) as usize {
                let at = at + 4 * x as u64;
                if units(R) > 1 {
                    memory::store_u32x4(at, [deltas[x], deltas[x + 1], deltas[x + 2], deltas[x + 3]]);
                    x += 4;
                } else {
                    memory::store_u32x2(at, [deltas[x], deltas[x + 1]]);
                    x += 2;
                }
            }
        }
    }
}

/// Adds what corrections of the lane's rows count in a token's sums by its two coefficients.
#[inline(always)]
fn add(mut sums: Sums, [k, q]: [f32; 2], corrections: [f32; LANE_ROWS]) -> Sums {
    let mut row = 0;
    while row < LANE_ROWS {
        sums[row] = [float::fma(k, corrections[row], sums[row][0]), float::fma(q, corrections[row], sums[row][1])];
        row += 1;
    }
    sums
}
