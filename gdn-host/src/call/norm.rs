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
/// Rows of x and out, and the weights, are 16-byte aligned; those of z are aligned to an element. Fastest are V of 64 and 128
/// with z aligned as the others.
///
/// [`GatedRmsNorm::new`] takes what every call has; the other fields are options.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct GatedRmsNorm {
    /// Value heads of this rank.
    pub hv: u32,
    /// Elements of a head, V: a multiple of 32 up to 512.
    pub v: u32,
    /// Tokens. With 0 nothing is launched.
    pub tokens: u32,
    /// Outputs of the recurrence, rows of `[HV, V]`: of the type of z, or f32.
    pub x: Rows,
    /// Inputs of the gate, rows of `[HV, V]`.
    pub z: Rows,
    /// `[V]`, of any type.
    pub weight: Tensor,
    /// What the gate's input goes through; SiLU by default.
    pub activation: Activation,
    /// Added to the mean of squares inside the root (1e-6 in Qwen, the default; 1e-5 in Kimi).
    pub eps: f32,
    /// Outputs, rows of `[HV, V]`, of the type of z. May be x itself, if that is of its type.
    pub out: Rows,
    /// Elements between two heads; by default V, heads are packed.
    pub head_strides: HeadStrides,
}

/// Elements between two heads of a token; `None` where heads are packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeadStrides {
    /// Of x.
    pub x: Option<u64>,
    /// Of z.
    pub z: Option<u64>,
    /// Of out.
    pub out: Option<u64>,
}

/// A tensor of a call: its field, its rows, and the elements between two heads.
pub(crate) type Argument<'a> = (&'static str, &'a Rows, u64);

impl GatedRmsNorm {
    /// The norm of `tokens` tokens with SiLU and an eps of 1e-6.
    pub fn new(hv: u32, v: u32, tokens: u32, x: Rows, z: Rows, weight: Tensor, out: Rows) -> GatedRmsNorm {
        let (activation, head_strides) = (Activation::Silu, HeadStrides::default());
        GatedRmsNorm { hv, v, tokens, x, z, weight, activation, eps: 1e-6, out, head_strides }
    }

    fn io(&self) -> DType {
        self.z.tensor.dtype
    }

    /// x, z and out.
    pub(crate) fn arguments(&self) -> [Argument<'_>; 3] {
        let stride = |stride: Option<u64>| stride.unwrap_or(self.v.into());
        let HeadStrides { x, z, out } = self.head_strides;
        [("x", &self.x, stride(x)), ("z", &self.z, stride(z)), ("out", &self.out, stride(out))]
    }

    /// Elements of a token, from the first of its first head to the last of its last.
    fn width(&self, head_stride: u64) -> u64 {
        u64::from(self.hv).saturating_sub(1).saturating_mul(head_stride).saturating_add(self.v.into())
    }

    /// Whether z can be loaded by vectors.
    fn has_vectors(&self) -> bool {
        let [_, (_, z, head_stride), _] = self.arguments();
        let bytes = |elements: u64| elements.saturating_mul(self.io().size() as u64);
        let steps = |count: u32, stride: u64| count == 1 || bytes(stride).is_multiple_of(VECTOR_BYTES);
        let aligned = z.tensor.address.is_multiple_of(VECTOR_BYTES);
        aligned && steps(self.tokens, z.stride) && steps(self.hv, head_stride)
    }

    /// V of the kernel; 0 is any.
    fn kernel_v(&self) -> u32 {
        if matches!(self.v, 64 | 128) && self.has_vectors() { self.v } else { 0 }
    }

    fn check_head_stride(&self, (field, rows, stride): Argument<'_>, vector: u64) -> Result<(), CallError> {
        let (min, max) = (if self.hv > 1 { u64::from(self.v) } else { 0 }, u64::from(u32::MAX));
        if stride < min || stride > max {
            return Err(CallError::Stride { field, stride, min, max });
        }
        let bytes = stride * rows.tensor.dtype.size() as u64;
        if self.hv > 1 && !bytes.is_multiple_of(vector) {
            return Err(CallError::MisalignedStride { field, stride, bytes, align: vector });
        }
        Ok(())
    }

    /// Whether the output takes the place of x, element for element.
    fn is_in_place(&self) -> bool {
        let [(_, x, x_heads), _, (_, out, out_heads)] = self.arguments();
        let same = |count: u32, a: u64, b: u64| count == 1 || a == b;
        x.tensor.address == out.tensor.address
            && x.tensor.dtype == out.tensor.dtype
            && same(self.tokens, x.stride, out.stride)
            && same(self.hv, x_heads, out_heads)
    }
}

impl Operation for GatedRmsNorm {
    fn check_arguments(&self) -> Result<(), CallError> {
        check_value("hv", self.hv, (1..=1 << 20).contains(&self.hv), "a number of heads from 1 to 2^20")?;
        let sound = self.v.is_multiple_of(32) && (32..=512).contains(&self.v);
        check_value("v", self.v, sound, "a multiple of 32 from 32 to 512")?;
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
        for (argument, vector) in self.arguments().into_iter().zip([VECTOR_BYTES, 1, VECTOR_BYTES]) {
            let (field, rows, head_stride) = argument;
            self.check_head_stride(argument, vector)?;
            check_rows(field, rows, self.width(head_stride), self.tokens.into(), vector)?;
        }
        check_tensor("weight", &self.weight, self.v.into(), VECTOR_BYTES)
    }

    fn extents(&self) -> Extents {
        let mut extents = Extents::default();
        let in_place = self.is_in_place();
        for (field, rows, head_stride) in self.arguments() {
            if !(in_place && field == "x") {
                let written = field == "out";
                extents.push(Extent::rows(field, rows, self.width(head_stride), self.tokens.into(), written));
            }
        }
        let weight = Rows { tensor: self.weight, stride: self.v.into() };
        extents.push(Extent::rows("weight", &weight, self.v.into(), 1, false));
        extents
    }

    fn is_empty(&self) -> bool {
        self.tokens == 0
    }

    fn overlap(&self) -> Overlap {
        Overlap::Start
    }

    fn plan_tuned(&self, caps: &Caps, _tuning: &Tuning, tile: Tile) -> Result<Plan, PlanError> {
        let v = self.kernel_v();
        let key = ModuleKey::gated_rmsnorm(self.x.tensor.dtype, self.io(), v);
        // Eight elements a thread, or a warp a head.
        let lanes = if v == 0 { 32 } else { v / 8 };
        plan::spread(key, u64::from(self.hv) * u64::from(lanes), self.tokens, caps, tile)
    }

    fn params(&self, _plan: &Plan) -> Params {
        let [x_heads, z_heads, out_heads] = self.arguments().map(|(_, _, stride)| stride as u32);
        Params::new(&abi::GatedRmsNormParams {
            x: self.x.tensor.address,
            z: self.z.tensor.address,
            weight: self.weight.address,
            out: self.out.tensor.address,
            x_stride: self.x.stride as u32,
            x_head_stride: x_heads,
            z_stride: self.z.stride as u32,
            z_head_stride: z_heads,
            out_stride: self.out.stride as u32,
            out_head_stride: out_heads,
            hv: self.hv,
            v: self.v,
            tokens: self.tokens,
            weight_dtype: self.weight.dtype as u32,
            eps: self.eps,
            flags: if self.activation == Activation::Silu { flags::SILU } else { 0 },
        })
    }

    unsafe fn run_on_host(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.on_host() };
    }
}
