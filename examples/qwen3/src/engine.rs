//! Continuous batching: texts that arrive at any time share the steps of one model, each in a slot of its own.
//!
//! A step takes the prompt of every text that is new, or a piece of it, and one token of every other. With drafts a text that
//! is not new takes its last token and the drafts behind it, and keeps as many as the model agrees with. Choices are greedy,
//! so a text gets the tokens that it gets alone.

use crate::graph::Graphs;
use crate::model::{Batch, GATHERED, Model, Recurrence};
use anyhow::{Context as _, Result, ensure};
use candle_core::Tensor;
use gdn_candle::{DraftWindows, Drafts, Sequence, SlotAllocator, Slots, StepTables};
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

    /// Writes the next token, and returns it.
    fn choose(&mut self, likeliest: u32, logits: &Tensor) -> u32 {
        let token = self.request.forced.get(self.answer.len()).copied().unwrap_or(likeliest);
        self.answer.push(token);
        if self.request.with_logits {
            self.logits.push(logits.clone());
        }
        token
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

/// How texts are written. Their tokens are the same in every way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// Most drafts of a text and step; with records at most 7.
    pub drafts: usize,
    /// Linear layers keep records of tokens, and seldom write states.
    pub replay: bool,
    /// Steps without drafts are CUDA graphs.
    pub graphs: bool,
    /// 16-bit models are rounded where Hugging Face rounds; with none of the others.
    pub composed: bool,
}

/// Buffers for what drafts leave.
enum Buffers {
    /// States and windows.
    All(Vec<Drafts>),
    /// Windows; records are in the rings.
    Windows(Vec<DraftWindows>),
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
    drafts: Option<(usize, Buffers)>,
    graphs: Option<Graphs>,
    composed: bool,
    /// What steps came to.
    pub counts: Counts,
}

