//! Compresses the kernel files that this build's features choose, for `src/artifact.rs` to embed.
//!
//! Files that resemble each other share a pack, so that what they have in common is stored once. Loading a file unpacks its
//! pack up to that file. A pack of PTX has a whole section of the kernel table: the driver compiles PTX for a tenth of a second
//! anyway. A pack of machine code, which loads in a millisecond, has only one K of it.

use std::error::Error;
use std::path::Path;
use std::{env, fs};

#[allow(dead_code, reason = "the library's file; the build script needs part of it")]
#[path = "src/key.rs"]
mod key;
#[allow(dead_code, reason = "the library's file; the build script needs part of it")]
#[path = "src/table.rs"]
mod table;

/// Files that are compressed together, by their names in the table.
struct Pack {
    name: String,
    files: Vec<&'static str>,
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=ptx");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/key.rs");
    println!("cargo::rerun-if-changed=src/table.rs");
    let out = env::var_os("OUT_DIR").ok_or("cargo names no OUT_DIR")?;
    let mut text =
        "/// Packs and the files in each, with their bytes, in order.\nstatic PACKS: &[Pack] = &[\n"
            .to_owned();
    for pack in chosen() {
        text += &write(&pack, Path::new(&out))?;
    }
    fs::write(Path::new(&out).join("packs.rs"), text + "];\n")?;
    Ok(())
}

/// The packs of this build's features.
fn chosen() -> Vec<Pack> {
    let mut packs: Vec<Pack> = Vec::new();
    let mut put = |name: String, file| match packs.iter_mut().find(|pack| pack.name == name) {
        Some(pack) => pack.files.push(file),
        None => packs.push(Pack { name, files: vec![file] }),
    };
    let of_features = |module: &&table::EmbeddedModule| table::features(module.key).all(|f| f.is_on);
    for module in table::modules().iter().filter(of_features) {
        let section = module.key.section();
        if table::PTX.is_on {
            put(format!("{section}.ptx"), module.file);
        }
        for binary in module.binaries.iter().filter(|_| table::CUBIN.is_on) {
            put(format!("{section}_k{}.cubin", module.key.k), binary.file);
        }
    }
    // A module's files for several targets differ least: they stand side by side.
    packs.iter_mut().for_each(|pack| pack.files.sort_unstable());
    packs
}

/// Compresses a pack; its line of the table of packs.
fn write(pack: &Pack, out: &Path) -> Result<String, Box<dyn Error>> {
    let (mut bytes, mut files) = (Vec::new(), String::new());
    for file in &pack.files {
        let path = Path::new("ptx").join(file);
        let content = fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        files += &format!("({file:?}, {}), ", content.len());
        bytes.extend(content);
    }
    let name = format!("{}.br", pack.name);
    fs::write(out.join(&name), compress(&bytes)?)?;
    Ok(format!("    Pack {{ bytes: include_bytes!({name:?}), files: &[{files}] }},\n"))
}

/// Brotli unpacks a gigabyte a second, ten times as fast as LZMA, and packs half as tight again as zstd's fast levels. Quality
/// 5 is where a build that is not optimised, as cargo builds build scripts, takes four seconds for all files.
#[cfg(feature = "embed")]
fn compress(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let window = (usize::BITS - bytes.len().leading_zeros()).clamp(16, 24);
    let params = brotli::enc::BrotliEncoderParams {
        quality: 5,
        lgwin: window as i32,
        size_hint: bytes.len(),
        ..Default::default()
    };
    let mut packed = Vec::new();
    brotli::BrotliCompress(&mut &bytes[..], &mut packed, &params)?;
    Ok(packed)
}

#[cfg(not(feature = "embed"))]
fn compress(_: &[u8]) -> std::io::Result<Vec<u8>> {
    unreachable!("without `ptx` and `cubin` there is no pack")
}
