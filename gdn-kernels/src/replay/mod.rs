//! Replay: decode and verification of drafts that read a state and seldom write it.
//!
//! A decode moves a state twice, in and out. Here a slot has a ring of records beside its state, the checkpoint, and a token
//! appends a record instead of writing the state: its correction d, its key k, its log decay g. Once in a ring's length the
//! state is written, and the ring is empty again: that is a fold.
//!
//! ```text
//! true state   h = E h0 + sum_j W_j d_j k_j^T    W_j the decay of the records behind j, E that of all
//! token        h k = E e (h0 k) + sum_j d_j (e W_j k_j k)        e its decay, k normalised
//!              h q likewise
//!              d = beta (v - h k)                o = h q + d (k q)
//! fold         E h0 + sum_j (W_j d_j) k_j^T, stored
//! ```
//!
//! So the state is read once, for two dot products a row, and what is left of the records is a coefficient each, `e W_j k_j k`
//! and `e W_j k_j q`, the same for all rows: a lane group works one out for the block. A row then adds up d_j times coefficient.
//! With a decay for each key, W_j stands within the dot products: a thread takes a column through all records, newest first.
//!
//! Several drafts are a loop over tokens. A draft is to those behind it what a record is to it, if it is one of its ancestors;
//! the state is never formed, so a tree costs what a chain costs.
//!
//! # When the ring is folded
//!
//! A decode folds *with* its token: where it does, nothing is appended, so no block writes a record that another one still
//! reads. A verification folds *in front* of its drafts, of which it does not know whether they will be accepted, and appends
//! them behind the window, which stays readable to the end of the launch. Outputs are worked out in the same way whether it
//! folds or not, and do not depend on it.
//!
//! # What is exact, and in which order
//!
//! Sums of log decays are taken from the newest record back, so that an old strong decay costs a young record nothing. Records
//! are added oldest first. Sums over K are [`crate::tile`]'s, or, for most drafts with 16-bit keys (KDA: bf16), products of tensor cores
//! ([`mod@products`]; the table of kernels says for which), for all tiles of a module alike. So bits depend on the window's records, not on where
//! it begins, nor on tile, warps, batch or slot, nor on rejected drafts; where sums are products, one draft has not the bits of
//! a decode.

mod begin;
mod commit;
mod cursors;
mod fold;
mod products;
mod ring;
mod room;
mod step;

pub(crate) use commit::commit;
pub(crate) use cursors::advance;
pub(crate) use fold::fold;
pub(crate) use products::{RoomOfProducts, products};
pub(crate) use room::Room;

use crate::abi::{MOST_DRAFTS, ReplayParams, flags};
use crate::arch::{compiler, memory, shared, thread};
use crate::element::Element;
use crate::entry::{Index, is_there};
use crate::gate::Gate;
use crate::keys::Decay;
use crate::layout::Layout;
use crate::prepare::{CHUNK, Tokens};
use crate::tile::Tile;
use crate::token::{Block, Output, Work, slot_at, take_turn};
use core::marker::PhantomData;
use ring::{Ring, sums_behind};
use begin::{Entries, Later, Sequence};
use step::{Ancestors, Step};

/// One token of each sequence; the parameters are those of [`crate::decode::decode`].
///
/// # Safety
/// `p` describes buffers as its documentation says, and the launch is shaped as [`ReplayParams`] says.
#[inline(always)]
pub(crate) unsafe fn decode<
    L: Layout,
    G: Gate,
    S: Element,
    T: Element,
    const K: u32,
    const R: usize,
    const THREADS: u32,
>(
    p: &ReplayParams,
) {
    // SAFETY: the caller's promise.
    unsafe { sequence::<L, G, S, T, K, R, THREADS, 1>(p) }
}

/// Drafts of each sequence, in multiply-adds.
///
/// # Safety
/// As for [`decode`].
#[inline(always)]
pub(crate) unsafe fn verify<
    L: Layout,
    G: Gate,
    S: Element,
    T: Element,
    const K: u32,
    const R: usize,
    const THREADS: u32,
>(
    p: &ReplayParams,
) {
    const { assert!(MOST_DRAFTS <= CHUNK) };
    // SAFETY: the caller's promise.
    unsafe { sequence::<L, G, S, T, K, R, THREADS, { MOST_DRAFTS as usize }>(p) }
}

/// Takes a sequence through its tokens, of which there are up to `TOKENS`.
///
/// # Safety
/// As for [`decode`].
#[inline(always)]
unsafe fn sequence<
    L: Layout,
    G: Gate,
    S: Element,
    T: Element,
    const K: u32,
    const R: usize,
    const THREADS: u32,
    const TOKENS: usize,
