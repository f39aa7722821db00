//! The states of all layers with their rings and cursors, as one thing.

use super::ReplayStep;
use crate::lock::{Memory, Operands};
use crate::memory::{check_shape, count, element, kernel_type};
use crate::pool::{StatePool, copy};
use crate::run::{Launch, run};
use crate::slots::{Slots, Write};
use candle_core::{DType, Device, Error, Result, Tensor};
use gdn_host::slots::StepTables;
use gdn_host::{
    Entry, Family, Layout, ModuleKey, Operation, RecordForm, ReplayLayer, ReplayLayers, ReplayShape, Table,
};

/// What the states of a model's layers are, and how many there are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReplayConfig {
    /// Heads, family, and what keys in rings mean; a layer's is [`Layer::record_form`](crate::Layer::record_form).
    pub form: RecordForm,
    /// Layers.
    pub layers: usize,
    /// Slots of each layer.
    pub slots: usize,
    /// Records that a ring has room for: 1 to 32, in KDA to 16.
    pub records: usize,
    /// Drafts that a verification takes at most, 0 to 8; every call leaves so many places of a ring free.
    pub drafts: usize,
    /// Type of the checkpoints: F32, that of the inputs, or F16 under BF16.
    pub state: DType,
    /// Type of the inputs.
    pub io: DType,
    /// An index that marks padding besides the others (vLLM: 0).
    pub null_slot: Option<i32>,
}

impl ReplayConfig {
    /// States in F32 under inputs in BF16, for decode alone, with rings of 16 records.
    pub fn new(form: RecordForm, layers: usize, slots: usize) -> ReplayConfig {
        let (state, io) = (DType::F32, DType::BF16);
        ReplayConfig { form, layers, slots, records: 16, drafts: 0, state, io, null_slot: None }
    }

    fn shape(&self) -> Result<ReplayShape> {
        let number = |field, number: usize| count(field, number as u64);
        let (state, io) = (kernel_type("state", self.state)?, kernel_type("io", self.io)?);
        let (slots, records) = (number("slots", self.slots)?, number("records", self.records)?);
        let shape = ReplayShape::new(self.form, state, io, slots, records);
        let shape = shape.with_drafts(number("drafts", self.drafts)?);
        Ok(self.null_slot.map_or(shape, |null_slot| shape.with_null_slot(null_slot)))
    }
}

/// The states of all layers of a model, in layout VK, with rings of records and one pair of cursors for all.
///
/// A slot's state is its checkpoint with the live records of its ring applied. Calls that move states move those, and leave
/// empty rings; each is a launch or two for all layers. Tensors are updated in place, and clones share them.
///
/// A ring stays in its slot, so a sequence works in the slot that it writes: with [`SlotAllocator`](crate::SlotAllocator) take each
/// step from [`Self::begin`].
#[derive(Clone, Debug)]
pub struct ReplayState {
    config: ReplayConfig,
    /// `[layers, slots, HV, V, K]`.
    state: Tensor,
    /// `[layers, slots, H, records, K]`, of the type of the inputs.
    keys: Tensor,
    /// `[layers, slots, HV, records, V]`, F32.
    corrections: Tensor,
    /// `[layers, slots, HV, records]`, in KDA `[.., K]`, F32.
    decays: Tensor,
    /// `[slots]`, U32.
    base: Tensor,
    /// `[slots]`, U32.
    len: Tensor,
    /// The layers' addresses.
    rows: Tensor,
    /// What calls take of it.
    calls: gdn_host::ReplayState,
}

