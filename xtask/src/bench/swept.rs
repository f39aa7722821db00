//! Files of sweeps, which `--sweep --json` wrote.

use super::args::parse_spec;
use super::ops::Spec;
use super::row::Shape;
use anyhow::{Context as _, Result, ensure};
use gdn_host::Caps;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// What choices follow from, of the card that was measured.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct Card {
    sms: u32,
    compute: u32,
    memory_gbps: u32,
}

impl From<&Caps> for Card {
    fn from(caps: &Caps) -> Card {
        let Caps { sms, compute, memory_gbps } = *caps;
        Card { sms, compute, memory_gbps }
    }
}

/// The times of every tile of some shapes.
pub struct Swept {
    /// The card.
    pub device: String,
    /// What choices follow from.
    pub caps: Caps,
    /// Each shape, with microseconds by the tile's name.
    pub shapes: Vec<(Spec, BTreeMap<String, f64>)>,
}

#[derive(Deserialize)]
struct File {
    device: String,
    caps: Card,
    sweeps: Vec<Sweep>,
}

#[derive(Deserialize)]
struct Sweep {
    chosen: Timed,
    tiles: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
struct Timed {
    #[serde(flatten)]
    shape: Shape,
    tokens: u32,
}

impl Swept {
    /// Reads a file.
    ///
    /// # Errors
    /// A file that cannot be read or holds something else; it is named.
    pub fn read(path: &Path) -> Result<Swept> {
        let what = || path.display().to_string();
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", what()))?;
        let file: File = serde_json::from_str(&text).with_context(|| {
            format!("{} holds no sweeps: `xtask bench --sweep --json` writes some", what())
        })?;
        let shapes = file.sweeps.into_iter().map(|Sweep { chosen: Timed { shape, tokens }, tiles }| {
            ensure!(!tiles.is_empty(), "a shape without a tile");
            for (tile, us) in &tiles {
                ensure!(us.is_finite() && *us > 0.0, "{tile}: a time of {us} us");
            }
            Ok((parse_spec(&shape, tokens)?, tiles))
        });
        let shapes = shapes.collect::<Result<Vec<_>>>().with_context(what)?;
        ensure!(!shapes.is_empty(), "{}: no sweep", what());
        let Card { sms, compute, memory_gbps } = file.caps;
        Ok(Swept { device: file.device, caps: Caps { sms, compute, memory_gbps }, shapes })
    }
}
