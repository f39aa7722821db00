//! Simulated global memory: a sparse store behind device addresses.
//!
//! Addresses are virtual and mean nothing to the host, so that a kernel cannot reach what it was not given,
//! and each allocation is a table of pages that exist only once touched: a pool of 20 GB costs a few MB, and
//! 64-bit index arithmetic can be tested where it matters. A bit for each byte says whether it was written.
//!
//! Blocks run in parallel, so words are atomics. Nothing is ordered beyond what a GPU would order: a store is
//! visible to other blocks at some point, and its bytes before the bits that call them written.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Address of the first allocation.
const FIRST: u64 = 0x7f00_0000_0000;
/// Alignment of allocations, as `cuMemAlloc` gives it.
const ALIGNMENT: u64 = 256;
/// Unallocated bytes after each allocation.
const GUARD: u64 = 1 << 20;
/// Bytes of a page, a multiple of [`LINE`].
pub(super) const PAGE: usize = 64 << 10;
/// Bytes whose "written" bits share a word.
const LINE: usize = 32;
/// What the host reads where nothing was written.
const POISON: u8 = 0xa5;

/// Global memory of a simulated device.
///
/// Reads and writes of the host panic on an address range that is not inside one allocation; the kernels'
/// accesses end in a [`Fault`](super::Fault) instead.
#[derive(Debug, Default)]
pub struct Memory {
    /// In ascending order of address.
    allocations: Vec<Allocation>,
}

#[derive(Debug)]
struct Allocation {
    address: u64,
    bytes: u64,
    pages: Box<[OnceLock<Page>]>,
}

/// Where in which allocation.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// Number of the allocation.
    pub(super) allocation: usize,
    /// Byte of it.
    pub(super) offset: usize,
}

impl Memory {
    /// An empty memory.
    pub fn new() -> Memory {
        Memory::default()
    }

    /// Allocates `bytes` bytes, uninitialised, at a multiple of 256, with a guard gap behind them.
    ///
    /// # Panics
    /// When the address space is exhausted.
    #[track_caller]
    pub fn alloc(&mut self, bytes: u64) -> u64 {
        let address = match self.allocations.last() {
            None => FIRST,
            Some(last) => (last.address + last.bytes + GUARD).next_multiple_of(ALIGNMENT),
        };
        let end = address.checked_add(bytes).and_then(|end| end.checked_add(2 * GUARD));
        assert!(end.is_some(), "no address space for {bytes} bytes");
        let pages = bytes.div_ceil(PAGE as u64);
        let pages = (0..pages).map(|_| OnceLock::new()).collect();
        self.allocations.push(Allocation { address, bytes, pages });
        address
    }

    /// Writes bytes.
    ///
    /// # Panics
    /// When the range is not inside one allocation.
    #[track_caller]
    pub fn write(&self, address: u64, bytes: &[u8]) {
        let Some(place) = self.locate(address, bytes.len()) else { outside(address, bytes.len()) };
        self.store(place, bytes);
    }

    /// Reads bytes; those that were never written read as 0xa5.
    ///
    /// # Panics
    /// When the range is not inside one allocation.
    #[track_caller]
    pub fn read(&self, address: u64, len: usize) -> Vec<u8> {
        let Some((allocation, offset)) = self.find(address, len) else { outside(address, len) };
        let mut bytes = vec![POISON; len];
        let mut done = 0;
        for (page, start, count) in pieces(offset, len, PAGE) {
            if let Some(page) = allocation.pages[page].get() {
                page.read(start, &mut bytes[done..done + count]);
            }
            done += count;
        }
        bytes
    }

    /// Whether every byte of a range was written, by the host or by a kernel.
    ///
    /// # Panics
    /// When the range is not inside one allocation.
    #[track_caller]
    pub fn is_written(&self, address: u64, len: usize) -> bool {
        let Some((allocation, offset)) = self.find(address, len) else { outside(address, len) };
        allocation.first_unwritten(offset, len).is_none()
    }

    /// Host bytes behind the pages touched so far.
    pub fn resident(&self) -> u64 {
        let touched =
            |allocation: &Allocation| allocation.pages.iter().filter(|page| page.get().is_some()).count();
        let pages: usize = self.allocations.iter().map(touched).sum();
        pages as u64 * (PAGE + PAGE / 8) as u64
    }

