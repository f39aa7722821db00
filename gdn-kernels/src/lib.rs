//! GPU kernels that decode gated-delta-rule layers: the table of their symbols.
//!
//! One source, two targets: for `nvptx64` each line below is a PTX entry; on the host (feature `sim`) it is
//! an entry of [`KERNELS`] that [`arch::sim`] runs lane by lane. Without `sim` the host sees only [`abi`].
#![warn(missing_docs)]
#![cfg_attr(any(target_arch = "nvptx64", not(feature = "sim")), no_std)]
#![cfg_attr(
    target_arch = "nvptx64",
    feature(abi_ptx, asm_experimental_arch, core_intrinsics, stdarch_nvptx),
    allow(internal_features)
)]

pub mod abi;
#[cfg(any(target_arch = "nvptx64", feature = "sim"))]
pub mod arch;
#[cfg(any(target_arch = "nvptx64", feature = "sim"))]
mod decode;
#[cfg(any(target_arch = "nvptx64", feature = "sim"))]
mod math;
#[cfg(any(target_arch = "nvptx64", feature = "sim"))]
mod table;
#[cfg(any(target_arch = "nvptx64", feature = "sim"))]
mod tile;
#[cfg(all(feature = "sim", not(target_arch = "nvptx64")))]
pub use table::Kernel;

#[cfg(any(target_arch = "nvptx64", feature = "sim"))]
use half::{bf16, f16};

#[cfg(any(target_arch = "nvptx64", feature = "sim"))]
// Name of the entry: type of the state, type of q, k and v, K, rows of a lane group, threads of a block at most.
table::kernels! {
    decode(DecodeParams) {
        gdn_decode_f32_f32_k128_r2: f32, f32, 128, 2, 512;
        gdn_decode_f32_f32_k128_r8: f32, f32, 128, 8, 256;
        gdn_decode_f32_bf16_k128_r2: f32, bf16, 128, 2, 512;
        gdn_decode_f32_bf16_k128_r8: f32, bf16, 128, 8, 256;
        gdn_decode_f32_f16_k128_r2: f32, f16, 128, 2, 512;
        gdn_decode_f32_f16_k128_r8: f32, f16, 128, 8, 256;
        gdn_decode_bf16_f32_k128_r2: bf16, f32, 128, 2, 512;
        gdn_decode_bf16_f32_k128_r8: bf16, f32, 128, 8, 256;
        gdn_decode_bf16_bf16_k128_r2: bf16, bf16, 128, 2, 512;
        gdn_decode_bf16_bf16_k128_r8: bf16, bf16, 128, 8, 256;
        gdn_decode_bf16_f16_k128_r2: bf16, f16, 128, 2, 512;
        gdn_decode_bf16_f16_k128_r8: bf16, f16, 128, 8, 256;
        gdn_decode_f16_f32_k128_r2: f16, f32, 128, 2, 512;
        gdn_decode_f16_f32_k128_r8: f16, f32, 128, 8, 256;
        gdn_decode_f16_bf16_k128_r2: f16, bf16, 128, 2, 512;
        gdn_decode_f16_bf16_k128_r8: f16, bf16, 128, 8, 256;
        gdn_decode_f16_f16_k128_r2: f16, f16, 128, 2, 512;
        gdn_decode_f16_f16_k128_r8: f16, f16, 128, 8, 256;
        gdn_decode_f32_f32_k64_r1: f32, f32, 64, 1, 512;
        gdn_decode_f32_f32_k64_r4: f32, f32, 64, 4, 256;
        gdn_decode_f32_bf16_k64_r1: f32, bf16, 64, 1, 512;
        gdn_decode_f32_bf16_k64_r4: f32, bf16, 64, 4, 256;
        gdn_decode_f32_f16_k64_r1: f32, f16, 64, 1, 512;
        gdn_decode_f32_f16_k64_r4: f32, f16, 64, 4, 256;
        gdn_decode_bf16_f32_k64_r1: bf16, f32, 64, 1, 512;
        gdn_decode_bf16_f32_k64_r4: bf16, f32, 64, 4, 256;
        gdn_decode_bf16_bf16_k64_r1: bf16, bf16, 64, 1, 512;
        gdn_decode_bf16_bf16_k64_r4: bf16, bf16, 64, 4, 256;
        gdn_decode_bf16_f16_k64_r1: bf16, f16, 64, 1, 512;
        gdn_decode_bf16_f16_k64_r4: bf16, f16, 64, 4, 256;
        gdn_decode_f16_f32_k64_r1: f16, f32, 64, 1, 512;
        gdn_decode_f16_f32_k64_r4: f16, f32, 64, 4, 256;
        gdn_decode_f16_bf16_k64_r1: f16, bf16, 64, 1, 512;
        gdn_decode_f16_bf16_k64_r4: f16, bf16, 64, 4, 256;
        gdn_decode_f16_f16_k64_r1: f16, f16, 64, 1, 512;
        gdn_decode_f16_f16_k64_r4: f16, f16, 64, 4, 256;
    }
}
