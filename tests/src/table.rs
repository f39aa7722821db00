//! Tables of indices and flags, in whatever types and strides callers have them.

use crate::device::Device;
use anyhow::{Result, ensure};
use gdn_host::{Entry, Table};

/// How the tables of a problem lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableForm {
    /// Type of indices, counts and lengths. [`Entry::I64`] shows that all 64 bits count: `i32::MIN` becomes 2^32, which is
    /// slot 0 to who reads its lower half.
    pub index: Entry,
    /// Type of flags.
    pub flag: Entry,
    /// Entries between the end of a row and the next row. Nobody writes them.
    pub gap: usize,
}

impl Default for TableForm {
    fn default() -> TableForm {
        TableForm { index: Entry::I32, flag: Entry::U8, gap: 0 }
    }
}

impl TableForm {
    /// A form that a seed chooses.
    pub fn drawn(seed: u64) -> TableForm {
        let (index, flag, gap) = (seed % 3, seed / 3 % 3, seed / 9 % 3);
        TableForm {
            index: [Entry::I32, Entry::U32, Entry::I64][index as usize],
            flag: [Entry::U8, Entry::I32, Entry::U32][flag as usize],
            gap: gap as usize,
        }
    }

    /// A table of rows of `columns` indices.
    pub fn indices(&self, device: &mut dyn Device, values: &[i32], columns: usize) -> Result<Table> {
        let is_far = |index: i32| self.index == Entry::I64 && index == i32::MIN;
        let wide = |index: i32| if is_far(index) { 1 << 32 } else { i64::from(index) };
        let values: Vec<i64> = values.iter().map(|&i| wide(i)).collect();
        self.place(device, self.index, &values, columns)
    }

    /// A table of lengths, of a type of its own.
    pub fn lengths(&self, device: &mut dyn Device, values: &[i64], entry: Entry) -> Result<Table> {
        self.place(device, entry, values, 1)
    }

    /// A table of flags.
    pub fn flags(&self, device: &mut dyn Device, values: &[u8]) -> Result<Table> {
        // Of a flag of 32 bits the lowest byte says nothing.
        let shift = if self.flag == Entry::U8 { 0 } else { 16 };
        let values: Vec<i64> = values.iter().map(|&flag| i64::from(flag) << shift).collect();
        self.place(device, self.flag, &values, 1)
    }

    fn place(&self, device: &mut dyn Device, entry: Entry, values: &[i64], columns: usize) -> Result<Table> {
        ensure!(values.len().is_multiple_of(columns), "{} entries are no rows of {columns}", values.len());
        let (rows, stride, size) = (values.len() / columns, columns + self.gap, entry.size());
        let address = device.alloc((rows * stride * size).max(1) as u64)?;
        for (row, entries) in values.chunks(columns).enumerate() {
            let bytes: Vec<u8> = entries.iter().flat_map(|e| e.to_le_bytes()[..size].to_vec()).collect();
            device.write(address + (row * stride * size) as u64, &bytes)?;
        }
        let table = Table::new(address, entry, rows as u64).with_columns(columns as u64);
        Ok(table.with_stride(stride as u64))
    }
}
