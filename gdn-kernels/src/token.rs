//! A token of one value head: its inputs, from their loads to the step of a tile, and its output.
//!
//! Decode has one of these a block, recurrent a loop of them; what is computed for a token, and in which order,
//! is the same code, which is why verifying T tokens gives the bits of T decodes.
//!
//! # Who works out what
//!
//! All warps of a block work on the same value head, so q and k with their norms, `k q`, decay and beta of a
//! token are the same for all of them. There are two ways, with the same arithmetic:
//!
//! - Every warp works them out for itself ([`Block::own`]): nobody waits for anybody. For the small tile of a
//!   single token with one decay per head, the tile of small batches, this is the faster way (on an H100 by 0.1 to
//!   0.3 us a launch).
//! - The block prepares a few tokens at once in shared memory ([`crate::prepare`]): a warp takes a token's q and k,
//!   a thread a decay; then a barrier. With large tiles, several tokens or a decay per key this saves more
//!   instructions than the barrier costs.

use crate::abi::{self, Layer, Table, flags};
use crate::arch::{compiler, grid, thread};
use crate::element::{Element, ROW, Scalar, Vectors};
use crate::entry::Index;
use crate::gate::{self, DecayInputs, Gate, Heads};
use crate::keys::{Factors, Keys, Token};
use crate::layout::{Layout, Place, pieces};
use crate::tile::Tile;
use core::marker::PhantomData;

/// What a team of warps works on: some rows of one value head of one sequence.
#[derive(Clone, Copy)]
pub(crate) struct Work {
    /// Sequence.
    pub(crate) n: u32,
    pub(crate) heads: Heads,
    /// The team's first row of the state.
    pub(crate) first_row: u32,
    /// The row of V that the lane carries, counted through all heads.
    pub(crate) row: u32,
    pub(crate) place: Place,
}

impl Work {
    /// Block x is `value head * tiles + tile`; y and z together count sequences.
    #[inline(always)]
    pub(crate) fn of_thread<S: Element, L: Layout, const K: u32, const R: usize>(
        layer: &Layer,
        thread: u32,
    ) -> Work {
        let place = Tile::<S, L, K, R>::place(thread);
        let block = thread::block_idx_x();
        let head = divide(block, layer.tiles_reciprocal);
        let bv = Tile::<S, L, K, R>::block_rows(thread::block_dim_x());
        let first_row = block * bv - head * layer.v + place.team() * Tile::<S, L, K, R>::TEAM_ROWS;
        Work {
            n: sequence(),
            heads: Heads { value: head, key: key_head(layer, head) },
            first_row,
            row: head * layer.v + first_row + Tile::<S, L, K, R>::carried(place),
            place,
        }
    }

    /// The work of a warp that has `rows` rows, and carries none of its own.
    #[inline(always)]
    pub(crate) fn of_warp(layer: &Layer, block: u32, thread: u32, rows: u32) -> Work {
        let place = Place::new(thread % 32, 0, thread / 32);
        let head = divide(block, layer.tiles_reciprocal);
        let bv = thread::block_dim_x() / 32 * rows;
        let first_row = block * bv - head * layer.v + place.team() * rows;
        let heads = Heads { value: head, key: key_head(layer, head) };
        Work { n: sequence(), heads, first_row, row: head * layer.v + first_row, place }
    }

    /// The same work, but what is computed from it is computed anew: for what a loop seldom comes to, and what would
    /// otherwise be kept in registers all the time. In layout KV that is the lane's place as well, which registers are too
    /// scarce for.
    #[inline(always)]
    pub(crate) fn anew<S: Element, L: Layout, const K: u32, const R: usize>(&self) -> Work {
        let heads = Heads {
            value: compiler::opaque(self.heads.value),
            key: compiler::opaque(self.heads.key),
        };
        let place = if L::ALONG_V {
            Tile::<S, L, K, R>::place(compiler::opaque(thread::thread_idx_x()))
        } else {
            let place = self.place;
            let [lane, group, team] = [place.lane, place.group(), place.team()].map(compiler::opaque);
            Place::new(lane, group, team)
        };
        let [n, first_row, row] = [self.n, self.first_row, self.row].map(compiler::opaque);
        Work { n, heads, first_row, row, place }
    }

