//! From [cudarc](https://docs.rs/cudarc) 0.19: its slices as tensors and tables, its streams as streams.
//!
//! cudarc tracks which stream last used a slice. Each function here hands back its guard with the handle:
//! keep the guard until the launch was made, and cudarc orders later work on other streams behind it.
//! (Under stream capture turn cudarc's event tracking off first, as for any captured work.)
//!
//! Which CUDA version cudarc is built for, and how it finds libcuda, is the application's choice: enable the
//! matching features of cudarc there.

use super::{Element, TableEntry};
use crate::call::{Table, Tensor};
use crate::driver::Stream;
use cudarc::driver::{CudaStream, DevicePtr, DevicePtrMut, SyncOnDrop};

/// A cudarc stream, borrowed: it must outlive the launches made on the result.
pub fn stream(stream: &CudaStream) -> Stream {
    // SAFETY: the handle is a live stream of cudarc's context; that it outlives its use is what handing it
    // to an unsafe launch promises.
    unsafe { Stream::from_raw(stream.cu_stream().cast()) }
}

/// A slice or view the kernels read.
pub fn tensor<'a, T: Element>(
    slice: &'a impl DevicePtr<T>,
    stream: &'a CudaStream,
) -> (Tensor, SyncOnDrop<'a>) {
    let len = slice.len() as u64;
    let (address, guard) = slice.device_ptr(stream);
    (Tensor { address, dtype: T::DTYPE, len }, guard)
}

/// A slice or view the kernels write.
pub fn tensor_mut<'a, T: Element>(
    slice: &'a mut impl DevicePtrMut<T>,
    stream: &'a CudaStream,
) -> (Tensor, SyncOnDrop<'a>) {
    let len = slice.len() as u64;
    let (address, guard) = slice.device_ptr_mut(stream);
    (Tensor { address, dtype: T::DTYPE, len }, guard)
}

/// A dense table of one entry a row, of indices or of flags; rows of several entries, or further apart, are made of it by
/// [`Table::with_columns`] and [`Table::with_stride`].
pub fn table<'a, T: TableEntry>(
    slice: &'a impl DevicePtr<T>,
    stream: &'a CudaStream,
) -> (Table, SyncOnDrop<'a>) {
    let len = slice.len() as u64;
    let (address, guard) = slice.device_ptr(stream);
    (Table::new(address, T::ENTRY, len), guard)
}
