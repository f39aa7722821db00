//! Any number of tokens a sequence: prefill of short prompts, and verification of drafts.

use super::check::{check_null_slot, check_optional_flags, check_optional_table, check_table, check_value};
use super::{
    CallError, Extent, Extents, Inputs, Intermediate, Operation, Params, Rows, Start, StatePool, Table,
    Tokens,
};
use crate::key::{Layout, ModuleKey};
use crate::plan::{self, Caps, Job, Plan, PlanError, Tile, Tuning};
use gdn_kernels::abi::{self, DType, flags};

/// Where a sequence's state comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Source {
    /// Zeros.
    Zeros,
    /// `initial_state[N]`: sequence n from slot n. A pool of fewer slots than sequences is refused.
    Sequences(StatePool),
    /// Sequence n from slot `slots[n]`; an index that names no slot marks a padded row.
    Slots {
        /// States.
        pool: StatePool,
        /// `[N]`.
        slots: Table,
    },
    /// Sequence n from slot `slots[n, accepted[n] - 1]` (vLLM): where the last accepted token of the last draft
    /// left it. A count outside `1..=S` marks a padded row, as does an index that names no slot.
    Accepted {
        /// States.
        pool: StatePool,
        /// `[N, S]`.
        slots: Table,
        /// `[N]`.
        accepted: Table,
    },
}

impl Source {
    /// The pool that states come from.
    pub(crate) fn pool(&self) -> Option<&StatePool> {
        match self {
            Source::Zeros => None,
            Source::Sequences(pool) | Source::Slots { pool, .. } | Source::Accepted { pool, .. } => {
                Some(pool)
            }
        }
    }

    fn slots(&self) -> Option<&Table> {
        match self {
            Source::Zeros | Source::Sequences(_) => None,
            Source::Slots { slots, .. } | Source::Accepted { slots, .. } => Some(slots),
        }
    }

    fn accepted(&self) -> Option<&Table> {
        if let Source::Accepted { accepted, .. } = self { Some(accepted) } else { None }
    }

    /// The tables have an entry, or a row of them, for each sequence.
    fn check_tables(&self, batch: u32) -> Result<(), CallError> {
        let Some(slots) = self.slots() else { return Ok(()) };
        let columns = if self.accepted().is_some() { check_columns("source.slots", slots)? } else { 1 };
        check_table("source.slots", slots, batch.into(), columns)?;
        check_optional_table("source.accepted", self.accepted(), batch)
    }
}

/// Where a sequence's last state goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// Nowhere: the source stays as it is.
    Nowhere,
    /// To the slot it came from.
    InPlace,
    /// To slot `slots[n]` of the source's pool, `[N]`; an index that names no slot keeps nothing.
    Slots(Table),
    /// `final_state[N]`: sequence n's to slot n of another tensor, of the source's type and layout. A sequence
    /// without tokens leaves its initial state there.
    Sequences(StatePool),
    /// The state after token t to slot `slots[n, t]` of the source's pool, `[N, S]`; those of tokens from S on, and those
    /// whose index names no slot, are not kept. The table may be [`Source::Accepted`]'s own (vLLM), or another one, so that
    /// what the sequence started from stays what it was.
    EachToken(Table),
}

/// The entries of a row of a table of slots by token.
fn check_columns(field: &'static str, table: &Table) -> Result<u64, CallError> {
    let holds = (1..=u64::from(u32::MAX)).contains(&table.columns);
    check_value(field, table.columns as f64, holds, "a table of rows of at least 1 entry")
        .map(|()| table.columns)
}

impl Target {
    /// The table of slots, with an entry for each sequence or one for each of its tokens.
    fn slots(&self) -> Option<&Table> {
        match self {
            Target::Slots(slots) | Target::EachToken(slots) => Some(slots),
            Target::Nowhere | Target::InPlace | Target::Sequences(_) => None,
        }
    }
}

/// Any number of tokens for each sequence: the operations SGLang calls `fused_recurrent_gated_delta_rule_fwd`
/// (states by sequence), `fused_recurrent_gated_delta_rule_update_fwd` (states in a pool), and the forms of
/// `fused_sigmoid_gating_delta_rule_update` and `fused_recurrent_kda_fwd` with more than one token.
///
/// What a token does is [`Decode`](super::Decode)'s, and T tokens give the bits of T decodes; with a 16-bit state
/// that needs `round_state`. Rows of two sequences must not write the same slot or row of the buffer, nor one
/// write what another reads: their order is not defined.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Recurrent {
    /// Inputs: a row for each token.
    pub inputs: Inputs,
    /// Which rows are whose.
    pub tokens: Tokens,
    /// Where states come from. Their type is f32 or the type of q.
    pub source: Source,
    /// Sequences that start from zeros whatever the source.
    pub start: Start,
    /// Where the last states go.
    pub target: Target,
    /// An index value that marks padding in tables of slots besides the negative ones (vLLM: 0).
    pub null_slot: Option<i32>,
    /// Where the state after each token goes.
    pub intermediate: Option<Intermediate>,
    /// Round the running state to its type after every token. By default it stays f32 and is rounded only where it
    /// is stored.
    pub round_state: bool,
    /// Output, a row of `[HV, V]` for each token, of the type of q or f32; `None` advances states only.
    pub out: Option<Rows>,
}

