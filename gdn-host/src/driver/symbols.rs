//! The table of driver functions: one line each, with the signature that `cuda.h` gives.
//!
//! Names are those that the library exports. Where the header redirects a plain name to a `_v2`
//! one, the plain name is an old 32-bit or deprecated variant, so the `_v2` one stands here.
//! Handles are opaque pointers, `CUdeviceptr` is 64 bits wide.

use super::DriverError;
use super::launch_early::LaunchConfig;
use std::ffi::{c_char, c_int, c_uint, c_void};

/// `CUresult`; 0 is success.
pub(super) type CuResult = u32;
/// `CUdevice`.
pub(super) type CuDevice = c_int;
/// `CUcontext`, `CUmodule`, `CUfunction`, `CUstream`, `CUevent`, `CUgraph` and `CUgraphExec`.
pub(super) type Handle = *mut c_void;
/// `CUdeviceptr`.
pub(super) type Address = u64;

macro_rules! symbols {
    (
        required { $(fn $name:ident($($argument:ty),* $(,)?);)* }
        optional { $(fn $extra:ident($($extra_argument:ty),* $(,)?);)* }
    ) => {
        #[allow(non_snake_case)]
        #[derive(Debug)]
        pub(super) struct Symbols {
            $(pub(super) $name: unsafe extern "system" fn($($argument),*) -> CuResult,)*
            $(pub(super) $extra: Option<unsafe extern "system" fn($($extra_argument),*) -> CuResult>,)*
        }

        impl Symbols {
            /// Looks up every function.
            ///
            /// # Safety
            ///
            /// `library` must be the CUDA driver, and must never be unloaded.
            pub(super) unsafe fn load(library: &libloading::Library) -> Result<Self, DriverError> {
                Ok(Self {
                    // SAFETY: of this name the driver has a function of this signature; the caller
                    // keeps the library loaded.
                    $($name: *unsafe { library.get(concat!(stringify!($name), "\0")) }
                        .map_err(|_| DriverError::MissingSymbol { name: stringify!($name), since: "11.4" })?,)*
                    // SAFETY: as above.
                    $($extra: unsafe { library.get(concat!(stringify!($extra), "\0")) }.ok().map(|symbol| *symbol),)*
                })
            }

            /// A table whose every function fails with `CUDA_ERROR_NOT_SUPPORTED`, for tests to
            /// fill in.
            #[cfg(test)]
            pub(super) fn unsupported() -> Self {
                $(
                    #[allow(non_snake_case)]
                    unsafe extern "system" fn $name($(_: $argument),*) -> CuResult {
                        801
                    }
                )*
                Self { $($name,)* $($extra: None,)* }
            }
        }
    };
}

symbols! {
    required {
        fn cuInit(c_uint);
        fn cuDriverGetVersion(*mut c_int);
        fn cuGetErrorName(CuResult, *mut *const c_char);
        fn cuGetErrorString(CuResult, *mut *const c_char);

        fn cuDeviceGet(*mut CuDevice, c_int);
        fn cuDeviceGetCount(*mut c_int);
        fn cuDeviceGetName(*mut c_char, c_int, CuDevice);
        fn cuDeviceGetAttribute(*mut c_int, c_uint, CuDevice);
        fn cuDeviceTotalMem_v2(*mut usize, CuDevice);

        fn cuDevicePrimaryCtxRetain(*mut Handle, CuDevice);
        fn cuDevicePrimaryCtxRelease_v2(CuDevice);
        fn cuDevicePrimaryCtxGetState(CuDevice, *mut c_uint, *mut c_int);
        fn cuCtxGetCurrent(*mut Handle);
        fn cuCtxSetCurrent(Handle);
        fn cuCtxGetDevice(*mut CuDevice);
        fn cuCtxSynchronize();

        fn cuModuleLoadDataEx(*mut Handle, *const c_void, c_uint, *mut c_uint, *mut *mut c_void);
        fn cuModuleUnload(Handle);
        fn cuModuleGetFunction(*mut Handle, Handle, *const c_char);
        fn cuFuncGetAttribute(*mut c_int, c_uint, Handle);
        fn cuLaunchKernel(
            Handle, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Handle,
            *mut *mut c_void, *mut *mut c_void
        );

        fn cuMemAlloc_v2(*mut Address, usize);
        fn cuMemFree_v2(Address);
        fn cuMemcpyHtoD_v2(Address, *const c_void, usize);
        fn cuMemcpyDtoH_v2(*mut c_void, Address, usize);
        fn cuMemcpyDtoDAsync_v2(Address, Address, usize, Handle);
        fn cuMemsetD8_v2(Address, u8, usize);

        fn cuStreamCreate(*mut Handle, c_uint);
        fn cuStreamDestroy_v2(Handle);
        fn cuStreamSynchronize(Handle);
        fn cuStreamBeginCapture_v2(Handle, c_uint);
        fn cuStreamIsCapturing(Handle, *mut c_uint);
        fn cuStreamEndCapture(Handle, *mut Handle);
        fn cuGraphInstantiateWithFlags(*mut Handle, Handle, u64);
        fn cuGraphLaunch(Handle, Handle);
        fn cuGraphDestroy(Handle);
        fn cuGraphExecDestroy(Handle);

        fn cuEventCreate(*mut Handle, c_uint);
        fn cuEventRecord(Handle, Handle);
        fn cuEventElapsedTime(*mut f32, Handle, Handle);
        fn cuEventSynchronize(Handle);
        fn cuEventDestroy_v2(Handle);
    }
    optional {
        // Since CUDA 12.4.
        fn cuFuncLoad(Handle);
        // Since CUDA 11.8.
        fn cuLaunchKernelEx(*const LaunchConfig, Handle, *mut *mut c_void, *mut *mut c_void);
    }
}
