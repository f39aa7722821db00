//! `config.json` as Hugging Face writes it for Qwen3-Next and Qwen3.5, and where the two differ.

use anyhow::{Context as _, Result, bail, ensure};
use gdn_candle::HeadShape;
use serde::Deserialize;
use std::path::Path;

/// What a layer mixes tokens with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mixer {
    /// Gated delta net.
    LinearAttention,
    /// Softmax attention over all tokens.
    FullAttention,
}

#[derive(Clone, Debug, Deserialize)]
struct Rope {
    partial_rotary_factor: Option<f64>,
    rope_theta: Option<f64>,
}

/// The fields that are read, under their names in the file.
#[derive(Clone, Debug, Deserialize)]
pub struct Config {
    pub model_type: String,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    pub head_dim: usize,
    pub rms_norm_eps: f64,
    pub vocab_size: usize,
    pub linear_conv_kernel_dim: usize,
    linear_key_head_dim: u32,
    linear_num_key_heads: u32,
    linear_num_value_heads: u32,
    linear_value_head_dim: u32,
    layer_types: Option<Vec<Mixer>>,
    full_attention_interval: Option<usize>,
    #[serde(default)]
    pub tie_word_embeddings: bool,
    num_experts: Option<usize>,
    pub num_experts_per_tok: Option<usize>,
    pub norm_topk_prob: Option<bool>,
    decoder_sparse_step: Option<usize>,
    #[serde(default)]
    mlp_only_layers: Vec<usize>,
    rope_parameters: Option<Rope>,
    rope_theta: Option<f64>,
    partial_rotary_factor: Option<f64>,
    #[serde(default)]
    eos_token_id: Option<serde_json::Value>,
}

impl Config {
    /// Reads a checkpoint's configuration. Of a model with images it is the language model's part.
    pub fn read(folder: &Path) -> Result<Config> {
        let path = folder.join("config.json");
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut json: serde_json::Value = serde_json::from_str(&text)?;
        if let Some(text) = json.get("text_config") {
            json = text.clone();
        }
        let config: Config =
            serde_json::from_value(json).with_context(|| format!("{} is no Qwen's", path.display()))?;
        let known = ["qwen3_next", "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text"];
        if !known.contains(&config.model_type.as_str()) {
            bail!("model_type: {:?} is none of {known:?}", config.model_type);
        }
        config.mixers()?;
        config.shape()?;
        Ok(config)
    }

    /// Whether `[q | k | v | z]` and `[b | a]` are interleaved by key head.
    pub fn is_interleaved(&self) -> bool {
        self.model_type == "qwen3_next"
    }

    /// What each layer mixes tokens with.
    pub fn mixers(&self) -> Result<Vec<Mixer>> {
        let interval = self.full_attention_interval.unwrap_or(4);
        let by_interval = |layer: usize| match (layer + 1).is_multiple_of(interval) {
            true => Mixer::FullAttention,
            false => Mixer::LinearAttention,
        };
        let mixers = self.layer_types.clone();
        let mixers = mixers.unwrap_or_else(|| (0..self.num_hidden_layers).map(by_interval).collect());
        let (have, want) = (mixers.len(), self.num_hidden_layers);
        ensure!(have == want, "layer_types: has {have} layers, num_hidden_layers is {want}");
        Ok(mixers)
    }

    /// Heads of the gated delta net.
    pub fn shape(&self) -> Result<HeadShape> {
        let (h, hv) = (self.linear_num_key_heads, self.linear_num_value_heads);
        Ok(HeadShape::new(h, hv, self.linear_key_head_dim, self.linear_value_head_dim)?)
    }

    /// Experts of a layer, if it has some.
    pub fn experts(&self, layer: usize) -> Option<usize> {
        let experts = self.num_experts.filter(|experts| *experts > 0)?;
        let step = self.decoder_sparse_step.unwrap_or(1).max(1);
        let sparse = !self.mlp_only_layers.contains(&layer) && (layer + 1).is_multiple_of(step);
        sparse.then_some(experts)
    }

    /// The base of the rotary embedding, and the dimensions of a head that are rotated.
    pub fn rope(&self) -> (f64, usize) {
        let rope = self.rope_parameters.as_ref();
        let theta = rope.and_then(|rope| rope.rope_theta).or(self.rope_theta).unwrap_or(10_000.0);
        let factor = rope.and_then(|rope| rope.partial_rotary_factor).or(self.partial_rotary_factor);
        (theta, (self.head_dim as f64 * factor.unwrap_or(0.25)) as usize)
    }

    /// Tokens that end a text.
    pub fn ends(&self) -> Vec<u32> {
        let one = |value: &serde_json::Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        match &self.eos_token_id {
            Some(serde_json::Value::Array(ids)) => ids.iter().filter_map(one).collect(),
            Some(id) => one(id).into_iter().collect(),
            None => Vec::new(),
        }
    }
}
