//! What the command shows: a bar while it works, a table when it is done.

use super::arch::Arch;
use super::manifest::Manifest;
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::io::{IsTerminal, stderr};
use std::time::Duration;

/// Progress on stderr: a bar on a terminal, a line for each stage elsewhere.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    pub(crate) fn new() -> Progress {
        let bar = ProgressBar::no_length();
        bar.enable_steady_tick(Duration::from_millis(120));
        Progress { bar }
    }

    /// Starts a stage of `steps` steps; 0 if they cannot be counted.
    pub(crate) fn stage(&self, name: String, steps: usize) {
        if !stderr().is_terminal() {
            eprintln!("{name}");
        }
        let template = match steps {
            0 => "{spinner} {msg} {elapsed}",
            _ => "{spinner} {msg} [{bar:30}] {pos}/{len}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
        self.bar.set_length(steps as u64);
        self.bar.set_position(0);
        self.bar.set_message(name);
    }

    pub(crate) fn step(&self) {
        self.bar.inc(1);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// The resources of every entry: registers for each target and GPU (`80>86`: PTX for sm_80 on sm_86), and
/// what spills.
pub(crate) fn table(manifest: &Manifest) -> String {
    let entries = |target: Arch| {
        let modules = manifest.modules.iter().filter(move |module| module.arch == target);
        modules.flat_map(|module| &module.entries)
    };
    let targets: BTreeSet<Arch> = manifest.modules.iter().map(|module| module.arch).collect();
    let assembled = |target: Arch| {
        let gpus = entries(target).flat_map(|entry| &entry.resources).flat_map(|found| found.keys().copied());
        gpus.map(move |gpu| (target, gpu)).collect::<BTreeSet<(Arch, Arch)>>()
    };
    let columns: BTreeSet<(Arch, Arch)> = targets.into_iter().flat_map(assembled).collect();
    if columns.is_empty() {
        return String::new();
    }

    let names = manifest.modules.iter().flat_map(|module| &module.entries).map(|entry| &entry.name);
    let width = names.map(String::len).max().unwrap_or(0);
    let mut text = format!("{:width$}", "registers");
    // Writing to a String cannot fail.
    for (target, gpu) in &columns {
        let _ = write!(text, " {:>6}", format!("{}>{}", target.number(), gpu.number()));
    }
    text.push_str("  spills\n");
    let mut seen = BTreeSet::new();
    for entry in manifest.modules.iter().flat_map(|module| &module.entries) {
        if !seen.insert(&entry.name) {
            continue;
        }
        let _ = write!(text, "{:width$}", entry.name);
        let mut spills = 0;
        for (target, gpu) in &columns {
            let found = entries(*target).find(|other| other.name == entry.name);
            let found = found.and_then(|other| other.resources.as_ref()?.get(gpu));
            let _ = write!(text, " {:>6}", found.map_or("-".to_owned(), |r| r.registers.to_string()));
            spills = spills.max(found.map_or(0, |resources| resources.spill_bytes));
        }
        let _ = writeln!(text, "  {spills:>6}");
    }
    text
}
