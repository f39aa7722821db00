//! Decode and recurrent.

use crate::arguments::Arguments;
use crate::array::Array;
use crate::error::{argument, with_names};
use crate::inputs::{Dims, Raw, count, start_flags, table};
use crate::submit::launch;
use gdn_host::{Decode, Intermediate, Recurrent, Source, Target};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// One token for each sequence; the schema is `DECODE` in `gdn/_schemas.py`.
#[pyfunction]
#[pyo3(signature = (*args))]
pub fn decode(py: Python, args: &Bound<PyTuple>) -> PyResult<()> {
    let mut args = Arguments::new(args);
    let state = args.written("state")?;
    let raw = Raw::read(&mut args)?;
    let [slots, write_slots, start] =
        [args.optional("slots")?, args.optional("write_slots")?, args.optional("start")?];
    let out = args.written("out")?;
    let (inverted, null_slot) = (args.flag("has_initial_state")?, args.number("null_slot")?);
    let launch = launch(args.number("bv")?, args.flag("early")?);
    let dims = Dims::of_state(&state, raw.layout)?;
    let (inputs, tokens) = raw.inputs(dims)?;
    let batch = count("q", tokens)?;
    let out = out.rows(inputs.shape.value_elements(), tokens)?;
    let mut call =
        Decode::new(inputs, batch, dims.pool(&state)?, out).with_start(start_flags(start, inverted)?);
    call.slots = table(slots.as_ref())?;
    call.write_slots = table(write_slots.as_ref())?;
    call.null_slot = null_slot;
    args.submit(py, &call, launch)
}

/// Any number of tokens for each sequence; the schema is `RECURRENT` in `gdn/_schemas.py`.
#[pyfunction]
#[pyo3(signature = (*args))]
pub fn recurrent(py: Python, args: &Bound<PyTuple>) -> PyResult<()> {
    let mut args = Arguments::new(args);
    let state = args.optional_written("state")?;
    let final_state = args.optional_written("final_state")?;
    let raw = Raw::read(&mut args)?;
    let [slots, accepted, write_slots, start] = [
        args.optional("slots")?,
        args.optional("accepted")?,
        args.optional("write_slots")?,
        args.optional("start")?,
    ];
    let intermediate = args.optional_written("intermediate")?;
    let [row, parent, cu_seqlens] =
        [args.optional("intermediate_rows")?, args.optional("parents")?, args.optional("cu_seqlens")?];
    let out = args.optional_written("out")?;
    let (update, round_state) = (args.flag("update")?, args.flag("round_state")?);
    let inverted = args.flag("has_initial_state")?;
    let (null_slot, bv) = (args.number("null_slot")?, args.number("bv")?);

    let dims = match state.as_ref().or(final_state.as_ref()) {
        Some(state) => Dims::of_state(state, raw.layout)?,
        None => Dims::of_inputs(&raw, intermediate.as_ref())?,
    };
    let tokens = raw.tokens(cu_seqlens.as_ref())?;
    let (inputs, total) = raw.inputs(dims)?;
    let source = source(&dims, state.as_ref(), slots.as_ref(), accepted.as_ref())?;
    let target = match (&final_state, &write_slots) {
        (Some(_), Some(_)) => {
            return Err(argument("write_slots", "last states go to final_state or to slots, not to both"));
        }
        (Some(array), None) => Target::Sequences(dims.pool(array)?),
        (None, Some(array)) if array.rank() == 2 => Target::EachToken(array.table()?),
        (None, Some(array)) => Target::Slots(array.table()?),
        (None, None) if update && state.is_some() => Target::InPlace,
        (None, None) => Target::Nowhere,
    };
    let out = out.map(|out| out.rows(inputs.shape.value_elements(), total)).transpose()?;
    let mut call =
        Recurrent::new(inputs, tokens, source, target, out).with_start(start_flags(start, inverted)?);
    call.intermediate = buffer(&dims, intermediate.as_ref(), row.as_ref(), parent.as_ref())?;
    call.null_slot = null_slot;
    call.round_state = round_state;
    let submitted = args.submit(py, &call, launch(bv, false));
    submitted.map_err(|error| with_names(py, error, &[("source", "state"), ("target", "final_state")]))
}

fn source(
    dims: &Dims,
    state: Option<&Array>,
    slots: Option<&Array>,
    accepted: Option<&Array>,
) -> PyResult<Source> {
    Ok(match (state, slots, accepted) {
        (None, None, None) => Source::Zeros,
        (None, Some(_), _) => return Err(argument("slots", "there is no state to take slots of")),
        (_, None, Some(_)) => return Err(argument("accepted", "without slots there is none to choose")),
        (Some(state), None, None) => Source::Sequences(dims.pool(state)?),
        (Some(state), Some(slots), None) => Source::Slots { pool: dims.pool(state)?, slots: slots.table()? },
        (Some(state), Some(slots), Some(accepted)) => {
            Source::Accepted { pool: dims.pool(state)?, slots: slots.table()?, accepted: accepted.table()? }
        }
    })
}

/// The buffer of states, `[rows, steps, HV, V, K]`.
pub fn buffer(
    dims: &Dims,
    array: Option<&Array>,
    row: Option<&Array>,
    parent: Option<&Array>,
) -> PyResult<Option<Intermediate>> {
    let Some(array) = array else {
        let idle = [row, parent].into_iter().flatten().next();
        return idle.map_or(Ok(None), |idle| Err(argument(idle.field, "there is no intermediate buffer")));
    };
    let inner: Vec<u64> = (2..array.rank() as i64).map(|at| array.dim(at)).collect();
    if array.rank() != 5 || inner != dims.state() {
        return Err(array.wrong_shape(&format!(
            "[rows, steps, {}, {}, {}]",
            dims.hv,
            dims.state()[1],
            dims.state()[2]
        )));
    }
    let pool = array.pool()?;
    let steps = count("intermediate", array.dim(1))?;
    let mut buffer = Intermediate::new(pool.tensor, pool.slots, steps, pool.pitch);
    buffer.row = table(row)?;
    buffer.parent = table(parent)?;
    Ok(Some(buffer))
}
