//! Conv1d update: the causal depthwise convolution in front of the recurrence, for the tokens of a step.
//!
//! A channel's output is a sum over its last W inputs, the newest being the token itself; what reaches back behind the
//! call's first token comes from the sequence's conv state, its *window*, which then moves on by the call's tokens.
//! This is `causal_conv1d_update` of SGLang, vLLM and Dao's package, with their three additions for drafts: a window
//! after each token in a buffer (SGLang), a window that begins where the last draft's accepted tokens end (vLLM), and
//! tokens that see their ancestors in a tree instead of their predecessors.
//!
//! # Threads
//!
//! A thread owns a [`Strip`] of channels of one sequence, for all its tokens: what it reads it alone writes, so an output
//! may be the input's memory, and T tokens give the bits of T calls. Its window stays in registers from token to token.
//! Block x counts strips; y and z together count sequences.
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

pub(crate) mod filter;
mod state;
pub(crate) mod strip;

use crate::abi::{Conv1dParams, flags};
use crate::arch::{compiler, thread};
use crate::element::Element;
use crate::entry::Index;
use crate::token::{names_slot, sequence, take_turn, tokens_of, wide};
use core::marker::PhantomData;
use filter::{Filter, Weights};
use state::{Drafts, Entries, Shift, State};
use strip::{Access, ByChannel, ByTap, CHANNELS, Single, Strip, TAPS, Vectors, Window, WindowLayout, ZEROS};

/// A strip of a sequence's tokens: where its inputs and outputs are.
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
    #[inline(always)]
    unsafe fn load(&self, t: u32) -> Strip {
        let at = wide(self.begin + t, self.p.x_stride) + self.channel as u64;
        // SAFETY: the caller's promise.
        unsafe { A::load::<T>(self.p.x + at * T::SIZE) }
    }

    /// Stores the output of token `t`.
    ///
    /// # Safety
    /// The token is one of the sequence's.
    #[inline(always)]
    unsafe fn store(&self, t: u32, strip: Strip) {
        let at = wide(self.begin + t, self.p.out_stride) + self.channel as u64;
        // SAFETY: the caller's promise.
        unsafe { A::store::<T>(self.p.out + at * T::SIZE, strip) }
    }

    /// The taps of token `t` of a tree, whose input is `x`: its ancestors, and behind the oldest the sequence's window.
    ///
    /// # Safety
    /// The table of parents has an entry for each token of sequence `n`, which is this one.
    #[inline(always)]
    unsafe fn path(&self, n: u32, t: u32, x: Strip, window: Window) -> [Strip; TAPS] {
        let mut taps = [ZEROS, ZEROS, ZEROS, x];
        let (mut node, mut behind) = (t, window);
        let mut i = TAPS - 1;
        while i > 0 {
            i -= 1;
            // SAFETY: nodes are tokens of the sequence: a parent is used only where it comes before its child.
            unsafe {
                let parent = Index::load_if(node > 0, &self.p.intermediate.parent, n, node).get() as u32;
                if parent < node {
                    taps[i] = self.load(parent);
                    node = parent;
                } else {
                    taps[i] = behind[2];
                    behind = [ZEROS, behind[0], behind[1]];
                    // From here on the window: token 0 has no parent.
                    node = 0;
                }
            }
        }
        taps
    }
}

/// The kernel body; `T` is the type of x, out and the conv state.
///
/// # Safety
/// `p` describes buffers as its documentation says, and the launch is shaped as it says.
#[inline(always)]
pub(crate) unsafe fn conv1d_update<T: Element>(p: &Conv1dParams) {
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
            update::<T, ByTap<Single>>(p, n, channel);
        } else if p.channel_stride == 1 {
            update::<T, ByTap<Vectors>>(p, n, channel);
        } else {
            update::<T, ByChannel>(p, n, channel);
        }
    }
}

