//! The arguments of an operation, in the order of its schema.

use crate::array::{Array, Reader};
use crate::error::argument;
use crate::submit::submit;
use gdn_host::{Launch, Operation};
use pyo3::exceptions::{PyOverflowError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyTuple};

/// Reads an operation's arguments one after the other. The last one is always the stream.
pub struct Arguments<'a, 'py> {
    tuple: &'a Bound<'py, PyTuple>,
    at: usize,
    reader: Reader,
}

impl<'a, 'py> Arguments<'a, 'py> {
    pub fn new(tuple: &'a Bound<'py, PyTuple>) -> Self {
        Arguments { tuple, at: 0, reader: Reader::new() }
    }

    fn next(&mut self) -> PyResult<Borrowed<'a, 'py, PyAny>> {
        let item = self.tuple.get_borrowed_item(self.at);
        self.at += 1;
        item.map_err(|_| PyTypeError::new_err("an argument is missing"))
    }

    /// A number, or one that may be None. Python takes True for 1, which here is none.
    pub fn number<T: for<'b> FromPyObject<'b, 'py>>(&mut self, field: &str) -> PyResult<T> {
        let item = self.next()?;
        if item.is_instance_of::<PyBool>() {
            return Err(not_allowed(field, &item, "a number"));
        }
        item.extract().map_err(|problem| {
            let is_known = Into::<PyErr>::into(problem).is_instance_of::<PyOverflowError>(item.py());
            not_allowed(field, &item, if is_known { "nearer to 0" } else { "a number" })
        })
    }

    /// True or False.
    pub fn flag(&mut self, field: &str) -> PyResult<bool> {
        let item = self.next()?;
        item.extract().map_err(|_| not_allowed(field, &item, "True or False"))
    }

    /// A list of addresses.
    pub fn addresses(&mut self, field: &str) -> PyResult<Vec<u64>> {
        let item = self.next()?;
        item.extract().map_err(|_| not_allowed(field, &item, "a list of addresses"))
    }

    /// A tensor that is only read.
    pub fn tensor(&mut self, field: &'static str) -> PyResult<Array> {
        let item = self.next()?;
        self.reader.read(field, &item)
    }

    /// A tensor that is written.
    pub fn written(&mut self, field: &'static str) -> PyResult<Array> {
        let item = self.next()?;
        self.reader.write(field, &item)
    }

    /// A tensor that may be None.
    pub fn optional(&mut self, field: &'static str) -> PyResult<Option<Array>> {
        let item = self.next()?;
        if item.is_none() { Ok(None) } else { self.reader.read(field, &item).map(Some) }
    }

    /// A tensor that is written, or None.
    pub fn optional_written(&mut self, field: &'static str) -> PyResult<Option<Array>> {
        let item = self.next()?;
        if item.is_none() { Ok(None) } else { self.reader.write(field, &item).map(Some) }
    }

    /// A list of tensors, which are written.
    pub fn list(&mut self, field: &'static str) -> PyResult<Vec<Array>> {
        let list = self.next()?;
        list.try_iter()?.map(|item| self.reader.write(field, &item?)).collect()
    }

    /// Makes the call on the device that its tensors are on. The last argument is torch's stream.
    pub fn submit<C: Operation + Sync>(mut self, py: Python, call: &C, launch: Launch) -> PyResult<()> {
        let stream = self.next()?.extract()?;
        submit(py, call, self.reader.device(), launch, stream)
    }
}

/// Refuses what is no such thing.
fn not_allowed(field: &str, item: &Bound<PyAny>, want: &str) -> PyErr {
    let shown = item.repr().map_or_else(|_| "this".into(), |text| text.to_string());
    argument(field, format!("{shown} is not allowed, it must be {want}"))
}
