//! A driver for tests: a table of functions on the host, which counts what was called. Counts and
//! the current context belong to the test's thread.

use super::context::CAPTURE_IMPLICIT;
use super::module::SPLIT_COMPILE;
use super::symbols::{Address, Handle, Symbols};
use super::{Context, Device, Driver};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::{c_char, c_void};

/// What the fake's functions say of the primary context.
const PRIMARY: Handle = 0x1000 as Handle;

/// `CUDA_ERROR_INVALID_VALUE`, as for an option that a driver does not know.
const INVALID_VALUE: u32 = 1;

/// A kernel's argument, for launches.
#[repr(C)]
pub(super) struct Params {
    pub(super) address: u64,
    pub(super) rows: u32,
}

thread_local! {
    static CALLS: RefCell<HashMap<&'static str, usize>> = RefCell::default();
    static CURRENT: Cell<Handle> = const { Cell::new(std::ptr::null_mut()) };
    static VERSION: Cell<i32> = const { Cell::new(13_000) };
}

/// A driver whose functions fail, but for those that `fill` sets.
pub(super) fn driver(fill: impl FnOnce(&mut Symbols)) -> &'static Driver {
    let mut symbols = Symbols::unsupported();
    fill(&mut symbols);
    Box::leak(Box::new(Driver { symbols }))
}

/// The primary context of the fake's device.
pub(super) fn context(driver: &'static Driver) -> Context {
    Context::primary_of(Device::from_raw(driver, 0)).unwrap()
}

/// How often this thread called the functions counted under `name`.
pub(crate) fn calls(name: &'static str) -> usize {
    CALLS.with_borrow(|calls| calls.get(name).copied().unwrap_or(0))
}

fn count(name: &'static str) -> u32 {
    CALLS.with_borrow_mut(|calls| *calls.entry(name).or_default() += 1);
    0
}

pub(super) fn current() -> Handle {
    CURRENT.get()
}

pub(crate) fn set_current(context: Handle) {
    CURRENT.set(context);
}

/// Makes this thread's fakes drivers for that CUDA version: 12090 is 12.9.
pub(super) fn set_version(version: i32) {
    VERSION.set(version);
}

/// Stores through a pointer that the code under test passed.
fn put<T>(to: *mut T, value: T) -> u32 {
    // SAFETY: the code under test passes pointers to live variables, as the real driver requires.
    unsafe { to.write(value) };
    0
}

/// Contexts of one device, primary only.
pub(super) fn with_context(symbols: &mut Symbols) {
    unsafe extern "system" fn retain(context: *mut Handle, _: i32) -> u32 {
        count("retain");
        put(context, PRIMARY)
    }
    unsafe extern "system" fn release(_: i32) -> u32 {
        count("release")
    }
    unsafe extern "system" fn version(version: *mut i32) -> u32 {
        put(version, VERSION.get())
    }
    unsafe extern "system" fn state(_: i32, _: *mut u32, active: *mut i32) -> u32 {
        put(active, 1)
    }
    unsafe extern "system" fn get(context: *mut Handle) -> u32 {
        put(context, current())
    }
    unsafe extern "system" fn set(context: Handle) -> u32 {
        set_current(context);
        0
    }
    unsafe extern "system" fn device(device: *mut i32) -> u32 {
        put(device, 0)
    }
    symbols.cuDriverGetVersion = version;
    symbols.cuDevicePrimaryCtxRetain = retain;
    symbols.cuDevicePrimaryCtxRelease_v2 = release;
    symbols.cuDevicePrimaryCtxGetState = state;
    symbols.cuCtxGetCurrent = get;
    symbols.cuCtxSetCurrent = set;
    symbols.cuCtxGetDevice = device;
}

/// Device memory on the host, for buffers of up to 64 bytes.
pub(super) fn with_memory(symbols: &mut Symbols) {
    unsafe extern "system" fn alloc(address: *mut Address, len: usize) -> u32 {
        assert!(len <= 64);
        let memory: &'static mut [u8; 64] = Box::leak(Box::new([0; 64]));
        put(address, memory.as_mut_ptr().expose_provenance() as Address)
    }
    unsafe extern "system" fn free(_: Address) -> u32 {
        count("free")
    }
    unsafe extern "system" fn write(to: Address, from: *const c_void, len: usize) -> u32 {
        // SAFETY: as required of cuMemcpyHtoD.
        unsafe { std::ptr::copy_nonoverlapping(from.cast::<u8>(), host(to), len) };
        0
    }
    unsafe extern "system" fn read(to: *mut c_void, from: Address, len: usize) -> u32 {
        // SAFETY: as required of cuMemcpyDtoH.
        unsafe { std::ptr::copy_nonoverlapping(host(from), to.cast::<u8>(), len) };
        0
    }
    unsafe extern "system" fn fill(to: Address, byte: u8, len: usize) -> u32 {
        // SAFETY: as required of cuMemsetD8.
        unsafe { host(to).write_bytes(byte, len) };
        0
    }
    unsafe extern "system" fn settle(stream: Handle) -> u32 {
        assert!(stream.is_null());
        count("settle")
    }
    fn host(address: Address) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(address as usize)
    }
    symbols.cuMemAlloc_v2 = alloc;
    symbols.cuMemFree_v2 = free;
    symbols.cuMemcpyHtoD_v2 = write;
    symbols.cuMemcpyDtoH_v2 = read;
    symbols.cuMemsetD8_v2 = fill;
    symbols.cuStreamSynchronize = settle;
}

