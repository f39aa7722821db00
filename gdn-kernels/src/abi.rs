//! Parameter structs and enumerations that the kernels share with every host.
//!
//! Each kernel takes exactly one argument: a `#[repr(C)]` struct by value. `xtask build-kernels` turns this
//! file into `gdn.h`, so that C, C++ and Python hosts fill the same bytes; sizes and offsets are asserted at
//! the end of the file.
//!
//! Conventions: device addresses are `u64` (0 means "not given" where the field says so), strides and pitches
//! count elements, not bytes, and all sizes are per tensor-parallel rank.

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

/// Options of a launch, the bits of [`DecodeParams::flags`].
pub mod flags {
    /// Divide q and k by their l2 norms, `x * rsqrt(sum x^2 + eps)`.
    pub const L2NORM: u32 = 1 << 0;
    /// `Gate::a` holds the log decay itself; without it the softplus gate is applied to `a + dt_bias`.
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

/// What decay and beta are made of: `a`, `b` `[N, HV]`, `a_log`, `dt_bias` `[HV]`.
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
    /// Keeps the struct free of padding bytes; write 0.
    pub reserved: u32,
}

/// The state pool `[slots, HV, V, K]` (K contiguous) and which slots a call reads and writes.
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
    /// A second index value that marks padding (0 in vLLM); -1 for none.
    pub null_slot: i32,
    /// Keeps the struct free of padding bytes; write 0.
    pub reserved: u32,
}

/// Argument of the `gdn_decode_*` kernels: one token for each of `n` sequences.
///
/// Launch: block `(32 * warps, 1, 1)`, grid `(HV * V / BV, min(N, 65535), ceil(N / 65535))` where
/// `BV = rows * (256 / K) * warps` must divide V and `rows` is the `_rN` of the entry's name. No dynamic
/// shared memory.
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

/// `ceil(2^31 / divisor)`, the reciprocal [`DecodeParams::head_reciprocal`] wants. `divisor` must not be 0.
pub const fn head_reciprocal(divisor: u32) -> u32 {
    (1u32 << 31).div_ceil(divisor)
}

// Every host relies on these numbers; `gdn.h` repeats them as static assertions.
const _: () = {
    use core::mem::{offset_of, size_of};
    assert!(size_of::<Inputs>() == 40);
    assert!(size_of::<Gate>() == 64);
    assert!(size_of::<Pool>() == 48);
    assert!(size_of::<DecodeParams>() == 200);
    assert!(offset_of!(DecodeParams, gate) == 40);
    assert!(offset_of!(DecodeParams, pool) == 104);
    assert!(offset_of!(DecodeParams, out) == 152);
    assert!(offset_of!(DecodeParams, out_stride) == 160);
    assert!(offset_of!(DecodeParams, n) == 164);
    assert!(offset_of!(DecodeParams, eps) == 196);
};
