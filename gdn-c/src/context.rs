//! Loaded kernels, or a described device to plan for.

use crate::key::{all_keys, gdn_key, gdn_model};
use crate::prepared::plans_only;
use crate::read::{check_flags, check_reserved, check_zero, not_null, read, text, unknown, versioned};
use crate::status::{Failure, GDN_ERROR_TUNING, gdn_status, guarded};
use crate::text::write_text;
use gdn_host::driver::{Context, Stream};
use gdn_host::{
    Caps, Code, Error, Files, Gdn, Launch, ModuleKey, Operation, Plan, Prepared, Tuning, find_module,
};
use std::ffi::c_char;
use std::path::Path;
use std::sync::Arc;

/// Of `gdn_context_options.flags`: work in the primary context of `device`, which the CUDA runtime and PyTorch use too, and
/// make it current on the calling thread. Without it the thread's current context is taken.
pub const GDN_PRIMARY_CONTEXT: u32 = 1;

/// Machine code for the device if there is some and the driver takes it, else PTX.
pub const GDN_CODE_AUTO: u32 = 0;
/// Machine code, and nothing else.
pub const GDN_CODE_BINARY: u32 = 1;
/// PTX, which the driver compiles.
pub const GDN_CODE_PTX: u32 = 2;

/// What is known of a device.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gdn_caps {
    /// `sizeof(gdn_caps)`.
    pub size: u32,
    /// Streaming multiprocessors.
    pub sms: u32,
    /// Compute capability as `10 * major + minor`.
    pub compute: u32,
    /// Peak bandwidth of the device memory in GB/s; 0 if it is not known.
    pub memory_gbps: u32,
}

/// How a context is made; NULL in its place, and zeros in its fields, are the ordinary choice.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gdn_context_options {
    /// `sizeof(gdn_context_options)`.
    pub size: u32,
    /// `GDN_PRIMARY_CONTEXT` or 0.
    pub flags: u32,
    /// With `GDN_PRIMARY_CONTEXT`: the device's ordinal.
    pub device: u32,
    /// `GDN_CODE_*`.
    pub code: u32,
    /// With `GDN_CODE_PTX`: the highest target to take (80, 90); 0: the highest that the device runs.
    pub ptx_target: u32,
    /// 0.
    pub reserved: u32,
    /// A folder with the kernels' files, of this very version; NULL: the files within the library.
    pub folder: *const c_char,
    /// A table of choices that `cargo xtask tune` wrote on the GPU at hand; NULL: the file that the environment variable
    /// `GDN_TUNING` names, or an embedded table.
    pub tuning: *const c_char,
    /// NULL; or a device that is described instead of present. The context then loads nothing and needs no driver: it checks
    /// and plans as on that device, and a launch is `GDN_ERROR_NOT_LOADED`. What says how to load (`flags`, `code`, `folder`) is then 0.
    pub described: *const gdn_caps,
}

versioned!(gdn_caps, gdn_context_options);

/// Kernels that were loaded into a CUDA context. It may be used from several threads at once; a thread that launches has that
/// CUDA context current.
pub struct gdn_context {
    kernels: Kernels,
}

enum Kernels {
    Loaded(Gdn),
    Described(Described),
}

/// A device that is not here.
struct Described {
    keys: Vec<ModuleKey>,
    caps: Caps,
    tuning: Tuning,
}

impl Described {
    fn plan(&self, call: &dyn Operation, launch: Launch) -> Result<Plan, Failure> {
        let plan = launch.plan(call, &self.caps, &self.tuning)?;
        // All that precedes a launch, so that a fault in it shows without a GPU.
        if !call.is_empty() {
            let _ = call.params(&plan);
        }
        if !self.keys.contains(&plan.module) {
            return Err(Error::NotLoaded(plan.module).into());
        }
        Ok(plan)
    }
}

