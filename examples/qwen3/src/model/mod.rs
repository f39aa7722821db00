//! The model: embeddings, layers, logits.

mod attention;
mod linear;
mod mlp;
mod ops;

pub use attention::KvCache;
pub use linear::Linear;

use crate::config::{Config, Mixer};
use crate::weights::Weights;
use anyhow::Result;
use attention::Attention;
use candle_core::{D, DType, Device, Tensor};
use gdn_candle::{Drafts, Layout, Slots, Tokens};
use mlp::Mlp;
use ops::{linear, rms_norm};

/// The tokens of a step: those of each sequence one behind the other.
pub struct Batch {
    /// Of all sequences.
    pub tokens: Vec<u32>,
    /// How many each has.
    pub lens: Vec<usize>,
    /// The place of each sequence's first token in its text.
    pub starts: Vec<usize>,
    /// The row of each sequence in the caches of full attention.
    pub rows: Vec<u32>,
    /// The slots of each sequence in the pools of the linear layers.
    pub slots: Slots,
}

impl Batch {
    /// How calls are told the tokens.
    fn packing(&self, device: &Device) -> Result<Tokens> {
        let first = self.lens.first().copied().unwrap_or(0);
        if self.lens.iter().all(|len| *len == first) {
            return Ok(Tokens::Each(first));
        }
        let mut ends = vec![0u32];
        ends.extend(self.lens.iter().scan(0, |end, len| {
            *end += *len as u32;
            Some(*end)
        }));
        Ok(Tokens::Packed(Tensor::from_slice(&ends, ends.len(), device)?))
    }
}

enum Mix {
    Linear(Linear),
    Full(Attention, KvCache),
}

struct Block {
    before: Tensor,
    mix: Mix,
    between: Tensor,
    mlp: Mlp,
}

/// A model with its pools and caches.
pub struct Model {
    embeddings: Tensor,
    blocks: Vec<Block>,
    norm: Tensor,
    head: Tensor,
    eps: f64,
    device: Device,
}

impl Model {
    /// Loads a checkpoint, with room for `rows` sequences of `tokens` tokens.
    pub fn load(
        config: &Config,
        weights: &Weights,
        layout: Layout,
        rows: usize,
        tokens: usize,
    ) -> Result<Model> {
        let mut blocks = Vec::new();
        for (i, mixer) in config.mixers()?.into_iter().enumerate() {
            let mix = match mixer {
                Mixer::LinearAttention => Mix::Linear(Linear::load(
                    config,
                    weights,
                    &format!("layers.{i}.linear_attn"),
                    layout,
                    rows,
                )?),
                Mixer::FullAttention => {
                    let attention = Attention::load(config, weights, &format!("layers.{i}.self_attn"))?;
                    let cache = KvCache::zeros(config, weights, rows, tokens)?;
                    Mix::Full(attention, cache)
                }
            };
            blocks.push(Block {
                before: weights.norm(&format!("layers.{i}.input_layernorm.weight"))?,
                mix,
                between: weights.norm(&format!("layers.{i}.post_attention_layernorm.weight"))?,
                mlp: Mlp::load(config, weights, i)?,
            });
        }
        let embeddings = weights.matrix("embed_tokens.weight")?;
        let head =
            if config.tie_word_embeddings { embeddings.clone() } else { weights.matrix("lm_head.weight")? };
        let (norm, eps) = (weights.norm("norm.weight")?, config.rms_norm_eps);
        Ok(Model { embeddings, blocks, norm, head, eps, device: weights.device.clone() })
    }

    /// The layers of gated delta net.
    pub fn linear_layers(&self) -> impl Iterator<Item = &Linear> {
        self.blocks.iter().filter_map(|block| match &block.mix {
            Mix::Linear(linear) => Some(linear),
            Mix::Full(..) => None,
        })
    }

    /// Buffers for drafts of at most `steps` tokens, for each linear layer.
    pub fn drafts(&self, rows: usize, steps: usize) -> Result<Vec<Drafts>> {
        self.linear_layers().map(|linear| linear.drafts(rows, steps)).collect()
    }

    /// A step: the logits of every token, `[tokens, vocabulary]`, in f32. With buffers for drafts the linear layers keep what
    /// each token leaves there, and their pools stay as they are.
    pub fn step(&self, batch: &Batch, drafts: Option<&[Drafts]>) -> Result<Tensor> {
        let ids = Tensor::from_slice(&batch.tokens, batch.tokens.len(), &self.device)?;
        let packing = batch.packing(&self.device)?;
        let mut x = self.embeddings.index_select(&ids, 0)?;
        let mut drafts = drafts.map(|drafts| drafts.iter());
        for block in &self.blocks {
            let normed = rms_norm(&x, &block.before, self.eps)?;
            let mixed = match &block.mix {
                Mix::Linear(linear) => {
                    let buffer = drafts.as_mut().and_then(Iterator::next);
                    linear.step(&normed, &packing, &batch.slots, buffer)?
                }
                Mix::Full(attention, cache) => attention.step(&normed, batch, cache)?,
            };
            x = (x + mixed)?;
            let normed = rms_norm(&x, &block.between, self.eps)?;
            x = (&x + block.mlp.step(&normed)?)?;
        }
        let logits = linear(&rms_norm(&x, &self.norm, self.eps)?, &self.head)?;
        Ok(logits.to_dtype(DType::F32)?)
    }

    /// Commits drafts: `accepted` counts the tokens of each sequence that stay.
    pub fn commit(&self, drafts: &[Drafts], accepted: &[u32], slots: &Slots) -> Result<()> {
        let accepted = Tensor::from_slice(accepted, accepted.len(), &self.device)?;
        let layers = self.linear_layers().zip(drafts);
        layers.into_iter().try_for_each(|(linear, drafts)| linear.commit(drafts, &accepted, slots))
    }

    /// The likeliest token of each row of logits.
    pub fn likeliest(logits: &Tensor) -> Result<Vec<u32>> {
        Ok(logits.argmax(D::Minus1)?.to_vec1()?)
    }

    /// Where it runs.
    pub fn device(&self) -> &Device {
        &self.device
    }
}
