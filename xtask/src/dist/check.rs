//! `dist --check`: the folder serves, alone, those that it is for. The C example is built as pkg-config says, the C++ example
//! by CMake, and both are run from there: without a driver they say so, on a GPU their results are right.

use super::lay_out;
use crate::report::say;
use anyhow::{Context as _, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// What the check needs, and this machine lacks.
pub fn missing_tools() -> Vec<&'static str> {
    let is_missing = |tool: &&str| Command::new(tool).arg("--version").output().is_err();
    ["cc", "c++", "pkg-config", "cmake"].into_iter().filter(is_missing).collect()
}

/// A folder that goes at the end.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Lays out, builds and runs.
pub fn run(root: &Path, libraries: &Path) -> Result<ExitCode> {
    let missing = missing_tools();
    ensure!(missing.is_empty(), "dist --check needs {}", missing.join(", "));
    let temporary = Temporary(std::env::temp_dir().join(format!("gdn-dist-check-{}", std::process::id())));
    let folder = temporary.0.join("gdn");
    lay_out(root, &folder, libraries)?;
    let lib = folder.join("lib");
    let pkg = Command::new("pkg-config")
        .args(["--cflags", "--libs", "gdn"])
        .env("PKG_CONFIG_PATH", lib.join("pkgconfig"))
        .output()?;
    let flags = String::from_utf8(pkg.stdout)?;
    ensure!(pkg.status.success(), "pkg-config finds no gdn: {}", String::from_utf8_lossy(&pkg.stderr));
    let c = temporary.0.join("decode");
    let mut cc = Command::new("cc");
    cc.args(["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]);
    cc.arg(folder.join("examples/c/decode.c")).arg("-o").arg(&c).args(flags.split_whitespace()).arg("-ldl");
    done(&mut cc)?;
    run_example(&c, &lib)?;

    let build = temporary.0.join("build");
    let mut cmake = Command::new("cmake");
    cmake.arg("-S").arg(folder.join("examples/cpp")).arg("-B").arg(&build);
    cmake.arg(format!("-DCMAKE_PREFIX_PATH={}", folder.display())).arg("-DCMAKE_BUILD_TYPE=Release");
    done(&mut cmake)?;
    done(Command::new("cmake").arg("--build").arg(&build))?;
    run_example(&build.join("draft"), &lib)?;
    Ok(ExitCode::SUCCESS)
}

fn done(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot start {name}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(output.status.success(), "{name}: {}{}", text(&output.stdout), text(&output.stderr));
    Ok(())
}

/// Runs an example: 0 is right, 2 is that there is no GPU, which has to be so.
fn run_example(program: &Path, lib: &Path) -> Result<()> {
    let output = Command::new(program).env("LD_LIBRARY_PATH", lib).output()?;
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let has_gpu = gdn_host::driver::Driver::open().is_ok();
    let expected = if has_gpu { 0 } else { 2 };
    ensure!(output.status.code() == Some(expected), "{}: {}: {text}", program.display(), output.status);
    say!("{}: {}", program.file_name().unwrap_or_default().display(), text.trim_end());
    Ok(())
}
