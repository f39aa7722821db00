//! The sums of a state's rows as products of matrices, on tensor cores, without loss.
//!
//! A warp multiplies 16 rows of the state by up to four tokens at once, eight columns: k and q of the first, of the second and so
//! on, as they came in. Of 16 bits they are exact operands, and so is a state of the same type; the norms are factors on the
//! sums. A state in f32 is the sum of three parts in bf16, each cut off what the ones before leave, and exact: three
//! products instead of one. One token costs what four cost.
//!
//! # How lanes map to data
//!
//! Lane `4 g + t` holds rows g and g + 8, of each every fourth vector of 16 bytes, from the t-th on. Which element of K is which of a
//! product's is free as long as both operands agree, so what was loaded is an operand as it is: nothing is staged or shuffled.
//! The sums of token t, `h k` and `h q` of both rows, come to that lane. So a lane carries two rows for one token in four, and
//! corrections go from token to token by a shuffle.
//!
//! There is no such way with a decay for each key, which is f32 and would be in the operands.

use super::room::{Room, piece_of};
use super::{Ring, Rows, Step};
use crate::abi::{DType, Inputs};
use crate::arch::{compiler, float, matrix, memory, shared, thread, warp};
use crate::element::{Element, ROW};
use crate::gate::{self, Gate};
use crate::keys::Decay;
use crate::layout::{Layout, MOST_ROWS};
use crate::tile::Raw;
use crate::token::{Work, wide};

/// Rows of a lane: those of a product's operand.
const HALVES: usize = 2;
/// Tokens of a product.
const AT_ONCE: u32 = 4;
/// Words of a lane's part of a column: 32 of 128 elements, two a word.
const WORDS: usize = 16;

/// Whether sums are products for these types.
pub(crate) const fn apply<S: Element, T: Element>(per_key: bool, k: u32, rows: usize, tokens: usize) -> bool {
    let is_16_bit = S::VECTOR == 8 && S::DTYPE as u32 == T::DTYPE as u32;
    // One token of an f32 state is faster in multiply-adds.
    let is_split = tokens > 1 && S::VECTOR == 4 && T::DTYPE as u32 == DType::Bf16 as u32;
    !per_key && k == 128 && rows == MOST_ROWS && (is_16_bit || is_split)
}

/// Vectors of 16 bytes that a lane holds of a row.
const fn vectors<S: Element>() -> usize {
    32 / S::VECTOR
}

/// The lane's place: its row of the first eight, and its token.
#[inline(always)]
fn lane() -> (u32, u32) {
    let lane = thread::thread_idx_x() % 32;
    (lane / 4, lane % 4)
}

/// Bytes from the warp's first row to the lane's vector `x`.
#[inline(always)]
fn vector_offset<S: Element>(x: usize, k: u32) -> u64 {
    let (i, half) = (x / HALVES, x % HALVES);
    64 * i as u64 + (8 * half as u32 * k) as u64 * S::SIZE
}

/// Bytes from the warp's first row to the lane's part.
#[inline(always)]
fn lane_offset<S: Element>(k: u32) -> u64 {
    let (g, t) = lane();
    (g * k) as u64 * S::SIZE + 16 * t as u64
}

/// Issues the loads of a warp's rows, from the address of the first: row g's and row g + 8's vectors in turn. Zeros where the
/// condition is false.
///
/// # Safety
/// If the condition is true, the rows are readable and 16-byte aligned.
#[inline(always)]
pub(crate) unsafe fn load_if<S: Element>(condition: bool, first_row: u64, k: u32) -> Raw {
    let (mut raw, mut x) = ([[0; 4]; 2 * MOST_ROWS], 0);
    let at = first_row + lane_offset::<S>(k);
    while x < HALVES * vectors::<S>() {
        // SAFETY: the vector lies in the rows.
        raw[x] = unsafe { memory::load_u32x4_streaming_if(condition, at + vector_offset::<S>(x, k)) };
        x += 1;
    }
    raw
}

