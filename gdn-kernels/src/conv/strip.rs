//! Strips: the neighbouring channels that a thread works on, and how they come from memory and go there.
//!
//! A strip is what a thread has of one token, or of one entry of a conv state: four channels (8 bytes of a 16-bit type, 16
//! of f32) where everything is aligned to that ([`Vectors`]), else one channel ([`Single`]). It is kept as raw bits: a
//! conv state is moved, never converted. Eight channels a thread would make 16 bytes of a 16-bit type too, but their
//! weights and window take twice the registers: half as many warps fit an SM, the same bytes are in flight, and a small
//! batch reaches half as many SMs.
//!
//! The window of a strip is its last three inputs. In memory they lie in one of two layouts:
//!
//! ```text
//! channels contiguous   an entry of all channels is a row, a strip of it a vector   vLLM            ByTap
//! taps contiguous       the entries of a channel lie together, [dim, W - 1]         SGLang, Dao     ByChannel
//! ```
//!
//! In the second layout the three entries of four channels are twelve consecutive elements: three vectors again, and the
//! transposition happens in registers, with constant indices. So in both layouts a thread reads a window by three vector
//! loads, and a warp's loads together cover whole sectors. A single channel's entries are at any distance.

use crate::arch::memory;
use crate::element::Element;
use core::marker::PhantomData;

/// Taps of the widest filter.
pub(crate) const TAPS: usize = 4;

/// Channels of a vector.
pub(crate) const CHANNELS: usize = 4;

/// A thread's channels of one token or entry as they lie in memory, and zeros behind them.
pub(crate) type Strip = [u32; 4];

/// The inputs in front of a token, oldest first. A filter of fewer than [`TAPS`] taps does not use the first ones.
pub(crate) type Window = [Strip; TAPS - 1];

/// Channels with the value zero.
pub(crate) const ZEROS: Strip = [0; 4];

/// The bits of channel `i` of a strip.
#[inline(always)]
fn bits<T: Element>(words: &Strip, i: usize) -> u32 {
    if T::SIZE == 4 { words[i] } else { (words[i / 2] >> (16 * (i % 2))) & 0xffff }
}

/// The strip whose channel `i` has the bits `channel(i)`.
#[inline(always)]
fn packed<T: Element>(channel: impl Fn(usize) -> u32) -> Strip {
    let [a, b, c, d] = [0, 1, 2, 3].map(channel);
    if T::SIZE == 4 { [a, b, c, d] } else { [a | b << 16, c | d << 16, 0, 0] }
}

/// Where the entries of a window lie.
#[derive(Clone, Copy)]
pub(crate) struct Steps {
    /// Bytes from an entry to the next.
    pub(crate) tap: u64,
    /// Taps that the filter has less than [`TAPS`].
    pub(crate) missing: u32,
}

/// How a strip is read and written.
pub(crate) trait Access: 'static {
    /// Whether a strip is a vector, and filters have all [`TAPS`] taps.
    const VECTORS: bool;

    /// Channels of a strip.
    const CHANNELS: usize;

    /// Issues the load of a strip.
    ///
    /// # Safety
    /// The strip is readable, and aligned to a vector or to its channel.
    unsafe fn load<T: Element>(at: u64) -> Strip;

    /// Stores a strip.
    ///
    /// # Safety
    /// As for [`Self::load`], and writable.
    unsafe fn store<T: Element>(at: u64, strip: Strip);
}

/// Four channels at once.
pub(crate) struct Vectors;

impl Access for Vectors {
    const VECTORS: bool = true;
    const CHANNELS: usize = CHANNELS;

    #[inline(always)]
    unsafe fn load<T: Element>(at: u64) -> Strip {
        // SAFETY: the caller's promise.
        unsafe {
            if T::SIZE == 4 {
                memory::load_u32x4(at)
            } else {
                let [low, high] = memory::load_u32x2(at);
                [low, high, 0, 0]
            }
        }
    }

    #[inline(always)]
    unsafe fn store<T: Element>(at: u64, strip: Strip) {
        // SAFETY: the caller's promise.
        unsafe {
            if T::SIZE == 4 {
                memory::store_u32x4(at, strip);
            } else {
                memory::store_u32x2(at, [strip[0], strip[1]]);
            }
        }
    }
}

