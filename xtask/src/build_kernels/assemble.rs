//! Assembles modules with ptxas, for what a driver would find out only when it loads them: that they
//! assemble, and what each entry takes of a GPU; and for the machine code itself.

use super::arch::Arch;
use super::module::Module;
use crate::tools::Ptxas;
use anyhow::{Context, Result, bail, ensure};
use object::{Object, ObjectSection};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// What an entry takes of a GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Resources {
    /// 32-bit registers of a thread.
    pub(crate) registers: u32,
    /// Bytes of spill stores and spill loads of a thread.
    pub(crate) spill_bytes: u32,
    /// Bytes of stack of a thread.
    pub(crate) stack_bytes: u32,
    /// Bytes of static shared memory of a block.
    pub(crate) shared_bytes: u32,
    /// Machine instructions.
    #[serde(default)]
    pub(crate) instructions: u32,
}

/// Assembles the staged file of `module` for `gpu`: the resources of every entry, and the machine code.
///
/// The machine code is the same bytes wherever the file lies. It does hold ptxas's version and options, so that these
/// must not depend on anything but the GPU.
pub(crate) fn assemble(
    ptxas: &Ptxas,
    module: &Module,
    staged: &Path,
    gpu: Arch,
) -> Result<(BTreeMap<String, Resources>, Vec<u8>)> {
    let what = || format!("{} for {gpu}", module.file_name());
    let cubin = staged.with_extension(format!("{gpu}.cubin"));
    let mut command = Command::new(&ptxas.path);
    command.arg("-v").arg(format!("--gpu-name={gpu}")).arg(staged).arg("-o").arg(&cubin);
    let output = command.output().with_context(|| format!("cannot run {}", ptxas.path.display()))?;
    let log = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{} does not assemble\n{}", what(), log.trim_end());
    }
    let binary = std::fs::read(&cubin).with_context(|| cubin.display().to_string())?;
    std::fs::remove_file(&cubin)?;
    let mut resources = parse(&log).with_context(what)?;
    count_instructions(&binary, &mut resources).with_context(what)?;
    let unknown = module.group.kernels.iter().find(|kernel| !resources.contains_key(&kernel.name));
    if let Some(kernel) = unknown {
        bail!("{}: ptxas says nothing of {}", what(), kernel.name);
    }
    Ok((resources, binary))
}

/// Refuses entries that have stack or spills on `gpu`.
pub(crate) fn check_stack(entries: &BTreeMap<String, Resources>, gpu: Arch) -> Result<()> {
    let over = entries.iter().filter(|(_, r)| r.stack_bytes > 0 || r.spill_bytes > 0).map(|(name, r)| {
        let Resources { registers, spill_bytes, stack_bytes, .. } = r;
        format!(
            "\n  {name} on {gpu}: {registers} registers, {spill_bytes} bytes of spills, {stack_bytes} bytes of stack"
        )
    });
    let over: String = over.collect();
    ensure!(
        over.is_empty(),
        "entries with stack or spills; `registers.rs` says how many registers they get:{over}"
    );
    Ok(())
}

/// Counts the machine instructions of every entry: its section of the ELF file has nothing else.
fn count_instructions(binary: &[u8], resources: &mut BTreeMap<String, Resources>) -> Result<()> {
    /// Bytes of an instruction, on every GPU since compute capability 7.0.
    const INSTRUCTION: u64 = 16;
    let file = object::File::parse(binary).context("the machine code is no ELF file")?;
    for (name, resources) in resources {
        let section = file.section_by_name(&format!(".text.{name}"));
        let section = section.with_context(|| format!("the machine code has no entry {name}"))?;
        resources.instructions = u32::try_from(section.size() / INSTRUCTION)?;
    }
    Ok(())
}

/// Reads what `ptxas -v` reports.
fn parse(log: &str) -> Result<BTreeMap<String, Resources>> {
    let mut found = BTreeMap::new();
    let mut current: Option<(String, Resources)> = None;
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let name = rest.split('\'').next().unwrap_or_default();
            current = Some((name.to_owned(), Resources::default()));
        } else if line.contains("bytes stack frame") {
            if let Some((_, resources)) = &mut current {
                resources.stack_bytes = before(line, "bytes stack frame").unwrap_or(0);
                resources.spill_bytes = before(line, "bytes spill stores").unwrap_or(0)
                    + before(line, "bytes spill loads").unwrap_or(0);
            }
        } else if line.contains("registers") && line.contains("Used ") {
            let (name, mut resources) = current.take().context("registers of no entry")?;
            resources.registers = before(line, "registers").with_context(|| line.to_owned())?;
            resources.shared_bytes = before(line, "bytes smem").unwrap_or(0);
            found.insert(name, resources);
        }
    }
    Ok(found)
}

/// The number that stands before a unit: 40 in `Used 40 registers, ..`.
fn before(line: &str, unit: &str) -> Option<u32> {
    let (text, _) = line.split_once(unit)?;
    text.split_whitespace().next_back()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::manifest::Manifest;
    use super::*;

    /// Needs no ptxas: what it said is in the manifest.
    #[test]
    fn nothing_spills_on_any_gpu() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gdn-host/ptx");
        let manifest = Manifest::read(&directory).unwrap().expect("there is a manifest");
        for entry in manifest.modules.iter().flat_map(|module| &module.entries) {
            // Built without ptxas, and what it would say is not known.
            for (&gpu, &resources) in entry.resources.iter().flatten() {
                assert!(resources.registers <= 255, "{} on {gpu}", entry.name);
                check_stack(&BTreeMap::from([(entry.name.clone(), resources)]), gpu).unwrap();
            }
        }
    }

    #[test]
    fn stack_is_refused_with_its_entry_and_gpu() {
        let check = |spill_bytes, stack_bytes| {
            let resources = Resources { spill_bytes, stack_bytes, ..Resources::default() };
            check_stack(&BTreeMap::from([("a".to_owned(), resources)]), "sm_86".parse().unwrap())
        };
        assert!(check(0, 0).is_ok() && check(4, 0).is_err());
        let text = check(0, 8).unwrap_err().to_string();
        assert!(text.ends_with("\n  a on sm_86: 0 registers, 0 bytes of spills, 8 bytes of stack"), "{text}");
    }

    #[test]
    fn report_of_ptxas_is_read() {
        let log = "ptxas info    : 0 bytes gmem\n\
            ptxas info    : Compiling entry function 'a' for 'sm_80'\n\
            ptxas info    : Function properties for a\n\
            \u{20}   0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n\
            ptxas info    : Used 128 registers, used 1 barriers, 4096 bytes smem, 552 bytes cmem[0]\n\
            ptxas info    : Compile time = 52.188 ms\n\
            ptxas info    : Compiling entry function 'b' for 'sm_80'\n\
            ptxas info    : Function properties for b\n\
            \u{20}   16 bytes stack frame, 12 bytes spill stores, 20 bytes spill loads\n\
            ptxas info    : Used 255 registers, used 0 barriers, 16 bytes cumulative stack size\n";
        let resources = parse(log).unwrap();
        let a =
            Resources { registers: 128, spill_bytes: 0, stack_bytes: 0, shared_bytes: 4096, instructions: 0 };
        let b =
            Resources { registers: 255, spill_bytes: 32, stack_bytes: 16, shared_bytes: 0, instructions: 0 };
        assert_eq!(resources, BTreeMap::from([("a".to_owned(), a), ("b".to_owned(), b)]));
    }
}
