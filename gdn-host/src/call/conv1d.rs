//! Conv1d update: the causal depthwise convolution in front of the recurrence.

use super::check::{
    VECTOR_BYTES, check_null_slot, check_optional_flags, check_optional_table, check_rows, check_table,
    check_tensor, check_value,
};
use super::{CallError, Extent, Extents, Operation, Params, Rows, Start, Table, Tensor, Tokens};
use crate::key::ModuleKey;
use crate::plan::{self, Caps, Overlap, Plan, PlanError, Tile, Tuning};
use gdn_kernels::abi::{self, flags};

/// Channels of a thread, where memory is aligned to as many.
const CHANNELS: u64 = 4;

/// A pool of conv states: for each slot the last L inputs of every channel, oldest first.
///
/// Entry i of channel c of slot s is element `s * pitch + c * channel_stride + i * tap_stride`. Engines have `[slots,
/// dim, L]` (SGLang; `channel_stride` L, `tap_stride` 1) or `[slots, L, dim]` (vLLM; 1 and dim).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvPool {
    /// The memory; of the type of x.
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

/// A buffer for the window after each token: `[rows, steps, dim, width - 1]`, of the type of x.
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
    /// `i32[N]`: the row of each sequence; an index that names no row stores nothing. Without it sequence n's row
    /// is n.
    pub row: Option<Table>,
}

/// The causal depthwise convolution of a decode step: the operation SGLang, vLLM and Dao's package call
/// `causal_conv1d_update`.
///
/// For every sequence and channel, `out[t] = act(bias + sum over i of weight[i] * input[t - (width - 1) + i])`, in
/// f32 from the oldest tap to the newest, where what lies in front of the call's tokens is the sequence's window: the last
/// `width - 1` entries of its slot. The new state is the last L of `[entries | x]`.
///
/// T tokens give the bits of T calls. A negative index, `null_slot`, or an index past the pool marks a padded row: no
/// state is touched and its output is zeros. Two sequences of one call must not write the same slot or row of the
/// buffer, nor one write what another reads: their order is not defined.
///
/// Fastest are width 4 and addresses and strides of multiples of four elements, with channels contiguous, or with taps
/// contiguous and L = 3; anything else is read and written channel by channel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conv1dUpdate {
    /// Channels.
    pub dim: u32,
    /// Taps of the filter, W: 2 to 4.
    pub width: u32,
    /// Which rows are whose.
    pub tokens: Tokens,
    /// Inputs, a row of dim for each token.
    pub x: Rows,
    /// `[dim, width]`, oldest tap first, of any type.
    pub weight: Tensor,
    /// `[dim]`, of any type.
    pub bias: Option<Tensor>,
    /// SiLU behind the sum.
    pub silu: bool,
    /// Round each product to the type of x before it is added, as Triton kernels with 16-bit weights do.
    pub round_products: bool,
    /// Conv states.
    pub state: ConvPool,
    /// `i32[N]`: the slot each sequence starts from.
    pub slots: Table,
    /// `i32[N]`: the slot each new state goes to, if not the one it came from. An index that names no slot means that
    /// the new state is not kept.
    pub write_slots: Option<Table>,
    /// An index value that marks padding besides the negative ones (vLLM: 0).
    pub null_slot: Option<i32>,
    /// Sequences that start from zeros.
    pub start: Start,
    /// `i32[N]`: tokens of the sequence's last draft that were accepted (vLLM). The window then begins at entry
    /// `accepted[n] - 1`, and the new entries are the last width - 2 of the window, then x; entries behind those keep
    /// what they hold. L is at least `width - 2 + T`; a count outside `1..=L - width + 2`, or more tokens than that,
    /// marks a padded row.
    pub accepted: Option<Table>,
    /// `[N, T]`: drafts are trees, and in front of token t comes token `parent[n, t]`. A parent
    /// outside `0..t` means that the sequence's window comes there. The new state is in the order of storage all the same.
    pub parent: Option<Table>,
    /// Where the window after each token goes; in a tree it is that of the token's path.
    pub intermediate: Option<DraftWindows>,
    /// Whether new states are stored. Verification of drafts leaves the pool as it is.
    pub update: bool,
    /// Outputs, a row of dim for each token, of the type of x. May be x itself, unless there are parents.
    pub out: Rows,
}

impl ConvPool {
    fn rows(&self) -> Rows {
        Rows { tensor: self.tensor, stride: self.pitch }
    }

    /// Elements from the first of a slot to its last.
    fn span(&self, dim: u32) -> u64 {
        let last = |count: u32, stride: u64| u64::from(count - 1) * stride;
        last(dim, self.channel_stride) + last(self.len, self.tap_stride) + 1
    }

