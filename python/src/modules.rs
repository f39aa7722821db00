//! Loading modules before they are needed, and telling what there is.

use crate::array::know_torch_types;
use crate::card::card;
use crate::error::{argument, failed, not_loaded};
use crate::exchange::know_classes;
use gdn_host::driver::{Device, Driver};
use gdn_host::{MODELS, all_modules};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyModule, PyTuple};

/// Loads modules by name on a GPU.
#[pyfunction]
fn load(py: Python, device: i64, names: Vec<String>) -> PyResult<()> {
    let known = all_modules();
    let card = card(device)?;
    for name in names {
        let key = known.iter().find(|key| key.to_string() == name);
        let key = *key.ok_or_else(|| argument("modules", format!("there is no module {name}")))?;
        py.detach(|| card.load(key)).map_err(|error| not_loaded(&error))?;
    }
    Ok(())
}

/// Names of the modules that the wheel has.
#[pyfunction]
fn modules() -> Vec<String> {
    all_modules().iter().map(ToString::to_string).collect()
}

/// Files that were loaded on a GPU.
#[pyfunction]
fn loaded(device: i64) -> PyResult<Vec<&'static str>> {
    let mut files: Vec<_> = card(device)?.gdn().files().map(|file| file.name).collect();
    files.sort_unstable();
    Ok(files)
}

/// What is known of a GPU.
#[pyfunction]
fn caps(device: i64) -> PyResult<(u32, u32, u32)> {
    let gdn = card(device)?.gdn();
    let caps = gdn.caps();
    Ok((caps.sms, caps.compute, caps.memory_gbps))
}

/// The driver's CUDA version and the number of GPUs.
#[pyfunction]
fn driver() -> PyResult<((u32, u32), u32)> {
    let version = Driver::open().and_then(Driver::version).map_err(failed)?;
    Ok((version, Device::count().map_err(failed)?))
}

/// Name, whether it is KDA, and heads H, HV, K, V of each published model.
#[pyfunction]
fn models() -> Vec<(&'static str, bool, u32, u32, u32, u32)> {
    let of = |model: &gdn_host::Model| {
        let shape = model.shape;
        (model.name, model.family == gdn_host::Family::Kda, shape.h, shape.hv, shape.k, shape.v)
    };
    MODELS.iter().map(of).collect()
}

/// Tells torch's types apart, and which classes are its tensors.
#[pyfunction]
fn torch_types(py: Python, types: &Bound<PyDict>, tensors: &Bound<PyTuple>) -> PyResult<()> {
    know_torch_types(py, types)?;
    know_classes(py, tensors)
}

pub fn add(module: &Bound<PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(load, module)?)?;
    module.add_function(wrap_pyfunction!(modules, module)?)?;
    module.add_function(wrap_pyfunction!(loaded, module)?)?;
    module.add_function(wrap_pyfunction!(caps, module)?)?;
    module.add_function(wrap_pyfunction!(driver, module)?)?;
    module.add_function(wrap_pyfunction!(models, module)?)?;
    module.add_function(wrap_pyfunction!(torch_types, module)?)
}
