//! Makes the packs of kernel files in `gdn-host/packs`, which the build script of gdn-host embeds and which a published crate
//! has in place of the files. [`packing`] says what is in each.
//!
//! They are compressed as tightly as brotli does, a third less than a build script, which is not optimised, has time for. So this
//! is a program of its own: `cargo xtask pack` has it built, optimised, without simulator and kernels.

#[path = "../../gdn-host/compress.rs"]
mod compress;

use anyhow::{Context as _, Result, ensure};
use gdn_host::artifact::{self, sha256_hex};
use gdn_host::packing::{self, Pack};
use rayon::prelude::*;
use std::fs;
use std::path::Path;

/// What lists the packs' files.
const INDEX: &str = "index.txt";

/// In the repository's root.
fn main() -> Result<()> {
    let (from, to) = (Path::new("gdn-host/ptx"), Path::new("gdn-host/packs"));
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    let index = fs::read_to_string(to.join(INDEX)).unwrap_or_default();
    let packs = packing::packs(artifact::modules());
    let made: Result<Vec<Made>> = packs.par_iter().map(|pack| make(pack, &index, from, to)).collect();
    let made = made?;
    let lines = packs.iter().zip(&made).map(|(pack, made)| packing::index_lines(pack, &made.lengths));
    fs::write(to.join(INDEX), lines.collect::<String>()).with_context(|| format!("cannot write {INDEX}"))?;
    let removed = remove_others(&packs, to)?;
    let bytes: usize = made.iter().flat_map(|made| &made.lengths).sum();
    let packed: usize = made.iter().map(|made| made.packed).sum();
    println!(
        "{} packs of {:.1} MB, {:.2} MB compressed: {} compressed anew, {removed} removed",
        packs.len(),
        bytes as f64 / 1e6,
        packed as f64 / 1e6,
        made.iter().filter(|made| made.is_new).count()
    );
    Ok(())
}

/// A pack that was written, or found as it should be.
struct Made {
    /// Bytes of each file in it, before they are compressed.
    lengths: Vec<usize>,
    packed: usize,
    is_new: bool,
}

fn make(pack: &Pack, index: &str, from: &Path, to: &Path) -> Result<Made> {
    let path = to.join(format!("{}.br", pack.name));
    if let (Some(lengths), Ok(file)) = (packing::lengths_in(index, pack), fs::metadata(&path)) {
        return Ok(Made { lengths, packed: file.len() as usize, is_new: false });
    }
    let (mut bytes, mut lengths) = (Vec::new(), Vec::new());
    for file in &pack.files {
        let content = fs::read(from.join(file.name)).with_context(|| format!("cannot read {}", file.name))?;
        ensure!(
            sha256_hex(&content) == file.sha256,
            "{} is not what gdn-host/ptx/modules.rs says: run `cargo xtask build-kernels` first",
            file.name
        );
        let content = file.in_pack(content);
        let content = content.with_context(|| format!("{} is no PTX of a compiler", file.name))?;
        lengths.push(content.len());
        bytes.extend(content);
    }
    let packed = compress::compress(&bytes, 11)?;
    fs::write(&path, &packed).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Made { lengths, packed: packed.len(), is_new: true })
}

/// Removes packs of kernels that are no more; how many.
fn remove_others(packs: &[Pack], folder: &Path) -> Result<usize> {
    let mut removed = 0;
    for file in fs::read_dir(folder)? {
        let path = file?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_pack = name.strip_suffix(".br").is_some_and(|name| packs.iter().any(|pack| pack.name == name));
        if name != INDEX && !is_pack {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            removed += 1;
        }
    }
    Ok(removed)
}
