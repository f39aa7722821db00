//! Strips: the neighbouring channels that a thread works on, and how they come from memory and go there.
//!
//! A strip is what a thread has of one token, or of one entry of a conv state: four channels (8 bytes of a 16-bit type, 16
//! of f32) where everything is aligned to that ([`Vectors`]), else one channel ([`Single`]). It is kept as raw bits of the
//! state's type: entries are moved, never rounded. Inputs of 16 bits become f32 beside a state of f32 ([`widened`]). Eight
//! channels a thread would make 16 bytes of a 16-bit type too, but their weights and window take twice the registers: half
//! as many warps fit an SM, the same bytes are in flight, and a small batch reaches half as many SMs.
//!
//! What a thread keeps of a sequence is its [`Recent`] inputs, the last four: the window of the next token are the last
//! three of them, and a state of up to four entries is nothing else. In memory entries lie in one of two layouts:
//!
//! ```text
//! channels contiguous   an entry of all channels is a row, a strip of it a vector   vLLM                    ByTap
//! taps contiguous       the entries of a channel lie together, [dim, L]             L = 3: SGLang, Dao      ByChannel<3>
//!                                                                                   L = 4: Rust, Mamba      ByChannel<4>
//! ```
//!
//! In the second layout the entries of four channels are 12 or 16 consecutive elements: whole vectors again, and the
//! transposition happens in registers, with constant indices. So in all of them a thread reads a window by three or four
//! vector loads, and a warp's loads together cover whole sectors. A single channel's entries are at any distance.

use crate::arch::memory;
use crate::element::Element;
use core::marker::PhantomData;

/// Taps of the widest filter.
pub(crate) const TAPS: usize = 4;

/// Channels of a vector.
pub(crate) const CHANNELS: usize = 4;

/// A thread's channels of one token or entry as they lie in memory, and zeros behind them.
pub(crate) type Strip = [u32; 4];

/// A strip's last inputs, oldest first: what the taps of a filter lie on. A filter of fewer than [`TAPS`] taps does not
/// use the first ones.
pub(crate) type Recent = [Strip; TAPS];

/// Channels with the value zero.
pub(crate) const ZEROS: Strip = [0; 4];

/// The bits of channel `i` of a strip.
#[cfg_attr(target_arch = "nvptx64", inline(always))]
fn bits<S: Element>(words: &Strip, i: usize) -> u32 {
    if S::SIZE == 4 { words[i] } else { (words[i / 2] >> (16 * (i % 2))) & 0xffff }
}

/// The strip whose channel `i` has the bits `channel(i)`.
#[cfg_attr(target_arch = "nvptx64", inline(always))]
fn packed<S: Element>(channel: impl Fn(usize) -> u32) -> Strip {
    let [a, b, c, d] = [0, 1, 2, 3].map(channel);
    if S::SIZE == 4 { [a, b, c, d] } else { [a | b << 16, c | d << 16, 0, 0] }
}

/// A strip of inputs in the type of the state, which is theirs or f32.
#[cfg_attr(target_arch = "nvptx64", inline(always))]
pub(crate) fn widened<S: Element, T: Element>(x: Strip) -> Strip {
    if S::SIZE == T::SIZE { x } else { S::pack_vector(&T::widen_vector(x)) }
}

/// A strip of the state's type in the type of the inputs, rounded where it is another one.
#[cfg_attr(target_arch = "nvptx64", inline(always))]
pub(crate) fn narrowed<S: Element, T: Element>(x: Strip) -> Strip {
    if S::SIZE == T::SIZE { x } else { T::pack_vector(&S::widen_vector(x)) }
}

/// Where the entries of a strip lie.
#[derive(Clone, Copy)]
pub(crate) struct Steps {
    /// Bytes from an entry to the next.
    pub(crate) tap: u64,
    /// Entries, at most [`TAPS`]: the last ones of [`Recent`] are they.
    pub(crate) count: u32,
}

/// How a strip is read and written.
pub(crate) trait Access: 'static {
    /// Whether a strip is a vector, filters have all [`TAPS`] taps, and states as many entries as a window at least.
    const VECTORS: bool;

    /// Channels of a strip.
    const CHANNELS: usize;

    /// Issues the load of a strip.
    ///
    /// # Safety
    /// The strip is readable, and aligned to a vector or to its channel.
    unsafe fn load<E: Element>(at: u64) -> Strip;

    /// Stores a strip.
    ///
    /// # Safety
    /// As for [`Self::load`], and writable.
    unsafe fn store<E: Element>(at: u64, strip: Strip);
}

/// Four channels at once.
pub(crate) struct Vectors;

