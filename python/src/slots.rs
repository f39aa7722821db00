//! The allocator of slots, for engines without one.

use crate::error::{argument, failed};
use gdn_host::slots::{Sequence, SlotAllocator, SlotError, Snapshot};
use pyo3::prelude::*;

fn refused(error: SlotError) -> PyErr {
    failed(error)
}

/// A sequence of an allocator.
#[pyclass(frozen, eq, hash, name = "Sequence", module = "gdn")]
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PySequence(Sequence);

#[pymethods]
impl PySequence {
    fn __repr__(&self) -> String {
        format!("{:?}", self.0)
    }
}

/// A state that is kept.
#[pyclass(frozen, eq, hash, name = "Snapshot", module = "gdn")]
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PySnapshot(Snapshot);

#[pymethods]
impl PySnapshot {
    fn __repr__(&self) -> String {
        format!("{:?}", self.0)
    }
}

/// Which slot each sequence has.
#[pyclass(name = "SlotAllocator", module = "gdn")]
pub struct PySlotAllocator(SlotAllocator);

fn inner(sequences: &[PyRef<PySequence>]) -> Vec<Sequence> {
    sequences.iter().map(|sequence| sequence.0).collect()
}

#[pymethods]
impl PySlotAllocator {
    #[new]
    #[pyo3(signature = (slots, null_slot=None))]
    fn new(slots: i64, null_slot: Option<i64>) -> PyResult<Self> {
        let number = |field, number: i64| {
            u32::try_from(number).map_err(|_| {
                argument(field, format!("{number} is not allowed, it must be 0 or more, and below 2^32"))
            })
        };
        let null_slot = null_slot.map(|slot| number("null_slot", slot)).transpose()?;
        Ok(PySlotAllocator(SlotAllocator::new(number("slots", slots)?, null_slot)))
    }

    #[getter]
    fn available(&self) -> usize {
        self.0.available()
    }

    fn begin(&mut self) -> PyResult<PySequence> {
        self.0.begin().map(PySequence).map_err(refused)
    }

    fn begin_at(&mut self, snapshot: &PySnapshot) -> PyResult<PySequence> {
        self.0.begin_at(snapshot.0).map(PySequence).map_err(refused)
    }

    fn fork(&mut self, sequence: &PySequence) -> PyResult<PySequence> {
        self.0.fork(sequence.0).map(PySequence).map_err(refused)
    }

    fn snapshot(&mut self, sequence: &PySequence) -> PyResult<PySnapshot> {
        self.0.snapshot(sequence.0).map(PySnapshot).map_err(refused)
    }

    fn hold(&mut self, snapshot: &PySnapshot) -> PyResult<()> {
        self.0.hold(snapshot.0).map_err(refused)
    }

    fn release(&mut self, snapshot: &PySnapshot) -> PyResult<()> {
        self.0.release(snapshot.0).map_err(refused)
    }

    /// The tables of a step: slots, write slots, and 1 where a sequence starts from zeros.
    fn step(&mut self, sequences: Vec<PyRef<PySequence>>) -> PyResult<(Vec<i32>, Vec<i32>, Vec<u32>)> {
        let tables = self.0.step(&inner(&sequences)).map_err(refused)?;
        // A list of numbers: bytes would become `bytes` in Python.
        let reset = tables.reset.into_iter().map(u32::from).collect();
        Ok((tables.slots, tables.write_slots, reset))
    }

    /// A sequence whose state comes from elsewhere, and the slot that it is to be copied into before the next step.
    fn receive(&mut self) -> PyResult<(PySequence, u32)> {
        self.0.receive().map(|(sequence, slot)| (PySequence(sequence), slot)).map_err(refused)
    }

    fn written(&mut self, sequences: Vec<PyRef<PySequence>>) -> PyResult<()> {
        self.0.written(&inner(&sequences)).map_err(refused)
    }

    fn park(&mut self, sequence: &PySequence) -> PyResult<u32> {
        self.0.park(sequence.0).map_err(refused)
    }

    fn resume(&mut self, sequence: &PySequence) -> PyResult<u32> {
        self.0.resume(sequence.0).map_err(refused)
    }

    fn finish(&mut self, sequence: &PySequence) -> PyResult<()> {
        self.0.finish(sequence.0).map_err(refused)
    }
}
