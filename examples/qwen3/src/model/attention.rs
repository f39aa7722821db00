//! Softmax attention with a gate on its output, and its cache.

use super::Placed;
use super::ops::{linear, rms_norm, sigmoid, softmax};
use crate::config::Config;
use crate::weights::Weights;
use anyhow::Result;
use candle_core::{D, DType, Tensor};

/// Keys and values of every token of every sequence: `[rows * tokens, KV, D]`. Row r's token at place p is `r * tokens + p`.
pub struct KvCache {
    keys: Tensor,
    values: Tensor,
    /// `[1, tokens]`: the places, U32.
    places: Tensor,
}

impl KvCache {
    /// Room for `rows` sequences of `tokens` tokens.
    pub fn zeros(config: &Config, weights: &Weights, rows: usize, tokens: usize) -> Result<KvCache> {
        let dims = (rows * tokens, config.num_key_value_heads, config.head_dim);
        let zeros = || Tensor::zeros(dims, weights.dtype, &weights.device);
        let places = Tensor::arange(0, tokens as u32, &weights.device)?.unsqueeze(0)?;
        Ok(KvCache { keys: zeros()?, values: zeros()?, places })
    }

    /// Stores keys and values `[tokens, KV, D]` of a step's tokens.
    fn store(&self, placed: &Placed, keys: &Tensor, values: &Tensor) -> Result<()> {
        let at = (self.row_starts(&placed.rows)? + &placed.places)?.reshape(((), 1, 1))?;
        let at = at.broadcast_as(keys.shape())?.contiguous()?;
        self.keys.scatter_set(&at, &keys.contiguous()?, 0)?;
        Ok(self.values.scatter_set(&at, &values.contiguous()?, 0)?)
    }

    /// The first `len` keys and values of some rows, `[rows, KV, len, D]`, in f32.
    fn of(&self, rows: &Tensor, len: usize) -> Result<[Tensor; 2]> {
        let sequences = rows.elem_count();
        let at = self.row_starts(rows)?.unsqueeze(1)?.broadcast_add(&self.places.narrow(1, 0, len)?)?;
        let at = at.flatten_all()?;
        let take = |x: &Tensor| -> Result<Tensor> {
            let (_, heads, dim) = x.dims3()?;
            let taken = x.index_select(&at, 0)?.reshape((sequences, len, heads, dim))?;
            Ok(taken.transpose(1, 2)?.to_dtype(DType::F32)?.contiguous()?)
        };
        Ok([take(&self.keys)?, take(&self.values)?])
    }

    /// Where the tokens of rows begin.
    fn row_starts(&self, rows: &Tensor) -> Result<Tensor> {
        Ok((rows * self.places.elem_count() as f64)?)
    }

