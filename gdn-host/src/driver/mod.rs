//! The CUDA driver, opened at run time.
//!
//! This is a thin, typed layer over the few functions of `libcuda` that this crate uses: open a
//! context, load PTX or machine code, launch, time, capture into a graph. [`Driver::open`] finds the library
//! when it is first called, so a program that links this crate starts, and is tested, on machines
//! without a GPU; there a missing driver is an error value like any other.
//!
//! Why not one of the existing wrappers, which the `interop` features accept handles from?
//!
//! - `cust` links against libcuda, so a program with it does not start where the driver is missing,
//!   and its JIT options lose the compiler's log. It also has no graph capture and no way to launch
//!   on a stream that someone else made.
//! - `cudarc` makes each application choose a CUDA version by feature, and two of its versions in
//!   one program have different types. It panics when the library is missing, and loads PTX without
//!   options or log.
//!
//! So the core speaks raw handles ([`Stream`], device addresses as `u64`, [`Function`]), and
//! everything lives in the device's *primary* context, which is the one that `cust`, `cudarc`,
//! candle, PyTorch and the CUDA runtime use too. Pointers and streams of any of them are valid
//! here, and ours are valid there.
//!
//! # Example
//!
//! ```no_run
//! # fn run(ptx: &std::ffi::CStr) -> Result<(), gdn_host::driver::DriverError> {
//! use gdn_host::driver::{Context, DeviceBuffer, JitOptions, Module, OwnedStream, launch};
//!
//! let context = Context::primary(0)?;
//! let module = Module::load(&context, ptx, &JitOptions::default())?;
//! let function = module.function(c"scale")?;
//! let stream = OwnedStream::new(&context)?;
//! let data = DeviceBuffer::from_slice(&context, &[0; 1024])?;
//! let params: u64 = data.address();
//! // SAFETY: the kernel takes one u64, the address of 1024 bytes, which live past synchronize.
//! unsafe { launch(function, [1, 1, 1], 256, 0, stream.as_stream(), &params)? };
//! stream.synchronize()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Threads
//!
//! The driver itself is thread-safe. Its calls act on the calling thread's *current* context;
//! objects here remember theirs, make it current for the length of a call where that matters, and
//! put the thread's previous one back. Only [`launch()`](fn@launch), [`launch_early()`](fn@launch_early), [`Graph::launch`] and the other functions
//! of the hot path leave the context alone: there the caller has made it current.
//!
//! # Destructors
//!
//! Every `Drop` in this module ignores the driver's error on purpose. There is nobody to hand it
//! to, and what it reports is nearly always an earlier kernel's failure, which the next call
//! returns anyway, or a process that is exiting.

mod buffer;
mod context;
mod device;
mod error;
mod event;
#[cfg(test)]
pub(crate) mod fake;
mod function;
mod graph;
mod launch;
mod launch_early;
mod library;
mod module;
mod stream;
mod symbols;

pub use buffer::DeviceBuffer;
pub use context::{Context, Entered};
pub use device::Device;
pub use error::DriverError;
pub use event::Event;
pub use function::{Function, FunctionAttributes};
pub use graph::Graph;
pub use launch::launch;
pub use launch_early::launch_early;
pub use module::{JitOptions, Module};
pub use stream::{OwnedStream, Stream};

use std::ffi::{CStr, OsStr, c_char, c_int};
use std::sync::OnceLock;
use symbols::{CuResult, Symbols};

static DRIVER: OnceLock<Driver> = OnceLock::new();

/// The driver's entry points, loaded once in a process and never unloaded.
#[derive(Debug)]
pub struct Driver {
    symbols: Symbols,
}