    /// Bytes from a slot's first element to the lane's part of the tile.
    #[inline(always)]
    pub(crate) fn state_offset<S: Element, L: Layout, const K: u32>(&self, layer: &Layer) -> u64 {
        self.tile_offset::<S, L, K>(layer) + L::lane_offset::<S, K>(self.place, layer.v)
    }

    /// Bytes from a slot's first element to the first row of the team's tile.
    #[inline(always)]
    pub(crate) fn tile_offset<S: Element, L: Layout, const K: u32>(&self, layer: &Layer) -> u64 {
        let head = self.heads.value * layer.v * K;
        (head + L::row_offset::<K>(self.first_row)) as u64 * S::SIZE
    }
}

/// The sequence (or copy, or token) of this block: y and z together count them.
#[inline(always)]
pub(crate) fn sequence() -> u32 {
    thread::block_idx_y() + thread::block_idx_z() * thread::grid_dim_y()
}

/// What a kernel begins with that may be launched early but reads nothing before its predecessor is done: it waits for that, and
/// lets its own successor start, which will wait in turn. Where neither launch is early this does nothing. A block comes here
/// before any of its threads returns.
#[inline(always)]
pub(crate) fn take_turn() {
    // SAFETY: neither touches memory.
    unsafe {
        grid::wait();
        grid::launch_dependents();
    }
}

/// A zero of the lane's own, as threads are below 1024. What is plainly the same for the whole block ptxas may move to a register
/// of the warp, and wait for, before the loads behind it are issued. A zero in the address of what is loaded, or in what was
/// loaded, takes that from it.
#[inline(always)]
pub(crate) fn lane_zero() -> u32 {
    compiler::opaque(thread::thread_idx_x()) >> 10
}

/// A quotient, by multiplication with the [`abi::head_reciprocal`] of the divisor.
#[inline(always)]
pub(crate) fn divide(dividend: u32, reciprocal: u32) -> u32 {
    // The upper word of a product of words is one instruction; dividends are below 2^31.
    (((dividend << 1) as u64 * reciprocal as u64) >> 32) as u32
}

/// The key head of value head `head`.
#[inline(always)]
fn key_head(layer: &Layer, head: u32) -> u32 {
    let quotient = divide(head, layer.head_reciprocal);
    if layer.flags & flags::HEADS_TILED != 0 { head - quotient * layer.h } else { quotient }
}

/// The 64-bit product of an index and a stride.
#[inline(always)]
pub(crate) fn wide(index: u32, stride: u32) -> u64 {
    index as u64 * stride as u64
}

/// Whether an index names a slot of the pool; otherwise it is padding and nothing is touched.
#[inline(always)]
pub(crate) fn names_slot(slot: i32, slots: u32, null_slot: i32) -> bool {
    // A negative index is a large u32.
    (slot as u32) < slots && slot != null_slot
}

/// The address of a slot's state, in a tensor at `state` with so many elements from one slot to the next.
#[inline(always)]
pub(crate) fn slot_at<S: Element>(state: u64, slot: u32, pitch: u32) -> u64 {
    state + wide(slot, pitch) * S::SIZE
}

/// Asks for a team's rows of a slot's state into the L2, if the index names one.
///
/// # Safety
/// `pool` describes its state.
#[inline(always)]
pub(crate) unsafe fn prefetch<L: Layout, S: Element, const K: u32, const R: usize>(
    pool: &abi::Pool,
    layer: &Layer,
    work: &Work,
    slot: i32,
) {
    if names_slot(slot, pool.slots, pool.null_slot) {
        let at = slot_at::<S>(pool.state, slot as u32, pool.pitch) + work.tile_offset::<S, L, K>(layer);
        let thread = compiler::opaque(thread::thread_idx_x());
        // SAFETY: the caller's promise; the slot was checked.
        unsafe { L::prefetch::<S, K, R>(at, thread, layer.v) };
    }
}

