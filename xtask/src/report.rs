//! Tables, JSON files, progress bars, and names of cards and days.

use anyhow::{Context as _, Result};
use console::{Alignment, measure_text_width, pad_str, style, truncate_str};
use gdn_tests::parity::Outcome;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use std::fmt::Arguments;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// `println!`, but that the process ends quietly when nobody reads its output any more, as under `| head`.
macro_rules! say {
    ($($text:tt)*) => { $crate::report::line(format_args!($($text)*)) };
}
pub(crate) use say;

/// What shells report of a process that SIGPIPE ended.
const BROKEN_PIPE: i32 = 128 + 13;

/// Writes a line to standard output: what [`say`] calls.
pub fn line(text: Arguments) {
    if let Err(error) = writeln!(std::io::stdout().lock(), "{text}") {
        if error.kind() != ErrorKind::BrokenPipe {
            eprintln!("error: cannot write to standard output: {error}");
        }
        std::process::exit(BROKEN_PIPE);
    }
}

/// Prints rows under headings, columns padded to their widest cell; the last column is left as it is.
pub fn table<const N: usize>(headings: &[&str; N], rows: impl IntoIterator<Item = [String; N]>) {
    wide_table(headings, rows.into_iter().map(Vec::from).collect());
}

/// [`table`] with columns that are known only when it is printed; every row has a cell for each heading.
pub fn wide_table(headings: &[&str], rows: Vec<Vec<String>>) {
    let mut all = vec![headings.iter().map(|heading| style(heading).dim().to_string()).collect()];
    all.extend(rows);
    plain(all);
}

/// Rows of equally many cells, columns padded to their widest cell.
pub fn plain(rows: Vec<Vec<String>>) {
    let widths = widths(&rows);
    rows.iter().for_each(|row| say!("{}", padded(row, &widths)));
}

/// What each column needs. Colours take no room.
fn widths(rows: &[Vec<String>]) -> Vec<usize> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column| {
        rows.iter().filter_map(|row| row.get::<usize>(column)).map(|cell| measure_text_width(cell)).max()
    };
    (0..columns).map(|column| width(column).unwrap_or(0)).collect()
}

fn padded(row: &[String], widths: &[usize]) -> String {
    let cells = row.iter().zip(widths).map(|(cell, &width)| pad_str(cell, width, Alignment::Left, None));
    cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

/// Columns that a terminal shows without breaking lines.
const COLUMNS: usize = 100;

/// Text broken between words, so that lines with the indentation fit.
pub fn wrapped(text: &str, indent: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let room = COLUMNS - indent.len();
        let fits = lines.last().is_some_and(|line| line.is_empty() || line.len() + 1 + word.len() <= room);
        if !fits {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            line.push_str(if line.is_empty() { "" } else { " " });
            line.push_str(word);
        }
    }
    lines.iter().map(|line| format!("{indent}{line}")).collect::<Vec<_>>().join("\n")
}

/// A table of outcomes: verdict, two cells of each outcome, what output and state are off by. Why an outcome did not pass
/// stands below its row.
pub fn outcomes<'a>(headings: [&str; 5], rows: impl IntoIterator<Item = (&'a Outcome, [String; 2])>) {
    let mut table = vec![headings.map(|heading| style(heading).dim().to_string()).to_vec()];
    let mut notes = vec![None];
    let error = |error: Option<f64>| match error {
        None => String::new(),
        Some(0.0) => "exact".into(),
        Some(error) => format!("{error:.1e}"),
    };
    for (outcome, [name, what]) in rows {
        let verdict = if outcome.pass { style("ok").green() } else { style("FAIL").red().bold() };
        let (out, state) = (error(outcome.rel_l2_out), error(outcome.rel_l2_state));
        table.push(vec![verdict.to_string(), name, what, out, state]);
        notes.push((!outcome.pass).then_some(&outcome.note));
    }
    // What is decoded and then the name give way where a row is too wide.
    for column in [2, 1] {
        let needed = widths(&table);
        let over = (needed.iter().sum::<usize>() + 2 * (needed.len() - 1)).saturating_sub(COLUMNS);
        let room = needed[column].saturating_sub(over).max(24);
        for row in &mut table {
            row[column] = truncate_str(&row[column], room, "…").into_owned();
        }
    }
    let widths = widths(&table);
    for (row, note) in table.iter().zip(notes) {
        say!("{}", padded(row, &widths));
        if let Some(note) = note {
            say!("{}", style(wrapped(note, "      ")).red());
        }
    }
}

/// Writes JSON for people to read too, and makes the folders above it.
pub fn write_json(path: &Path, value: &Value) -> Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    let text = serde_json::to_string_pretty(value)? + "\n";
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// A bar of `len` steps; nothing where standard error is no terminal.
pub fn progress(len: usize, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} [{bar:40}] {pos}/{len} {msg} {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(len as u64).with_style(style).with_prefix(what)
}

/// `h100.json` for `NVIDIA H100 80GB HBM3`: the first word with a digit, else the whole name.
pub fn gpu_file_name(device: &str) -> String {
    let has_digit = |word: &&str| word.chars().any(|c| c.is_ascii_digit());
    let word = device.split_whitespace().find(has_digit).unwrap_or(device);
    let plain = word.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' });
    plain.collect::<String>() + ".json"
}

/// The kernel driver's version, where the system tells it.
pub fn driver_version() -> Option<String> {
    let text = std::fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    let dotted = |w: &&str| w.contains('.') && w.starts_with(|c: char| c.is_ascii_digit());
    text.split_whitespace().find(dotted).map(str::to_owned)
}

/// Today in UTC, as `2026-11-24`.
pub fn today() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    civil_date(seconds / 86_400)
}

/// The date of a day counted from 1970-01-01, by counting 400-year cycles from March of year 0.
fn civil_date(days: u64) -> String {
    let z = days + 719_468;
    let (era, day) = (z / 146_097, z % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = era * 400 + year + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_dates() {
        assert_eq!(civil_date(0), "1970-01-01");
        assert_eq!(civil_date(11_016), "2000-02-29");
        assert_eq!(civil_date(20_781), "2026-11-24");
    }

    #[test]
    fn cards_have_short_names() {
        assert_eq!(gpu_file_name("NVIDIA H100 80GB HBM3"), "h100.json");
        assert_eq!(gpu_file_name("NVIDIA H200"), "h200.json");
        assert_eq!(gpu_file_name("NVIDIA A100-SXM4-80GB"), "a100-sxm4-80gb.json");
    }
}
