//! Modules: PTX, which the driver compiles, or machine code; with the driver's log kept.

use super::function::{Function, FunctionAttributes};
use super::symbols::Handle;
use super::{Context, Driver, DriverError, call};
use std::ffi::{CStr, c_uint, c_void};
use std::ptr::without_provenance_mut;

// CUjit_option.
const MAX_REGISTERS: c_uint = 0;
const THREADS_PER_BLOCK: c_uint = 1;
const INFO_LOG_BUFFER: c_uint = 3;
const INFO_LOG_BUFFER_SIZE_BYTES: c_uint = 4;
const ERROR_LOG_BUFFER: c_uint = 5;
const ERROR_LOG_BUFFER_SIZE_BYTES: c_uint = 6;
const OPTIMIZATION_LEVEL: c_uint = 7;
const LOG_VERBOSE: c_uint = 12;
const GENERATE_LINE_INFO: c_uint = 13;
pub(super) const SPLIT_COMPILE: c_uint = 34;

/// The CUDA version whose drivers know [`SPLIT_COMPILE`]; earlier ones refuse an option that they do not know.
const SPLITS_SINCE: (u32, u32) = (13, 0);

const LOG_BYTES: usize = 16 * 1024;

/// What the driver's compiler is asked for. The default leaves everything to the driver and to what
/// the PTX itself says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JitOptions {
    /// At most so many registers a thread.
    pub max_registers: Option<u32>,
    /// Registers are limited so that a block of so many threads fits; excludes `max_registers`.
    pub threads_per_block: Option<u32>,
    /// Optimisation level, 0 to 4. The driver's default is 4.
    pub optimization_level: Option<u32>,
    /// Compile on up to so many threads of the host, 0 for one on each of its CPUs. Left out where the driver is one for a
    /// CUDA before 13.0, which compiles on one.
    pub threads: Option<u32>,
    /// Keep source lines, for profilers.
    pub line_info: bool,
    /// Let the compiler report registers, spills and shared memory of every function in
    /// [`Module::log`].
    ///
    /// The driver takes a module from its cache where it can, and then says nothing.
    pub verbose: bool,
}

impl JitOptions {
    /// The options that are set and that the driver knows, as it wants them: numbers of options, and values in
    /// pointers' clothes.
    fn push_onto(
        &self,
        driver: &Driver,
        names: &mut Vec<c_uint>,
        values: &mut Vec<*mut c_void>,
    ) -> Result<(), DriverError> {
        let threads = match self.threads {
            Some(_) if driver.version()? < SPLITS_SINCE => None,
            threads => threads,
        };
        let numbers = [
            (SPLIT_COMPILE, threads),
            (MAX_REGISTERS, self.max_registers),
            (THREADS_PER_BLOCK, self.threads_per_block),
            (OPTIMIZATION_LEVEL, self.optimization_level),
            (GENERATE_LINE_INFO, self.line_info.then_some(1)),
            (LOG_VERBOSE, self.verbose.then_some(1)),
        ];
        for (name, value) in numbers {
            if let Some(value) = value {
                names.push(name);
                values.push(without_provenance_mut(value as usize));
            }
        }
        Ok(())
    }
}

