//! Where things are on this machine: the repository, a rustc that can build the kernels, ptxas.
//!
//! Everything is found at run time, nothing is compiled into the binary.

use anyhow::{Context, Result, bail, ensure};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where rustup's components put the source of the standard library, below a sysroot.
const LIBRARY: &str = "lib/rustlib/src/rust/library";

/// The root of the repository: the nearest directory upwards whose `Cargo.toml` is the workspace of
/// gdn-kernels.
pub(crate) fn workspace_root() -> Result<PathBuf> {
    let here = std::env::current_dir().context("no current directory")?;
    let is_root = |dir: &Path| {
        std::fs::read_to_string(dir.join("Cargo.toml"))
            .is_ok_and(|text| text.contains("[workspace]") && text.contains("\"gdn-kernels\""))
    };
    let root = here.ancestors().find(|dir| is_root(dir));
    root.map(Path::to_path_buf)
        .with_context(|| format!("{} is not inside the gdn repository", here.display()))
}

/// The cargo that runs us, else the one in `PATH`.
pub(crate) fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Whether the toolchain of the workspace has the standard library for a target.
pub(crate) fn has_target(target: &str) -> bool {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).args(["--print", "target-libdir", "--target", target]).output();
    output.is_ok_and(|output| Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir())
}

/// A command that does not see what rustup and cargo put into the environment of `cargo xtask`.
///
/// Kept are the settings that say where crates come from (`CARGO_HOME`, network, registries). The rest
/// would make another compiler, other flags or another toolchain's libraries part of the result.
pub(crate) fn clean_command(program: impl AsRef<OsStr>) -> Command {
    const KEPT: [&str; 4] = ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR"];
    const DROPPED: [&str; 4] = ["CARGO", "RUSTC", "RUSTDOC", "RUSTFLAGS"];
    const DROPPED_TOO: [&str; 4] =
        ["RUSTUP_TOOLCHAIN", "RUSTUP_FORCE_ARG0", "RUST_RECURSION_COUNT", "LD_LIBRARY_PATH"];
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| text.starts_with(prefix));
        if starts(&DROPPED_TOO) || starts(&DROPPED) && !starts(&KEPT) {
            command.env_remove(&name);
        }
    }
    command
}

/// Standard output of a command that has to succeed.
fn output_of(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run {name}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    ensure!(output.status.success(), "{name}: {}", text(&output.stderr));
    Ok(text(&output.stdout))
}

/// Which of the places a toolchain was found in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// `--rustc PATH`.
    Given,
    /// The toolchain that `rust-toolchain.toml` pins.
    Rustup,
    /// Debian's `rustc-web` and `rust-web-src`.
    Debian,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Origin::Given => "--rustc",
            Origin::Rustup => "pinned rustup toolchain",
            Origin::Debian => "Debian's rustc",
        })
    }
}

/// The compiler of the committed PTX, as the manifest has it.
pub(crate) fn committed_compiler() -> Result<serde_json::Value> {
    let mut manifest: serde_json::Value = serde_json::from_str(gdn_host::artifact::manifest())?;
    Ok(manifest["compiler"].take())
}

/// A rustc with the source of its `core`, and the cargo beside it.
#[derive(Debug)]
pub(crate) struct Toolchain {
    pub(crate) origin: Origin,
    pub(crate) rustc: PathBuf,
    pub(crate) cargo: PathBuf,
    /// First line of `rustc -vV`.
    pub(crate) version: String,
    pub(crate) llvm: String,
}

impl Toolchain {
    /// The first toolchain that can build the kernels: `given`, else the pinned one, else Debian's.
    pub(crate) fn find(root: &Path, given: Option<&Path>) -> Result<Toolchain> {
        if let Some(rustc) = given {
            return Self::probe(Origin::Given, rustc);
        }
        let pinned = match Self::pinned_rustc(root).and_then(|r| Self::probe(Origin::Rustup, &r)) {
            Ok(toolchain) => return Ok(toolchain),
            Err(error) => error,
        };
        let debian = match Self::probe(Origin::Debian, Path::new("/usr/bin/rustc")) {
            Ok(toolchain) => return Ok(toolchain),
            Err(error) => error,
        };
        bail!(
            "no rustc with the source of `core` to build the kernels with\n\
             - {}: {pinned:#}\n  get it: rustup component add rust-src\n\
             - {}: {debian:#}\n  get it: apt install rustc-web cargo-web rust-web-src\n\
             - or name one: --rustc PATH, with cargo beside it and {LIBRARY} in its sysroot\n\
             Only a change of the kernels needs it: the PTX in gdn-host/ptx is complete.",
            Origin::Rustup,
            Origin::Debian
        )
    }

    /// Whether the committed PTX is from this compiler, as the manifest says.
    pub(crate) fn made_the_committed(&self) -> Result<bool> {
        let compiler = committed_compiler()?;
        Ok(compiler["rustc"] == self.version.as_str() && compiler["llvm"] == self.llvm.as_str())
    }

