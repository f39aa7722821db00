//! The table of modules as a text, which a program holds in a fifth of the bytes of the table itself: no pointer in it has to be
//! relocated, and names are made of what they are composed of. The build script writes it, and it is read when a program asks for
//! the table.
//!
//! A line is a module: section, types and K, target, SHA-256; the number of its binaries, and GPU and SHA-256 of each; the number
//! of its entries, and rows, bytes of parameters and threads of each.

use crate::key::{DType, ModuleKey};
use crate::table::{EmbeddedBinary, EmbeddedEntry, EmbeddedModule};
use std::ffi::{CStr, CString};
use std::fmt::Write;
use std::str::SplitAsciiWhitespace;

/// A column that an operation does not have.
const NONE: &str = "-";

/// The text of these modules.
pub fn write(modules: &[EmbeddedModule]) -> String {
    let mut text = String::new();
    let dtype = |dtype: Option<DType>| dtype.map_or(NONE, DType::name);
    for EmbeddedModule { key, arch, sha256, binaries, entries, .. } in modules {
        let (section, state, io) = (key.section(), dtype(key.state), dtype(key.io));
        // Writing to a String cannot fail.
        let _ = write!(text, "{section} {state} {io} {} {arch} {sha256} {}", key.k, binaries.len());
        for EmbeddedBinary { gpu, sha256, .. } in *binaries {
            let _ = write!(text, " {gpu} {sha256}");
        }
        let _ = write!(text, " {}", entries.len());
        for EmbeddedEntry { rows, params_size, max_threads, .. } in *entries {
            let _ = write!(text, " {rows} {params_size} {max_threads}");
        }
        text.push('\n');
    }
    text
}

/// The modules of a text that [`write()`] wrote.
pub fn read(text: &'static str) -> Vec<EmbeddedModule> {
    let mut forms = Forms::default();
    text.lines().filter_map(|line| module(line.split_ascii_whitespace(), &mut forms)).collect()
}

/// The section that was read last: modules of a section stand together.
#[derive(Default)]
struct Forms {
    last: Option<(&'static str, ModuleKey)>,
}

impl Forms {
    fn of(&mut self, section: &'static str) -> Option<ModuleKey> {
        match self.last {
            Some((name, form)) if name == section => Some(form),
            _ => {
                let form = ModuleKey::of_section(section, None, None, 0)?;
                self.last = Some((section, form));
                Some(form)
            }
        }
    }
}

fn module(mut words: SplitAsciiWhitespace<'static>, forms: &mut Forms) -> Option<EmbeddedModule> {
    let form = forms.of(words.next()?)?;
    let (state, io) = (dtype(words.next()?)?, dtype(words.next()?)?);
    let key = ModuleKey { state, io, k: number(&mut words)?, ..form };
    let name: &'static str = key.to_string().leak();
    let (arch, sha256) = (number(&mut words)?, words.next()?);
    let binaries: Option<Vec<_>> = (0..number(&mut words)?)
        .map(|_| {
            let gpu = number(&mut words)?;
            let file = format!("{name}.sm_{gpu}.cubin").leak();
            Some(EmbeddedBinary { file, gpu, sha256: words.next()? })
        })
        .collect();
    let entries: Option<Vec<_>> = (0..number(&mut words)?)
        .map(|_| {
            let rows = number(&mut words)?;
            let (params_size, max_threads) = (number(&mut words)?, number(&mut words)?);
            Some(EmbeddedEntry { name: entry(name, rows)?, rows, params_size, max_threads })
        })
        .collect();
    let (binaries, entries) = (binaries?.leak(), entries?.leak());
    let file = format!("{name}.sm_{arch}.ptx").leak();
    Some(EmbeddedModule { name, file, arch, key, sha256, binaries, entries })
}

/// The name of a module's entry for tiles of so many rows, 0 if it has none.
fn entry(module: &str, rows: u32) -> Option<&'static CStr> {
    let rows = if rows > 0 { format!("_r{rows}") } else { String::new() };
    let name = CString::new(format!("gdn_{module}{rows}")).ok()?;
    Some(Box::leak(name.into_boxed_c_str()))
}

fn number(words: &mut SplitAsciiWhitespace) -> Option<u32> {
    words.next()?.parse().ok()
}

/// A type, or that there is none.
fn dtype(word: &str) -> Option<Option<DType>> {
    if word == NONE {
        return Some(None);
    }
    [DType::F32, DType::Bf16, DType::F16].into_iter().find(|dtype| dtype.name() == word).map(Some)
}

/// Written by `cargo xtask build-kernels`.
#[cfg(test)]
#[path = "../ptx/modules.rs"]
mod generated;

#[cfg(test)]
mod tests {
    use super::*;

    /// The table that `cargo xtask build-kernels` wrote comes back as it is.
    #[test]
    fn what_is_read_is_what_was_written() {
        let modules = generated::MODULES;
        let text = write(modules);
        assert!(text.len() < 70_000, "{} bytes", text.len());
        let read = read(text.leak());
        assert_eq!(format!("{read:?}"), format!("{modules:?}"));
        assert_eq!(format!("{modules:?}"), format!("{:?}", crate::artifact::modules()));
    }
}
