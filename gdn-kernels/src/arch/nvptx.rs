//! The seam on NVIDIA GPUs, through rustc's own `nvptx64-nvidia-cuda` backend.
//!
//! Memory operations are written as inline PTX: it names the state space, so that no generic load appears,
//! fixes the vector width, and carries cache hints that no intrinsic offers. They are left volatile on
//! purpose (no `pure`): the order of the source is the order in which loads are issued, and the kernels
//! rely on that to have a whole tile in flight before anything waits. Shuffles and barriers must never be
//! `pure`: they are what the lanes converge on.

/// Indices of the running thread and the block barrier.
pub(crate) mod thread {
    use core::arch::nvptx::{
        _block_dim_x, _block_idx_x, _block_idx_y, _block_idx_z, _grid_dim_y, _syncthreads, _thread_idx_x,
    };

    #[inline(always)]
    pub(crate) fn thread_idx_x() -> u32 {
        // SAFETY: reading a special register has no precondition.
        unsafe { _thread_idx_x() as u32 }
    }

    #[inline(always)]
    pub(crate) fn block_dim_x() -> u32 {
        // SAFETY: as above.
        unsafe { _block_dim_x() as u32 }
    }

    #[inline(always)]
    pub(crate) fn block_idx_x() -> u32 {
        // SAFETY: as above.
        unsafe { _block_idx_x() as u32 }
    }

    #[inline(always)]
    pub(crate) fn block_idx_y() -> u32 {
        // SAFETY: as above.
        unsafe { _block_idx_y() as u32 }
    }

    #[inline(always)]
    pub(crate) fn block_idx_z() -> u32 {
        // SAFETY: as above.
        unsafe { _block_idx_z() as u32 }
    }

    #[inline(always)]
    pub(crate) fn grid_dim_y() -> u32 {
        // SAFETY: as above.
        unsafe { _grid_dim_y() as u32 }
    }

    /// Block barrier. Every thread of the block must reach it.
    #[inline(always)]
    pub(crate) unsafe fn sync_threads() {
        // SAFETY: the caller brings all threads here.
        unsafe { _syncthreads() }
    }
}

/// Programmatic dependent launch, which there is from sm_90 on; elsewhere and in a plain launch these do nothing.
pub(crate) mod grid {
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
}

/// Exchange among the 32 lanes of a warp.
pub(crate) mod warp {
    use core::arch::asm;

    /// The value of lane `lane ^ mask`. All 32 lanes must call it together with the same mask.
    #[inline(always)]
    pub(crate) unsafe fn shuffle_xor(value: f32, mask: u32) -> f32 {
        let mut bits = value.to_bits();
        // SAFETY: the caller converges the warp; the exchange touches no memory.
        unsafe {
            asm!(
                "shfl.sync.bfly.b32 {bits}, {bits}, {mask}, 0x1f, 0xffffffff;",
                bits = inout(reg32) bits,
                mask = in(reg32) mask,
                options(nomem, nostack),
            );
        }
        f32::from_bits(bits)
    }

    /// The value of lane `lane` of the own group of `width` lanes (a power of two). All 32 lanes must call it
    /// together with the same width; each names a lane of its own.
    #[inline(always)]
    pub(crate) unsafe fn broadcast(value: f32, lane: u32, width: u32) -> f32 {
        let mut bits = value.to_bits();
        // SAFETY: the caller converges the warp; the exchange touches no memory.
        unsafe {
            asm!(
                "shfl.sync.idx.b32 {bits}, {bits}, {lane}, {control}, 0xffffffff;",
                bits = inout(reg32) bits,
                lane = in(reg32) lane,
                // Lanes are counted from the start of a segment of `width`.
                control = in(reg32) (32 - width) << 8 | 0x1f,
                options(nomem, nostack),
            );
        }
        f32::from_bits(bits)
    }

    /// The bitwise or of what the 32 lanes have, in a register of the warp. They call it together.
    #[inline(always)]
    pub(crate) unsafe fn reduce_or(mut bits: u32) -> u32 {
        // SAFETY: the caller converges the warp; the exchange touches no memory.
        unsafe {
            asm!("redux.sync.or.b32 {bits}, {bits}, 0xffffffff;", bits = inout(reg32) bits, options(nomem, nostack));
        }
        bits
    }

    /// Orders the warp's memory accesses. All 32 lanes must call it together.
    #[allow(dead_code)]
    #[inline(always)]
    pub(crate) unsafe fn sync_warp() {
        // SAFETY: the caller converges the warp.
        unsafe { asm!("bar.warp.sync 0xffffffff;", options(nostack)) }
    }
}

