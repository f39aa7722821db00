//! The states of all layers of a model with their rings and cursors, as one thing.

use super::{
    Cursors, Materialise, RecordForm, ReplayAdvance, ReplayFold, ReplayLayer, ReplayLayers, ReplayPool, Rings,
};
use crate::call::check::check_value;
use crate::call::{CallError, Operation, Rows, StatePool, Table};
use crate::key::{DType, ModuleKey, OpKind};
use gdn_kernels::abi::MOST_DRAFTS;

/// What the states of a model's layers are, and how many there are.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct ReplayShape {
    /// What records mean.
    pub form: RecordForm,
    /// Type of the checkpoints.
    pub state: DType,
    /// Type of the inputs.
    pub io: DType,
    /// Slots of each layer.
    pub slots: u32,
    /// Records that a ring has room for.
    pub records: u32,
    /// Drafts that a verification takes at most; every call leaves a ring so many free places. 0: no drafts are verified.
    pub drafts: u32,
    /// An index that marks padding besides the negative ones (vLLM: 0).
    pub null_slot: Option<i32>,
}

impl ReplayShape {
    /// States for decode alone.
    pub const fn new(form: RecordForm, state: DType, io: DType, slots: u32, records: u32) -> ReplayShape {
        ReplayShape { form, state, io, slots, records, drafts: 0, null_slot: None }
    }

    /// The same for verification of so many drafts as well.
    pub const fn with_drafts(self, drafts: u32) -> ReplayShape {
        ReplayShape { drafts, ..self }
    }

    /// The same with an index that marks padding.
    pub const fn with_null_slot(self, null_slot: i32) -> ReplayShape {
        ReplayShape { null_slot: Some(null_slot), ..self }
    }

    /// The kernels that all calls on such states need.
    pub fn modules(&self) -> Vec<ModuleKey> {
        let (RecordForm { family, shape, .. }, state, io) = (self.form, self.state, self.io);
        let of = |op| ModuleKey::replay(op, family, state, io, shape.k);
        let verify = (self.drafts > 0).then(|| of(OpKind::ReplayVerify));
        let step = [of(OpKind::ReplayDecode), of(OpKind::ReplayFold), ModuleKey::replay_advance()];
        let commit = verify.map(|_| ModuleKey::replay_commit());
        step.into_iter().chain(verify).chain(commit).collect()
    }

    /// Bytes of a slot in a layer: its checkpoint, and its rings of keys, corrections and log decays.
    pub fn slot_bytes(&self) -> [u64; 4] {
        let [k, d, g] = Rings::widths(&self.form.shape, self.form.family, self.records);
        let elements = [self.form.shape.state_elements(), k, d, g];
        let sizes = [self.state, self.io, DType::F32, DType::F32].map(|dtype| dtype.size() as u64);
        std::array::from_fn(|i| elements[i].saturating_mul(sizes[i]))
    }

    /// Bytes of a layer: those of all its slots.
    pub fn layer_bytes(&self) -> u64 {
        let slot = self.slot_bytes().into_iter().fold(0, u64::saturating_add);
        slot.saturating_mul(self.slots.into())
    }

    /// A layer in one piece of memory of [`Self::layer_bytes`], 16-byte aligned: all checkpoints, all keys, all corrections,
    /// all log decays.
    pub fn layer_at(&self, address: u64) -> ReplayLayer {
        let [state, k, d, _] = self.slot_bytes().map(|bytes| bytes.saturating_mul(self.slots.into()));
        let keys = address.saturating_add(state);
        let corrections = keys.saturating_add(k);
        let decays = corrections.saturating_add(d);
        ReplayLayer { state: address, k: keys, d: corrections, g: decays, target: address }
    }
}

