//! The loaded kernels of a device, and their launches.

use crate::artifact::{self, EmbeddedModule, Files};
use crate::call::{CallError, Operation, Params};
use crate::driver::{self, Context, Device, Driver, DriverError, Function, Stream};
use crate::key::ModuleKey;
use crate::load::{Code, LoadError, Loaded, LoadedFile};
use crate::plan::{Caps, Launch, Plan, PlanError, Tuning};
use std::sync::Arc;
use thiserror::Error;

/// A launch that did not happen.
#[derive(Debug, Error)]
pub enum Error {
    /// The arguments.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The tile.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The call's types are not among the modules that were loaded.
    #[error("{0} was not loaded: name it in Gdn::load")]
    NotLoaded(ModuleKey),
    /// The driver refused the launch.
    #[error(transparent)]
    Driver(#[from] DriverError),
}

/// The kernels of one CUDA context, loaded and ready to launch.
///
/// Loading verifies machine code or has the driver JIT-compile PTX, allocates and synchronises: do it at start-up,
/// before any stream capture. Launching does none of that, takes no lock, and may be captured into a graph. A `Gdn` may
/// be shared between threads; the launching thread must have the context current that the `Gdn` was loaded in.
pub struct Gdn {
    context: Context,
    loaded: Vec<Arc<Loaded>>,
    caps: Caps,
    /// The caller's table of choices, or the embedded one.
    tuning: Tuning,
    /// Whether the driver can launch early.
    launches_early: bool,
}

impl Gdn {
    /// Loads modules into the calling thread's current context: for each the embedded machine code for the device where
    /// there is some that the driver takes, else the embedded PTX with the highest target the device runs; after its
    /// sha256 was verified. [`Self::files`] says which.
    ///
    /// # Errors
    /// [`LoadError`]: no driver, no current context, a module that does not exist (it names what there is) or that the
    /// features of this crate leave out (it names them), a device below compute capability 8.0, or a failed JIT with its log.
    pub fn load(keys: &[ModuleKey]) -> Result<Gdn, LoadError> {
        Self::load_code(keys, Code::default())
    }

    /// [`Self::load`] with the code named: for proving that every file gives the same bits on the device at hand, and
    /// for timing.
    ///
    /// # Errors
    /// As [`Self::load`]; with [`Code::Binary`] also a module without machine code for the device, or a driver that
    /// does not take it.
    pub fn load_code(keys: &[ModuleKey], code: Code) -> Result<Gdn, LoadError> {
        Self::load_from(keys, code, Files::Embedded)
    }

    /// [`Self::load_code`] with files that the caller brings instead of the embedded ones: from a folder, or from memory.
    /// They are those of this version of the crate: each is held against the sha256 that the crate was built with.
    ///
    /// With the crate's default features off nothing is embedded, and a program is as large as its code.
    ///
    /// ```no_run
    /// # use gdn_host::{Code, DType, Family, Files, Gdn, Layout, ModuleKey};
    /// # fn main() -> Result<(), gdn_host::LoadError> {
    /// let keys = [ModuleKey::decode(Family::Gdn, Layout::Vk, DType::F32, DType::Bf16, 128)];
    /// let folder = Files::Directory("/usr/share/gdn".as_ref());
    /// let gdn = Gdn::load_from(&keys, Code::Auto, folder)?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Self::load_code`]; and [`LoadError::File`] for a file that is not there, cannot be read or is of another build.
    pub fn load_from(keys: &[ModuleKey], code: Code, files: Files) -> Result<Gdn, LoadError> {
        let driver = |what: &str, source| LoadError::Driver { what: what.into(), source };
        let context = Context::current().map_err(|e| driver("current context", e))?;
        let caps = device_caps(context.device()).map_err(|e| driver("device attributes", e))?;
        let load = |&key| Loaded::new(&context, key, caps.compute, code, files).map(Arc::new);
        let loaded = keys.iter().map(load).collect::<Result<_, _>>()?;
        let launches_early = Driver::open().is_ok_and(Driver::launches_early);
        let tuning = tuning_of_environment()?.unwrap_or_else(|| Tuning::nearest(&caps).clone());
        Ok(Gdn { context, loaded, caps, tuning, launches_early })
    }

