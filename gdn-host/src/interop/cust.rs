//! From [cust](https://docs.rs/cust) 0.3: its buffers as tensors and tables, its streams as streams, and
//! launches of a module that cust itself loaded.
//!
//! Building cust needs a CUDA toolkit (it links libcuda), which is why nothing else of this crate uses it.

use super::{Element, TableEntry};
use crate::call::{CallError, Operation, Params, Table, Tensor};
use crate::driver::Stream as RawStream;
use crate::plan::{Caps, PlanError, Tile};
use cust::error::CudaError;
use cust::function::{BlockSize, GridSize};
use cust::memory::{DeviceBuffer, DeviceCopy};
use cust::module::Module;
use cust::stream::Stream;
use gdn_kernels::abi::DType;
use thiserror::Error;

/// A cust stream, borrowed: it must outlive the launches made on the result.
pub fn stream(stream: &Stream) -> RawStream {
    // SAFETY: the handle is a live stream of cust's context; that it outlives its use is what handing it to
    // an unsafe launch promises.
    unsafe { RawStream::from_raw(stream.as_inner().cast()) }
}

/// A buffer as a tensor. The kernels write the ones that a call names as `state` and `out`.
pub fn tensor<T: Element + DeviceCopy>(buffer: &DeviceBuffer<T>) -> Tensor {
    tensor_of(buffer, T::DTYPE)
}

/// A buffer of an element type's bits (`u16` for bf16 and f16, which cust does not know) as a tensor. A buffer
/// of another element size gives a tensor of as many whole elements as its bytes hold.
pub fn tensor_of<T: DeviceCopy>(buffer: &DeviceBuffer<T>, dtype: DType) -> Tensor {
    let bytes = (buffer.len() * size_of::<T>()) as u64;
    Tensor { address: buffer.as_device_ptr().as_raw(), dtype, len: bytes / dtype.size() as u64 }
}

/// A buffer as a dense table of one entry a row, of indices or of flags; rows of several entries, or further apart, are made
/// of it by [`Table::with_columns`] and [`Table::with_stride`].
pub fn table<T: TableEntry + DeviceCopy>(buffer: &DeviceBuffer<T>) -> Table {
    Table::new(buffer.as_device_ptr().as_raw(), T::ENTRY, buffer.len() as u64)
}

/// A launch through cust that did not happen.
#[derive(Debug, Error)]
pub enum LaunchError {
    /// The arguments.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The tile.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// cust refused, or the module has no such entry.
    #[error("{entry}: {source}")]
    Cust {
        /// Entry of the module.
        entry: String,
        /// cust's answer.
        source: CudaError,
    },
}

/// The kernel argument as cust passes it: by address, of which the driver reads the size that the entry declares.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Argument(Params);

// SAFETY: plain numbers; device addresses in it are meant for the device.
unsafe impl DeviceCopy for Argument {}

/// Runs an operation with a module that was loaded by cust (from the PTX of the module that [`crate::artifact::select`] names, say) on cust's
/// own stream. It is never launched early: cust has no launch attributes.
///
/// # Errors
/// [`LaunchError`]; nothing was launched.
///
/// # Safety
/// As [`crate::Gdn::run`]; and the module is the embedded one that the call's plan names.
pub unsafe fn run(
    module: &Module,
    call: &dyn Operation,
    caps: &Caps,
    tile: Tile,
    stream: &Stream,
) -> Result<(), LaunchError> {
    call.check()?;
    if call.is_empty() {
        return Ok(());
    }
    let plan = call.plan(caps, tile)?;
    let entry = plan.entry();
    let failed = |source| LaunchError::Cust { entry: entry.clone(), source };
    let function = module.get_function(&entry).map_err(failed)?;
    let [x, y, z] = plan.grid;
    let (grid, block) = (GridSize::xyz(x, y, z), BlockSize::x(plan.block()));
    let argument = Argument(call.params(&plan));
    // SAFETY: the argument starts with the struct that the entry takes; the plan's grid is the one it describes;
    // the caller vouches for the addresses.
    unsafe { cust::launch!(function<<<grid, block, 0, stream>>>(argument)) }.map_err(failed)
}
