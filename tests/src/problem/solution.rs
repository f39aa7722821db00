//! What came out of a call.

use super::{Placed, Problem, Target};
use crate::device::Device;
use crate::strided::{decode_values, dense_rows, encode_values};
use anyhow::Result;
use gdn_host::{DType, Layout, Rows};

/// Memory that a call may have written, gaps left out.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Values.
    pub values: Vec<f32>,
    /// The same in memory, but for the layout of states: `[V, K]` always.
    pub bytes: Vec<u8>,
}

impl Memory {
    /// Values of a type.
    pub fn new(values: Vec<f32>, dtype: DType) -> Memory {
        Memory { bytes: encode_values(&values, dtype), values }
    }
}

impl std::ops::Deref for Memory {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values
    }
}

/// Bit by bit: a NaN is equal to itself.
impl PartialEq for Memory {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

/// What came out; empty where the call has no such tensor.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Solution {
    /// Output, `[tokens, HV, V]`.
    pub out: Memory,
    /// The pool, `[slots, HV, V, K]`.
    pub state: Memory,
    /// Final states, `[slots, HV, V, K]`.
    pub final_state: Memory,
    /// States after each token, `[rows, steps, HV, V, K]`.
    pub intermediate: Memory,
}

impl Problem {
    /// Reads the results back.
    pub fn collect(&self, device: &dyn Device, placed: &Placed) -> Result<Solution> {
        let out = match &placed.out {
            Some(rows) => {
                let bytes = dense_rows(device, rows, self.tokens.total(), self.width(), "out")?;
                Memory { values: decode_values(&bytes, rows.tensor.dtype), bytes }
            }
            None => Memory::default(),
        };
        let states = |rows: &Option<Rows>, count: usize, steps: usize, name: &str| match rows {
            Some(rows) => self.collect_states(device, rows, count, steps, name),
            None => Ok(Memory::default()),
        };
        let final_states = if let Target::Sequences { slots, .. } = self.target { slots } else { 0 };
        let (rows, steps) = self.intermediate.as_ref().map_or((0, 0), |i| (i.rows, i.steps));
        Ok(Solution {
            out,
            state: states(&placed.state, self.pool.slots, 1, "state")?,
            final_state: states(&placed.final_state, final_states, 1, "final_state")?,
            intermediate: states(&placed.intermediate, rows, steps, "intermediate")?,
        })
    }

    /// Rows of `steps` states each.
    fn collect_states(
        &self,
        device: &dyn Device,
        rows: &Rows,
        count: usize,
        steps: usize,
        name: &str,
    ) -> Result<Memory> {
        let dtype = rows.tensor.dtype;
        let bytes = dense_rows(device, rows, count, steps * self.elements(), name)?;
        let (v, k) = (self.shape.v as usize, self.shape.k as usize);
        let bytes = match self.pool.layout {
            Layout::Vk => bytes,
            Layout::Kv => transpose(&bytes, k, v, dtype.size()),
        };
        Ok(Memory { values: decode_values(&bytes, dtype), bytes })
    }
}

/// Matrices of `rows` x `columns` elements of `size` units, one behind the other, each transposed.
pub fn transpose<T: Copy>(x: &[T], rows: usize, columns: usize, size: usize) -> Vec<T> {
    let mut out = Vec::with_capacity(x.len());
    for matrix in x.chunks_exact(rows * columns * size) {
        for column in 0..columns {
            for row in 0..rows {
                out.extend_from_slice(&matrix[(row * columns + column) * size..][..size]);
            }
        }
    }
    out
}
