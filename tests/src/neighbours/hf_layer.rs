//! A whole recorded layer of transformers, `Qwen3NextGatedDeltaNet`: a prefill, then steps of one token on the same pools.
//!
//! Projections are a library's work, so here they are the host's: the recorded ones are held against `x W_in`, and what the
//! norm gives is multiplied with `W_out` and held against the layer's output. All between is the kernels': projections taken
//! apart, convolution, recurrence, norm.

use super::conv1d::{ConvProblem, PoolData};
use super::layer::{Core, Layer, PlacedLayer, heads, overwrite};
use super::recorded::{Findings, rows};
use crate::case::Case;
use crate::compare::{Tolerance, rel_l2, widen};
use crate::device::Device;
use crate::parity::Outcome;
use crate::problem::solution::transpose;
use crate::problem::{Pool, StartFlags, Tokens};
use crate::strided::{Strided, alloc_rows, encode_values, round};
use anyhow::{Result, ensure};
use gdn_host::{HeadShape, Layout, Tile, UnpackQkvz};

/// How the rows of the projections lie: what [`UnpackQkvz`] takes apart.
const PROJECTION_LAYOUT: &str =
    "per key head: qkvz = [q K | k K | v r*V | z r*V], ba = [b r | a r], r = HV/H";

/// A layer's weights, its calls, and what was recorded of each.
pub struct HfLayerCase {
    /// All tokens of the prefill, from zeros.
    pub prefill: Layer,
    /// One token of each sequence.
    pub step: Layer,
    /// The calls: a prefill, then steps.
    pub calls: Vec<HfCall>,
    /// `[2 HK + 2 HV V, hidden]`, a row of weights for each output.
    pub w_in_qkvz: Strided,
    /// `[2 HV, hidden]`.
    pub w_in_ba: Strided,
    /// `[hidden, HV V]`.
    pub w_out: Strided,
}

/// A call's inputs and recorded results.
pub struct HfCall {
    /// Hidden states, `[tokens, hidden]`.
    pub x: Strided,
    /// Projections of them, interleaved by key head.
    pub qkvz: Strided,
    /// Projections of them, interleaved by key head.
    pub ba: Strided,
    /// Output of the recurrence, `[tokens, HV, V]`; of steps only.
    pub core: Option<Vec<f32>>,
    /// Output of the norm, `[tokens, HV, V]`; of steps only.
    pub gated: Option<Vec<f32>>,
    /// Output of the layer, `[tokens, hidden]`.
    pub out: Vec<f32>,
    /// Conv states after the call, `[B, dim, W]`.
    pub conv_state: Vec<f32>,
    /// States after the call, `[B, HV, V, K]`.
    pub state: Vec<f32>,
}

/// `x W^T`, rounded to the type of x.
fn project(x: &Strided, weight: &Strided) -> Vec<f32> {
    let dot = |x: &[f32], w: &[f32]| x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum::<f64>();
    let outputs = |x| weight.data.chunks(weight.width).map(move |w| round(dot(x, w) as f32, weight.dtype));
    x.data.chunks(x.width).flat_map(outputs).collect()
}

impl HfLayerCase {
    /// Reads a case.
    ///
    /// # Errors
    /// A missing tensor, or one of another size than the metadata says; another layout of projections.
    pub fn new(case: &Case) -> Result<HfLayerCase> {
        case.demand("projection_layout", &[PROJECTION_LAYOUT])?;
        case.demand("layout", &["VK", "KV"])?;
        let shape = heads(case)?;
        let (batch, hidden, width): (usize, usize, usize) =
            (case.number("B")?, case.number("hidden")?, case.number("width")?);
        let (keys, values) = (shape.key_elements() as usize, shape.value_elements() as usize);
        let (dim, qkvz) = (2 * keys + values, 2 * (keys + values));

        let recorded = case.values("qkvz_prefill")?;
        let (io, total) = (recorded.dtype, recorded.data.len() / qkvz);
        ensure!(
            batch > 0 && total > 0 && total.is_multiple_of(batch),
            "tensor `qkvz_prefill` has shape {:?} for B = {batch}",
            recorded.shape
        );
        let steps = case.values("qkvz_steps")?.data.len() / (batch * qkvz);
        ensure!(steps > 0, "tensor `qkvz_steps` holds no step of {batch} sequences");
        let calls = read_calls(case, &shape, [batch, hidden, width], total, steps)?;
        let state_type = case.values("state_steps")?.dtype;
        let layout = if case.meta("layout")? == "KV" { Layout::Kv } else { Layout::Vk };
        let weight = rows(case, "conv_weight", width, dim)?;
        let layer = |tokens: Tokens, start: StartFlags| -> Result<Layer> {
            let count = tokens.total();
            // Nobody may read what slots hold before the prefill.
            let unset = |elements: usize| vec![f32::NAN; batch * elements];
            let x = Strided::dense(io, dim, vec![0.0; count * dim]);
            let pool = PoolData::dense(unset(dim * width), batch, dim, width, true);
            let slots = (0..batch as i32).collect();
            let mut conv = ConvProblem::new(count / batch, x, weight.clone(), pool, slots);
            conv.start = start.clone();
            let elements = shape.state_elements() as usize;
            let data = unset(elements);
            let pool = Pool { dtype: state_type, layout, data, slots: batch, pitch: elements };
            let gate = [calls[0].ba.dtype; 2];
            Layer::new(case, conv, Core { shape, tokens, pool, start, gate, l2norm_eps: "eps" })
        };
        let from_zeros = StartFlags::Reset(vec![1; batch]);
        Ok(HfLayerCase {
            prefill: layer(Tokens::Each { batch, tokens: total / batch }, from_zeros)?,
            step: layer(Tokens::One { batch }, StartFlags::None)?,
            calls,
            w_in_qkvz: rows(case, "w_in_qkvz", hidden, qkvz)?,
            w_in_ba: rows(case, "w_in_ba", hidden, 2 * shape.hv as usize)?,
            w_out: rows(case, "w_out", values, hidden)?,
        })
    }

