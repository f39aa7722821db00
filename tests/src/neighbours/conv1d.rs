//! A conv1d update problem: host data, where it lies in memory, and the options of the call.
//!
//! Outputs are held against the oracle element by element; conv states and windows are inputs that were moved, and
//! every byte of them, of the gaps between them, and of what nobody was to write must be right.

use super::check_elements;
use crate::compare::widen;
use crate::device::{Device, POISON};
use crate::problem::StartFlags;
use crate::strided::{Strided, alloc_rows, decode_values, dense_rows, encode_values};
use crate::table::TableForm;
use anyhow::{Result, ensure};
use gdn_host::reference::conv1d::{Conv1d, Conv1dResult, conv1d_update};
use gdn_host::{
    Accepted, Conv1dUpdate, ConvPool, ConvTarget, DType, DraftWindows, Entry, Rows, Start, Tensor, Tile,
    Tokens,
};
use std::fmt;

/// How the call says which tokens are whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// All sequences have as many tokens.
    Each,
    /// A table of i32.
    I32,
    /// A table of i64.
    I64,
}

/// Conv states and how they lie in memory.
#[derive(Clone)]
pub struct PoolData {
    /// `[slots, dim, len]`, dense.
    pub state: Vec<f32>,
    /// Slots.
    pub slots: usize,
    /// Entries of a channel.
    pub len: usize,
    /// Elements from slot to slot.
    pub pitch: usize,
    /// Elements from channel to channel.
    pub channel_stride: usize,
    /// Elements from entry to entry.
    pub tap_stride: usize,
    /// Elements in front of slot 0.
    pub offset: usize,
}

/// Without the thousands of values.
impl fmt::Debug for PoolData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PoolData { slots, len, pitch, channel_stride, tap_stride, offset, .. } = self;
        write!(
            f,
            "{slots} slots of {len} entries, pitch {pitch}, strides {channel_stride} and {tap_stride}, "
        )?;
        write!(f, "offset {offset}")
    }
}

/// Where windows after each token go.
#[derive(Clone, Debug)]
pub struct WindowData {
    /// Rows.
    pub rows: usize,
    /// Tokens that a row has room for.
    pub steps: usize,
    /// Elements from row to row.
    pub pitch: usize,
    /// Row of each sequence.
    pub row: Option<Vec<i32>>,
}

/// Where outputs go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutPlace {
    /// Onto x.
    InPlace,
    /// To memory of their own.
    Own {
        /// Elements from row to row.
        stride: usize,
        /// Elements in front of the first row.
        offset: usize,
    },
}

/// Everything a conv1d update is made of.
#[derive(Clone, Debug)]
pub struct ConvProblem {
    /// Channels.
    pub dim: usize,
    /// Taps.
    pub width: usize,
    /// Tokens of each sequence.
    pub lens: Vec<usize>,
    /// How the call is told.
    pub packing: Packing,
    /// `[tokens, dim]`.
    pub x: Strided,
    /// `[dim, width]`.
    pub weight: Strided,
    /// `[dim]`.
    pub bias: Option<Strided>,
    /// SiLU.
    pub silu: bool,
    /// Products rounded to the type of x.
    pub round_products: bool,
    /// Conv states.
    pub pool: PoolData,
    /// Type of the conv state.
    pub state_type: DType,
    /// Read slots.
    pub slot: Vec<i32>,
    /// Whether the call has a table of them; without one sequence n's is n.
    pub has_slots: bool,
    /// Read slots that accepted counts choose; `slot` means nothing then.
    pub chosen: Option<Chosen>,
    /// Write slots.
    pub write_slot: Option<Vec<i32>>,
    /// Write slots of each token, so many a sequence.
    pub token_slots: Option<(Vec<i32>, usize)>,
    /// Null slot.
    pub null_slot: Option<i32>,
    /// Start flags.
    pub start: StartFlags,
    /// Accepted tokens.
    pub accepted: Option<Vec<i32>>,
    /// `[N, T]`.
    pub parent: Option<Vec<i32>>,
    /// Windows after each token.
    pub windows: Option<WindowData>,
    /// Their type.
    pub window_type: DType,
    /// How tables lie in memory.
    pub tables: TableForm,
    /// Rows of x and out behind those of the last sequence, where there are lengths.
    pub padding: usize,
    /// Whether the pool is written.
    pub update: bool,
    /// Outputs.
    pub out: OutPlace,
}

