//! A gated RMSNorm problem.

use super::check_elements;
use crate::compare::widen;
use crate::device::Device;
use crate::strided::{Strided, alloc_rows, decode_values, dense_rows};
use anyhow::Result;
use gdn_host::reference::norm::gated_rmsnorm;
use gdn_host::{Activation, DType, GatedRmsNorm, Rows, Tensor, Tile};

/// Everything a gated RMSNorm is made of.
#[derive(Clone, Debug)]
pub struct NormProblem {
    /// Value heads.
    pub hv: usize,
    /// Elements of a head.
    pub v: usize,
    /// Tokens.
    pub tokens: usize,
    /// `[tokens, HV, V]`.
    pub x: Strided,
    /// `[tokens, HV, V]`.
    pub z: Strided,
    /// `[V]`.
    pub weight: Strided,
    /// What the gate's input goes through.
    pub activation: Activation,
    /// eps.
    pub eps: f32,
    /// Elements from an output row to the next.
    pub out_stride: usize,
}

/// What came out.
#[derive(Clone, Debug, PartialEq)]
pub struct NormSolution {
    /// Output, `[tokens, HV, V]`.
    pub out: Vec<f32>,
    /// Its bytes.
    pub out_bytes: Vec<u8>,
}

impl NormProblem {
    /// Type of z and out.
    pub fn io(&self) -> DType {
        self.z.dtype
    }

    /// Runs the problem; an error if the device refuses it, or if a gap was written.
    pub fn run(&self, device: &mut dyn Device, tile: Tile) -> Result<NormSolution> {
        device.reset();
        let call = self.place(device)?;
        device.run(&call, tile)?;
        self.collect(device, &call)
    }

    /// Puts the data into device memory and makes the call.
    pub fn place(&self, device: &mut dyn Device) -> Result<GatedRmsNorm> {
        let (x, z) = (alloc_rows(device, &self.x)?, alloc_rows(device, &self.z)?);
        let weight = alloc_rows(device, &self.weight)?.tensor;
        let len = (self.tokens.saturating_sub(1) * self.out_stride + self.hv * self.v) as u64;
        let address = device.alloc(len * self.io().size() as u64)?;
        let tensor = Tensor { address, dtype: self.io(), len };
        Ok(GatedRmsNorm {
            hv: self.hv as u32,
            v: self.v as u32,
            tokens: self.tokens as u32,
            x,
            z,
            weight,
            activation: self.activation,
            eps: self.eps,
            out: Rows { tensor, stride: self.out_stride as u64 },
        })
    }

    /// Reads the result back.
    pub fn collect(&self, device: &dyn Device, call: &GatedRmsNorm) -> Result<NormSolution> {
        let out_bytes = dense_rows(device, &call.out, self.tokens, self.hv * self.v, "out")?;
        Ok(NormSolution { out: decode_values(&out_bytes, self.io()), out_bytes })
    }

    /// The output by the oracle.
    pub fn oracle(&self) -> Vec<f64> {
        let (x, z, weight) = (widen(&self.x.data), widen(&self.z.data), widen(&self.weight.data));
        gated_rmsnorm(&x, &z, &weight, self.activation, self.eps.into())
    }

    /// Holds a solution against the oracle, element by element.
    pub fn check(&self, solution: &NormSolution) -> Result<()> {
        let want = self.oracle();
        check_elements("out", self.io(), &solution.out, &want, &vec![0.0; want.len()])
    }

    /// Runs on the device and holds the result against the oracle.
    pub fn run_and_check(&self, device: &mut dyn Device) -> Result<NormSolution> {
        let solution = self.run(device, Tile::Auto)?;
        self.check(&solution)?;
        Ok(solution)
    }
}
