//! Arguments of the kernels that only move data: copies of states, conversions of layout, unpacking of projections.
//!
//! They compute nothing. Most of what they move is counted in vectors of 16 bytes, whatever the type of its
//! elements.

use super::Table;
#[cfg(doc)]
use super::{DType, Entry, Layer, Pool};
use bytemuck::{Pod, Zeroable};

/// Slots of a tensor, and which of them each of `n` copies uses.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Slots {
    /// First byte of slot 0; a multiple of 16.
    pub state: u64,
    /// Slot of each copy (negative, `null_slot` or `>= slots`: none, and the copy is not done), of any [`Entry`] but `U8`.
    /// Without a table copy i's is i.
    pub slot: Table,
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
    /// How many steps of its slot a copy commits, `1..=steps`, of any [`Entry`] but `U8`: it reads
    /// `step_pitch * (accepted[n] - 1)` vectors further on. Without a table every copy reads the start of its slot.
    pub accepted: Table,
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
/// `vectors = 2 * H * k_vectors + 2 * HV * v_vectors` and `v_vectors` is at least 4. No dynamic shared memory.
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
    /// Vectors of 16 bytes that K elements are.
    pub k_vectors: u32,
    /// Vectors of 16 bytes that V elements are.
    pub v_vectors: u32,
    /// `ceil(2^31 / r)`, see [`Layer::head_reciprocal`].
    pub ratio_reciprocal: u32,
    /// `ceil(2^31 / k_vectors)`.
    pub k_reciprocal: u32,
    /// `ceil(2^31 / v_vectors)`.
    pub v_reciprocal: u32,
    /// Keeps the struct free of padding bytes; write 0.
    pub reserved: u32,
}

// Every host relies on these numbers; `gdn_kernels.h` repeats them as static assertions.
const _: () = {
    use core::mem::{offset_of, size_of};
    assert!(size_of::<Slots>() == 40);
    assert!(size_of::<CopyStateParams>() == 112);
    assert!(offset_of!(CopyStateParams, accepted) == 80);
    assert!(size_of::<ConvertLayoutParams>() == 104);
    assert!(offset_of!(ConvertLayoutParams, n) == 80);
    assert!(size_of::<UnpackQkvzParams>() == 112);
    assert!(offset_of!(UnpackQkvzParams, qkvz_stride) == 48);
};
