//! Markdown tables of rows over batches.

use super::super::row::Row;
use std::collections::BTreeSet;

/// In place of a table without rows.
const NOTHING: &str = "Not measured with this build.\n";

/// A Markdown table, or a sentence if there are no rows.
pub(super) fn markdown(headings: &[String], rows: &[Vec<String>]) -> String {
    if rows.is_empty() {
        return NOTHING.into();
    }
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rule = format!("|{}\n", "---|".repeat(headings.len()));
    let body = rows.iter().map(|row| line(row)).collect::<String>();
    line(headings) + &rule + &body
}

/// Microseconds: two decimals up to 100, one above.
pub(super) fn us(us: f64) -> String {
    if us < 99.995 { format!("{us:.2}") } else { format!("{us:.1}") }
}

/// A table over batches: each line has labels and, by batch, a cell.
pub(super) struct Table {
    labels: Vec<String>,
    batches: BTreeSet<u32>,
    lines: Vec<Line>,
}

struct Line {
    labels: Vec<String>,
    cells: Vec<(u32, String)>,
}

impl Table {
    pub(super) fn new(labels: &[&str]) -> Table {
        let labels = labels.iter().map(|&label| label.to_owned()).collect();
        Table { labels, batches: BTreeSet::new(), lines: Vec::new() }
    }

    /// Only these of the batches, where there are cells for them.
    pub(super) fn at(mut self, batches: &[u32]) -> String {
        self.batches.retain(|batch| batches.contains(batch));
        self.text()
    }

    /// A line; none if it has no cell.
    pub(super) fn line(&mut self, labels: &[&str], cells: impl IntoIterator<Item = (u32, String)>) {
        let cells: Vec<_> = cells.into_iter().collect();
        self.batches.extend(cells.iter().map(|(batch, _)| *batch));
        if !cells.is_empty() {
            self.lines.push(Line { labels: labels.iter().map(|&label| label.to_owned()).collect(), cells });
        }
    }

    /// The whole table.
    pub(super) fn text(&self) -> String {
        let headings: Vec<_> =
            self.labels.iter().cloned().chain(self.batches.iter().map(ToString::to_string)).collect();
        let cell = |line: &Line, batch: &u32| {
            let found = line.cells.iter().find(|(of, _)| of == batch);
            found.map_or_else(String::new, |(_, cell)| cell.clone())
        };
        let row = |line: &Line| {
            line.labels.iter().cloned().chain(self.batches.iter().map(|batch| cell(line, batch))).collect()
        };
        markdown(&headings, &self.lines.iter().map(row).collect::<Vec<_>>())
    }
}

/// Rows that belong to a line of a table, by what `key` says of them, in the order in which keys appear.
pub(super) fn groups<'a, T, K: PartialEq>(
    rows: impl IntoIterator<Item = &'a T>,
    key: impl Fn(&'a T) -> K,
) -> Vec<(K, Vec<&'a T>)> {
    let mut groups: Vec<(K, Vec<&'a T>)> = Vec::new();
    for row in rows {
        let of = key(row);
        match groups.iter_mut().find(|(key, _)| *key == of) {
            Some((_, group)) => group.push(row),
            None => groups.push((of, vec![row])),
        }
    }
    groups
}

/// Cells of rows, by batch; rows for which there is none are left out.
pub(super) fn cells<'a>(
    rows: &'a [&'a Row],
    cell: impl Fn(&Row) -> Option<String> + 'a,
) -> impl Iterator<Item = (u32, String)> + 'a {
    rows.iter().filter_map(move |row| cell(row).map(|cell| (row.shape.batch, cell)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_a_cell_for_every_batch_of_the_table() {
        let mut table = Table::new(&["state", ""]);
        table.line(&["f32", "us"], [(1, us(3.333)), (256, us(265.114))]);
        table.line(&["f32", "none"], []);
        table.line(&["bf16", "us"], [(256, us(99.999))]);
        let want = "| state |  | 1 | 256 |\n|---|---|---|---|\n| f32 | us | 3.33 | 265.1 |\n| bf16 | us |  | 100.0 |\n";
        assert_eq!(table.text(), want);
        assert!(table.at(&[1, 2]).starts_with("| state |  | 1 |\n"));
    }

    #[test]
    fn a_table_without_rows_is_a_sentence() {
        assert_eq!(Table::new(&["state"]).text(), NOTHING);
    }

    #[test]
    fn groups_keep_their_order() {
        let numbers = [3, 1, 13, 21, 2];
        let groups = groups(&numbers, |n| n % 10);
        assert_eq!(groups, [(3, vec![&3, &13]), (1, vec![&1, &21]), (2, vec![&2])]);
    }
}