/// Slots of which each sequence starts from one.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// `[N, columns]`.
    pub slots: Vec<i32>,
    /// Slots of a sequence.
    pub columns: usize,
    /// Accepted tokens: a count of 1 is the first slot.
    pub accepted: Vec<i32>,
}

/// What came out.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvSolution {
    /// Output, `[tokens, dim]`.
    pub out: Vec<f32>,
    /// The output's bytes.
    pub out_bytes: Vec<u8>,
    /// The conv states' bytes, as `[slots, dim, len]` whatever the layout.
    pub state: Vec<u8>,
    /// The bytes of the windows, `[rows, steps, dim, width - 1]`; poison where nothing was stored.
    pub windows: Vec<u8>,
}

impl PoolData {
    /// Dense states with the entries of a channel together, as SGLang has them, or the channels of an entry, as vLLM.
    pub fn dense(state: Vec<f32>, slots: usize, dim: usize, len: usize, taps_contiguous: bool) -> PoolData {
        let (channel_stride, tap_stride) = if taps_contiguous { (len, 1) } else { (1, dim) };
        PoolData { state, slots, len, pitch: dim * len, channel_stride, tap_stride, offset: 0 }
    }

    /// Elements of a slot, gaps between channels or entries included.
    pub fn span(&self, dim: usize) -> usize {
        (dim - 1) * self.channel_stride + (self.len - 1) * self.tap_stride + 1
    }

    /// Where element `i` of a dense slot lies.
    fn place(&self, i: usize) -> usize {
        i / self.len * self.channel_stride + i % self.len * self.tap_stride
    }

    fn write(&self, device: &mut dyn Device, dim: usize, dtype: DType) -> Result<Tensor> {
        let (size, elements) = (dtype.size(), dim * self.len);
        let need = self.slots.saturating_sub(1) * self.pitch + self.span(dim);
        let base = device.alloc(((self.offset + need) * size) as u64)?;
        let address = base + (self.offset * size) as u64;
        let mut order: Vec<usize> = (0..elements).collect();
        order.sort_by_key(|i| self.place(*i));
        for (slot, values) in self.state.chunks(elements).enumerate() {
            for stretch in order.chunk_by(|a, b| self.place(*a) + 1 == self.place(*b)) {
                let values: Vec<f32> = stretch.iter().map(|i| values[*i]).collect();
                let at = slot * self.pitch + self.place(stretch[0]);
                device.write(address + (at * size) as u64, &encode_values(&values, dtype))?;
            }
        }
        Ok(Tensor { address, dtype, len: need as u64 })
    }

    /// The states as `[slots, dim, len]`; an error if something between them was written.
    fn read(&self, device: &dyn Device, dim: usize, tensor: &Tensor) -> Result<Vec<u8>> {
        let (size, span) = (tensor.dtype.size(), self.span(dim));
        let pool = Rows { tensor: *tensor, stride: self.pitch as u64 };
        let bytes = dense_rows(device, &pool, self.slots, span, "state")?;
        let mut dense = Vec::new();
        for (slot, bytes) in bytes.chunks(span * size).enumerate() {
            let mut is_gap = vec![true; span];
            for i in 0..dim * self.len {
                let at = self.place(i);
                is_gap[at] = false;
                dense.extend_from_slice(&bytes[at * size..(at + 1) * size]);
            }
            let untouched =
                is_gap.iter().zip(bytes.chunks(size)).all(|(gap, b)| !gap || b.iter().all(|x| *x == POISON));
            ensure!(untouched, "state: a gap within slot {slot} was written");
        }
        Ok(dense)
    }
}

impl ConvProblem {
    /// `tokens` tokens of each of the sequences of `slot`, packed rows, SiLU, no bias, states updated in their slots.
    pub fn new(tokens: usize, x: Strided, weight: Strided, pool: PoolData, slot: Vec<i32>) -> ConvProblem {
        let (dim, width, state_type) = (x.width, weight.width, x.dtype);
        ConvProblem {
            dim,
            width,
            lens: vec![tokens; slot.len()],
            packing: Packing::Each,
            x,
            weight,
            bias: None,
            silu: true,
            round_products: false,
            pool,
            state_type,
            slot,
            has_slots: true,
            chosen: None,
            write_slot: None,
            token_slots: None,
            null_slot: None,
            start: StartFlags::None,
            accepted: None,
            parent: None,
            windows: None,
            window_type: state_type,
            tables: TableForm::default(),
            padding: 0,
            update: true,
            out: OutPlace::Own { stride: dim, offset: 0 },
        }
    }

