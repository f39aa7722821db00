//! A call on locked memory: launched on a GPU, or worked out by the oracle on the CPU.

use crate::lock::Memory;
use candle_core::{DType, Device, Error, Result, Tensor};
use gdn_host::Operation;

/// How a call is launched on a GPU.
#[derive(Clone, Copy)]
pub(crate) enum Launch {
    /// Behind all work before it.
    Ordered,
    /// Early, where that helps: within a layer's step, whose calls keep the promise of `gdn_host::Launch::early`.
    Early,
}

/// Checks and runs a call whose addresses are those of `memory`, on the device of its tensors.
pub(crate) fn run(_memory: &Memory, device: &Device, call: &dyn Operation, launch: Launch) -> Result<()> {
    match device {
        // SAFETY: the call's addresses are of storages that `Memory` holds locked, those it writes for writing, and the call's
        // check holds its extents against their lengths. candle's storages are initialised, or were allocated for this call
        // to write.
        Device::Cpu => unsafe { gdn_host::reference::host::run(call) }.map_err(Error::wrap),
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => crate::kernels::launch(device, call, launch),
        #[cfg(not(feature = "cuda"))]
        Device::Cuda(_) => {
            let _ = launch;
            Err(Error::NotCompiledWithCudaSupport)
        }
        Device::Metal(_) => candle_core::bail!("there are no kernels for Metal"),
    }
}

/// A tensor that a call is to fill.
pub(crate) fn unfilled(dims: Vec<usize>, dtype: DType, device: &Device) -> Result<Tensor> {
    // Host memory is read by Rust, which wants it initialised; device memory is not.
    if device.is_cpu() || dims.contains(&0) {
        return Tensor::zeros(dims, dtype, device);
    }
    // SAFETY: the call that it is for writes every element before anything reads one: outputs have no gaps.
    unsafe { Tensor::empty(dims, dtype, device) }
}
