//! The files of the kernels: PTX, one module per operation and choice of types and dimension, for each PTX target; and machine
//! code (cubins) assembled from it for GPUs on which it was proven, which the driver loads without compiling.
//!
//! The files, their manifest and the table of modules are written by `cargo xtask build-kernels`; users need no kernel
//! toolchain. Those that the features of this crate choose are embedded, compressed. Other hosts load the same files:
//! `ptx/manifest.json` says what is in them, and `ptx/gdn_kernels.h` what their arguments look like.

use crate::key::{ModuleKey, OpKind};
#[cfg(feature = "embed")]
use crate::move_to_front;
use crate::{listing, table};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::path::Path;
use std::sync::LazyLock;
use std::{fs, io};
use thiserror::Error;

pub use crate::table::{EmbeddedBinary, EmbeddedEntry, EmbeddedModule};

/// Every module, whether its files are embedded or not.
pub fn modules() -> &'static [EmbeddedModule] {
    static MODULES: LazyLock<Vec<EmbeddedModule>> =
        LazyLock::new(|| listing::read(include_str!(concat!(env!("OUT_DIR"), "/modules.txt"))));
    &MODULES
}

/// Where the contents of kernel files come from. Wherever that is, a file is taken only if its sha256 is the one that the
/// crate was built with, or that was named with the folder: entries, parameter structs and tiles are those of one build.
#[derive(Clone, Copy, Debug, Default)]
pub enum Files<'a> {
    /// The files that the features of this crate embed.
    #[default]
    Embedded,
    /// A folder that holds them by name, as `gdn-host/ptx` and `cargo xtask dist` do.
    Directory(&'a Path),
    /// Names and contents.
    Memory(&'a [(&'a str, &'a [u8])]),
    /// A folder of another build of the same kernels, and the sha256 of each file by its name, as the folder's manifest has
    /// them: for proving and timing a build before it is embedded. The caller vouches that its entries are the embedded ones'.
    OtherBuild(&'a Path, &'a BTreeMap<String, String>),
}

/// A kernel file that cannot be had.
#[derive(Debug, Error)]
pub enum FileError {
    /// Cargo features leave it out.
    #[error("{file} is not embedded: gdn-host was built without its feature {}", .features.join(", "))]
    LeftOut {
        /// Name of the file.
        file: &'static str,
        /// The features that are missing.
        features: Vec<&'static str>,
    },
    /// The folder or the caller does not have it.
    #[error("{file} is not in {place}")]
    Missing {
        /// Name of the file.
        file: &'static str,
        /// The folder, or that it was to be given.
        place: String,
    },
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// It is not what was built.
    #[error("{file} is damaged or of another build: its sha256 is not {sha256}")]
    Damaged {
        /// Name of the file.
        file: &'static str,
        /// What the build recorded.
        sha256: String,
    },
}

/// The contents of a kernel file whose sha256 was verified.
#[derive(Clone, Debug)]
pub struct Contents {
    /// Aligned as an ELF file's headers are; at least one byte of zeros follows.
    words: Vec<u64>,
    len: usize,
    sha256: String,
}

impl Contents {
    fn zeros(len: usize) -> Contents {
        Contents { words: vec![0; len / 8 + 1], len, sha256: String::new() }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.len]
    }

    /// The file, aligned to 8 bytes.
    pub fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.len]
    }

    /// Its SHA-256, in hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// PTX as the driver takes it: up to the first NUL.
    pub fn text(&self) -> &CStr {
        CStr::from_bytes_until_nul(bytemuck::cast_slice(&self.words)).unwrap_or_default()
    }
}

impl From<&[u8]> for Contents {
    fn from(bytes: &[u8]) -> Contents {
        let mut contents = Contents::zeros(bytes.len());
        contents.bytes_mut().copy_from_slice(bytes);
        contents
    }
}

impl Files<'_> {
    /// The file of that name, if there is one.
    fn find(self, file: &'static str) -> Result<Option<Contents>, FileError> {
        match self {
            Files::Embedded => Ok(unpack(file)),
            Files::Memory(files) => {
                Ok(files.iter().find(|(name, _)| *name == file).map(|&(_, bytes)| bytes.into()))
            }
            Files::Directory(folder) | Files::OtherBuild(folder, _) => match fs::read(folder.join(file)) {
                Ok(bytes) => Ok(Some(bytes.as_slice().into())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(source) => {
                    Err(FileError::Unreadable { path: folder.join(file).display().to_string(), source })
                }
            },
        }
    }
}

