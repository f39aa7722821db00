//! A gated RMSNorm problem.

use super::check_elements;
use crate::compare::widen;
use crate::device::{Device, POISON};
use crate::strided::{Strided, alloc_rows, decode_values, dense_rows, encode_values};
use anyhow::{Result, ensure};
use gdn_host::reference::norm::gated_rmsnorm;
use gdn_host::{Activation, DType, GatedRmsNorm, HeadStrides, Rows, Tensor, Tile};

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
    /// Whether outputs take the place of x.
    pub in_place: bool,
    /// Elements between the heads of x, z and out, more than V.
    pub head_gaps: [usize; 3],
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
        let [x_gap, z_gap, out_gap] = self.head_gaps;
        let (x, z) = (self.alloc(device, &self.x, x_gap)?, self.alloc(device, &self.z, z_gap)?);
        let weight = alloc_rows(device, &self.weight)?.tensor;
        let out = if self.in_place {
            x
        } else {
            let stride = self.out_stride + self.hv * out_gap;
            let len = (self.tokens.saturating_sub(1) * stride + self.width(out_gap)) as u64;
            let address = device.alloc(len * self.io().size() as u64)?;
            Rows { tensor: Tensor { address, dtype: self.io(), len }, stride: stride as u64 }
        };
        let (hv, v, tokens) = (self.hv as u32, self.v as u32, self.tokens as u32);
        let mut call = GatedRmsNorm::new(hv, v, tokens, x, z, weight, out);
        (call.activation, call.eps) = (self.activation, self.eps);
        let stride = |gap: usize| (gap > 0).then_some((self.v + gap) as u64);
        let out = stride(if self.in_place { x_gap } else { out_gap });
        call.head_strides = HeadStrides { x: stride(x_gap), z: stride(z_gap), out };
        Ok(call)
    }

    /// Elements of a row whose heads have so many between them.
    fn width(&self, gap: usize) -> usize {
        self.hv * (self.v + gap) - gap
    }

    /// Writes rows into fresh memory, and nothing between them or their heads.
    fn alloc(&self, device: &mut dyn Device, x: &Strided, gap: usize) -> Result<Rows> {
        let size = x.dtype.size();
        let stride = x.stride + self.hv * gap;
        let len = self.tokens.saturating_sub(1) * stride + self.width(gap);
        let address = device.alloc(((x.offset + len) * size) as u64)? + (x.offset * size) as u64;
        for (i, head) in x.data.chunks(self.v).enumerate() {
            let at = i / self.hv * stride + i % self.hv * (self.v + gap);
            device.write(address + (at * size) as u64, &encode_values(head, x.dtype))?;
        }
        Ok(Rows { tensor: Tensor { address, dtype: x.dtype, len: len as u64 }, stride: stride as u64 })
    }

    /// Reads the result back.
    pub fn collect(&self, device: &dyn Device, call: &GatedRmsNorm) -> Result<NormSolution> {
        let (size, stride) = (self.io().size(), call.head_strides.out.unwrap_or(self.v as u64) as usize);
        let bytes = dense_rows(device, &call.out, self.tokens, self.width(stride - self.v), "out")?;
        let mut out_bytes = Vec::new();
        for row in bytes.chunks(self.width(stride - self.v) * size) {
            for head in row.chunks(stride * size) {
                let (values, gap) = head.split_at(self.v * size);
                ensure!(gap.iter().all(|b| *b == POISON), "out: a gap between heads was written");
                out_bytes.extend_from_slice(values);
            }
        }
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
