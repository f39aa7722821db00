//! A layer's convolution, recurrence and gated RMSNorm in turn, on the same pools, and recorded steps of it.

use super::conv1d::{ConvProblem, narrow};
use super::norm::NormProblem;
use super::recorded::{Findings, activation, compare_conv, conv_problem, rows};
use crate::case::Case;
use crate::compare::{Tolerance, rel_l2, widen};
use crate::device::Device;
use crate::parity::Outcome;
use crate::problem::{self, Out, Place, Placed, Pool, Problem, Source, StartFlags, Target, Tokens};
use crate::strided::{Strided, encode_values, round};
use crate::table::TableForm;
use anyhow::{Context as _, Result, bail, ensure};
use gdn_host::call::split_mixed_qkv;
use gdn_host::{
    Beta, Conv1dUpdate, DType, Decay, Family, GatedRmsNorm, HeadMap, HeadShape, Inputs, Layout, Operation,
    Rows, Tile,
};

/// The three operations on some tokens of each sequence. What the convolution hands to the recurrence and that to the norm
/// are zeros here; so are the inputs of gate and norm until a step brings them.
#[derive(Clone)]
pub struct Layer {
    /// The convolution.
    pub conv: ConvProblem,
    /// The recurrence: q, k and v are the convolution's output.
    pub core: Problem,
    /// The norm: x is the recurrence's output.
    pub norm: NormProblem,
}

/// A layer in device memory, each operation reading what the one before it writes.
pub struct PlacedLayer {
    /// The convolution.
    pub conv: Conv1dUpdate,
    /// The recurrence.
    pub core: Placed,
    /// The norm.
    pub norm: GatedRmsNorm,
    /// Where the recurrence reads its gate: the rows of a and of b.
    pub gate: [Rows; 2],
}

/// The recurrence's part of a layer's case: which tokens, and which states.
pub(super) struct Core {
    pub(super) shape: HeadShape,
    pub(super) tokens: Tokens,
    pub(super) pool: Pool,
    pub(super) start: StartFlags,
    /// Types of a and b.
    pub(super) gate: [DType; 2],
    /// The metadata that holds the eps of the l2norm.
    pub(super) l2norm_eps: &'static str,
}

/// The heads of a layer's case, refusing options that the layer does not have.
pub(super) fn heads(case: &Case) -> Result<HeadShape> {
    case.demand("gate_kind", &["gdn"])?;
    case.demand("gate", &["softplus"])?;
    case.demand("beta_rounding", &["none", "b_dtype"])?;
    Ok(HeadShape::new(case.number("H")?, case.number("HV")?, case.number("K")?, case.number("V")?)?)
}

impl Layer {
    /// The layer behind a convolution, with the weights and options of a case.
    pub(super) fn new(case: &Case, conv: ConvProblem, core: Core) -> Result<Layer> {
        let Core { shape, tokens, pool, start, gate: [a, b], l2norm_eps } = core;
        let (io, count) = (conv.io(), tokens.total());
        let (keys, values) = (shape.key_elements() as usize, shape.value_elements() as usize);
        let (hv, v) = (shape.hv as usize, shape.v as usize);
        ensure!(conv.dim == 2 * keys + values, "{} channels are not q, k and v of {shape:?}", conv.dim);
        let zeros = |dtype, width| Strided::dense(dtype, width, vec![0.0; count * width]);
        let core = Problem {
            shape,
            family: Family::Gdn,
            tokens,
            q: zeros(io, keys),
            k: zeros(io, keys),
            v: zeros(io, values),
            packed_stride: None,
            a: zeros(a, hv),
            b: zeros(b, hv),
            decay: problem::Decay::Softplus {
                a_log: rows(case, "A_log", hv, 1)?,
                dt_bias: rows(case, "dt_bias", hv, 1)?,
                beta: case.number("softplus_beta")?,
                threshold: case.number("softplus_threshold")?,
            },
            beta: problem::Beta::Logits { rounded: case.meta("beta_rounding")? == "b_dtype", scale: 1.0 },
            l2norm: if case.flag("l2norm")? { Some(case.number(l2norm_eps)?) } else { None },
            scale: Some(case.number("scale")?),
            heads: HeadMap::Grouped,
            pool,
            source: Source::Slots(conv.slot.clone()),
            start,
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
            v,
            tokens: count,
            x: zeros(io, values),
            z: zeros(io, values),
            weight: rows(case, "norm_weight", v, 1)?,
            activation: activation(case)?,
            eps: case.number("eps")?,
            out_stride: values,
            in_place: false,
            head_gaps: [0; 3],
        };
        Ok(Layer { conv, core, norm })
    }