/// Shared memory of the block.
pub(crate) mod shared {
    use crate::arch::Piece;
    use core::arch::asm;

    /// The address of the block's own piece, 16-byte aligned. A kernel has one: another call would be another piece.
    #[inline(always)]
    pub(crate) fn block<P: Piece>() -> u32 {
        let address: u32;
        // SAFETY: a declaration and its address.
        unsafe {
            asm!("{{ .shared .align 16 .b8 gdn_block[{n}]; mov.u32 {a}, gdn_block; }}", n = const P::BYTES,
                 a = out(reg32) address, options(nomem, nostack));
        }
        address
    }

    /// Four bytes as f32; 4-byte aligned.
    #[inline(always)]
    pub(crate) unsafe fn store_f32(address: u32, value: f32) {
        // SAFETY: the caller passes an address within the block's shared memory.
        unsafe {
            asm!("st.shared.f32 [{p}], {v};", p = in(reg32) address, v = in(reg32) value, options(nostack));
        }
    }

    /// Four bytes as f32; 4-byte aligned.
    #[inline(always)]
    pub(crate) unsafe fn load_f32(address: u32) -> f32 {
        let value: f32;
        // SAFETY: as above.
        unsafe {
            asm!("ld.shared.f32 {v}, [{p}];", v = out(reg32) value, p = in(reg32) address,
                 options(readonly, nostack));
        }
        value
    }

    /// Eight bytes as two f32; 8-byte aligned.
    #[inline(always)]
    pub(crate) unsafe fn store_f32x2(address: u32, [x, y]: [f32; 2]) {
        // SAFETY: as above.
        unsafe {
            asm!("st.shared.v2.f32 [{p}], {{{x}, {y}}};", p = in(reg32) address, x = in(reg32) x,
                 y = in(reg32) y, options(nostack));
        }
    }

    /// Sixteen bytes as four f32; 16-byte aligned.
    #[inline(always)]
    pub(crate) unsafe fn store_f32x4(address: u32, [x, y, z, w]: [f32; 4]) {
        // SAFETY: as above.
        unsafe {
            asm!("st.shared.v4.f32 [{p}], {{{x}, {y}, {z}, {w}}};", p = in(reg32) address, x = in(reg32) x,
                 y = in(reg32) y, z = in(reg32) z, w = in(reg32) w, options(nostack));
        }
    }

    /// Sixteen bytes as four f32; 16-byte aligned.
    #[inline(always)]
    pub(crate) unsafe fn load_f32x4(address: u32) -> [f32; 4] {
        let (x, y, z, w): (f32, f32, f32, f32);
        // SAFETY: as above.
        unsafe {
            asm!("ld.shared.v4.f32 {{{x}, {y}, {z}, {w}}}, [{p}];", x = out(reg32) x, y = out(reg32) y,
                 z = out(reg32) z, w = out(reg32) w, p = in(reg32) address, options(readonly, nostack));
        }
        [x, y, z, w]
    }
}

/// Loads and stores of global memory; addresses are plain `u64` device addresses.
pub(crate) mod memory {
    use core::arch::asm;

