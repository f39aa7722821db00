//! How long modules take to load: machine code, PTX that is JIT-compiled anew, and PTX from the driver's cache.
//!
//! The driver reads `CUDA_CACHE_DISABLE` once, before it starts, so each measurement is a process of its own: this
//! program with `--load-only`. There context and JIT compiler have been used before the first module is timed.

use super::ops::Spec;
use super::probe::Probe;
use super::{modules, report::say};
use anyhow::{Context as _, Result, ensure};
use gdn_host::driver::Context;
use gdn_host::{Code, Gdn, LoadError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::process::Command;
use std::time::Instant;

/// What a process loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Loads {
    /// Machine code, of the modules that have some that GPU and driver take.
    Binary,
    /// PTX.
    Ptx,
}

/// Milliseconds of a module.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Times {
    /// Machine code; the driver's cache is off. `None` if there is none that GPU and driver take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) binary: Option<f64>,
    /// PTX, JIT-compiled: the driver's cache is off.
    pub(super) cold: f64,
    /// PTX, from the driver's cache.
    pub(super) warm: f64,
}

/// Milliseconds by module.
type ByModule = BTreeMap<String, f64>;

/// Times each module alone and prints JSON: the process that [`measure`] starts.
pub(super) fn only(specs: &[Spec], loads: Loads) -> Result<()> {
    let context = Context::primary(0).context("no GPU to load on")?;
    let _started = Probe::nothing(&context)?;
    let mut times = ByModule::new();
    for key in modules(specs) {
        let code = match loads {
            Loads::Binary => Code::Binary,
            Loads::Ptx => Code::Ptx { most: None },
        };
        let start = Instant::now();
        let loaded = Gdn::load_code(&[key], code);
        let ms = start.elapsed().as_secs_f64() * 1e3;
        match loaded {
            Err(LoadError::NoBinary { .. }) => continue,
            Err(LoadError::Driver { source, .. }) if code == Code::Binary && source.refuses_image() => {
                continue;
            }
            loaded => drop(loaded?),
        }
        times.insert(key.to_string(), ms);
    }
    say!("{}", serde_json::to_string(&times)?);
    Ok(())
}

/// Runs this command line again with `--load-only`: machine code and PTX with the cache off, PTX to fill it, and PTX
/// with it filled.
pub(super) fn measure() -> Result<BTreeMap<String, Times>> {
    let (binary, cold) = (child("binary", "1")?, child("ptx", "1")?);
    child("ptx", "0")?;
    Ok(join(&binary, cold, &child("ptx", "0")?))
}

/// The times of a process that loads such files and in which `CUDA_CACHE_DISABLE` is so.
fn child(loads: &str, cache_disable: &str) -> Result<ByModule> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1)).args(["--load-only", loads]);
    command.env("CUDA_CACHE_DISABLE", cache_disable);
    let output = command.output().context("--load: cannot start this program again")?;
    let log = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "--load: the process that loads failed\n{}", log.trim_end());
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.trim()).with_context(|| format!("--load: unexpected output {text:?}"))
}

fn join(binary: &ByModule, cold: ByModule, warm: &ByModule) -> BTreeMap<String, Times> {
    let all = |(module, cold): (String, f64)| {
        let (binary, warm) = (binary.get(&module).copied(), warm.get(&module).copied()?);
        Some((module, Times { binary, cold, warm }))
    };
    cold.into_iter().filter_map(all).collect()
}

/// A line a module.
pub(super) fn print(times: &BTreeMap<String, Times>) {
    for (module, Times { binary, cold, warm }) in times {
        let binary = binary.map_or_else(|| "no binary".into(), |ms| format!("binary {ms:.1} ms"));
        say!(
            "load {module}: {binary}, PTX {cold:.1} ms with the driver's cache off, {warm:.1} ms with it warm"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_together_by_module() {
        let times = |list: &[(&str, f64)]| list.iter().map(|(m, t)| ((*m).to_owned(), *t)).collect();
        let (cold, warm) = (times(&[("decode", 147.0), ("lost", 1.0)]), times(&[("decode", 1.5)]));
        let json = |binary| serde_json::to_value(join(&times(binary), cold.clone(), &warm)).unwrap();
        let expected = serde_json::json!({ "decode": { "binary": 0.75, "cold": 147.0, "warm": 1.5 } });
        assert_eq!(json(&[("decode", 0.75)]), expected);
        assert_eq!(json(&[]), serde_json::json!({ "decode": { "cold": 147.0, "warm": 1.5 } }));
    }
}
