//! A step of decode of the whole model as a CUDA graph: recorded once for a number of texts, launched for every token of theirs.
//!
//! What changes from step to step lies in tensors that stay: tokens, places, rows, slots. What a step needs besides is asked of
//! nobody: masks, rotations and routes are made on the device. Attention looks at more places than there are, so that a graph
//! serves a while.
//!
//! candle's own part, as of candle-core 0.11: tensors are allocated in stream order, and what is allocated under capture is the
//! graph's; dimensions and strides that its kernels take go by small uploads, which `enable_cuda_graph_htod_cache` keeps, so that
//! a capture finds them on the device. So a step runs twice before it is recorded: with slots that name none, it writes no state.

use crate::model::{Batch, Model, Placed, Recurrence};
use anyhow::{Context as _, Result};
use candle_core::{DType, Device, Tensor};
use gdn_candle::{Slots, Tokens};
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// Places that attention looks at: a multiple of these.
const SEEN: usize = 256;

/// The graphs of a model, by texts of a step and places that attention looks at. On the CPU a step is run anew instead.
#[derive(Default)]
pub struct Graphs(HashMap<(usize, usize), Recorded>);

/// A step that was recorded.
struct Recorded {
    placed: Placed,
    /// The table of `placed`'s slots.
    slots: Tensor,
    /// `[texts, vocabulary]`.
    logits: Tensor,
    /// `[texts]`.
    likeliest: Tensor,
    graph: Option<capture::Graph>,
}

impl Graphs {
    /// A token of each text: the logits, `[texts, vocabulary]`, and the likeliest tokens. `slots` are those of `batch`.
    pub fn step(&mut self, model: &Model, batch: &Batch, slots: &[u32]) -> Result<(Tensor, Vec<u32>)> {
        let last = batch.starts.iter().max().copied().unwrap_or(0);
        let key = (slots.len(), (last + 1).next_multiple_of(SEEN).min(model.room().tokens));
        let recorded = match self.0.entry(key) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Recorded::new(model, batch, key)?),
        };
        recorded.set(batch, slots)?;
        match &recorded.graph {
            Some(graph) => graph.launch()?,
            None => recorded.run(model)?,
        }
        Ok((recorded.logits.copy()?, recorded.likeliest.to_vec1()?))
    }
}

impl Recorded {
    fn new(model: &Model, batch: &Batch, (texts, seen): (usize, usize)) -> Result<Recorded> {
        let device = model.device();
        let zeros = || Tensor::zeros(texts, DType::U32, device);
        let slots = zeros()?;
        let placed = Placed {
            ids: zeros()?,
            places: zeros()?,
            rows: zeros()?,
            slots: Slots::of(&slots),
            packing: Tokens::Each(1),
            lens: vec![1; texts],
            seen,
        };
        let logits = Tensor::zeros((texts, model.vocabulary()?), DType::F32, device)?;
        let mut recorded = Recorded { placed, slots, logits, likeliest: zeros()?, graph: None };
        recorded.set(batch, &vec![u32::MAX; texts])?;
        recorded.graph = capture::record(device, &|| recorded.run(model))?;
        Ok(recorded)
    }

    /// Says what the next launch is of.
    fn set(&self, batch: &Batch, slots: &[u32]) -> Result<()> {
        let placed = batch.place(self.slots.device())?;
        let new = Tensor::from_slice(slots, slots.len(), self.slots.device())?;
        let Placed { ids, places, rows, .. } = &self.placed;
        for (old, new) in
            [(ids, placed.ids), (places, placed.places), (rows, placed.rows), (&self.slots, new)]
        {
            old.slice_set(&new, 0, 0)?;
        }
        Ok(())
    }

    fn run(&self, model: &Model) -> Result<()> {
        let states = model.replay().map(|states| states.step(&self.placed.slots)).transpose()?;
        let recurrence = states.as_ref().map_or(Recurrence::Plain, Recurrence::Replay);
        let logits = model.step(&self.placed, recurrence)?;
        self.likeliest.slice_set(&Model::likeliest(&logits)?, 0, 0)?;
        Ok(self.logits.slice_set(&logits, 0, 0)?)
    }
}

#[cfg(feature = "cuda")]
mod capture {
    use super::*;
    use candle_core::cuda_backend::cudarc::driver::CudaGraph;
    use candle_core::cuda_backend::cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};

    /// What was launched while it was recorded.
    pub struct Graph(CudaGraph);

    impl Graph {
        pub fn launch(&self) -> Result<()> {
            Ok(self.0.launch()?)
        }
    }

    /// Records what `run` launches on a device's stream; it is run twice before.
    pub fn record(device: &Device, run: &dyn Fn() -> Result<()>) -> Result<Option<Graph>> {
        let Ok(cuda) = device.as_cuda_device() else { return Ok(None) };
        let stream = cuda.cuda_stream();
        let _uploads = cuda.enable_cuda_graph_htod_cache();
        run()?;
        run()?;
        device.synchronize()?;
        stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED)?;
        let result = run();
        // Ended in any case, lest the stream stays in capture.
        let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
        let graph = stream.end_capture(flags);
        result.context("a step cannot be recorded")?;
        Ok(Some(Graph(graph?.context("nothing was recorded")?)))
    }
}

#[cfg(not(feature = "cuda"))]
mod capture {
    use super::*;

    /// There is none without CUDA.
    pub enum Graph {}

    impl Graph {
        pub fn launch(&self) -> Result<()> {
            match *self {}
        }
    }

    /// Nothing is recorded; that a step can be run again on the same tensors is tried.
    pub fn record(_: &Device, run: &dyn Fn() -> Result<()>) -> Result<Option<Graph>> {
        run().context("a step cannot be run")?;
        Ok(None)
    }
}
