//! Rows of values in device memory: their types, strides and offsets.

use crate::device::{Device, POISON};
use anyhow::{Result, ensure};
use gdn_host::{DType, Rows, Tensor};
use half::{bf16, f16};
use std::fmt;

/// Rows of values and how they lie in memory.
#[derive(Clone)]
pub struct Strided {
    /// Element type.
    pub dtype: DType,
    /// Values, `[rows, width]`, dense.
    pub data: Vec<f32>,
    /// Elements of a row.
    pub width: usize,
    /// Elements from a row to the next.
    pub stride: usize,
    /// Elements in front of the first row.
    pub offset: usize,
}

impl Strided {
    /// Dense rows; the values are rounded to the type.
    pub fn dense(dtype: DType, width: usize, data: Vec<f32>) -> Self {
        let data = data.iter().map(|&x| round(x, dtype)).collect();
        Strided { dtype, data, width, stride: width, offset: 0 }
    }

    /// The same values dense and of another type.
    pub fn retyped(&self, dtype: DType) -> Self {
        Strided::dense(dtype, self.width, self.data.clone())
    }

    fn rows(&self) -> usize {
        self.data.len().checked_div(self.width).unwrap_or(0)
    }

    /// Elements of the memory, gaps included.
    fn footprint(&self) -> usize {
        self.offset + self.rows().saturating_sub(1) * self.stride + self.width
    }
}

/// Without the thousands of values.
impl fmt::Debug for Strided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Strided { dtype, data, width, stride, offset } = self;
        let rows = data.len().checked_div(*width).unwrap_or(0);
        write!(f, "{} [{rows}, {width}] stride {stride} offset {offset}", dtype.name())
    }
}

/// Writes rows into fresh memory.
pub(crate) fn alloc_rows(device: &mut dyn Device, x: &Strided) -> Result<Rows> {
    let base = device.alloc((x.footprint() * x.dtype.size()) as u64)?;
    write_rows(device, x, base)
}

/// Writes rows at their offset and stride from `base`, and nothing between them.
pub(crate) fn write_rows(device: &mut dyn Device, x: &Strided, base: u64) -> Result<Rows> {
    let size = x.dtype.size();
    let address = base + (x.offset * size) as u64;
    if x.width > 0 {
        for (i, row) in x.data.chunks(x.width).enumerate() {
            let at = address + (i * x.stride * size) as u64;
            device.write(at, &encode_values(row, x.dtype))?;
        }
    }
    let len = (x.footprint() - x.offset) as u64;
    Ok(Rows { tensor: Tensor { address, dtype: x.dtype, len }, stride: x.stride as u64 })
}

/// Bytes of a gap that are looked at: the first ones, where an overrun shows.
const GAP: usize = 4096;

/// The bytes of rows without the gaps between them, which must still be poison.
pub(crate) fn dense_rows(
    device: &dyn Device,
    rows: &Rows,
    count: usize,
    width: usize,
    name: &str,
) -> Result<Vec<u8>> {
    let size = rows.tensor.dtype.size();
    let (width, stride) = (width * size, rows.stride as usize * size);
    let mut dense = Vec::with_capacity(count * width);
    for row in 0..count {
        let at = rows.tensor.address + (row * stride) as u64;
        let gap = if row + 1 < count { (stride - width).min(GAP) } else { 0 };
        let bytes = device.read(at, (width + gap) as u64)?;
        let untouched = bytes[width..].iter().all(|b| *b == POISON);
        ensure!(untouched, "{name}: the gap behind row {row} was written");
        dense.extend_from_slice(&bytes[..width]);
    }
    Ok(dense)
}

/// `x` rounded to a type.
pub fn round(x: f32, dtype: DType) -> f32 {
    match dtype {
        DType::F32 => x,
        DType::Bf16 => bf16::from_f32(x).to_f32(),
        DType::F16 => f16::from_f32(x).to_f32(),
    }
}

/// Values as little-endian bytes of a type.
pub fn encode_values(x: &[f32], dtype: DType) -> Vec<u8> {
    match dtype {
        DType::F32 => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::Bf16 => x.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
        DType::F16 => x.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
    }
}

/// Little-endian bytes of a type as values.
pub fn decode_values(bytes: &[u8], dtype: DType) -> Vec<f32> {
    let pairs = || bytes.chunks_exact(2).map(|b| [b[0], b[1]]);
    match dtype {
        DType::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        DType::Bf16 => pairs().map(|b| bf16::from_le_bytes(b).to_f32()).collect(),
        DType::F16 => pairs().map(|b| f16::from_le_bytes(b).to_f32()).collect(),
    }
}
