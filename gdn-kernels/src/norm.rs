//! Gated RMSNorm: what stands between the recurrence and the output projection.
//!
//! ```text
//! out = x * rsqrt(mean(x^2) + eps) * weight * act(z)      over the V elements of a head
//! ```
//!
//! with SiLU (Qwen) or the sigmoid (Kimi) of the gate input z. Everything is f32 and rounded once, at the end, as
//! SGLang's, vLLM's and FLA's kernels do. x may be f32 where the recurrence left its output in f32.
//!
//! A row of V elements belongs to a lane group, as a row of the state does ([`crate::tile`]): eight elements a lane, one
//! butterfly for the sum of squares, and every load and store 16 bytes. For V of 64 and 128 a group has the lanes that this
//! takes. Any other V has a warp: lanes behind the row's end hold nothing, and of more than 256 elements a lane holds two
//! pieces, one of each half of the row; there z may lie anywhere. A block's lane groups take neighbouring heads of one token: block x counts heads, y
//! and z together count tokens. The last block's surplus lane groups repeat the last head, because a shuffle needs all lanes of
//! a warp, and store nothing.
//!
//! A lane reads and writes the same elements of its row, so an output may be the input's memory. (A surplus lane group may
//! then read what is an output already: nobody asks what it comes to.)

use crate::abi::{GatedRmsNormParams, flags};
use crate::arch::{float, memory, thread};
use crate::element::{Element, ROW, Spread, Vectors};
use crate::keys::{dot, reduce};
use crate::layout::{Place, groups, lanes};
use crate::math::{sigmoid, silu};
use crate::token::{sequence, take_turn, wide};

/// The factor on a row whose squares sum up to `squares`: `rsqrt(mean + eps)`, given the reciprocal of its length.
#[cfg_attr(target_arch = "nvptx64", inline(always))]
pub(crate) fn norm_factor(squares: f32, reciprocal: f32, eps: f32) -> f32 {
    float::rsqrt(float::fma(squares, reciprocal, eps))
}

/// The gate's factor on an output.
#[cfg_attr(target_arch = "nvptx64", inline(always))]
pub(crate) fn gate(z: f32, is_silu: bool) -> f32 {
    if is_silu { silu(z) } else { sigmoid(z) }
}

/// A warp holds rows of up to so many elements, a piece a lane.
const WARP_ROW: u32 = 32 * ROW as u32;

/// Pieces of a row of any V that a lane holds at most.
const MOST_PIECES: usize = 2;

/// How a row lies over the lanes of its group: in parts of `width` elements, of each of which a lane has a piece or none.
#[derive(Clone, Copy)]
struct Row<const V: u32> {
    parts: u32,
    width: u32,
    lane: u32,
}

impl<const V: u32> Row<V> {
    /// Parts at most.
    const PARTS: usize = if V == 0 { MOST_PIECES } else { 1 };

    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    fn new(v: u32, lane: u32) -> Self {
        let parts = if V == 0 && v > WARP_ROW { 2 } else { 1 };
        Row { parts, width: if V == 0 { v >> (parts - 1) } else { V }, lane }
    }

    /// Whether the lane has a piece of part `i`.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    fn has(&self, i: usize) -> bool {
        V != 0 || ((i as u32) < self.parts && self.lane * (ROW as u32) < self.width)
    }

    /// Elements in front of part `i`.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    fn front(&self, i: usize) -> u64 {
        if i == 0 { 0 } else { self.width as u64 }
    }

    /// The sum over the lanes of the row.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    fn sum(value: f32) -> f32 {
        if V == 0 { reduce::<WARP_ROW>(value) } else { reduce::<V>(value) }
    }
}

