//! The hot path.

use super::{DriverError, Function, Stream, call};
use std::ffi::c_void;
use std::ptr::null_mut;

/// Launches a kernel that takes one parameter, a `#[repr(C)]` struct: pass `&params`.
///
/// The grid is in blocks, the block in threads (along x), `shared_bytes` is dynamic shared memory a
/// block, at most 48 KiB.
///
/// This is one driver call: it neither allocates, nor locks, nor waits, nor changes the current
/// context, so it may be captured into a graph. The driver copies the parameters before it returns.
/// The kernel itself runs later: what goes wrong in it is reported by whatever call waits for it.
///
/// # Errors
///
/// [`DriverError::Call`], among others with `CUDA_ERROR_INVALID_VALUE` for a grid, block or shared
/// memory out of the device's or the kernel's limits (each side at least 1; y and z of the grid
/// below 65536). A missing current context is an error only where the stream doesn't imply one:
/// driver 580 takes an [`OwnedStream`](super::OwnedStream)'s, older ones may not.
///
/// # Safety
///
/// - The function's module must be loaded and the stream alive, both of the calling thread's
///   current context.
/// - `params` must point to the kernel's one parameter, of its size, layout and alignment.
/// - The kernel must be sound for these parameters, grid, block and shared memory: its memory stays
///   allocated until it is done, and nobody else writes to what it reads, or touches what it
///   writes, without ordering by stream or event.
#[inline]
pub unsafe fn launch<P>(
    function: Function,
    grid: [u32; 3],
    block: u32,
    shared_bytes: u32,
    stream: Stream,
    params: *const P,
) -> Result<(), DriverError> {
    let mut kernel_params = [params.cast_mut().cast::<c_void>()];
    // SAFETY: the caller's promise. The driver only reads through kernel_params.
    unsafe {
        call!(
            function.driver(),
            cuLaunchKernel(
                function.as_raw(),
                grid[0],
                grid[1],
                grid[2],
                block,
                1,
                1,
                shared_bytes,
                stream.as_raw(),
                kernel_params.as_mut_ptr(),
                null_mut(),
            )
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{self, Params};
    use super::super::symbols::Handle;
    use super::*;

    #[allow(clippy::too_many_arguments)]
    unsafe extern "system" fn record(
        function: Handle,
        x: u32,
        y: u32,
        z: u32,
        block_x: u32,
        block_y: u32,
        block_z: u32,
        shared: u32,
        stream: Handle,
        params: *mut *mut c_void,
        extra: *mut *mut c_void,
    ) -> u32 {
        assert_eq!((function.addr(), stream.addr()), (0x10, 0x20));
        assert_eq!([x, y, z, block_x, block_y, block_z, shared], [3, 4, 5, 128, 1, 1, 256]);
        assert!(extra.is_null());
        // SAFETY: the test passes a Params.
        let params = unsafe { &*(*params).cast::<Params>() };
        assert_eq!((params.address, params.rows), (0xdead_beef_0000, 7));
        0
    }

    #[test]
    fn parameters_reach_the_driver_in_order() {
        let driver = fake::driver(|symbols| symbols.cuLaunchKernel = record);
        let params = Params { address: 0xdead_beef_0000, rows: 7 };
        // SAFETY: the fake driver runs nothing.
        let result = unsafe {
            let function = Function::from_raw(driver, 0x10 as Handle);
            let stream = Stream::from_raw(0x20 as Handle);
            launch(function, [3, 4, 5], 128, 256, stream, &params)
        };
        assert_eq!(result, Ok(()));
    }
}
