//! A solution against the oracle.

use super::{Beta, Decay, Memory, Origin, Place, Problem, Route, Solution};
use crate::compare::{Error, Tolerance, rel_l2, widen};
use crate::device::POISON;
use crate::strided::{Strided, encode_values};
use anyhow::{Result, ensure};
use gdn_host::reference::recurrence::{self, Between, Gate, Layer, Token, Tree, sequence};
use gdn_host::{DType, HeadMap, HeadShape};
use std::collections::HashSet;

/// What a call writes, in the order of its routes.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// Output rows of sequences that are no padding: the row, and its `[HV, V]`.
    pub out: Vec<(usize, Vec<f64>)>,
    /// States: the place, and its `[HV, V, K]`.
    pub states: Vec<(Place, Vec<f64>)>,
}

/// A problem's inputs, widened once for the oracle.
pub(crate) struct Exact<'a> {
    problem: &'a Problem,
    /// q, k, v, a, b.
    inputs: [Vec<f64>; 5],
    /// `a_log` and `dt_bias`, empty for given decays.
    tables: [Vec<f64>; 2],
}

impl<'a> Exact<'a> {
    pub(crate) fn of(problem: &'a Problem) -> Exact<'a> {
        let wide = |x: &Strided| widen(&x.data);
        let inputs = [&problem.q, &problem.k, &problem.v, &problem.a, &problem.b].map(wide);
        let tables = match &problem.decay {
            Decay::Softplus { a_log, dt_bias, .. } | Decay::LowerBound { a_log, dt_bias, .. } => {
                [wide(a_log), wide(dt_bias)]
            }
            Decay::Given | Decay::GivenPerKeyHead => [Vec::new(), Vec::new()],
        };
        Exact { problem, inputs, tables }
    }

    /// What each of the tokens in these rows of the inputs leaves, the first of which starts from `start`, `[HV, V, K]`.
    pub(crate) fn sequence(
        &self,
        rows: impl Iterator<Item = usize>,
        start: &[f64],
        between: &Between,
    ) -> Vec<recurrence::Step> {
        let Problem { q, k, v, a, b, .. } = self.problem;
        let token = |t: usize| {
            let row = |i: usize, x: &Strided| &self.inputs[i][t * x.width..(t + 1) * x.width];
            Token { q: row(0, q), k: row(1, k), v: row(2, v), a: row(3, a), b: row(4, b) }
        };
        let tokens: Vec<Token> = rows.map(token).collect();
        sequence(&self.problem.layer(&self.tables), &tokens, start, between)
    }
}

impl Problem {
    /// What the oracle writes.
    pub fn oracle(&self) -> Written {
        let exact = Exact::of(self);
        let mut written = Written::default();
        for route in self.routes().iter().filter(|route| !route.is_padding()) {
            let start = self.initial_state(route);
            let steps = exact.sequence(route.tokens.clone(), &start, &self.between(route));
            if self.out.is_some() {
                let rows = route.tokens.clone().zip(steps.iter().map(|step| step.out.clone()));
                written.out.extend(rows);
            }
            let state = |t: Option<usize>| t.map_or(&start, |t| &steps[t].state).clone();
            written.states.extend(route.stores.iter().map(|&(t, place)| (place, state(t))));
        }
        written
    }

