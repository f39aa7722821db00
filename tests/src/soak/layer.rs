//! A layer of the server: its weights, its windows, and the calls around its recurrence.

use super::Size;
use super::step::{Field, Form, Kind, MOST_TOKENS, Tables};
use crate::device::Device;
use crate::random::Noise;
use crate::strided::{Strided, alloc_rows};
use anyhow::Result;
use gdn_host::call::split_mixed_qkv;
use gdn_host::{
    ALog, Conv1dUpdate, ConvPool, ConvTarget, CopyState, DType, DraftWindows, DtBias, Family, HeadShape,
    Inputs, Layout, Logits, Operation, Rows, SlotPool, Softplus, Start, StatePool, Table, Tensor, Tokens,
};

/// Taps of the convolution.
const WIDTH: u32 = 4;

/// Entries of a window.
const WINDOW: u32 = WIDTH - 1;

/// The index that marks padding besides the negative ones: a slot that the allocator never gives away.
pub const NULL_SLOT: i32 = 0;

/// Type of inputs and outputs.
pub const IO: DType = DType::Bf16;

/// Calls, one behind the other.
pub type Calls<'a> = Vec<Box<dyn Operation + 'a>>;

/// Weights and kinds of a layer.
pub struct Layer {
    /// Heads.
    pub shape: HeadShape,
    /// GDN or KDA.
    pub family: Family,
    /// A row for each token of the vocabulary: mixed qkv, a and b side by side.
    noise: SlotPool,
    conv_weight: Tensor,
    a_log: Tensor,
    dt_bias: Tensor,
}

/// Memory that calls of a layer work on besides its states: the server's, or that of a sequence alone.
pub struct Memory {
    /// Rows of noise, gathered.
    input: Rows,
    conv_out: Rows,
    /// Outputs of the recurrence.
    pub out: Rows,
    /// Windows of the convolution.
    pub conv: ConvPool,
    /// Windows after each token of a draft, a row of them for each sequence.
    drafts: DraftWindows,
}

