//! A step of a layer: convolution over the channels of q, k and v, decode, gated norm.
#![allow(dead_code, reason = "no example needs all of it")]

use super::common::{EPS, Gpu, KEYS, Layer, OnGpu, SHAPE, STATE, VALUES, pool, rows, tensor, wave, wide};
use gdn_host::call::split_mixed_qkv;
use gdn_host::driver::{DeviceBuffer, DriverError};
use gdn_host::reference::{conv1d, norm};
use gdn_host::{
    Activation, Conv1dUpdate, ConvPool, DType, Decode, Family, GatedRmsNorm, Gdn, Layout, LoadError,
    ModuleKey, Operation, Tokens,
};

/// Channels of the convolution: q, k and v of a token.
const CHANNELS: usize = 2 * KEYS + VALUES;
/// Taps of the convolution in every published model.
const WIDTH: usize = 4;

/// The kernels of the three operations.
pub fn load() -> Result<Gdn, LoadError> {
    Gdn::load(&[
        ModuleKey::conv1d_update(DType::F32, DType::F32),
        ModuleKey::decode(Family::Gdn, Layout::Vk, DType::F32, DType::F32, SHAPE.k),
        ModuleKey::gated_rmsnorm(DType::F32, DType::F32, SHAPE.v),
    ])
}

/// Inputs of a step, in host memory.
pub struct Step {
    batch: usize,
    layer: Layer,
    x: Vec<f32>,
    windows: Vec<f32>,
    filter: Vec<f32>,
    z: Vec<f32>,
    weight: Vec<f32>,
}

/// The same in memory of a GPU, and what the step leaves there.
pub struct StepOnGpu {
    batch: u32,
    layer: OnGpu,
    x: DeviceBuffer,
    filter: DeviceBuffer,
    mixed: DeviceBuffer,
    attention: DeviceBuffer,
    z: DeviceBuffer,
    weight: DeviceBuffer,
    pub windows: DeviceBuffer,
    pub state: DeviceBuffer,
    pub out: DeviceBuffer,
}

/// What a step should leave.
pub struct Want {
    pub out: Vec<f64>,
    pub state: Vec<f64>,
    pub windows: Vec<f64>,
}

impl Step {
    /// A token for each of so many sequences.
    pub fn new(batch: usize) -> Step {
        Step {
            batch,
            layer: Layer::new(Family::Gdn, batch),
            x: wave(batch * CHANNELS, 0.41),
            windows: wave(batch * CHANNELS * (WIDTH - 1), 0.67),
            filter: wave(CHANNELS * WIDTH, 0.29),
            z: wave(batch * VALUES, 0.53),
            weight: wave(SHAPE.v as usize, 0.19),
        }
    }

    /// Copies them to a GPU.
    pub fn upload(&self, gpu: &Gpu, states: &[f32]) -> Result<StepOnGpu, DriverError> {
        Ok(StepOnGpu {
            batch: self.batch as u32,
            layer: self.layer.upload(gpu)?,
            x: gpu.upload(&self.x)?,
            filter: gpu.upload(&self.filter)?,
            mixed: gpu.empty(self.batch * CHANNELS)?,
            attention: gpu.empty(self.batch * VALUES)?,
            z: gpu.upload(&self.z)?,
            weight: gpu.upload(&self.weight)?,
            windows: gpu.upload(&self.windows)?,
            state: gpu.upload(states)?,
            out: gpu.empty(self.batch * VALUES)?,
        })
    }

    /// The oracle; sequence n is in slot n.
    pub fn oracle(&self, states: &[f32]) -> Want {
        let slots: Vec<_> = (0..self.batch).map(Some).collect();
        let conv = conv1d::conv1d_update(
            &conv1d::Conv1d {
                dim: CHANNELS,
                width: WIDTH,
                x: &wide(&self.x),
                weight: &wide(&self.filter),
                bias: None,
                silu: true,
                round_products: None,
                tokens: &(0..self.batch).map(|n| (n, n + 1)).collect::<Vec<_>>(),
                len: WIDTH - 1,
                slots: &slots,
                write_slots: &slots,
                from_zeros: &vec![false; self.batch],
                accepted: None,
                parent: None,
                token_slots: None,
            },
            &wide(&self.windows),
        );
        let part = |from: usize, len: usize| -> Vec<f64> {
            conv.out.chunks(CHANNELS).flat_map(|row| row[from..][..len].to_vec()).collect()
        };
        let (q, k, v) = (part(0, KEYS), part(KEYS, KEYS), part(2 * KEYS, VALUES));
        let (mut attention, mut state) = (Vec::new(), Vec::new());
        for n in 0..self.batch {
            let start = &states[n * STATE..][..STATE];
            let step = self.layer.oracle_of(&q, &k, &v, n..n + 1, start).remove(0);
            attention.extend(step.out);
            state.extend(step.state);
        }
        let (z, weight) = (wide(&self.z), wide(&self.weight));
        let out = norm::gated_rmsnorm(&attention, &z, &weight, Activation::Silu, EPS.into());
        Want { out, state, windows: conv.state }
    }
}

impl StepOnGpu {
    /// The three calls, in order.
    pub fn calls(&self) -> [Box<dyn Operation>; 3] {
        let mixed = rows(&self.mixed, CHANNELS);
        let (channels, width) = (CHANNELS as u32, WIDTH as u32);
        let windows = ConvPool::taps_contiguous(tensor(&self.windows), self.batch, channels, width - 1);
        let tokens = Tokens::Each { batch: self.batch, tokens: 1 };
        let (x, filter) = (rows(&self.x, CHANNELS), tensor(&self.filter));
        let conv = Conv1dUpdate::new(channels, width, tokens, x, filter, windows, mixed);
        let (q, k, v) = split_mixed_qkv(&mixed, &SHAPE);
        let decode = Decode::new(
            self.layer.inputs_of(Family::Gdn, q, k, v),
            self.batch,
            pool(tensor(&self.state)),
            rows(&self.attention, VALUES),
        );
        let (x, z, out) = (rows(&self.attention, VALUES), rows(&self.z, VALUES), rows(&self.out, VALUES));
        let norm = GatedRmsNorm::new(SHAPE.hv, SHAPE.v, self.batch, x, z, tensor(&self.weight), out);
        [Box::new(conv), Box::new(decode), Box::new(norm)]
    }
}
