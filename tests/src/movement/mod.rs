//! Problems of pure data movement: copies, conversions of layout, unpacking of projections.
//!
//! Their data are bytes, NaN patterns among them, and so is what must come out: the expectation is written down
//! next to each problem, element by element. Whatever a call must not write, gaps included, is compared too.

pub mod convert;
pub mod copy;
pub mod unpack;

use crate::device::{Device, POISON};
use crate::random::Noise;
use crate::strided::{Strided, alloc_rows, dense_rows, encode_values};
use crate::table::TableForm;
use anyhow::{Result, ensure};
use gdn_host::{
    ALog, DType, Decode, DtBias, HeadShape, Inputs, Key, Logits, Query, Rows, SlotPool, Softplus, StatePool,
    Table, Tensor, Tile, Value,
};
use proptest::prelude::*;
use std::fmt;

/// Element types.
pub const TYPES: [DType; 3] = [DType::F32, DType::Bf16, DType::F16];

/// The blocks that problems run with: the planned one, and one, several and the most warps.
pub const TILES: [Tile; 4] = [Tile::Auto, warps(1), warps(3), warps(8)];

/// A block of some warps, for operations without tiles.
pub const fn warps(warps: u32) -> Tile {
    Tile::Exact { rows: 0, warps }
}

/// Rows of bytes and how they lie in memory: slots of a pool, or tokens of a tensor.
#[derive(Clone, PartialEq)]
pub struct Bytes {
    /// Element type.
    pub dtype: DType,
    /// Elements of a row.
    pub width: usize,
    /// Elements from a row to the next.
    pub stride: usize,
    /// Elements in front of the first row.
    pub offset: usize,
    /// Rows.
    pub rows: usize,
    /// `[rows, width]`, dense.
    pub data: Vec<u8>,
}

/// Without the thousands of bytes.
impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bytes { dtype, width, stride, offset, rows, .. } = self;
        write!(f, "{} [{rows}, {width}] stride {stride} offset {offset}", dtype.name())
    }
}

impl Bytes {
    /// Dense rows of random bytes.
    pub fn random(dtype: DType, rows: usize, width: usize, seed: u64) -> Bytes {
        let mut noise = Noise::new(seed);
        let data = (0..rows * width * dtype.size()).map(|_| (256.0 * noise.uniform()) as u8).collect();
        Bytes { dtype, width, stride: width, offset: 0, rows, data }
    }

    /// Dense rows of values that a recurrence may start from.
    pub fn states(dtype: DType, rows: usize, width: usize, seed: u64) -> Bytes {
        let data = encode_values(&Noise::new(seed).normals(rows * width, 0.1), dtype);
        Bytes { dtype, width, stride: width, offset: 0, rows, data }
    }

    /// Dense rows that hold what memory reads as that nobody wrote: where outputs go.
    pub fn unwritten(dtype: DType, rows: usize, width: usize) -> Bytes {
        let data = vec![POISON; rows * width * dtype.size()];
        Bytes { dtype, width, stride: width, offset: 0, rows, data }
    }

    /// The same rows with `gap` elements behind each and `offset` in front of the first.
    pub fn spaced(self, gap: usize, offset: usize) -> Bytes {
        Bytes { stride: self.width + gap, offset, ..self }
    }

    /// The bytes of elements `range` of row `row`.
    pub fn elements(&self, row: usize, from: usize, count: usize) -> std::ops::Range<usize> {
        let size = self.dtype.size();
        let at = (row * self.width + from) * size;
        at..at + count * size
    }

    /// Writes the rows into fresh memory, and nothing between them.
    pub fn place(&self, device: &mut dyn Device) -> Result<Rows> {
        let (size, row_bytes) = (self.dtype.size(), self.width * self.dtype.size());
        let len = (self.rows.saturating_sub(1) * self.stride + self.width) as u64;
        let base = device.alloc((self.offset as u64 + len) * size as u64)?;
        let address = base + (self.offset * size) as u64;
        if self.data.iter().all(|byte| *byte == POISON) {
            // Nothing to write.
        } else if self.stride == self.width {
            device.write(address, &self.data)?;
        } else {
            for (i, row) in self.data.chunks(row_bytes).enumerate() {
                device.write(address + (i * self.stride * size) as u64, row)?;
            }
        }
        Ok(Rows { tensor: Tensor { address, dtype: self.dtype, len }, stride: self.stride as u64 })
    }

