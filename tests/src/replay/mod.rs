//! Problems with a ring of records: decode and verification that seldom write the state.
//!
//! What a sequence starts from is the *true* state: its slot's state with the live records of its ring applied. So a problem is
//! one of [`crate::problem`] with rings beside its pool, and the oracle is that one's, started from true states. What a call
//! leaves is held against it in the same way: the true state that memory says, whether it was folded or not.
//!
//! `place` runs a problem, `check` holds the result against the oracle, `recorded` reads recorded cases.

mod check;
mod place;
pub mod recorded;

pub use place::{Call, Placed, Solution};

use crate::problem::{Problem, StartFlags, Tokens};
use crate::random::{Noise, Plain};
use crate::strided::Strided;
use gdn_host::{DType, Family, HeadMap, ModuleKey, Rings, Tile, plan};
use std::fmt;

/// Rings, a row for each slot.
#[derive(Clone, Debug)]
pub struct RingData {
    /// Records that each has room for.
    pub records: usize,
    /// Keys, `[H, records, K]` a slot.
    pub k: Strided,
    /// Corrections, `[HV, records, V]` a slot.
    pub d: Strided,
    /// Log decays, `[HV, records]` a slot, in KDA `[HV, records, K]`.
    pub g: Strided,
}

/// The live records of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Place of the oldest.
    pub base: usize,
    /// How many.
    pub len: usize,
}

/// A call with a ring of records.
#[derive(Clone)]
pub struct ReplayProblem {
    /// Everything but the records: of decode with [`Tokens::One`], of verification with [`Tokens::Each`]. Its target means
    /// nothing.
    pub problem: Problem,
    /// Rings.
    pub rings: RingData,
    /// Place of each oldest record, by sequence or by slot; without a table 0.
    pub base: Option<Vec<i32>>,
    /// Live records, by sequence or by slot.
    pub len: Vec<i32>,
    /// Whether cursors are by slot.
    pub by_slot: bool,
    /// Sequences that fold.
    pub force: Option<Vec<u8>>,
    /// Live records at most behind the call.
    pub most: Option<u32>,
    /// Parents of drafts, `[N, T]`.
    pub parent: Option<Vec<i32>>,
}

impl fmt::Debug for ReplayProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { problem, rings, base, len, by_slot, force, most, parent } = self;
        writeln!(f, "{problem:?}")?;
        writeln!(f, "{rings:?}, base {base:?}, len {len:?}, by slot {by_slot}")?;
        write!(f, "force {force:?}, most {most:?}, parent {parent:?}")
    }
}

impl ReplayProblem {
    /// A plain problem: dense rings of `records` random records beside it, none of them live, cursors by sequence.
    pub fn new(plain: &Plain, records: usize) -> ReplayProblem {
        let mut problem = plain.problem();
        // The route of a call whose states stay: outputs alone are the problem's.
        if !problem.tokens.is_decode() {
            problem.target = crate::problem::Target::Nowhere;
        }
        let batch = problem.tokens.batch();
        let rings = RingData::random(&problem, records, plain.seed + 7);
        let (base, len, by_slot) = (Some(vec![0; batch]), vec![0; batch], false);
        ReplayProblem { problem, rings, base, len, by_slot, force: None, most: None, parent: None }
    }

    /// Cursors of each sequence; records that are not live become NaN.
    pub fn with_windows(mut self, windows: &[(i32, i32)]) -> ReplayProblem {
        self.by_slot = false;
        self.base = Some(windows.iter().map(|w| w.0).collect());
        self.len = windows.iter().map(|w| w.1).collect();
        self.spoil_stale();
        self
    }

    /// Tokens of a sequence.
    pub fn tokens(&self) -> usize {
        match self.problem.tokens {
            Tokens::Each { tokens, .. } => tokens,
            _ => 1,
        }
    }

    /// Whether it is decode.
    pub fn is_decode(&self) -> bool {
        self.problem.tokens.is_decode()
    }

    /// Live records at most behind the call.
    pub fn most(&self) -> usize {
        let free = if self.is_decode() { 0 } else { self.tokens() };
        self.most.map_or(self.rings.records - free, |most| most as usize)
    }

    /// The slot of a sequence and its window; `None` if it is padding.
    pub fn window(&self, n: usize) -> Option<(usize, Window)> {
        let slot = self.problem.slot(n)?;
        if self.problem.is_reset(n) {
            return Some((slot, Window { base: 0, len: 0 }));
        }
        let row = if self.by_slot { slot } else { n };
        let base = usize::try_from(self.base.as_ref().map_or(0, |base| base[row])).ok()?;
        let len = usize::try_from(self.len[row]).ok()?;
        let free = if self.is_decode() { 0 } else { self.tokens() };
        let is_sound = base < self.rings.records && len + free <= self.rings.records;
        is_sound.then_some((slot, Window { base, len }))
    }

