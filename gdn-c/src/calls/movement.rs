//! States that move: copies, commits of drafts, conversion between layouts.

use super::{Call, GDN_NULL_SLOT, prepare, run};
use crate::context::gdn_context;
use crate::inputs::gdn_shape;
use crate::memory::{Argument, gdn_pool, gdn_table};
use crate::prepared::{gdn_launch, gdn_prepared};
use crate::read::{check_flags, null_slot, versioned};
use crate::states::gdn_intermediate;
use crate::status::{Failure, gdn_status};
use gdn_host::{CommitState, ConvertLayout, CopyState};
use std::ffi::c_void;

/// Copies of whole slots, within a pool or from one to another, whatever they hold: prefixes that are kept, forks.
///
/// Copy n takes `elements` elements from slot `source_slots[n]` to slot `target_slots[n]`. A copy one of whose indices is
/// negative, `null_slot`, or past its pool is not done. Pools that overlap in part are refused; no copy's target may be
/// another copy's source or target.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gdn_copy_state_call {
    /// `sizeof(gdn_copy_state_call)`.
    pub size: u32,
    /// Number of copies. With 0 nothing is launched.
    pub copies: u32,
    /// `GDN_NULL_SLOT` or 0.
    pub flags: u32,
    /// An index of either table that names no slot; 0 without `GDN_NULL_SLOT`.
    pub null_slot: i32,
    /// Elements of a copy, a multiple of 16 bytes: HV * V * K of a state.
    pub elements: u64,
    /// Where copies come from.
    pub source: gdn_pool,
    /// `[copies]`: slot that each copy comes from. Absent: copy n comes from slot n.
    pub source_slots: gdn_table,
    /// Where copies go, of the type and layout of the source.
    pub target: gdn_pool,
    /// `[copies]`: slot that each copy goes to. Absent: copy n goes to slot n.
    pub target_slots: gdn_table,
}

/// The commit of accepted drafts: the state after the last accepted token of each sequence, as `gdn_recurrent` left it in its
/// buffer, becomes the sequence's state in the pool.
///
/// Sequence n's state goes from `intermediate[row[n], accepted[n] - 1]` to slot `slots[n]`. A sequence of which nothing was
/// accepted, whose count is past the buffer's steps, or one of whose indices names no row or no slot commits nothing. In a
/// tree the last accepted token counts by its place: for token t `accepted` is t + 1. No two sequences may name one slot.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gdn_commit_state_call {
    /// `sizeof(gdn_commit_state_call)`.
    pub size: u32,
    /// Sequences, N. With 0 nothing is launched.
    pub batch: u32,
    /// `GDN_NULL_SLOT` or 0.
    pub flags: u32,
    /// An index of `slots` that names no slot; 0 without `GDN_NULL_SLOT`.
    pub null_slot: i32,
    /// Heads of this rank.
    pub shape: gdn_shape,
    /// The buffer, as `gdn_recurrent` was given it. Its `parent` means nothing here.
    pub intermediate: gdn_intermediate,
    /// `[N]`: accepted tokens, `1..=steps`; 0 commits nothing.
    pub accepted: gdn_table,
    /// Where states go, of the type and layout that the buffer has.
    pub state: gdn_pool,
    /// `[N]`: slot of each sequence. Absent: sequence n's is n.
    pub slots: gdn_table,
}

/// Copies of states from a pool of one layout to a pool of the other one: what lies between a prefill and a decode that want
/// different ones. Only bits move.
///
/// Copy n goes from slot `source_slots[n]` to slot `target_slots[n]`. A copy one of whose indices is negative, `null_slot`, or
/// past its pool is not done. The pools share no memory, and no two copies may go to one slot.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gdn_convert_layout_call {
    /// `sizeof(gdn_convert_layout_call)`.
    pub size: u32,
    /// Number of copies. With 0 nothing is launched.
    pub copies: u32,
    /// `GDN_NULL_SLOT` or 0.
    pub flags: u32,
    /// An index of either table that names no slot; 0 without `GDN_NULL_SLOT`.
    pub null_slot: i32,
    /// Heads of this rank.
    pub shape: gdn_shape,
    /// Where copies come from.
    pub source: gdn_pool,
    /// `[copies]`: slot that each copy comes from. Absent: copy n comes from slot n.
    pub source_slots: gdn_table,
    /// Where copies go, of the source's type and the other layout.
    pub target: gdn_pool,
    /// `[copies]`: slot that each copy goes to. Absent: copy n goes to slot n.
    pub target_slots: gdn_table,
}

