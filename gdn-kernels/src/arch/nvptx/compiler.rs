//! What the compiler is not to know.

use core::arch::asm;

/// `x`, without what the compiler knows of it: a loop over an opaque counter is not peeled, which would double
/// the text of a kernel.
#[inline(always)]
pub(crate) fn opaque(mut x: u32) -> u32 {
    // SAFETY: no instruction at all.
    unsafe { asm!("// {x}", x = inout(reg32) x, options(nomem, nostack)) };
    x
}
