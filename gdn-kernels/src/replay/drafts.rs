//! Drafts by products of matrices ([`super::products`]): coefficients, the way down the tokens, the fold.

use super::products::{
    AT_ONCE, HALVES, Values, WORDS, anew, lane, lane_offset, product, product_of_keys, vector_offset, vectors, words,
};
use super::room::{Room, piece_of};
use super::ring::Ring;
use super::step::{Step, over_records};
use super::Rows;
use crate::abi::flags;
use crate::arch::{float, memory, shared, thread, warp};
use crate::element::{Element, ROW};
use crate::gate::{self, Gate};
use crate::keys::Decay;
use crate::layout::{Layout, MOST_ROWS};
use crate::math::exp;
use crate::tile::Raw;
use crate::token::wide;

impl<
    L: Layout,
    G: Gate,
    S: Element,
    T: Element,
    const K: u32,
    const R: usize,
    const THREADS: u32,
    const TOKENS: usize,
> Step<'_, L, G, S, T, K, R, THREADS, TOKENS>
{
    /// The lane's words of its column of the four tokens of block `b`.
    ///
    /// # Safety
    /// Keys and queries are there.
    #[inline(always)]
    unsafe fn column(&self, b: u32) -> [u32; WORDS] {
        let (g, _) = lane();
        // SAFETY: the caller's promise.
        unsafe { self.words(AT_ONCE * b + g / 2, g.is_multiple_of(2)) }
    }

    /// The lane's words of a token's key or query, of the last token if there is none.
    ///
    /// # Safety
    /// As for [`Self::column`].
    #[inline(always)]
    unsafe fn words(&self, t: u32, is_key: bool) -> [u32; WORDS] {
        let t = if t < self.count { t } else { self.count - 1 };
        // SAFETY: the caller's promise.
        unsafe { words::<S>(self.tokens.unprepared(t, is_key), lane().1) }
    }

    /// What records and drafts count in each token's sums, and by what a record's correction is multiplied in a fold: a warp
    /// multiplies 16 records, or the drafts, by four tokens at once. Behind the records stand zeros up to a multiple of 16.
    ///
    /// # Safety
    /// Tokens and keys were prepared, and a barrier passed since.
    #[inline(always)]
    pub(super) unsafe fn products_of_keys(&self, ring: &Ring<G, T, K>, team: u32, behind: f32) {
        let (g, own) = lane();
        let len = ring.window.len;
        let blocks = if self.count > AT_ONCE { 2 } else { 1 };
        let units = (len.div_ceil(16) + 1) * blocks;
        let mut unit = team;
        // SAFETY: the caller's promise.
        unsafe {
            while unit < units {
                let (b, of) = if blocks == 1 { (0, unit) } else { (unit % 2, unit / 2) };
                let column = self.column(b);
                let t = AT_ONCE * b + own;
                let is_token = t < self.count;
                let t = if is_token { t } else { 0 };
                let factors = self.tokens.factors(t);
                let at = |j: u32| Room::<G, T, K, R, THREADS, TOKENS>::coefficients(self.shared, t, j);
                if of == 0 {
                    let keys = self.words(g, true);
                    let [k, q, ..] = product_of_keys::<T>([&keys, &[0; WORDS]], &column);
                    let decay = self.path(t, g + 1).on_sum();
                    if is_token && g < t {
                        let factor = self.tokens.factors(g).k * decay;
                        let draft = Room::<G, T, K, R, THREADS, TOKENS>::draft(g);
                        shared::store_f32x2(at(draft), [k * (factor * factors.k), q * (factor * factors.q)]);
                    }
                } else {
                    let records = [16 * (of - 1) + g, 16 * (of - 1) + g + 8];
                    let keys = records.map(|j| {
                        let j = if j < len { j } else { len - 1 };
                        let key = Room::<G, T, K, R, THREADS, TOKENS>::key(self.shared, j);
                        words::<S>(key, own)
                    });
                    let keys = [&keys[0], &keys[1]];
                    let sums = product_of_keys::<T>(keys, &column);
                    let decay = self.path(t, 0).on_sum();
                    let squares = [product_of_keys::<T>(keys, keys[0]), product_of_keys::<T>(keys, keys[1])];
                    let mut half = 0;
                    while half < HALVES {
                        // A record's product with itself came to the lane of its own column.
                        let [even, odd] = [squares[half][HALVES * half], squares[half][HALVES * half + 1]];
                        let square =
                            warp::broadcast(if g.is_multiple_of(2) { even } else { odd }, AT_ONCE * g + g / 2, 32);
                        let norm = match ring.layer.flags & flags::L2NORM != 0 {
                            true => float::rsqrt(square + ring.eps),
                            false => 1.0,
                        };
                        let j = records[half];
                        let factor = norm * exp(warp::broadcast(behind, j, 32));
                        let factor = if j < len { factor } else { 0.0 };
                        if b == 0 && own == 0 {
                            shared::store_f32(Room::<G, T, K, R, THREADS, TOKENS>::factor(self.shared, j), factor);
                        }
                        if is_token {
                            let factor = factor * decay;
                            let [k, q] = [sums[HALVES * half], sums[HALVES * half + 1]];
                            shared::store_f32x2(at(j), [k * (factor * factors.k), q * (factor * factors.q)]);
                        }
                        half += 1;
                    }
                }
                unit += thread::block_dim_x() / 32;
            }
        }
    }

    /// What the records count in the sums of the lane's token and rows.
    ///
    /// # Safety
    /// As for [`Self::products`].
    #[inline(always)]
    unsafe fn records_of_rows(&self, t: u32, len: u32, row: u32) -> [f32; 4] {
        let ask = |j: u32| {
            // SAFETY: the caller's promise.
            unsafe {
                let correction = Room::<G, T, K, R, THREADS, TOKENS>::correction(self.shared, j, row);
                (
                    shared::load_f32x2(Room::<G, T, K, R, THREADS, TOKENS>::coefficients(self.shared, t, j)),
                    [shared::load_f32(correction), shared::load_f32(correction + 8 * 4)],
                )
            }
        };
        over_records(len, [0.0; 4], ask, |[hk, hq, hk8, hq8], ([k, q], [x, y])| {
            [float::fma(k, x, hk), float::fma(q, x, hq), float::fma(k, y, hk8), float::fma(q, y, hq8)]
        })
    }

    /// Takes the warp's rows through the tokens.
    ///
    /// # Safety
    /// Coefficients and corrections are there, and a barrier passed since.
    #[inline(always)]
    pub(super) unsafe fn products<const B: usize>(
        &self,
        rows: &Rows,
        ring: &Ring<G, T, K>,
        raw: &mut Raw,
        values: &Values<B>,
        whole: G::Decay,
    ) {
        let (g, own) = lane();
        let row = rows.row_of_block + g;
        let (mut sums, mut betas) = ([[0.0; 4]; B], [[0.0; HALVES]; B]);
        let (mut kq, mut ancestors) = ([0.0; B], [0; B]);
        // SAFETY: the caller's promise.
        unsafe {
            let mut b = 0;
            while b < B {
                if b > 0 {
                    // The parts of an f32 state would be kept for the next product.
                    *raw = anew::<S>(*raw);
                }
                if AT_ONCE * (b as u32) < self.count {
                    let t = AT_ONCE * b as u32 + own;
                    let is_there = t < self.count;
                    let t = if is_there { t } else { 0 };
                    let of_records = self.records_of_rows(t, ring.window.len, row);
                    let factors = self.tokens.factors(t);
                    let decay = whole.and(self.path(t, 0)).on_sum();
                    let product = product::<S, T>(raw, &self.column(b as u32));
                    let of_state = [decay * factors.k, decay * factors.q];
                    sums[b] = core::array::from_fn(|i| float::fma(product[i], of_state[i % 2], of_records[i]));
                    betas[b] = [self.tokens.beta(t); HALVES];
                    if self.tokens.block().beta_per_value() {
                        betas[b] = core::array::from_fn(|half| {
                            let row = rows.work.heads.value * rows.p.layer.v + rows.first_row + row + 8 * half as u32;
                            let at = wide(rows.first + t, rows.p.gate.b_stride) + row as u64;
                            gate::beta(&rows.p.gate, rows.p.layer.flags, gate::load_beta(&rows.p.gate, at))
                        });
                    }
                    kq[b] = factors.kq;
                    let in_front = self.ancestors(t);
                    ancestors[b] = if is_there { in_front } else { 0 };
                }
                b += 1;
            }
            let correction = |b: usize, sums: &[[f32; 4]; B]| -> [f32; HALVES] {
                core::array::from_fn(|half| {
                    betas[b][half] * (T::widen(values.0[b][half]) - sums[b][HALVES * half])
                })
            };
            let mut s = 0;
            while s < AT_ONCE * B as u32 {
                // Nothing follows the last one.
                if s + 1 < self.count {
                    let carrier = AT_ONCE * g + s % AT_ONCE;
                    let [x, y] = correction((s / AT_ONCE) as usize, &sums).map(|delta| warp::broadcast(delta, carrier, 32));
                    let mut b = (s / AT_ONCE) as usize;
                    while b < B {
                        let t = AT_ONCE * b as u32 + own;
                        if t > s && ancestors[b] >> s & 1 != 0 {
                            let draft = Room::<G, T, K, R, THREADS, TOKENS>::draft(s);
                            let at = Room::<G, T, K, R, THREADS, TOKENS>::coefficients(self.shared, t, draft);
                            let [k, q] = shared::load_f32x2(at);
                            let [hk, hq, hk8, hq8] = sums[b];
                            sums[b] = [
                                float::fma(k, x, hk),
                                float::fma(q, x, hq),
                                float::fma(k, y, hk8),
                                float::fma(q, y, hq8),
                            ];
                        }
                        b += 1;
                    }
                }
                s += 1;
            }
            let mut b = 0;
            while b < B {
                let t = AT_ONCE * b as u32 + own;
                if t < self.count {
                    let delta = correction(b, &sums);
                    let out = core::array::from_fn(|half| float::fma(delta[half], kq[b], sums[b][HALVES * half + 1]));
                    self.keep(rows, ring, t, row, delta, out);
                }
                b += 1;
            }
        }
    }

    /// Stores a token's outputs and corrections of the lane's rows.
    ///
    /// # Safety
    /// As for [`Self::products`].
    #[inline(always)]
    unsafe fn keep(
        &self,
        rows: &Rows,
        ring: &Ring<G, T, K>,
        t: u32,
        row: u32,
        delta: [f32; HALVES],
        out: [f32; HALVES],
    ) {
        let mut half = 0;
        while half < HALVES {
            let row = rows.first_row + row + 8 * half as u32;
            // SAFETY: the caller's promise.
            unsafe {
                rows.out.store::<T>(rows.first + t, rows.work.heads.value * rows.p.layer.v + row, out[half]);
                if rows.appends {
                    memory::store_u32(ring.correction(ring.window.len + t, row), delta[half].to_bits());
                }
            }
            half += 1;
        }
    }

    /// Stores the true state of the warp's rows.
    ///
    /// # Safety
    /// As for [`Self::products`]; the rows are writable.
    #[inline(always)]
    pub(super) unsafe fn fold_products(
        &self,
        rows: &Rows,
        raw: &Raw,
        first_row: u64,
        len: u32,
        whole: f32,
    ) {
        let (g, t) = lane();
        let row = rows.row_of_block + g;
        let at = first_row + lane_offset::<S>(K);
        // The lane's elements of its two rows, a vector of each in turn.
        let raw = anew::<S>(*raw);
        let (mut elements, mut x) = ([[0.0; ROW]; 2 * MOST_ROWS], 0);
        while x < HALVES * vectors::<S>() {
            elements[x] = S::widen_vector(raw[x]).map(|element| element * whole);
            x += 1;
        }
        let bytes = t * Self::CHUNK;
        // SAFETY: the caller's promise.
        unsafe {
            let mut j = 0;
            while j < len {
                let factor = shared::load_f32(Room::<G, T, K, R, THREADS, TOKENS>::factor(self.shared, j));
                let key = Room::<G, T, K, R, THREADS, TOKENS>::key(self.shared, j) + bytes;
                let [low, high] = [0, 8].map(|half| {
                    let at = Room::<G, T, K, R, THREADS, TOKENS>::correction(self.shared, j, row + half);
                    factor * shared::load_f32(at)
                });
                add::<S>(&mut elements, [low, high], |i| piece_of::<T>(key + 4 * i * Self::CHUNK, S::VECTOR));
                j += 1;
            }
            let mut x = 0;
            while x < HALVES * vectors::<S>() {
                memory::store_u32x4_streaming(at + vector_offset::<S>(x, K), S::pack_vector(&elements[x]));
                x += 1;
            }
        }
    }

    /// Bytes of the elements of a key that a lane has of each of its vectors.
    const CHUNK: u32 = S::VECTOR as u32 * T::SIZE as u32;
}

/// Adds to the lane's elements of both rows so much of a key, whose part beside vector `i` `key` gives.
#[inline(always)]
fn add<S: Element>(elements: &mut [[f32; ROW]; 2 * MOST_ROWS], of_rows: [f32; HALVES], key: impl Fn(u32) -> [f32; ROW]) {
    let mut i = 0;
    while i < vectors::<S>() {
        let key = key(i as u32);
        let mut e = 0;
        while e < S::VECTOR {
            elements[HALVES * i][e] = float::fma(of_rows[0], key[e], elements[HALVES * i][e]);
            elements[HALVES * i + 1][e] = float::fma(of_rows[1], key[e], elements[HALVES * i + 1][e]);
            e += 1;
        }
        i += 1;
    }
}
