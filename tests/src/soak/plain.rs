//! A layer whose state is written at each step.

use super::Size;
use super::lane::{Lane, differ};
use super::layer::{Calls, Layer, Memory, NULL_SLOT, copy, from_row, slot_bytes, tensor};
use super::past::Past;
use super::step::{Field, Form, Kind, MOST_TOKENS, QUEUED, Tables};
use super::tokens::Lineage;
use crate::device::Device;
use crate::random::Noise;
use anyhow::Result;
use gdn_host::{
    CommitState, DType, Decode, Family, Intermediate, Layout, Operation, Recurrent, SlotPool, Source, Start,
    StatePool, Table, Target, Tokens,
};

/// The layer, the server's memory, and that of a sequence alone.
pub struct Plain {
    layer: Layer,
    memory: Memory,
    state: StatePool,
    /// States after each token of a draft.
    drafts: Intermediate,
    alone: Alone,
    vocabulary: usize,
}

impl Plain {
    /// A layer of the server.
    pub fn new(
        device: &mut dyn Device,
        size: &Size,
        (family, layout, dtype): (Family, Layout, DType),
        noise: &mut Noise,
    ) -> Result<Plain> {
        let (shape, rows) = (size.shape, size.most_rows());
        let layer = Layer::new(device, size, shape, family, noise)?;
        // Slots by token stand behind those of the allocator.
        let slots = size.slots as usize + rows * MOST_TOKENS;
        let memory = layer.memory(device, rows * MOST_TOKENS, slots, rows)?;
        let state = layer.states(device, dtype, layout, slots)?;
        let drafts = tensor(device, dtype, (rows * MOST_TOKENS) as u64 * shape.state_elements())?;
        let drafts = Intermediate::packed(drafts.address, dtype, rows as u32, MOST_TOKENS as u32, &shape);
        let alone = Alone::new(device, &layer, layout, dtype)?;
        Ok(Plain { layer, memory, state, drafts, alone, vocabulary: size.vocabulary })
    }

    /// Copies of states into the pool.
    fn copy_states(&self, from: Table, to: Table) -> Box<dyn Operation> {
        let pool = SlotPool::from(self.state);
        copy(pool, pool, self.layer.shape.state_elements(), from, to)
    }
}

/// Where the bytes of a slot are: its state's, and its windows'.
fn places(state: &StatePool, memory: &Memory, slot: usize) -> [(u64, u64); 2] {
    [slot_bytes(&state.tensor, state.pitch, slot), memory.window(slot)]
}

fn read(device: &dyn Device, places: [(u64, u64); 2]) -> Result<Vec<u8>> {
    let [state, windows] = places.map(|(address, bytes)| device.read(address, bytes));
    Ok([state?, windows?].concat())
}