    /// The same kernels and those of more modules, which are loaded into the same context; what was loaded is shared. A module
    /// that is there is not loaded again.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn with_modules(&self, keys: &[ModuleKey]) -> Result<Gdn, LoadError> {
        let entered = self.context.enter();
        let what = "entering the context";
        let _entered = entered.map_err(|source| LoadError::Driver { what: what.into(), source })?;
        let mut loaded = self.loaded.clone();
        for &key in keys {
            if self.find(key).is_none() {
                let (code, files) = (Code::default(), Files::Embedded);
                loaded.push(Arc::new(Loaded::new(&self.context, key, self.caps.compute, code, files)?));
            }
        }
        let Gdn { context, caps, tuning, launches_early, .. } = self;
        let (context, tuning) = (context.clone(), tuning.clone());
        Ok(Gdn { context, loaded, caps: *caps, tuning, launches_early: *launches_early })
    }

    /// The same kernels, launched as a table of the caller's says, which `cargo xtask tune` wrote on the GPU at hand. Classes
    /// that the table lacks go by the embedded one. Without this, and if the environment variable `GDN_TUNING` names a file
    /// when kernels are loaded, that file is the table.
    pub fn with_tuning(self, tuning: Tuning) -> Gdn {
        Gdn { tuning, ..self }
    }

    /// The table that launches follow.
    pub fn tuning(&self) -> &Tuning {
        &self.tuning
    }

    /// Capabilities of the device.
    pub fn caps(&self) -> &Caps {
        &self.caps
    }

    /// The loaded embedded modules: which file serves which types.
    pub fn modules(&self) -> impl Iterator<Item = &'static EmbeddedModule> {
        self.loaded.iter().map(|l| l.embedded)
    }

    /// The files that were loaded, one a module: a cubin, or PTX that the driver compiled.
    pub fn files(&self) -> impl Iterator<Item = LoadedFile> {
        self.loaded.iter().map(|loaded| loaded.file())
    }

    /// The plan [`Self::run_with`] follows for a call; that of [`Self::run`] is for [`Launch::default()`]. A call whose
    /// module is not loaded is never planned to be launched early.
    ///
    /// # Errors
    /// [`Error::Call`] and [`Error::Plan`].
    pub fn plan(&self, call: &dyn Operation, launch: impl Into<Launch>) -> Result<Plan, Error> {
        // An ordinary launch looks its module up once, in `function`.
        let target = |module| {
            let loaded = if self.launches_early { self.find(module) } else { None };
            Some(loaded?.embedded.arch)
        };
        launch.into().plan_with(call, &self.caps, &self.tuning, target)
    }

    /// Runs an operation in the order of `stream`: [`Decode`](crate::Decode) and every other call of
    /// [`crate::call`].
    ///
    /// # Errors
    /// [`enum@Error`]: nothing was launched and nothing written.
    ///
    /// # Safety
    /// The addresses of `call` are device memory of the current context, valid until the launch has run, of
    /// the lengths the call states; indices in its tables name slots that no other running work uses; the
    /// current context is the one the kernels were loaded in; `stream` belongs to it.
    pub unsafe fn run(&self, call: &dyn Operation, stream: Stream) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        unsafe { self.run_with(call, Launch::default(), stream) }
    }

    /// [`Self::run`] with a [`Tile`](crate::Tile) of the caller's choice or launched early; the result is the same bit
    /// for bit.
    ///
    /// # Errors
    /// As [`Self::run`].
    ///
    /// # Safety
    /// As [`Self::run`]; and with [`Launch::early`] what its documentation asks of the work in front.
    pub unsafe fn run_with(
        &self,
        call: &dyn Operation,
        launch: impl Into<Launch>,
        stream: Stream,
    ) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        unsafe { Ok(self.prepare(call, launch)?.launch(stream)?) }
    }

    /// Checks and plans a call once, for launching it many times.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn prepare(&self, call: &dyn Operation, launch: impl Into<Launch>) -> Result<Prepared<'_>, Error> {
        let plan = self.plan(call, launch)?;
        let function = self.function(&plan)?;
        // A call that launches nothing may say anything: only its options were checked.
        let is_empty = call.is_empty();
        let params = if is_empty { Params::new(&0_u64) } else { call.params(&plan) };
        Ok(Prepared { function, plan, params, is_empty, context: &self.context })
    }

    fn find(&self, key: ModuleKey) -> Option<&Loaded> {
        self.loaded.iter().map(Arc::as_ref).find(|l| l.key == key)
    }

    fn function(&self, plan: &Plan) -> Result<Function, Error> {
        let key = plan.module;
        let loaded = self.find(key).ok_or(Error::NotLoaded(key))?;
        let found = loaded.functions.iter().find(|(rows, _)| *rows == plan.rows);
        found.map(|(_, function)| *function).ok_or(Error::NotLoaded(key))
    }
}

