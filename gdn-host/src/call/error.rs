//! What a call is refused with.

use crate::shape::ShapeError;
use thiserror::Error;

/// A call that cannot be launched. Nothing was launched and no memory was touched.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum CallError {
    /// The head shape.
    #[error("shape: {0}")]
    Shape(#[from] ShapeError),
    /// A null address where memory is needed.
    #[error("{field}: the address is null")]
    Null {
        /// Argument.
        field: &'static str,
    },
    /// An address off its alignment.
    #[error("{field}: address {address:#x} is not aligned to {align} bytes")]
    Misaligned {
        /// Argument.
        field: &'static str,
        /// Device address.
        address: u64,
        /// Bytes.
        align: u64,
    },
    /// A stride or pitch off its alignment.
    #[error("{field}: stride of {stride} elements ({bytes} bytes) is not a multiple of {align} bytes")]
    MisalignedStride {
        /// Argument.
        field: &'static str,
        /// Elements.
        stride: u64,
        /// The same in bytes.
        bytes: u64,
        /// Bytes.
        align: u64,
    },
    /// A stride or pitch smaller than what it steps over, or larger than 32 bits.
    #[error("{field}: stride {stride} is outside {min}..={max} elements")]
    Stride {
        /// Argument.
        field: &'static str,
        /// Elements.
        stride: u64,
        /// Elements of a row or slot.
        min: u64,
        /// Largest stride.
        max: u64,
    },
    /// Rows that no stride can step over.
    #[error("{field}: rows of {width} elements are longer than the largest stride, {max}")]
    RowTooLong {
        /// Argument.
        field: &'static str,
        /// Elements of a row.
        width: u64,
        /// Largest stride.
        max: u64,
    },
    /// A length that no memory has, from this address on.
    #[error("{field}: {need} elements from address {address:#x} on reach past the last address")]
    PastTheLastAddress {
        /// Argument.
        field: &'static str,
        /// Device address.
        address: u64,
        /// Elements needed.
        need: u64,
    },
    /// A tensor shorter than what the call touches.
    #[error("{field}: has {have} elements, the call touches {need}")]
    TooShort {
        /// Argument.
        field: &'static str,
        /// Elements needed.
        need: u64,
        /// Elements there.
        have: u64,
    },
    /// A table of another length than the call needs.
    #[error("{field}: has {have} rows, the call needs {need}")]
    TableLength {
        /// Argument.
        field: &'static str,
        /// Rows there.
        have: u64,
        /// Rows needed.
        need: u64,
    },
    /// A table whose rows have another number of entries than the call needs.
    #[error("{field}: has rows of {have} entries, the call needs {need}")]
    TableColumns {
        /// Argument.
        field: &'static str,
        /// Entries of a row.
        have: u64,
        /// Entries needed.
        need: u64,
    },
    /// A type of element or entry that the operation does not take there.
    #[error("{field}: type {have} does not fit, expected {want}")]
    Type {
        /// Argument.
        field: &'static str,
        /// Its type.
        have: &'static str,
        /// What would fit.
        want: &'static str,
    },
    /// A number outside its range.
    #[error("{field}: {value} is not allowed, it must be {want}")]
    Value {
        /// Argument.
        field: &'static str,
        /// Its value.
        value: f64,
        /// What would fit.
        want: &'static str,
    },
    /// Two arguments that do not go together.
    #[error("{field}: {problem}")]
    Combination {
        /// Argument.
        field: &'static str,
        /// What does not fit.
        problem: &'static str,
    },
    /// A buffer the call writes that shares memory with another of its buffers.
    #[error("{written}: shares memory with {other}")]
    Overlap {
        /// Argument that is written.
        written: &'static str,
        /// The other argument.
        other: &'static str,
    },
}
