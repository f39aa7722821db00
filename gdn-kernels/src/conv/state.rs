//! Where a sequence's conv state comes from and goes to, and where its windows go.

use super::strip::{Access, ByChannel, ByTap, Single, Steps, Strip, TAPS, Window, WindowLayout, ZEROS};
use crate::abi::{Conv1dParams, flags};
use crate::arch::memory;
use crate::element::Element;
use crate::entry::{Flag, Index};
use crate::token::{names_slot, wide};
use core::marker::PhantomData;

/// What the tables say of a sequence.
#[derive(Clone, Copy)]
pub(super) struct Entries {
    slot: Index,
    write_slot: Index,
    pub(super) accepted: u32,
    reset: Flag,
}

impl Entries {
    /// Issues the loads, the slot's first.
    ///
    /// # Safety
    /// The sequence lies in the entries.
    #[inline(always)]
    pub(super) unsafe fn load(p: &Conv1dParams, n: u32) -> Entries {
        // SAFETY: the caller's promise.
        unsafe {
            Entries {
                slot: Index::load_if(true, &p.pool.slot, n, 0),
                accepted: memory::load_u32_if(p.accepted != 0, p.accepted + 4 * n as u64),
                write_slot: Index::load_if(p.pool.write_slot.address != 0, &p.pool.write_slot, n, 0),
                reset: Flag::load(&p.pool.reset, n),
            }
        }
    }

    /// The slot that the sequence starts from.
    #[inline(always)]
    pub(super) fn slot(&self) -> i32 {
        self.slot.get()
    }
}

/// How the entries of a sequence's state become its new ones: entry `i` is entry `i + shift` of the old ones for
/// `i < kept`, and from there on the inputs follow, but for the first `skipped`.
#[derive(Clone, Copy)]
pub(super) struct Shift {
    /// Oldest entry of the window.
    window: u32,
    kept: u32,
    shift: u32,
    skipped: u32,
    /// False where the count of accepted tokens or the number of tokens does not fit the entries.
    pub(super) is_sound: bool,
}

impl Shift {
    #[inline(always)]
    pub(super) fn new(p: &Conv1dParams, accepted: u32, tokens: u32) -> Shift {
        if p.accepted == 0 {
            let (kept, skipped) = (p.len.saturating_sub(tokens), tokens.saturating_sub(p.len));
            return Shift { window: p.len + 1 - p.width, kept, shift: tokens, skipped, is_sound: true };
        }
        let drafts = p.len + 2 - p.width;
        let window = accepted.wrapping_sub(1);
        let is_sound = window < drafts && tokens <= drafts;
        Shift { window, kept: p.width - 2, shift: accepted, skipped: 0, is_sound }
    }
}

/// A strip of a sequence's state: where it is read and where it is written.
pub(super) struct State<T, L> {
    from: u64,
    to: u64,
    steps: Steps,
    shift: Shift,
    fresh: bool,
    writes: bool,
    /// Whether a channel has more entries than the window: each new entry is stored on its own then.
    longer: bool,
    types: PhantomData<(T, L)>,
}

impl<T: Element, L: WindowLayout> State<T, L> {
    #[inline(always)]
    pub(super) fn new(p: &Conv1dParams, entries: &Entries, channel: u32, shift: Shift, missing: u32) -> Self {
        let strip = p.pool.state + wide(channel, p.channel_stride) * T::SIZE;
        let at = |slot: i32| strip + wide(slot as u32, p.pool.pitch) * T::SIZE;
        let separate = p.pool.write_slot.address != 0;
        let to = if separate { entries.write_slot.get() } else { entries.slot() };
        let writes = p.flags & flags::READ_ONLY == 0 && names_slot(to, p.pool.slots, p.pool.null_slot);
        let inverted = p.flags & flags::RESET_INVERTED != 0;
        State {
            from: at(entries.slot()),
            to: at(if writes { to } else { entries.slot() }),
            steps: Steps { tap: p.tap_stride as u64 * T::SIZE, missing },
            shift,
            fresh: p.pool.reset.address != 0 && (entries.reset.bits() != 0) != inverted,
            writes,
            longer: L::LONGER && p.len >= p.width,
            types: PhantomData,
        }
    }

