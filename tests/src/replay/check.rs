//! A solution against the oracle.

use super::{ReplayProblem, RingData, Solution, Window};
use crate::compare::{Tolerance, rel_l2, widen};
use crate::problem::{Intermediate, Place, Problem, Source, Target};
use crate::strided::{Strided, encode_values};
use anyhow::{Result, ensure};
use gdn_host::DType;
use gdn_host::reference::recurrence::l2norm;

impl ReplayProblem {
    /// The true state of a slot, `[HV, V, K]`: the checkpoint with the window's records, and those at `more` places behind it.
    pub fn true_state(
        &self,
        checkpoint: &[f32],
        [k, d, g]: [&[f32]; 3],
        window: Window,
        more: &[usize],
    ) -> Vec<f64> {
        let shape = &self.problem.shape;
        let (wk, wv, records) = (shape.k as usize, shape.v as usize, self.rings.records);
        let decays = self.decays();
        let mut state = widen(checkpoint);
        for (head, h) in state.chunks_exact_mut(wk * wv).enumerate() {
            for j in (0..window.len).chain(more.iter().copied()) {
                let place = (window.base + j) % records;
                let record = |x: &[f32], head: usize, width: usize| {
                    widen(&x[(head * records + place) * width..][..width])
                };
                let key = record(k, self.key_head(head), wk);
                let key = self.problem.l2norm.map_or(key.clone(), |eps| l2norm(&key, eps.into()));
                let (correction, log_decay) = (record(d, head, wv), record(g, head, decays));
                for (row, d) in h.chunks_exact_mut(wk).zip(&correction) {
                    for (i, h) in row.iter_mut().enumerate() {
                        *h = *h * log_decay[i % decays].exp() + d * key[i];
                    }
                }
            }
        }
        state
    }

    /// The problem without rings, in f32: sequences start from their true states, those that are padding from no slot.
    pub fn flat(&self) -> Problem {
        let mut flat = self.problem.clone();
        let (batch, elements) = (flat.tokens.batch(), flat.elements());
        (flat.pool.dtype, flat.pool.pitch) = (DType::F32, elements);
        let mut slots = Vec::with_capacity(batch);
        for n in 0..batch {
            let Some((slot, window)) = self.window(n) else {
                slots.push(-1);
                continue;
            };
            let checkpoint = &self.problem.pool.data[slot * elements..(slot + 1) * elements];
            let state = self.true_state(checkpoint, self.rings.of_slot(slot), window, &[]);
            let place = &mut flat.pool.data[slot * elements..(slot + 1) * elements];
            place.iter_mut().zip(state).for_each(|(to, h)| *to = h as f32);
            slots.push(slot as i32);
        }
        (flat.source, flat.null_slot) = (Source::Slots(slots), None);
        flat.target = if self.is_decode() { Target::InPlace } else { Target::Nowhere };
        if !self.is_decode() {
            let (rows, steps) = (batch, self.tokens());
            let parent = self.parent.clone();
            flat.intermediate =
                Some(Intermediate { dtype: None, rows, steps, pitch: steps * elements, row: None, parent });
        }
        flat
    }

    /// Places behind the window of the drafts that draft `t` follows, and of itself.
    fn path(&self, n: usize, t: usize) -> Vec<usize> {
        let tokens = self.tokens();
        let parent_of = |t: usize| {
            let parent = self.parent.as_ref().map_or(t as i32 - 1, |parents| parents[n * tokens + t]);
            usize::try_from(parent).ok().filter(|parent| *parent < t)
        };
        let mut path: Vec<usize> = std::iter::successors(Some(t), |t| parent_of(*t)).collect();
        path.reverse();
        path
    }

