//! `cargo xtask build-kernels`: gdn-kernels to the PTX, binaries, manifest and header in `gdn-host/ptx`.
//!
//! ```text
//! compile   rustc, for each target                    one PTX file a target
//! split     by operation and types                    a module a file, with launch bounds and header
//! lint      what must and must not be in an entry
//! assemble  ptxas, for every GPU that runs the module registers, spills, shared memory; machine code
//! write     *.ptx, *.cubin, manifest.json, modules.rs, gdn_kernels.h    or compare with what is committed (`--check`)
//! ```
//!
//! `--seam cuda_std` builds the same kernels over Rust-CUDA's crate, into another folder, and compares.
//!
//! Nothing is written before everything passed, and the same sources, compiler and ptxas give the same bytes
//! wherever the repository lies.

mod arch;
mod assemble;
mod beside;
mod check;
mod compile;
mod embed;
mod header;
#[cfg(test)]
mod interface;
mod kernel;
mod lint;
mod manifest;
mod module;
mod ptx;
mod registers;
mod report;
mod seam;
mod source;

use crate::report::say;
use crate::tools::{self, Ptxas, Toolchain};
use anyhow::{Context, Result, bail, ensure};
use arch::Arch;
use check::Files;
use kernel::Group;
use manifest::{Assembled, Manifest};
use module::Module;
use rayon::prelude::*;
use report::Progress;
use seam::Seam;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fmt, fs};

/// Where everything is written, from the repository's root.
const DIRECTORY: &str = "gdn-host/ptx";

/// Build the PTX, machine code, their manifest and gdn_kernels.h from gdn-kernels
///
/// Writes gdn-host/ptx. Needs a rustc with the source of `core`, and once the network, for the crates that
/// the standard library pins; `cargo xtask doctor` says what is there.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// PTX target, repeatable; the files of other targets are removed [default: sm_80 and sm_90]
    #[arg(long = "arch", value_name = "sm_NN")]
    archs: Vec<Arch>,
    /// Compare with what is committed and write nothing; fails on any difference
    #[arg(long, conflicts_with_all = ["seam", "out", "cargo"])]
    check: bool,
    /// What indices, barriers and shuffles are built over
    #[arg(long, value_enum, default_value_t = Seam::Nvptx)]
    seam: Seam,
    /// Folder to write [default: gdn-host/ptx for nvptx, ptx-cuda_std in cargo's target folder for cuda_std]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Without ptxas, remove the machine code of modules whose PTX changed; without this option nothing is written then
    #[arg(long)]
    drop_binaries: bool,
    /// The compiler, with cargo beside it and the source of `core` in its sysroot [default: rust-toolchain.toml's, else /usr/bin/rustc]
    #[arg(long, value_name = "PATH")]
    rustc: Option<PathBuf>,
    /// The PTX assembler [default: $PTXAS, $GDN_PTXAS, PATH, $CUDA_HOME, virtual environments]
    #[arg(long, value_name = "PATH")]
    ptxas: Option<PathBuf>,
    /// With --seam cuda_std: arguments for cargo, such as --config 'patch.crates-io.cuda_std.path="DIR"'
    #[arg(last = true, value_name = "CARGO ARGUMENTS")]
    cargo: Vec<String>,
}

impl Args {
    /// Where the build is written. Only what is built over rustc's own intrinsics may be committed.
    fn directory(&self, root: &Path) -> Result<PathBuf> {
        let committed = root.join(DIRECTORY);
        if self.seam == Seam::Nvptx {
            ensure!(
                self.cargo.is_empty(),
                "arguments for cargo need --seam cuda_std: {}",
                self.cargo.join(" ")
            );
            return Ok(self.out.clone().unwrap_or(committed));
        }
        let default = || target_directory(root).join(format!("ptx-{}", self.seam.name()));
        let directory = self.out.clone().unwrap_or_else(default);
        let is_committed = directory
            .canonicalize()
            .is_ok_and(|out| committed.canonicalize().is_ok_and(|committed| out == committed));
        ensure!(
            !is_committed,
            "--out {}: what is there is built over {}",
            directory.display(),
            Seam::Nvptx.name()
        );
        Ok(directory)
    }
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let root = tools::workspace_root()?;
    let directory = args.directory(&root)?;
    let mut archs = if args.archs.is_empty() { Arch::BUILT.to_vec() } else { args.archs.clone() };
    archs.sort();
    archs.dedup();
    if args.check {
        return run_check(args, &root, &directory, &archs);
    }

