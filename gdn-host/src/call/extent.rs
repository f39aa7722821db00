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
        let (row_bytes, stride_bytes) = (width.saturating_mul(size), rows.stride.saturating_mul(size));
        Extent { field, address, rows: count, row_bytes, stride_bytes, written }
    }

    /// A table.
    pub(super) fn table(field: &'static str, table: &Table) -> Extent {
        let (address, size) = (table.address, table.entry.size() as u64);
        let bytes = |entries: u64| entries.saturating_mul(size);
        let (row_bytes, stride_bytes) = (bytes(table.columns), bytes(table.stride));
        Extent { field, address, rows: table.len, row_bytes, stride_bytes, written: false }
    }

    /// Bytes from the first touched byte to the last; `u64::MAX` if they are more than that.
    pub fn span(&self) -> u64 {
        let Some(last) = self.rows.checked_sub(1) else { return 0 };
        last.saturating_mul(self.stride_bytes).saturating_add(self.row_bytes)
    }

    /// The address behind the last touched byte.
    fn end(&self) -> u64 {
        self.address.saturating_add(self.span())
    }

    /// Whether two extents have a byte in common. Rows of one stride may interleave without touching.
    pub(super) fn overlaps(&self, other: &Extent) -> bool {
        let (a, b) = (self, other);
        let apart = a.span() == 0 || b.span() == 0 || a.end() <= b.address || b.end() <= a.address;
        if apart {
            return false;
        }
        let stride = a.stride_bytes;
        if stride != b.stride_bytes || stride == 0 {
            return true;
        }
        // Same stride: compare places within a row, counted from the start of a's.
        let place = match (a.address % stride, b.address % stride) {
            (from, to) if from <= to => to - from,
            (from, to) => stride - (from - to),
        };
        !(a.row_bytes <= place && place.saturating_add(b.row_bytes) <= stride)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_overlaps_of_lengths_that_lie_do_not_wrap() {
        let endless = Extent { address: 16, rows: u64::MAX, row_bytes: u64::MAX, ..Extent::default() };
        let strided = Extent { stride_bytes: u64::MAX, ..endless };
        let last = Extent { address: u64::MAX - 15, rows: 1, row_bytes: 16, ..Extent::default() };
        assert_eq!([endless, strided, last].map(|extent| extent.span()), [u64::MAX, u64::MAX, 16]);
        assert!(endless.overlaps(&strided) && strided.overlaps(&strided) && strided.overlaps(&last));
        assert_eq!(Extent { rows: 0, ..strided }.span(), 0);
    }
}
