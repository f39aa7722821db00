//! Status codes, the last message of a thread, and the border that no panic crosses.

use gdn_host::driver::DriverError;
use gdn_host::{Error, LoadError};
use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a function returns: `GDN_OK`, or why it did nothing. `gdn_last_error` has the sentence.
pub type gdn_status = i32;

/// Done.
pub const GDN_OK: gdn_status = 0;
/// A pointer argument or a handle is NULL.
pub const GDN_ERROR_NULL: gdn_status = 1;
/// The `size` of a struct is none that this library knows: header and library are of different versions, or it was not set.
pub const GDN_ERROR_SIZE: gdn_status = 2;
/// An argument is wrong. The message names the field and its value; nothing was launched and no memory touched.
pub const GDN_ERROR_ARGUMENT: gdn_status = 3;
/// The tile that was asked for does not exist, or the call has more blocks than a grid.
pub const GDN_ERROR_PLAN: gdn_status = 4;
/// The module that the call needs is not among those that the context was made with, or the context only plans.
pub const GDN_ERROR_NOT_LOADED: gdn_status = 5;
/// There is no such module, none for this GPU, or its file is missing or damaged.
pub const GDN_ERROR_MODULE: gdn_status = 6;
/// There is no NVIDIA driver, it is too old, or it finds no GPU.
pub const GDN_ERROR_NO_DRIVER: gdn_status = 7;
/// The thread has no current CUDA context, or another one than the kernels were loaded in.
pub const GDN_ERROR_CUDA_CONTEXT: gdn_status = 8;
/// The driver refused; the cause may be an earlier kernel.
pub const GDN_ERROR_DRIVER: gdn_status = 9;
/// The table of choices cannot be read or is wrong. The message names file, line and field.
pub const GDN_ERROR_TUNING: gdn_status = 10;
/// A fault of the library. Please report its message.
pub const GDN_ERROR_INTERNAL: gdn_status = 11;

/// Every status, and its name.
const NAMES: [(gdn_status, &CStr); 12] = [
    (GDN_OK, c"GDN_OK"),
    (GDN_ERROR_NULL, c"GDN_ERROR_NULL"),
    (GDN_ERROR_SIZE, c"GDN_ERROR_SIZE"),
    (GDN_ERROR_ARGUMENT, c"GDN_ERROR_ARGUMENT"),
    (GDN_ERROR_PLAN, c"GDN_ERROR_PLAN"),
    (GDN_ERROR_NOT_LOADED, c"GDN_ERROR_NOT_LOADED"),
    (GDN_ERROR_MODULE, c"GDN_ERROR_MODULE"),
    (GDN_ERROR_NO_DRIVER, c"GDN_ERROR_NO_DRIVER"),
    (GDN_ERROR_CUDA_CONTEXT, c"GDN_ERROR_CUDA_CONTEXT"),
    (GDN_ERROR_DRIVER, c"GDN_ERROR_DRIVER"),
    (GDN_ERROR_TUNING, c"GDN_ERROR_TUNING"),
    (GDN_ERROR_INTERNAL, c"GDN_ERROR_INTERNAL"),
];

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