>(
    p: &ReplayParams,
) {
    take_turn();
    let thread = compiler::opaque(thread::thread_idx_x());
    let work = Work::of_thread::<S, L, K, R>(&p.layer, thread);
    let n = work.n;
    if n >= p.n {
        return;
    }
    let is_draft = TOKENS > 1;
    let count = if is_draft { p.tokens } else { 1 };
    let first = n * count;
    let out = Output {
        out: p.out,
        stride: p.out_stride,
        is_f32: p.layer.flags & flags::OUT_F32 != 0,
        stores: Tile::<S, L, K, R>::stores_output(work.place),
    };

    // SAFETY: n < N, the tokens are below those of the call, head < HV and the team's rows < V, so every address lies in its
    // buffer; slot and window are used only after they were checked, and records only if they are live.
    unsafe {
        let entries = Entries::ask(p, n);
        let shared = shared::block::<Room<G, T, K, R, THREADS, TOKENS>>();
        let block = Block::<S, T, G, K>::new(&p.inputs, &p.gate, &p.layer, &work);
        let tokens = Tokens::<S, L, T, G, K, R>::new(&block, shared, thread, is_draft);
        let loads = tokens.load(first, count);
        let values = if is_draft { tokens.load_values(first, count) } else { [0; CHUNK as usize] };
        let value = block.load_v(!is_draft, first, work.row);
        let later = Later::ask(p, n);
        let ancestors = if is_draft { Ancestors::ask(p, n, count) } else { Ancestors { parent: Index::NONE } };

        let Some(Sequence { slot, window, fresh, folds }) = entries.get(p, count, is_draft) else {
            let mut t = 0;
            while t < count {
                out.store::<T>(first + t, work.row, 0.0);
                t += 1;
            }
            return;
        };
        let appends = is_draft | !folds;

        let ring = Ring::<G, T, K>::new(&p.rings, &p.layer, p.inputs.eps, slot, work.heads, window);
        let block_rows = Tile::<S, L, K, R>::block_rows(thread::block_dim_x());
        let row_of_block = work.place.team() * Tile::<S, L, K, R>::TEAM_ROWS;
        let first_row = work.first_row - row_of_block;
        let log_decay = ring.ask::<R, THREADS, TOKENS>(shared, first_row, block_rows);
        let state_at = slot_at::<S>(p.pool.state, slot, p.pool.pitch) + work.state_offset::<S, L, K>(&p.layer);
        let state = Tile::<S, L, K, R>::load_if(!fresh, state_at, p.layer.v, work.place);

        if is_draft {
            tokens.prepare_values(values);
        }
        // The first block of a head leaves what its rows have in common.
        let is_first = first_row == 0;
        tokens.prepare_and(loads, first, count, |t, i, log_decay| {
            if appends & is_first {
                memory::store_u32(ring.log_decay(window.len + t, i), log_decay.to_bits());
            }
        });
        let (behind, all) = sums_behind(log_decay);
        shared::wait_copies();
        thread::sync_threads();
        if G::PER_KEY {
            ring.decay_keys::<R, THREADS, TOKENS>(shared);
            thread::sync_threads();
        }
        let ancestors = if is_draft { ancestors.get(is_there(&p.parent)) } else { 1.0 };
        let step = Step::<L, G, S, T, K, R, THREADS, TOKENS> { tokens: &tokens, shared, count, ancestors, types: PhantomData };
        let rows = Rows { work: &work, out, first, appends, first_row, row_of_block };
        step.coefficients(&ring, &work, behind);
        thread::sync_threads();

        later.prefetch::<L, S, K, R>(p, &work);
        let whole = Ring::<G, T, K>::whole::<R, THREADS, TOKENS>(shared, all, work.place.lane, S::VECTOR);
        let correction = step.rows(&rows, &ring, state, whole, value);
        if folds & (!is_draft | fresh | (window.len > 0)) {
            // A decode folds with its token.
            let behind = if is_draft { G::Decay::NONE } else { tokens.decay(0) };
            let mut tile = Tile::<S, L, K, R>::unpack_anew(state);
            tile.scale(whole.and(behind));
            Room::<G, T, K, R, THREADS, TOKENS>::add_records::<L, S>(
                shared,
                &mut tile,
                work.place,
                window.len,
                row_of_block,
                behind,
            );
            if !is_draft {
                let keys = tokens.keys(0);
                let along = correction * keys.factors.k;
                tile.add(|r| Tile::<S, L, K, R>::of_row(along, r), &keys.k);
            }
            tile.store(state_at, p.layer.v, work.place);
        }
        if appends & is_first {
            ring.append_keys(&p.inputs, work.heads, first, count);
        }
    }
}

/// Which rows of a sequence a team takes through its tokens, and what it leaves of them.
struct Rows<'a> {
    work: &'a Work,
    out: Output,
    /// The sequence's first token.
    first: u32,
    /// Whether the tokens' records are appended.
    appends: bool,
    /// The block's first row of the head, and the team's first row of the block.
    first_row: u32,
    row_of_block: u32,
}
