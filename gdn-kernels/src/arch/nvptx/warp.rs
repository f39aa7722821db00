//! Exchange among the 32 lanes of a warp.

use core::arch::asm;

/// The value of lane `lane ^ mask`. All 32 lanes must call it together with the same mask.
#[inline(always)]
pub(crate) unsafe fn shuffle_xor(value: f32, mask: u32) -> f32 {
    let mut bits = value.to_bits();
    // SAFETY: the caller converges the warp; the exchange touches no memory.
    unsafe {
        asm!(
            "shfl.sync.bfly.b32 {bits}, {bits}, {mask}, 0x1f, 0xffffffff;",
            bits = inout(reg32) bits,
            mask = in(reg32) mask,
            options(nomem, nostack),
        );
    }
    f32::from_bits(bits)
}

/// The value of lane `lane` of the own group of `width` lanes (a power of two). All 32 lanes must call it
/// together with the same width; each names a lane of its own.
#[inline(always)]
pub(crate) unsafe fn broadcast(value: f32, lane: u32, width: u32) -> f32 {
    let mut bits = value.to_bits();
    // SAFETY: the caller converges the warp; the exchange touches no memory.
    unsafe {
        asm!(
            "shfl.sync.idx.b32 {bits}, {bits}, {lane}, {control}, 0xffffffff;",
            bits = inout(reg32) bits,
            lane = in(reg32) lane,
            // Lanes are counted from the start of a segment of `width`.
            control = in(reg32) (32 - width) << 8 | 0x1f,
            options(nomem, nostack),
        );
    }
    f32::from_bits(bits)
}

/// The bitwise or of what the 32 lanes have, in a register of the warp. They call it together.
#[inline(always)]
pub(crate) unsafe fn reduce_or(mut bits: u32) -> u32 {
    // SAFETY: the caller converges the warp; the exchange touches no memory.
    unsafe {
        asm!("redux.sync.or.b32 {bits}, {bits}, 0xffffffff;", bits = inout(reg32) bits, options(nomem, nostack));
    }
    bits
}

/// Orders the warp's memory accesses. All 32 lanes must call it together.
#[allow(dead_code)]
#[inline(always)]
pub(crate) unsafe fn sync_warp() {
    // SAFETY: the caller converges the warp.
    unsafe { asm!("bar.warp.sync 0xffffffff;", options(nostack)) }
}
