//! Sweeps that `xtask bench --sweep --json` wrote, as points to fit.

use super::Classes;
use super::fit::Point;
use super::table::{Measured, Tile};
use crate::bench::{Shape, parse_spec};
use anyhow::{Context as _, Result, ensure};
use gdn_host::Caps;
use gdn_host::plan::{Class, Load, height_and_teams};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

#[derive(Deserialize)]
struct File {
    device: String,
    sweeps: Vec<Sweep>,
}

#[derive(Deserialize)]
struct Sweep {
    chosen: Timed,
    /// Microseconds by the tile's name.
    tiles: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
struct Timed {
    #[serde(flatten)]
    shape: Shape,
    tokens: u32,
}

/// The device of a file and what was measured of each class.
///
/// # Errors
/// A file that cannot be read or holds something else; it is named.
pub fn read(path: &Path, caps: &Caps) -> Result<(String, Classes)> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let file: File = serde_json::from_str(&text).with_context(|| {
        format!("{} holds no sweeps: `xtask bench --sweep --json` writes some", path.display())
    })?;
    let mut classes = BTreeMap::new();
    for Sweep { chosen: Timed { shape, tokens }, tiles } in file.sweeps {
        let spec = parse_spec(&shape, tokens)?;
        let job = spec.job();
        let class = Class::of(&job);
        let us = tiles.into_iter().map(|(name, us)| {
            let (rows, warps) = rows_and_warps(&name)?;
            let tile = height_and_teams(job.module, rows, warps);
            Ok((tile.with_context(|| format!("there is no tile {name} any more"))?, us))
        });
        let us = us.collect::<Result<BTreeMap<Tile, f64>>>().with_context(|| path.display().to_string())?;
        ensure!(
            us.values().all(|us| us.is_finite() && *us > 0.0),
            "{}: a time is not positive",
            path.display()
        );
        let point = Point { load: Load::of(&job, caps.sms), us };
        let (_, measured): &mut (Class, Measured) =
            classes.entry(class_name(class)).or_insert_with(|| (class, Measured::default()));
        measured.tiles.push((spec.name(), point));
    }
    Ok((file.device, classes))
}

/// In the order in which classes stand in tables.
pub fn class_name(class: Class) -> String {
    let place = Class::all().position(|of| of == class).unwrap_or(usize::MAX);
    format!("{place:02}")
}

/// Of `BV 64 (8x4)`.
fn rows_and_warps(name: &str) -> Result<(u32, u32)> {
    let numbers = name.split(['(', ')']).nth(1).and_then(|inner| inner.split_once('x'));
    let parsed = numbers.and_then(|(rows, warps)| Some((rows.parse().ok()?, warps.parse().ok()?)));
    parsed.with_context(|| format!("`{name}` is no tile, as BV 64 (8x4) is one"))
}