/// What the driver loads.
#[derive(Clone, Copy)]
enum Image<'a> {
    Ptx(&'a CStr),
    Binary(&'a [u8]),
}

/// A loaded module, unloaded on drop.
///
/// # Threads
///
/// Any thread may hold, use and drop a module: the driver's module functions are thread-safe, and
/// the handle never changes.
#[derive(Debug)]
pub struct Module {
    context: Context,
    raw: Handle,
    log: String,
}

// SAFETY: a CUmodule is a handle that the driver lets any thread use; drop makes the right context
// current itself.
unsafe impl Send for Module {}
// SAFETY: methods that take &self only look functions up, which the driver allows from several
// threads at once.
unsafe impl Sync for Module {}

impl Module {
    /// Compiles PTX for the context's device and loads it. This takes milliseconds to seconds,
    /// unless the driver's cache has it.
    ///
    /// # Errors
    ///
    /// [`DriverError::Jit`], with the compiler's log.
    pub fn load(context: &Context, ptx: &CStr, options: &JitOptions) -> Result<Module, DriverError> {
        // SAFETY: asks nothing of text.
        unsafe { Self::load_image(context, Image::Ptx(ptx), options) }
    }

    /// Loads machine code (a cubin), which the driver does not compile. It runs on devices of its compute
    /// capability's major version, with its minor version or a later one.
    ///
    /// # Errors
    ///
    /// [`DriverError::Binary`], with the driver's log; see [`DriverError::refuses_image`].
    ///
    /// # Safety
    ///
    /// `cubin` is a whole ELF file as ptxas wrote it: the driver is not told where it ends and follows its headers.
    pub unsafe fn load_binary(context: &Context, cubin: &[u8]) -> Result<Module, DriverError> {
        // SAFETY: the caller's promise.
        unsafe { Self::load_image(context, Image::Binary(cubin), &JitOptions::default()) }
    }

    /// Loads an image, which the driver recognises by its first bytes.
    ///
    /// # Safety
    ///
    /// A binary is a whole ELF file.
    unsafe fn load_image(
        context: &Context,
        image: Image,
        options: &JitOptions,
    ) -> Result<Module, DriverError> {
        let _entered = context.enter()?;
        let driver = context.driver();
        let (mut info, mut error) = (vec![0u8; LOG_BYTES], vec![0u8; LOG_BYTES]);
        // The last byte is withheld, so that the texts end in NUL whatever the driver does.
        let size = without_provenance_mut(LOG_BYTES - 1);
        let mut names =
            vec![INFO_LOG_BUFFER, INFO_LOG_BUFFER_SIZE_BYTES, ERROR_LOG_BUFFER, ERROR_LOG_BUFFER_SIZE_BYTES];
        let mut values = vec![info.as_mut_ptr().cast(), size, error.as_mut_ptr().cast(), size];
        options.push_onto(driver, &mut names, &mut values)?;
        let mut raw = std::ptr::null_mut();
        let start: *const c_void = match image {
            Image::Ptx(text) => text.as_ptr().cast(),
            Image::Binary(cubin) => cubin.as_ptr().cast(),
        };
        // SAFETY: the image is text that ends in NUL, or the ELF file that the caller promises; both
        // arrays have as many elements as we say, each value is of its option's kind, and the
        // buffers are as long as stated and outlive the call. The driver may write sizes back into the values.
        let code = unsafe {
            (driver.symbols.cuModuleLoadDataEx)(
                &mut raw,
                start,
                names.len() as c_uint,
                names.as_mut_ptr(),
                values.as_mut_ptr(),
            )
        };
        if code != 0 {
            let (name, description) = driver.describe(code);
            let log = text(&error);
            return Err(match image {
                Image::Ptx(_) => DriverError::Jit { code, name, description, log },
                Image::Binary(_) => DriverError::Binary { code, name, description, log },
            });
        }
        Ok(Module { context: context.clone(), raw, log: text(&info) })
    }

    /// What the compiler printed on success; most often empty, see [`JitOptions::verbose`].
    pub fn log(&self) -> &str {
        &self.log
    }

    /// The entry point of this name, fully loaded, so that launching it never loads code.
    ///
    /// The handle carries no lifetime: it must not be used after the module is dropped, which is
    /// part of the promise that [`launch()`](fn@super::launch) asks for.
    ///
    /// # Errors
    ///
    /// [`DriverError::Call`] with `CUDA_ERROR_NOT_FOUND` when the module has no such entry.
    pub fn function(&self, name: &CStr) -> Result<Function, DriverError> {
        let _entered = self.context.enter()?;
        let driver = self.driver();
        let mut raw = std::ptr::null_mut();
        // SAFETY: the module is ours and alive, the name ends in NUL.
        unsafe { call!(driver, cuModuleGetFunction(&mut raw, self.raw, name.as_ptr())) }?;
        if let Some(load) = driver.symbols.cuFuncLoad {
            // SAFETY: the function is of our module, which is alive. Drivers without cuFuncLoad
            // load in cuModuleGetFunction.
            driver.check("cuFuncLoad", unsafe { load(raw) })?;
        }
        // SAFETY: the function is one of this driver.
        Ok(unsafe { Function::from_raw(driver, raw) })
    }

    /// What the compiler made of the entry point of this name.
    ///
    /// # Errors
    ///
    /// As for [`function`](Self::function).
    pub fn attributes(&self, name: &CStr) -> Result<FunctionAttributes, DriverError> {
        let _entered = self.context.enter()?;
        let function = self.function(name)?;
        // SAFETY: the function is of our module, which is alive.
        unsafe { function.attributes() }
    }

    /// The context into which the module is loaded.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The raw `CUmodule`, borrowed.
    pub fn as_raw(&self) -> *mut c_void {
        self.raw
    }

    fn driver(&self) -> &'static Driver {
        self.context.driver()
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        let _entered = self.context.enter();
        // SAFETY: the module is ours; whoever launches its functions promised to be done. The error
        // is ignored, see the module's head.
        unsafe { (self.driver().symbols.cuModuleUnload)(self.raw) };
    }
}

