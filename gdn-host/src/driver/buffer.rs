//! Device memory, counted in bytes.

use super::symbols::Address;
use super::{Context, DriverError, Stream, call};

/// Device memory, freed on drop. Freeing may wait for work that is still running.
///
/// Reading, writing and filling are for tests and tools: each waits until it is done. They run on
/// the default stream, which work on an [`OwnedStream`](super::OwnedStream) does not wait for:
/// synchronise that stream before reading what a kernel wrote, or before overwriting what it reads.
/// They cannot be captured into a graph.
///
/// A buffer is only an address to its kernels, so methods take `&self`, and any thread may use it.
#[derive(Debug)]
pub struct DeviceBuffer {
    context: Context,
    address: Address,
    len: usize,
}

impl DeviceBuffer {
    /// Allocates `len` bytes, contents undefined, aligned to 256 bytes at least. With `len` 0
    /// nothing is allocated, and the address is 0.
    ///
    /// # Errors
    ///
    /// [`DriverError::Call`], with `CUDA_ERROR_OUT_OF_MEMORY` most of all.
    pub fn alloc(context: &Context, len: usize) -> Result<DeviceBuffer, DriverError> {
        let mut address = 0;
        if len > 0 {
            let _entered = context.enter()?;
            // SAFETY: the pointer is to a live CUdeviceptr, and our context is current.
            unsafe { call!(context.driver(), cuMemAlloc_v2(&mut address, len)) }?;
        }
        Ok(DeviceBuffer { context: context.clone(), address, len })
    }

    /// Allocates as many bytes as `bytes` has, and copies them there.
    ///
    /// # Errors
    ///
    /// As for [`alloc`](Self::alloc).
    pub fn from_slice(context: &Context, bytes: &[u8]) -> Result<DeviceBuffer, DriverError> {
        let buffer = DeviceBuffer::alloc(context, bytes.len())?;
        buffer.write(0, bytes)?;
        Ok(buffer)
    }

    /// The device address of the first byte (`CUdeviceptr`); 0 for an empty buffer. It is dead once
    /// this value is dropped.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// The size in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the size is 0.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies `bytes` to the device, from byte `offset` of the buffer on.
    ///
    /// # Errors
    ///
    /// [`DriverError::OutOfRange`] when they do not fit; [`DriverError::Call`].
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result<(), DriverError> {
        let address = self.range(offset, bytes.len())?;
        if bytes.is_empty() {
            return Ok(());
        }
        let _entered = self.context.enter()?;
        // SAFETY: the source is a live slice, the destination lies within our allocation.
        unsafe {
            call!(self.context.driver(), cuMemcpyHtoD_v2(address, bytes.as_ptr().cast(), bytes.len()))
        }?;
        self.settle()
    }

    /// Copies `len` bytes from byte `offset` of the buffer on to the host.
    ///
    /// # Errors
    ///
    /// [`DriverError::OutOfRange`] when the buffer has fewer; [`DriverError::Call`].
    pub fn read(&self, offset: usize, len: usize) -> Result<Vec<u8>, DriverError> {
        let address = self.range(offset, len)?;
        let mut bytes = vec![0; len];
        if len > 0 {
            let _entered = self.context.enter()?;
            // SAFETY: the destination is a live vector of len bytes, the source lies within our
            // allocation.
            unsafe {
                call!(self.context.driver(), cuMemcpyDtoH_v2(bytes.as_mut_ptr().cast(), address, len))
            }?;
        }
        Ok(bytes)
    }

    /// Sets every byte.
    ///
    /// # Errors
    ///
    /// [`DriverError::Call`].
    pub fn fill(&self, byte: u8) -> Result<(), DriverError> {
        if self.is_empty() {
            return Ok(());
        }
        let _entered = self.context.enter()?;
        // SAFETY: the range is our whole allocation.
        unsafe { call!(self.context.driver(), cuMemsetD8_v2(self.address, byte, self.len)) }?;
        self.settle()
    }

