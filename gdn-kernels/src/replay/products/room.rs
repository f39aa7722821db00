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
//! factors       [record], on its correction where it is folded
//! whole         the decay of all records; KDA: [K]
//! ```
//!
//! With a decay for each key there are as well:
//!
//! ```text
//! operands      [part, token, k and q, K], with the decays of all records and of the way to the token
//! decays        [record, K], first log decays, then the decays of what is behind the record; behind them [draft, K], its own
//! shares        [quarter of K, record, token] of the coefficients, in whose place are first the decays of the ways to the tokens;
//! squares       [quarter of K, record] of its key
//! ```

use super::fragment::{PARTS, team_rows};
use crate::abi::{MOST_DRAFTS, MOST_KDA_RECORDS, MOST_RECORDS};
use crate::arch::Piece;
use crate::gate::Gate;
use core::marker::PhantomData;

/// Pieces of K whose shares of records' coefficients are taken apart.
pub(super) const QUARTERS: u32 = 4;

/// The shared memory of a block of up to `THREADS` threads whose warps have tiles of height `R`.
pub(crate) struct RoomOfProducts<G, const K: u32, const R: usize, const THREADS: u32> {
    at: u32,
    gate: PhantomData<G>,
}

impl<G: Gate, const K: u32, const R: usize, const THREADS: u32> RoomOfProducts<G, K, R, THREADS> {
    /// Records of a ring at most.
    const RECORDS: u32 = if G::PER_KEY { MOST_KDA_RECORDS } else { MOST_RECORDS };
    /// Bytes from one vector over K to the next.
    const PITCH: u32 = 2 * K + 64;
    /// Rows of a block at most.
    const ROWS: u32 = THREADS / 32 * team_rows(R);
    /// Two coefficients for each token.
    const PAIRS: u32 = MOST_DRAFTS * 8;

    const KEYS: u32 = 2 * MOST_DRAFTS * Self::PITCH;
    const CORRECTIONS: u32 = Self::KEYS + Self::RECORDS * Self::PITCH;
    const COEFFICIENTS: u32 = Self::CORRECTIONS + Self::RECORDS * Self::ROWS * 4;
    const DRAFTS: u32 = Self::COEFFICIENTS + Self::RECORDS * Self::PAIRS;
    const SCALARS: u32 = Self::DRAFTS + MOST_DRAFTS * Self::PAIRS;
    const GATES: u32 = Self::SCALARS + MOST_DRAFTS * 16;
    const FACTORS: u32 = Self::GATES + MOST_DRAFTS * 8;
    const WHOLE: u32 = Self::FACTORS + Self::RECORDS * 4;
    const BEHIND_WHOLE: u32 = Self::WHOLE + if G::PER_KEY { 4 * K } else { 16 };

    /// Bytes of decays of a record: as far apart that lane groups meet no bank twice.
    const DECAYS: u32 = 4 * K + 16;
    /// Bytes of a part of all operands.
    pub(super) const PART: u32 = 2 * MOST_DRAFTS * Self::PITCH;
    /// Bytes of a quarter of the shares, or of the decays of the ways to all tokens.
    const SHARE: u32 = {
        assert!(Self::RECORDS * Self::PAIRS >= MOST_DRAFTS * (K / QUARTERS) * 4);
        Self::RECORDS * Self::PAIRS
    };
    const OPERANDS: u32 = Self::BEHIND_WHOLE;
    const ALL_DECAYS: u32 = Self::OPERANDS + PARTS as u32 * Self::PART;
    const SHARES: u32 = Self::ALL_DECAYS + Self::RECORDS * Self::DECAYS;
    const SQUARES: u32 = Self::SHARES + QUARTERS * Self::SHARE;
    const END: u32 = if G::PER_KEY { Self::SQUARES + QUARTERS * Self::RECORDS * 4 } else { Self::BEHIND_WHOLE };

    /// The room at an address.
    #[inline(always)]
    pub(super) fn new(at: u32) -> Self {
        RoomOfProducts { at, gate: PhantomData }
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

/// What there is with a decay for each key.
impl<G: Gate, const K: u32, const R: usize, const THREADS: u32> RoomOfProducts<G, K, R, THREADS> {
    /// The first part of a token's key or query with its decays, as [`Self::token`] numbers them; the others are
    /// [`Self::PART`] bytes behind it each.
    #[inline(always)]
    pub(super) fn operand(&self, vector: u32) -> u32 {
        self.at + Self::OPERANDS + vector * Self::PITCH
    }

    /// Decays of record `j`, or of draft `j - len`.
    #[inline(always)]
    pub(super) fn decays(&self, j: u32) -> u32 {
        self.at + Self::ALL_DECAYS + j * Self::DECAYS
    }

    /// Decays of a quarter of K on the way to token `t`.
    #[inline(always)]
    pub(super) fn way(&self, quarter: u32, t: u32) -> u32 {
        self.at + Self::SHARES + quarter * Self::SHARE + t * (K / QUARTERS * 4)
    }

    /// What a quarter of K counts in two coefficients of token `t` for record `j`.
    #[inline(always)]
    pub(super) fn share(&self, quarter: u32, j: u32, t: u32) -> u32 {
        self.at + Self::SHARES + quarter * Self::SHARE + j * Self::PAIRS + t * 8
    }

    /// What a quarter of K counts in the square of record `j`'s key.
    #[inline(always)]
    pub(super) fn square(&self, quarter: u32, j: u32) -> u32 {
        self.at + Self::SQUARES + (quarter * Self::RECORDS + j) * 4
    }
}

impl<G: Gate, const K: u32, const R: usize, const THREADS: u32> Piece for RoomOfProducts<G, K, R, THREADS> {
    const BYTES: usize = Self::END as usize;
}
