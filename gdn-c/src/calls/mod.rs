//! The operations: a struct of arguments each, one function that runs it, and one that prepares it.

// Declared in the order of the header.
pub(crate) mod recurrence;

pub(crate) mod conv1d;

pub(crate) mod norm;

pub(crate) mod unpack;

pub(crate) mod movement;

pub(crate) mod replay;

#[cfg(test)]
mod tests;

use crate::context::gdn_context;
use crate::prepared::{gdn_launch, gdn_prepared};
use crate::read::{Versioned, not_null, read};
use crate::status::{Failure, gdn_status, guarded};
use gdn_host::Operation;
use gdn_host::driver::Stream;
use std::ffi::c_void;
use std::sync::Arc;

/// Of a call's `flags`: `null_slot` is an index that marks padding besides the negative ones (vLLM: 0).
pub const GDN_NULL_SLOT: u32 = 1;

/// A struct of arguments.
pub(crate) trait Call: Versioned {
    /// What gdn-host has for it.
    type Operation<'a>: Operation
    where
        Self: 'a;

    /// The operation.
    fn operation(&self) -> Result<Self::Operation<'_>, Failure>;
}

/// Checks, plans and launches; nothing is allocated.
///
/// # Safety
/// That of the function that calls it: the pointers are NULL or valid, and what `gdn_host::Gdn::run_with` asks.
unsafe fn run<C: Call>(
    context: *const gdn_context,
    call: *const C,
    launch: *const gdn_launch,
    stream: *mut c_void,
) -> gdn_status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let (context, call) = unsafe { (&*not_null(context, "the context")?, read(call)?) };
        let operation = call.operation()?;
        // SAFETY: as above.
        unsafe {
            let launch = gdn_launch::read(launch)?;
            context.run(&operation, launch, Stream::from_raw(stream))
        }
    })
}

/// Checks and plans, for many launches.
///
/// # Safety
/// The pointers are NULL or valid.
unsafe fn prepare<C: Call>(
    context: *const gdn_context,
    call: *const C,
    launch: *const gdn_launch,
    prepared: *mut *mut gdn_prepared,
) -> gdn_status {
    guarded(|| {
        not_null(prepared, "the place of the prepared call")?;
        // SAFETY: the caller's promise. A context that is not NULL is one that `gdn_context_create` made of an `Arc`.
        let (context, call) = unsafe {
            *prepared = std::ptr::null_mut();
            let context = not_null(context, "the context")?;
            Arc::increment_strong_count(context);
            (Arc::from_raw(context), read(call)?)
        };
        let operation = call.operation()?;
        // SAFETY: as above.
        unsafe {
            let made = gdn_prepared::new(context, &operation, gdn_launch::read(launch)?)?;
            *prepared = Box::into_raw(Box::new(made));
        }
        Ok(())
    })
}
