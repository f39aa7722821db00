//! Exchange among the 32 lanes of a warp.

use ::cuda_std::warp::{self, WarpReductionOp};

/// All 32 lanes.
const ALL: u32 = u32::MAX;

/// The value of lane `lane ^ mask`. All 32 lanes must call it together with the same mask.
#[inline(always)]
pub(crate) unsafe fn shuffle_xor(value: f32, mask: u32) -> f32 {
    // SAFETY: the caller converges the warp.
    unsafe { warp::warp_shuffle_xor(ALL, value, mask, 32) }.0
}

/// The value of lane `lane` of the own group of `width` lanes (a power of two). All 32 lanes must call it
/// together with the same width; each names a lane of its own.
#[inline(always)]
pub(crate) unsafe fn broadcast(value: f32, lane: u32, width: u32) -> f32 {
    // SAFETY: the caller converges the warp.
    unsafe { warp::warp_shuffle_idx(ALL, value, lane, width) }.0
}

/// The bitwise or of what the 32 lanes have, in a register of the warp. They call it together.
#[inline(always)]
pub(crate) unsafe fn reduce_or(bits: u32) -> u32 {
    // SAFETY: the caller converges the warp.
    unsafe { warp::warp_reduce(ALL, bits, WarpReductionOp::Or) }
}

/// Orders the warp's memory accesses. All 32 lanes must call it together.
#[allow(dead_code)]
#[inline(always)]
pub(crate) unsafe fn sync_warp() {
    // SAFETY: the caller converges the warp.
    unsafe { warp::sync_warp(ALL) }
}
