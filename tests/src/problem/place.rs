//! A problem in device memory, and the call on it.

use super::{Beta, Decay, Intermediate, Problem, Source, StartFlags, Target, Tokens};
use crate::device::Device;
use crate::problem::solution::transpose;
use crate::strided::{Strided, alloc_rows, write_rows};
use anyhow::{Result, bail};
use gdn_host::{self as host, Entry, Family, Inputs, Layout, Operation, Rows, Start, StatePool, Tensor};
use gdn_host::{ALog, DtBias, Key, Logits, LowerBound, Query, Softplus, Value};

/// A call of either operation.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::large_enum_variant, reason = "few live at once, and a call is Copy")]
pub enum Call {
    /// One token for each sequence.
    Decode(host::Decode),
    /// Any number.
    Recurrent(host::Recurrent),
}

impl Call {
    /// The call as devices take it.
    pub fn operation(&self) -> &dyn Operation {
        match self {
            Call::Decode(call) => call,
            Call::Recurrent(call) => call,
        }
    }

    /// The pool that its sequences' slots are of.
    fn pool_mut(&mut self) -> Option<&mut StatePool> {
        match self {
            Call::Decode(call) => Some(&mut call.state),
            Call::Recurrent(host::Recurrent { source: host::Source::Slots { pool, .. }, .. }) => Some(pool),
            Call::Recurrent(_) => None,
        }
    }

    /// What its tokens are made of.
    pub fn inputs_mut(&mut self) -> &mut Inputs {
        match self {
            Call::Decode(call) => &mut call.inputs,
            Call::Recurrent(call) => &mut call.inputs,
        }
    }
}

/// A problem in device memory.
#[derive(Clone, Copy, Debug)]
pub struct Placed {
    /// The call on it.
    pub call: Call,
    /// The output, if there is one.
    pub(super) out: Option<Rows>,
    /// The pool, a row for each slot.
    pub(super) state: Option<Rows>,
    /// The final states, a row for each.
    pub(super) final_state: Option<Rows>,
    /// The buffer of states, its rows.
    pub(super) intermediate: Option<Rows>,
}

impl Placed {
    /// The output, a row for each token.
    pub fn out(&self) -> Option<Rows> {
        self.out
    }

    /// The same call on the pool of another one, whose slots it names.
    ///
    /// # Errors
    /// A call that starts from no slots of a pool.
    pub fn on_pool_of(self, other: &Placed) -> Result<Placed> {
        let mut other_call = other.call;
        let (mut call, state) = (self.call, other.state);
        match (call.pool_mut(), other_call.pool_mut()) {
            (Some(mine), Some(others)) => *mine = *others,
            _ => bail!("a call without a pool of slots"),
        }
        Ok(Placed { call, state, ..self })
    }
}

impl Problem {
    /// Puts the data into device memory and makes the call.
    pub fn place(&self, device: &mut dyn Device) -> Result<Placed> {
        let (inputs, tables) = (self.place_inputs(device)?, &self.tables);
        let out = self.out.map(|out| alloc(device, out.dtype, self.tokens.total(), self.width(), out.stride));
        let out = out.transpose()?;
        let state = match self.source {
            Source::Zeros => None,
            _ => Some(alloc_rows(device, &self.pool_rows())?),
        };
        let dtype = self.pool.dtype;
        let final_state = match self.target {
            Target::Sequences { slots, pitch } => Some(alloc(device, dtype, slots, self.elements(), pitch)?),
            _ => None,
        };
        let intermediate = match &self.intermediate {
            Some(Intermediate { rows, steps, pitch, .. }) => {
                Some(alloc(device, self.buffer_type(), *rows, steps * self.elements(), *pitch)?)
            }
            None => None,
        };
        let pool = |rows: Rows, slots: usize| {
            let Rows { tensor, stride: pitch } = rows;
            StatePool { tensor, slots: slots as u32, pitch, layout: self.pool.layout }
        };
        let source = self.place_source(device, state.map(|rows| pool(rows, self.pool.slots)))?;
        let target = match &self.target {
            Target::Nowhere => host::Target::Nowhere,
            Target::InPlace => host::Target::InPlace,
            Target::Slots(slots) => host::Target::Slots(tables.indices(device, slots, 1)?),
            Target::EachToken { slots, width } => {
                host::Target::EachToken(tables.indices(device, slots, *width)?)
            }
            Target::Sequences { slots, .. } => {
                let Some(rows) = final_state else { bail!("final states were not placed") };
                host::Target::Sequences(pool(rows, *slots))
            }
        };
        let start = self.place_start(device)?;
        let call = if self.tokens.is_decode() {
            Call::Decode(self.decode(inputs, source, target, start, out)?)
        } else {
            let tokens = self.place_tokens(device)?;
            let mut call = host::Recurrent::new(inputs, tokens, source, target, out).with_start(start);
            call.null_slot = self.null_slot;
            call.intermediate = self.place_intermediate(device, intermediate)?;
            call.round_state = self.round_state;
            Call::Recurrent(call)
        };
        Ok(Placed { call, out, state, final_state, intermediate })
    }

