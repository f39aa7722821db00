//! A linear layer's step call by call, rounded where Hugging Face rounds.
//!
//! `layer_step` works each of convolution and gated norm out in f32 and rounds once. Hugging Face rounds the convolution's sum before
//! SiLU, the normalised value before its weight, and their product. In 16 bits these roundings are all that the two differ by.

use super::ops::{sigmoid, silu};
use anyhow::Result;
use candle_core::{D, DType, Tensor};
use gdn_candle::{Activation, Filter, Layer, LayerPool, Projected, Slots, Tokens, conv1d_update, verify};

/// Rows `[.., HV, V]` for the output projection.
pub fn step(
    layer: &Layer,
    projected: &Projected,
    tokens: &Tokens,
    pool: &LayerPool,
    slots: &Slots,
) -> Result<Tensor> {
    let filter = Filter { silu: false, ..layer.filter.clone() };
    let convolved = silu(&conv1d_update(&projected.qkv, &filter, tokens, &pool.conv, slots, None)?)?;
    let out = verify(&layer.inputs(&convolved, projected)?, tokens, &pool.state, slots, None)?;

    let (dtype, wide) = (out.dtype(), out.to_dtype(DType::F32)?);
    let root = (wide.sqr()?.mean_keepdim(D::Minus1)? + f64::from(layer.norm.eps))?.sqrt()?;
    let normed = wide.broadcast_div(&root)?.to_dtype(dtype)?;
    let weighted = normed.broadcast_mul(&layer.norm.weight.to_dtype(dtype)?)?;
    let gate = projected.z.to_dtype(DType::F32)?.reshape(out.shape())?;
    let gate = match layer.norm.activation {
        Activation::Silu => gate.silu()?,
        Activation::Sigmoid => sigmoid(&gate)?,
    };
    Ok((weighted.to_dtype(DType::F32)? * gate)?.to_dtype(dtype)?)
}
