//! GPU kernels that decode gated-delta-rule layers: the table of their symbols.
//!
//! One source, two targets: for `nvptx64` each line below is a PTX entry; on the host (feature `sim`) it is
//! an entry of [`KERNELS`] that [`arch::sim`] runs lane by lane. Without `sim` the host sees only [`abi`].
#![warn(missing_docs)]
#![cfg_attr(test, allow(unused, reason = "unit tests are of the simulator and leave the table out"))]
#![cfg_attr(any(target_arch = "nvptx64", not(feature = "sim")), no_std)]
#![cfg_attr(
    target_arch = "nvptx64",
    feature(abi_ptx, asm_experimental_arch, core_intrinsics, stdarch_nvptx),
    allow(internal_features)
)]

pub mod abi;

/// Everything but the ABI exists where kernels are compiled or simulated.
macro_rules! kernel_modules {
    ($($(#[$attribute:meta])* $visibility:vis mod $name:ident;)*) => {$(
        #[cfg(any(target_arch = "nvptx64", feature = "sim"))]
        $(#[$attribute])*
        $visibility mod $name;
    )*};
}
kernel_modules! {
    pub mod arch;
    mod conv;
    mod convert;
    mod copy;
    mod decode;
    mod element;
    mod entry;
    mod gate;
    mod keys;
    mod layout;
    mod math;
    mod norm;
    mod prepare;
    mod recurrent;
    mod replay;
    mod table;
    mod tile;
    mod token;
    mod unpack;
}
#[cfg(all(feature = "sim", not(target_arch = "nvptx64")))]
pub use table::{Columns, Kernel};

#[cfg(any(target_arch = "nvptx64", feature = "sim"))]
use {
    gate::{PerHead, PerKey},
    half::{bf16, f16},
    layout::{Kv, Vk},
};

// An operation, its function with the arguments that all its kernels share, its parameter struct and whether it works on tiles,
// which have shared memory; then a kernel a line: entry name, (type of the state, type of q, k and v, K, rows of a lane group),
// threads of a block at most. An operation without tiles has fewer columns: (type of the elements), (type of the conv state,
// type of the inputs), (type of x, type of z and out, V or 0 for any), or none.
#[cfg(any(target_arch = "nvptx64", feature = "sim"))]
table::kernels! {
    decode = decode::decode(Vk, PerHead) (DecodeParams, tiles) {
        gdn_decode_f32_f32_k128_r2: (f32, f32, 128, 2) 512;
        gdn_decode_f32_f32_k128_r8: (f32, f32, 128, 8) 256;
        gdn_decode_f32_bf16_k128_r2: (f32, bf16, 128, 2) 512;
        gdn_decode_f32_bf16_k128_r8: (f32, bf16, 128, 8) 256;
        gdn_decode_f32_f16_k128_r2: (f32, f16, 128, 2) 512;
        gdn_decode_f32_f16_k128_r8: (f32, f16, 128, 8) 256;
        gdn_decode_bf16_f32_k128_r2: (bf16, f32, 128, 2) 512;
        gdn_decode_bf16_f32_k128_r8: (bf16, f32, 128, 8) 256;
        gdn_decode_bf16_bf16_k128_r2: (bf16, bf16, 128, 2) 512;
        gdn_decode_bf16_bf16_k128_r8: (bf16, bf16, 128, 8) 256;
        gdn_decode_bf16_f16_k128_r2: (bf16, f16, 128, 2) 512;
        gdn_decode_bf16_f16_k128_r8: (bf16, f16, 128, 8) 256;
        gdn_decode_f16_f32_k128_r2: (f16, f32, 128, 2) 512;
        gdn_decode_f16_f32_k128_r8: (f16, f32, 128, 8) 256;
        gdn_decode_f16_bf16_k128_r2: (f16, bf16, 128, 2) 512;
        gdn_decode_f16_bf16_k128_r8: (f16, bf16, 128, 8) 256;
        gdn_decode_f16_f16_k128_r2: (f16, f16, 128, 2) 512;
        gdn_decode_f16_f16_k128_r8: (f16, f16, 128, 8) 256;
        gdn_decode_f32_f32_k64_r1: (f32, f32, 64, 1) 512;
        gdn_decode_f32_f32_k64_r4: (f32, f32, 64, 4) 256;
        gdn_decode_f32_bf16_k64_r1: (f32, bf16, 64, 1) 512;
        gdn_decode_f32_bf16_k64_r4: (f32, bf16, 64, 4) 256;
        gdn_decode_f32_f16_k64_r1: (f32, f16, 64, 1) 512;
        gdn_decode_f32_f16_k64_r4: (f32, f16, 64, 4) 256;
        gdn_decode_bf16_f32_k64_r1: (bf16, f32, 64, 1) 512;
        gdn_decode_bf16_f32_k64_r4: (bf16, f32, 64, 4) 256;
        gdn_decode_bf16_bf16_k64_r1: (bf16, bf16, 64, 1) 512;
        gdn_decode_bf16_bf16_k64_r4: (bf16, bf16, 64, 4) 256;
        gdn_decode_bf16_f16_k64_r1: (bf16, f16, 64, 1) 512;
        gdn_decode_bf16_f16_k64_r4: (bf16, f16, 64, 4) 256;
        gdn_decode_f16_f32_k64_r1: (f16, f32, 64, 1) 512;
        gdn_decode_f16_f32_k64_r4: (f16, f32, 64, 4) 256;
        gdn_decode_f16_bf16_k64_r1: (f16, bf16, 64, 1) 512;
        gdn_decode_f16_bf16_k64_r4: (f16, bf16, 64, 4) 256;
        gdn_decode_f16_f16_k64_r1: (f16, f16, 64, 1) 512;
        gdn_decode_f16_f16_k64_r4: (f16, f16, 64, 4) 256;
        gdn_decode_f32_f32_k96_r2: (f32, f32, 96, 2) 512;
        gdn_decode_f32_f32_k96_r8: (f32, f32, 96, 8) 256;
        gdn_decode_f32_bf16_k96_r2: (f32, bf16, 96, 2) 512;
        gdn_decode_f32_bf16_k96_r8: (f32, bf16, 96, 8) 256;
        gdn_decode_bf16_bf16_k96_r2: (bf16, bf16, 96, 2) 512;
        gdn_decode_bf16_bf16_k96_r8: (bf16, bf16, 96, 8) 256;
        gdn_decode_f32_f32_k256_r8: (f32, f32, 256, 8) 256;
        gdn_decode_f32_bf16_k256_r8: (f32, bf16, 256, 8) 256;
        gdn_decode_bf16_bf16_k256_r8: (bf16, bf16, 256, 8) 256;
    }
    decode_kv = decode::decode(Kv, PerHead) (DecodeParams, tiles) {
        gdn_decode_kv_f32_f32_k128_r8: (f32, f32, 128, 8) 128;
        gdn_decode_kv_f32_f32_k128_r32: (f32, f32, 128, 32) 256;
        gdn_decode_kv_f32_bf16_k128_r8: (f32, bf16, 128, 8) 128;
        gdn_decode_kv_f32_bf16_k128_r32: (f32, bf16, 128, 32) 256;
        gdn_decode_kv_f32_f16_k128_r8: (f32, f16, 128, 8) 128;
        gdn_decode_kv_f32_f16_k128_r32: (f32, f16, 128, 32) 256;
        gdn_decode_kv_bf16_bf16_k128_r16: (bf16, bf16, 128, 16) 64;
        gdn_decode_kv_bf16_bf16_k128_r32: (bf16, bf16, 128, 32) 256;
        gdn_decode_kv_bf16_bf16_k128_r64: (bf16, bf16, 128, 64) 256;
        gdn_decode_kv_f16_f16_k128_r16: (f16, f16, 128, 16) 64;
        gdn_decode_kv_f16_f16_k128_r32: (f16, f16, 128, 32) 256;
        gdn_decode_kv_f16_f16_k128_r64: (f16, f16, 128, 64) 256;
        gdn_decode_kv_f32_f32_k64_r4: (f32, f32, 64, 4) 256;
        gdn_decode_kv_f32_f32_k64_r16: (f32, f32, 64, 16) 256;
        gdn_decode_kv_f32_bf16_k64_r4: (f32, bf16, 64, 4) 256;
        gdn_decode_kv_f32_bf16_k64_r16: (f32, bf16, 64, 16) 256;
        gdn_decode_kv_f32_f16_k64_r4: (f32, f16, 64, 4) 256;
        gdn_decode_kv_f32_f16_k64_r16: (f32, f16, 64, 16) 256;
        gdn_decode_kv_bf16_bf16_k64_r8: (bf16, bf16, 64, 8) 256;
        gdn_decode_kv_bf16_bf16_k64_r16: (bf16, bf16, 64, 16) 256;
        gdn_decode_kv_f16_f16_k64_r8: (f16, f16, 64, 8) 256;
        gdn_decode_kv_f16_f16_k64_r16: (f16, f16, 64, 16) 256;
        gdn_decode_kv_f16_bf16_k128_r16: (f16, bf16, 128, 16) 256;
        gdn_decode_kv_f16_bf16_k64_r8: (f16, bf16, 64, 8) 256;
        gdn_decode_kv_f32_f32_k96_r16: (f32, f32, 96, 16) 256;
        gdn_decode_kv_f32_f32_k96_r32: (f32, f32, 96, 32) 256;
        gdn_decode_kv_f32_bf16_k96_r16: (f32, bf16, 96, 16) 256;
        gdn_decode_kv_f32_bf16_k96_r32: (f32, bf16, 96, 32) 256;
        gdn_decode_kv_bf16_bf16_k96_r16: (bf16, bf16, 96, 16) 256;
        gdn_decode_kv_bf16_bf16_k96_r32: (bf16, bf16, 96, 32) 256;
        gdn_decode_kv_f32_f32_k256_r32: (f32, f32, 256, 32) 256;
        gdn_decode_kv_f32_bf16_k256_r32: (f32, bf16, 256, 32) 256;
        gdn_decode_kv_bf16_bf16_k256_r32: (bf16, bf16, 256, 32) 256;
        gdn_decode_kv_bf16_bf16_k256_r64: (bf16, bf16, 256, 64) 256;
    }
    kda_decode = decode::decode(Vk, PerKey) (DecodeParams, tiles) {
        gdn_kda_decode_f32_f32_k128_r2: (f32, f32, 128, 2) 256;
        gdn_kda_decode_f32_f32_k128_r8: (f32, f32, 128, 8) 256;
        gdn_kda_decode_f32_bf16_k128_r2: (f32, bf16, 128, 2) 256;
        gdn_kda_decode_f32_bf16_k128_r8: (f32, bf16, 128, 8) 256;
        gdn_kda_decode_f32_f16_k128_r2: (f32, f16, 128, 2) 256;
        gdn_kda_decode_f32_f16_k128_r8: (f32, f16, 128, 8) 256;
        gdn_kda_decode_bf16_bf16_k128_r2: (bf16, bf16, 128, 2) 256;
        gdn_kda_decode_bf16_bf16_k128_r8: (bf16, bf16, 128, 8) 256;
        gdn_kda_decode_f16_f16_k128_r2: (f16, f16, 128, 2) 256;
        gdn_kda_decode_f16_f16_k128_r8: (f16, f16, 128, 8) 256;
        gdn_kda_decode_f32_f32_k64_r1: (f32, f32, 64, 1) 256;
        gdn_kda_decode_f32_f32_k64_r4: (f32, f32, 64, 4) 256;
        gdn_kda_decode_f32_bf16_k64_r1: (f32, bf16, 64, 1) 256;
        gdn_kda_decode_f32_bf16_k64_r4: (f32, bf16, 64, 4) 256;
        gdn_kda_decode_f32_f16_k64_r1: (f32, f16, 64, 1) 256;
        gdn_kda_decode_f32_f16_k64_r4: (f32, f16, 64, 4) 256;
        gdn_kda_decode_bf16_bf16_k64_r1: (bf16, bf16, 64, 1) 256;
        gdn_kda_decode_bf16_bf16_k64_r4: (bf16, bf16, 64, 4) 256;
        gdn_kda_decode_f16_f16_k64_r1: (f16, f16, 64, 1) 256;
        gdn_kda_decode_f16_f16_k64_r4: (f16, f16, 64, 4) 256;
        gdn_kda_decode_f16_bf16_k128_r8: (f16, bf16, 128, 8) 256;
        gdn_kda_decode_bf16_f32_k128_r8: (bf16, f32, 128, 8) 256;
        gdn_kda_decode_bf16_f16_k128_r8: (bf16, f16, 128, 8) 256;
        gdn_kda_decode_f16_f32_k128_r8: (f16, f32, 128, 8) 256;
        gdn_kda_decode_f16_bf16_k64_r4: (f16, bf16, 64, 4) 256;
    }
    kda_decode_kv = decode::decode(Kv, PerKey) (DecodeParams, tiles) {
        gdn_kda_decode_kv_f32_f32_k128_r8: (f32, f32, 128, 8) 128;
        gdn_kda_decode_kv_f32_f32_k128_r32: (f32, f32, 128, 32) 256;
        gdn_kda_decode_kv_f32_bf16_k128_r8: (f32, bf16, 128, 8) 128;
        gdn_kda_decode_kv_f32_bf16_k128_r32: (f32, bf16, 128, 32) 256;
        gdn_kda_decode_kv_f32_f16_k128_r8: (f32, f16, 128, 8) 128;
        gdn_kda_decode_kv_f32_f16_k128_r32: (f32, f16, 128, 32) 256;
        gdn_kda_decode_kv_bf16_bf16_k128_r16: (bf16, bf16, 128, 16) 128;
        gdn_kda_decode_kv_bf16_bf16_k128_r32: (bf16, bf16, 128, 32) 256;
        gdn_kda_decode_kv_bf16_bf16_k128_r64: (bf16, bf16, 128, 64) 256;
        gdn_kda_decode_kv_f16_f16_k128_r16: (f16, f16, 128, 16) 128;
        gdn_kda_decode_kv_f16_f16_k128_r32: (f16, f16, 128, 32) 256;
        gdn_kda_decode_kv_f16_f16_k128_r64: (f16, f16, 128, 64) 256;
        gdn_kda_decode_kv_f32_f32_k64_r4: (f32, f32, 64, 4) 256;
        gdn_kda_decode_kv_f32_f32_k64_r16: (f32, f32, 64, 16) 256;
        gdn_kda_decode_kv_f32_bf16_k64_r4: (f32, bf16, 64, 4) 256;
        gdn_kda_decode_kv_f32_bf16_k64_r16: (f32, bf16, 64, 16) 256;
        gdn_kda_decode_kv_f32_f16_k64_r4: (f32, f16, 64, 4) 256;
        gdn_kda_decode_kv_f32_f16_k64_r16: (f32, f16, 64, 16) 256;
        gdn_kda_decode_kv_bf16_bf16_k64_r8: (bf16, bf16, 64, 8) 256;
        gdn_kda_decode_kv_bf16_bf16_k64_r16: (bf16, bf16, 64, 16) 256;
        gdn_kda_decode_kv_f16_f16_k64_r8: (f16, f16, 64, 8) 256;
        gdn_kda_decode_kv_f16_f16_k64_r16: (f16, f16, 64, 16) 256;
        gdn_kda_decode_kv_f16_bf16_k128_r16: (f16, bf16, 128, 16) 256;
        gdn_kda_decode_kv_f16_bf16_k64_r8: (f16, bf16, 64, 8) 256;
    }
    recurrent = recurrent::recurrent(Vk, PerHead) (RecurrentParams, tiles) {
        gdn_recurrent_f32_f32_k128_r4: (f32, f32, 128, 4) 256;
        gdn_recurrent_f32_bf16_k128_r4: (f32, bf16, 128, 4) 256;
        gdn_recurrent_f32_f16_k128_r4: (f32, f16, 128, 4) 256;
        gdn_recurrent_bf16_bf16_k128_r4: (bf16, bf16, 128, 4) 256;
        gdn_recurrent_bf16_bf16_k128_r8: (bf16, bf16, 128, 8) 256;
        gdn_recurrent_f16_f16_k128_r4: (f16, f16, 128, 4) 256;
        gdn_recurrent_f16_f16_k128_r8: (f16, f16, 128, 8) 256;
        gdn_recurrent_f32_f32_k64_r4: (f32, f32, 64, 4) 256;
        gdn_recurrent_f32_bf16_k64_r4: (f32, bf16, 64, 4) 256;
        gdn_recurrent_f32_f16_k64_r4: (f32, f16, 64, 4) 256;
        gdn_recurrent_bf16_bf16_k64_r2: (bf16, bf16, 64, 2) 256;
        gdn_recurrent_bf16_bf16_k64_r4: (bf16, bf16, 64, 4) 256;
        gdn_recurrent_f16_f16_k64_r2: (f16, f16, 64, 2) 256;
        gdn_recurrent_f16_f16_k64_r4: (f16, f16, 64, 4) 256;
        gdn_recurrent_f16_bf16_k128_r8: (f16, bf16, 128, 8) 256;
        gdn_recurrent_bf16_f32_k128_r8: (bf16, f32, 128, 8) 256;
        gdn_recurrent_bf16_f16_k128_r8: (bf16, f16, 128, 8) 256;
        gdn_recurrent_f16_f32_k128_r8: (f16, f32, 128, 8) 256;
        gdn_recurrent_f16_bf16_k64_r4: (f16, bf16, 64, 4) 256;
        gdn_recurrent_f32_f32_k96_r4: (f32, f32, 96, 4) 256;
        gdn_recurrent_f32_bf16_k96_r4: (f32, bf16, 96, 4) 256;
        gdn_recurrent_bf16_bf16_k96_r8: (bf16, bf16, 96, 8) 256;
        gdn_recurrent_f32_f32_k256_r4: (f32, f32, 256, 4) 256;
        gdn_recurrent_f32_bf16_k256_r4: (f32, bf16, 256, 4) 256;
        gdn_recurrent_bf16_bf16_k256_r8: (bf16, bf16, 256, 8) 256;
    }
    recurrent_kv = recurrent::recurrent(Kv, PerHead) (RecurrentParams, tiles) {
        gdn_recurrent_kv_f32_f32_k128_r16: (f32, f32, 128, 16) 256;
        gdn_recurrent_kv_f32_bf16_k128_r16: (f32, bf16, 128, 16) 256;
        gdn_recurrent_kv_f32_bf16_k128_r32: (f32, bf16, 128, 32) 256;
        gdn_recurrent_kv_f32_f16_k128_r16: (f32, f16, 128, 16) 256;
        gdn_recurrent_kv_f32_f16_k128_r32: (f32, f16, 128, 32) 256;
        gdn_recurrent_kv_bf16_bf16_k128_r16: (bf16, bf16, 128, 16) 256;
        gdn_recurrent_kv_bf16_bf16_k128_r32: (bf16, bf16, 128, 32) 256;
        gdn_recurrent_kv_f16_f16_k128_r16: (f16, f16, 128, 16) 256;
        gdn_recurrent_kv_f16_f16_k128_r32: (f16, f16, 128, 32) 256;
        gdn_recurrent_kv_f32_f32_k64_r8: (f32, f32, 64, 8) 256;
        gdn_recurrent_kv_f32_bf16_k64_r8: (f32, bf16, 64, 8) 256;
        gdn_recurrent_kv_f32_f16_k64_r8: (f32, f16, 64, 8) 256;
        gdn_recurrent_kv_bf16_bf16_k64_r8: (bf16, bf16, 64, 8) 256;
        gdn_recurrent_kv_bf16_bf16_k64_r16: (bf16, bf16, 64, 16) 256;
        gdn_recurrent_kv_f16_f16_k64_r8: (f16, f16, 64, 8) 256;
        gdn_recurrent_kv_f16_f16_k64_r16: (f16, f16, 64, 16) 256;
        gdn_recurrent_kv_f16_bf16_k128_r16: (f16, bf16, 128, 16) 256;
        gdn_recurrent_kv_f16_bf16_k64_r8: (f16, bf16, 64, 8) 256;
        gdn_recurrent_kv_f32_f32_k96_r16: (f32, f32, 96, 16) 256;
        gdn_recurrent_kv_f32_bf16_k96_r16: (f32, bf16, 96, 16) 256;
        gdn_recurrent_kv_bf16_bf16_k96_r16: (bf16, bf16, 96, 16) 256;
        gdn_recurrent_kv_f32_f32_k256_r32: (f32, f32, 256, 32) 256;
        gdn_recurrent_kv_f32_bf16_k256_r32: (f32, bf16, 256, 32) 256;
        gdn_recurrent_kv_bf16_bf16_k256_r32: (bf16, bf16, 256, 32) 256;
    }
    kda_recurrent = recurrent::recurrent(Vk, PerKey) (RecurrentParams, tiles) {
        gdn_kda_recurrent_f32_f32_k128_r4: (f32, f32, 128, 4) 256;
        gdn_kda_recurrent_f32_bf16_k128_r4: (f32, bf16, 128, 4) 256;
        gdn_kda_recurrent_f32_f16_k128_r4: (f32, f16, 128, 4) 256;
        gdn_kda_recurrent_bf16_bf16_k128_r4: (bf16, bf16, 128, 4) 256;
        gdn_kda_recurrent_bf16_bf16_k128_r8: (bf16, bf16, 128, 8) 256;
        gdn_kda_recurrent_f16_f16_k128_r4: (f16, f16, 128, 4) 256;
        gdn_kda_recurrent_f16_f16_k128_r8: (f16, f16, 128, 8) 256;
        gdn_kda_recurrent_f32_f32_k64_r4: (f32, f32, 64, 4) 256;
        gdn_kda_recurrent_f32_bf16_k64_r4: (f32, bf16, 64, 4) 256;
        gdn_kda_recurrent_f32_f16_k64_r4: (f32, f16, 64, 4) 256;
        gdn_kda_recurrent_bf16_bf16_k64_r2: (bf16, bf16, 64, 2) 256;
        gdn_kda_recurrent_bf16_bf16_k64_r4: (bf16, bf16, 64, 4) 256;
        gdn_kda_recurrent_f16_f16_k64_r2: (f16, f16, 64, 2) 256;
        gdn_kda_recurrent_f16_f16_k64_r4: (f16, f16, 64, 4) 256;
        gdn_kda_recurrent_f16_bf16_k128_r8: (f16, bf16, 128, 8) 256;
        gdn_kda_recurrent_bf16_f32_k128_r8: (bf16, f32, 128, 8) 256;
        gdn_kda_recurrent_bf16_f16_k128_r8: (bf16, f16, 128, 8) 256;
        gdn_kda_recurrent_f16_f32_k128_r8: (f16, f32, 128, 8) 256;
        gdn_kda_recurrent_f16_bf16_k64_r4: (f16, bf16, 64, 4) 256;
    }
    kda_recurrent_kv = recurrent::recurrent(Kv, PerKey) (RecurrentParams, tiles) {
        gdn_kda_recurrent_kv_f32_f32_k128_r16: (f32, f32, 128, 16) 256;
        gdn_kda_recurrent_kv_f32_bf16_k128_r16: (f32, bf16, 128, 16) 256;
        gdn_kda_recurrent_kv_f32_bf16_k128_r32: (f32, bf16, 128, 32) 256;
        gdn_kda_recurrent_kv_f32_f16_k128_r16: (f32, f16, 128, 16) 256;
        gdn_kda_recurrent_kv_f32_f16_k128_r32: (f32, f16, 128, 32) 256;
        gdn_kda_recurrent_kv_bf16_bf16_k128_r16: (bf16, bf16, 128, 16) 256;
        gdn_kda_recurrent_kv_bf16_bf16_k128_r32: (bf16, bf16, 128, 32) 256;
        gdn_kda_recurrent_kv_f16_f16_k128_r16: (f16, f16, 128, 16) 256;
        gdn_kda_recurrent_kv_f16_f16_k128_r32: (f16, f16, 128, 32) 256;
        gdn_kda_recurrent_kv_f32_f32_k64_r8: (f32, f32, 64, 8) 256;
        gdn_kda_recurrent_kv_f32_bf16_k64_r8: (f32, bf16, 64, 8) 256;
        gdn_kda_recurrent_kv_f32_f16_k64_r8: (f32, f16, 64, 8) 256;
        gdn_kda_recurrent_kv_bf16_bf16_k64_r8: (bf16, bf16, 64, 8) 256;
        gdn_kda_recurrent_kv_bf16_bf16_k64_r16: (bf16, bf16, 64, 16) 256;
        gdn_kda_recurrent_kv_f16_f16_k64_r8: (f16, f16, 64, 8) 256;
        gdn_kda_recurrent_kv_f16_f16_k64_r16: (f16, f16, 64, 16) 256;
        gdn_kda_recurrent_kv_f16_bf16_k128_r16: (f16, bf16, 128, 16) 256;
        gdn_kda_recurrent_kv_f16_bf16_k64_r8: (f16, bf16, 64, 8) 256;
    }
    replay_decode = replay::decode(Vk, PerHead) (ReplayParams, token) {
        gdn_replay_decode_f32_f32_k128_r2: (f32, f32, 128, 2) 256;
        gdn_replay_decode_f32_f32_k128_r8: (f32, f32, 128, 8) 256;
        gdn_replay_decode_f32_bf16_k128_r2: (f32, bf16, 128, 2) 256;
        gdn_replay_decode_f32_bf16_k128_r8: (f32, bf16, 128, 8) 256;
        gdn_replay_decode_f32_f16_k128_r2: (f32, f16, 128, 2) 256;
        gdn_replay_decode_f32_f16_k128_r8: (f32, f16, 128, 8) 256;
        gdn_replay_decode_bf16_bf16_k128_r2: (bf16, bf16, 128, 2) 256;
        gdn_replay_decode_bf16_bf16_k128_r8: (bf16, bf16, 128, 8) 256;
        gdn_replay_decode_f16_f16_k128_r2: (f16, f16, 128, 2) 256;
        gdn_replay_decode_f16_f16_k128_r8: (f16, f16, 128, 8) 256;
        gdn_replay_decode_f16_bf16_k128_r2: (f16, bf16, 128, 2) 256;
        gdn_replay_decode_f16_bf16_k128_r8: (f16, bf16, 128, 8) 256;
        gdn_replay_decode_f32_f32_k64_r4: (f32, f32, 64, 4) 256;
        gdn_replay_decode_f32_bf16_k64_r4: (f32, bf16, 64, 4) 256;
        gdn_replay_decode_bf16_bf16_k64_r4: (bf16, bf16, 64, 4) 256;
    }
    kda_replay_decode = replay::decode(Vk, PerKey) (ReplayParams, token) {
        gdn_kda_replay_decode_f32_f32_k128_r2: (f32, f32, 128, 2) 256;
        gdn_kda_replay_decode_f32_f32_k128_r8: (f32, f32, 128, 8) 256;
        gdn_kda_replay_decode_f32_bf16_k128_r2: (f32, bf16, 128, 2) 256;
        gdn_kda_replay_decode_f32_bf16_k128_r8: (f32, bf16, 128, 8) 256;
        gdn_kda_replay_decode_f32_f16_k128_r2: (f32, f16, 128, 2) 256;
        gdn_kda_replay_decode_f32_f16_k128_r8: (f32, f16, 128, 8) 256;
        gdn_kda_replay_decode_bf16_bf16_k128_r2: (bf16, bf16, 128, 2) 256;
        gdn_kda_replay_decode_bf16_bf16_k128_r8: (bf16, bf16, 128, 8) 256;
        gdn_kda_replay_decode_f16_f16_k128_r2: (f16, f16, 128, 2) 256;
        gdn_kda_replay_decode_f16_f16_k128_r8: (f16, f16, 128, 8) 256;
        gdn_kda_replay_decode_f16_bf16_k128_r2: (f16, bf16, 128, 2) 256;
        gdn_kda_replay_decode_f16_bf16_k128_r8: (f16, bf16, 128, 8) 256;
    }
    replay_verify = replay::verify(Vk, PerHead) (ReplayParams, drafts) {
        gdn_replay_verify_f32_f32_k128_r8: (f32, f32, 128, 8) 128;
        gdn_replay_verify_f32_f16_k128_r8: (f32, f16, 128, 8) 128;
        gdn_replay_verify_f16_bf16_k128_r8: (f16, bf16, 128, 8) 128;
    }
    replay_verify = replay::products(Vk, PerHead) (ReplayParams, products) {
        gdn_replay_verify_f32_bf16_k128_r8: (f32, bf16, 128, 8) 128;
        gdn_replay_verify_bf16_bf16_k128_r8: (bf16, bf16, 128, 8) 128;
        gdn_replay_verify_bf16_bf16_k128_r16: (bf16, bf16, 128, 16) 128;
        gdn_replay_verify_f16_f16_k128_r8: (f16, f16, 128, 8) 128;
        gdn_replay_verify_f16_f16_k128_r16: (f16, f16, 128, 16) 128;
    }
    kda_replay_verify = replay::verify(Vk, PerKey) (ReplayParams, drafts) {
        gdn_kda_replay_verify_f32_f32_k128_r8: (f32, f32, 128, 8) 128;
        gdn_kda_replay_verify_f32_f16_k128_r8: (f32, f16, 128, 8) 128;
        gdn_kda_replay_verify_f16_f16_k128_r8: (f16, f16, 128, 8) 128;
        gdn_kda_replay_verify_f16_bf16_k128_r8: (f16, bf16, 128, 8) 128;
    }
    kda_replay_verify = replay::products(Vk, PerKey) (ReplayParams, products) {
        gdn_kda_replay_verify_f32_bf16_k128_r8: (f32, bf16, 128, 8) 128;
        gdn_kda_replay_verify_f32_bf16_k128_r16: (f32, bf16, 128, 16) 128;
        gdn_kda_replay_verify_bf16_bf16_k128_r8: (bf16, bf16, 128, 8) 128;
        gdn_kda_replay_verify_bf16_bf16_k128_r16: (bf16, bf16, 128, 16) 128;
    }
    replay_fold = replay::fold(Vk, PerHead) (ReplayFoldParams, records) {
        gdn_replay_fold_f32_f32_k128_r8: (f32, f32, 128, 8) 256;
        gdn_replay_fold_f32_bf16_k128_r8: (f32, bf16, 128, 8) 256;
        gdn_replay_fold_f32_f16_k128_r8: (f32, f16, 128, 8) 256;
        gdn_replay_fold_bf16_bf16_k128_r8: (bf16, bf16, 128, 8) 256;
        gdn_replay_fold_f16_f16_k128_r8: (f16, f16, 128, 8) 256;
        gdn_replay_fold_f16_bf16_k128_r8: (f16, bf16, 128, 8) 256;
        gdn_replay_fold_f32_f32_k64_r4: (f32, f32, 64, 4) 256;
        gdn_replay_fold_f32_bf16_k64_r4: (f32, bf16, 64, 4) 256;
        gdn_replay_fold_bf16_bf16_k64_r4: (bf16, bf16, 64, 4) 256;
    }
    kda_replay_fold = replay::fold(Vk, PerKey) (ReplayFoldParams, records) {
        gdn_kda_replay_fold_f32_f32_k128_r8: (f32, f32, 128, 8) 256;
        gdn_kda_replay_fold_f32_bf16_k128_r8: (f32, bf16, 128, 8) 256;
        gdn_kda_replay_fold_f32_f16_k128_r8: (f32, f16, 128, 8) 256;
        gdn_kda_replay_fold_bf16_bf16_k128_r8: (bf16, bf16, 128, 8) 256;
        gdn_kda_replay_fold_f16_f16_k128_r8: (f16, f16, 128, 8) 256;
        gdn_kda_replay_fold_f16_bf16_k128_r8: (f16, bf16, 128, 8) 256;
    }
    replay_commit = replay::commit() (ReplayCommitParams, none) {
        gdn_replay_commit: () 256;
    }
    replay_advance = replay::advance() (ReplayAdvanceParams, none) {
        gdn_replay_advance: () 256;
    }
    copy_state = copy::copy_state() (CopyStateParams, none) {
        gdn_copy_state: () 256;
    }
    convert_layout = convert::convert_layout() (ConvertLayoutParams, none) {
        gdn_convert_layout_f32: (f32) 256;
        gdn_convert_layout_bf16: (bf16) 256;
        gdn_convert_layout_f16: (f16) 256;
    }
    unpack_qkvz = unpack::unpack_qkvz() (UnpackQkvzParams, none) {
        gdn_unpack_qkvz: () 256;
    }
    conv1d_update = conv::conv1d_update() (Conv1dParams, none) {
        gdn_conv1d_update_f32_f32: (f32, f32) 256;
        gdn_conv1d_update_f32_bf16: (f32, bf16) 256;
        gdn_conv1d_update_f32_f16: (f32, f16) 256;
        gdn_conv1d_update_bf16_bf16: (bf16, bf16) 256;
        gdn_conv1d_update_f16_f16: (f16, f16) 256;
    }
    gated_rmsnorm = norm::gated_rmsnorm() (GatedRmsNormParams, none) {
        gdn_gated_rmsnorm_f32_f32_k128: (f32, f32, 128) 256;
        gdn_gated_rmsnorm_f32_bf16_k128: (f32, bf16, 128) 256;
        gdn_gated_rmsnorm_f32_f16_k128: (f32, f16, 128) 256;
        gdn_gated_rmsnorm_bf16_bf16_k128: (bf16, bf16, 128) 256;
        gdn_gated_rmsnorm_f16_f16_k128: (f16, f16, 128) 256;
        gdn_gated_rmsnorm_f32_f32_k64: (f32, f32, 64) 256;
        gdn_gated_rmsnorm_f32_bf16_k64: (f32, bf16, 64) 256;
        gdn_gated_rmsnorm_f32_f16_k64: (f32, f16, 64) 256;
        gdn_gated_rmsnorm_bf16_bf16_k64: (bf16, bf16, 64) 256;
        gdn_gated_rmsnorm_f16_f16_k64: (f16, f16, 64) 256;
        gdn_gated_rmsnorm_f32_f32: (f32, f32, 0) 256;
        gdn_gated_rmsnorm_f32_bf16: (f32, bf16, 0) 256;
        gdn_gated_rmsnorm_f32_f16: (f32, f16, 0) 256;
        gdn_gated_rmsnorm_bf16_bf16: (bf16, bf16, 0) 256;
        gdn_gated_rmsnorm_f16_f16: (f16, f16, 0) 256;
    }
}
