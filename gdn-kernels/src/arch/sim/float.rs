//! Arithmetic that is one instruction on the GPU.
//!
//! The approximate instructions are computed in f64 and rounded to f32, so they are closer to the exact
//! value than the GPU's (2 ulp); what they share with it is the range: with `.ftz` a subnormal argument or
//! result becomes a zero of the same sign. Conversions round to nearest even, keep subnormals and turn every
//! NaN into the GPU's 0x7fff.

use half::{bf16, f16};

/// The NaN that conversions to 16 bits give.
const NAN16: u16 = 0x7fff;

/// `a * b + c`, rounded once.
#[inline]
pub(crate) fn fma(a: f32, b: f32, c: f32) -> f32 {
    a.mul_add(b, c)
}

/// The larger value; NaN if one is.
pub(crate) fn max(x: f32, y: f32) -> f32 {
    if x.is_nan() || y.is_nan() { f32::NAN } else { x.max(y) }
}

/// The smaller value; NaN if one is.
pub(crate) fn min(x: f32, y: f32) -> f32 {
    if x.is_nan() || y.is_nan() { f32::NAN } else { x.min(y) }
}

/// `2^x`; subnormal results are flushed to zero.
pub(crate) fn exp2(x: f32) -> f32 {
    flushed(x, f64::exp2)
}

/// `x^-1/2`; NaN below zero, an infinity of the argument's sign at zero.
pub(crate) fn rsqrt(x: f32) -> f32 {
    flushed(x, |x| 1.0 / x.sqrt())
}

/// `1 / x`; an infinity of the argument's sign at zero.
pub(crate) fn rcp(x: f32) -> f32 {
    flushed(x, f64::recip)
}

/// `f` on f32 with `.ftz` on both sides.
fn flushed(x: f32, f: impl Fn(f64) -> f64) -> f32 {
    flush(f(f64::from(flush(x))) as f32)
}

/// `x`, or a zero of its sign where `x` is subnormal.
fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0.0f32.copysign(x) } else { x }
}

/// The f16 in the low half of `bits`.
pub(crate) fn f16_to_f32(bits: u32) -> f32 {
    f16::from_bits(bits as u16).to_f32()
}

/// Both values as bf16, round to nearest even, `low` in the low half.
pub(crate) fn pack_bf16(low: f32, high: f32) -> u32 {
    pack(low, high, |x| bf16::from_f32(x).to_bits())
}

/// Both values as f16, round to nearest even, `low` in the low half.
pub(crate) fn pack_f16(low: f32, high: f32) -> u32 {
    pack(low, high, |x| f16::from_f32(x).to_bits())
}

fn pack(low: f32, high: f32, convert: impl Fn(f32) -> u16) -> u32 {
    let half = |x: f32| u32::from(if x.is_nan() { NAN16 } else { convert(x) });
    half(low) | half(high) << 16
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBNORMAL: f32 = 1e-40;
    const TINY: f32 = f32::MIN_POSITIVE;

    fn same(x: f32, y: f32) {
        assert_eq!(x.to_bits(), y.to_bits(), "{x:e} is not {y:e}");
    }

    #[test]
    fn exp2_flushes_subnormal_results() {
        same(exp2(0.0), 1.0);
        same(exp2(-SUBNORMAL), 1.0);
        same(exp2(0.5), std::f32::consts::SQRT_2);
        same(exp2(-126.0), TINY);
        same(exp2(-126.5), 0.0);
        same(exp2(-149.0), 0.0);
        same(exp2(f32::NEG_INFINITY), 0.0);
        same(exp2(128.0), f32::INFINITY);
        assert!(exp2(f32::NAN).is_nan());
    }

    #[test]
    fn rsqrt_flushes_subnormal_arguments() {
        same(rsqrt(4.0), 0.5);
        same(rsqrt(TINY), 2f32.powi(63));
        same(rsqrt(SUBNORMAL), f32::INFINITY);
        same(rsqrt(-SUBNORMAL), f32::NEG_INFINITY);
        same(rsqrt(-0.0), f32::NEG_INFINITY);
        same(rsqrt(f32::INFINITY), 0.0);
        assert!(rsqrt(-1.0).is_nan());
        assert!(rsqrt(f32::NAN).is_nan());
    }

    #[test]
    fn rcp_flushes_both_ways_and_keeps_signs() {
        same(rcp(-4.0), -0.25);
        same(rcp(2f32.powi(126)), TINY);
        same(rcp(2f32.powi(127)), 0.0);
        same(rcp(-f32::MAX), -0.0);
        same(rcp(SUBNORMAL), f32::INFINITY);
        same(rcp(-SUBNORMAL), f32::NEG_INFINITY);
        same(rcp(f32::INFINITY), 0.0);
        same(rcp(f32::NEG_INFINITY), -0.0);
        assert!(rcp(f32::NAN).is_nan());
    }

    #[test]
    fn fma_rounds_once() {
        let x = 1.0 + f32::EPSILON;
        same(fma(x, x, -(1.0 + 2.0 * f32::EPSILON)), f32::EPSILON * f32::EPSILON);
    }

    #[test]
    fn packing_rounds_ties_to_even() {
        // bf16 keeps 7 bits of the fraction, so 2^-8 is half a unit at 1; f16 keeps 10.
        let half = 2f32.powi(-8);
        assert_eq!(pack_bf16(1.0 + half, 1.0 + 3.0 * half), 0x3f82_3f80);
        let half = 2f32.powi(-11);
        assert_eq!(pack_f16(1.0 + half, 1.0 + 3.0 * half), 0x3c02_3c00);
        let above = f32::from_bits((1.0 + half).to_bits() + 1);
        assert_eq!(pack_f16(above, -0.0), 0x8000_3c01);
    }

    #[test]
    fn packing_overflows_to_infinity_and_keeps_subnormals() {
        assert_eq!(pack_bf16(f32::MAX, -f32::MAX), 0xff80_7f80);
        assert_eq!(pack_f16(65520.0, 65519.0), 0x7bff_7c00);
        assert_eq!(pack_f16(2f32.powi(-24), 2f32.powi(-25)), 0x0000_0001);
        assert_eq!(pack_bf16(f32::from_bits(0x0001_0000), f32::NEG_INFINITY), 0xff80_0001);
    }

    #[test]
    fn packing_gives_the_gpus_nan() {
        // A payload in the low bits only must not turn into an infinity.
        let nan = f32::from_bits(0xff80_0001);
        assert_eq!(pack_bf16(nan, 0.0), 0x7fff);
        assert_eq!(pack_f16(0.0, nan), 0x7fff_0000);
    }

    #[test]
    fn f16_widens_exactly_and_ignores_the_high_half() {
        same(f16_to_f32(0xffff_3c00), 1.0);
        same(f16_to_f32(0x0001), 2f32.powi(-24));
        same(f16_to_f32(0xfc00), f32::NEG_INFINITY);
        assert!(f16_to_f32(0x7e00).is_nan());
    }
}
