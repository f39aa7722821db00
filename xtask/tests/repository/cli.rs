//! The command line: what is unknown is answered with what there is.

use super::root;
use std::process::{Command, Output};

fn xtask(arguments: &[&str]) -> (Output, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    let output = command.args(arguments).current_dir(root()).env("NO_COLOR", "1").output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, error) = (text(&output.stdout), text(&output.stderr));
    (output, out, error)
}

#[test]
fn nothing_and_the_unknown_get_help() {
    let (output, _, error) = xtask(&[]);
    assert!(!output.status.success());
    for command in ["demo", "test", "parity", "build-kernels", "bench", "tune", "dist", "doctor"] {
        assert!(error.contains(&format!("\n  {command} ")), "{command}: {error}");
    }
    let (output, _, error) = xtask(&["demmo"]);
    assert!(!output.status.success() && error.contains("a similar subcommand exists: 'demo'"), "{error}");
}

#[test]
fn parity_says_which_devices_and_operations_there_are() {
    let (output, _, error) = xtask(&["parity", "--device", "gpux"]);
    assert!(!output.status.success() && error.contains("possible values: sim, gpu"), "{error}");
    let (output, _, error) = xtask(&["parity", "--op", "decod"]);
    assert!(!output.status.success(), "{error}");
    assert!(
        error.contains("--op decod") && error.contains("decode_sigmoid_gating, fla_kv_layout"),
        "{error}"
    );
    let (output, _, error) = xtask(&["parity", "--record"]);
    assert!(!output.status.success() && error.contains("--device gpu"), "{error}");
}

#[test]
fn soak_says_its_seed_and_what_it_did() {
    let (output, out, error) = xtask(&["soak", "--steps", "40", "--seed", "5"]);
    assert!(output.status.success(), "{error}");
    assert_eq!(out.lines().next(), Some("simulator, seed 5"));
    assert!(out.contains("rejected tokens") && out.contains("every state that was looked at"), "{out}");
    let (output, _, error) = xtask(&["soak", "--check-one-in", "0"]);
    assert!(!output.status.success() && error.contains("--check-one-in is 0"), "{error}");
}

/// A table that a terminal of 100 columns shows without breaking lines, with a verdict at the end.
#[test]
fn a_table_fits_100_columns() {
    let (output, out, error) = xtask(&["parity", "--op", "recurrent_fwd"]);
    assert!(output.status.success(), "{error}");
    assert_eq!(out.lines().last(), Some("2 passed, 0 failed"));
    for line in out.lines() {
        assert!(line.chars().count() <= 100 && !line.contains('\u{1b}'), "{line}");
        assert!(!line.contains("n/a") && !line.contains(" - "), "{line}");
    }
}

/// One unreadable file is a row of the table and costs the exit status, nothing else.
#[test]
fn an_unreadable_file_is_a_row() {
    let folder = std::env::temp_dir().join(format!("gdn-cli-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let good = root().join("tests/golden/gated_rmsnorm__silu.safetensors");
    std::fs::copy(good, folder.join("a.safetensors")).unwrap();
    std::fs::write(folder.join("b.safetensors"), "no case").unwrap();
    let cases = folder.to_str().unwrap();
    for command in ["parity", "demo"] {
        let (output, out, error) = xtask(&[command, "--cases", cases]);
        assert_eq!(output.status.code(), Some(1), "{command}: {error}");
        assert!(out.contains("it is no whole safetensors file"), "{command}: {out}");
        assert!(out.contains("1 passed, 1 failed") || out.contains("1 of 2 match"), "{command}: {out}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