    /// The layer that call `i` is of.
    fn layer(&self, i: usize) -> &Layer {
        if i == 0 { &self.prefill } else { &self.step }
    }

    /// Every call by the oracles, from the recorded projections: the layer's outputs, and the states after the last call.
    #[cfg(feature = "hazards")]
    pub fn oracle(&self) -> (Vec<Vec<f32>>, Vec<f64>) {
        let (mut outs, mut pools) = (Vec::new(), None);
        for (i, call) in self.calls.iter().enumerate() {
            let mut layer = self.layer(i).clone();
            if let Some((conv, core)) = pools.take() {
                (layer.conv.pool, layer.core.pool) = (conv, core);
            }
            let [x, z, b, a] = unpacked(&layer.core.shape, call);
            (layer.conv.x, layer.norm.z, layer.core.b, layer.core.a) = (x, z, b, a);
            let gated = layer.advance().iter().map(|&x| x as f32).collect();
            outs.push(project(&Strided::dense(self.w_out.dtype, self.w_out.width, gated), &self.w_out));
            pools = Some((layer.conv.pool, layer.core.pool));
        }
        (outs, pools.map(|(_, core)| widen(&core.data)).unwrap_or_default())
    }
}

/// The projections of a call taken apart on the host: mixed qkv, z, b and a.
#[cfg(feature = "hazards")]
fn unpacked(shape: &HeadShape, call: &HfCall) -> [Strided; 4] {
    use crate::movement::{Bytes, unpack::UnpackProblem};
    use crate::strided::decode_values;
    let tokens = call.x.data.len() / call.x.width;
    let mut problem = UnpackProblem::plain(*shape, call.qkvz.dtype, call.ba.dtype, tokens, 0);
    problem.qkvz.data = encode_values(&call.qkvz.data, call.qkvz.dtype);
    problem.ba.data = encode_values(&call.ba.data, call.ba.dtype);
    let UnpackProblem { mixed_qkv, z, b, a, .. } = problem.expected();
    let values = |x: Bytes| Strided::dense(x.dtype, x.width, decode_values(&x.data, x.dtype));
    [mixed_qkv, z, b, a].map(values)
}

/// Inputs and results of the prefill and of each step.
fn read_calls(
    case: &Case,
    shape: &HeadShape,
    [batch, hidden, width]: [usize; 3],
    total: usize,
    steps: usize,
) -> Result<Vec<HfCall>> {
    let (keys, values) = (shape.key_elements() as usize, shape.value_elements() as usize);
    let (dim, qkvz, ba) = (2 * keys + values, 2 * (keys + values), 2 * shape.hv as usize);
    let (v, k, elements) = (shape.v as usize, shape.k as usize, shape.state_elements() as usize);
    // Tensors of one call, `rows` rows of a width: the prefill's, or a step's of all steps'.
    let of_call = |name: &str, i: usize, width: usize| -> Result<Strided> {
        if i == 0 {
            return rows(case, &format!("{name}_prefill"), width, total);
        }
        let all = rows(case, &format!("{name}_steps"), width, steps * batch)?;
        let data = all.data[(i - 1) * batch * width..i * batch * width].to_vec();
        Ok(Strided::dense(all.dtype, width, data))
    };
    let of_cache = |name: &str, i: usize, width: usize| -> Result<Vec<f32>> {
        let all = rows(case, name, batch * width, steps + 1)?.data;
        Ok(all[i * batch * width..(i + 1) * batch * width].to_vec())
    };
    let is_kv = case.meta("layout")? == "KV";
    let call = |i: usize| -> Result<HfCall> {
        let of_step = |name| (i > 0).then(|| of_call(name, i, values).map(|x| x.data)).transpose();
        let state = of_cache("state_steps", i, elements)?;
        Ok(HfCall {
            x: of_call("x", i, hidden)?,
            qkvz: of_call("qkvz", i, qkvz)?,
            ba: of_call("ba", i, ba)?,
            core: of_step("core")?,
            gated: of_step("gated")?,
            out: of_call("out", i, hidden)?.data,
            conv_state: of_cache("conv_state_steps", i, dim * width)?,
            state: if is_kv { transpose(&state, k, v, 1) } else { state },
        })
    };
    (0..=steps).map(call).collect()
}

