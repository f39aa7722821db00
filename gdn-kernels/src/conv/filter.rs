//! The filter of a strip: weights, and the sum over taps that a fused kernel makes too.

use super::strip::{Access, CHANNELS, Recent, Strip, TAPS};
use crate::abi::{Conv1dParams, DType, flags};
use crate::arch::{float, memory};
use crate::element::{Element, ROW, Scalar};
use crate::math::silu;
use crate::token::wide;
use half::{bf16, f16};

/// The sum over a channel's taps, oldest first; the first `missing` ones are not part of the filter. With `rounds`
/// each product is rounded to `T` before it is added.
#[cfg_attr(target_arch = "nvptx64", inline(always))]
pub(crate) fn tap_sum<T: Element>(
    inputs: [f32; TAPS],
    weights: [f32; TAPS],
    bias: f32,
    missing: u32,
    rounds: bool,
) -> f32 {
    let mut sum = bias;
    let mut i = 0;
    while i < TAPS {
        let with_tap = match rounds {
            true => sum + T::round(inputs[i] * weights[i]),
            false => float::fma(inputs[i], weights[i], sum),
        };
        sum = if i as u32 >= missing { with_tap } else { sum };
        i += 1;
    }
    sum
}

/// The weights of a strip as loaded.
#[derive(Clone, Copy)]
pub(super) struct Weights {
    /// Of a vector of channels: `[CHANNELS, TAPS]` of `dtype`, packed.
    packed: [[u32; 4]; CHANNELS],
    /// Of a single channel.
    single: [Scalar; TAPS],
    dtype: u32,
}

impl Weights {
    /// Issues the loads.
    ///
    /// # Safety
    /// The strip's channels lie in the weights, which are aligned as the access demands.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(super) unsafe fn load<A: Access>(p: &Conv1dParams, channel: u32, missing: u32) -> Weights {
        let dtype = p.weight_dtype;
        let mut weights = Weights { packed: [[0; 4]; CHANNELS], single: [Scalar::ZERO; TAPS], dtype };
        let is_f32 = dtype == DType::F32 as u32;
        let at = p.weight + channel as u64 * if is_f32 { 16 } else { 8 };
        let mut i = 0;
        while i < TAPS {
            // SAFETY: the caller's promise. 16-bit weights are half as many vectors.
            unsafe {
                if !A::VECTORS {
                    let there = i as u32 >= missing;
                    let tap = if there { i as u32 - missing } else { 0 };
                    let index = wide(channel, p.width) + tap as u64;
                    weights.single[i] = Scalar::load_if(there, p.weight, index, dtype);
                } else if i < CHANNELS / 2 || is_f32 {
                    weights.packed[i] = memory::load_u32x4(at + 16 * i as u64);
                }
            }
            i += 1;
        }
        weights
    }

    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    fn to_f32<A: Access>(self) -> [[f32; TAPS]; CHANNELS] {
        let narrow = |widen: fn([u32; 4]) -> [f32; ROW]| {
            core::array::from_fn(|c| {
                let pair = widen(self.packed[c / 2]);
                core::array::from_fn(|i| pair[c % 2 * TAPS + i])
            })
        };
        if !A::VECTORS {
            let mut weights = [[0.0; TAPS]; CHANNELS];
            weights[0] = self.single.map(Scalar::to_f32);
            weights
        } else if self.dtype == DType::F32 as u32 {
            self.packed.map(|row| row.map(f32::from_bits))
        } else if self.dtype == DType::Bf16 as u32 {
            narrow(bf16::widen_vector)
        } else {
            narrow(f16::widen_vector)
        }
    }
}

/// A strip's filter.
pub(super) struct Filter<'a> {
    p: &'a Conv1dParams,
    channel: u32,
    weights: [[f32; TAPS]; CHANNELS],
    missing: u32,
}

impl<'a> Filter<'a> {
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(super) fn new<A: Access>(p: &'a Conv1dParams, channel: u32, weights: Weights, missing: u32) -> Self {
        Filter { p, channel, weights: weights.to_f32::<A>(), missing }
    }

    /// The outputs of a strip, of the type `T`, whose taps hold `inputs`, of the type `S`. Options are asked for once a
    /// strip, not once a channel.
    ///
    /// # Safety
    /// The strip's channels lie in the bias, if there is one.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(super) unsafe fn apply<S: Element, T: Element, A: Access>(&self, inputs: &Recent) -> Strip {
        let has = |flag: u32| self.p.flags & flag != 0;
        // SAFETY: the caller's promise.
        let bias = unsafe { self.bias::<A>() };
        let sums = match has(flags::ROUND_PRODUCTS) {
            true => self.sums::<S, T, A>(inputs, bias, true),
            false => self.sums::<S, T, A>(inputs, bias, false),
        };
        T::pack_vector(&if has(flags::SILU) { sums.map(silu) } else { sums })
    }

    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    fn sums<S: Element, T: Element, A: Access>(
        &self,
        inputs: &Recent,
        bias: [f32; CHANNELS],
        rounds: bool,
    ) -> [f32; ROW] {
        let mut sums = [0.0; ROW];
        let mut c = 0;
        while c < A::CHANNELS {
            let taps = core::array::from_fn(|i| S::widen_vector(inputs[i])[c]);
            sums[c] = tap_sum::<T>(taps, self.weights[c], bias[c], self.missing, rounds);
            c += 1;
        }
        sums
    }

    /// The strip's bias. It is read anew for each token: few filters have one, and registers are scarce.
    ///
    /// # Safety
    /// The strip's channels lie in the bias, if there is one.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    unsafe fn bias<A: Access>(&self) -> [f32; CHANNELS] {
        let (mut bias, table) = ([Scalar::ZERO; CHANNELS], self.p.bias);
        if table != 0 {
            let mut c = 0;
            while c < A::CHANNELS {
                let index = self.channel as u64 + c as u64;
                // SAFETY: the caller's promise.
                bias[c] = unsafe { Scalar::load_if(true, table, index, self.p.bias_dtype) };
                c += 1;
            }
        }
        bias.map(Scalar::to_f32)
    }
}