impl Lane for Plain {
    fn calls(&self, tables: &Tables, form: Form) -> Result<Calls<'_>> {
        let Form { kind, rows, .. } = form;
        let (layer, memory) = (&self.layer, &self.memory);
        let of_rows = |field| tables.table(field, rows);
        let (read, write) = (of_rows(Field::Slots), of_rows(Field::WriteSlots));
        let start = Start::Reset(of_rows(Field::Reset));
        let mut calls = layer.in_front(memory, tables, form);
        if kind == Kind::CopyAndDecode {
            calls.push(self.copy_states(of_rows(Field::CopyFrom), of_rows(Field::CopyTo)));
        }
        if kind.is_decode() {
            let decode = Decode::new(layer.inputs(memory, 0), rows as u32, self.state, memory.out);
            let decode = decode.with_null_slot(NULL_SLOT).with_start(start);
            let decode = match kind {
                Kind::Decode => decode.with_slots(read).with_write_slots(write),
                _ => decode.with_slots(write),
            };
            calls.push(Box::new(decode));
            return Ok(calls);
        }
        let target = match kind {
            Kind::DraftToBuffer => Target::Nowhere,
            Kind::DraftToSlots => Target::EachToken(form.draft_slots(tables)),
            _ => Target::Slots(write),
        };
        let source = Source::Slots { pool: self.state, slots: read };
        // Tokens of a step must give the bits of single ones, so the state is rounded after each.
        let call = Recurrent::new(layer.inputs(memory, 0), form.these(tables), source, target, memory.out)
            .with_start(start)
            .with_null_slot(NULL_SLOT)
            .with_rounded_state();
        match kind {
            Kind::DraftToBuffer => {
                calls.push(Box::new(call.with_intermediate(self.drafts)));
                calls.push(Box::new(CommitState {
                    shape: layer.shape,
                    batch: rows as u32,
                    intermediate: self.drafts,
                    accepted: of_rows(Field::Accepted),
                    state: self.state,
                    slots: Some(write),
                    null_slot: Some(NULL_SLOT),
                }));
            }
            Kind::DraftToSlots => {
                calls.push(Box::new(call));
                calls.push(self.copy_states(of_rows(Field::Picked), write));
            }
            _ => calls.push(Box::new(call)),
        }
        calls.extend(layer.behind(memory, tables, form));
        Ok(calls)
    }

    fn read(&self, device: &mut dyn Device, slot: usize) -> Result<Vec<u8>> {
        read(device, places(&self.state, &self.memory, slot))
    }

    fn write(&self, device: &mut dyn Device, slot: usize, bytes: &[u8]) -> Result<()> {
        let [state, windows] = places(&self.state, &self.memory, slot);
        let (first, second) = bytes.split_at(state.1 as usize);
        device.write(state.0, first)?;
        device.write(windows.0, second)
    }

    fn difference(
        &mut self,
        device: &mut dyn Device,
        slot: usize,
        tokens: &Lineage,
        _past: &Past,
    ) -> Result<Option<String>> {
        let got = self.read(device, slot)?;
        let want = self.alone.decode(device, &self.layer, tokens, self.vocabulary)?;
        Ok(differ(&got, &want))
    }
}

/// Memory of a sequence alone whose state is written at each token: one slot.
pub struct Alone {
    memory: Memory,
    state: StatePool,
    /// The rows of noise of the queued tokens, and in front of them a flag: start from zeros.
    tables: u64,
}

impl Alone {
    /// With states of this kind.
    pub fn new(device: &mut dyn Device, layer: &Layer, layout: Layout, dtype: DType) -> Result<Alone> {
        let memory = layer.memory(device, QUEUED, 1, 1)?;
        let state = layer.states(device, dtype, layout, 1)?;
        let tables = device.alloc(((1 + QUEUED) * size_of::<i32>()) as u64)?;
        Ok(Alone { memory, state, tables })
    }

    /// What tokens leave: the state and the windows.
    pub fn decode(
        &self,
        device: &mut dyn Device,
        layer: &Layer,
        lineage: &Lineage,
        vocabulary: usize,
    ) -> Result<Vec<u8>> {
        let positions: Vec<usize> = (0..lineage.len()).collect();
        for (chunk, positions) in positions.chunks(QUEUED).enumerate() {
            let tokens = positions.iter().map(|&position| lineage.token(position, vocabulary) as i32);
            let entries: Vec<i32> = [1].into_iter().chain(tokens).collect();
            device.write(self.tables, bytemuck::cast_slice(&entries))?;
            let calls = self.calls(layer, positions.len(), chunk == 0);
            device.run_side_by_side(&[calls], None)?;
        }
        read(device, places(&self.state, &self.memory, 0))
    }

    fn calls(&self, layer: &Layer, count: usize, from_zeros: bool) -> Calls<'static> {
        let flag = Table::i32(self.tables, 1);
        let tokens = Table::i32(self.tables + size_of::<i32>() as u64, count as u64);
        let mut calls: Calls = vec![Box::new(layer.gather(&self.memory, tokens))];
        for i in 0..count {
            let start = if from_zeros && i == 0 { Start::Reset(flag) } else { Start::FromSlot };
            let mut conv = layer.conv(&self.memory, i, Tokens::Each { batch: 1, tokens: 1 });
            conv.start = start;
            calls.push(Box::new(conv));
            let (inputs, out) = (layer.inputs(&self.memory, i), from_row(&self.memory.out, i));
            calls.push(Box::new(Decode::new(inputs, 1, self.state, out).with_start(start)));
        }
        calls
    }
}
