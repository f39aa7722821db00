//! `cargo xtask dist`: what hosts in other languages need, in one folder with checksums.

use crate::report::say;
use crate::tools;
use anyhow::{Context as _, Result};
use clap::Args as ClapArgs;
use gdn_host::artifact::{self, Files};
use std::fs;
use std::path::Path;
use std::process::ExitCode;

/// Lay out PTX, machine code, manifest, gdn_kernels.h and examples in dist/gdn-VERSION, with checksums
#[derive(ClapArgs)]
pub struct Args {}

/// Files besides PTX and binaries, from the repository's root, and where they go.
const FILES: [(&str, &str); 8] = [
    ("gdn-host/ptx/manifest.json", "manifest.json"),
    ("gdn-host/ptx/gdn_kernels.h", "gdn_kernels.h"),
    ("examples/c/decode.c", "examples/decode.c"),
    ("examples/python/decode.py", "examples/decode.py"),
    ("docs/HOSTS.md", "HOSTS.md"),
    ("docs/NUMERICS.md", "NUMERICS.md"),
    ("LICENSE-APACHE", "LICENSE-APACHE"),
    ("LICENSE-MIT", "LICENSE-MIT"),
];

/// Runs the command.
pub fn run(_args: &Args) -> Result<ExitCode> {
    let root = tools::workspace_root()?;
    let folder = root.join("dist").join(format!("gdn-{}", env!("CARGO_PKG_VERSION")));
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    let sums = lay_out(&root, &folder)?;
    say!("{} files in {}", sums + 1, folder.display());
    Ok(ExitCode::SUCCESS)
}

/// Writes the folder; the number of files that have a checksum.
fn lay_out(root: &Path, folder: &Path) -> Result<usize> {
    let mut sums = Vec::new();
    let mut put = |name: &str, bytes: &[u8]| -> Result<()> {
        let path = folder.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        }
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        sums.push(format!("{}  {name}\n", artifact::sha256_hex(bytes)));
        Ok(())
    };
    for module in artifact::modules() {
        put(module.file, module.contents(None, Files::Embedded)?.bytes())?;
        for binary in module.binaries {
            put(binary.file, module.contents(Some(binary), Files::Embedded)?.bytes())?;
        }
    }
    for (from, to) in FILES {
        put(to, &fs::read(root.join(from)).with_context(|| format!("cannot read {from}"))?)?;
    }
    // The format of sha256sum, so that `sha256sum --check SHA256SUMS` verifies the folder.
    fs::write(folder.join("SHA256SUMS"), sums.concat())?;
    Ok(sums.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_holds_every_module_and_verifies() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let folder = std::env::temp_dir().join(format!("gdn-dist-{}", std::process::id()));
        let count = lay_out(&root, &folder).unwrap();
        let sums = fs::read_to_string(folder.join("SHA256SUMS")).unwrap();
        assert_eq!(sums.lines().count(), count);
        for line in sums.lines() {
            let (sum, name) = line.split_once("  ").unwrap();
            let bytes = fs::read(folder.join(name)).unwrap();
            assert_eq!(artifact::sha256_hex(&bytes), sum, "{name}");
        }
        let binaries: usize = artifact::modules().iter().map(|module| module.binaries.len()).sum();
        assert_eq!(count, artifact::modules().len() + binaries + FILES.len());
        // Every file that the manifest names is there.
        let manifest: serde_json::Value = serde_json::from_str(artifact::manifest()).unwrap();
        for module in manifest["modules"].as_array().unwrap() {
            for named in module["binaries"].as_array().unwrap().iter().chain([module]) {
                assert!(folder.join(named["file"].as_str().unwrap()).is_file(), "{}", named["file"]);
            }
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
