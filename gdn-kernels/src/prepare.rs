//! What the warps of a block have in common of some tokens, worked out once in shared memory.
//!
//! A warp takes a token's q and k and their sums, a thread a decay, and each team the values of its own rows. After a
//! barrier a token is a few loads from shared memory ([`Tokens::get`]), none of which waits for the L2.
//!
//! Shared memory of a token, in f32: q, k (and the decays per key) in the order in which lanes hold them, first the
//! first four elements of every piece, then the other four, so that a warp's loads of 16 bytes meet no bank twice, and
//! zeros for lanes without a piece; then `k q`, the factors of q and k, beta and the decay per head. The values of all tokens follow the last token.

use crate::abi;
use crate::arch::{compiler, shared, thread};
use crate::element::{Element, ROW, Scalar, Vectors};
use crate::gate::{self, DecayInputs, Gate};
use crate::keys::{Factors, Keys, Token};
use crate::layout::{Form, Layout, Place, groups, lanes};
use crate::math::exp;
use crate::tile::Tile;
use crate::token::{Block, wide};
use core::marker::PhantomData;

/// Bytes of shared memory that a token takes at most: with K up to 128 that is one with a decay per key.
pub(crate) const fn token_bytes(k: u32) -> usize {
    let keys = if k <= 128 { 3 * 128 } else { 2 * k as usize };
    (keys + 8) * 4
}

/// Tokens that a block of several tokens prepares at once; a power of two.
pub(crate) const CHUNK: u32 = 8;

/// Bytes of the values of so many tokens, for each row of a block.
pub(crate) const VALUE_BYTES: usize = CHUNK as usize * abi::MOST_BLOCK_ROWS as usize * 4;

/// What the preparation of some tokens starts with, loaded but not yet looked at.
#[derive(Clone, Copy)]
pub(crate) struct Loads {
    /// q and k of the warp's first token.
    keys: [Vectors; 2],
    /// The thread's first decay, if it has one.
    gate: Option<GateLoads>,
}

impl Loads {
    /// Some word of what was asked for last, to wait for all of it.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) fn last(&self) -> u32 {
        self.gate.map_or(0, |gate| gate.beta.bits())
    }
}

/// A decay's inputs, and its token's beta.
#[derive(Clone, Copy)]
struct GateLoads {
    decay: DecayInputs,
    beta: Scalar,
}

/// Tokens that a block prepares in shared memory.
pub(crate) struct Tokens<'a, S, L, T, G, const K: u32, const R: usize> {
    block: &'a Block<'a, S, T, G, K>,
    /// Where the first one lies.
    first: u32,
    /// The running thread.
    thread: u32,
    /// Whether tokens are prepared in a loop, which then keeps nothing that is computed from a gate's types: it would
    /// take registers that every token of the loop needs, for what is done once in eight tokens.
    in_loop: bool,
    layout: PhantomData<L>,
}

impl<'a, S: Element, L: Layout, T: Element, G: Gate, const K: u32, const R: usize> Tokens<'a, S, L, T, G, K, R> {
    /// Elements of a token's vectors over K: eight for each lane of a group.
    const KEYS: u32 = lanes(K) * ROW as u32;

    /// Bytes of a token's vectors over K.
    const VECTOR_BYTES: u32 = 4 * Self::KEYS;

