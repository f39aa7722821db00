//! Decays of each key, a lane a column of K: those of tokens from their inputs, and those that add up behind records.

use super::Drafts;
use super::coefficients::path;
use super::fragment::AT_ONCE;
use super::room::QUARTERS;
use crate::abi::ReplayParams;
use crate::arch::{shared, thread, warp};
use crate::element::Element;
use crate::gate::{DecayInputs, Gate, Heads};
use crate::math::exp;
use crate::replay::ring::decay_each;
use crate::token::wide;

/// What the decays of a key are made of, of four tokens.
pub(super) struct Column {
    column: u32,
    from: u32,
    inputs: [DecayInputs; AT_ONCE as usize],
}

impl Column {
    /// Asks for those of token `from` and the next ones; of the last one instead of one that is not there.
    ///
    /// # Safety
    /// The tokens from `first` on lie in the gate's tensors, and so does the head.
    #[inline(always)]
    pub(super) unsafe fn ask<G: Gate, const K: u32>(
        p: &ReplayParams,
        heads: Heads,
        first: u32,
        column: u32,
        from: u32,
    ) -> Column {
        let (gate, options, last) = (&p.gate, p.layer.flags, p.tokens - 1);
        let row = |t: u32| wide(first + if t < last { t } else { last }, gate.a_stride);
        // SAFETY: the caller's promise.
        unsafe {
            let of_first = DecayInputs::load::<G>(gate, options, row(from), heads, column, K);
            let inputs = core::array::from_fn(|i| match i {
                0 => of_first,
                _ => of_first.of_row::<G>(gate, options, row(from + i as u32), heads, column, K),
            });
            Column { column, from, inputs }
        }
    }
}

impl<G: Gate, S: Element, T: Element, const K: u32, const R: usize, const THREADS: u32>
    Drafts<'_, G, S, T, K, R, THREADS>
{
    /// Begins to copy the live records' log decays.
    ///
    /// # Safety
    /// The ring is there, and its live records are.
    #[inline(always)]
    pub(super) unsafe fn copy_log_decays(&self) {
        let (mut j, i) = (thread::thread_idx_x() / (K / 4), thread::thread_idx_x() % (K / 4) * 4);
        while j < self.window.len {
            // SAFETY: the caller's promise.
            unsafe { shared::begin_copy(self.room.decays(j) + 4 * i, self.ring().log_decay(j, i)) };
            j += thread::block_dim_x() / (K / 4);
        }
    }

    /// Leaves the tokens' decays, behind those of the records, and their log decays in the ring. `asked` is the thread's first column.
    ///
    /// # Safety
    /// As for [`Column::ask`]; the ring has room for the tokens.
    #[inline(always)]
    pub(super) unsafe fn decays_of_tokens(&self, mut asked: Column) {
        const { assert!(THREADS <= K) };
        let p = self.p;
        loop {
            let Column { column, from, inputs } = asked;
            let (log_decays, mut i) = (DecayInputs::log_decays(inputs, &p.gate, p.layer.flags), 0);
            while i < AT_ONCE {
                let (t, log_decay) = (from + i, log_decays[i as usize]);
                if t < p.tokens {
                    // SAFETY: the caller's promise.
                    unsafe {
                        self.keep_log_decay(t, column, log_decay);
                        shared::store_f32(self.room.decays(self.window.len + t) + 4 * column, exp(log_decay));
                    }
                }
                i += 1;
            }
            let is_last = from + AT_ONCE >= p.tokens;
            let (column, from) =
                if is_last { (column + thread::block_dim_x(), 0) } else { (column, from + AT_ONCE) };
            if column >= K {
                return;
            }
            // SAFETY: the caller's promise.
            asked = unsafe { Column::ask::<G, K>(p, self.work.heads, self.work.n * p.tokens, column, from) };
        }
    }

    /// The decays behind each record and of all of them, and on the ways to the tokens, of the lane's column of a quarter.
    ///
    /// # Safety
    /// As for [`Self::decay`].
    #[inline(always)]
    pub(super) unsafe fn decay_column<const B: usize>(&self, quarter: u32, ancestors: f32) {
        let lane = thread::thread_idx_x() % 32;
        let (len, column) = (self.window.len, K / QUARTERS * quarter + lane);
        let at = |j: u32| self.room.decays(j) + 4 * column;
        // SAFETY: the caller's promise.
        unsafe {
            shared::store_f32(self.room.whole() + 4 * column, decay_each(len, at));
            let last = self.p.tokens - 1;
            let decays: [[f32; AT_ONCE as usize]; B] = core::array::from_fn(|b| {
                core::array::from_fn(|i| {
                    let t = AT_ONCE * b as u32 + i as u32;
                    shared::load_f32(at(len + if t < last { t } else { last }))
                })
            });
            let mut t = 0;
            while t < AT_ONCE * B as u32 {
                if t < self.p.tokens {
                    let ancestors = warp::broadcast(ancestors, t, 32).to_bits();
                    shared::store_f32(self.room.way(quarter, t) + 4 * lane, path(&decays, ancestors, 0, t));
                }
                t += 1;
            }
        }
    }
}
