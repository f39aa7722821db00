//! Copies between slots, and commits of drafts.

use super::{Bytes, dtype, indices, place_optional, slot_of};
use crate::device::Device;
use crate::table::TableForm;
use anyhow::Result;
use gdn_host::{
    CommitState, CopyState, DType, HeadShape, Intermediate, Layout, SlotPool, StatePool, Table, Tile,
};
use proptest::prelude::*;

/// Copies of slots.
#[derive(Clone, Debug)]
pub struct CopyProblem {
    /// Number of copies.
    pub copies: usize,
    /// Elements of a copy: a slot may have more.
    pub elements: usize,
    /// Where copies come from.
    pub source: Bytes,
    /// Their slots.
    pub source_slots: Option<Vec<i32>>,
    /// Where they go, if not to the source.
    pub target: Option<Bytes>,
    /// Their slots.
    pub target_slots: Option<Vec<i32>>,
    /// An index that names no slot.
    pub null_slot: Option<i32>,
    /// How tables lie in memory.
    pub tables: TableForm,
}

impl CopyProblem {
    /// Copies of dense slots between two pools, copy n from slot n to slot n.
    pub fn plain(dtype: DType, copies: usize, elements: usize, seed: u64) -> CopyProblem {
        CopyProblem {
            copies,
            elements,
            source: Bytes::random(dtype, copies, elements, seed),
            source_slots: None,
            target: Some(Bytes::random(dtype, copies, elements, seed + 1)),
            target_slots: None,
            null_slot: None,
            tables: TableForm::default(),
        }
    }

    /// The pool that is written, as it must come out.
    pub fn expected(&self) -> Bytes {
        let mut out = self.target.clone().unwrap_or_else(|| self.source.clone());
        for n in 0..self.copies {
            let from = slot_of(self.source_slots.as_ref(), n, self.source.rows, self.null_slot);
            let to = slot_of(self.target_slots.as_ref(), n, out.rows, self.null_slot);
            if let (Some(from), Some(to)) = (from, to) {
                let bytes = &self.source.data[self.source.elements(from, 0, self.elements)];
                let place = out.elements(to, 0, self.elements);
                out.data[place].copy_from_slice(bytes);
            }
        }
        out
    }

    /// Puts the problem into device memory.
    pub fn place(&self, device: &mut dyn Device) -> Result<CopyState> {
        let source = self.source.place_pool(device)?;
        Ok(CopyState {
            copies: self.copies as u32,
            elements: self.elements as u64,
            source,
            source_slots: place_optional(device, self.tables, self.source_slots.as_ref())?,
            target: match &self.target {
                Some(target) => target.place_pool(device)?,
                None => source,
            },
            target_slots: place_optional(device, self.tables, self.target_slots.as_ref())?,
            null_slot: self.null_slot,
        })
    }

    /// Runs the problem and holds every byte of both pools against what must be there.
    pub fn run_and_check(&self, device: &mut dyn Device, tile: Tile) -> Result<()> {
        device.reset();
        let call = self.place(device)?;
        device.run(&call, tile)?;
        if self.target.is_some() {
            self.source.check(device, call.source.tensor.address, "source")?;
        }
        self.expected().check(device, call.target.tensor.address, "target")
    }
}

/// Random copies.
pub fn copies() -> impl Strategy<Value = CopyProblem> {
    (1usize..=4, dtype(), 1usize..=700, [0usize..3, 0..3, 0..3, 0..3], any::<[bool; 4]>()).prop_flat_map(
        |(copies, dtype, vectors, gaps, [one_pool, by_table, to_table, null])| {
            let slots = 2 * copies + 1;
            (indices(copies, slots), indices(2 * copies, slots), any::<u64>()).prop_map(
                move |(from, both, seed)| {
                    let vector = 16 / dtype.size();
                    let elements = vectors * vector;
                    let pool = |seed, more: usize, gap: usize| {
                        let pool = Bytes::random(dtype, slots, elements + more * vector, seed);
                        pool.spaced(gap * vector, gap * vector)
                    };
                    // Within a pool no target is another copy's source: the table of both has no slot twice.
                    let (source, target) = match one_pool {
                        true => (Some(both[..copies].to_vec()), Some(both[copies..].to_vec())),
                        false => (by_table.then_some(from), to_table.then(|| both[..copies].to_vec())),
                    };
                    CopyProblem {
                        copies,
                        elements,
                        source: pool(seed, gaps[0], gaps[1]),
                        source_slots: source,
                        target: (!one_pool).then(|| pool(seed ^ 1, gaps[2], gaps[3])),
                        target_slots: target,
                        null_slot: null.then_some(both[0].max(0)),
                        tables: TableForm::drawn(seed),
                    }
                },
            )
        },
    )
}

