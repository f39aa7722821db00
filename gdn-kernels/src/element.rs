//! Element types: how tensors of f32, bf16 and f16 are loaded, converted and stored.
//!
//! Loading and converting are two calls. A conversion is the first use of what was loaded, so the kernels
//! place it behind the last load they want in flight.

use crate::abi::DType;
use crate::arch::{float, memory, thread, warp};
use half::{bf16, f16};

/// Elements of a row that one lane holds, whatever K: `K / ROW` lanes share a row.
pub(crate) const ROW: usize = 8;

/// A lane's [`ROW`] elements of a row as loaded: one 16-byte vector of a 16-bit type, two of f32.
pub(crate) type Vectors = [[u32; 4]; 2];

/// An element type of inputs or of the state.
pub(crate) trait Element: Copy + 'static {
    /// The type's name in the ABI.
    const DTYPE: DType;
    /// Bytes of an element.
    const SIZE: u64;
    /// Elements of a 16-byte vector. A lane's elements of a row are vectors `K * VECTOR / ROW` elements apart,
    /// so that the lanes of a row together read contiguous bytes each time.
    const VECTOR: usize;

    /// The [`Self::VECTOR`] elements of a vector as f32, and zeros behind them.
    fn widen_vector(vector: [u32; 4]) -> [f32; ROW];

    /// The first [`Self::VECTOR`] values as a vector, each rounded once to nearest even.
    fn pack_vector(values: &[f32; ROW]) -> [u32; 4];

    /// Loads a lane's part of a `k`-element vector of this type, spread over the lanes like a row of a
    /// state of vectors of `vector` elements.
    ///
    /// # Safety
    /// The vector is readable and 16-byte aligned.
    unsafe fn load_spread(address: u64, lane: u32, k: u32, vector: usize) -> Vectors;

    /// Elements of a row as f32.
    fn widen_row(raw: Vectors) -> [f32; ROW];

    /// One element's bits; 0 without a load when the condition is false.
    ///
    /// # Safety
    /// If the condition is true, `address` is readable and aligned to an element.
    unsafe fn load_bits_if(condition: bool, address: u64) -> u32;

    /// An element's bits as f32.
    fn widen(bits: u32) -> f32;

    /// `value` rounded to this type, nearest even, and back.
    fn round(value: f32) -> f32;

    /// Stores one element, rounding once to nearest even.
    ///
    /// # Safety
    /// `address` is writable and aligned to an element.
    unsafe fn store(address: u64, value: f32);

    /// Stores one element's bits.
    ///
    /// # Safety
    /// `address` is writable and aligned to an element.
    unsafe fn store_bits(address: u64, bits: u32);
}

impl Element for f32 {
    const DTYPE: DType = DType::F32;
    const SIZE: u64 = 4;
    const VECTOR: usize = 4;

    #[inline(always)]
    fn widen_vector(v: [u32; 4]) -> [f32; ROW] {
        let [a, b, c, d] = v.map(f32::from_bits);
        [a, b, c, d, 0.0, 0.0, 0.0, 0.0]
    }

    #[inline(always)]
    fn pack_vector(v: &[f32; ROW]) -> [u32; 4] {
        [v[0].to_bits(), v[1].to_bits(), v[2].to_bits(), v[3].to_bits()]
    }

    #[inline(always)]
    unsafe fn load_spread(address: u64, lane: u32, k: u32, vector: usize) -> Vectors {
        let at = address + (4 * vector as u32 * lane) as u64;
        let apart = if vector == 4 { 2 * k } else { 16 };
        // SAFETY: a lane's elements lie within the vector.
        unsafe { [memory::load_u32x4(at), memory::load_u32x4(at + apart as u64)] }
    }

    #[inline(always)]
    fn widen_row([l, h]: Vectors) -> [f32; ROW] {
        [l[0], l[1], l[2], l[3], h[0], h[1], h[2], h[3]].map(f32::from_bits)
    }

