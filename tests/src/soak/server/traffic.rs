//! What happens between steps: sequences come, fork, are kept as prefixes, swapped out and in.

use super::{Live, Parked, Prefix, Server};
use crate::soak::past::{Event, Past};
use crate::soak::tokens::Lineage;
use anyhow::{Result, ensure};
use gdn_host::slots::{Sequence, SlotError};

/// Snapshots that the server remembers.
const MOST_SNAPSHOTS: usize = 48;

impl Server<'_> {
    /// Lets sequences come, go and move.
    pub(super) fn change(&mut self) -> Result<()> {
        let most = self.size().live;
        // A crowd that grows and shrinks: half of the time there is room for a quarter only.
        let wanted = if (self.step / 64).is_multiple_of(2) { most } else { most / 4 };
        let arrivals = wanted.saturating_sub(self.live.len()).min(1 + most / 8);
        for _ in 0..arrivals {
            if !self.arrive()? {
                break;
            }
        }
        for _ in 0..1 + most / 32 {
            match self.noise.below(8) {
                0 => self.fork()?,
                1 => self.snapshot()?,
                2 => self.release()?,
                3 => self.park()?,
                4 | 5 if !self.parked.is_empty() => {
                    let which = self.noise.below(self.parked.len());
                    self.resume(which)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn limit(&mut self) -> usize {
        1 + self.noise.below(self.size().longest)
    }

    fn seed(&mut self) -> u64 {
        self.options.seed << 32 | self.noise.below(1 << 31) as u64
    }

    fn enter(&mut self, sequence: Sequence, tokens: Lineage, past: Past, slot: Option<usize>) {
        self.summary.add("sequences", 1);
        let (number, limit) = (self.summary.get("sequences") as usize, self.limit());
        self.live.push(Live { number, sequence, tokens, past, limit, slot, last: None });
    }

    /// A sequence comes, from nothing or from a prefix; false where there is no room.
    fn arrive(&mut self) -> Result<bool> {
        if !self.prefixes.is_empty() && self.chance(30) {
            let which = self.noise.below(self.prefixes.len());
            match self.slots.begin_at(self.prefixes[which].snapshot) {
                Ok(sequence) => {
                    let (seed, prefix) = (self.seed(), &self.prefixes[which]);
                    let (tokens, past, slot) = (prefix.tokens.branch(seed), prefix.past.clone(), prefix.slot);
                    self.enter(sequence, tokens, past, Some(slot));
                    self.summary.add("begun at a snapshot", 1);
                    return Ok(true);
                }
                Err(SlotError::NoSnapshot(_)) => {
                    let prefix = self.prefixes.swap_remove(which);
                    ensure!(!prefix.is_held, "a snapshot that is held was evicted");
                    self.summary.add("evicted snapshots", 1);
                }
                Err(SlotError::Full { .. }) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        match self.slots.begin() {
            Ok(sequence) => {
                let tokens = Lineage::new(self.seed());
                self.enter(sequence, tokens, Past::default(), None);
                Ok(true)
            }
            Err(SlotError::Full { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// A sequence that has a state.
    fn some_with_state(&mut self) -> Option<usize> {
        if self.live.is_empty() {
            return None;
        }
        let which = self.noise.below(self.live.len());
        self.live[which].slot.map(|_| which)
    }

    fn fork(&mut self) -> Result<()> {
        if self.live.len() >= self.size().live || self.live.is_empty() {
            return Ok(());
        }
        let which = self.noise.below(self.live.len());
        match self.slots.fork(self.live[which].sequence) {
            Ok(sequence) => {
                let (seed, parent) = (self.seed(), &self.live[which]);
                let (tokens, past, slot) = (parent.tokens.branch(seed), parent.past.clone(), parent.slot);
                self.enter(sequence, tokens, past, slot);
                self.summary.add("forks", 1);
                Ok(())
            }
            Err(SlotError::Full { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn snapshot(&mut self) -> Result<()> {
        if self.prefixes.len() >= MOST_SNAPSHOTS.min(self.size().slots as usize / 4) {
            // The server forgets one; the allocator gives its slot away when it wants to.
            let which = self.noise.below(self.prefixes.len());
            let prefix = self.prefixes.swap_remove(which);
            if prefix.is_held {
                self.slots.release(prefix.snapshot)?;
            }
        }
        let Some(which) = self.some_with_state() else { return Ok(()) };
        let live = &self.live[which];
        let Some(slot) = live.slot else { return Ok(()) };
        match self.slots.snapshot(live.sequence) {
            Ok(snapshot) => {
                let (tokens, past) = (live.tokens.clone(), live.past.clone());
                if self.prefixes.iter().any(|prefix| prefix.snapshot == snapshot && prefix.is_held) {
                    // It is known, and held once.
                    self.slots.release(snapshot)?;
                } else {
                    self.prefixes.retain(|prefix| prefix.snapshot != snapshot);
                    self.prefixes.push(Prefix { snapshot, tokens, past, slot, is_held: true });
                    self.summary.add("snapshots", 1);
                }
                Ok(())
            }
            Err(SlotError::Full { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn release(&mut self) -> Result<()> {
        if !self.prefixes.is_empty() {
            let which = self.noise.below(self.prefixes.len());
            let prefix = &mut self.prefixes[which];
            if std::mem::take(&mut prefix.is_held) {
                self.slots.release(prefix.snapshot)?;
            }
        }
        Ok(())
    }

    /// Swaps a sequence out: its bytes go to the host, its slot to others.
    fn park(&mut self) -> Result<()> {
        if self.parked.len() > self.size().live / 8 {
            return Ok(());
        }
        let Some(which) = self.some_with_state() else { return Ok(()) };
        let slot = self.slots.park(self.live[which].sequence)? as usize;
        let mut live = self.live.swap_remove(which);
        let is_known = live.slot == Some(slot);
        ensure!(is_known, "sequence {}: it is parked from slot {slot}, not {:?}", live.number, live.slot);
        let mut saved = Vec::new();
        for lane in &self.lanes {
            saved.push(lane.read(self.device, slot)?);
        }
        live.slot = None;
        live.past.push(Event::Stored);
        self.parked.push(Parked { live, saved });
        self.summary.add("swapped out", 1);
        Ok(())
    }

    /// Swaps a sequence in again; false where there is no slot.
    pub(super) fn resume(&mut self, which: usize) -> Result<bool> {
        let slot = match self.slots.resume(self.parked[which].live.sequence) {
            Ok(slot) => slot as usize,
            Err(SlotError::Full { .. }) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let Parked { mut live, saved } = self.parked.swap_remove(which);
        for (lane, bytes) in self.lanes.iter().zip(&saved) {
            lane.write(self.device, slot, bytes)?;
        }
        live.slot = Some(slot);
        self.live.push(live);
        self.summary.add("swapped in", 1);
        Ok(true)
    }

    /// Snapshots are let go, and a sequence finishes early.
    pub(super) fn make_room(&mut self) -> Result<()> {
        self.summary.add("steps without room", 1);
        for prefix in &mut self.prefixes {
            if std::mem::take(&mut prefix.is_held) {
                self.slots.release(prefix.snapshot)?;
            }
        }
        let which = self.noise.below(self.live.len());
        let live = self.live.swap_remove(which);
        self.check_and_finish(live)
    }
}
