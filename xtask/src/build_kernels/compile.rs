//! Runs the kernel toolchain: gdn-kernels and `core` to PTX, for one target.

use super::arch::Arch;
use super::seam::Seam;
use crate::tools::{Toolchain, clean_command};
use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const TARGET: &str = "nvptx64-nvidia-cuda";

/// Flags of the whole build, besides the target CPU and those of the seam.
///
/// The threshold keeps loops over register arrays unrolled: rolled, they index the array at run time, and
/// it lands in local memory.
const RUSTFLAGS: [&str; 1] = ["-Cllvm-args=-unroll-threshold=20000"];

/// Flags of gdn-kernels alone.
const CRATE_FLAGS: [&str; 2] = ["--emit=asm", "-Ccodegen-units=1"];

/// The release profile, spelled out, so that nobody's configuration enters the PTX.
const PROFILE: [(&str, &str); 6] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3"),
    ("CARGO_PROFILE_RELEASE_DEBUG", "false"),
    ("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "false"),
    ("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "false"),
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_INCREMENTAL", "false"),
];

/// What the compiler is told, as manifest and PTX headers record it; `target_cpu` is a name or a stand-in.
pub(crate) fn flags(seam: Seam, target_cpu: &str) -> Vec<String> {
    let mut flags: Vec<String> = seam.cargo_flags().iter().map(|flag| (*flag).to_owned()).collect();
    flags.push("-Copt-level=3".to_owned());
    flags.extend(rustflags(seam, target_cpu));
    flags.extend(CRATE_FLAGS.map(str::to_owned));
    flags
}

fn rustflags(seam: Seam, target_cpu: &str) -> impl Iterator<Item = String> {
    let own = RUSTFLAGS.iter().chain(seam.rustflags()).map(|flag| (*flag).to_owned());
    std::iter::once(format!("-Ctarget-cpu={target_cpu}")).chain(own)
}

/// A build of the kernels for a target.
pub(crate) struct Build<'a> {
    pub(crate) toolchain: &'a Toolchain,
    pub(crate) root: &'a Path,
    /// Where cargo works.
    pub(crate) target_dir: PathBuf,
    pub(crate) arch: Arch,
    pub(crate) seam: Seam,
    /// Arguments for cargo that the command line adds; only a build whose result is not committed has some.
    pub(crate) arguments: &'a [String],
    /// What the sources are, see [`super::source`].
    pub(crate) source_sha256: &'a str,
}