impl ReplayState {
    /// States of zeros, with empty rings.
    ///
    /// # Errors
    /// What there are no kernels for, rings that are too long or too short for the drafts; an allocation that failed.
    pub fn zeros(config: &ReplayConfig, device: &Device) -> Result<ReplayState> {
        let (shape, &ReplayConfig { layers, slots, records, .. }) = (config.shape()?, config);
        let [h, hv, k, v] =
            [config.form.shape.h, config.form.shape.hv, config.form.shape.k, config.form.shape.v]
                .map(|dim| dim as usize);
        let zeros = |dims: &[usize], of| Tensor::zeros([&[layers, slots][..], dims].concat(), of, device);
        let (state, keys) = (zeros(&[hv, v, k], config.state)?, zeros(&[h, records, k], config.io)?);
        let corrections = zeros(&[hv, records, v], DType::F32)?;
        let decays = match config.form.family {
            Family::Gdn => zeros(&[hv, records], DType::F32)?,
            Family::Kda => zeros(&[hv, records, k], DType::F32)?,
        };
        let cursors = || Tensor::zeros(slots, DType::U32, device);
        let (base, len) = (cursors()?, cursors()?);
        let tensors = [&state, &keys, &corrections, &decays];
        let first = addresses(&tensors)?;
        let list: Vec<ReplayLayer> = (0..layers).map(|layer| layer_at(&tensors, &first, layer)).collect();
        let rows = rows_of(&list, device)?;
        let [table, base_at, len_at] = addresses(&[&rows, &base, &len])?[..] else {
            candle_core::bail!("layers: {layers} have no memory");
        };
        let cursors = |address| Table::new(address, Entry::U32, shape.slots.into());
        let (base_at, len_at) = (cursors(base_at), cursors(len_at));
        let calls = gdn_host::ReplayState::new(shape, list, table, base_at, len_at).map_err(Error::wrap)?;
        Ok(ReplayState { config: *config, state, keys, corrections, decays, base, len, rows, calls })
    }

    /// What the states are.
    pub fn config(&self) -> &ReplayConfig {
        &self.config
    }

    /// Where they are.
    pub fn device(&self) -> &Device {
        self.state.device()
    }

    /// The kernels that calls on them launch, for [`preload`](crate::preload).
    pub fn modules(&self) -> Vec<ModuleKey> {
        let calls = self.calls.shape().modules().into_iter();
        calls.chain([ModuleKey::copy_state()]).collect()
    }

    /// The checkpoints of a layer as a plain pool, in place. Where a sequence's ring is empty ([`Self::fold`], [`Self::empty`]) they
    /// are its state, and calls that write the state ([`verify`](crate::verify), [`layer_step`](crate::layer_step)) may go on from
    /// there: to read prompts.
    ///
    /// # Errors
    /// There are not so many layers.
    pub fn checkpoints(&self, layer: usize) -> Result<StatePool> {
        Ok(StatePool { tensor: self.state.get(layer)?, layout: Layout::Vk })
    }

