//! A pool of checkpoints with the rings beside it, and which of their records are live.

use super::RecordForm;
use crate::call::check::{VECTOR_BYTES, check_null_slot, check_optional_flags, check_optional_table};
use crate::call::check::{check_rows, check_table, check_value};
use crate::call::{CallError, Extent, Extents, Rows, Start, StatePool, Table, Tensor};
use crate::key::{Family, Layout};
use crate::shape::HeadShape;
use gdn_kernels::abi::{self, DType, MOST_KDA_RECORDS, MOST_RECORDS, flags};

/// Rings of records, one for each slot of a pool of states. A record is what a token leaves: its key as it came in, the
/// correction of each row of V, and its log decay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rings {
    /// Records that a ring has room for: 1 to 32, in KDA to 16. About `sqrt(2 S / r)` is best, with S the bytes of a head's
    /// state and r those of its record: 14 for f32 states of 128 x 128, 10 for 16-bit ones, in KDA 10 and 7.
    pub records: u32,
    /// Keys, a row of `[H, records, K]` for each slot, of the type of the inputs. 16-byte aligned, as is its stride.
    pub k: Rows,
    /// Corrections, rows of `[HV, records, V]`, f32. 16-byte aligned, as is its stride.
    pub d: Rows,
    /// Log decays, rows of `[HV, records]`, in KDA `[HV, records, K]`, f32. In KDA 16-byte aligned, as is its stride.
    pub g: Rows,
}

impl Rings {
    /// Rings of so many records in three tensors, each with a row for every slot.
    pub const fn new(records: u32, k: Rows, d: Rows, g: Rows) -> Rings {
        Rings { records, k, d, g }
    }

    /// Elements of a slot's keys, corrections and log decays: the widths of the three tensors' rows.
    pub fn widths(shape: &HeadShape, family: Family, records: u32) -> [u64; 3] {
        let decays = match family {
            Family::Gdn => 1,
            Family::Kda => shape.k,
        };
        [(shape.h, shape.k), (shape.hv, shape.v), (shape.hv, decays)].map(|(heads, width)| {
            u64::from(heads).saturating_mul(records.into()).saturating_mul(width.into())
        })
    }
}

/// Which records of the rings are live. All layers of a model see the same tokens, so one pair of tables serves them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cursors {
    /// Place of each oldest live record, below `records`. Without it that is place 0.
    pub base: Option<Table>,
    /// Live records of each.
    pub len: Table,
    /// Whether the tables have a row for each slot of the pool; else they have one for each sequence, which spares the kernels
    /// a look-up.
    pub by_slot: bool,
}

impl Cursors {
    /// Cursors of each sequence, `[N]`; windows begin at place 0.
    pub const fn by_sequence(len: Table) -> Cursors {
        Cursors { base: None, len, by_slot: false }
    }

    /// Cursors of each slot, `[slots]`; windows begin at place 0.
    pub const fn by_slot(len: Table) -> Cursors {
        Cursors { base: None, len, by_slot: true }
    }

    /// The same with windows that begin where a table says, as those of [`ReplayVerify`](crate::ReplayVerify) do.
    pub const fn with_base(self, base: Table) -> Cursors {
        Cursors { base: Some(base), ..self }
    }
}

/// A layer's checkpoints and rings, and which of them a call's sequences have.
///
/// Sequence n has slot `slots[n]`. A negative index, `null_slot`, an index past the pool, and cursors whose window does not lie
/// in the ring mark a padded row: nothing of it is touched, and its outputs are zeros. Two sequences of a call must not have
/// the same slot.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct ReplayPool {
    /// Checkpoints, in layout VK. Of type f32, that of q, or f16 under bf16.
    pub state: StatePool,
    /// Records, of as many slots.
    pub rings: Rings,
    /// The live ones.
    pub cursors: Cursors,
    /// `[N]`: the slot of each sequence. Without it sequence n's is n.
    pub slots: Option<Table>,
    /// An index value that marks padding besides the negative ones (vLLM: 0).
    pub null_slot: Option<i32>,
    /// Sequences that start from zeros, with an empty ring whatever their cursors say. Their state is stored at once.
    pub start: Start,
    /// `[N]`: flags of the sequences that fold now, whatever their ring holds.
    pub force: Option<Table>,
    /// Live records at most behind the call; a sequence that would have more folds. As many as fit by default.
    pub most: Option<u32>,
}

impl ReplayPool {
    /// Sequence n has slot n.
    pub const fn new(state: StatePool, rings: Rings, cursors: Cursors) -> ReplayPool {
        let (slots, null_slot, start, force, most) = (None, None, Start::FromSlot, None, None);
        ReplayPool { state, rings, cursors, slots, null_slot, start, force, most }
    }

    /// The same with the slots of a table, `[N]`.
    pub const fn with_slots(self, slots: Table) -> ReplayPool {
        ReplayPool { slots: Some(slots), ..self }
    }

    /// The same with an index that marks padding besides the negative ones.
    pub const fn with_null_slot(self, null_slot: i32) -> ReplayPool {
        ReplayPool { null_slot: Some(null_slot), ..self }
    }

    /// The same with sequences that start from zeros.
    pub const fn with_start(self, start: Start) -> ReplayPool {
        ReplayPool { start, ..self }
    }

    /// The same with sequences that fold now, flags `[N]`.
    pub const fn with_force(self, force: Table) -> ReplayPool {
        ReplayPool { force: Some(force), ..self }
    }

    /// The same with so many live records at most behind a call.
    pub const fn with_most(self, most: u32) -> ReplayPool {
        ReplayPool { most: Some(most), ..self }
    }

