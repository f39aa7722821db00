//! A step of a layer with a ring of records: one token of each sequence, or drafts.

use super::{RecordForm, ReplayPool};
use crate::call::check::{check_table, check_value};
use crate::call::{CallError, Extent, Extents, Inputs, Operation, Params, Rows, Table};
use crate::key::{ModuleKey, OpKind};
use crate::plan::{self, Caps, Job, Overlap, Plan, PlanError, Tile, Tuning};
use gdn_kernels::abi::{self, MOST_DRAFTS};

/// Decode with a ring of records: what [`Decode`](crate::Decode) computes, but the state is written only when the ring is folded.
///
/// Sequence n's token appends a record at place `(base + len) % records` of its slot's ring. A sequence that would have more
/// than `pool.most` live records then, that `pool.force` names, or that starts from zeros, folds instead: the true state behind
/// the token becomes its checkpoint, and its ring is empty. So behind the call the cursors are `len + 1`, or, where it folded,
/// 0; the caller moves them, once for all layers.
///
/// With `pool.most` one less than the records of a ring this is SGLang's `fused_recurrent_linear_replayssm_decode`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct ReplayDecode {
    /// Inputs: a row for each sequence.
    pub inputs: Inputs,
    /// Sequences, N. With 0 nothing is launched.
    pub batch: u32,
    /// Checkpoints, rings and cursors.
    pub pool: ReplayPool,
    /// Output, rows of `[HV, V]`: of the type of q, or f32.
    pub out: Rows,
}

/// Verification of drafts with a ring of records: outputs as [`Recurrent`](crate::Recurrent) has them, but no state is stored
/// for each draft.
///
/// Sequence n's drafts append a record each behind its live window, which a later call sees as far as the cursors are moved:
/// rejection moves them less far, or not at all. A sequence that would have more than `pool.most` live records if all were
/// accepted, that `pool.force` names, or that starts from zeros, folds first: the true state in front of the drafts becomes its
/// checkpoint, and its window then begins with the first draft's record, at place `(base + len) % records`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct ReplayVerify {
    /// Inputs: `tokens` rows for each sequence.
    pub inputs: Inputs,
    /// Sequences, N. With 0 nothing is launched.
    pub batch: u32,
    /// Drafts of each sequence, T: 1 to 8.
    pub tokens: u32,
    /// Checkpoints, rings and cursors. Rings have room for `pool.most` records and T more.
    pub pool: ReplayPool,
    /// `[N, T]`: drafts are trees, and token t > 0 follows token `parent[n, t]`. A parent outside `0..t` means that it follows
    /// the live window. Entries of token 0 are ignored.
    pub parent: Option<Table>,
    /// Output, a row of `[HV, V]` for each token, of the type of q or f32.
    pub out: Rows,
}

impl ReplayDecode {
    /// One token for each of `batch` sequences.
    pub const fn new(inputs: Inputs, batch: u32, pool: ReplayPool, out: Rows) -> ReplayDecode {
        ReplayDecode { inputs, batch, pool, out }
    }

    fn step(&self) -> Step<'_> {
        let Self { inputs, batch, pool, out } = self;
        Step { op: OpKind::ReplayDecode, inputs, batch: *batch, tokens: 1, free: 0, pool, parent: None, out }
    }
}

impl ReplayVerify {
    /// `tokens` drafts for each of `batch` sequences, each a chain.
    pub const fn new(inputs: Inputs, batch: u32, tokens: u32, pool: ReplayPool, out: Rows) -> ReplayVerify {
        ReplayVerify { inputs, batch, tokens, pool, parent: None, out }
    }

    /// The same call with drafts that are trees: the parent of each token, `[N, T]`.
    pub const fn with_parent(self, parent: Table) -> ReplayVerify {
        ReplayVerify { parent: Some(parent), ..self }
    }

    fn step(&self) -> Step<'_> {
        let Self { inputs, batch, tokens, pool, parent, out } = self;
        let (op, parent) = (OpKind::ReplayVerify, parent.as_ref());
        Step { op, inputs, batch: *batch, tokens: *tokens, free: *tokens, pool, parent, out }
    }
}