    /// Puts the layer into device memory.
    pub fn place(&self, device: &mut dyn Device) -> Result<PlacedLayer> {
        let (conv, mut norm) = (self.conv.place(device)?, self.norm.place(device)?);
        let mut core = self.core.place(device)?;
        let Some(out) = core.out() else { bail!("the recurrence of a layer has an output") };
        let inputs = core.call.inputs_mut();
        connect(&conv, inputs, &out, &mut norm);
        let (&mut a, &mut b) = gate_rows(inputs)?;
        Ok(PlacedLayer { conv, core, norm, gate: [a, b] })
    }

    /// What the oracles make of the inputs of a, b, z and the convolution, each output rounded to its type before the next
    /// operation reads it. The pools hold the new states.
    pub fn advance(&mut self) -> Vec<f64> {
        let Layer { conv, core, norm } = self;
        let io = conv.io();
        let (keys, elements) = (core.q.width, core.elements());
        let result = conv.oracle();
        conv.pool.state = narrow(&result.state);
        let row = |x: &[f64]| x.iter().map(|&x| round(x as f32, io)).collect::<Vec<_>>();
        let columns =
            |from: usize, to: usize| result.out.chunks(conv.dim).flat_map(|x| row(&x[from..to])).collect();
        core.q.data = columns(0, keys);
        core.k.data = columns(keys, 2 * keys);
        core.v.data = columns(2 * keys, conv.dim);
        let written = core.oracle();
        norm.x.data.fill(0.0);
        for (n, out) in &written.out {
            let to = n * norm.x.width;
            norm.x.data[to..to + norm.x.width].copy_from_slice(&row(out));
        }
        for (place, state) in &written.states {
            if let Place::Pool(slot) = place {
                let to = slot * elements;
                core.pool.data[to..to + elements].copy_from_slice(&narrow(state));
            }
        }
        norm.oracle()
    }
}

impl PlacedLayer {
    /// The operations in their order.
    pub fn operations(&self) -> [&dyn Operation; 3] {
        [&self.conv, self.core.call.operation(), &self.norm]
    }

    /// The same layer on the pools of another one.
    pub fn on_pools_of(self, other: &PlacedLayer) -> Result<PlacedLayer> {
        let core = self.core.on_pool_of(&other.core)?;
        let mut conv = self.conv;
        conv.state = other.conv.state;
        Ok(PlacedLayer { conv, core, ..self })
    }
}

/// Successive tokens through the three operations on the same pools.
pub struct LayerCase {
    /// One token of each sequence; the inputs are those of [`Self::steps`].
    pub layer: Layer,
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
        case.demand("layout", &["VK"])?;
        case.demand("state_update", &["1"])?;
        let shape = heads(case)?;
        let (count, batch): (usize, usize) = (case.number("steps")?, case.number("B")?);
        let (dim, hv, values) = (case.number("dim")?, shape.hv as usize, shape.value_elements() as usize);

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
        let (slots, elements) = (conv.pool.slots, shape.state_elements() as usize);
        let before = rows(case, "state_in", elements, slots)?;
        let pool = Pool {
            dtype: before.dtype,
            layout: Layout::Vk,
            data: before.data,
            slots,
            pitch: case.number("slot_pitch")?,
        };
        let conv_state = rows(case, "conv_state_out", dim * conv.pool.len, slots)?.data;
        let state = rows(case, "state_out", elements, slots)?.data;
        let (tokens, start) = (Tokens::One { batch }, StartFlags::None);
        let core = Core { shape, tokens, pool, start, gate: [a_type, b_type], l2norm_eps: "l2norm_eps" };
        Ok(LayerCase { layer: Layer::new(case, conv, core)?, steps, conv_state, state })
    }

    /// Every step by the oracles: the last outputs, and the states after the last step.
    pub fn oracle(&self) -> (Vec<f64>, Vec<f64>) {
        let (mut layer, mut out) = (self.layer.clone(), Vec::new());
        for step in &self.steps {
            layer.conv.x.data.clone_from(&step.x);
            layer.core.a.data.clone_from(&step.a);
            layer.core.b.data.clone_from(&step.b);
            layer.norm.z.data.clone_from(&step.z);
            out = layer.advance();
        }
        (out, widen(&layer.core.pool.data))
    }
}

