//! Which block touched what of global memory during a launch.
//!
//! Nothing orders two blocks of a launch. So two accesses of different blocks to one byte race, if one of them is a store; a block
//! may load and store its own bytes as it likes. A prefetch is no access.
//!
//! Global memory is watched in units of two bytes, which is exact: no store of a kernel is smaller. Eight units are a
//! line, and no access crosses one, because accesses are naturally aligned. A line that one block touches, while others at
//! most load what it loads, is one atomic word ([`Line`]); this is nearly all of memory. A line that blocks have shared out
//! among themselves is [`Unit`]s behind its page's lock.
//!
//! Whichever of two racing accesses comes second finds the first, so that a race is found whatever the schedule. Who raced
//! with whom does depend on it, and words do not know threads. So when a launch has raced it runs again, block after block,
//! with units only (`named`).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::extent::Access;
use super::global_memory::{Memory, PAGE, Place};

/// Bytes of a unit.
const UNIT: usize = 2;
/// Units of a line.
const UNITS: usize = 8;
/// Bytes of a line: those of the largest access.
const LINE: usize = UNIT * UNITS;
/// Bits of a block's number in a word.
const BLOCK_BITS: u32 = 40;
/// Most blocks of a launch that are told apart.
pub(super) const MAX_BLOCKS: u64 = 1 << BLOCK_BITS;
/// The word of a line that is kept as units. No [`Line`] has both stores and several loads of one unit.
const AS_UNITS: u64 = u64::MAX;

/// A thread of a launch.
#[derive(Clone, Copy)]
pub(super) struct By {
    /// Number of the block in the grid, x fastest.
    pub(super) block: u64,
    /// Thread within the block.
    pub(super) thread: u32,
}

/// An access that another one races with: whose it was, and whether it was a store. `None` if only that is known that there was
/// one.
pub(super) type Raced = Option<(By, bool)>;

/// What a launch has touched so far.
pub(super) struct Touches {
    /// Whether races are told with names.
    named: bool,
    /// The pages of each allocation that were touched.
    pages: Vec<Box<[OnceLock<Page>]>>,
}

struct Page {
    lines: Box<[AtomicU64]>,
    /// The lines that are kept as units.
    units: Mutex<HashMap<usize, [Unit; UNITS]>>,
}

impl Touches {
    /// Nothing so far. Without names, races are told as such.
    pub(super) fn new(memory: &Memory, named: bool) -> Touches {
        let untouched = |pages: usize| (0..pages).map(|_| OnceLock::new()).collect();
        Touches { named, pages: memory.page_counts().map(untouched).collect() }
    }

    /// Adds an aligned access, or says that it races.
    pub(super) fn add(&self, access: Access, place: Place, by: By) -> Result<(), Raced> {
        let Place { allocation, offset } = place;
        let page = self.pages[allocation][offset / PAGE].get_or_init(|| Page::new(self.named));
        let (line, first) = (offset % PAGE / LINE, offset % LINE / UNIT);
        let count = (access.bytes as usize).div_ceil(UNIT);
        let units = (u8::MAX >> (UNITS - count)) << first;
        let raced = page.add(line, units, access.store, by);
        raced.map_err(|other| other.filter(|_| self.named))
    }
}

impl Page {
    fn new(as_units: bool) -> Page {
        let word = if as_units { AS_UNITS } else { 0 };
        let lines = (0..PAGE / LINE).map(|_| AtomicU64::new(word)).collect();
        Page { lines, units: Mutex::default() }
    }

    fn add(&self, line: usize, units: u8, store: bool, by: By) -> Result<(), Raced> {
        let word = &self.lines[line];
        let mut old = word.load(Ordering::Relaxed);
        while old != AS_UNITS {
            let new = match Line::from_word(old).after(units, store, by.block) {
                After::Line(line) => line.word(),
                After::Race => return Err(None),
                After::Shared => return self.add_units(line, units, store, by),
            };
            if new == old {
                return Ok(());
            }
            match word.compare_exchange_weak(old, new, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(now) => old = now,
            }
        }
        self.add_units(line, units, store, by)
    }