    fn check(&self, dim: u32, width: u32) -> Result<(), CallError> {
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

impl Conv1dUpdate {
    /// A window that drafts are taken back from holds those of the call.
    fn check_accepted(&self) -> Result<(), CallError> {
        let Some(accepted) = &self.accepted else { return Ok(()) };
        if let Tokens::Each { tokens, .. } = self.tokens {
            let (have, need) = (u64::from(self.state.len), u64::from(self.width) - 2 + u64::from(tokens));
            let want = "at least width - 2 + T, the entries of a window that drafts are taken back from";
            check_value("state.len", self.state.len, have >= need, want)?;
        }
        check_table("accepted", accepted, self.tokens.batch().into(), 1)
    }

    fn check_combinations(&self) -> Result<(), CallError> {
        let refuse = |field, problem| Err(CallError::Combination { field, problem });
        if self.parent.is_some() && self.accepted.is_some() {
            return refuse("parent", "the accepted tokens of a tree are no window's beginning");
        }
        if self.parent.is_some() && matches!(self.tokens, Tokens::Packed { .. }) {
            return refuse("parent", "trees need sequences of the same number of tokens");
        }
        if self.write_slots.is_some() && !self.update {
            return refuse("write_slots", "no new state is stored without update");
        }
        let io = self.x.tensor.dtype;
        let windows = self.intermediate.map_or(io, |windows| windows.tensor.dtype);
        let types =
            [("out", self.out.tensor.dtype), ("state", self.state.tensor.dtype), ("intermediate", windows)];
        match types.into_iter().find(|(_, have)| *have != io) {
            Some((field, have)) => Err(CallError::Type { field, have: have.name(), want: "the type of x" }),
            None => Ok(()),
        }
    }

    fn check_windows(&self) -> Result<(), CallError> {
        let Some(windows) = &self.intermediate else { return Ok(()) };
        check_value("intermediate.rows", windows.rows, windows.rows > 0, "at least 1")?;
        check_value("intermediate.steps", windows.steps, windows.steps > 0, "at least 1")?;
        check_rows("intermediate", &windows.as_rows(), windows.row_elements(self), windows.rows.into(), 1)?;
        check_optional_table("intermediate.row", windows.row.as_ref(), self.tokens.batch())
    }

    /// Whether the kernel can access four channels at once.
    fn in_vectors(&self) -> bool {
        let (state, windows, total) = (&self.state, self.intermediate.as_ref(), self.tokens.total());
        let vector = CHANNELS * self.x.tensor.dtype.size() as u64;
        let whole = |stride: u64| stride.is_multiple_of(CHANNELS);
        let steps = |count: u64, stride: u64| count == 1 || whole(stride);
        let aligned = |tensor: &Tensor| tensor.address.is_multiple_of(vector);
        let pool = match state.channel_stride {
            1 => whole(state.tap_stride),
            stride => stride == 3 && state.len == 3,
        };
        self.width == 4
            && pool
            && whole(self.dim.into())
            && [&self.x.tensor, &self.out.tensor, &state.tensor].into_iter().all(aligned)
            && self.weight.address.is_multiple_of(VECTOR_BYTES)
            && steps(total, self.x.stride)
            && steps(total, self.out.stride)
            && steps(state.slots.into(), state.pitch)
            && windows.is_none_or(|w| aligned(&w.tensor) && steps(w.rows.into(), w.pitch))
    }

    /// Whether the output takes the place of the input, row for row.
    fn is_in_place(&self) -> bool {
        let (x, out) = (&self.x, &self.out);
        let same_rows = x.stride == out.stride || self.tokens.total() == 1;
        x.tensor.address == out.tensor.address && same_rows && self.parent.is_none()
    }
}

impl DraftWindows {
    fn as_rows(&self) -> Rows {
        Rows { tensor: self.tensor, stride: self.pitch }
    }

    /// Elements of a row.
    fn row_elements(&self, call: &Conv1dUpdate) -> u64 {
        let window = u64::from(call.dim) * u64::from(call.width - 1);
        u64::from(self.steps).saturating_mul(window)
    }
}

impl Operation for Conv1dUpdate {
    fn check_arguments(&self) -> Result<(), CallError> {
        let dim = self.dim;
        check_value("dim", dim, (1..=1 << 30).contains(&dim), "a number of channels from 1 to 2^30")?;
        check_value("width", self.width, (2..=4).contains(&self.width), "2, 3 or 4")?;
        self.check_combinations()?;
        check_null_slot(self.null_slot)?;
        if self.is_empty() {
            return Ok(());
        }
        self.tokens.check()?;
        let (n, total, dim) = (self.tokens.batch(), self.tokens.total(), u64::from(self.dim));
        check_rows("x", &self.x, dim, total, 1)?;
        check_rows("out", &self.out, dim, total, 1)?;
        check_tensor("weight", &self.weight, dim * u64::from(self.width), 1)?;
        if let Some(bias) = &self.bias {
            check_tensor("bias", bias, dim, 1)?;
        }
        self.state.check(self.dim, self.width)?;
        self.check_accepted()?;
        check_table("slots", &self.slots, n.into(), 1)?;
        check_optional_table("write_slots", self.write_slots.as_ref(), n)?;
        check_optional_flags("start", self.start.table(), n)?;
        if let Some(parent) = &self.parent {
            check_table("parent", parent, n.into(), total / u64::from(n))?;
        }
        self.check_windows()
    }

    fn extents(&self) -> Extents {
        let mut extents = Extents::default();
        let (total, dim) = (self.tokens.total(), u64::from(self.dim));
        if !self.is_in_place() {
            extents.push(Extent::rows("x", &self.x, dim, total, false));
        }
        let mut dense = |field, tensor: &Tensor, len| {
            extents.push(Extent::rows(field, &Rows { tensor: *tensor, stride: len }, len, 1, false));
        };
        dense("weight", &self.weight, dim * u64::from(self.width));
        if let Some(bias) = &self.bias {
            dense("bias", bias, dim);
        }
        self.tokens.push_extents(&mut extents);
        let span = self.state.span(self.dim);
        extents.push(Extent::rows("state", &self.state.rows(), span, self.state.slots.into(), self.update));
        extents.push_table("slots", Some(&self.slots));
        extents.push_table("write_slots", self.write_slots.as_ref());
        extents.push_table("start", self.start.table());
        extents.push_table("accepted", self.accepted.as_ref());
        extents.push_table("parent", self.parent.as_ref());
        if let Some(windows) = &self.intermediate {
            let (rows, width) = (windows.as_rows(), windows.row_elements(self));
            extents.push(Extent::rows("intermediate", &rows, width, windows.rows.into(), true));
            extents.push_table("intermediate.row", windows.row.as_ref());
        }
        extents.push(Extent::rows("out", &self.out, dim, total, true));
        extents
    }

    /// No sequence, or sequences without tokens.
    fn is_empty(&self) -> bool {
        self.tokens.batch() == 0 || self.tokens.total() == 0
    }

    fn overlap(&self) -> Overlap {
        Overlap::Start
    }

    fn plan_tuned(&self, caps: &Caps, _tuning: &Tuning, tile: Tile) -> Result<Plan, PlanError> {
        let io = self.x.tensor.dtype;
        let threads = self.dim.div_ceil(if self.in_vectors() { CHANNELS as u32 } else { 1 });
        plan::spread(ModuleKey::conv1d_update(io), threads.into(), self.tokens.batch(), caps, tile)
    }

    fn params(&self, _plan: &Plan) -> Params {
        let mut bits = self.start.flags();
        let mut set = |flag: u32, on: bool| bits |= if on { flag } else { 0 };
        set(flags::SILU, self.silu);
        set(flags::ROUND_PRODUCTS, self.round_products);
        set(flags::READ_ONLY, !self.update);
        set(flags::VECTORS, self.in_vectors());
        let address = |table: Option<&Table>| table.map_or(0, |t| t.address);
        let mut intermediate =
            abi::Intermediate { parent: Table::to_abi(self.parent.as_ref()), ..Default::default() };
        if let Some(windows) = &self.intermediate {
            (intermediate.state, intermediate.row) =
                (windows.tensor.address, Table::to_abi(windows.row.as_ref()));
            (intermediate.pitch, intermediate.rows) = (windows.pitch as u32, windows.rows);
            intermediate.steps = windows.steps;
        }
        Params::new(&abi::Conv1dParams {
            pool: abi::Pool {
                state: self.state.tensor.address,
                slot: Table::to_abi(Some(&self.slots)),
                write_slot: Table::to_abi(self.write_slots.as_ref()),
                reset: Table::to_abi(self.start.table()),
                pitch: self.state.pitch as u32,
                slots: self.state.slots,
                null_slot: self.null_slot.unwrap_or(-1),
                ahead: 0,
            },
            intermediate,
            x: self.x.tensor.address,
            out: self.out.tensor.address,
            weight: self.weight.address,
            bias: self.bias.map_or(0, |bias| bias.address),
            cu_seqlens: Table::to_abi(self.tokens.cu_seqlens()),
            accepted: address(self.accepted.as_ref()),
            x_stride: self.x.stride as u32,
            out_stride: self.out.stride as u32,
            channel_stride: self.state.channel_stride as u32,
            tap_stride: self.state.tap_stride as u32,
            len: self.state.len,
            dim: self.dim,
            width: self.width,
            n: self.tokens.batch(),
            tokens: self.tokens.to_abi(),
            weight_dtype: self.weight.dtype as u32,
            bias_dtype: self.bias.map_or(0, |bias| bias.dtype as u32),
            flags: bits,
        })
    }
}
