//! From a call to what runs it: a GPU, the oracle, or nothing but a plan.

use crate::array::CPU;
use crate::card::card;
use crate::error::{argument, not_launched, refused};
use crate::plan::{PyCaps, PyPlan};
use gdn_host::reference::host;
use gdn_host::{Launch, Operation, Tile, Tuning};
use pyo3::prelude::*;
use std::cell::RefCell;

/// Plans instead of launches: since `begin_planning`, on this thread.
struct Planning {
    caps: Option<PyCaps>,
    plans: Vec<PyPlan>,
}

thread_local! {
    static PLANNING: RefCell<Option<Planning>> = const { RefCell::new(None) };
}

/// From here on this thread's calls are planned, not made.
#[pyfunction]
#[pyo3(signature = (caps=None))]
pub fn begin_planning(caps: Option<PyCaps>) {
    PLANNING.set(Some(Planning { caps, plans: Vec::new() }));
}

/// The plans since `begin_planning`; calls are made again.
#[pyfunction]
pub fn end_planning() -> Vec<PyPlan> {
    PLANNING.take().map(|planning| planning.plans).unwrap_or_default()
}

/// How a call asks to be launched.
pub fn launch(bv: Option<u32>, early: bool) -> Launch {
    Launch { tile: bv.map_or(Tile::Auto, Tile::Rows), early }
}

/// Makes a call on the device that its arguments are on.
pub fn submit<C: Operation + Sync>(
    py: Python,
    call: &C,
    device: i64,
    launch: Launch,
    stream: u64,
) -> PyResult<()> {
    if plan(call, device, launch)? {
        return Ok(());
    }
    if device == CPU {
        // SAFETY: the arrays are borrowed by the caller of the Python function, and say themselves where they lie. Python
        // may use them from other threads meanwhile, as it may with any operation that lets others run.
        return py.detach(|| unsafe { host::run(call) }).map_err(|error| refused(&error));
    }
    // SAFETY: memory of tensors, which torch keeps until work on their stream is done. Indices are checked by the kernels.
    unsafe { card(device)?.launch(py, call, launch, stream) }
}

/// Whether the call was planned only.
fn plan(call: &dyn Operation, device: i64, launch: Launch) -> PyResult<bool> {
    PLANNING.with_borrow_mut(|planning| {
        let Some(Planning { caps, plans }) = planning else { return Ok(false) };
        let plan = match caps {
            Some(caps) => launch.plan(call, &caps.caps, Tuning::nearest(&caps.caps)),
            None if device == CPU => {
                return Err(argument(
                    "caps",
                    "arguments on the CPU have none: name a GPU's, as gdn.Caps(sms=132, compute=90)",
                ));
            }
            None => {
                let gdn = card(device)?.gdn();
                // Whether its kernels are loaded yet, or not.
                launch.plan(call, gdn.caps(), gdn.tuning())
            }
        };
        let plan = plan.map_err(|error| not_launched(&error))?;
        plans.push(PyPlan::new(plan, call.is_empty()));
        Ok(true)
    })
}
