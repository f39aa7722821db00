//! The model: embeddings, layers, logits.

mod attention;
mod composed;
mod linear;
mod mlp;
mod ops;

pub use attention::KvCache;
pub use linear::Linear;

use crate::config::{Config, Mixer};
use crate::weights::Weights;
use anyhow::{Context as _, Result, ensure};
use attention::Attention;
use candle_core::{D, DType, Device, Tensor};
use gdn_candle::{
    DraftWindows, Drafts, Layout, ReplayConfig, ReplayState, ReplayStep, Slots, Tokens, preload,
    replay_advance,
};
pub use mlp::GATHERED;
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
    /// The batch on a device.
    pub fn place(&self, device: &Device) -> Result<Placed> {
        let each = |of: &dyn Fn(usize, usize) -> u32| {
            let of_sequence = |(n, len): (usize, &usize)| (0..*len).map(|t| of(n, t)).collect::<Vec<_>>();
            let all: Vec<u32> = self.lens.iter().enumerate().flat_map(of_sequence).collect();
            Tensor::from_slice(&all, all.len(), device)
        };
        let ends = self.starts.iter().zip(&self.lens).map(|(start, len)| start + len);
        Ok(Placed {
            ids: Tensor::from_slice(&self.tokens, self.tokens.len(), device)?,
            places: each(&|n, t| (self.starts[n] + t) as u32)?,
            rows: each(&|n, _| self.rows[n])?,
            slots: self.slots.clone(),
            packing: self.packing(device)?,
            lens: self.lens.clone(),
            seen: ends.max().unwrap_or(0),
        })
    }

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

/// The tokens of a step on a device: all that a step takes, so that it asks the host for nothing.
#[derive(Clone)]
pub struct Placed {
    /// `[tokens]`.
    pub ids: Tensor,
    /// `[tokens]`: the place of each in its text.
    pub places: Tensor,
    /// `[tokens]`: the row of its sequence in the caches of full attention.
    pub rows: Tensor,
    /// The slots of each sequence.
    pub slots: Slots,
    /// How calls are told the tokens.
    pub packing: Tokens,
    /// Tokens of each sequence.
    pub lens: Vec<usize>,
    /// Places of a text that attention looks at: all up to the last token's, or more.
    pub seen: usize,
}

/// What becomes of states in the linear layers.
#[derive(Clone, Copy)]
pub enum Recurrence<'a> {
    /// They are written.
    Plain,
    /// They are written; what stands around is rounded where Hugging Face rounds.
    Composed,
    /// They stay; those behind each draft go to a buffer of each layer.
    Drafts(&'a [Drafts]),
    /// Tokens leave records.
    Replay(&'a ReplayStep<'a>),
    /// Drafts leave records; windows behind each go to a buffer of each layer.
    ReplayDrafts(&'a ReplayStep<'a>, &'a [DraftWindows]),
}

/// Records of a ring.
const RECORDS: usize = 16;

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
    room: Room,
    /// The states of the linear layers, where they have rings of records.
    replay: Option<ReplayState>,
}

/// What a model has room for.
#[derive(Clone, Copy)]
pub struct Room {
    /// Sequences.
    pub rows: usize,
    /// Tokens of each.
    pub tokens: usize,
    /// Drafts of a step and sequence, besides its last token.
    pub drafts: usize,
}

impl Model {
    /// Loads a checkpoint; with `replay` its linear layers' states have rings of records.
    pub fn load(
        config: &Config,
        weights: &Weights,
        layout: Layout,
        room: Room,
        replay: bool,
    ) -> Result<Model> {
        ensure!(!replay || layout == Layout::Vk, "--replay: there are kernels for layout vk only");
        let mut blocks = Vec::new();
        for (i, mixer) in config.mixers()?.into_iter().enumerate() {
            let mix = match mixer {
                Mixer::LinearAttention => Mix::Linear(Linear::load(config, weights, i, layout, room.rows)?),
                Mixer::FullAttention => {
                    let name = format!("layers.{i}.self_attn");
                    let attention = Attention::load(config, weights, &name, room.tokens)?;
                    let cache = KvCache::zeros(&attention, weights, room.rows, room.tokens)?;
                    Mix::Full(attention, cache)
                }
            };
            blocks.push(Block {
                before: weights.norm(config, &format!("layers.{i}.input_layernorm.weight"))?,
                mix,
                between: weights.norm(config, &format!("layers.{i}.post_attention_layernorm.weight"))?,
                mlp: Mlp::load(config, weights, i)?,
            });
        }
        let embeddings = weights.matrix("embed_tokens.weight")?;
        let head =
            if config.tie_word_embeddings { embeddings.clone() } else { weights.matrix("lm_head.weight")? };
        let (norm, eps) = (weights.norm(config, "norm.weight")?, config.rms_norm_eps);
        let device = weights.device.clone();
        let mut model = Model { embeddings, blocks, norm, head, eps, device, room, replay: None };
        if replay {
            model.replay_with(room, weights.dtype)?;
        }
        Ok(model)
    }

