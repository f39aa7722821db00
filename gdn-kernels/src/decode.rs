//! Decode: one token for each sequence, gating fused, state updated in its slot.
//!
//! This is SGLang's `fused_sigmoid_gating_delta_rule_update` for T = 1 and, since inputs are strided, its
//! packed form too; with a gate per key it is the decode of `fused_recurrent_kda_fwd`. The arithmetic is
//! [`crate::tile`]'s; this file is what surrounds it: which slot a sequence reads and writes, and in which order
//! loads are issued.
//!
//! # Blocks
//!
//! A block works on BV rows of one state: block x is `value head * tiles + tile`, and y and z together count sequences.
//! How many teams ([`crate::tile`]) it has is free at launch. In layout VK a team is a warp; with two kernels, one whose
//! warp has 4 rows and one whose warp has 16, BV runs from 4 to 128. In KV a team has 16 rows or 64, of a 16-bit state 32, 64
//! or all 128. What the warps of a block have in common, those of small tiles in VK work out each for itself, all others
//! together ([`crate::token`]).
//!
//! # Order of loads
//!
//! Decode is bound by memory, and in small batches by latency: slot index -> state -> done is the longest
//! chain. So the slot index is asked for first, the inputs (q, k, gate) next, and the whole tile's state as soon as the
//! slot is there: what is worked out of the inputs is ready when the state comes. Nothing loaded is looked at before
//! everything is in flight.
//!
//! A warp waits for loads by counters, of which there are six, and ptxas gives one and the same to all loads that are used behind
//! a branch. The slot would then wait for the inputs, or the inputs for the state. So where a warp works its token out for
//! itself, there is no branch from the slot to the state: a state that is not there is not loaded, by a predicate, and the
//! outputs become zeros at the end. That took a tenth off a launch of a few states. Nor is there a branch from the state's loads to
//! where the inputs are waited for ([`crate::token::Own::awaited`]), so decay and beta are worked out while the state comes.
//!
//! ptxas puts instructions in an order of its own, and waits where it pleases. What it must not look at yet therefore gets bits
//! of something later, none of which is set: the slot those of the inputs' addresses, so that all inputs are asked for before it is
//! waited for, and the inputs those of the state's address.
//!
//! In large batches a block asks for a state that comes some nine megabytes later into the L2 (`Pool::ahead`), one of the
//! next wave of blocks: so the memory has work while blocks end and start. It does so when its own state should be there,
//! in front of the step; asked for together, the two would come later both. In small tiles of layout VK, which have no
//! registers left for that, it does so behind the step.
//!
//! A kernel launched early ([`flags::EARLY`]) starts while its predecessor still computes the inputs. It reads the
//! tables, asks for the states into the L2, and waits; then all goes as above, with states that are near. No state is
//! read before the wait, so a predecessor may even write it.
//!
//! # What it takes
//!
//! On an H100 with the heads of Qwen3-Next (16:32) and cold L2 a launch takes 3.3 us for one sequence with an
//! f32 state, and from 128 sequences on moves 2.9 TB/s of state, read plus written. In between the number of
//! instructions of a warp counts as well.

use crate::abi::{DecodeParams, flags};
use crate::arch::{grid, shared, thread, warp};
use crate::element::Element;
use crate::entry::{Flag, Index, is_there};
use crate::gate::Gate;
use crate::layout::Layout;
use crate::prepare::{Loads, Tokens, token_bytes};
use crate::tile::{self, Exchange, Shared, Tile};
use crate::token::{Block, Output, Own, Work, lane_zero, later, names_slot, prefetch, slot_at};

/// In front of the sums of warps is one token.
pub(crate) struct Front;

impl<const K: u32> tile::Front<K> for Front {
    const BYTES: usize = token_bytes(K);
}

/// Rows of a lane up to which a tile is a small one, in layout VK.
const MOST_SMALL_ROWS: usize = 2;

/// The token's inputs, asked for: by each warp for itself, or for the block ([`crate::token`] says which when).
enum Asked {
    Own(Own),
    Shared(Loads),
}

