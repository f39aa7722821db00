//! Copies, commits and conversions of states.

use crate::arguments::Arguments;
use crate::array::Array;
use crate::error::argument;
use crate::inputs::{Dims, count, table};
use crate::recurrence::buffer;
use gdn_host::{CommitState, ConvertLayout, CopyState, Launch, Layout};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// How many copies the tables name; without one, as many as the smaller pool has slots.
fn copies(tables: [&Option<Array>; 2], pools: [&Array; 2]) -> PyResult<u32> {
    let named = tables.into_iter().flatten().next().map(|table| table.dim(0));
    let all = pools.map(|pool| pool.dim(0)).into_iter().min().unwrap_or(0);
    count("source_slots", named.unwrap_or(all))
}

/// The schema is `COPY_STATE` in `gdn/_schemas.py`.
#[pyfunction]
#[pyo3(signature = (*args))]
pub fn copy_state(py: Python, args: &Bound<PyTuple>) -> PyResult<()> {
    let mut args = Arguments::new(args);
    let (source, target) = (args.tensor("source")?, args.written("target")?);
    let [from, to] = [args.optional("source_slots")?, args.optional("target_slots")?];
    let null_slot: Option<i32> = args.number("null_slot")?;
    if source.rank() == 0 || source.shape().get(1..) != target.shape().get(1..) {
        return Err(target.wrong_shape("slots of the source's shape"));
    }
    let call = CopyState {
        copies: copies([&from, &to], [&source, &target])?,
        elements: source.shape()[1..].iter().map(|dim| *dim as u64).product(),
        source: source.pool()?,
        source_slots: table(from.as_ref())?,
        target: target.pool()?,
        target_slots: table(to.as_ref())?,
        null_slot,
    };
    args.submit(py, &call, Launch::default())
}

/// The schema is `COMMIT_STATE` in `gdn/_schemas.py`.
#[pyfunction]
#[pyo3(signature = (*args))]
pub fn commit_state(py: Python, args: &Bound<PyTuple>) -> PyResult<()> {
    let mut args = Arguments::new(args);
    let (intermediate, accepted, state) =
        (args.tensor("intermediate")?, args.tensor("accepted")?, args.written("state")?);
    let [slots, rows] = [args.optional("slots")?, args.optional("intermediate_rows")?];
    let (null_slot, is_kv) = (args.number("null_slot")?, args.flag("layout")?);
    let dims = Dims::of_state(&state, if is_kv { Layout::Kv } else { Layout::Vk })?;
    let Some(intermediate) = buffer(&dims, Some(&intermediate), rows.as_ref(), None)? else {
        return Err(argument("intermediate", "it is missing"));
    };
    let accepted = accepted.table()?;
    let call = CommitState {
        // How many key heads there are does not matter to a copy.
        shape: dims.shape(dims.hv)?,
        batch: count("accepted", accepted.len)?,
        intermediate,
        accepted,
        state: dims.pool(&state)?,
        slots: table(slots.as_ref())?,
        null_slot,
    };
    args.submit(py, &call, Launch::default())
}

/// The schema is `CONVERT_LAYOUT` in `gdn/_schemas.py`.
#[pyfunction]
#[pyo3(signature = (*args))]
pub fn convert_layout(py: Python, args: &Bound<PyTuple>) -> PyResult<()> {
    let mut args = Arguments::new(args);
    let (source, target) = (args.tensor("source")?, args.written("target")?);
    let [from, to] = [args.optional("source_slots")?, args.optional("target_slots")?];
    let (null_slot, to_kv) = (args.number("null_slot")?, args.flag("to")?);
    let (source_layout, target_layout) =
        if to_kv { (Layout::Vk, Layout::Kv) } else { (Layout::Kv, Layout::Vk) };
    let dims = Dims::of_state(&source, source_layout)?;
    let call = ConvertLayout {
        shape: dims.shape(dims.hv)?,
        copies: copies([&from, &to], [&source, &target])?,
        source: dims.pool(&source)?,
        source_slots: table(from.as_ref())?,
        target: Dims { layout: target_layout, ..dims }.pool(&target)?,
        target_slots: table(to.as_ref())?,
        null_slot,
    };
    args.submit(py, &call, Launch::default())
}