impl gdn_context {
    /// The plan, and what can be launched.
    pub(crate) fn prepare(
        &self,
        call: &dyn Operation,
        launch: Launch,
    ) -> Result<(Plan, Option<Prepared<'_>>), Failure> {
        match &self.kernels {
            Kernels::Loaded(gdn) => {
                let prepared = gdn.prepare(call, launch)?;
                Ok((*prepared.plan(), Some(prepared)))
            }
            Kernels::Described(device) => Ok((device.plan(call, launch)?, None)),
        }
    }

    /// # Safety
    /// As `Gdn::run_with`.
    pub(crate) unsafe fn run(
        &self,
        call: &dyn Operation,
        launch: Launch,
        stream: Stream,
    ) -> Result<(), Failure> {
        match &self.kernels {
            // SAFETY: the caller's promise.
            Kernels::Loaded(gdn) => unsafe { Ok(gdn.run_with(call, launch, stream)?) },
            Kernels::Described(device) => device.plan(call, launch).and_then(|_| Err(plans_only())),
        }
    }
}

/// What the options say, read.
struct Options<'a> {
    primary: Option<u32>,
    code: Code,
    folder: Option<&'a Path>,
    tuning: Option<Tuning>,
    described: Option<Caps>,
}

impl Options<'_> {
    /// # Safety
    /// `options` is NULL, or points to a struct as long as its `size` says whose pointers are NULL or hold for `'a`.
    unsafe fn read<'a>(options: *const gdn_context_options) -> Result<Options<'a>, Failure> {
        if options.is_null() {
            return Ok(Options {
                primary: None,
                code: Code::Auto,
                folder: None,
                tuning: None,
                described: None,
            });
        }
        // SAFETY: the caller's promise, here and below.
        let options = unsafe { read(options)? };
        check_flags("options.flags", options.flags, GDN_PRIMARY_CONTEXT)?;
        check_reserved("options.reserved", options.reserved)?;
        let primary = (options.flags & GDN_PRIMARY_CONTEXT != 0).then_some(options.device);
        if primary.is_none() {
            check_zero("options.device", options.device, "GDN_PRIMARY_CONTEXT is not set")?;
        }
        if options.code != GDN_CODE_PTX {
            check_zero("options.ptx_target", options.ptx_target, "code is not GDN_CODE_PTX")?;
        }
        let code = match options.code {
            GDN_CODE_AUTO => Code::Auto,
            GDN_CODE_BINARY => Code::Binary,
            GDN_CODE_PTX => Code::Ptx { most: Some(options.ptx_target).filter(|target| *target != 0) },
            other => return unknown("options.code", other, "one of GDN_CODE_*"),
        };
        let path = |path: *const c_char, field| {
            // SAFETY: a text, by the caller's promise.
            (!path.is_null()).then(|| unsafe { text(path, field) }).transpose()
        };
        let folder = path(options.folder, "options.folder")?.map(Path::new);
        let tuning = path(options.tuning, "options.tuning")?.map(read_tuning).transpose()?;
        // SAFETY: as above.
        let caps = || unsafe { read(options.described) };
        let described = (!options.described.is_null()).then(caps).transpose()?;
        if described.is_some() {
            let why = "a described device loads nothing";
            check_zero("options.flags", options.flags, why)?;
            check_zero("options.code", options.code, why)?;
            if folder.is_some() {
                return Err(Failure::argument(
                    "options.folder: it must be NULL: a described device loads nothing",
                ));
            }
        }
        let described = described.map(|caps| Caps {
            sms: caps.sms,
            compute: caps.compute,
            memory_gbps: caps.memory_gbps,
        });
        Ok(Options { primary, code, folder, tuning, described })
    }
}

fn read_tuning(file: &str) -> Result<Tuning, Failure> {
    let failure = |what: String| Failure::new(GDN_ERROR_TUNING, format!("options.tuning: {file}{what}"));
    let table =
        std::fs::read_to_string(file).map_err(|error| failure(format!(" cannot be read: {error}")))?;
    Tuning::parse(&table).map_err(|error| failure(format!(": {error}")))
}

