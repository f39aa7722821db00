//! What is known of a module, and the features of this crate that bring its files.
//!
//! The build script reads this file too: it packs the files that the features choose.

use crate::key::{DType, Family, Layout, ModuleKey, OpKind};
use std::ffi::CStr;

/// A module of kernels for a PTX target: what is known of its files and entries.
#[derive(Debug)]
pub struct EmbeddedModule {
    /// Name without target: `decode_f32_bf16_k128`.
    pub name: &'static str,
    /// Name of the PTX file: `decode_f32_bf16_k128.sm_90.ptx`.
    pub file: &'static str,
    /// PTX target, `10 * major + minor`: runs on this compute capability and every later one.
    pub arch: u32,
    /// What the module holds.
    pub key: ModuleKey,
    /// SHA-256 of the PTX file, in hexadecimal.
    pub sha256: &'static str,
    /// Machine code assembled from this PTX.
    pub binaries: &'static [EmbeddedBinary],
    /// Its kernels.
    pub entries: &'static [EmbeddedEntry],
}

/// A cubin: machine code of a module, with the entries of its PTX.
#[derive(Debug)]
pub struct EmbeddedBinary {
    /// Name of the file: `decode_f32_bf16_k128.sm_90.cubin`.
    pub file: &'static str,
    /// Compute capability it was assembled for, `10 * major + minor`.
    pub gpu: u32,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: &'static str,
}

/// A kernel of a module.
#[derive(Debug)]
pub struct EmbeddedEntry {
    /// Entry name.
    pub name: &'static CStr,
    /// Height of a warp's tile, see [`crate::plan::rows`]; 0 if the operation has no tiles.
    pub rows: u32,
    /// Bytes of the parameter struct.
    pub params_size: u32,
    /// Largest number of threads of a block.
    pub max_threads: u32,
}

/// A feature of this crate that brings kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Its name: `kda`.
    pub name: &'static str,
    /// Whether this build has it.
    pub is_on: bool,
}

macro_rules! feature {
    ($name:literal) => {
        Feature { name: $name, is_on: cfg!(feature = $name) }
    };
}

/// Embeds PTX.
pub const PTX: Feature = feature!("ptx");

/// Embeds machine code.
pub const CUBIN: Feature = feature!("cubin");

/// The features that embed a module, with [`PTX`] or [`CUBIN`]: all of them are needed.
pub fn features(key: ModuleKey) -> impl Iterator<Item = Feature> {
    let family = key.family.map(|family| match family {
        Family::Gdn => feature!("gdn"),
        Family::Kda => feature!("kda"),
    });
    let layout = key.layout.map(|layout| match layout {
        Layout::Vk => feature!("vk"),
        Layout::Kv => feature!("kv"),
    });
    let of_state = |dtype| match dtype {
        DType::F32 => feature!("state-f32"),
        DType::Bf16 => feature!("state-bf16"),
        DType::F16 => feature!("state-f16"),
    };
    let of_inputs = |dtype| match dtype {
        DType::F32 => feature!("io-f32"),
        DType::Bf16 => feature!("io-bf16"),
        DType::F16 => feature!("io-f16"),
    };
    let of_k = match key.k {
        64 => Some(feature!("k64")),
        96 => Some(feature!("k96")),
        128 => Some(feature!("k128")),
        256 => Some(feature!("k256")),
        _ => None,
    };
    let [state, io, last] = match key.op {
        OpKind::Decode
        | OpKind::Recurrent
        | OpKind::ReplayDecode
        | OpKind::ReplayVerify
        | OpKind::ReplayFold => [key.state.map(of_state), key.io.map(of_inputs), of_k],
        OpKind::ConvertLayout => [key.io.map(of_state), None, None],
        OpKind::CopyState | OpKind::ReplayCommit | OpKind::ReplayAdvance => [None; 3],
        OpKind::UnpackQkvz | OpKind::Conv1dUpdate | OpKind::GatedRmsNorm => {
            [None, key.io.map(of_inputs), Some(feature!("neighbours"))]
        }
    };
    [family, layout, state, io, last].into_iter().flatten()
}