    /// Live records at most, where a call keeps so many places free for what it appends.
    pub(crate) fn most(&self, free: u32) -> u32 {
        self.most.unwrap_or(self.rings.records.saturating_sub(free))
    }

    /// What needs no memory: the ring's length, and what of it may be live.
    pub(super) fn check_options(&self, family: Family, free: u32) -> Result<(), CallError> {
        let records = self.rings.records;
        if self.state.layout != Layout::Vk {
            let problem = "replay has kernels for layout VK only";
            return Err(CallError::Combination { field: "pool.state", problem });
        }
        let (most, want) = match family {
            Family::Gdn => (MOST_RECORDS, "1 to 32 records"),
            Family::Kda => (MOST_KDA_RECORDS, "1 to 16 records in KDA"),
        };
        check_value("pool.rings.records", records, (1..=most).contains(&records), want)?;
        let want = "no more than the records of a ring, without those that drafts take";
        let fits = self.most(free).checked_add(free).is_some_and(|need| need <= records);
        check_value("pool.most", self.most(free), fits, want)?;
        check_null_slot(self.null_slot)
    }

    /// The memory, for `batch` sequences.
    pub(super) fn check_memory(&self, form: &RecordForm, batch: u32) -> Result<(), CallError> {
        let slots = self.state.slots;
        self.state.check("pool.state", form.shape.state_elements())?;
        let decays = if form.is_kda() { VECTOR_BYTES } else { 1 };
        let vectors = [VECTOR_BYTES, VECTOR_BYTES, decays];
        for ((field, rows, width), vector) in self.tensors(form).into_iter().zip(vectors) {
            let have = rows.tensor.dtype;
            if field != "pool.rings.k" && have != DType::F32 {
                return Err(CallError::Type { field, have: have.name(), want: "f32" });
            }
            check_rows(field, rows, width, slots.into(), vector)?;
        }
        self.check_tables(batch)
    }

    /// The tables, for `batch` sequences.
    pub(super) fn check_tables(&self, batch: u32) -> Result<(), CallError> {
        if self.slots.is_none() {
            self.state.check_by_sequence("pool.state", batch)?;
        }
        let rows = if self.cursors.by_slot { self.state.slots } else { batch };
        check_table("pool.cursors.len", &self.cursors.len, rows.into(), 1)?;
        check_optional_table("pool.cursors.base", self.cursors.base.as_ref(), rows)?;
        check_optional_table("pool.slots", self.slots.as_ref(), batch)?;
        check_optional_flags("pool.start", self.start.table(), batch)?;
        check_optional_flags("pool.force", self.force.as_ref(), batch)
    }

    /// The rings' tensors: what they are called, and the width of their rows.
    fn tensors(&self, form: &RecordForm) -> [(&'static str, &Rows, u64); 3] {
        let [k, d, g] = Rings::widths(&form.shape, form.family, self.rings.records);
        let rings = &self.rings;
        [("pool.rings.k", &rings.k, k), ("pool.rings.d", &rings.d, d), ("pool.rings.g", &rings.g, g)]
    }

    /// The rings.
    pub(super) fn push_rings(&self, extents: &mut Extents, form: &RecordForm, written: bool) {
        for (field, rows, width) in self.tensors(form) {
            extents.push(Extent::rows(field, rows, width, self.state.slots.into(), written));
        }
    }

    /// Checkpoints and rings, and whether they are written.
    pub(super) fn push_memory(&self, extents: &mut Extents, form: &RecordForm, [states, records]: [bool; 2]) {
        extents.push(self.state.extent("pool.state", &form.shape, states));
        self.push_rings(extents, form, records);
    }

    pub(super) fn push_tables(&self, extents: &mut Extents) {
        extents.push_table("pool.cursors.base", self.cursors.base.as_ref());
        extents.push_table("pool.cursors.len", Some(&self.cursors.len));
        extents.push_table("pool.slots", self.slots.as_ref());
        extents.push_table("pool.start", self.start.table());
        extents.push_table("pool.force", self.force.as_ref());
    }

    /// The flags that the kernels read its tables by.
    pub(super) fn flags(&self) -> u32 {
        self.start.flags() | if self.cursors.by_slot { flags::CURSORS_BY_SLOT } else { 0 }
    }

    /// The checkpoints as the kernels take them.
    pub(super) fn pool(&self, ahead: u32) -> abi::Pool {
        abi::Pool {
            state: self.state.tensor.address,
            slot: Table::to_abi(self.slots.as_ref()),
            write_slot: abi::Table::default(),
            reset: Table::to_abi(self.start.table()),
            pitch: self.state.pitch as u32,
            slots: self.state.slots,
            null_slot: self.null_slot.unwrap_or(-1),
            ahead,
        }
    }

    /// The rings as the kernels take them.
    pub(super) fn rings(&self) -> abi::Rings {
        let Rings { records, k, d, g } = self.rings;
        let address = |rows: Rows| -> (Tensor, u32) { (rows.tensor, rows.stride as u32) };
        let ((k, k_pitch), (d, d_pitch), (g, g_pitch)) = (address(k), address(d), address(g));
        let (k, d, g) = (k.address, d.address, g.address);
        abi::Rings { k, d, g, k_pitch, d_pitch, g_pitch, records }
    }

    /// The cursors as the kernels take them.
    pub(super) fn cursors(&self) -> abi::Cursors {
        let Cursors { base, len, .. } = &self.cursors;
        abi::Cursors { base: Table::to_abi(base.as_ref()), len: Table::to_abi(Some(len)) }
    }
}
