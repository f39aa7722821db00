//! The cursors of rings behind a step: one small launch for all layers, a thread a sequence.

use super::ring::Window;
use crate::abi::{ReplayAdvanceParams, Table, flags};
use crate::arch::{memory, thread};
use crate::entry::{Flag, Index, is_there};
use crate::token::{names_slot, take_turn, wide};

/// The kernel body.
///
/// # Safety
/// `p` describes buffers as its documentation says, and the launch is shaped as [`ReplayAdvanceParams`] says.
#[inline(always)]
pub(crate) unsafe fn advance(p: &ReplayAdvanceParams) {
    take_turn();
    let n = thread::block_idx_x() * thread::block_dim_x() + thread::thread_idx_x();
    if n >= p.n {
        return;
    }
    // SAFETY: n < N; the slot is used only after it was checked.
    unsafe {
        let listed = is_there(&p.slot);
        let slot = if listed { Index::load_if(true, &p.slot, n, 0).get() } else { n as i32 };
        if !names_slot(slot, p.slots, if listed { p.null_slot } else { -1 }) {
            return;
        }
        let row = if p.flags & flags::CURSORS_BY_SLOT != 0 { slot as u32 } else { n };
        let entry = |table: &Table| Index::load_if(is_there(table), table, row, 0).get() as u32;
        let is_draft = is_there(&p.accepted);
        let inverted = p.flags & flags::RESET_INVERTED != 0;
        let fresh = is_there(&p.reset) && (Flag::load(&p.reset, n).bits() != 0) != inverted;
        let window = match fresh {
            true => Window::EMPTY,
            false => Window { base: entry(&p.cursors.base), len: entry(&p.cursors.len) },
        };
        if !window.is_sound(p.records, if is_draft { p.tokens } else { 0 }) {
            return;
        }
        let forced = Flag::load(&p.force, n).bits() != 0;
        let folds = fresh | forced | (window.len + p.tokens > p.most);
        let accepted = Index::load_if(is_draft, &p.accepted, n, 0).get() as u32;
        let accepted = if accepted <= p.tokens { accepted } else { 0 };
        let (base, len) = match (is_draft, folds) {
            (false, true) => (window.base, 0),
            (false, false) => (window.base, window.len + 1),
            (true, true) => (window.place(window.len, p.records), accepted),
            (true, false) => (window.base, window.len + accepted),
        };
        if is_there(&p.cursors.base) {
            memory::store_u32(p.cursors.base.address + wide(row, p.cursors.base.stride), base);
        }
        memory::store_u32(p.cursors.len.address + wide(row, p.cursors.len.stride), len);
    }
}
