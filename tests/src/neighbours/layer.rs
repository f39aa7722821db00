//! Recorded layer steps: conv1d update, recurrence and gated RMSNorm in turn, on the same pools.

use super::conv1d::ConvProblem;
use super::norm::NormProblem;
use super::recorded::{Findings, activation, compare_conv, conv_problem, rows};
use crate::case::Case;
use crate::compare::{Tolerance, rel_l2, widen};
use crate::device::Device;
use crate::parity::Outcome;
use crate::problem::{self, Call, Out, Place, Pool, Problem, Source, StartFlags, Target, Tokens};
use crate::strided::{Strided, encode_values, round};
use crate::table::TableForm;
use anyhow::{Context as _, Result, bail, ensure};
use gdn_host::call::split_mixed_qkv;
use gdn_host::{
    Beta, Conv1dUpdate, DType, Decay, Decode, Family, GatedRmsNorm, HeadMap, HeadShape, Layout, Rows, Tile,
};

/// Successive tokens through the three operations on the same pools.
pub struct LayerCase {
    /// The first step's convolution; further steps have other inputs.
    pub conv: ConvProblem,
    /// The first step's decode, without its q, k and v: they are the convolution's output.
    pub decode: Problem,
    /// The first step's norm, without its x.
    pub norm: NormProblem,
    /// Inputs of each step.
    pub steps: Vec<LayerStep>,
    /// Conv states after the last step.
    pub conv_state: Vec<f32>,
    /// States after the last step.
    pub state: Vec<f32>,
}

/// A step's inputs and recorded results.
pub struct LayerStep {
    /// `[B, dim]`.
    pub x: Vec<f32>,
    /// `[B, HV]`.
    pub a: Vec<f32>,
    /// `[B, HV]`.
    pub b: Vec<f32>,
    /// `[B, HV, V]`.
    pub z: Vec<f32>,
    /// Recorded output of the convolution.
    pub conv_out: Vec<f32>,
    /// Recorded output of the recurrence.
    pub core_out: Vec<f32>,
    /// Recorded output of the norm.
    pub out: Vec<f32>,
}

