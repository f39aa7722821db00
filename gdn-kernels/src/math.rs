//! Scalars of the recurrence: element types and their conversions, the gate, softplus, sigmoid, exp.
//!
//! Everything is f32. The functions are accurate to a few ulp, because the error of the decay enters the
//! state once a token, and they are total: every finite input gives a finite result. Three things are done
//! for that. `exp` splits the product with log2(e) in two, since `ex2.approx` alone loses `|x| * 2^-24`
//! (7e-6 at x = -80), and clamps its argument to the range of f32. `softplus` goes through `log1p`, since
//! `lg2.approx(1 + t)` has an absolute error of 2^-22 that `exp(A_log)` would multiply by up to 16.
//! `sigmoid` divides by at least 1.

use crate::abi::DType;
use crate::arch::{float, memory};
use half::{bf16, f16};

/// Elements of a row that one lane holds, whatever K: `K / ROW` lanes share a row.
pub(crate) const ROW: usize = 8;

/// An element type of inputs or of the state.
///
/// A lane's [`ROW`] elements of a row are one 16-byte vector (16-bit types) or two (f32). Two f32 vectors
/// of a lane are half a row apart, so that the lanes of a row together read contiguous bytes each time.
///
/// Loading and converting are two calls. A conversion is the first use of what was loaded, so the kernels
/// place it behind the last load they want in flight.
pub trait Element: Copy + 'static {
    /// The type's name in the ABI.
    const DTYPE: DType;
    /// Bytes of an element.
    const SIZE: u64;
    /// Elements of a 16-byte vector: how the state's type spreads a row over its lanes.
    const VECTOR: u32;
    /// [`ROW`] elements as loaded.
    type Raw: Copy;
    /// [`ROW`] zeros.
    const ZERO: Self::Raw;

    /// Loads a lane's part of a `k`-element state row.
    ///
    /// # Safety
    /// `lane_row` is the row's 16-byte aligned address plus 16 bytes a lane; the row is readable.
    unsafe fn load_row(lane_row: u64, k: u32) -> Self::Raw;

    /// Stores a lane's part of a state row, rounding once.
    ///
    /// # Safety
    /// As for [`Self::load_row`], and the row is writable.
    unsafe fn store_row(lane_row: u64, k: u32, value: &[f32; ROW]);

    /// Loads a lane's part of a `k`-element vector of this type, spread over the lanes like a row of a
    /// state of vectors of `vector` elements.
    ///
    /// # Safety
    /// The vector is readable and 16-byte aligned.
    unsafe fn load_vector(address: u64, lane: u32, k: u32, vector: u32) -> Self::Raw;

    /// Loaded elements as f32.
    fn unpack(raw: Self::Raw) -> [f32; ROW];

    /// One element's bits; 0 without a load when the condition is false.
    ///
    /// # Safety
    /// If the condition is true, `address` is readable and aligned to an element.
    unsafe fn load_bits_if(condition: bool, address: u64) -> u32;

    /// An element's bits as f32.
    fn widen(bits: u32) -> f32;

    /// Stores one element, rounding once to nearest even.
    ///
    /// # Safety
    /// `address` is writable and aligned to an element.
    unsafe fn store(address: u64, value: f32);
}

impl Element for f32 {
    const DTYPE: DType = DType::F32;
    const SIZE: u64 = 4;
    const VECTOR: u32 = 4;
    type Raw = [[u32; 4]; 2];
    const ZERO: Self::Raw = [[0; 4]; 2];

    #[inline(always)]
    unsafe fn load_row(lane_row: u64, k: u32) -> Self::Raw {
        // SAFETY: both vectors lie in the row.
        unsafe {
            [memory::load_u32x4_streaming(lane_row), memory::load_u32x4_streaming(lane_row + 2 * k as u64)]
        }
    }

    #[inline(always)]
    unsafe fn store_row(lane_row: u64, k: u32, v: &[f32; ROW]) {
        let [a, b, c, d, e, f, g, h] = v.map(f32::to_bits);
        // SAFETY: both vectors lie in the row.
        unsafe {
            memory::store_u32x4_streaming(lane_row, [a, b, c, d]);
            memory::store_u32x4_streaming(lane_row + 2 * k as u64, [e, f, g, h]);
        }
    }

