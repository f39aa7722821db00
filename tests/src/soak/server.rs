//! The server: which sequences there are, what the next step does with them, and whether each still has its own state.

use super::alone::Alone;
use super::layer::{Drafts, Layer, Memory, NULL_SLOT};
use super::step::{Field, Form, Kind, MOST_TOKENS, Tables};
use super::tokens::Lineage;
use super::{Options, Plant, Size, Summary};
use crate::device::Device;
use crate::random::Noise;
use anyhow::{Context as _, Result, bail, ensure};
use gdn_host::Operation;
use gdn_host::slots::{Sequence, SlotAllocator, SlotError, Snapshot, StepTables};
use std::collections::HashMap;

/// Snapshots that the server remembers.
const MOST_SNAPSHOTS: usize = 48;

/// Indices that name no slot.
const NO_SLOTS: [i32; 4] = [-1, NULL_SLOT, i32::MAX, i32::MIN];

/// A sequence, and what is known of it.
#[derive(Clone)]
struct Live {
    /// Its number, for people.
    number: usize,
    sequence: Sequence,
    tokens: Lineage,
    /// Tokens at which it finishes.
    limit: usize,
    /// The slot that holds its state, if it has one.
    slot: Option<usize>,
    /// The last step that wrote it.
    last: Option<(u64, Kind)>,
}

/// A cached prefix.
struct Prefix {
    snapshot: Snapshot,
    tokens: Lineage,
    slot: usize,
    is_held: bool,
}

/// A sequence that was swapped out, and its bytes in each layer.
struct Parked {
    live: Live,
    saved: Vec<Vec<u8>>,
}

/// A step's calls in each layer, and the number of the graph that they may be replayed from.
struct Calls {
    graph: u64,
    layers: Vec<Vec<Box<dyn Operation>>>,
}

/// A server and its device.
pub struct Server<'a> {
    device: &'a mut dyn Device,
    options: Options,
    layers: Vec<Layer>,
    memory: Vec<Memory>,
    drafts: Vec<Drafts>,
    alone: Alone,
    tables: Tables,
    calls: HashMap<Form, Calls>,
    slots: SlotAllocator,
    live: Vec<Live>,
    parked: Vec<Parked>,
    prefixes: Vec<Prefix>,
    noise: Noise,
    step: u64,
    /// The mistake that is still to be made.
    plant: Option<Plant>,
    summary: Summary,
}

/// A sequence of a step: its place among the live ones, its row, and how many of its tokens count.
struct Member {
    live: usize,
    row: usize,
    tokens: usize,
    accepted: usize,
}

impl<'a> Server<'a> {
    /// An empty server.
    ///
    /// # Errors
    /// A device without the memory.
    pub fn new(device: &'a mut dyn Device, options: &Options) -> Result<Server<'a>> {
        device.reset();
        let (size, mut noise) = (options.size, Noise::new(options.seed));
        let rows = size.most_rows();
        let layers = Layer::all(device, &size, &mut noise)?;
        let slots = size.slots as usize + rows * MOST_TOKENS;
        let memory = layers.iter().map(|layer| layer.memory(device, rows * MOST_TOKENS, slots));
        let memory = memory.collect::<Result<_>>()?;
        let drafts = layers.iter().map(|layer| layer.drafts(device, rows, size.slots as usize));
        let drafts = drafts.collect::<Result<_>>()?;
        let (alone, tables) = (Alone::new(device, &layers)?, Tables::new(device, rows)?);
        Ok(Server {
            device,
            options: *options,
            layers,
            memory,
            drafts,
            alone,
            tables,
            calls: HashMap::new(),
            slots: SlotAllocator::new(size.slots, Some(NULL_SLOT as u32)),
            live: Vec::new(),
            parked: Vec::new(),
            prefixes: Vec::new(),
            noise,
            step: 0,
            plant: options.plant,
            summary: Summary::new(),
        })
    }

    /// What was done so far.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    fn size(&self) -> Size {
        self.options.size
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.noise.below(100) < percent
    }

    /// Lets sequences come, go and move, then runs a step of some of them.
    ///
    /// # Errors
    /// A sequence whose state is not its own; a call that the device refuses.
    pub fn step(&mut self) -> Result<()> {
        self.step += 1;
        self.change().with_context(|| format!("before step {}", self.step))?;
        let mut members = self.choose();
        let sequences: Vec<Sequence> = members.iter().map(|m| self.live[m.live].sequence).collect();
        let tables = match self.slots.step(&sequences) {
            Ok(tables) => tables,
            Err(SlotError::Full { .. }) => return self.make_room(),
            Err(error) => bail!("step {}: {error}", self.step),
        };
        self.check_tables(&members, &tables)?;
        let form = self.fill(&mut members, &tables)?;
        self.run(form).with_context(|| format!("step {}: {form:?}", self.step))?;
        self.wrote(form, &members, &tables)?;

        let one_in = self.options.check_one_in;
        for member in &members {
            if self.noise.below(one_in) == 0 {
                let live = self.live[member.live].clone();
                self.check(&live)?;
            }
        }
        self.finish_those_done()
    }

