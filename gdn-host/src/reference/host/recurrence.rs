//! Decode and recurrent: which states a sequence reads, and where it leaves which.

use super::memory::{clear, entry, named, named_or_row, read, read_run, write, write_run};
use crate::call::{
    Beta, Decay, Decode, Inputs, Intermediate, Recurrent, Rows, Source, Start, StatePool, Table, Target,
    Tensor, Tokens,
};
use crate::key::{Family, Layout};
use crate::reference::recurrence::{self, Between, Gate, Layer, Token, Tree, sequence};
use crate::shape::HeadShape;
use gdn_kernels::abi::DType;
use std::ops::Range;

impl Decode {
    /// A decode is a sequence of one token.
    pub(crate) fn as_recurrent(&self) -> Recurrent {
        let (pool, tokens) = (self.state, Tokens::Each { batch: self.batch, tokens: 1 });
        let source = self.slots.map_or(Source::Sequences(pool), |slots| Source::Slots { pool, slots });
        let target = self.write_slots.map_or(Target::InPlace, Target::Slots);
        let call = Recurrent::new(self.inputs, tokens, source, target, self.out).with_start(self.start);
        Recurrent { null_slot: self.null_slot, ..call }
    }
}

impl Tokens {
    /// The rows of sequence `n`. A range that does not lie within the rows is empty.
    ///
    /// # Safety
    /// As [`entry`].
    pub(super) unsafe fn range(&self, n: u64) -> Range<u64> {
        match self {
            Tokens::Each { tokens, .. } => n * u64::from(*tokens)..(n + 1) * u64::from(*tokens),
            Tokens::Packed { total, cu_seqlens, .. } => {
                // SAFETY: the caller's promise.
                let (begin, end) = unsafe { (entry(cu_seqlens, n, 0), entry(cu_seqlens, n + 1, 0)) };
                let sound = 0 <= begin && begin <= end && end <= i64::from(*total);
                if sound { begin as u64..end as u64 } else { 0..0 }
            }
        }
    }

    /// The rows behind the last sequence's.
    ///
    /// # Safety
    /// As [`entry`].
    pub(super) unsafe fn rest(&self) -> Range<u64> {
        let Tokens::Packed { batch, total, cu_seqlens } = self else { return 0..0 };
        // SAFETY: the caller's promise.
        let end = unsafe { entry(cu_seqlens, u64::from(*batch), 0) };
        let total = u64::from(*total);
        u64::try_from(end).map_or(total, |end| end.min(total))..total
    }
}

impl Start {
    /// Whether sequence `n` starts from zeros.
    ///
    /// # Safety
    /// As [`entry`].
    pub(super) unsafe fn is_from_zeros(&self, n: u64) -> bool {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Start::FromSlot => false,
                Start::Reset(table) => entry(table, n, 0) != 0,
                Start::HasInitialState(table) => entry(table, n, 0) == 0,
            }
        }
    }
}

/// `a_log` and `dt_bias`, zeros where there is none: a rate of 1, and nothing added.
pub(super) struct GateTables {
    a_log: Vec<f64>,
    dt_bias: Vec<f64>,
}

impl GateTables {
    /// # Safety
    /// As [`super::run`]; the call was checked.
    pub(super) unsafe fn new(inputs: &Inputs) -> GateTables {
        let HeadShape { hv, k, .. } = inputs.shape;
        let width = if inputs.family == Family::Kda { u64::from(hv) * u64::from(k) } else { hv.into() };
        let (a_log, dt_bias) = inputs.decay.tables();
        let table = |tensor: Option<&Tensor>, len: u64| {
            // SAFETY: a checked call's tables are that long.
            tensor.map_or_else(|| vec![0.0; len as usize], |tensor| unsafe { read_run(tensor, 0, len) })
        };
        GateTables { a_log: table(a_log, hv.into()), dt_bias: table(dt_bias, width) }
    }

