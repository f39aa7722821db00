//! The arguments of an operation, in the order of its schema.

use crate::array::{Array, Reader};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

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

    /// A number, a flag, or one that may be None.
    pub fn get<T: for<'b> FromPyObject<'b, 'py, Error: Into<PyErr>>>(&mut self) -> PyResult<T> {
        self.next()?.extract().map_err(Into::into)
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

    /// The device that the tensors are on.
    pub fn device(&self) -> i64 {
        self.reader.device()
    }
}
