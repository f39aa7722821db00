//! Indices of the running thread and the block barrier.

use core::arch::nvptx::{
    _block_dim_x, _block_idx_x, _block_idx_y, _block_idx_z, _grid_dim_y, _syncthreads, _thread_idx_x,
};

#[inline(always)]
pub(crate) fn thread_idx_x() -> u32 {
    // SAFETY: reading a special register has no precondition.
    unsafe { _thread_idx_x() as u32 }
}

#[inline(always)]
pub(crate) fn block_dim_x() -> u32 {
    // SAFETY: as above.
    unsafe { _block_dim_x() as u32 }
}

#[inline(always)]
pub(crate) fn block_idx_x() -> u32 {
    // SAFETY: as above.
    unsafe { _block_idx_x() as u32 }
}

#[inline(always)]
pub(crate) fn block_idx_y() -> u32 {
    // SAFETY: as above.
    unsafe { _block_idx_y() as u32 }
}

#[inline(always)]
pub(crate) fn block_idx_z() -> u32 {
    // SAFETY: as above.
    unsafe { _block_idx_z() as u32 }
}

#[inline(always)]
pub(crate) fn grid_dim_y() -> u32 {
    // SAFETY: as above.
    unsafe { _grid_dim_y() as u32 }
}

/// Block barrier. Every thread of the block must reach it.
#[inline(always)]
pub(crate) unsafe fn sync_threads() {
    // SAFETY: the caller brings all threads here.
    unsafe { _syncthreads() }
}
