//! The step of a layer of gated delta net in candle's own operations, as one writes it down from the formulas: what gdn's
//! kernels are timed against, and held against.

use anyhow::Result;
use candle_core::{D, DType, Tensor};
use gdn_candle::{Layer, Projected};

/// States and windows of a batch.
pub struct Plain {
    /// `[B, HV, K, V]`, f32.
    pub state: Tensor,
    /// `[B, dim, W - 1]`.
    pub windows: Tensor,
}

impl Plain {
    /// One token for each of the batch's sequences: rows `[B, HV, V]`.
    pub fn step(&mut self, layer: &Layer, projected: &Projected) -> Result<Tensor> {
        let [h, hv, k, v] = [layer.shape.h, layer.shape.hv, layer.shape.k, layer.shape.v].map(|x| x as usize);
        let (batch, dtype) = (projected.qkv.dim(0)?, projected.qkv.dtype());
        let wide = |x: &Tensor| x.to_dtype(DType::F32);

        let window = Tensor::cat(&[&self.windows, &projected.qkv.contiguous()?.unsqueeze(2)?], 2)?;
        self.windows = window.narrow(2, 1, window.dim(2)? - 1)?.contiguous()?;
        let taps = wide(&layer.filter.weight)?.reshape((h * k * 2 + hv * v, ()))?;
        let convolved = wide(&window)?.broadcast_mul(&taps)?.sum(D::Minus1)?.silu()?.to_dtype(dtype)?;

        let heads = |from: usize| -> Result<Tensor> {
            let x = wide(&convolved.narrow(1, from, h * k)?)?.reshape((batch, h, 1, k))?;
            let norm = (x.sqr()?.sum_keepdim(D::Minus1)? + 1e-6)?.sqrt()?;
            Ok(x.broadcast_div(&norm)?.broadcast_as((batch, h, hv / h, k))?.reshape((batch, hv, 1, k))?)
        };
        let (q, key) = ((heads(0)? * (k as f64).sqrt().recip())?, heads(h * k)?);
        let value = wide(&convolved.narrow(1, 2 * h * k, hv * v)?)?.reshape((batch, hv, 1, v))?;

        let of = |x: &Option<Tensor>| -> Result<Tensor> {
            Ok(x.as_ref().map_or_else(|| Tensor::zeros(hv, DType::F32, projected.a.device()), wide)?)
        };
        let x = wide(&projected.a)?.broadcast_add(&of(&layer.gate.dt_bias)?)?;
        let softplus = (x.exp()? + 1.0)?.log()?;
        let decay = softplus.broadcast_mul(&of(&layer.gate.a_log)?.exp()?)?.neg()?.exp()?;
        let beta = (projected.b.neg()?.exp()? + 1.0)?.recip()?;
        let beta = wide(&beta)?.reshape((batch, hv, 1, 1))?;

        let decayed = self.state.broadcast_mul(&decay.reshape((batch, hv, 1, 1))?)?;
        let correction = (value - key.matmul(&decayed)?)?.broadcast_mul(&beta)?;
        self.state = (decayed + key.transpose(2, 3)?.matmul(&correction)?)?;
        let out = q.matmul(&self.state)?.reshape((batch, hv, v))?.to_dtype(dtype)?;

        let out = wide(&out)?;
        let root = (out.sqr()?.mean_keepdim(D::Minus1)? + f64::from(layer.norm.eps))?.sqrt()?;
        let normed = out.broadcast_div(&root)?.broadcast_mul(&wide(&layer.norm.weight)?)?;
        let gate = wide(&projected.z.reshape((batch, hv, v))?)?.silu()?;
        Ok((normed * gate)?.to_dtype(dtype)?)
    }
}
