//! The server: which sequences there are, what the next step does with them, and whether each still has its own state.

mod rows;
mod traffic;

use super::lane::{self, Lane};
use super::layer::NULL_SLOT;
use super::past::{Event, Past};
use super::step::{Form, Kind, Tables};
use super::tokens::Lineage;
use super::{Options, Plant, Size, Summary};
use crate::device::Device;
use crate::random::Noise;
use anyhow::{Context as _, Result, bail, ensure};
use gdn_host::slots::{Sequence, SlotAllocator, SlotError, Snapshot, StepTables};
use std::collections::HashMap;

/// Indices that name no slot.
const NO_SLOTS: [i32; 4] = [-1, NULL_SLOT, i32::MAX, i32::MIN];

/// A sequence, and what is known of it.
#[derive(Clone)]
struct Live {
    /// Its number, for people.
    number: usize,
    sequence: Sequence,
    tokens: Lineage,
    past: Past,
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
    past: Past,
    slot: usize,
    is_held: bool,
}

/// A sequence that was swapped out, and its bytes in each lane.
struct Parked {
    live: Live,
    saved: Vec<Vec<u8>>,
}

/// A server and its device.
pub struct Server<'a> {
    device: &'a mut dyn Device,
    options: Options,
    lanes: Vec<Box<dyn Lane>>,
    tables: Tables,
    /// Numbers of the graphs that steps may be replayed from.
    graphs: HashMap<Form, u64>,
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
    /// Whether its rings are folded now.
    forced: bool,
}

impl Member {
    /// What happened to its rings in a step, if it starts from zeros, or else has a slot of its own; and whether they were told to
    /// fold.
    fn events(&self, kind: Kind, is_new: bool, is_own: bool) -> (Vec<Event>, bool) {
        let &Member { tokens, accepted, forced, .. } = self;
        let (event, forced) = match kind {
            Kind::Prompt => (Event::Written(tokens), false),
            kind if kind.is_draft() => (Event::Drafted { tokens, accepted, forced }, forced),
            _ => (Event::Decoded { forced }, forced),
        };
        // What it shared was copied; what kernels write that know no records was folded.
        let is_stored = !is_new && (!is_own || kind == Kind::Prompt);
        (is_stored.then_some(Event::Stored).into_iter().chain([event]).collect(), forced)
    }
}

impl<'a> Server<'a> {
    /// An empty server.
    ///
    /// # Errors
    /// A device without the memory.
    pub fn new(device: &'a mut dyn Device, options: &Options) -> Result<Server<'a>> {
        device.reset();
        let (size, mut noise) = (options.size, Noise::new(options.seed));
        let (lanes, tables) = (lane::all(device, &size, &mut noise)?, Tables::new(device, size.most_rows())?);
        Ok(Server {
            device,
            options: *options,
            lanes,
            tables,
            graphs: HashMap::new(),
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
        if self.live.is_empty() {
            // Every sequence is swapped out.
            return Ok(());
        }
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
                self.check_slot("a snapshot", &prefix.tokens, &prefix.past, prefix.slot, None)?;
                self.slots.release(prefix.snapshot)?;
            }
            if prefix.is_held {
                self.slots.release(prefix.snapshot)?;
            }
        }
        let (free, all) = (self.slots.available(), self.size().slots as usize - 1);
        ensure!(free == all, "{} slots are lost: {free} of {all} are free when all has ended", all - free);
        self.summary.furthest = self.lanes.iter().filter_map(|lane| lane.furthest()).collect();
        Ok(self.summary)
    }

    /// Brings the tables to the device and runs the step's calls, mostly from a graph.
    fn run(&mut self, form: Form) -> Result<()> {
        let next = self.graphs.len() as u64;
        let graph = *self.graphs.entry(form).or_insert(next);
        let calls = self.lanes.iter().map(|lane| lane.calls(&self.tables, form));
        let calls = calls.collect::<Result<Vec<_>>>()?;
        self.tables.write(self.device)?;
        let graph = (self.noise.below(4) > 0).then_some(graph);
        let is_replayed = self.device.run_side_by_side(&calls, graph)?;
        self.summary.add("steps from a graph", usize::from(is_replayed));
        Ok(())
    }

    /// Tells allocator and sequences what was written, and counts.
    fn wrote(&mut self, form: Form, members: &[Member], tables: &StepTables) -> Result<()> {
        let mut written = Vec::new();
        let (mut drafted, mut kept) = (0, 0);
        for (i, member) in members.iter().enumerate() {
            (drafted, kept) = (drafted + member.tokens, kept + member.accepted);
            let live = &mut self.live[member.live];
            let (is_new, slot) = (tables.reset[i] == 1, tables.write_slots[i]);
            let is_own = !is_new && tables.slots[i] == slot;
            // Of a sequence without a slot of its own nothing is left where nothing was accepted.
            if is_own || member.accepted > 0 {
                let (events, forced) = member.events(form.kind, is_new, is_own);
                let folds = events.into_iter().filter(|event| live.past.push(*event)).count();
                self.summary.add("folded rings", folds);
                self.summary.add("rings told to fold", usize::from(forced));
            }
            if member.accepted > 0 {
                live.tokens.extend(member.accepted);
                live.slot = Some(slot as usize);
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
            if self.noise.below(8) == 0 {
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
        let whose = format!("sequence {}", live.number);
        self.check_slot(&whose, &live.tokens, &live.past, slot, live.last)
    }

    /// Holds what is in a slot against what the tokens make of it alone.
    fn check_slot(
        &mut self,
        whose: &str,
        tokens: &Lineage,
        past: &Past,
        slot: usize,
        last: Option<(u64, Kind)>,
    ) -> Result<()> {
        self.summary.add("checks", 1);
        for (number, lane) in self.lanes.iter_mut().enumerate() {
            let Some(how) = lane.difference(self.device, slot, tokens, past)? else { continue };
            let last = last.map_or_else(
                || "no step wrote it since it began".to_owned(),
                |(step, kind)| format!("it was written last at step {step}, one of {}", kind.counted()),
            );
            bail!(
                "{whose} at step {}: slot {slot} of lane {number} is not what its {} tokens make of it alone: {how}; {last}",
                self.step,
                tokens.len(),
            );
        }
        Ok(())
    }
}
