//! Where a sequence's conv state comes from and goes to.
//!
//! A state of up to four entries, the usual one, lies in registers as a whole: it is read once and written once. Of a longer
//! one, or one that drafts are taken back from, a thread has the window alone. The other entries move through memory.

use super::strip::{Access, Recent, Steps, Strip, TAPS, WindowLayout, ZEROS};
use crate::abi::{Conv1dParams, flags};
use crate::arch::compiler;
use crate::element::Element;
use crate::entry::{Flag, Index};
use crate::token::{names_slot, wide};
use core::marker::PhantomData;

/// What the tables say of a sequence.
#[derive(Clone, Copy)]
pub(super) struct Entries {
    slot: Index,
    write_slot: Index,
    accepted: Index,
    reset: Flag,
}

impl Entries {
    /// Issues the loads, the slot's first. Where accepted counts choose a slot, they are waited for.
    ///
    /// # Safety
    /// The sequence lies in the tables.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(super) unsafe fn load(p: &Conv1dParams, n: u32) -> Entries {
        let pool = &p.pool;
        let (by_table, counts) = (pool.slot.is_there(), p.accepted.is_there());
        // SAFETY: the caller's promise; a column is used only where the table has it.
        unsafe {
            // Behind the branch no loaded word is looked at: all other loads would wait for it.
            let by_count = p.flags & flags::ACCEPTED_SLOT != 0;
            let (column, is_there, unlisted) = if by_count {
                let column = (Index::load_if(true, &p.accepted, n, 0).get() as u32).wrapping_sub(1);
                let is_there = column < p.slot_columns;
                (if is_there { column } else { 0 }, is_there, u32::MAX)
            } else {
                (0, by_table, n)
            };
            let slot = Index::load_or(unlisted, is_there, &pool.slot, n, column);
            let has_target = pool.write_slot.is_there() && p.flags & flags::WRITE_PER_TOKEN == 0;
            Entries {
                slot,
                accepted: Index::load_if(counts && !by_count, &p.accepted, n, 0),
                write_slot: Index::load_if(has_target, &pool.write_slot, n, 0),
                reset: Flag::load(&pool.reset, n),
            }
        }
    }

    /// The slot that the sequence starts from.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(super) fn slot(&self) -> Index {
        self.slot
    }

    /// Tokens of the last draft that the window begins behind.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(super) fn accepted(&self) -> u32 {
        self.accepted.get() as u32
    }
}

/// Whether an index of a sequence's slot names one. Without a table no index marks padding.
#[cfg_attr(target_arch = "nvptx64", inline(always))]
pub(super) fn is_slot(p: &Conv1dParams, index: Index, by_table: bool) -> bool {
    let null_slot = if by_table { p.pool.null_slot } else { -1 };
    let (slot, is_one) = index.parts();
    is_one & names_slot(slot, p.pool.slots, null_slot)
}

/// How the entries of a sequence's state become its new ones: entry `i` is entry `i + shift` of the old ones for
/// `i < kept`, and from there on the inputs follow, but for the first `skipped` ([`kept_and_skipped`]).
#[derive(Clone, Copy)]
pub(super) struct Shift {
    /// Oldest entry that is read.
    first: u32,
    /// Entries that are read.
    count: u32,
    shift: u32,
    /// False where the count of accepted tokens or the number of tokens does not fit the entries.
    pub(super) is_sound: bool,
}

impl Shift {
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(super) fn new(p: &Conv1dParams, accepted: u32, tokens: u32) -> Shift {
        if !takes_back(p) {
            let count = if p.len < TAPS as u32 { p.len } else { TAPS as u32 - 1 };
            return Shift { first: p.len - count, count, shift: tokens, is_sound: true };
        }
        let drafts = p.len + 2 - p.width;
        let first = accepted.wrapping_sub(1);
        let is_sound = first < drafts && tokens <= drafts;
        Shift { first, count: p.width - 1, shift: accepted, is_sound }
    }
}

/// How many of the old entries stay, and how many of `tokens` inputs never become entries.
#[cfg_attr(target_arch = "nvptx64", inline(always))]
fn kept_and_skipped(p: &Conv1dParams, tokens: u32) -> (u32, u32) {
    match takes_back(p) {
        true => (p.width - 2, 0),
        false => (p.len.saturating_sub(tokens), tokens.saturating_sub(p.len)),
    }
}

/// Whether windows begin where the last draft's accepted tokens end.
#[cfg_attr(target_arch = "nvptx64", inline(always))]
fn takes_back(p: &Conv1dParams) -> bool {
    p.accepted.is_there() && p.flags & flags::ACCEPTED_SLOT == 0
}

/// The byte of the pool at which a strip of a slot begins.
#[cfg_attr(target_arch = "nvptx64", inline(always))]
fn strip_at<S: Element>(p: &Conv1dParams, channel: u32, slot: Index) -> u64 {
    let (slot, _) = slot.parts();
    p.pool.state + (wide(channel, p.channel_stride) + wide(slot as u32, p.pool.pitch)) * S::SIZE
}

/// Where a strip of a sequence's state is read.
///
/// It is apart from [`State`], so that the window is asked for before anything of where the state goes is worked out.
#[derive(Clone, Copy)]
pub(super) struct Source<S, L> {
    at: u64,
    tap: u64,
    shift: Shift,
    fresh: bool,
    types: PhantomData<(S, L)>,
}

