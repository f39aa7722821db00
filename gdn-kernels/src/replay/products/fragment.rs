//! How a warp's lanes hold what its tensor cores multiply.
//!
//! Lane `4 g + t` holds the same number of neighbouring rows of the state as every other lane, lane group g's. A product takes two
//! of them, its rows g and g + 8, which are a unit: 16 rows of the warp. Of each row the lane has every fourth vector of 16
//! bytes, from the t-th on. Which element of K is which of a product's is free as long as both operands agree, and so is which
//! row of the state: what was loaded is an operand as it is, and what belongs to a lane's rows lies side by side in memory.
//! Columns are k and q of four tokens in turn. The sums of token t, `h k` and `h q` of both rows, come to lane t of each group.

use crate::abi::DType;
use crate::arch::{compiler, float, matrix, memory, shared, thread};
use crate::element::Element;
use half::bf16;

/// Rows of a unit that a lane holds.
pub(super) const HALVES: usize = 2;
/// Units of a warp at most, and rows of a lane.
pub(super) const MOST_UNITS: usize = 2;
pub(super) const LANE_ROWS: usize = HALVES * MOST_UNITS;
/// Tokens of a product.
pub(super) const AT_ONCE: u32 = 4;
/// Records that a product takes at once.
pub(super) const RECORDS: u32 = 16;

/// Units of a warp's tile, whose height counts pairs of rows.
#[inline(always)]
pub(super) const fn units(rows: usize) -> usize {
    assert!(rows == 8 || rows == 16);
    rows / 8
}

/// Rows of the state that a lane holds.
#[inline(always)]
pub(super) const fn lane_rows(rows: usize) -> u32 {
    (HALVES * units(rows)) as u32
}

/// Rows of the state that a warp takes.
#[inline(always)]
pub(super) const fn team_rows(rows: usize) -> u32 {
    8 * lane_rows(rows)
}

/// Vectors of 16 bytes that a lane holds of a row.
#[inline(always)]
pub(super) const fn vectors<S: Element>() -> usize {
    32 / S::VECTOR
}

/// Pairs of vectors of a warp's rows, unit by unit.
#[inline(always)]
pub(super) const fn pairs<S: Element>(rows: usize) -> usize {
    units(rows) * vectors::<S>()
}

/// Pairs that are in registers at once.
pub(super) const HELD: usize = 4;

/// What is loaded at once: of each pair the vector of the unit's first row, and that of its second.
pub(super) type Pairs = [[[u32; 4]; HALVES]; HELD];

/// Of a state that is not loaded but known to be zero.
pub(super) const ZEROS: Pairs = [[[0; 4]; HALVES]; HELD];

/// The lane's group and its place there.
#[inline(always)]
pub(super) fn lane() -> (u32, u32) {
    let lane = thread::thread_idx_x() % 32;
    (lane / 4, lane % 4)
}

/// Where a pair's vector of one of its rows is, from the lane's first.
#[inline(always)]
pub(super) fn vector_offset<S: Element>(pair: usize, half: usize, k: u32) -> u64 {
    let row = HALVES * (pair / vectors::<S>()) + half;
    (row as u32 * k) as u64 * S::SIZE + 64 * (pair % vectors::<S>()) as u64
}

/// Issues the loads of pairs from pair `first` on, from the address of the lane's first vector.
///
/// # Safety
/// The rows are readable and 16-byte aligned.
#[inline(always)]
pub(super) unsafe fn load<S: Element, const K: u32>(at: u64, first: usize) -> Pairs {
    // SAFETY: the caller's promise.
    core::array::from_fn(|x| unsafe { load_pair::<S, K>(at, first + x) })
}

/// Issues the loads of a pair, likewise.
///
/// # Safety
/// As for [`load`].
#[inline(always)]
pub(super) unsafe fn load_pair<S: Element, const K: u32>(at: u64, pair: usize) -> [[u32; 4]; HALVES] {
    // SAFETY: the vector lies in the rows.
    core::array::from_fn(|half| unsafe { memory::load_u32x4_streaming(at + vector_offset::<S>(pair, half, K)) })
}