impl Driver {
    /// Opens and initialises the driver, or returns the one already open.
    ///
    /// After the first success this is one atomic load. A failure isn't remembered: a later call
    /// tries again.
    ///
    /// The library is `libcuda.so.1`, `libcuda.so`, or one of the two in `/usr/lib/wsl/lib` or
    /// `/run/opengl-driver/lib` (`nvcuda.dll` on Windows). If the environment variable `GDN_LIBCUDA` is set,
    /// its value is the only one that is tried.
    ///
    /// # Errors
    ///
    /// [`DriverError::Missing`] if none of them can be loaded,
    /// [`DriverError::MissingSymbol`] when the driver is older than CUDA 11.4,
    /// [`DriverError::Init`] when `cuInit` fails, as it does on a machine without a GPU.
    pub fn open() -> Result<&'static Driver, DriverError> {
        if let Some(driver) = DRIVER.get() {
            return Ok(driver);
        }
        let driver = library::first(&library::names(), Driver::load)?;
        Ok(DRIVER.get_or_init(|| driver))
    }

    /// The CUDA version that the driver supports, as (major, minor); this bounds the PTX version
    /// that it can compile.
    ///
    /// # Errors
    ///
    /// [`DriverError::Call`], though the driver has no known reason to fail here.
    pub fn version(&self) -> Result<(u32, u32), DriverError> {
        let mut version: c_int = 0;
        // SAFETY: the pointer is to a live int.
        unsafe { call!(self, cuDriverGetVersion(&mut version)) }?;
        let version = version.unsigned_abs();
        Ok((version / 1000, version % 1000 / 10))
    }

    /// Whether [`launch_early()`](fn@launch_early) is possible: the driver is one for CUDA 11.8 or later.
    pub fn launches_early(&self) -> bool {
        self.symbols.cuLaunchKernelEx.is_some()
    }

    fn load(name: &OsStr) -> Result<Driver, DriverError> {
        let opened = library::open(name)?;
        // SAFETY: the signatures in the table are those of cuda.h.
        let symbols = unsafe { Symbols::load(&opened) };
        // The driver starts threads and registers exit handlers, so unloading it isn't safe,
        // whatever happens next.
        std::mem::forget(opened);
        let driver = Driver { symbols: symbols? };
        // SAFETY: cuInit takes flags, which must be zero.
        let code = unsafe { (driver.symbols.cuInit)(0) };
        if code != 0 {
            let (name, description) = driver.describe(code);
            return Err(DriverError::Init { code, name, description });
        }
        Ok(driver)
    }

    /// Turns the driver's code into a result; `function` is the name that the error shows.
    #[inline]
    fn check(&self, function: &'static str, code: CuResult) -> Result<(), DriverError> {
        if code == 0 { Ok(()) } else { Err(self.call_error(function, code)) }
    }

    #[cold]
    fn call_error(&self, function: &'static str, code: CuResult) -> DriverError {
        let (name, description) = self.describe(code);
        DriverError::Call { function, code, name, description }
    }

    /// The driver's own name and description of an error code.
    fn describe(&self, code: CuResult) -> (String, String) {
        let text = |lookup: unsafe extern "system" fn(CuResult, *mut *const c_char) -> CuResult,
                    unknown: &str| {
            let mut text = std::ptr::null();
            // SAFETY: the pointer is to a live pointer, which the driver sets to a static string,
            // or to null for an unknown code.
            unsafe {
                if lookup(code, &mut text) != 0 || text.is_null() {
                    return unknown.to_owned();
                }
                CStr::from_ptr(text).to_string_lossy().into_owned()
            }
        };
        (
            text(self.symbols.cuGetErrorName, "unknown error"),
            text(self.symbols.cuGetErrorString, "not described by this driver"),
        )
    }
}

/// `call!(driver, cuSomething(arguments))`: calls through the table and turns the code into a
/// result that names the function.
macro_rules! call {
    ($driver:expr, $name:ident($($argument:expr),* $(,)?)) => {{
        let driver: &$crate::driver::Driver = $driver;
        driver.check(stringify!($name), (driver.symbols.$name)($($argument),*))
    }};
}
use call;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_works_or_says_what_is_missing() {
        match Driver::open() {
            Ok(driver) => {
                assert!(driver.version().unwrap() >= (11, 4));
                assert!(std::ptr::eq(driver, Driver::open().unwrap()));
            }
            Err(DriverError::Missing { tried }) => {
                assert!(tried.iter().map(|(name, _)| name.as_str()).eq(library::names()));
                assert!(tried.iter().all(|(_, reason)| !reason.is_empty()));
            }
            Err(DriverError::Init { code, .. }) => assert_ne!(code, 0),
            Err(other) => panic!("unexpected: {other}"),
        }
    }

    #[test]
    fn missing_library_is_named() {
        let error = Driver::load("libcuda-which-nobody-has.so.1".as_ref()).unwrap_err().to_string();
        assert!(error.starts_with("no CUDA driver: cannot load libcuda-which-nobody-has.so.1 ("), "{error}");
    }

    #[test]
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    fn library_without_the_symbols_is_told_apart() {
        let error = Driver::load("libc.so.6".as_ref()).unwrap_err();
        assert_eq!(error, DriverError::MissingSymbol { name: "cuInit", since: "11.4" });
    }

    #[test]
    fn unknown_code_still_has_a_text() {
        let error = fake::driver(|_| ()).call_error("cuLaunchKernel", 12345);
        assert_eq!(
            error.to_string(),
            "cuLaunchKernel failed: unknown error (12345): not described by this driver"
        );
    }
}
