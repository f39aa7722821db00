//! The checks of what is built on candle for CUDA, and of examples/qwen3 with the recorded models.
//!
//! The example is a workspace of its own. It is built in this repository's `target`, where candle is compiled already.

use super::cargo;
use super::suite::{Suite, Work};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the example's manifest is.
const EXAMPLE: &str = "examples/qwen3/Cargo.toml";
/// The recorded models.
const MODELS: &str = "tests/golden/models";
/// One that is run with records as well.
const WITH_RECORDS: &str = "tests/golden/models/qwen3_5_float32";
/// Those that the example brings: Kimi's.
const OF_EXAMPLE: &str = "examples/qwen3/recorded";

/// A CUDA toolkit that compiles nothing, with which candle's `cuda` feature and cust are checked.
pub struct Toolkit(PathBuf);

/// Has the toolkit laid out.
pub fn toolkit(suite: &mut Suite, root: &Path) -> Toolkit {
    let stub = root.join("target/cuda-stub");
    let mut lay_out = Command::new("bash");
    lay_out.arg("gdn-candle/cuda/stub.sh").arg(&stub);
    suite.add("a CUDA toolkit that compiles nothing", Work::Command(lay_out));
    Toolkit(stub)
}

/// Adds the checks of the example.
pub fn example(suite: &mut Suite, root: &Path, toolkit: &Toolkit) {
    let format = cargo(&["fmt", "--check", "--manifest-path", EXAMPLE]);
    let golden = |more: &[&str]| {
        let run = ["run", "--quiet", "--manifest-path", EXAMPLE, "--", "--golden"];
        in_target(cargo(&[&run[..], more].concat()), root)
    };
    let (plain, other) = ([&[MODELS][..], &[OF_EXAMPLE]], ["--replay", "--graphs"]);
    let with_records = [WITH_RECORDS, OF_EXAMPLE].map(|models| golden(&[&[models][..], &other].concat()));
    let ways = [format].into_iter().chain(plain.map(golden)).chain(with_records);
    suite.add("whole models on candle", Work::Commands(ways.collect()));
    let flags = ["--all-targets", "--features", "cuda", "--", "-Dwarnings"];
    let clippy = cargo(&[&["clippy", "--manifest-path", EXAMPLE][..], &flags].concat());
    let clippy = toolkit.given_to(in_target(clippy, root));
    suite.add("examples/qwen3 for CUDA", Work::Command(clippy));
}

/// A command that builds in the repository's own target folder.
fn in_target(mut command: Command, root: &Path) -> Command {
    if std::env::var_os("CARGO_TARGET_DIR").is_none() {
        command.env("CARGO_TARGET_DIR", root.join("target"));
    }
    command
}

impl Toolkit {
    /// The command, finding this toolkit.
    pub fn given_to(&self, mut command: Command) -> Command {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let paths = std::iter::once(self.0.join("bin")).chain(std::env::split_paths(&path));
        if let Ok(path) = std::env::join_paths(paths) {
            command.env("PATH", path);
        }
        for name in ["CUDA_HOME", "CUDA_PATH", "CUDA_LIBRARY_PATH"] {
            command.env(name, &self.0);
        }
        command.env("CUDA_COMPUTE_CAP", "90");
        command
    }
}