/// What a lane needs of its tokens: the words of its column of the first four, and the values of its rows of all, `B` times four.
#[derive(Clone, Copy)]
pub(crate) struct Columns<const B: usize> {
    words: [u32; WORDS],
    values: [[u32; HALVES]; B],
}

impl<const B: usize> Columns<B> {
    pub(crate) const ZEROS: Self = Columns { words: [0; WORDS], values: [[0; HALVES]; B] };

    /// Issues the loads.
    ///
    /// # Safety
    /// The tokens lie in the inputs.
    #[inline(always)]
    pub(crate) unsafe fn ask<S: Element, T: Element, const K: u32>(
        inputs: &Inputs,
        work: &Work,
        v: u32,
        first: u32,
        count: u32,
    ) -> Self {
        let (g, t) = lane();
        // SAFETY: the caller's promise.
        unsafe {
            let words = words::<S, T, K>(inputs, work, first, 0, count);
            let (mut values, mut b) = ([[0; HALVES]; B], 0);
            while b < B {
                let own = AT_ONCE * b as u32 + t;
                let value = wide(first + own, inputs.v_stride)
                    + (work.heads.value * v + work.first_row + g) as u64;
                let mut half = 0;
                while half < HALVES {
                    let at = inputs.v + (value + 8 * half as u64) * T::SIZE;
                    values[b][half] = T::load_bits_if(own < count, at);
                    half += 1;
                }
                b += 1;
            }
            Columns { words, values }
        }
    }
}

/// Issues the loads of the lane's words of its column of the four tokens from `from` on, of `count`; zeros if it is of none.
///
/// # Safety
/// The tokens lie in the inputs.
#[inline(always)]
unsafe fn words<S: Element, T: Element, const K: u32>(
    inputs: &Inputs,
    work: &Work,
    first: u32,
    from: u32,
    count: u32,
) -> [u32; WORDS] {
    let (g, t) = lane();
    let (token, is_key) = (from + g / 2, g % 2 == 0);
    let (address, stride) = if is_key { (inputs.k, inputs.k_stride) } else { (inputs.q, inputs.q_stride) };
    let column = address + (wide(first + token, stride) + (work.heads.key * K) as u64) * T::SIZE;
    // SAFETY: the caller's promise.
    if token < count { unsafe { load_words::<S, T>(column, t) } } else { [0; WORDS] }
}

/// A lane's words of a vector over K of 16-bit elements: the elements that it holds of a row.
///
/// # Safety
/// The vector is readable and 16-byte aligned.
#[inline(always)]
unsafe fn load_words<S: Element, T: Element>(at: u64, t: u32) -> [u32; WORDS] {
    let (mut words, mut i) = ([0; WORDS], 0);
    // SAFETY: the words lie in the vector.
    unsafe {
        if S::VECTOR == 8 {
            while i < WORDS / 4 {
                let vector = memory::load_u32x4(at + 64 * i as u64 + 16 * t as u64);
                [words[4 * i], words[4 * i + 1], words[4 * i + 2], words[4 * i + 3]] = vector;
                i += 1;
            }
        } else {
            while i < WORDS / 2 {
                [words[2 * i], words[2 * i + 1]] = memory::load_u32x2(at + 32 * i as u64 + 8 * t as u64);
                i += 1;
            }
        }
    }
    words
}

