//! Borrowed tables of slots, rows, counts, parents, lengths and flags.

use gdn_kernels::abi::{self, Entry};

/// A borrowed table in device memory, with a row for each sequence unless its field says otherwise. A row is one
/// entry, or several that lie one behind the other.
///
/// A table says what its entries are. Indices, counts and lengths are i32, u32 or i64, flags u8 (or bool), i32 or u32;
/// other types are refused. Rows
/// may be further apart than their entries: column 0 of a block table `[N, blocks]` is
/// `Table::i32(address, n).with_stride(blocks)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// Device address of the first entry.
    pub address: u64,
    /// What an entry is.
    pub entry: Entry,
    /// Rows.
    pub len: u64,
    /// Entries of a row.
    pub columns: u64,
    /// Entries from a row to the next, at least `columns`.
    pub stride: u64,
}

impl Table {
    /// A dense table of `len` entries.
    pub const fn new(address: u64, entry: Entry, len: u64) -> Table {
        Table { address, entry, len, columns: 1, stride: 1 }
    }

    /// `i32[len]`.
    pub const fn i32(address: u64, len: u64) -> Table {
        Table::new(address, Entry::I32, len)
    }

    /// `u32[len]`, in which 2^31 and more, `u32::MAX` above all, name nothing.
    pub const fn u32(address: u64, len: u64) -> Table {
        Table::new(address, Entry::U32, len)
    }

    /// `i64[len]`.
    pub const fn i64(address: u64, len: u64) -> Table {
        Table::new(address, Entry::I64, len)
    }

    /// Flags of a byte each, `u8[len]` or `bool[len]`: 0 or not 0.
    pub const fn bytes(address: u64, len: u64) -> Table {
        Table::new(address, Entry::U8, len)
    }

    /// The same table with so many entries a row, rows packed.
    pub const fn with_columns(self, columns: u64) -> Table {
        Table { columns, stride: columns, ..self }
    }

    /// The same table with rows so many entries apart.
    pub const fn with_stride(self, stride: u64) -> Table {
        Table { stride, ..self }
    }

    /// An optional table as the kernels take it, after it was checked.
    pub(super) fn to_abi(table: Option<&Table>) -> abi::Table {
        table.map_or_else(Default::default, |table| abi::Table {
            address: table.address,
            stride: (table.stride * table.entry.size() as u64) as u32,
            entry: table.entry as u32,
        })
    }
}
