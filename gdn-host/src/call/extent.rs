//! The memory a call touches, and whether two arguments share some.

use super::{CallError, Rows, Table};

/// What a call touches of one argument: `rows` stretches of `row_bytes`, `stride_bytes` apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Argument, as the call's field is named.
    pub field: &'static str,
    /// Device address of the first byte.
    pub address: u64,
    /// Stretches.
    pub rows: u64,
    /// Bytes of a stretch.
    pub row_bytes: u64,
    /// Bytes between the starts of two stretches.
    pub stride_bytes: u64,
    /// Whether the call writes there.
    pub written: bool,
}

impl Extent {
    /// `count` rows of `width` elements.
    pub(super) fn rows(field: &'static str, rows: &Rows, width: u64, count: u64, written: bool) -> Extent {
        let (address, size) = (rows.tensor.address, rows.tensor.dtype.size() as u64);
        let (row_bytes, stride_bytes) = (width * size, rows.stride * size);
        Extent { field, address, rows: count, row_bytes, stride_bytes, written }
    }

    /// A table.
    pub(super) fn table(field: &'static str, table: &Table) -> Extent {
        let (address, size) = (table.address, table.entry.size() as u64);
        let (row_bytes, stride_bytes) = (table.columns * size, table.stride * size);
        Extent { field, address, rows: table.len, row_bytes, stride_bytes, written: false }
    }

    /// Bytes from the first touched byte to the last.
    pub fn span(&self) -> u64 {
        if self.rows == 0 { 0 } else { (self.rows - 1) * self.stride_bytes + self.row_bytes }
    }

    /// Whether two extents have a byte in common. Rows of one stride may interleave without touching.
    pub(super) fn overlaps(&self, other: &Extent) -> bool {
        let (a, b) = (self, other);
        let apart = a.span() == 0
            || b.span() == 0
            || a.address + a.span() <= b.address
            || b.address + b.span() <= a.address;
        if apart {
            return false;
        }
        let stride = a.stride_bytes;
        if stride != b.stride_bytes || stride == 0 {
            return true;
        }
        // Same stride: compare places within a row, counted from the start of a's.
        let place = (b.address % stride + stride - a.address % stride) % stride;
        !(a.row_bytes <= place && place + b.row_bytes <= stride)
    }
}

/// The extents of a call's arguments, those that were given.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extents {
    list: [Extent; Extents::CAPACITY],
    len: usize,
}

impl Extents {
    /// Most arguments a call has.
    const CAPACITY: usize = 20;

    /// Adds an argument.
    pub(super) fn push(&mut self, extent: Extent) {
        // No call has more; a test lists every argument of every call.
        debug_assert!(self.len < Self::CAPACITY);
        if let Some(place) = self.list.get_mut(self.len) {
            *place = extent;
            self.len += 1;
        }
    }

    /// Adds a table, if it was given.
    pub(super) fn push_table(&mut self, field: &'static str, table: Option<&Table>) {
        if let Some(table) = table {
            self.push(Extent::table(field, table));
        }
    }

    /// Refuses a written argument that shares memory with another one.
    pub(super) fn check_overlap(&self) -> Result<(), CallError> {
        for (i, written) in self.iter().enumerate().filter(|(_, e)| e.written) {
            for (j, other) in self.iter().enumerate() {
                if i != j && written.overlaps(other) {
                    return Err(CallError::Overlap { written: written.field, other: other.field });
                }
            }
        }
        Ok(())
    }
}

impl std::ops::Deref for Extents {
    type Target = [Extent];

    fn deref(&self) -> &[Extent] {
        &self.list[..self.len]
    }
}