impl Engine {
    /// Of a model that was loaded for as many drafts, and with records where `manner` says so.
    pub fn new(model: Model, manner: Manner, ends: Vec<u32>) -> Result<Engine> {
        let (rows, Manner { drafts, replay, graphs, composed }) = (model.room().rows, manner);
        ensure!(!replay || drafts < 8, "--drafts: {drafts} are more than 7, with --replay");
        ensure!(
            !graphs || rows <= GATHERED,
            "--graphs: {rows} texts at once are more than {GATHERED}, the most of a step"
        );
        let buffers = match (drafts, replay) {
            (0, _) => None,
            (_, false) => Some(Buffers::All(model.drafts(rows, drafts + 1)?)),
            (_, true) => Some(Buffers::Windows(model.windows(rows, drafts + 1)?)),
        };
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
            graphs: graphs.then(Graphs::default),
            composed,
            counts: Counts::default(),
        })
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Whether steps without drafts are graphs.
    pub fn has_graphs(&self) -> bool {
        self.graphs.is_some()
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
            Some((most, buffers)) => {
                let result = self.advance(&reading, false);
                let result = result.and_then(|()| self.verify(&writing, most, &buffers));
                self.drafts = Some((most, buffers));
                result?;
            }
            // Those that write take another way than those that read.
            None if self.model.replay().is_some() || self.graphs.is_some() => {
                self.advance(&reading, false)?;
                self.advance(&writing, true)?;
            }
            None => self.advance(&[writing, reading].concat(), false)?,
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
    fn batch(&mut self, texts: &[usize], drafts: &[Vec<u32>]) -> Result<(Batch, StepTables)> {
        let sequences = self.sequences(texts);
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
        Ok((batch, tables))
    }

    fn sequences(&self, texts: &[usize]) -> Vec<Sequence> {
        texts.iter().map(|i| self.running[*i].sequence).collect()
    }

    /// A step without drafts, of texts that all write a token or of any.
    fn advance(&mut self, texts: &[usize], all_write: bool) -> Result<()> {
        if texts.is_empty() {
            return Ok(());
        }
        let (batch, tables) = self.batch(texts, &vec![Vec::new(); texts.len()])?;
        let (logits, likeliest) = match &mut self.graphs {
            // No text shares a state with another, so each is updated in its slot.
            Some(graphs) if all_write => {
                let slots: Vec<u32> = tables.write_slots.iter().map(|slot| *slot as u32).collect();
                graphs.step(&self.model, &batch, &slots)?
            }
            _ => self.last_tokens(&batch, &tables, all_write)?,
        };
        self.slots.written(&self.sequences(texts))?;
        for (n, i) in texts.iter().enumerate() {
            self.running[*i].read += batch.lens[n];
            if self.running[*i].read == self.running[*i].text.len() {
                self.running[*i].text.choose(likeliest[n], &logits.get(n)?);
            }
        }
        Ok(())
    }

    /// The logits of each text's last token, and the likeliest tokens.
    fn last_tokens(&self, batch: &Batch, tables: &StepTables, all_write: bool) -> Result<(Tensor, Vec<u32>)> {
        let (placed, device) = (batch.place(self.model.device())?, self.model.device());
        let logits = match self.model.replay() {
            Some(states) if all_write => {
                self.model.step(&placed, Recurrence::Replay(&states.begin(tables)?))?
            }
            // Prompts are read by calls that write states: until a text writes, its ring is empty.
            states => {
                if let Some(states) = states {
                    states.empty(&Tensor::from_slice(
                        &tables.write_slots,
                        tables.write_slots.len(),
                        device,
                    )?)?;
                }
                let recurrence = if self.composed { Recurrence::Composed } else { Recurrence::Plain };
                self.model.step(&placed, recurrence)?
            }
        };
        let ends = batch.lens.iter().scan(0, |end, len| {
            *end += len;
            Some(*end as u32 - 1)
        });
        let logits = logits.index_select(&Tensor::from_iter(ends, device)?, 0)?;
        let likeliest = Model::likeliest(&logits)?.to_vec1()?;
        Ok((logits, likeliest))
    }

    /// A step with drafts: what they leave lies in buffers or rings until it is known how many are kept.
    fn verify(&mut self, texts: &[usize], most: usize, buffers: &Buffers) -> Result<()> {
        if texts.is_empty() {
            return Ok(());
        }
        let drafts: Vec<Vec<u32>> = texts.iter().map(|i| self.running[*i].text.drafts(most)).collect();
        let mut tried = drafts.clone();
        if matches!(buffers, Buffers::Windows(_)) {
            // With records every text has as many drafts; those that fill up are never kept.
            let longest = drafts.iter().map(Vec::len).max().unwrap_or(0);
            tried.iter_mut().for_each(|drafts| drafts.resize(longest, 0));
        }
        let (batch, tables) = self.batch(texts, &tried)?;
        let placed = batch.place(self.model.device())?;
        let step = self.model.replay().map(|states| states.begin(&tables)).transpose()?;
        let recurrence = match (buffers, &step) {
            (Buffers::All(buffers), _) => Recurrence::Drafts(buffers),
            (Buffers::Windows(windows), Some(step)) => Recurrence::ReplayDrafts(step, windows),
            (Buffers::Windows(_), None) => anyhow::bail!("the model has no rings"),
        };
        let logits = self.model.step(&placed, recurrence)?;
        let likeliest: Vec<u32> = Model::likeliest(&logits)?.to_vec1()?;
        let (mut accepted, mut from) = (Vec::new(), 0);
        for ((i, drafts), len) in texts.iter().zip(&drafts).zip(&batch.lens) {
            let mut kept = 0;
            loop {
                let row = from + kept;
                let chosen = self.running[*i].text.choose(likeliest[row], &logits.get(row)?);
                let agrees = drafts.get(kept).is_some_and(|draft| *draft == chosen);
                if !agrees || self.running[*i].text.is_done(&self.ends) {
                    break;
                }
                kept += 1;
            }
            self.running[*i].read += 1 + kept;
            accepted.push(1 + kept as u32);
            from += len;
            self.counts.drafted += drafts.len();
            self.counts.accepted += kept;
        }
        self.model.commit(&placed, recurrence, &accepted)?;
        Ok(self.slots.written(&self.sequences(texts))?)
    }
}