/// A log as text: up to the first NUL, without the compiler's trailing newlines.
fn text(log: &[u8]) -> String {
    let end = log.iter().position(|&byte| byte == 0).unwrap_or(log.len());
    String::from_utf8_lossy(&log[..end]).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::fake;
    use super::*;

    #[test]
    fn rejected_ptx_keeps_the_compilers_log() {
        unsafe extern "system" fn reject(
            _: *mut Handle,
            image: *const c_void,
            count: c_uint,
            names: *mut c_uint,
            values: *mut *mut c_void,
        ) -> u32 {
            // SAFETY: the caller's promise, that of cuModuleLoadDataEx.
            unsafe {
                assert_eq!(CStr::from_ptr(image.cast()), c"not ptx");
                let names = std::slice::from_raw_parts(names, count as usize);
                let values = std::slice::from_raw_parts(values, count as usize);
                let value = |name| values[names.iter().position(|&known| known == name).unwrap()];
                assert_eq!(value(MAX_REGISTERS).addr(), 64);
                assert!(!names.contains(&LOG_VERBOSE));
                let log = b"ptxas fatal : Missing .version\n\n";
                assert!(value(ERROR_LOG_BUFFER_SIZE_BYTES).addr() > log.len());
                std::ptr::copy_nonoverlapping(log.as_ptr(), value(ERROR_LOG_BUFFER).cast(), log.len());
            }
            218
        }
        let driver = fake::driver(|symbols| {
            fake::with_context(symbols);
            symbols.cuModuleLoadDataEx = reject;
        });
        let context = fake::context(driver);
        let options = JitOptions { max_registers: Some(64), ..JitOptions::default() };
        let error = Module::load(&context, c"not ptx", &options).unwrap_err();
        assert!(
            matches!(&error, DriverError::Jit { code: 218, log, .. } if log == "ptxas fatal : Missing .version"),
            "{error}"
        );
    }

    #[test]
    fn threads_are_asked_for_where_the_driver_knows_the_option() {
        let driver = fake::driver(fake::with_context);
        let names_for = |version, options: JitOptions| {
            fake::set_version(version);
            let (mut names, mut values) = (Vec::new(), Vec::new());
            options.push_onto(driver, &mut names, &mut values).unwrap();
            names.into_iter().zip(values.into_iter().map(|value| value.addr())).collect::<Vec<_>>()
        };
        let four = JitOptions { threads: Some(4), ..JitOptions::default() };
        assert_eq!(names_for(13_000, four), [(SPLIT_COMPILE, 4)]);
        assert_eq!(names_for(12_090, four), []);
        assert_eq!(names_for(13_000, JitOptions::default()), []);
    }

    #[test]
    fn option_follows_the_drivers_version() {
        let context = fake::context_with_modules(0);
        let options = JitOptions { threads: Some(4), ..JitOptions::default() };
        let asked = |version| {
            fake::set_version(version);
            let before = fake::calls("threads");
            Module::load(&context, c"ptx", &options).unwrap();
            fake::calls("threads") - before
        };
        assert_eq!([12_090, 13_000, 13_010].map(asked), [0, 1, 1]);
    }

    #[test]
    fn rejected_binary_keeps_the_drivers_log_and_says_that_it_is_one() {
        unsafe extern "system" fn reject(
            _: *mut Handle,
            image: *const c_void,
            count: c_uint,
            names: *mut c_uint,
            values: *mut *mut c_void,
        ) -> u32 {
            // SAFETY: the caller's promise, that of cuModuleLoadDataEx.
            unsafe {
                assert_eq!(std::slice::from_raw_parts(image.cast::<u8>(), 4), b"\x7fELF");
                let names = std::slice::from_raw_parts(names, count as usize);
                let at = names.iter().position(|&name| name == ERROR_LOG_BUFFER).unwrap();
                let log = b"newer than the driver\n";
                std::ptr::copy_nonoverlapping(log.as_ptr(), (*values.add(at)).cast(), log.len());
            }
            209
        }
        let driver = fake::driver(|symbols| {
            fake::with_context(symbols);
            symbols.cuModuleLoadDataEx = reject;
        });
        // SAFETY: the fake reads four bytes.
        let error = unsafe { Module::load_binary(&fake::context(driver), b"\x7fELF") }.unwrap_err();
        assert!(
            matches!(&error, DriverError::Binary { code: 209, log, .. } if log == "newer than the driver"),
            "{error}"
        );
        assert!(error.to_string().starts_with("the driver cannot load the binary"), "{error}");
    }

    #[test]
    fn full_log_without_nul_is_still_text() {
        assert_eq!(text(b"abc"), "abc");
        assert_eq!(text(b"abc\n\0def"), "abc");
        assert_eq!(text(b"\0"), "");
    }

    #[test]
    fn modules_and_functions_cross_threads() {
        fn holds<T: Send + Sync>() {}
        holds::<Module>();
        holds::<Function>();
    }
}
