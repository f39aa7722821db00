//! A block's shared memory, and who touched what since which barrier.
//!
//! Two accesses of different threads to one word, at least one a store, race unless a block barrier lies
//! between them, or, for threads of one warp, a warp barrier. A shuffle orders nothing: it exchanges
//! registers. So each word remembers its last store, and the loads since; a load or store before that one is
//! ordered before it, and whatever is ordered after it is ordered after them too.
//!
//! Time is a pair of counters: block barriers so far, and warp barriers of the thread's warp so far. Loads
//! are kept as one entry a warp, with a bit for each lane that loaded since the warp's last barrier: enough
//! to answer exactly, whatever the number of readers.
//!
//! Accesses are naturally aligned words (anything else is a fault), so a word is watched as a whole.

use super::fault::FaultKind;

/// Bytes of a word.
const WORD: u32 = 4;

/// Shared memory of one block.
pub(super) struct SharedMemory {
    words: Box<[Word]>,
    bytes: u32,
    /// Block barriers so far.
    block_epoch: u32,
    /// Warp barriers so far, for each warp.
    warp_epochs: Box<[u32]>,
}

#[derive(Clone, Default)]
struct Word {
    value: Option<u32>,
    store: Option<Store>,
    /// Loads since the last store, within block epoch `loads_epoch`.
    loads: Vec<Loads>,
    loads_epoch: u32,
}

/// When a word was last stored to, and by whom.
#[derive(Clone, Copy)]
struct Store {
    thread: u32,
    block_epoch: u32,
    warp_epoch: u32,
}

/// The loads of one warp since its last barrier.
#[derive(Clone, Copy)]
struct Loads {
    warp: u32,
    warp_epoch: u32,
    lanes: u32,
}

impl SharedMemory {
    /// Uninitialised memory of `bytes` bytes for a block of `threads` threads.
    pub(super) fn new(bytes: u32, threads: u32) -> SharedMemory {
        SharedMemory {
            words: vec![Word::default(); bytes.div_ceil(WORD) as usize].into(),
            bytes,
            block_epoch: 0,
            warp_epochs: vec![0; threads.div_ceil(32) as usize].into(),
        }
    }

    /// All threads of the block met at a barrier.
    pub(super) fn block_barrier(&mut self) {
        self.block_epoch += 1;
    }

    /// All lanes of a warp met at a barrier.
    pub(super) fn warp_barrier(&mut self, warp: u32) {
        self.warp_epochs[warp as usize] += 1;
    }

    /// A thread's load of the word at `byte`.
    pub(super) fn load(&mut self, thread: u32, byte: u32) -> Result<u32, FaultKind> {
        let index = self.index(byte)?;
        let (block_epoch, warp_epoch) = self.now(thread);
        self.check_store(index, thread, byte, false)?;
        let word = &mut self.words[index];
        let value = word.value.ok_or(FaultKind::SharedUninitialised { byte })?;
        if word.loads_epoch != block_epoch {
            word.loads.clear();
            word.loads_epoch = block_epoch;
        }
        let (warp, lane) = (thread / 32, 1 << (thread % 32));
        match word.loads.iter_mut().find(|loads| loads.warp == warp) {
            Some(loads) if loads.warp_epoch == warp_epoch => loads.lanes |= lane,
            Some(loads) => (loads.warp_epoch, loads.lanes) = (warp_epoch, lane),
            None => word.loads.push(Loads { warp, warp_epoch, lanes: lane }),
        }
        Ok(value)
    }

    /// A thread's store to the word at `byte`.
    pub(super) fn store(&mut self, thread: u32, byte: u32, value: u32) -> Result<(), FaultKind> {
        let index = self.index(byte)?;
        let (block_epoch, warp_epoch) = self.now(thread);
        self.check_store(index, thread, byte, true)?;
        if let Some(other) = self.racing_load(index, thread) {
            return Err(FaultKind::SharedRace { byte, store: true, other, other_store: false });
        }
        let word = &mut self.words[index];
        word.value = Some(value);
        word.store = Some(Store { thread, block_epoch, warp_epoch });
        word.loads.clear();
        Ok(())
    }

    /// The word at an offset, if it is one.
    fn index(&self, byte: u32) -> Result<usize, FaultKind> {
        if !byte.is_multiple_of(WORD) {
            return Err(FaultKind::SharedMisaligned { byte, bytes: WORD });
        }
        if byte.checked_add(WORD).is_none_or(|end| end > self.bytes) {
            return Err(FaultKind::SharedOutOfBounds { byte, bytes: WORD, limit: self.bytes });
        }
        Ok((byte / WORD) as usize)
    }

    /// Block and warp epoch of a thread.
    fn now(&self, thread: u32) -> (u32, u32) {
        (self.block_epoch, self.warp_epochs[thread as usize / 32])
    }

    /// Refuses an access that the word's last store is not ordered before.
    fn check_store(&self, index: usize, thread: u32, byte: u32, store: bool) -> Result<(), FaultKind> {
        let (block_epoch, warp_epoch) = self.now(thread);
        match self.words[index].store {
            Some(last)
                if last.thread != thread
                    && last.block_epoch == block_epoch
                    && (last.thread / 32 != thread / 32 || last.warp_epoch == warp_epoch) =>
            {
                Err(FaultKind::SharedRace { byte, store, other: last.thread, other_store: true })
            }
            _ => Ok(()),
        }
    }

    /// The lowest other thread whose load of the word is not ordered before a store by `thread`.
    fn racing_load(&self, index: usize, thread: u32) -> Option<u32> {
        let (block_epoch, warp_epoch) = self.now(thread);
        let word = &self.words[index];
        if word.loads_epoch != block_epoch {
            return None;
        }
        let racing = |loads: &Loads| {
            let mut lanes = loads.lanes;
            if loads.warp == thread / 32 {
                lanes &= !(1 << (thread % 32));
                if loads.warp_epoch != warp_epoch {
                    lanes = 0;
                }
            }
            (lanes != 0).then(|| 32 * loads.warp + lanes.trailing_zeros())
        };
        word.loads.iter().filter_map(racing).min()
    }
}
