//! The calls on memory of this process, by the oracle: for tests, and for machines without a GPU.
//!
//! [`run`] takes the very calls that [`Gdn`](crate::Gdn) launches, with addresses of host memory. It checks them as a launch
//! does, reads what they name, works it out in f64 as this module's other files say, and rounds where kernels store. Between two
//! tokens a running state is rounded to f32, since kernels hold it so: T tokens give the bits of T decodes here, too.
//! The bits of a GPU it does not give: the order of sums is another one.
//!
//! It is slow and has one thread. Each operation has a file.

mod conv1d;
mod memory;
mod movement;
mod norm;
mod recurrence;
mod replay;

use crate::call::{CallError, Operation};

/// Checks a call and runs it on memory of this process.
///
/// # Errors
/// What [`Operation::check`] refuses; nothing was written.
///
/// # Safety
/// The addresses of `call` are memory of this process of the lengths the call states, exposed
/// (`pointer::expose_provenance`), initialised where the call reads, writable where it writes, and nobody else works on
/// them until this returns.
pub unsafe fn run(call: &dyn Operation) -> Result<(), CallError> {
    call.check()?;
    if !call.is_empty() {
        // SAFETY: the caller's promise; the call was checked.
        unsafe { call.run_on_host() };
    }
    Ok(())
}
