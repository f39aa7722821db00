//! A layer's step with gdn's kernels against candle's own operations, and its share of a whole step.

use crate::Options;
use crate::engine::Engine;
use crate::plain::Plain;
use anyhow::{Result, ensure};
use candle_core::{DType, Device, Tensor};
use gdn_candle::{
    Filter, Gate, HeadShape, Layer, LayerPool, Norm, Projected, Slots, Tokens, layer_step, preload,
    replay_advance, replay_layer_step,
};
use std::time::Instant;

/// Heads of Qwen3-Next-80B-A3B and of Qwen3.5-4B, 9B and 35B-A3B.
const SHAPE: HeadShape = HeadShape { h: 16, hv: 32, k: 128, v: 128 };
const WARM_UP: usize = 20;
const STEPS: usize = 200;
/// Relative L2 that two ways to work out a step in bf16 may differ by.
const LIMIT: f32 = 1e-2;

/// Prints the table.
pub fn run(options: &Options) -> Result<()> {
    let device = options.device()?;
    println!(
        "a layer's step behind its projections: 16 key heads, 32 value heads of 128, bf16, states in f32"
    );
    for batch in [1, 8] {
        let (layer, projected) = layer(batch, &device)?;
        let pool =
            LayerPool::zeros(&SHAPE, batch, (DType::F32, options.layout()), (DType::BF16, 4), &device)?;
        preload(&device, &layer.modules(DType::BF16, &pool)?)?;
        let [hv, k, v] = [SHAPE.hv, SHAPE.k, SHAPE.v].map(|dim| dim as usize);
        let mut plain = Plain {
            state: Tensor::zeros((batch, hv, k, v), DType::F32, &device)?,
            windows: pool.conv.tensor.zeros_like()?,
        };
        let slots = Slots::default();
        let mut ours = || Ok(layer_step(&layer, &projected, &Tokens::Each(1), &pool, &slots, None)?);
        // The same from zeros, a few tokens of it.
        let mut error = 0f32;
        for _ in 0..3 {
            error = error.max(relative(&ours()?, &plain.step(&layer, &projected)?)?);
        }
        ensure!(error <= LIMIT, "batch {batch}: the two differ by {error:.1e}");
        if device.is_cpu() {
            println!("batch {batch}: they agree to {error:.1e}; times are a GPU's (--device cuda)");
            continue;
        }
        let ours = time(&device, &mut ours)?;
        let theirs = time(&device, &mut || plain.step(&layer, &projected))?;
        println!(
            "batch {batch}: gdn {ours:.1} us, candle's operations {theirs:.1} us, {:.1} times; they agree to {error:.1e}",
            theirs / ours
        );
    }
    Ok(())
}

/// What share of an engine's steps the kernels of its linear layers took, if each step was a token of so many texts; on a GPU, where
/// steps are not graphs. Their states are no text's afterwards.
pub fn share(engine: &Engine, texts: usize) -> Result<Option<String>> {
    let (model, device) = (engine.model(), engine.model().device());
    if device.is_cpu() || engine.has_graphs() {
        return Ok(None);
    }
    let mut steps = Vec::new();
    for linear in model.linear_layers() {
        let (hidden, dtype) = (linear.hidden()?, linear.layer.filter.weight.dtype());
        let x = Tensor::randn(0f32, 1f32, (texts, hidden), device)?.to_dtype(dtype)?;
        steps.push((linear, linear.project(&x)?));
    }
    let slots = Slots::default();
    let states = model.replay().map(|states| states.step(&slots)).transpose()?;
    let mut all = || {
        let mut last = None;
        for (index, (linear, projected)) in steps.iter().enumerate() {
            let (layer, pool) = (&linear.layer, &linear.pool);
            last = Some(match &states {
                Some(step) => replay_layer_step(layer, projected, &pool.conv, step, index, None)?,
                None => layer_step(layer, projected, &Tokens::Each(1), pool, &slots, None)?,
            });
        }
        if let Some(step) = &states {
            replay_advance(step, texts, None)?;
        }
        last.ok_or_else(|| anyhow::anyhow!("the model has no linear layer"))
    };
    let seconds = engine.counts.seconds / engine.counts.steps as f64;
    let share = time(device, &mut all)? * 1e-6 / seconds;
    Ok(Some(format!("{:.0} % of a step in gdn's kernels", 100.0 * share)))
}

/// Microseconds of a step, many of them in a row.
fn time(device: &Device, step: &mut dyn FnMut() -> Result<Tensor>) -> Result<f64> {
    let (warm_up, steps) = if device.is_cpu() { (1, 3) } else { (WARM_UP, STEPS) };
    for _ in 0..warm_up {
        step()?;
    }
    device.synchronize()?;
    let start = Instant::now();
    for _ in 0..steps {
        step()?;
    }
    device.synchronize()?;
    Ok(start.elapsed().as_secs_f64() * 1e6 / steps as f64)
}

/// A layer of random weights, and the projections of a batch.
fn layer(batch: usize, device: &Device) -> Result<(Layer, Projected)> {
    let random = |dims: &[usize], of: DType| Tensor::randn(0f32, 0.5f32, dims, device)?.to_dtype(of);
    let (keys, values, hv) =
        (SHAPE.key_elements() as usize, SHAPE.value_elements() as usize, SHAPE.hv as usize);
    let channels = 2 * keys + values;
    let layer = Layer::gdn(
        SHAPE,
        Filter::new(&random(&[channels, 4], DType::BF16)?),
        Gate::softplus(&random(&[hv], DType::F32)?, &random(&[hv], DType::F32)?),
        Norm::silu(&random(&[SHAPE.v as usize], DType::BF16)?, 1e-6),
    );
    let rows = |width: usize| random(&[batch, width], DType::BF16);
    let projected = Projected { qkv: rows(channels)?, z: rows(values)?, a: rows(hv)?, b: rows(hv)? };
    Ok((layer, projected))
}

fn relative(have: &Tensor, want: &Tensor) -> Result<f32> {
    let [have, want] = [have, want].map(|x| x.to_dtype(DType::F32).and_then(|x| x.flatten_all()));
    let (have, want) = (have?, want?);
    let square = |x: &Tensor| x.sqr()?.sum_all()?.to_scalar::<f32>();
    Ok((square(&(&have - &want)?)? / square(&want)?).sqrt())
}
