//! Errors as Python sees them: exceptions of `gdn`, with the names that Python's arguments have.

use gdn_host::{CallError, Error, LoadError};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;
use std::fmt::Display;

/// Names of a call's fields that are others in Python.
const NAMES: [(&str, &str); 29] = [
    ("intermediate.parent", "parents"),
    ("intermediate.row", "intermediate_rows"),
    ("tokens.cu_seqlens", "cu_seqlens"),
    ("decay.threshold", "softplus_threshold"),
    ("decay.dt_bias", "dt_bias"),
    ("decay.a_log", "A_log"),
    ("decay.bound", "lower_bound"),
    ("decay.given", "g"),
    ("decay.beta", "softplus_beta"),
    ("decay.a", "a"),
    ("source.accepted", "accepted"),
    ("source.slots", "slots"),
    ("target.slots", "write_slots"),
    ("beta.given", "beta"),
    ("beta.b", "b"),
    ("pool.rings.records", "records"),
    ("pool.rings.k", "pool.k"),
    ("pool.rings.d", "pool.d"),
    ("pool.rings.g", "pool.g"),
    ("pool.cursors.base", "pool.base"),
    ("pool.cursors.len", "pool.length"),
    ("pool.cursors", "pool.base"),
    ("pool.slots", "slots"),
    ("pool.start", "reset or has_initial_state"),
    ("pool.force", "force"),
    ("pool.most", "most"),
    ("parent", "parents"),
    ("layers.table", "layers"),
    ("start", "reset or has_initial_state"),
];

/// The field of a call as Python's argument.
pub fn python_name(field: &str) -> &str {
    let named = NAMES.iter().find(|(rust, _)| *rust == field).map(|(_, python)| *python);
    named.unwrap_or(field)
}

/// A message of gdn-host, which begins with the field.
fn renamed(message: &str) -> String {
    match message.split_once(": ") {
        Some((field, rest)) => format!("{}: {rest}", python_name(field)),
        None => message.to_owned(),
    }
}

static ARGUMENT: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static RUNTIME: PyOnceLock<Py<PyType>> = PyOnceLock::new();

fn raise(cell: &'static PyOnceLock<Py<PyType>>, class: &str, message: String) -> PyErr {
    Python::attach(|py| match cell.import(py, "gdn._errors", class) {
        Ok(class) => PyErr::from_type(class.clone(), message),
        Err(_) => PyRuntimeError::new_err(message),
    })
}

/// `gdn.ArgumentError`: an argument that a call does not take.
pub fn argument(field: &str, problem: impl Display) -> PyErr {
    raise(&ARGUMENT, "ArgumentError", format!("{}: {problem}", python_name(field)))
}

/// `gdn.Error`: what is no argument's fault.
pub fn failed(problem: impl Display) -> PyErr {
    raise(&RUNTIME, "Error", problem.to_string())
}

/// A call that was refused.
pub fn refused(error: &CallError) -> PyErr {
    raise(&ARGUMENT, "ArgumentError", renamed(&error.to_string()))
}

/// A launch that was not made.
pub fn not_launched(error: &Error) -> PyErr {
    match error {
        Error::Call(error) => refused(error),
        Error::Plan(error) => raise(&ARGUMENT, "ArgumentError", error.to_string()),
        Error::NotLoaded(_) | Error::Driver(_) => failed(error),
    }
}

/// Kernels that could not be loaded.
pub fn not_loaded(error: &LoadError) -> PyErr {
    failed(error)
}
