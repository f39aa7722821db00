//! Requests on states with rings: those that start, share, fork, draft, are parked and received equal requests alone.

use crate::compare::{rel_l2, widen};
use crate::device::{Device, place, place_layers};
use crate::problem::{Out, Place, Problem, Target, Tokens};
use crate::random::{Noise, Plain};
use crate::strided::{decode_values, encode_values};
use anyhow::{Context as _, Result, ensure};
use gdn_host::slots::{Sequence, SlotAllocator};
use gdn_host::{
    DType, Family, HeadShape, Launch, Operation, RecordForm, ReplayAdvance, ReplayDecode, ReplayLayers,
    ReplayShape, ReplayState, ReplayVerify, Rows, Start, StatePool, Table, Tensor,
};
use std::collections::HashMap;

const SHAPE: HeadShape = HeadShape { h: 1, hv: 2, k: 128, v: 32 };
const LAYERS: usize = 2;
const SLOTS: u32 = 8;
/// Rings are short, so that they are folded at every age of a request. With drafts two records are live at most.
const RECORDS: u32 = 4;
const DRAFTS: u32 = 2;
/// Allowed of outputs in f32 and of true states.
const LIMIT: f64 = 4e-6;

/// A server with requests, and the state that each of them has in each layer if it is alone.
struct Server<'a> {
    device: &'a mut dyn Device,
    states: ReplayState,
    slots: SlotAllocator,
    alone: HashMap<Sequence, Vec<Vec<f32>>>,
    seed: u64,
}

impl Server<'_> {
    fn new(device: &mut dyn Device, family: Family) -> Result<Server<'_>> {
        device.reset();
        let form = RecordForm::new(SHAPE, family);
        let shape = ReplayShape::new(form, DType::F32, DType::Bf16, SLOTS, RECORDS);
        let shape = shape.with_drafts(DRAFTS).with_null_slot(0);
        let mut layers = Vec::new();
        for _ in 0..LAYERS {
            layers.push(shape.layer_at(device.alloc(shape.layer_bytes())?));
        }
        let rows = place_layers(device, &layers)?;
        let (base, len) = (table(device, &[0; SLOTS as usize])?, table(device, &[0; SLOTS as usize])?);
        let states = ReplayState::new(shape, layers, rows, base, len)?;
        let slots = SlotAllocator::new(SLOTS, Some(0));
        Ok(Server { device, states, slots, alone: HashMap::new(), seed: 760 })
    }

    fn begin(&mut self) -> Result<Sequence> {
        let sequence = self.slots.begin()?;
        self.alone.insert(sequence, vec![vec![0.0; SHAPE.state_elements() as usize]; LAYERS]);
        Ok(sequence)
    }

    /// A sequence that has the state of another.
    fn like(&mut self, sequence: Sequence, of: Sequence) -> Sequence {
        self.alone.insert(sequence, self.alone[&of].clone());
        sequence
    }

    fn run(&mut self, calls: &[&dyn Operation]) -> Result<()> {
        self.device.run_all(calls, Launch::default())
    }

    /// The tokens of a step in a layer, on plain states: sequence n's is in slot n.
    fn problem(&mut self, sequences: &[Sequence], layer: usize, tokens: &Tokens) -> Problem {
        self.seed += 1;
        let family = self.states.shape().form.family;
        let plain = Plain { family, ..Plain::new(SHAPE, tokens.clone(), DType::F32, self.seed) };
        let mut p = plain.problem();
        p.pool.data = sequences.iter().flat_map(|sequence| self.alone[sequence][layer].clone()).collect();
        p.out = Some(Out { dtype: DType::F32, stride: p.width() });
        if !tokens.is_decode() {
            p.target = Target::Nowhere;
            p.keep_each_state(DRAFTS as usize);
        }
        p
    }

    /// A step of some sequences: a token of each, or drafts, so many of which are accepted.
    fn step(&mut self, sequences: &[Sequence], accepted: Option<&[i32]>) -> Result<()> {
        let tables = self.slots.step(sequences)?;
        let (from, to) = tables.copies();
        if !to.is_empty() {
            let (from, to_table) = (table(self.device, &from)?, table(self.device, &to)?);
            let count = to.len() as u32;
            let states = self.states.clone();
            self.run(&[&states.copy(count, from, to_table), &states.empty(count, to_table)])?;
        }
        let reset: Vec<i32> = tables.reset.iter().map(|flag| i32::from(*flag)).collect();
        let (own, start) =
            (table(self.device, &tables.write_slots)?, Start::Reset(table(self.device, &reset)?));
        let batch = sequences.len();
        let tokens = match accepted {
            None => Tokens::One { batch },
            Some(_) => Tokens::Each { batch, tokens: DRAFTS as usize },
        };
        let counts = accepted.map(|accepted| table(self.device, accepted)).transpose()?;
        let mut advance = None;
        for layer in 0..LAYERS {
            let p = self.problem(sequences, layer, &tokens);
            let inputs = p.place_inputs(self.device)?;
            let len = (tokens.total() * p.width()) as u64;
            let tensor = Tensor { address: self.device.alloc(4 * len)?, dtype: DType::F32, len };
            let out = Rows { tensor, stride: p.width() as u64 };
            let pool = self.states.pool(layer)?.with_slots(own).with_start(start);
            match counts {
                None => {
                    let decode = ReplayDecode::new(inputs, batch as u32, pool, out);
                    self.run(&[&decode])?;
                    advance = Some(ReplayAdvance::behind_decode(&decode));
                }
                Some(counts) => {
                    let verify = ReplayVerify::new(inputs, batch as u32, DRAFTS, pool, out);
                    self.run(&[&verify])?;
                    advance = Some(ReplayAdvance::behind_verify(&verify, counts));
                }
            }
            let want = p.oracle();
            let got = decode_values(&self.device.read(tensor.address, 4 * len)?, DType::F32);
            for (row, want) in &want.out {
                let error = rel_l2(&widen(&got[row * p.width()..(row + 1) * p.width()]), want);
                ensure!(error <= LIMIT, "layer {layer}, row {row}: the output is off by {error:.1e}");
            }
            for (n, sequence) in sequences.iter().enumerate() {
                let place = match accepted.map(|accepted| accepted[n] as usize) {
                    None => Place::Pool(n),
                    Some(0) => continue,
                    Some(count) => Place::Buffer(n * DRAFTS as usize + count - 1),
                };
                let found =
                    want.states.iter().find(|(at, _)| *at == place).context("the oracle has no state")?;
                let state = found.1.iter().map(|x| *x as f32).collect();
                self.alone.get_mut(sequence).context("a sequence without a state")?[layer] = state;
            }
        }
        self.run(&[&advance.context("a step of no layer")?])?;
        Ok(self.slots.written(sequences)?)
    }

    /// The true states of a slot, stored elsewhere, are those of the sequence alone.
    fn store(&mut self, slot: u32, sequence: Sequence) -> Result<()> {
        let elements = SHAPE.state_elements();
        let mut targets = Vec::new();
        for _ in 0..LAYERS {
            targets.push(self.device.alloc(4 * elements)?);
        }
        let list = self.states.layers_to(&targets);
        let layers = ReplayLayers { list: &list, table: place_layers(self.device, &list)? };
        let target = StatePool::packed(targets[0], DType::F32, 1, &SHAPE);
        // The null slot is the pool's alone.
        let (slot, first) = (table(self.device, &[slot as i32])?, table(self.device, &[0])?);
        let states = self.states.clone();
        self.run(&[&states.store(1, slot, layers, target, first)])?;
        for (target, want) in targets.into_iter().zip(&self.alone[&sequence]) {
            let got = decode_values(&self.device.read(target, 4 * elements)?, DType::F32);
            let error = rel_l2(&widen(&got), &widen(want));
            ensure!(error <= LIMIT, "the state that was stored is off by {error:.1e}");
        }
        Ok(())
    }

    /// Plain states into a slot.
    fn load(&mut self, slot: u32, sequence: Sequence) -> Result<()> {
        let bytes = 4 * SHAPE.state_elements();
        let states = self.states.clone();
        for (layer, plain) in states.layers().list.iter().zip(&self.alone[&sequence]) {
            self.device.write(layer.state + u64::from(slot) * bytes, &encode_values(plain, DType::F32))?;
        }
        let slot = table(self.device, &[slot as i32])?;
        self.run(&[&states.empty(1, slot)])
    }
}

