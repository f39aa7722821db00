//! Arguments of the recurrence's kernels, for one token a sequence and for any number of them.
//!
//! One token makes one state, which goes to a slot of the pool. Several tokens make several: the last state may
//! have a target of its own, and those after each token may go to a buffer.

#[cfg(doc)]
use super::{DType, Entry};
use super::{Gate, Inputs, Layer, Pool, Table};
use bytemuck::{Pod, Zeroable};

/// Argument of the `gdn_decode_*`, `gdn_decode_kv_*` and `gdn_kda_decode_*` kernels: one token for each of `n`
/// sequences.
///
/// Launch: block `(32 * warps, 1, 1)`, grid `(HV * V / BV, min(N, 65535), ceil(N / 65535))` where
/// `BV = rows * groups * warps / team` must divide V and be at most 128 ([`MOST_BLOCK_ROWS`](super::MOST_BLOCK_ROWS)),
/// `groups` is 4 for K = 64, 2 for 96 and 128, and 1 for 256, `rows` is the `_rN` of the entry's name and `warps` a multiple
/// of `team`. That is 1 for states `[V, K]`; for states `[K, V]`, the `_kv` entries, `rows / 4` with an f32 state and
/// `rows / 8` with a 16-bit one. No dynamic shared memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct DecodeParams {
    /// Heads and options.
    pub layer: Layer,
    /// Sequences, N.
    pub n: u32,
    /// Elements between two tokens of `out`.
    pub out_stride: u32,
    /// Recurrent state.
    pub pool: Pool,
    /// Output `[N, HV, V]`, heads packed; aligned to an element.
    pub out: u64,
    /// q, k, v.
    pub inputs: Inputs,
    /// Decay and beta.
    pub gate: Gate,
}

/// Another tensor of states, where sequence n's last state goes to slot n.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Target {
    /// First element of slot 0, of the type and layout of the pool; 0: there is no such tensor. Address and pitch are
    /// multiples of 16 bytes.
    pub state: u64,
    /// Elements between two slots.
    pub pitch: u32,
    /// Number of slots.
    pub slots: u32,
}

/// Where the state after each token goes, `[rows, steps, HV, V, K]` in the layout of the pool, and from which of them the
/// tokens of a tree start.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Intermediate {
    /// First element of row 0; 0: states are not stored by token. Address and pitch are multiples of 16 bytes.
    pub state: u64,
    /// Row of each sequence (negative or `>= rows`: none), of any [`Entry`] but `U8`. Without a table sequence n's is n.
    pub row: Table,
    /// Elements between two rows, at least `steps * HV * V * K`.
    pub pitch: u32,
    /// Number of rows.
    pub rows: u32,
    /// Tokens that a row has room for; the states of further ones are not stored.
    pub steps: u32,
    /// [`DType`] of the buffer: the type of the pool, or, beside an f32 pool, any.
    pub dtype: u32,
    /// Rows of `steps` entries, of any [`Entry`] but `U8`: token t > 0 starts from the state after token `parent[t]`, or, if
    /// that is not in `0..t`, from where the sequence started. Without a table it starts from the token before it.
    pub parent: Table,
}

/// Argument of the `gdn_recurrent_*`, `gdn_recurrent_kv_*`, `gdn_kda_recurrent_*` and `gdn_kda_recurrent_kv_*`
/// kernels: any number of tokens for each of `n` sequences.
///
/// Sequence n has the tokens `cu_seqlens[n]..cu_seqlens[n + 1]` or `n * tokens..(n + 1) * tokens`; the strides of
/// the inputs and the output step from one to the next. It starts from `pool.slot[n]`, or, with `accepted`, from
/// `pool.slot[n, accepted[n] - 1]`. An index that names no slot marks a padded row: no state is touched, its outputs are
/// zeros.
///
/// With `WRITE_PER_TOKEN` the state after token t goes to `pool.write_slot[n, t]`; else the last one goes to the slot that the
/// sequence started from (`WRITE_IN_PLACE`), to `pool.write_slot[n]`, or to the target.
///
/// Launch: as for [`DecodeParams`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct RecurrentParams {
    /// Heads and options.
    pub layer: Layer,
    /// Sequences, N.
    pub n: u32,
    /// Tokens of each sequence, without `cu_seqlens`; with it, tokens that the inputs have in all.
    pub tokens: u32,
    /// Where sequences start, and where states go by table. `state` 0: sequences start from zeros.
    pub pool: Pool,
    /// Output `[tokens, HV, V]`, heads packed; aligned to an element. 0: none, states advance only.
    pub out: u64,
    /// First token of each sequence, and behind the last one the number of tokens, of any [`Entry`] but `U8`. Without a table
    /// all have `tokens`.
    pub cu_seqlens: Table,
    /// Tokens of the last draft that were accepted, `1..=slot_columns`, of any [`Entry`] but `U8`. Without a table sequences
    /// start from column 0 of `pool.slot`.
    pub accepted: Table,
    /// Entries of a row of `pool.slot`.
    pub slot_columns: u32,
    /// Elements between two tokens of `out`.
    pub out_stride: u32,
    /// Where the state after each token goes.
    pub intermediate: Intermediate,
    /// q, k, v.
    pub inputs: Inputs,
    /// Decay and beta.
    pub gate: Gate,
    /// Where the last state goes, if not to the pool.
    pub target: Target,
    /// Entries of a row of `pool.write_slot`. With `WRITE_PER_TOKEN` the states of further tokens are not stored.
    pub write_columns: u32,
    /// Keeps the struct free of padding bytes; write 0.
    pub reserved: u32,
}

// Every host relies on these numbers; `gdn_kernels.h` repeats them as static assertions.
const _: () = {
    use core::mem::{offset_of, size_of};
    assert!(size_of::<DecodeParams>() == 232);
    assert!(offset_of!(DecodeParams, pool) == 32);
    assert!(offset_of!(DecodeParams, out) == 104);
    assert!(offset_of!(DecodeParams, inputs) == 112);
    assert!(offset_of!(DecodeParams, gate) == 160);
    assert!(size_of::<Target>() == 16);
    assert!(size_of::<Intermediate>() == 56);
    assert!(size_of::<RecurrentParams>() == 352);
    assert!(offset_of!(RecurrentParams, pool) == 32);
    assert!(offset_of!(RecurrentParams, cu_seqlens) == 112);
    assert!(offset_of!(RecurrentParams, intermediate) == 152);
    assert!(offset_of!(RecurrentParams, inputs) == 208);
    assert!(offset_of!(RecurrentParams, gate) == 256);
    assert!(offset_of!(RecurrentParams, target) == 328);
};
