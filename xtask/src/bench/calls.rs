//! Calls of the operations that are timed, and their inputs in device memory.

mod replay;

use super::Gpu;
use super::ops::{CONV_WIDTH, Op, Spec};
use anyhow::Result;
use gdn_host::driver::{DeviceBuffer, OwnedStream};
use gdn_host::{
    ALog, Conv1dUpdate, ConvPool, ConvertLayout, CopyState, DType, Decode, DtBias, Family, GatedRmsNorm,
    Inputs, Intermediate, Key, Layout, Logits, Operation, Query, Recurrent, Rows, Softplus, Source,
    StatePool, Table, Target, Tensor, Tokens, UnpackQkvz, Value,
};
use gdn_tests::random::Noise;
use gdn_tests::strided::encode_values;

/// Device memory as it is filled.
struct Memory<'a> {
    gpu: &'a Gpu,
    noise: Noise,
    /// Normal values. Large inputs repeat them: making new ones takes longer than timing the kernels.
    normals: Vec<f32>,
    /// The states that calls start from, and the slots of their sequences.
    pools: Vec<Tensor>,
    slots: Option<Table>,
    /// Memory as large as what a call for all layers reads, and as large as what it writes.
    copied: Option<[Tensor; 2]>,
    buffers: Vec<DeviceBuffer>,
}

impl Memory<'_> {
    fn rows(&mut self, values: &[f32], dtype: DType, width: u64) -> Result<Rows> {
        let buffer = DeviceBuffer::from_slice(&self.gpu.context, &encode_values(values, dtype))?;
        let tensor = Tensor { address: buffer.address(), dtype, len: values.len() as u64 };
        self.buffers.push(buffer);
        Ok(Rows { tensor, stride: width })
    }

    fn normal(&mut self, rows: u64, width: u64, dtype: DType) -> Result<Rows> {
        let len = (rows * width) as usize;
        let start = self.noise.below(self.normals.len());
        let values: Vec<f32> = self.normals.iter().copied().cycle().skip(start).take(len).collect();
        self.rows(&values, dtype, width)
    }

    /// The numbers below `n` in a random order.
    fn shuffled(&mut self, n: u32) -> Result<Table> {
        self.staggered(n, (0..n).collect())
    }

    /// Each of some levels as often as the others, for `n` sequences in a random order.
    fn staggered(&mut self, n: u32, levels: Vec<u32>) -> Result<Table> {
        let mut order: Vec<(u32, u32)> = (0..n).map(|i| (self.noise.uniform().to_bits(), i)).collect();
        order.sort_unstable();
        self.table(order.iter().map(|(_, i)| levels[*i as usize % levels.len()]))
    }

    /// A table of these entries.
    fn table(&mut self, entries: impl Iterator<Item = u32>) -> Result<Table> {
        let bytes: Vec<u8> = entries.flat_map(u32::to_le_bytes).collect();
        let address = self.bytes(&bytes)?;
        Ok(Table::i32(address, (bytes.len() / 4) as u64))
    }

    /// The address of these bytes.
    fn bytes(&mut self, bytes: &[u8]) -> Result<u64> {
        let buffer = DeviceBuffer::from_slice(&self.gpu.context, bytes)?;
        let address = buffer.address();
        self.buffers.push(buffer);
        Ok(address)
    }

    /// `count` tensors of random states: one block of values, copied as often as it takes.
    fn states(&mut self, dtype: DType, bytes: u64, count: usize) -> Result<Vec<Tensor>> {
        let bytes = bytes as usize;
        let values = &self.normals[..self.normals.len().min(bytes / dtype.size())];
        let block = DeviceBuffer::from_slice(&self.gpu.context, &encode_values(values, dtype))?;
        let stream = OwnedStream::new(&self.gpu.context)?;
        let mut tensors = Vec::new();
        for _ in 0..count {
            let pool = DeviceBuffer::alloc(&self.gpu.context, bytes)?;
            for offset in (0..bytes).step_by(block.len()) {
                let len = block.len().min(bytes - offset);
                // SAFETY: both buffers live until the stream was waited for below.
                unsafe { pool.copy_from_async(offset, &block, 0, len, stream.as_stream())? };
            }
            tensors.push(Tensor { address: pool.address(), dtype, len: (bytes / dtype.size()) as u64 });
            self.buffers.push(pool);
        }
        stream.synchronize()?;
        Ok(tensors)
    }

    fn inputs(&mut self, spec: &Spec) -> Result<Inputs> {
        let Spec { shape, io, .. } = *spec;
        let tokens = u64::from(spec.batch) * u64::from(spec.tokens);
        let (keys, values, hv) = (shape.key_elements(), shape.value_elements(), u64::from(shape.hv));
        let gate = if spec.op.family() == Family::Kda { hv * u64::from(shape.k) } else { hv };
        // The decay rates of a trained layer: log of uniform in (0, 16).
        let rates: Vec<f32> = (0..hv).map(|_| (16.0 * self.noise.uniform()).max(1e-3).ln()).collect();
        let make = match spec.op.family() {
            Family::Gdn => Inputs::gdn,
            Family::Kda => Inputs::kda,
        };
        let (q, k) = (Query(self.normal(tokens, keys, io)?), Key(self.normal(tokens, keys, io)?));
        let (v, a) = (Value(self.normal(tokens, values, io)?), self.normal(tokens, gate, io)?);
        let a_log = ALog(self.rows(&rates, DType::F32, hv)?.tensor);
        let decay = Softplus::new(a, a_log, DtBias(self.normal(1, gate, DType::F32)?.tensor));
        let beta = Logits::new(self.normal(tokens, hv, io)?);
        Ok(make(shape, q, k, v, decay, beta))
    }
}

