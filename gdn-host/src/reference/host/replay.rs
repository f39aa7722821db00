//! Calls with rings of records: which are live, what a step appends, when a ring is folded, how cursors move.
//!
//! A token starts from the true state that checkpoint and records, as they lie in memory, come to. So T drafts give the bits of
//! T decodes, as long as nothing is folded between them.

use super::memory::{clear, entry, named, named_or_row, read_run, write_entry, write_run};
use super::recurrence::{GateTables, TokenRows};
use crate::call::replay::{Fold, RecordForm, ReplayAdvance, ReplayCommit, ReplayPool, Step};
use crate::call::{Rows, StatePool};
use crate::key::{DType, OpKind};
use crate::reference::recurrence::{Beta, Between, Gate, Layer, sequence};
use crate::reference::replay::Record;
use crate::reference::round;

/// The live records of a ring.
#[derive(Clone, Copy)]
struct Window {
    /// Place of the oldest.
    base: u64,
    len: u64,
}

impl ReplayPool {
    /// The slot of sequence `n`; `None` if it is padding.
    unsafe fn slot(&self, n: u64) -> Option<u64> {
        // SAFETY: the caller's promise.
        unsafe { named_or_row(self.slots.as_ref(), n, self.state.slots, self.null_slot) }
    }

    /// The row of a sequence's cursors.
    fn cursor_row(&self, n: u64, slot: u64) -> u64 {
        if self.cursors.by_slot { slot } else { n }
    }

    /// The live records of a sequence; `None` if they do not lie in the ring, or leave no room for `free` more.
    unsafe fn window(&self, n: u64, slot: u64, free: u32) -> Option<Window> {
        // SAFETY: the caller's promise.
        unsafe {
            if self.start.is_from_zeros(n) {
                return Some(Window { base: 0, len: 0 });
            }
            let row = self.cursor_row(n, slot);
            let base = self.cursors.base.as_ref().map_or(0, |base| entry(base, row, 0));
            let len = entry(&self.cursors.len, row, 0);
            let records = i64::from(self.rings.records);
            let is_sound = (0..records).contains(&base) && (0..=records - i64::from(free)).contains(&len);
            is_sound.then_some(Window { base: base as u64, len: len as u64 })
        }
    }

    /// Whether a sequence folds in a step that may append `tokens` records.
    unsafe fn folds(&self, n: u64, window: Window, tokens: u32, free: u32) -> bool {
        // SAFETY: the caller's promise.
        let (fresh, forced) = unsafe { (self.start.is_from_zeros(n), self.is_forced(n)) };
        fresh || forced == Some(true) || window.len + u64::from(tokens) > u64::from(self.most(free))
    }

    /// Whether flags say that a sequence folds; `None` if there are none.
    unsafe fn is_forced(&self, n: u64) -> Option<bool> {
        // SAFETY: the caller's promise.
        self.force.as_ref().map(|force| unsafe { entry(force, n, 0) } != 0)
    }
}

impl RecordForm {
    /// What is known of a layer where there is no token.
    fn of_records(&self) -> Layer<'static> {
        let &RecordForm { shape, family, l2norm, heads } = self;
        let (gate, beta, l2norm) = (Gate::Given, Beta::Given, l2norm.map(f64::from));
        Layer { shape, family, heads, gate, beta, l2norm, scale: 1.0 }
    }
}

/// A slot's checkpoint and ring.
struct Ring<'a> {
    layer: &'a Layer<'a>,
    pool: ReplayPool,
    slot: u64,
    window: Window,
}

