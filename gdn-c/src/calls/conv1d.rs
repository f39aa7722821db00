//! The causal convolution, in front of the recurrence.

use super::{Call, GDN_NULL_SLOT, prepare, run};
use crate::context::gdn_context;
use crate::memory::{Argument, element, gdn_dtype, gdn_rows, gdn_table, gdn_tensor};
use crate::prepared::{gdn_launch, gdn_prepared};
use crate::read::{check_flags, check_reserved, null_slot, unknown, versioned};
use crate::states::{gdn_start, gdn_tokens};
use crate::status::{Failure, gdn_status};
use gdn_host::{Accepted, Conv1dUpdate, ConvPool, ConvTarget, DraftWindows, Tensor};
use std::ffi::c_void;

/// Of `gdn_conv1d_update_call.flags`: no SiLU behind the sum.
pub const GDN_NO_SILU: u32 = 2;
/// Of `gdn_conv1d_update_call.flags`: round each product to the type of x before it is added, as Triton kernels with 16-bit
/// weights do.
pub const GDN_ROUND_PRODUCTS: u32 = 4;

/// The new state goes to the slot that the sequence started from.
pub const GDN_CONV_IN_PLACE: u32 = 0;
/// Nowhere: the pool stays as it is.
pub const GDN_CONV_NOWHERE: u32 = 1;
/// `[N]`: to slot `target[n]`. An index that names no slot means that it is not kept.
pub const GDN_CONV_SLOTS: u32 = 2;
/// `[N, S]`: the state after token t to slot `target[n, t]`, for every t below S. `state.len` is 4 at most.
pub const GDN_CONV_EACH_TOKEN: u32 = 3;

/// No draft came before.
pub const GDN_ACCEPTED_NONE: u32 = 0;
/// `[N]`: the window begins at entry `accepted[n] - 1` of the slot (vLLM), and the new entries are the last `width - 2` of the
/// window, then x; entries behind those keep what they hold. `state.len` is at least `width - 2 + T`; a count outside
/// `1..=len - width + 2`, or more tokens than that, marks a padded row.
pub const GDN_ACCEPTED_ENTRY: u32 = 1;
/// `[N]`: the sequence starts from `slots[n, accepted[n] - 1]`; a count outside `1..=S` marks a padded row.
pub const GDN_ACCEPTED_SLOT: u32 = 2;

/// A pool of conv states: for each slot the last `len` inputs of every channel, oldest first. Entry i of channel c of slot s
/// is element `s * pitch + c * channel_stride + i * tap_stride`; one of the two strides is 1.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gdn_conv_pool {
    /// Device address of the first element.
    pub address: u64,
    /// Elements that may be touched, from the address on.
    pub elements: u64,
    /// Elements from a slot to the next: pages may be padded or interleave layers.
    pub pitch: u64,
    /// Elements from a channel to the next: `len` where the entries of a channel lie together (SGLang, Rust runtimes).
    pub channel_stride: u64,
    /// Elements from an entry to the next: `dim` where the channels of an entry lie together (vLLM).
    pub tap_stride: u64,
    /// Slots. An index at or past it is padding.
    pub slots: u32,
    /// Entries of a channel, at least `width - 1`.
    pub len: u32,
    /// The type of x, or `GDN_F32`.
    pub dtype: gdn_dtype,
    /// 0.
    pub reserved: u32,
}

/// A buffer for the window after each token: `[rows, steps, dim, width - 1]`, of the type of x or of the conv state. Absent if
/// `address` and `dtype` are 0.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gdn_windows {
    /// Device address of the first element.
    pub address: u64,
    /// Elements that may be touched, from the address on.
    pub len: u64,
    /// Elements from a row to the next, at least steps * dim * (width - 1).
    pub pitch: u64,
    /// Rows of the buffer.
    pub rows: u32,
    /// Tokens that a row has room for. Windows of further tokens are not stored.
    pub steps: u32,
    /// `GDN_F32`, `GDN_BF16` or `GDN_F16`.
    pub dtype: gdn_dtype,
    /// 0.
    pub reserved: u32,
    /// `[N]`: the row of each sequence; an index that names no row stores nothing. Absent: sequence n's row is n.
    pub row: gdn_table,
}

/// The causal depthwise convolution of a decode step: what SGLang, vLLM and Dao's package call `causal_conv1d_update`.
///
/// For every sequence and channel `out[t] = act(bias + sum over i of weight[i] * input[t - (width - 1) + i])`, in f32 from the
/// oldest tap to the newest, where what lies in front of the call's tokens is the last `width - 1` entries of its slot. The
/// new state is the last `len` of `[entries | x]`. T tokens give the bits of T calls.
///
/// A negative index, `null_slot`, or an index past the pool marks a padded row: no state is touched and its output is zeros.
/// Two sequences must not write the same slot or row of the buffer, nor one write what another reads.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gdn_conv1d_update_call {
    /// `sizeof(gdn_conv1d_update_call)`.
    pub size: u32,
    /// `GDN_NULL_SLOT`, `GDN_NO_SILU`, `GDN_ROUND_PRODUCTS`, or 0.
    pub flags: u32,
    /// An index that marks padding; 0 without `GDN_NULL_SLOT`.
    pub null_slot: i32,
    /// Channels.
    pub dim: u32,
    /// Taps of the filter, 2 to 4.
    pub width: u32,
    /// `GDN_CONV_*`: where new states go.
    pub target_kind: u32,
    /// `GDN_ACCEPTED_*`: what the accepted tokens of the last drafts choose.
    pub accepted_kind: u32,
    /// 0.
    pub reserved: u32,
    /// Which rows are whose.
    pub tokens: gdn_tokens,
    /// Inputs, a row of dim for each token.
    pub x: gdn_rows,
    /// `[dim, width]`, oldest tap first, of any type.
    pub weight: gdn_tensor,
    /// `[dim]`, of any type. Absent: none.
    pub bias: gdn_tensor,
    /// Conv states.
    pub state: gdn_conv_pool,
    /// `[N]`: the slot each sequence starts from, or `[N, S]` with `GDN_ACCEPTED_SLOT`. Absent: sequence n's is n.
    pub slots: gdn_table,
    /// The slots of `GDN_CONV_SLOTS` and `GDN_CONV_EACH_TOKEN`.
    pub target: gdn_table,
    /// Sequences that start from zeros.
    pub start: gdn_start,
    /// `[N]`: accepted tokens, with `GDN_ACCEPTED_ENTRY` and `GDN_ACCEPTED_SLOT`.
    pub accepted: gdn_table,
    /// `[N, T]`: drafts are trees, and in front of token t comes token `parent[n, t]`; a parent outside `0..t` means that the
    /// sequence's window comes there. Absent: drafts are chains.
    pub parent: gdn_table,
    /// Where the window after each token goes. Absent: nowhere.
    pub intermediate: gdn_windows,
    /// Outputs, a row of dim for each token, of the type of x. May be x itself, unless there are parents.
    pub out: gdn_rows,
}

