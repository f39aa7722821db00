//! Recurrent: any number of tokens for each sequence, from one load of the state to its store.
//!
//! One body serves three operations of the field: `fused_recurrent_gated_delta_rule_fwd` (states by sequence,
//! variable lengths), `fused_recurrent_gated_delta_rule_update_fwd` (states in a pool) and the T > 1 form of
//! `fused_sigmoid_gating_delta_rule_update`, the verification of drafts; with a gate per key it is
//! `fused_recurrent_kda_fwd`. They differ in where a sequence starts, what is stored on the way, and where it
//! ends:
//!
//! ```text
//! start    zeros | slot n | pool.slot[n] | pool.slot[n, accepted[n] - 1]
//! token t  read from the token before, or in a tree from the state that its parent left in the buffer
//!          stored to the buffer, [row of n, t], or to the slot pool.slot[n, t], or not at all
//! end      nowhere | the slot it came from | target.slot[n] | slot n of another tensor
//! ```
//!
//! Blocks, tiles and the step of a token are decode's ([`crate::token`], [`crate::tile`]), so T tokens give the
//! bits of T decodes; with a 16-bit state a decode rounds between tokens, which `ROUND_STATE` does here.
//!
//! # Where the time goes
//!
//! The state stays in registers between tokens, and nothing in the loop over tokens waits for memory: what the tokens
//! have in common and every row's v are prepared in shared memory, eight tokens at once ([`crate::prepare`]), while the
//! state is on its way. Stores carry the streaming hint, and nothing waits for them, except in a tree, where a token
//! whose parent is not its predecessor reads its parent's state back: the same lane stored it, so program order
//! suffices.
//!
//! At the start of a block loads are issued in this order: the tables (where the state is, where drafts go), the first
//! tokens' inputs, and when those are there the state. So slot and inputs are waited for together, and the tokens are
//! prepared while the state is on its way. It takes some care (ptxas waits for a table's entry where it stands if it is the
//! same for all lanes, and for a load together with all others that are used behind a branch), and is worth 4 to 12 % of a
//! launch.
//!
//! Registers decide how many warps hide each other's latencies. What the loop seldom comes to (the preparation, stores of
//! drafts, a beta per row) would have its addresses worked out once, before the loop, and kept; [`Work::anew`] takes
//! that from the compiler. So a tile of 64 elements a lane fits 128 registers, 16 warps a multiprocessor, and one of 32
//! elements 96 to 120.
//!
//! In large batches a block also asks for the state of a later sequence into the L2, of the one that follows when the
//! blocks now running are done (`Pool::ahead`); on an H100 this took a sixth off a batch of 256 with a bf16 state.

use crate::abi::{RecurrentParams, flags};
use crate::arch::{compiler, shared, thread, warp};
use crate::element::Element;
use crate::entry::{Flag, Index};
use crate::gate::Gate;
use crate::layout::Layout;
use crate::prepare::{CHUNK, Loads, Tokens, VALUE_BYTES, token_bytes};
use crate::tile::{self, CORRECTIONS_BYTES, Exchange, Shared, Tile, buffer_at};
use crate::token::{Block, Output, Work, lane_zero, later, names_slot, prefetch, slot_at, tokens_of, wide};
use core::marker::PhantomData;

/// Bytes of prepared tokens and their values.
const fn prepared_bytes(k: u32) -> usize {
    CHUNK as usize * token_bytes(k) + VALUE_BYTES
}

/// In front of the sums of warps are what is prepared, and corrections.
pub(crate) struct Front;

impl<const K: u32> tile::Front<K> for Front {
    const BYTES: usize = prepared_bytes(K) + CORRECTIONS_BYTES;
}