/// A commit of intermediate states.
#[derive(Clone, Debug)]
pub struct CommitProblem {
    /// Heads.
    pub shape: HeadShape,
    /// Sequences.
    pub batch: usize,
    /// Steps of a row of the buffer.
    pub steps: usize,
    /// `[rows, steps * HV * V * K]`.
    pub intermediate: Bytes,
    /// Row of each sequence.
    pub row: Option<Vec<i32>>,
    /// Accepted tokens.
    pub accepted: Vec<i32>,
    /// The pool.
    pub state: Bytes,
    /// Slot of each sequence.
    pub slots: Option<Vec<i32>>,
    /// An index that names no slot.
    pub null_slot: Option<i32>,
    /// How tables lie in memory.
    pub tables: TableForm,
}

impl CommitProblem {
    /// Sequence n's state goes from row n, after its first token, to slot n.
    pub fn plain(shape: HeadShape, dtype: DType, batch: usize, steps: usize, seed: u64) -> CommitProblem {
        let elements = shape.state_elements() as usize;
        CommitProblem {
            shape,
            batch,
            steps,
            intermediate: Bytes::random(dtype, batch, steps * elements, seed),
            row: None,
            accepted: vec![1; batch],
            state: Bytes::random(dtype, batch, elements, seed + 1),
            slots: None,
            null_slot: None,
            tables: TableForm::default(),
        }
    }

    /// The pool as it must come out.
    pub fn expected(&self) -> Bytes {
        let mut out = self.state.clone();
        let elements = self.shape.state_elements() as usize;
        for (n, &accepted) in self.accepted.iter().enumerate() {
            let row = slot_of(self.row.as_ref(), n, self.intermediate.rows, None);
            let slot = slot_of(self.slots.as_ref(), n, out.rows, self.null_slot);
            let step = usize::try_from(accepted).ok().filter(|count| (1..=self.steps).contains(count));
            if let (Some(row), Some(slot), Some(count)) = (row, slot, step) {
                let from = self.intermediate.elements(row, (count - 1) * elements, elements);
                let place = out.elements(slot, 0, elements);
                out.data[place].copy_from_slice(&self.intermediate.data[from]);
            }
        }
        out
    }

    /// Runs the problem and holds every byte of buffer and pool against what must be there.
    pub fn run_and_check(&self, device: &mut dyn Device, tile: Tile) -> Result<()> {
        device.reset();
        let buffer = self.intermediate.place_pool(device)?;
        let row = place_optional(device, self.tables, self.row.as_ref())?;
        let state = self.state.place_pool(device)?;
        let call = CommitState {
            shape: self.shape,
            batch: self.batch as u32,
            intermediate: intermediate(&buffer, self.steps, row),
            accepted: self.tables.indices(device, &self.accepted, 1)?,
            state: state_pool(&state, Layout::Vk),
            slots: place_optional(device, self.tables, self.slots.as_ref())?,
            null_slot: self.null_slot,
        };
        device.run(&call, tile)?;
        self.intermediate.check(device, buffer.tensor.address, "intermediate")?;
        self.expected().check(device, state.tensor.address, "state")
    }
}

/// A pool of states in a layout.
pub fn state_pool(pool: &SlotPool, layout: Layout) -> StatePool {
    StatePool { tensor: pool.tensor, slots: pool.slots, pitch: pool.pitch, layout }
}

/// A buffer of intermediate states.
pub fn intermediate(buffer: &SlotPool, steps: usize, row: Option<Table>) -> Intermediate {
    let &SlotPool { tensor, slots, pitch, .. } = buffer;
    let mut buffer = Intermediate::new(tensor, slots, steps as u32, pitch);
    buffer.row = row;
    buffer
}

/// Random commits.
pub fn commits() -> impl Strategy<Value = CommitProblem> {
    (1usize..=3, 1usize..=3, dtype(), any::<[bool; 3]>(), 0usize..3, any::<u64>()).prop_flat_map(
        |(batch, steps, dtype, [by_row, by_slot, null], gap, seed)| {
            let accepted = prop::collection::vec(-1i32..=steps as i32 + 1, batch);
            let slots = batch + 2;
            (indices(batch, batch), indices(batch, slots), accepted).prop_map(move |(row, slot, accepted)| {
                let shape = HeadShape { h: 1, hv: 1, k: 64, v: 64 };
                let elements = shape.state_elements() as usize;
                let state = Bytes::random(dtype, slots, elements, seed);
                let plain = CommitProblem::plain(shape, dtype, batch, steps, seed);
                CommitProblem {
                    intermediate: plain.intermediate.spaced(8 * gap, 8 * gap),
                    row: by_row.then_some(row),
                    accepted,
                    state: state.spaced(16 * gap, 8 * gap),
                    null_slot: null.then_some(slot[0].max(0)),
                    slots: by_slot.then_some(slot),
                    tables: TableForm::drawn(seed),
                    ..plain
                }
            })
        },
    )
}