    /// A step of the sequences that have `slots`. Where these name other slots to write ([`Write::Slots`]), sequences work in those.
    ///
    /// # Errors
    /// Slots that a sequence with a ring cannot have.
    pub fn step(&self, slots: &Slots) -> Result<ReplayStep<'_>> {
        ReplayStep::new(self, slots)
    }

    /// A step as an allocator dealt it out. States that its sequences share with others are copied to slots of their own first.
    ///
    /// # Errors
    /// A copy that failed.
    pub fn begin(&self, tables: &StepTables) -> Result<ReplayStep<'_>> {
        let (from, to) = tables.copies();
        if !to.is_empty() {
            let table = |slots: &[i32]| Tensor::from_slice(slots, slots.len(), self.device());
            self.copy(&table(&from)?, &table(&to)?)?;
        }
        self.step(&Slots::step(tables, self.device())?)
    }

    /// Fills the slots of a table `[N]` with zeros.
    ///
    /// # Errors
    /// An argument that does not fit.
    pub fn reset(&self, slots: &Tensor) -> Result<()> {
        let zeros = Tensor::zeros(&self.state.dims()[2..], self.config.state, self.device())?.unsqueeze(0)?;
        let copies = self.config.layers * slots.elem_count();
        let first = Tensor::zeros(copies, DType::U32, self.device())?;
        copy(&zeros, Some(&first), &self.state.flatten(0, 1)?, Some(&self.in_all_layers(slots)?))?;
        self.empty(slots)
    }

    /// Copies states `from` slots `to` slots, both `[N]`: forks. No slot may be in both.
    ///
    /// # Errors
    /// An argument that does not fit.
    pub fn copy(&self, from: &Tensor, to: &Tensor) -> Result<()> {
        if from.elem_count() != to.elem_count() {
            candle_core::bail!("to: has {} slots, from has {}", to.elem_count(), from.elem_count());
        }
        let mut operands = self.operands(true);
        operands.read("from", from);
        operands.read("to", to);
        operands.locked(|memory| {
            let (from, to) = (memory.table("from", from)?, memory.table("to", to)?);
            let copies = count("to", to.len)?;
            self.run(memory, &self.calls(memory)?.copy(copies, from, to))?;
            self.run(memory, &self.calls.empty(copies, to))
        })
    }

    /// Makes the checkpoints of the slots of a table `[N]` their states, and their rings empty.
    ///
    /// # Errors
    /// An argument that does not fit.
    pub fn fold(&self, slots: &Tensor) -> Result<()> {
        self.on_slots(slots, |memory, slots, number| {
            self.run(memory, &self.calls(memory)?.fold(number, slots))?;
            self.run(memory, &self.calls.empty(number, slots))
        })
    }

    /// Makes the rings of the slots of a table `[N]` empty, whatever they hold: their checkpoints are their states.
    ///
    /// # Errors
    /// An argument that does not fit.
    pub fn empty(&self, slots: &Tensor) -> Result<()> {
        self.on_slots(slots, |memory, slots, number| {
            self.run(memory, &self.calls(memory)?.empty(number, slots))
        })
    }

    /// The states of the slots of a table `[N]`, `[layers, N, HV, V, K]`, zeros where an index names none: for prefixes that are
    /// kept, sequences that are swapped out, other processes. The slots stay as they are.
    ///
    /// # Errors
    /// An argument that does not fit.
    pub fn snapshot(&self, slots: &Tensor) -> Result<Tensor> {
        self.materialise(slots, None)
    }

    /// [`Self::snapshot`] behind the first `records[n]` live records of each slot, `[N]`: the state within a run of accepted drafts.
    /// A number that is not live gives zeros.
    ///
    /// # Errors
    /// An argument that does not fit.
    pub fn snapshot_within(&self, slots: &Tensor, records: &Tensor) -> Result<Tensor> {
        self.materialise(slots, Some(records))
    }

    fn materialise(&self, slots: &Tensor, records: Option<&Tensor>) -> Result<Tensor> {
        let (device, number) = (self.device(), slots.elem_count());
        let dims = [&[self.config.layers, number][..], &self.state.dims()[2..]].concat();
        let target = Tensor::zeros(dims, self.config.state, device)?;
        if number == 0 {
            return Ok(target);
        }
        let bytes = (target.stride()[0] * self.config.state.size_in_bytes()) as u64;
        let first = addresses(&[&target])?.into_iter().sum::<u64>();
        let targets: Vec<u64> = (0..self.config.layers as u64).map(|layer| first + layer * bytes).collect();
        let list = self.calls.layers_to(&targets);
        let rows = rows_of(&list, device)?;
        let places = Tensor::arange(0, number as u32, device)?;
        let mut operands = self.operands(false);
        operands.read("slots", slots);
        operands.read_some("records", records);
        operands.read("rows", &rows);
        operands.read("places", &places);
        operands.write("target", &target);
        operands.locked(|memory| {
            let layers = ReplayLayers { list: &list, table: memory.place("rows", &rows)?.0 };
            let (shape, number) = (&self.config.form.shape, count("slots", number as u64)?);
            let of = element("target", &target)?;
            let pool = gdn_host::StatePool::packed(memory.place("target", &target)?.0, of, number, shape);
            let (slots, places) = (memory.table("slots", slots)?, memory.table("places", &places)?);
            let mut call = self.calls(memory)?.store(number, slots, layers, pool, places);
            call.count = memory.some_table("records", records)?;
            self.run(memory, &call)
        })?;
        Ok(target)
    }

    /// Puts states `[layers, N, HV, V, K]`, as [`Self::snapshot`] gives them, into the slots of a table `[N]`, whose rings are empty
    /// then.
    ///
    /// # Errors
    /// An argument that does not fit.
    pub fn restore(&self, states: &Tensor, slots: &Tensor) -> Result<()> {
        let dims = [&[self.config.layers, slots.elem_count()][..], &self.state.dims()[2..]].concat();
        check_shape("states", states, &dims)?;
        let states = states.contiguous()?.flatten(0, 1)?;
        copy(&states, None, &self.state.flatten(0, 1)?, Some(&self.in_all_layers(slots)?))?;
        self.empty(slots)
    }

    /// What a call for the slots of a table does.
    fn on_slots(&self, slots: &Tensor, body: impl Fn(&Memory, Table, u32) -> Result<()>) -> Result<()> {
        let mut operands = self.operands(true);
        operands.read("slots", slots);
        operands.locked(|memory| {
            let table = memory.table("slots", slots)?;
            body(memory, table, count("slots", table.len)?)
        })
    }

    /// A table of slots for pools of all layers one behind the other, -1 where an index names none.
    fn in_all_layers(&self, slots: &Tensor) -> Result<Tensor> {
        let (device, each) = (self.device(), self.config.slots as i64);
        let slots = slots.flatten_all()?.to_dtype(DType::I64)?;
        let is_slot = (slots.ge(0i64)? * slots.lt(each)?)?;
        let is_slot = match self.config.null_slot {
            Some(null) => (is_slot * slots.ne(i64::from(null))?)?,
            None => is_slot,
        };
        let layers = (Tensor::arange(0, self.config.layers as i64, device)? * each as f64)?;
        let places = layers.unsqueeze(1)?.broadcast_add(&slots.unsqueeze(0)?)?;
        let none = places.zeros_like()?.affine(0.0, -1.0)?;
        is_slot
            .unsqueeze(0)?
            .broadcast_as(places.shape())?
            .contiguous()?
            .where_cond(&places, &none)?
            .flatten_all()
    }

    /// The tensors that a call touches: those that hold states and records, and the cursors, which are moved or not.
    pub(super) fn operands(&self, moves: bool) -> Operands<'_> {
        let mut operands = Operands::default();
        operands.write("state", &self.state);
        operands.write("keys", &self.keys);
        operands.write("corrections", &self.corrections);
        operands.write("decays", &self.decays);
        operands.read("rows", &self.rows);
        for (field, cursor) in [("base", &self.base), ("len", &self.len)] {
            match moves {
                true => operands.write(field, cursor),
                false => operands.read(field, cursor),
            }
        }
        operands
    }

    /// What calls take, if the memory is what it was when this was made.
    pub(super) fn calls(&self, memory: &Memory) -> Result<&gdn_host::ReplayState> {
        let pool = self.calls.pool(0).map_err(Error::wrap)?;
        let (rings, cursors) = (pool.rings, pool.cursors);
        let places = [
            ("state", &self.state, pool.state.tensor.address),
            ("keys", &self.keys, rings.k.tensor.address),
            ("corrections", &self.corrections, rings.d.tensor.address),
            ("decays", &self.decays, rings.g.tensor.address),
            ("rows", &self.rows, self.calls.layers().table),
            ("base", &self.base, cursors.base.map_or(0, |base| base.address)),
            ("len", &self.len, cursors.len.address),
        ];
        for (field, tensor, address) in places {
            if memory.place(field, tensor)?.0 != address {
                candle_core::bail!("{field}: the tensor's memory was replaced by another one");
            }
        }
        Ok(&self.calls)
    }

    pub(super) fn run(&self, memory: &Memory, call: &dyn Operation) -> Result<()> {
        run(memory, self.device(), call, Launch::Ordered)
    }
}

