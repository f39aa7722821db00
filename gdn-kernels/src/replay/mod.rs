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
//! are added oldest first, and the sums over K are [`crate::tile`]'s, so bits depend on the window's records, not on where it
//! begins, nor on tile, warps, batch or slot, nor on rejected drafts.

mod commit;
mod cursors;
mod fold;
mod products;
mod ring;
mod room;

pub(crate) use commit::commit;
pub(crate) use cursors::advance;
pub(crate) use fold::fold;
pub(crate) use room::Room;

use crate::abi::{MOST_DRAFTS, ReplayParams, flags};
use crate::arch::{compiler, float, memory, shared, thread, warp};
use crate::element::Element;
use crate::entry::{Flag, Index, is_there};
use crate::gate::Gate;
use crate::keys::{Decay, dot, reduce};
use crate::layout::{Layout, groups};
use crate::prepare::{CHUNK, Tokens};
use crate::tile::{Raw, Tile};
use crate::token::{Block, Output, Work, lane_zero, later, names_slot, prefetch, slot_at, wide};
use core::marker::PhantomData;
use products::Columns;
use ring::{Asked, Ring, Window, sums_behind};

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
    unsafe { sequence::<L, G, S, T, K, R, THREADS, 1, 1>(p) }
}

/// Drafts of each sequence.
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
    unsafe { sequence::<L, G, S, T, K, R, THREADS, { MOST_DRAFTS as usize }, { MOST_DRAFTS as usize / 4 }>(p) }
}

/// Takes a sequence through its tokens, of which there are up to `TOKENS`, in products of four `PRODUCTS`.
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
    const PRODUCTS: usize,
