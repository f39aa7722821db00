//! Qwen3-Next, Qwen3.5 and Kimi-Linear on candle, with gdn's kernels in their linear layers.
//!
//! ```text
//! qwen3 --model DIR --prompt TEXT      writes on; DIR is a checkpoint as Hugging Face lays it out
//! qwen3 --golden DIR                   a recorded model: exits with 1 where a token or logit is not as recorded
//! qwen3 --bench                        a layer's step against candle's own operations
//! ```

mod bench;
mod config;
mod engine;
mod golden;
mod graph;
mod model;
mod plain;
mod weights;
mod write;

use anyhow::{Context as _, Result};
use candle_core::Device;
use clap::builder::RangedU64ValueParser;
use clap::{Parser, ValueEnum};
use engine::Manner;
use gdn_candle::Layout;
use std::num::ParseIntError;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

/// Qwen3-Next, Qwen3.5 and Kimi-Linear on candle, with gdn's kernels in their linear layers
#[derive(Parser)]
#[command(version)]
pub struct Options {
    /// A folder with a recorded model, config.json, model.safetensors and golden.safetensors, or of several such folders
    #[arg(long, value_name = "DIR", conflicts_with_all = ["model", "bench", "prompt", "ids", "tokens", "drafts"])]
    golden: Option<PathBuf>,
    /// A checkpoint: config.json, safetensors (one or many) and tokenizer.json
    #[arg(long, value_name = "DIR", conflicts_with = "bench")]
    model: Option<PathBuf>,
    /// What the text begins with; several are written at once
    #[arg(long, value_name = "TEXT")]
    prompt: Vec<String>,
    /// The same as numbers of tokens, separated by commas: for checkpoints without tokenizer.json
    #[arg(long, value_name = "IDS")]
    ids: Vec<Ids>,
    /// Tokens to write, 1 at least
    #[arg(long, default_value_t = 64, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    tokens: usize,
    /// Most drafts a step, found by looking back in the text; 0 writes a token a step. With --replay up to 7
    #[arg(long, default_value_t = 0)]
    drafts: usize,
    /// Keep records of tokens in the linear layers, and seldom write their states; with layout vk
    #[arg(long)]
    replay: bool,
    /// Launch steps of decode as CUDA graphs, of up to 32 texts; on the CPU the same steps are run one by one
    #[arg(long)]
    graphs: bool,
    /// Time a layer's step against candle's own operations
    #[arg(long)]
    bench: bool,
    /// Where to run
    #[arg(long, value_enum, default_value_t = Where::Cpu)]
    device: Where,
    /// How states lie: K contiguous or V contiguous
    #[arg(long, value_enum, default_value_t = States::Vk)]
    layout: States,
}

/// A text as numbers of tokens.
#[derive(Clone)]
struct Ids(Vec<u32>);

impl FromStr for Ids {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Ids, ParseIntError> {
        text.split(',').map(|id| id.trim().parse()).collect::<Result<_, _>>().map(Ids)
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Where {
    Cpu,
    Cuda,
}

#[derive(Clone, Copy, ValueEnum)]
enum States {
    Vk,
    Kv,
}

impl Options {
    fn device(&self) -> Result<Device> {
        let device = match self.device {
            Where::Cpu => Device::Cpu,
            Where::Cuda => {
                Device::new_cuda(0).context("--device cuda, which takes a build with --features cuda")?
            }
        };
        #[cfg(feature = "cuda")]
        if let Ok(cuda) = device.as_cuda_device() {
            // SAFETY: all work goes to one stream, that of the device. Events of tensors would not let a step be captured.
            unsafe { cuda.disable_event_tracking() };
        }
        Ok(device)
    }

    /// How texts are written with so many drafts.
    fn manner(&self, drafts: usize) -> Manner {
        Manner { drafts, replay: self.replay, graphs: self.graphs, composed: false }
    }

    fn layout(&self) -> Layout {
        match self.layout {
            States::Vk => Layout::Vk,
            States::Kv => Layout::Kv,
        }
    }
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    if let Some(folder) = &options.golden {
        let mut folders = vec![folder.clone()];
        if !folder.join("golden.safetensors").exists() {
            let inside = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
            let inside = inside.collect::<Result<Vec<_>, _>>()?.into_iter();
            folders =
                inside.map(|entry| entry.path()).filter(|path| path.join("config.json").exists()).collect();
            folders.sort();
            anyhow::ensure!(!folders.is_empty(), "{} holds no recorded model", folder.display());
        }
        let mut failed = 0;
        for folder in &folders {
            failed += usize::from(!golden::run(folder, &options)?);
        }
        println!("{} models as recorded, {failed} not", folders.len() - failed);
        return Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    if options.bench {
        bench::run(&options)?;
    } else {
        write::run(&options)?;
    }
    Ok(ExitCode::SUCCESS)
}
