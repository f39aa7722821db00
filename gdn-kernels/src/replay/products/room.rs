//! What a block that multiplies keeps in shared memory, and where.
//!
//! ```text
//! tokens        [token, k and q, K] as they came in     a vector over K has a pitch of its own, so that eight of them meet
//! keys          [record, K] as they came in             no bank twice
//! corrections   [record, row of the block]
//! coefficients  [record, token], of the key and of the query, but for the token's factors
//! drafts        [draft, token], likewise, with all factors
//! scalars       [token], factors with the decays on the way to it, k q, which drafts it follows
//! gates         [token], decay and beta
//! factors       [record], on its correction where it is folded; then the decay of all of them
//! ```

use super::fragment::team_rows;
use crate::abi::{MOST_DRAFTS, MOST_RECORDS};
use crate::arch::Piece;

/// The shared memory of a block of up to `THREADS` threads whose warps have tiles of height `R`.
pub(crate) struct RoomOfProducts<const K: u32, const R: usize, const THREADS: u32> {
    at: u32,
}

impl<const K: u32, const R: usize, const THREADS: u32> RoomOfProducts<K, R, THREADS> {
    /// Bytes from one vector over K to the next.
    const PITCH: u32 = 2 * K + 64;
    /// Rows of a block at most.
    const ROWS: u32 = THREADS / 32 * team_rows(R);
    /// Two coefficients for each token.
    const PAIRS: u32 = MOST_DRAFTS * 8;

    const KEYS: u32 = 2 * MOST_DRAFTS * Self::PITCH;
    const CORRECTIONS: u32 = Self::KEYS + MOST_RECORDS * Self::PITCH;
    const COEFFICIENTS: u32 = Self::CORRECTIONS + MOST_RECORDS * Self::ROWS * 4;
    const DRAFTS: u32 = Self::COEFFICIENTS + MOST_RECORDS * Self::PAIRS;
    const SCALARS: u32 = Self::DRAFTS + MOST_DRAFTS * Self::PAIRS;
    const GATES: u32 = Self::SCALARS + MOST_DRAFTS * 16;
    const FACTORS: u32 = Self::GATES + MOST_DRAFTS * 8;
    const WHOLE: u32 = Self::FACTORS + MOST_RECORDS * 4;

    /// The room at an address.
    #[inline(always)]
    pub(super) fn new(at: u32) -> Self {
        RoomOfProducts { at }
    }

    /// Its address.
    #[inline(always)]
    pub(super) fn at(&self) -> u32 {
        self.at
    }

    /// A token's key or query: vector `2 t`, or `2 t + 1`.
    #[inline(always)]
    pub(super) fn token(&self, vector: u32) -> u32 {
        self.at + vector * Self::PITCH
    }

    /// Record `j`'s key.
    #[inline(always)]
    pub(super) fn key(&self, j: u32) -> u32 {
        self.at + Self::KEYS + j * Self::PITCH
    }

    /// Record `j`'s correction of a row of the block.
    #[inline(always)]
    pub(super) fn correction(&self, j: u32, row: u32) -> u32 {
        self.at + Self::CORRECTIONS + (j * Self::ROWS + row) * 4
    }

    /// Two coefficients of token `t` for record `j`.
    #[inline(always)]
    pub(super) fn coefficients(&self, j: u32, t: u32) -> u32 {
        self.at + Self::COEFFICIENTS + j * Self::PAIRS + t * 8
    }

    /// Two coefficients of token `t` for draft `s`.
    #[inline(always)]
    pub(super) fn draft(&self, s: u32, t: u32) -> u32 {
        self.at + Self::DRAFTS + s * Self::PAIRS + t * 8
    }

    /// Token `t`'s scalars.
    #[inline(always)]
    pub(super) fn scalars(&self, t: u32) -> u32 {
        self.at + Self::SCALARS + t * 16
    }

    /// Token `t`'s decay and beta.
    #[inline(always)]
    pub(super) fn gate(&self, t: u32) -> u32 {
        self.at + Self::GATES + t * 8
    }

    /// The factor on record `j`'s correction.
    #[inline(always)]
    pub(super) fn factor(&self, j: u32) -> u32 {
        self.at + Self::FACTORS + j * 4
    }

    /// The decay of all records.
    #[inline(always)]
    pub(super) fn whole(&self) -> u32 {
        self.at + Self::WHOLE
    }
}

impl<const K: u32, const R: usize, const THREADS: u32> Piece for RoomOfProducts<K, R, THREADS> {
    const BYTES: usize = (Self::WHOLE + 16) as usize;
}