>(
    p: &ReplayParams,
) {
    let thread = compiler::opaque(thread::thread_idx_x());
    let work = Work::of_thread::<S, L, K, R>(&p.layer, thread);
    let n = work.n;
    if n >= p.n {
        return;
    }
    let has = |flag: u32| p.layer.flags & flag != 0;
    let is_draft = TOKENS > 1;
    let count = if is_draft { p.tokens } else { 1 };
    let first = n * count;
    let out = Output {
        out: p.out,
        stride: p.out_stride,
        is_f32: has(flags::OUT_F32),
        stores: Tile::<S, L, K, R>::stores_output(work.place),
    };

    // SAFETY: n < N, the tokens are below those of the call, head < HV and the team's rows < V, so every address lies in its
    // buffer; slot and window are used only after they were checked, and records only if they are live.
    unsafe {
        let at = n + lane_zero();
        let (listed, by_slot) = (is_there(&p.pool.slot), has(flags::CURSORS_BY_SLOT));
        let slot = if listed { Index::load_if(true, &p.pool.slot, at, 0) } else { Index::of(at) };
        let reset = Flag::load(&p.pool.reset, at);
        let force = Flag::load(&p.force, at);
        let mut asked = None;
        if !by_slot {
            asked = Some(Asked::new(&p.cursors, at));
        }

        let shared = shared::block::<Room<G, T, K, R, THREADS, TOKENS>>();
        let block = Block::<S, T, G, K>::new(&p.inputs, &p.gate, &p.layer, &work);
        let tokens = Tokens::<S, L, T, G, K, R>::new(&block, shared, thread, is_draft);
        let loads = tokens.load(first, count);
        let is_product = const { products::apply::<S, T>(G::PER_KEY, K, R, TOKENS) };
        let by_row = !is_product;
        let values = if is_draft & by_row { tokens.load_values(first, count) } else { [0; CHUNK as usize] };
        let value = block.load_v(!is_draft & by_row, first, work.row);
        let columns = match is_product {
            true => Columns::<PRODUCTS>::ask::<S, T, K>(&p.inputs, &work, p.layer.v, first, count),
            false => Columns::ZEROS,
        };
        let later = later(n, p.pool.ahead, p.n);
        let later_slot = Index::load_if(listed & later.is_some(), &p.pool.slot, later.unwrap_or(n) + lane_zero(), 0);
        let ancestors = if is_draft { Ancestors::ask(p, n, count) } else { Ancestors { parent: Index::NONE } };

        let [slot, reset, force] =
            [slot.get() as u32, reset.bits(), force.bits()].map(|bits| warp::reduce_or(bits));
        let null_slot = if listed { p.pool.null_slot } else { -1 };
        let mut is_real = names_slot(slot as i32, p.pool.slots, null_slot);
        let fresh = is_there(&p.pool.reset) && (reset != 0) != has(flags::RESET_INVERTED);
        if by_slot {
            asked = Some(Asked::new(&p.cursors, if is_real { slot } else { 0 } + lane_zero()));
        }
        let window = match asked {
            Some(asked) if !fresh => asked.get(),
            _ => Window::EMPTY,
        };
        is_real &= window.is_sound(p.rings.records, if is_draft { count } else { 0 });
        if !is_real {
            let mut t = 0;
            while t < count {
                out.store::<T>(first + t, work.row, 0.0);
                t += 1;
            }
            return;
        }
        let folds = fresh | (force != 0) | (window.len + count > p.most);
        let appends = is_draft | !folds;

        let ring = Ring::<G, T, K>::new(&p.rings, &p.layer, p.inputs.eps, slot, work.heads, window);
        let block_rows = Tile::<S, L, K, R>::block_rows(thread::block_dim_x());
        let row_of_block = work.place.team() * Tile::<S, L, K, R>::TEAM_ROWS;
        let first_row = work.first_row - row_of_block;
        let log_decay = ring.ask::<R, THREADS, TOKENS>(shared, first_row, block_rows);
        let in_slot = match is_product {
            true => work.tile_offset::<S, L, K>(&p.layer),
            false => work.state_offset::<S, L, K>(&p.layer),
        };
        let state_at = slot_at::<S>(p.pool.state, slot, p.pool.pitch) + in_slot;
        let mut state = match is_product {
            true => products::load_if::<S>(!fresh, state_at, K),
            false => Tile::<S, L, K, R>::load_if(!fresh, state_at, p.layer.v, work.place),
        };

        if is_draft & by_row {
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
        let ancestors = if is_draft { ancestors.get() } else { 1.0 };
        let step = Step::<L, G, S, T, K, R, THREADS, TOKENS> { tokens: &tokens, shared, count, ancestors, types: PhantomData };
        step.coefficients(&ring, &work, behind);
        thread::sync_threads();

        if let Some(later) = later {
            let slot = if listed { later_slot } else { Index::of(later) }.get() as u32;
            prefetch::<L, S, K, R>(&p.pool, &p.layer, &work, warp::reduce_or(slot) as i32);
        }
        let whole = Ring::<G, T, K>::whole::<R, THREADS, TOKENS>(shared, all, work.place.lane, S::VECTOR);
        let out = Output { stores: is_product | out.stores, ..out };
        let rows = Rows { p, work: &work, out, first, appends, first_row, row_of_block };
        let correction = match is_product {
            true => step.products(&rows, &ring, &mut state, &columns, whole),
            false => [step.rows(&rows, &ring, state, whole, value); 2],
        };
        if folds & (!is_draft | fresh | (window.len > 0)) {
            // A decode folds with its token.
            let behind = if is_draft { G::Decay::NONE } else { tokens.decay(0) };
            let whole = whole.and(behind);
            match is_product {
                true => step.fold_products(&rows, &state, state_at, window.len, whole.on_sum(), correction),
                false => {
                    let mut tile = Tile::<S, L, K, R>::unpack_anew(state);
                    tile.scale(whole);
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
                        let along = correction[0] * keys.factors.k;
                        tile.add(|r| Tile::<S, L, K, R>::of_row(along, r), &keys.k);
                    }
                    tile.store(state_at, p.layer.v, work.place);
                }
            }
        }
        if appends & is_first && owns_key_head(p, &work) {
            let vectors = Room::<G, T, K, R, THREADS, TOKENS>::KEY_BYTES / 16;
            let head = (work.heads.key * K) as u64;
            let mut i = thread::thread_idx_x();
            while i < count * vectors {
                let (t, x) = (i / vectors, 16 * (i % vectors) as u64);
                let from = p.inputs.k + (wide(first + t, p.inputs.k_stride) + head) * T::SIZE;
                memory::store_u32x4(ring.key(window.len + t) + x, memory::load_u32x4(from + x));
                i += thread::block_dim_x();
            }
        }
    }
}

/// Which rows of which sequence a block takes through its tokens, and what it leaves of them.
struct Rows<'a> {
    p: &'a ReplayParams,
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

/// Whether the value head is the first of its key head.
#[inline(always)]
fn owns_key_head(p: &ReplayParams, work: &Work) -> bool {
    let layer = &p.layer;
    if layer.flags & flags::HEADS_TILED != 0 {
        return work.heads.value == work.heads.key;
    }
    work.heads.value == 0 || crate::token::divide(work.heads.value - 1, layer.head_reciprocal) != work.heads.key
}

/// The drafts that each draft follows, as bits, a lane for each: asked for.
struct Ancestors {
    parent: Index,
}

