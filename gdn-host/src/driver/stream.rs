//! Streams: borrowed handles, and an owning one.

use super::{Context, DriverError, call};
use std::ffi::c_void;

/// `CU_STREAM_NON_BLOCKING`: no implicit waiting on the default stream.
const NON_BLOCKING: u32 = 1;

/// A borrowed `CUstream`. Like a raw pointer it may be copied and kept at will, and says nothing
/// about being alive: what uses one is `unsafe`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Stream(*mut c_void);

// SAFETY: a CUstream is a handle, and the driver lets any thread use it. Whether it is alive is the
// promise of each use.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

impl Stream {
    /// The default (null, legacy) stream of the current context. It cannot be captured into a
    /// graph.
    pub const DEFAULT: Stream = Stream(std::ptr::null_mut());

    /// A stream of any owner: `CUstream` or `cudaStream_t`, including the special values 0, 1
    /// (legacy) and 2 (per thread).
    ///
    /// # Safety
    ///
    /// `raw` must be a stream, alive wherever this value or a copy of it is used.
    pub const unsafe fn from_raw(raw: *mut c_void) -> Stream {
        Stream(raw)
    }

    /// The raw `CUstream`.
    pub const fn as_raw(self) -> *mut c_void {
        self.0
    }
}

/// A stream made here, destroyed on drop. Work already queued on it still completes.
///
/// It does not synchronise with the default stream.
#[derive(Debug)]
pub struct OwnedStream {
    context: Context,
    stream: Stream,
}

impl OwnedStream {
    /// Creates a stream in `context`.
    ///
    /// # Errors
    ///
    /// [`DriverError::Call`].
    pub fn new(context: &Context) -> Result<OwnedStream, DriverError> {
        let _entered = context.enter()?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: the pointer is to a live handle, and our context is current.
        unsafe { call!(context.driver(), cuStreamCreate(&mut raw, NON_BLOCKING)) }?;
        Ok(OwnedStream { context: context.clone(), stream: Stream(raw) })
    }

    /// The handle, to hand to launches. It is dead once this value is dropped.
    pub fn as_stream(&self) -> Stream {
        self.stream
    }

    /// The context in which the stream lives.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Waits until everything queued so far is done.
    ///
    /// # Errors
    ///
    /// [`DriverError::Call`], with the failure of earlier work too: a kernel's fault shows here.
    pub fn synchronize(&self) -> Result<(), DriverError> {
        let _entered = self.context.enter()?;
        // SAFETY: the stream is ours and alive.
        unsafe { call!(self.context.driver(), cuStreamSynchronize(self.stream.as_raw())) }
    }
}

impl Drop for OwnedStream {
    fn drop(&mut self) {
        let _entered = self.context.enter();
        // SAFETY: the stream is ours, and nothing of ours uses it afterwards. The error is ignored,
        // see the module's head.
        unsafe { (self.context.driver().symbols.cuStreamDestroy_v2)(self.stream.as_raw()) };
    }
}
