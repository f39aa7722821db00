//! Conv1d update: the causal depthwise convolution in front of the recurrence.

use super::check::{
    VECTOR_BYTES, check_null_slot, check_optional_flags, check_optional_table, check_rows, check_table,
    check_tensor, check_value,
};
use super::{CallError, Extent, Extents, Operation, Params, Rows, Start, Table, Tensor, Tokens};
use crate::key::ModuleKey;
use crate::plan::{self, Caps, Overlap, Plan, PlanError, Tile, Tuning};
use gdn_kernels::abi::{self, DType, flags};

mod states;

pub use states::{Accepted, ConvPool, ConvTarget, DraftWindows};

/// Channels of a thread, where memory is aligned to as many.
const CHANNELS: u64 = 4;

/// The causal depthwise convolution of a decode step: the operation SGLang, vLLM and Dao's package call
/// `causal_conv1d_update`.
///
/// For every sequence and channel, `out[t] = act(bias + sum over i of weight[i] * input[t - (width - 1) + i])`, in
/// f32 from the oldest tap to the newest, where what lies in front of the call's tokens is the sequence's window: the last
/// `width - 1` entries of its slot. The new state is the last L of `[entries | x]`.
///
/// T tokens give the bits of T calls. A negative index, `null_slot`, or an index past the pool marks a padded row: no
/// state is touched and its output is zeros, as are the rows behind the last sequence's. Two sequences of one call must not
/// write the same slot or row of the buffer, nor one write what another reads: their order is not defined.
///
/// Fastest are width 4 and addresses and strides of multiples of four elements, with channels contiguous, or with taps
/// contiguous and L = 3 or L = 4 (of 16 bytes, with L = 4); anything else is read and written channel by channel.
///
/// [`Conv1dUpdate::new`] takes what every call has; the other fields are options.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
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
    /// SiLU behind the sum; by default it is there.
    pub silu: bool,
    /// Round each product to the type of x before it is added, as Triton kernels with 16-bit weights do.
    pub round_products: bool,
    /// Conv states.
    pub state: ConvPool,
    /// `[N]`: the slot each sequence starts from, or `[N, S]` with [`Accepted::Slot`]. Without it sequence n's is n.
    pub slots: Option<Table>,
    /// Where new states go.
    pub target: ConvTarget,
    /// An index value that marks padding besides the negative ones (vLLM: 0).
    pub null_slot: Option<i32>,
    /// Sequences that start from zeros.
    pub start: Start,
    /// Accepted tokens of the sequences' last drafts.
    pub accepted: Option<Accepted>,
    /// `[N, T]`: drafts are trees, and in front of token t comes token `parent[n, t]`. A parent
    /// outside `0..t` means that the sequence's window comes there. The new state is in the order of storage all the same.
    pub parent: Option<Table>,
    /// Where the window after each token goes; in a tree it is that of the token's path.
    pub intermediate: Option<DraftWindows>,
    /// Outputs, a row of dim for each token, of the type of x. May be x itself, unless there are parents.
    pub out: Rows,
}

impl Conv1dUpdate {
    /// The convolution of `tokens` with SiLU and without bias, sequence n's state being slot n's.
    pub fn new(
        dim: u32,
        width: u32,
        tokens: Tokens,
        x: Rows,
        weight: Tensor,
        state: ConvPool,
        out: Rows,
    ) -> Conv1dUpdate {
        Conv1dUpdate {
            dim,
            width,
            tokens,
            x,
            weight,
            bias: None,
            silu: true,
            round_products: false,
            state,
            slots: None,
            target: ConvTarget::InPlace,
            null_slot: None,
            start: Start::FromSlot,
            accepted: None,
            parent: None,
            intermediate: None,
            out,
        }
    }

    /// Whether windows begin where the last draft's accepted tokens end.
    fn takes_back(&self) -> bool {
        matches!(self.accepted, Some(Accepted::Entry(_)))
    }

    /// Slots of a sequence in the table that it starts from.
    pub(crate) fn slot_columns(&self) -> u64 {
        match (&self.slots, &self.accepted) {
            (Some(slots), Some(Accepted::Slot(_))) => slots.columns,
            _ => 1,
        }
    }

    /// A window that drafts are taken back from holds those of the call.
    fn check_accepted(&self) -> Result<(), CallError> {
        let Some(accepted) = &self.accepted else { return Ok(()) };
        if let (true, Tokens::Each { tokens, .. }) = (self.takes_back(), self.tokens) {
            let (have, need) = (u64::from(self.state.len), u64::from(self.width) - 2 + u64::from(tokens));
            let want = "at least width - 2 + T, the entries of a window that drafts are taken back from";
            check_value("state.len", self.state.len, have >= need, want)?;
        }
        check_table("accepted", accepted.table(), self.tokens.batch().into(), 1)
    }

    /// The tables of slots.
    fn check_slots(&self) -> Result<(), CallError> {
        let batch = self.tokens.batch();
        match &self.slots {
            Some(slots) => check_table("slots", slots, batch.into(), self.slot_columns())?,
            None => {
                let want = "at least the number of sequences where no table names slots";
                check_value("state.slots", self.state.slots, self.state.slots >= batch, want)?;
            }
        }
        let Some((table, each_token)) = self.target.table() else { return Ok(()) };
        let columns = if each_token { table.columns.max(1) } else { 1 };
        check_table("target", table, batch.into(), columns)
    }

