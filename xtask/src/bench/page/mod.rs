//! `bench --report`: makes the measured parts of the documents and the plots anew from the committed results, so that
//! no number is typed by hand.
//!
//! A part stands in a document between `<!-- report: NAME ARGUMENTS -->` and `<!-- /report -->`; `parts.rs` says what
//! each shows. All other text of the document is prose, and stays as it is.

mod card;
mod parts;
mod python;
mod region;
mod replay;
mod tables;

use super::plot;
use crate::report::say;
use crate::tools;
use anyhow::{Context as _, Result};
use card::Cards;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Documents with measured parts.
const DOCUMENTS: [&str; 3] = ["README.md", "docs/BENCHMARKS.md", "docs/HOSTS.md"];
/// Where results lie.
const RESULTS: &str = "docs/benchmarks";
/// Cards whose results are drawn, each into a folder of its own.
const DRAWN: [&str; 2] = ["h100", "h200"];

/// Writes the documents' parts and the plots, or with `check` only says which of them are not what the results give.
pub(super) fn run(check: bool) -> Result<ExitCode> {
    let root = tools::workspace_root()?;
    let stale = stale(&root)?;
    for (path, text) in &stale {
        let shown = path.strip_prefix(&root).unwrap_or(path).display();
        if check {
            say!("{shown} is not what {RESULTS} gives: run cargo xtask bench --report");
        } else {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)
                    .with_context(|| format!("cannot make {}", folder.display()))?;
            }
            std::fs::write(path, text).with_context(|| format!("cannot write {shown}"))?;
            say!("{shown}");
        }
    }
    if stale.is_empty() {
        say!("documents and plots are what {RESULTS} gives");
    }
    Ok(if check && !stale.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The files that are not what the results give, with what they should hold.
fn stale(root: &Path) -> Result<Vec<(PathBuf, String)>> {
    let mut files = files(root)?;
    files.retain(|(path, text)| std::fs::read_to_string(path).ok().as_deref() != Some(text));
    Ok(files)
}

/// Every document and plot as the results give it.
fn files(root: &Path) -> Result<Vec<(PathBuf, String)>> {
    let cards = Cards::new(root.join(RESULTS));
    let mut files = Vec::new();
    for name in DOCUMENTS {
        let path = root.join(name);
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {name}"))?;
        let text = region::fill(&text, |words| parts::part(&cards, words));
        files.push((path, text.with_context(|| name.to_owned())?));
    }
    for name in DRAWN {
        let card = cards.get(name)?;
        let rows: Vec<_> = card.ours.rows.iter().filter(|row| card.is_versus(&row.shape)).cloned().collect();
        for (file, svg) in plot::draw(&card.ours.device, &rows, &card.peers)? {
            files.push((root.join(RESULTS).join("plots").join(name).join(file), svg));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_documents_and_plots_are_what_the_results_give() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let stale: Vec<_> = stale(&root).unwrap().into_iter().map(|(path, _)| path).collect();
        assert!(stale.is_empty(), "run cargo xtask bench --report: {stale:?}");
    }
}