/// A checked and planned call.
///
/// Whoever repeats a call with the same addresses, outside a graph of the whole step, pays the least per launch with a graph of
/// this launch alone: on an H100 the driver takes a third to a half as long to replay one as to launch a kernel
/// (`docs/BENCHMARKS.md`). Such a launch is not early, and the graph must not outlive the [`Gdn`].
///
/// ```no_run
/// # use gdn_host::{Prepared, driver::{DriverError, Graph, OwnedStream}};
/// # unsafe fn steps(prepared: Prepared, stream: &OwnedStream) -> Result<(), DriverError> {
/// let graph = Graph::capture(stream, |stream| unsafe { prepared.launch(stream) })?;
/// for _ in 0..100 {
///     unsafe { graph.launch(stream.as_stream())? };
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Prepared<'a> {
    function: Function,
    plan: Plan,
    params: Params,
    is_empty: bool,
    /// Where the function lives: a module of the [`Gdn`] has it.
    context: &'a Context,
}

impl Prepared<'_> {
    /// The plan; its `early` says whether an early launch that was asked for is made.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Launches the call in the order of `stream`: the driver is asked for the thread's current context, which is a look at a
    /// variable of the thread, then launches, and nothing else is done.
    ///
    /// # Errors
    /// [`DriverError::OtherContext`] on a thread whose current context is not the one the kernels were loaded in; what the
    /// driver says.
    ///
    /// # Safety
    /// As [`Gdn::run_with`], for each launch anew.
    pub unsafe fn launch(&self, stream: Stream) -> Result<(), DriverError> {
        if self.is_empty {
            return Ok(());
        }
        self.context.check_current()?;
        let (params, plan) = (self.params.as_bytes().as_ptr(), &self.plan);
        let launch = if plan.early { driver::launch_early } else { driver::launch };
        // SAFETY: the parameter struct is the entry's (tests hold its size against the manifest), the plan's
        // grid is the one that struct describes, and the caller vouches for the addresses. Early, the struct has
        // the flag with which the kernel waits before it reads inputs; the caller vouches for the rest.
        unsafe { launch(self.function, plan.grid, plan.block(), 0, stream, params) }
    }
}

/// The table in the file that `GDN_TUNING` names, if it names one.
fn tuning_of_environment() -> Result<Option<Tuning>, LoadError> {
    let Some(file) = std::env::var_os("GDN_TUNING").filter(|file| !file.is_empty()) else { return Ok(None) };
    let file = std::path::PathBuf::from(file);
    match std::fs::read_to_string(&file) {
        Ok(text) => Tuning::parse(&text).map(Some).map_err(|source| LoadError::Tuning { file, source }),
        Err(source) => Err(LoadError::TuningFile { file, source }),
    }
}

/// What is known of a device.
///
/// # Errors
/// A driver call that failed.
pub fn device_caps(device: Device) -> Result<Caps, DriverError> {
    let (major, minor) = device.compute_capability()?;
    // Two transfers a clock; a device that does not tell its clock or width has no known bandwidth.
    let bits_a_second = match (device.memory_clock_khz(), device.memory_bus_bits()) {
        (Ok(khz), Ok(bits)) => 2e3 * f64::from(khz) * f64::from(bits),
        _ => 0.0,
    };
    let memory_gbps = (bits_a_second / 8e9) as u32;
    Ok(Caps { sms: device.sm_count()?, compute: 10 * major + minor, memory_gbps })
}