/// The product of the rows and the columns. The warp calls it together.
#[inline(always)]
fn product<S: Element, T: Element>(raw: &Raw, words: &[u32; WORDS]) -> [f32; 4] {
    let multiply = |c: [f32; 4], a: [u32; 4], b: [u32; 2]| {
        // SAFETY: the warp is together.
        unsafe {
            match T::DTYPE {
                DType::F16 => matrix::multiply_f16(c, a, b),
                _ => matrix::multiply_bf16(c, a, b),
            }
        }
    };
    let (mut sums, mut i) = ([0.0; 4], 0);
    while i < vectors::<S>() {
        let [low, high] = [raw[HALVES * i], raw[HALVES * i + 1]];
        if S::VECTOR == 8 {
            let b = [words[4 * i], words[4 * i + 1], words[4 * i + 2], words[4 * i + 3]];
            sums = multiply(sums, [low[0], high[0], low[1], high[1]], [b[0], b[1]]);
            sums = multiply(sums, [low[2], high[2], low[3], high[3]], [b[2], b[3]]);
        } else {
            let b = [words[2 * i], words[2 * i + 1]];
            let [l0, l1] = [parts(low[0], low[1]), parts(low[2], low[3])];
            let [h0, h1] = [parts(high[0], high[1]), parts(high[2], high[3])];
            let mut part = 0;
            while part < 3 {
                sums = multiply(sums, [l0[part], h0[part], l1[part], h1[part]], b);
                part += 1;
            }
        }
        i += 1;
    }
    sums
}

/// The same vectors, but nothing that was made of them is kept for what is made of these.
#[inline(always)]
fn anew<S: Element>(mut raw: Raw) -> Raw {
    let mut x = 0;
    while x < HALVES * vectors::<S>() {
        raw[x] = raw[x].map(compiler::opaque);
        x += 1;
    }
    raw
}

/// Two f32 as three pairs of bf16 that add up to them, the least first.
#[inline(always)]
fn parts(x: u32, y: u32) -> [u32; 3] {
    const UPPER: u32 = 0xffff_0000;
    let pair = |x: f32, y: f32| y.to_bits() & UPPER | x.to_bits() >> 16;
    let rest = |x: f32| x - f32::from_bits(x.to_bits() & UPPER);
    let first = [x, y].map(f32::from_bits);
    let second = first.map(rest);
    let third = second.map(rest);
    // What is left has eight bits.
    [float::pack_bf16(third[0], third[1]), pair(second[0], second[1]), pair(first[0], first[1])]
}

impl<
    L: Layout,
    G: Gate,
    S: Element,
    T: Element,
    const K: u32,
    const R: usize,
    const THREADS: u32,
    const TOKENS: usize,
