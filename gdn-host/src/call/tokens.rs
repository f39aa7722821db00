//! Which tokens of a call are whose.

use super::check::check_table;
use super::{CallError, Extents, Table};

/// Which tokens a sequence has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tokens {
    /// Every sequence has as many: token t of sequence n is row `n * tokens + t` of the inputs and the output.
    Each {
        /// Sequences, N.
        batch: u32,
        /// Tokens of each, T.
        tokens: u32,
    },
    /// Sequences of different lengths, 0 among them, one behind the other.
    Packed {
        /// Sequences, N.
        batch: u32,
        /// Tokens in all: rows of the inputs and the output. A range past it is treated as empty. Rows of the output behind
        /// the last sequence (a graph's padding) become zeros.
        total: u32,
        /// N + 1 rows: the first token of each sequence, and the end of the last.
        cu_seqlens: Table,
    },
}

impl Tokens {
    /// Sequences.
    pub(crate) fn batch(&self) -> u32 {
        match *self {
            Tokens::Each { batch, .. } | Tokens::Packed { batch, .. } => batch,
        }
    }

    /// Rows of the inputs.
    pub(crate) fn total(&self) -> u64 {
        match *self {
            Tokens::Each { batch, tokens } => u64::from(batch) * u64::from(tokens),
            Tokens::Packed { total, .. } => total.into(),
        }
    }

    pub(super) fn cu_seqlens(&self) -> Option<&Table> {
        match self {
            Tokens::Each { .. } => None,
            Tokens::Packed { cu_seqlens, .. } => Some(cu_seqlens),
        }
    }

    pub(super) fn check(&self) -> Result<(), CallError> {
        let total = self.total();
        if total > u32::MAX.into() {
            let want = "fewer than 2^32 tokens in all";
            return Err(CallError::Value { field: "tokens", value: total as f64, want });
        }
        let Some(cu_seqlens) = self.cu_seqlens() else { return Ok(()) };
        check_table("tokens.cu_seqlens", cu_seqlens, u64::from(self.batch()) + 1, 1)
    }

    pub(super) fn push_extents(&self, extents: &mut Extents) {
        extents.push_table("tokens.cu_seqlens", self.cu_seqlens());
    }

    /// The number of tokens as the kernels take it: of each sequence, or in all.
    pub(super) fn to_abi(self) -> u32 {
        match self {
            Tokens::Each { tokens, .. } => tokens,
            Tokens::Packed { total, .. } => total,
        }
    }
}
