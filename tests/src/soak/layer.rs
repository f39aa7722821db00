//! A layer of the server: its weights, its pools, and the calls that a step of it is made of.

use super::Size;
use super::step::{Field, Form, Kind, MOST_TOKENS, Tables};
use crate::device::Device;
use crate::random::Noise;
use crate::strided::{Strided, alloc_rows};
use anyhow::Result;
use gdn_host::call::split_mixed_qkv;
use gdn_host::{
    ALog, CommitState, Conv1dUpdate, ConvPool, ConvTarget, CopyState, DType, Decode, DraftWindows, DtBias,
    Family, HeadShape, Inputs, Intermediate, Layout, Logits, Operation, Recurrent, Rows, SlotPool, Softplus,
    Source, Start, StatePool, Table, Target, Tensor, Tokens,
};

/// Taps of the convolution.
const WIDTH: u32 = 4;

/// Entries of a window.
const WINDOW: u32 = WIDTH - 1;

/// The index that marks padding besides the negative ones: a slot that the allocator never gives away.
pub const NULL_SLOT: i32 = 0;

/// Type of inputs and outputs.
const IO: DType = DType::Bf16;

/// Weights and kinds of a layer.
pub struct Layer {
    shape: HeadShape,
    family: Family,
    layout: Layout,
    state: DType,
    /// A row for each token of the vocabulary: mixed qkv, a and b side by side.
    noise: SlotPool,
    conv_weight: Tensor,
    a_log: Tensor,
    dt_bias: Tensor,
}

/// Memory that calls of a layer work on: the server's, or that of a sequence alone.
pub struct Memory {
    /// Rows of noise, gathered.
    input: Rows,
    conv_out: Rows,
    out: Rows,
    /// Recurrent states.
    pub state: StatePool,
    /// Windows of the convolution.
    pub conv: ConvPool,
}

/// Buffers of the server for the states and the windows after each token of a draft.
pub struct Drafts {
    states: Intermediate,
    windows: DraftWindows,
    /// The first of the slots by token, behind those of the allocator.
    first_slot: usize,
}

impl Layer {
    /// The two layers of the server: GDN with f32 states in VK, and KDA with bf16 states in KV.
    pub fn all(device: &mut dyn Device, size: &Size, noise: &mut Noise) -> Result<Vec<Layer>> {
        let kinds = [(Family::Gdn, Layout::Vk, DType::F32), (Family::Kda, Layout::Kv, DType::Bf16)];
        kinds.into_iter().map(|kind| Layer::new(device, size, kind, noise)).collect()
    }

    fn new(
        device: &mut dyn Device,
        size: &Size,
        (family, layout, state): (Family, Layout, DType),
        noise: &mut Noise,
    ) -> Result<Layer> {
        let shape = size.shape;
        let gates = gates(shape, family);
        let row = row_width(shape, family);
        let mut rows = |dtype, width: usize, count: usize, sigma: f32| {
            alloc_rows(device, &Strided::dense(dtype, width, noise.normals(width * count, sigma)))
        };
        let tokens = rows(IO, row, size.vocabulary, 1.0)?;
        let noise_pool = SlotPool {
            tensor: tokens.tensor,
            slots: size.vocabulary as u32,
            pitch: row as u64,
            layout: None,
        };
        let hv = shape.hv as usize;
        Ok(Layer {
            shape,
            family,
            layout,
            state,
            noise: noise_pool,
            conv_weight: rows(IO, WIDTH as usize, channels(shape), 0.5)?.tensor,
            a_log: rows(DType::F32, hv, 1, 0.3)?.tensor,
            dt_bias: rows(DType::F32, gates, 1, 0.3)?.tensor,
        })
    }

    /// Memory for `tokens` tokens at once and `slots` slots.
    pub fn memory(&self, device: &mut dyn Device, tokens: usize, slots: usize) -> Result<Memory> {
        let (shape, dim) = (self.shape, channels(self.shape));
        let mut rows = |width: usize| -> Result<Rows> {
            let address = device.alloc((tokens * width * IO.size()) as u64)?;
            Ok(Rows::packed(address, IO, tokens as u64, width as u64))
        };
        let input = rows(row_width(shape, self.family))?;
        let (conv_out, out) = (rows(dim)?, rows(shape.value_elements() as usize)?);
        let mut tensor = |elements: u64, dtype: DType| -> Result<Tensor> {
            let len = slots as u64 * elements;
            Ok(Tensor::new(device.alloc(len * dtype.size() as u64)?, dtype, len))
        };
        let state = tensor(shape.state_elements(), self.state)?;
        let state = StatePool::packed(state.address, self.state, slots as u32, &shape);
        let windows = tensor(window_elements(shape), IO)?;
        let conv = ConvPool::taps_contiguous(windows, slots as u32, dim as u32, WINDOW);
        Ok(Memory { input, conv_out, out, state: state.with_layout(self.layout), conv })
    }