/// The slot that a sequence starts from, or one that is none.
///
/// # Safety
/// `n` lies in the tables.
#[cfg_attr(target_arch = "nvptx64", inline(always))]
unsafe fn start_slot(p: &RecurrentParams, n: u32) -> Index {
    if !p.pool.slot.is_there() {
        return Index::of(n);
    }
    // SAFETY: the caller's promise; the accepted count is checked before it is used.
    unsafe {
        if !p.accepted.is_there() {
            return Index::load_if(true, &p.pool.slot, n, 0);
        }
        // A count that is none is the largest there is.
        let last = (Index::load_if(true, &p.accepted, n, 0).get() as u32).wrapping_sub(1);
        let sound = last < p.slot_columns;
        let slot = Index::load_if(sound, &p.pool.slot, n, last);
        if sound { slot } else { Index::NONE }
    }
}

/// The slot of the sequence whose state this block asks for into the L2, or one that is none.
///
/// # Safety
/// As for [`start_slot`].
#[cfg_attr(target_arch = "nvptx64", inline(always))]
unsafe fn later_slot(p: &RecurrentParams, n: u32) -> Index {
    match later(n, p.pool.ahead, p.n) {
        // SAFETY: the caller's promise.
        Some(later) if p.pool.state != 0 => unsafe { start_slot(p, later) },
        _ => Index::NONE,
    }
}

/// The kernel body; the parameters are those of [`crate::decode::decode`].
///
/// # Safety
/// `p` describes buffers as its documentation says, and the launch is shaped as [`RecurrentParams`] says.
#[cfg_attr(target_arch = "nvptx64", inline(always))]
pub(crate) unsafe fn recurrent<
    L: Layout,
    G: Gate,
    S: Element,
    T: Element,
    const K: u32,
    const R: usize,
    const THREADS: u32,
>(
    p: &RecurrentParams,
) {
    let work = Work::of_thread::<S, L, K, R>(&p.layer, compiler::opaque(thread::thread_idx_x()));
    // SAFETY: the caller's promise.
    unsafe {
        if work.n < p.n {
            sequence::<L, G, S, T, K, R, THREADS>(p, &work);
        }
        if p.cu_seqlens.is_there() {
            clear_rest::<L, S, T, K, R>(p);
        }
    }
}

/// The outputs of a lane that works on `work`.
#[cfg_attr(target_arch = "nvptx64", inline(always))]
fn outputs<L: Layout, S: Element, const K: u32, const R: usize>(p: &RecurrentParams, work: &Work) -> Output {
    Output {
        out: p.out,
        stride: p.out_stride,
        is_f32: p.layer.flags & flags::OUT_F32 != 0,
        stores: Tile::<S, L, K, R>::stores_output(work.place) && p.out != 0,
    }
}

/// Stores zeros to the rows of the output behind the last sequence, those of a graph's padding: each sequence's blocks to every
/// N-th of them. Without sequences the blocks of the first, which the launch has all the same, take them all.
///
/// # Safety
/// As for [`recurrent`].
#[cfg_attr(target_arch = "nvptx64", inline(always))]
unsafe fn clear_rest<L: Layout, S: Element, T: Element, const K: u32, const R: usize>(p: &RecurrentParams) {
    let work = Work::of_thread::<S, L, K, R>(&p.layer, compiler::opaque(thread::thread_idx_x()));
    let count = if p.n == 0 { 1 } else { p.n };
    if work.n >= count {
        return;
    }
    let out = outputs::<L, S, K, R>(p, &work);
    // SAFETY: the table has N + 1 entries, and rows are below those of the call. An end that is none is a large u32.
    unsafe {
        let mut t = (Index::load_if(true, &p.cu_seqlens, p.n, 0).get() as u32).saturating_add(work.n);
        while t < p.tokens {
            out.store::<T>(t, work.row, 0.0);
            t = t.saturating_add(count);
        }
    }
}

/// Takes a sequence through its tokens.
///
/// # Safety
/// As for [`recurrent`]; the sequence is there.
#[cfg_attr(target_arch = "nvptx64", inline(always))]
unsafe fn sequence<
    L: Layout,
    G: Gate,
    S: Element,
    T: Element,
    const K: u32,
    const R: usize,
    const THREADS: u32,