thread_local! {
    static REFUSAL: Cell<u32> = const { Cell::new(0) };
}

/// The context of a driver that loads modules and launches their kernels, whose functions are counted as `ptx`, `binary`,
/// `function` and `launch`; it answers `refusal` to binaries.
pub(crate) fn context_with_modules(refusal: u32) -> Context {
    REFUSAL.set(refusal);
    context(driver(|symbols| {
        with_context(symbols);
        with_modules(symbols);
    }))
}

fn with_modules(symbols: &mut Symbols) {
    unsafe extern "system" fn load(
        module: *mut Handle,
        image: *const c_void,
        options: u32,
        names: *mut u32,
        _: *mut *mut c_void,
    ) -> u32 {
        // SAFETY: there are so many options.
        if unsafe { std::slice::from_raw_parts(names, options as usize) }.contains(&SPLIT_COMPILE) {
            if VERSION.get() < 13_000 {
                return INVALID_VALUE;
            }
            count("threads");
        }
        // SAFETY: images are at least four bytes long.
        if unsafe { image.cast::<[u8; 4]>().read() } != *b"\x7fELF" {
            count("ptx");
        } else if REFUSAL.get() != 0 {
            return REFUSAL.get();
        } else {
            count("binary");
        }
        put(module, 0x50 as Handle)
    }
    unsafe extern "system" fn unload(_: Handle) -> u32 {
        count("unload")
    }
    unsafe extern "system" fn function(function: *mut Handle, _: Handle, _: *const c_char) -> u32 {
        count("function");
        put(function, 0x60 as Handle)
    }
    #[allow(clippy::too_many_arguments)]
    unsafe extern "system" fn launch(
        _: Handle,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        _: Handle,
        _: *mut *mut c_void,
        _: *mut *mut c_void,
    ) -> u32 {
        count("launch")
    }
    symbols.cuLaunchKernel = launch;
    symbols.cuModuleLoadDataEx = load;
    symbols.cuModuleUnload = unload;
    symbols.cuModuleGetFunction = function;
}

/// Streams and graphs that record nothing.
pub(super) fn with_graphs(symbols: &mut Symbols) {
    unsafe extern "system" fn create(stream: *mut Handle, flags: u32) -> u32 {
        assert_eq!(flags, 1);
        put(stream, 0x20 as Handle)
    }
    unsafe extern "system" fn begin(_: Handle, mode: u32) -> u32 {
        assert_eq!(mode, 1);
        count("begin")
    }
    unsafe extern "system" fn end(_: Handle, graph: *mut Handle) -> u32 {
        count("end");
        put(graph, 0x30 as Handle)
    }
    unsafe extern "system" fn is_capturing(stream: Handle, status: *mut u32) -> u32 {
        let is_open = calls("begin") > calls("end");
        if stream.is_null() && is_open {
            return CAPTURE_IMPLICIT;
        }
        put(status, is_open.into())
    }
    unsafe extern "system" fn instantiate(executable: *mut Handle, graph: Handle, flags: u64) -> u32 {
        assert_eq!((graph.addr(), flags), (0x30, 0));
        put(executable, 0x40 as Handle)
    }
    unsafe extern "system" fn launch(executable: Handle, _: Handle) -> u32 {
        assert_eq!(executable.addr(), 0x40);
        0
    }
    unsafe extern "system" fn destroy(graph: Handle) -> u32 {
        assert_eq!(graph.addr(), 0x30);
        count("graph destroy")
    }
    unsafe extern "system" fn destroy_executable(executable: Handle) -> u32 {
        assert_eq!(executable.addr(), 0x40);
        count("executable destroy")
    }
    symbols.cuStreamCreate = create;
    symbols.cuStreamBeginCapture_v2 = begin;
    symbols.cuStreamIsCapturing = is_capturing;
    symbols.cuStreamEndCapture = end;
    symbols.cuGraphInstantiateWithFlags = instantiate;
    symbols.cuGraphLaunch = launch;
    symbols.cuGraphDestroy = destroy;
    symbols.cuGraphExecDestroy = destroy_executable;
}