/// Every module that is embedded: for tools and tests; a runtime loads the one or two that its model needs.
pub fn all_modules() -> Vec<ModuleKey> {
    let embedded = artifact::modules().iter().filter(|m| m.is_embedded());
    let mut keys: Vec<ModuleKey> = embedded.map(|m| m.key).collect();
    keys.sort_by_key(ModuleKey::to_string);
    keys.dedup();
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::{CopyState, SlotPool, Table, Tensor};
    use crate::driver::fake;
    use crate::{DType, Tile};
    use std::ptr::null_mut;

    /// A copy of a slot of 16 bytes.
    fn copy() -> CopyState {
        let pool = |address| {
            let tensor = Tensor { address, dtype: DType::F32, len: 4 };
            SlotPool { tensor, slots: 1, pitch: 4, layout: None }
        };
        CopyState {
            copies: 1,
            elements: 4,
            source: pool(0x1000),
            source_slots: None,
            target: pool(0x2000),
            target_slots: None,
            null_slot: None,
        }
    }

    /// The kernel of copies on a fake driver.
    fn gdn() -> Gdn {
        let context = fake::context_with_modules(0);
        let copies = Loaded::new(&context, ModuleKey::copy_state(), 90, Code::Auto, Files::Embedded).unwrap();
        let caps = Caps { sms: 132, compute: 90, memory_gbps: 3352 };
        let tuning = Tuning::nearest(&caps).clone();
        Gdn { context, loaded: vec![Arc::new(copies)], caps, tuning, launches_early: false }
    }

    #[test]
    fn more_modules_are_loaded_beside_those_that_are_there() {
        let gdn = gdn();
        let more = gdn.with_modules(&[ModuleKey::copy_state(), ModuleKey::unpack_qkvz()]).unwrap();
        let keys: Vec<ModuleKey> = more.modules().map(|module| module.key).collect();
        assert_eq!(keys, [ModuleKey::copy_state(), ModuleKey::unpack_qkvz()]);
        assert!(Arc::ptr_eq(&gdn.loaded[0], &more.loaded[0]), "it was loaded again");
        drop(gdn);
        // SAFETY: the fake driver runs nothing.
        unsafe { more.run(&copy(), Stream::DEFAULT) }.unwrap();
        assert_eq!(fake::calls("launch"), 1);
    }

    #[test]
    fn empty_call_may_say_anything_and_launches_nothing() {
        let gdn = gdn();
        let table = Some(Table::i32(8, 1).with_stride(u64::MAX));
        let call = CopyState { copies: 0, source_slots: table, target_slots: table, ..copy() };
        let prepared = gdn.prepare(&call, Tile::Auto).unwrap();
        // SAFETY: the fake driver runs nothing.
        assert_eq!(unsafe { prepared.launch(Stream::DEFAULT) }, Ok(()));
        assert_eq!(fake::calls("launch"), 0);
    }

    #[test]
    fn a_thread_with_another_context_launches_nothing() {
        let gdn = gdn();
        let loaded = gdn.context.as_raw();
        let (call, stream) = (copy(), Stream::DEFAULT);
        let prepared = gdn.prepare(&call, Tile::Auto).unwrap();
        // SAFETY: the fake driver runs nothing.
        let launch = || unsafe { prepared.launch(stream) };
        assert_eq!(launch(), Ok(()));
        let other = 0x77;
        fake::set_current(other as *mut _);
        assert_eq!(launch(), Err(DriverError::OtherContext { current: other, loaded: loaded.addr() }));
        // SAFETY: as above.
        let error = unsafe { gdn.run(&call, stream) }.unwrap_err();
        assert!(error.to_string().starts_with("the current CUDA context 0x77 is not 0x1000"), "{error}");
        assert_eq!(fake::calls("launch"), 1);
        // A stream may imply the context; else it is the driver that says no.
        fake::set_current(null_mut());
        assert_eq!(launch(), Ok(()));
        fake::set_current(loaded);
        assert_eq!(launch(), Ok(()));
    }
}