    fn add_units(&self, line: usize, units: u8, store: bool, by: By) -> Result<(), Raced> {
        // What panics under the lock is a bug of this file, and fails its own test.
        let mut lines = self.units.lock().unwrap_or_else(PoisonError::into_inner);
        let word = self.lines[line].swap(AS_UNITS, Ordering::Relaxed);
        let so_far = || if word == AS_UNITS { Default::default() } else { Line::from_word(word).units() };
        let line = lines.entry(line).or_insert_with(so_far);
        let mut touched = line.iter_mut().enumerate().filter(|(unit, _)| units >> unit & 1 == 1);
        touched.try_for_each(|(_, unit)| unit.add(store, by)).map_err(Some)
    }
}

/// A line of one block, of which others may have loaded what it has loaded: a bit for each unit.
#[derive(Clone, Copy)]
struct Line {
    /// The block; of no meaning while it has touched nothing.
    block: u64,
    /// What it loaded.
    loads: u8,
    /// What it stored.
    stores: u8,
    /// What other blocks loaded, too.
    several: u8,
}

/// What an access makes of a line.
enum After {
    /// One that still is a word.
    Line(Line),
    /// One that blocks share out among themselves.
    Shared,
    /// A race.
    Race,
}

impl Line {
    fn from_word(word: u64) -> Line {
        let [loads, stores, several, ..] = word.to_le_bytes();
        Line { block: word >> (u64::BITS - BLOCK_BITS), loads, stores, several }
    }

    fn word(self) -> u64 {
        let bits = u32::from_le_bytes([self.loads, self.stores, self.several, 0]);
        self.block << (u64::BITS - BLOCK_BITS) | u64::from(bits)
    }

    fn after(self, units: u8, store: bool, block: u64) -> After {
        let Line { loads, stores, several, .. } = self;
        let is_own = loads | stores == 0 || self.block == block;
        let (racing_loads, racing_stores) = if is_own { (several, 0) } else { (loads | several, stores) };
        if units & racing_stores != 0 || store && units & racing_loads != 0 {
            return After::Race;
        }
        match (is_own, store) {
            (true, true) => After::Line(Line { block, stores: stores | units, ..self }),
            (true, false) => After::Line(Line { block, loads: loads | units, ..self }),
            (false, false) if units & !loads == 0 => After::Line(Line { several: several | units, ..self }),
            (false, _) => After::Shared,
        }
    }

    /// The line as units. Threads, and who the several are, is not known.
    fn units(self) -> [Unit; UNITS] {
        let owner = By { block: self.block, thread: 0 };
        let others = By { block: MAX_BLOCKS, thread: 0 };
        std::array::from_fn(|unit| {
            let has = |units: u8| units >> unit & 1 == 1;
            let loads = [has(self.loads).then_some(owner), has(self.several).then_some(others)];
            Unit { store: has(self.stores).then_some(owner), loads }
        })
    }
}

/// Who touched a unit.
#[derive(Clone, Copy, Default)]
struct Unit {
    /// The first to store it.
    store: Option<By>,
    /// The first to load it, and the first of another block: a store races with at least one of two.
    loads: [Option<By>; 2],
}

impl Unit {
    fn add(&mut self, store: bool, by: By) -> Result<(), (By, bool)> {
        let is_other = |other: &By| other.block != by.block;
        if let Some(other) = self.store.filter(is_other) {
            return Err((other, true));
        }
        if store {
            if let Some(other) = self.loads.into_iter().flatten().find(is_other) {
                return Err((other, false));
            }
            self.store.get_or_insert(by);
        } else {
            match &mut self.loads {
                [first @ None, _] => *first = Some(by),
                [Some(first), second @ None] if is_other(first) => *second = Some(by),
                _ => {}
            }
        }
        Ok(())
    }
}