    /// Buffers for drafts of so many rows; slots by token begin at `first_slot`.
    pub fn drafts(&self, device: &mut dyn Device, rows: usize, first_slot: usize) -> Result<Drafts> {
        let (states, shape) = ((rows * MOST_TOKENS) as u64, self.shape);
        let len = states * shape.state_elements();
        let state = Tensor::new(device.alloc(len * self.state.size() as u64)?, self.state, len);
        let len = states * window_elements(shape);
        let windows = Tensor::new(device.alloc(len * IO.size() as u64)?, IO, len);
        let (count, steps) = (rows as u32, MOST_TOKENS as u32);
        Ok(Drafts {
            states: Intermediate::packed(state.address, self.state, count, steps, &shape),
            windows: DraftWindows::new(windows, count, steps, channels(shape) as u32, WIDTH),
            first_slot,
        })
    }

    /// Brings the rows of noise that a table names to the memory's first rows.
    pub fn gather(&self, memory: &Memory, tokens: Table) -> CopyState {
        let row = row_width(self.shape, self.family) as u64;
        let slots = (memory.input.tensor.len / row) as u32;
        CopyState {
            copies: tokens.len as u32,
            elements: row,
            source: self.noise,
            source_slots: Some(tokens),
            target: SlotPool { tensor: memory.input.tensor, slots, pitch: row, layout: None },
            target_slots: None,
            null_slot: None,
        }
    }

    /// The convolution of tokens from row `first` on.
    pub fn conv(&self, memory: &Memory, first: usize, tokens: Tokens) -> Conv1dUpdate {
        let (x, out) = (from_row(&memory.input, first), from_row(&memory.conv_out, first));
        Conv1dUpdate::new(channels(self.shape) as u32, WIDTH, tokens, x, self.conv_weight, memory.conv, out)
    }

    /// What the recurrence reads of tokens from row `first` on.
    pub fn inputs(&self, memory: &Memory, first: usize) -> Inputs {
        let (shape, dim) = (self.shape, channels(self.shape) as u64);
        let (q, k, v) = split_mixed_qkv(&from_row(&memory.conv_out, first), &shape);
        let input = from_row(&memory.input, first);
        let (a, b) = (input.view(dim), input.view(dim + gates(shape, self.family) as u64));
        let gate = Softplus::new(a, ALog(self.a_log), DtBias(self.dt_bias));
        let make = if self.family == Family::Kda { Inputs::kda } else { Inputs::gdn };
        make(shape, q, k, v, gate, Logits::new(b))
    }

    /// The decode of `rows` tokens from row `first` on.
    pub fn decode(&self, memory: &Memory, first: usize, rows: usize) -> Decode {
        let out = from_row(&memory.out, first);
        Decode::new(self.inputs(memory, first), rows as u32, memory.state, out)
    }

    /// The calls of a step, in their order.
    pub fn calls(
        &self,
        memory: &Memory,
        drafts: &Drafts,
        tables: &Tables,
        form: Form,
    ) -> Vec<Box<dyn Operation>> {
        let Form { kind, rows, tokens } = form;
        let of_rows = |field| tables.table(field, rows);
        let (read, write) = (of_rows(Field::Slots), of_rows(Field::WriteSlots));
        let start = Start::Reset(of_rows(Field::Reset));
        let mut calls: Vec<Box<dyn Operation>> =
            vec![Box::new(self.gather(memory, tables.table(Field::Tokens, form.total())))];
        if kind == Kind::CopyAndDecode {
            let [from, to] = [Field::CopyFrom, Field::CopyTo].map(of_rows);
            calls.push(self.copy_states(memory, from, to));
            calls.push(self.copy_windows(memory, memory.windows(self.shape), from, to));
        }

        let (batch, draft_slots) = (rows as u32, tables.table(Field::DraftSlots, rows));
        let draft_slots = draft_slots.with_columns(tokens as u64);
        let each = Tokens::Each { batch, tokens: tokens as u32 };
        let these = match kind {
            Kind::Prompt => {
                let cu_seqlens = tables.table(Field::Ends, rows + 1);
                Tokens::Packed { batch, total: form.total() as u32, cu_seqlens }
            }
            _ => each,
        };
        let mut conv = self.conv(memory, 0, these);
        (conv.null_slot, conv.start, conv.slots) = (Some(NULL_SLOT), start, Some(read));
        match kind {
            Kind::Decode | Kind::Prompt => conv.target = ConvTarget::Slots(write),
            Kind::CopyAndDecode => conv.slots = Some(write),
            Kind::DraftToBuffer => {
                (conv.target, conv.intermediate) = (ConvTarget::Nowhere, Some(drafts.windows));
            }
            Kind::DraftToSlots => conv.target = ConvTarget::EachToken(draft_slots),
        }
        calls.push(Box::new(conv));

        if kind.is_decode() {
            let decode = self.decode(memory, 0, rows).with_null_slot(NULL_SLOT).with_start(start);
            let decode = match kind {
                Kind::Decode => decode.with_slots(read).with_write_slots(write),
                _ => decode.with_slots(write),
            };
            calls.push(Box::new(decode));
            return calls;
        }
        let target = match kind {
            Kind::DraftToBuffer => Target::Nowhere,
            Kind::DraftToSlots => Target::EachToken(draft_slots),
            _ => Target::Slots(write),
        };
        let source = Source::Slots { pool: memory.state, slots: read };
        // Tokens of a step must give the bits of single ones, so the state is rounded after each.
        let call = Recurrent::new(self.inputs(memory, 0), these, source, target, memory.out)
            .with_start(start)
            .with_null_slot(NULL_SLOT)
            .with_rounded_state();
        let picked = of_rows(Field::Picked);
        match kind {
            Kind::DraftToBuffer => {
                calls.push(Box::new(call.with_intermediate(drafts.states)));
                calls.push(Box::new(CommitState {
                    shape: self.shape,
                    batch,
                    intermediate: drafts.states,
                    accepted: of_rows(Field::Accepted),
                    state: memory.state,
                    slots: Some(write),
                    null_slot: Some(NULL_SLOT),
                }));
                calls.push(self.copy_windows(memory, drafts.windows(self.shape), picked, write));
            }
            Kind::DraftToSlots => {
                calls.push(Box::new(call));
                calls.push(self.copy_states(memory, picked, write));
                calls.push(self.copy_windows(memory, memory.windows(self.shape), picked, write));
            }
            _ => calls.push(Box::new(call)),
        }
        calls
    }

