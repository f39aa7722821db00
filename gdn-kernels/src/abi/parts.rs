//! What the arguments of the recurrence are made of: inputs, gate, pool of states, layer.
//!
//! A struct here describes one thing that a caller has, whatever the number of tokens. The pool also serves the
//! conv states of [`super::Conv1dParams`].

use super::Table;
#[cfg(doc)]
use super::{DType, Entry, flags};
use bytemuck::{Pod, Zeroable};

/// The projected inputs of a call: `q` and `k` `[N, H, K]`, `v` `[N, HV, V]`, all of the kernel's input type.
///
/// Heads are packed inside a token; tokens are a stride apart, so three views of one packed row
/// (`mixed_qkv`) are three addresses with one stride.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Inputs {
    /// Queries, raw (before l2norm and scale). Address and row pitch are multiples of 16 bytes.
    pub q: u64,
    /// Keys, raw (before l2norm). Address and row pitch are multiples of 16 bytes.
    pub k: u64,
    /// Values. Aligned to an element.
    pub v: u64,
    /// Elements between two tokens of `q`.
    pub q_stride: u32,
    /// Elements between two tokens of `k`.
    pub k_stride: u32,
    /// Elements between two tokens of `v`.
    pub v_stride: u32,
    /// Factor on q, `K^-1/2` by default.
    pub scale: f32,
    /// Added to the sum of squares inside the root of the l2norm.
    pub eps: f32,
    /// Keeps the struct free of padding bytes; write 0.
    pub reserved: u32,
}

/// What decay and beta are made of: `a`, `b` `[N, HV]`, `a_log`, `dt_bias` `[HV]`; in KDA `a` is `[N, HV, K]` and
/// `dt_bias` `[HV, K]`. All of them are aligned to an element.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Gate {
    /// Raw gate input, or the log decay with `DECAY_GIVEN`.
    pub a: u64,
    /// Raw beta input, or beta with `BETA_GIVEN`.
    pub b: u64,
    /// Logarithm of the decay rate per value head; 0: the rate is 1. Must be 0 with `DECAY_GIVEN`.
    pub a_log: u64,
    /// Bias added to `a`; 0: none. Must be 0 with `DECAY_GIVEN`.
    pub dt_bias: u64,
    /// Elements between two tokens of `a`.
    pub a_stride: u32,
    /// Elements between two tokens of `b`.
    pub b_stride: u32,
    /// [`DType`] of `a`.
    pub a_dtype: u32,
    /// [`DType`] of `b`.
    pub b_dtype: u32,
    /// [`DType`] of `a_log`.
    pub a_log_dtype: u32,
    /// [`DType`] of `dt_bias`.
    pub dt_bias_dtype: u32,
    /// `softplus(x)` is `x` itself where `softplus_beta * x` is above this value (20 in every published model).
    pub softplus_threshold: f32,
    /// `s` in `softplus(x) = log(1 + e^(s x)) / s`, 1 in every published model. Positive: a zeroed struct has none.
    pub softplus_beta: f32,
    /// The bound of the gate with `LOWER_BOUND` (-5 in Kimi-K3).
    pub lower_bound: f32,
    /// `c` in `beta = c * sigmoid(b)`: 1, or 2 where negative eigenvalues are allowed. Unused with `BETA_GIVEN`.
    pub beta_scale: f32,
}

/// The state pool and which of its slots a call reads and writes: `[slots, HV, V, K]` (K contiguous), or
/// `[slots, HV, K, V]` in the `_kv` operations.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Pool {
    /// Slot that sequence `n` starts from, of any [`Entry`] but `U8`; negative, `null_slot` or `>= slots` marks a padded
    /// row. Without a table it is slot n.
    pub slot: Table,
    /// First element of slot 0. Address and slot pitch are multiples of 16 bytes.
    pub state: u64,
    /// Elements between two slots, at least `HV * V * K`. Offsets into the pool are 64-bit.
    pub pitch: u32,
    /// Number of slots in the pool.
    pub slots: u32,
    /// A second index value that marks padding (0 in vLLM); -1 for none. In a zeroed struct this is 0, and slot
    /// 0 padding: hosts that fill fields one by one must write it.
    pub null_slot: i32,
    /// How many sequences later one is whose state a block asks for into the L2; 0: none.
    pub ahead: u32,
    /// Sequences that start from zeros, `U8`, `I32` or `U32`, see `RESET_INVERTED`; without a table none does.
    pub reset: Table,
    /// Slot the new state goes to (negative, `null_slot` or `>= slots`: nowhere), of any [`Entry`] but `U8`. Without a
    /// table it is the one the sequence started from.
    pub write_slot: Table,
}

/// What holds for every token of a call: heads and options.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Layer {
    /// Key heads, H.
    pub h: u32,
    /// Value heads, HV, a multiple of H.
    pub hv: u32,
    /// Rows of a state, V: a multiple of 32 up to 512.
    pub v: u32,
    /// `ceil(2^31 / d)` with `d = V / BV`, the tiles of one state; see `head_reciprocal`.
    pub tiles_reciprocal: u32,
    /// `ceil(2^31 / d)` with `d = HV / H`, or `d = H` with `HEADS_TILED`: division by multiplication.
    pub head_reciprocal: u32,
    /// See [`flags`].
    pub flags: u32,
}

// Every host relies on these numbers; `gdn_kernels.h` repeats them as static assertions.
const _: () = {
    use core::mem::size_of;
    assert!(size_of::<Inputs>() == 48);
    assert!(size_of::<Gate>() == 72);
    assert!(size_of::<Pool>() == 72);
    assert!(size_of::<Layer>() == 24);
};