/// Different values that inputs have, of each kind: a megabyte of f32.
const NORMALS: usize = 1 << 18;

/// Calls of one operation.
type Calls = Vec<Box<dyn Operation>>;

/// Calls of one operation, and the memory they live in.
pub(super) struct Work {
    /// One a set of states.
    pub(super) calls: Calls,
    /// The states that each call of a recurrence starts from.
    pub(super) pools: Vec<Tensor>,
    /// The slots of its sequences.
    pub(super) slots: Option<Table>,
    /// Of a call for all layers: memory as large as what it reads, and as large as what it writes.
    pub(super) copied: Option<[Tensor; 2]>,
    /// All memory.
    pub(super) buffers: Vec<DeviceBuffer>,
}

/// A call for each of `launches` sets of states.
pub(super) fn calls(gpu: &Gpu, spec: &Spec, launches: usize) -> Result<Work> {
    let mut noise = Noise::new(7);
    let normals = noise.normals(NORMALS, 1.0);
    let (pools, buffers) = (Vec::new(), Vec::new());
    let mut memory = Memory { gpu, noise, normals, pools, slots: None, copied: None, buffers };
    let calls = match spec.op {
        Op::Decode | Op::Verify | Op::Update | Op::KdaDecode | Op::KdaVerify | Op::KdaUpdate => {
            recurrence(&mut memory, spec, launches)?
        }
        Op::ReplayDecode | Op::ReplayVerify | Op::ReplayVerifyTree | Op::ReplayUpdate => {
            replay::steps(&mut memory, spec, launches)?
        }
        Op::KdaReplayDecode | Op::KdaReplayVerify | Op::KdaReplayUpdate => {
            replay::steps(&mut memory, spec, launches)?
        }
        Op::ReplayCommit | Op::Materialise => replay::all_layers(&mut memory, spec, launches)?,
        Op::UnpackQkvz => unpack(&mut memory, spec, launches)?,
        Op::Conv1dUpdate => conv1d(&mut memory, spec, launches)?,
        Op::GatedRmsNorm => norm(&mut memory, spec, launches)?,
        Op::CopyState | Op::ConvertLayout => movement(&mut memory, spec, launches)?,
    };
    let Memory { pools, slots, copied, buffers, .. } = memory;
    Ok(Work { calls, pools, slots, copied, buffers })
}

fn recurrence(memory: &mut Memory, spec: &Spec, launches: usize) -> Result<Calls> {
    let Spec { shape, batch, tokens, state, .. } = *spec;
    let inputs = memory.inputs(spec)?;
    let slots = memory.shuffled(batch)?;
    let out = memory.normal(u64::from(batch) * u64::from(tokens), shape.value_elements(), spec.io)?;
    let pools = memory.states(state, spec.state_bytes(), launches)?;
    memory.pools.clone_from(&pools);
    memory.slots = Some(slots);
    let buffers = match spec.op.is_verification() {
        true => memory.states(state, spec.state_bytes() * u64::from(tokens), launches)?,
        false => Vec::new(),
    };
    let pool =
        |tensor| StatePool { tensor, slots: batch, pitch: shape.state_elements(), layout: spec.layout };
    let calls = pools.iter().enumerate().map(|(i, &tensor)| -> Box<dyn Operation> {
        if !spec.op.has_several_tokens() {
            return Box::new(Decode::new(inputs, batch, pool(tensor), out).with_slots(slots));
        }
        let (tokens_of_each, target) = (Tokens::Each { batch, tokens }, Target::InPlace);
        let source = Source::Slots { pool: pool(tensor), slots };
        let mut call = Recurrent::new(inputs, tokens_of_each, source, target, out);
        if let Some(&tensor) = buffers.get(i) {
            let pitch = u64::from(tokens) * shape.state_elements();
            call.target = Target::Nowhere;
            call.intermediate = Some(Intermediate::new(tensor, batch, tokens, pitch));
        }
        Box::new(call)
    });
    Ok(calls.collect())
}