    /// Gives the linear layers states with rings of records, in place of their pools.
    fn replay_with(&mut self, room: Room, io: DType) -> Result<()> {
        let layers = self.linear_layers().count();
        let form = self.linear_layers().next().context("the model has no linear layer")?.layer.record_form();
        let drafts = if room.drafts > 0 { room.drafts + 1 } else { 0 };
        let config =
            ReplayConfig { drafts, io, records: RECORDS, ..ReplayConfig::new(form, layers, room.rows) };
        let states = ReplayState::zeros(&config, &self.device)?;
        preload(&self.device, &states.modules())?;
        let linear = self.blocks.iter_mut().filter_map(|block| match &mut block.mix {
            Mix::Linear(linear) => Some(linear),
            Mix::Full(..) => None,
        });
        for (index, linear) in linear.enumerate() {
            linear.pool.state = states.checkpoints(index)?;
        }
        self.replay = Some(states);
        Ok(())
    }

    /// The states of the linear layers, where they have rings of records.
    pub fn replay(&self) -> Option<&ReplayState> {
        self.replay.as_ref()
    }

    /// The linear layers.
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

    /// Buffers for the windows of drafts alone.
    pub fn windows(&self, rows: usize, steps: usize) -> Result<Vec<DraftWindows>> {
        self.linear_layers().map(|linear| linear.windows(rows, steps)).collect()
    }

    /// A step: the logits of every token, `[tokens, vocabulary]`, in f32. Where linear layers keep records, cursors are moved for
    /// tokens, and for drafts by [`Self::commit`].
    pub fn step(&self, placed: &Placed, recurrence: Recurrence) -> Result<Tensor> {
        let mut x = self.embeddings.index_select(&placed.ids, 0)?;
        let mut index = 0;
        for block in &self.blocks {
            let normed = rms_norm(&x, &block.before, self.eps)?;
            let mixed = match &block.mix {
                Mix::Linear(linear) => {
                    index += 1;
                    linear.step(&normed, placed, recurrence, index - 1)?
                }
                Mix::Full(attention, cache) => attention.step(&normed, placed, cache)?,
            };
            x = (x + mixed)?;
            let normed = rms_norm(&x, &block.between, self.eps)?;
            x = (&x + block.mlp.step(&normed)?)?;
        }
        if let Recurrence::Replay(step) = recurrence {
            replay_advance(step, placed.lens.len(), None)?;
        }
        let logits = linear(&rms_norm(&x, &self.norm, self.eps)?, &self.head)?;
        Ok(logits.to_dtype(DType::F32)?)
    }

    /// Commits drafts of a step: `accepted` counts the tokens of each sequence that stay.
    pub fn commit(&self, placed: &Placed, recurrence: Recurrence, accepted: &[u32]) -> Result<()> {
        let accepted = Tensor::from_slice(accepted, accepted.len(), &self.device)?;
        for (index, linear) in self.linear_layers().enumerate() {
            linear.commit(recurrence, index, &accepted, &placed.slots)?;
        }
        if let Recurrence::ReplayDrafts(step, _) = recurrence {
            let each = placed.lens.first().copied().unwrap_or(0);
            replay_advance(step, placed.lens.len(), Some((each, &accepted)))?;
        }
        Ok(())
    }

    /// The likeliest token of each row of logits, `[rows]`.
    pub fn likeliest(logits: &Tensor) -> Result<Tensor> {
        Ok(logits.argmax(D::Minus1)?)
    }

    /// What there is room for.
    pub fn room(&self) -> Room {
        self.room
    }

    /// Tokens of the vocabulary.
    pub fn vocabulary(&self) -> Result<usize> {
        Ok(self.head.dim(0)?)
    }

    /// Where it runs.
    pub fn device(&self) -> &Device {
        &self.device
    }
}
