//! Which slots of a pool a call's sequences read and write.

use crate::lock::{Memory, Operands};
use candle_core::{Device, Result, Tensor};
use gdn_host::slots::StepTables;

/// Sequences that start from zeros whatever their slot holds.
#[derive(Clone, Debug, Default)]
pub enum Start {
    /// None.
    #[default]
    FromSlot,
    /// Those whose entry of `[N]` is not 0.
    Reset(Tensor),
    /// Those whose entry of `[N]` is 0.
    HasInitialState(Tensor),
}

/// Where new states go.
#[derive(Clone, Debug, Default)]
pub enum Write {
    /// To the slot that a sequence started from.
    #[default]
    InPlace,
    /// Nowhere: the pool stays as it is.
    Nowhere,
    /// `[N]`: to other slots. An index that names none keeps nothing.
    Slots(Tensor),
    /// `[N, S]`: the state after token t to slot `table[n, t]`. It may be the table that sequences start from (vLLM), or one
    /// of its own (lanes of checkpoints).
    EachToken(Tensor),
}

/// Which slots of a pool a call's sequences read and write; [`Slots::default`] is sequence n in slot n, in place.
///
/// Tables of slots are u32, i32 or i64; rows may be any distance apart, so that a column of a wider table does. A negative
/// index, `u32::MAX`, `null_slot`, and any index past the pool mark a padded row: its state is not touched and its output is
/// zeros. Flags are u8, i32 or u32.
///
/// No two sequences of a call may write one slot, nor one write a slot that another reads: their order is not defined.
#[derive(Clone, Debug, Default)]
pub struct Slots {
    /// `[N]`, or `[N, S]` with `accepted`: the slot each sequence starts from. Without it sequence n's is n.
    pub slots: Option<Tensor>,
    /// `[N]`: sequence n starts from `slots[n, accepted[n] - 1]`, where the last accepted token of its last draft left it.
    pub accepted: Option<Tensor>,
    /// Where new states go.
    pub write: Write,
    /// An index that marks padding besides the others (vLLM: 0).
    pub null_slot: Option<i32>,
    /// Sequences that start from zeros.
    pub start: Start,
}

impl Slots {
    /// States updated in place in the slots of a table `[N]`.
    pub fn of(slots: &Tensor) -> Slots {
        Slots { slots: Some(slots.clone()), ..Slots::default() }
    }

    /// The same with new states elsewhere.
    pub fn with_write(self, write: Write) -> Slots {
        Slots { write, ..self }
    }

    /// The same with accepted counts `[N]`.
    pub fn with_accepted(self, accepted: &Tensor) -> Slots {
        Slots { accepted: Some(accepted.clone()), ..self }
    }

    /// The same with sequences that start from zeros.
    pub fn with_start(self, start: Start) -> Slots {
        Slots { start, ..self }
    }

    /// The same with an index that marks padding.
    pub fn with_null_slot(self, null_slot: i32) -> Slots {
        Slots { null_slot: Some(null_slot), ..self }
    }

    /// The tables of a step of [`SlotAllocator`](gdn_host::slots::SlotAllocator), copied to a device.
    ///
    /// # Errors
    /// A copy that failed.
    pub fn step(tables: &StepTables, device: &Device) -> Result<Slots> {
        let table = |entries: &[i32]| Tensor::from_slice(entries, entries.len(), device);
        let mut slots = Slots::of(&table(&tables.slots)?);
        if !tables.is_in_place() {
            slots.write = Write::Slots(table(&tables.write_slots)?);
        }
        if tables.reset.iter().any(|reset| *reset != 0) {
            slots.start = Start::Reset(Tensor::from_slice(&tables.reset, tables.reset.len(), device)?);
        }
        Ok(slots)
    }

    pub(crate) fn operands<'a>(&'a self, operands: &mut Operands<'a>) {
        operands.read_some("slots", self.slots.as_ref());
        operands.read_some("accepted", self.accepted.as_ref());
        match &self.write {
            Write::InPlace | Write::Nowhere => {}
            Write::Slots(table) | Write::EachToken(table) => operands.read("write", table),
        }
        match &self.start {
            Start::FromSlot => {}
            Start::Reset(table) | Start::HasInitialState(table) => operands.read("start", table),
        }
    }

    /// The pool's tensor: written, unless new states go nowhere.
    pub(crate) fn state_operand<'a>(&self, operands: &mut Operands<'a>, state: &'a Tensor) {
        match self.write {
            Write::Nowhere => operands.read("state", state),
            _ => operands.write("state", state),
        }
    }

    /// The slot of each sequence that a commit writes.
    pub(crate) fn of_commit(&self) -> Result<Option<&Tensor>> {
        match &self.write {
            Write::InPlace => Ok(self.slots.as_ref()),
            Write::Slots(table) => Ok(Some(table)),
            Write::Nowhere | Write::EachToken(_) => {
                candle_core::bail!("slots: a commit writes to one slot a sequence")
            }
        }
    }

    /// Whether a decode takes them: it starts from a slot, and writes in place or to a slot of its own.
    pub(crate) fn are_of_a_decode(&self) -> bool {
        self.accepted.is_none() && matches!(self.write, Write::InPlace | Write::Slots(_))
    }
}

impl Start {
    pub(crate) fn on(&self, memory: &Memory) -> Result<gdn_host::Start> {
        Ok(match self {
            Start::FromSlot => gdn_host::Start::FromSlot,
            Start::Reset(table) => gdn_host::Start::Reset(memory.table("start", table)?),
            Start::HasInitialState(table) => gdn_host::Start::HasInitialState(memory.table("start", table)?),
        })
    }
}
