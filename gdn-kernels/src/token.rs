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
//! - The block prepares a few tokens at once in shared memory ([`Tokens::prepare`]): a warp takes a token's q and k,
//!   a thread a decay; then a barrier. With large tiles, several tokens or a decay per key this saves more
//!   instructions than the barrier costs.
//!
//! Shared memory of a token, in f32: q, k (and the decays per key) in the order in which lanes hold them, first the
//! first four elements of every lane, then the other four, so that a lane's loads of 16 bytes meet no bank twice;
//! then `k q`, the factors of q and k, beta and the decay per head.

use crate::abi::{self, Layer, flags};
use crate::arch::{compiler, memory, shared, thread};
use crate::element::{Element, ROW, Scalar, Vectors};
use crate::gate::{self, DecayInputs, Gate, Heads};
use crate::layout::Layout;
use crate::tile::{Decay, Keys, Place, Tile};
use core::marker::PhantomData;

/// What a warp works on: some rows of one value head of one sequence.
#[derive(Clone, Copy)]
pub(crate) struct Work {
    /// Sequence.
    pub(crate) n: u32,
    pub(crate) heads: Heads,
    /// The warp's first row of the state.
    pub(crate) first_row: u32,
    /// The row of V that the lane carries, counted through all heads.
    pub(crate) row: u32,
    pub(crate) place: Place,
}

impl Work {
    /// Block x is `value head * tiles + tile`; y and z together count sequences.
    #[inline(always)]
    pub(crate) fn of_this_thread<S: Element, L: Layout, const K: u32, const ROWS: usize>(
        layer: &Layer,
    ) -> Work {
        let place = Place::of_this_thread::<K>();
        let head = thread::block_idx_x() >> layer.tiles_log2;
        let tile = thread::block_idx_x() & ((1 << layer.tiles_log2) - 1);
        let bv = layer.v >> layer.tiles_log2;
        let first_row = tile * bv + place.warp * Tile::<S, L, K, ROWS>::WARP_ROWS;
        Work {
            n: sequence(),
            heads: Heads { value: head, key: key_head(layer, head) },
            first_row,
            row: head * layer.v + first_row + Tile::<S, L, K, ROWS>::carried(place),
            place,
        }
    }

    /// Bytes from a slot's first element to the lane's part of the tile.
    #[inline(always)]
    pub(crate) fn state_offset<S: Element, L: Layout, const K: u32>(&self, layer: &Layer) -> u64 {
        let head = self.heads.value * layer.v * K;
        (head + L::row_offset::<K>(self.first_row)) as u64 * S::SIZE
            + L::lane_offset::<S, K>(self.place, layer.v)
    }
}

/// The sequence (or copy, or token) of this block: y and z together count them.
#[inline(always)]
pub(crate) fn sequence() -> u32 {
    thread::block_idx_y() + thread::block_idx_z() * thread::grid_dim_y()
}