    /// [`Self::place`] as a pool of slots.
    pub fn place_pool(&self, device: &mut dyn Device) -> Result<SlotPool> {
        let Rows { tensor, stride } = self.place(device)?;
        Ok(SlotPool { tensor, slots: self.rows as u32, pitch: stride, layout: None })
    }

    /// Holds the memory at `address` against these rows, and against [`POISON`] around them.
    pub fn check(&self, device: &dyn Device, address: u64, name: &str) -> Result<()> {
        let tensor = Tensor { address, dtype: self.dtype, len: 0 };
        let rows = Rows { tensor, stride: self.stride as u64 };
        let got = match self.stride == self.width {
            true => device.read(address, self.data.len() as u64)?,
            false => dense_rows(device, &rows, self.rows, self.width, name)?,
        };
        if let Some(at) = got.iter().zip(&self.data).position(|(got, want)| got != want) {
            let element = at / self.dtype.size();
            let (row, place) = (element / self.width, element % self.width);
            ensure!(false, "{name}: row {row}, element {place} is wrong");
        }
        let front = (self.offset * self.dtype.size()).min(4096) as u64;
        let bytes = device.read(address - front, front)?;
        ensure!(bytes.iter().all(|byte| *byte == POISON), "{name}: the gap in front was written");
        Ok(())
    }
}

/// Writes a table of indices into fresh memory.
pub fn place_table(device: &mut dyn Device, indices: &[i32]) -> Result<Table> {
    TableForm::default().indices(device, indices, 1)
}

/// Writes a table that may not be there.
pub fn place_optional(
    device: &mut dyn Device,
    tables: TableForm,
    indices: Option<&Vec<i32>>,
) -> Result<Option<Table>> {
    indices.map(|indices| tables.indices(device, indices, 1)).transpose()
}

/// The slot that copy `n` has on one side: by the table or, without one, its own number.
pub fn slot_of(table: Option<&Vec<i32>>, n: usize, slots: usize, null_slot: Option<i32>) -> Option<usize> {
    let Some(table) = table else { return Some(n) };
    let slot = usize::try_from(table[n]).ok().filter(|slot| *slot < slots)?;
    (Some(table[n]) != null_slot).then_some(slot)
}

/// Random inputs of `tokens` tokens in device memory, with the options of Qwen3-Next.
pub fn place_inputs(
    device: &mut dyn Device,
    shape: HeadShape,
    io: DType,
    tokens: usize,
    seed: u64,
) -> Result<Inputs> {
    let mut noise = Noise::new(seed);
    let (keys, values) = (shape.key_elements() as usize, shape.value_elements() as usize);
    let heads = shape.hv as usize;
    let mut rows = |dtype, width: usize, count: usize| {
        let values = noise.normals(count * width, 1.0);
        alloc_rows(device, &Strided::dense(dtype, width, values))
    };
    let (q, k, v) = (rows(io, keys, tokens)?, rows(io, keys, tokens)?, rows(io, values, tokens)?);
    let (a, b) = (rows(io, heads, tokens)?, rows(io, heads, tokens)?);
    let a_log = ALog(rows(DType::F32, heads, 1)?.tensor);
    let dt_bias = DtBias(rows(DType::F32, heads, 1)?.tensor);
    Ok(Inputs::gdn(shape, Query(q), Key(k), Value(v), Softplus::new(a, a_log, dt_bias), Logits::new(b)))
}

/// The decode of a row of inputs for each sequence, with an output in fresh memory.
pub fn place_decode(
    device: &mut dyn Device,
    inputs: &Inputs,
    state: StatePool,
    slots: &[i32],
) -> Result<Decode> {
    let values = inputs.shape.value_elements() as usize;
    let out = Bytes::unwritten(inputs.io(), slots.len(), values).place(device)?;
    let call = Decode::new(*inputs, slots.len() as u32, state, out);
    Ok(call.with_slots(place_table(device, slots)?))
}

/// A random element type.
fn dtype() -> impl Strategy<Value = DType> {
    prop::sample::select(TYPES.to_vec())
}

/// A random table of `copies` indices into a pool of `slots` slots, no slot twice and some indices naming none.
fn indices(copies: usize, slots: usize) -> impl Strategy<Value = Vec<i32>> {
    let order = Just((0..slots as i32).collect::<Vec<_>>()).prop_shuffle();
    let none = prop::sample::select(vec![0, 0, 0, -1, i32::MIN, slots as i32, i32::MAX]);
    (order, prop::collection::vec(none, copies)).prop_map(|(order, none)| {
        let pick = |(n, none): (usize, &i32)| if *none == 0 { order[n] } else { *none };
        none.iter().enumerate().map(pick).collect()
    })
}
