//! Arguments of the kernels that keep a ring of records for each slot and write its state only when the ring is folded.
//!
//! A slot's true state is its state in the pool, the *checkpoint*, with the live records of its ring applied in order:
//! `h = e^g h + d k^T`, with k normalised as the inputs' options say. A ring is circular: record j of the live window is at
//! place `(base + j) % records`.

#[cfg(doc)]
use super::{DType, Entry, flags};
use super::{Gate, Inputs, Layer, Pool, Table};
use bytemuck::{Pod, Zeroable};

/// Records of a ring at most.
pub const MOST_RECORDS: u32 = 32;

/// Records of a ring at most in KDA, whose records have a decay for each k.
pub const MOST_KDA_RECORDS: u32 = 16;

/// Drafts of a sequence at most.
pub const MOST_DRAFTS: u32 = 8;

/// Columns of a table of layers: addresses of the pool, of the rings of k, d and g, and of the pool that is written.
pub const LAYER_COLUMNS: u32 = 5;

/// The rings of records beside a pool of states, one for each slot.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Rings {
    /// Keys as they came in, `[slots, H, records, K]`, of the kernel's input type. Address and pitch are multiples of 16 bytes.
    pub k: u64,
    /// Corrections, `[slots, HV, records, V]`, f32. Address and pitch are multiples of 16 bytes.
    pub d: u64,
    /// Log decays, `[slots, HV, records]`, in KDA `[slots, HV, records, K]`, f32. Aligned to an element, in KDA address and
    /// pitch are multiples of 16 bytes.
    pub g: u64,
    /// Elements between two slots of `k`.
    pub k_pitch: u32,
    /// Elements between two slots of `d`.
    pub d_pitch: u32,
    /// Elements between two slots of `g`.
    pub g_pitch: u32,
    /// Records that a ring has room for: 1 to [`MOST_RECORDS`], in KDA to [`MOST_KDA_RECORDS`].
    pub records: u32,
}

/// Which records of a ring are live. Both tables have a row for each sequence, or, with `CURSORS_BY_SLOT`, for each slot.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Cursors {
    /// Place of the oldest live record, below `records`, of any [`Entry`] but `U8`. Without a table it is 0.
    pub base: Table,
    /// Live records, of any [`Entry`] but `U8`. A window that does not lie in the ring, or leaves no room for what is
    /// appended, marks a padded row.
    pub len: Table,
}

/// Argument of the `gdn_replay_decode_*`, `gdn_replay_verify_*`, `gdn_kda_replay_decode_*` and `gdn_kda_replay_verify_*`
/// kernels.
///
/// Decode takes one token of each of `n` sequences. It appends the token's record, or, where more than `most` records would be
/// live, where `force` says so, and where `pool.reset` does, stores the true state behind the token instead and appends
/// nothing.
///
/// Verify takes `tokens` drafts of each, up to [`MOST_DRAFTS`], which it appends behind the live window. Where more than
/// `most` records would be live, where `force` says so, and where `pool.reset` does, it also stores the true state in front of
/// the drafts. Then the drafts' records are the live window of a step to come.
///
/// A sequence that `pool.reset` names starts from zeros with an empty ring, whatever slot and cursors hold; its records
/// go from place 0 on.
///
/// Launch: as for [`DecodeParams`](super::DecodeParams). No two sequences may have the same slot.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct ReplayParams {
    /// Heads and options.
    pub layer: Layer,
    /// Sequences, N.
    pub n: u32,
    /// Tokens of a sequence; 1 in decode.
    pub tokens: u32,
    /// Checkpoints. There is no `write_slot`.
    pub pool: Pool,
    /// Output `[n * tokens, HV, V]`, heads packed; aligned to an element.
    pub out: u64,
    /// The live ones.
    pub cursors: Cursors,
    /// Sequences that fold whatever their ring holds, `U8`, `I32` or `U32`; without a table none.
    pub force: Table,
    /// Records.
    pub rings: Rings,
    /// q, k, v; sequence n has the rows `n * tokens..(n + 1) * tokens`.
    pub inputs: Inputs,
    /// Decay and beta.
    pub gate: Gate,
    /// Of verify: rows of `tokens` entries, of any [`Entry`] but `U8`. Token t > 0 follows token `parent[t]`, or, if that is
    /// not in `0..t`, the live window. Without a table it follows the token before it.
    pub parent: Table,
    /// Elements between two tokens of `out`.
    pub out_stride: u32,
    /// Live records at most behind the call: up to `records`, in verify up to `records - tokens`.
    pub most: u32,
}

