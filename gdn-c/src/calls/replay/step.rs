//! A step with rings: one token of each sequence, or drafts; and the cursors that move behind it.

use super::{Call, gdn_replay_pool, prepare, run};
use crate::context::gdn_context;
use crate::inputs::gdn_inputs;
use crate::memory::{Argument, gdn_rows, gdn_table};
use crate::prepared::{gdn_launch, gdn_prepared};
use crate::read::{check_reserved, versioned};
use crate::status::{Failure, gdn_status};
use gdn_host::{ReplayAdvance, ReplayDecode, ReplayVerify};
use std::ffi::c_void;

/// Decode with rings: what `gdn_decode` computes, but the state is written only when the ring is folded.
///
/// Sequence n's token appends a record at place `(base + len) % records` of its slot's ring. A sequence that would have more than
/// `pool.most` live records then, that `pool.force` names, or that starts from zeros, folds instead: the true state behind the
/// token becomes its checkpoint, and its ring is empty. Behind all layers `gdn_replay_advance` moves the cursors.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gdn_replay_decode_call {
    /// `sizeof(gdn_replay_decode_call)`.
    pub size: u32,
    /// Sequences, N. With 0 nothing is launched.
    pub batch: u32,
    /// Inputs: a row for each sequence.
    pub inputs: gdn_inputs,
    /// Checkpoints, rings and cursors.
    pub pool: gdn_replay_pool,
    /// Output, rows of `[HV, V]`: of the type of q, or f32.
    pub out: gdn_rows,
}

/// Verification of drafts with rings: outputs as `gdn_recurrent` has them, but no state is stored for each draft.
///
/// Sequence n's drafts append a record each behind its live window; `gdn_replay_advance` makes the accepted ones live. A sequence
/// that would have more than `pool.most` live records if all were accepted, that `pool.force` names, or that starts from zeros,
/// folds first: the true state in front of the drafts becomes its checkpoint.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gdn_replay_verify_call {
    /// `sizeof(gdn_replay_verify_call)`.
    pub size: u32,
    /// Sequences, N. With 0 nothing is launched.
    pub batch: u32,
    /// Drafts of each sequence, T: 1 to 8.
    pub tokens: u32,
    /// 0.
    pub reserved: u32,
    /// Inputs: T rows for each sequence.
    pub inputs: gdn_inputs,
    /// Checkpoints, rings and cursors. Rings have room for `most` records and T more.
    pub pool: gdn_replay_pool,
    /// `[N, T]`: drafts are trees, and token t > 0 follows token `parent[n, t]`; a parent outside `0..t` means that it follows the
    /// live window. Absent: drafts are chains.
    pub parent: gdn_table,
    /// Output, a row of `[HV, V]` for each token, of the type of q or f32.
    pub out: gdn_rows,
}

/// Moves the cursors behind a step of all layers. Behind a decode that folded, a sequence has no live record; behind another it
/// has one more. Behind a verification the accepted drafts are live: behind those that were, or, where it folded, they alone.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gdn_replay_advance_call {
    /// `sizeof(gdn_replay_advance_call)`.
    pub size: u32,
    /// Sequences, N. With 0 nothing is launched.
    pub batch: u32,
    /// Drafts of each sequence; 1 behind a decode.
    pub tokens: u32,
    /// 0.
    pub reserved: u32,
    /// Any layer's, as the step was given it. Its cursors are written: `GDN_I32` or `GDN_U32`. Behind a verification they have a
    /// `base`.
    pub pool: gdn_replay_pool,
    /// `[N]`: accepted drafts; a number outside `0..=tokens` accepts none. Absent: the step was a decode.
    pub accepted: gdn_table,
}

versioned!(gdn_replay_decode_call, gdn_replay_verify_call, gdn_replay_advance_call);

impl Call for gdn_replay_decode_call {
    type Operation<'a> = ReplayDecode;

    fn operation(&self) -> Result<ReplayDecode, Failure> {
        let (inputs, pool) = (self.inputs.read()?, self.pool.read()?);
        Ok(ReplayDecode::new(inputs, self.batch, pool, self.out.required("out")?))
    }
}

impl Call for gdn_replay_verify_call {
    type Operation<'a> = ReplayVerify;

    fn operation(&self) -> Result<ReplayVerify, Failure> {
        check_reserved("reserved", self.reserved)?;
        let (inputs, pool, out) = (self.inputs.read()?, self.pool.read()?, self.out.required("out")?);
        let mut call = ReplayVerify::new(inputs, self.batch, self.tokens, pool, out);
        call.parent = self.parent.optional("parent")?;
        Ok(call)
    }
}

impl Call for gdn_replay_advance_call {
    type Operation<'a> = ReplayAdvance;

    fn operation(&self) -> Result<ReplayAdvance, Failure> {
        check_reserved("reserved", self.reserved)?;
        let accepted = self.accepted.optional("accepted")?;
        Ok(ReplayAdvance::new(self.batch, self.tokens, self.pool.read()?, accepted))
    }
}

/// As `gdn_decode`: decode with rings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gdn_replay_decode(
    context: *const gdn_context,
    call: *const gdn_replay_decode_call,
    launch: *const gdn_launch,
    stream: *mut c_void,
) -> gdn_status {
    // SAFETY: the caller's promise.
    unsafe { run(context, call, launch, stream) }
}

/// As `gdn_decode_prepare`: decode with rings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gdn_replay_decode_prepare(
    context: *const gdn_context,
    call: *const gdn_replay_decode_call,
    launch: *const gdn_launch,
    prepared: *mut *mut gdn_prepared,
) -> gdn_status {
    // SAFETY: the caller's promise.
    unsafe { prepare(context, call, launch, prepared) }
}

/// As `gdn_decode`: verification of drafts with rings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gdn_replay_verify(
    context: *const gdn_context,
    call: *const gdn_replay_verify_call,
    launch: *const gdn_launch,
    stream: *mut c_void,
) -> gdn_status {
    // SAFETY: the caller's promise.
    unsafe { run(context, call, launch, stream) }
}

/// As `gdn_decode_prepare`: verification of drafts with rings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gdn_replay_verify_prepare(
    context: *const gdn_context,
    call: *const gdn_replay_verify_call,
    launch: *const gdn_launch,
    prepared: *mut *mut gdn_prepared,
) -> gdn_status {
    // SAFETY: the caller's promise.
    unsafe { prepare(context, call, launch, prepared) }
}

/// As `gdn_decode`: cursors are moved.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gdn_replay_advance(
    context: *const gdn_context,
    call: *const gdn_replay_advance_call,
    launch: *const gdn_launch,
    stream: *mut c_void,
) -> gdn_status {
    // SAFETY: the caller's promise.
    unsafe { run(context, call, launch, stream) }
}

/// As `gdn_decode_prepare`: cursors are moved.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gdn_replay_advance_prepare(
    context: *const gdn_context,
    call: *const gdn_replay_advance_call,
    launch: *const gdn_launch,
    prepared: *mut *mut gdn_prepared,
) -> gdn_status {
    // SAFETY: the caller's promise.
    unsafe { prepare(context, call, launch, prepared) }
}