    /// A kernel's load: all bytes must have been written. The error is the address of the first that was not.
    pub(super) fn load(&self, place: Place, bytes: &mut [u8]) -> Result<(), u64> {
        let (allocation, offset) = (&self.allocations[place.allocation], place.offset);
        if let Some(first) = allocation.first_unwritten(offset, bytes.len()) {
            return Err(allocation.address + first as u64);
        }
        let mut done = 0;
        for (page, start, count) in pieces(offset, bytes.len(), PAGE) {
            allocation.page(page).read(start, &mut bytes[done..done + count]);
            done += count;
        }
        Ok(())
    }

    /// A store, of a kernel or of the host.
    pub(super) fn store(&self, place: Place, bytes: &[u8]) {
        let allocation = &self.allocations[place.allocation];
        let mut done = 0;
        for (page, start, count) in pieces(place.offset, bytes.len(), PAGE) {
            allocation.page(page).write(start, &bytes[done..done + count]);
            done += count;
        }
    }

    /// Pages of each allocation.
    pub(super) fn page_counts(&self) -> impl Iterator<Item = usize> {
        self.allocations.iter().map(|allocation| allocation.pages.len())
    }

    /// Where a range lies, if inside one allocation.
    pub(super) fn locate(&self, address: u64, len: usize) -> Option<Place> {
        let number = self.allocations.partition_point(|a| a.address <= address).checked_sub(1)?;
        let offset = address - self.allocations[number].address;
        let end = offset.checked_add(len as u64)?;
        let is_inside = end <= self.allocations[number].bytes;
        is_inside.then_some(Place { allocation: number, offset: offset as usize })
    }

    /// The allocation that a range lies in, and where in it.
    fn find(&self, address: u64, len: usize) -> Option<(&Allocation, usize)> {
        let Place { allocation, offset } = self.locate(address, len)?;
        Some((&self.allocations[allocation], offset))
    }
}

#[track_caller]
fn outside(address: u64, len: usize) -> ! {
    panic!("{len} bytes at {address:#x} are not inside one allocation of the simulated memory")
}

impl Allocation {
    fn page(&self, index: usize) -> &Page {
        self.pages[index].get_or_init(Page::new)
    }

    fn first_unwritten(&self, offset: usize, len: usize) -> Option<usize> {
        pieces(offset, len, PAGE).find_map(|(index, start, count)| {
            let unwritten = match self.pages[index].get() {
                None => Some(start),
                Some(page) => page.first_unwritten(start, count),
            };
            unwritten.map(|byte| index * PAGE + byte)
        })
    }
}

/// A page that was touched.
#[derive(Debug)]
struct Page(Box<Contents>);

#[derive(Debug)]
struct Contents {
    /// Little endian.
    words: Box<[AtomicU32]>,
    /// A bit for each byte, a word for each line.
    written: Box<[AtomicU32]>,
}

impl Page {
    fn new() -> Page {
        let filled = |count, value| (0..count).map(|_| AtomicU32::new(value)).collect();
        Page(Box::new(Contents {
            words: filled(PAGE / 4, u32::from_le_bytes([POISON; 4])),
            written: filled(PAGE / LINE, 0),
        }))
    }

    fn read(&self, offset: usize, bytes: &mut [u8]) {
        let mut done = 0;
        for (word, start, count) in pieces(offset, bytes.len(), 4) {
            let word = self.0.words[word].load(Ordering::Relaxed).to_le_bytes();
            bytes[done..done + count].copy_from_slice(&word[start..start + count]);
            done += count;
        }
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        let mut done = 0;
        for (word, start, count) in pieces(offset, bytes.len(), 4) {
            let mut value = [0; 4];
            value[start..start + count].copy_from_slice(&bytes[done..done + count]);
            let value = u32::from_le_bytes(value);
            let word = &self.0.words[word];
            if count == 4 {
                word.store(value, Ordering::Relaxed);
            } else {
                // Another block may be writing the word's other bytes.
                let keep = !(mask(8 * count) << (8 * start));
                let merge = |old| Some(old & keep | value);
                word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, merge)
                    .expect("merge always gives a value");
            }
            done += count;
        }
        for (line, start, count) in pieces(offset, bytes.len(), LINE) {
            let (line, bits) = (&self.0.written[line], mask(count) << start);
            if line.load(Ordering::Acquire) & bits != bits {
                line.fetch_or(bits, Ordering::Release);
            }
        }
    }

    fn first_unwritten(&self, offset: usize, len: usize) -> Option<usize> {
        pieces(offset, len, LINE).find_map(|(line, start, count)| {
            let written = self.0.written[line].load(Ordering::Acquire);
            let missing = !written & (mask(count) << start);
            (missing != 0).then(|| line * LINE + missing.trailing_zeros() as usize)
        })
    }
}

