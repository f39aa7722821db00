//! The hot path with programmatic dependent launch: a kernel that may start before its predecessor has ended.

use super::symbols::Handle;
use super::{DriverError, Function, Stream};
use std::ffi::{c_int, c_uint, c_void};
use std::ptr::null_mut;

/// `CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION`.
const PROGRAMMATIC_STREAM_SERIALIZATION: c_uint = 6;

/// `CUlaunchAttribute`: a number and a union of 64 bytes, of which the attribute here uses the first int.
#[derive(Debug)]
#[repr(C)]
pub(super) struct LaunchAttribute {
    id: c_uint,
    padding: [u8; 4],
    value: c_int,
    rest: [u8; 60],
}

/// `CUlaunchConfig`.
#[derive(Debug)]
#[repr(C)]
pub(super) struct LaunchConfig {
    grid: [c_uint; 3],
    block: [c_uint; 3],
    shared_bytes: c_uint,
    stream: Handle,
    attributes: *mut LaunchAttribute,
    attribute_count: c_uint,
}

// The layouts of cuda.h on a 64-bit machine.
const _: () = {
    use std::mem::{offset_of, size_of};
    assert!(size_of::<LaunchAttribute>() == 72);
    assert!(offset_of!(LaunchAttribute, value) == 8);
    assert!(size_of::<LaunchConfig>() == 56);
    assert!(offset_of!(LaunchConfig, stream) == 32);
    assert!(offset_of!(LaunchConfig, attributes) == 40);
    assert!(offset_of!(LaunchConfig, attribute_count) == 48);
};

/// [`launch()`](fn@super::launch) with programmatic stream serialization: the kernel may start as soon as every block of its
/// predecessor in the stream has triggered (`griddepcontrol.launch_dependents`) or ended. It sees what the predecessor wrote
/// only behind its own `griddepcontrol.wait`, which needs PTX for sm_90 or later. Behind a predecessor that never triggers, and
/// on devices before compute capability 9.0, this is an ordinary launch.
///
/// One driver call, like [`launch()`](fn@super::launch); it may be captured into a graph, where the driver keeps the early start
/// since CUDA 12.3.
///
/// # Errors
///
/// [`DriverError::MissingSymbol`] when the driver has no `cuLaunchKernelEx`, which
/// [`Driver::launches_early`](super::Driver::launches_early) tells beforehand; otherwise as for [`launch()`](fn@super::launch).
///
/// # Safety
///
/// As for [`launch()`](fn@super::launch). Besides, what the kernel touches before it waits must be touched in a conflicting way
/// by no work that may still run then: by the predecessor, or by a kernel before it that the predecessor did not wait for. A
/// kernel that never waits is ordered behind nothing that its predecessor does.
#[inline]
pub unsafe fn launch_early<P>(
    function: Function,
    grid: [u32; 3],
    block: u32,
    shared_bytes: u32,
    stream: Stream,
    params: *const P,
) -> Result<(), DriverError> {
    const NAME: &str = "cuLaunchKernelEx";
    let driver = function.driver();
    let missing = DriverError::MissingSymbol { name: NAME, since: "11.8" };
    let launch = driver.symbols.cuLaunchKernelEx.ok_or(missing)?;
    let mut attribute =
        LaunchAttribute { id: PROGRAMMATIC_STREAM_SERIALIZATION, padding: [0; 4], value: 1, rest: [0; 60] };
    let config = LaunchConfig {
        grid,
        block: [block, 1, 1],
        shared_bytes,
        stream: stream.as_raw(),
        attributes: &mut attribute,
        attribute_count: 1,
    };
    let mut kernel_params = [params.cast_mut().cast::<c_void>()];
    // SAFETY: the caller's promise. Configuration and attribute live until the driver returns, and it only reads through
    // them and kernel_params.
    let code = unsafe { launch(&config, function.as_raw(), kernel_params.as_mut_ptr(), null_mut()) };
    driver.check(NAME, code)
}

#[cfg(test)]
mod tests {
    use super::super::fake::{self, Params};
    use super::*;

    unsafe extern "system" fn record(
        config: *const LaunchConfig,
        function: Handle,
        params: *mut *mut c_void,
        extra: *mut *mut c_void,
    ) -> u32 {
        // SAFETY: the code under test passes a live configuration with as many attributes as it says, and the test
        // a Params.
        let (config, attribute, params) =
            unsafe { (&*config, &*(*config).attributes, &*(*params).cast::<Params>()) };
        assert_eq!((function.addr(), config.stream.addr()), (0x10, 0x20));
        assert_eq!((config.grid, config.block, config.shared_bytes), ([3, 4, 5], [128, 1, 1], 256));
        assert_eq!((config.attribute_count, attribute.id, attribute.value), (1, 6, 1));
        assert_eq!((attribute.padding, attribute.rest), ([0; 4], [0; 60]));
        assert_eq!((params.address, params.rows), (0xdead_beef_0000, 7));
        assert!(extra.is_null());
        u32::from(params.rows != 7)
    }

    fn launch_on(driver: &'static super::super::Driver) -> Result<(), DriverError> {
        let params = Params { address: 0xdead_beef_0000, rows: 7 };
        // SAFETY: the fake driver runs nothing.
        unsafe {
            let function = Function::from_raw(driver, 0x10 as Handle);
            let stream = Stream::from_raw(0x20 as Handle);
            launch_early(function, [3, 4, 5], 128, 256, stream, &params)
        }
    }

    #[test]
    fn parameters_and_attribute_reach_the_driver() {
        let driver = fake::driver(|symbols| symbols.cuLaunchKernelEx = Some(record));
        assert!(driver.launches_early());
        assert_eq!(launch_on(driver), Ok(()));
    }

    #[test]
    fn old_driver_is_an_error_that_names_the_function() {
        let driver = fake::driver(|_| ());
        assert!(!driver.launches_early());
        let error = launch_on(driver).unwrap_err();
        let text =
            "the CUDA driver has no function cuLaunchKernelEx; a driver for CUDA 11.8 or later is needed";
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn refusal_names_the_function() {
        unsafe extern "system" fn refuse(
            _: *const LaunchConfig,
            _: Handle,
            _: *mut *mut c_void,
            _: *mut *mut c_void,
        ) -> u32 {
            1
        }
        let driver = fake::driver(|symbols| symbols.cuLaunchKernelEx = Some(refuse));
        assert!(launch_on(driver).unwrap_err().to_string().starts_with("cuLaunchKernelEx failed"));
    }
}
