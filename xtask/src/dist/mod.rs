//! `cargo xtask dist`: what hosts in other languages need, in one folder with checksums.
//!
//! ```text
//! include/   gdn.h, gdn_kernels.h          lib/       libgdn, and how CMake and pkg-config find it
//! kernels/   PTX, machine code, manifest   examples/  programs in C, C++ and Python
//! ```

mod check;

use crate::report::say;
use crate::tools;
use anyhow::{Context as _, Result, ensure};
use clap::Args as ClapArgs;
use gdn_host::artifact::{self, Files};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

pub use check::missing_tools;

/// Lay out libgdn, kernels, headers and examples in dist/gdn-VERSION, with checksums
#[derive(ClapArgs)]
pub struct Args {
    /// Lay out in a temporary folder, build the C and C++ examples there, and run them
    #[arg(long)]
    check: bool,
}

/// Files from the repository's root, and where they go. `@VERSION@`, `@MINOR@` and `@ABI@` in those of `packaging` are filled in.
const FILES: [(&str, &str); 15] = [
    ("gdn-host/ptx/manifest.json", "kernels/manifest.json"),
    ("gdn-host/ptx/gdn_kernels.h", "include/gdn_kernels.h"),
    ("gdn-c/include/gdn.h", "include/gdn.h"),
    ("gdn-c/packaging/gdn.pc", "lib/pkgconfig/gdn.pc"),
    ("gdn-c/packaging/gdn-config.cmake", "lib/cmake/gdn/gdn-config.cmake"),
    ("gdn-c/packaging/gdn-config-version.cmake", "lib/cmake/gdn/gdn-config-version.cmake"),
    ("examples/c/decode.c", "examples/c/decode.c"),
    ("examples/c/driver.h", "examples/c/driver.h"),
    ("examples/cpp/CMakeLists.txt", "examples/cpp/CMakeLists.txt"),
    ("examples/cpp/draft.cpp", "examples/cpp/draft.cpp"),
    ("examples/python/decode.py", "examples/python/decode.py"),
    ("docs/HOSTS.md", "HOSTS.md"),
    ("docs/NUMERICS.md", "NUMERICS.md"),
    ("LICENSE-APACHE", "LICENSE-APACHE"),
    ("LICENSE-MIT", "LICENSE-MIT"),
];

/// The version of libgdn's interface, `GDN_ABI_VERSION`: the number in the name that programs ask the loader for.
fn abi(header: &str) -> Result<&str> {
    let line = header.lines().find_map(|line| line.strip_prefix("#define GDN_ABI_VERSION "));
    line.context("gdn.h has no GDN_ABI_VERSION")
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let root = tools::workspace_root()?;
    let libraries = build(&root)?;
    if args.check {
        return check::run(&root, &libraries);
    }
    let folder = root.join("dist").join(format!("gdn-{}", env!("CARGO_PKG_VERSION")));
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    let sums = lay_out(&root, &folder, &libraries)?;
    say!("{} files in {}", sums + 1, folder.display());
    Ok(ExitCode::SUCCESS)
}

/// Has cargo build libgdn, optimised; the folder that it lies in.
fn build(root: &Path) -> Result<PathBuf> {
    let mut cargo = Command::new(tools::cargo());
    cargo.args(["build", "--release", "--package", "gdn-c"]).current_dir(root);
    ensure!(cargo.status().context("cannot start cargo")?.success(), "libgdn does not build");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("release"))
}

/// Writes the folder; the number of files that have a checksum.
fn lay_out(root: &Path, folder: &Path, libraries: &Path) -> Result<usize> {
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
    let read = |path: PathBuf| fs::read(&path).with_context(|| format!("cannot read {}", path.display()));
    for module in artifact::modules() {
        put(&format!("kernels/{}", module.file), module.contents(None, Files::Embedded)?.bytes())?;
        for binary in module.binaries {
            let contents = module.contents(Some(binary), Files::Embedded)?;
            put(&format!("kernels/{}", binary.file), contents.bytes())?;
        }
    }
    let header = fs::read_to_string(root.join("gdn-c/include/gdn.h")).context("cannot read gdn.h")?;
    let (version, abi) = (env!("CARGO_PKG_VERSION"), abi(&header)?);
    let minor = version.rsplit_once('.').map_or(version, |(minor, _)| minor);
    for (from, to) in FILES {
        let mut bytes = read(root.join(from))?;
        if from.starts_with("gdn-c/packaging/") {
            let text = String::from_utf8(bytes).context(from)?;
            let filled = text.replace("@VERSION@", version).replace("@MINOR@", minor).replace("@ABI@", abi);
            bytes = filled.into_bytes();
        }
        put(to, &bytes)?;
    }
    put("lib/libgdn.a", &read(libraries.join("libgdn.a"))?)?;
    // Programs find the library by its soname, the linker by its plain name.
    let soname = format!("libgdn.so.{abi}");
    put(&format!("lib/{soname}"), &read(libraries.join("libgdn.so"))?)?;
    #[cfg(unix)]
    std::os::unix::fs::symlink(&soname, folder.join("lib/libgdn.so")).context("cannot link lib/libgdn.so")?;
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
        let temporary = std::env::temp_dir().join(format!("gdn-dist-{}", std::process::id()));
        // What libraries hold is no matter here; `dist --check` builds with true ones.
        let (folder, libraries) = (temporary.join("dist"), temporary.join("libraries"));
        fs::create_dir_all(&libraries).unwrap();
        for name in ["libgdn.so", "libgdn.a"] {
            fs::write(libraries.join(name), name).unwrap();
        }
        let count = lay_out(&root, &folder, &libraries).unwrap();
        let sums = fs::read_to_string(folder.join("SHA256SUMS")).unwrap();
        assert_eq!(sums.lines().count(), count);
        for line in sums.lines() {
            let (sum, name) = line.split_once("  ").unwrap();
            let bytes = fs::read(folder.join(name)).unwrap();
            assert_eq!(artifact::sha256_hex(&bytes), sum, "{name}");
            assert!(!String::from_utf8_lossy(&bytes).contains("@VERSION@"), "{name}");
        }
        let binaries: usize = artifact::modules().iter().map(|module| module.binaries.len()).sum();
        assert_eq!(count, artifact::modules().len() + binaries + FILES.len() + 2);
        assert_eq!(fs::read_to_string(folder.join("lib/libgdn.so")).unwrap(), "libgdn.so");
        // Every file that the manifest names is there.
        let manifest: serde_json::Value = serde_json::from_str(artifact::manifest()).unwrap();
        for module in manifest["modules"].as_array().unwrap() {
            for named in module["binaries"].as_array().unwrap().iter().chain([module]) {
                let file = folder.join("kernels").join(named["file"].as_str().unwrap());
                assert!(file.is_file(), "{}", file.display());
            }
        }
        fs::remove_dir_all(&temporary).unwrap();
    }
}
