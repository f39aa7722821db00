//! The true state of slots, stored where they were (a fold) or elsewhere (a prefix that is kept, a hand-over), in all layers.
//!
//! A block takes some rows of a head's state, as those of a decode do, of one sequence (block y) and layer (block z). A layer's
//! addresses come from a table; all layers have the same slots, pitches and cursors.

use super::ring::{Asked, Ring, Window, sums_behind};
use super::room::Room;
use crate::abi::{LAYER_COLUMNS, ReplayFoldParams, Rings, flags};
use crate::arch::{compiler, memory, shared, thread, warp};
use crate::element::Element;
use crate::entry::{Flag, Index, is_there};
use crate::gate::Gate;
use crate::keys::Decay;
use crate::layout::Layout;
use crate::tile::Tile;
use crate::token::{Work, lane_zero, names_slot, slot_at};

/// Column `column` of a layer's row.
///
/// # Safety
/// The table has such a row.
#[cfg_attr(target_arch = "nvptx64", inline(always))]
pub(super) unsafe fn address(layers: u64, layer: u32, column: u32) -> u64 {
    // SAFETY: the caller's promise.
    let [low, high] = unsafe { memory::load_u32x2(layers + 8 * (layer * LAYER_COLUMNS + column) as u64) };
    (high as u64) << 32 | low as u64
}

/// The kernel body; the parameters are those of [`crate::decode::decode`].
///
/// # Safety
/// `p` describes buffers as its documentation says, and the launch is shaped as [`ReplayFoldParams`] says.
#[cfg_attr(target_arch = "nvptx64", inline(always))]
pub(crate) unsafe fn fold<
    L: Layout,
    G: Gate,
    S: Element,
    T: Element,
    const K: u32,
    const R: usize,
    const THREADS: u32,
>(
    p: &ReplayFoldParams,
) {
    let thread = compiler::opaque(thread::thread_idx_x());
    let work = Work::of_thread::<S, L, K, R>(&p.layer, thread);
    let (n, layer) = (thread::block_idx_y(), thread::block_idx_z());
    if n >= p.n || layer >= p.layer_count {
        return;
    }
    let has = |flag: u32| p.layer.flags & flag != 0;
    // SAFETY: n < N, the layer is one of the table's, head < HV and the team's rows < V, so every address lies in its buffer; slots
    // and window are used only after they were checked, and records only if they are live.
    unsafe {
        let at = n + lane_zero();
        let (listed, separate) = (is_there(&p.slot), is_there(&p.target_slot));
        let slot = if listed { Index::load_if(true, &p.slot, at, 0) } else { Index::of(at) };
        let target = Index::load_if(separate, &p.target_slot, at, 0);
        let count = Index::load_if(is_there(&p.count), &p.count, at, 0);
        let force = Flag::load(&p.force, at);
        let [state, k, d, g, out] = [0, 1, 2, 3, 4].map(|column| address(p.layers, layer, column));
        let [slot, target, count, force] =
            [slot.get() as u32, target.get() as u32, count.get() as u32, force.bits()]
                .map(|bits| warp::reduce_or(bits));

        let null_slot = if listed { p.null_slot } else { -1 };
        let is_real = names_slot(slot as i32, p.slots, null_slot);
        let (target, null_slot) = if separate { (target, p.null_slot) } else { (slot, -1) };
        let is_kept = names_slot(target as i32, p.target_slots, null_slot);
        let is_meant = !is_there(&p.force) | (force != 0);
        if !(is_real & is_kept & is_meant) {
            return;
        }
        let row = if has(flags::CURSORS_BY_SLOT) { slot } else { n };
        let Window { base, len } = Asked::new(&p.cursors, row + lane_zero()).get();
        let window = Window { base, len: if is_there(&p.count) { count } else { len } };
        if !(window.len <= len && Window { base, len }.is_sound(p.records, 0)) {
            return;
        }

        let rings = Rings {
            k,
            d,
            g,
            k_pitch: p.k_pitch,
            d_pitch: p.d_pitch,
            g_pitch: p.g_pitch,
            records: p.records,
        };
        let ring = Ring::<G, T, K>::new(&rings, &p.layer, p.eps, slot, work.heads, window);
        let shared = shared::block::<Room<G, T, K, R, THREADS, 0>>();
        let block_rows = Tile::<S, L, K, R>::block_rows(thread::block_dim_x());
        let row_of_block = work.place.team() * Tile::<S, L, K, R>::TEAM_ROWS;
        let log_decay = ring.ask::<R, THREADS, 0>(shared, work.first_row - row_of_block, block_rows);
        let in_slot = work.state_offset::<S, L, K>(&p.layer);
        let from = slot_at::<S>(state, slot, p.pitch) + in_slot;
        let loaded = Tile::<S, L, K, R>::load(from, p.layer.v, work.place);
        let (behind, all) = sums_behind(log_decay);
        shared::wait_copies();
        thread::sync_threads();
        if G::PER_KEY {
            ring.decay_keys::<R, THREADS, 0>(shared);
            thread::sync_threads();
        }
        ring.each::<R, THREADS, 0>(shared, behind, work.place, S::VECTOR, |is_there, j, _, factor| {
            if is_there && work.place.lane == 0 {
                shared::store_f32(Room::<G, T, K, R, THREADS, 0>::factor(shared, j), factor);
            }
        });
        thread::sync_threads();
        let whole = Ring::<G, T, K>::whole::<R, THREADS, 0>(shared, all, work.place.lane, S::VECTOR);
        let mut tile = Tile::<S, L, K, R>::unpack(loaded);
        tile.scale(whole);
        Room::<G, T, K, R, THREADS, 0>::add_records::<L, S>(
            shared,
            &mut tile,
            work.place,
            window.len,
            row_of_block,
            G::Decay::NONE,
        );
        let to = slot_at::<S>(out, target, p.target_pitch) + in_slot;
        tile.store(to, p.layer.v, work.place);
    }
}
