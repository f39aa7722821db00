//! Recorded cases of the neighbours, and of layers: conv1d update, recurrence and gated RMSNorm in turn.

use super::conv1d::{ConvProblem, ConvSolution, PoolData, WindowData};
use super::hf_layer::{HfLayerCase, run_hf_layer};
use super::layer::{LayerCase, run_layer};
use super::norm::NormProblem;
use crate::case::Case;
use crate::compare::{Tolerance, rel_l2, widen, worst_vector};
use crate::device::Device;
use crate::parity::Outcome;
use crate::strided::{Strided, encode_values};
use anyhow::{Result, ensure};
use gdn_host::{Activation, DType, Tile};

/// Whether an operation of the case format is one of this file's.
pub fn records(op: &str) -> bool {
    matches!(op, "conv1d_update" | "gated_rmsnorm" | "layer_step" | "hf_layer")
}

/// Runs a case of this file's operations on a device.
///
/// # Errors
/// A case that cannot be run. One that runs and differs is an outcome that did not pass.
pub fn run(case: &Case, device: &mut dyn Device) -> Result<Outcome> {
    match case.op() {
        "conv1d_update" => run_conv1d(&ConvCase::new(case)?, device),
        "gated_rmsnorm" => run_norm(&NormCase::new(case)?, device),
        "hf_layer" => run_hf_layer(&HfLayerCase::new(case)?, device),
        _ => run_layer(&LayerCase::new(case)?, device),
    }
}

/// What comparisons found.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) notes: Vec<String>,
    pub(super) out: f64,
    pub(super) state: Option<f64>,
}

impl Findings {
    /// Compares rows of `width` elements that are recorded; vectors of `vector` elements also on their own.
    pub(super) fn compare(
        &mut self,
        what: &str,
        got: &[f32],
        want: &[f32],
        vector: usize,
        (limit, each): (f64, f64),
    ) {
        let (got, want) = (widen(got), widen(want));
        let (whole, worst) = (rel_l2(&got, &want), worst_vector(&got, &want, vector));
        self.out = self.out.max(whole);
        self.demand(whole <= limit, || format!("{what} is off by {whole:.2e}"));
        self.demand(worst <= each, || format!("a vector of {what} is off by {worst:.2e}"));
    }

    /// Holds the relative error of states against the limit.
    pub(super) fn compare_state(&mut self, what: &str, error: f64, limit: &Tolerance) {
        self.state = Some(self.state.unwrap_or(0.0).max(error));
        self.demand(error <= limit.state, || format!("{what} is off by {error:.2e}"));
    }

    pub(super) fn demand(&mut self, holds: bool, note: impl FnOnce() -> String) {
        if !holds {
            self.notes.push(note());
        }
    }

    pub(super) fn outcome(self, tolerance: &Tolerance) -> Outcome {
        Outcome {
            file: String::new(),
            op: String::new(),
            pass: self.notes.is_empty(),
            rel_l2_out: Some(self.out),
            rel_l2_state: self.state,
            tolerance: format!("{:.0e} / vector {:.0e} / conv state exact", tolerance.out, tolerance.head),
            note: self.notes.join("; "),
        }
    }
}

/// A recorded tensor of a type and size, as dense rows.
pub(super) fn rows(case: &Case, name: &str, width: usize, count: usize) -> Result<Strided> {
    let x = case.values(name)?;
    ensure!(x.data.len() == count * width, "tensor `{name}` has shape {:?}, not {count} x {width}", x.shape);
    Ok(Strided::dense(x.dtype, width, x.data))
}

pub(super) fn activation(case: &Case) -> Result<Activation> {
    case.demand("activation", &["silu", "sigmoid"])?;
    Ok(if case.meta("activation")? == "silu" { Activation::Silu } else { Activation::Sigmoid })
}

/// A conv1d update, and what the recorded kernel made of it.
pub struct ConvCase {
    /// Inputs and options.
    pub problem: ConvProblem,
    /// Recorded output, `[tokens, dim]`.
    pub out: Vec<f32>,
    /// Recorded conv states, `[slots, dim, W - 1]`.
    pub state: Vec<f32>,
    /// Recorded windows, `[B, T, dim, W - 1]`.
    pub windows: Option<Vec<f32>>,
}

impl ConvCase {
    /// Reads a case.
    ///
    /// # Errors
    /// A missing tensor, or one of another size than the metadata says.
    pub fn new(case: &Case) -> Result<ConvCase> {
        let (dim, width) = (case.number("dim")?, case.number::<usize>("width")?);
        let (batch, tokens) = (case.number::<usize>("B")?, case.number::<usize>("T")?);
        let x = rows(case, "x", dim, batch * tokens)?;
        case.demand("activation", &["silu", "none"])?;
        let mut problem = conv_problem(case, x, dim, width, batch, tokens)?;
        problem.silu = case.meta("activation")? == "silu";
        problem.parent = case.if_there("parent", |name| case.indices32(name, batch * tokens))?;
        let windows = case.if_there("intermediate_conv_out", |name| {
            Ok(case.sized(name, batch * tokens * dim * (width - 1))?.data)
        })?;
        let row = case.if_there("intermediate_idx", |name| case.indices32(name, batch))?;
        problem.windows = windows.is_some().then(|| WindowData {
            rows: batch,
            steps: tokens,
            pitch: tokens * dim * (width - 1),
            row,
        });
        let count = batch * tokens;
        let state = rows(case, "conv_state_out", dim * (width - 1), problem.pool.slots)?.data;
        Ok(ConvCase { problem, out: rows(case, "out", dim, count)?.data, state, windows })
    }
}

