//! The embedded PTX: one module per operation, state type, input type and key dimension, for each PTX target.
//!
//! The files, their manifest and the table below them are written by `cargo xtask build-kernels`; users
//! need no kernel toolchain. Other hosts load the same files: `ptx/manifest.json` says what is in them, and
//! `ptx/gdn.h` what their arguments look like.

use gdn_kernels::abi::DType;
use sha2::{Digest, Sha256};
use std::ffi::CStr;

/// What a module holds: an operation for one state type, one input type and one key dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ModuleKey {
    /// Operation: `decode`.
    pub op: &'static str,
    /// Type of the state.
    pub state: DType,
    /// Type of q, k and v.
    pub io: DType,
    /// Key dimension: 64 or 128.
    pub k: u32,
}

impl ModuleKey {
    /// The decode kernels for one pair of types and one key dimension: all that a model needs.
    pub const fn decode(state: DType, io: DType, k: u32) -> Self {
        ModuleKey { op: "decode", state, io, k }
    }
}

impl std::fmt::Display for ModuleKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}_{}_{}_k{}", self.op, self.state.name(), self.io.name(), self.k)
    }
}

/// An embedded PTX file.
#[derive(Debug)]
pub struct EmbeddedModule {
    /// Name without target: `decode_f32_bf16_k128`.
    pub name: &'static str,
    /// PTX target, `10 * major + minor`: runs on this compute capability and every later one.
    pub arch: u32,
    /// Operation.
    pub op: &'static str,
    /// Type of the state.
    pub state: DType,
    /// Type of q, k and v.
    pub io: DType,
    /// Key dimension.
    pub k: u32,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: &'static str,
    /// The PTX text, with a terminating NUL.
    pub ptx: &'static str,
    /// Its kernels.
    pub entries: &'static [EmbeddedEntry],
}

/// A kernel of an embedded PTX file.
#[derive(Debug)]
pub struct EmbeddedEntry {
    /// Entry name.
    pub name: &'static CStr,
    /// Rows of a lane group.
    pub rows: u32,
    /// Bytes of the parameter struct.
    pub params_size: u32,
    /// Largest number of threads of a block.
    pub max_threads: u32,
}

impl EmbeddedModule {
    /// What the module holds.
    pub fn key(&self) -> ModuleKey {
        ModuleKey { op: self.op, state: self.state, io: self.io, k: self.k }
    }

    /// The PTX text as the driver takes it.
    pub fn text(&self) -> &'static CStr {
        CStr::from_bytes_with_nul(self.ptx.as_bytes()).unwrap_or(c"")
    }

    /// Whether the text is the one whose hash the build recorded.
    pub fn is_intact(&self) -> bool {
        let file = self.ptx.strip_suffix('\0').unwrap_or(self.ptx);
        sha256_hex(file.as_bytes()) == self.sha256
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
    modules().iter().filter(|m| m.key() == key && m.arch <= compute).max_by_key(|m| m.arch)
}

/// Written by `cargo xtask build-kernels`.
#[path = "../ptx/modules.rs"]
mod generated;