    /// Whether a sequence that is no padding folds.
    pub fn folds(&self, n: usize) -> bool {
        let Some((_, window)) = self.window(n) else { return false };
        let forced = self.force.as_ref().is_some_and(|force| force[n] != 0);
        forced || self.problem.is_reset(n) || window.len + self.tokens() > self.most()
    }

    /// The window behind the call, with every draft accepted; of a tree the window in front of it.
    pub fn window_behind(&self, n: usize) -> Option<(usize, Window)> {
        let (slot, Window { base, len }) = self.window(n)?;
        let place = |j: usize| (base + j) % self.rings.records;
        let more = if self.parent.is_some() { 0 } else { self.tokens() };
        Some((
            slot,
            match (self.is_decode(), self.folds(n)) {
                (true, true) => Window { base, len: 0 },
                (false, true) => Window { base: place(len), len: more },
                (_, false) => Window { base, len: len + more },
            },
        ))
    }

    /// Fills records that are live for no sequence with NaN.
    pub fn spoil_stale(&mut self) {
        let decays = self.decays();
        let live: Vec<_> = (0..self.problem.tokens.batch()).filter_map(|n| self.window(n)).collect();
        let records = self.rings.records;
        let is_live = |slot: usize, place: usize| {
            live.iter().any(|(s, w)| *s == slot && (0..w.len).any(|j| (w.base + j) % records == place))
        };
        let rings = &mut self.rings;
        for (tensor, width) in [
            (&mut rings.k, self.problem.shape.k as usize),
            (&mut rings.d, self.problem.shape.v as usize),
            (&mut rings.g, decays),
        ] {
            for (i, x) in tensor.data.iter_mut().enumerate() {
                let (slot, place) = (i / tensor.width, i / width % records);
                if !is_live(slot, place) {
                    *x = f32::NAN;
                }
            }
        }
    }

    /// Every tile there is for the problem.
    pub fn tiles(&self) -> Vec<Tile> {
        let key = if self.is_decode() { ModuleKey::replay_decode } else { ModuleKey::replay_verify };
        let p = &self.problem;
        plan::tiles(key(p.family, p.pool.dtype, p.io(), p.shape.k), &p.shape).collect()
    }

    /// Decays of a record and head.
    pub fn decays(&self) -> usize {
        if self.problem.family == Family::Kda { self.problem.shape.k as usize } else { 1 }
    }

    /// The key head of a value head.
    fn key_head(&self, head: usize) -> usize {
        let shape = &self.problem.shape;
        match self.problem.heads {
            HeadMap::Grouped => head / (shape.hv / shape.h) as usize,
            HeadMap::Tiled => head % shape.h as usize,
        }
    }

    /// The problem of the next step: what the solution left, every draft accepted.
    pub fn advance(&mut self, solution: &Solution) {
        let behind: Vec<_> = (0..self.problem.tokens.batch()).map(|n| self.window_behind(n)).collect();
        for (n, window) in behind.into_iter().enumerate() {
            let Some((slot, window)) = window else { continue };
            let row = if self.by_slot { slot } else { n };
            self.len[row] = window.len as i32;
            if let Some(base) = &mut self.base {
                base[row] = window.base as i32;
            }
        }
        self.take(solution);
        self.problem.start = StartFlags::None;
    }

    /// Checkpoints and records as the solution left them.
    pub fn take(&mut self, solution: &Solution) {
        self.problem.pool.data.clone_from(&solution.state.values);
        let rings = &mut self.rings;
        for (ring, left) in [&mut rings.k, &mut rings.d, &mut rings.g].into_iter().zip(&solution.rings) {
            ring.data.clone_from(&left.values);
        }
    }

    /// The true state of a sequence that is no padding, `[HV, V, K]`.
    pub fn true_state_of(&self, n: usize) -> Option<Vec<f64>> {
        let (slot, window) = self.window(n)?;
        let elements = self.problem.elements();
        let checkpoint = &self.problem.pool.data[slot * elements..(slot + 1) * elements];
        Some(self.true_state(checkpoint, self.rings.of_slot(slot), window, &[]))
    }
}

impl RingData {
    /// Plausible records, dense.
    pub fn random(problem: &Problem, records: usize, seed: u64) -> RingData {
        let mut noise = Noise::new(seed);
        let widths =
            Rings::widths(&problem.shape, problem.family, records as u32).map(|width| width as usize);
        let slots = problem.pool.slots;
        // Unnormalised keys must be short, lest the state explodes.
        let length = if problem.l2norm.is_some() { 1.0 } else { (problem.shape.k as f32).sqrt().recip() };
        let k = noise.normals(slots * widths[0], length);
        let d = noise.normals(slots * widths[1], 0.3);
        // Most decays are weak, some are strong.
        let g =
            (0..slots * widths[2]).map(|_| -0.3 * noise.uniform() - 6.0 * noise.uniform().powi(8)).collect();
        RingData {
            records,
            k: Strided::dense(problem.io(), widths[0], k),
            d: Strided::dense(DType::F32, widths[1], d),
            g: Strided::dense(DType::F32, widths[2], g),
        }
    }
}
