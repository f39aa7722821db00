//! The gated norm behind the recurrence.

use crate::lock::Operands;
use crate::memory::{count, cut};
use crate::run::{Launch, run, unfilled};
use candle_core::{Result, Tensor};
use gdn_host::{Activation, GatedRmsNorm};

/// A layer's gated norm.
#[derive(Clone, Debug)]
pub struct Norm {
    /// `[V]`.
    pub weight: Tensor,
    /// Added to the mean of squares inside the root: 1e-6 in Qwen, 1e-5 in Kimi.
    pub eps: f32,
    /// What the gate's input goes through: SiLU in Qwen, the sigmoid in Kimi.
    pub activation: Activation,
}

impl Norm {
    /// Qwen's: SiLU.
    pub fn silu(weight: &Tensor, eps: f32) -> Norm {
        Norm { weight: weight.clone(), eps, activation: Activation::Silu }
    }

    /// Kimi's: the sigmoid.
    pub fn sigmoid(weight: &Tensor, eps: f32) -> Norm {
        Norm { activation: Activation::Sigmoid, ..Norm::silu(weight, eps) }
    }
}

/// `x * rsqrt(mean(x^2) + eps) * weight * act(z)` over the V elements of each head. x and z are `[.., HV, V]`, or z its rows
/// flat, `[.., HV * V]`; the result has the dimensions of x and the type of z.
///
/// # Errors
/// An argument that does not fit; the text names it and its value.
pub fn gated_rmsnorm(x: &Tensor, z: &Tensor, norm: &Norm) -> Result<Tensor> {
    let out = unfilled(x.dims().to_vec(), z.dtype(), x.device())?;
    gated_rmsnorm_into(x, z, norm, &out, Launch::Ordered)?;
    Ok(out)
}

pub(crate) fn gated_rmsnorm_into(
    x: &Tensor,
    z: &Tensor,
    norm: &Norm,
    out: &Tensor,
    launch: Launch,
) -> Result<()> {
    let v = norm.weight.elem_count();
    let heads = match *x.dims() {
        [.., heads, last] if last == v => heads,
        ref dims => {
            candle_core::bail!("x: shape {dims:?} does not end in [HV, {v}], the norm has {v} weights")
        }
    };
    let width = (heads * v) as u64;
    let tokens = cut("x", x, width)?.count;
    let mut operands = Operands::default();
    operands.read("x", x);
    operands.read("z", z);
    operands.read("weight", &norm.weight);
    operands.write("out", out);
    operands.locked(|memory| {
        let rows = |field, tensor| memory.rows_of(field, tensor, width, tokens);
        let (hv, v, tokens) = (count("x", heads as u64)?, count("weight", v as u64)?, count("x", tokens)?);
        let weight = memory.dense("weight", &norm.weight)?;
        let mut call =
            GatedRmsNorm::new(hv, v, tokens, rows("x", x)?, rows("z", z)?, weight, rows("out", out)?);
        (call.eps, call.activation) = (norm.eps, norm.activation);
        run(memory, x.device(), &call, launch)
    })
}