impl LayerCase {
    /// Reads a case.
    ///
    /// # Errors
    /// A missing tensor, or one of another size than the metadata says; options that decode does not have.
    pub fn new(case: &Case) -> Result<LayerCase> {
        case.demand("T", &["1"])?;
        case.demand("gate_kind", &["gdn"])?;
        case.demand("gate", &["softplus"])?;
        case.demand("layout", &["VK"])?;
        case.demand("state_update", &["1"])?;
        case.demand("beta_rounding", &["none", "b_dtype"])?;
        let shape =
            HeadShape::new(case.number("H")?, case.number("HV")?, case.number("K")?, case.number("V")?)?;
        let (count, batch): (usize, usize) = (case.number("steps")?, case.number("B")?);
        let (dim, hv, values) = (case.number("dim")?, shape.hv as usize, shape.value_elements() as usize);
        let width = 2 * shape.key_elements() as usize + values;
        ensure!(dim == width, "dim = {dim} is not the {width} columns of q, k and v");

        let tensor = |name: &str, width: usize| -> Result<(DType, Vec<Vec<f32>>)> {
            let x = rows(case, name, batch * width, count)?;
            Ok((x.dtype, x.data.chunks(batch * width).map(<[f32]>::to_vec).collect()))
        };
        let ((io, x), (a_type, a), (b_type, b)) = (tensor("x", dim)?, tensor("a", hv)?, tensor("b", hv)?);
        let ((_, z), (_, conv_out)) = (tensor("z", values)?, tensor("conv_out", dim)?);
        let ((_, core_out), (_, out)) = (tensor("core_out", values)?, tensor("out", values)?);
        let mut steps = Vec::new();
        for step in 0..count {
            let of = |x: &[Vec<f32>]| x[step].clone();
            let (x, a, b, z) = (of(&x), of(&a), of(&b), of(&z));
            let (conv_out, core_out, out) = (of(&conv_out), of(&core_out), of(&out));
            steps.push(LayerStep { x, a, b, z, conv_out, core_out, out });
        }
        let first = steps.first().context("a case without steps")?;

        let conv_x = Strided::dense(io, dim, first.x.clone());
        let conv = conv_problem(case, conv_x, dim, case.number("width")?, batch, 1)?;
        let slots = conv.pool.slots;
        let before = rows(case, "state_in", shape.state_elements() as usize, slots)?;
        // The convolution's output is where q, k and v come from; these stand in for it.
        let dense = |width| Strided::dense(io, width, vec![0.0; batch * width]);
        let keys = shape.key_elements() as usize;
        let decode = Problem {
            shape,
            family: Family::Gdn,
            tokens: Tokens::One { batch },
            q: dense(keys),
            k: dense(keys),
            v: dense(values),
            packed_stride: None,
            a: Strided::dense(a_type, hv, first.a.clone()),
            b: Strided::dense(b_type, hv, first.b.clone()),
            decay: problem::Decay::Softplus {
                a_log: rows(case, "A_log", hv, 1)?,
                dt_bias: rows(case, "dt_bias", hv, 1)?,
                beta: case.number("softplus_beta")?,
                threshold: case.number("softplus_threshold")?,
            },
            beta: problem::Beta::Logits { rounded: case.meta("beta_rounding")? == "b_dtype", scale: 1.0 },
            l2norm: if case.flag("l2norm")? { Some(case.number("l2norm_eps")?) } else { None },
            scale: Some(case.number("scale")?),
            heads: HeadMap::Grouped,
            pool: Pool {
                dtype: before.dtype,
                layout: Layout::Vk,
                data: before.data,
                slots,
                pitch: case.number("slot_pitch")?,
            },
            source: Source::Slots(conv.slot.clone()),
            start: StartFlags::None,
            target: Target::InPlace,
            null_slot: None,
            intermediate: None,
            round_state: false,
            out: Some(Out { dtype: io, stride: values }),
            tables: TableForm::default(),
            omit_zeros: false,
        };
        let norm = NormProblem {
            hv,
            v: shape.v as usize,
            tokens: batch,
            x: dense(values),
            z: Strided::dense(io, values, first.z.clone()),
            weight: rows(case, "norm_weight", shape.v as usize, 1)?,
            activation: activation(case)?,
            eps: case.number("eps")?,
            out_stride: values,
            in_place: false,
            head_gaps: [0; 3],
        };
        let conv_state = rows(case, "conv_state_out", dim * conv.pool.len, slots)?.data;
        let state = rows(case, "state_out", shape.state_elements() as usize, slots)?.data;
        Ok(LayerCase { conv, decode, norm, steps, conv_state, state })
    }

    /// Every step by the oracles, each output rounded to its type before the next operation reads it: the last outputs,
    /// and the states after the last step.
    pub fn oracle(&self) -> (Vec<f64>, Vec<f64>) {
        let (mut conv, mut decode, mut norm) = (self.conv.clone(), self.decode.clone(), self.norm.clone());
        let io = conv.io();
        let (keys, elements) = (decode.q.width, decode.shape.state_elements() as usize);
        for step in &self.steps {
            conv.x.data.clone_from(&step.x);
            let result = conv.oracle();
            conv.pool.state = super::conv1d::narrow(&result.state);
            let row = |x: &[f64], from: usize, to: usize| -> Vec<f32> {
                x[from..to].iter().map(|&x| round(x as f32, io)).collect()
            };
            let columns =
                |from: usize, to: usize| result.out.chunks(conv.dim).flat_map(|x| row(x, from, to)).collect();
            decode.q.data = columns(0, keys);
            decode.k.data = columns(keys, 2 * keys);
            decode.v.data = columns(2 * keys, conv.dim);
            decode.a.data.clone_from(&step.a);
            decode.b.data.clone_from(&step.b);
            let written = decode.oracle();
            norm.x.data.fill(0.0);
            for (n, out) in &written.out {
                let to = n * norm.x.width;
                norm.x.data[to..to + norm.x.width].copy_from_slice(&row(out, 0, out.len()));
            }
            for (place, state) in &written.states {
                if let Place::Pool(slot) = place {
                    let to = slot * elements;
                    decode.pool.data[to..to + elements].copy_from_slice(&super::conv1d::narrow(state));
                }
            }
            norm.z.data.clone_from(&step.z);
        }
        (norm.oracle(), widen(&decode.pool.data))
    }
}