/// Asks for what [`load`]s from pair `first` on load, from the address of the lane's first vector, into the L2: it takes no registers on the way.
///
/// # Safety
/// The rows are readable.
#[inline(always)]
pub(super) unsafe fn prefetch<S: Element, const K: u32, const R: usize>(at: u64, first: usize) {
    // Pairs that are held are 256 bytes of each row: two lines, and 32 of a unit.
    const { assert!(HELD * 64 == 256) };
    let t = lane().1;
    let at = at - 16 * t as u64 + (128 * (t % 2) + t / 2 * K * S::SIZE as u32) as u64;
    let mut pair = first;
    while pair < pairs::<S>(R) {
        // SAFETY: the lines lie in the rows.
        unsafe { memory::prefetch_if(true, at + vector_offset::<S>(pair, 0, K)) };
        pair += HELD;
    }
}

/// The same vectors, but nothing that is made of them is made before.
#[inline(always)]
pub(super) fn anew(pairs: Pairs) -> Pairs {
    pairs.map(|pair| pair.map(|vector| vector.map(compiler::opaque)))
}

/// A lane's words of a vector over K of 16 bits in shared memory, beside a vector of a row of type `S`, vector `i`: as many as
/// the row's vector has pairs, and zeros behind them.
///
/// # Safety
/// The vector over K is there.
#[inline(always)]
pub(super) unsafe fn words<S: Element>(at: u32, i: usize, t: u32) -> [u32; 4] {
    // SAFETY: the words lie in the vector.
    unsafe {
        if S::VECTOR == 8 {
            shared::load_f32x4(at + 64 * i as u32 + 16 * t).map(f32::to_bits)
        } else {
            let [x, y] = shared::load_f32x2(at + 32 * i as u32 + 8 * t).map(f32::to_bits);
            [x, y, 0, 0]
        }
    }
}

/// Stores words of a vector over K, of which the lane `own` has four in a row, so that [`own_words`] finds them.
///
/// # Safety
/// The 64 bytes at `at` are the block's.
#[inline(always)]
pub(super) unsafe fn store_words<S: Element>(at: u32, own: u32, words: [u32; 4]) {
    let [a, b, c, d] = words.map(f32::from_bits);
    // SAFETY: the caller's promise.
    unsafe {
        if S::VECTOR == 8 {
            return shared::store_f32x4(at + 16 * own, [a, b, c, d]);
        }
        // They are beside vectors of two lanes of a row in f32, which find those of two vectors side by side.
        let at = at + 32 * (own % 2) + 8 * (own / 2);
        shared::store_f32x2(at, [a, b]);
        shared::store_f32x2(at + 16, [c, d]);
    }
}

/// The words that [`store_words`] stored beside a row's vector `i`, or beside vectors `i` and `i + 1` in f32.
///
/// # Safety
/// They are there.
#[inline(always)]
pub(super) unsafe fn own_words<S: Element>(at: u32, i: usize, own: u32) -> [u32; 4] {
    let quarter = if S::VECTOR == 8 { i } else { i / 2 };
    // SAFETY: the caller's promise.
    unsafe { shared::load_f32x4(at + 64 * quarter as u32 + 16 * own).map(f32::to_bits) }
}

/// `sums` and a product of two lane's rows with a column, 16 elements. The warp calls it together.
#[inline(always)]
pub(super) fn multiply<T: Element>(sums: [f32; 4], rows: [u32; 4], column: [u32; 2]) -> [f32; 4] {
    // SAFETY: the warp is together.
    unsafe {
        match T::DTYPE {
            DType::F16 => matrix::multiply_f16(sums, rows, column),
            _ => matrix::multiply_bf16(sums, rows, column),
        }
    }
}

/// `sums` of some columns, and the products of two rows' vectors `low` and `high` with each column's words beside them. A row of
/// f32 is the sum of three rows of bf16. The warp calls it together.
#[inline(always)]
pub(super) fn multiply_rows<S: Element, T: Element, const B: usize>(
    mut sums: [[f32; 4]; B],
    [low, high]: [[u32; 4]; HALVES],
    columns: &[[u32; 4]; B],
) -> [[f32; 4]; B] {
    let mut b = 0;
    if S::VECTOR == 8 {
        while b < B {
            let column = columns[b];
            sums[b] = multiply::<T>(sums[b], [low[0], high[0], low[1], high[1]], [column[0], column[1]]);
            sums[b] = multiply::<T>(sums[b], [low[2], high[2], low[3], high[3]], [column[2], column[3]]);
            b += 1;
        }
        return sums;
    }
    let [l0, l1] = [parts(low[0], low[1]), parts(low[2], low[3])];
    let [h0, h1] = [parts(high[0], high[1]), parts(high[2], high[3])];
    while b < B {
        let mut part = 0;
        while part < PARTS {
            let rows = [l0[part], h0[part], l1[part], h1[part]];
            sums[b] = multiply::<T>(sums[b], rows, [columns[b][0], columns[b][1]]);
            part += 1;
        }
        b += 1;
    }
    sums
}

