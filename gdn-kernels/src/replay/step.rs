//! A sequence's tokens against its records and each other, in multiply-adds.

use super::ring::Ring;
use super::room::Room;
use super::Rows;
use crate::abi::{MOST_DRAFTS, ReplayParams};
use crate::arch::{compiler, float, memory, shared, thread, warp};
use crate::element::Element;
use crate::entry::{Index, is_there};
use crate::gate::Gate;
use crate::keys::{Decay, dot, reduce};
use crate::layout::{Layout, groups};
use crate::prepare::Tokens;
use crate::tile::{Raw, Tile};
use crate::token::Work;
use core::marker::PhantomData;

/// The drafts that each draft follows, as bits, a lane for each: asked for.
#[derive(Clone, Copy)]
pub(super) struct Ancestors {
    pub(super) parent: Index,
}

impl Ancestors {
    /// Asks for the lane's draft's parent.
    ///
    /// # Safety
    /// `n` lies in the table, if there is one.
    #[inline(always)]
    pub(super) unsafe fn ask(p: &ReplayParams, n: u32, count: u32) -> Ancestors {
        let lane = thread::thread_idx_x() % 32;
        let is_tree = is_there(&p.parent);
        let chain = Index::of(lane.wrapping_sub(1));
        // SAFETY: the caller's promise.
        let listed = unsafe { Index::load_if(is_tree & (lane < count), &p.parent, n, lane) };
        Ancestors { parent: if is_tree { listed } else { chain } }
    }

    /// The bits of the lane's draft: itself and those in front of it. The warp calls it together.
    #[inline(always)]
    pub(super) fn get(self, is_tree: bool) -> f32 {
        let lane = thread::thread_idx_x() % 32;
        if !is_tree {
            return f32::from_bits(2u32.wrapping_shl(lane).wrapping_sub(1));
        }
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
pub(super) struct Step<'a, L, G, S, T, const K: u32, const R: usize, const THREADS: u32, const TOKENS: usize> {
    pub(super) tokens: &'a Tokens<'a, S, L, T, G, K, R>,
    /// The block's room.
    pub(super) shared: u32,
    /// Tokens.
    pub(super) count: u32,
    /// See [`Ancestors::get`].
    pub(super) ancestors: f32,
    pub(super) types: PhantomData<(L, G, S, T)>,
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
    pub(super) fn ancestors(&self, t: u32) -> u32 {
        // SAFETY: the warp is together.
        if TOKENS == 1 { 1 } else { unsafe { warp::broadcast(self.ancestors, t, 32) }.to_bits() }
    }

    /// The decay on the way to token `t`, of those in front of it from draft `from` on, and its own. The warp calls it together,
    /// each lane group with what it likes.
    ///
    /// # Safety
    /// The tokens were prepared, and a barrier passed since.
    #[inline(always)]
    pub(super) unsafe fn path(&self, t: u32, from: u32) -> G::Decay {
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
    pub(super) unsafe fn coefficients(&self, ring: &Ring<G, T, K>, work: &Work, behind: f32) {
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
    pub(super) unsafe fn rows(&self, rows: &Rows, ring: &Ring<G, T, K>, state: Raw, whole: G::Decay, value: u32) -> f32 {
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
        let ask = |j: u32| {
            // SAFETY: the caller's promise.
            unsafe {
                (
                    shared::load_f32x2(Room::<G, T, K, R, THREADS, TOKENS>::coefficients(self.shared, t, j)),
                    shared::load_f32(Room::<G, T, K, R, THREADS, TOKENS>::correction(self.shared, j, row)),
                )
            }
        };
        let add = |[hk, hq]: [f32; 2], ([k, q], correction): ([f32; 2], f32)| {
            [float::fma(k, correction, hk), float::fma(q, correction, hq)]
        };
        let mut sums = over_records(len, [0.0; 2], ask, add);
        if TOKENS > 1 {
            let (ancestors, mut s) = (self.ancestors(t), 0);
            while s < t {
                if ancestors >> s & 1 != 0 {
                    sums = add(sums, ask(Room::<G, T, K, R, THREADS, TOKENS>::draft(s)));
                }
                s += 1;
            }
        }
        sums
    }
}

/// Adds up what records count, oldest first. Several are asked for before the first is added.
#[inline(always)]
pub(super) fn over_records<A, X>(len: u32, mut sums: A, ask: impl Fn(u32) -> X, add: impl Fn(A, X) -> A) -> A {
    let mut j = 0;
    while j + 4 <= len {
        // A loop over so few turns is not made a longer one.
        j = compiler::opaque(j);
        let [a, b, c, d] = [ask(j), ask(j + 1), ask(j + 2), ask(j + 3)];
        sums = add(add(add(add(sums, a), b), c), d);
        j += 4;
    }
    while j < len {
        j = compiler::opaque(j);
        sums = add(sums, ask(j));
        j += 1;
    }
    sums
}
