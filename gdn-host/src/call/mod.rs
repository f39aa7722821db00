//! Arguments of the operations, as typed calls over borrowed device memory, and their validation.
//!
//! A call holds addresses, types, strides and lengths, never data. [`Decode::check`] looks at every field
//! before anything is launched: what it accepts, the kernels run without touching a byte outside the
//! buffers it was given. It allocates nothing and takes about a tenth of a microsecond.

mod check;
mod error;
mod extent;
mod lower;

pub use error::CallError;
pub use extent::Extent;

use crate::shape::HeadShape;
use gdn_kernels::abi::DType;

/// A borrowed, densely packed run of elements in device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Device address of the first element.
    pub address: u64,
    /// Element type.
    pub dtype: DType,
    /// Elements that may be touched, from the address on.
    pub len: u64,
}

/// A borrowed tensor of one row per token: a row is packed, rows are `stride` elements apart.
///
/// A view of a wider row (of `mixed_qkv`, of `ba`) is a `Rows` whose address points into the first row and
/// whose stride is the wide row's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    /// The memory.
    pub tensor: Tensor,
    /// Elements from one token's row to the next one's.
    pub stride: u64,
}

/// A borrowed table in device memory with one entry per sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// Device address of the first entry.
    pub address: u64,
    /// Entries.
    pub len: u64,
}

/// How a token's decay is found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decay {
    /// `g = -exp(a_log) * softplus(a + dt_bias)`, the gate of GDN.
    Softplus {
        /// Raw gate input, rows of HV.
        a: Rows,
        /// `[HV]`.
        a_log: Tensor,
        /// `[HV]`.
        dt_bias: Tensor,
        /// softplus(x) is x above this; 20 in every published model.
        threshold: f32,
    },
    /// The log decay itself, rows of HV, from a caller with its own gate.
    Given(Rows),
}

/// How a token's beta is found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Beta {
    /// `sigmoid(b)`, rows of HV.
    Logits {
        /// Raw beta input.
        b: Rows,
        /// Round beta through the type of `b`, as SGLang's packed decode and Hugging Face do.
        rounded: bool,
    },
    /// Beta itself, rows of HV.
    Given(Rows),
}

/// Which sequences start from zeros instead of their slot's contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Start {
    /// None.
    #[default]
    FromSlot,
    /// Those whose byte (`u8[N]`) is nonzero.
    Reset(Table),
    /// Those whose byte (`u8[N]`) is zero.
    HasInitialState(Table),
}

/// Which key head a value head uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HeadMap {
    /// `hv / (HV / H)`: Hugging Face order.
    #[default]
    Grouped,
    /// `hv % H`: the order of GGUF weights.
    Tiled,
}

/// A pool of recurrent states, `[slots, HV, V, K]` with K contiguous (layout VK).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatePool {
    /// The memory; its type is the type of the state.
    pub tensor: Tensor,
    /// Slots in the pool. An index at or past it is treated as padding.
    pub slots: u32,
    /// Elements from one slot to the next, at least HV * V * K: pages may be padded or interleave layers.
    pub pitch: u64,
}

/// Single-token decode of a batch: the operation SGLang calls `fused_sigmoid_gating_delta_rule_update`.
///
/// For every sequence `n` and value head: `h` is read from `state[slots[n]]` (or is zero), decayed, corrected
/// towards v with weight beta, stored to `state[write_slots[n]]` (or in place), and `h q` is written to
/// `out[n]`. Formulas: `docs/NUMERICS.md`.
///
/// A negative index, `null_slot`, or an index past the pool marks a padded row: its state is not touched and
/// its output is zeros. Two sequences of one call must not write the same slot, nor one write a slot that
/// another reads: their order is not defined.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decode {
    /// Heads of this rank.
    pub shape: HeadShape,
    /// Sequences, N. With 0 nothing is launched.
    pub batch: u32,
    /// Queries, rows of `[H, K]`, before normalisation and scale. 16-byte aligned, as is its stride.
    pub q: Rows,
    /// Keys, rows of `[H, K]`, before normalisation. 16-byte aligned, as is its stride.
    pub k: Rows,
    /// Values, rows of `[HV, V]`.
    pub v: Rows,
    /// Decay.
    pub decay: Decay,
    /// Beta.
    pub beta: Beta,
    /// States, updated in place.
    pub state: StatePool,
    /// `i32[N]`: the slot each sequence starts from.
    pub slots: Table,
    /// `i32[N]`: the slot each new state goes to, if not the one it came from. An index that names no slot
    /// means that the new state is not kept.
    pub write_slots: Option<Table>,
    /// An index value that marks padding besides the negative ones (vLLM: 0).
    pub null_slot: Option<i32>,
    /// Sequences that start from zeros.
    pub start: Start,
    /// Output, rows of `[HV, V]`: of the type of q, or f32.
    pub out: Rows,
    /// Divide q and k by `sqrt(sum of squares + eps)`; the value is eps (1e-6 in every published model).
    pub l2norm: Option<f32>,
    /// Factor on q; `None` is `K^-1/2`.
    pub scale: Option<f32>,
    /// Head map.
    pub heads: HeadMap,
}

/// Views of q, k and v in a packed row `[q | k | v]`, `mixed` being rows of at least
/// `2 * H * K + HV * V` elements (the input of SGLang's packed decode).
pub fn split_mixed_qkv(mixed: &Rows, shape: &HeadShape) -> (Rows, Rows, Rows) {
    let view = |offset: u64| {
        let t = mixed.tensor;
        let address = t.address + offset * t.dtype.size() as u64;
        let tensor = Tensor { address, len: t.len.saturating_sub(offset), ..t };
        Rows { tensor, stride: mixed.stride }
    };
    (view(0), view(shape.key_elements()), view(2 * shape.key_elements()))
}