/// The conv1d update of a case whose inputs are `x`, with SiLU.
pub(super) fn conv_problem(
    case: &Case,
    x: Strided,
    dim: usize,
    width: usize,
    batch: usize,
    tokens: usize,
) -> Result<ConvProblem> {
    case.demand("conv_products", &["f32", x.dtype.name()])?;
    let slots = case.number("slots")?;
    let slot = case.indices32("slot_idx", batch)?;
    ensure!(slot.len() == batch, "slot_idx has {} entries for B = {batch}", slot.len());
    let state = rows(case, "conv_state_in", dim * (width - 1), slots)?;
    ensure!(state.dtype == x.dtype, "conv_state_in has another type than x");
    let bias = case.if_there("conv_bias", |name| rows(case, name, dim, 1))?;
    let round_products = x.dtype != DType::F32 && case.meta("conv_products")? != "f32";
    let pool = PoolData::dense(state.data, slots, dim, width - 1, true);
    let problem = ConvProblem::new(tokens, x, rows(case, "conv_weight", width, dim)?, pool, slot);
    Ok(ConvProblem { bias, round_products, ..problem })
}

/// Runs a conv1d update: outputs of real rows within tolerance, padded rows zero, conv states and windows exact.
pub fn run_conv1d(case: &ConvCase, device: &mut dyn Device) -> Result<Outcome> {
    let p = &case.problem;
    let solution = p.run(device, Tile::Auto)?;
    let limit = Tolerance::recorded(p.io(), p.io());
    let mut found = Findings::default();
    compare_conv(&mut found, p, &solution, &case.out, &limit);
    let exact = solution.state == encode_values(&case.state, p.io());
    found.demand(exact, || "a conv state differs".into());
    if let Some(windows) = &case.windows {
        let exact = solution.windows == encode_values(windows, p.io());
        found.demand(exact, || "a window after a token differs".into());
    }
    found.state = Some(if exact { 0.0 } else { f64::INFINITY });
    Ok(found.outcome(&limit))
}

/// Compares a conv1d update's output, sequence by sequence.
pub(super) fn compare_conv(
    found: &mut Findings,
    p: &ConvProblem,
    got: &ConvSolution,
    want: &[f32],
    limit: &Tolerance,
) {
    for ((n, (begin, end)), slot) in p.tokens().into_iter().enumerate().zip(p.read_slots()) {
        let tokens = begin * p.dim..end * p.dim;
        match slot {
            Some(_) => {
                let what = format!("conv out of sequence {n}");
                found.compare(&what, &got.out[tokens.clone()], &want[tokens], p.dim, (limit.out, limit.head));
            }
            None => {
                let zero = got.out[tokens].iter().all(|x| x.to_bits() == 0);
                found.demand(zero, || format!("padded row {n} of the conv is not zero"));
            }
        }
    }
}

/// A gated RMSNorm, and what the recorded kernel made of it.
pub struct NormCase {
    /// Inputs and options.
    pub problem: NormProblem,
    /// Recorded output.
    pub out: Vec<f32>,
}

impl NormCase {
    /// Reads a case.
    ///
    /// # Errors
    /// A missing tensor, or one of another size than the metadata says.
    pub fn new(case: &Case) -> Result<NormCase> {
        let (hv, v): (usize, usize) = (case.number("HV")?, case.number("V")?);
        let (width, tokens) = (hv * v, case.number::<usize>("B")? * case.number::<usize>("T")?);
        let problem = NormProblem {
            hv,
            v,
            tokens,
            x: rows(case, "x", width, tokens)?,
            z: rows(case, "z", width, tokens)?,
            weight: rows(case, "norm_weight", v, 1)?,
            activation: activation(case)?,
            eps: case.number("eps")?,
            out_stride: width,
            in_place: false,
            head_gaps: [0; 3],
        };
        Ok(NormCase { problem, out: rows(case, "out", width, tokens)?.data })
    }
}

/// Runs a gated RMSNorm: the output within tolerance, as a whole and head by head.
pub fn run_norm(case: &NormCase, device: &mut dyn Device) -> Result<Outcome> {
    let p = &case.problem;
    let solution = p.run(device, Tile::Auto)?;
    let limit = Tolerance::recorded(p.io(), p.io());
    let mut found = Findings::default();
    found.compare("out", &solution.out, &case.out, p.v, (limit.out, limit.head));
    Ok(found.outcome(&limit))
}
