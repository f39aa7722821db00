//! Continuous batching: texts that arrive at any time share the steps of one model, each in a slot of its own.
//!
//! A step takes the prompt of every text that is new, or a piece of it, and one token of every other. With drafts a text that
//! is not new takes its last token and the drafts behind it, and keeps as many as the model agrees with. Choices are greedy,
//! so a text gets the tokens that it gets alone.

use crate::model::{Batch, Model};
use anyhow::{Context as _, Result, ensure};
use candle_core::Tensor;
use gdn_candle::{Drafts, Sequence, SlotAllocator, Slots};
use std::collections::VecDeque;
use std::time::Instant;

/// Most tokens of a prompt that a step takes.
const PIECE: usize = 256;

/// A text to be written.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// What it begins with.
    pub prompt: Vec<u32>,
    /// Tokens that are wanted.
    pub wanted: usize,
    /// Tokens that are taken instead of the likeliest ones, as far as there are some.
    pub forced: Vec<u32>,
    /// Drafts of the answer that the caller has, instead of those found by looking back in the text.
    pub hints: Vec<u32>,
    /// Keep the logits that tokens were chosen from.
    pub with_logits: bool,
}

/// A text as far as it was written.
#[derive(Debug)]
pub struct Text {
    /// Number of the request, in the order of arrival.
    pub id: usize,
    request: Request,
    /// Its answer.
    pub answer: Vec<u32>,
    /// The logits that each token of the answer was chosen from.
    pub logits: Vec<Tensor>,
}

impl Text {
    /// Token `i` of prompt and answer.
    fn token(&self, i: usize) -> u32 {
        let prompt = &self.request.prompt;
        if i < prompt.len() { prompt[i] } else { self.answer[i - prompt.len()] }
    }

    fn len(&self) -> usize {
        self.request.prompt.len() + self.answer.len()
    }

    fn is_done(&self, ends: &[u32]) -> bool {
        let ended = self.answer.last().is_some_and(|last| ends.contains(last));
        ended || self.answer.len() >= self.request.wanted
    }

    /// At most `most` drafts: hints, or the tokens that stood behind the last place where the last two tokens stood, or the
    /// last one.
    fn drafts(&self, most: usize) -> Vec<u32> {
        if let Some(hints) = self.request.hints.get(self.answer.len()..).filter(|hints| !hints.is_empty()) {
            return hints.iter().copied().take(most).collect();
        }
        let all: Vec<u32> = (0..self.len()).map(|i| self.token(i)).collect();
        for gram in [2, 1] {
            let Some(last) = all.len().checked_sub(gram) else { continue };
            let found = (0..last).rev().find(|at| all[*at..at + gram] == all[last..]);
            if let Some(at) = found {
                return all[at + gram..].iter().copied().take(most).collect();
            }
        }
        Vec::new()
    }
}

/// A text that has a slot.
struct Running {
    text: Text,
    sequence: Sequence,
    /// Its row in the caches of full attention.
    row: u32,
    /// Tokens that the model has read.
    read: usize,
}

impl Running {
    /// Whether all tokens but the last one were read: the next step chooses a token.
    fn is_writing(&self) -> bool {
        self.read + 1 == self.text.len() && !self.text.answer.is_empty()
    }
}

/// What steps came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Steps.
    pub steps: usize,
    /// Drafts that were tried.
    pub drafted: usize,
    /// Drafts that were kept.
    pub accepted: usize,
    /// What the steps took.
    pub seconds: f64,
}

/// A model and the texts that it writes.
pub struct Engine {
    model: Model,
    ends: Vec<u32>,
    slots: SlotAllocator,
    rows: Vec<u32>,
    waiting: VecDeque<Text>,
    running: Vec<Running>,
    done: Vec<Text>,
    arrived: usize,
    /// Most drafts of a text, and the buffers for them.
    drafts: Option<(usize, Vec<Drafts>)>,
    /// What steps came to.
    pub counts: Counts,
}