impl Recurrent {
    /// The tokens of `tokens`, with states from `source` and to `target`. Without an output it advances states only.
    pub fn new(
        inputs: Inputs,
        tokens: Tokens,
        source: Source,
        target: Target,
        out: impl Into<Option<Rows>>,
    ) -> Recurrent {
        let (start, null_slot, intermediate, round_state) = (Start::FromSlot, None, None, false);
        let out = out.into();
        Recurrent { inputs, tokens, source, start, target, null_slot, intermediate, round_state, out }
    }

    /// The same call with sequences that start from zeros.
    pub fn with_start(self, start: Start) -> Recurrent {
        Recurrent { start, ..self }
    }

    /// The same call with an index that marks padding besides the negative ones.
    pub fn with_null_slot(self, null_slot: i32) -> Recurrent {
        Recurrent { null_slot: Some(null_slot), ..self }
    }

    /// The same call with a buffer for the state after each token.
    pub fn with_intermediate(self, intermediate: Intermediate) -> Recurrent {
        Recurrent { intermediate: Some(intermediate), ..self }
    }

    /// The same call with the running state rounded to its type after every token.
    pub fn with_rounded_state(self) -> Recurrent {
        Recurrent { round_state: true, ..self }
    }

    /// The other tensor that states go to.
    fn final_states(&self) -> Option<&StatePool> {
        if let Target::Sequences(pool) = &self.target { Some(pool) } else { None }
    }

    /// Type and layout of the state, and the argument that says so; f32 and VK where no state is in memory.
    pub(crate) fn state(&self) -> (&'static str, DType, Layout) {
        let of_pool = |field, pool: &StatePool| (field, pool.tensor.dtype, pool.layout);
        let source = self.source.pool().map(|pool| of_pool("source", pool));
        let target = self.final_states().map(|pool| of_pool("target", pool));
        let buffer = self.intermediate.map(|i| ("intermediate", i.tensor.dtype, Layout::Vk));
        source.or(target).or(buffer).unwrap_or(("source", DType::F32, Layout::Vk))
    }

    fn check_combinations(&self) -> Result<(), CallError> {
        let refuse = |field, problem| Err(CallError::Combination { field, problem });
        match (&self.source, &self.target) {
            (Source::Zeros, Target::InPlace | Target::Slots(_) | Target::EachToken(_)) => {
                return refuse("target", "states that start from zeros have no pool to go back to");
            }
            (_, Target::EachToken(_)) if self.is_tree() => {
                return refuse(
                    "target",
                    "states of a tree go to the intermediate buffer, not to slots by token",
                );
            }
            _ => {}
        }
        if matches!(self.source, Source::Zeros) && self.start != Start::FromSlot {
            return refuse("start", "every sequence starts from zeros anyway");
        }
        let (_, dtype, layout) = self.state();
        if let Some(have) = self.final_states().map(|p| p.tensor.dtype).filter(|have| *have != dtype) {
            return Err(CallError::Type {
                field: "target",
                have: have.name(),
                want: "the type of the state",
            });
        }
        let buffer = self.intermediate.map_or(dtype, |i| i.tensor.dtype);
        if buffer != dtype && dtype != DType::F32 {
            let want = "the type of the state, or any beside a state in f32";
            return Err(CallError::Type { field: "intermediate", have: buffer.name(), want });
        }
        if self.final_states().is_some_and(|pool| pool.layout != layout) {
            return refuse("target", "it has another layout than the source");
        }
        let nothing =
            matches!(self.target, Target::Nowhere) && self.intermediate.is_none() && self.out.is_none();
        if nothing { refuse("out", "neither an output nor a state is asked for") } else { Ok(()) }
    }

    fn is_tree(&self) -> bool {
        self.intermediate.is_some_and(|i| i.parent.is_some())
    }

    fn check_states(&self) -> Result<(), CallError> {
        let (n, elements) = (self.tokens.batch(), self.inputs.shape.state_elements());
        if let Some(pool) = self.source.pool() {
            pool.check("source", elements)?;
        }
        if let Source::Sequences(pool) = &self.source {
            pool.check_by_sequence("source", n)?;
        }
        if let Some(pool) = self.final_states() {
            pool.check("target", elements)?;
            pool.check_by_sequence("target", n)?;
        }
        self.source.check_tables(n)?;
        if let Some(slots) = self.target.slots() {
            let by_token = matches!(self.target, Target::EachToken(_));
            let columns = if by_token { check_columns("target.slots", slots)? } else { 1 };
            check_table("target.slots", slots, n.into(), columns)?;
        }
        check_optional_flags("start", self.start.table(), n)?;
        let Some(buffer) = &self.intermediate else { return Ok(()) };
        buffer.check(elements, n)?;
        match &buffer.parent {
            Some(parent) => check_table("intermediate.parent", parent, n.into(), buffer.steps.into()),
            None => Ok(()),
        }
    }

