//! A problem in device memory, its call, and what came out.

use super::ReplayProblem;
use crate::device::Device;
use crate::problem::{Memory, Source};
use crate::strided::{Strided, alloc_rows, decode_values, dense_rows};
use anyhow::{Context as _, Result, bail};
use gdn_host::{
    Cursors, Operation, ReplayDecode, ReplayPool, ReplayVerify, Rings, Rows, StatePool, Tensor, Tile,
};

/// A call of either operation.
#[derive(Clone, Copy, Debug)]
pub enum Call {
    /// One token for each sequence.
    Decode(ReplayDecode),
    /// Drafts.
    Verify(ReplayVerify),
}

impl Call {
    /// The call as devices take it.
    pub fn operation(&self) -> &dyn Operation {
        match self {
            Call::Decode(call) => call,
            Call::Verify(call) => call,
        }
    }
}

/// A problem in device memory.
#[derive(Clone, Copy, Debug)]
pub struct Placed {
    /// The call on it.
    pub call: Call,
    out: Rows,
    state: Rows,
    rings: [Rows; 3],
}

impl Placed {
    /// Its checkpoints, rings and cursors.
    pub fn pool(&self) -> &ReplayPool {
        match &self.call {
            Call::Decode(call) => &call.pool,
            Call::Verify(call) => &call.pool,
        }
    }
}

/// What came out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Solution {
    /// Output, `[tokens, HV, V]`.
    pub out: Memory,
    /// Checkpoints, `[slots, HV, V, K]`.
    pub state: Memory,
    /// Keys, corrections and log decays of the rings.
    pub rings: [Memory; 3],
}

impl ReplayProblem {
    /// Puts the data into device memory and makes the call.
    pub fn place(&self, device: &mut dyn Device) -> Result<Placed> {
        let p = &self.problem;
        let tables = &p.tables;
        let inputs = p.place_inputs(device)?;
        let out = p.out.context("replay has an output")?;
        let rows = p.tokens.total();
        let len = (rows.saturating_sub(1) * out.stride + p.width()) as u64;
        let address = device.alloc(len * out.dtype.size() as u64)?;
        let out = Rows { tensor: Tensor { address, dtype: out.dtype, len }, stride: out.stride as u64 };
        let state = alloc_rows(device, &p.pool_rows())?;
        let [k, d, g] = [&self.rings.k, &self.rings.d, &self.rings.g].map(|x| alloc_rows(device, x));
        let (k, d, g) = (k?, d?, g?);
        let len = tables.indices(device, &self.len, 1)?;
        let mut cursors = if self.by_slot { Cursors::by_slot(len) } else { Cursors::by_sequence(len) };
        if let Some(base) = &self.base {
            cursors = cursors.with_base(tables.indices(device, base, 1)?);
        }
        let pool = StatePool {
            tensor: state.tensor,
            slots: p.pool.slots as u32,
            pitch: state.stride,
            layout: p.pool.layout,
        };
        let rings = Rings::new(self.rings.records as u32, k, d, g);
        let mut pool = ReplayPool::new(pool, rings, cursors).with_start(p.place_start(device)?);
        pool.slots = match &p.source {
            Source::Sequences => None,
            Source::Slots(slots) => Some(tables.indices(device, slots, 1)?),
            other => bail!("replay starts from slots, not from {other:?}"),
        };
        (pool.null_slot, pool.most) = (p.null_slot, self.most);
        pool.force = self.force.as_ref().map(|force| tables.flags(device, force)).transpose()?;
        let batch = p.tokens.batch() as u32;
        let call = if self.is_decode() {
            Call::Decode(ReplayDecode::new(inputs, batch, pool, out))
        } else {
            let mut call = ReplayVerify::new(inputs, batch, self.tokens() as u32, pool, out);
            let parent = self.parent.as_ref();
            call.parent = parent.map(|x| tables.indices(device, x, self.tokens())).transpose()?;
            Call::Verify(call)
        };
        Ok(Placed { call, out, state, rings: [k, d, g] })
    }

    /// Runs the problem; an error if the device refuses it, or if a gap between rows or slots was written.
    pub fn run(&self, device: &mut dyn Device, tile: Tile) -> Result<Solution> {
        device.reset();
        let placed = self.place(device)?;
        device.run(placed.call.operation(), tile)?;
        self.collect(device, &placed)
    }

    /// Reads the results back.
    pub fn collect(&self, device: &dyn Device, placed: &Placed) -> Result<Solution> {
        let read = |rows: &Rows, count: usize, width: usize, name: &str| -> Result<Memory> {
            let bytes = dense_rows(device, rows, count, width, name)?;
            Ok(Memory { values: decode_values(&bytes, rows.tensor.dtype), bytes })
        };
        let (p, slots, [k, d, g]) = (&self.problem, self.problem.pool.slots, &placed.rings);
        let ring = |rows: &Rows, x: &Strided, name: &str| read(rows, slots, x.width, name);
        let rings = &self.rings;
        Ok(Solution {
            out: read(&placed.out, p.tokens.total(), p.width(), "out")?,
            state: read(&placed.state, slots, p.elements(), "state")?,
            rings: [
                ring(k, &rings.k, "rings.k")?,
                ring(d, &rings.d, "rings.d")?,
                ring(g, &rings.g, "rings.g")?,
            ],
        })
    }

    /// Runs on the device and holds the result against the oracle.
    pub fn run_and_check(&self, device: &mut dyn Device, tile: Tile) -> Result<Solution> {
        let solution = self.run(device, tile)?;
        self.check(&solution)?;
        Ok(solution)
    }
}
