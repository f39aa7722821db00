//! `manifest.json`: what the PTX files hold and what they were made from, for hosts in any language.

use super::arch::Arch;
use super::assemble::Resources;
use super::compile;
use super::kernel::Kernel;
use super::module::Module;
use crate::tools::{Ptxas, Toolchain};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Version of the kernels' parameter structs.
const ABI_VERSION: u32 = 1;

/// Name of the file.
pub(crate) const FILE_NAME: &str = "manifest.json";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// Version of the crates.
    pub(crate) version: String,
    pub(crate) abi_version: u32,
    pub(crate) compiler: Compiler,
    /// See [`super::source`].
    pub(crate) source_sha256: String,
    /// Version of the ptxas that the resources are from.
    pub(crate) ptxas: Option<String>,
    /// Parameter structs by name.
    pub(crate) params: BTreeMap<String, Params>,
    pub(crate) modules: Vec<ModuleRecord>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Compiler {
    /// First line of `rustc -vV`.
    pub(crate) rustc: String,
    pub(crate) llvm: String,
    /// The target CPU is written `<arch>`.
    pub(crate) flags: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Params {
    /// Bytes.
    pub(crate) size: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ModuleRecord {
    pub(crate) file: String,
    pub(crate) name: String,
    pub(crate) op: String,
    /// Type of the state, or of an input that has a type of its own; null if the operation takes any.
    pub(crate) state: Option<String>,
    /// Type of the inputs.
    pub(crate) io: Option<String>,
    /// Key dimension or length of a row; 0 if the operation takes any.
    pub(crate) k: u32,
    pub(crate) arch: Arch,
    pub(crate) ptx_isa: String,
    pub(crate) sha256: String,
    pub(crate) entries: Vec<EntryRecord>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct EntryRecord {
    pub(crate) name: String,
    pub(crate) rows: u32,
    pub(crate) params: String,
    pub(crate) params_size: usize,
    pub(crate) max_threads: u32,
    /// By GPU; null where the module was never assembled.
    pub(crate) resources: Option<BTreeMap<Arch, Resources>>,
}

impl Manifest {
    /// The manifest of `modules`, without resources.
    pub(crate) fn new(toolchain: &Toolchain, source_sha256: &str, modules: &[Module]) -> Manifest {
        let kernels = modules.iter().flat_map(|module| &module.group.kernels);
        let params = kernels.map(|k| (k.params.to_owned(), Params { size: k.params_size }));
        Manifest {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            abi_version: ABI_VERSION,
            compiler: Compiler {
                rustc: toolchain.version.clone(),
                llvm: toolchain.llvm.clone(),
                flags: compile::flags("<arch>"),
            },
            source_sha256: source_sha256.to_owned(),
            ptxas: None,
            params: params.collect(),
            modules: modules.iter().map(ModuleRecord::new).collect(),
        }
    }

    /// The manifest in a directory, if there is one.
    pub(crate) fn read(directory: &Path) -> Result<Option<Manifest>> {
        let path = directory.join(FILE_NAME);
        match std::fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).map(Some).with_context(|| path.display().to_string()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    pub(crate) fn to_json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// Records what ptxas found, by module file and GPU.
    pub(crate) fn record(&mut self, ptxas: &Ptxas, found: &[Assembled]) {
        self.ptxas = Some(ptxas.version.clone());
        for assembled in found {
            let module = self.modules.iter_mut().filter(|module| module.file == assembled.file);
            for entry in module.flat_map(|module| &mut module.entries) {
                if let Some(resources) = assembled.entries.get(&entry.name) {
                    entry.resources.get_or_insert_default().insert(assembled.gpu, *resources);
                }
            }
        }
    }

    /// Takes over the resources that an earlier build recorded for files that are the same. Returns how
    /// many files have some.
    pub(crate) fn keep_resources(&mut self, earlier: &Manifest) -> usize {
        let mut kept = 0;
        for module in &mut self.modules {
            let same = |m: &&ModuleRecord| m.file == module.file && m.sha256 == module.sha256;
            let Some(known) = earlier.modules.iter().find(same) else { continue };
            for entry in &mut module.entries {
                let known = known.entries.iter().find(|known| known.name == entry.name);
                entry.resources = known.and_then(|known| known.resources.clone());
            }
            kept += usize::from(module.entries.iter().any(|entry| entry.resources.is_some()));
        }
        self.ptxas = earlier.ptxas.clone().filter(|_| kept > 0);
        kept
    }
}

impl ModuleRecord {
    fn new(module: &Module) -> ModuleRecord {
        let first: &Kernel = &module.group.kernels[0];
        ModuleRecord {
            file: module.file_name(),
            name: module.group.name.clone(),
            op: first.module.op.to_owned(),
            state: first.module.state.map(|t| t.name().to_owned()),
            io: first.module.io.map(|t| t.name().to_owned()),
            k: first.module.k,
            arch: module.arch,
            ptx_isa: module.isa.clone(),
            sha256: module.sha256.clone(),
            entries: module.group.kernels.iter().map(EntryRecord::new).collect(),
        }
    }
}

impl EntryRecord {
    fn new(kernel: &Kernel) -> EntryRecord {
        EntryRecord {
            name: kernel.name.clone(),
            rows: kernel.rows,
            params: kernel.params.to_owned(),
            params_size: kernel.params_size,
            max_threads: kernel.max_threads,
            resources: None,
        }
    }
}

/// A module assembled for a GPU.
#[derive(Debug)]
pub(crate) struct Assembled {
    /// Name of the PTX file.
    pub(crate) file: String,
    pub(crate) gpu: Arch,
    pub(crate) entries: BTreeMap<String, Resources>,
}
