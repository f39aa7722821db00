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
        let matrix = |part: &str| weights.matrix(&format!("{name}.{part}_proj.weight"));
        Ok(Dense { gate: matrix("gate")?, up: matrix("up")?, down: matrix("down")? })
    }

    fn step(&self, x: &Tensor) -> Result<Tensor> {
        linear(&(silu(&linear(x, &self.gate)?)? * linear(x, &self.up)?)?, &self.down)
    }
}

struct Experts {
    router: Tensor,
    experts: Vec<Dense>,
    /// Experts of a token.
    taken: usize,
    /// Whether the weights of those are made to sum to 1.
    normed: bool,
    shared: Dense,
    shared_gate: Tensor,
}

/// A layer's network.
pub struct Mlp(Kind);

enum Kind {
    Dense(Dense),
    Experts(Box<Experts>),
}

impl Mlp {
    /// Loads a layer's.
    pub fn load(config: &Config, weights: &Weights, layer: usize) -> Result<Mlp> {
        let name = format!("layers.{layer}.mlp");
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
        let experts = if weights.has(&format!("{name}.experts.gate_up_proj")) {
            stacked(weights, name, count)?
        } else {
            (0..count).map(|i| Dense::load(weights, &format!("{name}.experts.{i}"))).collect::<Result<_>>()?
        };
        Ok(Experts {
            router: weights.matrix(&format!("{name}.gate.weight"))?,
            experts,
            taken: config.num_experts_per_tok.context("num_experts_per_tok is missing")?,
            normed: config.norm_topk_prob.unwrap_or(true),
            shared: Dense::load(weights, &format!("{name}.shared_expert"))?,
            shared_gate: weights.matrix(&format!("{name}.shared_expert_gate.weight"))?,
        })
    }

    fn step(&self, x: &Tensor) -> Result<Tensor> {
        let gate = sigmoid(&linear(x, &self.shared_gate)?.to_dtype(DType::F32)?)?.to_dtype(x.dtype())?;
        let mut out = self.shared.step(x)?.broadcast_mul(&gate)?;
        for (expert, rows) in self.routes(x)?.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
            let (at, weights): (Vec<u32>, Vec<f32>) = rows.into_iter().unzip();
            let at = Tensor::from_slice(&at, at.len(), x.device())?;
            let weights =
                Tensor::from_slice(&weights, (weights.len(), 1), x.device())?.to_dtype(x.dtype())?;
            let part = self.experts[expert].step(&x.index_select(&at, 0)?)?.broadcast_mul(&weights)?;
            out = out.index_add(&at, &part, 0)?;
        }
        Ok(out)
    }

    /// For each expert the rows that take it, with their weights.
    fn routes(&self, x: &Tensor) -> Result<Vec<Vec<(u32, f32)>>> {
        let probabilities = softmax(&linear(x, &self.router)?.to_dtype(DType::F32)?)?;
        let mut routes = vec![Vec::new(); self.experts.len()];
        for (row, probabilities) in probabilities.to_vec2::<f32>()?.into_iter().enumerate() {
            let mut order: Vec<usize> = (0..probabilities.len()).collect();
            order.sort_by(|a, b| probabilities[*b].total_cmp(&probabilities[*a]));
            order.truncate(self.taken);
            let sum: f32 = order.iter().map(|expert| probabilities[*expert]).sum();
            let norm = if self.normed { sum } else { 1.0 };
            for expert in order {
                routes[expert].push((row as u32, probabilities[expert] / norm));
            }
        }
        Ok(routes)
    }
}

/// Experts whose matrices are stacked: `[E, 2 I, hidden]` and `[E, hidden, I]`.
fn stacked(weights: &Weights, name: &str, count: usize) -> Result<Vec<Dense>> {
    let gate_up = weights.matrix(&format!("{name}.experts.gate_up_proj"))?;
    let down = weights.matrix(&format!("{name}.experts.down_proj"))?;
    let half = gate_up.dim(1)? / 2;
    let expert = |i: usize| {
        let gate_up = gate_up.get(i)?;
        let (gate, up) = (gate_up.narrow(0, 0, half)?, gate_up.narrow(0, half, half)?);
        Ok(Dense { gate, up, down: down.get(i)? })
    };
    (0..count).map(expert).collect()
}
