//! Events, for timing.

use super::symbols::Handle;
use super::{Context, DriverError, OwnedStream, Stream, call};

/// A point in a stream, with the time when the device passed it. Destroyed on drop.
#[derive(Debug)]
pub struct Event {
    context: Context,
    raw: Handle,
}

// SAFETY: a CUevent is a handle that the driver lets any thread use.
unsafe impl Send for Event {}
// SAFETY: as above; recording and querying from several threads is ordered by the driver.
unsafe impl Sync for Event {}

impl Event {
    /// Creates an event that keeps time.
    ///
    /// # Errors
    ///
    /// [`DriverError::Call`].
    pub fn new(context: &Context) -> Result<Event, DriverError> {
        let _entered = context.enter()?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: the pointer is to a live handle, and our context is current. Flags 0: with
        // timing, waiting by spinning.
        unsafe { call!(context.driver(), cuEventCreate(&mut raw, 0)) }?;
        Ok(Event { context: context.clone(), raw })
    }

    /// Marks the end of everything queued on `stream` so far. Recording again moves the mark.
    ///
    /// # Errors
    ///
    /// [`DriverError::Call`], for one when the stream is of another context.
    pub fn record(&self, stream: &OwnedStream) -> Result<(), DriverError> {
        // SAFETY: the stream is alive while we borrow it.
        unsafe { self.record_on(stream.as_stream()) }
    }

    /// As [`record`](Self::record), on a borrowed stream.
    ///
    /// # Errors
    ///
    /// [`DriverError::Call`].
    ///
    /// # Safety
    ///
    /// The stream must be alive.
    pub unsafe fn record_on(&self, stream: Stream) -> Result<(), DriverError> {
        let _entered = self.context.enter()?;
        // SAFETY: the event is ours and alive; the stream is, by the caller's promise.
        unsafe { call!(self.context.driver(), cuEventRecord(self.raw, stream.as_raw())) }
    }

    /// Waits until the device has passed the mark. An event never recorded has been passed.
    ///
    /// # Errors
    ///
    /// [`DriverError::Call`], with the failure of earlier work too.
    pub fn synchronize(&self) -> Result<(), DriverError> {
        let _entered = self.context.enter()?;
        // SAFETY: the event is ours and alive.
        unsafe { call!(self.context.driver(), cuEventSynchronize(self.raw)) }
    }

    /// The time between two marks in milliseconds, to about half a microsecond.
    ///
    /// # Errors
    ///
    /// [`DriverError::Call`] with `CUDA_ERROR_NOT_READY` when the device has not passed both
    /// (synchronise `end` first), and with `CUDA_ERROR_INVALID_HANDLE` when either was never
    /// recorded.
    pub fn elapsed_ms(start: &Event, end: &Event) -> Result<f32, DriverError> {
        let _entered = start.context.enter()?;
        let mut milliseconds = 0.0;
        // SAFETY: the pointer is to a live float, both events are alive.
        unsafe { call!(start.context.driver(), cuEventElapsedTime(&mut milliseconds, start.raw, end.raw)) }?;
        Ok(milliseconds)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        let _entered = self.context.enter();
        // SAFETY: the event is ours; the driver keeps it until pending work is past it. The error
        // is ignored, see the module's head.
        unsafe { (self.context.driver().symbols.cuEventDestroy_v2)(self.raw) };
    }
}
