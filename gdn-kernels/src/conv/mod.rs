//! Conv1d update: the causal depthwise convolution in front of the recurrence, for the tokens of a step.
//!
//! A channel's output is a sum over its last W inputs, the newest being the token itself; what reaches back behind the
//! call's first token comes from the sequence's conv state, its *window*, which then moves on by the call's tokens.
//! This is `causal_conv1d_update` of SGLang, vLLM and Dao's package, with their additions for drafts: a window after each
//! token in a buffer (SGLang) or in a slot of its own, a window that begins where the last draft's accepted tokens end
//! (vLLM), and tokens that see their ancestors in a tree instead of their predecessors.
//!
//! # Threads
//!
//! A thread owns a [`Strip`] of channels of one sequence, for all its tokens: what it reads it alone writes, so an output
//! may be the input's memory, and T tokens give the bits of T calls. Its window stays in registers from token to token.
//! Block x counts strips; y and z together count sequences. Rows behind the last sequence's are nobody's: the threads of
//! all sequences share them, and write zeros.
//!
//! # Order of loads
//!
//! The longest chain is slot index -> window -> output. The slot index is asked for first; inputs and weights need no
//! index and are in flight behind it, the next token's inputs while a token is computed.
//!
//! # Numerics
//!
//! Bias first, then the taps from the oldest to the newest, in f32. Triton kernels with 16-bit weights round each
//! product to the type of the inputs before they add it (they multiply in that type): `ROUND_PRODUCTS` does so.

mod drafts;
pub(crate) mod filter;
mod state;
pub(crate) mod strip;

use crate::abi::{Conv1dParams, flags};
use crate::arch::{compiler, thread};
use crate::element::Element;
use crate::entry::Index;
use crate::token::{sequence, take_turn, tokens_end, tokens_of, wide};
use core::marker::PhantomData;
use drafts::Drafts;
use filter::{Filter, Weights};
use state::{Entries, Shift, Source, State, is_slot};
use strip::{
    Access, ByChannel, ByTap, CHANNELS, Recent, Single, Strip, TAPS, Vectors, WindowLayout, ZEROS, widened,
};

/// A strip of a call's tokens: where its inputs and outputs are.
struct Tokens<'a, T, A> {
    p: &'a Conv1dParams,
    /// The strip's first channel.
    channel: u32,
    /// The sequence's first token.
    begin: u32,
    types: PhantomData<(T, A)>,
}

impl<T: Element, A: Access> Tokens<'_, T, A> {
    /// Issues the load of the sequence's token `t`.
    ///
    /// # Safety
    /// The token is one of the sequence's.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    unsafe fn load(&self, t: u32) -> Strip {
        let at = wide(self.begin + t, self.p.x_stride) + self.channel as u64;
        // SAFETY: the caller's promise.
        unsafe { A::load::<T>(self.p.x + at * T::SIZE) }
    }

    /// Stores the output of row `row` of the call.
    ///
    /// # Safety
    /// The row is one of the call's.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    unsafe fn store(&self, row: u32, strip: Strip) {
        let at = wide(row, self.p.out_stride) + self.channel as u64;
        // SAFETY: the caller's promise.
        unsafe { A::store::<T>(self.p.out + at * T::SIZE, strip) }
    }

    /// Zeros for every `step`th row of `rows`.
    ///
    /// # Safety
    /// The rows are the call's, and this strip's thread alone writes them.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    unsafe fn clear(&self, rows: core::ops::Range<u32>, step: u32) {
        let mut row = rows.start;
        while row < rows.end {
            // SAFETY: the caller's promise.
            unsafe { self.store(row, ZEROS) };
            row = row.saturating_add(step);
        }
    }

    /// The taps of token `t` of sequence `n`, a tree: its input `x`, its ancestors, and behind the oldest what is in front
    /// of the sequence.
    ///
    /// # Safety
    /// The table of parents has an entry for each token of the sequence.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    unsafe fn path<S: Element>(&self, n: u32, t: u32, x: Strip, before: &Recent) -> Recent {
        let mut taps = [ZEROS, ZEROS, ZEROS, x];
        let (mut node, mut behind) = (t, *before);
        let mut i = TAPS - 1;
        while i > 0 {
            i -= 1;
            // SAFETY: nodes are tokens of the sequence: a parent is used only where it comes before its child.
            unsafe {
                let parent = Index::load_if(node > 0, &self.p.intermediate.parent, n, node).get() as u32;
                if parent < node {
                    taps[i] = widened::<S, T>(self.load(parent));
                    node = parent;
                } else {
                    taps[i] = behind[TAPS - 1];
                    behind = [ZEROS, ZEROS, behind[1], behind[2]];
                    // From here on the window: token 0 has no parent.
                    node = 0;
                }
            }
        }
        taps
    }
}

