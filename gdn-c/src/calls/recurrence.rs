//! The recurrence: one token a sequence, and several.

use super::{Call, GDN_NULL_SLOT, prepare, run};
use crate::context::gdn_context;
use crate::inputs::gdn_inputs;
use crate::memory::{Argument, gdn_pool, gdn_rows, gdn_table};
use crate::prepared::{gdn_launch, gdn_prepared};
use crate::read::{check_flags, check_reserved, null_slot, versioned};
use crate::states::{gdn_intermediate, gdn_source, gdn_start, gdn_target, gdn_tokens};
use crate::status::{Failure, gdn_status};
use gdn_host::{Decode, Recurrent};
use std::ffi::c_void;

/// Of `gdn_recurrent_call.flags`: round the running state to its type after every token, so that T tokens with a 16-bit state
/// give the bits of T decodes. Without it the state is f32 between tokens and is rounded only where it is stored.
pub const GDN_ROUND_STATE: u32 = 2;

/// One token for each of N sequences: what SGLang calls `fused_sigmoid_gating_delta_rule_update`, and in KDA
/// `fused_recurrent_kda_fwd`.
///
/// For every sequence n and value head the state is read from slot `slots[n]` (or is zero), decayed, corrected towards v with
/// weight beta, stored to slot `write_slots[n]` (or in place), and state * q is written to `out[n]`.
///
/// A negative index, `null_slot`, or an index past the pool marks a padded row: its state is not touched and its output is
/// zeros. Two sequences of one call must not write the same slot, nor one write a slot that another reads.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gdn_decode_call {
    /// `sizeof(gdn_decode_call)`.
    pub size: u32,
    /// Sequences, N. With 0 nothing is launched.
    pub batch: u32,
    /// `GDN_NULL_SLOT` or 0.
    pub flags: u32,
    /// An index that marks padding; 0 without `GDN_NULL_SLOT`.
    pub null_slot: i32,
    /// Inputs: a row for each sequence.
    pub inputs: gdn_inputs,
    /// States, updated in place: f32, of the type of q, or f16 with q in bf16; in layout VK with K = 128 of any type.
    pub state: gdn_pool,
    /// `[N]`: the slot each sequence starts from. Absent: sequence n's is n.
    pub slots: gdn_table,
    /// `[N]`: the slot each new state goes to. An index that names no slot means that it is not kept. Absent: in place.
    pub write_slots: gdn_table,
    /// Sequences that start from zeros.
    pub start: gdn_start,
    /// Output, rows of `[HV, V]`: of the type of q, or f32.
    pub out: gdn_rows,
}

/// Any number of tokens for each sequence: prefill of short prompts, and verification of drafts. What a token does is
/// `gdn_decode`'s, and T tokens give the bits of T decodes (with a 16-bit state that needs `GDN_ROUND_STATE`).
///
/// Two sequences must not write the same slot or row of the buffer, nor one write what another reads.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gdn_recurrent_call {
    /// `sizeof(gdn_recurrent_call)`.
    pub size: u32,
    /// `GDN_NULL_SLOT`, `GDN_ROUND_STATE`, both or 0.
    pub flags: u32,
    /// An index that marks padding in tables of slots; 0 without `GDN_NULL_SLOT`.
    pub null_slot: i32,
    /// 0.
    pub reserved: u32,
    /// Inputs: a row for each token.
    pub inputs: gdn_inputs,
    /// Which rows are whose.
    pub tokens: gdn_tokens,
    /// Where states come from. Their type is f32 or the type of q.
    pub source: gdn_source,
    /// Sequences that start from zeros whatever the source.
    pub start: gdn_start,
    /// Where the last states go.
    pub target: gdn_target,
    /// Where the state after each token goes. Absent: nowhere.
    pub intermediate: gdn_intermediate,
    /// Output, a row of `[HV, V]` for each token, of the type of q or f32. Absent: states advance only.
    pub out: gdn_rows,
}

versioned!(gdn_decode_call, gdn_recurrent_call);

impl Call for gdn_decode_call {
    type Operation<'a> = Decode;

    fn operation(&self) -> Result<Decode, Failure> {
        check_flags("flags", self.flags, GDN_NULL_SLOT)?;
        let (inputs, state) = (self.inputs.read()?, self.state.required("state")?);
        let mut call = Decode::new(inputs, self.batch, state, self.out.required("out")?);
        call.slots = self.slots.optional("slots")?;
        call.write_slots = self.write_slots.optional("write_slots")?;
        call.null_slot = null_slot(self.flags & GDN_NULL_SLOT != 0, self.null_slot)?;
        call.start = self.start.read()?;
        Ok(call)
    }
}

impl Call for gdn_recurrent_call {
    type Operation<'a> = Recurrent;

    fn operation(&self) -> Result<Recurrent, Failure> {
        check_flags("flags", self.flags, GDN_NULL_SLOT | GDN_ROUND_STATE)?;
        check_reserved("reserved", self.reserved)?;
        let (inputs, tokens) = (self.inputs.read()?, self.tokens.read()?);
        let (source, target) = (self.source.read()?, self.target.read()?);
        let mut call = Recurrent::new(inputs, tokens, source, target, self.out.optional("out")?);
        call.start = self.start.read()?;
        call.null_slot = null_slot(self.flags & GDN_NULL_SLOT != 0, self.null_slot)?;
        call.intermediate = self.intermediate.optional("intermediate")?;
        call.round_state = self.flags & GDN_ROUND_STATE != 0;
        Ok(call)
    }
}

/// Checks, plans and launches one token for each of N sequences, in the order of `stream` (a `CUstream` or `cudaStream_t`;
/// NULL is the default stream). Nothing is allocated, no lock is taken, nothing waits; it may be captured into a graph.
///
/// `launch` may be NULL. On any status but `GDN_OK` nothing was launched and nothing written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gdn_decode(
    context: *const gdn_context,
    call: *const gdn_decode_call,
    launch: *const gdn_launch,
    stream: *mut c_void,
) -> gdn_status {
    // SAFETY: the caller's promise.
    unsafe { run(context, call, launch, stream) }
}

/// Checks and plans the same once, for `gdn_prepared_launch`. `*prepared` is NULL on any status but `GDN_OK`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gdn_decode_prepare(
    context: *const gdn_context,
    call: *const gdn_decode_call,
    launch: *const gdn_launch,
    prepared: *mut *mut gdn_prepared,
) -> gdn_status {
    // SAFETY: the caller's promise.
    unsafe { prepare(context, call, launch, prepared) }
}

/// As `gdn_decode`, of any number of tokens for each sequence.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gdn_recurrent(
    context: *const gdn_context,
    call: *const gdn_recurrent_call,
    launch: *const gdn_launch,
    stream: *mut c_void,
) -> gdn_status {
    // SAFETY: the caller's promise.
    unsafe { run(context, call, launch, stream) }
}

/// As `gdn_decode_prepare`, of any number of tokens for each sequence.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gdn_recurrent_prepare(
    context: *const gdn_context,
    call: *const gdn_recurrent_call,
    launch: *const gdn_launch,
    prepared: *mut *mut gdn_prepared,
) -> gdn_status {
    // SAFETY: the caller's promise.
    unsafe { prepare(context, call, launch, prepared) }
}
