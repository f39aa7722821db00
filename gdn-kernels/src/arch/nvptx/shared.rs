//! Shared memory of the block.

use crate::arch::Piece;
use core::arch::asm;

/// The address of the block's own piece, 16-byte aligned. A kernel has one: another call would be another piece.
#[inline(always)]
pub(crate) fn block<P: Piece>() -> u32 {
    let address: u32;
    // SAFETY: a declaration and its address.
    unsafe {
        asm!("{{ .shared .align 16 .b8 gdn_block[{n}]; mov.u32 {a}, gdn_block; }}", n = const P::BYTES,
             a = out(reg32) address, options(nomem, nostack));
    }
    address
}

/// Four bytes as f32; 4-byte aligned.
#[inline(always)]
pub(crate) unsafe fn store_f32(address: u32, value: f32) {
    // SAFETY: the caller passes an address within the block's shared memory.
    unsafe {
        asm!("st.shared.f32 [{p}], {v};", p = in(reg32) address, v = in(reg32) value, options(nostack));
    }
}

/// Four bytes as f32; 4-byte aligned.
#[inline(always)]
pub(crate) unsafe fn load_f32(address: u32) -> f32 {
    let value: f32;
    // SAFETY: as above.
    unsafe {
        asm!("ld.shared.f32 {v}, [{p}];", v = out(reg32) value, p = in(reg32) address,
             options(readonly, nostack));
    }
    value
}

/// Eight bytes as two f32; 8-byte aligned.
#[inline(always)]
pub(crate) unsafe fn store_f32x2(address: u32, [x, y]: [f32; 2]) {
    // SAFETY: as above.
    unsafe {
        asm!("st.shared.v2.f32 [{p}], {{{x}, {y}}};", p = in(reg32) address, x = in(reg32) x,
             y = in(reg32) y, options(nostack));
    }
}

/// Eight bytes as two f32; 8-byte aligned.
#[inline(always)]
pub(crate) unsafe fn load_f32x2(address: u32) -> [f32; 2] {
    let (x, y): (f32, f32);
    // SAFETY: as above.
    unsafe {
        asm!("ld.shared.v2.f32 {{{x}, {y}}}, [{p}];", x = out(reg32) x, y = out(reg32) y, p = in(reg32) address,
             options(readonly, nostack));
    }
    [x, y]
}

/// Begins to copy sixteen bytes of global memory here; both addresses are 16-byte aligned. The thread finds them behind
/// [`wait_copies`], others behind a barrier as well.
#[inline(always)]
pub(crate) unsafe fn begin_copy(address: u32, from: u64) {
    // SAFETY: the caller passes an address within the block's shared memory and a readable global address.
    unsafe {
        asm!("cp.async.cg.shared.global [{p}], [{a}], 16;", p = in(reg32) address, a = in(reg64) from, options(nostack));
    }
}

/// Waits for the copies that the thread has begun.
#[inline(always)]
pub(crate) unsafe fn wait_copies() {
    // SAFETY: it only waits.
    unsafe { asm!("cp.async.wait_all;", options(nostack)) }
}

/// Sixteen bytes as four f32; 16-byte aligned.
#[inline(always)]
pub(crate) unsafe fn store_f32x4(address: u32, [x, y, z, w]: [f32; 4]) {
    // SAFETY: as above.
    unsafe {
        asm!("st.shared.v4.f32 [{p}], {{{x}, {y}, {z}, {w}}};", p = in(reg32) address, x = in(reg32) x,
             y = in(reg32) y, z = in(reg32) z, w = in(reg32) w, options(nostack));
    }
}

/// Sixteen bytes as four f32; 16-byte aligned.
#[inline(always)]
pub(crate) unsafe fn load_f32x4(address: u32) -> [f32; 4] {
    let (x, y, z, w): (f32, f32, f32, f32);
    // SAFETY: as above.
    unsafe {
        asm!("ld.shared.v4.f32 {{{x}, {y}, {z}, {w}}}, [{p}];", x = out(reg32) x, y = out(reg32) y,
             z = out(reg32) z, w = out(reg32) w, p = in(reg32) address, options(readonly, nostack));
    }
    [x, y, z, w]
}
