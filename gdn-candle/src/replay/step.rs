//! A step of sequences that have rings: decode or drafts in each layer, then the cursors, once.

use super::ReplayState;
use super::state::own;
use crate::inputs::Inputs;
use crate::lock::{Memory, Operands};
use crate::memory::count;
use crate::run::{Launch, run};
use crate::slots::Slots;
use candle_core::{Result, Tensor, bail};
use gdn_host::{RecordForm, ReplayAdvance, ReplayCommit, ReplayDecode, ReplayPool, ReplayVerify};

/// A step of all layers: which sequences take part, and which of them fold.
///
/// Each layer takes it once, by [`replay_decode`] or [`replay_verify`]; then [`replay_advance`] moves the cursors. What a step says
/// is the same for all of these, so they take it from here.
#[derive(Clone, Debug)]
pub struct ReplayStep<'a> {
    /// The states.
    pub(crate) states: &'a ReplayState,
    /// Slots, and who starts from zeros.
    pub(crate) slots: Slots,
    /// Flags `[N]` of the sequences that fold.
    force: Option<Tensor>,
}

impl<'a> ReplayStep<'a> {
    pub(super) fn new(states: &'a ReplayState, slots: &Slots) -> Result<ReplayStep<'a>> {
        own(slots)?;
        Ok(ReplayStep { states, slots: slots.clone(), force: None })
    }

    /// The same in which sequences whose flag is not 0, `[N]`, fold whatever their ring holds.
    pub fn with_force(self, flags: &Tensor) -> ReplayStep<'a> {
        ReplayStep { force: Some(flags.clone()), ..self }
    }

    /// The slots that the step was given.
    pub fn slots(&self) -> &Slots {
        &self.slots
    }

    /// What its calls touch.
    fn operands(&self, moves: bool) -> Operands<'_> {
        let mut operands = self.states.operands(moves);
        self.slots.operands(&mut operands);
        operands.read_some("force", self.force.as_ref());
        operands
    }

    fn pool(&self, memory: &Memory, layer: usize) -> Result<ReplayPool> {
        let mut pool = self.states.calls(memory)?.pool(layer).map_err(candle_core::Error::wrap)?;
        pool.slots = memory.some_table("slots", own(&self.slots)?)?;
        pool.null_slot = self.slots.null_slot.or(pool.null_slot);
        pool.start = self.slots.start.on(memory)?;
        pool.force = memory.some_table("force", self.force.as_ref())?;
        Ok(pool)
    }

    /// Refuses inputs whose records would mean something else than those of the rings.
    fn check(&self, inputs: &gdn_host::Inputs) -> Result<()> {
        let (have, want) = (RecordForm::of(inputs), self.states.config().form);
        if have != want {
            bail!("inputs: {have:?} does not fit the rings, expected {want:?}");
        }
        Ok(())
    }
}

/// [`decode`](crate::decode) of a layer, counted from 0, that appends a record to each sequence's ring and writes a state only where
/// the ring is folded: where it is full, where the step says so, and where a sequence starts from zeros.
///
/// # Errors
/// An argument that does not fit; the text names it and its value, and nothing was written.
pub fn replay_decode(inputs: &Inputs, step: &ReplayStep, layer: usize) -> Result<Tensor> {
    let out = inputs.output(&inputs.cut()?.lead)?;
    decode_into(inputs, step, layer, &out, Launch::Ordered)?;
    Ok(out)
}

pub(crate) fn decode_into(
    inputs: &Inputs,
    step: &ReplayStep,
    layer: usize,
    out: &Tensor,
    launch: Launch,
) -> Result<()> {
    let total = inputs.cut()?.count;
    let mut operands = step.operands(false);
    inputs.operands(&mut operands);
    operands.write("out", out);
    operands.locked(|memory| {
        let (call, n) = (inputs.on(memory, total)?, count("v", total)?);
        step.check(&call)?;
        let out = memory.rows("out", out, inputs.shape.value_elements())?;
        let call = ReplayDecode::new(call, n, step.pool(memory, layer)?, out);
        run(memory, inputs.q.device(), &call, launch)
    })
}