    /// Issues the loads of the window.
    ///
    /// # Safety
    /// The slot is readable.
    #[inline(always)]
    pub(super) unsafe fn load(&self) -> Window {
        if self.fresh {
            return [ZEROS; TAPS - 1];
        }
        // SAFETY: the caller's promise.
        unsafe { L::load::<T>(self.from + self.shift.window as u64 * self.steps.tap, &self.steps) }
    }

    /// Moves the entries that stay, the oldest first: a slot may be read and written. Behind [`Self::load`].
    ///
    /// # Safety
    /// The slots are readable and writable.
    #[inline(always)]
    pub(super) unsafe fn keep(&self) {
        if self.writes && self.longer {
            let mut i = 0;
            while i < self.shift.kept {
                let from = self.from + (i + self.shift.shift) as u64 * self.steps.tap;
                // SAFETY: the caller's promise.
                unsafe {
                    let entry = if self.fresh { ZEROS } else { L::Access::load::<T>(from) };
                    L::Access::store::<T>(self.to + i as u64 * self.steps.tap, entry);
                }
                i += 1;
            }
        }
    }

    /// Stores the window that the sequence ends with, where a channel has no more entries than that.
    ///
    /// # Safety
    /// The slot is writable.
    #[inline(always)]
    pub(super) unsafe fn store(&self, window: &Window) {
        if self.writes && !self.longer {
            // SAFETY: the caller's promise.
            unsafe { L::store::<T>(self.to, &self.steps, window) }
        }
    }

    /// Stores the input of token `t` as an entry, where a channel has more of them than the window.
    ///
    /// # Safety
    /// The slot is writable.
    #[inline(always)]
    pub(super) unsafe fn push(&self, t: u32, x: Strip) {
        if self.writes && self.longer && t >= self.shift.skipped {
            let entry = self.shift.kept + t - self.shift.skipped;
            // SAFETY: the caller's promise.
            unsafe { L::Access::store::<T>(self.to + entry as u64 * self.steps.tap, x) }
        }
    }
}

/// Where a strip's windows after each token go.
pub(super) struct Drafts {
    at: u64,
    /// Bytes from a token to the next.
    step: u64,
    /// Tokens that there is room for.
    steps: u32,
    windows: Steps,
}

impl Drafts {
    /// # Safety
    /// The sequence lies in the table of rows.
    #[inline(always)]
    pub(super) unsafe fn new<T: Element>(p: &Conv1dParams, n: u32, channel: u32, missing: u32) -> Drafts {
        let buffer = &p.intermediate;
        let listed = buffer.state != 0 && buffer.row.address != 0;
        // SAFETY: the caller's promise.
        let row = unsafe { Index::load_if(listed, &buffer.row, n, 0) };
        let row = if listed { row.get() as u32 } else { n };
        let keeps = buffer.state != 0 && row < buffer.rows;
        let (row, width) = (if keeps { row } else { 0 }, p.width - 1);
        Drafts {
            at: buffer.state + (wide(row, buffer.pitch) + wide(channel, width)) * T::SIZE,
            step: wide(p.dim, width) * T::SIZE,
            steps: if keeps { buffer.steps } else { 0 },
            windows: Steps { tap: T::SIZE, missing },
        }
    }

    /// Stores the window after token `t`, the taps of a channel together.
    ///
    /// # Safety
    /// The buffer is writable, and aligned as the access demands.
    #[inline(always)]
    pub(super) unsafe fn store<T: Element, A: Access>(&self, t: u32, window: &Window) {
        if t < self.steps {
            let at = self.at + t as u64 * self.step;
            // SAFETY: the caller's promise.
            unsafe {
                if A::VECTORS {
                    ByChannel::store::<T>(at, &self.windows, window);
                } else {
                    ByTap::<Single>::store::<T>(at, &self.windows, window);
                }
            }
        }
    }
}

