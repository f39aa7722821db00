//! The embedded PTX: one module per operation and choice of types and dimension, for each PTX target; and machine code
//! (cubins) assembled from it for GPUs on which it was proven, which the driver loads without compiling.
//!
//! The files, their manifest and the table below them are written by `cargo xtask build-kernels`; users
//! need no kernel toolchain. Other hosts load the same files: `ptx/manifest.json` says what is in them, and
//! `ptx/gdn.h` what their arguments look like.

use crate::key::ModuleKey;
use sha2::{Digest, Sha256};
use std::ffi::CStr;

/// An embedded PTX file.
#[derive(Debug)]
pub struct EmbeddedModule {
    /// Name without target: `decode_f32_bf16_k128`.
    pub name: &'static str,
    /// Name of the file: `decode_f32_bf16_k128.sm_90.ptx`.
    pub file: &'static str,
    /// PTX target, `10 * major + minor`: runs on this compute capability and every later one.
    pub arch: u32,
    /// What the module holds.
    pub key: ModuleKey,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: &'static str,
    /// The PTX text, with a terminating NUL.
    pub ptx: &'static str,
    /// Machine code assembled from this file.
    pub binaries: &'static [EmbeddedBinary],
    /// Its kernels.
    pub entries: &'static [EmbeddedEntry],
}

/// An embedded cubin: machine code of a module, with the entries of its PTX.
#[derive(Debug)]
pub struct EmbeddedBinary {
    /// Name of the file: `decode_f32_bf16_k128.sm_90.cubin`.
    pub file: &'static str,
    /// Compute capability it was assembled for, `10 * major + minor`.
    pub gpu: u32,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: &'static str,
    /// The file, aligned to 8 bytes as its ELF headers are.
    pub bytes: &'static [u8],
}

/// Bytes where an ELF file's headers are aligned.
#[repr(C, align(8))]
#[allow(dead_code, reason = "kernels that were built without ptxas have no binaries")]
struct Aligned<T>(T);

/// A kernel of an embedded PTX file.
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

impl EmbeddedModule {
    /// The PTX text as the driver takes it.
    pub fn text(&self) -> &'static CStr {
        CStr::from_bytes_with_nul(self.ptx.as_bytes()).unwrap_or(c"")
    }

    /// Whether the text is the one whose hash the build recorded.
    pub fn is_intact(&self) -> bool {
        let file = self.ptx.strip_suffix('\0').unwrap_or(self.ptx);
        sha256_hex(file.as_bytes()) == self.sha256
    }

    /// The machine code that a device of this compute capability runs.
    pub fn binary(&self, compute: u32) -> Option<&'static EmbeddedBinary> {
        self.binaries.iter().filter(|b| b.runs_on(compute)).max_by_key(|b| b.gpu)
    }
}

impl EmbeddedBinary {
    /// Whether a device of this compute capability runs it: machine code is compatible upwards within a major version.
    pub fn runs_on(&self, compute: u32) -> bool {
        self.gpu / 10 == compute / 10 && self.gpu <= compute
    }

    /// Whether the bytes are those whose hash the build recorded.
    pub fn is_intact(&self) -> bool {
        sha256_hex(self.bytes) == self.sha256
    }
}

/// SHA-256 of `bytes` in lower-case hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    Sha256::digest(bytes).iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// Every embedded module.
pub fn modules() -> &'static [EmbeddedModule] {
    generated::MODULES
}

/// The manifest, as JSON.
pub fn manifest() -> &'static str {
    generated::MANIFEST
}

/// The module of `key` with the highest target that a device of this compute capability runs.
pub fn select(key: ModuleKey, compute: u32) -> Option<&'static EmbeddedModule> {
    modules().iter().filter(|m| m.key == key && m.arch <= compute).max_by_key(|m| m.arch)
}

/// Written by `cargo xtask build-kernels`.
#[path = "../ptx/modules.rs"]
mod generated;
