//! From an embedded module to functions: which of its files is loaded.

use crate::artifact::{self, Contents, EmbeddedBinary, EmbeddedModule, FileError, Files};
use crate::driver::{Context, DriverError, Function, JitOptions, Module};
use crate::key::ModuleKey;
use crate::plan::TuningError;
use std::path::PathBuf;
use thiserror::Error;

/// Threads on which a module's PTX is compiled: it has one to three kernels, and on four threads an H200's host compiled those of
/// decode in two thirds of the time.
const COMPILER_THREADS: u32 = 4;

/// Kernels that could not be loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// A table of choices, named by `GDN_TUNING`, that is refused.
    #[error("GDN_TUNING: {}: {source}", file.display())]
    Tuning {
        /// The file.
        file: PathBuf,
        /// Line, field and what is wrong.
        source: TuningError,
    },
    /// A table of choices, named by `GDN_TUNING`, that cannot be read.
    #[error("GDN_TUNING: {} cannot be read: {source}", file.display())]
    TuningFile {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The driver said no; a JIT failure keeps its log.
    #[error("{what}: {source}")]
    Driver {
        /// What was being done.
        what: String,
        /// The driver's answer.
        source: DriverError,
    },
    /// No kernel of the module runs on the device.
    #[error("no kernel for {module} on compute capability {compute}: it needs at least {least}")]
    Unsupported {
        /// Module asked for.
        module: ModuleKey,
        /// `10 * major + minor`.
        compute: u32,
        /// The least compute capability that one is there for.
        least: u32,
    },
    /// There is no such module, for any device.
    #[error("there is no module {module} for any GPU: {nearest}")]
    Unknown {
        /// Module asked for.
        module: ModuleKey,
        /// What there is of its operation.
        nearest: String,
    },
    /// [`Code::Binary`] was asked for and there is none.
    #[error("no machine code for {module} on compute capability {compute}: only its PTX runs there")]
    NoBinary {
        /// Module asked for.
        module: ModuleKey,
        /// `10 * major + minor`.
        compute: u32,
    },
    /// A file of the module cannot be had: the features of this crate leave it out, or it is damaged.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Which of a module's files [`Gdn::load_code`](crate::Gdn::load_code) loads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Code {
    /// Machine code for the device if there is some and it is at hand; PTX if not, or if the driver refuses the machine code
    /// ([`DriverError::refuses_image`]), as one that is older than the assembler may. Any other failure is an error.
    #[default]
    Auto,
    /// Machine code for the device, and nothing else.
    Binary,
    /// PTX with the highest target the device runs, which the driver compiles.
    Ptx {
        /// Highest target to take (80, 90).
        most: Option<u32>,
    },
}

/// The module of `key` that a device of this compute capability (`10 * major + minor`) loads. No device is needed to ask.
///
/// # Errors
/// [`LoadError::Unknown`] where there is no such module, and [`LoadError::Unsupported`] where there is none for the device.
pub fn find_module(key: ModuleKey, compute: u32) -> Result<&'static EmbeddedModule, LoadError> {
    artifact::select(key, compute).ok_or_else(|| {
        let targets = artifact::modules().iter().filter(|module| module.key == key);
        match targets.map(|module| module.arch).min() {
            Some(least) => LoadError::Unsupported { module: key, compute, least },
            None => LoadError::Unknown { module: key, nearest: artifact::nearest(key) },
        }
    })
}

/// A file that was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedFile {
    /// Its name: `decode_f32_bf16_k128.sm_90.cubin`.
    pub name: &'static str,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
    /// Whether it is machine code; else it is PTX, which the driver compiled.
    pub is_binary: bool,
}

/// Kernels of one module, loaded.
pub(crate) struct Loaded {
    pub(crate) key: ModuleKey,
    /// Height of a warp's tile, and the function.
    pub(crate) functions: Vec<(u32, Function)>,
    pub(crate) embedded: &'static EmbeddedModule,
    /// What was loaded; `None` if it was the PTX.
    binary: Option<&'static EmbeddedBinary>,
    /// Of the file.
    sha256: String,
    /// Keeps the functions valid.
    _module: Module,
}

