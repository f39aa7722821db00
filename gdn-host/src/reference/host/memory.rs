//! Elements and entries in memory of this process, by address.

use crate::call::{Rows, Table, Tensor};
use gdn_kernels::abi::{DType, Entry};
use half::{bf16, f16};
use std::ops::Range;

/// Where entry `at` of a run of `T` at an address lies.
fn place<T>(address: u64, at: u64) -> *mut T {
    std::ptr::with_exposed_provenance_mut::<T>(address as usize).wrapping_add(at as usize)
}

/// Element `at` of a tensor.
///
/// # Safety
/// It is there, aligned and initialised.
pub(super) unsafe fn read(tensor: &Tensor, at: u64) -> f64 {
    // SAFETY: the caller's promise.
    unsafe {
        match tensor.dtype {
            DType::F32 => place::<f32>(tensor.address, at).read().into(),
            DType::Bf16 => place::<bf16>(tensor.address, at).read().to_f64(),
            DType::F16 => place::<f16>(tensor.address, at).read().to_f64(),
        }
    }
}

/// Stores element `at` of a tensor, rounded to its type by way of f32, as kernels round.
///
/// # Safety
/// It is there, aligned and writable.
pub(super) unsafe fn write(tensor: &Tensor, at: u64, value: f64) {
    let value = value as f32;
    // SAFETY: the caller's promise.
    unsafe {
        match tensor.dtype {
            DType::F32 => place::<f32>(tensor.address, at).write(value),
            DType::Bf16 => place::<bf16>(tensor.address, at).write(bf16::from_f32(value)),
            DType::F16 => place::<f16>(tensor.address, at).write(f16::from_f32(value)),
        }
    }
}

/// `len` elements from `at` on.
///
/// # Safety
/// As [`read`].
pub(super) unsafe fn read_run(tensor: &Tensor, at: u64, len: u64) -> Vec<f64> {
    // SAFETY: the caller's promise.
    (at..at + len).map(|at| unsafe { read(tensor, at) }).collect()
}

/// Stores elements from `at` on.
///
/// # Safety
/// As [`write()`].
pub(super) unsafe fn write_run(tensor: &Tensor, at: u64, values: &[f64]) {
    for (i, value) in values.iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe { write(tensor, at + i as u64, *value) };
    }
}

/// Writes zeros to `width` elements of each of some rows.
///
/// # Safety
/// As [`write()`].
pub(super) unsafe fn clear(rows: &Rows, width: u64, range: Range<u64>) {
    for row in range {
        for at in 0..width {
            // SAFETY: the caller's promise.
            unsafe { write(&rows.tensor, row * rows.stride + at, 0.0) };
        }
    }
}

/// Entry `column` of row `row` of a table. Of u32 it is never negative: 2^31 and more are past every pool.
///
/// # Safety
/// It is there, aligned and initialised.
pub(super) unsafe fn entry(table: &Table, row: u64, column: u64) -> i64 {
    let at = row * table.stride + column;
    // SAFETY: the caller's promise.
    unsafe {
        match table.entry {
            Entry::I32 => place::<i32>(table.address, at).read().into(),
            Entry::U32 => place::<u32>(table.address, at).read().into(),
            Entry::I64 => place::<i64>(table.address, at).read(),
            Entry::U8 => place::<u8>(table.address, at).read().into(),
        }
    }
}

/// Stores entry 0 of row `row` of a table of i32 or u32.
///
/// # Safety
/// It is there, aligned and writable.
pub(super) unsafe fn write_entry(table: &Table, row: u64, value: u32) {
    // SAFETY: the caller's promise.
    unsafe { place::<u32>(table.address, row * table.stride).write(value) };
}

/// What an index of a table names among `count`, if anything.
pub(super) fn named(index: i64, count: u32, null: Option<i32>) -> Option<u64> {
    let named = (0..i64::from(count)).contains(&index) && Some(index) != null.map(i64::from);
    named.then_some(index as u64)
}

/// What entry `row` of an optional table names among `count`; without a table it is `row`.
///
/// # Safety
/// As [`entry`].
pub(super) unsafe fn named_or_row(
    table: Option<&Table>,
    row: u64,
    count: u32,
    null: Option<i32>,
) -> Option<u64> {
    match table {
        // SAFETY: the caller's promise.
        Some(table) => named(unsafe { entry(table, row, 0) }, count, null),
        None => (row < count.into()).then_some(row),
    }
}

/// Copies `bytes` bytes. The two places are one, or have no byte in common.
///
/// # Safety
/// Both are there, the target writable.
pub(super) unsafe fn copy(from: u64, to: u64, bytes: u64) {
    // SAFETY: the caller's promise.
    unsafe { place::<u8>(to, 0).copy_from(place::<u8>(from, 0), bytes as usize) };
}