    #[inline(always)]
    unsafe fn load_vector(address: u64, lane: u32, k: u32, vector: u32) -> Self::Raw {
        let at = address + (4 * vector * lane) as u64;
        let apart = if vector == 4 { 2 * k } else { 16 };
        // SAFETY: a lane's elements lie within the vector.
        unsafe { [memory::load_u32x4(at), memory::load_u32x4(at + apart as u64)] }
    }

    #[inline(always)]
    fn unpack([l, h]: Self::Raw) -> [f32; ROW] {
        [l[0], l[1], l[2], l[3], h[0], h[1], h[2], h[3]].map(f32::from_bits)
    }

    #[inline(always)]
    unsafe fn load_bits_if(condition: bool, address: u64) -> u32 {
        // SAFETY: the caller's promise.
        unsafe { memory::load_u32_if(condition, address) }
    }

    #[inline(always)]
    fn widen(bits: u32) -> f32 {
        f32::from_bits(bits)
    }

    #[inline(always)]
    unsafe fn store(address: u64, value: f32) {
        // SAFETY: the caller's promise.
        unsafe { memory::store_u32(address, value.to_bits()) }
    }
}

/// The two 16-bit types differ only in how two halves of a word become f32 and back.
macro_rules! element16 {
    ($ty:ty, $dtype:expr, $pair:path, $pack:path) => {
        impl Element for $ty {
            const DTYPE: DType = $dtype;
            const SIZE: u64 = 2;
            const VECTOR: u32 = 8;
            type Raw = [u32; 4];
            const ZERO: Self::Raw = [0; 4];

            #[inline(always)]
            unsafe fn load_row(lane_row: u64, _k: u32) -> Self::Raw {
                // SAFETY: the vector lies in the row.
                unsafe { memory::load_u32x4_streaming(lane_row) }
            }

            #[inline(always)]
            unsafe fn store_row(lane_row: u64, _k: u32, v: &[f32; ROW]) {
                let [a, b, c, d, e, f, g, h] = *v;
                let words = [$pack(a, b), $pack(c, d), $pack(e, f), $pack(g, h)];
                // SAFETY: the vector lies in the row.
                unsafe { memory::store_u32x4_streaming(lane_row, words) }
            }

            #[inline(always)]
            unsafe fn load_vector(address: u64, lane: u32, k: u32, vector: u32) -> Self::Raw {
                let at = address + (2 * vector * lane) as u64;
                // SAFETY: a lane's elements lie within the vector.
                unsafe {
                    if vector == 8 {
                        memory::load_u32x4(at)
                    } else {
                        let (low, high) = (memory::load_u32x2(at), memory::load_u32x2(at + k as u64));
                        [low[0], low[1], high[0], high[1]]
                    }
                }
            }

            #[inline(always)]
            fn unpack(w: Self::Raw) -> [f32; ROW] {
                let [[a, b], [c, d], [e, f], [g, h]] = w.map($pair);
                [a, b, c, d, e, f, g, h]
            }

            #[inline(always)]
            unsafe fn load_bits_if(condition: bool, address: u64) -> u32 {
                // SAFETY: the caller's promise.
                unsafe { memory::load_u16_if(condition, address) }
            }

            #[inline(always)]
            fn widen(bits: u32) -> f32 {
                $pair(bits)[0]
            }

            #[inline(always)]
            unsafe fn store(address: u64, value: f32) {
                // SAFETY: the caller's promise.
                unsafe { memory::store_u16(address, $pack(value, 0.0)) }
            }
        }
    };
}

element16!(bf16, DType::Bf16, bf16_pair, float::pack_bf16);
element16!(f16, DType::F16, f16_pair, float::pack_f16);

#[inline(always)]
fn bf16_pair(word: u32) -> [f32; 2] {
    [f32::from_bits(word << 16), f32::from_bits(word & 0xffff_0000)]
}

#[inline(always)]
fn f16_pair(word: u32) -> [f32; 2] {
    [float::f16_to_f32(word & 0xffff), float::f16_to_f32(word >> 16)]
}