/// One channel.
pub(crate) struct Single;

impl Access for Single {
    const VECTORS: bool = false;
    const CHANNELS: usize = 1;

    #[inline(always)]
    unsafe fn load<T: Element>(at: u64) -> Strip {
        // SAFETY: the caller's promise.
        [unsafe { T::load_bits_if(true, at) }, 0, 0, 0]
    }

    #[inline(always)]
    unsafe fn store<T: Element>(at: u64, strip: Strip) {
        // SAFETY: the caller's promise.
        unsafe { T::store_bits(at, strip[0]) }
    }
}

/// How the window of a strip lies in memory.
pub(crate) trait WindowLayout: 'static {
    /// How tokens and single entries are accessed.
    type Access: Access;
    /// Whether a channel may have more entries than the window: they are accessed one by one then.
    const LONGER: bool;

    /// Issues the loads of a window whose oldest entry is at `at`; taps that the filter does not have are zeros.
    ///
    /// # Safety
    /// The entries are readable, and aligned as the access demands.
    unsafe fn load<T: Element>(at: u64, steps: &Steps) -> Window;

    /// Stores a window, its oldest entry at `at`.
    ///
    /// # Safety
    /// As for [`Self::load`], and writable.
    unsafe fn store<T: Element>(at: u64, steps: &Steps, window: &Window);
}

/// Entries one by one, each with the access `A`.
pub(crate) struct ByTap<A>(PhantomData<A>);

impl<A: Access> WindowLayout for ByTap<A> {
    type Access = A;
    const LONGER: bool = true;

    #[inline(always)]
    unsafe fn load<T: Element>(at: u64, steps: &Steps) -> Window {
        let mut window = [ZEROS; TAPS - 1];
        let (mut i, mut at) = (0, at);
        while i < TAPS - 1 {
            if A::VECTORS || i as u32 >= steps.missing {
                // SAFETY: the caller's promise.
                window[i] = unsafe { A::load::<T>(at) };
                at += steps.tap;
            }
            i += 1;
        }
        window
    }

    #[inline(always)]
    unsafe fn store<T: Element>(at: u64, steps: &Steps, window: &Window) {
        let (mut i, mut at) = (0, at);
        while i < TAPS - 1 {
            if A::VECTORS || i as u32 >= steps.missing {
                // SAFETY: the caller's promise.
                unsafe { A::store::<T>(at, window[i]) };
                at += steps.tap;
            }
            i += 1;
        }
    }
}

/// The entries of a channel together, nothing between them or between channels.
pub(crate) struct ByChannel;

impl ByChannel {
    /// Bytes from a vector of entries to the next.
    const fn vector_bytes<T: Element>() -> u64 {
        CHANNELS as u64 * T::SIZE
    }
}

impl WindowLayout for ByChannel {
    type Access = Vectors;
    const LONGER: bool = false;

    #[inline(always)]
    unsafe fn load<T: Element>(at: u64, _steps: &Steps) -> Window {
        let mut raw = [ZEROS; TAPS - 1];
        let mut i = 0;
        while i < TAPS - 1 {
            // SAFETY: the caller's promise.
            raw[i] = unsafe { Vectors::load::<T>(at + i as u64 * Self::vector_bytes::<T>()) };
            i += 1;
        }
        core::array::from_fn(|tap| {
            packed::<T>(|channel| {
                let element = channel * (TAPS - 1) + tap;
                bits::<T>(&raw[element / CHANNELS], element % CHANNELS)
            })
        })
    }

    #[inline(always)]
    unsafe fn store<T: Element>(at: u64, _steps: &Steps, window: &Window) {
        let mut i = 0;
        while i < TAPS - 1 {
            let vector = packed::<T>(|e| {
                let element = i * CHANNELS + e;
                bits::<T>(&window[element % (TAPS - 1)], element / (TAPS - 1))
            });
            // SAFETY: the caller's promise.
            unsafe { Vectors::store::<T>(at + i as u64 * Self::vector_bytes::<T>(), vector) };
            i += 1;
        }
    }
}
