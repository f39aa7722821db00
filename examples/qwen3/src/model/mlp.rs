//! What follows the mixer of a layer: a dense network, or experts of which a token takes a few, and one that all take.

use super::ops::{linear, sigmoid, silu, softmax};
use crate::config::Config;
use crate::weights::Weights;
use anyhow::{Context as _, Result};
use candle_core::{DType, Tensor};

/// `down(silu(gate x) * up x)`.
struct Dense {
    gate: Tensor,
    up: Tensor,
    down: Tensor,
}

impl Dense {
    fn load(weights: &Weights, name: &str) -> Result<Dense> {
        let [gate, up, down] = dense_parts(weights, name)?;
        Ok(Dense { gate, up, down })
    }

    fn step(&self, x: &Tensor) -> Result<Tensor> {
        linear(&(silu(&linear(x, &self.gate)?)? * linear(x, &self.up)?)?, &self.down)
    }
}

/// Gate, up and down under either of their names.
fn dense_parts(weights: &Weights, name: &str) -> Result<[Tensor; 3]> {
    let names = ["gate_proj", "up_proj", "down_proj"];
    let names = if weights.has(&format!("{name}.w1.weight")) { ["w1", "w3", "w2"] } else { names };
    let [gate, up, down] = names.map(|part| weights.matrix(&format!("{name}.{part}.weight")));
    Ok([gate?, up?, down?])
}

/// How the scores of experts are made, and which weights they give.
enum Scores {
    /// Qwen's: by softmax.
    Softmax,
    /// Kimi's: by sigmoid; `bias`, `[E]`, has a say in which experts are taken, and weights are multiplied by `factor`.
    Sigmoid { bias: Tensor, factor: f64 },
}

struct Experts {
    router: Tensor,
    scores: Scores,
    /// `[E, 2 I, hidden]`: gate and up of each.
    gate_up: Tensor,
    /// `[E, hidden, I]`.
    down: Tensor,
    /// Experts of a token.
    taken: usize,
    /// Whether the weights of those are made to sum to 1.
    normed: bool,
    shared: Dense,
    /// What gates the shared expert, in Qwen.
    shared_gate: Option<Tensor>,
}

/// Most rows whose experts' matrices are gathered, so that nothing is asked of the host: a step of decode. Of more rows each expert
/// takes its own.
pub const GATHERED: usize = 32;

/// A layer's network.
pub struct Mlp(Kind);

enum Kind {
    Dense(Dense),
    Experts(Box<Experts>),
}

impl Mlp {
    /// Loads a layer's.
    pub fn load(config: &Config, weights: &Weights, layer: usize) -> Result<Mlp> {
        let kimi = format!("layers.{layer}.block_sparse_moe");
        let is_there = |part: &str| weights.has(&format!("{kimi}.{part}.weight"));
        let name = match is_there("gate") || is_there("gate_proj") {
            true => kimi,
            false => format!("layers.{layer}.mlp"),
        };
        Ok(Mlp(match config.experts(layer) {
            Some(experts) => Kind::Experts(Box::new(Experts::load(config, weights, &name, experts)?)),
            None => Kind::Dense(Dense::load(weights, &name)?),
        }))
    }

    /// A step of rows x.
    pub fn step(&self, x: &Tensor) -> Result<Tensor> {
        match &self.0 {
            Kind::Dense(dense) => dense.step(x),
            Kind::Experts(experts) => experts.step(x),
        }
    }
}

impl Experts {
    fn load(config: &Config, weights: &Weights, name: &str, count: usize) -> Result<Experts> {
        let (gate_up, down) = if weights.has(&format!("{name}.experts.gate_up_proj")) {
            let stacked = |part: &str| weights.matrix(&format!("{name}.experts.{part}"));
            (stacked("gate_up_proj")?, stacked("down_proj")?)
        } else {
            let (mut gate_up, mut downs) = (Vec::new(), Vec::new());
            for i in 0..count {
                let [gate, up, down] = dense_parts(weights, &format!("{name}.experts.{i}"))?;
                gate_up.push(Tensor::cat(&[gate, up], 0)?);
                downs.push(down);
            }
            (Tensor::stack(&gate_up, 0)?, Tensor::stack(&downs, 0)?)
        };
        let (scores, shared, shared_gate) = match config.is_kimi() {
            true => {
                let bias =
                    weights.get(&format!("{name}.gate.e_score_correction_bias"))?.to_dtype(DType::F32)?;
                let factor = config.routed_scaling_factor.unwrap_or(1.0);
                (Scores::Sigmoid { bias, factor }, "shared_experts", None)
            }
            false => {
                let gate = weights.matrix(&format!("{name}.shared_expert_gate.weight"))?;
                (Scores::Softmax, "shared_expert", Some(gate))
            }
        };
        Ok(Experts {
            router: weights.matrix(&format!("{name}.gate.weight"))?,
            scores,
            gate_up,
            down,
            taken: config.num_experts_per_tok.context("num_experts_per_tok is missing")?,
            normed: config.norm_topk_prob.unwrap_or(true),
            shared: Dense::load(weights, &format!("{name}.{shared}"))?,
            shared_gate,
        })
    }

