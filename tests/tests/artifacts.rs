//! The committed artifacts: embedded PTX, manifest, table of kernels and the record of what was proven on
//! GPUs agree with each other.

use gdn_host::ModuleKey;
use gdn_host::artifact::{self, EmbeddedModule};
use gdn_kernels::{Columns, KERNELS};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const TARGETS: [u32; 2] = [80, 90];
const GPUS: [&str; 6] = ["sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"];

fn manifest() -> Value {
    serde_json::from_str(artifact::manifest()).unwrap()
}

fn file_name(module: &EmbeddedModule) -> String {
    format!("{}.sm_{}.ptx", module.name, module.arch)
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn every_kernel_of_the_table_is_embedded_for_every_target() {
    for target in TARGETS {
        let modules = artifact::modules().iter().filter(|m| m.arch == target);
        let embedded: Vec<_> = modules.flat_map(|m| m.entries.iter().map(move |e| (m, e))).collect();
        assert_eq!(embedded.len(), KERNELS.len(), "sm_{target}");
        for kernel in KERNELS {
            let found = embedded.iter().find(|(_, e)| e.name.to_str() == Ok(kernel.name));
            let (module, entry) = found.unwrap_or_else(|| panic!("{} is missing", kernel.name));
            let Columns { state, io, k, rows } = kernel.columns;
            assert_eq!(module.key, ModuleKey { op: kernel.op, state, io, k }, "{}", kernel.name);
            assert_eq!(entry.rows, rows, "{}", kernel.name);
            assert_eq!(entry.max_threads, kernel.max_threads, "{}", kernel.name);
            assert_eq!(entry.params_size as usize, kernel.params_size, "{}", kernel.name);
        }
    }
}

#[test]
fn embedded_text_is_the_one_that_was_hashed() {
    let manifest = manifest();
    let recorded = manifest["modules"].as_array().unwrap();
    assert_eq!(recorded.len(), artifact::modules().len());
    for module in artifact::modules() {
        assert!(module.is_intact(), "{}", file_name(module));
        let record = recorded.iter().find(|r| r["file"] == file_name(module).as_str()).unwrap();
        assert_eq!(record["sha256"], module.sha256, "{}", file_name(module));
        assert!(module.text().to_bytes().starts_with(b"//"), "the text is cut short");
    }
}

#[test]
fn nothing_of_weight_spills_on_any_gpu() {
    let manifest = manifest();
    for module in manifest["modules"].as_array().unwrap() {
        let target: u32 = module["arch"].as_str().unwrap()[3..].parse().unwrap();
        for entry in module["entries"].as_array().unwrap() {
            for gpu in GPUS.iter().filter(|gpu| gpu[3..].parse::<u32>().unwrap() >= target) {
                let resources = &entry["resources"][*gpu];
                assert!(resources["registers"].as_u64().unwrap() <= 255, "{} on {gpu}", entry["name"]);
                assert_eq!(resources["spill_bytes"], 0, "{} on {gpu}", entry["name"]);
                assert!(resources["stack_bytes"].as_u64().unwrap() <= 8, "{} on {gpu}", entry["name"]);
            }
        }
    }
}

#[test]
fn device_gets_the_highest_target_it_runs() {
    let key = artifact::modules()[0].key;
    let target = |compute| artifact::select(key, compute).map(|m| m.arch);
    assert_eq!([80, 86, 89, 90, 100, 120].map(target), [80, 80, 80, 90, 90, 90].map(Some));
    assert_eq!(target(75), None);
}

/// Every module in `docs/evidence` has today's hash: the PTX that is shipped is the PTX that was proven.
#[test]
fn committed_ptx_is_what_was_proven_on_a_gpu() {
    let folder = repository().join("docs/evidence");
    let records: Vec<Value> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| serde_json::from_slice(&std::fs::read(entry.unwrap().path()).unwrap()).unwrap())
        .collect();
    let proven = |record: &&Value| {
        let hash = |m: &EmbeddedModule| record["ptx_sha256"][file_name(m)] == m.sha256;
        artifact::modules().iter().all(hash)
    };
    let record = records.iter().find(proven).expect(
        "no record in docs/evidence is of this PTX: run `cargo xtask parity --device gpu --record` on a GPU",
    );
    let cases = record["cases"].as_array().unwrap();
    assert!(cases.iter().all(|case| case["pass"] == true), "a recorded case failed");
    // Everything that must be proven was run, with the PTX of every target.
    let names: BTreeSet<&str> = cases.iter().map(|case| case["file"].as_str().unwrap()).collect();
    let golden = gdn_tests::case::list(&gdn_tests::golden_dir()).unwrap();
    let golden = golden.iter().map(|file| file.file_name().unwrap().to_string_lossy().into_owned());
    let hazards = gdn_tests::hazards::ALL.iter().map(|(name, _)| name.to_string());
    for name in golden.chain(hazards) {
        for target in TARGETS {
            let name = format!("sm_{target}: {name}");
            assert!(names.contains(name.as_str()), "{name} was not run");
        }
    }
    for field in ["device", "date", "driver"] {
        assert!(!record[field].is_null(), "the record has no {field}");
    }
}
