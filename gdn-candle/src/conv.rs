//! The causal convolution in front of the recurrence.

use crate::lock::{Memory, Operands};
use crate::memory::{count, cut, element};
use crate::pool::ConvPool;
use crate::recurrence::Tokens;
use crate::run::{Launch, run, unfilled};
use crate::slots::{Slots, Write};
use candle_core::{DType, Result, Tensor, bail};
use gdn_host::{Accepted, Conv1dUpdate, ConvTarget, call};

/// A layer's filter.
#[derive(Clone, Debug)]
pub struct Filter {
    /// `[dim, W]` or `[dim, 1, W]`, oldest tap first; W is 2 to 4.
    pub weight: Tensor,
    /// `[dim]`.
    pub bias: Option<Tensor>,
    /// SiLU behind the sum; on by default.
    pub silu: bool,
    /// Round each product to the type of x before it is added, as Triton kernels with 16-bit weights do. Off by default.
    pub round_products: bool,
}

impl Filter {
    /// Without a bias, with SiLU.
    pub fn new(weight: &Tensor) -> Filter {
        Filter { weight: weight.clone(), bias: None, silu: true, round_products: false }
    }

    /// Channels and taps.
    pub(crate) fn dims(&self) -> Result<(usize, usize)> {
        match *self.weight.dims() {
            [dim, width] | [dim, 1, width] => Ok((dim, width)),
            ref dims => bail!("weight: shape {dims:?} is no filter [dim, W] or [dim, 1, W]"),
        }
    }
}

/// What drafts leave besides their outputs, and how they begin.
#[derive(Clone, Debug, Default)]
pub struct DraftWindows {
    /// `[rows, steps, dim, W - 1]`: the window after each token, of the type of x or of the pool.
    pub windows: Option<Tensor>,
    /// `[N]`: the row of each sequence; without it sequence n's is n.
    pub rows: Option<Tensor>,
    /// `[N, T]`: drafts are trees, and in front of token t comes token `parent[n, t]`.
    pub parent: Option<Tensor>,
    /// `[N]`: the window begins at entry `accepted[n] - 1` of the slot, which holds the last draft's tokens (vLLM).
    pub taken_back: Option<Tensor>,
}

impl DraftWindows {
    /// A buffer for `rows` drafts of `steps` tokens, chains, of the type of a pool of windows.
    ///
    /// # Errors
    /// A filter that is none; an allocation that failed.
    pub fn zeros(filter: &Filter, pool: &ConvPool, rows: usize, steps: usize) -> Result<DraftWindows> {
        let ((dim, width), pool) = (filter.dims()?, &pool.tensor);
        let windows = Tensor::zeros((rows, steps, dim, width - 1), pool.dtype(), pool.device())?;
        Ok(DraftWindows { windows: Some(windows), ..DraftWindows::default() })
    }
}

/// `out[t] = silu(bias + sum over i of weight[i] * input[t - (W - 1) + i])` for each channel, where what lies in front of the
/// call's tokens is the window in the sequence's slot; the slot then holds the last entries. x is rows of `[dim]`, and the
/// output has its dimensions.
///
/// # Errors
/// An argument that does not fit; the text names it and its value, and nothing was written.
pub fn conv1d_update(
    x: &Tensor,
    filter: &Filter,
    tokens: &Tokens,
    pool: &ConvPool,
    slots: &Slots,
    drafts: Option<&DraftWindows>,
) -> Result<Tensor> {
    let out = unfilled(x.dims().to_vec(), x.dtype(), x.device())?;
    conv1d_update_into(x, filter, tokens, pool, slots, drafts, (&out, Launch::Ordered))?;
    Ok(out)
}