    /// The start flags.
    pub(crate) fn place_start(&self, device: &mut dyn Device) -> Result<Start> {
        Ok(match &self.start {
            StartFlags::None => Start::FromSlot,
            StartFlags::Reset(x) => Start::Reset(self.tables.flags(device, x)?),
            StartFlags::HasInitialState(x) => Start::HasInitialState(self.tables.flags(device, x)?),
        })
    }

    fn decode(
        &self,
        inputs: Inputs,
        source: host::Source,
        target: host::Target,
        start: Start,
        out: Option<Rows>,
    ) -> Result<host::Decode> {
        let (state, slots) = match source {
            host::Source::Sequences(pool) => (pool, None),
            host::Source::Slots { pool, slots } => (pool, Some(slots)),
            _ => bail!("decode starts from slots, not from {:?}", self.source),
        };
        let write_slots = match target {
            host::Target::InPlace => None,
            host::Target::Slots(table) => Some(table),
            _ => bail!("the states of decode go to slots, not to {:?}", self.target),
        };
        let Some(out) = out else { bail!("decode has an output") };
        if self.intermediate.is_some() || self.round_state {
            bail!("decode has one token: no buffer, and nothing to round between");
        }
        let mut call = host::Decode::new(inputs, self.tokens.batch() as u32, state, out).with_start(start);
        (call.slots, call.write_slots, call.null_slot) = (slots, write_slots, self.null_slot);
        Ok(call)
    }

    pub(crate) fn place_inputs(&self, device: &mut dyn Device) -> Result<Inputs> {
        let (q, k, v) = self.place_projections(device)?;
        let a = alloc_rows(device, &self.a)?;
        let b = alloc_rows(device, &self.b)?;
        let mut table = |x: &Strided| -> Result<Option<Tensor>> {
            let is_omitted = self.omit_zeros && x.data.iter().all(|x| *x == 0.0);
            if is_omitted { Ok(None) } else { Ok(Some(alloc_rows(device, x)?.tensor)) }
        };
        let decay = match &self.decay {
            Decay::Softplus { a_log, dt_bias, beta, threshold } => {
                let (a_log, dt_bias) = (table(a_log)?.map(ALog), table(dt_bias)?.map(DtBias));
                Softplus::new(a, a_log, dt_bias).with_beta(*beta).with_threshold(*threshold).into()
            }
            Decay::LowerBound { a_log, dt_bias, bound } => {
                let (a_log, dt_bias) = (table(a_log)?.map(ALog), table(dt_bias)?.map(DtBias));
                LowerBound::new(a, a_log, dt_bias, *bound).into()
            }
            Decay::Given => host::Decay::Given(a),
            Decay::GivenPerKeyHead => host::Decay::GivenPerKeyHead(a),
        };
        let beta = match self.beta {
            Beta::Logits { rounded, scale } => Logits::new(b).with_rounding(rounded).with_scale(scale).into(),
            Beta::Given => host::Beta::Given(b),
            Beta::GivenPerValue => host::Beta::GivenPerValue(b),
        };
        let make = match self.family {
            Family::Gdn => Inputs::gdn,
            Family::Kda => Inputs::kda,
        };
        let mut inputs = make(self.shape, Query(q), Key(k), Value(v), decay, beta);
        (inputs.l2norm, inputs.scale, inputs.heads) = (self.l2norm, self.scale, self.heads);
        Ok(inputs)
    }

