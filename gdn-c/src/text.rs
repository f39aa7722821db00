//! Texts that are written into memory of the caller's.

use std::ffi::c_char;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// As `snprintf`: at most `size` bytes, the last of them a NUL; the length of the whole text.
///
/// # Safety
/// `buffer` is NULL or has `size` bytes.
pub(crate) unsafe fn write_text(
    buffer: *mut c_char,
    size: usize,
    text: impl FnOnce() -> Option<String>,
) -> usize {
    let text = catch_unwind(AssertUnwindSafe(text)).ok().flatten().unwrap_or_default();
    if !buffer.is_null() && size > 0 {
        let len = text.len().min(size - 1);
        // SAFETY: `len + 1` bytes are there, by the caller's promise.
        unsafe {
            buffer.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), len);
            buffer.add(len).write(0);
        }
    }
    text.len()
}