/// The states of all layers of a model with rings beside them, and one pair of cursors for all: what calls take of them.
///
/// It holds no memory and knows no GPU. Which sequence has which slot says a [`SlotAllocator`](crate::slots::SlotAllocator), as
/// for plain states; whatever moves a slot here moves its ring as well.
///
/// # Memory, once
///
/// For each layer [`ReplayShape::layer_bytes`], whatever they hold; the rows of [`ReplayLayer::row`] of all layers in device
/// memory; and two tables of i32, `base` and `len`, an entry for each slot, all zeros.
///
/// # The life of a request
///
/// Plain kernels read a state from one slot and may write it to another. A ring stays where it is, so here every sequence works
/// in the slot that is its own, `write_slots` of the allocator's [`StepTables`](crate::slots::StepTables). What it shared is copied there first.
///
/// ```no_run
/// use gdn_host::slots::{Sequence, SlotAllocator};
/// use gdn_host::*;
///
/// /// A step of decode: `upload` copies numbers to the device and keeps them there until the step has run.
/// ///
/// /// # Safety
/// /// As `Gdn::run`, for every call.
/// unsafe fn step(
///     gdn: &Gdn,
///     stream: driver::Stream,
///     states: &ReplayState,
///     slots: &mut SlotAllocator,
///     sequences: &[Sequence],
///     layers: &[(Inputs, Rows)],
///     mut upload: impl FnMut(&[i32]) -> Table,
/// ) -> Result<(), Box<dyn std::error::Error>> {
///     let tables = slots.step(sequences)?;
///     // Forks, and sequences that go on from a snapshot: their true states, of all layers, into slots of their own.
///     let (from, to) = tables.copies();
///     if !to.is_empty() {
///         let (count, from, to) = (to.len() as u32, upload(&from), upload(&to));
///         unsafe { gdn.run(&states.copy(count, from, to), stream)? };
///         unsafe { gdn.run(&states.empty(count, to), stream)? };
///     }
///     // New sequences start from zeros and an empty ring, whatever slot, ring and cursors held.
///     let reset: Vec<i32> = tables.reset.iter().map(|flag| i32::from(*flag)).collect();
///     let (own, start) = (upload(&tables.write_slots), Start::Reset(upload(&reset)));
///     let mut last = None;
///     for (layer, (inputs, out)) in layers.iter().enumerate() {
///         let pool = states.pool(layer)?.with_slots(own).with_start(start);
///         let decode = ReplayDecode::new(*inputs, sequences.len() as u32, pool, *out);
///         unsafe { gdn.run(&decode, stream)? };
///         last = Some(decode);
///     }
///     // The cursors, once for all layers.
///     if let Some(decode) = last {
///         unsafe { gdn.run(&ReplayAdvance::behind_decode(&decode), stream)? };
///     }
///     Ok(slots.written(sequences)?)
/// }
/// ```
///
/// - **Drafts**: [`ReplayVerify`](crate::ReplayVerify) for each layer in place of decode, with [`ReplayShape::drafts`] of the state at
///   least its tokens. Then once [`ReplayAdvance::behind_verify`], with trees after
///   [`ReplayCommit::behind`](crate::ReplayCommit::behind) on [`Self::layers`]. Name every sequence to `written`, also those of
///   which nothing was accepted: their slots are their own now.
/// - **Snapshots**: nothing but the allocator's `snapshot`, behind the step's cursors. The slot keeps checkpoint, ring and cursors
///   as they are, and whoever goes on from there copies the true state. The state within a run of accepted drafts, behind
///   record c, is that of [`Materialise::with_count`].
/// - **Parked, or handed over to another process**: [`Self::store`] puts true states, in the form of plain ones, into memory of
///   the caller's, for all layers at once.
/// - **Resumed, or received** (`resume` and `receive` of the allocator): copy the plain state into the slot's checkpoints, say with
///   [`CopyState`](crate::CopyState), and run [`Self::empty`] for the slot.
/// - **Back to kernels that write the state**: [`Self::fold`], then [`Self::empty`]; the checkpoints are then plain states.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplayState {
    shape: ReplayShape,
    list: Vec<ReplayLayer>,
    table: u64,
    cursors: Cursors,
}

impl ReplayState {
    /// The states of `layers`, whose rows stand at device address `table`. `base` and `len` are tables of i32 or u32 with an entry
    /// for each slot.
    ///
    /// # Errors
    /// Types, heads or a K that there are no kernels for; a ring too long, or too short for the drafts; memory that is null,
    /// misaligned or overlaps in a layer; two layers of one memory.
    pub fn new(
        shape: ReplayShape,
        layers: Vec<ReplayLayer>,
        table: u64,
        base: Table,
        len: Table,
    ) -> Result<ReplayState, CallError> {
        let cursors = Cursors::by_slot(len).with_base(base);
        let states = ReplayState { shape, list: layers, table, cursors };
        let first = states.list.first().copied().unwrap_or_else(|| shape.layer_at(0));
        states.pool_of(&first).check_options(shape.form.family, shape.drafts)?;
        check_value("drafts", shape.drafts, shape.drafts <= MOST_DRAFTS, "at most 8 drafts")?;
        ReplayFold::new(shape.form, 1, states.pool_of(&first), states.layers()).check()?;
        states.empty(1, Table::i32(len.address, 1)).check_arguments()?;
        states.check_distinct()?;
        Ok(states)
    }