    /// Rows of x and out.
    pub fn rows(&self) -> usize {
        self.lens.iter().sum::<usize>() + self.padding
    }

    /// Type of x and out.
    pub fn io(&self) -> DType {
        self.x.dtype
    }

    /// The first token of each sequence, and the end of its tokens.
    pub fn tokens(&self) -> Vec<(usize, usize)> {
        let mut end = 0;
        let next = |len: &usize| {
            end += len;
            (end - len, end)
        };
        self.lens.iter().map(next).collect()
    }

    /// Runs the problem; an error if the device refuses it, or if a gap was written.
    pub fn run(&self, device: &mut dyn Device, tile: Tile) -> Result<ConvSolution> {
        device.reset();
        let call = self.place(device)?;
        device.run(&call, tile)?;
        self.collect(device, &call)
    }

    /// Puts the data into device memory and makes the call.
    pub fn place(&self, device: &mut dyn Device) -> Result<Conv1dUpdate> {
        let (io, batch, total) = (self.io(), self.lens.len() as u32, self.rows());
        let x = alloc_rows(device, &self.x)?;
        let out = match self.out {
            OutPlace::InPlace => x,
            OutPlace::Own { stride, offset } => {
                let len = total.saturating_sub(1) * stride + self.dim;
                let base = device.alloc(((offset + len) * io.size()) as u64)?;
                let tensor =
                    Tensor { address: base + (offset * io.size()) as u64, dtype: io, len: len as u64 };
                Rows { tensor, stride: stride as u64 }
            }
        };
        let form = self.tables;
        let mut packed = |entry| -> Result<_> {
            let ends = self.tokens().into_iter().map(|(_, end)| end as i64);
            let lengths: Vec<i64> = std::iter::once(0).chain(ends).collect();
            let cu_seqlens = form.lengths(device, &lengths, entry)?;
            Ok(Tokens::Packed { batch, total: total as u32, cu_seqlens })
        };
        let tokens = match self.packing {
            Packing::Each => {
                let tokens = self.lens.first().map_or(1, |len| *len as u32);
                ensure!(
                    self.lens.iter().all(|len| *len as u32 == tokens),
                    "lengths differ without cu_seqlens"
                );
                Tokens::Each { batch, tokens }
            }
            Packing::I32 => packed(Entry::I32)?,
            Packing::I64 => packed(Entry::I64)?,
        };
        let bias = self.bias.as_ref().map(|bias| alloc_rows(device, bias)).transpose()?;
        let start = match &self.start {
            StartFlags::None => Start::FromSlot,
            StartFlags::Reset(x) => Start::Reset(form.flags(device, x)?),
            StartFlags::HasInitialState(x) => Start::HasInitialState(form.flags(device, x)?),
        };
        let pool = &self.pool;
        let intermediate = self.windows.as_ref().map(|windows| -> Result<_> {
            let len = (windows.rows * windows.pitch) as u64;
            let address = device.alloc(len * self.window_type.size() as u64)?;
            Ok(DraftWindows {
                tensor: Tensor { address, dtype: self.window_type, len },
                rows: windows.rows as u32,
                steps: windows.steps as u32,
                pitch: windows.pitch as u64,
                row: windows.row.as_ref().map(|row| form.indices(device, row, 1)).transpose()?,
            })
        });
        let intermediate = intermediate.transpose()?;
        let state = ConvPool {
            tensor: pool.write(device, self.dim, self.state_type)?,
            slots: pool.slots as u32,
            pitch: pool.pitch as u64,
            len: pool.len as u32,
            channel_stride: pool.channel_stride as u64,
            tap_stride: pool.tap_stride as u64,
        };
        let weight = alloc_rows(device, &self.weight)?.tensor;
        let (dim, width) = (self.dim as u32, self.width as u32);
        let mut call = Conv1dUpdate::new(dim, width, tokens, x, weight, state, out);
        (call.bias, call.start) = (bias.map(|bias| bias.tensor), start);
        (call.silu, call.round_products) = (self.silu, self.round_products);
        (call.null_slot, call.intermediate) = (self.null_slot, intermediate);
        let mut place = |x: &[i32], columns| form.indices(device, x, columns);
        match &self.chosen {
            Some(chosen) => {
                call.slots = Some(place(&chosen.slots, chosen.columns)?);
                call.accepted = Some(Accepted::Slot(place(&chosen.accepted, 1)?));
            }
            None => {
                call.slots = if self.has_slots { Some(place(&self.slot, 1)?) } else { None };
                let accepted = self.accepted.as_ref().map(|x| place(x, 1)).transpose()?;
                call.accepted = accepted.map(Accepted::Entry);
            }
        }
        call.target = match (&self.token_slots, &self.write_slot) {
            (Some((slots, columns)), _) => ConvTarget::EachToken(place(slots, *columns)?),
            (None, Some(slots)) => ConvTarget::Slots(place(slots, 1)?),
            (None, None) if self.update => ConvTarget::InPlace,
            (None, None) => ConvTarget::Nowhere,
        };
        let of_sequence = total / self.lens.len().max(1);
        call.parent = self.parent.as_ref().map(|x| place(x, of_sequence.max(1))).transpose()?;
        Ok(call)
    }