>(
    p: &RecurrentParams,
    work: &Work,
) {
    let (n, v, options) = (work.n, p.layer.v, p.layer.flags);
    let has = |flag: u32| options & flag != 0;
    let out = outputs::<L, S, K, R>(p, work);

    // SAFETY: n < N, head < HV, the team's rows < V and the tokens below those of the call, so every address lies
    // in its buffer; slots, rows and parents are used only after they were checked.
    unsafe {
        let (begin, len) = tokens_of(&p.cu_seqlens, p.tokens, n);
        // Of a range that is not sound the beginning may be anything, and addresses are worked out before the length is looked at.
        let begin = if len > 0 { begin } else { 0 };
        let from_zeros = p.pool.state == 0;
        let draft = &p.intermediate;
        let lists_rows = draft.state != 0 && draft.row.is_there();
        let zero = lane_zero();
        let at = n + zero;
        let slot = start_slot(p, at);
        let reset = Flag::load(&p.pool.reset, at);
        let row = Index::load_if(lists_rows, &draft.row, at, 0);

        let shared = shared::block::<Shared<L, S, Front, K, R, THREADS>>();
        let chunks = Chunks::<L, G, S, T, K, R> { p, shared, begin, len, types: PhantomData };
        let asked = chunks.ask(work, 0);
        let later = later_slot(p, n);
        // What was loaded is the block's again, now that all is asked for.
        let [slot, reset, row] =
            [slot.get() as u32, reset.bits(), row.get() as u32].map(|bits| warp::reduce_or(bits));
        let slot = slot as i32;
        let null_slot = if !p.pool.slot.is_there() { -1 } else { p.pool.null_slot };
        if !from_zeros && !names_slot(slot, p.pool.slots, null_slot) {
            let mut t = 0;
            while t < len {
                out.store::<T>(begin + t, work.row, 0.0);
                t += 1;
            }
            return;
        }
        let fresh = from_zeros || p.pool.reset.is_there() && (reset != 0) != has(flags::RESET_INVERTED);
        // The state is asked for when the inputs are there, so that what waits for them does not wait for the state.
        let there = (asked.0.last() & zero) as u64;
        let from = slot_at::<S>(p.pool.state, slot as u32, p.pool.pitch) + work.state_offset::<S, L, K>(&p.layer);
        let state = Tile::<S, L, K, R>::load_if(!fresh, from + there, v, work.place);

        // A sequence without tokens has no inputs to load.
        if len > 0 {
            let row = if draft.row.is_there() { row } else { n };
            let keeps = draft.state != 0 && row < draft.rows;
            let start = Start { slot, fresh, row, keeps };

            chunks.prepare(work, asked, 0);
            prefetch::<L, S, K, R>(&p.pool, &p.layer, work, later.get());
            thread::sync_threads();
            let tile = Tile::<S, L, K, R>::unpack(state);
            let is_short = !has(flags::WRITE_PER_TOKEN | flags::ROUND_STATE) && len <= CHUNK;
            let of_pool = !draft.parent.is_there() && draft.dtype == S::DTYPE as u32;
            let tile = if is_short && !keeps {
                chunks.run::<PLAIN>(work, &start, out, tile)
            } else if Chunks::<L, G, S, T, K, R>::HAS_CHAIN && is_short && of_pool {
                chunks.run::<CHAIN>(work, &start, out, tile)
            } else {
                chunks.run::<ANY>(work, &start, out, tile)
            };
            finish(p, &work.anew::<S, L, K, R>(), slot, &tile);
        } else if p.target.state != 0 {
            // The final state of a sequence without tokens is its initial state; a pool is not touched.
            finish(p, work, slot, &Tile::<S, L, K, R>::unpack(state));
        }
    }
}

/// The loop of a sequence of one chunk that stores no state on the way.
const PLAIN: u32 = 0;
/// The loop of a sequence of one chunk, each token of which follows the one before, and whose states on the way go to a buffer of
/// their own type.
const CHAIN: u32 = 1;
/// The loop of every other sequence.
const ANY: u32 = 2;

/// Rows of a lane up to which a tile is a small one, in layout VK.
const MOST_SMALL_ROWS: usize = 4;

