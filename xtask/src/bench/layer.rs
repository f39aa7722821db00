//! What a layer's step takes when its three kernels are launched plainly, and when they are launched early.
//!
//! In a model the recurrence does not run alone. For each token a GDN layer launches `conv1d_update` (which makes q, k and v),
//! the recurrence (`decode` or `kda_decode`) and `gated_rmsnorm` (over what it put out), one behind the other. Each takes but a
//! few microseconds, and with plain launches the device is idle while one kernel ends and the next one starts. An early launch
//! (programmatic dependent launch) lets the next one start meanwhile.
//!
//! A graph holds L such steps, L being the launches that the recurrence alone would have: each on states of its own (cold in
//! L2). It is captured with plain launches and with early ones, and its time is divided by L. The three operations share no
//! data; the order in the stream makes each wait for the one in front all the same. What a model computes between the
//! layers, its projections above all, is left out: behind a norm comes the next step's convolution.

use super::case::{Case, medians};
use super::ops::{Op, Spec};
use super::row::Shape;
use super::{EARLY, Gpu, report};
use anyhow::Result;
use gdn_host::Launch;
use gdn_host::driver::{Graph, OwnedStream};
use serde::{Deserialize, Serialize};

/// The operations of a step, in the order in which they are launched.
const OPERATIONS: usize = 3;

/// Times of a shape's step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Layer {
    /// That of the recurrence.
    #[serde(flatten)]
    pub(super) shape: Shape,
    /// A step of plain launches.
    pub(super) plain_us: f64,
    /// A step of early ones.
    pub(super) early_us: f64,
    /// `early_us / plain_us`.
    ratio: f64,
    /// Whether the plans of convolution, recurrence and norm were early: otherwise both launches are plain.
    early: [bool; OPERATIONS],
}

/// The operations of a step around a recurrence, each of its shape.
pub(super) fn operations(recurrence: &Spec) -> [Spec; OPERATIONS] {
    [Op::Conv1dUpdate, recurrence.op, Op::GatedRmsNorm].map(|op| Spec { op, ..*recurrence })
}

impl Layer {
    /// Times the step around a recurrence, on a device that is not [`unsupported`](super::chained::unsupported); both graphs
    /// take turns.
    pub(super) fn time(gpu: &Gpu, recurrence: Case) -> Result<Layer> {
        let (spec, steps) = (recurrence.spec, recurrence.calls.len());
        let [conv, _, norm] = operations(&spec);
        let cases = [Case::new(gpu, conv)?, recurrence, Case::new(gpu, norm)?];
        let stream = OwnedStream::new(&gpu.context)?;
        let graph = |launch| graph(gpu, &stream, &cases, steps, launch);
        let graphs = [graph(Launch::default())?, graph(EARLY)?];
        let times = medians(gpu, &stream, &graphs)?;
        let mut early = [false; OPERATIONS];
        for (early, case) in early.iter_mut().zip(&cases) {
            *early = gpu.gdn.plan(case.first()?, EARLY)?.early;
        }
        Ok(Layer::new(&spec, [times[0], times[1]], steps, early))
    }

    /// From the times of a graph of plain launches and of one of early ones.
    fn new(spec: &Spec, graphs: [f64; 2], steps: usize, early: [bool; OPERATIONS]) -> Layer {
        let [plain_us, early_us] = graphs.map(|us| us / steps as f64);
        Layer { shape: spec.into(), plain_us, early_us, ratio: early_us / plain_us, early }
    }

    /// How each operation was launched in the graph of early launches: `plain, early, plain`.
    fn planned(&self) -> String {
        self.early.map(|early| if early { "early" } else { "plain" }).join(", ")
    }
}

/// So many steps, each with a call of every case. A case with fewer calls than steps starts anew with its first.
fn graph(
    gpu: &Gpu,
    stream: &OwnedStream,
    cases: &[Case; OPERATIONS],
    steps: usize,
    launch: Launch,
) -> Result<Graph, gdn_host::Error> {
    Graph::capture(stream, |stream| {
        for step in 0..steps {
            for case in cases {
                let call = &case.calls[step % case.calls.len()];
                // SAFETY: the call's buffers are alive in its case and used by no other case. Launched early, it reads tables
                // that nothing in the graph writes: their slots were filled when the case was made. Its other memory it
                // touches behind its wait; then nothing in front runs any more, for each kernel there either was launched in
                // the ordinary way, behind the end of all in front of it, or has itself waited for its predecessor's end.
                unsafe { gpu.gdn.run_with(call.as_ref(), launch, stream)? };
            }
        }
        Ok(())
    })
}

/// Prints rows as a table, if there are any.
pub(super) fn print(rows: &[Layer]) {
    if rows.is_empty() {
        return;
    }
    let headings = [Shape::HEADINGS.as_slice(), &["plain us", "early us", "early/plain", "planned"]].concat();
    let cells = rows.iter().map(|r| {
        let own = [
            format!("{:.2}", r.plain_us),
            format!("{:.2}", r.early_us),
            format!("{:.2}", r.ratio),
            r.planned(),
        ];
        r.shape.cells().into_iter().chain(own).collect()
    });
    report::wide_table(&headings, cells.collect());
}

#[cfg(test)]
mod tests {
    use super::*;
    use gdn_host::{DType, HeadShape, Layout};
    use serde_json::json;

    fn spec(op: Op) -> Spec {
        let shape = HeadShape::new(16, 32, 128, 128).unwrap();
        Spec::new(op, shape, DType::F32, Layout::Kv, 2, 4)
    }

    #[test]
    fn a_step_is_convolution_recurrence_and_norm_of_one_shape() {
        for op in [Op::Decode, Op::KdaDecode] {
            let step = operations(&spec(op));
            assert_eq!(step.map(|s| s.op), [Op::Conv1dUpdate, op, Op::GatedRmsNorm]);
            assert!(step.iter().all(|s| (s.shape.hv, s.batch, s.tokens) == (32, 2, 1)));
        }
    }

    #[test]
    fn times_are_per_step() {
        let row = Layer::new(&spec(Op::Decode), [400.0, 300.0], 40, [false, true, false]);
        let json = serde_json::to_value(&row).unwrap();
        let expected = json!({
            "op": "decode", "h": 16, "hv": 32, "k": 128, "v": 128, "state": "f32", "io": "bf16",
            "layout": "kv", "batch": 2, "plain_us": 10.0, "early_us": 7.5, "ratio": 0.75, "early": [false, true, false],
        });
        assert_eq!((json, row.planned().as_str()), (expected, "plain, early, plain"));
    }
}