impl Ancestors {
    /// Asks for the lane's draft's parent.
    ///
    /// # Safety
    /// `n` lies in the table, if there is one.
    #[inline(always)]
    unsafe fn ask(p: &ReplayParams, n: u32, count: u32) -> Ancestors {
        let lane = thread::thread_idx_x() % 32;
        let is_tree = is_there(&p.parent);
        let chain = Index::of(lane.wrapping_sub(1));
        // SAFETY: the caller's promise.
        let listed = unsafe { Index::load_if(is_tree & (lane < count), &p.parent, n, lane) };
        Ancestors { parent: if is_tree { listed } else { chain } }
    }

    /// The bits of the lane's draft: itself and those in front of it. The warp calls it together.
    #[inline(always)]
    fn get(self) -> f32 {
        let lane = thread::thread_idx_x() % 32;
        let parent = self.parent.get() as u32;
        let has_parent = parent < lane;
        let mut bits = f32::from_bits(1 << lane);
        let mut depth = 1;
        while depth < MOST_DRAFTS {
            // SAFETY: the warp is together.
            let of_parent = unsafe { warp::broadcast(bits, if has_parent { parent } else { lane }, 32) };
            bits = f32::from_bits(bits.to_bits() | of_parent.to_bits());
            depth += 1;
        }
        bits
    }
}

/// A sequence's tokens against its records and each other.
struct Step<'a, L, G, S, T, const K: u32, const R: usize, const THREADS: u32, const TOKENS: usize> {
    tokens: &'a Tokens<'a, S, L, T, G, K, R>,
    /// The block's room.
    shared: u32,
    /// Tokens.
    count: u32,
    /// See [`Ancestors::get`].
    ancestors: f32,
    types: PhantomData<(L, G, S, T)>,
}

impl<
    L: Layout,
    G: Gate,
    S: Element,
    T: Element,
    const K: u32,
    const R: usize,
    const THREADS: u32,
    const TOKENS: usize,
