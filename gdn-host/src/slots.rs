//! Which sequence has which slot of the state pools: an allocator for runtimes, with prefixes that are shared.
//!
//! A runtime's pools (states of every layer, conv windows) have the same slots, so one allocator serves them all. It holds no
//! memory and knows no GPU: it says which slots a step reads and writes, and the runtime hands those tables to the calls.
//!
//! # No copies
//!
//! Kernels read a state from one slot and may write it to another (`slots`, `write_slots`). So a prefix is shared without a
//! copy: a snapshot takes over the slot of the sequence that it is made of, and whoever goes on from there reads that slot at
//! its next step and writes one of its own. Forks work in the same way. States with rings of records stay in their slots;
//! what is copied then says [`ReplayState`](crate::ReplayState).
//!
//! # The life of a request
//!
//! ```
//! use gdn_host::slots::SlotAllocator;
//!
//! # fn main() -> Result<(), gdn_host::slots::SlotError> {
//! let mut slots = SlotAllocator::new(64, Some(0)); // slot 0 is padding, as in vLLM
//!
//! // A request arrives; nothing of its prompt is cached.
//! let first = slots.begin()?;
//! let step = slots.step(&[first])?; // step.start says that it starts from zeros
//! // .. launch conv1d, decode or a prefill with step.slots, step.write_slots and step.start, then:
//! slots.written(&[first])?;
//!
//! // Its prompt is read: keep the state there. The next request with this prompt goes on from it.
//! let prompt = slots.snapshot(first)?;
//! let second = slots.begin_at(prompt)?;
//! let step = slots.step(&[first, second])?; // both read the snapshot's slot, each writes its own
//! slots.written(&[first, second])?;
//!
//! // A draft was verified without writing the pool, and nothing of the second one's was accepted: commit the first alone.
//! let step = slots.step(&[first, second])?;
//! slots.written(&[first])?; // CommitState copies to step.write_slots where accepted counts are above 0
//!
//! // Preempted: its slot is free once its state was saved. Resumed: load it into the slot before the next step.
//! let saved_from = slots.park(second)?;
//! let load_into = slots.resume(second)?;
//!
//! slots.finish(first)?;
//! slots.release(prompt)?; // no one needs it now; it stays until a slot is wanted
//! # let _ = (step, saved_from, load_into);
//! # Ok(())
//! # }
//! ```
//!
//! # What holds
//!
//! - No slot is written that another sequence or a snapshot reads; a step whose sequences were not written leaves all as it was.
//! - A call that fails changes nothing.
//! - A snapshot that someone holds, or that a sequence still reads, is never evicted. Others are, the least recently used first,
//!   and only when a slot is wanted.
//!
//! `tests/tests/slots.rs` holds that against a model, and `cargo xtask soak` with the kernels: a server whose sequences must
//! have, bit for bit, the states of their tokens decoded alone.

use std::collections::HashMap;
use thiserror::Error;

/// A sequence of an allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sequence(u64);

/// A state that is kept, of an allocator: a cached prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Snapshot(u64);

/// What an allocator refuses. Nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SlotError {
    /// Every slot is a sequence's, or a snapshot's that may not be evicted.
    #[error("slots: {wanted} are wanted, {free} can be had")]
    Full {
        /// Slots that the call needs.
        wanted: usize,
        /// Free ones, and those of snapshots that may be evicted.
        free: usize,
    },
    /// A sequence that was finished, or is another allocator's.
    #[error("sequence {0:?}: there is none")]
    NoSequence(Sequence),
    /// A snapshot that was evicted, or is another allocator's.
    #[error("snapshot {0:?}: there is none; it may have been evicted")]
    NoSnapshot(Snapshot),
    /// A snapshot that no one holds.
    #[error("snapshot {0:?}: no one holds it")]
    NotHeld(Snapshot),
    /// A sequence that stands twice in a step.
    #[error("sequence {0:?}: it stands in the step twice")]
    Twice(Sequence),
    /// A sequence whose state is not in the pool.
    #[error("sequence {0:?}: it is parked; resume it first")]
    Parked(Sequence),
    /// A sequence that is in the pool.
    #[error("sequence {0:?}: it is not parked")]
    NotParked(Sequence),
    /// A sequence that has read no token.
    #[error("sequence {0:?}: it has no state yet")]
    NoState(Sequence),
    /// A sequence that was not in a step since it was last written.
    #[error("sequence {0:?}: no step gave it a slot to write")]
    NotInStep(Sequence),
}

/// What a step reads and writes: the tables of [`Decode`](crate::Decode), [`Recurrent`](crate::Recurrent) and
/// [`Conv1dUpdate`](crate::Conv1dUpdate), in the order of the sequences.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct StepTables {
    /// Slot that each sequence's state is read from.
    pub slots: Vec<i32>,
    /// Slot that its new state goes to; often the same one.
    pub write_slots: Vec<i32>,
    /// 1 where a sequence starts from zeros: `Start::Reset`.
    pub reset: Vec<u8>,
}

