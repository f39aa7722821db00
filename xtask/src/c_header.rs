//! `cargo xtask c-header`: `gdn-c/include/gdn.h` from the sources of libgdn, by cbindgen.
//!
//! Types, functions and documentation bear the names of C already; `gdn-c/cbindgen.toml` says the rest.

use crate::report::say;
use crate::tools;
use anyhow::{Context as _, Result, anyhow};
use clap::Args as ClapArgs;
use std::path::Path;
use std::process::ExitCode;

/// The crate, from the repository's root.
const CRATE: &str = "gdn-c";
/// The header, from the crate's folder.
const HEADER: &str = "include/gdn.h";

/// Write gdn-c/include/gdn.h from the sources of libgdn
#[derive(ClapArgs)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: &Args) -> Result<ExitCode> {
    let root = tools::workspace_root()?;
    let path = root.join(CRATE).join(HEADER);
    std::fs::write(&path, generate(&root)?).with_context(|| format!("cannot write {}", path.display()))?;
    say!("{} is written", path.display());
    Ok(ExitCode::SUCCESS)
}

/// The header of the repository at `root`.
fn generate(root: &Path) -> Result<String> {
    let folder = root.join(CRATE);
    let config = cbindgen::Config::from_file(folder.join("cbindgen.toml")).map_err(|error| anyhow!(error))?;
    // cbindgen finds the other files itself.
    let builder = cbindgen::Builder::new().with_src(folder.join("src/lib.rs")).with_config(config);
    let mut text = Vec::new();
    builder.generate()?.write(&mut text);
    let text = String::from_utf8(text)?;
    // Blocks of text stand out by their indent in C.
    let is_fence = |line: &&str| line.trim_start().starts_with("/// ```");
    let lines = text.lines().filter(|line| !is_fence(line));
    Ok(lines.flat_map(|line| [line.trim_end(), "\n"]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_header_is_the_one_that_the_sources_give() {
        let root = tools::workspace_root().unwrap();
        let committed = std::fs::read_to_string(root.join(CRATE).join(HEADER)).unwrap();
        let given = generate(&root).unwrap();
        assert!(committed == given, "{HEADER} is of other sources: `cargo xtask c-header` writes it");
    }

    #[test]
    fn every_public_item_is_in_the_header_and_documented() {
        let text = generate(&tools::workspace_root().unwrap()).unwrap();
        for expected in [
            "#define GDN_ABI_VERSION 1",
            "typedef uint32_t gdn_dtype;",
            "typedef struct gdn_context gdn_context;",
            "gdn_table write_slots;",
            "struct gdn_rows gdn_rows_view(struct gdn_rows rows,",
            "size_t gdn_prepared_plan(",
        ] {
            assert!(text.contains(expected), "`{expected}` is missing in\n{text}");
        }
        let mut undocumented = Vec::new();
        let mut before = "";
        for line in text.lines().map(str::trim) {
            let is_item = line.starts_with("#define GDN_") && line.contains(' ') && line != "#define GDN_H"
                || line.starts_with("typedef ")
                || line.starts_with("gdn_status gdn_");
            if is_item && !before.starts_with("///") {
                undocumented.push(line);
            }
            before = line;
        }
        assert!(undocumented.is_empty(), "without documentation: {undocumented:#?}");
    }
}