fn create(keys: Vec<ModuleKey>, options: Options) -> Result<gdn_context, Failure> {
    let kernels = if let Some(caps) = options.described {
        for key in &keys {
            find_module(*key, caps.compute)?;
        }
        let tuning = options.tuning.unwrap_or_else(|| Tuning::nearest(&caps).clone());
        Kernels::Described(Described { keys, caps, tuning })
    } else {
        // The loaded kernels hold the context from here on.
        let _primary = options.primary.map(Context::primary).transpose()?;
        let files = options.folder.map_or(Files::Embedded, Files::Directory);
        let gdn = Gdn::load_from(&keys, options.code, files)?;
        Kernels::Loaded(match options.tuning {
            Some(tuning) => gdn.with_tuning(tuning),
            None => gdn,
        })
    };
    Ok(gdn_context { kernels })
}

/// Loads kernels: those that `model` (which may be NULL) needs, and those of `count` `keys`. It verifies files, compiles PTX
/// where there is no machine code, allocates and synchronises: call it once at start-up, before any stream capture.
///
/// `options` may be NULL: then kernels are loaded into the thread's current CUDA context. `*context` is NULL on any status but
/// `GDN_OK`: `GDN_ERROR_NO_DRIVER`, `GDN_ERROR_CUDA_CONTEXT`, `GDN_ERROR_MODULE`, `GDN_ERROR_TUNING`, `GDN_ERROR_DRIVER`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gdn_context_create(
    model: *const gdn_model,
    keys: *const gdn_key,
    count: usize,
    options: *const gdn_context_options,
    context: *mut *mut gdn_context,
) -> gdn_status {
    guarded(|| {
        not_null(context, "the place of the context")?;
        // SAFETY: the caller's promise: structs as long as they say, `count` keys, and a place for the handle.
        unsafe {
            *context = std::ptr::null_mut();
            let made = create(all_keys(model, keys, count)?, Options::read(options)?)?;
            *context = Arc::into_raw(Arc::new(made)).cast_mut();
        }
        Ok(())
    })
}

/// What is known of the context's device. `caps->size` says how long the caller's struct is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gdn_context_caps(context: *const gdn_context, caps: *mut gdn_caps) -> gdn_status {
    guarded(|| {
        // SAFETY: the caller's promise: a handle, and a struct as long as it says.
        unsafe {
            let context = &*not_null(context, "the context")?;
            let gdn_caps { size, .. } = read(caps.cast_const())?;
            let known = match &context.kernels {
                Kernels::Loaded(gdn) => gdn.caps(),
                Kernels::Described(device) => &device.caps,
            };
            let &Caps { sms, compute, memory_gbps } = known;
            let known = gdn_caps { size, sms, compute, memory_gbps };
            caps.cast::<u8>().copy_from_nonoverlapping((&raw const known).cast(), size as usize);
        }
        Ok(())
    })
}

/// Writes the files that were loaded, a line each: name, a space, SHA-256. As in `gdn_prepared_plan`, at most `size` bytes are
/// written and the length of the whole text is returned. A context of a described device has loaded none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gdn_context_files(
    context: *const gdn_context,
    buffer: *mut c_char,
    size: usize,
) -> usize {
    let files = || {
        // SAFETY: the caller's promise: NULL or a handle.
        let Kernels::Loaded(gdn) = &unsafe { context.as_ref() }?.kernels else { return None };
        Some(gdn.files().map(|file| format!("{} {}\n", file.name, file.sha256)).collect())
    };
    // SAFETY: `size` bytes are there, by the caller's promise.
    unsafe { write_text(buffer, size, files) }
}

/// Lets go of a context; NULL is nothing. Prepared calls keep what they need of it, graphs do not.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gdn_context_destroy(context: *mut gdn_context) {
    guarded(|| {
        if !context.is_null() {
            // SAFETY: the caller's promise: a handle, used for the last time.
            drop(unsafe { Arc::from_raw(context.cast_const()) });
        }
        Ok(())
    });
}
