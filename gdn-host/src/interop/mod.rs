//! Handles from the types of other wrappers, one feature each.
//!
//! All of them share the device's primary context, so an address or a stream of one is valid to the others.
//! Make that context current on the calling thread (both crates do when they create it), load a
//! [`Gdn`](crate::Gdn), and build calls from the tensors these functions return.

use gdn_kernels::abi::{DType, Entry};

#[cfg(feature = "cudarc")]
pub mod cudarc;
#[cfg(feature = "cust")]
pub mod cust;

/// A host type that is an element type of the kernels.
pub trait Element {
    /// Its name in the ABI.
    const DTYPE: DType;
}

impl Element for f32 {
    const DTYPE: DType = DType::F32;
}

impl Element for half::bf16 {
    const DTYPE: DType = DType::Bf16;
}

impl Element for half::f16 {
    const DTYPE: DType = DType::F16;
}

mod sealed {
    pub trait Sealed {}
}

/// A host type that is an entry of the kernels' tables: `i32`, `u32`, `i64`, `u8` and `bool`. Nothing else is: a slice of
/// floats is no table.
pub trait TableEntry: sealed::Sealed {
    /// Its name in the ABI.
    const ENTRY: Entry;
}

macro_rules! table_entries {
    ($($ty:ty: $entry:ident),*) => {$(
        impl sealed::Sealed for $ty {}

        impl TableEntry for $ty {
            const ENTRY: Entry = Entry::$entry;
        }
    )*};
}
table_entries!(i32: I32, u32: U32, i64: I64, u8: U8, bool: U8);
