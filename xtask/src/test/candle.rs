//! The checks of what is built on candle: gdn-candle, and examples/qwen3 with the recorded models.
//!
//! They are no default members, so that nobody else waits for candle. Both are built in this repository's `target`, which
//! compiles candle once.

use super::cargo;
use super::suite::{Suite, Work};
use std::path::Path;
use std::process::Command;

/// Where the example's manifest is.
const EXAMPLE: &str = "examples/qwen3/Cargo.toml";
/// The recorded models.
const MODELS: &str = "tests/golden/models";

/// Adds the checks.
pub fn add(suite: &mut Suite, root: &Path) {
    suite.add("gdn-candle", Work::Tests(vec!["-p", "gdn-candle"]));
    suite.add(
        "format of examples/qwen3",
        Work::Command(cargo(&["fmt", "--check", "--manifest-path", EXAMPLE])),
    );
    let golden = ["run", "--quiet", "--manifest-path", EXAMPLE, "--", "--golden", MODELS];
    suite.add("whole models on candle", Work::Command(in_target(cargo(&golden), root)));

    let stub = root.join("target/cuda-stub");
    let mut lay_out = Command::new("bash");
    lay_out.arg("gdn-candle/cuda/stub.sh").arg(&stub);
    suite.add("a CUDA toolkit that compiles nothing", Work::Command(lay_out));
    let flags = ["--all-targets", "--features", "cuda", "--", "-Dwarnings"];
    for (name, which) in [
        ("gdn-candle for CUDA", ["-p", "gdn-candle"]),
        ("examples/qwen3 for CUDA", ["--manifest-path", EXAMPLE]),
    ] {
        let clippy = cargo(&[&["clippy"][..], &which, &flags].concat());
        suite.add(name, Work::Command(with_toolkit(in_target(clippy, root), &stub)));
    }
}

/// A command that builds in the repository's own target folder.
fn in_target(mut command: Command, root: &Path) -> Command {
    if std::env::var_os("CARGO_TARGET_DIR").is_none() {
        command.env("CARGO_TARGET_DIR", root.join("target"));
    }
    command
}

/// A command that finds a CUDA toolkit.
fn with_toolkit(mut command: Command, toolkit: &Path) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let paths = std::iter::once(toolkit.join("bin")).chain(std::env::split_paths(&path));
    if let Ok(path) = std::env::join_paths(paths) {
        command.env("PATH", path);
    }
    command.env("CUDA_HOME", toolkit).env("CUDA_COMPUTE_CAP", "90");
    command
}
