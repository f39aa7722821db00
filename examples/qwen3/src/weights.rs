//! A checkpoint's tensors by name, from one safetensors file or from many.

use crate::config::Config;
use anyhow::{Context as _, Result, ensure};
use candle_core::safetensors::MmapedSafetensors;
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The tensors of a checkpoint.
pub struct Weights {
    files: MmapedSafetensors,
    /// What the names of the language model's tensors begin with.
    prefix: &'static str,
    pub device: Device,
    /// Type of the model: that of its embeddings.
    pub dtype: DType,
}

impl Weights {
    /// Opens a folder's checkpoint. Files are mapped, not read.
    pub fn open(folder: &Path, device: &Device) -> Result<Weights> {
        let paths = shards(folder)?;
        // SAFETY: nobody is expected to change a checkpoint while it is open; candle's own loaders ask the same.
        let files =
            unsafe { MmapedSafetensors::multi(&paths) }.with_context(|| format!("cannot open {paths:?}"))?;
        let embeds = |prefix: &&str| files.get(&format!("{prefix}.embed_tokens.weight")).is_ok();
        let prefix = ["model", "model.language_model"].into_iter().find(embeds);
        let prefix = prefix.with_context(|| format!("{paths:?} hold no embed_tokens.weight"))?;
        let mut weights = Weights { files, prefix, device: device.clone(), dtype: DType::F32 };
        weights.dtype = weights.get("embed_tokens.weight")?.dtype();
        Ok(weights)
    }

    /// The same for a model that works in f32.
    pub fn widened(self) -> Weights {
        Weights { dtype: DType::F32, ..self }
    }

    fn name(&self, name: &str) -> String {
        if name == "lm_head.weight" { name.to_owned() } else { format!("{}.{name}", self.prefix) }
    }

    /// Whether there is a tensor of that name.
    pub fn has(&self, name: &str) -> bool {
        self.files.get(&self.name(name)).is_ok()
    }

    /// A tensor as it is stored.
    pub fn get(&self, name: &str) -> Result<Tensor> {
        let name = self.name(name);
        self.files.load(&name, &self.device).with_context(|| format!("tensor {name}"))
    }

    /// A tensor of the model's type.
    pub fn matrix(&self, name: &str) -> Result<Tensor> {
        Ok(self.get(name)?.to_dtype(self.dtype)?)
    }

    /// The weights of a norm, in f32.
    pub fn norm(&self, config: &Config, name: &str) -> Result<Tensor> {
        Ok((self.get(name)?.to_dtype(DType::F32)? + config.norm_base())?)
    }
}

/// The files that a checkpoint's index names, or its only one.
fn shards(folder: &Path) -> Result<Vec<PathBuf>> {
    let index = folder.join("model.safetensors.index.json");
    if !index.exists() {
        return Ok(vec![folder.join("model.safetensors")]);
    }
    let text = std::fs::read_to_string(&index)?;
    let index: serde_json::Value = serde_json::from_str(&text)?;
    let map = index["weight_map"].as_object().context("the index has no weight_map")?;
    let names: BTreeSet<&str> = map.values().filter_map(|file| file.as_str()).collect();
    ensure!(!names.is_empty(), "the index names no file");
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}
