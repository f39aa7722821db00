//! The ring of a slot: which of its records are live, where they are, and their way into shared memory.

use super::room::{Room, piece};
use crate::abi::{Cursors, Inputs, Layer, Rings, flags};
use crate::arch::{compiler, float, memory, shared, thread, warp};
use crate::element::{Element, ROW};
use crate::entry::{Index, is_there};
use crate::gate::{Gate, Heads};
use crate::keys::{Decay, dot, reduce};
use crate::layout::{Place, groups};
use crate::math::exp;
use crate::token::{divide, lane_zero, wide};
use core::marker::PhantomData;

/// Cursors that were asked for but not yet looked at.
#[derive(Clone, Copy)]
pub(crate) struct Asked {
    base: Index,
    len: Index,
}

impl Asked {
    /// Asks for the cursors of a row of the tables.
    ///
    /// # Safety
    /// The tables have such a row.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) unsafe fn new(cursors: &Cursors, row: u32) -> Asked {
        // SAFETY: the caller's promise.
        unsafe {
            Asked {
                base: Index::load_if(is_there(&cursors.base), &cursors.base, row, 0),
                len: Index::load_if(is_there(&cursors.len), &cursors.len, row, 0),
            }
        }
    }

    /// The window, the same for the whole warp, which calls this together: an index that is none is a large number.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) fn get(self) -> Window {
        // SAFETY: the warp is together.
        let [base, len] = [self.base, self.len].map(|index| unsafe { warp::reduce_or(index.get() as u32) });
        Window { base, len }
    }
}

/// The live records of a ring.
#[derive(Clone, Copy)]
pub(crate) struct Window {
    /// Place of the oldest.
    pub(crate) base: u32,
    /// How many.
    pub(crate) len: u32,
}

impl Window {
    /// No records.
    pub(crate) const EMPTY: Window = Window { base: 0, len: 0 };

    /// Whether it lies in a ring of `records`, and leaves room for `more`, which are no more than `records`.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) fn is_sound(self, records: u32, more: u32) -> bool {
        self.base < records && self.len <= records - more
    }

    /// The place of record `j` of the window, or behind it.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) fn place(self, j: u32, records: u32) -> u32 {
        let place = self.base + j;
        if place >= records { place - records } else { place }
    }
}

/// The ring of a slot and value head.
pub(crate) struct Ring<'a, G, T, const K: u32> {
    /// Records of the key head, and of the value head.
    k: u64,
    d: u64,
    g: u64,
    v: u32,
    records: u32,
    pub(crate) window: Window,
    pub(crate) layer: &'a Layer,
    /// Added to the sum of squares of a key.
    pub(crate) eps: f32,
    types: PhantomData<(G, T)>,
}

impl<'a, G: Gate, T: Element, const K: u32> Ring<'a, G, T, K> {
    /// Decays of a record.
    const DECAYS: u32 = if G::PER_KEY { K } else { 1 };

