//! A recorded model: the tokens and logits that it must give, alone, beside others, and with drafts.

use crate::Options;
use crate::bench;
use crate::config::Config;
use crate::engine::{Counts, Engine, Manner, Request, Text};
use crate::model::{Model, Room};
use crate::weights::Weights;
use anyhow::{Context as _, Result, ensure};
use candle_core::{DType, Device, Tensor};
use std::path::Path;

/// What logits of a model in f32 may be off by.
const LIMIT: f32 = 1e-3;
/// And of one in 16 bits that is rounded where the recording is: what the recording's framework differs from itself by.
const NARROW_LIMIT: f32 = 0.5;

/// What was recorded.
struct Golden {
    prompt: Vec<u32>,
    tokens: Vec<u32>,
    /// `[tokens, vocabulary]`.
    logits: Vec<Vec<f32>>,
}

impl Golden {
    fn read(folder: &Path) -> Result<Golden> {
        let file = folder.join("golden.safetensors");
        let tensors = candle_core::safetensors::load(&file, &Device::Cpu)
            .with_context(|| format!("cannot read {}", file.display()))?;
        let get = |name: &str| tensors.get(name).with_context(|| format!("{} has no {name}", file.display()));
        let tokens = |name: &str| Ok::<_, anyhow::Error>(get(name)?.to_dtype(DType::U32)?.to_vec1()?);
        let golden = Golden {
            prompt: tokens("prompt")?,
            tokens: tokens("tokens")?,
            logits: get("logits")?.to_dtype(DType::F32)?.to_vec2()?,
        };
        ensure!(golden.tokens.len() == golden.logits.len(), "there are not as many logits as tokens");
        Ok(golden)
    }
}

/// Runs a recorded model every way, says what came of it, and whether all is as recorded.
pub fn run(folder: &Path, options: &Options) -> Result<bool> {
    let golden = Golden::read(folder)?;
    let (config, device) = (Config::read(folder)?, options.device()?);
    let weights = Weights::open(folder, &device)?;
    let room = golden.prompt.len() + golden.tokens.len() + 8;
    let engine_of = |weights: &Weights, rows: usize, manner: Manner| {
        let room = Room { rows, tokens: room, drafts: manner.drafts };
        let model = Model::load(&config, weights, options.layout(), room, manner.replay)?;
        Engine::new(model, manner, Vec::new())
    };
    let is_wide = weights.dtype == DType::F32;
    println!("{} ({:?}, {:?}, {:?})", folder.display(), weights.dtype, device.location(), options.layout());

    // Narrow models follow the recorded tokens: their own choice may differ where two are nearly as likely.
    let forced = if is_wide { Vec::new() } else { golden.tokens.clone() };
    let wanted = golden.tokens.len();
    let request = |prompt: &[u32]| Request { prompt: prompt.to_vec(), wanted, ..Default::default() };
    // Drafts that are right, but for one in five.
    let draft = |(i, token): (usize, &u32)| if i % 5 == 3 { token ^ 1 } else { *token };
    let hints: Vec<u32> = golden.tokens.iter().enumerate().map(draft).collect();
    let alone = |weights: &Weights, prompt: &[u32], manner: Manner| -> Result<(Text, Engine)> {
        let mut engine = engine_of(weights, 1, manner)?;
        let (forced, hints) = (forced.clone(), hints.clone());
        engine.arrive(Request { forced, hints, with_logits: true, ..request(prompt) })?;
        let text = engine.finish()?.pop().context("no text was written")?;
        Ok((text, engine))
    };
    let mut all = true;
    let mut report_errors = |what: &str, have: &[Vec<f32>], want: &[Vec<f32>], limit: f32| -> Result<()> {
        let Errors { largest, near } = Errors::of(have, want)?;
        let rows = have.len();
        println!(
            "  {what:<24}  logits within {largest:.2e}, allowed {limit:.1e}; {near} of {rows} rows within 0.5"
        );
        all &= largest <= limit;
        Ok(())
    };
    // What kernels give is held against the recording in f32, and in 16 bits against the model as it is in f32.
    let (against, want, limit) = if is_wide {
        ("against the recording", golden.logits.clone(), LIMIT)
    } else {
        let composed = Manner { composed: true, ..Manner::default() };
        let (rounded, _) = alone(&weights, &golden.prompt, composed)?;
        report_errors("rounded as the recording", &rows_of(&rounded)?, &golden.logits, NARROW_LIMIT)?;
        let wide = Weights::open(folder, &device)?.widened();
        let exact = rows_of(&alone(&wide, &golden.prompt, Manner::default())?.0)?;
        let recorded = Errors::of(&golden.logits, &exact)?.largest;
        ("against itself in f32", exact, recorded)
    };
    let (plain, engine) = alone(&weights, &golden.prompt, options.manner(0))?;
    report_errors(against, &rows_of(&plain)?, &want, limit)?;
    let Counts { steps, seconds, .. } = engine.counts;
    let share = bench::share(&engine, 1)?.map_or_else(String::new, |share| format!(", {share}"));
    println!("  {:.0} tokens/s in {steps} steps{share}", wanted as f64 / seconds);
    let (drafted, engine) = alone(&weights, &golden.prompt, options.manner(3))?;
    report_errors("the same, with drafts", &rows_of(&drafted)?, &want, limit)?;
    all &= report("alone", &plain.answer, &golden.tokens);
    all &= report("alone, with drafts", &drafted.answer, &plain.answer);
    let Counts { steps, drafted, accepted, .. } = engine.counts;
    println!("  {accepted} of {drafted} drafts kept in {steps} steps");
    if is_wide {
        let engine = |rows: usize, drafts: usize| engine_of(&weights, rows, options.manner(drafts));
        let alone = |prompt: &[u32]| Ok(alone(&weights, prompt, options.manner(0))?.0.answer);
        all &= together(&golden, &request, &alone, &engine)?;
    }
    Ok(all)
}

