//! What a launch adds behind a predecessor: launched when that has ended, and launched early.
//!
//! A graph holds L times a producer and the operation, each time on states of its own (cold in L2). The producer has one
//! block a multiprocessor, lets its dependents start at once and keeps the multiprocessors busy for a given time. The
//! marginal time is that of the chain less that of the producers alone, divided by L. Early launches are timed in two chains:
//! with producers that are launched when the operation has ended, and with producers that are launched early too and wait
//! for it before they work, as in a model all of whose kernels are launched early.

use super::case::{Case, medians};
use super::ops::Spec;
use super::probe::{PRODUCER_BLOCK, Probe, ProducerParams};
use super::row::Shape;
use super::{EARLY, Gpu, report};
use anyhow::Result;
use gdn_host::driver::{DeviceBuffer, DriverError, Graph, OwnedStream, Stream, launch, launch_early};
use gdn_host::plan::Step;
use gdn_host::{Caps, Launch, Tile};
use serde::{Deserialize, Serialize};

/// Microseconds that producers take.
const PRODUCER_US: [f64; 2] = [2.0, 5.0];

/// `CU_DEVICE_ATTRIBUTE_CLOCK_RATE`, in kHz.
const CLOCK_RATE: u32 = 13;

/// Marginal times of a shape behind one producer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Chained {
    #[serde(flatten)]
    pub(super) shape: Shape,
    tokens: u32,
    /// What the producer spins for.
    pub(super) producer_us: f64,
    /// What a producer takes alone, its launch included.
    alone_us: f64,
    /// What a plain launch adds.
    pub(super) plain_us: f64,
    /// What an early launch adds.
    early_us: f64,
    /// `early_us / plain_us`.
    pub(super) ratio: f64,
    /// What an early launch adds where producers are launched early too, to such producers alone.
    all_early_us: f64,
    /// `all_early_us / plain_us`.
    pub(super) all_early_ratio: f64,
    /// Whether the plan was early: otherwise both launches are plain.
    pub(super) early: bool,
}

/// The producer, and what it writes.
pub(super) struct Producer {
    probe: Probe,
    out: DeviceBuffer,
    sms: u32,
    clock_khz: u32,
}

impl Producer {
    /// Loads it, on a device that is not [`unsupported`].
    pub(super) fn new(gpu: &Gpu) -> Result<Producer> {
        let caps = gpu.gdn.caps();
        let clock_khz = gpu.context.device().attribute(CLOCK_RATE)?.unsigned_abs();
        let out = DeviceBuffer::alloc(&gpu.context, (caps.sms * PRODUCER_BLOCK * 4) as usize)?;
        Ok(Producer { probe: Probe::producer(&gpu.context)?, out, sms: caps.sms, clock_khz })
    }

    fn launch(&self, us: f64, early: bool, stream: Stream) -> Result<(), DriverError> {
        let clocks = (us * f64::from(self.clock_khz) / 1e3) as u64;
        let params = ProducerParams { out: self.out.address(), clocks };
        let launch = if early { launch_early } else { launch };
        // SAFETY: the struct is the kernel's, and its buffer has a word for each thread of the grid. Launched early, it waits
        // before it does anything.
        unsafe { launch(self.probe.function, [self.sms, 1, 1], PRODUCER_BLOCK, 0, stream, &params) }
    }

    /// Times a shape behind each producer; all graphs take turns.
    pub(super) fn time(&self, gpu: &Gpu, case: &Case) -> Result<Vec<Chained>> {
        let stream = OwnedStream::new(&gpu.context)?;
        let chains = PRODUCER_US.into_iter().flat_map(|us| Chain::ALL.map(|chain| (us, chain)));
        let graph = |(us, chain)| self.graph(gpu, &stream, case, us, chain);
        let graphs = chains.map(graph).collect::<Result<Vec<_>, _>>()?;
        let medians = medians(gpu, &stream, &graphs)?;
        let is_early = gpu.gdn.plan(case.first()?, EARLY)?.early;
        let launches = case.calls.len();
        let (of_producer, _) = medians.as_chunks();
        let row = |(&us, &medians)| Chained::new(&case.spec, us, medians, launches, is_early);
        Ok(PRODUCER_US.iter().zip(of_producer).map(row).collect())
    }

    /// A producer before each call, or producers alone.
    fn graph(
        &self,
        gpu: &Gpu,
        stream: &OwnedStream,
        case: &Case,
        us: f64,
        chain: Chain,
    ) -> Result<Graph, gdn_host::Error> {
        Graph::capture(stream, |stream| {
            for call in &case.calls {
                self.launch(us, chain.early_producers, stream)?;
                let Some(launch) = chain.operation else { continue };
                // SAFETY: the call's buffers are alive in case and used by nothing else, in particular by no producer; what
                // comes before its producer wrote other states.
                unsafe { gpu.gdn.run_with(call.as_ref(), launch, stream)? };
            }
            Ok(())
        })
    }
}

/// Producers for whoever tunes, on a device that has early launches.
pub struct Producers(Producer);

impl Producers {
    /// `None` on a device that is [`unsupported`].
    pub fn new(gpu: &Gpu) -> Result<Option<Producers>> {
        match unsupported(gpu.gdn.caps()) {
            Some(_) => Ok(None),
            None => Ok(Some(Producers(Producer::new(gpu)?))),
        }
    }

