//! Parameter structs and enumerations that the kernels share with every host.
//!
//! Each kernel takes exactly one argument: a `#[repr(C)]` struct by value. `xtask build-kernels` turns this
//! file into `gdn.h`, so that C, C++ and Python hosts fill the same bytes; sizes and offsets are asserted at
//! the end of the file.
//!
//! Conventions: device addresses are `u64` (0 means "not given" where the field says so), strides and pitches
//! count elements, not bytes (where only bits are moved, vectors of 16 bytes: the field says so), and all sizes
//! are per tensor-parallel rank.

use bytemuck::{Pod, Zeroable};

/// Element type of a tensor, as the kernels' `*_dtype` fields name it.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE binary32.
    F32 = 0,
    /// bfloat16: the upper half of an f32.
    Bf16 = 1,
    /// IEEE binary16.
    F16 = 2,
}

impl DType {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::Bf16 | DType::F16 => 2,
        }
    }

    /// The name used in entry names, manifests and tables.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::Bf16 => "bf16",
            DType::F16 => "f16",
        }
    }
}

/// Options of a launch, the bits of its `flags`.
pub mod flags {
    /// Divide q and k by their l2 norms, `x * rsqrt(sum x^2 + eps)`.
    pub const L2NORM: u32 = 1 << 0;
    /// `Gate::a` holds the log decay itself; without it a gate is applied to `a + dt_bias`.
    pub const DECAY_GIVEN: u32 = 1 << 1;
    /// `Gate::b` holds beta itself; without it beta is `sigmoid(b)`.
    pub const BETA_GIVEN: u32 = 1 << 2;
    /// Round beta through the type of `b` (as peers do that store the sigmoid as a tensor of that type).
    pub const BETA_ROUNDED: u32 = 1 << 3;
    /// The output is f32 whatever the type of q, k and v.
    pub const OUT_F32: u32 = 1 << 4;
    /// Value head `hv` uses key head `hv % H` (GGUF order); without it `hv / (HV / H)`.
    pub const HEADS_TILED: u32 = 1 << 5;
    /// `Pool::reset` is a has-initial-state table: a zero byte, not a nonzero one, starts from zeros.
    pub const RESET_INVERTED: u32 = 1 << 6;
    /// The gate is `lower_bound * sigmoid(exp(a_log) * x)`; without it `-exp(a_log) * softplus(x)`.
    pub const LOWER_BOUND: u32 = 1 << 7;
    /// `Gate::b` has an entry per value head and row of V, `[.., HV, V]`; without it one per value head.
    pub const BETA_PER_VALUE: u32 = 1 << 8;
    /// KDA with `DECAY_GIVEN`: `Gate::a` is `[.., H, K]`, a decay per key head; without it `[.., HV, K]`.
    pub const DECAY_PER_KEY_HEAD: u32 = 1 << 9;
    /// Round the state to its type after every token, as a chain of single-token decodes would.
    pub const ROUND_STATE: u32 = 1 << 10;
    /// The last state goes to the slot that the sequence started from.
    pub const WRITE_IN_PLACE: u32 = 1 << 11;
    /// The state after token t goes to the t-th slot of the sequence's row of slots.
    pub const WRITE_PER_TOKEN: u32 = 1 << 12;
    /// `cu_seqlens` is `i64[N + 1]`; without it `i32[N + 1]`.
    pub const CU_SEQLENS_I64: u32 = 1 << 13;
    /// The activation is SiLU; without it the identity (conv1d) or the sigmoid (gated RMSNorm).
    pub const SILU: u32 = 1 << 14;
    /// conv1d: round each product of an input and its weight to the type of the inputs before it is added.
    pub const ROUND_PRODUCTS: u32 = 1 << 15;
    /// conv1d: no slot of the pool is written.
    pub const READ_ONLY: u32 = 1 << 16;
    /// conv1d: a thread works on four channels, accessed at once; without it on one.
    pub const VECTORS: u32 = 1 << 17;
    /// Decode: launched with programmatic stream serialization. Only the slot, write slot and reset tables are read
    /// before the predecessor kernel is done.
    pub const EARLY: u32 = 1 << 18;
}

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
    /// Logarithm of the decay rate per value head; unused (0) with `DECAY_GIVEN`.
    pub a_log: u64,
    /// Bias added to `a`; unused (0) with `DECAY_GIVEN`.
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
    /// `softplus(x)` is `x` itself above this value (20 in every published model).
    pub softplus_threshold: f32,
    /// The bound of the gate with `LOWER_BOUND` (-5 in Kimi-K3).
    pub lower_bound: f32,
}