impl<S: Element, L: WindowLayout> Source<S, L> {
    /// The state that a sequence starts from, whose slot was checked.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(super) fn new(p: &Conv1dParams, entries: &Entries, channel: u32, shift: Shift) -> Self {
        let inverted = p.flags & flags::RESET_INVERTED != 0;
        Source {
            at: strip_at::<S>(p, channel, entries.slot),
            tap: p.tap_stride as u64 * S::SIZE,
            shift,
            fresh: p.pool.reset.is_there() && (entries.reset.bits() != 0) != inverted,
            types: PhantomData,
        }
    }

    /// Issues the loads of the entries that the first token sees; [`WindowLayout::entries`] tells them apart.
    ///
    /// # Safety
    /// The slot is readable.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(super) unsafe fn load(&self) -> Recent {
        if self.fresh {
            return [ZEROS; TAPS];
        }
        let first = if L::LONGER { self.shift.first as u64 * self.tap } else { 0 };
        // SAFETY: the caller's promise.
        unsafe { L::load::<S>(self.at + first, &Steps { tap: self.tap, count: self.shift.count }) }
    }
}

/// A strip of a sequence's state: where it is read and where it is written.
pub(super) struct State<'a, S, L> {
    p: &'a Conv1dParams,
    n: u32,
    channel: u32,
    source: Source<S, L>,
    to: u64,
    writes: bool,
    /// Whether a slot has entries that are not in registers: each new one is stored on its own then.
    longer: bool,
}

impl<'a, S: Element, L: WindowLayout> State<'a, S, L> {
    /// The state of sequence `n`, which comes from `source`.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(super) fn new(
        p: &'a Conv1dParams,
        n: u32,
        entries: &Entries,
        channel: u32,
        source: Source<S, L>,
    ) -> Self {
        let has = |flag: u32| p.flags & flag != 0;
        let separate = p.pool.write_slot.is_there();
        let to = if separate { entries.write_slot } else { entries.slot };
        let by_table = separate | p.pool.slot.is_there();
        let writes = !has(flags::READ_ONLY) && !has(flags::WRITE_PER_TOKEN) && is_slot(p, to, by_table);
        State {
            p,
            n,
            channel,
            source,
            to: strip_at::<S>(p, channel, if writes { to } else { entries.slot }),
            writes,
            longer: L::LONGER && (p.len > TAPS as u32 || takes_back(p)),
        }
    }

    /// Moves the entries that stay, the oldest first: a slot may be read and written. What [`Source::load`] read is not read
    /// again.
    ///
    /// # Safety
    /// The slots are readable and writable.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(super) unsafe fn keep(&self, tokens: u32, recent: &Recent) {
        if !(self.writes && self.longer) {
            return;
        }
        let source = &self.source;
        let Shift { first, count, shift, .. } = source.shift;
        let (kept, _) = kept_and_skipped(self.p, tokens);
        let in_memory = first.saturating_sub(shift);
        let in_memory = if in_memory < kept { in_memory } else { kept };
        let mut i = 0;
        while i < in_memory {
            // SAFETY: the caller's promise.
            unsafe {
                let from = source.at + (i + shift) as u64 * source.tap;
                let entry = if source.fresh { ZEROS } else { L::Access::load::<S>(from) };
                self.store_entry(i, entry);
            }
            i += 1;
        }
        let mut i = 1;
        while i < TAPS {
            // Which entry was read to there.
            let (is_there, old) = (i as u32 + count >= TAPS as u32, (first + i as u32 + count).wrapping_sub(TAPS as u32));
            if is_there && old >= shift && old - shift < kept {
                // SAFETY: the caller's promise.
                unsafe { self.store_entry(old - shift, recent[i]) };
            }
            i += 1;
        }
    }

    /// Stores the state after token `t` in the token's slot, if each token has one. Few calls want that: what it takes is worked
    /// out here, and not kept in registers.
    ///
    /// # Safety
    /// The slots are writable. States are no more than the last inputs.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(super) unsafe fn store_token(&self, t: u32, recent: &Recent) {
        let p = self.p;
        if p.flags & flags::WRITE_PER_TOKEN != 0 && t < p.write_columns {
            let [n, channel, t] = [self.n, self.channel, t].map(compiler::opaque);
            // SAFETY: the column is one of the table's.
            let slot = unsafe { Index::load_if(true, &p.pool.write_slot, n, t) };
            if is_slot(p, slot, true) {
                let tap = compiler::opaque(p.tap_stride) as u64 * S::SIZE;
                let steps = Steps { tap, count: compiler::opaque(p.len) };
                // SAFETY: the caller's promise.
                unsafe { L::store::<S>(strip_at::<S>(p, channel, slot), &steps, recent) }
            }
        }
    }

    /// Stores the state that the sequence ends with, where it is no more than the last inputs.
    ///
    /// # Safety
    /// The slot is writable.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(super) unsafe fn store(&self, recent: &Recent) {
        if self.writes && !self.longer {
            // SAFETY: the caller's promise.
            unsafe { L::store::<S>(self.to, &Steps { tap: self.source.tap, count: self.p.len }, recent) }
        }
    }

    /// Stores the input of token `t` of `tokens` as an entry, where a state is more than the last inputs.
    ///
    /// # Safety
    /// The slot is writable.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(super) unsafe fn push(&self, t: u32, tokens: u32, x: Strip) {
        if self.writes && self.longer {
            let (kept, skipped) = kept_and_skipped(self.p, compiler::opaque(tokens));
            if t >= skipped {
                // SAFETY: the caller's promise.
                unsafe { self.store_entry(kept + t - skipped, x) }
            }
        }
    }

    /// # Safety
    /// The slot is writable and has the entry.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    unsafe fn store_entry(&self, entry: u32, strip: Strip) {
        // SAFETY: the caller's promise.
        unsafe { L::Access::store::<S>(self.to + entry as u64 * self.source.tap, strip) }
    }
}