/// A quotient, by multiplication with the [`abi::head_reciprocal`] of the divisor.
#[inline(always)]
pub(crate) fn divide(dividend: u32, reciprocal: u32) -> u32 {
    ((dividend as u64 * reciprocal as u64) >> 31) as u32
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

/// A sequence's tokens among those of the call: the first, and how many. Without `cu_seqlens` (0) each sequence has
/// `tokens`; with it a range that does not lie in the call's `tokens` is empty.
///
/// # Safety
/// `n` lies in `cu_seqlens`.
#[inline(always)]
pub(crate) unsafe fn tokens_of(cu_seqlens: u64, options: u32, tokens: u32, n: u32) -> (u32, u32) {
    if cu_seqlens == 0 {
        return (n * tokens, tokens);
    }
    let is_i64 = options & flags::CU_SEQLENS_I64 != 0;
    let size = if is_i64 { 8 } else { 4 };
    let at = cu_seqlens + size * n as u64;
    // SAFETY: the caller's promise; of an i64 both halves are read.
    let [begin, end, begin_high, end_high] = unsafe {
        [
            memory::load_u32(at),
            memory::load_u32(at + size),
            memory::load_u32_if(is_i64, at + 4),
            memory::load_u32_if(is_i64, at + size + 4),
        ]
    };
    let sound = begin <= end && end <= tokens && begin_high | end_high == 0;
    (begin, if sound { end - begin } else { 0 })
}

/// The inputs of a call as a block sees them. `S` is the type of the state, `T` that of q, k and v.
pub(crate) struct Block<'a, S, T, G, const K: u32> {
    inputs: &'a abi::Inputs,
    gate: &'a abi::Gate,
    layer: &'a Layer,
    work: &'a Work,
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

    /// Issues the loads of a token's q and k.
    ///
    /// # Safety
    /// The token lies in the inputs.
    #[inline(always)]
    unsafe fn load_keys(&self, token: u32) -> [Vectors; 2] {
        let (x, lane) = (self.inputs, self.work.place.lane);
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

    /// Loaded q and k, and the sums over them.
    #[inline(always)]
    fn keys(&self, [q, k]: [Vectors; 2]) -> Keys {
        let layer = self.layer;
        let l2norm = layer.flags & flags::L2NORM != 0;
        Keys::new::<K>(T::widen_row(q), T::widen_row(k), l2norm, layer.eps, layer.scale)
    }

    /// Issues the load of token `token`'s v of the row that the lane carries.
    ///
    /// # Safety
    /// The token lies in the inputs.
    #[inline(always)]
    pub(crate) unsafe fn load_v(&self, token: u32) -> u32 {
        let at = wide(token, self.inputs.v_stride) + self.work.row as u64;
        // SAFETY: the caller's promise.
        unsafe { T::load_bits_if(true, self.inputs.v + at * T::SIZE) }
    }

    /// Whether `gate.b` has a beta for every row of V.
    #[inline(always)]
    fn beta_per_value(&self) -> bool {
        self.layer.flags & flags::BETA_PER_VALUE != 0
    }

    /// Where the lane's beta of a token is in `gate.b`: its row's, or its head's.
    #[inline(always)]
    fn beta_at(&self, token: u32) -> u64 {
        let at = if self.beta_per_value() { self.work.row } else { self.work.heads.value };
        wide(token, self.gate.b_stride) + at as u64
    }

    /// A token of a head with one decay, worked out by the warp for itself.
    ///
    /// # Safety
    /// The token lies in the inputs.
    #[inline(always)]
    pub(crate) unsafe fn own(&self, token: u32) -> Token<G::Decay> {
        let (gate, options, heads) = (self.gate, self.layer.flags, self.work.heads);
        // SAFETY: the caller's promise. Every load is issued before anything loaded is looked at.
        unsafe {
            let keys = self.load_keys(token);
            let row = wide(token, gate.a_stride);
            let decay = DecayInputs::load::<G>(gate, options, row, heads, 0, K);
            let beta = gate::load_beta(gate, self.beta_at(token));
            let keys = self.keys(keys);
            let decay = G::of_lane([0; 2], decay.decay(gate, options));
            Token { keys, decay, beta: gate::beta(gate, options, beta) }
        }
    }
}

/// Bytes of shared memory that a token takes at most: K = 128, a decay per key.
pub(crate) const TOKEN_BYTES: usize = (3 * 128 + 8) * 4;

/// What the preparation of some tokens starts with, loaded but not yet looked at.
#[derive(Clone, Copy)]
pub(crate) struct Loads {
    /// q and k of the warp's first token.
    keys: [Vectors; 2],
    /// The thread's first decay, if it has one.
    gate: Option<GateLoads>,
}

/// A decay's inputs, and its token's beta.
#[derive(Clone, Copy)]
struct GateLoads {
    decay: DecayInputs,
    beta: Scalar,
}

/// Tokens that a block prepares in shared memory.
pub(crate) struct Tokens<'a, S, T, G, const K: u32> {
    block: &'a Block<'a, S, T, G, K>,
    /// Where the first one lies.
    first: u32,
}

impl<'a, S: Element, T: Element, G: Gate, const K: u32> Tokens<'a, S, T, G, K> {
    /// Bytes of a token's vectors over K.
    const VECTOR_BYTES: u32 = 4 * K;

    /// `first` is the address of [`TOKEN_BYTES`] of shared memory for each token prepared at once.
    #[inline(always)]
    pub(crate) fn new(block: &'a Block<'a, S, T, G, K>, first: u32) -> Self {
        Tokens { block, first }
    }

    /// Address of prepared token `i`.
    #[inline(always)]
    fn at(&self, i: u32) -> u32 {
        self.first + i * TOKEN_BYTES as u32
    }

