//! CUDA contexts: where modules, memory and streams live.

use super::symbols::Handle;
use super::{Device, Driver, DriverError, Stream, call};
use std::ffi::c_void;
use std::sync::Arc;

/// `CUDA_ERROR_STREAM_CAPTURE_IMPLICIT`.
pub(super) const CAPTURE_IMPLICIT: u32 = 906;

/// A CUDA context, held open while this value, a clone of it, or anything made in it lives.
///
/// Cloning is cheap: clones share one hold on the context.
#[derive(Clone, Debug)]
pub struct Context(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    device: Device,
    raw: Handle,
    /// Whether we hold a reference to the primary context, to be released at the end.
    retained: bool,
}

// SAFETY: a CUcontext is a handle that the driver lets any thread use; it is not changed after
// construction.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Context {
    /// The primary context of the device, made current on the calling thread.
    ///
    /// This is the context which `cust`, `cudarc`, candle, PyTorch and the CUDA runtime use. It is
    /// created if nobody uses it yet, and lives until its last user lets go.
    ///
    /// # Errors
    ///
    /// Those of [`Driver::open`] and [`Device::new`]; [`DriverError::Call`] when the context cannot
    /// be created.
    pub fn primary(ordinal: u32) -> Result<Context, DriverError> {
        Context::primary_of(Device::new(ordinal)?)
    }

    pub(super) fn primary_of(device: Device) -> Result<Context, DriverError> {
        let context = Context(Arc::new(Inner { device, raw: retain(device)?, retained: true }));
        context.make_current()?;
        Ok(context)
    }

    /// The calling thread's current context, whoever made it.
    ///
    /// A primary context is held open from here on, like one from [`primary`](Self::primary). Any
    /// other is only borrowed: whoever created it must keep it until this value and everything made
    /// in it are gone.
    ///
    /// # Errors
    ///
    /// Those of [`Driver::open`]; [`DriverError::NoContext`] when the thread has none.
    pub fn current() -> Result<Context, DriverError> {
        Context::current_of(Driver::open()?)
    }

    pub(super) fn current_of(driver: &'static Driver) -> Result<Context, DriverError> {
        let raw = current(driver)?;
        if raw.is_null() {
            return Err(DriverError::NoContext);
        }
        let mut device = 0;
        // SAFETY: the pointer is to a live CUdevice.
        unsafe { call!(driver, cuCtxGetDevice(&mut device)) }?;
        let device = Device::from_raw(driver, device);
        let retained = is_primary(device, raw)?;
        Ok(Context(Arc::new(Inner { device, raw, retained })))
    }

    /// Makes this context the calling thread's current one.
    ///
    /// # Errors
    ///
    /// [`DriverError::Call`].
    pub fn make_current(&self) -> Result<(), DriverError> {
        // SAFETY: the context is alive, since we hold it or its owner promised to.
        unsafe { call!(self.driver(), cuCtxSetCurrent(self.0.raw)) }
    }

    /// Makes this context current until the returned guard is dropped, which puts the thread's
    /// previous one back.
    ///
    /// # Errors
    ///
    /// [`DriverError::Call`].
    pub fn enter(&self) -> Result<Entered<'_>, DriverError> {
        let previous = current(self.driver())?;
        let changed = previous != self.0.raw;
        if changed {
            self.make_current()?;
        }
        Ok(Entered { context: self, previous: changed.then_some(previous) })
    }

    /// Refuses a thread whose current context is another one. It may have none: then the stream implies the context, or the
    /// driver says that there is none.
    #[inline]
    pub(crate) fn check_current(&self) -> Result<(), DriverError> {
        let (current, loaded) = (current(self.driver())?, self.0.raw);
        if current == loaded || current.is_null() {
            return Ok(());
        }
        Err(DriverError::OtherContext { current: current.addr(), loaded: loaded.addr() })
    }

    /// Waits until all work in this context is done.
    ///
    /// # Errors
    ///
    /// [`DriverError::Call`] with the failure of any earlier work, too.
    pub fn synchronize(&self) -> Result<(), DriverError> {
        let _entered = self.enter()?;
        // SAFETY: takes no arguments; our context is current.
        unsafe { call!(self.driver(), cuCtxSynchronize()) }
    }

    /// Whether what is queued on a stream is being recorded into a graph, by whomever. Nothing may be loaded or allocated
    /// meanwhile.
    ///
    /// # Errors
    ///
    /// [`DriverError::Call`].
    ///
    /// # Safety
    ///
    /// The stream must be alive, and of this context.
    pub unsafe fn is_capturing(&self, stream: Stream) -> Result<bool, DriverError> {
        let _entered = self.enter()?;
        let mut status = 0;
        // SAFETY: the pointer is to a live status; the stream is alive, by the caller's promise.
        let asked = unsafe { call!(self.driver(), cuStreamIsCapturing(stream.as_raw(), &mut status)) };
        match asked {
            // The default stream waits for all others, so it may not even be asked while one of them is recorded.
            Err(DriverError::Call { code: CAPTURE_IMPLICIT, .. }) => Ok(true),
            asked => asked.map(|()| status != 0),
        }
    }

    /// The device of this context.
    pub fn device(&self) -> Device {
        self.0.device
    }

    /// The raw `CUcontext`, borrowed; it can serve as a key for what is cached by context.
    pub fn as_raw(&self) -> *mut c_void {
        self.0.raw
    }

    pub(super) fn driver(&self) -> &'static Driver {
        self.0.device.driver()
    }
}

