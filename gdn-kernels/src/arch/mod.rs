//! The device seam: everything a kernel needs from the machine, and the only module that differs between
//! GPU and CPU.
//!
//! Kernels see only what all implementations export:
//!
//! | module   | contents                                                                                    | names |
//! |----------|---------------------------------------------------------------------------------------------|-------|
//! | `thread` | `thread_idx_x`, `block_dim_x`, `block_idx_{x,y,z}`, `grid_dim_y`, `sync_threads`            | `cuda_std`'s |
//! | `warp`   | `shuffle_xor`, `broadcast`, `reduce_or`: all 32 lanes take part, always                     | ours, over `cuda_std`'s `warp_shuffle_xor`, `warp_shuffle_idx`, `warp_reduce` |
//! | `warp`   | `sync_warp`: all 32 lanes, so it takes no mask                                              | `cuda_std`'s |
//! | `grid`   | `wait`, `launch_dependents`: programmatic dependent launch                                  | ours |
//! | `shared` | `block`: the block's own piece of shared memory; `*_f32`, `*_f32x2`, `*_f32x4`; `begin_copy`, `wait_copies` | ours |
//! | `memory` | `load_*`, `store_*` on global addresses; `*_streaming` for data touched once                | ours |
//! | `matrix` | `multiply_bf16`, `multiply_f16`: all 32 lanes take part, always                              | ours |
//! | `float`  | `fma`, `exp2`, `rsqrt`, `rcp`, `min`, `max`, f16 and bf16 conversions                       | ours |
//! | `compiler` | `opaque`                                                                                  | ours |
//!
//! There are three implementations:
//!
//! - `nvptx`: the GPU, as rustc compiles it. All that is embedded comes from it.
//! - `cuda_std`: the GPU, with `thread` and `warp` of Rust-CUDA's crate (feature `cuda_std`). The rest is `nvptx`'s.
//! - `sim`: the CPU.
//!
//! On the GPU all of a kernel is one function: `inline(always)`. The simulator shares what kernels have in common, which takes
//! half as long to compile, so functions that are not small are inlined there as the compiler likes.

#[cfg(feature = "cuda_std")]
mod cuda_std;
#[cfg(target_arch = "nvptx64")]
mod nvptx;
#[cfg(not(target_arch = "nvptx64"))]
pub mod sim;

#[cfg(all(target_arch = "nvptx64", feature = "cuda_std"))]
pub(crate) use self::cuda_std::{thread, warp};
#[cfg(target_arch = "nvptx64")]
pub(crate) use nvptx::{compiler, float, grid, matrix, memory, shared};
#[cfg(all(target_arch = "nvptx64", not(feature = "cuda_std")))]
pub(crate) use nvptx::{thread, warp};
#[cfg(not(target_arch = "nvptx64"))]
pub(crate) use sim::{compiler, float, grid, matrix, memory, shared, thread, warp};

/// The one piece of shared memory that a kernel has.
pub(crate) trait Piece {
    /// Its size.
    const BYTES: usize;
}