impl Loaded {
    /// Loads the module of `key` for a device of this compute capability.
    pub(crate) fn new(
        context: &Context,
        key: ModuleKey,
        compute: u32,
        code: Code,
        files: Files,
    ) -> Result<Loaded, LoadError> {
        let most = match code {
            Code::Ptx { most: Some(most) } => most.min(compute),
            _ => compute,
        };
        let embedded = find_module(key, most)?;
        Self::module(context, embedded, compute, code, files)
    }

    fn module(
        context: &Context,
        embedded: &'static EmbeddedModule,
        compute: u32,
        code: Code,
        files: Files,
    ) -> Result<Loaded, LoadError> {
        let ptx = || Self::ptx(context, embedded, files);
        match (code, embedded.binary(compute)) {
            (Code::Ptx { .. }, _) | (Code::Auto, None) => ptx(),
            (Code::Binary, None) => Err(LoadError::NoBinary { module: embedded.key, compute }),
            (Code::Binary, Some(binary)) => Self::binary(context, embedded, binary, files),
            (Code::Auto, Some(binary)) => match Self::binary(context, embedded, binary, files) {
                Err(LoadError::Driver { source, .. }) if source.refuses_image() => ptx(),
                Err(LoadError::File(FileError::LeftOut { .. } | FileError::Missing { .. })) => ptx(),
                result => result,
            },
        }
    }

    fn ptx(context: &Context, embedded: &'static EmbeddedModule, files: Files) -> Result<Loaded, LoadError> {
        let contents = embedded.contents(None, files)?;
        let options = JitOptions { threads: Some(COMPILER_THREADS), ..JitOptions::default() };
        let module = Module::load(context, contents.text(), &options);
        let what = embedded.file.into();
        Self::link(module, embedded, None, &contents).map_err(|source| LoadError::Driver { what, source })
    }

    fn binary(
        context: &Context,
        embedded: &'static EmbeddedModule,
        binary: &'static EmbeddedBinary,
        files: Files,
    ) -> Result<Loaded, LoadError> {
        let contents = embedded.contents(Some(binary), files)?;
        // SAFETY: by its hash it is the whole file that ptxas wrote.
        let module = unsafe { Module::load_binary(context, contents.bytes()) };
        let what = binary.file.into();
        Self::link(module, embedded, Some(binary), &contents)
            .map_err(|source| LoadError::Driver { what, source })
    }

    /// Looks the entries up.
    fn link(
        module: Result<Module, DriverError>,
        embedded: &'static EmbeddedModule,
        binary: Option<&'static EmbeddedBinary>,
        contents: &Contents,
    ) -> Result<Loaded, DriverError> {
        let module = module?;
        let entries = embedded.entries.iter();
        let functions = entries.map(|e| Ok((e.rows, module.function(e.name)?))).collect::<Result<_, _>>()?;
        let sha256 = contents.sha256().to_owned();
        Ok(Loaded { key: embedded.key, functions, embedded, binary, sha256, _module: module })
    }

