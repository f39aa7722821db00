//! The seam on NVIDIA GPUs, through rustc's own `nvptx64-nvidia-cuda` backend.
//!
//! Memory operations are written as inline PTX: it names the state space, so that no generic load appears,
//! fixes the vector width, and carries cache hints that no intrinsic offers. They are left volatile on
//! purpose (no `pure`): the order of the source is the order in which loads are issued, and the kernels
//! rely on that to have a whole tile in flight before anything waits. Shuffles and barriers must never be
//! `pure`: they are what the lanes converge on.
//!
//! A new function goes into the file of its module here, and into `../sim`. One of `thread` or `warp` goes into
//! `../cuda_std` as well: these two modules are what the feature `cuda_std` replaces. `cargo test -p xtask seam`
//! says which of the three lacks a function.

pub(crate) mod compiler;
pub(crate) mod float;
pub(crate) mod grid;
pub(crate) mod matrix;
pub(crate) mod memory;
pub(crate) mod shared;
#[cfg(not(feature = "cuda_std"))]
pub(crate) mod thread;
#[cfg(not(feature = "cuda_std"))]
pub(crate) mod warp;

/// Kernels neither panic nor call: the build lints the PTX for it, and drops this function. `cuda_std` brings its own.
#[cfg(not(feature = "cuda_std"))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
