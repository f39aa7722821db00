//! Where conv states and windows lie, and which of them a call reads and writes.

use super::Conv1dUpdate;
use crate::call::check::{check_rows, check_value};
use crate::call::{CallError, Rows, Table, Tensor};

/// A pool of conv states: for each slot the last L inputs of every channel, oldest first.
///
/// Entry i of channel c of slot s is element `s * pitch + c * channel_stride + i * tap_stride`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvPool {
    /// The memory; of the type of x, or f32.
    pub tensor: Tensor,
    /// Slots in the pool. An index at or past it is treated as padding.
    pub slots: u32,
    /// Elements from one slot to the next: pages may be padded or interleave layers.
    pub pitch: u64,
    /// Entries of a channel, L: at least `width - 1`.
    pub len: u32,
    /// Elements from one channel to the next. This or `tap_stride` is 1.
    pub channel_stride: u64,
    /// Elements from one entry of a channel to the next.
    pub tap_stride: u64,
}

/// A buffer for the window after each token: `[rows, steps, dim, width - 1]`, of the type of x or of the conv state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DraftWindows {
    /// The memory.
    pub tensor: Tensor,
    /// Rows of the buffer.
    pub rows: u32,
    /// Tokens that a row has room for. Windows of further tokens are not stored.
    pub steps: u32,
    /// Elements from one row to the next, at least steps * dim * (width - 1).
    pub pitch: u64,
    /// `[N]`: the row of each sequence; an index that names no row stores nothing. Without it sequence n's row
    /// is n.
    pub row: Option<Table>,
}

/// What the number of accepted tokens of a sequence's last draft chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// Where the window begins (vLLM). `[N]`: it begins at entry `accepted[n] - 1` of the slot, and the new entries are the
    /// last width - 2 of the window, then x; entries behind those keep what they hold. L is at least `width - 2 + T`; a
    /// count outside `1..=L - width + 2`, or more tokens than that, marks a padded row.
    Entry(Table),
    /// The slot. `[N]`: the sequence starts from `slots[n, accepted[n] - 1]`; a count outside `1..=S` marks a padded row.
    Slot(Table),
}

/// Where new conv states go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ConvTarget {
    /// To the slot that the sequence started from.
    #[default]
    InPlace,
    /// Nowhere: the pool stays as it is.
    Nowhere,
    /// `[N]`: to slot `table[n]`. An index that names no slot means that the new state is not kept.
    Slots(Table),
    /// `[N, S]`: the state after token t to slot `table[n, t]`, for every t below S. It may be the table that sequences start
    /// from. An index that names no slot keeps nothing. L is 4 at most.
    EachToken(Table),
}

impl ConvPool {
    /// Packed slots `[slots, dim, len]`, the entries of a channel together: SGLang, Dao's package, Rust engines.
    pub const fn taps_contiguous(tensor: Tensor, slots: u32, dim: u32, len: u32) -> ConvPool {
        let pitch = dim as u64 * len as u64;
        ConvPool { tensor, slots, pitch, len, channel_stride: len as u64, tap_stride: 1 }
    }

    /// Packed slots `[slots, len, dim]`, the channels of an entry together: vLLM.
    pub const fn channels_contiguous(tensor: Tensor, slots: u32, len: u32, dim: u32) -> ConvPool {
        let pitch = dim as u64 * len as u64;
        ConvPool { tensor, slots, pitch, len, channel_stride: 1, tap_stride: dim as u64 }
    }
}

impl DraftWindows {
    /// Packed rows, sequence n's being row n.
    pub const fn new(tensor: Tensor, rows: u32, steps: u32, dim: u32, width: u32) -> DraftWindows {
        let pitch = steps as u64 * dim as u64 * width.saturating_sub(1) as u64;
        DraftWindows { tensor, rows, steps, pitch, row: None }
    }
}

impl ConvTarget {
    /// The table of slots, and whether it has a row of them for each sequence.
    pub(super) fn table(&self) -> Option<(&Table, bool)> {
        match self {
            ConvTarget::InPlace | ConvTarget::Nowhere => None,
            ConvTarget::Slots(table) => Some((table, false)),
            ConvTarget::EachToken(table) => Some((table, true)),
        }
    }

    pub(super) fn is_each_token(&self) -> bool {
        matches!(self, ConvTarget::EachToken(_))
    }
}

impl Accepted {
    pub(super) fn table(&self) -> &Table {
        match self {
            Accepted::Entry(table) | Accepted::Slot(table) => table,
        }
    }
}

impl ConvPool {
    pub(super) fn rows(&self) -> Rows {
        Rows { tensor: self.tensor, stride: self.pitch }
    }

    /// Elements from the first of a slot to its last.
    pub(super) fn span(&self, dim: u32) -> u64 {
        let last = |count: u32, stride: u64| u64::from(count).saturating_sub(1).saturating_mul(stride);
        last(dim, self.channel_stride).saturating_add(last(self.len, self.tap_stride)).saturating_add(1)
    }

    pub(super) fn check(&self, dim: u32, width: u32) -> Result<(), CallError> {
        let in_range = (1..=i32::MAX as u32).contains(&self.slots);
        check_value("state.slots", self.slots, in_range, "a pool of 1 to 2^31 - 1 slots")?;
        check_value("state.len", self.len, self.len >= width - 1, "at least width - 1")?;
        // The entries of one channel, or the channels of one entry, lie in a row; those rows must not overlap.
        let max = u64::from(u32::MAX);
        let (field, stride, count, row) = match self.channel_stride {
            1 => ("state.tap_stride", self.tap_stride, self.len, dim),
            _ if self.tap_stride == 1 => ("state.channel_stride", self.channel_stride, dim, self.len),
            _ => {
                let (value, want) = (self.tap_stride as f64, "1, unless state.channel_stride is");
                return Err(CallError::Value { field: "state.tap_stride", value, want });
            }
        };
        let min = if count > 1 { u64::from(row) } else { 0 };
        if stride < min || stride > max {
            return Err(CallError::Stride { field, stride, min, max });
        }
        check_rows("state", &self.rows(), self.span(dim), self.slots.into(), 1)
    }
}

impl DraftWindows {
    pub(super) fn as_rows(&self) -> Rows {
        Rows { tensor: self.tensor, stride: self.pitch }
    }

    /// Elements of a row.
    pub(super) fn row_elements(&self, call: &Conv1dUpdate) -> u64 {
        let window = u64::from(call.dim) * u64::from(call.width.saturating_sub(1));
        u64::from(self.steps).saturating_mul(window)
    }
}
