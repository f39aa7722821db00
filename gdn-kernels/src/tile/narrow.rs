//! A tile of an f32 state in a buffer of another type: engines keep the states of drafts in 16 bits beside pools of f32.
//!
//! The buffer's type is known only at run time. An element of 16 bits lies at half the bytes that one of 32 does, so every
//! offset is halved, and a lane's vector of four elements is eight bytes. Both 16-bit types are computed and one is taken,
//! without a branch. States of 16 bits have buffers of their own type: nothing of this is in their kernels.

use super::Tile;
use crate::abi::DType;
use crate::arch::{compiler, float, memory};
use crate::element::{Element, ROW};
use crate::layout::{Layout, Place};
use half::{bf16, f16};

/// Whether a buffer of `dtype` beside states of type `S` has half their bytes.
#[cfg_attr(target_arch = "nvptx64", inline(always))]
fn is_narrow<S: Element>(dtype: u32) -> bool {
    S::VECTOR == 4 && dtype != DType::F32 as u32
}

/// The address of what lies `offset` bytes into a buffer of the state's type, in one of `dtype`.
#[cfg_attr(target_arch = "nvptx64", inline(always))]
pub(crate) fn buffer_at<S: Element>(buffer: u64, dtype: u32, offset: u64) -> u64 {
    buffer + (offset >> is_narrow::<S>(dtype) as u32)
}

impl<S: Element, L: Layout, const K: u32, const R: usize> Tile<S, L, K, R> {
    /// [`Self::store`] into a buffer of `dtype`; `at` is what [`buffer_at`] says.
    ///
    /// # Safety
    /// As for [`Self::store`], and aligned to a vector of the buffer's.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) unsafe fn store_as(&self, dtype: u32, at: u64, v: u32, place: Place) {
        if !is_narrow::<S>(dtype) {
            // SAFETY: the caller's promise.
            return unsafe { self.store(at, v, place) };
        }
        if !place.holds_piece(K) {
            return;
        }
        let v = if L::ALONG_V { compiler::opaque(v) } else { v };
        let is_bf16 = dtype == DType::Bf16 as u32;
        let mut x = 0;
        while x < Self::VECTORS {
            let pair = |e| {
                let [a, b] = [e, e + 1].map(|e| {
                    let (r, i) = L::element::<S, K, R>(x, e);
                    self.pieces[r][i]
                });
                let (as_bf16, as_f16) = (float::pack_bf16(a, b), float::pack_f16(a, b));
                if is_bf16 { as_bf16 } else { as_f16 }
            };
            let at = at + L::vector_offset::<S, K, R>(x, v) / 2;
            // SAFETY: the vector lies in the tile.
            unsafe { memory::store_u32x2(at, [pair(0), pair(2)]) };
            x += 1;
        }
    }

    /// The tile that [`Self::store_as`] stored.
    ///
    /// # Safety
    /// As for [`Self::store_as`], and readable.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) unsafe fn load_as(dtype: u32, at: u64, v: u32, place: Place) -> Self {
        if !is_narrow::<S>(dtype) {
            // SAFETY: the caller's promise.
            return Self::unpack(unsafe { Self::load(at, v, place) });
        }
        if !place.holds_piece(K) {
            return Self::unpack(Self::ZEROS);
        }
        let is_bf16 = dtype == DType::Bf16 as u32;
        let (mut raw, mut x) = (Self::ZEROS, 0);
        while x < Self::VECTORS {
            // SAFETY: the vector lies in the tile.
            let [a, b] = unsafe { memory::load_u32x2(at + L::vector_offset::<S, K, R>(x, v) / 2) };
            let widened = [bf16::widen_vector([a, b, 0, 0]), f16::widen_vector([a, b, 0, 0])];
            let values = if is_bf16 { widened[0] } else { widened[1] };
            raw[x] = [values[0], values[1], values[2], values[3]].map(f32::to_bits);
            x += 1;
        }
        // The raw words of an f32 state are its elements.
        Self::unpack(raw)
    }

    /// Rounds every element as [`Self::store_as`] and [`Self::load_as`] would.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) fn round_as(&mut self, dtype: u32) {
        if !is_narrow::<S>(dtype) {
            return self.round();
        }
        let is_bf16 = dtype == DType::Bf16 as u32;
        let mut r = 0;
        while r < Self::ROWS {
            let mut i = 0;
            while i < ROW {
                let x = self.pieces[r][i];
                let (as_bf16, as_f16) = (bf16::round(x), f16::round(x));
                self.pieces[r][i] = if is_bf16 { as_bf16 } else { as_f16 };
                i += 1;
            }
            r += 1;
        }
    }
}
