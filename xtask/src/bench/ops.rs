//! The operations that are timed: their inputs in device memory, and what they have to move.

use super::Gpu;
use anyhow::Result;
use clap::ValueEnum;
use gdn_host::driver::{DeviceBuffer, OwnedStream};
use gdn_host::{
    Activation, Beta, Conv1dUpdate, ConvPool, ConvertLayout, CopyState, DType, Decay, Decode, Family,
    GatedRmsNorm, HeadMap, HeadShape, Inputs, Intermediate, Layout, ModuleKey, Operation, Recurrent, Rows,
    Source, Start, StatePool, Table, Target, Tensor, Tile, Tokens, plan,
};
use gdn_tests::random::Noise;
use gdn_tests::strided::encode_values;

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Op {
    /// One token, state updated in its slot.
    Decode,
    /// Several tokens, the state after each kept in a buffer, no write-back.
    Verify,
    /// Several tokens, state updated in its slot.
    Update,
    /// Decode with a decay per key.
    KdaDecode,
    /// Causal convolution of one token, width 4, SiLU, over the channels of q, k and v.
    Conv1dUpdate,
    /// Gated RMSNorm of a decode's outputs.
    #[value(name = "gated_rmsnorm")]
    GatedRmsNorm,
    /// States copied from slots to slots.
    CopyState,
    /// States copied into the other layout.
    ConvertLayout,
}

impl Op {
    /// As in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Op::Decode => "decode",
            Op::Verify => "verify",
            Op::Update => "update",
            Op::KdaDecode => "kda_decode",
            Op::Conv1dUpdate => "conv1d_update",
            Op::GatedRmsNorm => "gated_rmsnorm",
            Op::CopyState => "copy_state",
            Op::ConvertLayout => "convert_layout",
        }
    }

    fn family(self) -> Family {
        if self == Op::KdaDecode { Family::Kda } else { Family::Gdn }
    }

    /// Whether it goes through states, as decode does.
    pub(super) fn is_recurrence(self) -> bool {
        matches!(self, Op::Decode | Op::KdaDecode | Op::Verify | Op::Update)
    }

    /// Whether it has to read each state and write it back, and no more.
    pub(super) fn is_read_modify_write(self) -> bool {
        self.is_recurrence() && self != Op::Verify
    }

    fn has_one_token(self) -> bool {
        !matches!(self, Op::Verify | Op::Update)
    }
}

/// Taps of the convolution in every published model.
const CONV_WIDTH: u64 = 4;

/// A shape to time.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Operation.
    pub op: Op,
    /// Heads.
    pub shape: HeadShape,
    /// Type of the state.
    pub state: DType,
    /// Type of q, k and v.
    pub io: DType,
    /// Layout of the state.
    pub layout: Layout,
    /// Sequences.
    pub batch: u32,
    /// Tokens of each.
    pub tokens: u32,
}

impl Spec {
    /// With the tokens that the operation takes, `tokens` if it takes several.
    pub fn new(op: Op, shape: HeadShape, state: DType, layout: Layout, batch: u32, tokens: u32) -> Spec {
        let tokens = if op.has_one_token() { 1 } else { tokens };
        Spec { op, shape, state, io: DType::Bf16, layout, batch, tokens }
    }

    /// The module that the operation needs.
    pub fn module(&self) -> ModuleKey {
        let key = match self.op {
            Op::Decode | Op::KdaDecode => ModuleKey::decode,
            Op::Verify | Op::Update => ModuleKey::recurrent,
            Op::Conv1dUpdate => return ModuleKey::conv1d_update(self.io),
            Op::GatedRmsNorm => return ModuleKey::gated_rmsnorm(self.io, self.io, self.shape.v),
            Op::CopyState => return ModuleKey::copy_state(),
            Op::ConvertLayout => return ModuleKey::convert_layout(self.state),
        };
        key(self.op.family(), self.layout, self.state, self.io, self.shape.k)
    }

    /// Every tile there is, or every size of a block where the operation has no tiles.
    pub fn tiles(&self) -> Vec<Tile> {
        match self.op.is_recurrence() {
            true => plan::tiles(self.module(), &self.shape).collect(),
            false => [1, 2, 4, 8].map(|warps| Tile::Exact { rows: 0, warps }).to_vec(),
        }
    }

