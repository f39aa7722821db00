//! The memory of a call's tensors: locked for as long as the call takes, each storage once.
//!
//! Tensors of a call are often views of one storage (q, k and v of a packed row), and candle guards a storage by a lock. So
//! the storages are found first, and then locked one by one in the order of their addresses, which is candle's own order: no
//! two threads wait for each other. What the call writes is locked by candle's in-place operation, which hands out mutable
//! memory; cudarc's guards, which order work on several streams, live as long.

use candle_core::backend::BackendStorage as _;
use candle_core::{CpuStorage, CudaStorage, DType, InplaceOp1, Layout, Result, Storage, Tensor, TensorId};
use std::cell::RefCell;

/// What there is to say of a CPU storage's elements, whatever their type.
macro_rules! on_cpu {
    ($storage:expr, $data:ident => $body:expr) => {
        match $storage {
            CpuStorage::U8($data) => $body,
            CpuStorage::U32($data) => $body,
            CpuStorage::I32($data) => $body,
            CpuStorage::I64($data) => $body,
            CpuStorage::BF16($data) => $body,
            CpuStorage::F16($data) => $body,
            CpuStorage::F32($data) => $body,
            other => candle_core::bail!("a call takes no tensor of type {:?}", other.dtype()),
        }
    };
}

#[cfg(feature = "cuda")]
mod cuda {
    use candle_core::cuda_backend::cudarc::driver::{DevicePtr as _, DevicePtrMut as _};
    use candle_core::cuda_backend::{CudaStorage, CudaStorageSlice};
    use candle_core::{Result, backend::BackendStorage as _};

    /// What there is to do with a storage's slice, whatever the type of its elements.
    macro_rules! on_cuda {
        ($slice:expr, $dtype:expr, $data:ident => $body:expr) => {
            match $slice {
                CudaStorageSlice::U8($data) => $body,
                CudaStorageSlice::U32($data) => $body,
                CudaStorageSlice::I32($data) => $body,
                CudaStorageSlice::I64($data) => $body,
                CudaStorageSlice::BF16($data) => $body,
                CudaStorageSlice::F16($data) => $body,
                CudaStorageSlice::F32($data) => $body,
                _ => candle_core::bail!("a call takes no tensor of type {:?}", $dtype),
            }
        };
    }

    /// Calls `body` with address and length of a storage that is read; cudarc's guard lives until it returns.
    pub(super) fn read(storage: &CudaStorage, body: impl FnOnce(u64, usize) -> Result<()>) -> Result<()> {
        let stream = storage.device.cuda_stream();
        on_cuda!(&storage.slice, storage.dtype(), slice => {
            let (address, _guard) = slice.device_ptr(&stream);
            body(address, slice.len())
        })
    }

    /// The same of a storage that is written.
    pub(super) fn write(
        storage: &mut CudaStorage,
        body: impl FnOnce(u64, usize) -> Result<()>,
    ) -> Result<()> {
        let (stream, dtype) = (storage.device.cuda_stream(), storage.dtype());
        on_cuda!(&mut storage.slice, dtype, slice => {
            let len = slice.len();
            let (address, _guard) = slice.device_ptr_mut(&stream);
            body(address, len)
        })
    }
}

#[cfg(not(feature = "cuda"))]
mod cuda {
    use candle_core::{CudaStorage, Error, Result};

    pub(super) fn read(_: &CudaStorage, _: impl FnOnce(u64, usize) -> Result<()>) -> Result<()> {
        Err(Error::NotCompiledWithCudaSupport)
    }

    pub(super) fn write(_: &mut CudaStorage, _: impl FnOnce(u64, usize) -> Result<()>) -> Result<()> {
        Err(Error::NotCompiledWithCudaSupport)
    }
}

/// A tensor that a call touches.
pub(crate) struct Operand<'a> {
    pub(crate) field: &'static str,
    pub(crate) tensor: &'a Tensor,
    pub(crate) written: bool,
}

/// The tensors that a call touches.
#[derive(Default)]
pub(crate) struct Operands<'a>(pub(crate) Vec<Operand<'a>>);

impl<'a> Operands<'a> {
    pub(crate) fn read(&mut self, field: &'static str, tensor: &'a Tensor) {
        self.0.push(Operand { field, tensor, written: false });
    }

    pub(crate) fn read_some(&mut self, field: &'static str, tensor: Option<&'a Tensor>) {
        if let Some(tensor) = tensor {
            self.read(field, tensor);
        }
    }

    pub(crate) fn write(&mut self, field: &'static str, tensor: &'a Tensor) {
        self.0.push(Operand { field, tensor, written: true });
    }

