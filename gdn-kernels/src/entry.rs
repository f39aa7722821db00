//! Entries of a caller's tables, whatever their type: asked for first, looked at when everything else is in flight.
//!
//! A table's type is known only at run time. Reading it takes no branch, so that nothing waits for the load: the lower
//! word is read of every integer, the upper one of 64 bits as well, a byte of flags.

use crate::abi::{Entry as Kind, Table};
use crate::arch::memory;

/// An entry that was asked for but not yet looked at.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    low: u32,
    /// The upper half of 64 bits, else 0.
    high: u32,
}

#[allow(dead_code, reason = "the operations move over to it one by one")]
impl Entry {
    /// Asks for entry `column` of row `row`, if the condition holds; else it is 0.
    ///
    /// # Safety
    /// If the condition is true, the table has such an entry.
    #[inline(always)]
    pub(crate) unsafe fn load_if(condition: bool, table: &Table, row: u32, column: u32) -> Entry {
        let at = row as u64 * table.stride as u64 + column as u64;
        let (is_byte, is_wide) = (table.entry == Kind::U8 as u32, table.entry == Kind::I64 as u32);
        let shift = if is_byte { 0 } else { 2 + is_wide as u32 };
        let address = table.address + (at << shift);
        // SAFETY: the caller's promise; of the first two loads one is made.
        unsafe {
            let word = memory::load_u32_if(condition & !is_byte, address);
            let byte = memory::load_u8_if(condition & is_byte, address);
            let high = memory::load_u32_if(condition & is_wide, address + 4);
            Entry { low: word | byte, high }
        }
    }

    /// The entry as an index. One that does not fit 31 bits is -1, which names nothing.
    #[inline(always)]
    pub(crate) fn index(self) -> i32 {
        if self.high == 0 { self.low as i32 } else { -1 }
    }

    /// The entry as a flag.
    #[inline(always)]
    pub(crate) fn flag(self) -> bool {
        self.low | self.high != 0
    }
}
