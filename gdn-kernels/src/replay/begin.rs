//! What a block begins with: its sequence's rows of the tables, and what they come to.

use super::ring::{Asked, Window};
use crate::abi::{ReplayParams, flags};
use crate::arch::warp;
use crate::element::Element;
use crate::entry::{Flag, Index, is_there};
use crate::layout::Layout;
use crate::token::{Work, lane_zero, later, names_slot, prefetch};

/// A sequence's rows of the tables, asked for but not yet looked at.
pub(super) struct Entries {
    listed: bool,
    slot: Index,
    reset: Flag,
    force: Flag,
    /// Unless they are the slot's.
    cursors: Option<Asked>,
}

/// What the tables say of a sequence.
#[derive(Clone, Copy)]
pub(super) struct Sequence {
    pub(super) slot: u32,
    pub(super) window: Window,
    /// Whether it starts from zeros.
    pub(super) fresh: bool,
    /// Whether its state is stored.
    pub(super) folds: bool,
}

impl Entries {
    /// Asks for the rows of sequence `n`.
    ///
    /// # Safety
    /// `n` lies in the tables.
    #[inline(always)]
    pub(super) unsafe fn ask(p: &ReplayParams, n: u32) -> Entries {
        let at = n + lane_zero();
        let listed = is_there(&p.pool.slot);
        // SAFETY: the caller's promise.
        unsafe {
            let slot = if listed { Index::load_if(true, &p.pool.slot, at, 0) } else { Index::of(at) };
            let reset = Flag::load(&p.pool.reset, at);
            let force = Flag::load(&p.force, at);
            let mut cursors = None;
            if p.layer.flags & flags::CURSORS_BY_SLOT == 0 {
                cursors = Some(Asked::new(&p.cursors, at));
            }
            Entries { listed, slot, reset, force, cursors }
        }
    }

    /// What they say; nothing if the row is padding. Several drafts are appended whether the state is stored or not, so that
    /// the ring must have room for them. The warp calls it together.
    ///
    /// # Safety
    /// As for [`Self::ask`].
    #[inline(always)]
    pub(super) unsafe fn get(self, p: &ReplayParams, count: u32, is_draft: bool) -> Option<Sequence> {
        let Entries { listed, slot, reset, force, mut cursors } = self;
        let [slot, reset, force] = [slot.get() as u32, reset.bits(), force.bits()]
            // SAFETY: the warp is together.
            .map(|bits| unsafe { warp::reduce_or(bits) });
        let null_slot = if listed { p.pool.null_slot } else { -1 };
        let names_slot = names_slot(slot as i32, p.pool.slots, null_slot);
        let fresh = is_there(&p.pool.reset) && (reset != 0) != (p.layer.flags & flags::RESET_INVERTED != 0);
        if p.layer.flags & flags::CURSORS_BY_SLOT != 0 {
            // SAFETY: the slot was checked.
            cursors = Some(unsafe { Asked::new(&p.cursors, if names_slot { slot } else { 0 } + lane_zero()) });
        }
        let window = match cursors {
            Some(asked) if !fresh => asked.get(),
            _ => Window::EMPTY,
        };
        if !(names_slot & window.is_sound(p.rings.records, if is_draft { count } else { 0 })) {
            return None;
        }
        let folds = fresh | (force != 0) | (window.len + count > p.most);
        Some(Sequence { slot, window, fresh, folds })
    }
}

/// The sequence whose state a block asks for into the L2, and its slot, not yet looked at.
pub(super) struct Later {
    listed: bool,
    n: Option<u32>,
    slot: Index,
}

impl Later {
    /// Asks for the slot of the sequence so far behind sequence `n`, if there is one.
    ///
    /// # Safety
    /// The tables are those of the parameters.
    #[inline(always)]
    pub(super) unsafe fn ask(p: &ReplayParams, n: u32) -> Later {
        let listed = is_there(&p.pool.slot);
        let later = later(n, p.pool.ahead, p.n);
        // SAFETY: the caller's promise.
        let slot = unsafe {
            Index::load_if(listed & later.is_some(), &p.pool.slot, later.unwrap_or(n) + lane_zero(), 0)
        };
        Later { listed, n: later, slot }
    }

    /// Asks for the rows of its state that the warp has of its own sequence. The warp calls it together.
    ///
    /// # Safety
    /// As for [`Self::ask`].
    #[inline(always)]
    pub(super) unsafe fn prefetch<L: Layout, S: Element, const K: u32, const R: usize>(
        self,
        p: &ReplayParams,
        work: &Work,
    ) {
        if let Some(n) = self.n {
            let slot = if self.listed { self.slot } else { Index::of(n) }.get() as u32;
            // SAFETY: the caller's promise; the warp is together.
            unsafe { prefetch::<L, S, K, R>(&p.pool, &p.layer, work, warp::reduce_or(slot) as i32) };
        }
    }
}
