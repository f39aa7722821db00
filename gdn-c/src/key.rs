//! Modules of kernels, and models by their names.

use crate::inputs::{GDN_FAMILY_GDN, GDN_FAMILY_KDA, family, gdn_family, gdn_shape};
use crate::memory::{element, gdn_dtype, gdn_layout, layout};
use crate::read::{check_reserved, check_zero, not_null, read, text, unknown, versioned};
use crate::status::{Failure, gdn_status, guarded};
use gdn_host::{Family, MODELS, Model, ModuleKey, OpKind, find_module};
use std::ffi::{CString, c_char};
use std::sync::LazyLock;

/// `gdn_decode`. Its key has family, layout, state, io and k.
pub const GDN_OP_DECODE: u32 = 1;
/// `gdn_recurrent`. Its key has family, layout, state, io and k.
pub const GDN_OP_RECURRENT: u32 = 2;
/// `gdn_copy_state` and `gdn_commit_state`. Its key has nothing else.
pub const GDN_OP_COPY_STATE: u32 = 3;
/// `gdn_convert_layout`. Its key has state.
pub const GDN_OP_CONVERT_LAYOUT: u32 = 4;
/// `gdn_unpack_qkvz`. Its key has nothing else.
pub const GDN_OP_UNPACK_QKVZ: u32 = 5;
/// `gdn_conv1d_update`. Its key has state (of the conv states) and io.
pub const GDN_OP_CONV1D_UPDATE: u32 = 6;
/// `gdn_gated_rmsnorm`. Its key has state (the type of x), io (of z), and V as k, or 0 for calls of any V and of a z that is
/// not 16-byte aligned.
pub const GDN_OP_GATED_RMSNORM: u32 = 7;

/// `gdn_replay_decode`. Its key has family, state, io and k.
pub const GDN_OP_REPLAY_DECODE: u32 = 8;
/// `gdn_replay_verify`. Its key has family, state, io and k.
pub const GDN_OP_REPLAY_VERIFY: u32 = 9;
/// `gdn_replay_fold` and `gdn_materialise`. Its key has family, state, io and k.
pub const GDN_OP_REPLAY_FOLD: u32 = 10;
/// `gdn_replay_commit`. Its key has nothing else.
pub const GDN_OP_REPLAY_COMMIT: u32 = 11;
/// `gdn_replay_advance`. Its key has nothing else.
pub const GDN_OP_REPLAY_ADVANCE: u32 = 12;

/// A module: the kernels of an operation for one choice of gate, layout, types and dimension. Fields that the operation does
/// not have are 0.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gdn_key {
    /// `GDN_OP_*`.
    pub op: u32,
    /// Gate of the recurrence.
    pub family: gdn_family,
    /// Layout of the recurrence's states.
    pub layout: gdn_layout,
    /// Type of the state.
    pub state: gdn_dtype,
    /// Type of q, k and v.
    pub io: gdn_dtype,
    /// K.
    pub k: u32,
}

/// A published model, for all that a step of its layers needs: decode, recurrent, commits, convolution, norm, and for
/// Qwen3-Next's projections their unpacking.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gdn_model {
    /// `sizeof(gdn_model)`.
    pub size: u32,
    /// Layout of the states.
    pub layout: gdn_layout,
    /// Type of the states.
    pub state: gdn_dtype,
    /// Type of q, k and v, and of the rest of a layer.
    pub io: gdn_dtype,
    /// Type of the conv states; 0: that of `io`.
    pub conv_state: gdn_dtype,
    /// 0.
    pub reserved: u32,
    /// Its name, as `gdn_model_name` has it: `Qwen3-Next-80B-A3B`.
    pub name: *const c_char,
}

versioned!(gdn_model);

impl gdn_key {
    pub(crate) fn read(&self) -> Result<ModuleKey, Failure> {
        let op = match self.op {
            GDN_OP_DECODE => OpKind::Decode,
            GDN_OP_RECURRENT => OpKind::Recurrent,
            GDN_OP_COPY_STATE => OpKind::CopyState,
            GDN_OP_CONVERT_LAYOUT => OpKind::ConvertLayout,
            GDN_OP_UNPACK_QKVZ => OpKind::UnpackQkvz,
            GDN_OP_CONV1D_UPDATE => OpKind::Conv1dUpdate,
            GDN_OP_GATED_RMSNORM => OpKind::GatedRmsNorm,
            GDN_OP_REPLAY_DECODE => OpKind::ReplayDecode,
            GDN_OP_REPLAY_VERIFY => OpKind::ReplayVerify,
            GDN_OP_REPLAY_FOLD => OpKind::ReplayFold,
            GDN_OP_REPLAY_COMMIT => OpKind::ReplayCommit,
            GDN_OP_REPLAY_ADVANCE => OpKind::ReplayAdvance,
            other => return unknown("key.op", other, "one of GDN_OP_*"),
        };
        let state = || element("key.state", self.state);
        let io = || element("key.io", self.io);
        let family = || family("key.family", self.family);
        // What the key has is what makes it; the rest is 0.
        let unused = |field, have, is_used: bool| match is_used {
            true => Ok(()),
            false => check_zero(field, have, &format!("{} does not have it", op.name())),
        };
        let types = matches!(op, OpKind::Conv1dUpdate | OpKind::GatedRmsNorm) || op.is_recurrence();
        unused("key.family", self.family, op.is_recurrence())?;
        unused("key.layout", self.layout, op.is_recurrence() && !op.has_records())?;
        unused("key.state", self.state, types || op == OpKind::ConvertLayout)?;
        unused("key.io", self.io, types)?;
        unused("key.k", self.k, op.is_recurrence() || op == OpKind::GatedRmsNorm)?;
        Ok(match op {
            OpKind::Decode | OpKind::Recurrent => {
                let layout = layout("key", self.layout)?;
                let key = if op == OpKind::Decode { ModuleKey::decode } else { ModuleKey::recurrent };
                key(family()?, layout, state()?, io()?, self.k)
            }
            OpKind::ReplayDecode => ModuleKey::replay_decode(family()?, state()?, io()?, self.k),
            OpKind::ReplayVerify => ModuleKey::replay_verify(family()?, state()?, io()?, self.k),
            OpKind::ReplayFold => ModuleKey::replay_fold(family()?, state()?, io()?, self.k),
            OpKind::ReplayCommit => ModuleKey::replay_commit(),
            OpKind::ReplayAdvance => ModuleKey::replay_advance(),
            OpKind::CopyState => ModuleKey::copy_state(),
            OpKind::ConvertLayout => ModuleKey::convert_layout(state()?),
            OpKind::UnpackQkvz => ModuleKey::unpack_qkvz(),
            OpKind::Conv1dUpdate => ModuleKey::conv1d_update(state()?, io()?),
            OpKind::GatedRmsNorm => ModuleKey::gated_rmsnorm(state()?, io()?, self.k),
        })
    }
}

