//! Arguments of the recurrence's neighbours: the convolution in front of it, the gated RMSNorm behind it.
//!
//! The convolution keeps its windows where the recurrence keeps its states: in the slots of a pool and, token by
//! token, in a buffer.

#[cfg(doc)]
use super::{DType, Entry, RecurrentParams, flags};
use super::{Intermediate, Pool, Table};
use bytemuck::{Pod, Zeroable};

/// Argument of the `gdn_conv1d_update_*` kernels: a causal depthwise convolution over each sequence's conv window and
/// its tokens, `out[t] = act(bias + sum of weight[i] * input[t - (W - 1) + i])`. Sequence n has the tokens that
/// [`RecurrentParams`] says; rows behind the last sequence's tokens are written with zeros.
///
/// The pool holds the last L inputs of a sequence, oldest first: entry i of channel c lies at `c * channel_stride + i *
/// tap_stride` of its slot. Without `accepted` the window is the last W - 1 entries, and the new entries are the last L of
/// `[entries | x]`. With it, the window begins at entry `accepted[n] - 1`, and the new entries are the last W - 2 of
/// the window and then x; entries behind those keep what they hold. A count outside `1..=L - W + 2`, more tokens than
/// that, and an index that names no slot each mark a padded row: no state is touched, its outputs are zeros. With
/// `ACCEPTED_SLOT` the sequence starts from `pool.slot[n, accepted[n] - 1]` instead, the window being that slot's last
/// entries; a count outside `1..=slot_columns` marks a padded row.
///
/// The new state goes to `pool.write_slot[n]`, or, without that table, to the slot that the sequence started from. With
/// `WRITE_PER_TOKEN` the state after token t goes to `pool.write_slot[n, t]`; L is 4 at most then, windows do not begin at a
/// count, and there are no parents. `READ_ONLY` writes no slot.
///
/// `out` may be `x` itself, with its stride, unless there are parents. Addresses and strides are aligned to an element.
/// `VECTORS` wants W = 4, `weight` at a multiple of 16 bytes, and multiples of four elements: the other addresses (but those
/// of tables and bias), `dim`, and all strides and pitches. A pool with taps contiguous has `channel_stride` L instead, which
/// is 3, or, where windows do not begin at a count, 4; with 4 its address and pitch are multiples of 16 bytes.
///
/// Launch: block `(32 * warps, 1, 1)`, at most 8 warps; grid `(ceil(dim / (c * 32 * warps)), min(N, 65535),
/// ceil(N / 65535))` where c, the channels of a thread, is 1, or 4 with `VECTORS`. No dynamic shared memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Conv1dParams {
    /// See [`flags`].
    pub flags: u32,
    /// Sequences, N.
    pub n: u32,
    /// Tokens of each sequence, without `cu_seqlens`; with it, tokens that the inputs have in all.
    pub tokens: u32,
    /// Channels.
    pub dim: u32,
    /// Taps, W: 2 to 4.
    pub width: u32,
    /// Entries of a channel, L, at least W - 1.
    pub len: u32,
    /// Elements of the pool between two channels. This or `tap_stride` is 1.
    pub channel_stride: u32,
    /// Elements of the pool between two entries of a channel.
    pub tap_stride: u32,
    /// Conv states: `state` is entry 0 of channel 0 of slot 0, of the first type in the entry's name, and aligned to an
    /// element.
    pub pool: Pool,
    /// Inputs `[tokens, dim]`, of the second type in the entry's name.
    pub x: u64,
    /// First token of each sequence, and behind the last one the number of tokens. Without a table all have `tokens`.
    pub cu_seqlens: Table,
    /// Tokens of the last draft that were accepted, of any [`Entry`] but `U8`. Without a table the window ends with the
    /// last entry.
    pub accepted: Table,
    /// Outputs `[tokens, dim]`, of the type of `x`.
    pub out: u64,
    /// Weights `[dim, W]`, oldest tap first.
    pub weight: u64,
    /// Bias `[dim]`; 0: none.
    pub bias: u64,
    /// Elements between two tokens of `x`.
    pub x_stride: u32,
    /// Elements between two tokens of `out`.
    pub out_stride: u32,
    /// Entries of a row of `pool.slot`, with `ACCEPTED_SLOT`.
    pub slot_columns: u32,
    /// Entries of a row of `pool.write_slot`. With `WRITE_PER_TOKEN` the states of further tokens are not stored.
    pub write_columns: u32,
    /// [`DType`] of `weight`.
    pub weight_dtype: u32,
    /// [`DType`] of `bias`.
    pub bias_dtype: u32,
    /// Where the window after each token goes: `[rows, steps, dim, W - 1]` of `dtype`, the type of the state or that of `x`,
    /// aligned to an element.
    /// `parent` does not need the buffer: token t then sees `x[parent[t]]` before `x[t]`, and before that the
    /// parent's parent; behind a token whose parent is not in `0..t` follows the sequence's window.
    pub intermediate: Intermediate,
}

/// Argument of the `gdn_gated_rmsnorm_*` kernels: `out = x * rsqrt(mean(x^2) + eps) * weight * act(z)` over each row of
/// V elements, a head of a token. Addresses and strides are multiples of 16 bytes; in an entry that takes any V, `z` and its
/// strides are aligned to an element. `out` may be `x` itself, with its strides, where it is of its type.
///
/// Launch: block `(32 * warps, 1, 1)`, at most 8 warps; grid `(ceil(HV * l / (32 * warps)), min(tokens, 65535),
/// ceil(tokens / 65535))` where l, the lanes of a row, is V / 8 with V the `_kN` of the entry's name, and 32 without one. No
/// dynamic shared memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct GatedRmsNormParams {
    /// `[tokens, HV, V]`, of the first type in the entry's name.
    pub x: u64,
    /// Input of the gate, `[tokens, HV, V]`, of the second type in the entry's name.
    pub z: u64,
    /// Weights `[V]`.
    pub weight: u64,
    /// Output `[tokens, HV, V]`, of the type of `z`.
    pub out: u64,
    /// Elements between two tokens of `x`.
    pub x_stride: u32,
    /// Elements between two heads of `x`.
    pub x_head_stride: u32,
    /// Elements between two tokens of `z`.
    pub z_stride: u32,
    /// Elements between two heads of `z`.
    pub z_head_stride: u32,
    /// Elements between two tokens of `out`.
    pub out_stride: u32,
    /// Elements between two heads of `out`.
    pub out_head_stride: u32,
    /// Value heads, HV.
    pub hv: u32,
    /// Elements of a row, V: the `_kN` of the entry's name, or, in an entry without one, a multiple of 32 up to 512.
    pub v: u32,
    /// Tokens.
    pub tokens: u32,
    /// [`DType`] of `weight`.
    pub weight_dtype: u32,
    /// Added to the mean of squares inside the root.
    pub eps: f32,
    /// See [`flags`].
    pub flags: u32,
}

// Every host relies on these numbers; `gdn_kernels.h` repeats them as static assertions.
const _: () = {
    use core::mem::{offset_of, size_of};
    assert!(size_of::<Conv1dParams>() == 248);
    assert!(offset_of!(Conv1dParams, pool) == 32);
    assert!(offset_of!(Conv1dParams, x) == 104);
    assert!(offset_of!(Conv1dParams, cu_seqlens) == 112);
    assert!(offset_of!(Conv1dParams, out) == 144);
    assert!(offset_of!(Conv1dParams, intermediate) == 192);
    assert!(size_of::<GatedRmsNormParams>() == 80);
    assert!(offset_of!(GatedRmsNormParams, x_stride) == 32);
};
