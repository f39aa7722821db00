//! A sequence alone with a ring of its own: the same tokens by the same kinds of calls, folded where the server's was.

use super::slots::Slots;
use crate::device::Device;
use crate::soak::layer::{Calls, Layer, from_row};
use crate::soak::past::{Event, Past};
use crate::soak::step::QUEUED;
use crate::soak::tokens::Lineage;
use anyhow::{Result, ensure};
use gdn_host::{
    ConvTarget, Decode, ReplayAdvance, ReplayDecode, ReplayShape, ReplayVerify, Start, Table, Tokens,
};

/// Events that are queued at once: those without tokens are fewer than those with some.
const EVENTS: usize = 2 * QUEUED;

/// Memory of the sequence that is alone: one slot.
pub struct Alone {
    slots: Slots,
    tables: u64,
}

/// An event, and where its tokens and its entries of tables are.
struct Queued {
    event: Event,
    /// The row of its first token.
    row: usize,
    /// Whether the sequence starts with it.
    is_first: bool,
}

/// What calls read: a flag that is set, the slot, and then for each event whether it folds and how many drafts it accepts, and
/// the rows of noise of the tokens.
const FLAG: usize = 0;
const SLOT: usize = 1;
const FORCE: usize = 2;
const ACCEPTED: usize = FORCE + EVENTS;
const TOKENS: usize = ACCEPTED + EVENTS;
const ENTRIES: usize = TOKENS + QUEUED;

impl Alone {
    /// A slot for layers of such states.
    pub fn new(device: &mut dyn Device, layers: &[Layer], shape: ReplayShape) -> Result<Alone> {
        let slots = Slots::new(device, layers, shape, |device, layer| layer.memory(device, QUEUED, 1, 1))?;
        let tables = device.alloc((ENTRIES * size_of::<i32>()) as u64)?;
        Ok(Alone { slots, tables })
    }

    /// What a sequence's past leaves: true states and windows, layer by layer.
    pub fn replay(
        &self,
        device: &mut dyn Device,
        layers: &[Layer],
        lineage: &Lineage,
        past: &Past,
        vocabulary: usize,
    ) -> Result<Vec<Vec<u8>>> {
        let (mut events, mut position) = (past.events(), 0);
        while !events.is_empty() {
            let mut entries = vec![0; ENTRIES];
            entries[FLAG] = 1;
            let (mut queue, mut row) = (Vec::new(), 0);
            while let Some((&event, rest)) = events.split_first() {
                if queue.len() == EVENTS || row + event.tokens() > QUEUED {
                    break;
                }
                let accepted = match event {
                    Event::Drafted { accepted, .. } => accepted,
                    _ => event.tokens(),
                };
                for t in 0..event.tokens() {
                    let token = lineage.token(position + t, vocabulary);
                    // Rejected drafts are others than the server's: they leave no trace.
                    let token = if t < accepted { token } else { (token + 2) % vocabulary };
                    entries[TOKENS + row + t] = token as i32;
                }
                let forced = match event {
                    Event::Decoded { forced } | Event::Drafted { forced, .. } => forced,
                    Event::Stored | Event::Written(_) => false,
                };
                entries[FORCE + queue.len()] = i32::from(forced);
                entries[ACCEPTED + queue.len()] = accepted as i32;
                queue.push(Queued { event, row, is_first: position == 0 && accepted > 0 });
                (row, position, events) = (row + event.tokens(), position + accepted, rest);
            }
            device.write(self.tables, bytemuck::cast_slice(&entries))?;
            device.run_side_by_side(&[self.calls(layers, &queue, row)?], None)?;
        }
        ensure!(position == lineage.len(), "a past of {position} tokens, of a sequence of {}", lineage.len());
        self.slots.read(device, 0)
    }

    /// One entry of the tables.
    fn entry(&self, at: usize) -> Table {
        self.entries(at, 1)
    }

