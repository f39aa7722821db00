//! A decode problem: host data, where it lies in memory, and the options of the call.
//!
//! A problem runs on any [`Device`] and in the oracle. Its data are f32 values that its types hold exactly,
//! so both sides start from the same numbers.

use crate::compare::{Error, Tolerance, rel_l2, widen};
use crate::device::Device;
use crate::strided::{Strided, alloc_rows, decode_values, dense_rows, write_rows};
use anyhow::{Result, ensure};
use gdn_host::{
    Beta, DType, Decay, Decode, HeadMap, HeadShape, Rows, Start, StatePool, Table, Tensor, Tile, reference,
};
use std::fmt;

/// Start flags as a problem states them.
#[derive(Clone, Debug, PartialEq)]
pub enum StartFlags {
    /// No table.
    None,
    /// `Start::Reset`.
    Reset(Vec<u8>),
    /// `Start::HasInitialState`.
    HasInitialState(Vec<u8>),
}

/// Everything a decode call is made of.
#[derive(Clone)]
pub struct Problem {
    /// Heads.
    pub shape: HeadShape,
    /// Sequences.
    pub batch: usize,
    /// q, k, v.
    pub q: Strided,
    /// Keys.
    pub k: Strided,
    /// Values.
    pub v: Strided,
    /// If set, q, k and v share one buffer of rows of this many elements.
    pub packed_stride: Option<usize>,
    /// Gate input, or log decay if `gate` is none.
    pub a: Strided,
    /// Beta logits, or beta.
    pub b: Strided,
    /// `a_log` and `dt_bias`, `[HV]`.
    pub gate: Option<(Strided, Strided)>,
    /// Threshold of softplus.
    pub threshold: f32,
    /// Whether `b` is beta itself.
    pub beta_given: bool,
    /// Whether beta is rounded through the type of b.
    pub beta_rounded: bool,
    /// Type of the state.
    pub state_type: DType,
    /// `[slots, HV, V, K]`, dense.
    pub state: Vec<f32>,
    /// Slots.
    pub slots: usize,
    /// Elements from slot to slot in memory.
    pub pitch: usize,
    /// Read slots.
    pub slot: Vec<i32>,
    /// Write slots.
    pub write_slot: Option<Vec<i32>>,
    /// Null slot.
    pub null_slot: Option<i32>,
    /// Start flags.
    pub start: StartFlags,
    /// Type of the output.
    pub out_type: DType,
    /// Elements from an output row to the next.
    pub out_stride: usize,
    /// eps of the l2norm.
    pub l2norm: Option<f32>,
    /// Scale.
    pub scale: Option<f32>,
    /// Head map.
    pub heads: HeadMap,
}

/// Without the thousands of values.
impl fmt::Debug for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let p = self;
        writeln!(f, "{:?}, {} sequences, q {:?}, k {:?}, v {:?}", p.shape, p.batch, p.q, p.k, p.v)?;
        writeln!(f, "packed {:?}, a {:?}, b {:?}, gate {:?}", p.packed_stride, p.a, p.b, p.gate)?;
        write!(f, "threshold {}, beta given {}, ", p.threshold, p.beta_given)?;
        writeln!(f, "beta rounded {}, l2norm {:?}, scale {:?}", p.beta_rounded, p.l2norm, p.scale)?;
        write!(f, "state {} x {} pitch {}, ", p.state_type.name(), p.slots, p.pitch)?;
        writeln!(f, "read {:?}, write {:?}, null {:?}", p.slot, p.write_slot, p.null_slot)?;
        write!(f, "start {:?}, out {} stride {}, ", p.start, p.out_type.name(), p.out_stride)?;
        write!(f, "heads {:?}", p.heads)
    }
}

/// What came out.
#[derive(Clone, Debug, PartialEq)]
pub struct Solution {
    /// Output, `[N, HV, V]`.
    pub out: Vec<f32>,
    /// State, `[slots, HV, V, K]`.
    pub state: Vec<f32>,
    /// The output's bytes.
    pub out_bytes: Vec<u8>,
    /// The states' bytes, slot after slot.
    pub state_bytes: Vec<u8>,
}

impl Problem {
    /// Runs the problem; an error if the device refuses it, or if a gap between rows or slots was written.
    pub fn run(&self, device: &mut dyn Device, tile: Tile) -> Result<Solution> {
        device.reset();
        let placed = self.place(device)?;
        device.decode(&placed.call, tile)?;
        self.collect(device, &placed)
    }

