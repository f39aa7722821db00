//! What several parts of a model use.

use anyhow::Result;
use candle_core::{D, DType, Tensor};

/// `x w^T` for rows x.
pub fn linear(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    Ok(x.matmul(&w.t()?)?)
}

/// RMSNorm over the last dimension, worked out in f32 and rounded once; `weight` is in f32.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let wide = x.to_dtype(DType::F32)?;
    let root = (wide.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?;
    Ok(wide.broadcast_div(&root)?.broadcast_mul(weight)?.to_dtype(x.dtype())?)
}

/// `1 / (1 + e^-x)`.
pub fn sigmoid(x: &Tensor) -> Result<Tensor> {
    Ok((x.neg()?.exp()? + 1.0)?.recip()?)
}

/// `x * sigmoid(x)`, worked out in f32 and rounded once.
pub fn silu(x: &Tensor) -> Result<Tensor> {
    Ok(x.to_dtype(DType::F32)?.silu()?.to_dtype(x.dtype())?)
}

/// Softmax over the last dimension.
pub fn softmax(x: &Tensor) -> Result<Tensor> {
    let shifted = x.broadcast_sub(&x.max_keepdim(D::Minus1)?)?.exp()?;
    Ok(shifted.broadcast_div(&shifted.sum_keepdim(D::Minus1)?)?)
}