    /// Refuses memory that begins where that of another layer does. Pools may interleave layers, so there is no more to ask of them.
    fn check_distinct(&self) -> Result<(), CallError> {
        let mut begins: Vec<u64> = self.list.iter().flat_map(|of| [of.state, of.k, of.d, of.g]).collect();
        begins.sort_unstable();
        match begins.windows(2).any(|pair| pair[0] == pair[1]) {
            true => Err(CallError::Overlap { written: "layers", other: "another layer" }),
            false => Ok(()),
        }
    }

    /// What the states are.
    pub fn shape(&self) -> &ReplayShape {
        &self.shape
    }

    /// All layers, for [`ReplayCommit`](crate::ReplayCommit).
    pub fn layers(&self) -> ReplayLayers<'_> {
        ReplayLayers { list: &self.list, table: self.table }
    }

    /// The pool of a layer, counted from 0: sequence n in slot n until it is told otherwise.
    ///
    /// # Errors
    /// There are not so many layers.
    pub fn pool(&self, layer: usize) -> Result<ReplayPool, CallError> {
        check_value("layer", layer as f64, layer < self.list.len(), "below the number of layers")?;
        Ok(self.pool_of(&self.list[layer]))
    }

    /// Copies true states between slots in all layers: copy n from slot `from[n]` to slot `to[n]`, whose ring [`Self::empty`] is to
    /// empty behind it. No slot of `to` is in `from`.
    pub fn copy(&self, copies: u32, from: Table, to: Table) -> Materialise<'_> {
        let pool = self.any_pool().with_slots(from);
        Materialise::new(self.shape.form, copies, pool, self.layers(), pool.state).with_target_slots(to)
    }

    /// Makes rings empty: of `count` slots, `[count]`. Their checkpoints are their states then.
    pub fn empty(&self, count: u32, slots: Table) -> ReplayAdvance {
        // A decode behind which no record may be live.
        let pool = self.any_pool().with_slots(slots).with_most(0);
        ReplayAdvance { batch: count, tokens: 1, pool, accepted: None }
    }

    /// Folds rings in all layers: of `count` slots, `[count]`, which [`Self::empty`] is to empty behind it.
    pub fn fold(&self, count: u32, slots: Table) -> ReplayFold<'_> {
        ReplayFold::new(self.shape.form, count, self.any_pool().with_slots(slots), self.layers())
    }

    /// Stores the true states of `count` slots into pools of plain states, one a layer: that of slot `slots[n]` into slot
    /// `target_slots[n]`. `layers` are [`Self::layers_to`] the pools' addresses, and `target` is any one of the pools,
    /// which has no null slot.
    pub fn store<'a>(
        &self,
        count: u32,
        slots: Table,
        layers: ReplayLayers<'a>,
        target: StatePool,
        target_slots: Table,
    ) -> Materialise<'a> {
        let pool = ReplayPool { null_slot: None, ..self.any_pool().with_slots(slots) };
        Materialise::new(self.shape.form, count, pool, layers, target).with_target_slots(target_slots)
    }

    /// All layers with true states that go to pools at these addresses; as many as both have.
    pub fn layers_to(&self, targets: &[u64]) -> Vec<ReplayLayer> {
        self.list.iter().zip(targets).map(|(layer, target)| layer.with_target(*target)).collect()
    }

    /// The pool of calls for all layers, whose addresses are the list's.
    fn any_pool(&self) -> ReplayPool {
        self.pool_of(&self.list.first().copied().unwrap_or_else(|| self.shape.layer_at(0)))
    }

    fn pool_of(&self, layer: &ReplayLayer) -> ReplayPool {
        let ReplayShape { form, state, io, slots, records, drafts, null_slot } = self.shape;
        let [k, d, g] = Rings::widths(&form.shape, form.family, records);
        let rows = |address, dtype, width| Rows::packed(address, dtype, slots.into(), width);
        let (k, d, g) = (rows(layer.k, io, k), rows(layer.d, DType::F32, d), rows(layer.g, DType::F32, g));
        let rings = Rings::new(records, k, d, g);
        let state = StatePool::packed(layer.state, state, slots, &form.shape);
        let pool = ReplayPool::new(state, rings, self.cursors).with_most(records.saturating_sub(drafts));
        ReplayPool { null_slot, ..pool }
    }
}
