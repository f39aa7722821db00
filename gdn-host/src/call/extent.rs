//! The memory a call touches, and whether two arguments share some.

/// What a call touches of one argument: `rows` stretches of `row_bytes`, `stride_bytes` apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