fn table(device: &mut dyn Device, values: &[i32]) -> Result<Table> {
    Ok(Table::i32(place(device, bytemuck::cast_slice(values))?, values.len() as u64))
}

/// Whatever requests share and however slots are used again, each has the outputs and states that it has alone.
pub fn replay_requests_equal_requests_alone(device: &mut dyn Device) -> Result<()> {
    for family in [Family::Gdn, Family::Kda] {
        let mut server = Server::new(device, family)?;
        let (a, b) = (server.begin()?, server.begin()?);
        for _ in 0..4 {
            server.step(&[a, b], None)?;
        }
        // A prompt that another request has too, and a fork.
        let prompt = server.slots.snapshot(a)?;
        let c = server.slots.begin_at(prompt)?;
        let c = server.like(c, a);
        let d = server.slots.fork(b)?;
        let d = server.like(d, b);
        let late = server.slots.begin_at(prompt)?;
        let late = server.like(late, a);
        server.step(&[d, a], None)?;
        server.step(&[a, c, d, b], None)?;
        server.step(&[c, b, a], Some(&[2, 0, 1]))?;
        server.step(&[b, c, a], Some(&[1, 2, 2]))?;
        // Its slot is another's while it is parked.
        let slot = server.slots.park(c)?;
        server.store(slot, c)?;
        server.slots.finish(d)?;
        let e = server.begin()?;
        // Nothing of its first drafts is accepted: it is as it was, from zeros.
        server.step(&[e, a], Some(&[0, 1]))?;
        server.step(&[a, e, b], None)?;
        let slot = server.slots.resume(c)?;
        server.load(slot, c)?;
        // The prompt's slot, ring and cursor are what they were.
        server.step(&[late, c, e], None)?;
        // A state from elsewhere.
        server.slots.finish(a)?;
        let (f, slot) = server.slots.receive()?;
        let mut noise = Noise::new(759);
        let plain = (0..LAYERS).map(|_| noise.normals(SHAPE.state_elements() as usize, 0.1)).collect();
        server.alone.insert(f, plain);
        server.load(slot, f)?;
        for _ in 0..3 {
            server.step(&[c, f, late], None)?;
        }
        // Folded rings leave plain states.
        let tables = server.slots.step(&[f, c])?;
        let slots = table(server.device, &tables.write_slots)?;
        let states = server.states.clone();
        server.run(&[&states.fold(2, slots), &states.empty(2, slots)])?;
        for (sequence, slot) in [f, c].into_iter().zip(&tables.write_slots) {
            for (layer, want) in states.layers().list.iter().zip(&server.alone[&sequence]) {
                let bytes = 4 * SHAPE.state_elements();
                let got = server.device.read(layer.state + *slot as u64 * bytes, bytes)?;
                let error = rel_l2(&widen(&decode_values(&got, DType::F32)), &widen(want));
                ensure!(error <= LIMIT, "{family:?}: a folded state is off by {error:.1e}");
            }
        }
        server.step(&[f, c, late, b, e], None)?;
    }
    Ok(())
}