    #[inline(always)]
    unsafe fn load_bits_if(condition: bool, address: u64) -> u32 {
        // SAFETY: the caller's promise.
        unsafe { memory::load_u32_if(condition, address) }
    }

    #[inline(always)]
    fn widen(bits: u32) -> f32 {
        f32::from_bits(bits)
    }

    #[inline(always)]
    fn round(value: f32) -> f32 {
        value
    }

    #[inline(always)]
    unsafe fn store(address: u64, value: f32) {
        // SAFETY: the caller's promise.
        unsafe { Self::store_bits(address, value.to_bits()) }
    }

    #[inline(always)]
    unsafe fn store_bits(address: u64, bits: u32) {
        // SAFETY: the caller's promise.
        unsafe { memory::store_u32(address, bits) }
    }
}

/// The two 16-bit types differ only in how two halves of a word become f32 and back.
macro_rules! element16 {
    ($ty:ty, $dtype:expr, $pair:path, $pack:path) => {
        impl Element for $ty {
            const DTYPE: DType = $dtype;
            const SIZE: u64 = 2;
            const VECTOR: usize = 8;

            #[inline(always)]
            fn widen_vector(w: [u32; 4]) -> [f32; ROW] {
                let [[a, b], [c, d], [e, f], [g, h]] = w.map($pair);
                [a, b, c, d, e, f, g, h]
            }

            #[inline(always)]
            fn pack_vector(v: &[f32; ROW]) -> [u32; 4] {
                let [a, b, c, d, e, f, g, h] = *v;
                [$pack(a, b), $pack(c, d), $pack(e, f), $pack(g, h)]
            }

            #[inline(always)]
            unsafe fn load_spread(address: u64, lane: u32, k: u32, vector: usize) -> Vectors {
                let at = address + (2 * vector as u32 * lane) as u64;
                // SAFETY: a lane's elements lie within the vector.
                unsafe {
                    if vector == 8 {
                        [memory::load_u32x4(at), [0; 4]]
                    } else {
                        let (low, high) = (memory::load_u32x2(at), memory::load_u32x2(at + k as u64));
                        [[low[0], low[1], high[0], high[1]], [0; 4]]
                    }
                }
            }

            #[inline(always)]
            fn widen_row(raw: Vectors) -> [f32; ROW] {
                Self::widen_vector(raw[0])
            }

            #[inline(always)]
            unsafe fn load_bits_if(condition: bool, address: u64) -> u32 {
                // SAFETY: the caller's promise.
                unsafe { memory::load_u16_if(condition, address) }
            }

            #[inline(always)]
            fn widen(bits: u32) -> f32 {
                $pair(bits)[0]
            }

            #[inline(always)]
            fn round(value: f32) -> f32 {
                $pair($pack(value, 0.0))[0]
            }

            #[inline(always)]
            unsafe fn store(address: u64, value: f32) {
                // SAFETY: the caller's promise.
                unsafe { Self::store_bits(address, $pack(value, 0.0)) }
            }

            #[inline(always)]
            unsafe fn store_bits(address: u64, bits: u32) {
                // SAFETY: the caller's promise.
                unsafe { memory::store_u16(address, bits) }
            }
        }
    };
}

element16!(bf16, DType::Bf16, bf16_pair, float::pack_bf16);
element16!(f16, DType::F16, f16_pair, float::pack_f16);

#[inline(always)]
fn bf16_pair(word: u32) -> [f32; 2] {
    [f32::from_bits(word << 16), f32::from_bits(word & 0xffff_0000)]
}

#[inline(always)]
fn f16_pair(word: u32) -> [f32; 2] {
    [float::f16_to_f32(word & 0xffff), float::f16_to_f32(word >> 16)]
}

/// An element whose type is known only at run time (a gate input): loaded now, converted when needed, and
/// without a branch, so that nothing waits for the load.
#[derive(Clone, Copy)]
pub(crate) struct Scalar {
    /// The element's bits if it is an f32, else 0.
    wide: u32,
    /// The element's bits if it is of a 16-bit type, else 0.
    narrow: u32,
    dtype: u32,
}

