//! The buffer that keeps the state after each token of a draft.

use super::check::{VECTOR_BYTES, check_optional_table, check_rows, check_value};
use super::{CallError, Extents, Rows, SlotPool, Table, Tensor};
use crate::shape::HeadShape;
use gdn_kernels::abi::DType;

/// A buffer for the state after each token: `[rows, steps, HV, V, K]`, in the layout of the state. It has the state's type, or,
/// beside a state in f32, any: a tree's token then starts from its parent's state as the buffer holds it, rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Intermediate {
    /// The memory.
    pub tensor: Tensor,
    /// Rows of the buffer.
    pub rows: u32,
    /// Tokens that a row has room for. States of further tokens are not stored.
    pub steps: u32,
    /// Elements from one row to the next, at least steps * HV * V * K.
    pub pitch: u64,
    /// `[N]`: the row of each sequence; an index that names no row stores nothing. Without it sequence n's row
    /// is n.
    pub row: Option<Table>,
    /// `[N, steps]`: drafts are trees, and token t > 0 starts from the state after token
    /// `parent[n, t]` as the buffer holds it. A parent outside `0..t` means that the token starts from where the
    /// sequence did. Entries of token 0 and of sequences without a row are ignored.
    pub parent: Option<Table>,
}

impl Intermediate {
    /// A buffer of `rows` rows of `steps` states, `pitch` elements apart; sequence n's row is n, and drafts are chains.
    pub fn new(tensor: Tensor, rows: u32, steps: u32, pitch: u64) -> Intermediate {
        Intermediate { tensor, rows, steps, pitch, row: None, parent: None }
    }

    /// [`Self::new`] of rows one behind the other.
    pub fn packed(address: u64, dtype: DType, rows: u32, steps: u32, shape: &HeadShape) -> Intermediate {
        let pitch = u64::from(steps).saturating_mul(shape.state_elements());
        let len = u64::from(rows).saturating_mul(pitch);
        Intermediate::new(Tensor { address, dtype, len }, rows, steps, pitch)
    }

    /// The same buffer with the row of each sequence, `[N]`.
    pub fn with_row(self, row: Table) -> Intermediate {
        Intermediate { row: Some(row), ..self }
    }

    /// The same buffer with drafts that are trees: the parent of each token, `[N, steps]`.
    pub fn with_parent(self, parent: Table) -> Intermediate {
        Intermediate { parent: Some(parent), ..self }
    }

    /// The buffer as a pool: a row is a slot.
    pub(crate) fn pool(&self) -> SlotPool {
        SlotPool { tensor: self.tensor, slots: self.rows, pitch: self.pitch, layout: None }
    }

    /// Everything but the table of parents, for states of `elements` elements.
    pub(super) fn check(&self, elements: u64, batch: u32) -> Result<(), CallError> {
        check_value("intermediate.rows", self.rows, self.rows > 0, "at least 1")?;
        check_value("intermediate.steps", self.steps, self.steps > 0, "at least 1")?;
        let states = Rows { tensor: self.tensor, stride: self.pitch };
        let row = u64::from(self.steps).saturating_mul(elements);
        check_rows("intermediate", &states, row, self.rows.into(), VECTOR_BYTES)?;
        check_optional_table("intermediate.row", self.row.as_ref(), batch)
    }

    /// The memory of states of `elements` elements, and the table of rows.
    pub(super) fn push_extents(&self, extents: &mut Extents, elements: u64, written: bool) {
        let row = u64::from(self.steps).saturating_mul(elements);
        extents.push(self.pool().extent("intermediate", row, written));
        extents.push_table("intermediate.row", self.row.as_ref());
    }
}