impl Access for Vectors {
    const VECTORS: bool = true;
    const CHANNELS: usize = CHANNELS;

    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    unsafe fn load<E: Element>(at: u64) -> Strip {
        // SAFETY: the caller's promise.
        unsafe {
            if E::SIZE == 4 {
                memory::load_u32x4(at)
            } else {
                let [low, high] = memory::load_u32x2(at);
                [low, high, 0, 0]
            }
        }
    }

    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    unsafe fn store<E: Element>(at: u64, strip: Strip) {
        // SAFETY: the caller's promise.
        unsafe {
            if E::SIZE == 4 {
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

    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    unsafe fn load<E: Element>(at: u64) -> Strip {
        // SAFETY: the caller's promise.
        [unsafe { E::load_bits_if(true, at) }, 0, 0, 0]
    }

    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    unsafe fn store<E: Element>(at: u64, strip: Strip) {
        // SAFETY: the caller's promise.
        unsafe { E::store_bits(at, strip[0]) }
    }
}

/// How the entries of a strip lie in memory.
pub(crate) trait WindowLayout: 'static {
    /// How tokens and single entries are accessed.
    type Access: Access;

    /// Whether a channel may have more entries than [`TAPS`]: they are accessed one by one then.
    const LONGER: bool;

    /// Issues the loads of entries, the oldest of which is at `at`. They are vectors as they lie in memory, not yet looked at.
    ///
    /// # Safety
    /// The entries are readable, and aligned as the access demands.
    unsafe fn load<S: Element>(at: u64, steps: &Steps) -> Recent;

    /// What [`Self::load`] asked for, entry by entry: the last of [`Recent`], behind zeros.
    fn entries<S: Element>(loaded: Recent) -> Recent;

    /// Stores the last entries of `recent`, the oldest of them at `at`.
    ///
    /// # Safety
    /// As for [`Self::load`], and writable.
    unsafe fn store<S: Element>(at: u64, steps: &Steps, recent: &Recent);
}

/// Entries one by one, each with the access `A`.
pub(crate) struct ByTap<A>(PhantomData<A>);

impl<A: Access> ByTap<A> {
    /// Whether entry `i` of [`Recent`] is one of the last `count`.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    fn has(steps: &Steps, i: usize) -> bool {
        (A::VECTORS && i > 0) || i as u32 + steps.count >= TAPS as u32
    }
}

impl<A: Access> WindowLayout for ByTap<A> {
    type Access = A;
    const LONGER: bool = true;

    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    unsafe fn load<S: Element>(at: u64, steps: &Steps) -> Recent {
        let mut recent = [ZEROS; TAPS];
        // No token sees more entries than the three in front of it.
        let (mut i, mut at) = (1, at);
        while i < TAPS {
            if Self::has(steps, i) {
                // SAFETY: the caller's promise.
                recent[i] = unsafe { A::load::<S>(at) };
                at += steps.tap;
            }
            i += 1;
        }
        recent
    }

    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    fn entries<S: Element>(loaded: Recent) -> Recent {
        loaded
    }

    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    unsafe fn store<S: Element>(at: u64, steps: &Steps, recent: &Recent) {
        let (mut i, mut at) = (0, at);
        while i < TAPS {
            if Self::has(steps, i) {
                // SAFETY: the caller's promise.
                unsafe { A::store::<S>(at, recent[i]) };
                at += steps.tap;
            }
            i += 1;
        }
    }
}

/// The L entries of a channel together, 3 or 4, nothing between them or between channels.
pub(crate) struct ByChannel<const L: usize>;

impl<const L: usize> ByChannel<L> {
    /// Entries of [`Recent`] in front of the first.
    const FRONT: usize = TAPS - L;

    /// Bytes of a vector: 16, or 8 where a strip's entries are no multiple of that.
    const fn vector_bytes<S: Element>() -> usize {
        if (CHANNELS * L * S::SIZE as usize).is_multiple_of(16) { 16 } else { 8 }
    }

    /// Elements of a vector.
    const fn vector<S: Element>() -> usize {
        Self::vector_bytes::<S>() / S::SIZE as usize
    }

    /// Vectors of a strip.
    const fn vectors<S: Element>() -> usize {
        CHANNELS * L / Self::vector::<S>()
    }
}

impl<const L: usize> WindowLayout for ByChannel<L> {
    type Access = Vectors;
    const LONGER: bool = false;

    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    unsafe fn load<S: Element>(at: u64, _steps: &Steps) -> Recent {
        let mut raw = [[0; 4]; TAPS];
        let mut i = 0;
        while i < Self::vectors::<S>() {
            let at = at + (i * Self::vector_bytes::<S>()) as u64;
            // SAFETY: the caller's promise.
            raw[i] = unsafe {
                if Self::vector_bytes::<S>() == 16 {
                    memory::load_u32x4(at)
                } else {
                    let [low, high] = memory::load_u32x2(at);
                    [low, high, 0, 0]
                }
            };
            i += 1;
        }
        raw
    }

    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    fn entries<S: Element>(raw: Recent) -> Recent {
        core::array::from_fn(|tap| {
            packed::<S>(|channel| {
                if tap < Self::FRONT {
                    return 0;
                }
                let element = channel * L + tap - Self::FRONT;
                bits::<S>(&raw[element / Self::vector::<S>()], element % Self::vector::<S>())
            })
        })
    }

    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    unsafe fn store<S: Element>(at: u64, _steps: &Steps, recent: &Recent) {
        let mut i = 0;
        while i < Self::vectors::<S>() {
            let first = i * Self::vector::<S>();
            let entry = |e: usize| bits::<S>(&recent[Self::FRONT + e % L], e / L);
            let at = at + (i * Self::vector_bytes::<S>()) as u64;
            let low = packed::<S>(|e| entry(first + e));
            // SAFETY: the caller's promise.
            unsafe {
                if S::SIZE == 4 {
                    memory::store_u32x4(at, low);
                } else if Self::vector_bytes::<S>() == 16 {
                    let high = packed::<S>(|e| entry(first + CHANNELS + e));
                    memory::store_u32x4(at, [low[0], low[1], high[0], high[1]]);
                } else {
                    memory::store_u32x2(at, [low[0], low[1]]);
                }
            }
            i += 1;
        }
    }
}