/// Lets each operation read what the one before it writes.
pub fn connect(conv: &Conv1dUpdate, inputs: &mut Inputs, core_out: &Rows, norm: &mut GatedRmsNorm) {
    let (q, k, v) = split_mixed_qkv(&conv.out, &inputs.shape);
    (inputs.q, inputs.k, inputs.v) = (q.0, k.0, v.0);
    norm.x = *core_out;
}

/// Where a recurrence of GDN reads its gate: the rows of a and of b.
pub fn gate_rows(inputs: &mut Inputs) -> Result<(&mut Rows, &mut Rows)> {
    match (&mut inputs.decay, &mut inputs.beta) {
        (Decay::Softplus(gate), Beta::Logits(logits)) => Ok((&mut gate.a, &mut logits.b)),
        _ => bail!("the gate is not softplus of logits"),
    }
}

/// Writes values over rows that lie one behind the other.
pub(super) fn overwrite(device: &mut dyn Device, rows: &Rows, x: &[f32]) -> Result<()> {
    device.write(rows.tensor.address, &encode_values(x, rows.tensor.dtype))
}

/// Runs a layer's steps, each operation reading what the one before it wrote.
pub fn run_layer(case: &LayerCase, device: &mut dyn Device) -> Result<Outcome> {
    device.reset();
    let Layer { conv, core, norm } = &case.layer;
    let placed = case.layer.place(device)?;
    let [a, b] = placed.gate;

    let io = conv.io();
    let limit = Tolerance::recorded(io, core.pool.dtype);
    let mut found = Findings::default();
    let (values, v) = (core.v.width, norm.v);
    for (i, step) in case.steps.iter().enumerate() {
        overwrite(device, &placed.conv.x, &step.x)?;
        overwrite(device, &a, &step.a)?;
        overwrite(device, &b, &step.b)?;
        overwrite(device, &placed.norm.z, &step.z)?;
        for operation in placed.operations() {
            device.run(operation, Tile::Auto)?;
        }

        compare_conv(&mut found, conv, &conv.collect(device, &placed.conv)?, &step.conv_out, &limit);
        let core_out = core.collect(device, &placed.core)?.out;
        let out = norm.collect(device, &placed.norm)?.out;
        for (n, slot) in conv.read_slots().iter().enumerate().filter(|(_, slot)| slot.is_some()) {
            let row = n * values..(n + 1) * values;
            let each = (limit.out, limit.head);
            let name = |what: &str| format!("{what} of sequence {n}, step {i} in slot {slot:?},");
            found.compare(&name("core out"), &core_out[row.clone()], &step.core_out[row.clone()], v, each);
            found.compare(&name("out"), &out[row.clone()], &step.out[row], v, each);
        }
    }
    let exact = conv.collect(device, &placed.conv)?.state == encode_values(&case.conv_state, io);
    found.demand(exact, || "a conv state differs".into());
    let state = rel_l2(&widen(&core.collect(device, &placed.core)?.state), &widen(&case.state));
    found.compare_state("state", state, &limit);
    Ok(found.outcome(&limit))
}
