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
//! butterfly for the sum of squares, and every load and store 16 bytes. A block's lane groups take neighbouring heads of
//! one token: block x counts heads, y and z together count tokens. The last block's surplus lane groups repeat the last
//! head, because a shuffle needs all lanes of a warp, and store nothing.

use crate::abi::{GatedRmsNormParams, flags};
use crate::arch::{float, memory, thread};
use crate::element::{Element, ROW, Spread};
use crate::keys::{dot, reduce};
use crate::layout::{Place, groups, lanes};
use crate::math::{sigmoid, silu};
use crate::token::{sequence, take_turn, wide};

/// The factor on a row of K elements whose squares sum up to `squares`: `rsqrt(mean + eps)`.
#[inline(always)]
pub(crate) fn norm_factor<const K: u32>(squares: f32, eps: f32) -> f32 {
    float::rsqrt(float::fma(squares, 1.0 / K as f32, eps))
}

/// The gate's factor on an output.
#[inline(always)]
pub(crate) fn gate(z: f32, is_silu: bool) -> f32 {
    if is_silu { silu(z) } else { sigmoid(z) }
}

/// The kernel body: `X` is the type of x, `T` that of z and out, K the length of a row, V.
///
/// # Safety
/// `p` describes buffers as its documentation says, and the launch is shaped as it says.
#[inline(always)]
pub(crate) unsafe fn gated_rmsnorm<X: Element, T: Element, const K: u32>(p: &GatedRmsNormParams) {
    take_turn();
    let (token, place) = (sequence(), Place::of_thread(thread::thread_idx_x(), lanes(K)));
    if token >= p.tokens {
        return;
    }
    let group = (thread::block_idx_x() * thread::block_dim_x()) / lanes(K) + place.team * groups(K) + place.group;
    let is_there = group < p.hv;
    let head = if is_there { group } else { p.hv - 1 };
    let at = |stride: u32| wide(token, stride) + wide(head, K);
    // SAFETY: token < tokens and head < HV, so the row lies in each tensor; rows are 16-byte aligned.
    unsafe {
        let x = X::load_spread(p.x + at(p.x_stride) * X::SIZE, place.lane, K, T::VECTOR);
        let z = T::load_spread(p.z + at(p.z_stride) * T::SIZE, place.lane, K, T::VECTOR);
        let weight = Spread::load_if::<K>(true, p.weight, 0, p.weight_dtype, place.lane, T::VECTOR);
        let (x, z, weight) = (X::widen_row(x), T::widen_row(z), weight.to_f32());
        let factor = norm_factor::<K>(reduce::<K>(dot(&x, &x)), p.eps);
        let is_silu = p.flags & flags::SILU != 0;
        let out = core::array::from_fn(|i| x[i] * factor * weight[i] * gate(z[i], is_silu));
        if is_there {
            store_spread::<T, K>(p.out + at(p.out_stride) * T::SIZE, place.lane, &out);
        }
    }
}

/// Stores a lane's elements of a row that is spread as [`Element::load_spread`] says for vectors of its own type.
///
/// # Safety
/// The row is writable and 16-byte aligned.
#[inline(always)]
unsafe fn store_spread<T: Element, const K: u32>(at: u64, lane: u32, row: &[f32; ROW]) {
    let mut i = 0;
    while i < ROW / T::VECTOR {
        let values = core::array::from_fn(|e| row[(i * T::VECTOR + e) % ROW]);
        let vector = (lane + i as u32 * lanes(K)) as u64;
        // SAFETY: a lane's elements lie within the row.
        unsafe { memory::store_u32x4(at + 16 * vector, T::pack_vector(&values)) };
        i += 1;
    }
}