    /// Holds a solution against the oracle: outputs, and the true states that memory says, within tolerance; states that were
    /// not folded, records that were not appended, and rows of padding exactly.
    pub fn check(&self, solution: &Solution) -> Result<()> {
        let (flat, p) = (self.flat(), &self.problem);
        let want = flat.oracle();
        let out_type = p.out.map_or(DType::F32, |out| out.dtype);
        let width = p.width();
        let got: Vec<_> = want
            .out
            .iter()
            .map(|&(row, _)| (row, widen(&solution.out.values[row * width..(row + 1) * width])))
            .collect();
        flat.check_outputs(&got, &want.out, &Tolerance::oracle(out_type, DType::F32))?;
        let bytes = width * out_type.size();
        for route in flat.routes().iter().filter(|route| route.is_padding()) {
            let rows = &solution.out.bytes[route.tokens.start * bytes..route.tokens.end * bytes];
            ensure!(rows.iter().all(|byte| *byte == 0), "a padded row of out is not zero");
        }
        self.check_memory(solution)?;

        let elements = p.elements();
        let left = RingData {
            records: self.rings.records,
            k: with_values(&self.rings.k, &solution.rings[0].values),
            d: with_values(&self.rings.d, &solution.rings[1].values),
            g: with_values(&self.rings.g, &solution.rings[2].values),
        };
        for n in 0..p.tokens.batch() {
            let Some((slot, before)) = self.window(n) else { continue };
            let checkpoint = &solution.state.values[slot * elements..(slot + 1) * elements];
            let folds = self.folds(n);
            let base = if folds { (before.base + before.len) % self.rings.records } else { before.base };
            let window = Window { base, len: if folds { 0 } else { before.len } };
            let allowed = match p.pool.dtype {
                dtype if folds => Tolerance::oracle(DType::F32, dtype).state,
                _ => 2e-6,
            };
            for t in 0..self.tokens() {
                let more = if self.is_decode() && folds { Vec::new() } else { self.path(n, t) };
                let more: Vec<usize> = more.iter().map(|t| window.len + t).collect();
                let got = self.true_state(checkpoint, left.of_slot(slot), window, &more);
                let place =
                    if self.is_decode() { Place::Pool(slot) } else { Place::Buffer(n * self.tokens() + t) };
                let want = want.states.iter().find(|(at, _)| *at == place).map(|(_, state)| state);
                let Some(want) = want else { anyhow::bail!("the oracle has no state of sequence {n}") };
                let error = rel_l2(&got, want);
                ensure!(error <= allowed, "the true state of sequence {n}, token {t}, is off by {error:.3e}");
            }
        }
        Ok(())
    }

    /// Nothing is written but what must be: checkpoints of sequences that fold, and records that are appended, whose keys are
    /// the tokens' bit by bit.
    fn check_memory(&self, solution: &Solution) -> Result<()> {
        let p = &self.problem;
        let (records, tokens) = (self.rings.records, self.tokens());
        let mut folded = vec![false; p.pool.slots];
        // The token whose record is at a place of a slot's ring.
        let mut appended = vec![None; p.pool.slots * records];
        for n in 0..p.tokens.batch() {
            let Some((slot, window)) = self.window(n) else { continue };
            folded[slot] = self.folds(n);
            if !self.is_decode() || !folded[slot] {
                for t in 0..tokens {
                    let place = (window.base + window.len + t) % records;
                    appended[slot * records + place] = Some(n * tokens + t);
                }
            }
        }
        let bytes = p.elements() * p.pool.dtype.size();
        let before = encode_values(&p.pool.data, p.pool.dtype);
        for (slot, (got, before)) in solution.state.bytes.chunks(bytes).zip(before.chunks(bytes)).enumerate()
        {
            ensure!(folded[slot] || got == before, "the state of slot {slot} was touched");
        }
        let keys = encode_values(&p.k.data, p.k.dtype);
        let (k, v) = (p.shape.k as usize, p.shape.v as usize);
        let decays = self.decays();
        let rings = [
            (&self.rings.k, k, "keys"),
            (&self.rings.d, v, "corrections"),
            (&self.rings.g, decays, "decays"),
        ];
        for ((ring, width, name), left) in rings.into_iter().zip(&solution.rings) {
            let (size, before) = (ring.dtype.size(), encode_values(&ring.data, ring.dtype));
            let vectors = left.bytes.chunks(width * size).zip(before.chunks(width * size));
            for (i, (got, before)) in vectors.enumerate() {
                let per_slot = ring.width / width;
                let (slot, head, place) = (i / per_slot, i % per_slot / records, i % records);
                match appended[slot * records + place] {
                    None => ensure!(
                        got == before,
                        "{name} of slot {slot}, head {head}, place {place} were touched"
                    ),
                    Some(token) if name == "keys" => {
                        let key = &keys[(token * p.k.width + head * k) * size..][..k * size];
                        ensure!(got == key, "the key of token {token}, head {head}, is another one");
                    }
                    Some(_) => {}
                }
            }
        }
        Ok(())
    }
}

impl RingData {
    /// Keys, corrections and log decays of a slot.
    pub fn of_slot(&self, slot: usize) -> [&[f32]; 3] {
        [&self.k, &self.d, &self.g].map(|x| &x.data[slot * x.width..(slot + 1) * x.width])
    }
}

fn with_values(like: &Strided, values: &[f32]) -> Strided {
    Strided { data: values.to_vec(), ..like.clone() }
}
