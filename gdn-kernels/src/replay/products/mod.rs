//! Drafts whose sums are products of matrices, on tensor cores, without loss.
//!
//! A warp multiplies rows of the state by up to four tokens at once, eight columns: k and q of the first, of the second and so
//! on, as they came in. Of 16 bits they are exact operands, and so is a state of the same type; the norms are factors on the
//! sums. A state in f32 is the sum of three parts in bf16: three products instead of one. One token costs what four cost, so a
//! single one is left to multiply-adds. Keys of records and of drafts are multiplied by the same columns, and where records are
//! folded, corrections by keys ([`mod@fold`]).
//!
//! A block goes through this once, whatever its warps' rows:
//!
//! ```text
//! entries of the tables                                every warp
//! tokens, records, state asked for                     every warp its share
//! decays and betas                                     the last warp, a lane each
//! ---- barrier
//! tokens by tokens, records by tokens                  a warp each: coefficients, factors
//! ---- barrier
//! rows by tokens, records' share, token after token    every warp its rows
//! ```
//!
//! With a decay for each key decays are in the operands, which are f32 then and sums of parts in bf16 as well ([`mod@by_key`]).
//! That takes a phase and a barrier more:
//!
//! ```text
//! decays of tokens                                     a thread a column of K, in front of the first barrier
//! ---- barrier
//! decays of records, operands, records by tokens       a warp a quarter of K
//! ---- barrier
//! tokens by tokens                                     the first warp
//! the quarters' sums, drafts by tokens                 every warp its share
//! ```

mod by_key;
mod coefficients;
mod decays;
mod fold;
mod fragment;
mod room;
mod rows;

pub(crate) use room::RoomOfProducts;

use super::begin::{Entries, Later, Sequence};
use super::ring::{Ring, Window};
use super::step::Ancestors;
use crate::abi::{DType, ReplayParams, flags};
use crate::arch::{compiler, memory, shared, thread};
use crate::element::Element;
use crate::gate::{self, DecayInputs, Gate};
use crate::layout::Layout;
use crate::math::exp;
use crate::token::{Output, Work, take_turn, wide};
use core::marker::PhantomData;
use decays::Column;
use fold::folds_with_products;
use fragment::{HELD, MOST_UNITS, Pairs, lane, lane_rows, team_rows};
use rows::Values;

/// A sequence's drafts, and the block that takes some rows of a head's state through them.
struct Drafts<'a, G, S, T, const K: u32, const R: usize, const THREADS: u32> {
    p: &'a ReplayParams,
    room: RoomOfProducts<G, K, R, THREADS>,
    slot: u32,
    window: Window,
    work: Work,
    types: PhantomData<(G, S, T)>,
}