impl gdn_model {
    /// The modules of the model.
    ///
    /// # Safety
    /// `name` is NULL or ends in a NUL.
    pub(crate) unsafe fn keys(&self) -> Result<Vec<ModuleKey>, Failure> {
        check_reserved("model.reserved", self.reserved)?;
        // SAFETY: the caller's promise.
        let model = find(unsafe { text(self.name, "model.name")? })?;
        let (state, io) = (element("model.state", self.state)?, element("model.io", self.io)?);
        let conv = if self.conv_state == 0 { io } else { element("model.conv_state", self.conv_state)? };
        Ok(model.modules(layout("model", self.layout)?, state, io, conv))
    }
}

fn find(name: &str) -> Result<&'static Model, Failure> {
    Model::find(name).ok_or_else(|| {
        let names: Vec<&str> = MODELS.iter().map(|model| model.name).collect();
        Failure::argument(format!(
            "model.name: {name:?} is not known, it must be one of {}",
            names.join(", ")
        ))
    })
}

/// The name of a model, or NULL past the last one: `for (i = 0; gdn_model_name(i); i++)` sees all. The text is the library's
/// and stays.
#[unsafe(no_mangle)]
pub extern "C" fn gdn_model_name(index: usize) -> *const c_char {
    static NAMES: LazyLock<Vec<CString>> =
        LazyLock::new(|| MODELS.iter().filter_map(|model| CString::new(model.name).ok()).collect());
    NAMES.get(index).map_or(std::ptr::null(), |name| name.as_ptr())
}

/// The heads of a model's layers on one of `ranks` tensor-parallel ranks, and its family.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gdn_model_heads(
    name: *const c_char,
    ranks: u32,
    shape: *mut gdn_shape,
    family: *mut gdn_family,
) -> gdn_status {
    guarded(|| {
        not_null(shape, "the place of the shape")?;
        not_null(family, "the place of the family")?;
        // SAFETY: the caller's promise: a text, and places for the results.
        unsafe {
            let model = find(text(name, "name")?)?;
            let heads = model.shape.shard(ranks).map_err(|error| Failure::argument(error.to_string()))?;
            *shape = gdn_shape { h: heads.h, hv: heads.hv, k: heads.k, v: heads.v };
            *family = if model.family == Family::Gdn { GDN_FAMILY_GDN } else { GDN_FAMILY_KDA };
        }
        Ok(())
    })
}

/// Whether there are kernels of `key` for devices of compute capability `compute` (90 is 9.0): `GDN_OK`, or
/// `GDN_ERROR_MODULE` with a message that names what comes nearest. It needs no GPU.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gdn_module_exists(key: *const gdn_key, compute: u32) -> gdn_status {
    guarded(|| {
        // SAFETY: the caller's promise; it may lie anywhere.
        let key = unsafe { not_null(key, "the pointer to gdn_key")?.read_unaligned() };
        find_module(key.read()?, compute)?;
        Ok(())
    })
}

/// The keys of a model and those of a list.
///
/// # Safety
/// `model` is NULL or a struct as long as its `size` says, `keys` has `count` entries.
pub(crate) unsafe fn all_keys(
    model: *const gdn_model,
    keys: *const gdn_key,
    count: usize,
) -> Result<Vec<ModuleKey>, Failure> {
    let mut all = Vec::new();
    if !model.is_null() {
        // SAFETY: the caller's promise.
        all = unsafe { read(model)?.keys()? };
    }
    if count > 0 {
        not_null(keys, "the pointer to the keys")?;
    }
    for i in 0..count {
        // SAFETY: there are `count` of them, by the caller's promise.
        let key = unsafe { keys.add(i).read_unaligned() };
        let key = key
            .read()
            .map_err(|failure| Failure { message: format!("keys[{i}]: {}", failure.message), ..failure })?;
        if !all.contains(&key) {
            all.push(key);
        }
    }
    Ok(all)
}
