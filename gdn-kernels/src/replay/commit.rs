//! The accepted path of a tree of drafts: its records move to the places behind the live window, in all layers.
//!
//! A thread takes a unit of a record, 16 bytes of a key, of corrections or of log decays (or a single log decay), through the
//! path of one sequence (block y) in one layer (block z). Paths rise, so what moves to place i comes from i or from behind it,
//! where nothing has been moved to yet.

use super::fold::address;
use super::ring::{Asked, Window};
use crate::abi::{ReplayCommitParams, flags};
use crate::arch::{memory, thread};
use crate::entry::{Flag, Index, is_there};
use crate::token::{divide, lane_zero, names_slot, take_turn, wide};

/// The kernel body.
///
/// # Safety
/// `p` describes buffers as its documentation says, and the launch is shaped as [`ReplayCommitParams`] says.
#[inline(always)]
pub(crate) unsafe fn commit(p: &ReplayCommitParams) {
    take_turn();
    let (n, layer) = (thread::block_idx_y(), thread::block_idx_z());
    if n >= p.n || layer >= p.layer_count {
        return;
    }
    // SAFETY: n < N and the layer is one of the table's; slot, window, count and path are used only after they were checked.
    unsafe {
        let listed = is_there(&p.slot);
        let slot = if listed { Index::load_if(true, &p.slot, n, 0).get() } else { n as i32 };
        let reset = Flag::load(&p.reset, n);
        let accepted = Index::load_if(true, &p.accepted, n, 0).get() as u32;
        if !names_slot(slot, p.slots, if listed { p.null_slot } else { -1 }) || accepted > p.tokens {
            return;
        }
        let slot = slot as u32;
        let by_slot = p.flags & flags::CURSORS_BY_SLOT != 0;
        let fresh =
            is_there(&p.reset) && (reset.bits() != 0) != (p.flags & flags::RESET_INVERTED != 0);
        let row = if by_slot { slot } else { n } + lane_zero();
        let window = if fresh { Window::EMPTY } else { Asked::new(&p.cursors, row).get() };
        if !window.is_sound(p.records, p.tokens) {
            return;
        }

        let unit = thread::block_idx_x() * thread::block_dim_x() + thread::thread_idx_x();
        let (keys, corrections) = (p.h * p.k_vectors, p.hv * p.d_vectors);
        // Which ring a unit is in; in which head and where in its record; bytes of a record and of the unit.
        let (column, index, units, reciprocal, pitch) = if unit < keys {
            (1, unit, p.k_vectors, p.k_reciprocal, wide(slot, p.k_pitch) * p.k_size as u64)
        } else if unit - keys < corrections {
            (2, unit - keys, p.d_vectors, p.d_reciprocal, wide(slot, p.d_pitch) * 4)
        } else {
            (3, unit - keys - corrections, p.g_units, p.g_reciprocal, wide(slot, p.g_pitch) * 4)
        };
        let is_word = column == 3 && p.g_units == 1;
        let size = if is_word { 4 } else { 16 };
        let head = divide(index, reciprocal);
        if column == 3 && index >= p.hv * p.g_units {
            return;
        }
        let ring = address(p.layers, layer, column) + pitch + wide(head * p.records, units * size);
        let in_record = ((index - head * units) * size) as u64;
        let at = |draft: u32| {
            ring + wide(window.place(window.len + draft, p.records), units * size) + in_record
        };
        let mut i = 0;
        while i < accepted {
            let from = Index::load_if(true, &p.path, n, i).get() as u32;
            if from < i || from >= p.tokens {
                return;
            }
            if from > i && is_word {
                memory::store_u32(at(i), memory::load_u32(at(from)));
            } else if from > i {
                memory::store_u32x4(at(i), memory::load_u32x4(at(from)));
            }
            i += 1;
        }
    }
}
