//! Copies, commits and conversions of states; projections that are taken apart.

use super::memory::{copy, entry, named_or_row};
use crate::call::{CommitState, ConvertLayout, CopyState, Rows, SlotPool, Table, UnpackQkvz};
use crate::key::Layout;

/// A side of copies: the byte that the slot of copy `n` begins at, if its table names one.
struct Side<'a> {
    pool: SlotPool,
    slots: Option<&'a Table>,
    null_slot: Option<i32>,
}

impl Side<'_> {
    fn bytes(&self, elements: u64) -> u64 {
        elements * self.pool.tensor.dtype.size() as u64
    }

    unsafe fn address(&self, n: u64) -> Option<u64> {
        // SAFETY: the caller's promise.
        let slot = unsafe { named_or_row(self.slots, n, self.pool.slots, self.null_slot) }?;
        Some(self.pool.tensor.address + self.bytes(slot * self.pool.pitch))
    }
}

impl CopyState {
    /// The call on host memory.
    ///
    /// # Safety
    /// As [`super::run`]; the call was checked.
    pub(crate) unsafe fn on_host(&self) {
        let side = |pool, slots| Side { pool, slots, null_slot: self.null_slot };
        let source = side(self.source, self.source_slots.as_ref());
        let target = side(self.target, self.target_slots.as_ref());
        for n in 0..u64::from(self.copies) {
            // SAFETY: the caller's promise.
            unsafe {
                if let (Some(from), Some(to)) = (source.address(n), target.address(n)) {
                    copy(from, to, source.bytes(self.elements));
                }
            }
        }
    }
}

impl CommitState {
    /// The call on host memory.
    ///
    /// # Safety
    /// As [`super::run`]; the call was checked.
    pub(crate) unsafe fn on_host(&self) {
        let (buffer, elements) = (&self.intermediate, self.shape.state_elements());
        let source = Side { pool: buffer.pool(), slots: buffer.row.as_ref(), null_slot: None };
        let target = Side { pool: self.state.into(), slots: self.slots.as_ref(), null_slot: self.null_slot };
        for n in 0..u64::from(self.batch) {
            // SAFETY: the caller's promise.
            unsafe {
                let accepted = entry(&self.accepted, n, 0);
                let is_step = (1..=i64::from(buffer.steps)).contains(&accepted);
                let places = source.address(n).zip(target.address(n)).filter(|_| is_step);
                if let Some((row, to)) = places {
                    let from = row + source.bytes((accepted as u64 - 1) * elements);
                    copy(from, to, source.bytes(elements));
                }
            }
        }
    }
}

impl ConvertLayout {
    /// The call on host memory.
    ///
    /// # Safety
    /// As [`super::run`]; the call was checked.
    pub(crate) unsafe fn on_host(&self) {
        let side = |pool: crate::call::StatePool, slots| Side {
            pool: pool.into(),
            slots,
            null_slot: self.null_slot,
        };
        let source = side(self.source, self.source_slots.as_ref());
        let target = side(self.target, self.target_slots.as_ref());
        let [hv, v, k] = [self.shape.hv, self.shape.v, self.shape.k].map(u64::from);
        let (rows, columns) = if self.source.layout == Layout::Vk { (v, k) } else { (k, v) };
        let size = source.bytes(1);
        for n in 0..u64::from(self.copies) {
            // SAFETY: the caller's promise.
            unsafe {
                let (Some(from), Some(to)) = (source.address(n), target.address(n)) else { continue };
                for at in 0..hv * rows * columns {
                    let (head, row, column) = (at / (rows * columns), at / columns % rows, at % columns);
                    let place = (head * columns + column) * rows + row;
                    copy(from + at * size, to + place * size, size);
                }
            }
        }
    }
}

impl UnpackQkvz {
    /// The call on host memory.
    ///
    /// # Safety
    /// As [`super::run`]; the call was checked.
    pub(crate) unsafe fn on_host(&self) {
        let shape = self.shape;
        let [ratio, k, v] = [shape.ratio(), shape.k, shape.v].map(u64::from);
        // Of each key head: where a part begins in its group, its elements, and where it goes.
        let qkvz = [
            (0, k, &self.mixed_qkv, 0),
            (k, k, &self.mixed_qkv, shape.key_elements()),
            (2 * k, ratio * v, &self.mixed_qkv, 2 * shape.key_elements()),
            (2 * k + ratio * v, ratio * v, &self.z, 0),
        ];
        let ba = [(0, ratio, &self.b, 0), (ratio, ratio, &self.a, 0)];
        for token in 0..u64::from(self.tokens) {
            for head in 0..u64::from(shape.h) {
                let part = |from: &Rows, group: u64, (begin, len, to, offset): (u64, u64, &Rows, u64)| {
                    let size = from.tensor.dtype.size() as u64;
                    let at = |rows: &Rows, column: u64| {
                        rows.tensor.address + (token * rows.stride + column) * size
                    };
                    let (source, target) = (at(from, head * group + begin), at(to, offset + head * len));
                    // SAFETY: the caller's promise.
                    unsafe { copy(source, target, len * size) };
                };
                qkvz.into_iter().for_each(|piece| part(&self.qkvz, 2 * k + 2 * ratio * v, piece));
                ba.into_iter().for_each(|piece| part(&self.ba, 2 * ratio, piece));
            }
        }
    }
}
