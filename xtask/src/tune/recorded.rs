//! Sweeps that `xtask bench --sweep --json` wrote, as points to fit.

use super::fit::Point;
use super::table::Tile;
use super::{Classes, Measurement};
use crate::bench::{Spec, Swept};
use anyhow::{Context as _, Result, ensure};
use gdn_host::Caps;
use gdn_host::plan::{Class, Load, height_and_teams};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What files of one card say of the shapes that count.
///
/// # Errors
/// A file that cannot be read, holds something else, or is of another card; it is named.
pub fn read(paths: &[PathBuf], counts: impl Fn(&Spec) -> bool) -> Result<Measurement> {
    let mut card: Option<(String, Caps)> = None;
    let (mut classes, mut names) = (Classes::new(), Vec::new());
    for path in paths {
        let what = || format!("--from {}", path.display());
        let Swept { device, caps, shapes } = Swept::read(path)?;
        let (of, _) = card.get_or_insert_with(|| (device.clone(), caps));
        ensure!(*of == device, "{}: its card is {device}, the first file's {of}", what());
        for (spec, tiles) in shapes.iter().filter(|(spec, _)| counts(spec)) {
            let point =
                Point { load: Load::of(&spec.job(), caps.sms), us: by_tile(spec, tiles).with_context(what)? };
            classes.entry(Class::of(&spec.job())).or_default().tiles.push((spec.name(), point));
        }
        names.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
    }
    let (device, caps) = card.context("--from: no file")?;
    ensure!(!classes.is_empty(), "--from: no sweep of --ops and --layouts");
    let shapes: usize = classes.values().map(|measured| measured.tiles.len()).sum();
    Ok(Measurement { device, caps, classes, source: format!("{shapes} shapes of {}", names.join(", ")) })
}

/// Microseconds by tile, as steps name them.
fn by_tile(spec: &Spec, tiles: &BTreeMap<String, f64>) -> Result<BTreeMap<Tile, f64>> {
    let us = tiles.iter().map(|(name, us)| {
        let (rows, warps) = rows_and_warps(name)?;
        let tile = height_and_teams(spec.module(), rows, warps);
        Ok((tile.with_context(|| format!("there is no tile {name} any more"))?, *us))
    });
    us.collect()
}

/// Of `BV 64 (8x4)`.
fn rows_and_warps(name: &str) -> Result<(u32, u32)> {
    let numbers = name.split(['(', ')']).nth(1).and_then(|inner| inner.split_once('x'));
    let parsed = numbers.and_then(|(rows, warps)| Some((rows.parse().ok()?, warps.parse().ok()?)));
    parsed.with_context(|| format!("`{name}` is no tile, as BV 64 (8x4) is one"))
}