    /// Puts the data into device memory and makes the call.
    pub fn place(&self, device: &mut dyn Device) -> Result<Placed> {
        let (q, k, v) = match self.packed_stride {
            Some(stride) => {
                let views = [&self.q, &self.k, &self.v];
                let width: usize = views.iter().map(|x| x.width).sum();
                let bytes = (self.batch.max(1) * stride.max(width) + self.q.offset) * self.q.dtype.size();
                let base = device.alloc(bytes as u64)?;
                let mut at = self.q.offset;
                let mut placed = Vec::new();
                for x in views {
                    let view = Strided { offset: at, stride, ..x.clone() };
                    placed.push(write_rows(device, &view, base)?);
                    at += x.width;
                }
                (placed[0], placed[1], placed[2])
            }
            None => {
                (alloc_rows(device, &self.q)?, alloc_rows(device, &self.k)?, alloc_rows(device, &self.v)?)
            }
        };
        let a = alloc_rows(device, &self.a)?;
        let b = alloc_rows(device, &self.b)?;
        let decay = match &self.gate {
            Some((a_log, dt_bias)) => Decay::Softplus {
                a,
                a_log: alloc_rows(device, a_log)?.tensor,
                dt_bias: alloc_rows(device, dt_bias)?.tensor,
                threshold: self.threshold,
            },
            None => Decay::Given(a),
        };
        let beta = match self.beta_given {
            true => Beta::Given(b),
            false => Beta::Logits { b, rounded: self.beta_rounded },
        };
        let pool = Strided {
            dtype: self.state_type,
            data: self.state.clone(),
            width: self.shape.state_elements() as usize,
            stride: self.pitch,
            offset: 0,
        };
        let state = alloc_rows(device, &pool)?;
        let table = |device: &mut dyn Device, bytes: Vec<u8>, len: usize| -> Result<Table> {
            let address = device.alloc(bytes.len().max(1) as u64)?;
            device.write(address, &bytes)?;
            Ok(Table { address, len: len as u64 })
        };
        let indices = |x: &[i32]| x.iter().flat_map(|i| i.to_le_bytes()).collect::<Vec<u8>>();
        let slots = table(device, indices(&self.slot), self.slot.len())?;
        let write_slots = match &self.write_slot {
            Some(x) => Some(table(device, indices(x), x.len())?),
            None => None,
        };
        let start = match &self.start {
            StartFlags::None => Start::FromSlot,
            StartFlags::Reset(x) => Start::Reset(table(device, x.clone(), x.len())?),
            StartFlags::HasInitialState(x) => Start::HasInitialState(table(device, x.clone(), x.len())?),
        };
        let width = self.shape.value_elements() as usize;
        let len = self.batch.saturating_sub(1) * self.out_stride + width;
        let address = device.alloc((len * self.out_type.size()) as u64)?;
        let tensor = Tensor { address, dtype: self.out_type, len: len as u64 };
        let call = Decode {
            shape: self.shape,
            batch: self.batch as u32,
            q,
            k,
            v,
            decay,
            beta,
            state: StatePool { tensor: state.tensor, slots: self.slots as u32, pitch: self.pitch as u64 },
            slots,
            write_slots,
            null_slot: self.null_slot,
            start,
            out: Rows { tensor, stride: self.out_stride as u64 },
            l2norm: self.l2norm,
            scale: self.scale,
            heads: self.heads,
        };
        Ok(Placed { call })
    }

    /// Reads the results back.
    pub fn collect(&self, device: &dyn Device, placed: &Placed) -> Result<Solution> {
        let call = &placed.call;
        let width = self.shape.value_elements() as usize;
        let out_bytes = dense_rows(device, &call.out, self.batch, width, "out")?;
        let pool = Rows { tensor: call.state.tensor, stride: call.state.pitch };
        let width = self.shape.state_elements() as usize;
        let state_bytes = dense_rows(device, &pool, self.slots, width, "state")?;
        Ok(Solution {
            out: decode_values(&out_bytes, self.out_type),
            state: decode_values(&state_bytes, self.state_type),
            out_bytes,
            state_bytes,
        })
    }

    /// The slot an index names, if it names one.
    fn named(&self, index: i32) -> Option<usize> {
        let slot = usize::try_from(index).ok().filter(|s| *s < self.slots)?;
        (Some(index) != self.null_slot).then_some(slot)
    }

    /// The read slot of each sequence; `None` is a padded row.
    pub fn read_slots(&self) -> Vec<Option<usize>> {
        self.slot.iter().map(|&i| self.named(i)).collect()
    }

    /// The slot each sequence writes.
    pub fn written_slots(&self) -> Vec<Option<usize>> {
        let targets = self.write_slot.as_ref().unwrap_or(&self.slot);
        let read = self.read_slots();
        targets.iter().zip(read).map(|(&i, read)| read.and_then(|_| self.named(i))).collect()
    }

