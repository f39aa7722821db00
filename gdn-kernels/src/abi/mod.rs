//! Parameter structs and enumerations that the kernels share with every host.
//!
//! Each kernel takes exactly one argument: a `#[repr(C)]` struct by value. `xtask build-kernels` turns the files
//! of this folder into `gdn_kernels.h`, so that C, C++ and Python hosts fill the same bytes; sizes and offsets are
//! asserted at the end of each file. Here stands what all of them use: the types of elements and the options of
//! a launch.
//!
//! Conventions: device addresses are `u64` (0 means "not given" where the field says so), strides and pitches
//! count elements, not bytes (where only bits are moved, vectors of 16 bytes: the field says so), and all sizes
//! are per tensor-parallel rank.
//!
//! With the target sm_90 a launch of `UnpackQkvzParams`, `Conv1dParams` or `GatedRmsNormParams` may have programmatic stream
//! serialization: these kernels wait for their predecessor before they read anything. A decode's has a flag of its own.

// In the order in which `xtask build-kernels` reads them: a file stands behind those whose structs it uses.
mod table;

mod parts;
mod recurrence;

mod movement;
mod neighbours;
mod replay;

pub use movement::{
    CONVERT_TILE_COLUMNS, CONVERT_TILE_ROWS, ConvertLayoutParams, CopyStateParams, Slots, THREAD_VECTORS,
    UnpackQkvzParams,
};
pub use neighbours::{Conv1dParams, GatedRmsNormParams};
pub use parts::{Gate, Inputs, Layer, Pool};
pub use recurrence::{DecodeParams, Intermediate, RecurrentParams, Target};
pub use replay::{
    Cursors, LAYER_COLUMNS, MOST_DRAFTS, MOST_KDA_RECORDS, MOST_RECORDS, ReplayAdvanceParams,
    ReplayCommitParams, ReplayFoldParams, ReplayParams, Rings,
};
pub use table::{Entry, Table};

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
    /// `Pool::reset` is a has-initial-state table: a zero, not a nonzero entry, starts from zeros.
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
    /// The state after token t goes to `write_slot[n, t]`.
    pub const WRITE_PER_TOKEN: u32 = 1 << 12;
    /// The activation is SiLU; without it the identity (conv1d) or the sigmoid (gated RMSNorm).
    pub const SILU: u32 = 1 << 13;
    /// conv1d: round each product of an input and its weight to the type of the inputs before it is added.
    pub const ROUND_PRODUCTS: u32 = 1 << 14;
    /// conv1d: no slot of the pool is written.
    pub const READ_ONLY: u32 = 1 << 15;
    /// conv1d: a thread works on four channels, accessed at once; without it on one.
    pub const VECTORS: u32 = 1 << 16;
    /// Decode: launched with programmatic stream serialization. Only the slot, write slot and reset tables are read
    /// before the predecessor kernel is done.
    pub const EARLY: u32 = 1 << 17;
    /// conv1d: `accepted[n]` chooses the slot that sequence n starts from; without it, where its window begins.
    pub const ACCEPTED_SLOT: u32 = 1 << 18;
    /// Replay: the tables of cursors have a row for each slot; without it one for each sequence.
    pub const CURSORS_BY_SLOT: u32 = 1 << 19;
}

/// Rows of V of a block at most, BV: what its shared memory has room for.
pub const MOST_BLOCK_ROWS: u32 = 128;

/// `ceil(2^31 / divisor)`, the reciprocal [`Layer::head_reciprocal`] wants. `divisor` must not be 0.
pub const fn head_reciprocal(divisor: u32) -> u32 {
    (1u32 << 31).div_ceil(divisor)
}
