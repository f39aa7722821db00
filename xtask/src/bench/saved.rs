//! Files that `--json` or the peers' benchmark wrote.

use super::chained::Chained;
use super::layer::Layer;
use super::load;
use super::row::Row;
use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// What plots and the page of results need of such a file.
#[derive(Debug, Deserialize)]
pub(super) struct Saved {
    /// The card.
    pub(super) device: String,
    /// Its driver.
    #[serde(default)]
    pub(super) driver: Option<String>,
    /// The day.
    #[serde(default)]
    pub(super) date: Option<String>,
    /// Its rows.
    pub(super) rows: Vec<Row>,
    /// Of `--chained`.
    #[serde(default)]
    pub(super) chained: Vec<Chained>,
    /// Of `--layer`.
    #[serde(default)]
    pub(super) layer: Vec<Layer>,
    #[serde(default)]
    load_ms: Option<LoadMs>,
    /// Of `--host`.
    #[serde(default)]
    pub(super) host_launch_us: Option<HostLaunch>,
}

/// `load_ms`: by module with `--load`, else of all modules together.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum LoadMs {
    /// Of all modules of the run, loaded as they are by default.
    #[expect(dead_code, reason = "a page shows times by module only")]
    Together(f64),
    ByModule(BTreeMap<String, load::Times>),
}

/// What a launch costs the host, in microseconds.
#[derive(Debug, Deserialize)]
pub(super) struct HostLaunch {
    /// A plain launch.
    #[serde(flatten)]
    pub(super) plain: HostTimes,
    /// An early one, where the device can.
    #[serde(default)]
    pub(super) early: Option<HostTimes>,
    /// Replayed as a graph of its own.
    pub(super) graph: HostTimes,
    /// Of a kernel that does nothing.
    pub(super) nothing: HostTimes,
}

/// Of one way to launch.
#[derive(Debug, Deserialize)]
pub(super) struct HostTimes {
    /// In the median of the bursts.
    pub(super) median: f64,
    /// Until the burst has run, for each launch.
    pub(super) done: f64,
    /// The driver's part of the median.
    #[serde(default)]
    pub(super) driver: Option<f64>,
}

impl Saved {
    /// Reads a file.
    ///
    /// # Errors
    /// A file that cannot be read or holds something else; it is named.
    pub(super) fn read(path: &Path) -> Result<Saved> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} holds no benchmark rows", path.display()))
    }

    /// Load times by module; empty where they were not measured one by one.
    pub(super) fn load(&self) -> impl Iterator<Item = (&String, &load::Times)> {
        let by_module = match &self.load_ms {
            Some(LoadMs::ByModule(times)) => Some(times),
            _ => None,
        };
        by_module.into_iter().flatten()
    }

    /// The peers' rows, measured on `device`.
    ///
    /// # Errors
    /// As [`Self::read`]; and rows of another card.
    pub(super) fn peers(path: &Path, device: &str) -> Result<Vec<Row>> {
        let saved = Saved::read(path)?;
        let other = &saved.device;
        ensure!(other == device, "--peers {}: its card is {other}, ours {device}", path.display());
        Ok(saved.rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn committed(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/benchmarks").join(name)
    }

    #[test]
    fn committed_results_are_read() {
        let ours = Saved::read(&committed("h100.json")).unwrap();
        let known = ["gdn", "rmw_gdn", "rmw_slots_gdn", "copy_gdn"];
        assert!(ours.rows.iter().all(|row| known.contains(&row.implementation.as_str()) && row.us > 0.0));
        let peers = Saved::peers(&committed("h100-peers.json"), &ours.device).unwrap();
        let decode = ours.rows.iter().find(|r| r.shape.op == "decode" && r.shape.batch == 1).unwrap();
        assert!(decode.ratio_to_best(&peers).unwrap() > 0.5);
        let error = Saved::peers(&committed("h100-peers.json"), "NVIDIA H200").unwrap_err().to_string();
        assert!(error.contains("its card is NVIDIA H100 80GB HBM3, ours NVIDIA H200"), "{error}");
    }

    #[test]
    fn what_is_written_is_read_back() {
        let rows = Saved::read(&committed("h100.json")).unwrap().rows;
        let row = Row { early: true, share_of_roof: Some(0.9), ..rows[0].clone() };
        let text = serde_json::to_string(&row).unwrap();
        assert_eq!(serde_json::from_str::<Row>(&text).unwrap(), row);
    }

    #[test]
    fn other_files_are_named() {
        let missing = Saved::read(Path::new("no/such.json")).unwrap_err().to_string();
        assert_eq!(missing, "cannot read no/such.json");
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        assert!(Saved::read(&manifest).unwrap_err().to_string().ends_with("holds no benchmark rows"));
    }
}