/// The kernel body; `S` is the type of the conv state, `T` that of x and out.
///
/// # Safety
/// `p` describes buffers as its documentation says, and the launch is shaped as it says.
#[cfg_attr(target_arch = "nvptx64", inline(always))]
pub(crate) unsafe fn conv1d_update<S: Element, T: Element>(p: &Conv1dParams) {
    take_turn();
    let in_vectors = p.flags & flags::VECTORS != 0;
    let strip = thread::block_idx_x() * thread::block_dim_x() + thread::thread_idx_x();
    let channel = strip * if in_vectors { CHANNELS as u32 } else { 1 };
    let n = sequence();
    if n >= p.n || channel >= p.dim {
        return;
    }
    // SAFETY: the caller's promise.
    unsafe {
        if !in_vectors {
            update::<S, T, ByTap<Single>>(p, n, channel);
        } else if p.channel_stride == 1 {
            update::<S, T, ByTap<Vectors>>(p, n, channel);
        } else if p.channel_stride == 3 {
            update::<S, T, ByChannel<3>>(p, n, channel);
        } else {
            update::<S, T, ByChannel<4>>(p, n, channel);
        }
    }
}

/// Takes a strip of a sequence through the sequence's tokens.
///
/// # Safety
/// As for [`conv1d_update`]; sequence and channel are there, and memory is aligned as the layout's access demands.
#[cfg_attr(target_arch = "nvptx64", inline(always))]
unsafe fn update<S: Element, T: Element, L: WindowLayout>(p: &Conv1dParams, n: u32, channel: u32) {
    let missing = if L::Access::VECTORS { 0 } else { TAPS as u32 - p.width };
    // SAFETY: n < N, the strip's channels < dim and the tokens below those of the call, so every address lies in its
    // buffer; slots, rows, counts and parents are used only after they were checked.
    unsafe {
        let (begin, len) = tokens_of(&p.cu_seqlens, p.tokens, n);
        let tokens = Tokens::<T, L::Access> { p, channel, begin, types: PhantomData };
        if p.cu_seqlens.is_there() {
            let end = tokens_end(&p.cu_seqlens, p.tokens, p.n);
            tokens.clear(end.saturating_add(n)..p.tokens, p.n);
        }
        if len == 0 {
            return;
        }
        let entries = Entries::load(p, n);
        let first = tokens.load(0);
        let weights = Weights::load::<L::Access>(p, channel, missing);
        let shift = Shift::new(p, entries.accepted(), len);
        if !is_slot(p, entries.slot(), p.pool.slot.is_there()) || !shift.is_sound {
            tokens.clear(begin..begin + len, 1);
            return;
        }
        let source = Source::<S, L>::new(p, &entries, channel, shift);
        let loaded = source.load();
        let state = State::new(p, n, &entries, channel, source);
        let filter = Filter::new::<L::Access>(p, channel, weights, missing);
        let drafts = Drafts::new::<S, T>(p, n, channel);
        let before = L::entries::<S>(loaded);
        state.keep(len, &before);
        let sequence = Sequence { tokens, n, len, filter, state, drafts };
        let last = match p.intermediate.parent.is_there() {
            false => sequence.chain(first, before),
            true => sequence.tree(&before),
        };
        sequence.state.store(&last);
    }
}

/// A strip of a sequence that is not padding.
struct Sequence<'a, S, T, L: WindowLayout> {
    tokens: Tokens<'a, T, L::Access>,
    n: u32,
    len: u32,
    filter: Filter<'a>,
    state: State<'a, S, L>,
    drafts: Drafts<'a>,
}

impl<S: Element, T: Element, L: WindowLayout> Sequence<'_, S, T, L> {
    /// Computes a token from its taps, and stores what is to be stored of it.
    ///
    /// # Safety
    /// The token is one of the sequence's; nothing reads its input any more if the output takes its place.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    unsafe fn step(&self, t: u32, taps: &Recent) {
        // SAFETY: the caller's promise.
        unsafe {
            self.tokens.store(self.tokens.begin + t, self.filter.apply::<S, T, L::Access>(taps));
            self.drafts.store::<S, T, L::Access>(t, taps);
            self.state.store_token(t, taps);
            self.state.push(t, self.len, taps[TAPS - 1]);
        }
    }

    /// Tokens that follow each other, `first` being the input of the first and `before` what is in front of it; returns the
    /// last inputs.
    ///
    /// # Safety
    /// As for [`update`].
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    unsafe fn chain(&self, first: Strip, before: Recent) -> Recent {
        let (mut t, mut next, mut recent) = (0, first, before);
        while t < self.len {
            t = compiler::opaque(t);
            recent = [recent[1], recent[2], recent[3], widened::<S, T>(next)];
            // SAFETY: t and t + 1 are tokens of the sequence.
            unsafe {
                if t + 1 < self.len {
                    next = self.tokens.load(t + 1);
                }
                self.step(t, &recent);
            }
            t += 1;
        }
        recent
    }

    /// Tokens that follow their parents, all from what is in front of the sequence; returns the last inputs in the order of
    /// storage.
    ///
    /// # Safety
    /// As for [`update`]; the table of parents has an entry for each token.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    unsafe fn tree(&self, before: &Recent) -> Recent {
        let mut t = 0;
        while t < self.len {
            t = compiler::opaque(t);
            // SAFETY: t is a token of the sequence, and outputs do not take the place of inputs in a tree.
            unsafe {
                let x = widened::<S, T>(self.tokens.load(t));
                self.step(t, &self.tokens.path::<S>(self.n, t, x, before));
            }
            t += 1;
        }
        let mut recent = *before;
        let mut t = self.len.saturating_sub(TAPS as u32);
        while t < self.len {
            // SAFETY: as above.
            let x = widened::<S, T>(unsafe { self.tokens.load(t) });
            recent = [recent[1], recent[2], recent[3], x];
            t += 1;
        }
        recent
    }
}