    /// Checks every sequence and every snapshot, ends all, and looks whether every slot is free again.
    ///
    /// # Errors
    /// As [`Self::step`]; a slot that is lost.
    pub fn end(mut self) -> Result<Summary> {
        while let Some(live) = self.live.pop() {
            self.check_and_finish(live)?;
        }
        while !self.parked.is_empty() {
            ensure!(self.resume(0)?, "a parked sequence finds no slot in an empty pool");
            let live = self.live.pop().context("a sequence that was resumed is not there")?;
            self.check_and_finish(live)?;
        }
        while let Some(prefix) = self.prefixes.pop() {
            if self.slots.hold(prefix.snapshot).is_ok() {
                self.check_bytes("a snapshot", &prefix.tokens, prefix.slot, None)?;
                self.slots.release(prefix.snapshot)?;
            }
            if prefix.is_held {
                self.slots.release(prefix.snapshot)?;
            }
        }
        let (free, all) = (self.slots.available(), self.size().slots as usize - 1);
        ensure!(free == all, "{} slots are lost: {free} of {all} are free when all has ended", all - free);
        Ok(self.summary)
    }

    // What happens between steps.

    fn change(&mut self) -> Result<()> {
        let most = self.size().live;
        // A crowd that grows and shrinks: half of the time there is room for a quarter only.
        let wanted = if (self.step / 64).is_multiple_of(2) { most } else { most / 4 };
        let arrivals = wanted.saturating_sub(self.live.len()).min(1 + most / 8);
        for _ in 0..arrivals {
            if !self.arrive()? {
                break;
            }
        }
        for _ in 0..1 + most / 32 {
            match self.noise.below(8) {
                0 => self.fork()?,
                1 => self.snapshot()?,
                2 => self.release()?,
                3 => self.park()?,
                4 | 5 if !self.parked.is_empty() => {
                    let which = self.noise.below(self.parked.len());
                    self.resume(which)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn limit(&mut self) -> usize {
        1 + self.noise.below(self.size().longest)
    }

    fn seed(&mut self) -> u64 {
        self.options.seed << 32 | self.noise.below(1 << 31) as u64
    }

    fn enter(&mut self, sequence: Sequence, tokens: Lineage, slot: Option<usize>) {
        self.summary.add("sequences", 1);
        let (number, limit) = (self.summary.get("sequences") as usize, self.limit());
        self.live.push(Live { number, sequence, tokens, limit, slot, last: None });
    }

    /// A sequence comes, from nothing or from a prefix; false where there is no room.
    fn arrive(&mut self) -> Result<bool> {
        if !self.prefixes.is_empty() && self.chance(30) {
            let which = self.noise.below(self.prefixes.len());
            match self.slots.begin_at(self.prefixes[which].snapshot) {
                Ok(sequence) => {
                    let (seed, prefix) = (self.seed(), &self.prefixes[which]);
                    let (tokens, slot) = (prefix.tokens.branch(seed), prefix.slot);
                    self.enter(sequence, tokens, Some(slot));
                    self.summary.add("begun at a snapshot", 1);
                    return Ok(true);
                }
                Err(SlotError::NoSnapshot(_)) => {
                    let prefix = self.prefixes.swap_remove(which);
                    ensure!(!prefix.is_held, "a snapshot that is held was evicted");
                    self.summary.add("evicted snapshots", 1);
                }
                Err(SlotError::Full { .. }) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        match self.slots.begin() {
            Ok(sequence) => {
                let tokens = Lineage::new(self.seed());
                self.enter(sequence, tokens, None);
                Ok(true)
            }
            Err(SlotError::Full { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// A sequence that has a state.
    fn some_with_state(&mut self) -> Option<usize> {
        if self.live.is_empty() {
            return None;
        }
        let which = self.noise.below(self.live.len());
        self.live[which].slot.map(|_| which)
    }

    fn fork(&mut self) -> Result<()> {
        if self.live.len() >= self.size().live || self.live.is_empty() {
            return Ok(());
        }
        let which = self.noise.below(self.live.len());
        match self.slots.fork(self.live[which].sequence) {
            Ok(sequence) => {
                let (seed, parent) = (self.seed(), &self.live[which]);
                let (tokens, slot) = (parent.tokens.branch(seed), parent.slot);
                self.enter(sequence, tokens, slot);
                self.summary.add("forks", 1);
                Ok(())
            }
            Err(SlotError::Full { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn snapshot(&mut self) -> Result<()> {
        if self.prefixes.len() >= MOST_SNAPSHOTS.min(self.size().slots as usize / 4) {
            // The server forgets one; the allocator gives its slot away when it wants to.
            let which = self.noise.below(self.prefixes.len());
            let prefix = self.prefixes.swap_remove(which);
            if prefix.is_held {
                self.slots.release(prefix.snapshot)?;
            }
        }
        let Some(which) = self.some_with_state() else { return Ok(()) };
        let live = &self.live[which];
        let Some(slot) = live.slot else { return Ok(()) };
        match self.slots.snapshot(live.sequence) {
            Ok(snapshot) => {
                let tokens = live.tokens.clone();
                if self.prefixes.iter().any(|prefix| prefix.snapshot == snapshot && prefix.is_held) {
                    // It is known, and held once.
                    self.slots.release(snapshot)?;
                } else {
                    self.prefixes.retain(|prefix| prefix.snapshot != snapshot);
                    self.prefixes.push(Prefix { snapshot, tokens, slot, is_held: true });
                    self.summary.add("snapshots", 1);
                }
                Ok(())
            }
            Err(SlotError::Full { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn release(&mut self) -> Result<()> {
        if !self.prefixes.is_empty() {
            let which = self.noise.below(self.prefixes.len());
            let prefix = &mut self.prefixes[which];
            if std::mem::take(&mut prefix.is_held) {
                self.slots.release(prefix.snapshot)?;
            }
        }
        Ok(())
    }

    /// Swaps a sequence out: its bytes go to the host, its slot to others.
    fn park(&mut self) -> Result<()> {
        if self.parked.len() > self.size().live / 8 {
            return Ok(());
        }
        let Some(which) = self.some_with_state() else { return Ok(()) };
        let slot = self.slots.park(self.live[which].sequence)? as usize;
        let mut live = self.live.swap_remove(which);
        let is_known = live.slot == Some(slot);
        ensure!(is_known, "sequence {}: it is parked from slot {slot}, not {:?}", live.number, live.slot);
        let saved =
            self.memory.iter().map(|memory| memory.read(&*self.device, slot)).collect::<Result<_>>()?;
        live.slot = None;
        self.parked.push(Parked { live, saved });
        self.summary.add("swapped out", 1);
        Ok(())
    }

    /// Swaps a sequence in again; false where there is no slot.
    fn resume(&mut self, which: usize) -> Result<bool> {
        let slot = match self.slots.resume(self.parked[which].live.sequence) {
            Ok(slot) => slot as usize,
            Err(SlotError::Full { .. }) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let Parked { mut live, saved } = self.parked.swap_remove(which);
        for (memory, bytes) in self.memory.iter().zip(&saved) {
            memory.write(self.device, slot, bytes)?;
        }
        live.slot = Some(slot);
        self.live.push(live);
        self.summary.add("swapped in", 1);
        Ok(true)
    }

    /// Snapshots are let go, and a sequence finishes early.
    fn make_room(&mut self) -> Result<()> {
        self.summary.add("steps without room", 1);
        for prefix in &mut self.prefixes {
            if std::mem::take(&mut prefix.is_held) {
                self.slots.release(prefix.snapshot)?;
            }
        }
        let which = self.noise.below(self.live.len());
        let live = self.live.swap_remove(which);
        self.check_and_finish(live)
    }

    // A step.

    /// Sequences in rows, in any order and with gaps between them: the rest of the rows is padding.
    fn choose(&mut self) -> Vec<Member> {
        let most = self.size().most_rows().min(self.live.len());
        let count = if self.chance(70) { most } else { 1 + self.noise.below(most) };
        let rows = self.size().batches.iter().copied().find(|rows| *rows >= count).unwrap_or(count);
        let lives = self.drawn(self.live.len(), count);
        let places = self.drawn(rows, count);
        let member = |(live, row)| Member { live, row, tokens: 1, accepted: 1 };
        lives.into_iter().zip(places).map(member).collect()
    }

    /// `count` different numbers below `end`, in any order.
    fn drawn(&mut self, end: usize, count: usize) -> Vec<usize> {
        let mut numbers: Vec<usize> = (0..end).collect();
        for i in 0..count {
            let other = i + self.noise.below(end - i);
            numbers.swap(i, other);
        }
        numbers.truncate(count);
        numbers
    }

    /// The allocator's tables say what the server knows: each sequence starts where its state is.
    fn check_tables(&self, members: &[Member], tables: &StepTables) -> Result<()> {
        for (i, member) in members.iter().enumerate() {
            let live = &self.live[member.live];
            let from = (tables.reset[i] == 0).then_some(tables.slots[i] as usize);
            ensure!(
                from == live.slot,
                "sequence {} at step {}: it starts from slot {from:?}, but its state is in {:?}",
                live.number,
                self.step,
                live.slot
            );
        }
        Ok(())
    }

    /// Draws what the step does, and writes its tables.
    fn fill(&mut self, members: &mut [Member], given: &StepTables) -> Result<Form> {
        let kind = Kind::DRAWN[self.noise.below(Kind::DRAWN.len())];
        let rows = self.size().batches.iter().copied().find(|rows| members.iter().all(|m| m.row < *rows));
        let rows = rows.context("a step of more rows than the largest")?;
        let tokens = if kind.is_decode() { 1 } else { 2 + self.noise.below(MOST_TOKENS - 1) };
        let form = Form { kind, rows, tokens };
        for member in members.iter_mut() {
            member.tokens = if kind == Kind::Prompt { 1 + self.noise.below(tokens) } else { tokens };
            member.accepted = if kind.is_draft() { self.noise.below(tokens + 1) } else { member.tokens };
        }
        self.fill_padding(form);
        self.fill_tokens(form, members);
        for (i, member) in members.iter().enumerate() {
            self.tables.of(Field::Slots)[member.row] = given.slots[i];
            self.tables.of(Field::WriteSlots)[member.row] = given.write_slots[i];
            self.tables.of(Field::Reset)[member.row] = i32::from(given.reset[i]);
            self.tables.of(Field::Accepted)[member.row] = member.accepted as i32;
            if kind.is_draft() && member.accepted > 0 {
                let picked = self.drafts[0].picked(kind, member.row, tokens, member.accepted);
                self.tables.of(Field::Picked)[member.row] = picked as i32;
            }
        }
        let (from, to) = given.copies();
        self.tables.of(Field::CopyFrom)[..from.len()].copy_from_slice(&from);
        self.tables.of(Field::CopyTo)[..to.len()].copy_from_slice(&to);
        for token in 0..form.total() {
            self.tables.of(Field::DraftSlots)[token] = self.drafts[0].draft_slot(token) as i32;
        }
        self.make_mistake(kind, members);
        Ok(form)
    }

    /// Rows that no sequence has: they name no slot, and everything else they say must not matter.
    fn fill_padding(&mut self, form: Form) {
        for row in 0..form.rows {
            let nothing = NO_SLOTS[self.noise.below(NO_SLOTS.len())];
            self.tables.of(Field::Slots)[row] = nothing;
            self.tables.of(Field::WriteSlots)[row] = nothing;
            self.tables.of(Field::Reset)[row] = (row % 2) as i32;
            self.tables.of(Field::Accepted)[row] = 1;
            self.tables.of(Field::Picked)[row] = -1;
            self.tables.of(Field::CopyFrom)[row] = -1;
            self.tables.of(Field::CopyTo)[row] = -1;
        }
    }

    /// The rows of noise of every token, and where the tokens of prompts end.
    fn fill_tokens(&mut self, form: Form, members: &[Member]) {
        let vocabulary = self.size().vocabulary;
        let mut of_row: Vec<Option<&Member>> = vec![None; form.rows];
        members.iter().for_each(|member| of_row[member.row] = Some(member));
        let mut at = 0;
        self.tables.of(Field::Ends)[0] = 0;
        for (row, member) in of_row.into_iter().enumerate() {
            let padding =
                if form.kind == Kind::Prompt { self.noise.below(form.tokens + 1) } else { form.tokens };
            for t in 0..member.map_or(padding, |member| member.tokens) {
                let token = match member {
                    Some(Member { live, accepted, .. }) => {
                        let lineage = &self.live[*live].tokens;
                        let token = lineage.token(lineage.len() + t, vocabulary);
                        // What is rejected is another token than the one that comes there.
                        if t < *accepted { token } else { (token + 1) % vocabulary }
                    }
                    None => self.noise.below(vocabulary),
                };
                self.tables.of(Field::Tokens)[at] = token as i32;
                at += 1;
            }
            self.tables.of(Field::Ends)[row + 1] = at as i32;
        }
        self.tables.of(Field::Tokens)[at..form.total()].fill(-1);
    }

    fn make_mistake(&mut self, kind: Kind, members: &[Member]) {
        let mut accepted = members.iter().filter(|member| member.accepted > 0);
        match (self.plant, kind, accepted.next(), accepted.next()) {
            (Some(Plant::DroppedCommit), Kind::DraftToBuffer, Some(member), _) => {
                self.tables.of(Field::Accepted)[member.row] = 0;
                self.plant = None;
            }
            (Some(Plant::SwappedCopies), Kind::DraftToSlots, Some(one), Some(other)) => {
                self.tables.of(Field::Picked).swap(one.row, other.row);
                self.plant = None;
            }
            _ => {}
        }
    }

    /// Brings the tables to the device and runs the step's calls, mostly from a graph.
    fn run(&mut self, form: Form) -> Result<()> {
        let graph = self.calls.len() as u64;
        let calls = self.calls.entry(form).or_insert_with(|| {
            let memory = self.memory.iter().zip(&self.drafts);
            let layers = self.layers.iter().zip(memory);
            let layers =
                layers.map(|(layer, (memory, drafts))| layer.calls(memory, drafts, &self.tables, form));
            Calls { graph, layers: layers.collect() }
        });
        self.tables.write(self.device)?;
        let graph = (self.noise.below(4) > 0).then_some(calls.graph);
        let is_replayed = self.device.run_side_by_side(&calls.layers, graph)?;
        self.summary.add("steps from a graph", usize::from(is_replayed));
        Ok(())
    }

    /// Tells allocator and sequences what was written, and counts.
    fn wrote(&mut self, form: Form, members: &[Member], tables: &StepTables) -> Result<()> {
        let mut written = Vec::new();
        let (mut drafted, mut kept) = (0, 0);
        for (i, member) in members.iter().enumerate() {
            (drafted, kept) = (drafted + member.tokens, kept + member.accepted);
            if member.accepted > 0 {
                let live = &mut self.live[member.live];
                live.tokens.extend(member.accepted);
                live.slot = Some(tables.write_slots[i] as usize);
                live.last = Some((self.step, form.kind));
                written.push(live.sequence);
            }
        }
        self.slots.written(&written).with_context(|| format!("step {}", self.step))?;
        let summary = &mut self.summary;
        summary.add("steps", 1);
        summary.add(form.kind.counted(), 1);
        summary.add("sequence-steps", members.len());
        summary.add("padded rows", form.rows - members.len());
        summary.add("tokens", kept);
        if form.kind.is_draft() {
            summary.add("drafted tokens", drafted);
            summary.add("rejected tokens", drafted - kept);
        }
        Ok(())
    }

    fn finish_those_done(&mut self) -> Result<()> {
        let mut i = 0;
        while i < self.live.len() {
            if self.live[i].tokens.len() < self.live[i].limit {
                i += 1;
                continue;
            }
            let live = self.live.swap_remove(i);
            if self.noise.below(4) == 0 {
                self.check_and_finish(live)?;
            } else {
                self.finish(live)?;
            }
        }
        Ok(())
    }

    // Whether a sequence has its own state.

    fn finish(&mut self, live: Live) -> Result<()> {
        self.slots.finish(live.sequence).with_context(|| format!("sequence {}", live.number))?;
        self.summary.add("finished", 1);
        Ok(())
    }

    fn check_and_finish(&mut self, live: Live) -> Result<()> {
        self.check(&live)?;
        self.finish(live)
    }

    fn check(&mut self, live: &Live) -> Result<()> {
        let Some(slot) = live.slot else { return Ok(()) };
        self.check_bytes(&format!("sequence {}", live.number), &live.tokens, slot, live.last)
    }

    /// Holds the bytes of a slot against those of tokens that are decoded alone.
    fn check_bytes(
        &mut self,
        whose: &str,
        tokens: &Lineage,
        slot: usize,
        last: Option<(u64, Kind)>,
    ) -> Result<()> {
        self.summary.add("checks", 1);
        let vocabulary = self.size().vocabulary;
        let want = self.alone.decode(self.device, &self.layers, tokens, vocabulary)?;
        for (layer, (memory, want)) in self.memory.iter().zip(&want).enumerate() {
            let got = memory.read(&*self.device, slot)?;
            let differ = got.iter().zip(want).filter(|(got, want)| got != want).count();
            let last = last.map_or_else(
                || "no step wrote it since it began".to_owned(),
                |(step, kind)| format!("it was written last at step {step}, one of {}", kind.counted()),
            );
            ensure!(
                differ == 0,
                "{whose} at step {}: slot {slot} of layer {layer} is not what its {} tokens make of it alone: {differ} of {} \
                 bytes differ; {last}",
                self.step,
                tokens.len(),
                got.len()
            );
        }
        Ok(())
    }
}