impl Scalar {
    /// No element: zero.
    pub(crate) const ZERO: Scalar = Scalar { wide: 0, narrow: 0, dtype: DType::F32 as u32 };

    /// Loads element `index` of the table of `dtype` at `base`, if there is one.
    ///
    /// # Safety
    /// If the condition is true, the element is readable and `base` aligned to an element.
    #[inline(always)]
    pub(crate) unsafe fn load_if(condition: bool, base: u64, index: u64, dtype: u32) -> Scalar {
        let is_wide = dtype == DType::F32 as u32;
        let address = base + (index << if is_wide { 2 } else { 1 });
        // SAFETY: the caller's promise; one of the two loads is made.
        unsafe {
            let wide = memory::load_u32_if(condition && is_wide, address);
            let narrow = memory::load_u16_if(condition && !is_wide, address);
            Scalar { wide, narrow, dtype }
        }
    }

    /// The element's bits, whatever its type.
    #[inline(always)]
    pub(crate) fn bits(self) -> u32 {
        self.wide | self.narrow
    }

    /// The same element, waited for here: not before `bits` are there, none of which is set, and not behind the next branch, since
    /// a shuffle stays in front of it. It takes each lane's element from the lane itself.
    ///
    /// # Safety
    /// The warp is converged.
    #[inline(always)]
    pub(crate) unsafe fn awaited(self, bits: u32) -> Scalar {
        // SAFETY: the caller's promise.
        let bits = unsafe { warp::broadcast(f32::from_bits(self.bits() | bits), thread::thread_idx_x() % 32, 32) }.to_bits();
        Scalar { wide: bits, narrow: bits & 0xffff, ..self }
    }

    #[inline(always)]
    pub(crate) fn to_f32(self) -> f32 {
        let bits = if self.dtype == DType::Bf16 as u32 { self.narrow << 16 } else { self.wide };
        // Widened whether it is one or not: a choice between two values is no branch.
        let from_f16 = f16::widen(self.narrow);
        let is_f16 = self.dtype == DType::F16 as u32;
        if is_f16 { from_f16 } else { f32::from_bits(bits) }
    }
}

/// A lane's [`ROW`] elements of a vector over K whose type is known only at run time.
#[derive(Clone, Copy)]
pub(crate) struct Spread {
    raw: Vectors,
    dtype: u32,
}

impl Spread {
    /// No elements: zeros.
    pub(crate) const ZEROS: Spread = Spread { raw: [[0; 4]; 2], dtype: DType::F32 as u32 };

    /// Loads a lane's part of the vector of `k` elements of `dtype` that starts at element `index` of the table at
    /// `base`, spread like [`Element::load_spread`].
    ///
    /// # Safety
    /// The vector is readable and 16-byte aligned.
    #[inline(always)]
    pub(crate) unsafe fn load(base: u64, index: u64, dtype: u32, lane: u32, k: u32, vector: usize) -> Spread {
        // SAFETY: the caller's promise; how 16 bits are to be read does not matter yet.
        let raw = unsafe {
            if dtype == DType::F32 as u32 {
                f32::load_spread(base + index * f32::SIZE, lane, k, vector)
            } else {
                bf16::load_spread(base + index * bf16::SIZE, lane, k, vector)
            }
        };
        Spread { raw, dtype }
    }

    #[inline(always)]
    pub(crate) fn to_f32(self) -> [f32; ROW] {
        if self.dtype == DType::F32 as u32 {
            f32::widen_row(self.raw)
        } else if self.dtype == DType::Bf16 as u32 {
            bf16::widen_row(self.raw)
        } else {
            f16::widen_row(self.raw)
        }
    }
}

/// `x` rounded to `dtype` (nearest even) and back.
#[inline(always)]
pub(crate) fn round_to(x: f32, dtype: u32) -> f32 {
    if dtype == DType::Bf16 as u32 {
        bf16::round(x)
    } else if dtype == DType::F16 as u32 {
        f16::round(x)
    } else {
        x
    }
}