/// Drafts of each sequence, as products.
///
/// # Safety
/// As for [`super::decode`].
#[inline(always)]
pub(crate) unsafe fn products<
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
    const {
        let is_bf16 = T::DTYPE as u32 == DType::Bf16 as u32;
        let is_same = S::VECTOR == 8 && S::DTYPE as u32 == T::DTYPE as u32;
        assert!(K == 128 && (is_same || S::VECTOR == 4 && is_bf16));
        assert!(!G::PER_KEY || is_bf16, "operands with decays are parts in bf16");
    };
    take_turn();
    let work = work::<R>(p);
    let (n, count) = (work.n, p.tokens);
    if n >= p.n {
        return;
    }
    let (thread, threads) = (thread::thread_idx_x(), thread::block_dim_x());
    let first = n * count;

    // SAFETY: n < N, the tokens are below those of the call, head < HV and the block's rows < V, so every address lies in its
    // buffer; slot and window are used only after they were checked, and records only if they are live.
    unsafe {
        let entries = Entries::ask(p, n);
        let room = RoomOfProducts::<G, K, R, THREADS>::new(shared::block::<RoomOfProducts<G, K, R, THREADS>>());
        // From the last thread on: the first warps multiply.
        let t = threads - 1 - thread;
        let gate = (t < count).then(|| {
            let (gate, head) = (&p.gate, work.heads.value as u64);
            let (row, beta_row) = (wide(first + t, gate.a_stride), wide(first + t, gate.b_stride));
            let decay = match G::PER_KEY {
                true => None,
                false => Some(DecayInputs::load::<G>(gate, p.layer.flags, row, work.heads, 0, K)),
            };
            (decay, gate::load_beta(gate, beta_row + head))
        });
        let of_column = if G::PER_KEY { Some(Column::ask::<G, K>(p, work.heads, first, thread, 0)) } else { None };
        let ancestors = Ancestors::ask(p, n, count);
        let later = Later::ask(p, n);
        copy_tokens::<G, T, K, R, THREADS>(p, &room, &work, first);
        let Some(Sequence { slot, window, fresh, folds }) = entries.get(p, count, true) else {
            let is_f32 = p.layer.flags & flags::OUT_F32 != 0;
            let out = Output { out: p.out, stride: p.out_stride, is_f32, stores: true };
            let head = work.heads.value * p.layer.v + first_row::<R>(&work);
            let mut t = 0;
            while t < count {
                let mut row = thread;
                while row < threads / 32 * team_rows(R) {
                    out.store::<T>(first + t, head + row, 0.0);
                    row += threads;
                }
                t += 1;
            }
            return;
        };
        let drafts = Drafts::<G, S, T, K, R, THREADS> { p, room, slot, window, work, types: PhantomData };
        let log_decay = drafts.copy_records();
        let mut pairs = fragment::ZEROS;
        if !fresh {
            let at = drafts.state_at();
            if !G::PER_KEY {
                pairs = fragment::load::<S, K>(at, 0);
            }
            fragment::prefetch::<S, K, R>(at, if G::PER_KEY { 0 } else { HELD });
        }
        if let Some((decay, beta)) = gate {
            let decay = match decay {
                Some(decay) => {
                    let log_decay = decay.log_decay(&p.gate, p.layer.flags);
                    drafts.keep_log_decay(t, 0, log_decay);
                    exp(log_decay)
                }
                None => 1.0,
            };
            // With a beta per row of V this one is not used.
            let beta = gate::beta(&p.gate, p.layer.flags, beta);
            shared::store_f32x2(drafts.room.gate(t), [decay, beta]);
        }
        if let Some(column) = of_column {
            drafts.decays_of_tokens(column);
        }
        shared::wait_copies();
        thread::sync_threads();
        later.prefetch::<L, S, K, R>(p, &drafts.work);
        let folds = fresh | folds & (window.len > 0);
        match count <= fragment::AT_ONCE {
            true => drafts.anew().take::<1>(ancestors, log_decay, pairs, fresh, folds),
            false => drafts.anew().take::<2>(ancestors, log_decay, pairs, fresh, folds),
        }
    }
}

/// The work of a warp, whose tile has height `R`; every call works it out anew.
#[inline(always)]
fn work<const R: usize>(p: &ReplayParams) -> Work {
    let [thread, block] = [thread::thread_idx_x(), thread::block_idx_x()].map(compiler::opaque);
    Work::of_warp(&p.layer, block, thread, team_rows(R))
}

/// The block's first row of the head.
#[inline(always)]
fn first_row<const R: usize>(work: &Work) -> u32 {
    work.first_row - work.place.team() * team_rows(R)
}

/// Begins to copy the tokens' keys and queries as they came in: half a warp a vector.
///
/// # Safety
/// The tokens lie in the inputs.
#[inline(always)]
unsafe fn copy_tokens<G: Gate, T: Element, const K: u32, const R: usize, const THREADS: u32>(
    p: &ReplayParams,
    room: &RoomOfProducts<G, K, R, THREADS>,
    work: &Work,
    first: u32,
) {
    let inputs = &p.inputs;
    let (vector, x) = (thread::thread_idx_x() / 16, thread::thread_idx_x() % 16);
    let (at, stride) =
        if vector.is_multiple_of(2) { (inputs.k, inputs.k_stride) } else { (inputs.q, inputs.q_stride) };
    let at = at + (work.heads.key * K + 8 * x) as u64 * T::SIZE;
    let mut vector = vector;
    while vector < 2 * p.tokens {
        // SAFETY: the caller's promise.
        unsafe { shared::begin_copy(room.token(vector) + 16 * x, at + wide(first + vector / 2, stride) * T::SIZE) };
        vector += thread::block_dim_x() / 16;
    }
}

