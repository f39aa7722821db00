//! A linear layer, Qwen's gated delta net or Kimi's delta attention: one projection, and gdn's kernels behind it.

use super::ops::linear;
use super::{Placed, Recurrence, composed};
use crate::config::Config;
use crate::weights::Weights;
use anyhow::{Result, ensure};
use candle_core::{DType, Tensor};
use gdn_candle::{
    DraftWindows, Drafts, Family, Filter, Gate, HeadShape, Layer, LayerPool, Layout, Norm, Projected, Slots,
    Write, conv1d_commit, layer_commit, layer_step, preload, replay_layer_step,
};

/// A layer's weights, and the pools of its sequences.
pub struct Linear {
    /// What a token is multiplied by in one product.
    projection: Tensor,
    /// Kimi's second matrices of what the decay is made of, and of what gates the output.
    second: Option<[Tensor; 2]>,
    out: Tensor,
    pub layer: Layer,
    pub pool: LayerPool,
}

impl Linear {
    /// Loads layer `i`, with `slots` slots.
    pub fn load(
        config: &Config,
        weights: &Weights,
        i: usize,
        layout: Layout,
        slots: usize,
    ) -> Result<Linear> {
        let Parts { projection, second, out, layer } = match config.is_kimi() {
            true => kimi(config, weights, &format!("layers.{i}.self_attn"))?,
            false => qwen(config, weights, &format!("layers.{i}.linear_attn"))?,
        };
        let projection = Tensor::cat(&projection, 0)?;
        let (have, want) = (projection.dim(0)?, columns(&layer).into_iter().sum::<usize>());
        ensure!(have == want, "layer {i}: the projections have {have} rows, heads need {want}");
        let (states, windows) = ((DType::F32, layout), (weights.dtype, config.taps()?));
        let pool = LayerPool::zeros(&layer.shape, slots, states, windows, &weights.device)?;
        preload(&weights.device, &layer.modules(weights.dtype, &pool)?)?;
        Ok(Linear { projection, second, out, layer, pool })
    }

    /// What the kernels take of rows x: views of the one projection, but for Kimi's second products.
    pub fn project(&self, x: &Tensor) -> Result<Projected> {
        let all = linear(x, &self.projection)?;
        let [qkv, z, b, a] = columns(&self.layer);
        let view = |from, len| all.narrow(1, from, len);
        let (mut z, mut a, from) = (view(qkv, z)?, view(qkv + z + b, a)?, qkv + z);
        if let Some([of_a, of_z]) = &self.second {
            (a, z) = (linear(&a.contiguous()?, of_a)?, linear(&z.contiguous()?, of_z)?);
        }
        Ok(Projected { qkv: view(0, qkv)?, z, b: view(from, b)?, a })
    }

    /// Columns of what it takes.
    pub fn hidden(&self) -> Result<usize> {
        Ok(self.projection.dim(1)?)
    }

    /// A step of rows x; of the linear layers this is number `index`.
    pub fn step(&self, x: &Tensor, placed: &Placed, recurrence: Recurrence, index: usize) -> Result<Tensor> {
        let (layer, projected, pool) = (&self.layer, self.project(x)?, &self.pool);
        let (tokens, slots) = (&placed.packing, &placed.slots);
        let out = match recurrence {
            Recurrence::Plain => layer_step(layer, &projected, tokens, pool, slots, None)?,
            Recurrence::Composed => composed::step(layer, &projected, tokens, pool, slots)?,
            Recurrence::Drafts(buffers) => {
                let slots = slots.clone().with_write(Write::Nowhere);
                layer_step(layer, &projected, tokens, pool, &slots, Some(&buffers[index]))?
            }
            Recurrence::Replay(step) => replay_layer_step(layer, &projected, &pool.conv, step, index, None)?,
            Recurrence::ReplayDrafts(step, windows) => {
                let drafts = (placed.lens[0], &windows[index]);
                replay_layer_step(layer, &projected, &pool.conv, step, index, Some(drafts))?
            }
        };
        linear(&out.flatten_from(1)?, &self.out)
    }

    /// Buffers for drafts.
    pub fn drafts(&self, rows: usize, steps: usize) -> Result<Drafts> {
        Ok(Drafts::zeros(&self.layer, &self.pool, rows, steps)?)
    }

    /// A buffer for the windows of drafts.
    pub fn windows(&self, rows: usize, steps: usize) -> Result<DraftWindows> {
        Ok(DraftWindows::zeros(&self.layer.filter, &self.pool.conv, rows, steps)?)
    }

