//! The committed artifacts: embedded PTX and machine code, manifest, table of kernels and the record of what was
//! proven on GPUs agree with each other.

use gdn_host::artifact::{self, EmbeddedBinary, EmbeddedModule, Files};
use gdn_host::{ModuleKey, all_modules};
use gdn_kernels::{Columns, KERNELS};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const TARGETS: [u32; 2] = [80, 90];

fn manifest() -> Value {
    serde_json::from_str(artifact::manifest()).unwrap()
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
            let key = ModuleKey::of_section(kernel.op, state, io, k);
            assert_eq!(Some(module.key), key, "{}", kernel.name);
            assert_eq!(entry.rows, rows, "{}", kernel.name);
            assert_eq!(entry.max_threads, kernel.max_threads, "{}", kernel.name);
            assert_eq!(entry.params_size as usize, kernel.params_size, "{}", kernel.name);
        }
    }
}

/// Each entry costs build time, size of programs and load time, so what is there has a limit: kernels with records one of their own.
#[test]
fn entries_are_kept_in_check() {
    let with_records = KERNELS.iter().filter(|kernel| kernel.name.contains("_replay_")).count();
    let others = KERNELS.len() - with_records;
    assert!(others <= 240, "{others} entries without records");
    assert!(with_records <= 64, "{with_records} entries with records");
}

#[test]
fn embedded_text_is_the_one_that_was_hashed() {
    let manifest = manifest();
    let recorded = manifest["modules"].as_array().unwrap();
    assert_eq!(recorded.len(), artifact::modules().len());
    for module in artifact::modules() {
        assert_eq!(module.file, format!("{}.sm_{}.ptx", module.name, module.arch));
        let record = recorded.iter().find(|r| r["file"] == module.file).unwrap();
        assert_eq!(record["sha256"], module.sha256, "{}", module.file);
        let ptx = module.contents(None, Files::Embedded).unwrap();
        assert_eq!(ptx.text().to_bytes(), ptx.bytes(), "{} has a NUL", module.file);
        assert!(ptx.bytes().starts_with(b"//"), "{} is cut short", module.file);
    }
}

#[test]
fn embedded_binary_is_the_one_that_was_hashed() {
    let manifest = manifest();
    let recorded = manifest["modules"].as_array().unwrap();
    for module in artifact::modules() {
        let record = recorded.iter().find(|r| r["file"] == module.file).unwrap();
        let expected = module.binaries.iter().map(|binary| {
            json!({ "file": binary.file, "gpu": format!("sm_{}", binary.gpu), "sha256": binary.sha256 })
        });
        assert_eq!(record["binaries"], Value::Array(expected.collect()), "{}", module.file);
        for binary in module.binaries {
            assert_eq!(binary.file, format!("{}.sm_{}.cubin", module.name, binary.gpu));
            let code = module.contents(Some(binary), Files::Embedded).unwrap();
            assert!(code.bytes().starts_with(b"\x7fELF"), "{}", binary.file);
            for entry in module.entries {
                let name = entry.name.to_bytes_with_nul();
                let holds = code.bytes().windows(name.len()).any(|bytes| bytes == name);
                assert!(holds, "{} has no {:?}", binary.file, entry.name);
            }
        }
    }
}

/// The machine code that a device runs, as the compute capability that it was assembled for.
fn binary(key: ModuleKey, compute: u32) -> Option<u32> {
    artifact::select(key, compute)?.binary(compute).map(|binary| binary.gpu)
}

/// Compute capability 9.0 has machine code, other devices have none.
#[test]
fn device_gets_machine_code_of_its_own_major_version() {
    for key in all_modules() {
        assert_eq!([80, 86, 89, 100, 120].map(|compute| binary(key, compute)), [None; 5], "{key}");
        assert!(binary(key, 90).is_none_or(|gpu| gpu == 90), "{key}");
    }
    let sha256 = artifact::sha256_hex(b"");
    let binary = |gpu| EmbeddedBinary { file: "", gpu, sha256: sha256.clone().leak() };
    let (sm_80, sm_86) = (binary(80), binary(86));
    assert_eq!([75, 80, 86, 89, 90].map(|c| sm_80.runs_on(c)), [false, true, true, true, false]);
    assert_eq!([80, 86, 89, 90].map(|c| sm_86.runs_on(c)), [false, true, true, false]);
}

