//! The buffer that keeps the window after each token of a draft.

use super::strip::{Access, ByChannel, ByTap, Recent, Single, Steps, WindowLayout, narrowed};
use crate::abi::{Conv1dParams, DType};
use crate::arch::compiler;
use crate::element::Element;
use crate::entry::Index;
use crate::token::wide;

/// Where a strip's windows after each token go: `[rows, steps, dim, W - 1]`.
pub(super) struct Drafts<'a> {
    p: &'a Conv1dParams,
    at: u64,
    /// Tokens that there is room for.
    steps: u32,
    /// Whether windows are of another type than the state, which is f32 then.
    narrow: bool,
}

impl<'a> Drafts<'a> {
    /// # Safety
    /// The sequence lies in the table of rows.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(super) unsafe fn new<S: Element, T: Element>(p: &'a Conv1dParams, n: u32, channel: u32) -> Self {
        let buffer = &p.intermediate;
        let listed = buffer.state != 0 && buffer.row.is_there();
        // SAFETY: the caller's promise.
        let (row, is_one) = unsafe { Index::load_or(n, listed, &buffer.row, n, 0) }.parts();
        let keeps = buffer.state != 0 && is_one && (row as u32) < buffer.rows;
        let row = if keeps { row as u32 } else { 0 };
        let narrow = S::SIZE != T::SIZE && buffer.dtype != DType::F32 as u32;
        let size = if narrow { T::SIZE } else { S::SIZE };
        let at = buffer.state + (wide(row, buffer.pitch) + wide(channel, p.width - 1)) * size;
        Drafts { p, at, steps: if keeps { buffer.steps } else { 0 }, narrow }
    }

    /// Stores the window after token `t`, the taps of a channel together.
    ///
    /// # Safety
    /// The buffer is writable, and aligned as the access demands.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(super) unsafe fn store<S: Element, T: Element, A: Access>(&self, t: u32, recent: &Recent) {
        if t < self.steps {
            // SAFETY: the caller's promise.
            unsafe {
                if S::SIZE != T::SIZE && self.narrow {
                    self.store_as::<T, A>(t, &recent.map(narrowed::<S, T>));
                } else {
                    self.store_as::<S, A>(t, recent);
                }
            }
        }
    }

    /// # Safety
    /// As for [`Self::store`].
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    unsafe fn store_as<E: Element, A: Access>(&self, t: u32, recent: &Recent) {
        // Worked out here, and not kept in registers.
        let count = compiler::opaque(self.p.width) - 1;
        let at = self.at + t as u64 * wide(compiler::opaque(self.p.dim), count) * E::SIZE;
        let steps = Steps { tap: E::SIZE, count };
        // SAFETY: the caller's promise.
        unsafe {
            if A::VECTORS {
                ByChannel::<3>::store::<E>(at, &steps, recent);
            } else {
                ByTap::<Single>::store::<E>(at, &steps, recent);
            }
        }
    }
}
