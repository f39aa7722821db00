//! Which kernel files are compressed together, and what `packs/index.txt` says of those that already are.
//!
//! Files that resemble each other share a pack, so that what they have in common is stored once. Loading a file unpacks its
//! pack up to that file. A pack of PTX has a whole section of the kernel table: the driver compiles PTX for a tenth of a second
//! anyway. A pack of machine code, which loads in a millisecond, has only one K of it. PTX is rewritten before it is compressed
//! (`move_to_front.rs`).
//!
//! The build script reads this file too, and `cargo xtask pack` makes the packs that are committed.

use crate::key::ModuleKey;
use crate::move_to_front;
use crate::table::{self, EmbeddedModule, Feature};
use std::fmt::Write;

/// A kernel file in its pack.
#[derive(Clone, Copy, Debug)]
pub struct PackedFile {
    /// Its name: `decode_f32_bf16_k128.sm_90.cubin`.
    pub name: &'static str,
    /// SHA-256 of its contents, in hexadecimal.
    pub sha256: &'static str,
    key: ModuleKey,
    kind: Feature,
}

impl PackedFile {
    /// Whether the features of this build embed it.
    pub fn is_chosen(&self) -> bool {
        self.kind.is_on && table::features(self.key).all(|feature| feature.is_on)
    }

    /// Its contents as the pack has them before they are compressed; nothing if they are PTX of another form than compilers write.
    pub fn in_pack(&self, contents: Vec<u8>) -> Option<Vec<u8>> {
        if self.kind == table::PTX { move_to_front::shorten(&contents) } else { Some(contents) }
    }
}

/// Files that are compressed together.
#[derive(Clone, Debug)]
pub struct Pack {
    /// `decode_k128.cubin`; its file is `decode_k128.cubin.br`.
    pub name: String,
    /// In the order in which they are compressed.
    pub files: Vec<PackedFile>,
}

/// The packs of these modules, whatever the features.
pub fn packs(modules: &[EmbeddedModule]) -> Vec<Pack> {
    let mut packs: Vec<Pack> = Vec::new();
    let mut put = |name: String, file| match packs.iter_mut().find(|pack| pack.name == name) {
        Some(pack) => pack.files.push(file),
        None => packs.push(Pack { name, files: vec![file] }),
    };
    for module in modules {
        let (key, section) = (module.key, module.key.section());
        let file = |name, sha256, kind| PackedFile { name, sha256, key, kind };
        put(format!("{section}.ptx"), file(module.file, module.sha256, table::PTX));
        for binary in module.binaries {
            put(format!("{section}_k{}.cubin", key.k), file(binary.file, binary.sha256, table::CUBIN));
        }
    }
    // A module's files for several targets differ least: they stand side by side.
    packs.iter_mut().for_each(|pack| pack.files.sort_unstable_by_key(|file| file.name));
    packs
}

/// The lines of a pack in the index: pack and file, bytes in the pack before it is compressed, SHA-256 of the file.
pub fn index_lines(pack: &Pack, lengths: &[usize]) -> String {
    let mut text = String::new();
    for (file, bytes) in pack.files.iter().zip(lengths) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{} {} {bytes} {}", pack.name, file.name, file.sha256);
    }
    text
}

/// How long the files are in a pack, if the index has this very pack: the same files, in the same order, with these contents.
pub fn lengths_in(index: &str, pack: &Pack) -> Option<Vec<usize>> {
    let lines = index.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let mut next = || words.next();
        let (name, file, bytes, sha256) = (next()?, next()?, next()?, next()?);
        (name == pack.name).then_some((file, bytes, sha256))
    });
    let lines: Vec<_> = lines.collect();
    let is_same = lines.len() == pack.files.len()
        && pack.files.iter().zip(&lines).all(|(f, (file, _, sha256))| (f.name, f.sha256) == (file, sha256));
    if !is_same {
        return None;
    }
    lines.iter().map(|(_, bytes, _)| bytes.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::modules;

    #[test]
    fn index_is_of_the_very_files_or_of_none() {
        let packs = packs(modules());
        let lengths = |pack: &Pack| (1..=pack.files.len()).collect::<Vec<_>>();
        let index: String = packs.iter().map(|pack| index_lines(pack, &lengths(pack))).collect();
        for pack in &packs {
            assert_eq!(lengths_in(&index, pack), Some(lengths(pack)), "{}", pack.name);
        }
        let pack = &packs[0];
        let file = pack.files[0];
        for (from, to) in [(file.sha256, "0"), (file.name, "another.ptx")] {
            assert_eq!(lengths_in(&index.replacen(from, to, 1), pack), None, "{from}");
        }
        let (_, without_the_first) = index.split_once('\n').unwrap();
        assert_eq!(lengths_in(without_the_first, pack), None);
        assert_eq!(lengths_in("", pack), None);
    }

    #[test]
    fn every_file_is_in_one_pack() {
        let packs = packs(modules());
        let mut names: Vec<_> = packs.iter().flat_map(|pack| pack.files.iter().map(|f| f.name)).collect();
        let count: usize = modules().iter().map(|module| 1 + module.binaries.len()).sum();
        assert_eq!(names.len(), count);
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