/// Several texts at once, in two orders of arrival: each gets the tokens that it gets alone.
fn together(
    golden: &Golden,
    request: &dyn Fn(&[u32]) -> Request,
    alone: &dyn Fn(&[u32]) -> Result<Vec<u32>>,
    engine: &dyn Fn(usize, usize) -> Result<Engine>,
) -> Result<bool> {
    // The recorded prompt, and others that are made of it.
    let mut prompts = vec![golden.prompt.clone()];
    for cut in [3, 7, 12] {
        let (front, back) = golden.prompt.split_at(cut.min(golden.prompt.len()));
        prompts.push([back, &front[..cut / 2]].concat());
    }
    let mut want = vec![golden.tokens.clone()];
    for prompt in &prompts[1..] {
        want.push(alone(prompt)?);
    }
    let mut all = true;
    // Fewer rows than texts: the last one waits until another is done.
    for (name, order, drafts) in
        [("together", [0, 1, 2, 3], 0), ("other order", [3, 1, 0, 2], 0), ("with drafts", [2, 0, 3, 1], 3)]
    {
        let mut engine = engine(3, drafts)?;
        for (i, text) in order.iter().enumerate() {
            engine.arrive(request(&prompts[*text]))?;
            // They arrive while others are being written.
            for _ in 0..2 * i {
                engine.step()?;
            }
        }
        let written = engine.finish()?;
        for (text, of) in written.iter().zip(order) {
            all &= report(&format!("{name}, text {of}"), &text.answer, &want[of]);
        }
    }
    Ok(all)
}

/// Says how many tokens are as they should be.
fn report(what: &str, have: &[u32], want: &[u32]) -> bool {
    let matched = have.iter().zip(want).take_while(|(have, want)| have == want).count();
    println!("  {what:<24}  {matched} of {} tokens", want.len());
    matched == want.len() && have.len() == want.len()
}

/// How far logits are from the recorded ones.
struct Errors {
    largest: f32,
    /// Rows without an error above 0.5.
    near: usize,
}

impl Errors {
    fn of(have: &[Vec<f32>], want: &[Vec<f32>]) -> Result<Errors> {
        ensure!(have.len() == want.len(), "{} rows of logits, {} are recorded", have.len(), want.len());
        let mut errors = Errors { largest: 0.0, near: 0 };
        for (have, want) in have.iter().zip(want) {
            let each = have.iter().zip(want).map(|(have, want)| (have - want).abs());
            // A NaN is as far off as can be.
            let row =
                each.fold(0f32, |row, error| if error.is_nan() { f32::INFINITY } else { row.max(error) });
            errors.largest = errors.largest.max(row);
            errors.near += usize::from(row <= NARROW_LIMIT);
        }
        Ok(errors)
    }
}

/// The logits that a text's tokens were chosen from.
fn rows_of(text: &Text) -> Result<Vec<Vec<f32>>> {
    Ok(text.logits.iter().map(Tensor::to_vec1).collect::<candle_core::Result<_>>()?)
}