    /// Output and state by the oracle.
    pub fn oracle(&self) -> (Vec<f64>, Vec<f64>) {
        let from_zeros: Vec<bool> = match &self.start {
            StartFlags::None => vec![false; self.batch],
            StartFlags::Reset(x) => x.iter().map(|b| *b != 0).collect(),
            StartFlags::HasInitialState(x) => x.iter().map(|b| *b == 0).collect(),
        };
        let wide = |x: &Strided| widen(&x.data);
        let gate = self.gate.as_ref().map(|(a_log, dt_bias)| (wide(a_log), wide(dt_bias)));
        let (slots, write_slots) = (self.read_slots(), self.written_slots());
        let rounding = match (self.beta_rounded && !self.beta_given, self.b.dtype) {
            (true, DType::Bf16) => reference::BetaRounding::Bf16,
            (true, DType::F16) => reference::BetaRounding::F16,
            _ => reference::BetaRounding::None,
        };
        let scale = self.scale.map_or(f64::from(self.shape.k).sqrt().recip(), f64::from);
        let call = reference::Decode {
            shape: self.shape,
            q: &wide(&self.q),
            k: &wide(&self.k),
            v: &wide(&self.v),
            a: &wide(&self.a),
            b: &wide(&self.b),
            gate: match &gate {
                Some((a_log, dt_bias)) => {
                    reference::Gate::Softplus { a_log, dt_bias, threshold: self.threshold.into() }
                }
                None => reference::Gate::Given,
            },
            beta_given: self.beta_given,
            beta_rounding: rounding,
            l2norm: self.l2norm.map(f64::from),
            scale,
            heads: self.heads,
            slots: &slots,
            write_slots: &write_slots,
            from_zeros: &from_zeros,
        };
        reference::decode(&call, &widen(&self.state))
    }

    /// Holds a solution against the oracle: outputs and written states within tolerance, padded rows zero,
    /// every slot nobody writes bit-identical.
    pub fn check(&self, solution: &Solution) -> Result<()> {
        let (out, state) = self.oracle();
        let limit = Tolerance::oracle(self.out_type, self.state_type);
        let (width, v) = (self.shape.value_elements() as usize, self.shape.v as usize);
        let mut total = Error::default();
        for (n, slot) in self.read_slots().iter().enumerate() {
            let row = n * width..(n + 1) * width;
            let got = &solution.out[row.clone()];
            if slot.is_none() {
                ensure!(got.iter().all(|x| x.to_bits() == 0), "padded row {n} of out is not zero");
                continue;
            }
            for (head, (got, want)) in widen(got).chunks(v).zip(out[row].chunks(v)).enumerate() {
                let error = Error::of(got, want, self.floor(n, head));
                let text = format!("out of sequence {n}, head {head}, is off by {error}");
                ensure!(error.within(limit.head), "{text}, allowed is {:.1e}", limit.head);
                total.add(&error);
            }
        }
        ensure!(total.within(limit.out), "out is off by {total}, allowed is {:.1e}", limit.out);

        let width = self.shape.state_elements() as usize;
        let written = self.written_slots();
        for slot in 0..self.slots {
            let range = slot * width..(slot + 1) * width;
            let got = &solution.state[range.clone()];
            if written.contains(&Some(slot)) {
                let error = rel_l2(&widen(got), &state[range]);
                ensure!(error <= limit.state, "slot {slot} is off by {error:.3e}");
            } else {
                let before = &self.state[range];
                let same = got.iter().zip(before).all(|(a, b)| a.to_bits() == b.to_bits());
                ensure!(same, "slot {slot} was touched");
            }
        }
        Ok(())
    }

    /// The error that a correct f32 implementation may make in a head's output whatever its size: outputs
    /// shrink with `k q`, a sum that may cancel, and an f16 below 6e-5 has fewer bits.
    fn floor(&self, n: usize, head: usize) -> f64 {
        let HeadShape { h, hv, k, v } = self.shape;
        let norm = |x: &[f32]| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let key_head = match self.heads {
            HeadMap::Grouped => head / (hv / h) as usize,
            HeadMap::Tiled => head % h as usize,
        };
        let row = |x: &Strided, head: usize, width: u32| {
            let (at, width) = (n * x.width + head * width as usize, width as usize);
            norm(&x.data[at..at + width])
        };
        let keys = match self.l2norm {
            Some(_) => 1.0,
            None => row(&self.q, key_head, k) * row(&self.k, key_head, k),
        };
        let scale = self.scale.map_or(f64::from(k).sqrt().recip(), f64::from);
        let rounding = if self.out_type == DType::F16 { 2f64.powi(-25) * f64::from(v).sqrt() } else { 0.0 };
        1e-6 * scale.abs() * keys * row(&self.v, head, v) + rounding
    }

    /// Runs on the device and holds the result against the oracle.
    pub fn run_and_check(&self, device: &mut dyn Device, tile: Tile) -> Result<Solution> {
        let solution = self.run(device, tile)?;
        self.check(&solution)?;
        Ok(solution)
    }
}

/// A problem in device memory.
#[derive(Clone, Copy, Debug)]
pub struct Placed {
    /// The call on it.
    pub call: Decode,
}