    /// Copies of states into the pool.
    fn copy_states(&self, memory: &Memory, from: Table, to: Table) -> Box<dyn Operation> {
        let pool = SlotPool::from(memory.state);
        copy(pool, pool, self.shape.state_elements(), from, to)
    }

    /// Copies of windows into the pool.
    fn copy_windows(&self, memory: &Memory, source: SlotPool, from: Table, to: Table) -> Box<dyn Operation> {
        copy(source, memory.windows(self.shape), window_elements(self.shape), from, to)
    }
}

fn copy(source: SlotPool, target: SlotPool, elements: u64, from: Table, to: Table) -> Box<dyn Operation> {
    Box::new(CopyState {
        copies: from.len as u32,
        elements,
        source,
        source_slots: Some(from),
        target,
        target_slots: Some(to),
        null_slot: None,
    })
}

impl Memory {
    /// The windows as a pool of slots that can be copied.
    fn windows(&self, shape: HeadShape) -> SlotPool {
        let (tensor, slots, pitch) = (self.conv.tensor, self.conv.slots, window_elements(shape));
        SlotPool { tensor, slots, pitch, layout: None }
    }

    /// Where the bytes of a slot are: addresses and lengths of its state and of its windows.
    pub fn slot_bytes(&self, slot: usize) -> [(u64, u64); 2] {
        let of = |tensor: &Tensor, pitch: u64| {
            let bytes = pitch * tensor.dtype.size() as u64;
            (tensor.address + slot as u64 * bytes, bytes)
        };
        [of(&self.state.tensor, self.state.pitch), of(&self.conv.tensor, self.conv.pitch)]
    }

    /// The state and the windows in a slot, one behind the other.
    pub fn read(&self, device: &dyn Device, slot: usize) -> Result<Vec<u8>> {
        let [state, windows] = self.slot_bytes(slot).map(|(address, bytes)| device.read(address, bytes));
        Ok([state?, windows?].concat())
    }

    /// Puts there what [`Self::read`] gave.
    pub fn write(&self, device: &mut dyn Device, slot: usize, bytes: &[u8]) -> Result<()> {
        let [state, windows] = self.slot_bytes(slot);
        let (first, second) = bytes.split_at(state.1 as usize);
        device.write(state.0, first)?;
        device.write(windows.0, second)
    }
}

impl Drafts {
    fn windows(&self, shape: HeadShape) -> SlotPool {
        let slots = self.windows.rows * self.windows.steps;
        SlotPool { tensor: self.windows.tensor, slots, pitch: window_elements(shape), layout: None }
    }

    /// The index of the state behind `count` tokens of a row, among windows of the buffer or among slots.
    pub fn picked(&self, kind: Kind, row: usize, tokens: usize, count: usize) -> usize {
        match kind {
            Kind::DraftToBuffer => row * MOST_TOKENS + count - 1,
            _ => self.draft_slot(row * tokens + count - 1),
        }
    }

    /// A slot by token.
    pub fn draft_slot(&self, token: usize) -> usize {
        self.first_slot + token
    }
}

/// Channels of the convolution.
fn channels(shape: HeadShape) -> usize {
    (2 * shape.key_elements() + shape.value_elements()) as usize
}

/// Gate inputs of a token.
fn gates(shape: HeadShape, family: Family) -> usize {
    (if family == Family::Kda { shape.hv * shape.k } else { shape.hv }) as usize
}

/// Elements of a row of noise, whole vectors of 16 bytes.
fn row_width(shape: HeadShape, family: Family) -> usize {
    (channels(shape) + gates(shape, family) + shape.hv as usize).next_multiple_of(8)
}

fn window_elements(shape: HeadShape) -> u64 {
    channels(shape) as u64 * u64::from(WINDOW)
}

/// Rows from one on.
fn from_row(rows: &Rows, first: usize) -> Rows {
    rows.view(first as u64 * rows.stride)
}
