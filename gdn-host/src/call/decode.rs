//! Single-token decode.

use super::check::{check_null_slot, check_optional_flags, check_optional_table};
use super::{CallError, Extent, Extents, Inputs, Operation, Params, Rows, Start, StatePool, Table};
use crate::key::ModuleKey;
use crate::plan::{self, Caps, Job, Overlap, Plan, PlanError, Tile, Tuning};
use gdn_kernels::abi;

/// Single-token decode of a batch: the operation SGLang calls `fused_sigmoid_gating_delta_rule_update`, and in
/// KDA `fused_recurrent_kda_fwd`.
///
/// For every sequence `n` and value head: `h` is read from `state[slots[n]]` (or is zero), decayed, corrected
/// towards v with weight beta, stored to `state[write_slots[n]]` (or in place), and `h q` is written to
/// `out[n]`. Formulas: `docs/NUMERICS.md`.
///
/// A negative index, `null_slot`, or an index past the pool marks a padded row: its state is not touched and
/// its output is zeros. Two sequences of one call must not write the same slot, nor one write a slot that
/// another reads: their order is not defined.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Decode {
    /// Inputs: a row for each sequence.
    pub inputs: Inputs,
    /// Sequences, N. With 0 nothing is launched.
    pub batch: u32,
    /// States, updated in place. Of type f32, that of q, or f16 under bf16; in layout VK with K = 128 of any type.
    pub state: StatePool,
    /// `[N]`: the slot each sequence starts from. Without it sequence n's is n.
    pub slots: Option<Table>,
    /// `[N]`: the slot each new state goes to, if not the one it came from. An index that names no slot
    /// means that the new state is not kept.
    pub write_slots: Option<Table>,
    /// An index value that marks padding besides the negative ones (vLLM: 0).
    pub null_slot: Option<i32>,
    /// Sequences that start from zeros.
    pub start: Start,
    /// Output, rows of `[HV, V]`: of the type of q, or f32.
    pub out: Rows,
}

impl Decode {
    /// One token for each of `batch` sequences, sequence n in slot n.
    pub fn new(inputs: Inputs, batch: u32, state: StatePool, out: Rows) -> Decode {
        let (slots, write_slots, null_slot, start) = (None, None, None, Start::FromSlot);
        Decode { inputs, batch, state, slots, write_slots, null_slot, start, out }
    }

    /// The same call from the slots of a table, `[N]`.
    pub fn with_slots(self, slots: Table) -> Decode {
        Decode { slots: Some(slots), ..self }
    }

    /// The same call with new states in slots of their own, `[N]`.
    pub fn with_write_slots(self, write_slots: Table) -> Decode {
        Decode { write_slots: Some(write_slots), ..self }
    }

    /// The same call with an index that marks padding besides the negative ones.
    pub fn with_null_slot(self, null_slot: i32) -> Decode {
        Decode { null_slot: Some(null_slot), ..self }
    }

    /// The same call with sequences that start from zeros.
    pub fn with_start(self, start: Start) -> Decode {
        Decode { start, ..self }
    }

    /// What its plan follows from.
    fn job(&self) -> Job {
        let (inputs, state) = (&self.inputs, &self.state);
        let (shape, types) = (inputs.shape, (state.tensor.dtype, inputs.io()));
        let module = ModuleKey::decode(inputs.family, state.layout, types.0, types.1, shape.k);
        Job { module, shape, batch: self.batch, stores_each: false }
    }
}

impl Operation for Decode {
    fn check_arguments(&self) -> Result<(), CallError> {
        let inputs = &self.inputs;
        inputs.check_options()?;
        inputs.check_served("state", self.job().module)?;
        check_null_slot(self.null_slot)?;
        if self.batch == 0 {
            return Ok(());
        }
        let n = self.batch;
        inputs.check_memory(n.into())?;
        inputs.check_out(&self.out, n.into())?;
        self.state.check("state", inputs.shape.state_elements())?;
        if self.slots.is_none() {
            self.state.check_by_sequence("state", n)?;
        }
        check_optional_table("slots", self.slots.as_ref(), n)?;
        check_optional_table("write_slots", self.write_slots.as_ref(), n)?;
        check_optional_flags("start", self.start.table(), n)
    }

    fn extents(&self) -> Extents {
        let mut extents = Extents::default();
        let (shape, n) = (&self.inputs.shape, u64::from(self.batch));
        self.inputs.push_extents(&mut extents, n);
        extents.push(self.state.extent("state", shape, true));
        extents.push_table("slots", self.slots.as_ref());
        extents.push_table("write_slots", self.write_slots.as_ref());
        extents.push_table("start", self.start.table());
        extents.push(Extent::rows("out", &self.out, shape.value_elements(), n, true));
        extents
    }

    fn is_empty(&self) -> bool {
        self.batch == 0
    }

    fn overlap(&self) -> Overlap {
        Overlap::States
    }

    fn plan_tuned(&self, caps: &Caps, tuning: &Tuning, tile: Tile) -> Result<Plan, PlanError> {
        plan::tiled(&self.job(), caps, tuning, tile)
    }

    fn params(&self, plan: &Plan) -> Params {
        Params::new(&abi::DecodeParams {
            inputs: self.inputs.to_abi(),
            gate: self.inputs.gate(),
            pool: abi::Pool {
                state: self.state.tensor.address,
                slot: Table::to_abi(self.slots.as_ref()),
                write_slot: Table::to_abi(self.write_slots.as_ref()),
                reset: Table::to_abi(self.start.table()),
                pitch: self.state.pitch as u32,
                slots: self.state.slots,
                null_slot: self.null_slot.unwrap_or(-1),
                ahead: plan.ahead,
            },
            out: self.out.tensor.address,
            out_stride: self.out.stride as u32,
            n: self.batch,
            layer: self.inputs.layer(plan, Some(&self.out), self.start.flags()),
        })
    }

    unsafe fn run_on_host(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.as_recurrent().on_host() };
    }
}