/// `bits` ones, at most 32.
fn mask(bits: usize) -> u32 {
    u32::MAX >> (32 - bits)
}

/// Cuts a range at the multiples of `unit`: for each piece the unit, its first byte there, its bytes.
fn pieces(mut offset: usize, mut len: usize, unit: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    std::iter::from_fn(move || {
        let (index, start) = (offset / unit, offset % unit);
        let count = len.min(unit - start);
        offset += count;
        len -= count;
        (count > 0).then_some((index, start, count))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocations_are_aligned_and_apart() {
        let mut memory = Memory::new();
        let a = memory.alloc(3);
        let b = memory.alloc(0);
        let c = memory.alloc(1);
        assert_eq!(a, 0x7f00_0000_0000);
        assert!([a, b, c].iter().all(|address| address % 256 == 0));
        assert!(b >= a + 3 + GUARD && c >= b + GUARD);
    }

    #[test]
    fn unwritten_bytes_read_as_poison() {
        let mut memory = Memory::new();
        let a = memory.alloc(3 * PAGE as u64);
        // Odd offset, odd length, across a page.
        let at = a + PAGE as u64 - 3;
        memory.write(at, &[1, 2, 3, 4, 5]);
        assert_eq!(memory.read(at - 1, 7), [0xa5, 1, 2, 3, 4, 5, 0xa5]);
        assert!(memory.is_written(at, 5) && memory.is_written(at + 5, 0));
        assert!(!memory.is_written(at, 6) && !memory.is_written(at - 1, 1));
        assert!(!memory.is_written(a + 2 * PAGE as u64, 1), "untouched page");
        memory.write(at + 1, &[9]);
        assert_eq!(memory.read(at, 3), [1, 9, 3]);
    }

    #[test]
    fn pool_of_20_gb_costs_what_is_touched() {
        let mut memory = Memory::new();
        let bytes = 20 << 30;
        let a = memory.alloc(bytes);
        assert_eq!(memory.resident(), 0);
        memory.write(a + bytes - 8, &7u64.to_le_bytes());
        assert_eq!(memory.read(a + bytes - 8, 8), 7u64.to_le_bytes());
        assert_eq!(memory.read(a + (bytes >> 1), 2), [0xa5; 2]);
        assert!(memory.resident() < 100 << 10);
    }

    #[test]
    fn parallel_halves_of_a_word_both_arrive() {
        let mut memory = Memory::new();
        let a = memory.alloc(4096);
        std::thread::scope(|scope| {
            for half in 0..2u64 {
                let memory = &memory;
                scope.spawn(move || {
                    for word in 0..1024 {
                        memory.write(a + 4 * word + 2 * half, &[half as u8 + 1; 2]);
                    }
                });
            }
        });
        assert_eq!(memory.read(a, 4096), [1, 1, 2, 2].repeat(1024));
    }

    #[test]
    #[should_panic(expected = "8 bytes at 0x7f0000000004 are not inside one allocation")]
    fn host_write_past_the_end_panics() {
        let mut memory = Memory::new();
        let a = memory.alloc(8);
        memory.write(a + 4, &[0; 8]);
    }

    #[test]
    #[should_panic(expected = "not inside one allocation")]
    fn host_read_of_the_guard_gap_panics() {
        let mut memory = Memory::new();
        memory.alloc(8);
        let b = memory.alloc(8);
        memory.read(b - 1, 1);
    }
}