    /// The pinned toolchain's rustc, asked of rustup without letting it install anything.
    fn pinned_rustc(root: &Path) -> Result<PathBuf> {
        let mut rustup = clean_command("rustup");
        // rustup reads `rust-toolchain.toml` of the folder it runs in.
        rustup.args(["which", "rustc"]).current_dir(root).env("RUSTUP_AUTO_INSTALL", "0");
        output_of(&mut rustup).map(PathBuf::from)
    }

    fn probe(origin: Origin, rustc: &Path) -> Result<Toolchain> {
        let sysroot = output_of(clean_command(rustc).args(["--print", "sysroot"]))?;
        let sysroot = Path::new(&sysroot);
        // What was named may be a proxy of rustup: take what it stands for.
        let program = |name: &str| format!("{name}{}", std::env::consts::EXE_SUFFIX);
        let real = sysroot.join("bin").join(program("rustc"));
        let rustc = if real.is_file() { real } else { rustc.to_path_buf() };
        let verbose = output_of(clean_command(&rustc).arg("-vV"))?;
        let version = verbose.lines().next().unwrap_or_default().to_owned();
        let llvm = verbose.lines().find_map(|line| line.strip_prefix("LLVM version: "));
        let library = sysroot.join(LIBRARY);
        ensure!(
            library.join("core/src/lib.rs").is_file(),
            "{version} is there, but not the source of its core ({})",
            library.display()
        );
        let cargo = rustc.with_file_name(program("cargo"));
        ensure!(cargo.is_file(), "{version} is there, but no {}", cargo.display());
        let llvm = llvm.with_context(|| format!("{version} is not built on LLVM"))?.to_owned();
        Ok(Toolchain { origin, rustc, cargo, version, llvm })
    }
}

/// The PTX assembler.
#[derive(Debug)]
pub(crate) struct Ptxas {
    pub(crate) path: PathBuf,
    /// Like `13.0.88`.
    pub(crate) version: String,
    /// The GPU names that `--help` lists.
    help: String,
}

impl Ptxas {
    /// `given` or what `$PTXAS` and `$GDN_PTXAS` name, which have to work; else the first that works in
    /// `PATH`, `$CUDA_HOME` and the virtual environments nearby; else none.
    pub(crate) fn find(root: &Path, given: Option<&Path>) -> Result<Option<Ptxas>> {
        let named = given.map(Path::to_path_buf).or_else(|| path_variable("PTXAS"));
        if let Some(path) = named {
            return Self::probe(path).map(Some);
        }
        if let Some(path) = path_variable("GDN_PTXAS") {
            let found = if path.is_dir() { in_venv(&path).into_iter().next() } else { Some(path.clone()) };
            let found = found.with_context(|| format!("GDN_PTXAS: no ptxas in {}", path.display()))?;
            return Self::probe(found).map(Some);
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut candidates: Vec<PathBuf> =
            std::env::split_paths(&path).map(|dir| dir.join("ptxas")).collect();
        let toolkits = [path_variable("CUDA_HOME"), Some(PathBuf::from("/usr/local/cuda"))];
        candidates.extend(toolkits.into_iter().flatten().map(|dir| dir.join("bin/ptxas")));
        let venvs = [path_variable("VIRTUAL_ENV"), Some(root.join(".venv")), Some(root.join("venv"))];
        candidates.extend(venvs.into_iter().flatten().flat_map(|venv| in_venv(&venv)));
        Ok(candidates.into_iter().filter(|p| p.is_file()).find_map(|p| Self::probe(p).ok()))
    }

    fn probe(path: PathBuf) -> Result<Ptxas> {
        let version = output_of(Command::new(&path).arg("--version"))?;
        let version = version.rsplit_once(", V").and_then(|(_, rest)| rest.split_whitespace().next());
        let version = version.with_context(|| format!("{} is not ptxas", path.display()))?.to_owned();
        let help = output_of(Command::new(&path).arg("--help"))?;
        Ok(Ptxas { path, version, help })
    }

    /// Whether it knows a GPU name such as `sm_120`.
    pub(crate) fn knows(&self, gpu: &str) -> bool {
        self.help.contains(&format!("'{gpu}'"))
    }
}

fn path_variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Where the packages of PyPI leave ptxas in a virtual environment: those of CUDA 13, of CUDA 12, Triton.
fn in_venv(venv: &Path) -> Vec<PathBuf> {
    const PLACES: [&str; 3] =
        ["nvidia/cu13/bin/ptxas", "nvidia/cuda_nvcc/bin/ptxas", "triton/backends/nvidia/bin/ptxas"];
    let pythons = std::fs::read_dir(venv.join("lib")).into_iter().flatten().flatten();
    let mut sites: Vec<PathBuf> = pythons.map(|dir| dir.path().join("site-packages")).collect();
    sites.sort();
    let places = sites.iter().flat_map(|site| PLACES.map(|place| site.join(place)));
    places.filter(|path| path.is_file()).collect()
}
