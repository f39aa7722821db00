//! `--check`: whether what is committed is what the sources give.

use super::arch::Arch;
use super::manifest::{self, Manifest, ModuleRecord};
use crate::tools::Toolchain;
use anyhow::Result;
use gdn_host::artifact::sha256_hex;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Files by name.
pub(crate) type Files = BTreeMap<String, String>;

/// What is wrong with the committed files in themselves, under any compiler: other sources than the
/// manifest says, a PTX file that is not the one the manifest names.
pub(crate) fn committed(directory: &Path, manifest: &Manifest, source_sha256: &str) -> Vec<String> {
    let mut differences = Vec::new();
    if manifest.source_sha256 != source_sha256 {
        differences.push(format!(
            "the sources changed: {} is of {}, they are {}",
            manifest::FILE_NAME,
            &manifest.source_sha256,
            source_sha256
        ));
    }
    for module in &manifest.modules {
        match fs::read(directory.join(&module.file)) {
            Ok(bytes) if sha256_hex(&bytes) == module.sha256 => {}
            Ok(_) => differences.push(format!("{}: not the file that the manifest names", module.file)),
            Err(error) => differences.push(format!("{}: {error}", module.file)),
        }
    }
    for file in ptx_files(directory) {
        if !manifest.modules.iter().any(|module| module.file == file) {
            differences.push(format!("{file}: the manifest does not name it"));
        }
    }
    differences
}

/// Names of the PTX files in a directory, sorted.
pub(crate) fn ptx_files(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name.ends_with(".ptx"));
    names.sort();
    names
}

/// Whether the committed bytes are this compiler's.
pub(crate) fn same_compiler(manifest: &Manifest, toolchain: &Toolchain) -> bool {
    manifest.compiler.rustc == toolchain.version && manifest.compiler.llvm == toolchain.llvm
}

/// Where two manifests differ in what does not depend on the compiler's version.
pub(crate) fn manifests(committed: &Manifest, built: &Manifest, archs: &[Arch]) -> Vec<String> {
    // The rest is compared as bytes, where bytes can be compared.
    let comparable = |manifest: &Manifest| -> Manifest {
        let mut manifest = manifest.clone();
        manifest.modules.retain(|module| archs.contains(&module.arch));
        let mut modules = std::mem::take(&mut manifest.modules);
        modules.iter_mut().for_each(forget_build);
        Manifest { modules, ..manifest }
    };
    let (committed, built) = (comparable(committed), comparable(built));
    let mut differences = Vec::new();
    let mut differ = |what: &str, same: bool| {
        if !same {
            differences.push(format!("{}: {what} differ", manifest::FILE_NAME));
        }
    };
    differ("crate versions", committed.version == built.version);
    differ("ABI versions", committed.abi_version == built.abi_version);
    differ("flags", committed.compiler.flags == built.compiler.flags);
    differ("parameter structs", committed.params == built.params);
    differ("modules and entries", committed.modules == built.modules);
    differences
}

/// Forgets what the compiler and ptxas make of a module.
fn forget_build(module: &mut ModuleRecord) {
    module.ptx_isa.clear();
    module.sha256.clear();
    module.entries.iter_mut().for_each(|entry| entry.resources = None);
}

/// Where the files in a directory differ from what was built.
pub(crate) fn bytes(directory: &Path, built: &Files) -> Result<Vec<String>> {
    let mut differences = Vec::new();
    for (name, built) in built {
        match fs::read(directory.join(name)) {
            Ok(committed) if committed == built.as_bytes() => {}
            Ok(committed) => {
                differences.push(format!("{name}: {}", first_difference(&committed, built)));
            }
            Err(error) => differences.push(format!("{name}: {error}")),
        }
    }
    Ok(differences)
}

/// The first line that differs.
fn first_difference(committed: &[u8], built: &str) -> String {
    let committed = String::from_utf8_lossy(committed);
    let line = |text: &str, number: usize| {
        text.lines().nth(number).map_or("(end of file)".to_owned(), |line| format!("`{}`", line.trim()))
    };
    let same = committed.lines().zip(built.lines()).take_while(|(a, b)| a == b).count();
    let (committed_line, built_line) = (line(&committed, same), line(built, same));
    format!("line {}: committed {committed_line}, built {built_line}", same + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Needs no toolchain: source hash, flags, table, hashes of the PTX files, gdn.h.
    #[test]
    fn what_is_committed_belongs_together() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let directory = root.join("gdn-host/ptx");
        let manifest = Manifest::read(&directory).unwrap().expect("there is a manifest");
        let source = super::super::source::sha256(&root).unwrap();
        let differences = committed(&directory, &manifest, &source);
        assert!(differences.is_empty(), "{}\nrun `cargo xtask build-kernels`", differences.join("\n"));
    }

    #[test]
    fn first_differing_line_is_named() {
        assert_eq!(first_difference(b"a\nb\n", "a\nc\n"), "line 2: committed `b`, built `c`");
        assert_eq!(first_difference(b"a\n", "a\nc\n"), "line 2: committed (end of file), built `c`");
    }
}