/// The slot of each sequence with a ring: that which it writes.
pub(super) fn own(slots: &Slots) -> Result<Option<&Tensor>> {
    if slots.accepted.is_some() {
        candle_core::bail!("slots.accepted: a ring stays in its slot, accepted drafts move its cursors");
    }
    match &slots.write {
        Write::InPlace => Ok(slots.slots.as_ref()),
        Write::Slots(table) => Ok(Some(table)),
        Write::Nowhere | Write::EachToken(_) => {
            candle_core::bail!("slots.write: a sequence with a ring works in one slot")
        }
    }
}

/// The addresses of tensors.
fn addresses(tensors: &[&Tensor]) -> Result<Vec<u64>> {
    let (mut operands, mut all) = (Operands::default(), Vec::new());
    tensors.iter().for_each(|tensor| operands.read("state", tensor));
    operands.locked(|memory| {
        for tensor in tensors {
            all.push(memory.place("state", tensor)?.0);
        }
        Ok(())
    })?;
    Ok(all)
}

/// A layer of tensors that begin at these addresses.
fn layer_at(tensors: &[&Tensor; 4], first: &[u64], layer: usize) -> ReplayLayer {
    let at = |i: usize| {
        let elements = layer * tensors[i].stride()[0];
        first[i] + (elements * tensors[i].dtype().size_in_bytes()) as u64
    };
    ReplayLayer { state: at(0), k: at(1), d: at(2), g: at(3), target: at(0) }
}

/// The rows of layers in memory of a device.
fn rows_of(layers: &[ReplayLayer], device: &Device) -> Result<Tensor> {
    let words = layers.iter().flat_map(|layer| {
        let row = layer.row();
        let words: Vec<i64> = row
            .chunks_exact(8)
            .map(|word| word.iter().rev().fold(0, |all, byte| all << 8 | i64::from(*byte)))
            .collect();
        words
    });
    Tensor::from_iter(words, device)
}