impl Ring<'_> {
    /// The element of a tensor that record `j`'s part in a head begins at, and its elements.
    fn place(&self, rows: &Rows, j: u64, head: u64, width: u32) -> (u64, u64) {
        let (records, width) = (u64::from(self.pool.rings.records), u64::from(width));
        let place = (self.window.base + j) % records;
        (self.slot * rows.stride + (head * records + place) * width, width)
    }

    /// The three tensors, with the heads and the width of a record's part in each.
    fn tensors(&self) -> [(&Rows, u32, u32); 3] {
        let (rings, shape) = (&self.pool.rings, &self.layer.shape);
        let decays = self.layer.decays() as u32;
        [(&rings.k, shape.h, shape.k), (&rings.d, shape.hv, shape.v), (&rings.g, shape.hv, decays)]
    }

    /// Record `j` of the window, or behind it.
    unsafe fn record(&self, j: u64) -> Record {
        let [key, correction, log_decay] = self.tensors().map(|(rows, heads, width)| {
            let part = |head| {
                let (at, width) = self.place(rows, j, head, width);
                // SAFETY: the caller's promise; the place lies in the slot's ring.
                unsafe { read_run(&rows.tensor, at, width) }
            };
            (0..u64::from(heads)).flat_map(part).collect()
        });
        Record { key, correction, log_decay }
    }

    /// Stores record `j`.
    unsafe fn append(&self, j: u64, record: &Record) {
        let parts = [&record.key, &record.correction, &record.log_decay];
        for ((rows, heads, width), values) in self.tensors().into_iter().zip(parts) {
            for (head, values) in (0..u64::from(heads)).zip(values.chunks_exact(width as usize)) {
                let (at, _) = self.place(rows, j, head, width);
                // SAFETY: the caller's promise; the place lies in the slot's ring.
                unsafe { write_run(&rows.tensor, at, values) };
            }
        }
    }

    /// The state behind so many records.
    unsafe fn true_state(&self, records: u64) -> Vec<f64> {
        let state = &self.pool.state;
        // SAFETY: the caller's promise.
        unsafe {
            let elements = self.layer.shape.state_elements();
            let mut h = read_run(&state.tensor, self.slot * state.pitch, elements);
            (0..records).for_each(|j| self.record(j).apply(self.layer, &mut h));
            h
        }
    }
}

/// Stores a state in a slot of a pool, in layout VK as all of replay.
unsafe fn store(pool: &StatePool, slot: u64, state: &[f64]) {
    // SAFETY: the caller's promise; the slot is one of the pool's.
    unsafe { write_run(&pool.tensor, slot * pool.pitch, state) };
}

impl Step<'_> {
    /// The call on host memory.
    ///
    /// # Safety
    /// As [`super::run`]; the call was checked.
    pub(crate) unsafe fn on_host(&self) {
        let (width, tokens) = (self.inputs.shape.value_elements(), u64::from(self.tokens));
        // SAFETY: the caller's promise.
        unsafe {
            let tables = GateTables::new(self.inputs);
            let layer = tables.layer(self.inputs);
            for n in 0..u64::from(self.batch) {
                let slot = self.pool.slot(n);
                match slot.and_then(|slot| Some((slot, self.pool.window(n, slot, self.free)?))) {
                    None => clear(self.out, width, n * tokens..(n + 1) * tokens),
                    Some((slot, window)) => {
                        self.sequence_on_host(&Ring { layer: &layer, pool: *self.pool, slot, window }, n);
                    }
                }
            }
        }
    }

    unsafe fn sequence_on_host(&self, ring: &Ring, n: u64) {
        let (pool, layer, len) = (self.pool, ring.layer, ring.window.len);
        // SAFETY: the caller's promise.
        unsafe {
            let folds = pool.folds(n, ring.window, self.tokens, self.free);
            let is_decode = self.op == OpKind::ReplayDecode;
            let start = match pool.start.is_from_zeros(n) {
                true => vec![0.0; layer.shape.state_elements() as usize],
                false => ring.true_state(len),
            };
            if folds && !is_decode {
                store(&pool.state, ring.slot, &start);
            }
            let mut states: Vec<Vec<f64>> = Vec::new();
            for t in 0..u64::from(self.tokens) {
                let row = n * u64::from(self.tokens) + t;
                let rows = TokenRows::read(self.inputs, row);
                let token = rows.token();
                let before = self.parent(n, t).and_then(|parent| states.get(parent)).unwrap_or(&start);
                let Some(step) = sequence(layer, &[token], before, &Between::default()).pop() else { return };
                write_run(&self.out.tensor, row * self.out.stride, &step.out);
                if folds && is_decode {
                    store(&pool.state, ring.slot, &step.state);
                    return;
                }
                let stored = |x: &[f64]| x.iter().map(|x| round(*x, DType::F32)).collect();
                let (correction, log_decay) = (stored(&step.correction), stored(&step.log_decay));
                let record = Record { key: token.k.to_vec(), correction, log_decay };
                ring.append(len + t, &record);
                // Nothing follows the last one.
                if t + 1 < u64::from(self.tokens) {
                    let mut state = before.clone();
                    record.apply(layer, &mut state);
                    states.push(state);
                }
            }
        }
    }

    /// The token in front of token `t`; `None` if that is the live window.
    unsafe fn parent(&self, n: u64, t: u64) -> Option<usize> {
        let before = t.checked_sub(1)?;
        let Some(parent) = self.parent else { return Some(before as usize) };
        // SAFETY: the caller's promise.
        let parent = unsafe { entry(parent, n, t) };
        usize::try_from(parent).ok().filter(|parent| (*parent as u64) < t)
    }
}