/// Argument of the `gdn_replay_fold_*` and `gdn_kda_replay_fold_*` kernels: stores the true state of each of `n` sequences in
/// each of `layers` layers, where its slot was or elsewhere. Rings and cursors stay as they are.
///
/// Launch: block `(32 * warps, 1, 1)`, grid `(HV * V / BV, n, layers)`, with BV as for [`DecodeParams`](super::DecodeParams). No
/// dynamic shared memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct ReplayFoldParams {
    /// Table of layers, `[layers, 5]` ([`LAYER_COLUMNS`]) addresses: slot 0 of the checkpoints, of the rings of k, d and g, and of
    /// the pool that is written.
    pub layers: u64,
    /// The live records.
    pub cursors: Cursors,
    /// Slot of each sequence, as in [`Pool`].
    pub slot: Table,
    /// Slot that each true state goes to, of any [`Entry`] but `U8`; one that is none keeps nothing. Without a table it is the one
    /// it came from.
    pub target_slot: Table,
    /// Records that are applied, up to those that are live, of any [`Entry`] but `U8`; another number stores nothing. Without
    /// a table all are.
    pub count: Table,
    /// Sequences that are meant, `U8`, `I32` or `U32`; without a table all.
    pub force: Table,
    /// Elements between two slots of the rings of k.
    pub k_pitch: u32,
    /// Elements between two slots of the rings of d.
    pub d_pitch: u32,
    /// Elements between two slots of the rings of g.
    pub g_pitch: u32,
    /// Records that a ring has room for.
    pub records: u32,
    /// Elements between two checkpoints.
    pub pitch: u32,
    /// Elements between two slots of the pool that is written.
    pub target_pitch: u32,
    /// Number of slots.
    pub slots: u32,
    /// Number of slots of the pool that is written.
    pub target_slots: u32,
    /// A second index value that marks padding, in both tables; -1 for none.
    pub null_slot: i32,
    /// Sequences, N, up to 65,535.
    pub n: u32,
    /// Layers, up to 65,535.
    pub layer_count: u32,
    /// Added to the sum of squares inside the root of the keys' norm.
    pub eps: f32,
    /// Heads and options.
    pub layer: Layer,
}