    let earlier = Manifest::read(&directory).unwrap_or_default();
    let groups = kernel::groups();
    let built = build(args, &root, &directory, &archs, &groups, earlier.as_ref())?;
    if built.ptxas.is_none() && !args.drop_binaries {
        refuse_to_drop(earlier.as_ref(), &built.manifest)?;
    }
    let changes = write(&directory, &built, earlier.as_ref())?;
    match args.seam {
        Seam::Nvptx => say!("{}", report::table(&built.manifest).trim_end()),
        Seam::CudaStd => {
            let embedded = Manifest::read(&root.join(DIRECTORY))?;
            say!("{}", beside::table(&built.manifest, embedded.as_ref()).trim_end());
        }
    }
    say!("{}", built.summary());
    say!("{}: {changes}", directory.display());
    if directory == root.join(DIRECTORY) && changes.of_kernels() {
        say!("next: `cargo xtask pack` compresses them into gdn-host/packs, which programs embed");
    }
    Ok(ExitCode::SUCCESS)
}

/// An error if a build without ptxas would remove machine code: nobody could make it again without one.
fn refuse_to_drop(earlier: Option<&Manifest>, built: &Manifest) -> Result<()> {
    let binaries = |manifest: &Manifest| manifest.file_names().filter(|f| check::is_binary(f)).count();
    let (before, after) = (earlier.map_or(0, binaries), binaries(built));
    ensure!(
        before <= after,
        "nothing was written: without ptxas {} of {before} binaries would be removed, those whose PTX changed or went. \
         Their GPUs would run the PTX. Get ptxas (`cargo xtask doctor` says how), or add --drop-binaries",
        before - after
    );
    Ok(())
}

/// Compares; every difference is listed, whatever else fails.
fn run_check(args: &Args, root: &Path, directory: &Path, archs: &[Arch]) -> Result<ExitCode> {
    let committed = Manifest::read(directory)?;
    let committed = committed.with_context(|| format!("nothing to check in {}", directory.display()))?;
    let mut differences = check::committed(directory, &committed, &source::sha256(root, args.seam)?);
    let groups = kernel::groups();
    match build(args, root, directory, archs, &groups, Some(&committed)) {
        Ok(built) => {
            differences.extend(check::manifests(&committed, &built.manifest, archs));
            let same_compiler = check::same_compiler(&committed, &built.toolchain);
            let same_ptxas = committed.ptxas == built.ptxas;
            let whole = committed.modules.iter().all(|module| archs.contains(&module.arch));
            let comparable = |name: &str| match name {
                header::FILE_NAME => true,
                manifest::FILE_NAME | embed::FILE_NAME => same_compiler && whole,
                name if check::is_binary(name) => {
                    same_compiler && same_ptxas && check::gives_binary(&committed, archs, name)
                }
                _ => same_compiler,
            };
            let mut files = built.files.clone();
            files.retain(|name, _| comparable(name));
            differences.extend(check::bytes(directory, &files)?);
            say!("{}", built.summary());
            if !same_compiler {
                let manifest::Compiler { rustc, llvm, .. } = &committed.compiler;
                say!(
                    "bytes of PTX, and so of machine code, not compared: what is committed is from {rustc}, LLVM {llvm}"
                );
            }
            if !same_ptxas {
                let version = committed.ptxas.as_deref().unwrap_or("none");
                say!("bytes of machine code not compared: what is committed is from ptxas {version}");
            }
            if !whole {
                say!("targets that were not asked for are not compared");
            }
        }
        Err(error) => differences.push(format!("{error:#}")),
    }
    if differences.is_empty() {
        say!("no differences in {}", directory.display());
        return Ok(ExitCode::SUCCESS);
    }
    say!("{} differences in {}:", differences.len(), directory.display());
    differences.iter().for_each(|difference| say!("- {difference}"));
    Ok(ExitCode::FAILURE)
}

/// What a build gives.
struct Built {
    toolchain: Toolchain,
    manifest: Manifest,
    /// Version of the ptxas that was run; `None` if there is none.
    ptxas: Option<String>,
    files: Files,
    /// What became of the assembler's part.
    assembly: String,
}

impl Built {
    fn summary(&self) -> String {
        let modules = self.manifest.modules.len();
        let entries: usize = self.manifest.modules.iter().map(|module| module.entries.len()).sum();
        let Toolchain { origin, version, llvm, .. } = &self.toolchain;
        format!(
            "{modules} modules, {entries} entries: built with {version}, LLVM {llvm} ({origin}), linted, {}",
            self.assembly
        )
    }
}

