//! The sums of a state's rows as products of matrices, on tensor cores, without loss.
//!
//! A warp multiplies 16 rows of the state by up to four tokens at once, eight columns: k and q of the first, of the second and so
//! on, as they came in. Of 16 bits they are exact operands, and so is a state of the same type; the norms are factors on the
//! sums. A state in f32 is the sum of three parts in bf16, each cut off what the ones before leave, and exact: three
//! products instead of one. One token costs what four cost, so a single one is left to multiply-adds. Keys of records and
//! drafts are multiplied by the same columns.
//!
//! # How lanes map to data
//!
//! Lane `4 g + t` holds rows g and g + 8, of each every fourth vector of 16 bytes, from the t-th on. Which element of K is which of a
//! product's is free as long as both operands agree, so what was loaded is an operand as it is: nothing is staged or shuffled. The sums of token t, `h k` and `h q` of both rows, come to that lane. So a lane carries two rows for one token in four, and
//! corrections go from token to token by a shuffle.
//!
//! There is no such way with a decay for each key, which is f32 and would be in the operands.

use crate::abi::{DType, Inputs};
use crate::arch::{compiler, float, matrix, memory, shared, thread};
use crate::element::Element;
use crate::gate::Gate;
use crate::layout::{Layout, MOST_ROWS};
use crate::prepare::Tokens;
use crate::tile::Raw;
use crate::token::{Work, wide};

/// Rows of a lane: those of a product's operand.
pub(super) const HALVES: usize = 2;
/// Tokens of a product.
pub(super) const AT_ONCE: u32 = 4;
/// Words of a lane's part of a column: 32 of 128 elements, two a word.
pub(super) const WORDS: usize = 16;

/// Whether sums are products for these types.
pub(crate) const fn apply<S: Element, T: Element>(per_key: bool, k: u32, rows: usize, tokens: usize) -> bool {
    let is_same = S::VECTOR == 8 && S::DTYPE as u32 == T::DTYPE as u32;
    let is_split = S::VECTOR == 4 && T::DTYPE as u32 == DType::Bf16 as u32;
    tokens > 1 && !per_key && k == 128 && rows == MOST_ROWS && (is_same || is_split)
}

/// Vectors of 16 bytes that a lane holds of a row.
pub(super) const fn vectors<S: Element>() -> usize {
    32 / S::VECTOR
}

/// The lane's place: its row of the first eight, and its token.
#[inline(always)]
pub(super) fn lane() -> (u32, u32) {
    let lane = thread::thread_idx_x() % 32;
    (lane / 4, lane % 4)
}

/// Bytes from the warp's first row to the lane's vector `x`.
#[inline(always)]
pub(super) fn vector_offset<S: Element>(x: usize, k: u32) -> u64 {
    let (i, half) = (x / HALVES, x % HALVES);
    64 * i as u64 + (8 * half as u32 * k) as u64 * S::SIZE
}

