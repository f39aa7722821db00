//! Which tokens are whose, where their states come from and where they go.

use crate::inputs::gdn_shape;
use crate::memory::{Argument, element, gdn_dtype, gdn_pool, gdn_table};
use crate::read::{check_reserved, unknown};
use crate::status::Failure;
use gdn_host::{Intermediate, Source, Start, Target, Tensor, Tokens};

/// Every sequence starts from its slot.
pub const GDN_START_FROM_SLOT: u32 = 0;
/// Sequences whose entry is not 0 start from zeros.
pub const GDN_START_RESET: u32 = 1;
/// Sequences whose entry is 0 start from zeros.
pub const GDN_START_HAS_INITIAL_STATE: u32 = 2;

/// Token t of sequence n is row `n * T + t` of the inputs and the output.
pub const GDN_TOKENS_EACH: u32 = 1;
/// Sequences of different lengths, 0 among them, one behind the other.
pub const GDN_TOKENS_PACKED: u32 = 2;

/// States start from zeros.
pub const GDN_SOURCE_ZEROS: u32 = 1;
/// Sequence n starts from slot n of `pool`, which has at least N slots.
pub const GDN_SOURCE_SEQUENCES: u32 = 2;
/// Sequence n starts from slot `slots[n]`; an index that names no slot marks a padded row.
pub const GDN_SOURCE_SLOTS: u32 = 3;
/// Sequence n starts from slot `slots[n, accepted[n] - 1]` (vLLM): where the last accepted token of the last draft left it. A
/// count outside `1..=S` marks a padded row, as does an index that names no slot.
pub const GDN_SOURCE_ACCEPTED: u32 = 4;

/// The last state goes nowhere: the source stays as it is.
pub const GDN_TARGET_NOWHERE: u32 = 1;
/// To the slot it came from.
pub const GDN_TARGET_IN_PLACE: u32 = 2;
/// To slot `slots[n]` of the source's pool, `[N]`; an index that names no slot keeps nothing.
pub const GDN_TARGET_SLOTS: u32 = 3;
/// Sequence n's to slot n of `pool`, another tensor of the source's type and layout. A sequence without tokens leaves its
/// initial state there.
pub const GDN_TARGET_SEQUENCES: u32 = 4;
/// The state after token t to slot `slots[n, t]` of the source's pool, `[N, S]`; those of tokens from S on, and those whose
/// index names no slot, are not kept. The table may be the source's own (vLLM).
pub const GDN_TARGET_EACH_TOKEN: u32 = 5;

/// Which sequences start from zeros instead of their slot's contents. Their slot must be a valid one all the same: a padded
/// row stays padding.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gdn_start {
    /// `GDN_START_*`.
    pub kind: u32,
    /// 0.
    pub reserved: u32,
    /// `[N]`, of flags (`GDN_U8`, `GDN_I32`, `GDN_U32`); absent with `GDN_START_FROM_SLOT`.
    pub table: gdn_table,
}

/// Which tokens a sequence has.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gdn_tokens {
    /// `GDN_TOKENS_EACH` or `GDN_TOKENS_PACKED`.
    pub kind: u32,
    /// Sequences, N.
    pub batch: u32,
    /// Each: tokens of every sequence, T. Packed: tokens in all, which is the rows of the inputs and the output. A range past
    /// it is treated as empty; rows of the output behind the last sequence (a graph's padding) become zeros.
    pub count: u32,
    /// 0.
    pub reserved: u32,
    /// Packed: N + 1 rows, the first token of each sequence, and the end of the last. Each: absent.
    pub cu_seqlens: gdn_table,
}

/// Where a sequence's state comes from. Fields that the kind does not read are absent.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gdn_source {
    /// `GDN_SOURCE_*`.
    pub kind: u32,
    /// 0.
    pub reserved: u32,
    /// States.
    pub pool: gdn_pool,
    /// `[N]`, or `[N, S]` with `GDN_SOURCE_ACCEPTED`.
    pub slots: gdn_table,
    /// `[N]`: accepted tokens of the last draft.
    pub accepted: gdn_table,
}

/// Where a sequence's last state goes. Fields that the kind does not read are absent.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gdn_target {
    /// `GDN_TARGET_*`.
    pub kind: u32,
    /// 0.
    pub reserved: u32,
    /// `[N]`, or `[N, S]` with `GDN_TARGET_EACH_TOKEN`.
    pub slots: gdn_table,
    /// States.
    pub pool: gdn_pool,
}

/// A buffer for the state after each token: `[rows, steps, HV, V, K]`, in the layout of the state. It has the state's type,
/// or, beside a state in f32, any. Absent if `address` and `dtype` are 0.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gdn_intermediate {
    /// Device address of the first element. 16-byte aligned, as is the pitch.
    pub address: u64,
    /// Elements that may be touched, from the address on.
    pub len: u64,
    /// Elements from a row to the next, at least steps * HV * V * K.
    pub pitch: u64,
    /// Rows of the buffer.
    pub rows: u32,
    /// Tokens that a row has room for. States of further tokens are not stored.
    pub steps: u32,
    /// `GDN_F32`, `GDN_BF16` or `GDN_F16`.
    pub dtype: gdn_dtype,
    /// 0.
    pub reserved: u32,
    /// `[N]`: the row of each sequence; an index that names no row stores nothing. Absent: sequence n's row is n.
    pub row: gdn_table,
    /// `[N, steps]`: drafts are trees, and token t > 0 starts from the state after token `parent[n, t]` as the buffer holds
    /// it; a parent outside `0..t` means that the token starts from where the sequence did. Absent: drafts are chains.
    pub parent: gdn_table,
}

