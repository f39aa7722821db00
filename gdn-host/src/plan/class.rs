//! What a choice depends on: the class of a call, and how much of it each multiprocessor has.

use super::Job;
use crate::key::{DType, Family, Layout, OpKind};

/// What a call of the recurrence does with a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Work {
    /// One token: read, changed, written.
    Decode,
    /// Several tokens, of which the last state is written, or none.
    Update,
    /// Several tokens, and the state after each is written: that takes most of the time.
    Verify,
    /// One token: read with a ring of records, and seldom written. There is no layout KV.
    ReplayDecode,
    /// Drafts: likewise.
    ReplayVerify,
}

impl Work {
    pub(super) const ALL: [Work; 5] =
        [Work::Decode, Work::Update, Work::Verify, Work::ReplayDecode, Work::ReplayVerify];

    /// Whether states have rings of records.
    pub const fn has_records(self) -> bool {
        matches!(self, Work::ReplayDecode | Work::ReplayVerify)
    }

    /// Whether an early launch may pay: with several tokens that are not drafts of a ring it did not.
    pub const fn may_be_early(self) -> bool {
        matches!(self, Work::Decode) || self.has_records()
    }

    /// As in tables, and as `xtask bench` calls the operation.
    pub const fn name(self) -> &'static str {
        match self {
            Work::Decode => "decode",
            Work::Update => "update",
            Work::Verify => "verify",
            Work::ReplayDecode => "replay_decode",
            Work::ReplayVerify => "replay_verify",
        }
    }
}

/// Calls that want the same tile if they have as many states a multiprocessor. Classes are ordered, and written, as in tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Class {
    /// What is done with a state.
    pub work: Work,
    /// Layout of the state.
    pub layout: Layout,
    /// Decays of a head.
    pub gate: Family,
    /// Whether an element of the state has 16 bits; else it is f32.
    pub is_narrow: bool,
}

impl Class {
    /// The class of a job.
    pub fn of(job: &Job) -> Class {
        let module = job.module;
        let work = match (module.op, job.stores_each) {
            (OpKind::Decode, _) => Work::Decode,
            (OpKind::ReplayDecode, _) => Work::ReplayDecode,
            (OpKind::ReplayVerify, _) => Work::ReplayVerify,
            (_, false) => Work::Update,
            (_, true) => Work::Verify,
        };
        Class {
            work,
            layout: module.layout.unwrap_or_default(),
            gate: module.family.unwrap_or_default(),
            is_narrow: module.state.is_some_and(|state| state != DType::F32),
        }
    }

    /// Every class, in order.
    pub fn all() -> impl Iterator<Item = Class> {
        let of_work = |work: Work| {
            let exists = move |layout: &Layout| !(work.has_records() && *layout == Layout::Kv);
            Layout::ALL.into_iter().filter(exists).map(move |layout| (work, layout))
        };
        let of_gate = |(work, layout)| Family::ALL.into_iter().map(move |gate| (work, layout, gate));
        let of_size = |(work, layout, gate)| {
            [false, true].into_iter().map(move |is_narrow| Class { work, layout, gate, is_narrow })
        };
        Work::ALL.into_iter().flat_map(of_work).flat_map(of_gate).flat_map(of_size)
    }
}

/// States of 128 x 128 elements for each multiprocessor, in eighths, rounded up: a wave of large blocks is one such state a
/// multiprocessor or half a one, so what decides is often how full the last wave is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Load(pub u64);

impl Load {
    /// Of so many sequences' states on a device of `sms` multiprocessors.
    pub fn of(job: &Job, sms: u32) -> Load {
        const STATE: u128 = 128 * 128;
        let elements = u128::from(job.shape.state_elements()) * u128::from(job.batch);
        let eighths = (8 * elements).div_ceil(STATE * u128::from(sms.max(1)));
        Load(u64::try_from(eighths).unwrap_or(u64::MAX))
    }
}