    /// Queues a copy of `len` bytes from `source` to this buffer on `stream`, and does not wait. It
    /// may be captured into a graph.
    ///
    /// # Errors
    ///
    /// [`DriverError::OutOfRange`] when either buffer is too small; [`DriverError::Call`].
    ///
    /// # Safety
    ///
    /// The stream must be alive and of the calling thread's current context, both buffers must live
    /// until the copy is done, the two ranges must not overlap, and nobody else may write to either
    /// without ordering by stream or event.
    pub unsafe fn copy_from_async(
        &self,
        offset: usize,
        source: &DeviceBuffer,
        source_offset: usize,
        len: usize,
        stream: Stream,
    ) -> Result<(), DriverError> {
        let to = self.range(offset, len)?;
        let from = source.range(source_offset, len)?;
        if len == 0 {
            return Ok(());
        }
        // SAFETY: both ranges lie within allocations; the rest is the caller's promise.
        unsafe { call!(self.context.driver(), cuMemcpyDtoDAsync_v2(to, from, len, stream.as_raw())) }
    }

    /// The address of the range's first byte, if the range lies within the buffer.
    fn range(&self, offset: usize, len: usize) -> Result<Address, DriverError> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(self.address + offset as Address),
            _ => Err(DriverError::OutOfRange { offset, len, size: self.len }),
        }
    }

    /// Waits for the default stream. Setting memory is asynchronous, and so is the last leg of a
    /// copy from pageable memory: without this a kernel on another stream could overtake them.
    fn settle(&self) -> Result<(), DriverError> {
        // SAFETY: the default stream of our context, which the caller made current.
        unsafe { call!(self.context.driver(), cuStreamSynchronize(Stream::DEFAULT.as_raw())) }
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        if self.len > 0 {
            let _entered = self.context.enter();
            // SAFETY: the allocation is ours; whoever used the address promised to be done. The
            // error is ignored, see the module's head.
            unsafe { (self.context.driver().symbols.cuMemFree_v2)(self.address) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake;
    use super::*;

    #[test]
    fn empty_buffer_calls_no_driver() {
        // Every memory function of this driver fails.
        let context = fake::context(fake::driver(fake::with_context));
        let empty = DeviceBuffer::from_slice(&context, &[]).unwrap();
        assert_eq!((empty.address(), empty.len(), empty.is_empty()), (0, 0, true));
        assert_eq!(empty.read(0, 0).unwrap(), Vec::<u8>::new());
        empty.fill(1).unwrap();
        assert!(DeviceBuffer::alloc(&context, 1).is_err());
    }

    #[test]
    fn range_outside_is_refused_even_on_overflow() {
        let context = fake::context(fake::driver(|symbols| {
            fake::with_context(symbols);
            fake::with_memory(symbols);
        }));
        let buffer = DeviceBuffer::from_slice(&context, &[1, 2, 3, 4]).unwrap();
        let refused = |offset, len| Err(DriverError::OutOfRange { offset, len, size: 4 });
        assert_eq!(buffer.read(1, 4), refused(1, 4));
        assert_eq!(buffer.read(usize::MAX, 2), refused(usize::MAX, 2));
        assert_eq!(buffer.write(4, &[0]).map(|()| vec![]), refused(4, 1));
        assert_eq!(buffer.read(4, 0), Ok(vec![]));
    }

    #[test]
    fn bytes_come_back_and_memory_is_freed_once() {
        let context = fake::context(fake::driver(|symbols| {
            fake::with_context(symbols);
            fake::with_memory(symbols);
        }));
        let buffer = DeviceBuffer::from_slice(&context, &[1, 2, 3, 4]).unwrap();
        buffer.write(1, &[9]).unwrap();
        assert_eq!(buffer.read(0, 4).unwrap(), [1, 9, 3, 4]);
        buffer.fill(5).unwrap();
        assert_eq!(buffer.read(2, 2).unwrap(), [5, 5]);
        assert_eq!(fake::calls("settle"), 3);
        drop(buffer);
        assert_eq!(fake::calls("free"), 1);
    }
}