/// Takes a strip of a sequence through the sequence's tokens.
///
/// # Safety
/// As for [`conv1d_update`]; sequence and channel are there, and memory is aligned as the layout's access demands.
#[inline(always)]
unsafe fn update<T: Element, L: WindowLayout>(p: &Conv1dParams, n: u32, channel: u32) {
    let missing = if L::Access::VECTORS { 0 } else { TAPS as u32 - p.width };
    // SAFETY: n < N, the strip's channels < dim and the tokens below those of the call, so every address lies in its
    // buffer; slots, rows, counts and parents are used only after they were checked.
    unsafe {
        let (begin, len) = tokens_of(&p.cu_seqlens, p.tokens, n);
        if len == 0 {
            return;
        }
        let entries = Entries::load(p, n);
        let tokens = Tokens::<T, L::Access> { p, channel, begin, types: PhantomData };
        let first = tokens.load(0);
        let weights = Weights::load::<L::Access>(p, channel, missing);
        let shift = Shift::new(p, entries.accepted, len);
        if !names_slot(entries.slot(), p.pool.slots, p.pool.null_slot) || !shift.is_sound {
            let mut t = 0;
            while t < len {
                tokens.store(t, ZEROS);
                t += 1;
            }
            return;
        }
        let state = State::<T, L>::new(p, &entries, channel, shift, missing);
        let window = state.load();
        state.keep();
        let filter = Filter::new::<L::Access>(p, channel, weights, missing);
        let drafts = Drafts::new::<T>(p, n, channel, missing);
        let sequence = Sequence { tokens, len, filter, state, drafts };
        let last = match p.intermediate.parent.address {
            0 => sequence.chain(first, window),
            _ => sequence.tree(n, window),
        };
        sequence.state.store(&last);
    }
}

/// A strip of a sequence that is not padding.
struct Sequence<'a, T, L: WindowLayout> {
    tokens: Tokens<'a, T, L::Access>,
    len: u32,
    filter: Filter<'a>,
    state: State<T, L>,
    drafts: Drafts,
}

impl<T: Element, L: WindowLayout> Sequence<'_, T, L> {
    /// Computes a token from its taps, and stores what is to be stored of it.
    ///
    /// # Safety
    /// The token is one of the sequence's; nothing reads its input any more if the output takes its place.
    #[inline(always)]
    unsafe fn step(&self, t: u32, x: Strip, taps: &[Strip; TAPS]) {
        // SAFETY: the caller's promise.
        unsafe {
            self.tokens.store(t, self.filter.apply::<T, L::Access>(taps));
            self.drafts.store::<T, L::Access>(t, &[taps[1], taps[2], taps[3]]);
            self.state.push(t, x);
        }
    }

    /// Tokens that follow each other, `first` being the input of the first; returns the window behind the last.
    ///
    /// # Safety
    /// As for [`update`].
    #[inline(always)]
    unsafe fn chain(&self, first: Strip, mut window: Window) -> Window {
        let (mut t, mut next) = (0, first);
        while t < self.len {
            t = compiler::opaque(t);
            let x = next;
            // SAFETY: t and t + 1 are tokens of the sequence.
            unsafe {
                if t + 1 < self.len {
                    next = self.tokens.load(t + 1);
                }
                self.step(t, x, &[window[0], window[1], window[2], x]);
            }
            window = [window[1], window[2], x];
            t += 1;
        }
        window
    }

    /// Tokens that follow their parents, all from the sequence's window; returns the window behind the last token in
    /// the order of storage.
    ///
    /// # Safety
    /// As for [`update`]; the table of parents has an entry for each token of sequence `n`, which is this one.
    #[inline(always)]
    unsafe fn tree(&self, n: u32, mut window: Window) -> Window {
        let mut t = 0;
        while t < self.len {
            t = compiler::opaque(t);
            // SAFETY: t is a token of the sequence, and outputs do not take the place of inputs in a tree.
            unsafe {
                let x = self.tokens.load(t);
                self.step(t, x, &self.tokens.path(n, t, x, window));
            }
            t += 1;
        }
        let mut t = self.len.saturating_sub(TAPS as u32 - 1);
        while t < self.len {
            // SAFETY: as above.
            window = [window[1], window[2], unsafe { self.tokens.load(t) }];
            t += 1;
        }
        window
    }
}