/// Bytes from the warp's first row to the lane's part.
#[inline(always)]
pub(super) fn lane_offset<S: Element>(k: u32) -> u64 {
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

/// The values of a lane's rows, of its token of each four.
#[derive(Clone, Copy)]
pub(crate) struct Values<const B: usize>(pub(super) [[u32; HALVES]; B]);

impl<const B: usize> Values<B> {
    pub(crate) const ZEROS: Self = Values([[0; HALVES]; B]);

    /// Issues the loads.
    ///
    /// # Safety
    /// The tokens lie in the inputs.
    #[inline(always)]
    pub(crate) unsafe fn ask<T: Element>(inputs: &Inputs, work: &Work, v: u32, first: u32, count: u32) -> Self {
        let (g, t) = lane();
        let (mut values, mut b) = ([[0; HALVES]; B], 0);
        while b < B {
            let own = AT_ONCE * b as u32 + t;
            let value = wide(first + own, inputs.v_stride) + (work.heads.value * v + work.first_row + g) as u64;
            let mut half = 0;
            while half < HALVES {
                let at = inputs.v + (value + 8 * half as u64) * T::SIZE;
                // SAFETY: the caller's promise.
                values[b][half] = unsafe { T::load_bits_if(own < count, at) };
                half += 1;
            }
            b += 1;
        }
        Values(values)
    }
}

/// Begins to copy the tokens' keys and queries as they came in to shared memory.
///
/// # Safety
/// The tokens lie in the inputs; the room of prepared tokens is there.
#[inline(always)]
pub(crate) unsafe fn ask_keys<L: Layout, G: Gate, S: Element, T: Element, const K: u32, const R: usize>(
    tokens: &Tokens<S, L, T, G, K, R>,
    first: u32,
    count: u32,
) {
    const VECTORS: u32 = 16;
    let (inputs, head) = (tokens.block().inputs, (tokens.block().work.heads.key * K) as u64);
    let mut i = thread::thread_idx_x();
    while i < count * 2 * VECTORS {
        let (t, is_key, x) = (i / (2 * VECTORS), (i / VECTORS).is_multiple_of(2), i % VECTORS * 16);
        let (at, stride) = if is_key { (inputs.k, inputs.k_stride) } else { (inputs.q, inputs.q_stride) };
        let from = at + (wide(first + t, stride) + head) * T::SIZE + x as u64;
        // SAFETY: the caller's promise.
        unsafe { shared::begin_copy(tokens.unprepared(t, is_key) + x, from) };
        i += thread::block_dim_x();
    }
}

/// `sums` and a product of two lane's rows with a column, 16 elements of K. The warp calls it together.
#[inline(always)]
fn multiply<T: Element>(sums: [f32; 4], rows: [u32; 4], column: [u32; 2]) -> [f32; 4] {
    // SAFETY: the warp is together.
    unsafe {
        match T::DTYPE {
            DType::F16 => matrix::multiply_f16(sums, rows, column),
            _ => matrix::multiply_bf16(sums, rows, column),
        }
    }
}

/// The product of the state's rows and the columns. The warp calls it together.
#[inline(always)]
pub(super) fn product<S: Element, T: Element>(raw: &Raw, words: &[u32; WORDS]) -> [f32; 4] {
    let (mut sums, mut i) = ([0.0; 4], 0);
    while i < vectors::<S>() {
        let [low, high] = [raw[HALVES * i], raw[HALVES * i + 1]];
        if S::VECTOR == 8 {
            let b = [words[4 * i], words[4 * i + 1], words[4 * i + 2], words[4 * i + 3]];
            sums = multiply::<T>(sums, [low[0], high[0], low[1], high[1]], [b[0], b[1]]);
            sums = multiply::<T>(sums, [low[2], high[2], low[3], high[3]], [b[2], b[3]]);
        } else {
            let b = [words[2 * i], words[2 * i + 1]];
            let [l0, l1] = [parts(low[0], low[1]), parts(low[2], low[3])];
            let [h0, h1] = [parts(high[0], high[1]), parts(high[2], high[3])];
            let mut part = 0;
            while part < 3 {
                sums = multiply::<T>(sums, [l0[part], h0[part], l1[part], h1[part]], b);
                part += 1;
            }
        }
        i += 1;
    }
    sums
}

/// The product of keys and columns, of which the lane has its words. The warp calls it together.
#[inline(always)]
pub(super) fn product_of_keys<T: Element>([low, high]: [&[u32; WORDS]; 2], words: &[u32; WORDS]) -> [f32; 4] {
    let (mut sums, mut i) = ([0.0; 4], 0);
    while i < WORDS {
        sums = multiply::<T>(sums, [low[i], high[i], low[i + 1], high[i + 1]], [words[i], words[i + 1]]);
        i += 2;
    }
    sums
}

/// The same vectors, but nothing that was made of them is kept for what is made of these.
#[inline(always)]
pub(super) fn anew<S: Element>(mut raw: Raw) -> Raw {
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

/// A lane's words of a vector over K in shared memory: those elements that it holds of a row.
///
/// # Safety
/// The vector is there.
#[inline(always)]
pub(super) unsafe fn words<S: Element>(at: u32, t: u32) -> [u32; WORDS] {
    let (mut words, mut i) = ([0; WORDS], 0);
    // SAFETY: the words lie in the vector.
    unsafe {
        if S::VECTOR == 8 {
            while i < WORDS / 4 {
                let vector = shared::load_f32x4(at + 64 * i as u32 + 16 * t).map(f32::to_bits);
                [words[4 * i], words[4 * i + 1], words[4 * i + 2], words[4 * i + 3]] = vector;
                i += 1;
            }
        } else {
            while i < WORDS / 2 {
                [words[2 * i], words[2 * i + 1]] = shared::load_f32x2(at + 32 * i as u32 + 8 * t).map(f32::to_bits);
                i += 1;
            }
        }
    }
    words
}