/// Compiles, splits, lints and assembles; writes below the target directory only.
fn build(
    args: &Args,
    root: &Path,
    directory: &Path,
    archs: &[Arch],
    groups: &[Group],
    earlier: Option<&Manifest>,
) -> Result<Built> {
    let toolchain = Toolchain::find(root, args.rustc.as_deref())?;
    let ptxas = Ptxas::find(root, args.ptxas.as_deref())?;
    let source_sha256 = source::sha256(root, args.seam)?;
    let target = target_directory(root).join("kernels").join(args.seam.name());
    let progress = Progress::new();

    progress.stage(format!("compiling with {}", toolchain.version), 0);
    let compiled: Vec<Result<Vec<Module>>> = archs
        .par_iter()
        .map(|&arch| {
            let target_dir = target.join(arch.to_string());
            let build = compile::Build {
                toolchain: &toolchain,
                root,
                target_dir,
                arch,
                seam: args.seam,
                arguments: &args.cargo,
                source_sha256: &source_sha256,
            };
            module::split(&build.run()?, arch, groups)
        })
        .collect();
    let modules = compiled.into_iter().collect::<Result<Vec<_>>>()?;
    let modules: Vec<Module> = modules.into_iter().flatten().collect();

    let staging = target.join("ptx");
    stage_and_lint(&modules, &staging)?;
    let mut manifest = Manifest::new(&toolchain, args.seam, &source_sha256, &modules);
    let mut binaries = Files::new();
    let assembly = match &ptxas {
        Some(ptxas) => {
            let (found, unknown) = assemble_all(ptxas, args.seam, &modules, &staging, &progress)?;
            manifest.record(&ptxas.version, &found);
            // Another version's numbers are no difference.
            if let Some(earlier) = earlier.filter(|m| args.check && m.ptxas != manifest.ptxas) {
                manifest.keep_assembled(earlier, directory);
            }
            binaries.extend(found.into_iter().filter_map(Assembled::into_file));
            let note = if unknown.is_empty() { String::new() } else { format!(" (not for {unknown})") };
            format!("assembled with ptxas {}{note}", ptxas.version)
        }
        None => {
            let kept = earlier.map_or(0, |earlier| manifest.keep_assembled(earlier, directory));
            let all = manifest.modules.len();
            format!(
                "not assembled: no ptxas; resources and machine code kept of {kept} of {all} files, whose PTX is the same"
            )
        }
    };
    let mut files = render(root, &modules, &manifest)?;
    files.extend(binaries);
    Ok(Built { toolchain, manifest, ptxas: ptxas.map(|ptxas| ptxas.version), files, assembly })
}

/// Cargo's target directory.
fn target_directory(root: &Path) -> PathBuf {
    let named = std::env::var_os("CARGO_TARGET_DIR").filter(|value| !value.is_empty());
    root.join(named.map_or(PathBuf::from("target"), PathBuf::from))
}

/// Writes the modules where ptxas, and whoever reads a failure, finds them, and lints them.
fn stage_and_lint(modules: &[Module], staging: &Path) -> Result<()> {
    fs::create_dir_all(staging)?;
    let mut failures = Vec::new();
    for module in modules {
        let path = staging.join(module.file_name());
        fs::write(&path, &module.text)?;
        let found = lint::lint(&module.text, &module.group.kernels)?;
        failures.extend(found.iter().map(|failure| format!("\n{}:{failure}", path.display())));
    }
    const SHOWN: usize = 40;
    if failures.is_empty() {
        return Ok(());
    }
    let more = failures.len().saturating_sub(SHOWN);
    let rest = if more > 0 { format!("\nand {more} more") } else { String::new() };
    failures.truncate(SHOWN);
    bail!("the kernels break the rules of PTX that is fast and safe:{}{rest}", failures.concat());
}

/// Assembles every module for every GPU that loads it, two at a time. Also names the GPUs that this ptxas
/// does not know. What may be committed has no stack but where it is expected.
fn assemble_all(
    ptxas: &Ptxas,
    seam: Seam,
    modules: &[Module],
    staging: &Path,
    progress: &Progress,
) -> Result<(Vec<Assembled>, String)> {
    let targets: Vec<Arch> = modules.iter().map(|module| module.arch).collect();
    let pairs =
        modules.iter().flat_map(|module| module.arch.loaded_by(&targets).map(move |gpu| (module, gpu)));
    let (known, unknown): (Vec<_>, Vec<_>) = pairs.partition(|(_, gpu)| ptxas.knows(&gpu.to_string()));
    ensure!(!known.is_empty(), "{} knows none of the GPUs", ptxas.path.display());
    progress.stage(format!("assembling with ptxas {}", ptxas.version), known.len());
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build()?;
    let results: Vec<Result<Assembled>> = pool.install(|| {
        let assemble = |&(module, gpu): &(&Module, Arch)| {
            let file = module.file_name();
            let (entries, binary) = assemble::assemble(ptxas, module, &staging.join(&file), gpu)?;
            if seam == Seam::Nvptx {
                assemble::check_stack(&entries, gpu)?;
            }
            progress.step();
            let binary = gpu.keeps_binary().then_some(binary);
            Ok(Assembled { name: module.group.name.clone(), file, gpu, entries, binary })
        };
        known.par_iter().map(assemble).collect()
    });
    let (found, errors): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    if !errors.is_empty() {
        let errors: Vec<String> =
            errors.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
        bail!("ptxas {}:\n{}", ptxas.version, errors.join("\n"));
    }
    let mut unknown: Vec<Arch> = unknown.into_iter().map(|(_, gpu)| gpu).collect();
    unknown.sort();
    unknown.dedup();
    let unknown = unknown.iter().map(Arch::to_string).collect::<Vec<_>>().join(", ");
    Ok((found.into_iter().flatten().collect(), unknown))
}

