//! Replay: rings of records beside states that are seldom written. Here is what its calls share.

// Declared in the order of the header.
pub(crate) mod step;

pub(crate) mod layers;

#[cfg(test)]
mod tests;

use super::{Call, GDN_NULL_SLOT, prepare, run};
use crate::inputs::{GDN_NO_L2NORM, family, gdn_family, gdn_shape, heads, l2norm};
use crate::memory::{Argument, gdn_pool, gdn_rows, gdn_table};
use crate::read::{check_flags, check_zero, not_null, null_slot};
use crate::states::gdn_start;
use crate::status::Failure;
use gdn_host::{Cursors, RecordForm, ReplayLayer, ReplayLayers, ReplayPool, Rings};

/// Of `gdn_replay_pool.flags`: the cursors have a row for each slot of the pool; else they have one for each sequence.
pub const GDN_CURSORS_BY_SLOT: u32 = 2;
/// Of `gdn_replay_pool.flags`: `most` counts; else as many records may be live as fit.
pub const GDN_MOST: u32 = 4;

/// A layer's checkpoints and rings, and which of them a call's sequences have. Sequence n has slot `slots[n]`.
///
/// A ring has a record for each token that the checkpoint does not hold yet: its key as it came in, the correction of each row of
/// V, and its log decay. The live ones begin at place `base` of the ring and are `len` many.
///
/// A negative index, `null_slot`, an index past the pool, and a window that does not lie in the ring mark a padded row: nothing
/// of it is touched, and its outputs are zeros. Two sequences of a call must not have the same slot.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gdn_replay_pool {
    /// Checkpoints, in layout VK: f32, of the type of q, or f16 with q in bf16.
    pub state: gdn_pool,
    /// Records that a ring has room for: 1 to 32, in KDA to 16.
    pub records: u32,
    /// `GDN_NULL_SLOT`, `GDN_CURSORS_BY_SLOT`, `GDN_MOST`, or 0.
    pub flags: u32,
    /// An index that marks padding; 0 without `GDN_NULL_SLOT`.
    pub null_slot: i32,
    /// Live records at most behind the call; a sequence that would have more folds. 0 without `GDN_MOST`.
    pub most: u32,
    /// Keys, a row of `[H, records, K]` for each slot, of the type of q. 16-byte aligned, as is its stride.
    pub k: gdn_rows,
    /// Corrections, rows of `[HV, records, V]`, f32. 16-byte aligned, as is its stride.
    pub d: gdn_rows,
    /// Log decays, rows of `[HV, records]`, in KDA `[HV, records, K]`, f32. In KDA 16-byte aligned, as is its stride.
    pub g: gdn_rows,
    /// Place of each oldest live record. Absent: place 0.
    pub base: gdn_table,
    /// Live records of each.
    pub len: gdn_table,
    /// `[N]`: the slot of each sequence. Absent: sequence n's is n.
    pub slots: gdn_table,
    /// Sequences that start from zeros, with an empty ring whatever their cursors say. Their state is stored at once.
    pub start: gdn_start,
    /// `[N]`: flags of the sequences that fold now. Absent: those whose ring would be too long.
    pub force: gdn_table,
}

/// What the records of a ring mean, for calls that have no token: the same as in the inputs whose tokens they are of.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gdn_record_form {
    /// Heads of this rank.
    pub shape: gdn_shape,
    /// `GDN_FAMILY_*`.
    pub family: gdn_family,
    /// `GDN_HEADS_*`.
    pub heads: u32,
    /// `GDN_NO_L2NORM` or 0.
    pub flags: u32,
    /// The eps with which keys are normalised; 0 stands for 1e-6.
    pub l2norm: f32,
}

/// The addresses of a layer, on the host for checks and on the device for the kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gdn_replay_layer {
    /// Slot 0 of its checkpoints.
    pub state: u64,
    /// Slot 0 of its rings of keys.
    pub k: u64,
    /// Slot 0 of its rings of corrections.
    pub d: u64,
    /// Slot 0 of its rings of log decays.
    pub g: u64,
    /// Slot 0 of the pool that its true states go to; `state` where they go back.
    pub target: u64,
}

/// Layers whose slots, pitches, types and cursors are the same.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gdn_replay_layers {
    /// Their addresses, in memory of the host.
    pub list: *const gdn_replay_layer,
    /// Layers, 1 to 65,535.
    pub count: u64,
    /// Device address of the same structs, 8-byte aligned. What stands there is the caller's promise.
    pub table: u64,
}

/// Layers are handed on as they are.
const _: () = assert!(size_of::<gdn_replay_layer>() == size_of::<ReplayLayer>());

impl gdn_record_form {
    fn read(&self) -> Result<RecordForm, Failure> {
        let mut form = RecordForm::new(self.shape.to_host(), family("form.family", self.family)?);
        form.heads = heads("form.heads", self.heads)?;
        check_flags("form.flags", self.flags, GDN_NO_L2NORM)?;
        form.l2norm = l2norm("form.l2norm", self.flags, self.l2norm)?;
        Ok(form)
    }
}

impl gdn_replay_pool {
    fn read(&self) -> Result<ReplayPool, Failure> {
        check_flags("pool.flags", self.flags, GDN_NULL_SLOT | GDN_CURSORS_BY_SLOT | GDN_MOST)?;
        let (k, d, g) = (self.k.required("pool.k")?, self.d.required("pool.d")?, self.g.required("pool.g")?);
        let len = self.len.required("pool.len")?;
        let by_slot = self.flags & GDN_CURSORS_BY_SLOT != 0;
        let mut cursors = if by_slot { Cursors::by_slot(len) } else { Cursors::by_sequence(len) };
        cursors.base = self.base.optional("pool.base")?;
        let rings = Rings::new(self.records, k, d, g);
        let mut pool = ReplayPool::new(self.state.required("pool.state")?, rings, cursors);
        pool.slots = self.slots.optional("pool.slots")?;
        pool.null_slot = null_slot(self.flags & GDN_NULL_SLOT != 0, self.null_slot)?;
        pool.start = self.start.read()?;
        pool.force = self.force.optional("pool.force")?;
        match self.flags & GDN_MOST {
            0 => check_zero("pool.most", self.most, "GDN_MOST is not set")?,
            _ => pool.most = Some(self.most),
        }
        Ok(pool)
    }
}

impl gdn_replay_layers {
    fn read(&self) -> Result<ReplayLayers<'_>, Failure> {
        let list = not_null(self.list, "layers.list")?.cast::<ReplayLayer>();
        let count = usize::try_from(self.count).ok().filter(|count| *count <= usize::from(u16::MAX));
        let Some(count) = count else {
            let want = "it must be 1 to 65535";
            return Err(Failure::argument(format!("layers.count: {} is not allowed, {want}", self.count)));
        };
        if !list.is_aligned() {
            return Err(Failure::argument("layers.list: it is not aligned to 8 bytes"));
        }
        // SAFETY: there are as many layers, by the promise of whoever calls libgdn; the type is `repr(C)` with the same fields.
        let list = unsafe { std::slice::from_raw_parts(list, count) };
        Ok(ReplayLayers { list, table: self.table })
    }
}
