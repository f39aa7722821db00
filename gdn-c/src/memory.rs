//! Borrowed device memory: tensors, rows, tables and pools.

use crate::inputs::gdn_shape;
use crate::read::{check_reserved, unknown};
use crate::status::Failure;
use gdn_host::{DType, Entry, Layout, Rows, SlotPool, StatePool, Table, Tensor};

/// What an element or an entry of a table is; one of `GDN_F32` to `GDN_I64`. 0 is none.
pub type gdn_dtype = u32;

/// 32-bit float.
pub const GDN_F32: gdn_dtype = 1;
/// bfloat16.
pub const GDN_BF16: gdn_dtype = 2;
/// 16-bit float.
pub const GDN_F16: gdn_dtype = 3;
/// Bytes, or `bool`: tables of flags.
pub const GDN_U8: gdn_dtype = 4;
/// 32-bit integers: every table.
pub const GDN_I32: gdn_dtype = 5;
/// 32-bit integers without a sign, of which 2^31 and more name nothing: every table.
pub const GDN_U32: gdn_dtype = 6;
/// 64-bit integers: tables of indices, counts and lengths.
pub const GDN_I64: gdn_dtype = 7;

/// How a head's state lies.
pub type gdn_layout = u32;

/// `[V, K]`, K contiguous: SGLang, vLLM, FlashInfer.
pub const GDN_LAYOUT_VK: gdn_layout = 0;
/// `[K, V]`, V contiguous: FLA, Hugging Face.
pub const GDN_LAYOUT_KV: gdn_layout = 1;

/// A densely packed run of elements in device memory. One that is optional is absent if `address` and `dtype` are 0.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gdn_tensor {
    /// Device address of the first element.
    pub address: u64,
    /// Elements that may be touched, from the address on.
    pub len: u64,
    /// `GDN_F32`, `GDN_BF16` or `GDN_F16`.
    pub dtype: gdn_dtype,
    /// 0.
    pub reserved: u32,
}

/// A tensor of one row for each token: a row is packed, rows are `stride` elements apart. One that is optional is absent if
/// `address` and `dtype` are 0.
///
/// A view of a wider row has an address within the first row and the wide row's stride: `gdn_rows_view`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gdn_rows {
    /// Device address of the first element.
    pub address: u64,
    /// Elements that may be touched, from the address on.
    pub len: u64,
    /// Elements from a row to the next.
    pub stride: u64,
    /// `GDN_F32`, `GDN_BF16` or `GDN_F16`.
    pub dtype: gdn_dtype,
    /// 0.
    pub reserved: u32,
}

/// A table in device memory: slots, rows, counts, parents and lengths (`GDN_I32`, `GDN_U32`, `GDN_I64`) or flags (`GDN_U8`,
/// `GDN_I32`, `GDN_U32`). It is read when the kernel runs. One that is optional is absent if `address` and `dtype` are 0.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gdn_table {
    /// Device address of the first entry.
    pub address: u64,
    /// Rows: one for each sequence, unless the field says otherwise.
    pub len: u64,
    /// Entries of a row: 1, unless the field says otherwise.
    pub columns: u64,
    /// Entries from a row to the next.
    pub stride: u64,
    /// What an entry is.
    pub dtype: gdn_dtype,
    /// 0.
    pub reserved: u32,
}

/// A pool of slots: of states `[slots, HV, V, K]`, or `[slots, HV, K, V]` with `GDN_LAYOUT_KV`. Aligned to 16 bytes, as is
/// its pitch. One that is optional is absent if `address` and `dtype` are 0.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gdn_pool {
    /// Device address of the first element.
    pub address: u64,
    /// Elements that may be touched, from the address on.
    pub len: u64,
    /// Elements from a slot to the next, at least those of a state: pages may be padded or interleave layers.
    pub pitch: u64,
    /// Slots, 1 to 2^31 - 1. An index at or past it is padding.
    pub slots: u32,
    /// `GDN_F32`, `GDN_BF16` or `GDN_F16`: the type of the state.
    pub dtype: gdn_dtype,
    /// `GDN_LAYOUT_VK` or `GDN_LAYOUT_KV`.
    pub layout: gdn_layout,
    /// 0.
    pub reserved: u32,
}

/// `count` rows of `width` elements, one behind the other.
#[unsafe(no_mangle)]
pub extern "C" fn gdn_rows_packed(address: u64, dtype: gdn_dtype, count: u64, width: u64) -> gdn_rows {
    gdn_rows { address, len: count.saturating_mul(width), stride: width, dtype, reserved: 0 }
}

/// The view of `rows` that starts at element `offset` of each row: k in a row of `[q | k | v]`. One past the memory's end has
/// no elements.
#[unsafe(no_mangle)]
pub extern "C" fn gdn_rows_view(rows: gdn_rows, offset: u64) -> gdn_rows {
    let size = if rows.dtype == GDN_F32 { 4 } else { 2 };
    let address = rows.address.saturating_add(offset.saturating_mul(size));
    gdn_rows { address, len: rows.len.saturating_sub(offset), ..rows }
}