/// The message of the calling thread's last failed call; empty if none has failed. A call that succeeds leaves it as it is.
/// The text belongs to the library and holds until the next call of this thread that fails.
#[unsafe(no_mangle)]
pub extern "C" fn gdn_last_error() -> *const c_char {
    LAST.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

/// The name of a status, such as `GDN_ERROR_ARGUMENT`; `unknown status` for any other number.
#[unsafe(no_mangle)]
pub extern "C" fn gdn_status_name(status: gdn_status) -> *const c_char {
    let found = NAMES.iter().find(|(of, _)| *of == status);
    found.map_or(c"unknown status", |(_, name)| name).as_ptr()
}

/// Why a call did nothing.
#[derive(Debug, PartialEq)]
pub(crate) struct Failure {
    pub(crate) status: gdn_status,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(status: gdn_status, message: impl Into<String>) -> Failure {
        Failure { status, message: message.into() }
    }

    /// A wrong argument; the message starts with the field.
    pub(crate) fn argument(message: impl Into<String>) -> Failure {
        Failure::new(GDN_ERROR_ARGUMENT, message)
    }

    fn record(self) -> gdn_status {
        let text = CString::new(self.message.replace('\0', " ")).unwrap_or_default();
        let _ = LAST.try_with(|last| last.replace(text));
        self.status
    }
}

impl From<DriverError> for Failure {
    fn from(error: DriverError) -> Failure {
        let status = match error {
            DriverError::Missing { .. } | DriverError::MissingSymbol { .. } | DriverError::Init { .. } => {
                GDN_ERROR_NO_DRIVER
            }
            DriverError::NoContext | DriverError::OtherContext { .. } => GDN_ERROR_CUDA_CONTEXT,
            _ => GDN_ERROR_DRIVER,
        };
        Failure::new(status, error.to_string())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let status = match error {
            Error::Call(_) => GDN_ERROR_ARGUMENT,
            Error::Plan(_) => GDN_ERROR_PLAN,
            Error::NotLoaded(key) => {
                let message = format!("{key} was not loaded: name it when the context is made");
                return Failure::new(GDN_ERROR_NOT_LOADED, message);
            }
            Error::Driver(error) => return error.into(),
        };
        Failure::new(status, error.to_string())
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Failure {
        let status = match &error {
            LoadError::Tuning { .. } | LoadError::TuningFile { .. } => GDN_ERROR_TUNING,
            LoadError::Driver { source, .. } => Failure::from(source.clone()).status,
            LoadError::Unsupported { .. }
            | LoadError::Unknown { .. }
            | LoadError::NoBinary { .. }
            | LoadError::File(_) => GDN_ERROR_MODULE,
        };
        Failure::new(status, error.to_string())
    }
}

/// Runs what a function does; a failure becomes its status and the thread's message, and so does a panic.
pub(crate) fn guarded(work: impl FnOnce() -> Result<(), Failure>) -> gdn_status {
    let done = catch_unwind(AssertUnwindSafe(work));
    match done.unwrap_or_else(|panic| Err(Failure::new(GDN_ERROR_INTERNAL, panic_text(&*panic)))) {
        Ok(()) => GDN_OK,
        Err(failure) => failure.record(),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("a fault of libgdn: {}", text.unwrap_or("a panic without a text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last() -> String {
        // SAFETY: the text holds until this thread's next failure.
        unsafe { CStr::from_ptr(gdn_last_error()) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn panic_becomes_a_status_and_a_message() {
        assert_eq!(guarded(|| panic!("slot {} of {}", 3, 2)), GDN_ERROR_INTERNAL);
        assert_eq!(last(), "a fault of libgdn: slot 3 of 2");
        assert_eq!(guarded(|| panic!("plain")), GDN_ERROR_INTERNAL);
        assert_eq!(last(), "a fault of libgdn: plain");
        assert_eq!(guarded(|| std::panic::panic_any(7)), GDN_ERROR_INTERNAL);
        assert_eq!(last(), "a fault of libgdn: a panic without a text");
    }

    #[test]
    fn message_is_the_threads_own_and_success_leaves_it() {
        assert_eq!(last(), "");
        let refuse = || guarded(|| Err(Failure::argument("q: a\0b")));
        assert_eq!(refuse(), GDN_ERROR_ARGUMENT);
        assert_eq!(guarded(|| Ok(())), GDN_OK);
        std::thread::scope(|scope| scope.spawn(|| assert_eq!(last(), "")).join().unwrap());
        assert_eq!(last(), "q: a b");
    }

    #[test]
    fn every_status_has_its_name_and_its_number() {
        for (number, (status, name)) in NAMES.iter().enumerate() {
            assert_eq!(*status, number as gdn_status);
            // SAFETY: a static text.
            assert_eq!(unsafe { CStr::from_ptr(gdn_status_name(*status)) }, *name);
        }
        // SAFETY: a static text.
        assert_eq!(unsafe { CStr::from_ptr(gdn_status_name(99)) }, c"unknown status");
    }

    #[test]
    fn errors_of_the_driver_keep_their_kind() {
        let status = |error: DriverError| Failure::from(error).status;
        assert_eq!(status(DriverError::Missing { tried: Vec::new() }), GDN_ERROR_NO_DRIVER);
        assert_eq!(status(DriverError::NoContext), GDN_ERROR_CUDA_CONTEXT);
        assert_eq!(status(DriverError::OtherContext { current: 1, loaded: 2 }), GDN_ERROR_CUDA_CONTEXT);
        let call = || DriverError::Call {
            function: "cuLaunchKernel",
            code: 700,
            name: String::new(),
            description: String::new(),
        };
        assert_eq!(status(call()), GDN_ERROR_DRIVER);
        let load = LoadError::Driver { what: "current context".into(), source: DriverError::NoContext };
        assert_eq!(Failure::from(load).status, GDN_ERROR_CUDA_CONTEXT);
        assert_eq!(Failure::from(Error::Driver(call())).status, GDN_ERROR_DRIVER);
    }
}