    /// Commits what the buffers of layer `index` keep.
    pub fn commit(
        &self,
        recurrence: Recurrence,
        index: usize,
        accepted: &Tensor,
        slots: &Slots,
    ) -> Result<()> {
        match recurrence {
            Recurrence::Drafts(buffers) => {
                layer_commit(&self.layer, &buffers[index], accepted, &self.pool, slots)?
            }
            Recurrence::ReplayDrafts(_, windows) => {
                conv1d_commit(&windows[index], accepted, &self.pool.conv, slots)?
            }
            Recurrence::Plain | Recurrence::Composed | Recurrence::Replay(_) => {}
        }
        Ok(())
    }
}

/// What a checkpoint has of a layer.
struct Parts {
    projection: Vec<Tensor>,
    second: Option<[Tensor; 2]>,
    out: Tensor,
    layer: Layer,
}

fn qwen(config: &Config, weights: &Weights, name: &str) -> Result<Parts> {
    let shape = config.shape()?;
    let matrix = |part: &str| weights.matrix(&format!("{name}.{part}.weight"));
    let get = |part: &str| weights.get(&format!("{name}.{part}"));
    let projection = if config.is_interleaved() {
        let qkvz = by_part(&matrix("in_proj_qkvz")?, &shape, &qkvz_parts(&shape))?;
        let ba = by_part(&matrix("in_proj_ba")?, &shape, &[shape.ratio() as usize; 2])?;
        vec![qkvz, ba]
    } else {
        let parts = ["in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a"];
        parts.map(matrix).into_iter().collect::<Result<_>>()?
    };
    let layer = Layer::gdn(
        shape,
        Filter::new(&matrix("conv1d")?),
        Gate::softplus(&get("A_log")?, &get("dt_bias")?),
        Norm::silu(&get("norm.weight")?, config.rms_norm_eps as f32),
    );
    Ok(Parts { projection, second: None, out: matrix("out_proj")?, layer })
}

fn kimi(config: &Config, weights: &Weights, name: &str) -> Result<Parts> {
    let shape = config.shape()?;
    let matrix = |part: &str| weights.matrix(&format!("{name}.{part}.weight"));
    let get = |part: &str| weights.get(&format!("{name}.{part}"));
    let all = |parts: &[&str]| parts.iter().map(|part| matrix(part)).collect::<Result<Vec<_>>>();
    let filters = Tensor::cat(&all(&["q_conv1d", "k_conv1d", "v_conv1d"])?, 0)?;
    let dt_bias = get("dt_bias")?.reshape((shape.hv as usize, shape.k as usize))?;
    let layer = Layer::kda(
        shape,
        Filter::new(&filters),
        Gate::softplus(&get("A_log")?.flatten_all()?, &dt_bias),
        Norm::sigmoid(&get("o_norm.weight")?, config.rms_norm_eps as f32),
    );
    Ok(Parts {
        projection: all(&["q_proj", "k_proj", "v_proj", "g_a_proj", "b_proj", "f_a_proj"])?,
        second: Some([matrix("f_b_proj")?, matrix("g_b_proj")?]),
        out: matrix("o_proj")?,
        layer,
    })
}

/// Columns of the one projection: q, k and v; z; b; a. In Kimi's z and a are of low rank, that of a head.
fn columns(layer: &Layer) -> [usize; 4] {
    let shape = &layer.shape;
    let (keys, values) = (shape.key_elements() as usize, shape.value_elements() as usize);
    let [z, a] = match layer.family {
        Family::Gdn => [values, shape.hv as usize],
        Family::Kda => [shape.v as usize, shape.k as usize],
    };
    [2 * keys + values, z, shape.hv as usize, a]
}

/// Rows of q, k, v and z in the group of a key head.
fn qkvz_parts(shape: &HeadShape) -> [usize; 4] {
    let (k, values) = (shape.k as usize, (shape.ratio() * shape.v) as usize);
    [k, k, values, values]
}

/// The rows of an interleaved projection, part by part instead of key head by key head: done once, when the model is loaded.
fn by_part(weight: &Tensor, shape: &HeadShape, parts: &[usize]) -> Result<Tensor> {
    let (rows, group) = (shape.h as usize, parts.iter().sum::<usize>());
    let (have, columns) = weight.dims2()?;
    ensure!(have == rows * group, "the projection has {have} rows, {rows} key heads need {}", rows * group);
    let groups = weight.reshape((rows, group, columns))?;
    let mut from = 0;
    let mut cut = Vec::new();
    for part in parts {
        cut.push(groups.narrow(1, from, *part)?.reshape(((), columns))?);
        from += part;
    }
    Ok(Tensor::cat(&cut, 0)?)
}