/// The state pool and which of its slots a call reads and writes: `[slots, HV, V, K]` (K contiguous), or
/// `[slots, HV, K, V]` in the `_kv` operations.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Pool {
    /// First element of slot 0. Address and slot pitch are multiples of 16 bytes.
    pub state: u64,
    /// `i32[N]`: slot that sequence `n` starts from; negative, `null_slot` or `>= slots` marks a padded row.
    pub slot: u64,
    /// `i32[N]`: slot the new state goes to (negative, `null_slot` or `>= slots`: nowhere); 0 for `slot` itself.
    pub write_slot: u64,
    /// `u8[N]`: sequences that start from zeros, see `RESET_INVERTED`; 0 when none does.
    pub reset: u64,
    /// Elements between two slots, at least `HV * V * K`. Offsets into the pool are 64-bit.
    pub pitch: u32,
    /// Number of slots in the pool.
    pub slots: u32,
    /// A second index value that marks padding (0 in vLLM); -1 for none. In a zeroed struct this is 0, and slot
    /// 0 padding: hosts that fill fields one by one must write it.
    pub null_slot: i32,
    /// `gdn_recurrent_*`: how many sequences later one is whose state a block asks for into the L2; 0: none.
    pub ahead: u32,
}

/// What holds for every token of a call: heads, options, factors.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Layer {
    /// Key heads, H.
    pub h: u32,
    /// Value heads, HV, a multiple of H.
    pub hv: u32,
    /// Rows of a state, V: 64 or 128.
    pub v: u32,
    /// `log2(V / BV)`: tiles of one state.
    pub tiles_log2: u32,
    /// `ceil(2^31 / d)` with `d = HV / H`, or `d = H` with `HEADS_TILED`: division by multiplication.
    pub head_reciprocal: u32,
    /// See [`flags`].
    pub flags: u32,
    /// Factor on q, `K^-1/2` by default.
    pub scale: f32,
    /// Added to the sum of squares inside the root of the l2norm.
    pub eps: f32,
}

/// Argument of the `gdn_decode_*`, `gdn_decode_kv_*` and `gdn_kda_decode_*` kernels: one token for each of `n`
/// sequences.
///
/// Launch: block `(32 * warps, 1, 1)`, grid `(HV * V / BV, min(N, 65535), ceil(N / 65535))` where
/// `BV = rows * (256 / K) * warps / team` must divide V, `rows` is the `_rN` of the entry's name and `warps` a multiple
/// of `team`. That is 1 for states `[V, K]`; for states `[K, V]`, the `_kv` entries, `rows / 4` with an f32 state and
/// `rows / 8` with a 16-bit one. No dynamic shared memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct DecodeParams {
    /// q, k, v.
    pub inputs: Inputs,
    /// Decay and beta.
    pub gate: Gate,
    /// Recurrent state.
    pub pool: Pool,
    /// Output `[N, HV, V]`, heads packed; aligned to an element.
    pub out: u64,
    /// Elements between two tokens of `out`.
    pub out_stride: u32,
    /// Sequences, N.
    pub n: u32,
    /// Heads and options.
    pub layer: Layer,
}

/// Where a sequence's last state goes, unless `WRITE_IN_PLACE` or `WRITE_PER_TOKEN` says so.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Target {
    /// First element of slot 0, of the type and layout of the pool; 0: the state is not kept. Address and pitch
    /// are multiples of 16 bytes.
    pub state: u64,
    /// `i32[N]`: slot of each sequence (negative, `null_slot` or `>= slots`: nowhere); 0: sequence n's is n.
    pub slot: u64,
    /// Elements between two slots.
    pub pitch: u32,
    /// Number of slots.
    pub slots: u32,
}