/// The sequence whose states a block of sequence `n` asks for into the L2, of `count`: `ahead` sequences later, if one is.
#[inline(always)]
pub(crate) fn later(n: u32, ahead: u32, count: u32) -> Option<u32> {
    let later = n.wrapping_add(ahead);
    if later > n && later < count { Some(later) } else { None }
}

/// A sequence's tokens among those of the call: the first, and how many. Without `cu_seqlens` (0) each sequence has
/// `tokens`; with it a range that does not lie in the call's `tokens` is empty.
///
/// # Safety
/// `n` lies in `cu_seqlens`.
#[inline(always)]
pub(crate) unsafe fn tokens_of(cu_seqlens: &Table, tokens: u32, n: u32) -> (u32, u32) {
    if !cu_seqlens.is_there() {
        return (n * tokens, tokens);
    }
    // SAFETY: the caller's promise.
    let [begin, end] = [n, n + 1].map(|row| unsafe { Index::load_if(true, cu_seqlens, row, 0) });
    let [begin, end] = [begin.get() as u32, end.get() as u32];
    // A length that is none is a large u32.
    let sound = begin <= end && end <= tokens;
    (begin, if sound { end - begin } else { 0 })
}

/// The end of the last of `n` sequences: what rows the call's `tokens` have from there on are nobody's. A length that is none
/// leaves no rows.
///
/// # Safety
/// `n` lies in `cu_seqlens`.
#[inline(always)]
pub(crate) unsafe fn tokens_end(cu_seqlens: &Table, tokens: u32, n: u32) -> u32 {
    // SAFETY: the caller's promise.
    let end = unsafe { Index::load_if(true, cu_seqlens, n, 0) }.get() as u32;
    if end < tokens { end } else { tokens }
}

/// The inputs of a call as a block sees them. `S` is the type of the state, `T` that of q, k and v.
pub(crate) struct Block<'a, S, T, G, const K: u32> {
    pub(crate) inputs: &'a abi::Inputs,
    pub(crate) gate: &'a abi::Gate,
    pub(crate) layer: &'a Layer,
    pub(crate) work: &'a Work,
    types: PhantomData<(S, T, G)>,
}

impl<'a, S: Element, T: Element, G: Gate, const K: u32> Block<'a, S, T, G, K> {
    #[inline(always)]
    pub(crate) fn new(
        inputs: &'a abi::Inputs,
        gate: &'a abi::Gate,
        layer: &'a Layer,
        work: &'a Work,
    ) -> Self {
        Block { inputs, gate, layer, work, types: PhantomData }
    }

    /// Issues the loads of a token's q and k, a piece of each for every lane of a row. A lane without a piece loads the last
    /// one; [`Self::widen_keys`] makes zeros of it.
    ///
    /// # Safety
    /// The token lies in the inputs.
    #[inline(always)]
    pub(crate) unsafe fn load_keys(&self, token: u32, place: Place) -> [Vectors; 2] {
        let x = self.inputs;
        let lane = if place.holds_piece(K) { place.lane } else { pieces(K) - 1 };
        let head = (self.work.heads.key * K) as u64;
        let k_at = x.k + (wide(token, x.k_stride) + head) * T::SIZE;
        let q_at = x.q + (wide(token, x.q_stride) + head) * T::SIZE;
        // SAFETY: the caller's promise.
        unsafe {
            let k = T::load_spread(k_at, lane, K, S::VECTOR);
            let q = T::load_spread(q_at, lane, K, S::VECTOR);
            [q, k]
        }
    }

    /// A lane's pieces of loaded q and k as f32.
    #[inline(always)]
    pub(crate) fn widen_keys(&self, keys: [Vectors; 2], place: Place) -> [[f32; ROW]; 2] {
        let holds_piece = place.holds_piece(K);
        keys.map(|key| T::widen_row(key).map(|x| if holds_piece { x } else { 0.0 }))
    }

    /// What q and k come to, of which each lane has a piece.
    #[inline(always)]
    pub(crate) fn factors(&self, keys: [[f32; ROW]; 2]) -> Factors {
        let l2norm = self.layer.flags & flags::L2NORM != 0;
        Factors::new::<K>(keys, l2norm, self.inputs.eps, self.inputs.scale)
    }

