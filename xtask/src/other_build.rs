//! Kernels of a folder that `build-kernels --out` wrote, instead of the embedded ones: `--ptx DIR` of parity and bench.

use anyhow::{Context as _, Result, ensure};
use gdn_host::{Files, artifact};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A folder of modules whose entries are those of the embedded ones.
pub struct OtherBuild {
    folder: PathBuf,
    /// SHA-256 of each file.
    hashes: BTreeMap<String, String>,
}

/// As much of `manifest.json` as loading needs.
#[derive(Deserialize)]
struct Manifest {
    modules: Vec<Module>,
}

#[derive(Deserialize)]
struct Module {
    #[serde(flatten)]
    ptx: File,
    binaries: Vec<File>,
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
struct File {
    file: String,
    sha256: String,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Entry {
    name: String,
    rows: u32,
    params_size: u32,
    max_threads: u32,
}

impl OtherBuild {
    /// Reads the folder's manifest.
    ///
    /// # Errors
    /// No manifest, or one of other kernels than this program knows: their arguments could be read as something else.
    pub fn read(folder: &Path) -> Result<OtherBuild> {
        let path = folder.join("manifest.json");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("--ptx: {} is no folder of `build-kernels --out`", folder.display()))?;
        let manifest: Manifest = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        for module in &manifest.modules {
            ensure!(
                embedded(&module.ptx.file).is_some_and(|entries| entries == module.entries),
                "--ptx: {} in {} has other entries than this program knows: build both from the same sources",
                module.ptx.file,
                folder.display()
            );
        }
        let files =
            manifest.modules.into_iter().flat_map(|module| module.binaries.into_iter().chain([module.ptx]));
        let hashes = files.map(|file| (file.file, file.sha256)).collect();
        Ok(OtherBuild { folder: folder.to_owned(), hashes })
    }

    /// Its files, to load from.
    pub fn files(&self) -> Files<'_> {
        Files::OtherBuild(&self.folder, &self.hashes)
    }
}

/// The entries of the embedded module of this name.
fn embedded(file: &str) -> Option<Vec<Entry>> {
    let module = artifact::modules().iter().find(|module| module.file == file)?;
    let entries = module.entries.iter().map(|entry| Entry {
        name: entry.name.to_string_lossy().into_owned(),
        rows: entry.rows,
        params_size: entry.params_size,
        max_threads: entry.max_threads,
    });
    Some(entries.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_is_taken_by_its_manifest_and_refused_with_other_entries() {
        let ptx = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gdn-host/ptx");
        let build = OtherBuild::read(&ptx).unwrap();
        let module = &artifact::modules()[0];
        assert_eq!(build.hashes[module.file], module.sha256);

        let folder = std::env::temp_dir().join(format!("gdn-other-build-{}", std::process::id()));
        let refused = || OtherBuild::read(&folder).err().expect("refused").to_string();
        assert!(refused().contains("is no folder of `build-kernels --out`"));
        std::fs::create_dir_all(&folder).unwrap();
        let manifest = std::fs::read_to_string(ptx.join("manifest.json")).unwrap();
        let other = manifest.replacen("\"max_threads\": ", "\"max_threads\": 1", 1);
        std::fs::write(folder.join("manifest.json"), other).unwrap();
        assert!(refused().contains("has other entries than this program knows"), "{}", refused());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
