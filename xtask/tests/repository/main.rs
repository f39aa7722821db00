//! What holds of the repository as a whole: its command line, its packages, the licences of what it depends on.

mod cli;
mod licences;
mod packages;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The root of the checkout.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What cargo says to these arguments in the root; `Cargo.lock` stays as it is.
fn cargo(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO"));
    command.args(arguments).arg("--locked").current_dir(root());
    let output = command.output().unwrap();
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}