> Step<'_, L, G, S, T, K, R, THREADS, TOKENS>
{
    /// The drafts that token `t` follows, and itself, as bits. The warp calls it together, with one `t` or, a lane, its own.
    #[inline(always)]
    fn ancestors(&self, t: u32) -> u32 {
        // SAFETY: the warp is together.
        if TOKENS == 1 { 1 } else { unsafe { warp::broadcast(self.ancestors, t, 32) }.to_bits() }
    }

    /// The decay on the way to token `t`, of those in front of it from draft `from` on, and its own. The warp calls it together,
    /// each lane group with what it likes.
    ///
    /// # Safety
    /// The tokens were prepared, and a barrier passed since.
    #[inline(always)]
    unsafe fn path(&self, t: u32, from: u32) -> G::Decay {
        // SAFETY: the caller's promise.
        unsafe {
            if TOKENS == 1 {
                return self.tokens.decay(0);
            }
            let ancestors = self.ancestors(t);
            let (mut decay, mut u) = (G::Decay::NONE, 0);
            while u < self.count {
                if u >= from && ancestors >> u & 1 != 0 {
                    decay = decay.and(self.tokens.decay(u));
                }
                u += 1;
            }
            decay
        }
    }

    /// What record `j` and draft `s` count in each token's sums, and by what a record's correction is multiplied in a fold.
    ///
    /// # Safety
    /// As for [`Self::path`], and what [`Ring::each`] asks for.
    #[inline(always)]
    unsafe fn coefficients(&self, ring: &Ring<G, T, K>, work: &Work, behind: f32) {
        let place = work.place;
        let store = |is_there: bool, t: u32, j: u32, values: [f32; 2]| {
            if is_there && place.lane == 0 {
                let at = Room::<G, T, K, R, THREADS, TOKENS>::coefficients(self.shared, t, j);
                // SAFETY: the caller's promise.
                unsafe { shared::store_f32x2(at, values) };
            }
        };
        // SAFETY: the caller's promise.
        unsafe {
            ring.each::<R, THREADS, TOKENS>(self.shared, behind, place, S::VECTOR, |is_there, j, key, factor| {
                let mut t = 0;
                while t < self.count {
                    let (keys, decay) = (self.tokens.keys(t), self.path(t, 0));
                    let factor = factor * decay.on_sum();
                    let [k, q] = [keys.k, keys.q].map(|x| reduce::<K>(dot(&key, &decay.on_key(&x))));
                    store(is_there, t, j, [k * (factor * keys.factors.k), q * (factor * keys.factors.q)]);
                    t += 1;
                }
                // A fold with the token decays what is in front of it.
                let decay = if TOKENS == 1 { self.tokens.decay(0).on_sum() } else { 1.0 };
                if is_there && place.lane == 0 {
                    let at = Room::<G, T, K, R, THREADS, TOKENS>::factor(self.shared, j);
                    shared::store_f32(at, factor * decay);
                }
            });
            if TOKENS == 1 {
                return;
            }
            // Pairs of a draft and one in front of it, a lane group each.
            let (pairs, mut pair) = (self.count * MOST_DRAFTS, place.team() * groups(K));
            while pair < pairs {
                let mine = pair + place.group();
                let (t, s) = (mine / MOST_DRAFTS, mine % MOST_DRAFTS);
                let (t, s) = if mine < pairs && s < t { (t, s) } else { (0, 0) };
                let ancestors = self.ancestors(t);
                let is_pair = s < t && ancestors >> s & 1 != 0;
                let (before, keys) = (self.tokens.keys(s), self.tokens.keys(t));
                let decay = self.path(t, s + 1);
                let factor = before.factors.k * decay.on_sum();
                let [k, q] = [keys.k, keys.q].map(|x| reduce::<K>(dot(&before.k, &decay.on_key(&x))));
                let draft = Room::<G, T, K, R, THREADS, TOKENS>::draft(s);
                store(is_pair, t, draft, [k * (factor * keys.factors.k), q * (factor * keys.factors.q)]);
                pair += thread::block_dim_x() / 32 * groups(K);
            }
        }
    }

    /// Takes the lanes' rows through the tokens; gives the last token's correction of the row that the lane carries. `value` is
    /// that row's of a single token.
    ///
    /// # Safety
    /// Coefficients and corrections are there, and a barrier passed since.
    #[inline(always)]
    unsafe fn rows(&self, rows: &Rows, ring: &Ring<G, T, K>, state: Raw, whole: G::Decay, value: u32) -> f32 {
        let is_draft = TOKENS > 1;
        let (work, len) = (rows.work, ring.window.len);
        let row = rows.row_of_block + Tile::<S, L, K, R>::carried(work.place);
        let (mut correction, mut t) = (0.0, 0);
        // SAFETY: the caller's promise.
        unsafe {
            while t < self.count {
                t = if is_draft { compiler::opaque(t) } else { 0 };
                let token = self.tokens.get(rows.first + t, t);
                let decay = whole.and(self.path(t, 0));
                // The records are there before the state is.
                let [rk, rq] = self.records(t, len, row);
                let v = if is_draft { self.tokens.value(t) } else { T::widen(value) };
                let [hk, hq] = Tile::<S, L, K, R>::unpack(state).sums(&token.keys, decay, work.place);
                let (factors, whole) = (token.keys.factors, decay.on_sum());
                let hk = float::fma(hk, whole * factors.k, rk);
                let hq = float::fma(hq, whole * factors.q, rq);
                let delta = token.beta * (v - hk);
                rows.out.store::<T>(rows.first + t, work.row, float::fma(delta, factors.kq, hq));
                if rows.out.stores {
                    if rows.appends {
                        let at = ring.correction(len + t, rows.first_row + row);
                        memory::store_u32(at, delta.to_bits());
                    }
                    if is_draft {
                        let draft = Room::<G, T, K, R, THREADS, TOKENS>::draft(t);
                        let at = Room::<G, T, K, R, THREADS, TOKENS>::correction(self.shared, draft, row);
                        shared::store_f32(at, delta);
                    }
                }
                if is_draft {
                    warp::sync_warp();
                }
                correction = delta;
                t += 1;
            }
        }
        correction
    }

    /// What a row's records, and the drafts in front of token `t`, count in its sums. The warp calls it together.
    ///
    /// # Safety
    /// Coefficients and corrections are there, and a barrier passed since.
    #[inline(always)]
    unsafe fn records(&self, t: u32, len: u32, row: u32) -> [f32; 2] {
        let add = |[hk, hq]: [f32; 2], j: u32| {
            // SAFETY: the caller's promise.
            let ([k, q], correction) = unsafe {
                (
                    shared::load_f32x2(Room::<G, T, K, R, THREADS, TOKENS>::coefficients(self.shared, t, j)),
                    shared::load_f32(Room::<G, T, K, R, THREADS, TOKENS>::correction(self.shared, j, row)),
                )
            };
            [float::fma(k, correction, hk), float::fma(q, correction, hq)]
        };
        let (mut sums, mut j) = ([0.0; 2], 0);
        while j < len {
            sums = add(sums, j);
            j += 1;
        }
        if TOKENS > 1 {
            let (ancestors, mut s) = (self.ancestors(t), 0);
            while s < t {
                if ancestors >> s & 1 != 0 {
                    sums = add(sums, Room::<G, T, K, R, THREADS, TOKENS>::draft(s));
                }
                s += 1;
            }
        }
        sums
    }
}