    /// What holds for all tokens of a call.
    pub(super) fn layer<'a>(&'a self, inputs: &Inputs) -> Layer<'a> {
        let (a_log, dt_bias) = (&self.a_log[..], &self.dt_bias[..]);
        let gate = match &inputs.decay {
            Decay::Softplus(gate) => {
                let (beta, threshold) = (gate.beta.into(), gate.threshold.into());
                Gate::Softplus { a_log, dt_bias, beta, threshold }
            }
            Decay::LowerBound(gate) => Gate::LowerBound { a_log, dt_bias, bound: gate.bound.into() },
            Decay::Given(_) => Gate::Given,
            Decay::GivenPerKeyHead(_) => Gate::GivenPerKeyHead,
        };
        let beta = match &inputs.beta {
            Beta::Logits(logits) => {
                let rounded = logits.rounded.then_some(logits.b.tensor.dtype);
                recurrence::Beta::Logits { scale: logits.scale.into(), rounded }
            }
            Beta::Given(_) => recurrence::Beta::Given,
            Beta::GivenPerValue(_) => recurrence::Beta::GivenPerValue,
        };
        let &Inputs { shape, family, heads, l2norm, .. } = inputs;
        let scale = inputs.scale.map_or_else(|| f64::from(shape.k).sqrt().recip(), f64::from);
        Layer { shape, family, heads, gate, beta, l2norm: l2norm.map(f64::from), scale }
    }
}

/// The inputs of a token, q, k, v, gate and beta.
pub(super) struct TokenRows([Vec<f64>; 5]);

impl TokenRows {
    /// # Safety
    /// As [`super::run`]; the call was checked.
    pub(super) unsafe fn read(inputs: &Inputs, token: u64) -> TokenRows {
        let shape = &inputs.shape;
        let row = |rows: &Rows, width: u64| {
            // SAFETY: a checked call's rows are that wide.
            unsafe { read_run(&rows.tensor, token * rows.stride, width) }
        };
        let (keys, values) = (shape.key_elements(), shape.value_elements());
        let ((_, a), (_, b)) = (inputs.decay.rows(), inputs.beta.rows());
        TokenRows([
            row(&inputs.q, keys),
            row(&inputs.k, keys),
            row(&inputs.v, values),
            row(a, inputs.gate_width()),
            row(b, inputs.beta_width()),
        ])
    }

    pub(super) fn token(&self) -> Token<'_> {
        let [q, k, v, a, b] = &self.0;
        Token { q, k, v, a, b }
    }
}

/// Where elements of a state lie in a layout, in the order of `[HV, V, K]`.
fn places(shape: HeadShape, layout: Layout) -> impl Iterator<Item = u64> {
    let [hv, v, k] = [shape.hv, shape.v, shape.k].map(u64::from);
    (0..hv * v * k).map(move |at| {
        let (head, row, column) = (at / (v * k), at / k % v, at % k);
        match layout {
            Layout::Vk => at,
            Layout::Kv => (head * k + column) * v + row,
        }
    })
}

/// Stores a state from element `at` of a tensor on.
unsafe fn write_state(tensor: &Tensor, at: u64, shape: HeadShape, layout: Layout, state: &[f64]) {
    for (place, value) in places(shape, layout).zip(state) {
        // SAFETY: a checked call's states are that long.
        unsafe { write(tensor, at + place, *value) };
    }
}

impl Recurrent {
    /// The call on host memory.
    ///
    /// # Safety
    /// As [`super::run`]; the call was checked.
    pub(crate) unsafe fn on_host(&self) {
        let width = self.inputs.shape.value_elements();
        // SAFETY: the caller's promise.
        unsafe {
            if let Some(out) = &self.out {
                clear(out, width, self.tokens.rest());
            }
            let tables = GateTables::new(&self.inputs);
            let layer = tables.layer(&self.inputs);
            for n in 0..u64::from(self.tokens.batch()) {
                self.sequence_on_host(&layer, n);
            }
        }
    }

    /// The slot that sequence `n` starts from, `None` for a padded row; without a pool all start from slot 0 of nothing.
    unsafe fn slot(&self, n: u64) -> Option<u64> {
        // SAFETY: the caller's promise.
        unsafe {
            match &self.source {
                Source::Zeros => Some(0),
                Source::Sequences(_) => Some(n),
                Source::Slots { pool, slots } => named(entry(slots, n, 0), pool.slots, self.null_slot),
                Source::Accepted { pool, slots, accepted } => {
                    let last = entry(accepted, n, 0).checked_sub(1)?;
                    let last = u64::try_from(last).ok().filter(|last| *last < slots.columns)?;
                    named(entry(slots, n, last), pool.slots, self.null_slot)
                }
            }
        }
    }