    /// What holds for all tokens, as the oracle takes it.
    fn layer<'a>(&self, [a_log, dt_bias]: &'a [Vec<f64>; 2]) -> Layer<'a> {
        let gate = match self.decay {
            Decay::Softplus { beta, threshold, .. } => {
                Gate::Softplus { a_log, dt_bias, beta: beta.into(), threshold: threshold.into() }
            }
            Decay::LowerBound { bound, .. } => Gate::LowerBound { a_log, dt_bias, bound: bound.into() },
            Decay::Given => Gate::Given,
            Decay::GivenPerKeyHead => Gate::GivenPerKeyHead,
        };
        let beta = match self.beta {
            Beta::Logits { rounded, scale } => {
                let rounded = rounded.then_some(self.b.dtype);
                recurrence::Beta::Logits { scale: scale.into(), rounded }
            }
            Beta::Given => recurrence::Beta::Given,
            Beta::GivenPerValue => recurrence::Beta::GivenPerValue,
        };
        let &Problem { shape, family, heads, l2norm, .. } = self;
        Layer { shape, family, heads, gate, beta, l2norm: l2norm.map(f64::from), scale: self.wide_scale() }
    }

    fn wide_scale(&self) -> f64 {
        self.scale.map_or(f64::from(self.shape.k).sqrt().recip(), f64::from)
    }

    fn initial_state(&self, route: &Route) -> Vec<f64> {
        let elements = self.elements();
        match route.origin {
            Origin::Slot(slot) => widen(&self.pool.data[slot * elements..(slot + 1) * elements]),
            Origin::Zeros | Origin::Padding => vec![0.0; elements],
        }
    }

    fn between<'a>(&self, route: &Route<'a>) -> Between<'a> {
        let dtype = self.pool.dtype;
        Between {
            round: self.round_state.then_some(dtype),
            tree: route.parents.map(|parents| Tree { parents, buffer: self.buffer_type() }),
        }
    }

    /// What a solution has where the call writes.
    pub fn written(&self, solution: &Solution) -> Written {
        let cut = |x: &Memory, i: usize, width: usize| widen(&x.values[i * width..(i + 1) * width]);
        let mut written = Written::default();
        for route in self.routes().into_iter().filter(|route| !route.is_padding()) {
            if self.out.is_some() {
                let rows = route.tokens.map(|row| (row, cut(&solution.out, row, self.width())));
                written.out.extend(rows);
            }
            let state = |place| match place {
                Place::Pool(i) => cut(&solution.state, i, self.elements()),
                Place::Final(i) => cut(&solution.final_state, i, self.elements()),
                Place::Buffer(i) => cut(&solution.intermediate, i, self.elements()),
            };
            written.states.extend(route.stores.iter().map(|&(_, place)| (place, state(place))));
        }
        written
    }

    /// Holds a solution against the oracle: outputs and written states within tolerance, and besides what
    /// [`Self::check_untouched`] says.
    pub fn check(&self, solution: &Solution) -> Result<()> {
        Self::check_defined(&self.routes())?;
        self.check_untouched(solution, POISON)?;
        let (got, want) = (self.written(solution), self.oracle());
        let out_type = self.out.map_or(DType::F32, |out| out.dtype);
        let mut limit = Tolerance::oracle(out_type, self.pool.dtype);
        if self.round_state || self.intermediate.as_ref().is_some_and(|i| i.parent.is_some()) {
            limit = limit.with_rounded_states(self.pool.dtype).with_rounded_states(self.buffer_type());
        }
        // What is stored in a buffer is rounded to its type, and with a tree what is computed from it.
        let buffer_limit = limit.state.max(Tolerance::oracle(out_type, self.buffer_type()).state);
        self.check_outputs(&got.out, &want.out, &limit)?;
        for ((place, got), (_, want)) in got.states.iter().zip(&want.states) {
            let error = rel_l2(got, want);
            let allowed = if matches!(place, Place::Buffer(_)) { buffer_limit } else { limit.state };
            ensure!(error <= allowed, "state {place:?} is off by {error:.3e}");
        }
        Ok(())
    }

    /// Holds output rows against the oracle's.
    pub(crate) fn check_outputs(
        &self,
        got: &[(usize, Vec<f64>)],
        want: &[(usize, Vec<f64>)],
        limit: &Tolerance,
    ) -> Result<()> {
        let v = self.shape.v as usize;
        let mut total = Error::default();
        for ((row, got), (_, want)) in got.iter().zip(want) {
            for (head, (got, want)) in got.chunks(v).zip(want.chunks(v)).enumerate() {
                let error = Error::of(got, want, self.floor(*row, head, limit));
                let text = format!("out of token {row}, head {head}, is off by {error}");
                ensure!(error.within(limit.head), "{text}, allowed is {:.1e}", limit.head);
                total.add(&error);
            }
        }
        ensure!(total.within(limit.out), "out is off by {total}, allowed is {:.1e}", limit.out);
        Ok(())
    }

    /// Holds what a call must leave alone against what was there: output rows of padded sequences, and those behind the
    /// last sequence, are zeros; other rows of no sequence, and slots, final states and steps that nobody writes, have every bit they had. Memory that is
    /// only written held the byte `fill`.
    pub fn check_untouched(&self, solution: &Solution, fill: u8) -> Result<()> {
        let routes = self.routes();
        if let Some(out) = self.out {
            let mut owner = vec![None; self.tokens.total()];
            owner[self.tokens.rest()].fill(Some(true));
            for route in &routes {
                owner[route.tokens.clone()].fill(Some(route.is_padding()));
            }
            let rows = solution.out.bytes.chunks(self.width() * out.dtype.size());
            for (row, (got, owner)) in rows.zip(owner).enumerate() {
                let holds = |byte: u8| got.iter().all(|b| *b == byte);
                match owner {
                    Some(true) => ensure!(holds(0), "padded row {row} of out is not zero"),
                    Some(false) => {}
                    None => ensure!(holds(fill), "row {row} of out is nobody's, and was touched"),
                }
            }
        }
        let written: HashSet<Place> = routes.iter().flat_map(|r| r.stores.iter().map(|s| s.1)).collect();
        let before = encode_values(&self.pool.data, self.pool.dtype);
        let check = |memory: &Memory, place: fn(usize) -> Place, dtype: DType, before: &[u8]| -> Result<()> {
            let bytes = self.elements() * dtype.size();
            let filled = vec![fill; bytes];
            for (i, got) in memory.bytes.chunks(bytes).enumerate() {
                let place = place(i);
                let before = before.chunks(bytes).nth(i).unwrap_or(&filled);
                ensure!(written.contains(&place) || got == before, "{place:?} was touched");
            }
            Ok(())
        };
        let dtype = self.pool.dtype;
        check(&solution.state, Place::Pool, dtype, &before)?;
        check(&solution.final_state, Place::Final, dtype, &[])?;
        check(&solution.intermediate, Place::Buffer, self.buffer_type(), &[])
    }

    /// The error that a correct implementation may make in a head's output whatever its size: the tolerance's, and
    /// besides, an f16 below 6e-5 has fewer bits.
    fn floor(&self, token: usize, head: usize, limit: &Tolerance) -> f64 {
        let HeadShape { h, hv, k, v } = self.shape;
        let norm = |x: &[f32]| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let key_head = match self.heads {
            HeadMap::Grouped => head / (hv / h) as usize,
            HeadMap::Tiled => head % h as usize,
        };
        let row = |x: &Strided, head: usize, width: u32| {
            let (at, width) = (token * x.width + head * width as usize, width as usize);
            norm(&x.data[at..at + width])
        };
        let keys = match self.l2norm {
            Some(_) => 1.0,
            None => row(&self.q, key_head, k) * row(&self.k, key_head, k),
        };
        let is_f16 = self.out.is_some_and(|out| out.dtype == DType::F16);
        let rounding = if is_f16 { 2f64.powi(-25) * f64::from(v).sqrt() } else { 0.0 };
        limit.floor * self.wide_scale().abs() * keys * row(&self.v, head, v) + rounding
    }
}
