//! The device seam: everything a kernel needs from the machine, and the only module that differs between
//! GPU and CPU.
//!
//! Names follow Rust-CUDA's `cuda_std` (`thread`, `warp`, `shared`), so that a third implementation of this
//! interface over that crate would be one more file here. Kernels see only what both sides export:
//!
//! | module   | contents                                                                                    |
//! |----------|---------------------------------------------------------------------------------------------|
//! | `thread` | `thread_idx_x`, `block_dim_x`, `block_idx_{x,y,z}`, `grid_dim_y`, `sync_threads`            |
//! | `grid`   | `wait`, `launch_dependents`: programmatic dependent launch                               |
//! | `warp`   | `shuffle_xor`, `broadcast`, `reduce_or`, `sync_warp`: all 32 lanes take part, always        |
//! | `shared` | `block`: the block's own piece of shared memory; `*_f32`, `*_f32x4`, `store_f32x2`          |
//! | `memory` | `load_*`, `store_*` on global addresses; `*_streaming` for data touched once                |
//! | `float`  | `fma`, `exp2`, `rsqrt`, `rcp`, `min`, `max`, f16 and bf16 conversions                       |
//! | `compiler` | `opaque`                                                                                  |

#[cfg(target_arch = "nvptx64")]
mod nvptx;
#[cfg(target_arch = "nvptx64")]
pub(crate) use nvptx::*;

#[cfg(not(target_arch = "nvptx64"))]
pub mod sim;
#[cfg(not(target_arch = "nvptx64"))]
pub(crate) use sim::{compiler, float, grid, memory, shared, thread, warp};

/// The one piece of shared memory that a kernel has.
pub(crate) trait Piece {
    /// Its size.
    const BYTES: usize;
}