/// A dense table of `rows` rows of `columns` entries.
#[unsafe(no_mangle)]
pub extern "C" fn gdn_table_packed(address: u64, dtype: gdn_dtype, rows: u64, columns: u64) -> gdn_table {
    gdn_table { address, len: rows, columns, stride: columns, dtype, reserved: 0 }
}

/// `slots` states of `shape` in layout VK, one behind the other.
#[unsafe(no_mangle)]
pub extern "C" fn gdn_pool_packed(address: u64, dtype: gdn_dtype, slots: u32, shape: gdn_shape) -> gdn_pool {
    let pitch = shape.to_host().state_elements();
    let len = u64::from(slots).saturating_mul(pitch);
    gdn_pool { address, len, pitch, slots, dtype, layout: GDN_LAYOUT_VK, reserved: 0 }
}

const FLOATS: &str = "GDN_F32, GDN_BF16 or GDN_F16";

/// The type of elements.
pub(crate) fn element(field: &str, have: gdn_dtype) -> Result<DType, Failure> {
    match have {
        GDN_F32 => Ok(DType::F32),
        GDN_BF16 => Ok(DType::Bf16),
        GDN_F16 => Ok(DType::F16),
        other => unknown(&format!("{field}.dtype"), other, FLOATS),
    }
}

/// The type of entries.
fn entry(field: &str, have: gdn_dtype) -> Result<Entry, Failure> {
    match have {
        GDN_U8 => Ok(Entry::U8),
        GDN_I32 => Ok(Entry::I32),
        GDN_U32 => Ok(Entry::U32),
        GDN_I64 => Ok(Entry::I64),
        other => unknown(&format!("{field}.dtype"), other, "GDN_U8, GDN_I32, GDN_U32 or GDN_I64"),
    }
}

pub(crate) fn layout(field: &str, have: gdn_layout) -> Result<Layout, Failure> {
    match have {
        GDN_LAYOUT_VK => Ok(Layout::Vk),
        GDN_LAYOUT_KV => Ok(Layout::Kv),
        other => unknown(&format!("{field}.layout"), other, "GDN_LAYOUT_VK or GDN_LAYOUT_KV"),
    }
}

fn reserved(field: &str, have: u32) -> Result<(), Failure> {
    check_reserved(&format!("{field}.reserved"), have)
}

/// An argument that may be left out as a whole.
pub(crate) trait Argument: Copy {
    /// What gdn-host has for it.
    type Host;

    /// Address and type, both 0 if it is absent.
    fn presence(&self) -> (u64, gdn_dtype);

    /// The argument; `field` is its name in messages.
    fn required(&self, field: &'static str) -> Result<Self::Host, Failure>;

    /// The argument, if it is there.
    fn optional(&self, field: &'static str) -> Result<Option<Self::Host>, Failure> {
        if self.presence() == (0, 0) { Ok(None) } else { self.required(field).map(Some) }
    }

    /// No argument, for `why`.
    fn absent(&self, field: &'static str, why: &str) -> Result<(), Failure> {
        match self.presence() {
            (0, 0) => Ok(()),
            _ => Err(Failure::argument(format!("{field}: it must be absent: {why}"))),
        }
    }
}

impl Argument for gdn_tensor {
    type Host = Tensor;

    fn presence(&self) -> (u64, gdn_dtype) {
        (self.address, self.dtype)
    }

    fn required(&self, field: &'static str) -> Result<Tensor, Failure> {
        reserved(field, self.reserved)?;
        Ok(Tensor::new(self.address, element(field, self.dtype)?, self.len))
    }
}

impl Argument for gdn_rows {
    type Host = Rows;

    fn presence(&self) -> (u64, gdn_dtype) {
        (self.address, self.dtype)
    }

    fn required(&self, field: &'static str) -> Result<Rows, Failure> {
        reserved(field, self.reserved)?;
        let tensor = Tensor::new(self.address, element(field, self.dtype)?, self.len);
        Ok(Rows { tensor, stride: self.stride })
    }
}

impl Argument for gdn_table {
    type Host = Table;

    fn presence(&self) -> (u64, gdn_dtype) {
        (self.address, self.dtype)
    }

    fn required(&self, field: &'static str) -> Result<Table, Failure> {
        reserved(field, self.reserved)?;
        let &gdn_table { address, len, columns, stride, .. } = self;
        Ok(Table { address, entry: entry(field, self.dtype)?, len, columns, stride })
    }
}

impl Argument for gdn_pool {
    type Host = StatePool;

    fn presence(&self) -> (u64, gdn_dtype) {
        (self.address, self.dtype)
    }

    fn required(&self, field: &'static str) -> Result<StatePool, Failure> {
        reserved(field, self.reserved)?;
        let tensor = Tensor::new(self.address, element(field, self.dtype)?, self.len);
        let layout = layout(field, self.layout)?;
        Ok(StatePool { tensor, slots: self.slots, pitch: self.pitch, layout })
    }
}

impl gdn_pool {
    /// The pool whatever its slots hold.
    pub(crate) fn slot_pool(&self, field: &'static str) -> Result<SlotPool, Failure> {
        self.required(field).map(SlotPool::from)
    }
}