    /// The ring of a slot.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) fn new(rings: &Rings, layer: &'a Layer, eps: f32, slot: u32, heads: Heads, window: Window) -> Self {
        let records = rings.records;
        let at = |pitch: u32, head: u32, width: u32| wide(slot, pitch) + wide(head * records, width);
        Ring {
            k: rings.k + at(rings.k_pitch, heads.key, K) * T::SIZE,
            d: rings.d + at(rings.d_pitch, heads.value, layer.v) * 4,
            g: rings.g + at(rings.g_pitch, heads.value, Self::DECAYS) * 4,
            v: layer.v,
            records,
            window,
            layer,
            eps,
            types: PhantomData,
        }
    }

    /// Where record `j`'s key is, or goes.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) fn key(&self, j: u32) -> u64 {
        self.k + (self.window.place(j, self.records) * K) as u64 * T::SIZE
    }

    /// Where record `j`'s correction of a row is, or goes.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) fn correction(&self, j: u32, row: u32) -> u64 {
        self.d + 4 * wide(self.window.place(j, self.records), self.v) + 4 * row as u64
    }

    /// Where record `j`'s log decay `i` is, or goes.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) fn log_decay(&self, j: u32, i: u32) -> u64 {
        self.g + 4 * (self.window.place(j, self.records) * Self::DECAYS + i) as u64
    }

    /// Begins to copy the live records to shared memory: keys, corrections of `rows` rows from `first_row` on, and log decays
    /// for each key. Gives the lane the single log decay of the record of its number, 0 if there is none.
    ///
    /// # Safety
    /// The ring is there, and its live records are; the block has the room at `at`.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) unsafe fn ask<const R: usize, const THREADS: u32, const TOKENS: usize>(
        &self,
        at: u32,
        first_row: u32,
        rows: u32,
    ) -> f32 {
        let (thread, threads) = (thread::thread_idx_x(), thread::block_dim_x());
        // SAFETY: the caller's promise.
        unsafe {
            let vectors = Room::<G, T, K, R, THREADS, TOKENS>::KEY_BYTES / 16;
            let mut i = thread;
            while i < self.window.len * vectors {
                let (j, x) = (i / vectors, 16 * (i % vectors));
                let to = Room::<G, T, K, R, THREADS, TOKENS>::key(at, j);
                shared::begin_copy(to + x, self.key(j) + x as u64);
                i += threads;
            }
            if G::PER_KEY {
                let mut i = thread;
                while i < self.window.len * (K / 4) {
                    let (j, x) = (i / (K / 4), i % (K / 4) * 4);
                    let to = Room::<G, T, K, R, THREADS, TOKENS>::decays(at, j);
                    shared::begin_copy(to + 4 * x, self.log_decay(j, x));
                    i += threads;
                }
            }
            // Rows of a block are a power of two.
            let shift = rows.trailing_zeros() - 2;
            let mut i = thread;
            while i >> shift < self.window.len {
                let (j, row) = (i >> shift, (i & ((1 << shift) - 1)) * 4);
                let to = Room::<G, T, K, R, THREADS, TOKENS>::correction(at, j, row);
                shared::begin_copy(to, self.correction(j, first_row + row));
                i += threads;
            }
            if G::PER_KEY {
                return 0.0;
            }
            let lane = (thread + lane_zero()) % 32;
            let is_live = lane < self.window.len;
            f32::from_bits(memory::load_u32_if(is_live, self.log_decay(if is_live { lane } else { 0 }, 0)))
        }
    }

    /// KDA: makes log decays in shared memory the decays of the records behind each record, a thread a column, and leaves the whole
    /// ring's. The block comes here together when the copies are there, and passes a barrier before it uses either.
    ///
    /// # Safety
    /// As for [`Self::ask`].
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) unsafe fn decay_keys<const R: usize, const THREADS: u32, const TOKENS: usize>(&self, at: u32) {
        let mut i = thread::thread_idx_x();
        while i < K {
            let place = |j: u32| Room::<G, T, K, R, THREADS, TOKENS>::decays(at, j) + 4 * i;
            // SAFETY: the caller's promise.
            unsafe {
                let all = decay_each(self.window.len, place);
                shared::store_f32(Room::<G, T, K, R, THREADS, TOKENS>::whole(at) + 4 * i, all);
            }
            i += thread::block_dim_x();
        }
    }

    /// The decay of the whole ring as a lane applies it, given the sum of the single log decays.
    ///
    /// # Safety
    /// As for [`Self::ask`], behind [`Self::decay_keys`] and a barrier.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) unsafe fn whole<const R: usize, const THREADS: u32, const TOKENS: usize>(
        at: u32,
        all: f32,
        lane: u32,
        vector: usize,
    ) -> G::Decay {
        let whole = Room::<G, T, K, R, THREADS, TOKENS>::whole(at);
        // SAFETY: the caller's promise.
        G::of_lane(|| unsafe { piece::<f32, K>(whole, lane, vector) }, exp(all))
    }

    /// Calls `of_record` with each live record's number, the lane's piece of its key, decayed if keys have decays of their own,
    /// and the factor on it: its norm, and a single decay of the records behind it. A lane group takes a record; where a warp
    /// has fewer left than groups, some take one that is none, and are told so.
    ///
    /// # Safety
    /// As for [`Self::ask`], behind [`Self::decay_keys`] and a barrier; the warp is together.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) unsafe fn each<const R: usize, const THREADS: u32, const TOKENS: usize>(
        &self,
        at: u32,
        behind: f32,
        place: Place,
        vector: usize,
        of_record: impl Fn(bool, u32, [f32; ROW], f32),
    ) {
        let len = self.window.len;
        let mut first = place.team() * groups(K);
        while first < len {
            let is_there = first + place.group() < len;
            let j = if is_there { first + place.group() } else { len - 1 };
            // SAFETY: the caller's promise.
            unsafe {
                let key = Room::<G, T, K, R, THREADS, TOKENS>::key_piece(at, j, place.lane, vector);
                let norm = if self.layer.flags & flags::L2NORM != 0 {
                    float::rsqrt(reduce::<K>(dot(&key, &key)) + self.eps)
                } else {
                    1.0
                };
                let (key, factor) = if G::PER_KEY {
                    let at = Room::<G, T, K, R, THREADS, TOKENS>::decays(at, j);
                    (piece::<f32, K>(at, place.lane, vector).on_key(&key), norm)
                } else {
                    (key, norm * exp(warp::broadcast(behind, j, 32)))
                };
                of_record(is_there, j, key, factor);
            }
            first += thread::block_dim_x() / 32 * groups(K);
        }
    }
}