/// Where the state after each token goes, `[rows, steps, HV, V, K]` in the type and layout of the pool, and from
/// which of them the tokens of a tree start.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Intermediate {
    /// First element of row 0; 0: states are not stored by token. Address and pitch are multiples of 16 bytes.
    pub state: u64,
    /// `i32[N]`: row of each sequence (negative or `>= rows`: none); 0: sequence n's is n.
    pub row: u64,
    /// `i32[N, parent_stride]`: token t > 0 starts from the state after token `parent[t]`, or, if that is not in
    /// `0..t`, from where the sequence started; 0: from the token before it.
    pub parent: u64,
    /// Elements between two rows, at least `steps * HV * V * K`.
    pub pitch: u32,
    /// Number of rows.
    pub rows: u32,
    /// Tokens that a row has room for; the states of further ones are not stored.
    pub steps: u32,
    /// Entries between two rows of `parent`.
    pub parent_stride: u32,
}

/// Argument of the `gdn_recurrent_*`, `gdn_recurrent_kv_*`, `gdn_kda_recurrent_*` and `gdn_kda_recurrent_kv_*`
/// kernels: any number of tokens for each of `n` sequences.
///
/// Sequence n has the tokens `cu_seqlens[n]..cu_seqlens[n + 1]` or `n * tokens..(n + 1) * tokens`; the strides of
/// the inputs and the output step from one to the next. It starts from `pool.slot[n * slot_stride]`, or, with
/// `accepted`, from `pool.slot[n * slot_stride + accepted[n] - 1]`. An index that names no slot marks a padded
/// row: no state is touched, its outputs are zeros.
///
/// Launch: as for [`DecodeParams`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct RecurrentParams {
    /// q, k, v.
    pub inputs: Inputs,
    /// Decay and beta.
    pub gate: Gate,
    /// Where sequences start. `state` 0: from zeros; `slot` 0: sequence n from slot n. `write_slot` is not used.
    pub pool: Pool,
    /// Where the last state goes.
    pub target: Target,
    /// Where the state after each token goes.
    pub intermediate: Intermediate,
    /// First token of each sequence, and behind the last one the number of tokens; 0: all have `tokens`.
    pub cu_seqlens: u64,
    /// `i32[N]`: tokens of the last draft that were accepted, `1..=slot_stride`; 0: `pool.slot` is 1-D.
    pub accepted: u64,
    /// Output `[tokens, HV, V]`, heads packed; aligned to an element. 0: none, states advance only.
    pub out: u64,
    /// Elements between two tokens of `out`.
    pub out_stride: u32,
    /// Sequences, N.
    pub n: u32,
    /// Tokens of each sequence, without `cu_seqlens`; with it, tokens that the inputs have in all.
    pub tokens: u32,
    /// Entries between two sequences of `pool.slot`.
    pub slot_stride: u32,
    /// Heads and options.
    pub layer: Layer,
}

/// Slots of a tensor, and which of them each of `n` copies uses.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Slots {
    /// First byte of slot 0; a multiple of 16.
    pub state: u64,
    /// `i32[n]`: slot of each copy (negative, `null_slot` or `>= slots`: none, and the copy is not done); 0: copy
    /// i's is i.
    pub slot: u64,
    /// Vectors of 16 bytes between two slots. Offsets are 64-bit.
    pub pitch: u32,
    /// Number of slots.
    pub slots: u32,
    /// A second index value of `slot` that names none (0 in vLLM); -1 for none. See [`Pool::null_slot`].
    pub null_slot: i32,
    /// Keeps the struct free of padding bytes; write 0.
    pub reserved: u32,
}

/// Vectors of 16 bytes that a thread of `gdn_copy_state` or `gdn_unpack_qkvz` moves.
pub const THREAD_VECTORS: u32 = 4;

