//! What a block that works with records keeps in shared memory, and where.
//!
//! ```text
//! tokens        prepared tokens, and behind several of them their values      (crate::prepare)
//! coefficients  [token, record or draft], of the key and of the query
//! factors       [record], on its correction where it is folded
//! keys          [record, K] as they came in, of the type of the inputs
//! decays        KDA: [record, K], first log decays, then those of the records behind it; [K] the whole ring's decay
//! corrections   [record or draft, row of the block]
//! ```

use crate::abi::{MOST_DRAFTS, MOST_KDA_RECORDS, MOST_RECORDS};
use crate::arch::{Piece, shared};
use crate::element::{Element, ROW, Vectors};
use crate::gate::Gate;
use crate::keys::Decay;
use crate::layout::{Layout, Place, groups};
use crate::prepare::{VALUE_BYTES, token_bytes};
use crate::tile::Tile;
use core::marker::PhantomData;

/// The shared memory of a block that takes up to `TOKENS` tokens of a sequence.
pub(crate) struct Room<G, T, const K: u32, const R: usize, const THREADS: u32, const TOKENS: usize>(
    PhantomData<(G, T)>,
);

impl<G: Gate, T: Element, const K: u32, const R: usize, const THREADS: u32, const TOKENS: usize>
    Room<G, T, K, R, THREADS, TOKENS>
{
    /// Records of a ring at most.
    const RECORDS: u32 = if G::PER_KEY { MOST_KDA_RECORDS } else { MOST_RECORDS };
    /// Drafts, whose corrections later drafts need.
    const DRAFTS: u32 = {
        assert!(TOKENS <= MOST_DRAFTS as usize);
        if TOKENS > 1 { TOKENS as u32 } else { 0 }
    };
    /// Rows of a block at most.
    const ROWS: u32 = THREADS / 32 * R as u32 * groups(K);
    /// Records and drafts that a token has coefficients of.
    const COLUMNS: u32 = Self::RECORDS + Self::DRAFTS;

    const COEFFICIENTS: u32 =
        (TOKENS * token_bytes(K) + if TOKENS > 1 { VALUE_BYTES } else { 0 }).next_multiple_of(16) as u32;
    const FACTORS: u32 = Self::COEFFICIENTS + TOKENS as u32 * Self::COLUMNS * 8;
    const KEYS: u32 = (Self::FACTORS + Self::RECORDS * 4).next_multiple_of(16);
    const DECAYS: u32 = Self::KEYS + Self::RECORDS * Self::KEY_BYTES;
    const WHOLE: u32 = Self::DECAYS + if G::PER_KEY { Self::RECORDS * K * 4 } else { 0 };
    const CORRECTIONS: u32 = Self::WHOLE + if G::PER_KEY { K * 4 } else { 0 };

    /// Bytes of a key as it came in.
    pub(crate) const KEY_BYTES: u32 = K * T::SIZE as u32;

    /// Two coefficients of a token for record `j`.
    #[inline(always)]
    pub(crate) fn coefficients(at: u32, token: u32, j: u32) -> u32 {
        at + Self::COEFFICIENTS + (token * Self::COLUMNS + j) * 8
    }

    /// Draft `s` among the records.
    #[inline(always)]
    pub(crate) fn draft(s: u32) -> u32 {
        Self::RECORDS + s
    }

    /// The factor on record `j`'s correction.
    #[inline(always)]
    pub(crate) fn factor(at: u32, j: u32) -> u32 {
        at + Self::FACTORS + 4 * j
    }

    /// Record `j`'s key.
    #[inline(always)]
    pub(crate) fn key(at: u32, j: u32) -> u32 {
        at + Self::KEYS + j * Self::KEY_BYTES
    }

    /// Record `j`'s log decays, then the decays of the records behind it.
    #[inline(always)]
    pub(crate) fn decays(at: u32, j: u32) -> u32 {
        at + Self::DECAYS + j * 4 * K
    }

    /// The decay of the whole ring.
    #[inline(always)]
    pub(crate) fn whole(at: u32) -> u32 {
        at + Self::WHOLE
    }

    /// Record `j`'s correction of a row of the block.
    #[inline(always)]
    pub(crate) fn correction(at: u32, j: u32, row: u32) -> u32 {
        at + Self::CORRECTIONS + (j * Self::ROWS + row) * 4
    }

    /// A lane's piece of record `j`'s key, spread like a row of a state of vectors of `vector` elements.
    ///
    /// # Safety
    /// The record is there.
    #[inline(always)]
    pub(crate) unsafe fn key_piece(at: u32, j: u32, lane: u32, vector: usize) -> [f32; ROW] {
        // SAFETY: the caller's promise.
        unsafe { piece::<T, K>(Self::key(at, j), lane, vector) }
    }

    /// The same of the key that a fold adds: with a decay for each key it is decayed by the records behind it.
    ///
    /// # Safety
    /// As for [`Self::key_piece`].
    #[inline(always)]
    pub(crate) unsafe fn folded_key(at: u32, j: u32, lane: u32, vector: usize) -> [f32; ROW] {
        // SAFETY: the caller's promise.
        unsafe {
            let key = Self::key_piece(at, j, lane, vector);
            match G::PER_KEY {
                true => piece::<f32, K>(Self::decays(at, j), lane, vector).on_key(&key),
                false => key,
            }
        }
    }
}

