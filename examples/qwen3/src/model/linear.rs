//! A layer of gated delta net: one projection, and gdn's kernels behind it.

use super::ops::linear;
use super::{Placed, Recurrence, composed};
use crate::config::Config;
use crate::weights::Weights;
use anyhow::{Result, ensure};
use candle_core::{DType, Tensor};
use gdn_candle::{
    DraftWindows, Drafts, Filter, Gate, HeadShape, Layer, LayerPool, Layout, Norm, Projected, Slots, Write,
    conv1d_commit, layer_commit, layer_step, preload, replay_layer_step,
};

/// A layer's weights, and the pools of its sequences.
pub struct Linear {
    /// `[q | k | v | z | b | a]` of a token in one product.
    projection: Tensor,
    out: Tensor,
    pub layer: Layer,
    pub pool: LayerPool,
}

impl Linear {
    /// Loads a layer, with `slots` slots.
    pub fn load(
        config: &Config,
        weights: &Weights,
        name: &str,
        layout: Layout,
        slots: usize,
    ) -> Result<Linear> {
        let shape = config.shape()?;
        let matrix = |part: &str| weights.matrix(&format!("{name}.{part}.weight"));
        let parts = if config.is_interleaved() {
            let qkvz = by_part(&matrix("in_proj_qkvz")?, &shape, &qkvz_parts(&shape))?;
            let ba = by_part(&matrix("in_proj_ba")?, &shape, &[shape.ratio() as usize; 2])?;
            vec![qkvz, ba]
        } else {
            ["in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a"]
                .map(matrix)
                .into_iter()
                .collect::<Result<_>>()?
        };
        let projection = Tensor::cat(&parts, 0)?;
        let (have, want) = (projection.dim(0)?, columns(&shape).into_iter().sum::<usize>());
        ensure!(have == want, "{name}: the projections have {have} rows, heads need {want}");
        let get = |part: &str| weights.get(&format!("{name}.{part}"));
        let layer = Layer::gdn(
            shape,
            Filter::new(&get("conv1d.weight")?.to_dtype(weights.dtype)?),
            Gate::softplus(&get("A_log")?, &get("dt_bias")?),
            Norm::silu(&get("norm.weight")?, config.rms_norm_eps as f32),
        );
        let (states, windows) = ((DType::F32, layout), (weights.dtype, config.linear_conv_kernel_dim));
        let pool = LayerPool::zeros(&shape, slots, states, windows, &weights.device)?;
        preload(&weights.device, &layer.modules(weights.dtype, &pool)?)?;
        Ok(Linear { projection, out: matrix("out_proj")?, layer, pool })
    }

    /// What the kernels take of rows x: views of the one projection.
    pub fn project(&self, x: &Tensor) -> Result<Projected> {
        let all = linear(x, &self.projection)?;
        let [qkv, z, b, a] = columns(&self.layer.shape);
        let view = |from, len| all.narrow(1, from, len);
        Ok(Projected { qkv: view(0, qkv)?, z: view(qkv, z)?, b: view(qkv + z, b)?, a: view(qkv + z + b, a)? })
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

/// Columns of the one projection: q, k and v; z; b; a.
fn columns(shape: &HeadShape) -> [usize; 4] {
    let (keys, values) = (shape.key_elements() as usize, shape.value_elements() as usize);
    [2 * keys + values, values, shape.hv as usize, shape.hv as usize]
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