/// Argument of `gdn_copy_state`: `n` copies of `vectors` vectors of 16 bytes, from a slot to a slot. No copy's target
/// may be another copy's source or target. A copy one of whose indices names no slot, or whose count is out of
/// range, is not done.
///
/// Launch: block `(32 * warps, 1, 1)`, grid `(ceil(vectors / (128 * warps)), min(n, 65535), ceil(n / 65535))`. No
/// dynamic shared memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct CopyStateParams {
    /// What is read.
    pub source: Slots,
    /// What is written.
    pub target: Slots,
    /// `i32[n]`: how many steps of its slot a copy commits, `1..=steps`: it reads `step_pitch * (accepted[n] - 1)`
    /// vectors further on; 0: every copy reads the start of its slot.
    pub accepted: u64,
    /// Vectors of 16 bytes between two steps of a source slot.
    pub step_pitch: u32,
    /// Steps of a source slot.
    pub steps: u32,
    /// Vectors of 16 bytes of a copy; less than 2^31.
    pub vectors: u32,
    /// Number of copies.
    pub n: u32,
}

/// Rows of a source matrix that a warp of `gdn_convert_layout_*` transposes, in bytes of their elements:
/// 32 rows of f32.
pub const CONVERT_TILE_ROWS: u32 = 128;

/// Columns of that warp, in bytes: 16 elements of f32.
pub const CONVERT_TILE_COLUMNS: u32 = 64;

/// Argument of the `gdn_convert_layout_*` kernels: transposes every head's matrix from slots of one tensor to slots
/// of another one. A copy one of whose indices names no slot is not done; no two copies may have one target.
///
/// Launch: block `(32 * warps, 1, 1)`, grid `(ceil(heads * tiles / warps), min(n, 65535), ceil(n / 65535))` where
/// `tiles = ceil(rows * size / 128) * ceil(columns * size / 64)` ([`CONVERT_TILE_ROWS`], [`CONVERT_TILE_COLUMNS`])
/// with `size` the bytes of an element, and `heads * tiles^2 < 2^31`. No dynamic shared memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct ConvertLayoutParams {
    /// What is read: `[slots, heads, rows, columns]`.
    pub source: Slots,
    /// What is written: `[slots, heads, columns, rows]`. Shares no memory with the source.
    pub target: Slots,
    /// Number of copies.
    pub n: u32,
    /// Matrices of a slot, HV.
    pub heads: u32,
    /// Rows of a matrix of the source, a multiple of 8: V from VK to KV.
    pub rows: u32,
    /// Elements of a row of the source, a multiple of 8: K from VK to KV.
    pub columns: u32,
    /// `ceil(2^31 / tiles)`, see [`Layer::head_reciprocal`].
    pub tiles_reciprocal: u32,
    /// `ceil(2^31 / d)` with `d` the second factor of `tiles`.
    pub columns_reciprocal: u32,
}