impl Layer {
    /// A layer with weights of its own.
    pub fn new(
        device: &mut dyn Device,
        size: &Size,
        shape: HeadShape,
        family: Family,
        noise: &mut Noise,
    ) -> Result<Layer> {
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
            noise: noise_pool,
            conv_weight: rows(IO, WIDTH as usize, channels(shape), 0.5)?.tensor,
            a_log: rows(DType::F32, hv, 1, 0.3)?.tensor,
            dt_bias: rows(DType::F32, gates, 1, 0.3)?.tensor,
        })
    }

    /// Memory for `tokens` tokens at once, for windows in `slots` slots, and for drafts of `rows` sequences.
    pub fn memory(
        &self,
        device: &mut dyn Device,
        tokens: usize,
        slots: usize,
        rows: usize,
    ) -> Result<Memory> {
        let (shape, dim) = (self.shape, channels(self.shape));
        let mut of_width = |width: usize| -> Result<Rows> {
            let address = device.alloc((tokens * width * IO.size()) as u64)?;
            Ok(Rows::packed(address, IO, tokens as u64, width as u64))
        };
        let input = of_width(row_width(shape, self.family))?;
        let (conv_out, out) = (of_width(dim)?, of_width(shape.value_elements() as usize)?);
        let windows = tensor(device, IO, slots as u64 * window_elements(shape))?;
        let conv = ConvPool::taps_contiguous(windows, slots as u32, dim as u32, WINDOW);
        let drafts = tensor(device, IO, (rows * MOST_TOKENS) as u64 * window_elements(shape))?;
        let drafts = DraftWindows::new(drafts, rows as u32, MOST_TOKENS as u32, dim as u32, WIDTH);
        Ok(Memory { input, conv_out, out, conv, drafts })
    }

    /// A pool of states in so many slots.
    pub fn states(
        &self,
        device: &mut dyn Device,
        dtype: DType,
        layout: Layout,
        slots: usize,
    ) -> Result<StatePool> {
        let states = tensor(device, dtype, slots as u64 * self.shape.state_elements())?;
        Ok(StatePool::packed(states.address, dtype, slots as u32, &self.shape).with_layout(layout))
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

    /// What stands in front of a step's recurrence: the tokens' inputs, and the convolution.
    pub fn in_front(&self, memory: &Memory, tables: &Tables, form: Form) -> Calls<'static> {
        let Form { kind, rows, .. } = form;
        let of_rows = |field| tables.table(field, rows);
        let (read, write) = (of_rows(Field::Slots), of_rows(Field::WriteSlots));
        let mut calls: Calls = vec![Box::new(self.gather(memory, tables.table(Field::Tokens, form.total())))];
        if kind == Kind::CopyAndDecode {
            let [from, to] = [Field::CopyFrom, Field::CopyTo].map(of_rows);
            calls.push(self.copy_windows(memory, memory.windows(self.shape), from, to));
        }
        let mut conv = self.conv(memory, 0, form.these(tables));
        (conv.null_slot, conv.start) = (Some(NULL_SLOT), Start::Reset(of_rows(Field::Reset)));
        conv.slots = Some(read);
        match kind {
            Kind::Decode | Kind::Prompt => conv.target = ConvTarget::Slots(write),
            Kind::CopyAndDecode => conv.slots = Some(write),
            Kind::DraftToBuffer => {
                (conv.target, conv.intermediate) = (ConvTarget::Nowhere, Some(memory.drafts));
            }
            Kind::DraftToSlots => conv.target = ConvTarget::EachToken(form.draft_slots(tables)),
        }
        calls.push(Box::new(conv));
        calls
    }

    /// What stands behind it: the windows behind accepted drafts.
    pub fn behind(&self, memory: &Memory, tables: &Tables, form: Form) -> Option<Box<dyn Operation>> {
        let source = match form.kind {
            Kind::DraftToBuffer => memory.draft_windows(self.shape),
            Kind::DraftToSlots => memory.windows(self.shape),
            _ => return None,
        };
        let [picked, write] = [Field::Picked, Field::WriteSlots].map(|field| tables.table(field, form.rows));
        Some(self.copy_windows(memory, source, picked, write))
    }

    /// Copies of windows into the pool.
    fn copy_windows(&self, memory: &Memory, source: SlotPool, from: Table, to: Table) -> Box<dyn Operation> {
        copy(source, memory.windows(self.shape), window_elements(self.shape), from, to)
    }
}

/// Copies from slots to slots.
pub fn copy(source: SlotPool, target: SlotPool, elements: u64, from: Table, to: Table) -> Box<dyn Operation> {
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

    fn draft_windows(&self, shape: HeadShape) -> SlotPool {
        let slots = self.drafts.rows * self.drafts.steps;
        SlotPool { tensor: self.drafts.tensor, slots, pitch: window_elements(shape), layout: None }
    }

    /// Address and length of the bytes of the windows in a slot.
    pub fn window(&self, slot: usize) -> (u64, u64) {
        slot_bytes(&self.conv.tensor, self.conv.pitch, slot)
    }
}

/// Address and length of the bytes of a slot, `pitch` elements behind the one before.
pub fn slot_bytes(tensor: &Tensor, pitch: u64, slot: usize) -> (u64, u64) {
    let bytes = pitch * tensor.dtype.size() as u64;
    (tensor.address + slot as u64 * bytes, bytes)
}

/// Uninitialised memory for so many elements.
pub fn tensor(device: &mut dyn Device, dtype: DType, len: u64) -> Result<Tensor> {
    Ok(Tensor::new(device.alloc(len * dtype.size() as u64)?, dtype, len))
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
pub fn from_row(rows: &Rows, first: usize) -> Rows {
    rows.view(first as u64 * rows.stride)
}
