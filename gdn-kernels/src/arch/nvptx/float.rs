//! Arithmetic that is one instruction on the GPU.

use core::arch::asm;

/// `a * b + c`, rounded once.
#[inline(always)]
pub(crate) fn fma(a: f32, b: f32, c: f32) -> f32 {
    core::intrinsics::fmaf32(a, b, c)
}

macro_rules! binary {
    ($(#[$doc:meta])* $name:ident, $ptx:literal) => {
        $(#[$doc])*
        #[inline(always)]
        pub(crate) fn $name(x: f32, y: f32) -> f32 {
            let z: f32;
            // SAFETY: register arithmetic.
            unsafe {
                asm!(concat!($ptx, " {z}, {x}, {y};"), z = out(reg32) z, x = in(reg32) x, y = in(reg32) y,
                     options(pure, nomem, nostack));
            }
            z
        }
    };
}
binary!(/// The larger value; NaN if one is.
    max, "max.NaN.f32");
binary!(/// The smaller value; NaN if one is.
    min, "min.NaN.f32");

macro_rules! unary {
    ($(#[$doc:meta])* $name:ident, $ptx:literal) => {
        $(#[$doc])*
        #[inline(always)]
        pub(crate) fn $name(x: f32) -> f32 {
            let y: f32;
            // SAFETY: register arithmetic.
            unsafe {
                asm!(concat!($ptx, " {y}, {x};"), y = out(reg32) y, x = in(reg32) x,
                     options(pure, nomem, nostack));
            }
            y
        }
    };
}
unary!(/// `2^x`, within 2 ulp; subnormal results are flushed to zero.
    exp2, "ex2.approx.ftz.f32");
unary!(/// `x^-1/2`, within 2^-22.9 relative.
    rsqrt, "rsqrt.approx.ftz.f32");
unary!(/// `1 / x`, within 1 ulp.
    rcp, "rcp.approx.ftz.f32");

/// The f16 in the low half of `bits`.
#[inline(always)]
pub(crate) fn f16_to_f32(bits: u32) -> f32 {
    let y: f32;
    // SAFETY: register arithmetic.
    unsafe {
        asm!("cvt.f32.f16 {y}, {x};", y = out(reg32) y, x = in(reg16) bits as u16,
             options(pure, nomem, nostack));
    }
    y
}

macro_rules! pack {
    ($(#[$doc:meta])* $name:ident, $ptx:literal) => {
        $(#[$doc])*
        #[inline(always)]
        pub(crate) fn $name(low: f32, high: f32) -> u32 {
            let y: u32;
            // SAFETY: register arithmetic.
            unsafe {
                asm!(concat!($ptx, " {y}, {h}, {l};"), y = out(reg32) y, h = in(reg32) high,
                     l = in(reg32) low, options(pure, nomem, nostack));
            }
            y
        }
    };
}
pack!(/// Both values as bf16, round to nearest even, `low` in the low half.
    pack_bf16, "cvt.rn.bf16x2.f32");
pack!(/// Both values as f16, round to nearest even, `low` in the low half.
    pack_f16, "cvt.rn.f16x2.f32");
