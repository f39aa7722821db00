//! What is done with the rings of all layers in one launch: folds, copies of true states, commits of trees.

use super::{Call, gdn_record_form, gdn_replay_layers, gdn_replay_pool, prepare, run};
use crate::context::gdn_context;
use crate::memory::{Argument, gdn_pool, gdn_table};
use crate::prepared::{gdn_launch, gdn_prepared};
use crate::read::{check_reserved, versioned};
use crate::status::{Failure, gdn_status};
use gdn_host::{Materialise, ReplayCommit, ReplayFold};
use std::ffi::c_void;

/// Folds rings: the true state of each sequence that `pool.force` names, or of all, becomes its checkpoint, in all layers. Cursors
/// stay as they are; behind the call the caller makes these sequences' rings empty.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gdn_replay_fold_call {
    /// `sizeof(gdn_replay_fold_call)`.
    pub size: u32,
    /// Sequences, N, up to 65,535. With 0 nothing is launched.
    pub batch: u32,
    /// What records mean.
    pub form: gdn_record_form,
    /// What a layer has; the addresses are those of `layers`.
    pub pool: gdn_replay_pool,
    /// Layers.
    pub layers: gdn_replay_layers,
}

/// Stores the true state of each sequence into another slot or pool, in all layers: for a prefix that is kept, or a hand-over.
/// Checkpoints, rings and cursors stay as they are.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gdn_materialise_call {
    /// `sizeof(gdn_materialise_call)`.
    pub size: u32,
    /// Sequences, N, up to 65,535. With 0 nothing is launched.
    pub batch: u32,
    /// What records mean.
    pub form: gdn_record_form,
    /// What a layer has; the addresses are those of `layers`.
    pub pool: gdn_replay_pool,
    /// Layers.
    pub layers: gdn_replay_layers,
    /// What is written in a layer, of the type of the checkpoints; the address is the layer's `target`, and `address` here is 0.
    pub target: gdn_pool,
    /// `[N]`: the slot that each true state goes to; one that names none keeps nothing. Absent: its own slot's number.
    pub target_slots: gdn_table,
    /// `[N]`: records that are applied, up to those that are live; another number keeps nothing. Absent: all.
    pub count: gdn_table,
}

/// The commit of accepted paths: behind a `gdn_replay_verify` of trees, the records of each sequence's accepted drafts move to the
/// first places behind its live window, in all layers. Then `gdn_replay_advance` makes them live. A chain needs none.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gdn_replay_commit_call {
    /// `sizeof(gdn_replay_commit_call)`.
    pub size: u32,
    /// Sequences, N, up to 65,535. With 0 nothing is launched.
    pub batch: u32,
    /// What records mean.
    pub form: gdn_record_form,
    /// Drafts of each sequence, T.
    pub tokens: u32,
    /// 0.
    pub reserved: u32,
    /// What a layer has, as the verification was given it, cursors not yet moved; the addresses are those of `layers`.
    pub pool: gdn_replay_pool,
    /// Layers. Targets mean nothing here.
    pub layers: gdn_replay_layers,
    /// `[N]`: accepted drafts, `0..=T`; another number moves nothing.
    pub accepted: gdn_table,
    /// `[N, T]`: the accepted drafts of each sequence in rising order; entries behind them are ignored.
    pub path: gdn_table,
}

versioned!(gdn_replay_fold_call, gdn_materialise_call, gdn_replay_commit_call);

impl Call for gdn_replay_fold_call {
    type Operation<'a> = ReplayFold<'a>;

    fn operation(&self) -> Result<ReplayFold<'_>, Failure> {
        Ok(ReplayFold::new(self.form.read()?, self.batch, self.pool.read()?, self.layers.read()?))
    }
}

impl Call for gdn_materialise_call {
    type Operation<'a> = Materialise<'a>;

    fn operation(&self) -> Result<Materialise<'_>, Failure> {
        let (pool, layers) = (self.pool.read()?, self.layers.read()?);
        let target = self.target.required("target")?;
        let mut call = Materialise::new(self.form.read()?, self.batch, pool, layers, target);
        call.target_slots = self.target_slots.optional("target_slots")?;
        call.count = self.count.optional("count")?;
        Ok(call)
    }
}

impl Call for gdn_replay_commit_call {
    type Operation<'a> = ReplayCommit<'a>;

    fn operation(&self) -> Result<ReplayCommit<'_>, Failure> {
        check_reserved("reserved", self.reserved)?;
        let (form, pool, layers) = (self.form.read()?, self.pool.read()?, self.layers.read()?);
        let (accepted, path) = (self.accepted.required("accepted")?, self.path.required("path")?);
        Ok(ReplayCommit::new(form, self.batch, self.tokens, pool, layers, accepted, path))
    }
}

/// As `gdn_decode`: rings are folded.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gdn_replay_fold(
    context: *const gdn_context,
    call: *const gdn_replay_fold_call,
    launch: *const gdn_launch,
    stream: *mut c_void,
) -> gdn_status {
    // SAFETY: the caller's promise.
    unsafe { run(context, call, launch, stream) }
}

/// As `gdn_decode_prepare`: rings are folded.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gdn_replay_fold_prepare(
    context: *const gdn_context,
    call: *const gdn_replay_fold_call,
    launch: *const gdn_launch,
    prepared: *mut *mut gdn_prepared,
) -> gdn_status {
    // SAFETY: the caller's promise.
    unsafe { prepare(context, call, launch, prepared) }
}

/// As `gdn_decode`: true states stored elsewhere.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gdn_materialise(
    context: *const gdn_context,
    call: *const gdn_materialise_call,
    launch: *const gdn_launch,
    stream: *mut c_void,
) -> gdn_status {
    // SAFETY: the caller's promise.
    unsafe { run(context, call, launch, stream) }
}

/// As `gdn_decode_prepare`: true states stored elsewhere.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gdn_materialise_prepare(
    context: *const gdn_context,
    call: *const gdn_materialise_call,
    launch: *const gdn_launch,
    prepared: *mut *mut gdn_prepared,
) -> gdn_status {
    // SAFETY: the caller's promise.
    unsafe { prepare(context, call, launch, prepared) }
}

/// As `gdn_decode`: accepted paths of trees.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gdn_replay_commit(
    context: *const gdn_context,
    call: *const gdn_replay_commit_call,
    launch: *const gdn_launch,
    stream: *mut c_void,
) -> gdn_status {
    // SAFETY: the caller's promise.
    unsafe { run(context, call, launch, stream) }
}

/// As `gdn_decode_prepare`: accepted paths of trees.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gdn_replay_commit_prepare(
    context: *const gdn_context,
    call: *const gdn_replay_commit_call,
    launch: *const gdn_launch,
    prepared: *mut *mut gdn_prepared,
) -> gdn_status {
    // SAFETY: the caller's promise.
    unsafe { prepare(context, call, launch, prepared) }
}