    /// Channels of q, k and v, which the convolution runs over.
    fn channels(&self) -> u64 {
        2 * self.shape.key_elements() + self.shape.value_elements()
    }

    /// Bytes of the states of all sequences.
    pub fn state_bytes(&self) -> u64 {
        u64::from(self.batch) * self.shape.state_elements() * self.state.size() as u64
    }

    /// Bytes that a launch has of its own.
    pub fn cold_bytes(&self) -> u64 {
        let rows = u64::from(self.batch) * self.io.size() as u64;
        match self.op {
            Op::Decode | Op::KdaDecode | Op::Update => self.state_bytes(),
            Op::Verify => self.state_bytes() * (1 + u64::from(self.tokens)),
            Op::Conv1dUpdate => rows * self.channels() * (CONV_WIDTH - 1),
            Op::GatedRmsNorm => 3 * rows * self.shape.value_elements(),
            Op::CopyState | Op::ConvertLayout => 2 * self.state_bytes(),
        }
    }

    /// Launches of a graph at most: operations on small inputs take more of them to leave the L2.
    pub fn most_launches(&self) -> usize {
        if matches!(self.op, Op::Conv1dUpdate | Op::GatedRmsNorm) { 512 } else { 48 }
    }

    /// Bytes that a launch has to read and write: of states, or where there are none of its inputs and outputs.
    pub fn moved_bytes(&self) -> u64 {
        match self.op {
            Op::Decode | Op::KdaDecode | Op::Update => 2 * self.state_bytes(),
            Op::Conv1dUpdate => {
                let rows = u64::from(self.batch) * self.channels() * self.io.size() as u64;
                2 * self.cold_bytes() + 2 * rows
            }
            Op::Verify | Op::GatedRmsNorm | Op::CopyState | Op::ConvertLayout => self.cold_bytes(),
        }
    }
}

/// Device memory as it is filled.
struct Memory<'a> {
    gpu: &'a Gpu,
    noise: Noise,
    /// The states that calls start from, and the slots of their sequences.
    pools: Vec<Tensor>,
    slots: Option<Table>,
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
        let values = self.noise.normals((rows * width) as usize, 1.0);
        self.rows(&values, dtype, width)
    }

    /// The numbers below `n` in a random order.
    fn shuffled(&mut self, n: u32) -> Result<Table> {
        let mut order: Vec<(u32, u32)> = (0..n).map(|i| (self.noise.uniform().to_bits(), i)).collect();
        order.sort_unstable();
        let bytes: Vec<u8> = order.iter().flat_map(|(_, slot)| slot.to_le_bytes()).collect();
        let buffer = DeviceBuffer::from_slice(&self.gpu.context, &bytes)?;
        let table = Table { address: buffer.address(), len: n.into() };
        self.buffers.push(buffer);
        Ok(table)
    }

    /// `count` tensors of random states: one block of values, copied as often as it takes.
    fn states(&mut self, dtype: DType, bytes: u64, count: usize) -> Result<Vec<Tensor>> {
        const BLOCK: usize = 4 << 20;
        let bytes = bytes as usize;
        let values = self.noise.normals(BLOCK.min(bytes) / dtype.size(), 1.0);
        let block = DeviceBuffer::from_slice(&self.gpu.context, &encode_values(&values, dtype))?;
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
        Ok(Inputs {
            shape,
            family: spec.op.family(),
            q: self.normal(tokens, keys, io)?,
            k: self.normal(tokens, keys, io)?,
            v: self.normal(tokens, values, io)?,
            decay: Decay::Softplus {
                a: self.normal(tokens, gate, io)?,
                a_log: self.rows(&rates, DType::F32, hv)?.tensor,
                dt_bias: self.normal(1, gate, DType::F32)?.tensor,
                threshold: 20.0,
            },
            beta: Beta::Logits { b: self.normal(tokens, hv, io)?, rounded: false },
            l2norm: Some(1e-6),
            scale: None,
            heads: HeadMap::Grouped,
        })
    }
}

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
    /// All memory.
    pub(super) buffers: Vec<DeviceBuffer>,
}