    pub(crate) fn file(&self) -> LoadedFile {
        let name = self.binary.map_or(self.embedded.file, |binary| binary.file);
        LoadedFile { name, sha256: self.sha256.clone(), is_binary: self.binary.is_some() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::fake;
    use crate::{DType, Family, Layout};
    use std::fs;
    use std::path::Path;

    const KEY: ModuleKey = ModuleKey::decode(Family::Gdn, Layout::Vk, DType::F32, DType::Bf16, 128);
    const NAME: &str = "decode_f32_bf16_k128";

    /// Whether there is machine code to test with: a build of the kernels without ptxas may have left it out.
    fn has_machine_code() -> bool {
        let has = artifact::select(KEY, 90).is_some_and(|module| module.binary(90).is_some());
        if !has {
            eprintln!("not tested: no machine code of {NAME} is committed");
        }
        has
    }

    /// The file that a driver which answers `refusal` to machine code ends up with.
    fn load(compute: u32, code: Code, refusal: u32) -> Result<String, LoadError> {
        let context = fake::context_with_modules(refusal);
        let loaded = Loaded::new(&context, KEY, compute, code, Files::Embedded)?;
        assert_eq!(loaded.functions.len(), loaded.embedded.entries.len());
        let LoadedFile { name, is_binary, .. } = loaded.file();
        assert_eq!(is_binary, name.ends_with(".cubin"));
        Ok(name.strip_prefix(NAME).unwrap().to_owned())
    }

    #[test]
    fn machine_code_is_loaded_where_it_was_proven_and_ptx_elsewhere() {
        if !has_machine_code() {
            return;
        }
        let file = |compute| load(compute, Code::Auto, 0).unwrap();
        assert_eq!(file(90), ".sm_90.cubin");
        assert_eq!((fake::calls("binary"), fake::calls("ptx")), (1, 0));
        assert_eq!([80, 86, 89].map(file), [".sm_80.ptx"; 3]);
        assert_eq!([100, 120].map(file), [".sm_90.ptx"; 2]);
        assert_eq!((fake::calls("binary"), fake::calls("ptx"), fake::calls("threads")), (1, 5, 5));
        assert!(matches!(load(75, Code::Auto, 0), Err(LoadError::Unsupported { compute: 75, .. })));
    }

    #[test]
    fn driver_that_refuses_machine_code_gets_ptx() {
        if !has_machine_code() {
            return;
        }
        for refusal in [200, 209, 218, 222] {
            assert_eq!(load(90, Code::Auto, refusal).unwrap(), ".sm_90.ptx", "{refusal}");
        }
        assert_eq!((fake::calls("binary"), fake::calls("ptx")), (0, 4));
    }

    #[test]
    fn other_failures_are_not_hidden_behind_ptx() {
        if !has_machine_code() {
            return;
        }
        const OUT_OF_MEMORY: u32 = 2;
        let error = load(90, Code::Auto, OUT_OF_MEMORY).unwrap_err();
        let LoadError::Driver { what, source } = &error else { panic!("{error}") };
        assert_eq!(what, "decode_f32_bf16_k128.sm_90.cubin");
        assert!(matches!(source, DriverError::Binary { code: OUT_OF_MEMORY, .. }), "{source}");
        assert_eq!(fake::calls("ptx"), 0);
    }

    #[test]
    fn caller_may_insist() {
        if !has_machine_code() {
            return;
        }
        let ptx = |most| load(90, Code::Ptx { most }, 0).unwrap();
        assert_eq!([None, Some(80), Some(120)].map(ptx), [".sm_90.ptx", ".sm_80.ptx", ".sm_90.ptx"]);
        assert_eq!(fake::calls("binary"), 0);
        assert_eq!(load(90, Code::Binary, 0).unwrap(), ".sm_90.cubin");
        assert!(matches!(load(90, Code::Binary, 209), Err(LoadError::Driver { .. })));
        let error = load(100, Code::Binary, 0).unwrap_err().to_string();
        assert!(
            error.contains("no machine code for decode_f32_bf16_k128 on compute capability 100"),
            "{error}"
        );
        assert_eq!(fake::calls("ptx"), 3);
    }

    /// A module whose files have the hashes of others.
    fn damaged(ptx: bool, binary: bool) -> &'static EmbeddedModule {
        let good = artifact::select(KEY, 90).unwrap();
        let hash = |damage, sha256| if damage { "0" } else { sha256 };
        let &EmbeddedBinary { file, gpu, sha256 } = good.binary(90).unwrap();
        let binaries = vec![EmbeddedBinary { file, gpu, sha256: hash(binary, sha256) }];
        Box::leak(Box::new(EmbeddedModule {
            sha256: hash(ptx, good.sha256),
            binaries: binaries.leak(),
            ..*good
        }))
    }

    #[test]
    fn damaged_file_is_an_error_and_nothing_takes_its_place() {
        if !has_machine_code() {
            return;
        }
        let context = fake::context_with_modules(0);
        let load = |module, code| {
            Loaded::module(&context, module, 90, code, Files::Embedded).map(|loaded| loaded.file().name)
        };
        for code in [Code::Auto, Code::Binary] {
            let error = load(damaged(false, true), code).unwrap_err();
            assert_eq!(
                error.to_string(),
                "decode_f32_bf16_k128.sm_90.cubin is damaged or of another build: its sha256 is not 0"
            );
        }
        let error = load(damaged(true, false), Code::Ptx { most: None }).unwrap_err();
        assert_eq!(
            error.to_string(),
            "decode_f32_bf16_k128.sm_90.ptx is damaged or of another build: its sha256 is not 0"
        );
        assert_eq!((fake::calls("binary"), fake::calls("ptx")), (0, 0));
        assert_eq!(load(damaged(true, false), Code::Auto).unwrap(), "decode_f32_bf16_k128.sm_90.cubin");
    }

    #[test]
    fn module_that_does_not_exist_is_said_not_to_and_what_does() {
        let context = fake::context_with_modules(0);
        let refused = |key| {
            Loaded::new(&context, key, 90, Code::Auto, Files::Embedded)
                .err()
                .expect("no such module")
                .to_string()
        };
        let (gdn, vk, bf16) = (Family::Gdn, Layout::Vk, DType::Bf16);
        let types = refused(ModuleKey::decode(gdn, Layout::Kv, DType::Bf16, DType::F32, 128));
        let start = "there is no module decode_kv_bf16_f32_k128 for any GPU: decode_kv has for K = 128 f32 with f32, ";
        assert!(types.starts_with(start) && types.contains(", bf16 with bf16"), "{types}");
        let k = refused(ModuleKey::recurrent(Family::Kda, vk, bf16, bf16, 512));
        let start =
            "there is no module kda_recurrent_bf16_bf16_k512 for any GPU: kda_recurrent has K = 64, 128";
        assert!(k.starts_with(start), "{k}");
        let v = refused(ModuleKey::gated_rmsnorm(bf16, bf16, 31));
        assert!(v.contains(" for any GPU: gated_rmsnorm has V = ") && v.contains("128"), "{v}");
        let low = Loaded::new(&context, KEY, 75, Code::Auto, Files::Embedded).err().unwrap().to_string();
        assert_eq!(low, format!("no kernel for {NAME} on compute capability 75: it needs at least 80"));
    }

    #[test]
    fn files_may_come_from_a_folder_or_from_memory() {
        if !has_machine_code() {
            return;
        }
        fn load(compute: u32, files: Files) -> Result<&'static str, LoadError> {
            let context = fake::context_with_modules(0);
            Loaded::new(&context, KEY, compute, Code::Auto, files).map(|loaded| loaded.file().name)
        }
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("ptx");
        let (cubin, ptx) = ("decode_f32_bf16_k128.sm_90.cubin", "decode_f32_bf16_k128.sm_90.ptx");
        assert_eq!(load(90, Files::Directory(&folder)).unwrap(), cubin);
        let [code, text] = [cubin, ptx].map(|file| fs::read(folder.join(file)).unwrap());
        // Machine code that is not at hand is no failure as long as there is PTX.
        assert_eq!(load(90, Files::Memory(&[(ptx, &text)])).unwrap(), ptx);
        assert_eq!(load(90, Files::Memory(&[(cubin, &code)])).unwrap(), cubin);

        let missing = load(90, Files::Directory(Path::new("/nowhere"))).unwrap_err().to_string();
        assert_eq!(missing, format!("{ptx} is not in /nowhere"));
        let missing = load(100, Files::Memory(&[(cubin, &code)])).unwrap_err().to_string();
        assert_eq!(missing, format!("{ptx} is not in the files given"));
        let other = load(90, Files::Memory(&[(cubin, &text)])).unwrap_err().to_string();
        assert!(other.starts_with(&format!("{cubin} is damaged or of another build: ")), "{other}");

        // Another build's folder is held against its own hashes, and has the files that they name.
        let hashes = |file: &str, bytes: &[u8]| [(file.to_owned(), artifact::sha256_hex(bytes))].into();
        assert_eq!(load(90, Files::OtherBuild(&folder, &hashes(ptx, &text))).unwrap(), ptx);
        let other = load(90, Files::OtherBuild(&folder, &hashes(cubin, &text))).unwrap_err().to_string();
        assert!(other.starts_with(&format!("{cubin} is damaged or of another build: ")), "{other}");
        let missing = load(90, Files::OtherBuild(&folder, &Default::default())).unwrap_err().to_string();
        assert_eq!(missing, format!("{ptx} is not in {}", folder.display()));
    }
}
