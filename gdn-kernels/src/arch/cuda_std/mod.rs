//! The seam's `thread` and `warp` over Rust-CUDA's `cuda_std`: in place of those in `../nvptx`, with feature `cuda_std`.
//!
//! The backend is rustc's own here too, so `cuda_std` lacks what Rust-CUDA's backend links to it. `intrinsics` is that.
//! `docs/RUST_CUDA.md` says which sources of `cuda_std` compile, and how to build over them.
//!
//! On the host this module is only type-checked, and only `thread`: the published `cuda_std` has no shuffles.

#[cfg(target_arch = "nvptx64")]
mod intrinsics;
#[cfg_attr(not(target_arch = "nvptx64"), allow(dead_code, unused_imports))]
pub(crate) mod thread;
#[cfg(target_arch = "nvptx64")]
pub(crate) mod warp;