impl EmbeddedModule {
    /// The module's PTX, or one of its [binaries](Self::binaries), verified.
    ///
    /// # Errors
    /// [`FileError`]: the file is not there, cannot be read, or is not the one that was built.
    pub fn contents(
        &self,
        binary: Option<&'static EmbeddedBinary>,
        files: Files,
    ) -> Result<Contents, FileError> {
        let (file, sha256, kind) = match binary {
            Some(binary) => (binary.file, binary.sha256, table::CUBIN),
            None => (self.file, self.sha256, table::PTX),
        };
        let named = match files {
            Files::OtherBuild(_, hashes) => hashes.get(file).map(String::as_str),
            _ => Some(sha256),
        };
        // A file that its build does not name is none of it.
        let found = if named.is_some() { files.find(file)? } else { None };
        let mut contents = found.ok_or_else(|| match files {
            Files::Embedded => {
                let missing = table::features(self.key).chain([kind]).filter(|feature| !feature.is_on);
                FileError::LeftOut { file, features: missing.map(|feature| feature.name).collect() }
            }
            Files::Directory(folder) | Files::OtherBuild(folder, _) => {
                FileError::Missing { file, place: folder.display().to_string() }
            }
            Files::Memory(_) => FileError::Missing { file, place: "the files given".to_owned() },
        })?;
        contents.sha256 = sha256_hex(contents.bytes());
        let sha256 = named.unwrap_or_default();
        if contents.sha256 == sha256 {
            Ok(contents)
        } else {
            Err(FileError::Damaged { file, sha256: sha256.to_owned() })
        }
    }

    /// Whether its PTX or one of its binaries is embedded.
    pub fn is_embedded(&self) -> bool {
        table::features(self.key).all(|feature| feature.is_on)
            && (table::PTX.is_on || table::CUBIN.is_on && !self.binaries.is_empty())
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
}

/// Files that were compressed together: the build script's.
#[cfg_attr(not(feature = "embed"), allow(dead_code))]
struct Pack {
    bytes: &'static [u8],
    /// Name and bytes of each, in order. A file without a name is in the pack, but the features leave it out.
    files: &'static [(&'static str, usize)],
}

include!(concat!(env!("OUT_DIR"), "/packs.rs"));

/// An embedded file. Of a pack that is damaged it is whatever came out.
#[cfg(feature = "embed")]
fn unpack(file: &str) -> Option<Contents> {
    use std::io::Read;
    const INPUT_BUFFER: usize = 4096;
    let (pack, at) = PACKS.iter().find_map(|pack| {
        let at = pack.files.iter().position(|(name, _)| *name == file)?;
        Some((pack, at))
    })?;
    let before: usize = pack.files[..at].iter().map(|(_, len)| len).sum();
    let mut contents = Contents::zeros(pack.files[at].1);
    let mut reader = brotli_decompressor::Decompressor::new(pack.bytes, INPUT_BUFFER);
    // What a damaged pack fails with, the file's hash will show.
    let _ = io::copy(&mut reader.by_ref().take(before as u64), &mut io::sink());
    let _ = reader.read_exact(contents.bytes_mut());
    let ptx = if file.ends_with(".ptx") { move_to_front::restore(contents.bytes()) } else { None };
    Some(ptx.map_or(contents, |ptx| ptx.as_slice().into()))
}

#[cfg(not(feature = "embed"))]
fn unpack(_: &str) -> Option<Contents> {
    PACKS.iter().find_map(|_| None)
}

/// SHA-256 of `bytes` in lower-case hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    Sha256::digest(bytes).iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// The manifest, as JSON.
pub fn manifest() -> &'static str {
    include_str!("../ptx/manifest.json")
}

/// The module of `key` with the highest target that a device of this compute capability runs.
pub fn select(key: ModuleKey, compute: u32) -> Option<&'static EmbeddedModule> {
    modules().iter().filter(|m| m.key == key && m.arch <= compute).max_by_key(|m| m.arch)
}