    /// The module that has its kernels.
    fn module(&self) -> ModuleKey {
        let (inputs, (_, state, layout)) = (&self.inputs, self.state());
        ModuleKey::recurrent(inputs.family, layout, state, inputs.io(), inputs.shape.k)
    }
}

impl Operation for Recurrent {
    fn check_arguments(&self) -> Result<(), CallError> {
        self.inputs.check_options()?;
        self.check_combinations()?;
        self.inputs.check_served(self.state().0, self.module())?;
        check_null_slot(self.null_slot)?;
        if self.is_empty() {
            return Ok(());
        }
        self.tokens.check()?;
        let tokens = self.tokens.total();
        self.inputs.check_memory(tokens)?;
        if let Some(out) = &self.out {
            self.inputs.check_out(out, tokens)?;
        }
        self.check_states()
    }

    fn extents(&self) -> Extents {
        let mut extents = Extents::default();
        let (shape, tokens) = (&self.inputs.shape, self.tokens.total());
        self.inputs.push_extents(&mut extents, tokens);
        self.tokens.push_extents(&mut extents);
        let written = matches!(self.target, Target::InPlace | Target::Slots(_) | Target::EachToken(_));
        if let Some(pool) = self.source.pool() {
            extents.push(pool.extent("source", shape, written));
        }
        extents.push_table("source.slots", self.source.slots());
        extents.push_table("source.accepted", self.source.accepted());
        extents.push_table("start", self.start.table());
        extents.push_table("target.slots", self.target.slots());
        if let Some(pool) = self.final_states() {
            extents.push(pool.extent("target", shape, true));
        }
        if let Some(buffer) = &self.intermediate {
            buffer.push_extents(&mut extents, shape.state_elements(), true);
            extents.push_table("intermediate.parent", buffer.parent.as_ref());
        }
        if let Some(out) = &self.out {
            extents.push(Extent::rows("out", out, shape.value_elements(), tokens, true));
        }
        extents
    }

    /// No sequence, or sequences without tokens whose states stay where they are; and no row of the output behind them.
    fn is_empty(&self) -> bool {
        let no_rest = self.out.is_none() || self.tokens.total() == 0 || self.tokens.cu_seqlens().is_none();
        let no_states = self.tokens.batch() == 0 || self.tokens.total() == 0 && self.final_states().is_none();
        no_states && no_rest
    }

    fn plan_tuned(&self, caps: &Caps, tuning: &Tuning, tile: Tile) -> Result<Plan, PlanError> {
        let (module, shape) = (self.module(), self.inputs.shape);
        let stores_each = self.intermediate.is_some() || matches!(self.target, Target::EachToken(_));
        // Without sequences the blocks of one clear the output.
        let job = Job { module, shape, batch: self.tokens.batch().max(1), stores_each };
        plan::tiled(&job, caps, tuning, tile)
    }

    fn params(&self, plan: &Plan) -> Params {
        let mut bits = self.start.flags();
        let mut set = |flag: u32, on: bool| bits |= if on { flag } else { 0 };
        set(flags::ROUND_STATE, self.round_state);
        set(flags::WRITE_IN_PLACE, self.target == Target::InPlace);
        set(flags::WRITE_PER_TOKEN, matches!(self.target, Target::EachToken(_)));
        let columns = |table: Option<&Table>| table.map_or(0, |t| t.columns as u32);
        let pool = self.source.pool();
        Params::new(&abi::RecurrentParams {
            inputs: self.inputs.to_abi(),
            gate: self.inputs.gate(),
            pool: abi::Pool {
                state: pool.map_or(0, |p| p.tensor.address),
                slot: Table::to_abi(self.source.slots()),
                write_slot: Table::to_abi(self.target.slots()),
                reset: Table::to_abi(self.start.table()),
                pitch: pool.map_or(0, |p| p.pitch as u32),
                slots: pool.map_or(0, |p| p.slots),
                null_slot: self.null_slot.unwrap_or(-1),
                ahead: plan.ahead,
            },
            target: self.final_states().map_or_else(Default::default, |pool| abi::Target {
                state: pool.tensor.address,
                pitch: pool.pitch as u32,
                slots: pool.slots,
            }),
            intermediate: self.intermediate.map_or_else(Default::default, |i| abi::Intermediate {
                state: i.tensor.address,
                row: Table::to_abi(i.row.as_ref()),
                parent: Table::to_abi(i.parent.as_ref()),
                pitch: i.pitch as u32,
                rows: i.rows,
                steps: i.steps,
                dtype: i.tensor.dtype as u32,
            }),
            cu_seqlens: Table::to_abi(self.tokens.cu_seqlens()),
            accepted: Table::to_abi(self.source.accepted()),
            out: self.out.map_or(0, |o| o.tensor.address),
            out_stride: self.out.map_or(0, |o| o.stride as u32),
            n: self.tokens.batch(),
            tokens: self.tokens.to_abi(),
            slot_columns: columns(self.source.slots()),
            write_columns: columns(self.target.slots()),
            reserved: 0,
            layer: self.inputs.layer(plan, self.out.as_ref(), bits),
        })
    }

    unsafe fn run_on_host(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.on_host() };
    }
}
