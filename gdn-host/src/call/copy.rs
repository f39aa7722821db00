//! Copies of states from slot to slot, and the commit of accepted drafts.

use super::check::{VECTOR_BYTES, check_null_slot, check_optional_table, check_table, check_value};
use super::{CallError, Extents, Intermediate, Operation, Params, SlotPool, StatePool, Table};
use crate::key::ModuleKey;
use crate::plan::{self, Caps, Plan, PlanError, Tile, Tuning};
use crate::shape::HeadShape;
use gdn_kernels::abi;

/// Copies of whole slots, within a pool or from one to another: prefixes that are kept, forks that copy on write.
///
/// Copy n takes `elements` elements from slot `source_slots[n]` to slot `target_slots[n]`, whatever they are: states
/// of any type and layout, windows of a convolution. A copy one of whose indices is negative, `null_slot`, or past
/// its pool is not done.
///
/// Source and target may be one pool; two that overlap in part are refused. No copy's target may be another copy's
/// source or target: their order is not defined.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CopyState {
    /// Number of copies. With 0 nothing is launched.
    pub copies: u32,
    /// Elements of a copy, a multiple of 16 bytes: `HeadShape::state_elements` of a recurrent state.
    pub elements: u64,
    /// Where copies come from.
    pub source: SlotPool,
    /// `[copies]`: slot that each copy comes from. Without it copy n comes from slot n.
    pub source_slots: Option<Table>,
    /// Where copies go, of the type of the source and, if they say so, of its layout.
    pub target: SlotPool,
    /// `[copies]`: slot that each copy goes to. Without it copy n goes to slot n.
    pub target_slots: Option<Table>,
    /// An index value of either table that names no slot, besides the negative ones (vLLM: 0).
    pub null_slot: Option<i32>,
}

/// The commit of accepted drafts: the state after the last accepted token of each sequence, as
/// [`Recurrent`](crate::Recurrent) left it in its buffer, becomes the sequence's state in the pool.
///
/// Sequence n's state goes from `intermediate[row[n], accepted[n] - 1]` to `state[slots[n]]`. A sequence of which
/// nothing was accepted, whose count is past the buffer's steps, or one of whose indices names no row or no slot
/// commits nothing. In a tree the last accepted token counts by its place: for token t `accepted` is t + 1.
///
/// No two sequences may name the same slot: their order is not defined.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CommitState {
    /// Heads of this rank.
    pub shape: HeadShape,
    /// Sequences, N. With 0 nothing is launched.
    pub batch: u32,
    /// The buffer, as `Recurrent` was given it. Its `parent` means nothing here.
    pub intermediate: Intermediate,
    /// `[N]`: accepted tokens, `1..=steps`; 0 commits nothing.
    pub accepted: Table,
    /// Where states go, of the type and layout that the buffer has.
    pub state: StatePool,
    /// `[N]`: slot of each sequence. Without it sequence n's is n.
    pub slots: Option<Table>,
    /// An index value of `slots` that names no slot, besides the negative ones (vLLM: 0).
    pub null_slot: Option<i32>,
}

/// A side of a call's copies: a pool, and which of its slots.
#[derive(Clone, Copy)]
pub(super) struct Side<'a> {
    /// The field of the pool, and that of the table.
    pub(super) fields: [&'static str; 2],
    pub(super) pool: SlotPool,
    pub(super) slots: Option<&'a Table>,
}

impl Side<'_> {
    /// The pool has `elements` elements in every slot, the table an entry for each copy.
    pub(super) fn check(&self, elements: u64, copies: u32) -> Result<(), CallError> {
        self.pool.check(self.fields[0], elements)?;
        self.check_slots(copies)
    }

    /// The table has an entry for each copy; without one the pool has a slot for each.
    fn check_slots(&self, copies: u32) -> Result<(), CallError> {
        let [pool, table] = self.fields;
        check_optional_table(table, self.slots, copies)?;
        let enough = self.slots.is_some() || self.pool.slots >= copies;
        check_value(pool, self.pool.slots, enough, "at least the number of copies where no table names slots")
    }

    pub(super) fn push_extents(&self, extents: &mut Extents, elements: u64, written: bool) {
        let [pool, table] = self.fields;
        extents.push(self.pool.extent(pool, elements, written));
        extents.push_table(table, self.slots);
    }

    /// The side as the kernels take it.
    pub(super) fn to_abi(self, null_slot: Option<i32>) -> abi::Slots {
        abi::Slots {
            state: self.pool.tensor.address,
            slot: Table::to_abi(self.slots),
            pitch: vectors(&self.pool, self.pool.pitch) as u32,
            slots: self.pool.slots,
            null_slot: null_slot.unwrap_or(-1),
            reserved: 0,
        }
    }
}

/// Elements of a pool as vectors of 16 bytes.
fn vectors(pool: &SlotPool, elements: u64) -> u64 {
    elements.saturating_mul(pool.tensor.dtype.size() as u64) / VECTOR_BYTES
}

/// The types of two tensors that elements are moved between.
pub(super) fn check_same_type(
    field: &'static str,
    have: abi::DType,
    want: abi::DType,
    text: &'static str,
) -> Result<(), CallError> {
    if have == want { Ok(()) } else { Err(CallError::Type { field, have: have.name(), want: text }) }
}

