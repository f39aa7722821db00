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
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// What is wrong with the committed files in themselves, under any compiler: other sources than the
/// manifest says, a PTX file or a binary that is not the one the manifest names.
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
    let binaries = manifest.modules.iter().flat_map(|module| &module.binaries);
    let binaries = binaries.map(|binary| (&binary.file, &binary.sha256));
    for (file, sha256) in manifest.modules.iter().map(|m| (&m.file, &m.sha256)).chain(binaries) {
        match fs::read(directory.join(file)) {
            Ok(bytes) if sha256_hex(&bytes) == *sha256 => {}
            Ok(_) => differences.push(format!("{file}: not the file that the manifest names")),
            Err(error) => differences.push(format!("{file}: {error}")),
        }
    }
    for file in unnamed(directory, manifest) {
        differences.push(format!("{file}: the manifest does not name it"));
    }
    differences
}

/// The PTX files and binaries in a directory that the manifest does not name, sorted.
pub(crate) fn unnamed(directory: &Path, manifest: &Manifest) -> Vec<String> {
    let names = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name.ends_with(".ptx") || is_binary(name));
    names.retain(|name| !manifest.file_names().any(|known| known == name));
    names.sort();
    names
}

/// Whether the file of this name is machine code.
pub(crate) fn is_binary(name: &str) -> bool {
    name.ends_with(".cubin")
}

/// Whether a binary is of PTX for one of `archs`. Of fewer targets than the committed ones it may be made from other
/// PTX.
pub(crate) fn gives_binary(manifest: &Manifest, archs: &[Arch], name: &str) -> bool {
    let modules = manifest.modules.iter().filter(|module| archs.contains(&module.arch));
    modules.flat_map(|module| &module.binaries).any(|binary| binary.file == name)
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
    module.binaries.clear();
    module.entries.iter_mut().for_each(|entry| entry.resources = None);
}

/// Where the files in a directory differ from what was built.
pub(crate) fn bytes(directory: &Path, built: &Files) -> Result<Vec<String>> {
    let mut differences = Vec::new();
    for (name, built) in built {
        match fs::read(directory.join(name)) {
            Ok(committed) if committed == *built => {}
            Ok(_) if is_binary(name) => differences.push(format!("{name}: other machine code")),
            Ok(committed) => {
                differences.push(format!("{name}: {}", first_difference(&committed, built)));
            }
            Err(error) => differences.push(format!("{name}: {error}")),
        }
    }
    Ok(differences)
}

/// The first line that differs.
fn first_difference(committed: &[u8], built: &[u8]) -> String {
    let (committed, built) = (String::from_utf8_lossy(committed), String::from_utf8_lossy(built));
    let line = |text: &str, number: usize| {
        text.lines().nth(number).map_or("(end of file)".to_owned(), |line| format!("`{}`", line.trim()))
    };
    let same = committed.lines().zip(built.lines()).take_while(|(a, b)| a == b).count();
    let (committed_line, built_line) = (line(&committed, same), line(&built, same));
    format!("line {}: committed {committed_line}, built {built_line}", same + 1)
}

#[cfg(test)]
mod tests {
    use super::super::manifest::tests::{of_one_module, with_binary};
    use super::super::seam::Seam;
    use super::*;

    /// Needs no toolchain: source hash, hashes of the PTX files and binaries.
    #[test]
    fn what_is_committed_belongs_together() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let directory = root.join("gdn-host/ptx");
        let manifest = Manifest::read(&directory).unwrap().expect("there is a manifest");
        let source = super::super::source::sha256(&root, Seam::Nvptx).unwrap();
        let differences = committed(&directory, &manifest, &source);
        assert!(differences.is_empty(), "{}\nrun `cargo xtask build-kernels`", differences.join("\n"));
    }

    #[test]
    fn damaged_missing_and_unnamed_binaries_are_found() {
        let directory = std::env::temp_dir().join(format!("gdn-check-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let write = |name: &str, bytes: &[u8]| fs::write(directory.join(name), bytes).unwrap();
        let manifest = with_binary(of_one_module("ptx"), b"cubin");
        let found = || committed(&directory, &manifest, "");
        write("m.sm_90.ptx", b"ptx");
        assert!(found()[0].starts_with("m.sm_90.cubin: "), "{:?}", found());
        write("m.sm_90.cubin", b"cubin");
        assert_eq!(found(), [""; 0]);
        write("m.sm_90.cubin", b"other");
        write("gone.sm_90.cubin", b"");
        let damaged = "m.sm_90.cubin: not the file that the manifest names";
        assert_eq!(found(), [damaged, "gone.sm_90.cubin: the manifest does not name it"]);
        let built = Files::from([("m.sm_90.cubin".to_owned(), b"cubin".to_vec())]);
        assert_eq!(bytes(&directory, &built).unwrap(), ["m.sm_90.cubin: other machine code"]);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn binary_is_compared_only_if_its_target_was_asked_for() {
        let manifest = with_binary(of_one_module("ptx"), b"cubin");
        let [sm_80, sm_90] = ["sm_80", "sm_90"].map(|arch| arch.parse().unwrap());
        assert!(gives_binary(&manifest, &[sm_80, sm_90], "m.sm_90.cubin"));
        assert!(!gives_binary(&manifest, &[sm_80], "m.sm_90.cubin"));
    }

    #[test]
    fn first_differing_line_is_named() {
        assert_eq!(first_difference(b"a\nb\n", b"a\nc\n"), "line 2: committed `b`, built `c`");
        assert_eq!(first_difference(b"a\n", b"a\nc\n"), "line 2: committed (end of file), built `c`");
    }
}
