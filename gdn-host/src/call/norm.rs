//! Gated RMSNorm: what stands between the recurrence and the output projection.

use super::check::{VECTOR_BYTES, check_eps, check_rows, check_tensor, check_value};
use super::{CallError, Extent, Extents, Operation, Params, Rows, Tensor};
use crate::key::ModuleKey;
use crate::plan::{self, Caps, Overlap, Plan, PlanError, Tile, Tuning};
use gdn_kernels::abi::{self, DType, flags};

/// The function that a gate's input goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Activation {
    /// `z * sigmoid(z)`: Qwen.
    #[default]
    Silu,
    /// `1 / (1 + e^-z)`: Kimi.
    Sigmoid,
}

/// `out = x * rsqrt(mean(x^2) + eps) * weight * act(z)` over the V elements of each head: the operation SGLang, vLLM and
/// FLA call gated RMSNorm. Everything is f32 and rounded once, at the end.
///
/// Rows of all tensors, and the weights, are 16-byte aligned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GatedRmsNorm {
    /// Value heads of this rank.
    pub hv: u32,
    /// Elements of a head, V: 64 or 128.
    pub v: u32,
    /// Tokens. With 0 nothing is launched.
    pub tokens: u32,
    /// Outputs of the recurrence, rows of `[HV, V]`: of the type of z, or f32.
    pub x: Rows,
    /// Inputs of the gate, rows of `[HV, V]`.
    pub z: Rows,
    /// `[V]`, of any type.
    pub weight: Tensor,
    /// What the gate's input goes through.
    pub activation: Activation,
    /// Added to the mean of squares inside the root (1e-6 in Qwen, 1e-5 in Kimi).
    pub eps: f32,
    /// Outputs, rows of `[HV, V]`, of the type of z.
    pub out: Rows,
}

impl GatedRmsNorm {
    fn io(&self) -> DType {
        self.z.tensor.dtype
    }

    /// Elements of a row.
    fn width(&self) -> u64 {
        u64::from(self.hv) * u64::from(self.v)
    }
}

impl Operation for GatedRmsNorm {
    fn check_arguments(&self) -> Result<(), CallError> {
        check_value("hv", self.hv, (1..=1 << 20).contains(&self.hv), "a number of heads from 1 to 2^20")?;
        check_value("v", self.v, matches!(self.v, 64 | 128), "64 or 128")?;
        check_eps("eps", self.eps)?;
        let (x, out) = (self.x.tensor.dtype, self.out.tensor.dtype);
        if x != self.io() && x != DType::F32 {
            return Err(CallError::Type { field: "x", have: x.name(), want: "the type of z, or f32" });
        }
        if out != self.io() {
            return Err(CallError::Type { field: "out", have: out.name(), want: "the type of z" });
        }
        if self.is_empty() {
            return Ok(());
        }
        for (field, rows) in [("x", &self.x), ("z", &self.z), ("out", &self.out)] {
            check_rows(field, rows, self.width(), self.tokens.into(), VECTOR_BYTES)?;
        }
        check_tensor("weight", &self.weight, self.v.into(), VECTOR_BYTES)
    }

    fn extents(&self) -> Extents {
        let mut extents = Extents::default();
        let (width, tokens) = (self.width(), u64::from(self.tokens));
        extents.push(Extent::rows("x", &self.x, width, tokens, false));
        extents.push(Extent::rows("z", &self.z, width, tokens, false));
        let weight = Rows { tensor: self.weight, stride: self.v.into() };
        extents.push(Extent::rows("weight", &weight, self.v.into(), 1, false));
        extents.push(Extent::rows("out", &self.out, width, tokens, true));
        extents
    }

    fn is_empty(&self) -> bool {
        self.tokens == 0
    }

    fn overlap(&self) -> Overlap {
        Overlap::Start
    }

    fn plan_tuned(&self, caps: &Caps, _tuning: &Tuning, tile: Tile) -> Result<Plan, PlanError> {
        let key = ModuleKey::gated_rmsnorm(self.x.tensor.dtype, self.io(), self.v);
        // Eight elements a thread.
        plan::spread(key, u64::from(self.hv) * u64::from(self.v / 8), self.tokens, caps, tile)
    }

    fn params(&self, _plan: &Plan) -> Params {
        Params::new(&abi::GatedRmsNormParams {
            x: self.x.tensor.address,
            z: self.z.tensor.address,
            weight: self.weight.address,
            out: self.out.tensor.address,
            x_stride: self.x.stride as u32,
            z_stride: self.z.stride as u32,
            out_stride: self.out.stride as u32,
            hv: self.hv,
            tokens: self.tokens,
            weight_dtype: self.weight.dtype as u32,
            eps: self.eps,
            flags: if self.activation == Activation::Silu { flags::SILU } else { 0 },
        })
    }
}
