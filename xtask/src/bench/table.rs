//! Rows as a table.

use super::report;
use super::row::{GDN, Row};

/// A column: its heading, and a row's cell.
type Column = (&'static str, fn(&Row) -> String);

const COLUMNS: [Column; 10] = [
    ("op", |r| r.shape.op.to_string()),
    ("heads", |r| r.shape.heads()),
    ("state", |r| r.shape.state.to_string()),
    ("layout", |r| r.shape.layout.to_string()),
    ("batch", |r| r.shape.batch.to_string()),
    ("tokens", |r| r.tokens.to_string()),
    ("tile", |r| r.tile.clone()),
    ("us", |r| format!("{:.2}", r.us)),
    ("range", |r| match (r.us_min, r.us_max) {
        (Some(min), Some(max)) => format!("{min:.2}..{max:.2}"),
        _ => String::new(),
    }),
    ("GB/s", |r| format!("{:.0}", r.gbps)),
];

/// Shown where a row has something to say in it.
const IMPLEMENTATION: Column = ("kernel", |r| r.implementation.clone());
const EARLY: Column = ("launch", |r| if r.early { "early".into() } else { "plain".into() });
const SHARE: Column = ("of roof", |r| percent(r.share_of_roof));
const SLOTS_SHARE: Column = ("by slot", |r| percent(r.share_of_slots_roof));
const COPY_SHARE: Column = ("of copy", |r| percent(r.share_of_copy));

fn percent(share: Option<f64>) -> String {
    share.map_or_else(String::new, |share| format!("{:.0} %", share * 100.0))
}

/// The columns that some rows need.
fn columns(rows: &[Row]) -> Vec<Column> {
    let mut columns = COLUMNS.to_vec();
    if rows.iter().any(|r| r.implementation != GDN) {
        columns.insert(1, IMPLEMENTATION);
    }
    if rows.iter().any(|r| r.early) {
        columns.push(EARLY);
    }
    if rows.iter().any(|r| r.share_of_roof.is_some()) {
        columns.push(SHARE);
    }
    if rows.iter().any(|r| r.share_of_slots_roof.is_some()) {
        columns.push(SLOTS_SHARE);
    }
    if rows.iter().any(|r| r.share_of_copy.is_some()) {
        columns.push(COPY_SHARE);
    }
    columns
}

/// Prints rows, if there are any.
pub(super) fn print(rows: &[Row]) {
    if rows.is_empty() {
        return;
    }
    let columns = columns(rows);
    let headings: Vec<&str> = columns.iter().map(|(heading, _)| *heading).collect();
    let cells = rows.iter().map(|row| columns.iter().map(|(_, cell)| cell(row)).collect());
    report::wide_table(&headings, cells.collect());
}

#[cfg(test)]
mod tests {
    use super::super::ops::{Op, Spec};
    use super::super::row::RMW;
    use super::*;
    use gdn_host::{DType, HeadShape, Layout};

    #[test]
    fn columns_appear_with_what_they_show() {
        let shape = HeadShape::new(16, 32, 128, 128).unwrap();
        let spec = Spec::new(Op::Decode, shape, DType::F32, Layout::Vk, 1, 1);
        let plain = Row::new(&spec, GDN, &[10.0], 1, 1);
        let headings = |rows: &[Row]| columns(rows).iter().map(|(heading, _)| *heading).collect::<Vec<_>>();
        assert_eq!(headings(std::slice::from_ref(&plain)).len(), COLUMNS.len());
        let early = Row { early: true, share_of_roof: Some(0.9), ..plain.clone() };
        let slots = Row { share_of_slots_roof: Some(0.9), ..plain.clone() };
        let copy = Row { share_of_copy: Some(0.9), ..plain.clone() };
        let roof = Row { implementation: RMW.into(), ..plain };
        let all = headings(&[early, slots, copy, roof]);
        assert_eq!((all[1], &all[11..]), ("kernel", ["launch", "of roof", "by slot", "of copy"].as_slice()));
    }
}
