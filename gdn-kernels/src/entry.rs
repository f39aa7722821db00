//! Entries of a caller's tables, whatever their type: asked for first, looked at when everything else is in flight.
//!
//! A table's type is known only at run time. Reading it takes no branch, so that nothing waits for the load: of an index
//! the lower word is read, and of 64 bits the upper one as well; of a flag a byte or a word.

use crate::abi::{Entry as Kind, Table};
use crate::arch::{compiler, memory};
use crate::token::wide;

/// The address of the first entry of a row.
#[inline(always)]
fn row_at(table: &Table, row: u32) -> u64 {
    table.address + wide(row, table.stride)
}

/// What the entries are. Read together with the stride it would be compared as 64 bits, in twice as many instructions.
#[inline(always)]
fn entry(table: &Table) -> u32 {
    compiler::opaque(table.entry)
}

/// Whether there is a table.
#[inline(always)]
pub(crate) fn is_there(table: &Table) -> bool {
    entry(table) != 0
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
        // SAFETY: the caller's promise.
        unsafe { Index::load_or(0, condition, table, row, column) }
    }

    /// Asks for entry `column` of row `row`, if the condition holds; else it is `other`, for which nothing has to be chosen
    /// behind the load.
    ///
    /// # Safety
    /// If the condition is true, the table has such an entry.
    #[inline(always)]
    pub(crate) unsafe fn load_or(other: u32, condition: bool, table: &Table, row: u32, column: u32) -> Index {
        let is_wide = entry(table) == Kind::I64 as u32;
        let at = row_at(table, row) + ((column as u64) << (2 + is_wide as u32));
        // SAFETY: the caller's promise.
        unsafe {
            Index {
                low: memory::load_u32_or(other, condition, at),
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
        let is_wide = entry(table) == Kind::I64 as u32;
        let at = row_at(table, row);
        // SAFETY: the caller's promise.
        unsafe {
            let low = memory::load_u32_anew(at);
            Index { low, high: if is_wide { memory::load_u32_anew(at + 4) } else { 0 } }
        }
    }

    /// The same index, but not before `bits` are there, none of which is set.
    #[inline(always)]
    pub(crate) fn behind(self, bits: u32) -> Index {
        Index { low: self.low | bits, high: self.high | bits }
    }

    /// The index and whether it is one: for addresses that must not wait for a choice behind the load. Where it is none, the
    /// number means nothing.
    #[inline(always)]
    pub(crate) fn parts(self) -> (i32, bool) {
        (self.low as i32, self.high == 0)
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
        let (entry, at) = (entry(table), row_at(table, row));
        let is_byte = entry == Kind::U8 as u32;
        let is_word = entry == Kind::I32 as u32 || entry == Kind::U32 as u32;
        // SAFETY: the caller's promise; at most one of the two loads is made.
        unsafe {
            let byte = memory::load_u8_if(is_byte, at);
            let word = memory::load_u32_if(is_word, at);
            Flag(byte | word)
        }
    }

    /// The same flag, but not before `bits` are there, none of which is set.
    #[inline(always)]
    pub(crate) fn behind(self, bits: u32) -> Flag {
        Flag(self.0 | bits)
    }

    /// What is not 0 if the flag is set.
    #[inline(always)]
    pub(crate) fn bits(self) -> u32 {
        self.0
    }
}