/// Every file of `gdn-host/ptx` but the binaries.
fn render(root: &Path, modules: &[Module], manifest: &Manifest) -> Result<Files> {
    let mut files: Files =
        modules.iter().map(|module| (module.file_name(), module.text.clone().into_bytes())).collect();
    let sizes = manifest.params.iter().map(|(name, params)| (name.as_str(), params.size)).collect();
    files.insert(header::FILE_NAME.to_owned(), header::generate(root, &sizes)?.into_bytes());
    files.insert(embed::FILE_NAME.to_owned(), embed::render(modules, manifest).into_bytes());
    files.insert(manifest::FILE_NAME.to_owned(), manifest.to_json()?.into_bytes());
    Ok(files)
}

/// Writes what changed and removes the PTX files and binaries that are no longer built.
/// Only a folder that had a manifest loses files: another one's are not ours.
fn write(
    directory: &Path,
    Built { files, manifest, .. }: &Built,
    earlier: Option<&Manifest>,
) -> Result<Changes> {
    fs::create_dir_all(directory)?;
    let mut changes = Changes::default();
    for (name, built) in files {
        let path = directory.join(name);
        // A file that keeps its time stamp makes nobody compile again.
        if !fs::read(&path).is_ok_and(|bytes| bytes == *built) {
            fs::write(&path, built).with_context(|| path.display().to_string())?;
            changes.written.push(name.clone());
        }
    }
    let stale = earlier.map(|_| check::unnamed(directory, manifest));
    for stale in stale.into_iter().flatten() {
        fs::remove_file(directory.join(&stale))?;
        changes.removed.push(stale);
    }
    Ok(changes)
}

/// Names of the files that a build changed.
#[derive(Default)]
struct Changes {
    written: Vec<String>,
    removed: Vec<String>,
}

impl Changes {
    /// Whether PTX or machine code is among them.
    fn of_kernels(&self) -> bool {
        let is_kernel = |name: &String| name.ends_with(".ptx") || check::is_binary(name);
        self.written.iter().chain(&self.removed).any(is_kernel)
    }
}

/// `written: 2 of PTX, manifest.json; removed: 1 of machine code`.
impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.written.is_empty() && self.removed.is_empty() {
            return f.write_str("nothing changed");
        }
        write!(f, "written: {}; removed: {}", kinds(&self.written), kinds(&self.removed))
    }
}

/// How many files there are of PTX and of machine code, and the others by name.
fn kinds(names: &[String]) -> String {
    let of = |ends: &str| names.iter().filter(|name| name.ends_with(ends)).count();
    let counts = [(of(".ptx"), "PTX"), (of(".cubin"), "machine code")];
    let counts = counts.iter().filter(|(count, _)| *count > 0);
    let mut parts: Vec<String> = counts.map(|(count, kind)| format!("{count} of {kind}")).collect();
    let is_other = |name: &&String| !name.ends_with(".ptx") && !check::is_binary(name);
    parts.extend(names.iter().filter(is_other).cloned());
    if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::manifest::tests::{of_one_module, with_binary};
    use super::*;

    #[test]
    fn changes_are_told_by_kind() {
        let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        let written = names(&["a.sm_80.ptx", "b.sm_90.ptx", "manifest.json"]);
        let changes = Changes { written, removed: names(&["b.sm_90.cubin"]) };
        assert_eq!(changes.to_string(), "written: 2 of PTX, manifest.json; removed: 1 of machine code");
        assert_eq!(Changes::default().to_string(), "nothing changed");
        let changes = Changes { written: names(&["gdn_kernels.h"]), removed: Vec::new() };
        assert_eq!(changes.to_string(), "written: gdn_kernels.h; removed: nothing");
        assert!(!changes.of_kernels());
        let removed = names(&["b.sm_90.cubin"]);
        assert!(Changes { written: Vec::new(), removed }.of_kernels());
    }

    #[test]
    fn machine_code_is_not_dropped_unasked() {
        let (without, with) = (of_one_module("ptx"), with_binary(of_one_module("ptx"), b"cubin"));
        let error = refuse_to_drop(Some(&with), &without).unwrap_err().to_string();
        assert!(error.contains("1 of 1 binaries would be removed"), "{error}");
        assert!(refuse_to_drop(Some(&with), &with).is_ok());
        assert!(refuse_to_drop(Some(&without), &without).is_ok() && refuse_to_drop(None, &without).is_ok());
    }
}