    macro_rules! load_if {
        ($(#[$doc:meta])* $name:ident, $ptx:literal) => {
            $(#[$doc])*
            #[inline(always)]
            pub(crate) unsafe fn $name(condition: bool, address: u64) -> u32 {
                let mut value = 0u32;
                // SAFETY: the caller passes a readable, aligned global address, or a false condition.
                unsafe {
                    asm!(concat!("{{ .reg .pred p; setp.ne.u32 p, {c}, 0; @p ", $ptx, " {v}, [{a}]; }}"),
                         v = inout(reg32) value, a = in(reg64) address,
                         c = in(reg32) condition as u32, options(readonly, nostack));
                }
                value
            }
        };
    }
    load_if!(/// One byte, zero-extended; 0 without a load when the condition is false.
        load_u8_if, "ld.global.u8");
    load_if!(/// Two bytes, zero-extended; 0 without a load when the condition is false.
        load_u16_if, "ld.global.u16");
    load_if!(/// Four bytes; 0 without a load when the condition is false.
        load_u32_if, "ld.global.u32");

    /// Asks for the line of an address into the L2, if the condition is true.
    #[inline(always)]
    pub(crate) unsafe fn prefetch_if(condition: bool, address: u64) {
        // SAFETY: the caller passes a global address, or a false condition; nothing is read.
        unsafe {
            asm!("{{ .reg .pred p; setp.ne.u32 p, {c}, 0; @p prefetch.global.L2 [{a}]; }}",
                 a = in(reg64) address, c = in(reg32) condition as u32, options(readonly, nostack));
        }
    }

    /// Four bytes.
    #[inline(always)]
    pub(crate) unsafe fn load_u32(address: u64) -> u32 {
        let value: u32;
        // SAFETY: as above.
        unsafe {
            asm!("ld.global.u32 {v}, [{a}];", v = out(reg32) value, a = in(reg64) address,
                 options(readonly, nostack));
        }
        value
    }

    /// Four bytes, by a load of its own even where they were loaded before.
    #[inline(always)]
    pub(crate) unsafe fn load_u32_anew(address: u64) -> u32 {
        let value: u32;
        // SAFETY: as above.
        unsafe {
            asm!("ld.volatile.global.u32 {v}, [{a}];", v = out(reg32) value, a = in(reg64) address,
                 options(readonly, nostack));
        }
        value
    }

    /// Eight bytes as two words; 8-byte aligned.
    #[inline(always)]
    pub(crate) unsafe fn load_u32x2(address: u64) -> [u32; 2] {
        let (x, y): (u32, u32);
        // SAFETY: as above.
        unsafe {
            asm!("ld.global.v2.u32 {{{x}, {y}}}, [{a}];", x = out(reg32) x, y = out(reg32) y,
                 a = in(reg64) address, options(readonly, nostack));
        }
        [x, y]
    }

    macro_rules! load_u32x4 {
        ($(#[$doc:meta])* $name:ident, $ptx:literal) => {
            $(#[$doc])*
            #[inline(always)]
            pub(crate) unsafe fn $name(address: u64) -> [u32; 4] {
                let (x, y, z, w): (u32, u32, u32, u32);
                // SAFETY: the caller passes a readable, 16-byte aligned global address.
                unsafe {
                    asm!(concat!($ptx, " {{{x}, {y}, {z}, {w}}}, [{a}];"),
                         x = out(reg32) x, y = out(reg32) y, z = out(reg32) z, w = out(reg32) w,
                         a = in(reg64) address, options(readonly, nostack));
                }
                [x, y, z, w]
            }
        };
    }
    load_u32x4!(/// Sixteen bytes; 16-byte aligned.
        load_u32x4, "ld.global.v4.u32");
    load_u32x4!(/// Sixteen bytes that this kernel reads once; 16-byte aligned.
        load_u32x4_streaming, "ld.global.cs.v4.u32");

    /// Sixteen bytes that this kernel reads once; 16-byte aligned. Zeros without a load when the condition is false.
    #[inline(always)]
    pub(crate) unsafe fn load_u32x4_streaming_if(condition: bool, address: u64) -> [u32; 4] {
        let (mut x, mut y, mut z, mut w) = (0u32, 0u32, 0u32, 0u32);
        // SAFETY: the caller passes a readable, 16-byte aligned global address, or a false condition.
        unsafe {
            asm!("{{ .reg .pred p; setp.ne.u32 p, {c}, 0; @p ld.global.cs.v4.u32 {{{x}, {y}, {z}, {w}}}, [{a}]; }}",
                 x = inout(reg32) x, y = inout(reg32) y, z = inout(reg32) z, w = inout(reg32) w,
                 a = in(reg64) address, c = in(reg32) condition as u32, options(readonly, nostack));
        }
        [x, y, z, w]
    }

    /// Two bytes, the low half of `value`.
    #[inline(always)]
    pub(crate) unsafe fn store_u16(address: u64, value: u32) {
        // SAFETY: the caller passes a writable, aligned global address.
        unsafe {
            asm!("st.global.u16 [{p}], {v};", p = in(reg64) address, v = in(reg32) value,
                 options(nostack));
        }
    }

    /// Four bytes.
    #[inline(always)]
    pub(crate) unsafe fn store_u32(address: u64, value: u32) {
        // SAFETY: as above.
        unsafe {
            asm!("st.global.u32 [{p}], {v};", p = in(reg64) address, v = in(reg32) value,
                 options(nostack));
        }
    }

    /// Eight bytes; 8-byte aligned.
    #[inline(always)]
    pub(crate) unsafe fn store_u32x2(address: u64, value: [u32; 2]) {
        let [x, y] = value;
        // SAFETY: the caller passes a writable, 8-byte aligned global address.
        unsafe {
            asm!("st.global.v2.u32 [{p}], {{{x}, {y}}};", p = in(reg64) address, x = in(reg32) x,
                 y = in(reg32) y, options(nostack));
        }
    }

    macro_rules! store_u32x4 {
        ($(#[$doc:meta])* $name:ident, $ptx:literal) => {
            $(#[$doc])*
            #[inline(always)]
            pub(crate) unsafe fn $name(address: u64, value: [u32; 4]) {
                let [x, y, z, w] = value;
                // SAFETY: the caller passes a writable, 16-byte aligned global address.
                unsafe {
                    asm!(concat!($ptx, " [{p}], {{{x}, {y}, {z}, {w}}};"), p = in(reg64) address,
                         x = in(reg32) x, y = in(reg32) y, z = in(reg32) z, w = in(reg32) w,
                         options(nostack));
                }
            }
        };
    }
    store_u32x4!(/// Sixteen bytes; 16-byte aligned.
        store_u32x4, "st.global.v4.u32");
    store_u32x4!(/// Sixteen bytes that nobody reads soon; 16-byte aligned.
        store_u32x4_streaming, "st.global.cs.v4.u32");
}

/// Arithmetic that is one instruction on the GPU.
pub(crate) mod float {
    use core::arch::asm;

    /// `a * b + c`, rounded once.
    #[inline(always)]
    pub(crate) fn fma(a: f32, b: f32, c: f32) -> f32 {
        core::intrinsics::fmaf32(a, b, c)
    }

    macro_rules! binary {
        ($(#[$doc:meta])* $name:ident, $ptx:literal) => {
            $(#[$doc])*
            #[inline(always)]
            pub(crate) fn $name(x: f32, y: f32) -> f32 {
                let z: f32;
                // SAFETY: register arithmetic.
                unsafe {
                    asm!(concat!($ptx, " {z}, {x}, {y};"), z = out(reg32) z, x = in(reg32) x, y = in(reg32) y,
                         options(pure, nomem, nostack));
                }
                z
            }
        };
    }
    binary!(/// The larger value; NaN if one is.
        max, "max.NaN.f32");
    binary!(/// The smaller value; NaN if one is.
        min, "min.NaN.f32");

    macro_rules! unary {
        ($(#[$doc:meta])* $name:ident, $ptx:literal) => {
            $(#[$doc])*
            #[inline(always)]
            pub(crate) fn $name(x: f32) -> f32 {
                let y: f32;
                // SAFETY: register arithmetic.
                unsafe {
                    asm!(concat!($ptx, " {y}, {x};"), y = out(reg32) y, x = in(reg32) x,
                         options(pure, nomem, nostack));
                }
                y
            }
        };
    }
    unary!(/// `2^x`, within 2 ulp; subnormal results are flushed to zero.
        exp2, "ex2.approx.ftz.f32");
    unary!(/// `x^-1/2`, within 2^-22.9 relative.
        rsqrt, "rsqrt.approx.ftz.f32");
    unary!(/// `1 / x`, within 1 ulp.
        rcp, "rcp.approx.ftz.f32");

    /// The f16 in the low half of `bits`.
    #[inline(always)]
    pub(crate) fn f16_to_f32(bits: u32) -> f32 {
        let y: f32;
        // SAFETY: register arithmetic.
        unsafe {
            asm!("cvt.f32.f16 {y}, {x};", y = out(reg32) y, x = in(reg16) bits as u16,
                 options(pure, nomem, nostack));
        }
        y
    }

    macro_rules! pack {
        ($(#[$doc:meta])* $name:ident, $ptx:literal) => {
            $(#[$doc])*
            #[inline(always)]
            pub(crate) fn $name(low: f32, high: f32) -> u32 {
                let y: u32;
                // SAFETY: register arithmetic.
                unsafe {
                    asm!(concat!($ptx, " {y}, {h}, {l};"), y = out(reg32) y, h = in(reg32) high,
                         l = in(reg32) low, options(pure, nomem, nostack));
                }
                y
            }
        };
    }
    pack!(/// Both values as bf16, round to nearest even, `low` in the low half.
        pack_bf16, "cvt.rn.bf16x2.f32");
    pack!(/// Both values as f16, round to nearest even, `low` in the low half.
        pack_f16, "cvt.rn.f16x2.f32");
}

/// What the compiler is not to know.
pub(crate) mod compiler {
    use core::arch::asm;

    /// `x`, without what the compiler knows of it: a loop over an opaque counter is not peeled, which would double
    /// the text of a kernel.
    #[inline(always)]
    pub(crate) fn opaque(mut x: u32) -> u32 {
        // SAFETY: no instruction at all.
        unsafe { asm!("// {x}", x = inout(reg32) x, options(nomem, nostack)) };
        x
    }
}
