//! Where states lie: pools, their layout, and which sequences start from zeros.

use super::check::{VECTOR_BYTES, check_rows, check_value};
use super::{CallError, Extent, Rows, Table, Tensor};
use crate::key::Layout;
use crate::shape::HeadShape;
use gdn_kernels::abi::{self, DType};

/// A pool of recurrent states: `[slots, HV, V, K]`, or `[slots, HV, K, V]` in layout KV.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatePool {
    /// The memory; its type is the type of the state.
    pub tensor: Tensor,
    /// Slots in the pool. An index at or past it is treated as padding.
    pub slots: u32,
    /// Elements from one slot to the next, at least HV * V * K: pages may be padded or interleave layers.
    pub pitch: u64,
    /// Layout of a head's state.
    pub layout: Layout,
}

impl StatePool {
    /// `slots` states in layout VK, one behind the other.
    pub fn packed(address: u64, dtype: DType, slots: u32, shape: &HeadShape) -> StatePool {
        let pitch = shape.state_elements();
        let tensor = Tensor { address, dtype, len: u64::from(slots).saturating_mul(pitch) };
        StatePool { tensor, slots, pitch, layout: Layout::Vk }
    }

    /// The same pool with slots so many elements apart.
    pub fn with_pitch(self, pitch: u64) -> StatePool {
        StatePool { pitch, ..self }
    }

    /// The same pool in another layout.
    pub fn with_layout(self, layout: Layout) -> StatePool {
        StatePool { layout, ..self }
    }

    pub(super) fn check(&self, field: &'static str, elements: u64) -> Result<(), CallError> {
        SlotPool::from(*self).check(field, elements)
    }

    /// Sequence n is in slot n.
    pub(super) fn check_by_sequence(&self, field: &'static str, batch: u32) -> Result<(), CallError> {
        check_value(field, self.slots, self.slots >= batch, "as many states as there are sequences")
    }

    pub(super) fn extent(&self, field: &'static str, shape: &HeadShape, written: bool) -> Extent {
        SlotPool::from(*self).extent(field, shape.state_elements(), written)
    }
}

/// A pool of slots whatever they hold: recurrent states, windows of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotPool {
    /// The memory.
    pub tensor: Tensor,
    /// Slots in the pool. An index at or past it names none.
    pub slots: u32,
    /// Elements from one slot to the next.
    pub pitch: u64,
    /// Layout of the states, if slots hold recurrent ones.
    pub layout: Option<Layout>,
}

impl SlotPool {
    fn rows(&self) -> Rows {
        Rows { tensor: self.tensor, stride: self.pitch }
    }

    /// `elements` of every slot are there.
    pub(super) fn check(&self, field: &'static str, elements: u64) -> Result<(), CallError> {
        let in_range = (1..=i32::MAX as u32).contains(&self.slots);
        check_value(field, self.slots, in_range, "a pool of 1 to 2^31 - 1 slots")?;
        check_rows(field, &self.rows(), elements, self.slots.into(), VECTOR_BYTES)
    }

    /// `elements` of every slot.
    pub(super) fn extent(&self, field: &'static str, elements: u64, written: bool) -> Extent {
        Extent::rows(field, &self.rows(), elements, self.slots.into(), written)
    }
}

impl From<StatePool> for SlotPool {
    fn from(pool: StatePool) -> SlotPool {
        let StatePool { tensor, slots, pitch, layout } = pool;
        SlotPool { tensor, slots, pitch, layout: Some(layout) }
    }
}

/// Which sequences start from zeros instead of their slot's contents. Their slot must be a valid one all the
/// same: a padded row stays padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Start {
    /// None.
    #[default]
    FromSlot,
    /// Those whose entry of `[N]` is not 0.
    Reset(Table),
    /// Those whose entry of `[N]` is 0.
    HasInitialState(Table),
}

impl Start {
    pub(super) fn table(&self) -> Option<&Table> {
        match self {
            Start::FromSlot => None,
            Start::Reset(table) | Start::HasInitialState(table) => Some(table),
        }
    }

    /// The flag that the kernels read the table by.
    pub(super) fn flags(&self) -> u32 {
        match self {
            Start::HasInitialState(_) => abi::flags::RESET_INVERTED,
            Start::FromSlot | Start::Reset(_) => 0,
        }
    }
}
