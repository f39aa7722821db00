//! Programmatic dependent launch, which there is from sm_90 on; elsewhere and in a plain launch these do nothing.

/// Waits until the predecessor in the stream is done and its writes are visible.
#[inline(always)]
pub(crate) unsafe fn wait() {
    // SAFETY: it only waits.
    #[cfg(target_feature = "sm_90")]
    unsafe {
        core::arch::asm!("griddepcontrol.wait;", options(nostack));
    }
}

/// Lets the successor in the stream start, if it was launched so; it still waits for this grid's end.
#[inline(always)]
pub(crate) unsafe fn launch_dependents() {
    // SAFETY: it touches no memory.
    #[cfg(target_feature = "sm_90")]
    unsafe {
        core::arch::asm!("griddepcontrol.launch_dependents;", options(nostack));
    }
}
