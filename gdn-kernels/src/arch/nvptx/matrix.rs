//! Products of small matrices by a warp's tensor cores.

use core::arch::asm;

macro_rules! multiply {
    ($(#[$doc:meta])* $name:ident, $types:literal) => {
        $(#[$doc])*
        #[inline(always)]
        pub(crate) unsafe fn $name(c: [f32; 4], a: [u32; 4], b: [u32; 2]) -> [f32; 4] {
            let [mut c0, mut c1, mut c2, mut c3] = c;
            // SAFETY: the caller converges the warp; the product touches no memory.
            unsafe {
                asm!(
                    concat!("mma.sync.aligned.m16n8k16.row.col.", $types,
                            " {{{c0}, {c1}, {c2}, {c3}}}, {{{a0}, {a1}, {a2}, {a3}}}, {{{b0}, {b1}}}, {{{c0}, {c1}, {c2}, {c3}}};"),
                    c0 = inout(reg32) c0, c1 = inout(reg32) c1, c2 = inout(reg32) c2, c3 = inout(reg32) c3,
                    a0 = in(reg32) a[0], a1 = in(reg32) a[1], a2 = in(reg32) a[2], a3 = in(reg32) a[3],
                    b0 = in(reg32) b[0], b1 = in(reg32) b[1],
                    options(nomem, nostack),
                );
            }
            [c0, c1, c2, c3]
        }
    };
}
multiply!(/// `c + a b` of 16 x 16 and 16 x 8 elements of bf16, summed in f32. All 32 lanes call it together. With lane `4 g + t` the
    /// words of a are rows g, g + 8, g, g + 8, columns 2 t and 2 t + 1 of each and, of the last two, eight columns further; those
    /// of b are column g, rows as columns of a; those of c are rows g, g, g + 8, g + 8, columns 2 t and 2 t + 1.
    multiply_bf16, "f32.bf16.bf16.f32");
multiply!(/// The same of f16.
    multiply_f16, "f32.f16.f16.f32");
