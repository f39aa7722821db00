//! What the kernels are built from, as one hash.
//!
//! `source_sha256` is the SHA-256 of these parts, one after the other:
//!
//! 1. for each `*.rs` file below `gdn-kernels/src`, the simulator (`arch/sim/`) and the half of the seam that
//!    the build leaves out (`arch/cuda_std/`, where it is not built over that) excepted, and for
//!    `gdn-kernels/Cargo.toml`, in byte order of their paths relative to the repository with `/` between the
//!    parts: the path, a newline, the length in bytes in decimal, a newline, the text. Of Rust that is its tokens,
//!    so that comments, documentation and spaces do not count; of Cargo.toml the values as TOML.
//! 2. for each non-optional dependency of gdn-kernels, in byte order of the names: the line
//!    `name version checksum` and a newline, as `Cargo.lock` pins it.
//!
//! Toolchain and flags are not part of it: the manifest records them beside it.

use super::seam::Seam;
use anyhow::{Context, Result, anyhow, ensure};
use gdn_host::artifact::sha256_hex;
use proc_macro2::{Group, TokenStream, TokenTree};
use std::fs;
use std::path::Path;

const CRATE: &str = "gdn-kernels";

/// The hash of the kernels' sources.
pub(crate) fn sha256(root: &Path, seam: Seam) -> Result<String> {
    let mut hashed = Vec::new();
    for path in files(root, seam)? {
        let text = fs::read_to_string(root.join(&path)).with_context(|| path.clone())?;
        let text = if path.ends_with(".rs") { code(&text) } else { values(&text) };
        let text = text.with_context(|| path.clone())?;
        hashed.extend(format!("{path}\n{}\n{text}", text.len()).into_bytes());
    }
    for line in pinned_dependencies(root)? {
        hashed.extend((line + "\n").into_bytes());
    }
    Ok(sha256_hex(&hashed))
}

/// The tokens of Rust code, but for documentation.
fn code(text: &str) -> Result<String> {
    let tokens: TokenStream = text.parse().map_err(|error| anyhow!("{error}"))?;
    Ok(without_docs(tokens).to_string())
}

/// Drops `#[doc = "..."]` and `#![doc = "..."]`, which is what documentation comments are as tokens.
fn without_docs(tokens: TokenStream) -> TokenStream {
    let is = |tree: Option<&TokenTree>, c| matches!(tree, Some(TokenTree::Punct(p)) if p.as_char() == c);
    let trees: Vec<TokenTree> = tokens.into_iter().collect();
    let (mut kept, mut at) = (Vec::new(), 0);
    while at < trees.len() {
        let inner = usize::from(is(trees.get(at + 1), '!'));
        let is_doc = is(trees.get(at), '#')
            && matches!(trees.get(at + 1 + inner), Some(TokenTree::Group(group)) if is_doc(group));
        if is_doc {
            at += 2 + inner;
            continue;
        }
        kept.push(match &trees[at] {
            TokenTree::Group(group) => {
                TokenTree::Group(Group::new(group.delimiter(), without_docs(group.stream())))
            }
            tree => tree.clone(),
        });
        at += 1;
    }
    kept.into_iter().collect()
}

/// Whether the brackets of an attribute hold `doc = ...`.
fn is_doc(attribute: &Group) -> bool {
    let mut trees = attribute.stream().into_iter();
    let names_doc = matches!(trees.next(), Some(TokenTree::Ident(name)) if name == "doc");
    names_doc && matches!(trees.next(), Some(TokenTree::Punct(equals)) if equals.as_char() == '=')
}

/// The values of a TOML file.
fn values(text: &str) -> Result<String> {
    Ok(format!("{:?}", text.parse::<toml::Table>()?))
}

/// Paths of the sources, relative to the repository, in the order of the hash.
fn files(root: &Path, seam: Seam) -> Result<Vec<String>> {
    let mut found = vec![format!("{CRATE}/Cargo.toml")];
    let mut folders = vec![format!("{CRATE}/src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder)).with_context(|| folder.clone())? {
            let entry = entry?;
            let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if path.ends_with(".rs") {
                found.push(path);
            }
        }
    }
    let unused = ["sim"].into_iter().chain(seam.unused_folder());
    let unused: Vec<String> = unused.map(|folder| format!("{CRATE}/src/arch/{folder}/")).collect();
    found.retain(|path| !unused.iter().any(|folder| path.starts_with(folder)));
    found.sort();
    Ok(found)
}

