//! `config.json` as Hugging Face writes it for Qwen3-Next, Qwen3.5 and Kimi-Linear, and where they differ.

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

/// What linear layers are, in checkpoints of Kimi-Linear; layers are counted from 1.
#[derive(Clone, Debug, Deserialize)]
struct KimiLayers {
    head_dim: u32,
    num_heads: u32,
    short_conv_kernel_size: usize,
    full_attn_layers: Vec<usize>,
}

/// Dimensions of latent attention (MLA), in Kimi-Linear.
#[derive(Clone, Debug, Deserialize)]
pub struct Latent {
    /// What keys and values are made of.
    pub kv_lora_rank: usize,
    /// Of a head's key, those of its own.
    pub qk_nope_head_dim: usize,
    /// Of a head's key, those that all heads share.
    pub qk_rope_head_dim: usize,
    /// Of a head's value.
    pub v_head_dim: usize,
    q_lora_rank: Option<usize>,
}

/// The fields that are read, under their names in the file.
#[derive(Clone, Debug, Deserialize)]
pub struct Config {
    pub model_type: String,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    #[serde(default)]
    pub head_dim: usize,
    pub rms_norm_eps: f64,
    pub vocab_size: usize,
    linear_conv_kernel_dim: Option<usize>,
    #[serde(alias = "linear_head_dim")]
    linear_key_head_dim: Option<u32>,
    #[serde(alias = "linear_num_heads")]
    linear_num_key_heads: Option<u32>,
    linear_num_value_heads: Option<u32>,
    linear_value_head_dim: Option<u32>,
    linear_attn_config: Option<KimiLayers>,
    #[serde(flatten)]
    pub latent: Option<Latent>,
    layer_types: Option<Vec<Mixer>>,
    full_attention_interval: Option<usize>,
    #[serde(default)]
    pub tie_word_embeddings: bool,
    num_experts: Option<usize>,
    #[serde(alias = "num_experts_per_token")]
    pub num_experts_per_tok: Option<usize>,
    #[serde(alias = "moe_renormalize")]
    pub norm_topk_prob: Option<bool>,
    pub routed_scaling_factor: Option<f64>,
    num_expert_group: Option<usize>,
    mlp_layer_types: Option<Vec<String>>,
    first_k_dense_replace: Option<usize>,
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
            serde_json::from_value(json).with_context(|| format!("{} is no model's", path.display()))?;
        let known =
            ["qwen3_next", "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text", "kimi_linear"];
        if !known.contains(&config.model_type.as_str()) {
            bail!("model_type: {:?} is none of {known:?}", config.model_type);
        }
        if config.is_kimi() {
            let latent = config.latent.as_ref().context("kv_lora_rank and what belongs to it are missing")?;
            ensure!(latent.q_lora_rank.is_none(), "q_lora_rank: queries of low rank are not read");
            let groups = config.num_expert_group.unwrap_or(1);
            ensure!(groups == 1, "num_expert_group: {groups} groups of experts are not read");
        }
        config.mixers()?;
        config.shape()?;
        config.taps()?;
        Ok(config)
    }

    /// Whether it is Kimi-Linear: KDA in linear layers, latent attention in the others.
    pub fn is_kimi(&self) -> bool {
        self.model_type == "kimi_linear"
    }

    /// What is added to the weights of norms: Qwen stores what they differ from 1 by.
    pub fn norm_base(&self) -> f64 {
        if self.is_kimi() { 0.0 } else { 1.0 }
    }

    /// Whether `[q | k | v | z]` and `[b | a]` are interleaved by key head.
    pub fn is_interleaved(&self) -> bool {
        self.model_type == "qwen3_next"
    }

    /// What each layer mixes tokens with.
    pub fn mixers(&self) -> Result<Vec<Mixer>> {
        let interval = self.full_attention_interval.unwrap_or(4);
        let is_full = |layer: usize| match &self.linear_attn_config {
            Some(kimi) => kimi.full_attn_layers.contains(&(layer + 1)),
            None => (layer + 1).is_multiple_of(interval),
        };
        let of = |layer| if is_full(layer) { Mixer::FullAttention } else { Mixer::LinearAttention };
        let mixers = self.layer_types.clone();
        let mixers = mixers.unwrap_or_else(|| (0..self.num_hidden_layers).map(of).collect());
        let (have, want) = (mixers.len(), self.num_hidden_layers);
        ensure!(have == want, "layer_types: has {have} layers, num_hidden_layers is {want}");
        Ok(mixers)
    }

    /// Heads of linear layers.
    pub fn shape(&self) -> Result<HeadShape> {
        let kimi = self.linear_attn_config.as_ref();
        let h = kimi.map(|kimi| kimi.num_heads).or(self.linear_num_key_heads);
        let k = kimi.map(|kimi| kimi.head_dim).or(self.linear_key_head_dim);
        let h = h.context("linear_num_key_heads is missing")?;
        let k = k.context("linear_key_head_dim is missing")?;
        let (hv, v) = (self.linear_num_value_heads.unwrap_or(h), self.linear_value_head_dim.unwrap_or(k));
        Ok(HeadShape::new(h, hv, k, v)?)
    }

    /// Taps of the convolution in linear layers.
    pub fn taps(&self) -> Result<usize> {
        let kimi = self.linear_attn_config.as_ref().map(|kimi| kimi.short_conv_kernel_size);
        kimi.or(self.linear_conv_kernel_dim).context("linear_conv_kernel_dim is missing")
    }

    /// Experts of a layer, if it has some.
    pub fn experts(&self, layer: usize) -> Option<usize> {
        let experts = self.num_experts.filter(|experts| *experts > 0)?;
        if let Some(kinds) = &self.mlp_layer_types {
            return (kinds.get(layer).map(String::as_str) == Some("sparse")).then_some(experts);
        }
        if layer < self.first_k_dense_replace.unwrap_or(usize::from(self.is_kimi())) {
            return None;
        }
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
