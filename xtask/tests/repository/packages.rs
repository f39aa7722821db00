//! The crates that are published can be packaged, with licences, a README and what a registry shows of them.

use super::{cargo, root};
use gdn_host::{artifact, packing};
use serde_json::Value;
use std::fs;

/// Crates that are published, dependencies first.
fn published() -> Vec<Value> {
    let output = cargo(&["metadata", "--format-version", "1", "--no-deps"]);
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let is_published = |package: &&Value| package["publish"].is_null();
    metadata["packages"].as_array().unwrap().iter().filter(is_published).cloned().collect()
}

#[test]
fn packages_are_complete() {
    let packages = published();
    assert!(packages.len() >= 2, "{packages:?}");
    for package in &packages {
        let name = package["name"].as_str().unwrap();
        for field in ["description", "license", "readme", "rust_version"] {
            assert!(package[field].is_string(), "{name} has no {field}");
        }
        for field in ["keywords", "categories"] {
            let count = package[field].as_array().unwrap().len();
            assert!((1..=5).contains(&count), "{name} has {count} {field}");
        }
        let output = cargo(&["package", "--list", "--allow-dirty", "--package", name]);
        let files = String::from_utf8(output.stdout).unwrap();
        for file in ["LICENSE-APACHE", "LICENSE-MIT", "README.md", "src/lib.rs"] {
            assert!(files.lines().any(|line| line == file), "{name} is packaged without {file}");
        }
        for file in ["LICENSE-APACHE", "LICENSE-MIT"] {
            let folder = package["manifest_path"].as_str().unwrap().trim_end_matches("Cargo.toml");
            let (own, whole) = (fs::read(format!("{folder}{file}")), fs::read(root().join(file)));
            assert_eq!(own.unwrap(), whole.unwrap(), "{name}: {file} is not the repository's");
        }
    }
}

/// cargo resolves them together, so that what one needs of the other is what is packaged; their code was compiled already.
#[test]
fn packages_can_be_made() {
    let packages = published();
    let mut arguments = vec!["package", "--no-verify", "--allow-dirty", "--quiet"];
    let folder = std::env::temp_dir().join(format!("gdn-package-{}", std::process::id()));
    arguments.extend(["--target-dir", folder.to_str().unwrap()]);
    for package in &packages {
        arguments.extend(["--package", package["name"].as_str().unwrap()]);
    }
    cargo(&arguments);
    for package in &packages {
        let file =
            format!("{}-{}.crate", package["name"].as_str().unwrap(), package["version"].as_str().unwrap());
        let bytes = fs::metadata(folder.join("package").join(&file)).unwrap().len();
        // What the registry takes.
        assert!(bytes < 10 << 20, "{file} has {bytes} bytes");
    }
    fs::remove_dir_all(&folder).unwrap();
}

/// A published crate and every program have the kernels from the packs.
#[test]
fn packs_are_of_the_committed_kernels() {
    let folder = root().join("gdn-host/packs");
    let index = fs::read_to_string(folder.join("index.txt")).unwrap();
    let mut bytes = 0;
    for pack in packing::packs(artifact::modules()) {
        let is_made = packing::lengths_in(&index, &pack).is_some();
        assert!(is_made, "gdn-host/packs has no {} of these kernels: run `cargo xtask pack`", pack.name);
        bytes += fs::metadata(folder.join(format!("{}.br", pack.name))).unwrap().len();
    }
    assert!(bytes < 3_300_000, "{bytes} bytes of kernels: docs/HOSTS.md says what they add to a program");
}