impl StepTables {
    /// Whether every sequence is updated in its slot, so that `write_slots` may be left out.
    pub fn is_in_place(&self) -> bool {
        self.slots == self.write_slots
    }

    /// The sequences whose state has to be copied where a kernel can only update in place: source and target slots, the tables
    /// of a [`CopyState`](crate::CopyState) in front of the step.
    pub fn copies(&self) -> (Vec<i32>, Vec<i32>) {
        let pairs = self.slots.iter().zip(&self.write_slots).zip(&self.reset);
        pairs
            .filter(|((from, to), reset)| from != to && **reset == 0)
            .map(|((from, to), _)| (*from, *to))
            .unzip()
    }
}

/// Where a sequence's state is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Nowhere: it starts from zeros.
    Zeros,
    /// In its own slot.
    Own(u32),
    /// In a snapshot's slot, which others may read too.
    Shared(Snapshot),
    /// Outside the pool; the caller has it.
    Parked,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    place: Place,
    /// The slot that a step gave it to write, until it was written.
    target: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    slot: u32,
    /// Callers that hold it.
    holders: u32,
    /// Sequences that read it.
    readers: u32,
    /// When it was last used.
    used: u64,
    /// Whether it is a caller's; else it is what forks share, and goes with its last reader.
    is_named: bool,
}

impl Kept {
    fn may_go(&self) -> bool {
        self.holders == 0 && self.readers == 0
    }
}

/// Slots of pools, and who has them.
#[derive(Clone, Debug)]
pub struct SlotAllocator {
    /// Free slots, the next one last.
    free: Vec<u32>,
    sequences: HashMap<Sequence, Entry>,
    snapshots: HashMap<Snapshot, Kept>,
    /// Numbers sequences, snapshots and uses.
    next: u64,
}

impl SlotAllocator {
    /// Of pools of `slots` slots, of which `null_slot` is never given away: the index that marks padding.
    pub fn new(slots: u32, null_slot: Option<u32>) -> SlotAllocator {
        let free = (0..slots).rev().filter(|slot| Some(*slot) != null_slot).collect();
        SlotAllocator { free, sequences: HashMap::new(), snapshots: HashMap::new(), next: 0 }
    }

    /// Slots that can be had: free ones, and those of snapshots that may be evicted.
    pub fn available(&self) -> usize {
        self.free.len() + self.snapshots.values().filter(|kept| kept.may_go()).count()
    }

    /// A sequence that starts from zeros.
    ///
    /// # Errors
    /// [`SlotError::Full`]: a step of it would find no slot.
    pub fn begin(&mut self) -> Result<Sequence, SlotError> {
        self.check_available(1)?;
        Ok(self.enter(Place::Zeros))
    }

    /// A sequence that goes on from a snapshot.
    ///
    /// # Errors
    /// [`SlotError::NoSnapshot`] and [`SlotError::Full`].
    pub fn begin_at(&mut self, snapshot: Snapshot) -> Result<Sequence, SlotError> {
        let kept = self.snapshots.get(&snapshot).ok_or(SlotError::NoSnapshot(snapshot))?;
        // Its own slot is not one that the first step could have.
        let (may_go, available) = (kept.may_go(), self.available());
        let free = available - usize::from(may_go);
        if free == 0 {
            return Err(SlotError::Full { wanted: 1, free });
        }
        self.read(snapshot);
        Ok(self.enter(Place::Shared(snapshot)))
    }

    /// Another sequence with the same state. The two share it until they are written.
    ///
    /// # Errors
    /// [`SlotError::NoSequence`], [`SlotError::Parked`] and [`SlotError::Full`].
    pub fn fork(&mut self, sequence: Sequence) -> Result<Sequence, SlotError> {
        let place = self.entry(sequence)?.place;
        match place {
            Place::Parked => return Err(SlotError::Parked(sequence)),
            Place::Zeros => self.check_available(1)?,
            Place::Shared(snapshot) => {
                self.check_available(1)?;
                self.read(snapshot);
            }
            Place::Own(_) => {
                // Both will write other slots than the one they share.
                self.check_available(2)?;
                let shared = self.share(sequence, false)?;
                self.read(shared);
                return Ok(self.enter(Place::Shared(shared)));
            }
        }
        Ok(self.enter(place))
    }