/// Argument of `gdn_unpack_qkvz`: takes the projections of `n` tokens apart that are interleaved by key head, with
/// `r = HV / H`. All of `qkvz`, `mixed_qkv` and `z` are of one element type, addresses and strides multiples of 16
/// bytes; `ba`, `b` and `a` are of one type and aligned to an element.
///
/// Launch: block `(32 * warps, 1, 1)`, grid `(ceil(vectors / (128 * warps)), min(n, 65535), ceil(n / 65535))` where
/// `vectors = 2 * (H << k_log2) + 2 * (HV << v_log2)` and `v_log2` is at least 3. No dynamic shared memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct UnpackQkvzParams {
    /// `[n, H, (q K | k K | v r V | z r V)]`.
    pub qkvz: u64,
    /// `[n, H, (b r | a r)]`.
    pub ba: u64,
    /// `[n, (q H K | k H K | v HV V)]`.
    pub mixed_qkv: u64,
    /// `[n, HV, V]`.
    pub z: u64,
    /// `[n, HV]`.
    pub b: u64,
    /// `[n, HV]`.
    pub a: u64,
    /// Vectors of 16 bytes between two tokens of `qkvz`.
    pub qkvz_stride: u32,
    /// Vectors of 16 bytes between two tokens of `mixed_qkv`.
    pub mixed_qkv_stride: u32,
    /// Vectors of 16 bytes between two tokens of `z`.
    pub z_stride: u32,
    /// Elements between two tokens of `ba`.
    pub ba_stride: u32,
    /// Elements between two tokens of `b`.
    pub b_stride: u32,
    /// Elements between two tokens of `a`.
    pub a_stride: u32,
    /// [`DType`] of `ba`, `b` and `a`.
    pub ba_dtype: u32,
    /// Number of tokens.
    pub n: u32,
    /// Key heads, H.
    pub h: u32,
    /// Value heads of a key head, `r`.
    pub ratio: u32,
    /// `log2` of the vectors of 16 bytes that K elements are.
    pub k_log2: u32,
    /// `log2` of the vectors of 16 bytes that V elements are.
    pub v_log2: u32,
    /// `ceil(2^31 / r)`, see [`Layer::head_reciprocal`].
    pub ratio_reciprocal: u32,
    /// Keeps the struct free of padding bytes; write 0.
    pub reserved: u32,
}

/// Argument of the `gdn_conv1d_update_*` kernels: a causal depthwise convolution over each sequence's conv window and
/// its tokens, `out[t] = act(bias + sum of weight[i] * input[t - (W - 1) + i])`. Sequence n has the tokens that
/// [`RecurrentParams`] says.
///
/// The pool holds the last L inputs of a sequence, oldest first: entry i of channel c lies at `c * channel_stride + i *
/// tap_stride` of its slot. Without `accepted` the window is the last W - 1 entries, and the new entries are the last L of
/// `[entries | x]`. With it, the window begins at entry `accepted[n] - 1`, and the new entries are the last W - 2 of
/// the window and then x; entries behind those keep what they hold. A count outside `1..=L - W + 2`, more tokens than
/// that, and an index that names no slot each mark a padded row: no state is touched, its outputs are zeros.
///
/// `out` may be `x` itself, with its stride, unless there are parents. Addresses and strides are aligned to an element.
/// `VECTORS` wants W = 4, `weight` at a multiple of 16 bytes, and multiples of four elements: the other addresses (but those
/// of tables and bias), `dim`, and all strides and pitches, but that a pool with taps contiguous has L = 3 and
/// `channel_stride` 3.
///
/// Launch: block `(32 * warps, 1, 1)`, at most 8 warps; grid `(ceil(dim / (c * 32 * warps)), min(N, 65535),
/// ceil(N / 65535))` where c, the channels of a thread, is 1, or 4 with `VECTORS`. No dynamic shared memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Conv1dParams {
    /// Conv states: `state` is entry 0 of channel 0 of slot 0, of the type of `x`, and aligned to an element.
    pub pool: Pool,
    /// Where the window after each token goes: `[rows, steps, dim, W - 1]` of the type of `x`, aligned to an element.
    /// `parent` does not need the buffer: token t then sees `x[parent[t]]` before `x[t]`, and before that the
    /// parent's parent; behind a token whose parent is not in `0..t` follows the sequence's window.
    pub intermediate: Intermediate,
    /// Inputs `[tokens, dim]`.
    pub x: u64,
    /// Outputs `[tokens, dim]`, of the type of `x`.
    pub out: u64,
    /// Weights `[dim, W]`, oldest tap first.
    pub weight: u64,
    /// Bias `[dim]`; 0: none.
    pub bias: u64,
    /// First token of each sequence, and behind the last one the number of tokens; 0: all have `tokens`.
    pub cu_seqlens: u64,
    /// `i32[N]`: tokens of the last draft that were accepted; 0: the window ends with the last entry.
    pub accepted: u64,
    /// Elements between two tokens of `x`.
    pub x_stride: u32,
    /// Elements between two tokens of `out`.
    pub out_stride: u32,
    /// Elements of the pool between two channels. This or `tap_stride` is 1.
    pub channel_stride: u32,
    /// Elements of the pool between two entries of a channel.
    pub tap_stride: u32,
    /// Entries of a channel, L, at least W - 1.
    pub len: u32,
    /// Channels.
    pub dim: u32,
    /// Taps, W: 2 to 4.
    pub width: u32,
    /// Sequences, N.
    pub n: u32,
    /// Tokens of each sequence, without `cu_seqlens`; with it, tokens that the inputs have in all.
    pub tokens: u32,
    /// [`DType`] of `weight`.
    pub weight_dtype: u32,
    /// [`DType`] of `bias`.
    pub bias_dtype: u32,
    /// See [`flags`].
    pub flags: u32,
}