versioned!(gdn_copy_state_call, gdn_commit_state_call, gdn_convert_layout_call);

impl Call for gdn_copy_state_call {
    type Operation<'a> = CopyState;

    fn operation(&self) -> Result<CopyState, Failure> {
        check_flags("flags", self.flags, GDN_NULL_SLOT)?;
        Ok(CopyState {
            copies: self.copies,
            elements: self.elements,
            source: self.source.slot_pool("source")?,
            source_slots: self.source_slots.optional("source_slots")?,
            target: self.target.slot_pool("target")?,
            target_slots: self.target_slots.optional("target_slots")?,
            null_slot: null_slot(self.flags != 0, self.null_slot)?,
        })
    }
}

impl Call for gdn_commit_state_call {
    type Operation<'a> = CommitState;

    fn operation(&self) -> Result<CommitState, Failure> {
        check_flags("flags", self.flags, GDN_NULL_SLOT)?;
        Ok(CommitState {
            shape: self.shape.to_host(),
            batch: self.batch,
            intermediate: self.intermediate.required("intermediate")?,
            accepted: self.accepted.required("accepted")?,
            state: self.state.required("state")?,
            slots: self.slots.optional("slots")?,
            null_slot: null_slot(self.flags != 0, self.null_slot)?,
        })
    }
}

impl Call for gdn_convert_layout_call {
    type Operation<'a> = ConvertLayout;

    fn operation(&self) -> Result<ConvertLayout, Failure> {
        check_flags("flags", self.flags, GDN_NULL_SLOT)?;
        Ok(ConvertLayout {
            shape: self.shape.to_host(),
            copies: self.copies,
            source: self.source.required("source")?,
            source_slots: self.source_slots.optional("source_slots")?,
            target: self.target.required("target")?,
            target_slots: self.target_slots.optional("target_slots")?,
            null_slot: null_slot(self.flags != 0, self.null_slot)?,
        })
    }
}

/// As `gdn_decode`: copies of slots.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gdn_copy_state(
    context: *const gdn_context,
    call: *const gdn_copy_state_call,
    launch: *const gdn_launch,
    stream: *mut c_void,
) -> gdn_status {
    // SAFETY: the caller's promise.
    unsafe { run(context, call, launch, stream) }
}

/// As `gdn_decode_prepare`: copies of slots.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gdn_copy_state_prepare(
    context: *const gdn_context,
    call: *const gdn_copy_state_call,
    launch: *const gdn_launch,
    prepared: *mut *mut gdn_prepared,
) -> gdn_status {
    // SAFETY: the caller's promise.
    unsafe { prepare(context, call, launch, prepared) }
}

/// As `gdn_decode`: the commit of accepted drafts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gdn_commit_state(
    context: *const gdn_context,
    call: *const gdn_commit_state_call,
    launch: *const gdn_launch,
    stream: *mut c_void,
) -> gdn_status {
    // SAFETY: the caller's promise.
    unsafe { run(context, call, launch, stream) }
}

/// As `gdn_decode_prepare`: the commit of accepted drafts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gdn_commit_state_prepare(
    context: *const gdn_context,
    call: *const gdn_commit_state_call,
    launch: *const gdn_launch,
    prepared: *mut *mut gdn_prepared,
) -> gdn_status {
    // SAFETY: the caller's promise.
    unsafe { prepare(context, call, launch, prepared) }
}

/// As `gdn_decode`: states from one layout to the other.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gdn_convert_layout(
    context: *const gdn_context,
    call: *const gdn_convert_layout_call,
    launch: *const gdn_launch,
    stream: *mut c_void,
) -> gdn_status {
    // SAFETY: the caller's promise.
    unsafe { run(context, call, launch, stream) }
}

/// As `gdn_decode_prepare`: states from one layout to the other.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gdn_convert_layout_prepare(
    context: *const gdn_context,
    call: *const gdn_convert_layout_call,
    launch: *const gdn_launch,
    prepared: *mut *mut gdn_prepared,
) -> gdn_status {
    // SAFETY: the caller's promise.
    unsafe { prepare(context, call, launch, prepared) }
}