/// What both calls are.
pub(crate) struct Step<'a> {
    pub(crate) op: OpKind,
    pub(crate) inputs: &'a Inputs,
    pub(crate) batch: u32,
    pub(crate) tokens: u32,
    /// Places of a ring that the tokens take besides those that may be live.
    pub(crate) free: u32,
    pub(crate) pool: &'a ReplayPool,
    pub(crate) parent: Option<&'a Table>,
    pub(crate) out: &'a Rows,
}

impl Step<'_> {
    fn module(&self) -> ModuleKey {
        let (inputs, state) = (self.inputs, &self.pool.state);
        ModuleKey::replay(self.op, inputs.family, state.tensor.dtype, inputs.io(), inputs.shape.k)
    }

    fn total(&self) -> u64 {
        u64::from(self.batch) * u64::from(self.tokens)
    }

    fn check_arguments(&self) -> Result<(), CallError> {
        self.inputs.check_options()?;
        let want = "1 to 8 drafts";
        check_value("tokens", self.tokens, (1..=MOST_DRAFTS).contains(&self.tokens), want)?;
        self.pool.check_options(self.inputs.family, self.free)?;
        RecordForm::of(self.inputs).check_served(self.module())?;
        if self.batch == 0 {
            return Ok(());
        }
        let total = self.total();
        check_value("batch", self.batch, total <= u32::MAX.into(), "fewer than 2^32 tokens in all")?;
        self.inputs.check_memory(total)?;
        self.inputs.check_out(self.out, total)?;
        if let Some(parent) = self.parent {
            check_table("parent", parent, self.batch.into(), self.tokens.into())?;
        }
        let have = self.pool.io();
        if have != self.inputs.io() {
            let (field, want) = ("pool.rings.k", "the type of q");
            return Err(CallError::Type { field, have: have.name(), want });
        }
        self.pool.check_memory(&RecordForm::of(self.inputs), self.batch)
    }

    fn extents(&self) -> Extents {
        let mut extents = Extents::default();
        let (shape, total) = (&self.inputs.shape, self.total());
        self.inputs.push_extents(&mut extents, total);
        self.pool.push_memory(&mut extents, &RecordForm::of(self.inputs), [true; 2]);
        self.pool.push_tables(&mut extents);
        extents.push_table("parent", self.parent);
        extents.push(Extent::rows("out", self.out, shape.value_elements(), total, true));
        extents
    }

    fn plan(&self, caps: &Caps, tuning: &Tuning, tile: Tile) -> Result<Plan, PlanError> {
        let (module, shape) = (self.module(), self.inputs.shape);
        plan::tiled(&Job { module, shape, batch: self.batch, stores_each: false }, caps, tuning, tile)
    }

    fn params(&self, plan: &Plan) -> Params {
        Params::new(&abi::ReplayParams {
            inputs: self.inputs.to_abi(),
            gate: self.inputs.gate(),
            pool: self.pool.pool(plan.ahead),
            rings: self.pool.rings(),
            cursors: self.pool.cursors(),
            force: Table::to_abi(self.pool.force.as_ref()),
            parent: Table::to_abi(self.parent),
            out: self.out.tensor.address,
            out_stride: self.out.stride as u32,
            n: self.batch,
            tokens: self.tokens,
            most: self.pool.most(self.free),
            layer: self.inputs.layer(plan, Some(self.out), self.pool.flags()),
        })
    }
}

macro_rules! operation {
    ($($call:ty)*) => {$(
        impl Operation for $call {
            fn check_arguments(&self) -> Result<(), CallError> {
                self.step().check_arguments()
            }

            fn extents(&self) -> Extents {
                self.step().extents()
            }

            fn is_empty(&self) -> bool {
                self.batch == 0
            }

            fn overlap(&self) -> Overlap {
                Overlap::Start
            }

            fn plan_tuned(&self, caps: &Caps, tuning: &Tuning, tile: Tile) -> Result<Plan, PlanError> {
                self.step().plan(caps, tuning, tile)
            }

            fn params(&self, plan: &Plan) -> Params {
                self.step().params(plan)
            }

            unsafe fn run_on_host(&self) {
                // SAFETY: the caller's promise.
                unsafe { self.step().on_host() };
            }
        }
    )*};
}
operation!(ReplayDecode ReplayVerify);