/// Where a sequence starts, and which row of the buffer it has.
struct Start {
    slot: i32,
    /// From zeros, whatever the slot holds.
    fresh: bool,
    row: u32,
    /// Whether there is such a row.
    keeps: bool,
}

/// A sequence's tokens, prepared a chunk at a time.
struct Chunks<'a, L, G, S, T, const K: u32, const R: usize> {
    p: &'a RecurrentParams,
    /// The block's shared memory.
    shared: u32,
    /// The sequence's first token, and how many it has.
    begin: u32,
    len: u32,
    types: PhantomData<(L, G, S, T)>,
}

impl<L: Layout, G: Gate, S: Element, T: Element, const K: u32, const R: usize> Chunks<'_, L, G, S, T, K, R> {
    /// Whether chains have a loop of their own: small tiles of 16-bit states alone have registers for three loops.
    const HAS_CHAIN: bool = !L::ALONG_V && S::VECTOR == 8 && R <= MOST_SMALL_ROWS;

    /// Tokens of the chunk that starts with token `t`.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    fn count(&self, t: u32) -> u32 {
        if self.len - t < CHUNK { self.len - t } else { CHUNK }
    }

    /// Asks for the inputs of the chunk that starts with token `t`. All that follows from the thread is worked out anew.
    ///
    /// # Safety
    /// The tokens lie in the inputs.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    unsafe fn ask(&self, work: &Work, t: u32) -> (Loads, [u32; CHUNK as usize]) {
        let (p, thread) = (self.p, compiler::opaque(thread::thread_idx_x()));
        let block = Block::<S, T, G, K>::new(&p.inputs, &p.gate, &p.layer, work);
        let tokens = Tokens::<S, L, T, G, K, R>::new(&block, self.shared, thread, true);
        let (first, count) = (self.begin + t, self.count(t));
        // SAFETY: the caller's promise.
        unsafe { (tokens.load(first, count), tokens.load_values(first, count)) }
    }

    /// Prepares the chunk that was asked for.
    ///
    /// # Safety
    /// As for [`Self::ask`], and nobody reads the chunk before any more.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    unsafe fn prepare(&self, work: &Work, (loads, values): (Loads, [u32; CHUNK as usize]), t: u32) {
        let (p, thread) = (self.p, compiler::opaque(thread::thread_idx_x()));
        let block = Block::<S, T, G, K>::new(&p.inputs, &p.gate, &p.layer, work);
        let tokens = Tokens::<S, L, T, G, K, R>::new(&block, self.shared, thread, true);
        // SAFETY: the caller's promise.
        unsafe {
            tokens.prepare_values(values);
            tokens.prepare(loads, self.begin + t, self.count(t));
        }
    }

    /// Takes a tile through all tokens, the first chunk of which is prepared. `LOOP` is [`PLAIN`], [`CHAIN`] or [`ANY`]: the usual
    /// cases have loops of their own, in which registers are kept for nothing else.
    ///
    /// # Safety
    /// As for [`sequence`].
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    unsafe fn run<const LOOP: u32>(
        &self,
        work: &Work,
        start: &Start,
        out: Output,
        mut tile: Tile<S, L, K, R>,
    ) -> Tile<S, L, K, R> {
        let (p, draft, v) = (self.p, &self.p.intermediate, self.p.layer.v);
        let has = |flag: u32| p.layer.flags & flag != 0;
        let mut t = 0;
        while t < self.len {
            t = compiler::opaque(t);
            let work = work.anew::<S, L, K, R>();
            let in_slot = || work.state_offset::<S, L, K>(&p.layer);
            let step_at = |t: u32| {
                let step = p.layer.hv * v * K;
                let offset = (wide(compiler::opaque(start.row), draft.pitch) + wide(t, step)) * S::SIZE;
                match LOOP {
                    CHAIN => draft.state + offset + in_slot(),
                    _ => buffer_at::<S>(draft.state, draft.dtype, offset + in_slot()),
                }
            };
            let state_at = |slot: i32| slot_at::<S>(p.pool.state, slot as u32, p.pool.pitch) + in_slot();
            // SAFETY: the caller's promise; parents and slots are used only after they were checked.
            unsafe {
                if LOOP == ANY && start.keeps && draft.parent.is_there() && t > 0 && t < draft.steps {
                    // A parent that is none is a large u32.
                    let parent = Index::load_if(true, &draft.parent, work.n, t).get() as u32;
                    if parent < t {
                        if parent + 1 < t {
                            tile = Tile::load_as(draft.dtype, step_at(parent), v, work.place);
                        } else {
                            tile.round_as(draft.dtype);
                        }
                    } else {
                        tile = Tile::unpack(match start.fresh {
                            true => Tile::<S, L, K, R>::ZEROS,
                            false => Tile::<S, L, K, R>::load(state_at(start.slot), v, work.place),
                        });
                    }
                }
                let block = Block::<S, T, G, K>::new(&p.inputs, &p.gate, &p.layer, &work);
                let tokens = Tokens::<S, L, T, G, K, R>::new(&block, self.shared, thread::thread_idx_x(), true);
                let token = tokens.get(self.begin + t, t % CHUNK);
                // Made once, in front of the loop, it takes registers: up to 2 % more time for KDA with a 16-bit state.
                let corrections = self.shared + prepared_bytes(K) as u32;
                let exchange = Exchange { sums: corrections + CORRECTIONS_BYTES as u32, corrections };
                let value = tile.step(&token, tokens.value(t % CHUNK), work.place, exchange);
                out.store::<T>(self.begin + t, work.row, value);
                if LOOP == CHAIN && t < draft.steps {
                    tile.store(step_at(t), v, work.place);
                }
                if LOOP == ANY {
                    if has(flags::ROUND_STATE) {
                        tile.round();
                    }
                    if start.keeps && t < draft.steps {
                        tile.store_as(draft.dtype, step_at(t), v, work.place);
                    }
                    if has(flags::WRITE_PER_TOKEN) {
                        let there = t < p.write_columns;
                        let to = Index::load_if(there, &p.pool.write_slot, work.n, t).get();
                        if there && names_slot(to, p.pool.slots, p.pool.null_slot) {
                            tile.store(state_at(to), v, work.place);
                        }
                    }
                }
                t += 1;
                if LOOP == ANY && t % CHUNK == 0 && t < self.len {
                    // Everyone is through with the tokens of the last time.
                    thread::sync_threads();
                    self.prepare(&work, self.ask(&work, t), t);
                    thread::sync_threads();
                }
            }
        }
        tile
    }
}