/// The kernel body: `X` is the type of x, `T` that of z and out, V the length of a row, or 0 for any.
///
/// # Safety
/// `p` describes buffers as its documentation says, and the launch is shaped as it says.
#[cfg_attr(target_arch = "nvptx64", inline(always))]
pub(crate) unsafe fn gated_rmsnorm<X: Element, T: Element, const V: u32>(p: &GatedRmsNormParams) {
    take_turn();
    let of_group = if V == 0 { WARP_ROW } else { V };
    let (token, place) = (sequence(), Place::of_thread(thread::thread_idx_x(), lanes(of_group)));
    if token >= p.tokens {
        return;
    }
    let in_front = (thread::block_idx_x() * thread::block_dim_x()) / lanes(of_group);
    let group = in_front + place.team() * groups(of_group) + place.group();
    let is_there = group < p.hv;
    let head = if is_there { group } else { p.hv - 1 };
    let row = Row::<V>::new(p.v, place.lane);
    let at = |stride: u32, head_stride: u32| wide(token, stride) + wide(head, head_stride);
    let x_at = p.x + at(p.x_stride, p.x_head_stride) * X::SIZE;
    let z_at = p.z + at(p.z_stride, p.z_head_stride) * T::SIZE;
    let z_strides = (p.z_stride | p.z_head_stride) as u64 * T::SIZE;
    let aligned = V != 0 || (p.z | z_strides).is_multiple_of(16);
    let (mut x, mut z) = ([[[0; 4]; 2]; MOST_PIECES], [[[0; 4]; 2]; MOST_PIECES]);
    let mut weight = [Spread::ZEROS; MOST_PIECES];
    let mut i = 0;
    while i < Row::<V>::PARTS {
        if row.has(i) {
            let (front, lane, width) = (row.front(i), place.lane, row.width);
            // SAFETY: token < tokens and head < HV, so the row lies in each tensor; those of x and the weights are 16-byte
            // aligned, and so is the second half of a row.
            unsafe {
                x[i] = X::load_spread(x_at + front * X::SIZE, lane, width, T::VECTOR);
                z[i] = load_gate::<T>(aligned, z_at + front * T::SIZE, lane, width);
                weight[i] = Spread::load(p.weight, front, p.weight_dtype, lane, width, T::VECTOR);
            }
        }
        i += 1;
    }
    let (x, z, weight) = (x.map(X::widen_row), z.map(T::widen_row), weight.map(Spread::to_f32));
    let squares = match Row::<V>::PARTS {
        1 => dot(&x[0], &x[0]),
        _ => dot(&x[0], &x[0]) + dot(&x[1], &x[1]),
    };
    let reciprocal = if V == 0 { float::rcp(p.v as f32) } else { 1.0 / V as f32 };
    let factor = norm_factor(Row::<V>::sum(squares), reciprocal, p.eps);
    let is_silu = p.flags & flags::SILU != 0;
    let out_at = p.out + at(p.out_stride, p.out_head_stride) * T::SIZE;
    let mut part = 0;
    while part < Row::<V>::PARTS {
        let (x, z, weight) = (&x[part], &z[part], &weight[part]);
        let out = core::array::from_fn(|i| x[i] * factor * weight[i] * gate(z[i], is_silu));
        if is_there && row.has(part) {
            // SAFETY: as above.
            unsafe { store_spread::<T>(out_at + row.front(part) * T::SIZE, place.lane, row.width, &out) };
        }
        part += 1;
    }
}

/// Loads a lane's piece of the gate's input, by vectors where it is 16-byte aligned, else by elements.
///
/// # Safety
/// The row of `k` elements is readable, and 16-byte aligned if `aligned` says so.
#[cfg_attr(target_arch = "nvptx64", inline(always))]
unsafe fn load_gate<T: Element>(aligned: bool, at: u64, lane: u32, k: u32) -> Vectors {
    if aligned {
        // SAFETY: the caller's promise.
        return unsafe { T::load_spread(at, lane, k, T::VECTOR) };
    }
    let mut raw = [[0; 4]; 2];
    let mut i = 0;
    while i < ROW {
        let (vector, element) = (i / T::VECTOR, i % T::VECTOR);
        let vectors_apart = k / ROW as u32;
        let index = (vector as u32 * vectors_apart + lane) * T::VECTOR as u32 + element as u32;
        // SAFETY: a lane's elements lie within the row.
        let bits = unsafe { T::load_bits_if(true, at + index as u64 * T::SIZE) };
        if T::SIZE == 4 {
            raw[vector][element] = bits;
        } else {
            raw[0][i / 2] |= bits << (16 * (i % 2));
        }
        i += 1;
    }
    raw
}

/// Stores a lane's elements of a row of `k` that is spread as [`Element::load_spread`] says for vectors of its own type.
///
/// # Safety
/// The row is writable and 16-byte aligned.
#[cfg_attr(target_arch = "nvptx64", inline(always))]
unsafe fn store_spread<T: Element>(at: u64, lane: u32, k: u32, row: &[f32; ROW]) {
    let mut i = 0;
    while i < ROW / T::VECTOR {
        let values = core::array::from_fn(|e| row[(i * T::VECTOR + e) % ROW]);
        let vector = (lane + i as u32 * (k / ROW as u32)) as u64;
        // SAFETY: a lane's elements lie within the row.
        unsafe { memory::store_u32x4(at + 16 * vector, T::pack_vector(&values)) };
        i += 1;
    }
}