    /// Keeps the state that a sequence has now: its slot becomes the snapshot's, and the sequence's next step writes another one.
    /// The caller holds the snapshot until [`Self::release`]. The snapshot of a sequence that was not written since its last one
    /// is that one.
    ///
    /// # Errors
    /// [`SlotError::NoSequence`], [`SlotError::NoState`], [`SlotError::Parked`], and [`SlotError::Full`] if the sequence would
    /// find no slot to go on in.
    pub fn snapshot(&mut self, sequence: Sequence) -> Result<Snapshot, SlotError> {
        let snapshot = match self.entry(sequence)?.place {
            Place::Zeros => return Err(SlotError::NoState(sequence)),
            Place::Parked => return Err(SlotError::Parked(sequence)),
            Place::Shared(snapshot) => snapshot,
            Place::Own(_) => {
                self.check_available(1)?;
                self.share(sequence, true)?
            }
        };
        if let Some(kept) = self.snapshots.get_mut(&snapshot) {
            (kept.holders, kept.is_named) = (kept.holders + 1, true);
        }
        self.touch(snapshot);
        Ok(snapshot)
    }

    /// Holds a snapshot once more.
    ///
    /// # Errors
    /// [`SlotError::NoSnapshot`].
    pub fn hold(&mut self, snapshot: Snapshot) -> Result<(), SlotError> {
        let kept = self.snapshots.get_mut(&snapshot).ok_or(SlotError::NoSnapshot(snapshot))?;
        kept.holders += 1;
        self.touch(snapshot);
        Ok(())
    }

    /// Holds a snapshot once less. It stays, and may be begun at, until its slot is wanted.
    ///
    /// # Errors
    /// [`SlotError::NoSnapshot`] and [`SlotError::NotHeld`].
    pub fn release(&mut self, snapshot: Snapshot) -> Result<(), SlotError> {
        let kept = self.snapshots.get_mut(&snapshot).ok_or(SlotError::NoSnapshot(snapshot))?;
        kept.holders = kept.holders.checked_sub(1).ok_or(SlotError::NotHeld(snapshot))?;
        self.touch(snapshot);
        Ok(())
    }

    /// The slots that a step of some sequences reads and writes. A sequence whose state others share gets a slot of its own to
    /// write. Tell [`Self::written`] which of them were.
    ///
    /// # Errors
    /// [`SlotError::NoSequence`], [`SlotError::Parked`], [`SlotError::Twice`] and [`SlotError::Full`].
    pub fn step(&mut self, sequences: &[Sequence]) -> Result<StepTables, SlotError> {
        let mut seen = std::collections::HashSet::new();
        let mut wanted = 0;
        for &sequence in sequences {
            let entry = self.entry(sequence)?;
            if !seen.insert(sequence) {
                return Err(SlotError::Twice(sequence));
            }
            match entry.place {
                Place::Parked => return Err(SlotError::Parked(sequence)),
                Place::Zeros | Place::Shared(_) if entry.target.is_none() => wanted += 1,
                _ => {}
            }
        }
        self.check_available(wanted)?;
        let mut tables = StepTables::default();
        for &sequence in sequences {
            let Entry { place, target } = self.entry(sequence)?;
            let own = if let Place::Own(slot) = place { Some(slot) } else { None };
            let Some(to) = own.or(target).or_else(|| self.take()) else {
                return Err(SlotError::Full { wanted, free: 0 });
            };
            if own.is_none() {
                self.sequences.insert(sequence, Entry { place, target: Some(to) });
            }
            let from = match place {
                Place::Shared(snapshot) => {
                    self.touch(snapshot);
                    self.snapshots.get(&snapshot).map_or(to, |kept| kept.slot)
                }
                _ => to,
            };
            tables.slots.push(from as i32);
            tables.write_slots.push(to as i32);
            tables.reset.push(u8::from(place == Place::Zeros));
        }
        Ok(tables)
    }

    /// The last step wrote the states of these sequences. A sequence that was in the step and is not named here (nothing of its
    /// draft was accepted) goes on from where it was.
    ///
    /// # Errors
    /// [`SlotError::NoSequence`], [`SlotError::Parked`], and [`SlotError::NotInStep`] for a sequence without a slot.
    pub fn written(&mut self, sequences: &[Sequence]) -> Result<(), SlotError> {
        for &sequence in sequences {
            match self.entry(sequence)? {
                Entry { place: Place::Parked, .. } => return Err(SlotError::Parked(sequence)),
                Entry { place: Place::Own(_), .. } | Entry { target: Some(_), .. } => {}
                Entry { .. } => return Err(SlotError::NotInStep(sequence)),
            }
        }
        for &sequence in sequences {
            if let Entry { place, target: Some(slot) } = self.entry(sequence)? {
                self.sequences.insert(sequence, Entry { place: Place::Own(slot), target: None });
                self.leave(place);
            }
        }
        Ok(())
    }