    fn step(&self, x: &Tensor) -> Result<Tensor> {
        let mut shared = self.shared.step(x)?;
        if let Some(gate) = &self.shared_gate {
            let gate = sigmoid(&linear(x, gate)?.to_dtype(DType::F32)?)?.to_dtype(x.dtype())?;
            shared = shared.broadcast_mul(&gate)?;
        }
        let (experts, weights) = self.routes(x)?;
        let routed = match x.dim(0)? <= GATHERED {
            true => self.gathered(x, &experts, &weights)?,
            false => self.one_by_one(x, &experts, &weights)?,
        };
        Ok((routed + shared)?)
    }

    /// The experts that each row takes, `[rows, taken]`, and their weights, of the type of x.
    fn routes(&self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let logits = linear(x, &self.router)?.to_dtype(DType::F32)?;
        let (scores, order, factor) = match &self.scores {
            Scores::Softmax => {
                let scores = softmax(&logits)?;
                (scores.clone(), scores, 1.0)
            }
            Scores::Sigmoid { bias, factor } => {
                let scores = sigmoid(&logits)?;
                (scores.clone(), scores.broadcast_add(bias)?, *factor)
            }
        };
        let experts = order.arg_sort_last_dim(false)?.narrow(1, 0, self.taken)?.contiguous()?;
        let mut weights = scores.gather(&experts, 1)?;
        if self.normed {
            weights = weights.broadcast_div(&weights.sum_keepdim(1)?)?;
        }
        let weights = (weights * factor)?;
        Ok((experts, weights.to_dtype(x.dtype())?))
    }

    /// Each row through the matrices of its experts.
    fn gathered(&self, x: &Tensor, experts: &Tensor, weights: &Tensor) -> Result<Tensor> {
        let ((rows, hidden), half) = (x.dims2()?, self.gate_up.dim(1)? / 2);
        let x = x.unsqueeze(1)?.broadcast_as((rows, self.taken, hidden))?.reshape((
            rows * self.taken,
            hidden,
            1,
        ))?;
        let of = |matrices: &Tensor| matrices.index_select(&experts.flatten_all()?, 0);
        let both = of(&self.gate_up)?.matmul(&x)?;
        let inner = (silu(&both.narrow(1, 0, half)?)? * both.narrow(1, half, half)?)?;
        let out = of(&self.down)?.matmul(&inner.contiguous()?)?.reshape((rows, self.taken, hidden))?;
        Ok(out.broadcast_mul(&weights.unsqueeze(2)?)?.sum(1)?)
    }

    /// Each expert with the rows that take it.
    fn one_by_one(&self, x: &Tensor, experts: &Tensor, weights: &Tensor) -> Result<Tensor> {
        let mut routes = vec![Vec::new(); self.gate_up.dim(0)?];
        for (row, experts) in experts.to_vec2::<u32>()?.into_iter().enumerate() {
            for (i, expert) in experts.into_iter().enumerate() {
                routes[expert as usize].push((row as u32, (row * self.taken + i) as u32));
            }
        }
        let (mut out, half) = (x.zeros_like()?, self.gate_up.dim(1)? / 2);
        for (expert, rows) in routes.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
            let (at, weight_at): (Vec<u32>, Vec<u32>) = rows.into_iter().unzip();
            let table = |at: &[u32]| Tensor::from_slice(at, at.len(), x.device());
            let (at, gate_up) = (table(&at)?, self.gate_up.get(expert)?);
            let dense = Dense {
                gate: gate_up.narrow(0, 0, half)?,
                up: gate_up.narrow(0, half, half)?,
                down: self.down.get(expert)?,
            };
            let weights = weights.flatten_all()?.index_select(&table(&weight_at)?, 0)?.unsqueeze(1)?;
            out = out.index_add(&at, &dense.step(&x.index_select(&at, 0)?)?.broadcast_mul(&weights)?, 0)?;
        }
        Ok(out)
    }
}
