//! Entries of a caller's tables, whatever their type: asked for first, looked at when everything else is in flight.
//!
//! A table's type is known only at run time. Reading it takes no branch, so that nothing waits for the load: of an index
//! the lower word is read, and of 64 bits the upper one as well; of a flag a byte or a word.

use crate::abi::{Entry as Kind, Table};
use crate::arch::memory;

/// The address of an entry of `1 << shift` bytes.
#[inline(always)]
fn address(table: &Table, shift: u32, row: u32, column: u32) -> u64 {
    table.address + ((row as u64 * table.stride as u64 + column as u64) << shift)
}

/// An index, a count or a length that was asked for but not yet looked at.
#[derive(Clone, Copy)]
pub(crate) struct Index {
    low: u32,
    /// The upper half of 64 bits, else 0.
    high: u32,
}

impl Index {
    /// One that names nothing.
    pub(crate) const NONE: Index = Index { low: u32::MAX, high: 0 };

    /// One that no table had to be asked for.
    #[inline(always)]
    pub(crate) fn of(index: u32) -> Index {
        Index { low: index, high: 0 }
    }

    /// Asks for entry `column` of row `row`, if the condition holds; else it is 0.
    ///
    /// # Safety
    /// If the condition is true, the table has such an entry.
    #[inline(always)]
    pub(crate) unsafe fn load_if(condition: bool, table: &Table, row: u32, column: u32) -> Index {
        let is_wide = table.entry == Kind::I64 as u32;
        let at = address(table, 2 + is_wide as u32, row, column);
        // SAFETY: the caller's promise.
        unsafe {
            Index {
                low: memory::load_u32_if(condition, at),
                high: memory::load_u32_if(condition & is_wide, at + 4),
            }
        }
    }

    /// The first entry of a row, by a load of its own even where it was asked for before.
    ///
    /// # Safety
    /// The table has such a row.
    #[inline(always)]
    pub(crate) unsafe fn load_anew(table: &Table, row: u32) -> Index {
        let is_wide = table.entry == Kind::I64 as u32;
        let at = address(table, 2 + is_wide as u32, row, 0);
        // SAFETY: the caller's promise.
        unsafe {
            let low = memory::load_u32_anew(at);
            Index { low, high: if is_wide { memory::load_u32_anew(at + 4) } else { 0 } }
        }
    }

    /// The same index, but not before `bits` are there, none of which is set.
    #[inline(always)]
    pub(crate) fn behind(self, bits: u32) -> Index {
        Index { low: self.low | bits, ..self }
    }

    /// The index. One that does not fit 32 bits is -1, which names nothing.
    #[inline(always)]
    pub(crate) fn get(self) -> i32 {
        if self.high == 0 { self.low as i32 } else { -1 }
    }
}

/// A flag that was asked for but not yet looked at.
#[derive(Clone, Copy)]
pub(crate) struct Flag(u32);

impl Flag {
    /// Asks for the flag of row `row`, if there is a table; else it is not set.
    ///
    /// # Safety
    /// The table has such a row.
    #[inline(always)]
    pub(crate) unsafe fn load(table: &Table, row: u32) -> Flag {
        let (is_there, is_byte) = (table.address != 0, table.entry == Kind::U8 as u32);
        let at = address(table, if is_byte { 0 } else { 2 }, row, 0);
        // SAFETY: the caller's promise; one of the two loads is made.
        unsafe {
            let byte = memory::load_u8_if(is_there & is_byte, at);
            let word = memory::load_u32_if(is_there & !is_byte, at);
            Flag(byte | word)
        }
    }

    /// What is not 0 if the flag is set.
    #[inline(always)]
    pub(crate) fn bits(self) -> u32 {
        self.0
    }
}