    /// Locks every storage and calls `body` with their memory.
    pub(crate) fn locked(&self, mut body: impl FnMut(&Memory) -> Result<()>) -> Result<()> {
        self.check_types()?;
        self.check_devices()?;
        let mut storages: Vec<Locking> = Vec::new();
        let mut memory = Memory { tensors: Vec::with_capacity(self.0.len()), bases: Vec::new() };
        for operand in &self.0 {
            let key = key(operand.tensor);
            memory.tensors.push((operand.tensor.id(), key));
            match storages.iter_mut().find(|storage| storage.key == key) {
                Some(storage) if operand.written && !storage.written => {
                    (storage.tensor, storage.written) = (operand.tensor, true);
                }
                Some(_) => {}
                None => storages.push(Locking { key, tensor: operand.tensor, written: operand.written }),
            }
        }
        storages.sort_unstable_by_key(|storage| storage.key);
        lock(&storages, &mut memory, &mut body)
    }

    /// Refuses types that no call takes, by name; which of the others an argument may have, its call says.
    fn check_types(&self) -> Result<()> {
        use DType::{BF16, F16, F32, I32, I64, U8, U32};
        let is_known = |of: DType| matches!(of, U8 | U32 | I32 | I64 | BF16 | F16 | F32);
        match self.0.iter().find(|operand| !is_known(operand.tensor.dtype())) {
            None => Ok(()),
            Some(other) => {
                candle_core::bail!("{}: no call takes type {:?}", other.field, other.tensor.dtype())
            }
        }
    }

    fn check_devices(&self) -> Result<()> {
        let Some(first) = self.0.first() else { return Ok(()) };
        let device = first.tensor.device();
        match self.0.iter().find(|operand| !operand.tensor.device().same_device(device)) {
            None => Ok(()),
            Some(other) => {
                let at = |tensor: &Tensor| format!("{:?}", tensor.device().location());
                let (here, there) = (at(other.tensor), at(first.tensor));
                candle_core::bail!("{}: is on {here}, but {} is on {there}", other.field, first.field)
            }
        }
    }
}

/// What tells a tensor's storage from others.
fn key(tensor: &Tensor) -> usize {
    let (storage, _) = tensor.storage_and_layout();
    std::ptr::from_ref(&*storage).addr()
}

/// A storage to be locked, and a tensor that has it.
struct Locking<'a> {
    key: usize,
    tensor: &'a Tensor,
    written: bool,
}

/// A locked storage.
struct Base {
    key: usize,
    /// Of its first element, in host or device memory.
    address: u64,
    /// Elements.
    len: usize,
}

/// The memory of a call's tensors, locked.
pub(crate) struct Memory {
    /// Each tensor's storage.
    tensors: Vec<(TensorId, usize)>,
    bases: Vec<Base>,
}

impl Memory {
    /// The address of a tensor's first element, and how many elements its storage has from there on.
    pub(crate) fn place(&self, field: &'static str, tensor: &Tensor) -> Result<(u64, u64)> {
        let key = self.tensors.iter().find(|(id, _)| *id == tensor.id()).map(|(_, key)| *key);
        let base = key.and_then(|key| self.bases.iter().find(|base| base.key == key));
        let Some(base) = base else { candle_core::bail!("{field}: is not among the operands of its call") };
        let offset = tensor.layout().start_offset();
        let bytes = offset * tensor.dtype().size_in_bytes();
        Ok((base.address + bytes as u64, base.len.saturating_sub(offset) as u64))
    }
}

type Body<'a> = dyn FnMut(&Memory) -> Result<()> + 'a;

/// Locks the storages one inside the other, and calls the body within the last.
fn lock(storages: &[Locking], memory: &mut Memory, body: &mut Body) -> Result<()> {
    let Some((&Locking { key, tensor, written }, rest)) = storages.split_first() else { return body(memory) };
    if written {
        return tensor.inplace_op1(&Written { key, rest, inner: RefCell::new((memory, body)) });
    }
    let (storage, _) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => {
            let (address, len) =
                on_cpu!(storage, data => (data.as_ptr().expose_provenance() as u64, data.len()));
            memory.bases.push(Base { key, address, len });
            lock(rest, memory, body)
        }
        Storage::Cuda(storage) => cuda::read(storage, |address, len| {
            memory.bases.push(Base { key, address, len });
            lock(rest, memory, body)
        }),
        Storage::Metal(_) => candle_core::bail!("there are no kernels for Metal"),
    }
}

/// The place of a storage that is written, and what is done within it.
struct Written<'a, 'b> {
    key: usize,
    rest: &'a [Locking<'a>],
    inner: RefCell<(&'a mut Memory, &'a mut Body<'b>)>,
}

impl Written<'_, '_> {
    fn within(&self, address: u64, len: usize) -> Result<()> {
        let (memory, body) = &mut *self.inner.borrow_mut();
        memory.bases.push(Base { key: self.key, address, len });
        lock(self.rest, memory, body)
    }
}

impl InplaceOp1 for Written<'_, '_> {
    fn name(&self) -> &'static str {
        "gdn"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout) -> Result<()> {
        let (address, len) =
            on_cpu!(storage, data => (data.as_mut_ptr().expose_provenance() as u64, data.len()));
        self.within(address, len)
    }

    fn cuda_fwd(&self, storage: &mut CudaStorage, _: &Layout) -> Result<()> {
        cuda::write(storage, |address, len| self.within(address, len))
    }
}