impl<G: Gate, S: Element, T: Element, const K: u32, const R: usize, const THREADS: u32>
    Drafts<'_, G, S, T, K, R, THREADS>
{
    /// The same, but nothing that was computed from it is kept for what uses it: registers hold the state.
    #[inline(always)]
    fn anew(&self) -> Self {
        let Window { base, len } = self.window;
        let [slot, base, len] = [self.slot, base, len].map(compiler::opaque);
        let room = RoomOfProducts::new(compiler::opaque(self.room.at()));
        let (p, window) = (self.p, Window { base, len });
        Drafts { p, room, slot, window, work: work::<R>(p), types: PhantomData }
    }

    /// The ring of the slot.
    #[inline(always)]
    fn ring(&self) -> Ring<'_, G, T, K> {
        Ring::new(&self.p.rings, &self.p.layer, self.p.inputs.eps, self.slot, self.work.heads, self.window)
    }

    /// Stores log decay `i` of token `t`, if the block is the first one of its head: it leaves what its rows have in common.
    ///
    /// # Safety
    /// The ring is there, and has room for the tokens.
    #[inline(always)]
    unsafe fn keep_log_decay(&self, t: u32, i: u32, log_decay: f32) {
        if first_row::<R>(&self.work) == 0 {
            // SAFETY: the caller's promise.
            unsafe { memory::store_u32(self.ring().log_decay(self.window.len + t, i), log_decay.to_bits()) };
        }
    }

    /// Where the lane's first vector of the state is.
    #[inline(always)]
    fn state_at(&self) -> u64 {
        let ((g, t), pool) = (lane(), &self.p.pool);
        let row = self.work.heads.value * self.p.layer.v + self.work.first_row + lane_rows(R) * g;
        let in_slot = row as u64 * K as u64 + (t * S::VECTOR as u32) as u64;
        pool.state + (wide(self.slot, pool.pitch) + in_slot) * S::SIZE
    }

    /// Takes the rows through the tokens, of which there are up to `4 * B`. `pairs` is what [`fragment::load`] gave of the first ones.
    /// The block calls it together.
    ///
    /// # Safety
    /// Tokens, records and gates are there, and a barrier passed since; the caller's promise to [`products`].
    #[inline(always)]
    unsafe fn take<const B: usize>(
        &self,
        ancestors: Ancestors,
        log_decay: f32,
        mut pairs: Pairs,
        fresh: bool,
        folds: bool,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            if G::PER_KEY {
                self.decay::<B>(ancestors);
                thread::sync_threads();
                // Decays take the registers until here.
                if !fresh {
                    pairs = fragment::load::<S, K>(self.state_at(), 0);
                }
            }
            self.coefficients::<B>(ancestors, log_decay);
            let (p, work) = (self.p, &self.work);
            let ask = || Values::<B>::ask::<T, R>(&p.inputs, work, p.layer.v, work.n * p.tokens, p.tokens);
            // Parts of eight columns and more leave no registers for values that are on their way.
            let is_late = G::PER_KEY && B > 1;
            let mut values = if is_late { Values::NONE } else { ask() };
            // What is folded with the products waits for the records' coefficients: the state is in registers once.
            let (folds_with, mut of_state) = (folds & folds_with_products::<G, S, B>(), [[[0.0; 4]; MOST_UNITS]; B]);
            if !folds_with {
                of_state = self.of_state::<B, false>(pairs, fresh);
            }
            if is_late {
                values = ask();
            }
            thread::sync_threads();
            let drafts = self.anew();
            if folds_with {
                of_state = drafts.of_state::<B, true>(pairs, fresh);
            }
            drafts.token_by_token(drafts.sums(of_state), values);
            if folds & !folds_with {
                drafts.fold_rows(fresh);
            }
            if first_row::<R>(&drafts.work) == 0 {
                drafts.ring().append_keys(&p.inputs, drafts.work.heads, drafts.work.n * p.tokens, p.tokens);
            }
        }
    }

    /// Begins to copy the live records: keys, and corrections of the block's rows. Gives each lane of a warp that multiplies
    /// records the log decay of the record of its number, 0 if there is none.
    ///
    /// # Safety
    /// The ring is there, and its live records are.
    #[inline(always)]
    unsafe fn copy_records(&self) -> f32 {
        let (thread, threads, len) = (thread::thread_idx_x(), thread::block_dim_x(), self.window.len);
        let (ring, first_row) = (self.ring(), first_row::<R>(&self.work));
        // SAFETY: the caller's promise.
        unsafe {
            let log_decay = if self.multiplies_records() {
                let j = thread % 32;
                f32::from_bits(memory::load_u32_if(j < len, ring.log_decay(if j < len { j } else { 0 }, 0)))
            } else {
                0.0
            };
            let (mut j, x) = (thread / 16, thread % 16 * 16);
            while j < len {
                shared::begin_copy(self.room.key(j) + x, ring.key(j) + x as u64);
                j += threads / 16;
            }
            if G::PER_KEY {
                self.copy_log_decays();
            }
            // Rows of a block are a power of two.
            let shift = (threads / 32 * team_rows(R)).trailing_zeros() - 2;
            let (mut j, row) = (thread >> shift, (thread & ((1 << shift) - 1)) * 4);
            while j < len {
                shared::begin_copy(self.room.correction(j, row), ring.correction(j, first_row + row));
                // Vectors of a warp are as many for each record as it has rows in fours.
                j += 4 * 32 / team_rows(R);
            }
            log_decay
        }
    }
}
