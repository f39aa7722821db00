//! Softmax attention, and its cache: Qwen's with a gate on its output, Kimi's of latent keys and values without places.

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
    pub fn zeros(attention: &Attention, weights: &Weights, rows: usize, tokens: usize) -> Result<KvCache> {
        let Attention { kv_heads, key_dim, value_dim, .. } = attention;
        let zeros =
            |dim: &usize| Tensor::zeros((rows * tokens, *kv_heads, *dim), weights.dtype, &weights.device);
        let places = Tensor::arange(0, tokens as u32, &weights.device)?.unsqueeze(0)?;
        Ok(KvCache { keys: zeros(key_dim)?, values: zeros(value_dim)?, places })
    }

    /// Stores keys and values `[tokens, KV, D]` of a step's tokens.
    fn store(&self, placed: &Placed, keys: &Tensor, values: &Tensor) -> Result<()> {
        let at = (self.row_starts(&placed.rows)? + &placed.places)?.reshape(((), 1, 1))?;
        let store = |cache: &Tensor, new: &Tensor| {
            cache.scatter_set(&at.broadcast_as(new.shape())?.contiguous()?, &new.contiguous()?, 0)
        };
        store(&self.keys, keys)?;
        Ok(store(&self.values, values)?)
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

/// A layer.
pub struct Attention {
    projections: Projections,
    out: Tensor,
    heads: usize,
    kv_heads: usize,
    key_dim: usize,
    value_dim: usize,
}

/// What makes queries, keys and values.
enum Projections {
    Gated(Gated),
    Latent(Latent),
}

/// Queries, keys and values of tokens, `[tokens, heads, D]`, and what gates the output, if something does.
struct Projected {
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gate: Option<Tensor>,
}

/// Qwen's.
struct Gated {
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_norm: Tensor,
    k_norm: Tensor,
    eps: f64,
    turn: Rotation,
}

impl Gated {
    fn load(config: &Config, weights: &Weights, name: &str, tokens: usize) -> Result<Gated> {
        let matrix = |part: &str| weights.matrix(&format!("{name}.{part}.weight"));
        let norm = |part: &str| weights.norm(config, &format!("{name}.{part}.weight"));
        Ok(Gated {
            q: matrix("q_proj")?,
            k: matrix("k_proj")?,
            v: matrix("v_proj")?,
            q_norm: norm("q_norm")?,
            k_norm: norm("k_norm")?,
            eps: config.rms_norm_eps,
            turn: Rotation::new(tokens, config.rope(), weights)?,
        })
    }

    fn project(&self, x: &Tensor, placed: &Placed, heads: usize, kv_heads: usize) -> Result<Projected> {
        let tokens = x.dim(0)?;
        // Of each head its query, then what gates its output.
        let q = linear(x, &self.q)?.reshape((tokens, heads, ()))?;
        let dim = q.dim(2)? / 2;
        let (q, gate) = (q.narrow(2, 0, dim)?, q.narrow(2, dim, dim)?);
        let k = linear(x, &self.k)?.reshape((tokens, kv_heads, dim))?;
        let v = linear(x, &self.v)?.reshape((tokens, kv_heads, dim))?;
        let turn = self.turn.at(&placed.places)?;
        let q = turn.apply(&rms_norm(&q, &self.q_norm, self.eps)?)?;
        let k = turn.apply(&rms_norm(&k, &self.k_norm, self.eps)?)?;
        Ok(Projected { q, k, v, gate: Some(gate) })
    }
}

/// Kimi's: keys and values of all heads are made of one vector, but for a part of the key that all heads share.
struct Latent {
    q: Tensor,
    down: Tensor,
    up: Tensor,
    norm: Tensor,
    dims: crate::config::Latent,
}

/// Added to the mean of squares of the vector that keys and values are made of.
const LATENT_EPS: f64 = 1e-6;

impl Latent {
    fn load(config: &Config, dims: &crate::config::Latent, weights: &Weights, name: &str) -> Result<Latent> {
        let matrix = |part: &str| weights.matrix(&format!("{name}.{part}.weight"));
        Ok(Latent {
            q: matrix("q_proj")?,
            down: matrix("kv_a_proj_with_mqa")?,
            up: matrix("kv_b_proj")?,
            norm: weights.norm(config, &format!("{name}.kv_a_layernorm.weight"))?,
            dims: dims.clone(),
        })
    }

    fn project(&self, x: &Tensor, heads: usize) -> Result<Projected> {
        let (tokens, dims) = (x.dim(0)?, &self.dims);
        let (own, shared) = (dims.qk_nope_head_dim, dims.qk_rope_head_dim);
        let q = linear(x, &self.q)?.reshape((tokens, heads, own + shared))?;
        let down = linear(x, &self.down)?;
        let latent = rms_norm(&down.narrow(1, 0, dims.kv_lora_rank)?, &self.norm, LATENT_EPS)?;
        let both = linear(&latent, &self.up)?.reshape((tokens, heads, own + dims.v_head_dim))?;
        let of_all = down.narrow(1, dims.kv_lora_rank, shared)?.unsqueeze(1)?;
        let of_all = of_all.broadcast_as((tokens, heads, shared))?;
        let k = Tensor::cat(&[&both.narrow(2, 0, own)?, &of_all], 2)?;
        Ok(Projected { q, k, v: both.narrow(2, own, dims.v_head_dim)?, gate: None })
    }
}

impl Attention {
    /// Loads a layer, for texts of at most `tokens` tokens.
    pub fn load(config: &Config, weights: &Weights, name: &str, tokens: usize) -> Result<Attention> {
        let (projections, kv_heads, key_dim, value_dim) = match &config.latent {
            Some(dims) => {
                let latent = Latent::load(config, dims, weights, name)?;
                let key_dim = dims.qk_nope_head_dim + dims.qk_rope_head_dim;
                (Projections::Latent(latent), config.num_attention_heads, key_dim, dims.v_head_dim)
            }
            None => {
                let gated = Gated::load(config, weights, name, tokens)?;
                let dim = config.head_dim;
                (Projections::Gated(gated), config.num_key_value_heads, dim, dim)
            }
        };
        let out = weights.matrix(&format!("{name}.o_proj.weight"))?;
        Ok(Attention { projections, out, heads: config.num_attention_heads, kv_heads, key_dim, value_dim })
    }

    /// A step of rows x.
    pub fn step(&self, x: &Tensor, placed: &Placed, cache: &KvCache) -> Result<Tensor> {
        let Projected { q, k, v, gate } = match &self.projections {
            Projections::Gated(gated) => gated.project(x, placed, self.heads, self.kv_heads)?,
            Projections::Latent(latent) => latent.project(x, self.heads)?,
        };
        cache.store(placed, &k, &v)?;

        let mut from = 0;
        let mut attended = Vec::new();
        for part in parts(&placed.lens) {
            let (sequences, each) = (part.len(), placed.lens[part.start]);
            let rows = sequences * each;
            let of_part =
                |x: &Tensor| Ok::<_, anyhow::Error>(x.narrow(0, from, rows)?.reshape((sequences, each))?);
            let (places, cached) = (of_part(&placed.places)?, of_part(&placed.rows)?.narrow(1, 0, 1)?);
            let q = q.narrow(0, from, rows)?.reshape((sequences, each, self.heads, self.key_dim))?;
            attended.push(self.attend(&q, &places, cache.of(&cached.flatten_all()?, placed.seen)?, cache)?);
            from += rows;
        }
        let mut attended = Tensor::cat(&attended, 0)?;
        if let Some(gate) = gate {
            attended = (attended * sigmoid(&gate.to_dtype(DType::F32)?)?.to_dtype(x.dtype())?)?;
        }
        linear(&attended.flatten_from(1)?, &self.out)
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
        let q = q.reshape((sequences, each, self.kv_heads, shared, self.key_dim))?;
        let q =
            q.permute((0, 2, 3, 1, 4))?.reshape((sequences, self.kv_heads, shared * each, self.key_dim))?;
        let scores = (q.matmul(&keys.transpose(2, 3)?)? * (self.key_dim as f64).sqrt().recip())?;
        let scores = scores.reshape((sequences, self.kv_heads, shared, each, len))?;
        let weights = softmax(&scores.broadcast_add(&cache.causal(places, len)?)?)?;
        let weights = weights.reshape((sequences, self.kv_heads, shared * each, len))?;
        let out =
            weights.matmul(&values)?.reshape((sequences, self.kv_heads, shared, each, self.value_dim))?;
        let out = out.permute((0, 3, 1, 2, 4))?.reshape((sequences * each, self.heads, self.value_dim))?;
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
