//! What `cuda_std` expects of its backend: three functions that Rust-CUDA's own links from LLVM IR, and rustc's does not.
//!
//! `cuda_std` declares them by these names. They are in the crate of the kernels, so that LLVM sees both sides and
//! leaves no call.

use core::arch::asm;

/// The block barrier behind `cuda_std::thread::sync_threads`.
#[unsafe(no_mangle)]
unsafe extern "C" fn __nvvm_block_barrier() {
    // SAFETY: the caller brings all threads here.
    unsafe { core::arch::nvptx::_syncthreads() }
}

/// What a shuffle gives: the value, and whether the lane that it was asked of is one of the segment.
#[repr(C)]
struct Shuffled {
    value: u32,
    in_range: u8,
}

/// The warp shuffle behind `cuda_std::warp::warp_shuffle_*`; `mode` is a constant wherever that is inlined.
#[unsafe(no_mangle)]
unsafe extern "C" fn __nvvm_warp_shuffle(mask: u32, mode: u32, value: u32, lane: u32, control: u32) -> Shuffled {
    macro_rules! shuffle {
        ($mode:literal) => {{
            let (result, in_range): (u32, u32);
            // SAFETY: the caller converges the lanes of `mask`; the exchange touches no memory.
            unsafe {
                asm!(
                    "{{ .reg .pred p;",
                    concat!("shfl.sync.", $mode, ".b32 {result}|p, {value}, {lane}, {control}, {mask};"),
                    "selp.u32 {in_range}, 1, 0, p; }}",
                    result = out(reg32) result,
                    in_range = out(reg32) in_range,
                    value = in(reg32) value,
                    lane = in(reg32) lane,
                    control = in(reg32) control,
                    mask = in(reg32) mask,
                    options(nomem, nostack),
                );
            }
            Shuffled { value: result, in_range: in_range as u8 }
        }};
    }
    match mode {
        0 => shuffle!("idx"),
        1 => shuffle!("up"),
        2 => shuffle!("down"),
        _ => shuffle!("bfly"),
    }
}

/// The end of `cuda_std`'s panic handler. Kernels do not panic: the linter of the build finds no call of it.
#[unsafe(no_mangle)]
unsafe extern "C" fn __nvvm_trap() -> ! {
    // SAFETY: it ends the launch.
    unsafe { core::arch::nvptx::trap() }
}