impl Drop for Inner {
    /// Lets go of the primary context. It stays the thread's current one, as others may be using
    /// it.
    fn drop(&mut self) {
        if self.retained {
            release(self.device);
        }
    }
}

/// A guard from [`Context::enter`]. It belongs to the thread that made it.
#[derive(Debug)]
#[must_use = "the previous context comes back when this is dropped"]
pub struct Entered<'a> {
    context: &'a Context,
    /// What was current before, unless that was the same context. A raw pointer, which keeps the
    /// guard on its thread.
    previous: Option<Handle>,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        if let Some(previous) = self.previous {
            // SAFETY: null, or the context that was current when the guard was made. The error is
            // ignored, see the module's head.
            unsafe { (self.context.driver().symbols.cuCtxSetCurrent)(previous) };
        }
    }
}

fn current(driver: &Driver) -> Result<Handle, DriverError> {
    let mut raw = std::ptr::null_mut();
    // SAFETY: the pointer is to a live handle.
    unsafe { call!(driver, cuCtxGetCurrent(&mut raw)) }?;
    Ok(raw)
}

fn retain(device: Device) -> Result<Handle, DriverError> {
    let mut raw = std::ptr::null_mut();
    // SAFETY: the pointer is to a live handle.
    unsafe { call!(device.driver(), cuDevicePrimaryCtxRetain(&mut raw, device.as_raw())) }?;
    Ok(raw)
}

fn release(device: Device) {
    // SAFETY: called once for each successful retain. The error is ignored, see the module's head.
    unsafe { (device.driver().symbols.cuDevicePrimaryCtxRelease_v2)(device.as_raw()) };
}

/// Whether `raw` is the device's primary context; if so, one more reference to it has been taken.
fn is_primary(device: Device, raw: Handle) -> Result<bool, DriverError> {
    let (mut flags, mut active) = (0, 0);
    // SAFETY: the pointers are to live ints. Asked first, since retaining an inactive context would
    // create it.
    unsafe { call!(device.driver(), cuDevicePrimaryCtxGetState(device.as_raw(), &mut flags, &mut active)) }?;
    if active == 0 {
        return Ok(false);
    }
    let primary = retain(device)?;
    if primary != raw {
        release(device);
    }
    Ok(primary == raw)
}

#[cfg(test)]
mod tests {
    use super::super::fake;
    use super::*;

    #[test]
    fn thread_without_context_is_told_so() {
        let driver = fake::driver(fake::with_context);
        assert_eq!(Context::current_of(driver).unwrap_err(), DriverError::NoContext);
    }

    #[test]
    fn primary_is_released_once_by_the_last_holder() {
        let driver = fake::driver(fake::with_context);
        let context = Context::primary_of(Device::from_raw(driver, 0)).unwrap();
        let borrowed = Context::current_of(driver).unwrap();
        assert_eq!(borrowed.as_raw(), context.as_raw());
        let clone = context.clone();
        drop(context);
        assert_eq!(fake::calls("release"), 0);
        drop(clone);
        assert_eq!(fake::calls("release"), 1);
        drop(borrowed);
        assert_eq!(fake::calls("release"), 2);
        assert_eq!(fake::calls("retain"), 2);
    }

    #[test]
    fn entering_puts_the_previous_context_back() {
        let driver = fake::driver(fake::with_context);
        let context = Context::primary_of(Device::from_raw(driver, 0)).unwrap();
        let other = 0x77 as Handle;
        fake::set_current(other);
        {
            let _entered = context.enter().unwrap();
            assert_eq!(fake::current(), context.as_raw());
        }
        assert_eq!(fake::current(), other);
    }

    #[test]
    fn contexts_cross_threads() {
        fn holds<T: Send + Sync>() {}
        holds::<Context>();
    }
}
