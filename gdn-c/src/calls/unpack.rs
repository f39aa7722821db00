//! The interleaved projections of Qwen3-Next, taken apart.

use super::{Call, prepare, run};
use crate::context::gdn_context;
use crate::inputs::gdn_shape;
use crate::memory::{Argument, gdn_rows};
use crate::prepared::{gdn_launch, gdn_prepared};
use crate::read::versioned;
use crate::status::{Failure, gdn_status};
use gdn_host::UnpackQkvz;
use std::ffi::c_void;

/// Takes the projections of Qwen3-Next apart, which are interleaved by key head, with `r = HV / H`:
///
/// ```text
/// qkvz  [q K | k K | v r V | z r V] for each key head   ->   mixed_qkv [q H K | k H K | v HV V],  z [HV V]
/// ba    [b r | a r]                 for each key head   ->   b [HV],  a [HV]
/// ```
///
/// Qwen3.5 stores `[q | k | v | z]` and `[b | a]`, of which `gdn_rows_view` makes views.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gdn_unpack_qkvz_call {
    /// `sizeof(gdn_unpack_qkvz_call)`.
    pub size: u32,
    /// Tokens. With 0 nothing is launched.
    pub tokens: u32,
    /// Heads of this rank.
    pub shape: gdn_shape,
    /// Rows of `2 * H * K + 2 * HV * V`. 16-byte aligned, as is its stride.
    pub qkvz: gdn_rows,
    /// Rows of `2 * HV`.
    pub ba: gdn_rows,
    /// Rows of `2 * H * K + HV * V`, of the type of `qkvz`. 16-byte aligned, as is its stride.
    pub mixed_qkv: gdn_rows,
    /// Rows of `HV * V`, of the type of `qkvz`. 16-byte aligned, as is its stride.
    pub z: gdn_rows,
    /// Rows of HV, of the type of `ba`.
    pub b: gdn_rows,
    /// Rows of HV, of the type of `ba`.
    pub a: gdn_rows,
}

versioned!(gdn_unpack_qkvz_call);

impl Call for gdn_unpack_qkvz_call {
    type Operation<'a> = UnpackQkvz;

    fn operation(&self) -> Result<UnpackQkvz, Failure> {
        Ok(UnpackQkvz {
            shape: self.shape.to_host(),
            tokens: self.tokens,
            qkvz: self.qkvz.required("qkvz")?,
            ba: self.ba.required("ba")?,
            mixed_qkv: self.mixed_qkv.required("mixed_qkv")?,
            z: self.z.required("z")?,
            b: self.b.required("b")?,
            a: self.a.required("a")?,
        })
    }
}

/// As `gdn_decode`: projections taken apart.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gdn_unpack_qkvz(
    context: *const gdn_context,
    call: *const gdn_unpack_qkvz_call,
    launch: *const gdn_launch,
    stream: *mut c_void,
) -> gdn_status {
    // SAFETY: the caller's promise.
    unsafe { run(context, call, launch, stream) }
}

/// As `gdn_decode_prepare`: projections taken apart.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gdn_unpack_qkvz_prepare(
    context: *const gdn_context,
    call: *const gdn_unpack_qkvz_call,
    launch: *const gdn_launch,
    prepared: *mut *mut gdn_prepared,
) -> gdn_status {
    // SAFETY: the caller's promise.
    unsafe { prepare(context, call, launch, prepared) }
}