versioned!(gdn_conv1d_update_call);

impl gdn_conv_pool {
    fn read(&self) -> Result<ConvPool, Failure> {
        check_reserved("state.reserved", self.reserved)?;
        let tensor = Tensor::new(self.address, element("state", self.dtype)?, self.elements);
        let &gdn_conv_pool { slots, pitch, len, channel_stride, tap_stride, .. } = self;
        Ok(ConvPool { tensor, slots, pitch, len, channel_stride, tap_stride })
    }
}

impl Argument for gdn_windows {
    type Host = DraftWindows;

    fn presence(&self) -> (u64, gdn_dtype) {
        (self.address, self.dtype)
    }

    fn required(&self, field: &'static str) -> Result<DraftWindows, Failure> {
        check_reserved("intermediate.reserved", self.reserved)?;
        let tensor = Tensor::new(self.address, element(field, self.dtype)?, self.len);
        let row = self.row.optional("intermediate.row")?;
        Ok(DraftWindows { tensor, rows: self.rows, steps: self.steps, pitch: self.pitch, row })
    }
}

impl gdn_conv1d_update_call {
    fn target(&self) -> Result<ConvTarget, Failure> {
        let none =
            |kind| self.target.absent("target", "new states have no slots of their own").map(|()| kind);
        let table = || self.target.required("target");
        match self.target_kind {
            GDN_CONV_IN_PLACE => none(ConvTarget::InPlace),
            GDN_CONV_NOWHERE => none(ConvTarget::Nowhere),
            GDN_CONV_SLOTS => table().map(ConvTarget::Slots),
            GDN_CONV_EACH_TOKEN => table().map(ConvTarget::EachToken),
            other => unknown("target_kind", other, "one of GDN_CONV_*"),
        }
    }

    fn accepted(&self) -> Result<Option<Accepted>, Failure> {
        let table = || self.accepted.required("accepted");
        match self.accepted_kind {
            GDN_ACCEPTED_NONE => self.accepted.absent("accepted", "accepted_kind is 0").map(|()| None),
            GDN_ACCEPTED_ENTRY => table().map(|table| Some(Accepted::Entry(table))),
            GDN_ACCEPTED_SLOT => table().map(|table| Some(Accepted::Slot(table))),
            other => unknown("accepted_kind", other, "one of GDN_ACCEPTED_*"),
        }
    }
}

impl Call for gdn_conv1d_update_call {
    type Operation<'a> = Conv1dUpdate;

    fn operation(&self) -> Result<Conv1dUpdate, Failure> {
        check_flags("flags", self.flags, GDN_NULL_SLOT | GDN_NO_SILU | GDN_ROUND_PRODUCTS)?;
        check_reserved("reserved", self.reserved)?;
        let (tokens, x) = (self.tokens.read()?, self.x.required("x")?);
        let (weight, out) = (self.weight.required("weight")?, self.out.required("out")?);
        let mut call = Conv1dUpdate::new(self.dim, self.width, tokens, x, weight, self.state.read()?, out);
        call.bias = self.bias.optional("bias")?;
        call.silu = self.flags & GDN_NO_SILU == 0;
        call.round_products = self.flags & GDN_ROUND_PRODUCTS != 0;
        call.slots = self.slots.optional("slots")?;
        call.target = self.target()?;
        call.null_slot = null_slot(self.flags & GDN_NULL_SLOT != 0, self.null_slot)?;
        call.start = self.start.read()?;
        call.accepted = self.accepted()?;
        call.parent = self.parent.optional("parent")?;
        call.intermediate = self.intermediate.optional("intermediate")?;
        Ok(call)
    }
}

/// As `gdn_decode`: the convolution.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gdn_conv1d_update(
    context: *const gdn_context,
    call: *const gdn_conv1d_update_call,
    launch: *const gdn_launch,
    stream: *mut c_void,
) -> gdn_status {
    // SAFETY: the caller's promise.
    unsafe { run(context, call, launch, stream) }
}

/// As `gdn_decode_prepare`: the convolution.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gdn_conv1d_update_prepare(
    context: *const gdn_context,
    call: *const gdn_conv1d_update_call,
    launch: *const gdn_launch,
    prepared: *mut *mut gdn_prepared,
) -> gdn_status {
    // SAFETY: the caller's promise.
    unsafe { prepare(context, call, launch, prepared) }
}