fn unpack(memory: &mut Memory, spec: &Spec, launches: usize) -> Result<Calls> {
    let (shape, z, heads) = (spec.shape, spec.shape.value_elements(), u64::from(spec.shape.hv));
    let widths = [spec.channels() + z, 2 * heads, spec.channels(), z, heads, heads];
    let of_width = |width: u64| -> Result<Vec<Rows>> {
        let bytes = u64::from(spec.batch) * width * spec.io.size() as u64;
        let tensors = memory.states(spec.io, bytes, launches)?;
        Ok(tensors.into_iter().map(|tensor| Rows { tensor, stride: width }).collect())
    };
    let rows = widths.into_iter().map(of_width).collect::<Result<Vec<_>>>()?;
    let call = |i: usize| -> Box<dyn Operation> {
        let [qkvz, ba, mixed_qkv, z, b, a] = [0, 1, 2, 3, 4, 5].map(|argument| rows[argument][i]);
        Box::new(UnpackQkvz { shape, tokens: spec.batch, qkvz, ba, mixed_qkv, z, b, a })
    };
    Ok((0..launches).map(call).collect())
}

fn conv1d(memory: &mut Memory, spec: &Spec, launches: usize) -> Result<Calls> {
    let (batch, dim, io) = (spec.batch, spec.channels(), spec.io);
    let len = CONV_WIDTH - 1;
    let (x, out) = (memory.normal(batch.into(), dim, io)?, memory.normal(batch.into(), dim, io)?);
    let weight = memory.normal(dim, CONV_WIDTH, io)?.tensor;
    let slots = memory.shuffled(batch)?;
    let pools = memory.states(io, spec.cold_bytes(), launches)?;
    let call = |tensor| -> Box<dyn Operation> {
        let state = ConvPool::taps_contiguous(tensor, batch, dim as u32, len as u32);
        let tokens = Tokens::Each { batch, tokens: 1 };
        let mut call = Conv1dUpdate::new(dim as u32, CONV_WIDTH as u32, tokens, x, weight, state, out);
        call.slots = Some(slots);
        Box::new(call)
    };
    Ok(pools.into_iter().map(call).collect())
}

fn norm(memory: &mut Memory, spec: &Spec, launches: usize) -> Result<Calls> {
    let (width, io, shape) = (spec.shape.value_elements(), spec.io, spec.shape);
    let weight = memory.normal(1, shape.v.into(), DType::F32)?.tensor;
    let bytes = u64::from(spec.batch) * width * io.size() as u64;
    let tensors = memory.states(io, bytes, 3 * launches)?;
    let rows = |tensor| Rows { tensor, stride: width };
    let call = |set: &[Tensor]| -> Box<dyn Operation> {
        let [x, z, out] = [0, 1, 2].map(|i| rows(set[i]));
        Box::new(GatedRmsNorm::new(shape.hv, shape.v, spec.batch, x, z, weight, out))
    };
    Ok(tensors.chunks_exact(3).map(call).collect())
}

fn movement(memory: &mut Memory, spec: &Spec, launches: usize) -> Result<Calls> {
    let (shape, copies, pitch) = (spec.shape, spec.batch, spec.shape.state_elements());
    let source_slots = Some(memory.shuffled(copies)?);
    let tensors = memory.states(spec.state, spec.state_bytes(), 2 * launches)?;
    let call = |pair: &[Tensor]| -> Box<dyn Operation> {
        let pool = |tensor, layout| StatePool { tensor, slots: copies, pitch, layout };
        let (source, target_slots, null_slot) = (pool(pair[0], Layout::Vk), None, None);
        if spec.op == Op::ConvertLayout {
            let target = pool(pair[1], Layout::Kv);
            return Box::new(ConvertLayout {
                shape,
                copies,
                source,
                source_slots,
                target,
                target_slots,
                null_slot,
            });
        }
        let (source, target) = (source.into(), pool(pair[1], Layout::Vk).into());
        Box::new(CopyState { copies, elements: pitch, source, source_slots, target, target_slots, null_slot })
    };
    Ok(tensors.chunks_exact(2).map(call).collect())
}