/// Lets each operation read what the one before it writes.
pub fn connect(conv: &Conv1dUpdate, decode: &mut Decode, norm: &mut GatedRmsNorm) {
    let inputs = &mut decode.inputs;
    let (q, k, v) = split_mixed_qkv(&conv.out, &inputs.shape);
    (inputs.q, inputs.k, inputs.v) = (q.0, k.0, v.0);
    norm.x = decode.out;
}

/// Where a decode of GDN reads its gate: the rows of a and of b.
pub fn gate_rows(decode: &mut Decode) -> Result<(&mut Rows, &mut Rows)> {
    match (&mut decode.inputs.decay, &mut decode.inputs.beta) {
        (Decay::Softplus(gate), Beta::Logits(logits)) => Ok((&mut gate.a, &mut logits.b)),
        _ => bail!("the gate is not softplus of logits"),
    }
}

/// Runs a layer's steps, each operation reading what the one before it wrote.
pub fn run_layer(case: &LayerCase, device: &mut dyn Device) -> Result<Outcome> {
    device.reset();
    let conv = case.conv.place(device)?;
    let mut placed = case.decode.place(device)?;
    let mut norm = case.norm.place(device)?;
    let Call::Decode(decode) = &mut placed.call else { bail!("the core is not a decode") };
    connect(&conv, decode, &mut norm);
    let (&mut a, &mut b) = gate_rows(decode)?;
    let decode = *decode;

    let io = case.conv.io();
    let limit = Tolerance::recorded(io, case.decode.pool.dtype);
    let mut found = Findings::default();
    let (values, v) = (case.decode.v.width, case.norm.v);
    for (i, step) in case.steps.iter().enumerate() {
        let mut write =
            |rows: &Rows, x: &[f32]| device.write(rows.tensor.address, &encode_values(x, rows.tensor.dtype));
        write(&conv.x, &step.x)?;
        write(&a, &step.a)?;
        write(&b, &step.b)?;
        write(&norm.z, &step.z)?;
        device.run(&conv, Tile::Auto)?;
        device.run(&decode, Tile::Auto)?;
        device.run(&norm, Tile::Auto)?;

        compare_conv(&mut found, &case.conv, &case.conv.collect(device, &conv)?, &step.conv_out, &limit);
        let (core, out) = (case.decode.collect(device, &placed)?.out, case.norm.collect(device, &norm)?.out);
        for (n, slot) in case.conv.read_slots().iter().enumerate().filter(|(_, slot)| slot.is_some()) {
            let row = n * values..(n + 1) * values;
            let each = (limit.out, limit.head);
            let name = |what: &str| format!("{what} of sequence {n}, step {i} in slot {slot:?},");
            found.compare(&name("core out"), &core[row.clone()], &step.core_out[row.clone()], v, each);
            found.compare(&name("out"), &out[row.clone()], &step.out[row], v, each);
        }
    }
    let conv_state = case.conv.collect(device, &conv)?.state;
    let exact = conv_state == encode_values(&case.conv_state, io);
    found.demand(exact, || "a conv state differs".into());
    let state = rel_l2(&widen(&case.decode.collect(device, &placed)?.state), &widen(&case.state));
    found.demand(state <= limit.state, || format!("state is off by {state:.2e}"));
    found.state = Some(state);
    Ok(found.outcome(&limit))
}