    /// Address of prepared token `i`'s scalars, behind its q, k and decays.
    #[inline(always)]
    fn scalars(&self, i: u32) -> u32 {
        self.at(i) + (2 + G::decays(K) / K) * Self::VECTOR_BYTES
    }

    /// Addresses of the lane's two vectors of a token's vector over K.
    #[inline(always)]
    fn vectors(&self, vector: u32) -> [u32; 2] {
        let first = vector + 16 * self.block.work.place.lane;
        [first, first + Self::VECTOR_BYTES / 2]
    }

    /// Issues the loads that [`Self::prepare`] starts with: of a warp's first token and a thread's first decay, of
    /// `count` tokens from `first` on.
    ///
    /// # Safety
    /// The tokens lie in the inputs.
    #[inline(always)]
    pub(crate) unsafe fn load(&self, first: u32, count: u32) -> Loads {
        let (i, j) = (self.block.work.place.warp, Self::first_decay());
        let (mut keys, mut decay) = ([[[0; 4]; 2]; 2], None);
        // SAFETY: the caller's promise.
        unsafe {
            if i < count {
                keys = self.block.load_keys(first + i);
            }
            if j < count * G::decays(K) {
                decay = Some(self.load_gate(first, j));
            }
        }
        Loads { keys, gate: decay }
    }

    /// The first decay that this thread works out, counted through the tokens: from the last thread on, as the first
    /// warps have keys to prepare.
    #[inline(always)]
    fn first_decay() -> u32 {
        thread::block_dim_x() - 1 - thread::thread_idx_x()
    }

    /// Prepares `count` tokens from `first` on for the whole block, given what [`Self::load`] gave for them. All
    /// threads call it together, and pass a barrier before they take a token.
    ///
    /// # Safety
    /// The tokens lie in the inputs, and there is shared memory for them that nobody reads any more.
    #[inline(always)]
    pub(crate) unsafe fn prepare(&self, loads: Loads, first: u32, count: u32) {
        let threads = thread::block_dim_x();
        let Loads { mut keys, mut gate } = loads;
        let mut i = self.block.work.place.warp;
        while i < count {
            i = compiler::opaque(i);
            // SAFETY: the caller's promise.
            unsafe {
                self.prepare_keys(keys, i);
                i += threads / 32;
                if i < count {
                    keys = self.block.load_keys(first + i);
                }
            }
        }
        let mut j = Self::first_decay();
        while let Some(inputs) = gate {
            j = compiler::opaque(j);
            // SAFETY: the caller's promise.
            unsafe {
                self.prepare_gate(inputs, j);
                j += threads;
                gate = if j < count * G::decays(K) { Some(self.load_gate(first, j)) } else { None };
            }
        }
    }

    /// A warp's part: q, k and their sums of a token. Its first lane group stores q, its second k.
    ///
    /// # Safety
    /// As for [`Self::prepare`].
    #[inline(always)]
    unsafe fn prepare_keys(&self, keys: [Vectors; 2], i: u32) {
        let place = self.block.work.place;
        let keys = self.block.keys(keys);
        // SAFETY: the caller's promise.
        unsafe {
            if place.group < 2 {
                let of_group: [f32; ROW] = core::array::from_fn(|e| match place.group {
                    0 => keys.q[e],
                    _ => keys.k[e],
                });
                let [a, b, c, d, e, f, g, h] = of_group;
                let [low, high] = self.vectors(self.at(i) + place.group * Self::VECTOR_BYTES);
                shared::store_f32x4(low, [a, b, c, d]);
                shared::store_f32x4(high, [e, f, g, h]);
            }
            if place.group == 0 && place.lane == 0 {
                shared::store_f32x4(self.scalars(i), [keys.kq, keys.q_factor, keys.k_factor, 0.0]);
            }
        }
    }

    /// Issues the loads of decay `j`, counted through the tokens from `first` on, and of its token's beta.
    ///
    /// # Safety
    /// The tokens lie in the inputs.
    #[inline(always)]
    unsafe fn load_gate(&self, first: u32, j: u32) -> GateLoads {
        let (gate, options, heads) = (self.block.gate, self.block.layer.flags, self.block.work.heads);
        let (token, element) = (first + j / G::decays(K), j % G::decays(K));
        let (row, beta_row) = (wide(token, gate.a_stride), wide(token, gate.b_stride));
        // SAFETY: the caller's promise.
        unsafe {
            GateLoads {
                decay: DecayInputs::load::<G>(gate, options, row, heads, element, K),
                beta: gate::load_beta(gate, beta_row + heads.value as u64),
            }
        }
    }