    /// Reads the results back.
    pub fn collect(&self, device: &dyn Device, call: &Conv1dUpdate) -> Result<ConvSolution> {
        let total = self.rows();
        let out_bytes = dense_rows(device, &call.out, total, self.dim, "out")?;
        let state = self.pool.read(device, self.dim, &call.state.tensor)?;
        let windows = match (&call.intermediate, &self.windows) {
            (Some(windows), Some(data)) => {
                let rows = Rows { tensor: windows.tensor, stride: windows.pitch };
                let width = data.steps * self.dim * (self.width - 1);
                dense_rows(device, &rows, data.rows, width, "intermediate")?
            }
            _ => Vec::new(),
        };
        Ok(ConvSolution { out: decode_values(&out_bytes, self.io()), out_bytes, state, windows })
    }

    /// The slot an index names, if it names one.
    fn named(&self, index: i32) -> Option<usize> {
        let slot = usize::try_from(index).ok().filter(|s| *s < self.pool.slots)?;
        (Some(index) != self.null_slot).then_some(slot)
    }

    /// The read slot of each sequence; `None` is a padded row.
    pub fn read_slots(&self) -> Vec<Option<usize>> {
        if let Some(Chosen { slots, columns, accepted }) = &self.chosen {
            let column =
                |n: usize| usize::try_from(accepted[n]).ok().filter(|count| (1..=*columns).contains(count));
            let slot = |n: usize| column(n).and_then(|count| self.named(slots[n * columns + count - 1]));
            return (0..self.lens.len()).map(slot).collect();
        }
        let drafts = self.pool.len as i32 - self.width as i32 + 2;
        let is_sound = |n: usize| match &self.accepted {
            Some(accepted) => (1..=drafts).contains(&accepted[n]) && self.lens[n] as i32 <= drafts,
            None => true,
        };
        // Without a table no index marks padding.
        let named = |n: usize, index: i32| if self.has_slots { self.named(index) } else { Some(n) };
        self.slot.iter().enumerate().map(|(n, &i)| named(n, i).filter(|_| is_sound(n))).collect()
    }