/// The plan of copies of `vectors` vectors.
fn plan_copies(vectors: u64, copies: u32, caps: &Caps, tile: Tile) -> Result<Plan, PlanError> {
    let threads = vectors.div_ceil(abi::THREAD_VECTORS.into());
    plan::spread(ModuleKey::copy_state(), threads, copies, caps, tile)
}

impl CopyState {
    fn source(&self) -> Side<'_> {
        let fields = ["source", "source_slots"];
        Side { fields, pool: self.source, slots: self.source_slots.as_ref() }
    }

    fn target(&self) -> Side<'_> {
        let fields = ["target", "target_slots"];
        Side { fields, pool: self.target, slots: self.target_slots.as_ref() }
    }

    /// Whether both sides are the same slots.
    fn is_within_one_pool(&self) -> bool {
        let memory = |pool: &SlotPool| (pool.tensor.address, pool.pitch, pool.slots);
        memory(&self.source) == memory(&self.target)
    }
}

impl Operation for CopyState {
    fn check_arguments(&self) -> Result<(), CallError> {
        let refuse = |field, problem| Err(CallError::Combination { field, problem });
        let (source, target) = (&self.source, &self.target);
        check_null_slot(self.null_slot)?;
        check_same_type("target", target.tensor.dtype, source.tensor.dtype, "the type of the source")?;
        if let (Some(from), Some(to)) = (source.layout, target.layout)
            && from != to
        {
            return refuse("target", "it has another layout than the source: ConvertLayout transposes");
        }
        let whole =
            |elements: u64| (elements * source.tensor.dtype.size() as u64).is_multiple_of(VECTOR_BYTES);
        let sound = (1..=u32::MAX.into()).contains(&self.elements) && whole(self.elements);
        let want = "a multiple of 16 bytes, and 1 to 2^32 - 1 elements";
        check_value("elements", self.elements as f64, sound, want)?;
        if self.copies == 0 {
            return Ok(());
        }
        if self.is_within_one_pool() && self.source_slots.is_none() && self.target_slots.is_none() {
            return refuse(
                "target_slots",
                "within one pool and without tables every slot is copied onto itself",
            );
        }
        self.source().check(self.elements, self.copies)?;
        self.target().check(self.elements, self.copies)
    }

    /// One pool on both sides is one argument, so that the check of overlaps lets it pass.
    fn extents(&self) -> Extents {
        let mut extents = Extents::default();
        if self.is_within_one_pool() {
            extents.push_table("source_slots", self.source_slots.as_ref());
        } else {
            self.source().push_extents(&mut extents, self.elements, false);
        }
        self.target().push_extents(&mut extents, self.elements, true);
        extents
    }

    fn is_empty(&self) -> bool {
        self.copies == 0
    }

    fn plan_tuned(&self, caps: &Caps, _tuning: &Tuning, tile: Tile) -> Result<Plan, PlanError> {
        plan_copies(vectors(&self.source, self.elements), self.copies, caps, tile)
    }

    fn params(&self, _plan: &Plan) -> Params {
        Params::new(&abi::CopyStateParams {
            source: self.source().to_abi(self.null_slot),
            target: self.target().to_abi(self.null_slot),
            vectors: vectors(&self.source, self.elements) as u32,
            n: self.copies,
            ..abi::CopyStateParams::default()
        })
    }

    unsafe fn run_on_host(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.on_host() };
    }
}

impl CommitState {
    fn source(&self) -> Side<'_> {
        let fields = ["intermediate.rows", "intermediate.row"];
        Side { fields, pool: self.intermediate.pool(), slots: self.intermediate.row.as_ref() }
    }

    fn target(&self) -> Side<'_> {
        Side { fields: ["state", "slots"], pool: self.state.into(), slots: self.slots.as_ref() }
    }
}

impl Operation for CommitState {
    fn check_arguments(&self) -> Result<(), CallError> {
        self.shape.check()?;
        check_null_slot(self.null_slot)?;
        let (have, want) = (self.state.tensor.dtype, self.intermediate.tensor.dtype);
        check_same_type("state", have, want, "the type of the intermediate states")?;
        if self.batch == 0 {
            return Ok(());
        }
        let elements = self.shape.state_elements();
        self.intermediate.check(elements, self.batch)?;
        self.source().check_slots(self.batch)?;
        check_table("accepted", &self.accepted, self.batch.into(), 1)?;
        self.target().check(elements, self.batch)
    }

    fn extents(&self) -> Extents {
        let mut extents = Extents::default();
        let elements = self.shape.state_elements();
        self.intermediate.push_extents(&mut extents, elements, false);
        extents.push_table("accepted", Some(&self.accepted));
        self.target().push_extents(&mut extents, elements, true);
        extents
    }

    fn is_empty(&self) -> bool {
        self.batch == 0
    }

    fn plan_tuned(&self, caps: &Caps, _tuning: &Tuning, tile: Tile) -> Result<Plan, PlanError> {
        let state = vectors(&self.state.into(), self.shape.state_elements());
        plan_copies(state, self.batch, caps, tile)
    }

    fn params(&self, _plan: &Plan) -> Params {
        let state = vectors(&self.state.into(), self.shape.state_elements()) as u32;
        Params::new(&abi::CopyStateParams {
            source: self.source().to_abi(None),
            target: self.target().to_abi(self.null_slot),
            accepted: Table::to_abi(Some(&self.accepted)),
            step_pitch: state,
            steps: self.intermediate.steps,
            vectors: state,
            n: self.batch,
        })
    }

    unsafe fn run_on_host(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.on_host() };
    }
}