impl Fold<'_> {
    /// The call on host memory.
    ///
    /// # Safety
    /// As [`super::run`]; the call was checked.
    pub(crate) unsafe fn on_host(&self) {
        let form = self.form.of_records();
        for layer in self.layers.list {
            let (pool, target) = (self.pool.at(layer), self.target_in(layer));
            for n in 0..u64::from(self.batch) {
                // SAFETY: the caller's promise.
                unsafe {
                    let places = pool.slot(n).and_then(|slot| {
                        let to = match self.target_slots {
                            Some(table) => named(entry(table, n, 0), target.slots, pool.null_slot)?,
                            None => Some(slot).filter(|slot| *slot < target.slots.into())?,
                        };
                        Some((slot, to, pool.window(n, slot, 0)?))
                    });
                    let Some((slot, to, window)) = places.filter(|_| pool.is_forced(n) != Some(false)) else {
                        continue;
                    };
                    let count = self.count.map_or(window.len as i64, |count| entry(count, n, 0));
                    if (0..=window.len as i64).contains(&count) {
                        let ring = Ring { layer: &form, pool, slot, window };
                        store(&target, to, &ring.true_state(count as u64));
                    }
                }
            }
        }
    }
}

impl ReplayCommit<'_> {
    /// The call on host memory.
    ///
    /// # Safety
    /// As [`super::run`]; the call was checked.
    pub(crate) unsafe fn on_host(&self) {
        let (form, tokens) = (self.form.of_records(), i64::from(self.tokens));
        for layer in self.layers.list {
            let pool = self.pool.at(layer);
            for n in 0..u64::from(self.batch) {
                // SAFETY: the caller's promise.
                unsafe {
                    let accepted = entry(&self.accepted, n, 0);
                    let place =
                        pool.slot(n).and_then(|slot| Some((slot, pool.window(n, slot, self.tokens)?)));
                    let Some((slot, window)) = place.filter(|_| accepted <= tokens) else { continue };
                    let ring = Ring { layer: &form, pool, slot, window };
                    for i in 0..accepted {
                        let from = entry(&self.path, n, i as u64);
                        if !(i..tokens).contains(&from) {
                            break;
                        }
                        let record = ring.record(window.len + from as u64);
                        ring.append(window.len + i as u64, &record);
                    }
                }
            }
        }
    }
}

impl ReplayAdvance {
    /// The call on host memory.
    ///
    /// # Safety
    /// As [`super::run`]; the call was checked.
    pub(crate) unsafe fn on_host(&self) {
        let (pool, free) = (&self.pool, self.free());
        for n in 0..u64::from(self.batch) {
            // SAFETY: the caller's promise.
            unsafe {
                let place = pool.slot(n).and_then(|slot| Some((slot, pool.window(n, slot, free)?)));
                let Some((slot, window)) = place else { continue };
                let folds = pool.folds(n, window, self.tokens, free);
                let (base, len) = match (&self.accepted, folds) {
                    (None, true) => (window.base, 0),
                    (None, false) => (window.base, window.len + 1),
                    (Some(accepted), folds) => {
                        let count = entry(accepted, n, 0);
                        let count =
                            if (0..=i64::from(self.tokens)).contains(&count) { count as u64 } else { 0 };
                        let begin = (window.base + window.len) % u64::from(pool.rings.records);
                        if folds { (begin, count) } else { (window.base, window.len + count) }
                    }
                };
                let row = pool.cursor_row(n, slot);
                if let Some(table) = &pool.cursors.base {
                    write_entry(table, row, base as u32);
                }
                write_entry(&pool.cursors.len, row, len as u32);
            }
        }
    }
}
