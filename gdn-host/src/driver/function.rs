//! Kernel handles, and what the compiler made of a kernel.

use super::symbols::Handle;
use super::{Driver, DriverError, call};
use std::ffi::{c_int, c_uint, c_void};

// CUfunction_attribute.
const MAX_THREADS_PER_BLOCK: c_uint = 0;
const SHARED_SIZE_BYTES: c_uint = 1;
const CONST_SIZE_BYTES: c_uint = 2;
const LOCAL_SIZE_BYTES: c_uint = 3;
const NUM_REGS: c_uint = 4;
const PTX_VERSION: c_uint = 5;
const BINARY_VERSION: c_uint = 6;

/// A borrowed `CUfunction`: a kernel's handle. It must not be used after its module is unloaded.
#[derive(Clone, Copy, Debug)]
pub struct Function {
    driver: &'static Driver,
    raw: Handle,
}

// SAFETY: a CUfunction is a handle, and the driver lets any thread launch it. Whether it is alive
// is the promise of each use.
unsafe impl Send for Function {}
// SAFETY: as above.
unsafe impl Sync for Function {}

impl Function {
    /// A function of any owner, such as one loaded by `cust` or `cudarc`.
    ///
    /// # Safety
    ///
    /// `raw` must be a `CUfunction`, its module loaded wherever this value or a copy of it is used.
    pub const unsafe fn from_raw(driver: &'static Driver, raw: *mut c_void) -> Function {
        Function { driver, raw }
    }

    /// The raw `CUfunction`.
    pub const fn as_raw(self) -> *mut c_void {
        self.raw
    }

    pub(super) const fn driver(self) -> &'static Driver {
        self.driver
    }

    /// What the compiler made of the kernel. [`Module::attributes`](super::Module::attributes) is
    /// the safe form of this.
    ///
    /// # Errors
    ///
    /// [`DriverError::Call`].
    ///
    /// # Safety
    ///
    /// The function's module must be loaded.
    pub unsafe fn attributes(self) -> Result<FunctionAttributes, DriverError> {
        let get = |attribute| -> Result<u32, DriverError> {
            let mut value: c_int = 0;
            // SAFETY: the pointer is to a live int, the function is alive by the caller's promise.
            unsafe { call!(self.driver, cuFuncGetAttribute(&mut value, attribute, self.raw)) }?;
            Ok(value.unsigned_abs())
        };
        Ok(FunctionAttributes {
            registers: get(NUM_REGS)?,
            local_bytes: get(LOCAL_SIZE_BYTES)?,
            shared_bytes: get(SHARED_SIZE_BYTES)?,
            const_bytes: get(CONST_SIZE_BYTES)?,
            max_threads_per_block: get(MAX_THREADS_PER_BLOCK)?,
            ptx_version: get(PTX_VERSION)?,
            binary_version: get(BINARY_VERSION)?,
        })
    }
}

/// What the compiler made of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FunctionAttributes {
    /// Registers a thread.
    pub registers: u32,
    /// Local memory a thread in bytes: register spills and local arrays.
    pub local_bytes: u32,
    /// Static shared memory a block in bytes.
    pub shared_bytes: u32,
    /// Constant memory in bytes.
    pub const_bytes: u32,
    /// The most threads that a block of this kernel may have on this device.
    pub max_threads_per_block: u32,
    /// The PTX architecture it was compiled from, major * 10 + minor: 80 is sm_80.
    pub ptx_version: u32,
    /// The architecture it was compiled for, major * 10 + minor.
    pub binary_version: u32,
}