/// The kernel body. `L` and `S` are layout and type of the state, `G` says how many decays a head has, `T` is the
/// type of q, k and v, a block has at most `THREADS` threads.
///
/// # Safety
/// `p` describes buffers as its documentation says, and the launch is shaped as [`DecodeParams`] says.
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
    p: &DecodeParams,
) {
    let work = Work::of_thread::<S, L, K, R>(&p.layer, thread::thread_idx_x());
    let n = work.n;
    if n >= p.n {
        return;
    }
    let out = Output {
        out: p.out,
        stride: p.out_stride,
        is_f32: p.layer.flags & flags::OUT_F32 != 0,
        stores: Tile::<S, L, K, R>::stores_output(work.place),
    };

    // SAFETY: n < N, head < HV and the team's rows < V, so every address below lies in its buffer; the slot
    // is used only after it was checked against the pool.
    unsafe {
        let is_small = !L::ALONG_V && R <= MOST_SMALL_ROWS;
        let own = is_small && G::decays(K) == 1;
        let zero = lane_zero();
        let at = if own { n } else { n + zero };
        let (listed, separate) = (is_there(&p.pool.slot), is_there(&p.pool.write_slot));
        // Without a table the sequence's own number.
        let slot = Index::load_or(n, listed, &p.pool.slot, at, 0);
        let null_slot = if listed { p.pool.null_slot } else { -1 };
        let reset = Flag::load(&p.pool.reset, at);
        if p.layer.flags & flags::EARLY != 0 {
            // The predecessor may still write the inputs; meanwhile the state comes as far as the L2.
            let slot = if listed { Index::load_anew(&p.pool.slot, n) } else { Index::of(n) }.get();
            prefetch::<L, S, K, R>(&p.pool, &p.layer, &work, slot);
            grid::wait();
        }
        let block = Block::<S, T, G, K>::new(&p.inputs, &p.gate, &p.layer, &work);
        let shared = if own { 0 } else { shared::block::<Shared<L, S, Front, K, R, THREADS>>() };
        let tokens = Tokens::<S, L, T, G, K, R>::new(&block, shared, thread::thread_idx_x(), false);
        let asked = match own {
            true => Asked::Own(block.load_own(n, if S::VECTOR == 4 { zero } else { 0 })),
            false => Asked::Shared(tokens.load(n, 1)),
        };
        let ask_rest = || {
            let v = block.load_v(true, n, work.row);
            let write_slot = Index::load_if(separate, &p.pool.write_slot, n + zero, 0);
            let later = later(n, p.pool.ahead, p.n);
            let later_at = later.unwrap_or(n) + zero;
            let later_slot = Index::load_if(listed & later.is_some(), &p.pool.slot, later_at, 0);
            (v, write_slot, later, later_slot)
        };
        let rest = if own { Some(ask_rest()) } else { None };
        // The slot is looked at when all inputs are asked for. What the block shares is asked for in branches, and so shares a
        // counter with the state: there the slot is looked at when all that is there.
        let last = match &asked {
            Asked::Own(_) => (p.gate.a ^ p.gate.b ^ p.gate.a_log ^ p.gate.dt_bias ^ p.inputs.v) as u32 ^ p.inputs.v_stride,
            Asked::Shared(loads) => loads.last(),
        };
        let bits = last & zero;
        let (slot, is_index) = slot.behind(bits).parts();
        let is_real = is_index & names_slot(slot, p.pool.slots, null_slot);
        if !(own || is_real) {
            out.store::<T>(n, work.row, 0.0);
            return;
        }

        let in_slot = work.state_offset::<S, L, K>(&p.layer);
        let state_at = |slot: i32| slot_at::<S>(p.pool.state + in_slot, slot as u32, p.pool.pitch);
        let inverted = p.layer.flags & flags::RESET_INVERTED != 0;
        let fresh = is_there(&p.pool.reset) && (reset.behind(bits).bits() != 0) != inverted;
        let state = match own {
            true => Tile::<S, L, K, R>::load_if(is_real & !fresh, state_at(slot), p.layer.v, work.place),
            false if fresh => Tile::<S, L, K, R>::ZEROS,
            false => Tile::<S, L, K, R>::load(state_at(slot), p.layer.v, work.place),
        };

        // The closure's own call is other PTX, with the loads in another order.
        #[allow(clippy::redundant_closure)]
        let (v, write_slot, later, later_slot) = rest.unwrap_or_else(|| ask_rest());
        let token = match asked {
            // Looked at behind the state's loads, which ptxas would else put behind the norms.
            Asked::Own(loads) => {
                warp::sync_warp();
                block.own(loads.awaited(state_at(slot) as u32 & zero))
            }
            Asked::Shared(loads) => {
                tokens.prepare(loads, n, 1);
                thread::sync_threads();
                tokens.get(n, 0)
            }
        };
        let ask = || {
            if let Some(later) = later {
                let later_slot = if listed { later_slot } else { Index::of(later) };
                // A shuffle stays where it is: the slot is not waited for before.
                let slot = warp::broadcast(f32::from_bits(later_slot.get() as u32), 0, 32).to_bits() as i32;
                prefetch::<L, S, K, R>(&p.pool, &p.layer, &work, slot);
            }
        };
        if !is_small {
            ask();
        }
        // Corrections take the token's place, which each warp has in its registers.
        let exchange = Exchange { sums: shared + token_bytes(K) as u32, corrections: shared };
        let (value, tile) = Tile::<S, L, K, R>::step_of(state, &token, T::widen(v), work.place, exchange);
        grid::launch_dependents();
        let (write_slot, null_slot) =
            if separate { (write_slot.get(), p.pool.null_slot) } else { (slot, null_slot) };
        if is_real && names_slot(write_slot, p.pool.slots, null_slot) {
            tile.store(state_at(write_slot), p.layer.v, work.place);
        }
        let value = if is_real { value } else { 0.0 };
        out.store::<T>(n, work.row, value);
        if is_small {
            ask();
        }
    }
}