/// A call for each of `launches` sets of states.
pub(super) fn calls(gpu: &Gpu, spec: &Spec, launches: usize) -> Result<Work> {
    let mut memory =
        Memory { gpu, noise: Noise::new(7), pools: Vec::new(), slots: None, buffers: Vec::new() };
    let calls = match spec.op {
        Op::Decode | Op::KdaDecode | Op::Verify | Op::Update => recurrence(&mut memory, spec, launches)?,
        Op::Conv1dUpdate => conv1d(&mut memory, spec, launches)?,
        Op::GatedRmsNorm => norm(&mut memory, spec, launches)?,
        Op::CopyState | Op::ConvertLayout => movement(&mut memory, spec, launches)?,
    };
    Ok(Work { calls, pools: memory.pools, slots: memory.slots, buffers: memory.buffers })
}

fn recurrence(memory: &mut Memory, spec: &Spec, launches: usize) -> Result<Calls> {
    let Spec { shape, batch, tokens, state, .. } = *spec;
    let inputs = memory.inputs(spec)?;
    let slots = memory.shuffled(batch)?;
    let out = memory.normal(u64::from(batch) * u64::from(tokens), shape.value_elements(), spec.io)?;
    let pools = memory.states(state, spec.state_bytes(), launches)?;
    memory.pools.clone_from(&pools);
    memory.slots = Some(slots);
    let buffers = match spec.op {
        Op::Verify => memory.states(state, spec.state_bytes() * u64::from(tokens), launches)?,
        _ => Vec::new(),
    };
    let pool =
        |tensor| StatePool { tensor, slots: batch, pitch: shape.state_elements(), layout: spec.layout };
    let calls = pools.iter().enumerate().map(|(i, &tensor)| -> Box<dyn Operation> {
        if spec.op.has_one_token() {
            return Box::new(Decode {
                inputs,
                batch,
                state: pool(tensor),
                slots,
                write_slots: None,
                null_slot: None,
                start: Start::FromSlot,
                out,
            });
        }
        let buffer = buffers.get(i).map(|&tensor| Intermediate {
            tensor,
            rows: batch,
            steps: tokens,
            pitch: u64::from(tokens) * shape.state_elements(),
            row: None,
            parent: None,
        });
        Box::new(Recurrent {
            inputs,
            tokens: Tokens::Each { batch, tokens },
            source: Source::Slots { pool: pool(tensor), slots },
            start: Start::FromSlot,
            target: if buffer.is_some() { Target::Nowhere } else { Target::InPlace },
            null_slot: None,
            intermediate: buffer,
            round_state: false,
            out: Some(out),
        })
    });
    Ok(calls.collect())
}

fn conv1d(memory: &mut Memory, spec: &Spec, launches: usize) -> Result<Calls> {
    let (batch, dim, io) = (spec.batch, spec.channels(), spec.io);
    let len = CONV_WIDTH - 1;
    let (x, out) = (memory.normal(batch.into(), dim, io)?, memory.normal(batch.into(), dim, io)?);
    let weight = memory.normal(dim, CONV_WIDTH, io)?.tensor;
    let slots = memory.shuffled(batch)?;
    let pools = memory.states(io, spec.cold_bytes(), launches)?;
    let call = |tensor| -> Box<dyn Operation> {
        Box::new(Conv1dUpdate {
            dim: dim as u32,
            width: CONV_WIDTH as u32,
            tokens: Tokens::Each { batch, tokens: 1 },
            x,
            weight,
            bias: None,
            silu: true,
            round_products: false,
            state: ConvPool {
                tensor,
                slots: batch,
                pitch: dim * len,
                len: len as u32,
                channel_stride: len,
                tap_stride: 1,
            },
            slots,
            write_slots: None,
            null_slot: None,
            start: Start::FromSlot,
            accepted: None,
            parent: None,
            intermediate: None,
            update: true,
            out,
        })
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
        Box::new(GatedRmsNorm {
            hv: shape.hv,
            v: shape.v,
            tokens: spec.batch,
            x: rows(set[0]),
            z: rows(set[1]),
            weight,
            activation: Activation::Silu,
            eps: 1e-6,
            out: rows(set[2]),
        })
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
