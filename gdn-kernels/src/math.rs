//! Scalar functions of the recurrence: exp, sigmoid, softplus, SiLU.
//!
//! Everything is f32. The functions are accurate to a few ulp, because the error of the decay enters the
//! state once a token, and they are total: every finite input gives a finite result, and a NaN stays one.
//! Three things are done for that. `exp` splits the product with log2(e) in two, since `ex2.approx` alone
//! loses `|x| * 2^-24` (7e-6 at x = -80), and clamps its argument to the range of f32. `softplus` goes through
//! `log1p`, since `lg2.approx(1 + t)` has an absolute error of 2^-22 that `exp(A_log)` would multiply by up to
//! 16. `sigmoid` divides by at least 1.

use crate::arch::float;

/// `e^x`; 0 below -87.3 (subnormals are flushed), `e^88.72283` (3.40e38, finite) above 88.72283.
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

/// `x` within `[low, high]`; a NaN stays one.
#[inline(always)]
fn clamp(x: f32, low: f32, high: f32) -> f32 {
    float::min(float::max(x, low), high)
}

/// `x`, an infinity as the largest finite number of its sign: a sum of two finite numbers may be one.
#[inline(always)]
pub(crate) fn finite(x: f32) -> f32 {
    clamp(x, f32::MIN, f32::MAX)
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

/// `x * sigmoid(x)`.
#[inline(always)]
pub(crate) fn silu(x: f32) -> f32 {
    x * sigmoid(x)
}