impl<G: Gate, T: Element, const K: u32> Ring<'_, G, T, K> {
    /// Appends the keys of `count` tokens from `first` on, as they came in, if the value head is the first of its key head. A
    /// block of the head's calls it together.
    ///
    /// # Safety
    /// The tokens lie in the inputs, and the ring has room for them.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(super) unsafe fn append_keys(&self, inputs: &Inputs, heads: Heads, first: u32, count: u32) {
        if !self.owns_key_head(heads) {
            return;
        }
        let (vectors, head) = (K * T::SIZE as u32 / 16, (heads.key * K) as u64);
        let mut i = thread::thread_idx_x();
        while i < count * vectors {
            let (t, x) = (i / vectors, 16 * (i % vectors) as u64);
            let from = inputs.k + (wide(first + t, inputs.k_stride) + head) * T::SIZE;
            // SAFETY: the caller's promise.
            unsafe { memory::store_u32x4(self.key(self.window.len + t) + x, memory::load_u32x4(from + x)) };
            i += thread::block_dim_x();
        }
    }

    /// Whether the value head is the first of its key head.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    fn owns_key_head(&self, heads: Heads) -> bool {
        if self.layer.flags & flags::HEADS_TILED != 0 {
            return heads.value == heads.key;
        }
        heads.value == 0 || divide(heads.value - 1, self.layer.head_reciprocal) != heads.key
    }
}

/// Makes a column's log decays in shared memory, at `place` of each record, the decays of the records behind it; gives that of all.
/// Several are asked for before the first is looked at.
///
/// # Safety
/// They are there, and no other thread's.
#[inline(always)]
pub(super) unsafe fn decay_each(len: u32, place: impl Fn(u32) -> u32) -> f32 {
    const AT_ONCE: u32 = 4;
    let (mut j, mut behind) = (len, 0.0);
    // SAFETY: the caller's promise.
    unsafe {
        while j >= AT_ONCE {
            // A loop over so few turns is not made a longer one.
            j = compiler::opaque(j);
            let log_decays = [1, 2, 3, 4].map(|x| shared::load_f32(place(j - x)));
            let mut x = 0;
            while x < AT_ONCE {
                j -= 1;
                shared::store_f32(place(j), exp(behind));
                behind += log_decays[x as usize];
                x += 1;
            }
        }
        while j > 0 {
            j = compiler::opaque(j) - 1;
            let log_decay = shared::load_f32(place(j));
            shared::store_f32(place(j), exp(behind));
            behind += log_decay;
        }
    }
    exp(behind)
}

/// Sums of the lanes' values: of those behind the lane, and of all. The warp calls it together.
#[cfg_attr(target_arch = "nvptx64", inline(always))]
pub(crate) fn sums_behind(value: f32) -> (f32, f32) {
    let lane = thread::thread_idx_x() % 32;
    let (mut sum, mut distance) = (value, 1);
    while distance < 32 {
        // SAFETY: the warp is together.
        let other = unsafe { warp::broadcast(sum, (lane + distance) % 32, 32) };
        sum += if lane + distance < 32 { other } else { 0.0 };
        distance *= 2;
    }
    // SAFETY: the warp is together.
    let (next, all) = unsafe { (warp::broadcast(sum, (lane + 1) % 32, 32), warp::broadcast(sum, 0, 32)) };
    (if lane < 31 { next } else { 0.0 }, all)
}