/// `sums` of a column of f32, and the product of two rows' vectors `low` and `high` with the column's parts beside them. The warp
/// calls it together.
#[inline(always)]
pub(super) fn multiply_in_parts<S: Element>(
    mut sums: [[f32; 4]; 2],
    [low, high]: [[u32; 4]; HALVES],
    column: &[[u32; 4]; PARTS],
) -> [[f32; 4]; 2] {
    let is_exact = S::VECTOR == 8;
    let mut x = 0;
    while x < S::VECTOR / 2 {
        let rows = match is_exact {
            true => [[low[x], high[x], low[x + 1], high[x + 1]]; PARTS],
            false => {
                let [l0, l1] = [parts(low[0], low[1]), parts(low[2], low[3])];
                let [h0, h1] = [parts(high[0], high[1]), parts(high[2], high[3])];
                core::array::from_fn(|part| [l0[part], h0[part], l1[part], h1[part]])
            }
        };
        let column = column.map(|part| [part[x], part[x + 1]]);
        sums = multiply_parts(sums, &rows, if is_exact { PARTS - 1 } else { 0 }, &column);
        x += 2;
    }
    sums
}

/// `sums` and a product of rows and a column, both the sums of their parts, of the rows' from part `least` on. The first parts'
/// product has a sum of its own, and so loses nothing to what tensor cores cut off of small ones; what is below 2^-24 of it is
/// left out. The warp calls it together.
#[inline(always)]
pub(super) fn multiply_parts(
    mut sums: [[f32; 4]; 2],
    rows: &[[u32; 4]; PARTS],
    least: usize,
    column: &[[u32; 2]; PARTS],
) -> [[f32; 4]; 2] {
    let mut of_row = least;
    while of_row < PARTS {
        let mut part = PARTS - 1 - of_row;
        while part < PARTS {
            let of_sum = if of_row + part == 2 * (PARTS - 1) { 0 } else { 1 };
            sums[of_sum] = multiply::<bf16>(sums[of_sum], rows[of_row], column[part]);
            part += 1;
        }
        of_row += 1;
    }
    sums
}

/// Both sums of [`multiply_in_parts`].
#[inline(always)]
pub(super) fn both([first, others]: [[f32; 4]; 2]) -> [f32; 4] {
    core::array::from_fn(|x| first[x] + others[x])
}

/// Parts in bf16 of an f32.
pub(super) const PARTS: usize = 3;

/// Two f32 as pairs of bf16 that add up to them, the least first: each is cut off what the ones before leave, and exact.
#[inline(always)]
pub(super) fn parts(x: u32, y: u32) -> [u32; PARTS] {
    let pair = |x: f32, y: f32| pair_of_upper(x.to_bits(), y.to_bits());
    let first = [x, y].map(f32::from_bits);
    let second = first.map(rest);
    let third = second.map(rest);
    // What is left has eight bits.
    [float::pack_bf16(third[0], third[1]), pair(second[0], second[1]), pair(first[0], first[1])]
}

/// What the upper half of an f32 leaves of it.
#[inline(always)]
pub(super) fn rest(x: f32) -> f32 {
    x - f32::from_bits(x.to_bits() & UPPER)
}

/// The upper half of a word.
const UPPER: u32 = 0xffff_0000;

/// The lower halves of two words.
#[inline(always)]
pub(super) fn pair_of_lower(x: u32, y: u32) -> u32 {
    y << 16 | x & !UPPER
}

/// The upper halves of two words.
#[inline(always)]
pub(super) fn pair_of_upper(x: u32, y: u32) -> u32 {
    y & UPPER | x >> 16
}