/// `rows` rows of `steps` states of `shape`, one behind the other; sequence n's row is n, and drafts are chains.
#[unsafe(no_mangle)]
pub extern "C" fn gdn_intermediate_packed(
    address: u64,
    dtype: gdn_dtype,
    rows: u32,
    steps: u32,
    shape: gdn_shape,
) -> gdn_intermediate {
    let pitch = u64::from(steps).saturating_mul(shape.to_host().state_elements());
    let len = u64::from(rows).saturating_mul(pitch);
    let none = gdn_table { address: 0, len: 0, columns: 0, stride: 0, dtype: 0, reserved: 0 };
    gdn_intermediate { address, len, pitch, rows, steps, dtype, reserved: 0, row: none, parent: none }
}

impl gdn_start {
    pub(crate) fn read(&self) -> Result<Start, Failure> {
        check_reserved("start.reserved", self.reserved)?;
        match self.kind {
            GDN_START_FROM_SLOT => {
                let why = "every sequence starts from its slot";
                self.table.absent("start.table", why).map(|()| Start::FromSlot)
            }
            GDN_START_RESET => self.table.required("start").map(Start::Reset),
            GDN_START_HAS_INITIAL_STATE => self.table.required("start").map(Start::HasInitialState),
            other => unknown("start.kind", other, "one of GDN_START_*"),
        }
    }
}

impl gdn_tokens {
    pub(crate) fn read(&self) -> Result<Tokens, Failure> {
        check_reserved("tokens.reserved", self.reserved)?;
        let (batch, count) = (self.batch, self.count);
        match self.kind {
            GDN_TOKENS_EACH => {
                self.cu_seqlens.absent("tokens.cu_seqlens", "every sequence has as many tokens")?;
                Ok(Tokens::Each { batch, tokens: count })
            }
            GDN_TOKENS_PACKED => {
                let cu_seqlens = self.cu_seqlens.required("tokens.cu_seqlens")?;
                Ok(Tokens::Packed { batch, total: count, cu_seqlens })
            }
            other => unknown("tokens.kind", other, "one of GDN_TOKENS_*"),
        }
    }
}

impl gdn_source {
    pub(crate) fn read(&self) -> Result<Source, Failure> {
        check_reserved("source.reserved", self.reserved)?;
        let why = "its kind does not read it";
        if self.kind != GDN_SOURCE_ACCEPTED {
            self.accepted.absent("source.accepted", why)?;
        }
        if !matches!(self.kind, GDN_SOURCE_SLOTS | GDN_SOURCE_ACCEPTED) {
            self.slots.absent("source.slots", why)?;
        }
        let pool = || self.pool.required("source");
        let slots = || self.slots.required("source.slots");
        match self.kind {
            GDN_SOURCE_ZEROS => self.pool.absent("source.pool", why).map(|()| Source::Zeros),
            GDN_SOURCE_SEQUENCES => pool().map(Source::Sequences),
            GDN_SOURCE_SLOTS => Ok(Source::Slots { pool: pool()?, slots: slots()? }),
            GDN_SOURCE_ACCEPTED => {
                let accepted = self.accepted.required("source.accepted")?;
                Ok(Source::Accepted { pool: pool()?, slots: slots()?, accepted })
            }
            other => unknown("source.kind", other, "one of GDN_SOURCE_*"),
        }
    }
}

impl gdn_target {
    pub(crate) fn read(&self) -> Result<Target, Failure> {
        check_reserved("target.reserved", self.reserved)?;
        let why = "its kind does not read it";
        if !matches!(self.kind, GDN_TARGET_SLOTS | GDN_TARGET_EACH_TOKEN) {
            self.slots.absent("target.slots", why)?;
        }
        if self.kind != GDN_TARGET_SEQUENCES {
            self.pool.absent("target.pool", why)?;
        }
        let slots = || self.slots.required("target.slots");
        match self.kind {
            GDN_TARGET_NOWHERE => Ok(Target::Nowhere),
            GDN_TARGET_IN_PLACE => Ok(Target::InPlace),
            GDN_TARGET_SLOTS => slots().map(Target::Slots),
            GDN_TARGET_SEQUENCES => self.pool.required("target").map(Target::Sequences),
            GDN_TARGET_EACH_TOKEN => slots().map(Target::EachToken),
            other => unknown("target.kind", other, "one of GDN_TARGET_*"),
        }
    }
}

impl Argument for gdn_intermediate {
    type Host = Intermediate;

    fn presence(&self) -> (u64, gdn_dtype) {
        (self.address, self.dtype)
    }

    fn required(&self, field: &'static str) -> Result<Intermediate, Failure> {
        check_reserved("intermediate.reserved", self.reserved)?;
        let tensor = Tensor::new(self.address, element(field, self.dtype)?, self.len);
        let mut buffer = Intermediate::new(tensor, self.rows, self.steps, self.pitch);
        buffer.row = self.row.optional("intermediate.row")?;
        buffer.parent = self.parent.optional("intermediate.parent")?;
        Ok(buffer)
    }
}