    /// Issues the load of token `token`'s v of a row, counted through all heads.
    ///
    /// # Safety
    /// If it is there, the token lies in the inputs.
    #[inline(always)]
    pub(crate) unsafe fn load_v(&self, is_there: bool, token: u32, row: u32) -> u32 {
        let at = wide(token, self.inputs.v_stride) + row as u64;
        // SAFETY: the caller's promise.
        unsafe { T::load_bits_if(is_there, self.inputs.v + at * T::SIZE) }
    }

    /// Whether `gate.b` has a beta for every row of V.
    #[inline(always)]
    pub(crate) fn beta_per_value(&self) -> bool {
        self.layer.flags & flags::BETA_PER_VALUE != 0
    }

    /// Where a token's beta of the row that the lane carries is in `gate.b`: its row's, or its head's.
    #[inline(always)]
    pub(crate) fn beta_at(&self, token: u32) -> u64 {
        let at = if self.beta_per_value() { self.work.row } else { self.work.heads.value };
        wide(token, self.gate.b_stride) + at as u64
    }

    /// Issues the loads of a token that a warp works out for itself, whose lanes carry a row each. `zero` may be one of the
    /// lane's own, so that the gate's inputs do not seem to be the whole block's.
    ///
    /// # Safety
    /// The token lies in the inputs.
    #[inline(always)]
    pub(crate) unsafe fn load_own(&self, token: u32, zero: u32) -> Own {
        let gate = self.gate;
        let row = wide(token, gate.a_stride);
        let heads = Heads { value: self.work.heads.value + zero, ..self.work.heads };
        // SAFETY: the caller's promise.
        unsafe {
            Own {
                keys: self.load_keys(token, self.work.place),
                decay: DecayInputs::load::<G>(gate, self.layer.flags, row, heads, 0, K),
                beta: gate::load_beta(gate, self.beta_at(token) + zero as u64),
            }
        }
    }

    /// A token of a head with one decay, worked out by the warp for itself.
    #[inline(always)]
    pub(crate) fn own(&self, loads: Own) -> Token<G::Decay> {
        let (gate, options) = (self.gate, self.layer.flags);
        let [q, k] = self.widen_keys(loads.keys, self.work.place);
        let factors = self.factors([q, k]);
        let decay = G::of_lane(|| [0.0; ROW], loads.decay.decay(gate, options));
        Token { keys: Keys { q, k, factors }, decay, beta: gate::beta(gate, options, loads.beta) }
    }
}

/// A warp's own token, loaded but not yet looked at.
#[derive(Clone, Copy)]
pub(crate) struct Own {
    keys: [Vectors; 2],
    decay: DecayInputs,
    beta: Scalar,
}

impl Own {
    /// The same loads, waited for here, but not before `bits` are there, none of which is set. The gate's inputs are used behind
    /// branches; waited for there, they would be waited for together with the state.
    ///
    /// # Safety
    /// The warp is converged.
    #[inline(always)]
    pub(crate) unsafe fn awaited(self, bits: u32) -> Own {
        // SAFETY: the caller's promise.
        unsafe {
            Own {
                keys: self.keys.map(|key| key.map(|vector| vector.map(|word| word | bits))),
                decay: self.decay.awaited(bits),
                beta: self.beta.awaited(bits),
            }
        }
    }
}

/// Where outputs go.
#[derive(Clone, Copy)]
pub(crate) struct Output {
    pub(crate) out: u64,
    pub(crate) stride: u32,
    pub(crate) is_f32: bool,
    /// Whether this lane stores.
    pub(crate) stores: bool,
}

impl Output {
    /// Stores a token's output of row `row`, the one that the lane carries.
    ///
    /// # Safety
    /// Token and row lie in the output.
    #[inline(always)]
    pub(crate) unsafe fn store<T: Element>(&self, token: u32, row: u32, value: f32) {
        if self.stores {
            let at = wide(token, self.stride) + row as u64;
            // SAFETY: the caller's promise.
            unsafe {
                if self.is_f32 {
                    f32::store(self.out + at * f32::SIZE, value);
                } else {
                    T::store(self.out + at * T::SIZE, value);
                }
            }
        }
    }
}
