//! Softmax attention with a gate on its output, and its cache.

use super::Batch;
use super::ops::{linear, rms_norm, sigmoid, softmax};
use crate::config::Config;
use crate::weights::Weights;
use anyhow::{Result, ensure};
use candle_core::{D, DType, Device, Tensor};

/// Keys and values of every token of every sequence: `[rows * tokens, KV, D]`. Row r's token at place p is `r * tokens + p`.
pub struct KvCache {
    keys: Tensor,
    values: Tensor,
    tokens: usize,
}

impl KvCache {
    /// Room for `rows` sequences of `tokens` tokens.
    pub fn zeros(config: &Config, weights: &Weights, rows: usize, tokens: usize) -> Result<KvCache> {
        let dims = (rows * tokens, config.num_key_value_heads, config.head_dim);
        let zeros = || Tensor::zeros(dims, weights.dtype, &weights.device);
        Ok(KvCache { keys: zeros()?, values: zeros()?, tokens })
    }

    /// The places of a batch's tokens.
    fn places(&self, batch: &Batch) -> Result<Vec<u32>> {
        let mut places = Vec::new();
        for ((row, start), len) in batch.rows.iter().zip(&batch.starts).zip(&batch.lens) {
            let end = start + len;
            ensure!(end <= self.tokens, "a text of {end} tokens, there is room for {}", self.tokens);
            places.extend((*start..end).map(|place| row * self.tokens as u32 + place as u32));
        }
        Ok(places)
    }

    /// Stores keys and values `[tokens, KV, D]`.
    fn store(&self, places: &[u32], keys: &Tensor, values: &Tensor) -> Result<()> {
        let at = Tensor::from_slice(places, (places.len(), 1, 1), keys.device())?;
        let at = at.broadcast_as(keys.shape())?.contiguous()?;
        self.keys.scatter_set(&at, &keys.contiguous()?, 0)?;
        Ok(self.values.scatter_set(&at, &values.contiguous()?, 0)?)
    }

    /// The first `len` keys and values of some rows, `[rows, KV, len, D]`, in f32.
    fn of(&self, rows: &[u32], len: usize) -> Result<[Tensor; 2]> {
        let at: Vec<u32> = rows
            .iter()
            .flat_map(|row| (0..len as u32).map(move |place| row * self.tokens as u32 + place))
            .collect();
        let at = Tensor::from_slice(&at, at.len(), self.keys.device())?;
        let take = |x: &Tensor| -> Result<Tensor> {
            let (_, heads, dim) = x.dims3()?;
            let taken = x.index_select(&at, 0)?.reshape((rows.len(), len, heads, dim))?;
            Ok(taken.transpose(1, 2)?.to_dtype(DType::F32)?.contiguous()?)
        };
        Ok([take(&self.keys)?, take(&self.values)?])
    }
}

/// A layer's weights.
pub struct Attention {
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    q_norm: Tensor,
    k_norm: Tensor,
    heads: usize,
    kv_heads: usize,
    dim: usize,
    eps: f64,
    rope: (f64, usize),
}

impl Attention {
    /// Loads a layer.
    pub fn load(config: &Config, weights: &Weights, name: &str) -> Result<Attention> {
        let matrix = |part: &str| weights.matrix(&format!("{name}.{part}.weight"));
        let norm = |part: &str| weights.norm(&format!("{name}.{part}.weight"));
        Ok(Attention {
            q: matrix("q_proj")?,
            k: matrix("k_proj")?,
            v: matrix("v_proj")?,
            out: matrix("o_proj")?,
            q_norm: norm("q_norm")?,
            k_norm: norm("k_norm")?,
            heads: config.num_attention_heads,
            kv_heads: config.num_key_value_heads,
            dim: config.head_dim,
            eps: config.rms_norm_eps,
            rope: config.rope(),
        })
    }

    /// A step of rows x.
    pub fn step(&self, x: &Tensor, batch: &Batch, cache: &KvCache) -> Result<Tensor> {
        let (tokens, device) = (x.dim(0)?, x.device());
        // Of each head its query, then what gates its output.
        let q = linear(x, &self.q)?.reshape((tokens, self.heads, 2 * self.dim))?;
        let (q, gate) = (q.narrow(2, 0, self.dim)?, q.narrow(2, self.dim, self.dim)?);
        let k = linear(x, &self.k)?.reshape((tokens, self.kv_heads, self.dim))?;
        let v = linear(x, &self.v)?.reshape((tokens, self.kv_heads, self.dim))?;
        let places: Vec<f32> = batch
            .starts
            .iter()
            .zip(&batch.lens)
            .flat_map(|(start, len)| (*start..start + len).map(|place| place as f32))
            .collect();
        let turn = Rotation::new(&places, self.rope, device)?;
        let q = turn.apply(&rms_norm(&q, &self.q_norm, self.eps)?)?;
        let k = turn.apply(&rms_norm(&k, &self.k_norm, self.eps)?)?;
        cache.store(&cache.places(batch)?, &k, &v)?;

        let mut from = 0;
        let mut attended = Vec::new();
        for part in parts(&batch.lens) {
            let (sequences, each) = (part.len(), batch.lens[part.start]);
            let rows = sequences * each;
            let q = q.narrow(0, from, rows)?.reshape((sequences, each, self.heads, self.dim))?;
            attended.push(self.attend(&q, &batch.starts[part.clone()], &batch.rows[part], cache)?);
            from += rows;
        }
        let attended = Tensor::cat(&attended, 0)?;
        let gate = sigmoid(&gate.to_dtype(DType::F32)?)?.to_dtype(x.dtype())?;
        linear(&(attended * gate)?.flatten_from(1)?, &self.out)
    }

