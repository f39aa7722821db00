//! `libgdn`: the calls of [`gdn_host`] with the names, structs and status codes of C.
//!
//! `include/gdn.h` is made from these files by `cargo xtask c-header`; types and functions bear their names in C, and their
//! documentation is the header's. A function reads a struct of the caller's (`read`), makes the call of gdn-host of it
//! (`calls`), and turns what comes of it into a status and a message (`status`). Checks, plans and launches are
//! gdn-host's.
//!
//! Handles are the only state: `gdn_context` is an [`Arc`](std::sync::Arc) of loaded kernels, `gdn_prepared` holds one.
#![warn(missing_docs)]
#![allow(non_camel_case_types)]
// The header's introduction says once what every pointer has to be.
#![allow(clippy::missing_safety_doc)]

// Declared in the order of the header.
mod status;

mod memory;

mod inputs;

mod states;

mod key;

mod context;

mod prepared;

mod calls;

// Not in the header.
mod read;
mod text;

pub use calls::GDN_NULL_SLOT;
pub use calls::conv1d::*;
pub use calls::movement::*;
pub use calls::norm::*;
pub use calls::recurrence::*;
pub use calls::replay::layers::*;
pub use calls::replay::step::*;
pub use calls::replay::*;
pub use calls::unpack::*;
pub use context::*;
pub use inputs::*;
pub use key::*;
pub use memory::*;
pub use prepared::*;
pub use states::*;
pub use status::*;

use std::ffi::c_char;

/// The version of this interface that a program was compiled for. A library of another one refuses its structs or lacks its
/// functions: compare with `gdn_abi_version()`.
pub const GDN_ABI_VERSION: u32 = 1;

/// The version of this interface that the library has. It is the number behind `libgdn.so.`, too.
#[unsafe(no_mangle)]
pub extern "C" fn gdn_abi_version() -> u32 {
    GDN_ABI_VERSION
}

/// The version of gdn: `0.1.0`.
#[unsafe(no_mangle)]
pub extern "C" fn gdn_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