/// Argument of the `gdn_gated_rmsnorm_*` kernels: `out = x * rsqrt(mean(x^2) + eps) * weight * act(z)` over each row of
/// V elements. Heads are packed inside a token; addresses and row pitches are multiples of 16 bytes.
///
/// Launch: block `(32 * warps, 1, 1)`, at most 8 warps; grid `(ceil(HV * V / (8 * 32 * warps)), min(tokens, 65535),
/// ceil(tokens / 65535))` where V is the `_kN` of the entry's name. No dynamic shared memory.
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
    /// Elements between two tokens of `z`.
    pub z_stride: u32,
    /// Elements between two tokens of `out`.
    pub out_stride: u32,
    /// Value heads, HV.
    pub hv: u32,
    /// Tokens.
    pub tokens: u32,
    /// [`DType`] of `weight`.
    pub weight_dtype: u32,
    /// Added to the mean of squares inside the root.
    pub eps: f32,
    /// See [`flags`].
    pub flags: u32,
}

/// `ceil(2^31 / divisor)`, the reciprocal [`Layer::head_reciprocal`] wants. `divisor` must not be 0.
pub const fn head_reciprocal(divisor: u32) -> u32 {
    (1u32 << 31).div_ceil(divisor)
}

// Every host relies on these numbers; `gdn.h` repeats them as static assertions.
const _: () = {
    use core::mem::{offset_of, size_of};
    assert!(size_of::<Inputs>() == 40);
    assert!(size_of::<Gate>() == 64);
    assert!(size_of::<Pool>() == 48);
    assert!(size_of::<Layer>() == 32);
    assert!(size_of::<DecodeParams>() == 200);
    assert!(offset_of!(DecodeParams, gate) == 40);
    assert!(offset_of!(DecodeParams, pool) == 104);
    assert!(offset_of!(DecodeParams, out) == 152);
    assert!(offset_of!(DecodeParams, layer) == 168);
    assert!(size_of::<Target>() == 24);
    assert!(size_of::<Intermediate>() == 40);
    assert!(size_of::<RecurrentParams>() == 288);
    assert!(offset_of!(RecurrentParams, target) == 152);
    assert!(offset_of!(RecurrentParams, intermediate) == 176);
    assert!(offset_of!(RecurrentParams, cu_seqlens) == 216);
    assert!(offset_of!(RecurrentParams, layer) == 256);
    assert!(size_of::<Slots>() == 32);
    assert!(size_of::<CopyStateParams>() == 88);
    assert!(offset_of!(CopyStateParams, accepted) == 64);
    assert!(size_of::<ConvertLayoutParams>() == 88);
    assert!(offset_of!(ConvertLayoutParams, n) == 64);
    assert!(size_of::<UnpackQkvzParams>() == 104);
    assert!(offset_of!(UnpackQkvzParams, qkvz_stride) == 48);
    assert!(size_of::<Conv1dParams>() == 184);
    assert!(offset_of!(Conv1dParams, intermediate) == 48);
    assert!(offset_of!(Conv1dParams, x) == 88);
    assert!(offset_of!(Conv1dParams, x_stride) == 136);
    assert!(size_of::<GatedRmsNormParams>() == 64);
    assert!(offset_of!(GatedRmsNormParams, x_stride) == 32);
};
