//! Loads and stores of global memory; addresses are plain `u64` device addresses.

use core::arch::asm;

macro_rules! load_if {
    ($(#[$doc:meta])* $name:ident, $ptx:literal) => {
        $(#[$doc])*
        #[inline(always)]
        pub(crate) unsafe fn $name(condition: bool, address: u64) -> u32 {
            let mut value = 0u32;
            // SAFETY: the caller passes a readable, aligned global address, or a false condition.
            unsafe {
                asm!(concat!("{{ .reg .pred p; setp.ne.u32 p, {c}, 0; @p ", $ptx, " {v}, [{a}]; }}"),
                     v = inout(reg32) value, a = in(reg64) address,
                     c = in(reg32) condition as u32, options(readonly, nostack));
            }
            value
        }
    };
}
load_if!(/// One byte, zero-extended; 0 without a load when the condition is false.
    load_u8_if, "ld.global.u8");
load_if!(/// Two bytes, zero-extended; 0 without a load when the condition is false.
    load_u16_if, "ld.global.u16");

/// Four bytes; 0 without a load when the condition is false.
#[inline(always)]
pub(crate) unsafe fn load_u32_if(condition: bool, address: u64) -> u32 {
    // SAFETY: the caller's promise.
    unsafe { load_u32_or(0, condition, address) }
}

/// Four bytes; `other` without a load when the condition is false.
#[inline(always)]
pub(crate) unsafe fn load_u32_or(other: u32, condition: bool, address: u64) -> u32 {
    let mut value = other;
    // SAFETY: the caller passes a readable, aligned global address, or a false condition.
    unsafe {
        asm!("{{ .reg .pred p; setp.ne.u32 p, {c}, 0; @p ld.global.u32 {v}, [{a}]; }}",
             v = inout(reg32) value, a = in(reg64) address,
             c = in(reg32) condition as u32, options(readonly, nostack));
    }
    value
}

/// Asks for the line of an address into the L2, if the condition is true.
#[inline(always)]
pub(crate) unsafe fn prefetch_if(condition: bool, address: u64) {
    // SAFETY: the caller passes a global address, or a false condition; nothing is read.
    unsafe {
        asm!("{{ .reg .pred p; setp.ne.u32 p, {c}, 0; @p prefetch.global.L2 [{a}]; }}",
             a = in(reg64) address, c = in(reg32) condition as u32, options(readonly, nostack));
    }
}

/// Four bytes.
#[inline(always)]
pub(crate) unsafe fn load_u32(address: u64) -> u32 {
    let value: u32;
    // SAFETY: as above.
    unsafe {
        asm!("ld.global.u32 {v}, [{a}];", v = out(reg32) value, a = in(reg64) address,
             options(readonly, nostack));
    }
    value
}

/// Four bytes, by a load of its own even where they were loaded before.
#[inline(always)]
pub(crate) unsafe fn load_u32_anew(address: u64) -> u32 {
    let value: u32;
    // SAFETY: as above.
    unsafe {
        asm!("ld.volatile.global.u32 {v}, [{a}];", v = out(reg32) value, a = in(reg64) address,
             options(readonly, nostack));
    }
    value
}

/// Eight bytes as two words; 8-byte aligned.
#[inline(always)]
pub(crate) unsafe fn load_u32x2(address: u64) -> [u32; 2] {
    let (x, y): (u32, u32);
    // SAFETY: as above.
    unsafe {
        asm!("ld.global.v2.u32 {{{x}, {y}}}, [{a}];", x = out(reg32) x, y = out(reg32) y,
             a = in(reg64) address, options(readonly, nostack));
    }
    [x, y]
}

macro_rules! load_u32x4 {
    ($(#[$doc:meta])* $name:ident, $ptx:literal) => {
        $(#[$doc])*
        #[inline(always)]
        pub(crate) unsafe fn $name(address: u64) -> [u32; 4] {
            let (x, y, z, w): (u32, u32, u32, u32);
            // SAFETY: the caller passes a readable, 16-byte aligned global address.
            unsafe {
                asm!(concat!($ptx, " {{{x}, {y}, {z}, {w}}}, [{a}];"),
                     x = out(reg32) x, y = out(reg32) y, z = out(reg32) z, w = out(reg32) w,
                     a = in(reg64) address, options(readonly, nostack));
            }
            [x, y, z, w]
        }
    };
}
load_u32x4!(/// Sixteen bytes; 16-byte aligned.
    load_u32x4, "ld.global.v4.u32");
load_u32x4!(/// Sixteen bytes that this kernel reads once; 16-byte aligned.
    load_u32x4_streaming, "ld.global.cs.v4.u32");

/// Sixteen bytes that this kernel reads once; 16-byte aligned. Zeros without a load when the condition is false.
#[inline(always)]
pub(crate) unsafe fn load_u32x4_streaming_if(condition: bool, address: u64) -> [u32; 4] {
    let (mut x, mut y, mut z, mut w) = (0u32, 0u32, 0u32, 0u32);
    // SAFETY: the caller passes a readable, 16-byte aligned global address, or a false condition.
    unsafe {
        asm!("{{ .reg .pred p; setp.ne.u32 p, {c}, 0; @p ld.global.cs.v4.u32 {{{x}, {y}, {z}, {w}}}, [{a}]; }}",
             x = inout(reg32) x, y = inout(reg32) y, z = inout(reg32) z, w = inout(reg32) w,
             a = in(reg64) address, c = in(reg32) condition as u32, options(readonly, nostack));
    }
    [x, y, z, w]
}

/// Two bytes, the low half of `value`.
#[inline(always)]
pub(crate) unsafe fn store_u16(address: u64, value: u32) {
    // SAFETY: the caller passes a writable, aligned global address.
    unsafe {
        asm!("st.global.u16 [{p}], {v};", p = in(reg64) address, v = in(reg32) value,
             options(nostack));
    }
}

/// Four bytes.
#[inline(always)]
pub(crate) unsafe fn store_u32(address: u64, value: u32) {
    // SAFETY: as above.
    unsafe {
        asm!("st.global.u32 [{p}], {v};", p = in(reg64) address, v = in(reg32) value,
             options(nostack));
    }
}

/// Eight bytes; 8-byte aligned.
#[inline(always)]
pub(crate) unsafe fn store_u32x2(address: u64, value: [u32; 2]) {
    let [x, y] = value;
    // SAFETY: the caller passes a writable, 8-byte aligned global address.
    unsafe {
        asm!("st.global.v2.u32 [{p}], {{{x}, {y}}};", p = in(reg64) address, x = in(reg32) x,
             y = in(reg32) y, options(nostack));
    }
}

macro_rules! store_u32x4 {
    ($(#[$doc:meta])* $name:ident, $ptx:literal) => {
        $(#[$doc])*
        #[inline(always)]
        pub(crate) unsafe fn $name(address: u64, value: [u32; 4]) {
            let [x, y, z, w] = value;
            // SAFETY: the caller passes a writable, 16-byte aligned global address.
            unsafe {
                asm!(concat!($ptx, " [{p}], {{{x}, {y}, {z}, {w}}};"), p = in(reg64) address,
                     x = in(reg32) x, y = in(reg32) y, z = in(reg32) z, w = in(reg32) w,
                     options(nostack));
            }
        }
    };
}
store_u32x4!(/// Sixteen bytes; 16-byte aligned.
    store_u32x4, "st.global.v4.u32");
store_u32x4!(/// Sixteen bytes that nobody reads soon; 16-byte aligned.
    store_u32x4_streaming, "st.global.cs.v4.u32");