/// Verification of `tokens` drafts of each sequence in a layer, counted from 0: their records lie behind the live ones, and count
/// when [`replay_advance`] says how many were accepted. With `parent`, `[N, T]`, drafts are trees.
///
/// # Errors
/// An argument that does not fit; the text names it and its value, and nothing was written.
pub fn replay_verify(
    inputs: &Inputs,
    tokens: usize,
    step: &ReplayStep,
    layer: usize,
    parent: Option<&Tensor>,
) -> Result<Tensor> {
    let out = inputs.output(&inputs.cut()?.lead)?;
    verify_into(inputs, tokens, step, layer, parent, (&out, Launch::Ordered))?;
    Ok(out)
}

pub(crate) fn verify_into(
    inputs: &Inputs,
    tokens: usize,
    step: &ReplayStep,
    layer: usize,
    parent: Option<&Tensor>,
    (out, launch): (&Tensor, Launch),
) -> Result<()> {
    let total = inputs.cut()?.count;
    let mut operands = step.operands(false);
    inputs.operands(&mut operands);
    operands.read_some("parent", parent);
    operands.write("out", out);
    operands.locked(|memory| {
        let each = count("tokens", tokens as u64)?;
        if each == 0 || !total.is_multiple_of(each.into()) {
            bail!("tokens: {total} rows are no sequences of {each} drafts");
        }
        let (call, n) = (inputs.on(memory, total)?, count("v", total / u64::from(each))?);
        step.check(&call)?;
        let out = memory.rows("out", out, inputs.shape.value_elements())?;
        let mut call = ReplayVerify::new(call, n, each, step.pool(memory, layer)?, out);
        call.parent = memory.some_table("parent", parent)?;
        run(memory, inputs.q.device(), &call, launch)
    })
}

/// Moves the cursors of all layers behind a step: of `sequences` sequences that were decoded, or, with `drafts`, whose drafts were
/// verified: how many there were of each, and how many of them were accepted, `[N]`.
///
/// # Errors
/// An argument that does not fit; nothing was written.
pub fn replay_advance(step: &ReplayStep, sequences: usize, drafts: Option<(usize, &Tensor)>) -> Result<()> {
    let mut operands = step.operands(true);
    operands.read_some("accepted", drafts.map(|(_, accepted)| accepted));
    operands.locked(|memory| {
        let (n, pool) = (count("sequences", sequences as u64)?, step.pool(memory, 0)?);
        let accepted = memory.some_table("accepted", drafts.map(|(_, accepted)| accepted))?;
        let tokens = count("tokens", drafts.map_or(1, |(tokens, _)| tokens) as u64)?;
        step.states.run(memory, &ReplayAdvance::new(n, tokens, pool, accepted))
    })
}

/// In front of [`replay_advance`] where drafts were trees: the records of each sequence's accepted path move to the first places
/// behind its live ones, in all layers. `accepted` `[N]` are counts, `path` `[N, T]` the accepted drafts in rising order.
///
/// # Errors
/// An argument that does not fit; nothing was written.
pub fn replay_commit(step: &ReplayStep, accepted: &Tensor, path: &Tensor) -> Result<()> {
    let mut operands = step.operands(false);
    operands.read("accepted", accepted);
    operands.read("path", path);
    operands.locked(|memory| {
        let (accepted, path) = (memory.table("accepted", accepted)?, memory.table("path", path)?);
        let (n, tokens) = (count("accepted", accepted.len)?, count("path", path.columns)?);
        let (pool, layers) = (step.pool(memory, 0)?, step.states.calls(memory)?.layers());
        let form = step.states.config().form;
        step.states.run(memory, &ReplayCommit::new(form, n, tokens, pool, layers, accepted, path))
    })
}
