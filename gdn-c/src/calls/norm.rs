//! Gated RMSNorm, behind the recurrence.

use super::{Call, prepare, run};
use crate::context::gdn_context;
use crate::memory::{Argument, gdn_rows, gdn_tensor};
use crate::prepared::{gdn_launch, gdn_prepared};
use crate::read::{check_flags, check_zero, or_default, unknown, versioned};
use crate::status::{Failure, gdn_status};
use gdn_host::{Activation, GatedRmsNorm, HeadStrides};
use std::ffi::c_void;

/// `z * sigmoid(z)`: Qwen.
pub const GDN_ACTIVATION_SILU: u32 = 0;
/// `1 / (1 + e^-z)`: Kimi.
pub const GDN_ACTIVATION_SIGMOID: u32 = 1;

/// Of `gdn_gated_rmsnorm_call.flags`: the head strides count; without it heads are packed.
pub const GDN_HEAD_STRIDES: u32 = 1;

/// `out = x * rsqrt(mean(x^2) + eps) * weight * act(z)` over the V elements of each head. Everything is f32 and rounded once,
/// at the end.
///
/// Rows of x and out, and the weights, are 16-byte aligned; those of z are aligned to an element.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gdn_gated_rmsnorm_call {
    /// `sizeof(gdn_gated_rmsnorm_call)`.
    pub size: u32,
    /// Tokens. With 0 nothing is launched.
    pub tokens: u32,
    /// Value heads of this rank.
    pub hv: u32,
    /// Elements of a head, V: a multiple of 32 up to 512.
    pub v: u32,
    /// `GDN_ACTIVATION_*`: what z goes through.
    pub activation: u32,
    /// Added to the mean of squares inside the root; 0 stands for 1e-6 (Qwen). It is 1e-5 in Kimi.
    pub eps: f32,
    /// `GDN_HEAD_STRIDES` or 0.
    pub flags: u32,
    /// 0.
    pub reserved: u32,
    /// Outputs of the recurrence, rows of `[HV, V]`: of the type of z, or f32.
    pub x: gdn_rows,
    /// Inputs of the gate, rows of `[HV, V]`.
    pub z: gdn_rows,
    /// `[V]`, of any type.
    pub weight: gdn_tensor,
    /// Outputs, rows of `[HV, V]`, of the type of z. May be x itself, if that is of its type.
    pub out: gdn_rows,
    /// Elements between two heads of a token in x; 0 without `GDN_HEAD_STRIDES`.
    pub x_head_stride: u64,
    /// In z; 0 without `GDN_HEAD_STRIDES`.
    pub z_head_stride: u64,
    /// In out; 0 without `GDN_HEAD_STRIDES`.
    pub out_head_stride: u64,
}

versioned!(gdn_gated_rmsnorm_call);

impl Call for gdn_gated_rmsnorm_call {
    type Operation<'a> = GatedRmsNorm;

    fn operation(&self) -> Result<GatedRmsNorm, Failure> {
        check_flags("flags", self.flags, GDN_HEAD_STRIDES)?;
        let (x, z) = (self.x.required("x")?, self.z.required("z")?);
        let (weight, out) = (self.weight.required("weight")?, self.out.required("out")?);
        let mut call = GatedRmsNorm::new(self.hv, self.v, self.tokens, x, z, weight, out);
        call.eps = or_default(self.eps, call.eps);
        call.activation = match self.activation {
            GDN_ACTIVATION_SILU => Activation::Silu,
            GDN_ACTIVATION_SIGMOID => Activation::Sigmoid,
            other => return unknown("activation", other, "one of GDN_ACTIVATION_*"),
        };
        check_zero("reserved", self.reserved, "it is reserved")?;
        let (x, z, out) = (self.x_head_stride, self.z_head_stride, self.out_head_stride);
        if self.flags & GDN_HEAD_STRIDES != 0 {
            call.head_strides = HeadStrides { x: Some(x), z: Some(z), out: Some(out) };
        } else {
            for (field, stride) in [("x_head_stride", x), ("z_head_stride", z), ("out_head_stride", out)] {
                check_zero(field, stride, "GDN_HEAD_STRIDES is not set")?;
            }
        }
        Ok(call)
    }
}

/// As `gdn_decode`: the gated norm.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gdn_gated_rmsnorm(
    context: *const gdn_context,
    call: *const gdn_gated_rmsnorm_call,
    launch: *const gdn_launch,
    stream: *mut c_void,
) -> gdn_status {
    // SAFETY: the caller's promise.
    unsafe { run(context, call, launch, stream) }
}

/// As `gdn_decode_prepare`: the gated norm.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gdn_gated_rmsnorm_prepare(
    context: *const gdn_context,
    call: *const gdn_gated_rmsnorm_call,
    launch: *const gdn_launch,
    prepared: *mut *mut gdn_prepared,
) -> gdn_status {
    // SAFETY: the caller's promise.
    unsafe { prepare(context, call, launch, prepared) }
}
