//! How long modules take to load, JIT-compiled anew and from the driver's cache.
//!
//! The driver reads `CUDA_CACHE_DISABLE` once, before it starts, so each measurement is a process of its own: this
//! program with `--load-only`. There context and JIT compiler have been used before the first module is timed.

use super::ops::Spec;
use super::probe::Probe;
use super::{modules, report::say};
use anyhow::{Context as _, Result, ensure};
use gdn_host::Gdn;
use gdn_host::driver::Context;
use serde::Serialize;
use std::collections::BTreeMap;
use std::process::Command;
use std::time::Instant;

/// Milliseconds of a module.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Times {
    /// JIT-compiled: the driver's cache is off.
    cold: f64,
    /// From the driver's cache.
    warm: f64,
}

/// Milliseconds by module.
type ByModule = BTreeMap<String, f64>;

/// Times each module alone and prints JSON: the process that [`measure`] starts.
pub(super) fn only(specs: &[Spec]) -> Result<()> {
    let context = Context::primary(0).context("no GPU to load on")?;
    let _started = Probe::nothing(&context)?;
    let mut times = ByModule::new();
    for key in modules(specs) {
        let start = Instant::now();
        let _loaded = Gdn::load(&[key])?;
        times.insert(key.to_string(), start.elapsed().as_secs_f64() * 1e3);
    }
    say!("{}", serde_json::to_string(&times)?);
    Ok(())
}

/// Runs this command line once more with `--load-only`: with the cache off, to fill it, and with it filled.
pub(super) fn measure() -> Result<BTreeMap<String, Times>> {
    let cold = child("1")?;
    child("0")?;
    Ok(join(cold, &child("0")?))
}

/// The times of a process in which `CUDA_CACHE_DISABLE` is so.
fn child(cache_disable: &str) -> Result<ByModule> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1)).arg("--load-only").env("CUDA_CACHE_DISABLE", cache_disable);
    let output = command.output().context("--load: cannot start this program again")?;
    let log = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "--load: the process that loads failed\n{}", log.trim_end());
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.trim()).with_context(|| format!("--load: unexpected output {text:?}"))
}

fn join(cold: ByModule, warm: &ByModule) -> BTreeMap<String, Times> {
    let both = |(module, cold): (String, f64)| {
        let warm = warm.get(&module).copied()?;
        Some((module, Times { cold, warm }))
    };
    cold.into_iter().filter_map(both).collect()
}

/// A line a module.
pub(super) fn print(times: &BTreeMap<String, Times>) {
    for (module, Times { cold, warm }) in times {
        say!("load {module}: {cold:.1} ms with the driver's cache off, {warm:.1} ms with it warm");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cold_and_warm_come_together_by_module() {
        let times = |list: &[(&str, f64)]| list.iter().map(|(m, t)| ((*m).to_owned(), *t)).collect();
        let joined = join(times(&[("decode", 147.0), ("lost", 1.0)]), &times(&[("decode", 1.5)]));
        let json = serde_json::to_value(joined).unwrap();
        assert_eq!(json, serde_json::json!({ "decode": { "cold": 147.0, "warm": 1.5 } }));
    }
}
