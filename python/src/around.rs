//! What stands around the recurrence: convolution, norm, unpacking.

use crate::arguments::Arguments;
use crate::array::Array;
use crate::error::argument;
use crate::inputs::{count, start_flags, table};
use crate::submit::launch;
use gdn_host::{
    Accepted, Activation, Conv1dUpdate, ConvPool, ConvTarget, DraftWindows, GatedRmsNorm, HeadShape,
    HeadStrides, Rows, Tensor, Tokens, UnpackQkvz,
};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// The schema is `CONV1D_UPDATE` in `gdn/_schemas.py`.
#[pyfunction]
#[pyo3(signature = (*args))]
pub fn conv1d_update(py: Python, args: &Bound<PyTuple>) -> PyResult<()> {
    let mut args = Arguments::new(args);
    let (x, state, weight) = (args.tensor("x")?, args.written("conv_state")?, args.tensor("weight")?);
    let bias = args.optional("bias")?;
    let out = args.written("out")?;
    let [slots, write_slots, start, accepted] = [
        args.optional("slots")?,
        args.optional("write_slots")?,
        args.optional("start")?,
        args.optional("accepted")?,
    ];
    let intermediate = args.optional_written("intermediate")?;
    let [row, parent, cu_seqlens] =
        [args.optional("intermediate_rows")?, args.optional("parents")?, args.optional("cu_seqlens")?];
    let (silu, round_products) = (args.flag("activation")?, args.flag("round_products")?);
    let (update, inverted) = (args.flag("update")?, args.flag("has_initial_state")?);
    let null_slot: Option<i32> = args.number("null_slot")?;
    let launch = launch(None, args.flag("early")?);

    if weight.rank() != 2 {
        return Err(weight.wrong_shape("[dim, width]"));
    }
    let (dim, width) = (count("dim", weight.dim(0))?, count("width", weight.dim(1))?);
    let (tokens, total) = tokens(&x, dim.into(), cu_seqlens.as_ref())?;
    let [x, out] = [&x, &out].map(|rows| rows.rows(dim.into(), total));
    let weight = weight.dense(u64::from(dim) * u64::from(width), "[dim, width]")?;
    let pool = conv_pool(&state, dim)?;
    let mut call = Conv1dUpdate::new(dim, width, tokens, x?, weight, pool, out?);
    call.bias = bias.map(|bias| bias.dense(dim.into(), "[dim]")).transpose()?;
    (call.silu, call.round_products, call.null_slot) = (silu, round_products, null_slot);
    call.start = start_flags(start, inverted)?;
    call.accepted = match (&accepted, &slots) {
        (None, _) => None,
        (Some(accepted), Some(slots)) if slots.rank() == 2 => Some(Accepted::Slot(accepted.table()?)),
        (Some(accepted), _) => Some(Accepted::Entry(accepted.table()?)),
    };
    call.slots = table(slots.as_ref())?;
    call.target = match write_slots {
        Some(array) if array.rank() == 2 => ConvTarget::EachToken(array.table()?),
        Some(array) => ConvTarget::Slots(array.table()?),
        None if update => ConvTarget::InPlace,
        None => ConvTarget::Nowhere,
    };
    call.parent = table(parent.as_ref())?;
    call.intermediate = windows(intermediate.as_ref(), row.as_ref(), dim, width)?;
    args.submit(py, &call, launch)
}

/// Which rows of x are whose: `[N, dim]`, `[N, T, dim]`, or rows of `cu_seqlens`.
fn tokens(x: &Array, dim: u64, cu_seqlens: Option<&Array>) -> PyResult<(Tokens, u64)> {
    let total = x.elements() / dim.max(1);
    if let Some(lengths) = cu_seqlens {
        let table = lengths.table()?;
        let batch = table.len.checked_sub(1).ok_or_else(|| lengths.wrong_shape("[N + 1]"))?;
        let (batch, packed) = (count("cu_seqlens", batch)?, count("x", total)?);
        return Ok((Tokens::Packed { batch, total: packed, cu_seqlens: table }, total));
    }
    match *x.shape() {
        [batch, _] => Ok((Tokens::Each { batch: count("x", batch as u64)?, tokens: 1 }, total)),
        [batch, tokens, _] => {
            Ok((Tokens::Each { batch: count("x", batch as u64)?, tokens: count("x", tokens as u64)? }, total))
        }
        _ => Err(x.wrong_shape("[N, dim] or [N, T, dim]")),
    }
}

/// `[slots, dim, L]`, however its strides go.
fn conv_pool(state: &Array, dim: u32) -> PyResult<ConvPool> {
    if state.rank() != 3 || state.dim(1) != u64::from(dim) {
        return Err(state.wrong_shape(&format!("[slots, {dim}, L]")));
    }
    let len = count("conv_state", state.dim(2))?;
    let (channel_stride, mut tap_stride) = (state.stride(1)?, state.stride(2)?);
    if len == 1 && channel_stride != 1 {
        tap_stride = 1;
    }
    let span =
        u64::from(dim).saturating_sub(1) * channel_stride + u64::from(len).saturating_sub(1) * tap_stride + 1;
    let (slots, pitch) = state.slots(span)?;
    let elements = u64::from(slots).saturating_sub(1) * pitch + span;
    let tensor = Tensor::new(state.address(), state.dtype()?, elements);
    Ok(ConvPool { tensor, slots, pitch, len, channel_stride, tap_stride })
}