    unsafe fn sequence_on_host(&self, layer: &Layer, n: u64) {
        let shape = self.inputs.shape;
        // SAFETY: the caller's promise.
        unsafe {
            let range = self.tokens.range(n);
            let Some(slot) = self.slot(n) else {
                if let Some(out) = &self.out {
                    clear(out, shape.value_elements(), range);
                }
                return;
            };
            let start = self.initial_state(n, slot);
            if range.is_empty() {
                if let Target::Sequences(pool) = &self.target {
                    write_state(&pool.tensor, n * pool.pitch, shape, pool.layout, &start);
                }
                return;
            }
            let row = self.intermediate.as_ref().and_then(|buffer| {
                let row = named_or_row(buffer.row.as_ref(), n, buffer.rows, None)?;
                Some((buffer, row))
            });
            let parents = row.and_then(|(buffer, _)| parents(buffer, n));
            let tokens: Vec<_> = range.clone().map(|token| TokenRows::read(&self.inputs, token)).collect();
            let leaves = |t: u64, step: &recurrence::Step| {
                if let Some(out) = &self.out {
                    write_run(&out.tensor, (range.start + t) * out.stride, &step.out);
                }
                if let Some((buffer, row)) = row.filter(|(buffer, _)| t < u64::from(buffer.steps)) {
                    let at = row * buffer.pitch + t * shape.state_elements();
                    write_state(&buffer.tensor, at, shape, self.layout(), &step.state);
                }
                self.store(n, slot, t, t + 1 == range.end - range.start, &step.state);
            };
            let round = if self.round_state { self.state().1 } else { DType::F32 };
            let between = Between { round: Some(round), tree: None };
            match parents {
                Some((parents, buffer)) => {
                    let tree = Some(Tree { parents: &parents, buffer });
                    let tokens: Vec<Token> = tokens.iter().map(TokenRows::token).collect();
                    let steps = sequence(layer, &tokens, &start, &Between { tree, ..between });
                    steps.iter().enumerate().for_each(|(t, step)| leaves(t as u64, step));
                }
                // One at a time: the states of a long prompt would fill the memory.
                None => {
                    let mut state = start;
                    for (t, token) in tokens.iter().enumerate() {
                        for step in sequence(layer, &[token.token()], &state, &between) {
                            leaves(t as u64, &step);
                            state = step.state;
                        }
                    }
                }
            }
        }
    }

    unsafe fn initial_state(&self, n: u64, slot: u64) -> Vec<f64> {
        let (shape, elements) = (self.inputs.shape, self.inputs.shape.state_elements());
        let zeros = || vec![0.0; elements as usize];
        let Some(pool) = self.source.pool() else { return zeros() };
        // SAFETY: the caller's promise; the slot is one of the pool's.
        unsafe {
            if self.start.is_from_zeros(n) {
                return zeros();
            }
            let at = slot * pool.pitch;
            places(shape, pool.layout).map(|place| read(&pool.tensor, at + place)).collect()
        }
    }

    /// Stores the state after token `t` where the target wants it.
    unsafe fn store(&self, n: u64, slot: u64, t: u64, is_last: bool, state: &[f64]) {
        let into = |pool: &StatePool, slot: u64| {
            // SAFETY: the slot is one of the pool's.
            unsafe { write_state(&pool.tensor, slot * pool.pitch, self.inputs.shape, pool.layout, state) };
        };
        let slot_of = |table: &Table, column: u64| {
            let pool = self.source.pool()?;
            // SAFETY: the caller's promise.
            Some((pool, named(unsafe { entry(table, n, column) }, pool.slots, self.null_slot)?))
        };
        let place = match &self.target {
            Target::InPlace if is_last => self.source.pool().map(|pool| (pool, slot)),
            Target::Slots(table) if is_last => slot_of(table, 0),
            Target::Sequences(pool) if is_last => Some((pool, n)),
            Target::EachToken(table) if t < table.columns => slot_of(table, t),
            _ => None,
        };
        if let Some((pool, slot)) = place {
            into(pool, slot);
        }
    }

    fn layout(&self) -> Layout {
        self.state().2
    }
}

/// The parents of a sequence's tokens, if they are a tree, and the type that states lie in between parent and child.
unsafe fn parents(buffer: &Intermediate, n: u64) -> Option<(Vec<i32>, DType)> {
    let parent = buffer.parent.as_ref()?;
    // What is no i32 is no token either.
    // SAFETY: the caller's promise.
    let of = |t: u64| i32::try_from(unsafe { entry(parent, n, t) }).unwrap_or(-1);
    Some(((0..u64::from(buffer.steps)).map(of).collect(), buffer.tensor.dtype))
}