/// `name version checksum` of what the device code depends on.
fn pinned_dependencies(root: &Path) -> Result<Vec<String>> {
    let read = |path: &str| -> Result<toml::Table> {
        let text = fs::read_to_string(root.join(path)).with_context(|| path.to_owned())?;
        text.parse().with_context(|| path.to_owned())
    };
    let manifest = read("gdn-kernels/Cargo.toml")?;
    let lock = read("Cargo.lock")?;
    let packages = lock.get("package").and_then(toml::Value::as_array);
    let packages = packages.context("Cargo.lock: no packages")?;
    let own = packages.iter().find(|package| package["name"].as_str() == Some(CRATE));
    let own = own.and_then(|own| own.get("dependencies")?.as_array());
    let own = own.context("Cargo.lock: no dependencies of gdn-kernels")?;

    let dependencies = manifest.get("dependencies").and_then(toml::Value::as_table);
    let dependencies = dependencies.context("gdn-kernels/Cargo.toml: no dependencies")?;

    let mut lines = Vec::new();
    for (name, dependency) in dependencies {
        if dependency.get("optional").and_then(toml::Value::as_bool) == Some(true) {
            continue;
        }
        // "name", or "name version" where the lock file has several versions.
        let mut pinned = own.iter().filter_map(|d| d.as_str()).map(|d| d.split(' '));
        let version = pinned.find_map(|mut d| (d.next() == Some(name)).then(|| d.next()));
        let version = version.with_context(|| format!("Cargo.lock does not pin {name}"))?;
        let field = |package: &toml::Value, field: &str| {
            package.get(field).and_then(toml::Value::as_str).unwrap_or_default().to_owned()
        };
        let mut matching = packages.iter().filter(|package| {
            field(package, "name") == *name && version.is_none_or(|v| field(package, "version") == v)
        });
        let package = matching.next().with_context(|| format!("Cargo.lock does not pin {name}"))?;
        ensure!(matching.next().is_none(), "Cargo.lock: several versions of {name}");
        lines.push(format!("{name} {} {}", field(package, "version"), field(package, "checksum")));
    }
    lines.sort();
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A repository with the files that the hash reads.
    fn repository(name: &str) -> std::path::PathBuf {
        let root = std::env::temp_dir().join(format!("gdn-source-{name}-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("gdn-kernels/src/lib.rs", "mod arch;");
        write("gdn-kernels/src/arch/nvptx/mod.rs", "fn a() {}");
        write("gdn-kernels/src/arch/cuda_std/mod.rs", "fn a() {}");
        write("gdn-kernels/src/arch/sim/mod.rs", "// simulator");
        write(
            "gdn-kernels/Cargo.toml",
            "[dependencies]\nhalf = \"2\"\nrayon = { version = \"1\", optional = true }",
        );
        let lock = "[[package]]\nname = \"half\"\nversion = \"2.7.1\"\nchecksum = \"abc\"\n\
            [[package]]\nname = \"rayon\"\nversion = \"1.0.0\"\n\
            [[package]]\nname = \"gdn-kernels\"\nversion = \"0.1.0\"\ndependencies = [\"half\", \"rayon\"]\n";
        write("Cargo.lock", lock);
        root
    }

    #[test]
    fn what_is_built_counts_and_nothing_else() {
        let root = repository("files");
        let hash = |seam| sha256(&root, seam).unwrap();
        let before = [Seam::Nvptx, Seam::CudaStd].map(hash);
        assert_eq!(
            files(&root, Seam::Nvptx).unwrap(),
            ["gdn-kernels/Cargo.toml", "gdn-kernels/src/arch/nvptx/mod.rs", "gdn-kernels/src/lib.rs"]
        );
        fs::write(root.join("gdn-kernels/src/arch/sim/mod.rs"), "// other").unwrap();
        fs::write(root.join("gdn-kernels/src/notes.txt"), "no source").unwrap();
        assert_eq!([Seam::Nvptx, Seam::CudaStd].map(hash), before);
        fs::write(root.join("gdn-kernels/src/arch/cuda_std/mod.rs"), "fn b() {}").unwrap();
        assert_eq!(hash(Seam::Nvptx), before[0]);
        assert_ne!(hash(Seam::CudaStd), before[1]);
        fs::write(root.join("gdn-kernels/src/arch/nvptx/mod.rs"), "fn b() {}").unwrap();
        assert_ne!(hash(Seam::Nvptx), before[0]);
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn comments_blank_lines_and_documentation_do_not_count() {
        let documented = "//! Doc.\n#![no_std]\n\n/// Doc.\nfn a() {\n    /* c */ b! { /// Doc.\n c }\n}\n";
        let bare = "#![no_std] fn a() { b! { c } }";
        assert_eq!(code(documented).unwrap(), code(bare).unwrap());
        for other in
            ["fn a() { b! { c } }", "#![no_std] fn a() { b! { d } }", "#![no_std] fn a() { b! { \"//\" } }"]
        {
            assert_ne!(code(other).unwrap(), code(bare).unwrap(), "{other}");
        }
        assert!(code("fn a() {").is_err());
        assert_eq!(values("# c\n[a]\nb = 1").unwrap(), values("[a]\n\nb = 1 # d").unwrap());
        assert_ne!(values("[a]\nb = 1").unwrap(), values("[a]\nb = 2").unwrap());
    }

    #[test]
    fn device_dependencies_count_and_optional_ones_do_not() {
        let root = repository("lock");
        assert_eq!(pinned_dependencies(&root).unwrap(), ["half 2.7.1 abc"]);
        fs::remove_dir_all(root).unwrap();
    }
}
