//! The extension of the Python package `gdn`: calls of gdn-host on what Python hands over.
//!
//! Each operation takes its tensors and options in the order of its schema in `gdn/_schemas.py`, and the stream last. `array`
//! reads a tensor, the operation's file makes the call, `submit` runs it: on the GPU that the tensors are on
//! (`card`), or by the oracle where they are on the CPU. What users see is in `gdn/_ops.py`.

mod arguments;
mod around;
mod array;
mod card;
mod error;
mod exchange;
mod inputs;
mod modules;
mod movement;
mod plan;
mod recurrence;
mod replay;
mod slots;
mod submit;

use pyo3::prelude::*;

#[pymodule]
fn _gdn(module: &Bound<PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_function(wrap_pyfunction!(recurrence::decode, module)?)?;
    module.add_function(wrap_pyfunction!(recurrence::recurrent, module)?)?;
    module.add_function(wrap_pyfunction!(around::conv1d_update, module)?)?;
    module.add_function(wrap_pyfunction!(around::gated_rmsnorm, module)?)?;
    module.add_function(wrap_pyfunction!(around::unpack_qkvz, module)?)?;
    module.add_function(wrap_pyfunction!(movement::copy_state, module)?)?;
    module.add_function(wrap_pyfunction!(movement::commit_state, module)?)?;
    module.add_function(wrap_pyfunction!(movement::convert_layout, module)?)?;
    module.add_function(wrap_pyfunction!(replay::replay_decode, module)?)?;
    module.add_function(wrap_pyfunction!(replay::replay_verify, module)?)?;
    module.add_function(wrap_pyfunction!(replay::replay_advance, module)?)?;
    module.add_function(wrap_pyfunction!(replay::replay_commit, module)?)?;
    module.add_function(wrap_pyfunction!(replay::replay_fold, module)?)?;
    module.add_function(wrap_pyfunction!(replay::materialise, module)?)?;
    module.add_function(wrap_pyfunction!(submit::begin_planning, module)?)?;
    module.add_function(wrap_pyfunction!(submit::end_planning, module)?)?;
    module.add_class::<plan::PyCaps>()?;
    module.add_class::<plan::PyPlan>()?;
    module.add_class::<slots::PySequence>()?;
    module.add_class::<slots::PySnapshot>()?;
    module.add_class::<slots::PySlotAllocator>()?;
    modules::add(module)
}
