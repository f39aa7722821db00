//! `manifest.json`: what the PTX files and binaries hold and what they were made from, for hosts in any language.

use super::arch::Arch;
use super::assemble::Resources;
use super::compile;
use super::kernel::Kernel;
use super::module::Module;
use super::seam::Seam;
use crate::tools::Toolchain;
use anyhow::{Context, Result};
use gdn_host::artifact::sha256_hex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Version of the kernels' parameter structs.
const ABI_VERSION: u32 = 2;

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
    /// Version of the ptxas that resources and binaries are from.
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
    /// Machine code assembled from the file.
    pub(crate) binaries: Vec<BinaryRecord>,
    pub(crate) entries: Vec<EntryRecord>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct BinaryRecord {
    pub(crate) file: String,
    /// Runs on this GPU and on those of its major version with a higher minor one.
    pub(crate) gpu: Arch,
    pub(crate) sha256: String,
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
    /// The manifest of `modules`, without resources and binaries.
    pub(crate) fn new(
        toolchain: &Toolchain,
        seam: Seam,
        source_sha256: &str,
        modules: &[Module],
    ) -> Manifest {
        let kernels = modules.iter().flat_map(|module| &module.group.kernels);
        let params = kernels.map(|k| (k.params.to_owned(), Params { size: k.params_size }));
        Manifest {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            abi_version: ABI_VERSION,
            compiler: Compiler {
                rustc: toolchain.version.clone(),
                llvm: toolchain.llvm.clone(),
                flags: compile::flags(seam, "<arch>"),
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
    pub(crate) fn record(&mut self, ptxas_version: &str, found: &[Assembled]) {
        self.ptxas = Some(ptxas_version.to_owned());
        for assembled in found {
            let found = self.modules.iter_mut().find(|module| module.file == assembled.file);
            let Some(module) = found else { continue };
            for entry in &mut module.entries {
                if let Some(resources) = assembled.entries.get(&entry.name) {
                    entry.resources.get_or_insert_default().insert(assembled.gpu, *resources);
                }
            }
            if let Some(bytes) = &assembled.binary {
                let (file, sha256) = (assembled.binary_file(), sha256_hex(bytes));
                module.binaries.push(BinaryRecord { file, gpu: assembled.gpu, sha256 });
            }
        }
    }

    /// The files that it names: PTX and binaries.
    pub(crate) fn file_names(&self) -> impl Iterator<Item = &str> {
        let binaries = self.modules.iter().flat_map(|module| &module.binaries).map(|b| b.file.as_str());
        self.modules.iter().map(|module| module.file.as_str()).chain(binaries)
    }

    /// Takes over the resources and binaries that an earlier build recorded for files that are the same; of binaries
    /// those that lie in `directory`. Returns how many files have some.
    pub(crate) fn keep_assembled(&mut self, earlier: &Manifest, directory: &Path) -> usize {
        let is_there = |binary: &BinaryRecord| {
            std::fs::read(directory.join(&binary.file)).is_ok_and(|bytes| sha256_hex(&bytes) == binary.sha256)
        };
        let mut kept = 0;
        for module in &mut self.modules {
            let same = |m: &&ModuleRecord| m.file == module.file && m.sha256 == module.sha256;
            let Some(known) = earlier.modules.iter().find(same) else { continue };
            module.binaries = known.binaries.iter().filter(|binary| is_there(binary)).cloned().collect();
            for entry in &mut module.entries {
                let known = known.entries.iter().find(|known| known.name == entry.name);
                entry.resources = known.and_then(|known| known.resources.clone());
            }
            let has_resources = module.entries.iter().any(|entry| entry.resources.is_some());
            kept += usize::from(has_resources || !module.binaries.is_empty());
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
            op: first.module.section(),
            state: first.module.state.map(|t| t.name().to_owned()),
            io: first.module.io.map(|t| t.name().to_owned()),
            k: first.module.k,
            arch: module.arch,
            ptx_isa: module.isa.clone(),
            sha256: module.sha256.clone(),
            binaries: Vec::new(),
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
    /// Name of the module.
    pub(crate) name: String,
    /// Name of the PTX file.
    pub(crate) file: String,
    pub(crate) gpu: Arch,
    pub(crate) entries: BTreeMap<String, Resources>,
    /// The machine code, where it is kept.
    pub(crate) binary: Option<Vec<u8>>,
}

impl Assembled {
    /// `decode_f32_bf16_k128.sm_90.cubin`.
    fn binary_file(&self) -> String {
        format!("{}.{}.cubin", self.name, self.gpu)
    }

    /// The machine code as a file, where it is kept.
    pub(crate) fn into_file(self) -> Option<(String, Vec<u8>)> {
        let file = self.binary_file();
        self.binary.map(|bytes| (file, bytes))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A manifest of one module without entries, `m.sm_90.ptx`, of this text.
    pub(crate) fn of_one_module(ptx: &str) -> Manifest {
        let module = ModuleRecord {
            file: "m.sm_90.ptx".to_owned(),
            name: "m".to_owned(),
            op: "m".to_owned(),
            state: None,
            io: None,
            k: 0,
            arch: "sm_90".parse().unwrap(),
            ptx_isa: "7.8".to_owned(),
            sha256: sha256_hex(ptx.as_bytes()),
            binaries: Vec::new(),
            entries: Vec::new(),
        };
        let (rustc, llvm) = ("rustc 1.96.0".to_owned(), "22.1.8".to_owned());
        Manifest {
            version: "0.1.0".to_owned(),
            abi_version: ABI_VERSION,
            compiler: Compiler { rustc, llvm, flags: Vec::new() },
            source_sha256: String::new(),
            ptxas: None,
            params: BTreeMap::new(),
            modules: vec![module],
        }
    }

    /// `manifest` with this machine code for sm_90.
    pub(crate) fn with_binary(mut manifest: Manifest, bytes: &[u8]) -> Manifest {
        manifest.record("13.0.88", &[assembled("sm_90", Some(bytes)), assembled("sm_100", None)]);
        manifest
    }

    fn assembled(gpu: &str, binary: Option<&[u8]>) -> Assembled {
        let (name, file) = ("m".to_owned(), "m.sm_90.ptx".to_owned());
        let binary = binary.map(<[u8]>::to_vec);
        Assembled { name, file, gpu: gpu.parse().unwrap(), entries: BTreeMap::new(), binary }
    }

    #[test]
    fn binary_is_recorded_with_the_ptx_that_it_is_from() {
        let manifest = with_binary(of_one_module("ptx"), b"cubin");
        assert_eq!(manifest.ptxas.as_deref(), Some("13.0.88"));
        let (file, gpu) = ("m.sm_90.cubin".to_owned(), "sm_90".parse().unwrap());
        let expected = BinaryRecord { file, gpu, sha256: sha256_hex(b"cubin") };
        assert_eq!(manifest.modules[0].binaries, [expected]);
        assert_eq!(manifest.file_names().collect::<Vec<_>>(), ["m.sm_90.ptx", "m.sm_90.cubin"]);
        assert_eq!(
            assembled("sm_90", Some(b"cubin")).into_file(),
            Some(("m.sm_90.cubin".to_owned(), b"cubin".to_vec()))
        );
        assert_eq!(assembled("sm_100", None).into_file(), None);
    }

    #[test]
    fn without_ptxas_a_binary_is_kept_as_long_as_its_ptx_and_its_file_are_there() {
        let directory = std::env::temp_dir().join(format!("gdn-manifest-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let earlier = with_binary(of_one_module("ptx"), b"cubin");
        let kept = |ptx: &str| {
            let mut manifest = of_one_module(ptx);
            let kept = manifest.keep_assembled(&earlier, &directory);
            assert_eq!(manifest.modules[0].binaries.len(), kept);
            (kept, manifest.ptxas)
        };
        assert_eq!(kept("ptx"), (0, None), "there is no file");
        std::fs::write(directory.join("m.sm_90.cubin"), b"cubin").unwrap();
        assert_eq!(kept("ptx"), (1, Some("13.0.88".to_owned())));
        assert_eq!(kept("other ptx"), (0, None));
        std::fs::write(directory.join("m.sm_90.cubin"), b"other").unwrap();
        assert_eq!(kept("ptx"), (0, None), "the file is another one");
        std::fs::remove_dir_all(directory).unwrap();
    }
}
