//! Puts the table of modules into a text and the kernel files that this build's features choose into packs, for
//! `src/artifact.rs` to embed.
//!
//! `packs` has all files, compressed as tightly as they get; that takes a minute, and `cargo xtask pack` has done it. A pack of
//! which the features choose most is embedded as it is there. One of which they choose little is compressed anew, without the
//! rest, and so is one whose kernels were built since.

use packing::{Pack, PackedFile};
use std::error::Error;
use std::path::Path;
use std::{env, fs};

#[cfg(feature = "embed")]
mod compress;
#[allow(dead_code, reason = "the library's file; the build script needs part of it")]
#[path = "src/key.rs"]
mod key;
#[allow(dead_code, reason = "the library's file; the build script needs part of it")]
#[path = "src/listing.rs"]
mod listing;
/// Written by `cargo xtask build-kernels`.
#[path = "ptx/modules.rs"]
mod modules;
#[allow(dead_code, reason = "the library's file; the build script needs part of it")]
#[path = "src/move_to_front.rs"]
mod move_to_front;
#[allow(dead_code, reason = "the library's file; the build script needs part of it")]
#[path = "src/packing.rs"]
mod packing;
#[allow(dead_code, reason = "the library's file; the build script needs part of it")]
#[path = "src/table.rs"]
mod table;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let sources = ["src/key.rs", "src/listing.rs", "src/move_to_front.rs", "src/packing.rs", "src/table.rs"];
    for input in ["ptx", "packs", "build.rs", "compress.rs"].into_iter().chain(sources) {
        println!("cargo::rerun-if-changed={input}");
    }
    let out = env::var_os("OUT_DIR").ok_or("cargo names no OUT_DIR")?;
    fs::write(Path::new(&out).join("modules.txt"), listing::write(modules::MODULES))?;
    let index = fs::read_to_string("packs/index.txt")?;
    let mut text =
        "/// Packs and the files in each, with their bytes, in order.\nstatic PACKS: &[Pack] = &[\n"
            .to_owned();
    for pack in packing::packs(modules::MODULES) {
        let is_chosen = PackedFile::is_chosen;
        if !pack.files.iter().any(is_chosen) {
            continue;
        }
        let made = packing::lengths_in(&index, &pack);
        text += &match made {
            Some(lengths) if most_is_chosen(&pack, &lengths) => as_it_is(&pack, &lengths)?,
            _ => anew(&pack, made.as_deref(), Path::new(&out))?,
        };
    }
    fs::write(Path::new(&out).join("packs.rs"), text + "];\n")?;
    Ok(())
}

/// Whether the features choose at least half of the bytes.
fn most_is_chosen(pack: &Pack, lengths: &[usize]) -> bool {
    let chosen = pack.files.iter().zip(lengths).filter(|(file, _)| file.is_chosen());
    2 * chosen.map(|(_, len)| len).sum::<usize>() >= lengths.iter().sum()
}

/// The line of a pack that is embedded as it was made. A file that the features leave out has no name there.
fn as_it_is(pack: &Pack, lengths: &[usize]) -> Result<String> {
    let files = pack.files.iter().zip(lengths);
    let files = files.map(|(file, &len)| (if file.is_chosen() { file.name } else { "" }, len));
    let folder = env::var("CARGO_MANIFEST_DIR")?;
    Ok(line(&Path::new(&folder).join("packs").join(format!("{}.br", pack.name)), files))
}

/// Compresses the chosen files of a pack; its line.
fn anew(pack: &Pack, made: Option<&[usize]>, out: &Path) -> Result<String> {
    let (mut bytes, mut files) = (Vec::new(), Vec::new());
    let mut unpacked = None;
    for (i, file) in pack.files.iter().enumerate().filter(|(_, file)| file.is_chosen()) {
        let path = Path::new("ptx").join(file.name);
        let content = match (fs::read(&path), made) {
            (Ok(content), _) => {
                file.in_pack(content).ok_or_else(|| format!("{} is no PTX of a compiler", path.display()))?
            }
            // A published crate has no files but those in its packs, which are there as a pack has them.
            (Err(_), Some(lengths)) => {
                let whole = match &unpacked {
                    Some(whole) => whole,
                    None => unpacked.insert(unpack(&fs::read(format!("packs/{}.br", pack.name))?)?),
                };
                let before: usize = lengths[..i].iter().sum();
                let content = whole.get(before..before + lengths[i]);
                content.ok_or_else(|| format!("packs/{}.br is cut short", pack.name))?.to_vec()
            }
            (Err(error), None) => return Err(format!("{}: {error}", path.display()).into()),
        };
        files.push((file.name, content.len()));
        bytes.extend(content);
    }
    let path = out.join(format!("{}.br", pack.name));
    fs::write(&path, compress(&bytes)?)?;
    Ok(line(&path, files.into_iter()))
}

/// A line of the table of packs.
fn line<'a>(path: &Path, files: impl Iterator<Item = (&'a str, usize)>) -> String {
    let files: String = files.map(|file| format!("{file:?}, ")).collect();
    format!("    Pack {{ bytes: include_bytes!({path:?}), files: &[{files}] }},\n")
}

/// Quality 5 is where a build that is not optimised, as cargo builds build scripts, takes eight seconds for all files.
#[cfg(feature = "embed")]
fn compress(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    compress::compress(bytes, 5)
}

#[cfg(feature = "embed")]
fn unpack(packed: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    brotli::BrotliDecompress(&mut &packed[..], &mut bytes)?;
    Ok(bytes)
}

#[cfg(not(feature = "embed"))]
fn compress(_: &[u8]) -> std::io::Result<Vec<u8>> {
    unreachable!("without `ptx` and `cubin` there is no pack")
}

#[cfg(not(feature = "embed"))]
fn unpack(_: &[u8]) -> std::io::Result<Vec<u8>> {
    unreachable!("without `ptx` and `cubin` there is no pack")
}