/// Stores a sequence's last state where it goes.
///
/// # Safety
/// `n` lies in the tables; `slot` names a slot of the pool if the state goes there.
#[cfg_attr(target_arch = "nvptx64", inline(always))]
unsafe fn finish<S: Element, L: Layout, const K: u32, const R: usize>(
    p: &RecurrentParams,
    work: &Work,
    slot: i32,
    tile: &Tile<S, L, K, R>,
) {
    let (n, target, options) = (work.n, &p.target, p.layer.flags);
    let in_place = options & flags::WRITE_IN_PLACE != 0;
    let by_table = p.pool.write_slot.is_there() && options & flags::WRITE_PER_TOKEN == 0;
    let (state, pitch, slots) = match in_place | by_table {
        true => (p.pool.state, p.pool.pitch, p.pool.slots),
        false => (target.state, target.pitch, target.slots),
    };
    // SAFETY: the caller's promise; the slot is checked before it is used.
    unsafe {
        let listed = Index::load_if(by_table, &p.pool.write_slot, n, 0).get();
        let to = if in_place {
            slot
        } else if by_table {
            listed
        } else {
            n as i32
        };
        let null_slot = if by_table { p.pool.null_slot } else { -1 };
        if state != 0 && names_slot(to, slots, null_slot) {
            let at = slot_at::<S>(state, to as u32, pitch);
            tile.store(at + work.state_offset::<S, L, K>(&p.layer), p.layer.v, work.place);
        }
    }
}
