//! CUDA graphs: a sequence of launches recorded once and replayed with one call.

use super::symbols::Handle;
use super::{Context, DriverError, OwnedStream, Stream, call};
use std::ptr::null_mut;

/// `CU_STREAM_CAPTURE_MODE_THREAD_LOCAL`: other threads may go on calling what a capture forbids.
const THREAD_LOCAL: u32 = 1;

/// An executable graph, destroyed on drop.
///
/// It may move to another thread, but not be used by two at once: the driver doesn't guard graphs.
#[derive(Debug)]
pub struct Graph {
    context: Context,
    executable: Handle,
}

// SAFETY: a CUgraphExec is a handle tied to no thread. The type isn't Sync, so two threads cannot
// launch it at once.
unsafe impl Send for Graph {}

impl Graph {
    /// Records what `work` queues on the stream it is given, without running it.
    ///
    /// `work` runs once, on the calling thread, with the stream's context current. It may launch
    /// kernels and copy asynchronously, but not allocate, wait, or use the default stream. Capture
    /// ends in any case, also when `work` fails or panics, so the stream is usable afterwards. No
    /// other thread may use the stream meanwhile.
    ///
    /// # Errors
    ///
    /// What `work` returns; [`DriverError::Call`] when the driver can't capture, or when something
    /// forbidden made the capture invalid.
    pub fn capture<E: From<DriverError>>(
        stream: &OwnedStream,
        work: impl FnOnce(Stream) -> Result<(), E>,
    ) -> Result<Graph, E> {
        let context = stream.context();
        let _entered = context.enter()?;
        let capture = Capture::begin(stream)?;
        work(stream.as_stream())?;
        let template = capture.end()?;
        let mut executable = null_mut();
        // SAFETY: the template is a graph of ours, alive; no flags.
        unsafe { call!(context.driver(), cuGraphInstantiateWithFlags(&mut executable, template.raw, 0)) }?;
        Ok(Graph { context: context.clone(), executable })
    }

    /// Queues all recorded work on `stream`, and does not wait. The graph's context must be current
    /// on the calling thread.
    ///
    /// # Errors
    ///
    /// [`DriverError::Call`].
    ///
    /// # Safety
    ///
    /// The stream must be alive and of the graph's context. The promises made when the work was
    /// recorded must hold again: modules loaded, memory allocated, nobody else using it without
    /// ordering.
    #[inline]
    pub unsafe fn launch(&self, stream: Stream) -> Result<(), DriverError> {
        // SAFETY: the graph is ours and alive; the rest is the caller's promise.
        unsafe { call!(self.context.driver(), cuGraphLaunch(self.executable, stream.as_raw())) }
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        let _entered = self.context.enter();
        // SAFETY: the graph is ours; the driver lets a running launch finish. The error is ignored,
        // see the module's head.
        unsafe { (self.context.driver().symbols.cuGraphExecDestroy)(self.executable) };
    }
}

/// A capture in progress; dropping it ends it and throws away what was recorded.
struct Capture<'a> {
    stream: &'a OwnedStream,
    open: bool,
}

impl<'a> Capture<'a> {
    fn begin(stream: &'a OwnedStream) -> Result<Self, DriverError> {
        let driver = stream.context().driver();
        // SAFETY: the stream is alive while we borrow it.
        unsafe { call!(driver, cuStreamBeginCapture_v2(stream.as_stream().as_raw(), THREAD_LOCAL)) }?;
        Ok(Capture { stream, open: true })
    }

    fn end(mut self) -> Result<Template<'a>, DriverError> {
        self.finish()
    }

    fn finish(&mut self) -> Result<Template<'a>, DriverError> {
        self.open = false;
        let context = self.stream.context();
        let mut template = Template { context, raw: null_mut() };
        // SAFETY: the stream is alive and capturing since begin. On failure the driver leaves or
        // sets the graph to null.
        unsafe {
            call!(context.driver(), cuStreamEndCapture(self.stream.as_stream().as_raw(), &mut template.raw))
        }?;
        Ok(template)
    }
}

impl Drop for Capture<'_> {
    fn drop(&mut self) {
        if self.open {
            // The error that brought us here is the one worth reporting.
            drop(self.finish());
        }
    }
}

/// A recorded `CUgraph`, from which the executable one is made.
struct Template<'a> {
    context: &'a Context,
    raw: Handle,
}

impl Drop for Template<'_> {
    fn drop(&mut self) {
        if !self.raw.is_null() {
            // SAFETY: the graph is ours. The error is ignored, see the module's head.
            unsafe { (self.context.driver().symbols.cuGraphDestroy)(self.raw) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake;
    use super::*;

    fn stream() -> OwnedStream {
        let driver = fake::driver(|symbols| {
            fake::with_context(symbols);
            fake::with_graphs(symbols);
        });
        OwnedStream::new(&fake::context(driver)).unwrap()
    }

    /// Of the stream, and of the default stream beside it.
    fn is_capturing(stream: &OwnedStream) -> [bool; 2] {
        // SAFETY: both are alive.
        [stream.as_stream(), Stream::DEFAULT].map(|of| unsafe { stream.context().is_capturing(of).unwrap() })
    }

    #[test]
    fn capture_ends_and_the_template_goes() {
        let stream = stream();
        let graph = Graph::capture(&stream, |recording| {
            assert_eq!(recording, stream.as_stream());
            assert_eq!((fake::calls("begin"), fake::calls("end")), (1, 0));
            assert_eq!(is_capturing(&stream), [true, true]);
            Ok::<(), DriverError>(())
        })
        .unwrap();
        assert_eq!(is_capturing(&stream), [false, false]);
        assert_eq!((fake::calls("end"), fake::calls("graph destroy")), (1, 1));
        // SAFETY: the fake driver runs nothing.
        unsafe { graph.launch(stream.as_stream()).unwrap() };
        drop(graph);
        assert_eq!(fake::calls("executable destroy"), 1);
    }

    #[test]
    fn capture_ends_when_the_work_fails() {
        let stream = stream();
        let error = Graph::capture(&stream, |_| Err::<(), _>(DriverError::NoContext)).unwrap_err();
        assert_eq!(error, DriverError::NoContext);
        assert_eq!((fake::calls("begin"), fake::calls("end"), fake::calls("graph destroy")), (1, 1, 1));
    }

    #[test]
    fn capture_ends_when_the_work_panics() {
        let stream = stream();
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            Graph::capture(&stream, |_| -> Result<(), DriverError> {
                std::panic::resume_unwind(Box::new("work"))
            })
        }));
        assert!(caught.is_err());
        assert_eq!((fake::calls("begin"), fake::calls("end")), (1, 1));
    }
}