impl Engine {
    /// Of a model with room for `rows` texts, which write at most `drafts` drafts a step.
    pub fn new(model: Model, rows: usize, drafts: usize, ends: Vec<u32>) -> Result<Engine> {
        let buffers = (drafts > 0).then(|| model.drafts(rows, drafts + 1)).transpose()?;
        Ok(Engine {
            model,
            ends,
            slots: SlotAllocator::new(rows as u32, None),
            rows: (0..rows as u32).rev().collect(),
            waiting: VecDeque::new(),
            running: Vec::new(),
            done: Vec::new(),
            arrived: 0,
            drafts: buffers.map(|buffers| (drafts, buffers)),
            counts: Counts::default(),
        })
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Takes a request; its number is returned.
    pub fn arrive(&mut self, request: Request) -> Result<usize> {
        ensure!(!request.prompt.is_empty(), "prompt: is empty");
        let id = self.arrived;
        self.arrived += 1;
        self.waiting.push_back(Text { id, request, answer: Vec::new(), logits: Vec::new() });
        Ok(id)
    }

    /// Whether every text was written.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// The texts that were written since the last call.
    pub fn take_done(&mut self) -> Vec<Text> {
        std::mem::take(&mut self.done)
    }

    /// Writes every text that arrived, and returns them in the order of arrival.
    pub fn finish(&mut self) -> Result<Vec<Text>> {
        while !self.is_idle() {
            self.step()?;
        }
        let mut done = self.take_done();
        done.sort_by_key(|text| text.id);
        Ok(done)
    }

    /// A step of all texts that have a slot.
    pub fn step(&mut self) -> Result<()> {
        let start = Instant::now();
        let result = self.step_all();
        self.counts.seconds += start.elapsed().as_secs_f64();
        result
    }

    fn step_all(&mut self) -> Result<()> {
        self.admit()?;
        let (writing, reading): (Vec<usize>, Vec<usize>) =
            (0..self.running.len()).partition(|i| self.running[*i].is_writing());
        self.counts.steps += 1;
        match self.drafts.take() {
            None => self.advance(&[writing, reading].concat())?,
            Some((most, buffers)) => {
                let result = self.advance(&reading).and_then(|()| self.verify(&writing, most, &buffers));
                self.drafts = Some((most, buffers));
                result?;
            }
        }
        self.retire()
    }

    /// Gives slots to texts that wait, as long as there are some.
    fn admit(&mut self) -> Result<()> {
        while !self.waiting.is_empty() && self.slots.available() > self.running.len() {
            let Some(row) = self.rows.pop() else { break };
            let sequence = self.slots.begin()?;
            let text = self.waiting.pop_front().context("nobody waits")?;
            self.running.push(Running { text, sequence, row, read: 0 });
        }
        Ok(())
    }

    /// Lets go of the texts that are done.
    fn retire(&mut self) -> Result<()> {
        let (done, running) = std::mem::take(&mut self.running)
            .into_iter()
            .partition(|running| running.text.is_done(&self.ends));
        self.running = running;
        for Running { text, sequence, row, .. } in done {
            self.slots.finish(sequence)?;
            self.rows.push(row);
            self.done.push(text);
        }
        Ok(())
    }

    /// The tokens of a step: for each text its next ones, and the drafts behind them.
    fn batch(&mut self, texts: &[usize], drafts: &[Vec<u32>]) -> Result<(Batch, Vec<Sequence>)> {
        let sequences: Vec<Sequence> = texts.iter().map(|i| self.running[*i].sequence).collect();
        let tables = self.slots.step(&sequences)?;
        let slots = Slots::step(&tables, self.model.device())?;
        let mut batch =
            Batch { tokens: Vec::new(), lens: Vec::new(), starts: Vec::new(), rows: Vec::new(), slots };
        for (i, drafts) in texts.iter().zip(drafts) {
            let Running { text, row, read, .. } = &self.running[*i];
            let end = text.len().min(read + PIECE);
            batch.tokens.extend((*read..end).map(|place| text.token(place)));
            batch.tokens.extend(drafts);
            batch.lens.push(end - read + drafts.len());
            batch.starts.push(*read);
            batch.rows.push(*row);
        }
        Ok((batch, sequences))
    }

    /// A step without drafts.
    fn advance(&mut self, texts: &[usize]) -> Result<()> {
        if texts.is_empty() {
            return Ok(());
        }
        let (batch, sequences) = self.batch(texts, &vec![Vec::new(); texts.len()])?;
        let logits = self.model.step(&batch, None)?;
        self.slots.written(&sequences)?;
        let ends = batch.lens.iter().scan(0, |end, len| {
            *end += len;
            Some(*end as u32 - 1)
        });
        let last = Tensor::from_iter(ends, logits.device())?;
        let logits = logits.index_select(&last, 0)?;
        let likeliest = Model::likeliest(&logits)?;
        for (n, i) in texts.iter().enumerate() {
            self.running[*i].read += batch.lens[n];
            if self.running[*i].read == self.running[*i].text.len() {
                self.choose(*i, likeliest[n], &logits.get(n)?);
            }
        }
        Ok(())
    }

    /// A step with drafts: the states that they leave lie in the buffers until it is known how many are kept.
    fn verify(&mut self, texts: &[usize], most: usize, buffers: &[Drafts]) -> Result<()> {
        if texts.is_empty() {
            return Ok(());
        }
        let drafts: Vec<Vec<u32>> = texts.iter().map(|i| self.running[*i].text.drafts(most)).collect();
        let (batch, sequences) = self.batch(texts, &drafts)?;
        let logits = self.model.step(&batch, Some(buffers))?;
        let likeliest = Model::likeliest(&logits)?;
        let (mut accepted, mut from) = (Vec::new(), 0);
        for (i, drafts) in texts.iter().zip(&drafts) {
            let mut kept = 0;
            loop {
                let row = from + kept;
                let chosen = self.choose(*i, likeliest[row], &logits.get(row)?);
                let agrees = drafts.get(kept).is_some_and(|draft| *draft == chosen);
                if !agrees || self.running[*i].text.is_done(&self.ends) {
                    break;
                }
                kept += 1;
            }
            self.running[*i].read += 1 + kept;
            accepted.push(1 + kept as u32);
            from += 1 + drafts.len();
            self.counts.drafted += drafts.len();
            self.counts.accepted += kept;
        }
        self.model.commit(buffers, &accepted, &batch.slots)?;
        Ok(self.slots.written(&sequences)?)
    }

    /// Writes the next token of a text, and returns it.
    fn choose(&mut self, i: usize, likeliest: u32, logits: &Tensor) -> u32 {
        let text = &mut self.running[i].text;
        let token = text.request.forced.get(text.answer.len()).copied().unwrap_or(likeliest);
        text.answer.push(token);
        if text.request.with_logits {
            text.logits.push(logits.clone());
        }
        token
    }
}
