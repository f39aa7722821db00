//! Candle tensors as the operands of gdn-host's calls: what their shapes and strides mean as rows, tables and pools.

use crate::lock::Memory;
use candle_core::{DType, Result, Tensor, bail};
use gdn_host::call::{self, Rows, Table};
use gdn_host::{Entry, StatePool};

/// The type of a tensor's elements, as kernels have it.
pub(crate) fn element(field: &'static str, tensor: &Tensor) -> Result<gdn_host::DType> {
    kernel_type(field, tensor.dtype())
}

/// A type as kernels have it.
pub(crate) fn kernel_type(field: &'static str, dtype: DType) -> Result<gdn_host::DType> {
    match dtype {
        DType::F32 => Ok(gdn_host::DType::F32),
        DType::BF16 => Ok(gdn_host::DType::Bf16),
        DType::F16 => Ok(gdn_host::DType::F16),
        other => bail!("{field}: type {other:?} does not fit, expected F32, BF16 or F16"),
    }
}

/// How a tensor is cut into rows.
pub(crate) struct Cut {
    /// Dimensions in front of a row's.
    pub(crate) lead: Vec<usize>,
    /// Rows.
    pub(crate) count: u64,
    /// Elements from a row to the next.
    pub(crate) stride: u64,
}

/// The rows of `width` elements that a tensor has: its last dimensions are packed and make up a row, those in front of them
/// count rows that are evenly spaced.
pub(crate) fn cut(field: &'static str, tensor: &Tensor, width: u64) -> Result<Cut> {
    let (dims, strides) = (tensor.dims(), tensor.stride());
    let (mut at, mut elements) = (dims.len(), 1);
    while elements < width && at > 0 {
        at -= 1;
        if dims[at] != 1 && strides[at] as u64 != elements {
            bail!("{field}: shape {dims:?} with strides {strides:?} has no packed rows of {width} elements");
        }
        elements *= dims[at] as u64;
    }
    if elements != width {
        bail!("{field}: shape {dims:?} has no rows of {width} elements");
    }
    let (mut count, mut stride) = (1, None);
    for (dim, step) in dims[..at].iter().zip(strides).rev().filter(|(dim, _)| **dim != 1) {
        let first = *stride.get_or_insert(*step as u64);
        if *step as u64 != first * count {
            bail!("{field}: shape {dims:?} with strides {strides:?} has rows that are not evenly spaced");
        }
        count *= *dim as u64;
    }
    Ok(Cut { lead: dims[..at].to_vec(), count, stride: stride.unwrap_or(width) })
}

/// Refuses a tensor of another shape; dimensions of 0 may be any.
pub(crate) fn check_shape(field: &'static str, tensor: &Tensor, want: &[usize]) -> Result<()> {
    let dims = tensor.dims();
    let fits =
        dims.len() == want.len() && dims.iter().zip(want).all(|(have, want)| *want == 0 || have == want);
    if fits {
        return Ok(());
    }
    let name = |dim: &usize| if *dim == 0 { "_".to_owned() } else { dim.to_string() };
    let want: Vec<String> = want.iter().map(name).collect();
    bail!("{field}: shape {dims:?} does not fit, expected [{}]", want.join(", "))
}

/// A number of elements, rows or slots as calls take it.
pub(crate) fn count(field: &'static str, number: u64) -> Result<u32> {
    match u32::try_from(number) {
        Ok(number) => Ok(number),
        Err(_) => bail!("{field}: {number} are more than 2^32 - 1"),
    }
}

impl Memory {
    /// A packed tensor: weights and tables of a gate.
    pub(crate) fn dense(&self, field: &'static str, tensor: &Tensor) -> Result<call::Tensor> {
        if !tensor.is_contiguous() {
            let (dims, strides) = (tensor.dims(), tensor.stride());
            bail!("{field}: shape {dims:?} with strides {strides:?} is not contiguous");
        }
        let (address, _) = self.place(field, tensor)?;
        Ok(call::Tensor::new(address, element(field, tensor)?, tensor.elem_count() as u64))
    }

    /// A tensor as rows of `width` elements.
    pub(crate) fn rows(&self, field: &'static str, tensor: &Tensor, width: u64) -> Result<Rows> {
        let cut = cut(field, tensor, width)?;
        let (address, len) = self.place(field, tensor)?;
        Ok(Rows { tensor: call::Tensor::new(address, element(field, tensor)?, len), stride: cut.stride })
    }

    /// [`Self::rows`] of a tensor that must have so many.
    pub(crate) fn rows_of(
        &self,
        field: &'static str,
        tensor: &Tensor,
        width: u64,
        want: u64,
    ) -> Result<Rows> {
        let have = cut(field, tensor, width)?.count;
        if have != want {
            bail!("{field}: has {have} rows of {width} elements, the call has {want} tokens");
        }
        self.rows(field, tensor, width)
    }

    /// A table of one entry a row, `[N]`, or of several, `[N, S]`.
    pub(crate) fn table(&self, field: &'static str, tensor: &Tensor) -> Result<Table> {
        let entry = match tensor.dtype() {
            DType::U8 => Entry::U8,
            DType::U32 => Entry::U32,
            DType::I32 => Entry::I32,
            DType::I64 => Entry::I64,
            other => bail!("{field}: type {other:?} does not fit, expected U8, U32, I32 or I64"),
        };
        let (address, _) = self.place(field, tensor)?;
        let (dims, strides) = (tensor.dims(), tensor.stride());
        let (rows, columns) = match (dims, strides) {
            (&[rows], _) => (rows, 1),
            (&[rows, columns], &[_, step]) if step == 1 || columns == 1 => (rows, columns),
            _ => bail!("{field}: shape {dims:?} with strides {strides:?} is no table [N] or [N, S]"),
        };
        let stride = if rows > 1 { strides[0] } else { columns };
        Ok(Table::new(address, entry, rows as u64).with_columns(columns as u64).with_stride(stride as u64))
    }

    /// An optional table.
    pub(crate) fn some_table(&self, field: &'static str, tensor: Option<&Tensor>) -> Result<Option<Table>> {
        tensor.map(|tensor| self.table(field, tensor)).transpose()
    }

    /// A tensor of states `[slots, ..]` whose slots are packed and hold `elements` each.
    pub(crate) fn states(
        &self,
        field: &'static str,
        tensor: &Tensor,
        elements: u64,
        layout: gdn_host::Layout,
    ) -> Result<StatePool> {
        let cut = cut(field, tensor, elements)?;
        let (address, len) = self.place(field, tensor)?;
        let tensor = call::Tensor::new(address, element(field, tensor)?, len);
        Ok(StatePool { tensor, slots: count(field, cut.count)?, pitch: cut.stride, layout })
    }
}
