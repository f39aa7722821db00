//! Texts written with a checkpoint.

use crate::Options;
use crate::config::Config;
use crate::engine::{Engine, Request};
use crate::model::{Model, Room};
use crate::weights::Weights;
use anyhow::{Context as _, Result, ensure};
use tokenizers::Tokenizer;

/// Writes what the options ask for.
pub fn run(options: &Options) -> Result<()> {
    let folder = options.model.as_ref().context("name a checkpoint with --model, or see --help")?;
    let (config, device) = (Config::read(folder)?, options.device()?);
    let file = folder.join("tokenizer.json");
    let tokenizer =
        file.exists().then(|| Tokenizer::from_file(&file)).transpose().map_err(anyhow::Error::msg)?;
    let mut prompts: Vec<Vec<u32>> = Vec::new();
    for prompt in &options.prompt {
        let tokenizer = tokenizer.as_ref().with_context(|| format!("{} is not there", file.display()))?;
        prompts.push(tokenizer.encode(prompt.as_str(), true).map_err(anyhow::Error::msg)?.get_ids().to_vec());
    }
    prompts.extend(options.ids.iter().map(|ids| ids.0.clone()));
    ensure!(!prompts.is_empty(), "name a prompt with --prompt or --ids");
    let known = config.vocab_size as u32;
    for id in prompts.iter().flatten() {
        ensure!(*id < known, "--ids: {id} is past the vocabulary of {known} tokens");
    }
    let room = prompts.iter().map(Vec::len).max().unwrap_or(0) + options.tokens + options.drafts;
    let weights = Weights::open(folder, &device)?;
    let room = Room { rows: prompts.len(), tokens: room, drafts: options.drafts };
    let model = Model::load(&config, &weights, options.layout(), room, options.replay)?;
    let mut engine = Engine::new(model, options.manner(options.drafts), config.ends())?;
    for prompt in prompts {
        engine.arrive(Request { prompt, wanted: options.tokens, ..Default::default() })?;
    }
    let texts = engine.finish()?;
    let counts = engine.counts;
    let seconds = counts.seconds;
    let tokens: usize = texts.iter().map(|text| text.answer.len()).sum();
    for text in &texts {
        match &tokenizer {
            Some(tokenizer) => {
                println!("{}", tokenizer.decode(&text.answer, true).map_err(anyhow::Error::msg)?)
            }
            None => println!("{:?}", text.answer),
        }
    }
    eprintln!(
        "{tokens} tokens in {seconds:.2} s, {:.1} tokens/s, {} steps",
        tokens as f64 / seconds,
        counts.steps
    );
    if options.drafts > 0 {
        eprintln!("{} of {} drafts kept", counts.accepted, counts.drafted);
    }
    if let Some(share) = crate::bench::share(&engine, texts.len())? {
        eprintln!("{share}");
    }
    Ok(())
}