impl Build<'_> {
    /// Compiles and returns the PTX as the compiler wrote it.
    pub(crate) fn run(&self) -> Result<String> {
        self.forget_other_sources()?;
        let mut cargo = self.cargo();
        cargo.args(["rustc", "--package=gdn-kernels", "--lib", "--no-default-features", "--release"]);
        cargo.args(self.seam.cargo_flags()).arg("--message-format=json-render-diagnostics");
        cargo.arg(format!("--target={TARGET}")).args(self.lock()?);
        let output = run(cargo.arg("--").args(CRATE_FLAGS))?;
        if !output.status.success() {
            let log = String::from_utf8_lossy(&output.stderr);
            if let Some(missing) = self.seam.missing(&log) {
                let log = if self.arguments.is_empty() { "" } else { log.trim_end() };
                bail!("{missing}\n{log}");
            }
            bail!("{} does not compile with {}\n{}", self.arch, self.toolchain.version, log.trim_end());
        }
        let assembly = assembly_path(&String::from_utf8_lossy(&output.stdout))?;
        std::fs::write(self.stamp_path(), self.stamp())?;
        std::fs::read_to_string(&assembly).with_context(|| {
            format!("cannot read {}; delete {}", assembly.display(), self.target_dir.display())
        })
    }

    fn cargo(&self) -> Command {
        let toolchain = self.toolchain;
        let rustflags: Vec<String> = rustflags(self.seam, &self.arch.to_string()).collect();
        let mut cargo = clean_command(&toolchain.cargo);
        cargo
            .current_dir(self.root)
            .env("RUSTC", &toolchain.rustc)
            // Empty: none, whatever a configuration file says.
            .envs(["RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"].map(|name| (name, "")))
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", rustflags.join("\x1f"))
            .env("CARGO_TARGET_DIR", &self.target_dir)
            .envs(PROFILE);
        cargo
    }

    /// What cargo is told of versions: to take those of `Cargo.lock` as they are. Sources that the command line names
    /// change them, so such a build has a lock file of its own, which starts as a copy.
    fn lock(&self) -> Result<Vec<String>> {
        if self.seam == Seam::Nvptx {
            return Ok(vec!["--locked".to_owned()]);
        }
        let own = self.target_dir.join("Cargo.lock");
        std::fs::create_dir_all(&self.target_dir)?;
        std::fs::copy(self.root.join("Cargo.lock"), &own).with_context(|| own.display().to_string())?;
        let path = toml::Value::String(own.display().to_string());
        let lock =
            ["-Zlockfile-path".to_owned(), "--config".to_owned(), format!("resolver.lockfile-path={path}")];
        Ok(lock.into_iter().chain(self.arguments.iter().cloned()).collect())
    }

    /// Cargo decides by time stamps whether to compile again; a file that was copied or checked out with an
    /// old one would be missed. So the last build's sources are remembered by hash.
    fn forget_other_sources(&self) -> Result<()> {
        let known = std::fs::read_to_string(self.stamp_path());
        if known.is_ok_and(|known| known == self.stamp()) {
            return Ok(());
        }
        std::fs::create_dir_all(&self.target_dir)?;
        let mut cargo = self.cargo();
        cargo.args(["clean", "--package=gdn-kernels", "--release"]).args(self.lock()?);
        let output = run(cargo.arg(format!("--target={TARGET}")))?;
        let log = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "cargo clean: {}", log.trim_end());
        Ok(())
    }

    fn stamp(&self) -> String {
        let arguments: String = self.arguments.iter().map(|argument| format!("{argument}\n")).collect();
        format!("{}\n{}\n{arguments}", self.source_sha256, self.toolchain.version)
    }

    fn stamp_path(&self) -> PathBuf {
        self.target_dir.join("gdn-kernels.source")
    }
}

fn run(command: &mut Command) -> Result<Output> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.output().with_context(|| format!("cannot run {name}"))
}

/// The assembly beside the metadata file that cargo's messages name for gdn-kernels.
fn assembly_path(messages: &str) -> Result<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str(line).ok());
    let files = messages
        .filter(|message: &serde_json::Value| message["target"]["name"] == "gdn_kernels")
        .filter_map(|message| message["filenames"].as_array().cloned())
        .flatten();
    let metadata = files
        .filter_map(|file| file.as_str().map(PathBuf::from))
        .find(|file| file.extension().is_some_and(|extension| extension == "rmeta"));
    let metadata = metadata.context("cargo names no metadata file of gdn-kernels")?;
    let stem = metadata.file_stem().unwrap_or_default().to_string_lossy();
    let stem = stem.strip_prefix("lib").unwrap_or(&stem);
    Ok(metadata.with_file_name(format!("{stem}.s")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assembly_lies_beside_the_metadata() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"half"},"filenames":["/t/libhalf-1.rmeta"]}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"gdn_kernels"},"#,
            r#""filenames":["/t/libgdn_kernels.rlib","/t/deps/libgdn_kernels-3f.rmeta"]}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        assert_eq!(assembly_path(messages).unwrap(), Path::new("/t/deps/gdn_kernels-3f.s"));
        assert!(assembly_path("").is_err());
    }

    #[test]
    fn flags_name_the_target_cpu_once() {
        for seam in [Seam::Nvptx, Seam::CudaStd] {
            let flags = flags(seam, "sm_80");
            assert_eq!(flags.iter().filter(|flag| flag.contains("target-cpu")).count(), 1);
            assert!(flags.contains(&"-Ctarget-cpu=sm_80".to_owned()));
        }
    }
}