impl<G: Gate, T: Element, const K: u32, const R: usize, const THREADS: u32, const TOKENS: usize>
    Room<G, T, K, R, THREADS, TOKENS>
{
    /// Adds the records to a tile, which has the whole ring's decay already; `decay` is that of what stands behind them.
    ///
    /// # Safety
    /// Keys, factors and corrections of `len` records are there, and a barrier passed since.
    #[inline(always)]
    pub(crate) unsafe fn add_records<L: Layout, S: Element>(
        at: u32,
        tile: &mut Tile<S, L, K, R>,
        place: Place,
        len: u32,
        row_of_block: u32,
        decay: G::Decay,
    ) {
        let mut j = 0;
        while j < len {
            // SAFETY: the caller's promise.
            unsafe {
                let factor = shared::load_f32(Self::factor(at, j));
                let key = decay.on_key(&Self::folded_key(at, j, place.lane, S::VECTOR));
                let correction = |r| {
                    let row = row_of_block + L::row::<S, K, R>(r, place.group());
                    shared::load_f32(Self::correction(at, j, row))
                };
                tile.add(|r| factor * correction(r), &key);
            }
            j += 1;
        }
    }
}

impl<G: Gate, T: Element, const K: u32, const R: usize, const THREADS: u32, const TOKENS: usize> Piece
    for Room<G, T, K, R, THREADS, TOKENS>
{
    const BYTES: usize =
        (Self::CORRECTIONS + (Self::RECORDS + Self::DRAFTS) * Self::ROWS * 4) as usize;
}

/// A lane's piece of a vector over K in shared memory.
///
/// # Safety
/// The vector is there, 16-byte aligned.
#[inline(always)]
pub(crate) unsafe fn piece<T: Element, const K: u32>(at: u32, lane: u32, vector: usize) -> [f32; ROW] {
    let bits = |x: [f32; 4]| x.map(f32::to_bits);
    // SAFETY: the caller's promise.
    let raw: Vectors = unsafe {
        if T::SIZE == 4 {
            let (at, apart) = (at + 4 * vector as u32 * lane, if vector == 4 { 2 * K } else { 16 });
            [bits(shared::load_f32x4(at)), bits(shared::load_f32x4(at + apart))]
        } else if vector == 8 {
            [bits(shared::load_f32x4(at + 16 * lane)), [0; 4]]
        } else {
            let [a, b] = shared::load_f32x2(at + 8 * lane);
            let [c, d] = shared::load_f32x2(at + 8 * lane + K);
            [bits([a, b, c, d]), [0; 4]]
        }
    };
    T::widen_row(raw)
}
