//! The projections of Qwen3-Next taken apart: rows that are interleaved by key head become the rows that the
//! convolution, the gate and the recurrence read.
//!
//! ```text
//! qkvz        [q K | k K | v r V | z r V] for each of H key heads, r = HV / H
//! ba          [b r | a r]                 for each of H key heads
//!
//! mixed_qkv   [q H K | k H K | v HV V]
//! z           [z HV V]
//! b, a        [b HV], [a HV]
//! ```
//!
//! A token's vectors of 16 bytes are numbered as the outputs have them, `mixed_qkv` in front of `z`; a thread takes
//! [`VECTORS`] of them and works out where each comes from. So stores are contiguous, and loads are in pieces of at
//! least a head, 64 bytes to 2 KiB. The loads carry the streaming hint, the stores do not: the next kernel reads what
//! they wrote. The few elements of `ba` are the business of a token's first `2 HV` threads, one each: there are
//! always as many, since a head has at least four vectors of v and of z.
//!
//! Only bits move. Of `qkvz` not even the type matters, of `ba` only its size.

use crate::abi::{self, DType, UnpackQkvzParams};
use crate::arch::{memory, thread};
use crate::token::{divide, sequence, take_turn, wide};

/// Vectors of a thread.
const VECTORS: usize = abi::THREAD_VECTORS as usize;

/// A token's rows of `qkvz`, `mixed_qkv` and `z`.
struct Rows<'a> {
    p: &'a UnpackQkvzParams,
    qkvz: u64,
    mixed_qkv: u64,
    z: u64,
    /// Vectors of all heads of q, or of k.
    keys: u32,
    /// Vectors of all heads of v, or of z.
    values: u32,
}

impl<'a> Rows<'a> {
    #[inline(always)]
    fn new(p: &'a UnpackQkvzParams, n: u32) -> Rows<'a> {
        Rows {
            p,
            qkvz: p.qkvz + 16 * wide(n, p.qkvz_stride),
            mixed_qkv: p.mixed_qkv + 16 * wide(n, p.mixed_qkv_stride),
            z: p.z + 16 * wide(n, p.z_stride),
            keys: p.h * p.k_vectors,
            values: p.h * p.ratio * p.v_vectors,
        }
    }

    /// Vectors of a token.
    #[inline(always)]
    fn len(&self) -> u32 {
        2 * (self.keys + self.values)
    }

    /// Where vector `i` of the outputs comes from.
    #[inline(always)]
    fn source(&self, i: u32) -> u64 {
        let p = self.p;
        // A part of the outputs (q, k, v, z) has `width` vectors of each group.
        let (key, value) = (p.k_vectors, p.ratio * p.v_vectors);
        let is_key = i < 2 * self.keys;
        let (part, width) = if is_key { (self.keys, key) } else { (self.values, value) };
        let i = if is_key { i } else { i - 2 * self.keys };
        let is_second = i >= part;
        let i = if is_second { i - part } else { i };
        let head = divide(i, if is_key { p.k_reciprocal } else { p.v_reciprocal });
        let group = if is_key { head } else { divide(head, p.ratio_reciprocal) };
        let in_front = if is_key { 0 } else { 2 * key };
        let in_group = if is_second { in_front + width } else { in_front };
        // Each group in front has what is not of this part besides.
        let from = i + group * (2 * (key + value) - width) + in_group;
        self.qkvz + 16 * from as u64
    }

    /// Where vector `i` of the outputs goes.
    #[inline(always)]
    fn target(&self, i: u32) -> u64 {
        let mixed = 2 * self.keys + self.values;
        if i < mixed { self.mixed_qkv + 16 * i as u64 } else { self.z + 16 * (i - mixed) as u64 }
    }
}

/// Moves element `i` of a token's `b` and `a`, counted through both.
///
/// # Safety
/// Token and element lie in `ba`, `b` and `a`.
#[inline(always)]
unsafe fn move_element(p: &UnpackQkvzParams, n: u32, i: u32) {
    let heads = p.h * p.ratio;
    let is_a = i >= heads;
    let head = if is_a { i - heads } else { i };
    // The groups in front have as many a's as b's.
    let key_head = divide(head, p.ratio_reciprocal);
    let from = head + (key_head + is_a as u32) * p.ratio;
    let (out, stride) = if is_a { (p.a, p.a_stride) } else { (p.b, p.b_stride) };
    let is_wide = p.ba_dtype == DType::F32 as u32;
    let log2 = if is_wide { 2 } else { 1 };
    let from = p.ba + ((wide(n, p.ba_stride) + from as u64) << log2);
    let to = out + ((wide(n, stride) + head as u64) << log2);
    // SAFETY: the caller's promise.
    unsafe {
        if is_wide {
            memory::store_u32(to, memory::load_u32(from));
        } else {
            memory::store_u16(to, memory::load_u16_if(true, from));
        }
    }
}

/// The kernel body.
///
/// # Safety
/// `p` describes buffers as its documentation says, and the launch is shaped as [`UnpackQkvzParams`] says.
#[inline(always)]
pub(crate) unsafe fn unpack_qkvz(p: &UnpackQkvzParams) {
    take_turn();
    let n = sequence();
    if n >= p.n {
        return;
    }
    let rows = Rows::new(p, n);
    let (threads, thread) = (thread::block_dim_x(), thread::thread_idx_x());
    let first = thread::block_idx_x() * (VECTORS as u32 * threads) + thread;
    let element = thread::block_idx_x() * threads + thread;
    // SAFETY: n is below the number of tokens, vectors and elements below those of a token.
    unsafe {
        let mut vectors = [[0; 4]; VECTORS];
        let mut i = 0;
        while i < VECTORS {
            let at = first + i as u32 * threads;
            if at < rows.len() {
                vectors[i] = memory::load_u32x4_streaming(rows.source(at));
            }
            i += 1;
        }
        if element < 2 * p.h * p.ratio {
            move_element(p, n, element);
        }
        let mut i = 0;
        while i < VECTORS {
            let at = first + i as u32 * threads;
            if at < rows.len() {
                memory::store_u32x4(rows.target(at), vectors[i]);
            }
            i += 1;
        }
    }
}
