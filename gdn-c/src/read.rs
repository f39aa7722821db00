//! From the structs of C to those of gdn-host: what is read, and what is refused on the way.

use crate::status::{Failure, GDN_ERROR_NULL, GDN_ERROR_SIZE};
use std::ffi::{CStr, c_char};

/// A struct that callers fill, with its `size` first.
///
/// # Safety
/// The type is `repr(C)`, starts with a `u32`, and any bytes are a value of it.
pub(crate) unsafe trait Versioned: Copy {
    /// Its name in C.
    const NAME: &'static str;
    /// Its size in the first version of the library that had it; later versions add fields at the end.
    const FIRST_SIZE: usize;
}

/// Says that structs of the header are [`Versioned`]: `repr(C)`, with `size: u32` first, of integers, floats and pointers. They have
/// the fields of their first version.
macro_rules! versioned {
    ($($name:ident),*) => {
        $(
            const _: () = assert!(::core::mem::offset_of!($name, size) == 0);
            // SAFETY: as above.
            unsafe impl $crate::read::Versioned for $name {
                const NAME: &'static str = stringify!($name);
                const FIRST_SIZE: usize = size_of::<Self>();
            }
        )*
    };
}

pub(crate) use versioned;

/// Copies a struct out of the caller's memory; fields that the caller's header does not have yet are 0.
///
/// # Safety
/// `from` is NULL or points to a struct as long as its `size` says.
pub(crate) unsafe fn read<T: Versioned>(from: *const T) -> Result<T, Failure> {
    let name = T::NAME;
    if from.is_null() {
        return Err(Failure::new(GDN_ERROR_NULL, format!("the pointer to {name} is NULL")));
    }
    // SAFETY: the struct starts with its size, by `Versioned`; it may lie anywhere.
    let size = unsafe { from.cast::<u32>().read_unaligned() } as usize;
    let known = size_of::<T>();
    if !(T::FIRST_SIZE..=known).contains(&size) {
        let want =
            if T::FIRST_SIZE == known { format!("{known}") } else { format!("{} to {known}", T::FIRST_SIZE) };
        let message = format!("{name}.size: {size} is not allowed, it must be sizeof({name}), here {want}");
        return Err(Failure::new(GDN_ERROR_SIZE, message));
    }
    let mut value = std::mem::MaybeUninit::<T>::zeroed();
    // SAFETY: `size` bytes are there by the caller's promise, and `value` has room for them; any bytes are a `T`.
    unsafe {
        std::ptr::copy_nonoverlapping(from.cast::<u8>(), value.as_mut_ptr().cast::<u8>(), size);
        Ok(value.assume_init())
    }
}

/// A handle, or where a result goes.
pub(crate) fn not_null<T>(pointer: *const T, name: &str) -> Result<*const T, Failure> {
    if pointer.is_null() {
        return Err(Failure::new(GDN_ERROR_NULL, format!("{name} is NULL")));
    }
    Ok(pointer)
}

/// A text of the caller's.
///
/// # Safety
/// `text` is NULL or ends in a NUL.
pub(crate) unsafe fn text<'a>(text: *const c_char, field: &str) -> Result<&'a str, Failure> {
    not_null(text, field)?;
    // SAFETY: the caller's promise.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| Failure::argument(format!("{field}: the text is not UTF-8")))
}

/// Nothing but known bits.
pub(crate) fn check_flags(field: &str, have: u32, known: u32) -> Result<(), Failure> {
    match have & !known {
        0 => Ok(()),
        unknown => Err(Failure::argument(format!("{field}: {unknown:#x} is none of its bits ({known:#x})"))),
    }
}

/// A field without a meaning, here or yet.
pub(crate) fn check_zero<T: Copy + PartialEq + Default + std::fmt::Display>(
    field: &str,
    have: T,
    why: &str,
) -> Result<(), Failure> {
    if have == T::default() {
        return Ok(());
    }
    Err(Failure::argument(format!("{field}: {have} is not allowed, it must be 0: {why}")))
}

/// A field that is kept for later versions.
pub(crate) fn check_reserved<T: Copy + PartialEq + Default + std::fmt::Display>(
    field: &str,
    have: T,
) -> Result<(), Failure> {
    check_zero(field, have, "it is reserved")
}

/// One of several kinds.
pub(crate) fn unknown<T>(field: &str, have: u32, want: &str) -> Result<T, Failure> {
    Err(Failure::argument(format!("{field}: {have} is not known, it must be {want}")))
}

/// A number of which 0 stands for a default.
pub(crate) fn or_default(have: f32, default: f32) -> f32 {
    if have == 0.0 { default } else { have }
}

/// `null_slot`, which counts if its flag is set.
pub(crate) fn null_slot(is_set: bool, have: i32) -> Result<Option<i32>, Failure> {
    if is_set {
        return Ok(Some(have));
    }
    check_zero("null_slot", have, "GDN_NULL_SLOT is not set").map(|()| None)
}