    /// What is added to scores `[.., T, len]` of tokens at `places`, `[sequences, T]`: a token sees itself and those in front of it.
    fn causal(&self, places: &Tensor, len: usize) -> Result<Tensor> {
        let hidden = self.places.narrow(1, 0, len)?.unsqueeze(0)?.broadcast_gt(&places.unsqueeze(2)?)?;
        let of = |value: f32| Tensor::full(value, hidden.shape(), places.device());
        let mask = hidden.where_cond(&of(f32::NEG_INFINITY)?, &of(0.0)?)?;
        Ok(mask.unsqueeze(1)?.unsqueeze(1)?)
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
    turn: Rotation,
}

impl Attention {
    /// Loads a layer, for texts of at most `tokens` tokens.
    pub fn load(config: &Config, weights: &Weights, name: &str, tokens: usize) -> Result<Attention> {
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
            turn: Rotation::new(tokens, config.rope(), weights)?,
        })
    }

    /// A step of rows x.
    pub fn step(&self, x: &Tensor, placed: &Placed, cache: &KvCache) -> Result<Tensor> {
        let tokens = x.dim(0)?;
        // Of each head its query, then what gates its output.
        let q = linear(x, &self.q)?.reshape((tokens, self.heads, 2 * self.dim))?;
        let (q, gate) = (q.narrow(2, 0, self.dim)?, q.narrow(2, self.dim, self.dim)?);
        let k = linear(x, &self.k)?.reshape((tokens, self.kv_heads, self.dim))?;
        let v = linear(x, &self.v)?.reshape((tokens, self.kv_heads, self.dim))?;
        let turn = self.turn.at(&placed.places)?;
        let q = turn.apply(&rms_norm(&q, &self.q_norm, self.eps)?)?;
        let k = turn.apply(&rms_norm(&k, &self.k_norm, self.eps)?)?;
        cache.store(placed, &k, &v)?;

        let mut from = 0;
        let mut attended = Vec::new();
        for part in parts(&placed.lens) {
            let (sequences, each) = (part.len(), placed.lens[part.start]);
            let rows = sequences * each;
            let of_part =
                |x: &Tensor| Ok::<_, anyhow::Error>(x.narrow(0, from, rows)?.reshape((sequences, each))?);
            let (places, cached) = (of_part(&placed.places)?, of_part(&placed.rows)?.narrow(1, 0, 1)?);
            let q = q.narrow(0, from, rows)?.reshape((sequences, each, self.heads, self.dim))?;
            attended.push(self.attend(&q, &places, cache.of(&cached.flatten_all()?, placed.seen)?, cache)?);
            from += rows;
        }
        let attended = Tensor::cat(&attended, 0)?;
        let gate = sigmoid(&gate.to_dtype(DType::F32)?)?.to_dtype(x.dtype())?;
        linear(&(attended * gate)?.flatten_from(1)?, &self.out)
    }

    /// Attention of `[sequences, T, heads, D]` at `places`, `[sequences, T]`: `[sequences * T, heads, D]`.
    fn attend(
        &self,
        q: &Tensor,
        places: &Tensor,
        [keys, values]: [Tensor; 2],
        cache: &KvCache,
    ) -> Result<Tensor> {
        let ((sequences, each, ..), len) = (q.dims4()?, keys.dim(2)?);
        // Scores, weights and sums in f32, and one rounding.
        let (dtype, q) = (q.dtype(), q.to_dtype(DType::F32)?);
        // The heads that share a key head stand beside each other.
        let shared = self.heads / self.kv_heads;
        let q = q.reshape((sequences, each, self.kv_heads, shared, self.dim))?;
        let q = q.permute((0, 2, 3, 1, 4))?.reshape((sequences, self.kv_heads, shared * each, self.dim))?;
        let scores = (q.matmul(&keys.transpose(2, 3)?)? * (self.dim as f64).sqrt().recip())?;
        let scores = scores.reshape((sequences, self.kv_heads, shared, each, len))?;
        let weights = softmax(&scores.broadcast_add(&cache.causal(places, len)?)?)?;
        let weights = weights.reshape((sequences, self.kv_heads, shared * each, len))?;
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

/// The rotary embedding, of every place or of a step's.
struct Rotation {
    /// `[places, 1, dims]`, of the model's type.
    cos: Tensor,
    sin: Tensor,
    dims: usize,
}

impl Rotation {
    /// Of the first `tokens` places.
    fn new(tokens: usize, (theta, dims): (f64, usize), weights: &Weights) -> Result<Rotation> {
        let frequency = |i: usize| theta.powf(-(2.0 * i as f64) / dims as f64) as f32;
        let half: Vec<f32> = (0..dims / 2).map(frequency).collect();
        let angles: Vec<f32> =
            (0..tokens).flat_map(|place| half.iter().chain(&half).map(move |f| place as f32 * f)).collect();
        let angles = Tensor::from_vec(angles, (tokens, 1, dims), &weights.device)?;
        let of = |table: Tensor| table.to_dtype(weights.dtype);
        Ok(Rotation { cos: of(angles.cos()?)?, sin: of(angles.sin()?)?, dims })
    }

    /// Of some places.
    fn at(&self, places: &Tensor) -> Result<Rotation> {
        let of = |table: &Tensor| table.index_select(places, 0);
        Ok(Rotation { cos: of(&self.cos)?, sin: of(&self.sin)?, dims: self.dims })
    }

    /// Of `[tokens, heads, D]`: the first dimensions are rotated, the others stay.
    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let half = self.dims / 2;
        let rotated = x.narrow(2, 0, self.dims)?;
        let (front, back) = (rotated.narrow(2, 0, half)?, rotated.narrow(2, half, half)?);
        let crossed = Tensor::cat(&[&back.neg()?, &front.contiguous()?], 2)?;
        let turned = (rotated.broadcast_mul(&self.cos)? + crossed.broadcast_mul(&self.sin)?)?;
        let rest = x.dim(D::Minus1)? - self.dims;
        Ok(Tensor::cat(&[&turned, &x.narrow(2, self.dims, rest)?], 2)?)
    }
}