    /// Takes a sequence out of the pool. Copy the returned slot's state away before the next step; it may be given away then.
    ///
    /// # Errors
    /// [`SlotError::NoSequence`], [`SlotError::Parked`] and [`SlotError::NoState`].
    pub fn park(&mut self, sequence: Sequence) -> Result<u32, SlotError> {
        let Entry { place, target } = self.entry(sequence)?;
        let slot = match place {
            Place::Zeros => return Err(SlotError::NoState(sequence)),
            Place::Parked => return Err(SlotError::Parked(sequence)),
            Place::Own(slot) => slot,
            Place::Shared(snapshot) => {
                self.snapshots.get(&snapshot).ok_or(SlotError::NoSnapshot(snapshot))?.slot
            }
        };
        self.sequences.insert(sequence, Entry { place: Place::Parked, target: None });
        self.free.extend(target);
        self.leave(place);
        Ok(slot)
    }

    /// Brings a parked sequence back. Copy its state into the returned slot before the next step.
    ///
    /// # Errors
    /// [`SlotError::NoSequence`], [`SlotError::NotParked`] and [`SlotError::Full`].
    pub fn resume(&mut self, sequence: Sequence) -> Result<u32, SlotError> {
        if self.entry(sequence)?.place != Place::Parked {
            return Err(SlotError::NotParked(sequence));
        }
        let slot = self.take().ok_or(SlotError::Full { wanted: 1, free: 0 })?;
        self.sequences.insert(sequence, Entry { place: Place::Own(slot), target: None });
        Ok(slot)
    }

    /// A sequence whose state comes from elsewhere, say from the process that read its prompt. Copy the state into the returned
    /// slot before the next step.
    ///
    /// # Errors
    /// [`SlotError::Full`].
    pub fn receive(&mut self) -> Result<(Sequence, u32), SlotError> {
        let slot = self.take().ok_or(SlotError::Full { wanted: 1, free: 0 })?;
        Ok((self.enter(Place::Own(slot)), slot))
    }

    /// Ends a sequence; its slot is free.
    ///
    /// # Errors
    /// [`SlotError::NoSequence`].
    pub fn finish(&mut self, sequence: Sequence) -> Result<(), SlotError> {
        let Entry { place, target } = self.entry(sequence)?;
        self.sequences.remove(&sequence);
        self.free.extend(target);
        self.leave(place);
        Ok(())
    }

    fn entry(&self, sequence: Sequence) -> Result<Entry, SlotError> {
        self.sequences.get(&sequence).copied().ok_or(SlotError::NoSequence(sequence))
    }

    fn check_available(&self, wanted: usize) -> Result<(), SlotError> {
        let free = self.available();
        if free < wanted { Err(SlotError::Full { wanted, free }) } else { Ok(()) }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn enter(&mut self, place: Place) -> Sequence {
        let sequence = Sequence(self.number());
        self.sequences.insert(sequence, Entry { place, target: None });
        sequence
    }

    /// A free slot, or that of the snapshot that was not used for the longest time.
    fn take(&mut self) -> Option<u32> {
        self.free.pop().or_else(|| {
            let evictable = self.snapshots.iter().filter(|(_, kept)| kept.may_go());
            let oldest = evictable.min_by_key(|(_, kept)| kept.used).map(|(snapshot, _)| *snapshot)?;
            self.snapshots.remove(&oldest).map(|kept| kept.slot)
        })
    }

    /// Makes a snapshot of the slot that a sequence has for itself; the sequence reads it from now on.
    fn share(&mut self, sequence: Sequence, is_named: bool) -> Result<Snapshot, SlotError> {
        let Place::Own(slot) = self.entry(sequence)?.place else { return Err(SlotError::NoState(sequence)) };
        let snapshot = Snapshot(self.number());
        let kept = Kept { slot, holders: 0, readers: 1, used: snapshot.0, is_named };
        self.snapshots.insert(snapshot, kept);
        self.sequences.insert(sequence, Entry { place: Place::Shared(snapshot), target: None });
        Ok(snapshot)
    }

    fn touch(&mut self, snapshot: Snapshot) {
        let now = self.number();
        if let Some(kept) = self.snapshots.get_mut(&snapshot) {
            kept.used = now;
        }
    }

    fn read(&mut self, snapshot: Snapshot) {
        if let Some(kept) = self.snapshots.get_mut(&snapshot) {
            kept.readers += 1;
        }
        self.touch(snapshot);
    }

    /// A sequence is no longer there.
    fn leave(&mut self, place: Place) {
        match place {
            Place::Own(slot) => self.free.push(slot),
            Place::Shared(snapshot) => {
                if let Some(kept) = self.snapshots.get_mut(&snapshot) {
                    kept.readers -= 1;
                    if kept.may_go() && !kept.is_named {
                        self.free.push(kept.slot);
                        self.snapshots.remove(&snapshot);
                    }
                }
            }
            Place::Zeros | Place::Parked => {}
        }
    }
}