    /// What a step's plain and early launches add behind a producer, in the geometric mean over producers.
    pub fn marginal(&self, gpu: &Gpu, spec: Spec, step: Step) -> Result<[f64; 2]> {
        let case = Case::new(gpu, spec)?;
        let stream = OwnedStream::new(&gpu.context)?;
        let launch = |early| Some(Launch { tile: Tile::Step(step), early });
        let operations = [None, launch(false), launch(true)];
        let chains = PRODUCER_US.into_iter().flat_map(|us| operations.map(|operation| (us, operation)));
        let graph = |(us, operation)| {
            self.0.graph(gpu, &stream, &case, us, Chain { early_producers: false, operation })
        };
        let graphs = chains.map(graph).collect::<Result<Vec<_>, _>>()?;
        let medians = medians(gpu, &stream, &graphs)?;
        let (of_producer, _) = medians.as_chunks::<3>();
        let mean = |of: fn(&[f64; 3]) -> f64| {
            let logs: f64 = of_producer.iter().map(|times| of(times).max(1e-3).ln()).sum();
            (logs / of_producer.len() as f64).exp()
        };
        Ok([mean(|[alone, plain, _]| plain - alone), mean(|[alone, _, early]| early - alone)])
    }
}

/// How the kernels of a graph are launched.
#[derive(Clone, Copy)]
struct Chain {
    early_producers: bool,
    /// The operation, if it is in the graph.
    operation: Option<Launch>,
}

impl Chain {
    /// In the order in which [`Chained::new`] takes their times.
    const ALL: [Chain; 5] = {
        let plain = Launch { tile: Tile::Auto, early: false };
        [
            Chain { early_producers: false, operation: None },
            Chain { early_producers: false, operation: Some(plain) },
            Chain { early_producers: false, operation: Some(EARLY) },
            Chain { early_producers: true, operation: None },
            Chain { early_producers: true, operation: Some(EARLY) },
        ]
    };
}

impl Chained {
    /// From the times of the graphs of [`Chain::ALL`].
    fn new(spec: &Spec, producer_us: f64, graphs: [f64; 5], launches: usize, early: bool) -> Chained {
        let [alone, plain, behind_plain, alone_early, all_early] = graphs;
        let marginal = |chain: f64, alone: f64| (chain - alone) / launches as f64;
        let (plain_us, early_us) = (marginal(plain, alone), marginal(behind_plain, alone));
        let all_early_us = marginal(all_early, alone_early);
        Chained {
            shape: spec.into(),
            tokens: spec.tokens,
            producer_us,
            alone_us: alone / launches as f64,
            plain_us,
            early_us,
            ratio: early_us / plain_us,
            all_early_us,
            all_early_ratio: all_early_us / plain_us,
            early,
        }
    }
}

/// Why a device cannot do this, if it cannot.
pub(super) fn unsupported(caps: &Caps) -> Option<String> {
    let (major, minor) = (caps.compute / 10, caps.compute % 10);
    let text = format!(
        "compute capability {major}.{minor} has no programmatic dependent launch; 9.0 and later have"
    );
    (major < 9).then_some(text)
}

/// Prints rows as a table, if there are any.
pub(super) fn print(rows: &[Chained]) {
    if rows.is_empty() {
        return;
    }
    let own = [
        "tokens",
        "producer us",
        "alone us",
        "plain us",
        "early us",
        "early/plain",
        "all early us",
        "all early/plain",
        "planned",
    ];
    let headings = [Shape::HEADINGS.as_slice(), &own].concat();
    let cells = rows.iter().map(|r| {
        let own = [
            r.tokens.to_string(),
            format!("{:.0}", r.producer_us),
            format!("{:.2}", r.alone_us),
            format!("{:.2}", r.plain_us),
            format!("{:.2}", r.early_us),
            format!("{:.2}", r.ratio),
            format!("{:.2}", r.all_early_us),
            format!("{:.2}", r.all_early_ratio),
            if r.early { "early" } else { "plain" }.into(),
        ];
        r.shape.cells().into_iter().chain(own).collect()
    });
    report::wide_table(&headings, cells.collect());
}

#[cfg(test)]
mod tests {
    use super::super::ops::Op;
    use super::*;
    use gdn_host::{DType, HeadShape, Layout};

    #[test]
    fn marginal_time_is_the_chain_less_the_producers() {
        let shape = HeadShape::new(16, 32, 128, 128).unwrap();
        let spec = Spec::new(Op::Decode, shape, DType::F32, Layout::Vk, 1, 4);
        let row = Chained::new(&spec, 2.0, [100.0, 300.0, 200.0, 80.0, 130.0], 40, true);
        assert_eq!((row.alone_us, row.plain_us, row.early_us, row.ratio), (2.5, 5.0, 2.5, 0.5));
        assert_eq!((row.all_early_us, row.all_early_ratio), (1.25, 0.25));
        let json = serde_json::to_value(&row).unwrap();
        for field in ["op", "h", "hv", "state", "batch", "producer_us", "plain_us", "early_us", "ratio"] {
            assert!(json.get(field).is_some(), "{field}");
        }
        assert_eq!(json["early"], true);
    }

    #[test]
    fn older_devices_are_told_why() {
        let caps = |compute| Caps { sms: 132, compute, memory_gbps: 0 };
        let text = "compute capability 8.9 has no programmatic dependent launch";
        assert!(unsupported(&caps(89)).is_some_and(|why| why.starts_with(text)));
        assert_eq!((unsupported(&caps(90)), unsupported(&caps(120))), (None, None));
    }
}
