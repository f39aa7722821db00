//! Copies of states from slot to slot: a prefix that is kept or forked, and the commit of an accepted draft.
//!
//! Only bytes move, so there is one kernel for every type and layout, and for anything else that lies in slots
//! (windows of a convolution). A copy is a run of 16-byte vectors; what differs is where it starts:
//!
//! ```text
//! copy     slot source.slot[n]                                -> slot target.slot[n]
//! commit   row source.slot[n] of a buffer, step accepted[n] - 1 -> slot target.slot[n]
//! ```
//!
//! Without a table, copy n takes slot n. A copy one of whose indices names no slot is not done, and neither is one
//! whose step is out of range: batches are padded, and a draft of which nothing was accepted commits nothing.
//!
//! A thread moves [`VECTORS`] vectors and has all of them in flight before it stores the first; a block's threads
//! take neighbouring vectors, so that each instruction of a warp covers 512 bytes in a piece. A state is spread over
//! many blocks (block x), copies are counted by y and z together. Nothing is used again soon, so loads and stores
//! carry the streaming hint.

use crate::abi::{self, CopyStateParams, Slots};
use crate::arch::{memory, thread};
use crate::entry::Index;
use crate::token::{names_slot, sequence, wide};

/// Vectors of a thread.
const VECTORS: usize = abi::THREAD_VECTORS as usize;

/// A slot by the index that a copy has for it: whether there is such a slot, and where.
#[derive(Clone, Copy)]
pub(crate) struct Slot {
    pub(crate) exists: bool,
    pub(crate) address: u64,
}

impl Slot {
    /// The slot of copy `n`. Its index is loaded here, and waited for only where the slot is used.
    ///
    /// # Safety
    /// `n` lies in the table, if there is one.
    #[inline(always)]
    pub(crate) unsafe fn of_copy(slots: &Slots, n: u32) -> Slot {
        let by_table = slots.slot.is_there();
        // SAFETY: the caller's promise.
        let listed = unsafe { Index::load_if(by_table, &slots.slot, n, 0) };
        // Without a table there is no index that marks padding.
        let (index, null_slot) = if by_table { (listed.get(), slots.null_slot) } else { (n as i32, -1) };
        let exists = names_slot(index, slots.slots, null_slot);
        Slot { exists, address: slots.state + 16 * wide(index as u32, slots.pitch) }
    }
}

/// The kernel body.
///
/// # Safety
/// `p` describes buffers as its documentation says, and the launch is shaped as [`CopyStateParams`] says.
#[inline(always)]
pub(crate) unsafe fn copy_state(p: &CopyStateParams) {
    let n = sequence();
    if n >= p.n {
        return;
    }
    // SAFETY: n is below the number of copies; slots and steps are used only after they were checked, and vectors
    // only below the number of a copy's.
    unsafe {
        let (source, target) = (Slot::of_copy(&p.source, n), Slot::of_copy(&p.target, n));
        let commits = p.accepted.is_there();
        let accepted = Index::load_if(commits, &p.accepted, n, 0);
        // A count of 0 is the largest step there is.
        let step = if commits { (accepted.get() as u32).wrapping_sub(1) } else { 0 };
        let there = !commits | (step < p.steps);
        if !(source.exists & target.exists & there) {
            return;
        }
        let (source, target) = (source.address + 16 * wide(step, p.step_pitch), target.address);

        let threads = thread::block_dim_x();
        let first = thread::block_idx_x() * (VECTORS as u32 * threads) + thread::thread_idx_x();
        let mut vectors = [[0; 4]; VECTORS];
        let mut i = 0;
        while i < VECTORS {
            let at = first + i as u32 * threads;
            if at < p.vectors {
                vectors[i] = memory::load_u32x4_streaming(source + 16 * at as u64);
            }
            i += 1;
        }
        let mut i = 0;
        while i < VECTORS {
            let at = first + i as u32 * threads;
            if at < p.vectors {
                memory::store_u32x4_streaming(target + 16 * at as u64, vectors[i]);
            }
            i += 1;
        }
    }
}