    /// q, k and v, each in memory of its own or side by side.
    fn place_projections(&self, device: &mut dyn Device) -> Result<(Rows, Rows, Rows)> {
        let views = [&self.q, &self.k, &self.v];
        let Some(stride) = self.packed_stride else {
            let [q, k, v] = views.map(|x| alloc_rows(device, x));
            return Ok((q?, k?, v?));
        };
        let width: usize = views.iter().map(|x| x.width).sum();
        let elements = self.tokens.total().max(1) * stride.max(width) + self.q.offset;
        let base = device.alloc((elements * self.q.dtype.size()) as u64)?;
        let mut at = self.q.offset;
        let [q, k, v] = views.map(|x| {
            let view = Strided { offset: at, stride, ..x.clone() };
            at += x.width;
            write_rows(device, &view, base)
        });
        Ok((q?, k?, v?))
    }

    /// The pool as it lies in memory.
    pub(crate) fn pool_rows(&self) -> Strided {
        let (v, k) = (self.shape.v as usize, self.shape.k as usize);
        let data = match self.pool.layout {
            Layout::Vk => self.pool.data.clone(),
            Layout::Kv => transpose(&self.pool.data, v, k, 1),
        };
        Strided { dtype: self.pool.dtype, data, width: self.elements(), stride: self.pool.pitch, offset: 0 }
    }

    fn place_source(&self, device: &mut dyn Device, pool: Option<StatePool>) -> Result<host::Source> {
        let Some(pool) = pool else { return Ok(host::Source::Zeros) };
        let tables = &self.tables;
        Ok(match &self.source {
            Source::Zeros => host::Source::Zeros,
            Source::Sequences => host::Source::Sequences(pool),
            Source::Slots(slots) => host::Source::Slots { pool, slots: tables.indices(device, slots, 1)? },
            Source::Accepted { slots, width, accepted } => host::Source::Accepted {
                pool,
                slots: tables.indices(device, slots, *width)?,
                accepted: tables.indices(device, accepted, 1)?,
            },
        })
    }

    fn place_tokens(&self, device: &mut dyn Device) -> Result<host::Tokens> {
        let batch = self.tokens.batch() as u32;
        let (cu_seqlens, total, is_i64) = match &self.tokens {
            Tokens::One { .. } => return Ok(host::Tokens::Each { batch, tokens: 1 }),
            Tokens::Each { tokens, .. } => return Ok(host::Tokens::Each { batch, tokens: *tokens as u32 }),
            Tokens::Packed { cu_seqlens, total, is_i64 } => (cu_seqlens, *total as u32, is_i64),
        };
        let entry = if *is_i64 { Entry::I64 } else { Entry::I32 };
        let cu_seqlens = self.tables.lengths(device, cu_seqlens, entry)?;
        Ok(host::Tokens::Packed { batch, total, cu_seqlens })
    }

    fn place_intermediate(
        &self,
        device: &mut dyn Device,
        rows: Option<Rows>,
    ) -> Result<Option<host::Intermediate>> {
        let (Some(buffer), Some(memory)) = (&self.intermediate, rows) else { return Ok(None) };
        let mut optional = |x: &Option<Vec<i32>>, columns| {
            x.as_ref().map(|x| self.tables.indices(device, x, columns)).transpose()
        };
        let (count, steps) = (buffer.rows as u32, buffer.steps as u32);
        let mut placed = host::Intermediate::new(memory.tensor, count, steps, memory.stride);
        placed.row = optional(&buffer.row, 1)?;
        placed.parent = optional(&buffer.parent, buffer.steps)?;
        Ok(Some(placed))
    }
}

/// Memory for rows that the call writes.
fn alloc(
    device: &mut dyn Device,
    dtype: host::DType,
    count: usize,
    width: usize,
    stride: usize,
) -> Result<Rows> {
    let len = count.saturating_sub(1) * stride + width;
    let address = device.alloc((len * dtype.size()) as u64)?;
    Ok(Rows { tensor: Tensor { address, dtype, len: len as u64 }, stride: stride as u64 })
}