pub(crate) fn conv1d_update_into(
    x: &Tensor,
    filter: &Filter,
    tokens: &Tokens,
    pool: &ConvPool,
    slots: &Slots,
    drafts: Option<&DraftWindows>,
    (out, launch): (&Tensor, Launch),
) -> Result<()> {
    let (dim, width) = filter.dims()?;
    let total = cut("x", x, dim as u64)?.count;
    let mut operands = Operands::default();
    operands.read("x", x);
    operands.read("weight", &filter.weight);
    operands.read_some("bias", filter.bias.as_ref());
    tokens.operands(&mut operands);
    slots.operands(&mut operands);
    slots.state_operand(&mut operands, &pool.tensor);
    if let Some(drafts) = drafts {
        if let Some(windows) = &drafts.windows {
            operands.write("drafts", windows);
        }
        operands.read_some("drafts.rows", drafts.rows.as_ref());
        operands.read_some("drafts.parent", drafts.parent.as_ref());
        operands.read_some("drafts.taken_back", drafts.taken_back.as_ref());
    }
    operands.write("out", out);
    operands.locked(|memory| {
        let state = pool.on("state", memory, dim)?;
        let (channels, taps) = (count("weight", dim as u64)?, count("weight", width as u64)?);
        let tokens = tokens.on(memory, total)?;
        let rows = |field, tensor| memory.rows(field, tensor, dim as u64);
        let weight = memory.dense("weight", &filter.weight)?;
        let mut call =
            Conv1dUpdate::new(channels, taps, tokens, rows("x", x)?, weight, state, rows("out", out)?);
        call.bias = filter.bias.as_ref().map(|bias| memory.dense("bias", bias)).transpose()?;
        (call.silu, call.round_products) = (filter.silu, filter.round_products);
        call.slots = memory.some_table("slots", slots.slots.as_ref())?;
        call.accepted = memory.some_table("accepted", slots.accepted.as_ref())?.map(Accepted::Slot);
        call.target = match &slots.write {
            Write::InPlace => ConvTarget::InPlace,
            Write::Nowhere => ConvTarget::Nowhere,
            Write::Slots(table) => ConvTarget::Slots(memory.table("write", table)?),
            Write::EachToken(table) => ConvTarget::EachToken(memory.table("write", table)?),
        };
        (call.null_slot, call.start) = (slots.null_slot, slots.start.on(memory)?);
        if let Some(drafts) = drafts {
            take_drafts(&mut call, memory, drafts)?;
        }
        run(memory, x.device(), &call, launch)
    })
}

/// Commits windows of drafts: that behind the last accepted token of each sequence goes from the buffer to its slot.
/// `accepted` `[N]` are counts, u32 or i64; 0 commits nothing.
///
/// # Errors
/// An argument that does not fit; the text names it and its value.
pub fn conv1d_commit(drafts: &DraftWindows, accepted: &Tensor, pool: &ConvPool, slots: &Slots) -> Result<()> {
    let Some(windows) = &drafts.windows else { bail!("drafts: there is no buffer of windows") };
    let into = slots.of_commit()?;
    // The window after token t of row r is slot r * steps + t of the buffer.
    let steps = windows.dims()[1];
    let (n, device) = (accepted.elem_count(), accepted.device());
    let rows = match &drafts.rows {
        Some(rows) => rows.to_dtype(DType::I64)?,
        None => Tensor::arange(0, n as i64, device)?,
    };
    let accepted = accepted.to_dtype(DType::I64)?;
    let is_step = (accepted.ge(1i64)? * accepted.le(steps as i64)?)?;
    let places = ((rows * steps as f64)? + (accepted - 1.0)?)?;
    let from = is_step.where_cond(&places, &places.zeros_like()?.affine(0.0, -1.0)?)?;
    let from_slots = windows.flatten(0, 1)?;
    let target = pool.dense_windows(windows.dims()[3])?;
    crate::pool::copy(&from_slots, Some(&from), &target, into)
}

fn take_drafts(call: &mut Conv1dUpdate, memory: &Memory, drafts: &DraftWindows) -> Result<()> {
    if let Some(taken_back) = &drafts.taken_back {
        if call.accepted.is_some() {
            bail!("drafts.taken_back: the slot's entry and the slot cannot both be chosen by a count");
        }
        call.accepted = Some(Accepted::Entry(memory.table("drafts.taken_back", taken_back)?));
    }
    call.parent = memory.some_table("drafts.parent", drafts.parent.as_ref())?;
    let row = memory.some_table("drafts.rows", drafts.rows.as_ref())?;
    let Some(windows) = &drafts.windows else { return Ok(()) };
    let &[_, steps, dim, kept] = windows.dims() else {
        bail!("drafts: shape {:?} is no buffer [rows, steps, dim, W - 1]", windows.dims());
    };
    if dim != call.dim as usize || kept + 1 != call.width as usize {
        let (want, taps) = (call.dim, call.width - 1);
        bail!("drafts: shape {:?} does not fit, expected [_, _, {want}, {taps}]", windows.dims());
    }
    let cut = cut("drafts", windows, (steps * dim * kept) as u64)?;
    let (address, len) = memory.place("drafts", windows)?;
    call.intermediate = Some(gdn_host::DraftWindows {
        tensor: call::Tensor::new(address, element("drafts", windows)?, len),
        rows: count("drafts", cut.count)?,
        steps: count("drafts", steps as u64)?,
        pitch: cut.stride,
        row,
    });
    Ok(())
}