/// `[rows, steps, dim, width - 1]`.
fn windows(
    array: Option<&Array>,
    row: Option<&Array>,
    dim: u32,
    width: u32,
) -> PyResult<Option<DraftWindows>> {
    let Some(array) = array else {
        return row.map_or(Ok(None), |row| Err(argument(row.field, "there is no intermediate buffer")));
    };
    if array.rank() != 4 || array.dim(2) != u64::from(dim) || array.dim(3) + 1 != u64::from(width) {
        return Err(array.wrong_shape(&format!("[rows, steps, {dim}, {}]", width - 1)));
    }
    let pool = array.pool()?;
    let steps = count("intermediate", array.dim(1))?;
    let (rows, pitch) = (pool.slots, pool.pitch);
    Ok(Some(DraftWindows { tensor: pool.tensor, rows, steps, pitch, row: table(row)? }))
}

/// The schema is `GATED_RMSNORM` in `gdn/_schemas.py`.
#[pyfunction]
#[pyo3(signature = (*args))]
pub fn gated_rmsnorm(py: Python, args: &Bound<PyTuple>) -> PyResult<()> {
    let mut args = Arguments::new(args);
    let (x, z, weight) = (args.tensor("x")?, args.tensor("z")?, args.tensor("weight")?);
    let out = args.written("out")?;
    let (eps, is_sigmoid) = (args.number("eps")?, args.flag("activation")?);
    let launch = launch(None, args.flag("early")?);
    let v = weight.elements();
    // Heads are those of the argument that tells them.
    let telling = [&x, &z, &out].into_iter().find(|array| array.rank() > 2);
    let heads = telling.map_or(1, |array| array.dim(-2));
    if telling.unwrap_or(&x).dim(-1) != v {
        return Err(weight.wrong_shape(&format!("[{}]", telling.unwrap_or(&x).dim(-1))));
    }
    let tokens = x.elements() / (heads * v).max(1);
    let part = |array: &Array| heads_of(array, tokens, heads, v);
    let [(x, x_heads), (z, z_heads), (out, out_heads)] = [part(&x)?, part(&z)?, part(&out)?];
    let weight = weight.dense(v, "[V]")?;
    let mut call =
        GatedRmsNorm::new(count("x", heads)?, count("weight", v)?, count("x", tokens)?, x, z, weight, out);
    call.activation = if is_sigmoid { Activation::Sigmoid } else { Activation::Silu };
    call.eps = eps;
    call.head_strides = HeadStrides { x: Some(x_heads), z: Some(z_heads), out: Some(out_heads) };
    args.submit(py, &call, launch)
}

/// Rows of heads, `[.., HV, V]` or `[tokens * HV, V]`, and the elements between two heads.
fn heads_of(array: &Array, tokens: u64, heads: u64, v: u64) -> PyResult<(Rows, u64)> {
    let rows = array.head_rows(tokens, heads, v)?;
    let (tensor, stride, head_stride) = rows;
    Ok((Rows { tensor, stride }, head_stride))
}

/// The schema is `UNPACK_QKVZ` in `gdn/_schemas.py`.
#[pyfunction]
#[pyo3(signature = (*args))]
pub fn unpack_qkvz(py: Python, args: &Bound<PyTuple>) -> PyResult<()> {
    let mut args = Arguments::new(args);
    let (qkvz, ba) = (args.tensor("qkvz")?, args.tensor("ba")?);
    let [mixed, z, b, a] =
        [args.written("mixed_qkv")?, args.written("z")?, args.written("b")?, args.written("a")?];
    let shape = HeadShape {
        h: args.number("H")?,
        hv: args.number("HV")?,
        k: args.number("K")?,
        v: args.number("V")?,
    };
    let launch = launch(None, args.flag("early")?);
    shape.check().map_err(|error| argument("shape", error))?;
    let (keys, values, heads) = (2 * shape.key_elements(), shape.value_elements(), u64::from(shape.hv));
    let width = keys + 2 * values;
    let tokens = qkvz.elements() / width;
    if tokens * width != qkvz.elements() {
        return Err(qkvz.wrong_shape(&format!("[.., {width}]")));
    }
    let call = UnpackQkvz {
        shape,
        tokens: count("qkvz", tokens)?,
        qkvz: qkvz.rows(width, tokens)?,
        ba: ba.rows(2 * heads, tokens)?,
        mixed_qkv: mixed.rows(keys + values, tokens)?,
        z: z.rows(values, tokens)?,
        b: b.rows(heads, tokens)?,
        a: a.rows(heads, tokens)?,
    };
    args.submit(py, &call, launch)
}