/// A layer in device memory, behind projections that are taken apart.
struct PlacedCalls {
    unpack: UnpackQkvz,
    layer: PlacedLayer,
}

impl PlacedCalls {
    /// Memory for the projections of calls like this one, in front of a placed layer.
    fn new(
        device: &mut dyn Device,
        shape: HeadShape,
        layer: PlacedLayer,
        like: &HfCall,
    ) -> Result<PlacedCalls> {
        let tokens = (like.x.data.len() / like.x.width) as u32;
        let (qkvz, ba) = (alloc_rows(device, &like.qkvz)?, alloc_rows(device, &like.ba)?);
        let (mixed_qkv, z, [a, b]) = (layer.conv.x, layer.norm.z, layer.gate);
        let unpack = UnpackQkvz { shape, tokens, qkvz, ba, mixed_qkv, z, b, a };
        Ok(PlacedCalls { unpack, layer })
    }

    fn run(&self, device: &mut dyn Device, call: &HfCall) -> Result<()> {
        overwrite(device, &self.unpack.qkvz, &call.qkvz.data)?;
        overwrite(device, &self.unpack.ba, &call.ba.data)?;
        device.run(&self.unpack, Tile::Auto)?;
        self.layer.operations().into_iter().try_for_each(|operation| device.run(operation, Tile::Auto))
    }
}

/// Runs a layer's calls, each operation reading what the one before it wrote, all calls on the same pools.
pub fn run_hf_layer(case: &HfLayerCase, device: &mut dyn Device) -> Result<Outcome> {
    device.reset();
    let shape = case.step.core.shape;
    let prefill = case.prefill.place(device)?;
    let step = case.step.place(device)?.on_pools_of(&prefill)?;
    let prefill = PlacedCalls::new(device, shape, prefill, &case.calls[0])?;
    let step = PlacedCalls::new(device, shape, step, &case.calls[1])?;
    let limit = Tolerance::layer(case.step.conv.io());
    let mut found = Findings::default();
    for (i, call) in case.calls.iter().enumerate() {
        let placed = if i == 0 { &prefill } else { &step };
        placed.run(device, call)?;
        compare(&mut found, case, i, device, &placed.layer, &limit)?;
    }
    Ok(found.outcome(&limit))
}

/// Holds what call `i` left against what was recorded of it.
fn compare(
    found: &mut Findings,
    case: &HfLayerCase,
    i: usize,
    device: &dyn Device,
    placed: &PlacedLayer,
    limit: &Tolerance,
) -> Result<()> {
    let (Layer { conv, core, norm }, call) = (case.layer(i), &case.calls[i]);
    let what = |name: &str| match i {
        0 => format!("{name} of the prefill"),
        step => format!("{name} of step {step}"),
    };
    let each = (limit.out, limit.head);
    let mut hold = |name: &str, got: &[f32], want: &[f32], vector| {
        found.compare(&what(name), got, want, vector, each);
    };
    for (name, weight, projections) in
        [("qkvz", &case.w_in_qkvz, &call.qkvz), ("ba", &case.w_in_ba, &call.ba)]
    {
        hold(name, &project(&call.x, weight), &projections.data, projections.width);
    }
    let core_out = core.collect(device, &placed.core)?;
    let gated = norm.collect(device, &placed.norm)?.out;
    if let Some(want) = &call.core {
        hold("core", &core_out.out, want, norm.v);
    }
    if let Some(want) = &call.gated {
        hold("gated", &gated, want, norm.v);
    }
    let gated = Strided::dense(norm.io(), case.w_out.width, gated);
    hold("out", &project(&gated, &case.w_out), &call.out, case.w_out.data.len() / case.w_out.width);
    found.compare_state(&what("state"), rel_l2(&widen(&core_out.state), &widen(&call.state)), limit);
    let exact = conv.collect(device, &placed.conv)?.state == encode_values(&call.conv_state, conv.io());
    found.demand(exact, || what("a conv state differs:"));
    Ok(())
}