    /// `first` is the address of [`token_bytes`] of shared memory for each token prepared at once.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) fn new(block: &'a Block<'a, S, T, G, K>, first: u32, thread: u32, in_loop: bool) -> Self {
        Tokens { block, first, thread, in_loop, layout: PhantomData }
    }

    /// The gate as loads use it.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    fn gate(&self) -> abi::Gate {
        if self.in_loop { self.gate_anew() } else { *self.block.gate }
    }

    /// The gate, but nothing that is computed from its types is kept for what uses it.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    fn gate_anew(&self) -> abi::Gate {
        let gate = *self.block.gate;
        let dtypes = [gate.a_dtype, gate.b_dtype, gate.a_log_dtype, gate.dt_bias_dtype];
        let [a_dtype, b_dtype, a_log_dtype, dt_bias_dtype] = dtypes.map(compiler::opaque);
        abi::Gate { a_dtype, b_dtype, a_log_dtype, dt_bias_dtype, ..gate }
    }

    /// Address of prepared token `i`.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    fn at(&self, i: u32) -> u32 {
        self.first + i * token_bytes(K) as u32
    }

    /// Address of prepared token `i`'s scalars, behind its q, k and decays.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    fn scalars(&self, i: u32) -> u32 {
        self.at(i) + (if G::decays(K) == 1 { 2 } else { 3 }) * Self::VECTOR_BYTES
    }

    /// Addresses of the two vectors that are piece `piece` of a token's vector over K.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    fn vectors(vector: u32, piece: u32) -> [u32; 2] {
        let first = vector + 16 * piece;
        [first, first + Self::VECTOR_BYTES / 2]
    }

    /// Where the thread stands among lanes that share a row, a piece each.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    fn place(&self) -> Place {
        Place::of_thread(self.thread, lanes(K))
    }

    /// Issues the loads that [`Self::prepare`] starts with: of a warp's first token and a thread's first decay, of
    /// `count` tokens from `first` on.
    ///
    /// # Safety
    /// The tokens lie in the inputs.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) unsafe fn load(&self, first: u32, count: u32) -> Loads {
        let (i, j) = (self.thread / 32, self.first_decay());
        let (mut keys, mut decay) = ([[[0; 4]; 2]; 2], None);
        // SAFETY: the caller's promise.
        unsafe {
            // The order is what ptxas does best with: with the decay first it waits for a single token's slot in front of
            // the keys, with the keys first several tokens take a register or two more.
            if self.in_loop {
                if j < count * G::decays(K) {
                    decay = Some(self.load_gate(first, j));
                }
                if i < count {
                    keys = self.block.load_keys(first + i, self.place());
                }
            } else {
                if i < count {
                    keys = self.block.load_keys(first + i, self.place());
                }
                if j < count * G::decays(K) {
                    decay = Some(self.load_gate(first, j));
                }
            }
        }
        Loads { keys, gate: decay }
    }

    /// The first decay that this thread works out, counted through the tokens: from the last thread on, as the first
    /// warps have keys to prepare.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    fn first_decay(&self) -> u32 {
        thread::block_dim_x() - 1 - self.thread
    }

    /// Prepares `count` tokens from `first` on for the whole block, given what [`Self::load`] gave for them. All
    /// threads call it together, and pass a barrier before they take a token.
    ///
    /// # Safety
    /// The tokens lie in the inputs, and there is shared memory for them that nobody reads any more.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) unsafe fn prepare(&self, loads: Loads, first: u32, count: u32) {
        // SAFETY: the caller's promise.
        unsafe { self.prepare_and(loads, first, count, |_, _, _| {}) }
    }

    /// [`Self::prepare`], and `keep` gets each log decay: of which prepared token, which of its decays, and the value.
    ///
    /// # Safety
    /// As for [`Self::prepare`].
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) unsafe fn prepare_and(&self, loads: Loads, first: u32, count: u32, keep: impl Fn(u32, u32, f32)) {
        let threads = thread::block_dim_x();
        let Loads { mut keys, mut gate } = loads;
        let mut i = self.thread / 32;
        while i < count {
            i = compiler::opaque(i);
            // SAFETY: the caller's promise.
            unsafe {
                self.prepare_keys(keys, i);
                if !self.in_loop {
                    break;
                }
                i += threads / 32;
                if i < count {
                    keys = self.block.load_keys(first + i, self.place());
                }
            }
        }
        let mut j = self.first_decay();
        while let Some(inputs) = gate {
            j = compiler::opaque(j);
            // SAFETY: the caller's promise.
            unsafe {
                self.prepare_gate(inputs, j, &keep);
                j += threads;
                let more = (self.in_loop || G::decays(K) > 1) && j < count * G::decays(K);
                gate = if more { Some(self.load_gate(first, j)) } else { None };
            }
        }
    }

    /// A warp's part: q, k and their sums of a token. Its first lane group stores q, its second k; if it has only one,
    /// that stores both.
    ///
    /// # Safety
    /// As for [`Self::prepare`].
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    unsafe fn prepare_keys(&self, keys: [Vectors; 2], i: u32) {
        let place = self.place();
        let [q, k] = self.block.widen_keys(keys, place);
        let factors = self.block.factors([q, k]);
        let store = |which: u32, [a, b, c, d, e, f, g, h]: [f32; ROW]| {
            let [low, high] = Self::vectors(self.at(i) + which * Self::VECTOR_BYTES, place.lane);
            // SAFETY: the caller's promise.
            unsafe {
                shared::store_f32x4(low, [a, b, c, d]);
                shared::store_f32x4(high, [e, f, g, h]);
            }
        };
        if groups(K) == 1 {
            store(0, q);
            store(1, k);
        } else if place.group() < 2 {
            store(place.group(), core::array::from_fn(|e| if place.group() == 0 { q[e] } else { k[e] }));
        }
        // SAFETY: the caller's promise.
        unsafe {
            if place.group() == 0 && place.lane == 0 {
                shared::store_f32x4(self.scalars(i), [factors.kq, factors.q, factors.k, 0.0]);
            }
        }
    }

    /// Issues the loads of decay `j`, counted through the tokens from `first` on, and of its token's beta.
    ///
    /// # Safety
    /// The tokens lie in the inputs.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    unsafe fn load_gate(&self, first: u32, j: u32) -> GateLoads {
        let (gate, options, heads) = (&self.gate(), self.block.layer.flags, self.block.work.heads);
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
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    unsafe fn prepare_gate(&self, loads: GateLoads, j: u32, keep: &impl Fn(u32, u32, f32)) {
        let (gate, options) = (self.block.gate, self.block.layer.flags);
        let (i, element) = (j / G::decays(K), j % G::decays(K));
        let log_decay = loads.decay.log_decay(gate, options);
        let decay = exp(log_decay);
        keep(i, element, log_decay);
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
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    fn shared_order(i: u32) -> u32 {
        match S::VECTOR {
            8 => i / 4 % 2 * (K / 2) + i / 8 * 4 + i % 4,
            _ => i,
        }
    }

    /// The lane's piece of a vector of prepared token `i`: q, k, decays.
    ///
    /// # Safety
    /// As for [`Self::get`].
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    unsafe fn piece(&self, i: u32, which: u32) -> [f32; ROW] {
        let vectors = Self::vectors(self.at(i) + which * Self::VECTOR_BYTES, self.block.work.place.lane);
        // SAFETY: the caller's promise.
        let [[a, b, c, d], [e, f, g, h]] = vectors.map(|at| unsafe { shared::load_f32x4(at) });
        [a, b, c, d, e, f, g, h]
    }

    /// Query and key of prepared token `i`.
    ///
    /// # Safety
    /// As for [`Self::get`].
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) unsafe fn keys(&self, i: u32) -> Keys {
        // SAFETY: the caller's promise.
        unsafe {
            Keys { q: self.piece(i, 0), k: self.piece(i, 1), factors: self.factors(i) }
        }
    }

    /// What query and key of prepared token `i` come to besides themselves.
    ///
    /// # Safety
    /// As for [`Self::get`].
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) unsafe fn factors(&self, i: u32) -> Factors {
        // SAFETY: the caller's promise.
        let [kq, q, k, _] = unsafe { shared::load_f32x4(self.scalars(i)) };
        Factors { q, k, kq }
    }

    /// Beta of prepared token `i`, if it is one for all rows.
    ///
    /// # Safety
    /// As for [`Self::get`].
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) unsafe fn beta(&self, i: u32) -> f32 {
        // SAFETY: the caller's promise.
        unsafe { shared::load_f32(self.scalars(i) + 16) }
    }

    /// Decay of prepared token `i`.
    ///
    /// # Safety
    /// As for [`Self::get`].
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) unsafe fn decay(&self, i: u32) -> G::Decay {
        // SAFETY: the caller's promise.
        unsafe {
            let [_, single, ..] = shared::load_f32x4(self.scalars(i) + 16);
            G::of_lane(|| self.piece(i, 2), single)
        }
    }

    /// Prepared token `i`; `token` is its number in the call.
    ///
    /// # Safety
    /// The token was prepared, and a barrier passed since.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) unsafe fn get(&self, token: u32, i: u32) -> Token<G::Decay> {
        let options = self.block.layer.flags;
        // SAFETY: the caller's promise.
        unsafe {
            let (keys, decay, beta) = (self.keys(i), self.decay(i), self.beta(i));
            let beta = if self.block.beta_per_value() {
                let gate = &self.gate_anew();
                gate::beta(gate, options, gate::load_beta(gate, self.block.beta_at(token)))
            } else {
                beta
            };
            Token { keys, decay, beta }
        }
    }

    /// Rows of V that a team covers, its threads, and the values of how many tokens these load at once.
    const TEAM_ROWS: u32 = Form::<L, S, K, R>::TEAM_ROWS;
    const TEAM: u32 = 32 * Form::<L, S, K, R>::WARPS;
    const AT_ONCE: u32 = Self::TEAM / Self::TEAM_ROWS;

    /// Which token and which of the team's rows a thread loads a value of.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    fn value_of_thread(&self) -> (u32, u32) {
        let of_team = self.thread % Self::TEAM;
        (of_team / Self::TEAM_ROWS, of_team % Self::TEAM_ROWS)
    }

    /// Issues the loads of the values of the team's rows, of `count` tokens from `first` on.
    ///
    /// # Safety
    /// The tokens lie in the inputs.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) unsafe fn load_values(&self, first: u32, count: u32) -> [u32; CHUNK as usize] {
        let (token, row) = self.value_of_thread();
        let row = self.block.work.heads.value * self.block.layer.v + self.block.work.first_row + row;
        let mut values = [0; CHUNK as usize];
        let mut i = 0;
        while i * Self::AT_ONCE < CHUNK {
            let token = token + i * Self::AT_ONCE;
            // SAFETY: the caller's promise.
            values[i as usize] = unsafe { self.block.load_v(token < count, first + token, row) };
            i += 1;
        }
        values
    }

    /// Address of the value of a row of the team, of prepared token `i`.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    fn value_at(&self, i: u32, row: u32) -> u32 {
        let of_team = (self.block.work.place.team() * CHUNK + i) * Self::TEAM_ROWS;
        self.at(CHUNK) + 4 * (of_team + row)
    }

    /// Puts loaded values where [`Self::value`] finds them.
    ///
    /// # Safety
    /// As for [`Self::prepare`], with [`VALUE_BYTES`] behind the last of [`CHUNK`] tokens.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) unsafe fn prepare_values(&self, values: [u32; CHUNK as usize]) {
        let (token, row) = self.value_of_thread();
        let mut i = 0;
        while i * Self::AT_ONCE < CHUNK {
            let at = self.value_at(token + i * Self::AT_ONCE, row);
            // SAFETY: the caller's promise.
            unsafe { shared::store_f32(at, T::widen(values[i as usize])) };
            i += 1;
        }
    }

    /// The value of the row that the lane carries, of prepared token `i`.
    ///
    /// # Safety
    /// The values were prepared, and a barrier passed since.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) unsafe fn value(&self, i: u32) -> f32 {
        let at = self.value_at(i, Tile::<S, L, K, R>::carried(self.block.work.place));
        // SAFETY: the caller's promise.
        unsafe { shared::load_f32(at) }
    }
}