/// An element whose type is known only at run time (a gate input): loaded now, converted when needed, and
/// without a branch, so that nothing waits for the load.
#[derive(Clone, Copy)]
pub(crate) struct Scalar {
    /// The element's bits if it is an f32, else 0.
    wide: u32,
    /// The element's bits if it is of a 16-bit type, else 0.
    narrow: u32,
    dtype: u32,
}

impl Scalar {
    /// Loads element `index` of the table of `dtype` at `base`, if there is one.
    ///
    /// # Safety
    /// If the condition is true, the element is readable and `base` aligned to an element.
    #[inline(always)]
    pub(crate) unsafe fn load_if(condition: bool, base: u64, index: u64, dtype: u32) -> Scalar {
        let is_wide = dtype == DType::F32 as u32;
        let address = base + (index << if is_wide { 2 } else { 1 });
        // SAFETY: the caller's promise; one of the two loads is made.
        unsafe {
            let wide = memory::load_u32_if(condition && is_wide, address);
            let narrow = memory::load_u16_if(condition && !is_wide, address);
            Scalar { wide, narrow, dtype }
        }
    }

    #[inline(always)]
    pub(crate) fn to_f32(self) -> f32 {
        let bf16_bits = if self.dtype == DType::Bf16 as u32 { self.narrow << 16 } else { 0 };
        let is_f16 = self.dtype == DType::F16 as u32;
        if is_f16 { f16::widen(self.narrow) } else { f32::from_bits(self.wide | bf16_bits) }
    }
}

/// `x` rounded to `dtype` (nearest even) and back.
#[inline(always)]
pub(crate) fn round_to(x: f32, dtype: u32) -> f32 {
    if dtype == DType::Bf16 as u32 {
        bf16_pair(float::pack_bf16(x, 0.0))[0]
    } else if dtype == DType::F16 as u32 {
        f16_pair(float::pack_f16(x, 0.0))[0]
    } else {
        x
    }
}

/// `e^x`; 0 below -87.3 (subnormals are flushed), the largest finite f32 above 88.7.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const LOG2E_LOW: f32 = 1.925_963e-8; // log2(e) minus its f32 rounding
    const LOG2E: f32 = core::f32::consts::LOG2_E;
    // 88.72283 is the largest argument whose exponential is finite.
    let x = clamp(x, -104.0, 88.722_83);
    let high = x * LOG2E;
    let low = float::fma(x, LOG2E_LOW, float::fma(x, LOG2E, -high));
    let y = float::exp2(high);
    float::fma(y, low * core::f32::consts::LN_2, y)
}

/// `x` within `[low, high]`; a NaN becomes one of the bounds.
#[inline(always)]
fn clamp(x: f32, low: f32, high: f32) -> f32 {
    x.max(low).min(high)
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    float::rcp(1.0 + exp(-x))
}

/// `log(1 + t)` for `t` in `[0, 1]`, as the series of `2 atanh(t / (2 + t))`, whose argument is at most 1/3.
#[inline(always)]
fn log1p_unit(t: f32) -> f32 {
    let s = t * float::rcp(2.0 + t);
    let z = s * s;
    // 1/15, 1/13, ... 1/3: the next term is below 2e-9 of the sum.
    let mut p = 1.0 / 15.0;
    p = float::fma(p, z, 1.0 / 13.0);
    p = float::fma(p, z, 1.0 / 11.0);
    p = float::fma(p, z, 1.0 / 9.0);
    p = float::fma(p, z, 1.0 / 7.0);
    p = float::fma(p, z, 1.0 / 5.0);
    p = float::fma(p, z, 1.0 / 3.0);
    let twice = s + s;
    float::fma(twice * z, p, twice)
}

/// `log(1 + e^x)`, and `x` itself above `threshold`.
#[inline(always)]
pub(crate) fn softplus(x: f32, threshold: f32) -> f32 {
    let stable = x.max(0.0) + log1p_unit(exp(-x.abs()));
    if x > threshold { x } else { stable }
}

/// Log decay of the softplus gate, `-e^a_log * softplus(a + dt_bias)`.
#[inline(always)]
pub(crate) fn softplus_gate(a: f32, dt_bias: f32, a_log: f32, threshold: f32) -> f32 {
    -exp(a_log) * softplus(a + dt_bias, threshold)
}
