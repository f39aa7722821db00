//! Indices of the running thread and the block barrier.

pub(crate) use ::cuda_std::thread::{block_dim_x, block_idx_x, block_idx_y, block_idx_z, grid_dim_y, thread_idx_x};

/// Block barrier. Every thread of the block must reach it.
#[inline(always)]
pub(crate) unsafe fn sync_threads() {
    ::cuda_std::thread::sync_threads();
}