> Step<'_, L, G, S, T, K, R, THREADS, TOKENS>
{
    /// Takes the warp's rows through the tokens; gives the last token's correction of the lane's rows.
    ///
    /// # Safety
    /// Coefficients and corrections are there, and a barrier passed since.
    #[inline(always)]
    pub(super) unsafe fn products<const B: usize>(
        &self,
        rows: &Rows,
        ring: &Ring<G, T, K>,
        raw: &mut Raw,
        columns: &Columns<B>,
        whole: G::Decay,
    ) -> [f32; HALVES] {
        let (g, own) = lane();
        let len = ring.window.len;
        let row = rows.row_of_block + g;
        let (mut sums, mut betas) = ([[0.0; 4]; B], [[0.0; HALVES]; B]);
        let (mut kq, mut ancestors) = ([0.0; B], [0; B]);
        let mut last = [0.0; HALVES];
        // SAFETY: the caller's promise.
        unsafe {
            let mut b = 0;
            while b < B {
                if b > 0 {
                    // The parts of an f32 state would be kept for the next product.
                    *raw = anew::<S>(*raw);
                }
                if AT_ONCE * (b as u32) < self.count {
                    let t = AT_ONCE * b as u32 + own;
                    let is_there = t < self.count;
                    let t = if is_there { t } else { 0 };
                    let at = |j: u32| Room::<G, T, K, R, THREADS, TOKENS>::coefficients(self.shared, t, j);
                    let mut records = [0.0; 4];
                    let mut j = 0;
                    while j < len {
                        let [k, q] = shared::load_f32x2(at(j));
                        let of_row = |half: u32| {
                            shared::load_f32(Room::<G, T, K, R, THREADS, TOKENS>::correction(self.shared, j, row + 8 * half))
                        };
                        let [x, y] = [of_row(0), of_row(1)];
                        records = [
                            float::fma(k, x, records[0]),
                            float::fma(q, x, records[1]),
                            float::fma(k, y, records[2]),
                            float::fma(q, y, records[3]),
                        ];
                        j += 1;
                    }
                    let factors = self.tokens.factors(t);
                    let decay = whole.and(self.path(t, 0)).on_sum();
                    let words = match b {
                        0 => columns.words,
                        _ => words::<S, T, K>(
                            &rows.p.inputs,
                            rows.work,
                            rows.first,
                            AT_ONCE * b as u32,
                            self.count,
                        ),
                    };
                    let product = product::<S, T>(raw, &words);
                    let of_state = [decay * factors.k, decay * factors.q];
                    sums[b] = core::array::from_fn(|i| float::fma(product[i], of_state[i % 2], records[i]));
                    let beta = self.tokens.beta(t);
                    betas[b] = [beta; HALVES];
                    if self.tokens.block().beta_per_value() {
                        betas[b] = core::array::from_fn(|half| {
                            let row = rows.work.heads.value * rows.p.layer.v + rows.first_row + row + 8 * half as u32;
                            let at = wide(rows.first + t, rows.p.gate.b_stride) + row as u64;
                            gate::beta(&rows.p.gate, rows.p.layer.flags, gate::load_beta(&rows.p.gate, at))
                        });
                    }
                    kq[b] = factors.kq;
                    let in_front = self.ancestors(t);
                    ancestors[b] = if is_there { in_front } else { 0 };
                }
                b += 1;
            }
            let mut s = 0;
            while s < self.count {
                let block = (s / AT_ONCE) as usize;
                let mut b = 0;
                while b < B {
                    if b == block {
                        let value = |half: usize| T::widen(columns.values[b][half]);
                        let delta: [f32; HALVES] = core::array::from_fn(|half| {
                            betas[b][half] * (value(half) - sums[b][HALVES * half])
                        });
                        if own == s % AT_ONCE {
                            self.keep(rows, ring, s, row, delta, core::array::from_fn(|half| {
                                float::fma(delta[half], kq[b], sums[b][HALVES * half + 1])
                            }));
                        }
                        let carrier = (thread::thread_idx_x() % 32) / AT_ONCE * AT_ONCE + s % AT_ONCE;
                        last = delta.map(|delta| warp::broadcast(delta, carrier, 32));
                    }
                    b += 1;
                }
                if TOKENS > 1 {
                    let mut b = 0;
                    while b < B {
                        let t = AT_ONCE * b as u32 + own;
                        if t > s && ancestors[b] >> s & 1 != 0 {
                            let draft = Room::<G, T, K, R, THREADS, TOKENS>::draft(s);
                            let at = Room::<G, T, K, R, THREADS, TOKENS>::coefficients(self.shared, t, draft);
                            let [k, q] = shared::load_f32x2(at);
                            let [hk, hq, hk8, hq8] = sums[b];
                            sums[b] = [
                                float::fma(k, last[0], hk),
                                float::fma(q, last[0], hq),
                                float::fma(k, last[1], hk8),
                                float::fma(q, last[1], hq8),
                            ];
                        }
                        b += 1;
                    }
                }
                s += 1;
            }
        }
        last
    }

    /// Stores a token's outputs and corrections of the lane's rows.
    ///
    /// # Safety
    /// As for [`Self::products`].
    #[inline(always)]
    unsafe fn keep(
        &self,
        rows: &Rows,
        ring: &Ring<G, T, K>,
        t: u32,
        row: u32,
        delta: [f32; HALVES],
        out: [f32; HALVES],
    ) {
        let mut half = 0;
        while half < HALVES {
            let row = rows.first_row + row + 8 * half as u32;
            // SAFETY: the caller's promise.
            unsafe {
                rows.out.store::<T>(rows.first + t, rows.work.heads.value * rows.p.layer.v + row, out[half]);
                if rows.appends {
                    memory::store_u32(ring.correction(ring.window.len + t, row), delta[half].to_bits());
                }
            }
            half += 1;
        }
    }

    /// Stores the true state of the warp's rows: with the records, and, if it has one, the token and its correction.
    ///
    /// # Safety
    /// As for [`Self::products`]; the rows are writable.
    #[inline(always)]
    pub(super) unsafe fn fold_products(
        &self,
        rows: &Rows,
        raw: &Raw,
        first_row: u64,
        len: u32,
        whole: f32,
        correction: [f32; HALVES],
    ) {
        let (g, t) = lane();
        let row = rows.row_of_block + g;
        let at = first_row + lane_offset::<S>(K);
        // The lane's elements of its two rows, a vector of each in turn.
        let raw = anew::<S>(*raw);
        let (mut elements, mut x) = ([[0.0; ROW]; 2 * MOST_ROWS], 0);
        while x < HALVES * vectors::<S>() {
            elements[x] = S::widen_vector(raw[x]).map(|element| element * whole);
            x += 1;
        }
        let bytes = t * Self::CHUNK;
        // SAFETY: the caller's promise.
        unsafe {
            let mut j = 0;
            while j < len {
                let factor = shared::load_f32(Room::<G, T, K, R, THREADS, TOKENS>::factor(self.shared, j));
                let key = Room::<G, T, K, R, THREADS, TOKENS>::key(self.shared, j) + bytes;
                let [low, high] = [0, 8].map(|half| {
                    let at = Room::<G, T, K, R, THREADS, TOKENS>::correction(self.shared, j, row + half);
                    factor * shared::load_f32(at)
                });
                add::<S>(&mut elements, [low, high], |i| piece_of::<T>(key + 4 * i * Self::CHUNK, S::VECTOR));
                j += 1;
            }
            if TOKENS == 1 {
                let inputs = &rows.p.inputs;
                let key = wide(rows.first, inputs.k_stride) + (rows.work.heads.key * K) as u64;
                let key = inputs.k + key * T::SIZE + bytes as u64;
                let factor = self.tokens.factors(0).k;
                let of_rows = correction.map(|correction| correction * factor);
                add::<S>(&mut elements, of_rows, |i| load_vector::<T>(key + (4 * i * Self::CHUNK) as u64, S::VECTOR));
            }
            let mut x = 0;
            while x < HALVES * vectors::<S>() {
                memory::store_u32x4_streaming(at + vector_offset::<S>(x, K), S::pack_vector(&elements[x]));
                x += 1;
            }
        }
    }

    /// Bytes of the elements of a key that a lane has of each of its vectors.
    const CHUNK: u32 = S::VECTOR as u32 * T::SIZE as u32;
}

/// Adds to the lane's elements of both rows so much of a key, whose part beside vector `i` `key` gives.
#[inline(always)]
fn add<S: Element>(elements: &mut [[f32; ROW]; 2 * MOST_ROWS], of_rows: [f32; HALVES], key: impl Fn(u32) -> [f32; ROW]) {
    let mut i = 0;
    while i < vectors::<S>() {
        let key = key(i as u32);
        let mut e = 0;
        while e < S::VECTOR {
            elements[HALVES * i][e] = float::fma(of_rows[0], key[e], elements[HALVES * i][e]);
            elements[HALVES * i + 1][e] = float::fma(of_rows[1], key[e], elements[HALVES * i + 1][e]);
            e += 1;
        }
        i += 1;
    }
}

/// `count` neighbouring 16-bit elements in memory.
///
/// # Safety
/// They are readable and aligned to their bytes.
#[inline(always)]
unsafe fn load_vector<T: Element>(at: u64, count: usize) -> [f32; ROW] {
    // SAFETY: the caller's promise.
    let words = unsafe {
        if count == 8 {
            memory::load_u32x4(at)
        } else {
            let [x, y] = memory::load_u32x2(at);
            [x, y, 0, 0]
        }
    };
    T::widen_vector(words)
}