    fn entries(&self, at: usize, count: usize) -> Table {
        Table::i32(self.tables + (at * size_of::<i32>()) as u64, count as u64)
    }

    fn calls(&self, layers: &[Layer], queue: &[Queued], tokens: usize) -> Result<Calls<'_>> {
        let (states, slot) = (&self.slots.states, self.entry(SLOT));
        let mut calls: Calls = Vec::new();
        for (layer, memory) in layers.iter().zip(&self.slots.memory).filter(|_| tokens > 0) {
            calls.push(Box::new(layer.gather(memory, self.entries(TOKENS, tokens))));
        }
        for (i, queued) in queue.iter().enumerate() {
            match queued.event {
                Event::Stored => {
                    calls.push(Box::new(states.fold(1, slot)));
                    calls.push(Box::new(states.empty(1, slot)));
                }
                Event::Written(_) => self.write(layers, queued, &mut calls)?,
                Event::Decoded { .. } | Event::Drafted { .. } => {
                    self.append(layers, queued, i, &mut calls)?
                }
            }
        }
        Ok(calls)
    }

    /// Zeros, or what is in the slot.
    fn start(&self, is_first: bool) -> Start {
        if is_first { Start::Reset(self.entry(FLAG)) } else { Start::FromSlot }
    }

    /// Tokens whose states are written, one by one.
    fn write(&self, layers: &[Layer], queued: &Queued, calls: &mut Calls<'_>) -> Result<()> {
        for t in 0..queued.event.tokens() {
            let (row, start) = (queued.row + t, self.start(queued.is_first && t == 0));
            for (i, (layer, memory)) in layers.iter().zip(&self.slots.memory).enumerate() {
                let mut conv = layer.conv(memory, row, Tokens::Each { batch: 1, tokens: 1 });
                conv.start = start;
                calls.push(Box::new(conv));
                let (inputs, out) = (layer.inputs(memory, row), from_row(&memory.out, row));
                let state = self.slots.states.pool(i)?.state;
                calls.push(Box::new(Decode::new(inputs, 1, state, out).with_start(start)));
            }
        }
        if queued.is_first {
            // Whoever had the slot before left a ring.
            calls.push(Box::new(self.slots.states.empty(1, self.entry(SLOT))));
        }
        Ok(())
    }

    /// Tokens that append records.
    fn append(&self, layers: &[Layer], queued: &Queued, i: usize, calls: &mut Calls<'_>) -> Result<()> {
        let &Queued { event, row, is_first } = queued;
        let start = self.start(is_first);
        let mut advance = None;
        for (l, (layer, memory)) in layers.iter().zip(&self.slots.memory).enumerate() {
            let conv = |tokens: usize, target| {
                let mut conv = layer.conv(memory, row, Tokens::Each { batch: 1, tokens: tokens as u32 });
                (conv.start, conv.target) = (start, target);
                Box::new(conv)
            };
            let (inputs, out) = (layer.inputs(memory, row), from_row(&memory.out, row));
            let pool = self.slots.states.pool(l)?.with_start(start).with_force(self.entry(FORCE + i));
            if let Event::Drafted { tokens, accepted, .. } = event {
                calls.push(conv(tokens, ConvTarget::Nowhere));
                let verify = ReplayVerify::new(inputs, 1, tokens as u32, pool, out);
                advance = Some(ReplayAdvance::behind_verify(&verify, self.entry(ACCEPTED + i)));
                calls.push(Box::new(verify));
                // Once more, for the windows behind what was accepted.
                if accepted > 0 {
                    calls.push(conv(accepted, ConvTarget::InPlace));
                }
            } else {
                calls.push(conv(1, ConvTarget::InPlace));
                let decode = ReplayDecode::new(inputs, 1, pool, out);
                advance = Some(ReplayAdvance::behind_decode(&decode));
                calls.push(Box::new(decode));
            }
        }
        if let Some(advance) = advance {
            calls.push(Box::new(advance));
        }
        Ok(())
    }
}