/// Argument of `gdn_replay_commit`: makes the records of each sequence's accepted path contiguous, in every layer. The drafts'
/// records stand behind the live window; that of `path[n, i]` moves to place i of them.
///
/// Launch: block `(32 * warps, 1, 1)`, grid `(ceil(units / (32 * warps)), n, layer_count)` with
/// `units = h * k_vectors + hv * d_vectors + hv * g_units`. No dynamic shared memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct ReplayCommitParams {
    /// Table of layers, as in [`ReplayFoldParams`]; the pools are not touched.
    pub layers: u64,
    /// The live records in front of the drafts.
    pub cursors: Cursors,
    /// Slot of each sequence, as in [`Pool`].
    pub slot: Table,
    /// Sequences that started from zeros, as in [`Pool`]: their drafts begin at place 0.
    pub reset: Table,
    /// Accepted drafts, of any [`Entry`] but `U8`; a number outside `0..=tokens` moves nothing.
    pub accepted: Table,
    /// Rows of `tokens` entries, of any [`Entry`] but `U8`: the accepted drafts in rising order. An entry outside `i..tokens` ends
    /// the path.
    pub path: Table,
    /// Elements between two slots of the rings of k.
    pub k_pitch: u32,
    /// Elements between two slots of the rings of d.
    pub d_pitch: u32,
    /// Elements between two slots of the rings of g.
    pub g_pitch: u32,
    /// Records that a ring has room for.
    pub records: u32,
    /// Vectors of 16 bytes of a key.
    pub k_vectors: u32,
    /// Vectors of 16 bytes of a head's corrections, V / 4.
    pub d_vectors: u32,
    /// Log decays of a record and head: 1, or in KDA vectors of 16 bytes of them, K / 4.
    pub g_units: u32,
    /// Bytes of an element of a key.
    pub k_size: u32,
    /// Key heads, H.
    pub h: u32,
    /// Value heads, HV.
    pub hv: u32,
    /// `ceil(2^31 / k_vectors)`, see [`Layer::head_reciprocal`].
    pub k_reciprocal: u32,
    /// `ceil(2^31 / d_vectors)`.
    pub d_reciprocal: u32,
    /// `ceil(2^31 / g_units)`.
    pub g_reciprocal: u32,
    /// Number of slots.
    pub slots: u32,
    /// A second index value that marks padding; -1 for none.
    pub null_slot: i32,
    /// Drafts of a sequence.
    pub tokens: u32,
    /// Sequences, N, up to 65,535.
    pub n: u32,
    /// Layers, up to 65,535.
    pub layer_count: u32,
    /// See [`flags`].
    pub flags: u32,
    /// Keeps the struct free of padding bytes; write 0.
    pub reserved: u32,
}

/// Argument of `gdn_replay_advance`: moves the cursors behind a step of all layers, as a decode or a verification with these
/// arguments left the rings.
///
/// Launch: block `(32 * warps, 1, 1)`, grid `(ceil(n / (32 * warps)), 1, 1)`. No dynamic shared memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct ReplayAdvanceParams {
    /// The cursors, `I32` or `U32`, written in place.
    pub cursors: Cursors,
    /// As in [`ReplayParams::pool`].
    pub slot: Table,
    /// As in [`ReplayParams::pool`].
    pub reset: Table,
    /// As in [`ReplayParams::force`].
    pub force: Table,
    /// Accepted drafts, of any [`Entry`] but `U8`; a number outside `0..=tokens` accepts none. Without a table the step was a
    /// decode.
    pub accepted: Table,
    /// As in [`Rings::records`].
    pub records: u32,
    /// As in [`ReplayParams::most`].
    pub most: u32,
    /// Drafts of each sequence; 1 behind a decode.
    pub tokens: u32,
    /// Sequences, N.
    pub n: u32,
    /// Number of slots.
    pub slots: u32,
    /// A second index value that marks padding; -1 for none.
    pub null_slot: i32,
    /// See [`flags`].
    pub flags: u32,
    /// Keeps the struct free of padding bytes; write 0.
    pub reserved: u32,
}

// Every host relies on these numbers; `gdn.h` repeats them as static assertions.
const _: () = {
    use core::mem::{offset_of, size_of};
    assert!(size_of::<Rings>() == 40);
    assert!(size_of::<Cursors>() == 32);
    assert!(size_of::<ReplayParams>() == 344);
    assert!(offset_of!(ReplayParams, pool) == 32);
    assert!(offset_of!(ReplayParams, cursors) == 112);
    assert!(offset_of!(ReplayParams, rings) == 160);
    assert!(offset_of!(ReplayParams, inputs) == 200);
    assert!(offset_of!(ReplayParams, parent) == 320);
    assert!(size_of::<ReplayFoldParams>() == 176);
    assert!(offset_of!(ReplayFoldParams, k_pitch) == 104);
    assert!(size_of::<ReplayCommitParams>() == 184);
    assert!(offset_of!(ReplayCommitParams, k_pitch) == 104);
    assert!(size_of::<ReplayAdvanceParams>() == 128);
};