    fn check_combinations(&self) -> Result<(), CallError> {
        let refuse = |field, problem| Err(CallError::Combination { field, problem });
        if self.parent.is_some() && self.takes_back() {
            return refuse("parent", "the accepted tokens of a tree are no window's beginning");
        }
        if self.parent.is_some() && matches!(self.tokens, Tokens::Packed { .. }) {
            return refuse("parent", "trees need sequences of the same number of tokens");
        }
        if self.slots.is_none() && matches!(self.accepted, Some(Accepted::Slot(_))) {
            return refuse("accepted", "without a table of slots there is none to choose");
        }
        if self.target.is_each_token() {
            if self.parent.is_some() {
                return refuse(
                    "target",
                    "windows of a tree go to the intermediate buffer, not to slots by token",
                );
            }
            if self.takes_back() {
                return refuse(
                    "target",
                    "a slot for each token holds no drafts that a window is taken back from",
                );
            }
            let want = "at most 4 where each token has a slot";
            check_value("state.len", self.state.len, self.state.len <= 4, want)?;
        }
        self.check_types()
    }

    fn check_types(&self) -> Result<(), CallError> {
        let (io, state) = (self.x.tensor.dtype, self.state.tensor.dtype);
        let windows = self.intermediate.map_or(io, |windows| windows.tensor.dtype);
        let refuse = |field, have: DType, want| Err(CallError::Type { field, have: have.name(), want });
        if self.out.tensor.dtype != io {
            return refuse("out", self.out.tensor.dtype, "the type of x");
        }
        if state != io && state != DType::F32 {
            return refuse("state", state, "the type of x, or f32");
        }
        if windows != io && windows != state {
            return refuse("intermediate", windows, "the type of x or of the state");
        }
        Ok(())
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
        let whole = |stride: u64| stride.is_multiple_of(CHANNELS);
        let steps = |count: u64, stride: u64| count == 1 || whole(stride);
        let aligned = |tensor: &Tensor| tensor.address.is_multiple_of(CHANNELS * tensor.dtype.size() as u64);
        // Of L = 4 a vector of 16 bytes has two channels of a 16-bit type.
        let pairs = |state: &ConvPool| {
            let pitch = state.pitch.saturating_mul(state.tensor.dtype.size() as u64);
            let one = state.slots == 1;
            state.tensor.address.is_multiple_of(VECTOR_BYTES) && (one || pitch.is_multiple_of(VECTOR_BYTES))
        };
        let pool = match (state.channel_stride, state.len) {
            (1, _) => whole(state.tap_stride),
            (3, 3) => true,
            (4, 4) => !self.takes_back() && pairs(state),
            _ => false,
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
        self.check_slots()?;
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
        let (span, written) = (self.state.span(self.dim), self.target != ConvTarget::Nowhere);
        extents.push(Extent::rows("state", &self.state.rows(), span, self.state.slots.into(), written));
        extents.push_table("slots", self.slots.as_ref());
        extents.push_table("target", self.target.table().map(|(table, _)| table));
        extents.push_table("start", self.start.table());
        extents.push_table("accepted", self.accepted.as_ref().map(Accepted::table));
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
        let key = ModuleKey::conv1d_update(self.state.tensor.dtype, self.x.tensor.dtype);
        let threads = self.dim.div_ceil(if self.in_vectors() { CHANNELS as u32 } else { 1 });
        plan::spread(key, threads.into(), self.tokens.batch(), caps, tile)
    }

    fn params(&self, _plan: &Plan) -> Params {
        let mut bits = self.start.flags();
        let mut set = |flag: u32, on: bool| bits |= if on { flag } else { 0 };
        set(flags::SILU, self.silu);
        set(flags::ROUND_PRODUCTS, self.round_products);
        set(flags::READ_ONLY, self.target == ConvTarget::Nowhere);
        set(flags::VECTORS, self.in_vectors());
        set(flags::WRITE_PER_TOKEN, self.target.is_each_token());
        set(flags::ACCEPTED_SLOT, matches!(self.accepted, Some(Accepted::Slot(_))));
        let target = self.target.table().map(|(table, _)| table);
        let mut intermediate =
            abi::Intermediate { parent: Table::to_abi(self.parent.as_ref()), ..Default::default() };
        if let Some(windows) = &self.intermediate {
            (intermediate.state, intermediate.row) =
                (windows.tensor.address, Table::to_abi(windows.row.as_ref()));
            (intermediate.pitch, intermediate.rows) = (windows.pitch as u32, windows.rows);
            (intermediate.steps, intermediate.dtype) = (windows.steps, windows.tensor.dtype as u32);
        }
        Params::new(&abi::Conv1dParams {
            pool: abi::Pool {
                state: self.state.tensor.address,
                slot: Table::to_abi(self.slots.as_ref()),
                write_slot: Table::to_abi(target),
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
            accepted: Table::to_abi(self.accepted.as_ref().map(Accepted::table)),
            x_stride: self.x.stride as u32,
            out_stride: self.out.stride as u32,
            channel_stride: self.state.channel_stride as u32,
            tap_stride: self.state.tap_stride as u32,
            len: self.state.len,
            dim: self.dim,
            width: self.width,
            n: self.tokens.batch(),
            tokens: self.tokens.to_abi(),
            slot_columns: self.slot_columns() as u32,
            write_columns: target.map_or(0, |table| table.columns as u32),
            weight_dtype: self.weight.dtype as u32,
            bias_dtype: self.bias.map_or(0, |bias| bias.dtype as u32),
            flags: bits,
        })
    }

    unsafe fn run_on_host(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.on_host() };
    }
}