    /// Everything by the oracle.
    pub fn oracle(&self) -> Conv1dResult {
        let from_zeros: Vec<bool> = match &self.start {
            StartFlags::None => vec![false; self.lens.len()],
            StartFlags::Reset(x) => x.iter().map(|b| *b != 0).collect(),
            StartFlags::HasInitialState(x) => x.iter().map(|b| *b == 0).collect(),
        };
        let slots = self.read_slots();
        let target = |n: usize| match &self.write_slot {
            Some(write) => self.named(write[n]),
            None => slots[n],
        };
        let writes = self.update && self.token_slots.is_none();
        let write = |(n, read): (usize, &Option<usize>)| read.filter(|_| writes).and_then(|_| target(n));
        let write_slots: Vec<_> = slots.iter().enumerate().map(write).collect();
        let token_slots = self.token_slots.as_ref().map(|(slots, columns)| {
            (slots.iter().map(|&slot| self.named(slot)).collect::<Vec<_>>(), *columns)
        });
        let accepted: Option<Vec<usize>> =
            self.accepted.as_ref().map(|x| x.iter().map(|a| usize::try_from(*a).unwrap_or(0)).collect());
        let parent: Option<Vec<_>> =
            self.parent.as_ref().map(|x| x.iter().map(|p| usize::try_from(*p).ok()).collect());
        let bias = self.bias.as_ref().map(|bias| widen(&bias.data));
        let call = Conv1d {
            dim: self.dim,
            width: self.width,
            x: &widen(&self.x.data),
            weight: &widen(&self.weight.data),
            bias: bias.as_deref(),
            silu: self.silu,
            round_products: self.round_products.then_some(self.io()),
            tokens: &self.tokens(),
            len: self.pool.len,
            slots: &slots,
            write_slots: &write_slots,
            token_slots: token_slots.as_ref().map(|(slots, columns)| (&slots[..], *columns)),
            from_zeros: &from_zeros,
            accepted: accepted.as_deref(),
            parent: parent.as_deref(),
        };
        conv1d_update(&call, &widen(&self.pool.state))
    }

    /// The bytes that the windows must hold.
    fn expected_windows(&self, oracle: &Conv1dResult) -> Vec<u8> {
        let Some(data) = &self.windows else { return Vec::new() };
        let width = self.dim * (self.width - 1) * self.window_type.size();
        let mut bytes = vec![POISON; data.rows * data.steps * width];
        let windows = encode_values(&narrow(&oracle.windows), self.window_type);
        for ((n, (begin, end)), slot) in self.tokens().into_iter().enumerate().zip(self.read_slots()) {
            let row = data.row.as_ref().map_or(n as i32, |row| row[n]);
            let Some(row) = usize::try_from(row).ok().filter(|row| *row < data.rows && slot.is_some()) else {
                continue;
            };
            for t in 0..(end - begin).min(data.steps) {
                let (to, from) = ((row * data.steps + t) * width, (begin + t) * width);
                bytes[to..to + width].copy_from_slice(&windows[from..from + width]);
            }
        }
        bytes
    }

    /// Holds a solution against the oracle: outputs within rounding, padded rows zero, conv states and windows exact.
    pub fn check(&self, solution: &ConvSolution) -> Result<()> {
        let oracle = self.oracle();
        for ((n, (begin, end)), slot) in self.tokens().into_iter().enumerate().zip(self.read_slots()) {
            let rows = begin * self.dim..end * self.dim;
            let got = &solution.out[rows.clone()];
            match slot {
                Some(_) => {
                    let (want, sums) = (&oracle.out[rows.clone()], &oracle.magnitude[rows]);
                    check_elements(&format!("out of sequence {n}"), self.io(), got, want, sums)?;
                }
                None => {
                    ensure!(got.iter().all(|x| x.to_bits() == 0), "padded row {n} of out is not zero");
                }
            }
        }
        let behind = &solution.out[(self.rows() - self.padding) * self.dim..];
        ensure!(behind.iter().all(|x| x.to_bits() == 0), "a row behind the last sequence is not zero");
        let state = encode_values(&narrow(&oracle.state), self.state_type);
        let slot_bytes = self.dim * self.pool.len * self.state_type.size();
        for (slot, (got, want)) in solution.state.chunks(slot_bytes).zip(state.chunks(slot_bytes)).enumerate()
        {
            ensure!(got == want, "slot {slot} is not what it should be");
        }
        ensure!(solution.windows == self.expected_windows(&oracle), "a window after a token is wrong");
        Ok(())
    }

    /// Runs on the device and holds the result against the oracle.
    pub fn run_and_check(&self, device: &mut dyn Device) -> Result<ConvSolution> {
        let solution = self.run(device, Tile::Auto)?;
        self.check(&solution)?;
        Ok(solution)
    }
}

/// f64 that hold f32, as such.
pub(crate) fn narrow(x: &[f64]) -> Vec<f32> {
    x.iter().map(|&x| x as f32).collect()
}
