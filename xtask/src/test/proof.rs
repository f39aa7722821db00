//! Kernels that are committed before they were proven on a GPU: who has none may change them, but says so in a file.

use anyhow::{Context as _, Result};
use serde_json::Value;
use std::path::Path;

/// What says that the committed kernels have no record in `docs/evidence` yet: the hash of their sources, as the manifest has
/// it, and why. Kernels of other sources are not meant by it.
pub const FILE: &str = "docs/evidence-open.json";

/// Why the committed kernels have no record yet, if the file says so of these very kernels.
pub fn declared_open(root: &Path) -> Option<String> {
    let read =
        |path: &str| -> Option<Value> { serde_json::from_slice(&std::fs::read(root.join(path)).ok()?).ok() };
    let (open, manifest) = (read(FILE)?, read("gdn-host/ptx/manifest.json")?);
    let same = open["source_sha256"].is_string() && open["source_sha256"] == manifest["source_sha256"];
    same.then(|| open["why"].as_str().unwrap_or_default().to_owned())
}

/// Whether the file is there, whatever kernels it names.
pub fn is_declared(root: &Path) -> bool {
    root.join(FILE).exists()
}

/// Removes the file, now that kernels are proven; whether it was there.
///
/// # Errors
/// It cannot be removed.
pub fn close(root: &Path) -> Result<bool> {
    let is_there = is_declared(root);
    if is_there {
        std::fs::remove_file(root.join(FILE)).with_context(|| format!("cannot remove {FILE}"))?;
    }
    Ok(is_there)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_the_kernels_that_the_file_names_are_open_and_proof_closes_them() {
        let root = std::env::temp_dir().join(format!("gdn-open-{}", std::process::id()));
        for folder in ["docs", "gdn-host/ptx"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        let write = |path: &str, text: &str| fs::write(root.join(path), text).unwrap();
        write("gdn-host/ptx/manifest.json", r#"{"source_sha256": "a"}"#);
        assert_eq!(declared_open(&root), None);
        write(FILE, r#"{"source_sha256": "a", "why": "no GPU"}"#);
        assert_eq!(declared_open(&root).as_deref(), Some("no GPU"));
        write(FILE, r#"{"source_sha256": "b", "why": "no GPU"}"#);
        assert_eq!(declared_open(&root), None);
        write(FILE, r#"{"why": "no GPU"}"#);
        write("gdn-host/ptx/manifest.json", "{}");
        assert_eq!(declared_open(&root), None);
        assert!(is_declared(&root) && close(&root).unwrap());
        assert!(!is_declared(&root) && !close(&root).unwrap());
        fs::remove_dir_all(root).unwrap();
    }
}