/// A launch starts early only beside a predecessor on the same multiprocessor, which has set apart 32 KB of shared memory if it
/// uses none. All blocks of a small tile in layout KV that fit, one team each, need no more, with the kilobyte each that is the
/// system's.
#[test]
fn small_tiles_in_kv_start_beside_a_kernel_without_shared_memory() {
    let (manifest, mut count, mut unknown) = (manifest(), 0, 0);
    for module in manifest["modules"].as_array().unwrap().iter().filter(|module| module["arch"] == "sm_90") {
        let small = match (module["op"].as_str().unwrap(), module["state"].as_str()) {
            ("decode_kv" | "kda_decode_kv", Some("f32")) => "_k128_r8",
            ("decode_kv" | "kda_decode_kv", _) if module["state"] == module["io"] => "_k128_r16",
            _ => continue,
        };
        let entries = module["entries"].as_array().unwrap().iter();
        for entry in entries.filter(|entry| entry["name"].as_str().unwrap().ends_with(small)) {
            if entry["resources"]["sm_90"].is_null() {
                unknown += 1;
                continue;
            }
            let resource = |name: &str| entry["resources"]["sm_90"][name].as_u64().unwrap();
            let registers = 64 * resource("registers").next_multiple_of(8);
            let blocks = (65_536 / registers).min(32);
            let shared = blocks * (resource("shared_bytes") + 1024);
            assert!(shared <= 32 << 10, "{}: {blocks} blocks, {shared} bytes", entry["name"]);
            count += 1;
        }
    }
    assert_eq!(count + unknown, 10);
}

#[test]
fn device_gets_the_highest_target_it_runs() {
    let key = artifact::modules()[0].key;
    let target = |compute| artifact::select(key, compute).map(|m| m.arch);
    assert_eq!([80, 86, 89, 90, 100, 120].map(target), [80, 80, 80, 90, 90, 90].map(Some));
    assert_eq!(target(75), None);
}

/// What `docs/evidence` holds.
fn records() -> Vec<Value> {
    let folder = repository().join("docs/evidence");
    let files = std::fs::read_dir(folder).unwrap();
    files.map(|file| serde_json::from_slice(&std::fs::read(file.unwrap().path()).unwrap()).unwrap()).collect()
}

/// Everything that must be proven was run with each of the codes, and nothing failed.
fn assert_complete(record: &Value, codes: &[String]) {
    let cases = record["cases"].as_array().unwrap();
    assert!(cases.iter().all(|case| case["pass"] == true), "a recorded case failed");
    let names: BTreeSet<&str> = cases.iter().map(|case| case["file"].as_str().unwrap()).collect();
    let golden = gdn_tests::case::list(&gdn_tests::golden_dir()).unwrap();
    let golden = golden.iter().map(|file| file.file_name().unwrap().to_string_lossy().into_owned());
    let hazards = gdn_tests::hazards::ALL.iter().map(|(name, _)| name.to_string());
    for name in golden.chain(hazards) {
        for code in codes {
            let name = format!("{code}: {name}");
            assert!(names.contains(name.as_str()), "{name} was not run");
        }
    }
    for field in ["device", "date", "driver"] {
        assert!(!record[field].is_null(), "the record has no {field}");
    }
}

// What follows is about a GPU or needs the record of one. A change made without one leaves it open: `cargo xtask test` runs
// these tests by themselves and says so, and `--strict` has them pass.

#[test]
#[ignore = "needs kernels that were assembled: `cargo xtask test` runs it"]
fn every_module_was_assembled() {
    for key in all_modules() {
        assert_eq!(
            binary(key, 90),
            Some(90),
            "no machine code of {key}: run `cargo xtask build-kernels` with ptxas"
        );
    }
    let manifest = manifest();
    for module in manifest["modules"].as_array().unwrap() {
        for entry in module["entries"].as_array().unwrap() {
            assert!(!entry["resources"].is_null(), "{} was never assembled", entry["name"]);
        }
    }
}

const HOW: &str = "run `cargo xtask parity --device gpu --record` on a GPU";

/// A record in `docs/evidence` has the hash of every PTX file: what is shipped is what was proven.
#[test]
#[ignore = "needs the record of a GPU: `cargo xtask test` runs it"]
fn committed_ptx_is_what_was_proven_on_a_gpu() {
    let records = records();
    let proven = |m: &EmbeddedModule, record: &Value| record["ptx_sha256"][m.file] == m.sha256;
    let proves = |record: &&Value| artifact::modules().iter().all(|m| proven(m, record));
    let record = records.iter().find(proves);
    let record = record.unwrap_or_else(|| panic!("no record in docs/evidence is of this PTX: {HOW}"));
    assert_complete(record, &TARGETS.map(|target| format!("sm_{target}")));
}

/// For each GPU whose machine code is embedded a record in `docs/evidence` has the hash of every file of it.
#[test]
#[ignore = "needs the record of a GPU: `cargo xtask test` runs it"]
fn committed_binaries_are_what_was_proven_on_a_gpu() {
    let records = records();
    let binaries: Vec<_> = artifact::modules().iter().flat_map(|m| m.binaries).collect();
    let gpus: BTreeSet<u32> = binaries.iter().map(|binary| binary.gpu).collect();
    for gpu in gpus {
        let proven = |b: &EmbeddedBinary, record: &Value| record["cubin_sha256"][b.file] == b.sha256;
        let of_gpu = || binaries.iter().filter(|binary| binary.gpu == gpu);
        let record = records.iter().find(|record| of_gpu().all(|b| proven(b, record)));
        let record = record
            .unwrap_or_else(|| panic!("no record in docs/evidence is of the binaries for sm_{gpu}: {HOW}"));
        assert_complete(record, &[format!("sm_{gpu} binary")]);
    }
}