    /// A thread's part: decay `j`, and with the first one of a token its beta.
    ///
    /// # Safety
    /// As for [`Self::prepare`].
    #[inline(always)]
    unsafe fn prepare_gate(&self, loads: GateLoads, j: u32) {
        let (gate, options) = (self.block.gate, self.block.layer.flags);
        let (i, element) = (j / G::decays(K), j % G::decays(K));
        let decay = loads.decay.decay(gate, options);
        let is_single = G::decays(K) == 1;
        // SAFETY: the caller's promise.
        unsafe {
            if !is_single {
                let decays = self.at(i) + 2 * Self::VECTOR_BYTES;
                shared::store_f32(decays + 4 * Self::shared_order(element), decay);
            }
            if element == 0 {
                // With a beta per row of V this one is not used.
                let beta = gate::beta(gate, options, loads.beta);
                let decay = if is_single { decay } else { 0.0 };
                shared::store_f32x4(self.scalars(i) + 16, [beta, decay, 0.0, 0.0]);
            }
        }
    }

    /// Where element `i` along K lies in a vector of shared memory: lanes hold [`Element::VECTOR`] neighbours.
    #[inline(always)]
    fn shared_order(i: u32) -> u32 {
        match S::VECTOR {
            8 => i / 4 % 2 * (K / 2) + i / 8 * 4 + i % 4,
            _ => i,
        }
    }

    /// Prepared token `i`; `token` is its number in the call.
    ///
    /// # Safety
    /// The token was prepared, and a barrier passed since.
    #[inline(always)]
    pub(crate) unsafe fn get(&self, token: u32, i: u32) -> Token<G::Decay> {
        let (at, gate, options) = (self.at(i), self.block.gate, self.block.layer.flags);
        // SAFETY: the caller's promise.
        unsafe {
            let vector = |which: u32| {
                let at = self.vectors(at + which * Self::VECTOR_BYTES);
                let [[a, b, c, d], [e, f, g, h]] = at.map(|at| shared::load_f32x4(at));
                [a, b, c, d, e, f, g, h]
            };
            let [kq, q_factor, k_factor, _] = shared::load_f32x4(self.scalars(i));
            let [beta, single, ..] = shared::load_f32x4(self.scalars(i) + 16);
            let keys = Keys { q: vector(0), k: vector(1), q_factor, k_factor, kq };
            let decay = G::of_lane(self.vectors(at + 2 * Self::VECTOR_BYTES), single);
            let beta = if self.block.beta_per_value() {
                gate::beta(gate, options, gate::load_beta(gate, self.block.beta_at(token)))
            } else {
                beta
            };
            Token { keys, decay, beta }
        }
    }

}

/// A token as a lane applies it to its rows.
pub(crate) struct Token<D> {
    keys: Keys,
    decay: D,
    /// Of the row that the lane carries.
    beta: f32,
}

impl<D: Decay> Token<D> {
    /// Takes a tile through the token; `v` are the bits of the carried row's value, of type `T`. Returns the row's
    /// output.
    #[inline(always)]
    pub(crate) fn step<T: Element, S: Element, L: Layout, const K: u32, const ROWS: usize>(
        &self,
        tile: &mut Tile<S, L, K, ROWS>,
        v: u32,
        place: Place,
    ) -> f32 {
        tile.step(&self.keys, self.decay, self.beta, T::widen(v), place)
    }
}

/// Where outputs go.
#[derive(Clone, Copy)]
pub(crate) struct Output {
    pub(crate) out: u64,
    pub(crate) stride: u32,
    pub(crate) is_f32: bool,
}

impl Output {
    /// Stores a warp's outputs of a token, one instruction for all of them.
    ///
    /// # Safety
    /// Token and row lie in the output.
    #[inline(always)]
    pub(crate) unsafe fn store<T: Element>(&self, stores: bool, token: u32, row: u32, value: f32) {
        if stores {
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