/// What comes nearest to a module that there is not: the dimensions of its operation, or the types that there are with its own.
pub(crate) fn nearest(key: ModuleKey) -> String {
    let like = |m: &&EmbeddedModule| m.key.section() == key.section();
    let mut keys: Vec<ModuleKey> = modules().iter().filter(like).map(|m| m.key).collect();
    keys.sort_by_key(|key| key.k);
    let name = match key.op {
        OpKind::GatedRmsNorm => "V",
        _ => "K",
    };
    let section = key.section();
    let list = |mut items: Vec<String>| {
        // Of the same module for several targets.
        let mut seen = Vec::new();
        items.retain(|item| {
            !seen.contains(item) && {
                seen.push(item.clone());
                true
            }
        });
        items.join(", ")
    };
    if keys.iter().all(|other| other.k != key.k) {
        let number = |key: &ModuleKey| if key.k == 0 { "any".to_owned() } else { key.k.to_string() };
        return format!("{section} has {name} = {}", list(keys.iter().map(number).collect()));
    }
    let types = keys.iter().filter(|other| other.k == key.k).map(|key| {
        [key.state, key.io].into_iter().flatten().map(|t| t.name()).collect::<Vec<_>>().join(" with ")
    });
    let with = if key.k > 0 { format!(" for {name} = {}", key.k) } else { String::new() };
    format!("{section} has{with} {}", list(types.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{DType, Family, Layout};

    /// A module that no pack has, because its features are off or because the default build has none of that name.
    fn without_file(key: ModuleKey) -> EmbeddedModule {
        EmbeddedModule {
            name: "m",
            file: "m.sm_80.ptx",
            arch: 80,
            key,
            sha256: "",
            binaries: &[],
            entries: &[],
        }
    }

    #[test]
    fn every_file_that_the_features_choose_is_embedded_and_no_other() {
        for module in modules() {
            let is_chosen = table::features(module.key).all(|feature| feature.is_on);
            let is_there = |binary| match module.contents(binary, Files::Embedded) {
                Ok(_) => true,
                Err(FileError::LeftOut { .. }) => false,
                Err(error) => panic!("{error}"),
            };
            assert_eq!(is_there(None), is_chosen && table::PTX.is_on, "{}", module.file);
            for binary in module.binaries {
                assert_eq!(is_there(Some(binary)), is_chosen && table::CUBIN.is_on, "{}", binary.file);
            }
        }
    }

    #[test]
    fn file_that_is_left_out_names_the_features_that_bring_it() {
        let needed = |key| table::features(key).map(|feature| feature.name).collect::<Vec<_>>().join(" ");
        let (kda, kv) = (Family::Kda, Layout::Kv);
        assert_eq!(
            needed(ModuleKey::decode(kda, kv, DType::F16, DType::Bf16, 128)),
            "kda kv state-f16 io-bf16 k128"
        );
        let (gdn, vk) = (Family::Gdn, Layout::Vk);
        assert_eq!(
            needed(ModuleKey::recurrent(gdn, vk, DType::F32, DType::Bf16, 64)),
            "gdn vk state-f32 io-bf16 k64"
        );
        assert_eq!(needed(ModuleKey::convert_layout(DType::Bf16)), "state-bf16");
        assert_eq!(needed(ModuleKey::conv1d_update(DType::F32, DType::F32)), "io-f32 neighbours");
        assert_eq!(needed(ModuleKey::copy_state()), "");

        let key = ModuleKey::recurrent(kda, vk, DType::F32, DType::F32, 64);
        let error = without_file(key).contents(None, Files::Embedded).unwrap_err();
        let FileError::LeftOut { features, .. } = &error else { panic!("{error}") };
        let off = table::features(key).chain([table::PTX]).filter(|feature| !feature.is_on);
        assert_eq!(*features, off.map(|feature| feature.name).collect::<Vec<_>>());
        let text = "m.sm_80.ptx is not embedded: gdn-host was built without its feature ";
        assert!(error.to_string().starts_with(text), "{error}");
    }

    #[test]
    fn contents_end_in_a_nul_and_are_aligned() {
        for len in [0, 1, 7, 8, 9] {
            let bytes = vec![b'a'; len];
            let contents = Contents::from(bytes.as_slice());
            assert_eq!((contents.bytes(), contents.text().to_bytes()), (&*bytes, &*bytes));
            assert!(contents.bytes().as_ptr().cast::<u64>().is_aligned());
        }
    }
}