    /// Attention of `[sequences, T, heads, D]`, sequences starting at `starts`: `[sequences * T, heads, D]`.
    fn attend(&self, q: &Tensor, starts: &[usize], rows: &[u32], cache: &KvCache) -> Result<Tensor> {
        let (sequences, each, ..) = q.dims4()?;
        let len = starts.iter().max().copied().unwrap_or(0) + each;
        // Scores, weights and sums in f32, and one rounding.
        let (dtype, q) = (q.dtype(), q.to_dtype(DType::F32)?);
        let [keys, values] = cache.of(rows, len)?;
        // The heads that share a key head stand beside each other.
        let shared = self.heads / self.kv_heads;
        let q = q.reshape((sequences, each, self.kv_heads, shared, self.dim))?;
        let q = q.permute((0, 2, 3, 1, 4))?.reshape((sequences, self.kv_heads, shared * each, self.dim))?;
        let scores = (q.matmul(&keys.transpose(2, 3)?)? * (self.dim as f64).sqrt().recip())?;
        let mask = causal(starts, each, len, shared, q.device())?;
        let weights = softmax(&scores.broadcast_add(&mask)?)?;
        let out = weights.matmul(&values)?.reshape((sequences, self.kv_heads, shared, each, self.dim))?;
        let out = out.permute((0, 3, 1, 2, 4))?.reshape((sequences * each, self.heads, self.dim))?;
        Ok(out.to_dtype(dtype)?)
    }
}

/// Runs of sequences of the same number of tokens, which are worked on together.
fn parts(lens: &[usize]) -> Vec<std::ops::Range<usize>> {
    let mut parts: Vec<std::ops::Range<usize>> = Vec::new();
    for (i, len) in lens.iter().enumerate() {
        match parts.last_mut() {
            Some(part) if lens[part.start] == *len => part.end = i + 1,
            _ => parts.push(i..i + 1),
        }
    }
    parts
}

/// What is added to scores `[sequences, 1, shared * T, len]`: a token sees itself and those in front of it.
fn causal(starts: &[usize], each: usize, len: usize, shared: usize, device: &Device) -> Result<Tensor> {
    let row = |place: usize| (0..len).map(move |key| if key <= place { 0.0 } else { f32::NEG_INFINITY });
    let mask: Vec<f32> = starts
        .iter()
        .flat_map(|start| (0..shared).flat_map(move |_| (0..each).map(move |t| start + t)))
        .flat_map(row)
        .collect();
    Ok(Tensor::from_vec(mask, (starts.len(), 1, shared * each, len), device)?)
}

/// The rotary embedding of some places.
struct Rotation {
    cos: Tensor,
    sin: Tensor,
    dims: usize,
}

impl Rotation {
    fn new(places: &[f32], (theta, dims): (f64, usize), device: &Device) -> Result<Rotation> {
        let frequency = |i: usize| theta.powf(-(2.0 * i as f64) / dims as f64) as f32;
        let half: Vec<f32> = (0..dims / 2).map(frequency).collect();
        let angles: Vec<f32> =
            places.iter().flat_map(|place| half.iter().chain(&half).map(move |f| place * f)).collect();
        let angles = Tensor::from_vec(angles, (places.len(), 1, dims), device)?;
        Ok(Rotation { cos: angles.cos()?, sin: angles.sin()?, dims })
    }

    /// Of `[tokens, heads, D]`: the first dimensions are rotated, the others stay.
    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let half = self.dims / 2;
        let rotated = x.narrow(2, 0, self.dims)?;
        let (front, back) = (rotated.narrow(2, 0, half)?, rotated.narrow(2, half, half)?);
        let crossed = Tensor::cat(&[&back.neg()?, &front.contiguous()?], 2)?;
        let of = |table: &Tensor| table.to_dtype(x.dtype());
        let turned = (rotated.broadcast_mul(&of(&self.cos)?)? + crossed.broadcast_mul(&of(&self.sin)?)?)?;
        let rest = x.dim(D::Minus1)? - self.dims;
        Ok(Tensor::cat(&[&turned, &x.narrow(2, self.dims, rest)?], 2)?)
    }
}
