//! Results of `python/benchmarks`: what a call from Python costs the host, and tokens a second of a model of transformers.

use super::tables::{markdown, us};
use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::Path;

#[derive(Deserialize)]
struct Saved<R> {
    card: Machine,
    versions: BTreeMap<String, String>,
    rows: Vec<R>,
}

#[derive(Deserialize)]
struct Machine {
    name: String,
    driver: String,
}

#[derive(Deserialize)]
struct Call {
    name: String,
    us: f64,
    captured_us: Option<f64>,
}

#[derive(Deserialize)]
struct Tokens {
    dtype: String,
    batch: u32,
    unpatched: f64,
    patched: f64,
}

fn read<R: DeserializeOwned>(folder: &Path, card: &str, what: &str) -> Result<Saved<R>> {
    let path = folder.join(format!("{card}-python-{what}.json"));
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no such result", path.display()))
}

impl<R> Saved<R> {
    /// What ran, as a line over a table.
    fn heading(&self) -> String {
        let Machine { name, driver } = &self.card;
        let versions: Vec<String> =
            self.versions.iter().map(|(package, version)| format!("{package} {version}")).collect();
        format!("{name}, driver {driver}; {}.\n\n", versions.join(", "))
    }
}

/// Microseconds of the host for each launch, and in a captured graph.
pub(super) fn host(folder: &Path, card: &str) -> Result<String> {
    let saved: Saved<Call> = read(folder, card, "host")?;
    let row =
        |call: &Call| vec![call.name.clone(), us(call.us), call.captured_us.map_or_else(String::new, us)];
    let rows: Vec<_> = saved.rows.iter().map(row).collect();
    let headings = ["a call from Python", "host, us", "in a captured graph, us"].map(str::to_owned);
    Ok(saved.heading() + &markdown(&headings, &rows))
}

/// Tokens a second of a model, patched and not.
pub(super) fn tokens(folder: &Path, card: &str) -> Result<String> {
    let saved: Saved<Tokens> = read(folder, card, "tokens")?;
    let row = |Tokens { dtype, batch, unpatched, patched }: &Tokens| {
        let ratio = format!("{:.2}", patched / unpatched);
        vec![dtype.clone(), batch.to_string(), format!("{unpatched:.1}"), format!("{patched:.1}"), ratio]
    };
    let rows: Vec<_> = saved.rows.iter().map(row).collect();
    let headings =
        ["type", "sequences", "unpatched, tokens/s", "patched, tokens/s", "times"].map(str::to_owned);
    Ok(saved.heading() + &markdown(&headings, &rows))
}
