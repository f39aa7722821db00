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

/// A message of gdn-host, which begins with the field, and may end in another.
fn renamed(message: &str, name: impl Fn(&str) -> String) -> String {
    let Some((field, rest)) = message.split_once(": ") else { return message.to_owned() };
    let rest = match rest.split_once(SHARES) {
        Some((front, other)) => format!("{front}{SHARES}{}", name(other)),
        None => rest.to_owned(),
    };
    format!("{}: {rest}", name(field))
}

/// What stands between the fields of two arguments that overlap.
const SHARES: &str = "shares memory with ";

/// The same refusal by the names that one function's arguments have.
pub fn with_names(py: Python, error: PyErr, names: &[(&str, &str)]) -> PyErr {
    let name = |field: &str| {
        let named = names.iter().find(|(call, _)| *call == field).map(|(_, python)| *python);
        named.unwrap_or(field).to_owned()
    };
    let message = renamed(&error.value(py).to_string(), name);
    PyErr::from_type(error.get_type(py), message)
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
    let message = renamed(&error.to_string(), |field| python_name(field).to_owned());
    raise(&ARGUMENT, "ArgumentError", message)
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
