//! Tables that kernels read on the device: slots, rows, counts, parents, lengths and flags.
//!
//! A caller's table may be of 32 or of 64 bits, and may be one column of a wider table. So each table says what its
//! entries are and how far they are apart; a kernel never guesses.

use bytemuck::{Pod, Zeroable};

/// What an entry of a [`Table`] is.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Entry {
    /// A signed integer of 32 bits.
    I32 = 1,
    /// An unsigned integer of 32 bits. As an index 2^31 and more name nothing.
    U32 = 2,
    /// A signed integer of 64 bits, of which all are read: an index of 2^31 and more names nothing.
    I64 = 3,
    /// A byte, for flags: 0 or not 0.
    U8 = 4,
}

impl Entry {
    /// Bytes of an entry.
    pub const fn size(self) -> usize {
        match self {
            Entry::U8 => 1,
            Entry::I32 | Entry::U32 => 4,
            Entry::I64 => 8,
        }
    }

    /// The name used in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Entry::I32 => "i32",
            Entry::U32 => "u32",
            Entry::I64 => "i64",
            Entry::U8 => "u8",
        }
    }
}

/// A table with a row for each sequence. A row is one entry, or, where the field says so, several that lie one
/// behind the other.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Table {
    /// The first entry, aligned to an entry.
    pub address: u64,
    /// Bytes from a row to the next, a multiple of an entry.
    pub stride: u32,
    /// [`Entry`]; 0, as in a zeroed struct: there is no table.
    pub entry: u32,
}

impl Table {
    /// Whether there is a table.
    #[inline(always)]
    pub const fn is_there(&self) -> bool {
        self.entry != 0
    }
}

// Every host relies on these numbers; `gdn_kernels.h` repeats them as static assertions.
const _: () = assert!(core::mem::size_of::<Table>() == 16);
