//! Decode, verification of drafts, sequences: the recurrence on candle tensors.

use crate::inputs::Inputs;
use crate::lock::{Memory, Operands};
use crate::memory::{check_shape, count};
use crate::pool::StatePool;
use crate::run::{Launch, run};
use crate::slots::{Slots, Start, Write};
use candle_core::{DType, Result, Tensor, bail};
use gdn_host::{CommitState, Decode, Intermediate, Layout, Recurrent, Source, Target};

/// Which tokens a sequence has.
#[derive(Clone, Debug)]
pub enum Tokens {
    /// Every sequence has T: token t of sequence n is row `n * T + t`.
    Each(usize),
    /// Sequences of different lengths, 0 among them, one behind the other: `cu_seqlens`, `[N + 1]`, i32, u32 or i64.
    Packed(Tensor),
}

impl Tokens {
    pub(crate) fn operands<'a>(&'a self, operands: &mut Operands<'a>) {
        if let Tokens::Packed(cu_seqlens) = self {
            operands.read("cu_seqlens", cu_seqlens);
        }
    }

    /// Of `total` rows.
    pub(crate) fn on(&self, memory: &Memory, total: u64) -> Result<gdn_host::Tokens> {
        let rows = count("tokens", total)?;
        match self {
            Tokens::Each(tokens) => {
                let each = count("tokens", *tokens as u64)?;
                if each == 0 || !rows.is_multiple_of(each) {
                    bail!("tokens: {rows} rows are no sequences of {each} tokens");
                }
                Ok(gdn_host::Tokens::Each { batch: rows / each, tokens: each })
            }
            Tokens::Packed(table) => {
                let cu_seqlens = memory.table("cu_seqlens", table)?;
                let Some(batch) = cu_seqlens.len.checked_sub(1) else {
                    bail!("cu_seqlens: is empty, N sequences have N + 1 entries");
                };
                let batch = count("cu_seqlens", batch)?;
                Ok(gdn_host::Tokens::Packed { batch, total: rows, cu_seqlens })
            }
        }
    }
}

/// A buffer for the state after each token of drafts, `[rows, steps, HV, V, K]` (`[.., K, V]` in layout KV), of the pool's
/// type, or of any beside a pool of f32.
#[derive(Clone, Debug)]
pub struct DraftStates {
    /// The buffer.
    pub states: Tensor,
    /// `[N]`: the row of each sequence; without it sequence n's is n.
    pub rows: Option<Tensor>,
    /// `[N, steps]`: drafts are trees, and token t > 0 starts from the state after token `parent[n, t]`.
    pub parent: Option<Tensor>,
}

impl DraftStates {
    /// Of chains, a row for each sequence.
    pub fn new(states: &Tensor) -> DraftStates {
        DraftStates { states: states.clone(), rows: None, parent: None }
    }

    fn operands<'a>(&'a self, operands: &mut Operands<'a>, written: bool) {
        match written {
            true => operands.write("drafts", &self.states),
            false => operands.read("drafts", &self.states),
        }
        operands.read_some("drafts.rows", self.rows.as_ref());
        operands.read_some("drafts.parent", self.parent.as_ref());
    }

    fn on(&self, memory: &Memory, shape: &gdn_host::HeadShape, layout: Layout) -> Result<Intermediate> {
        check_shape("drafts", &self.states, &[&[0, 0][..], &state_dims(shape, layout)].concat())?;
        let steps = self.states.dims()[1] as u64;
        let elements = steps.saturating_mul(shape.state_elements());
        let pool = memory.states("drafts", &self.states, elements, layout)?;
        let buffer = Intermediate::new(pool.tensor, pool.slots, count("drafts", steps)?, pool.pitch);
        let rows = memory.some_table("drafts.rows", self.rows.as_ref())?;
        let parent = memory.some_table("drafts.parent", self.parent.as_ref())?;
        let buffer = rows.map_or(buffer, |rows| buffer.with_row(rows));
        Ok(parent.map_or(buffer, |parent| buffer.with_parent(parent)))
    }
}

/// The dimensions of a state.
pub(crate) fn state_dims(shape: &gdn_host::HeadShape, layout: Layout) -> [usize; 3] {
    let [hv, v, k] = [shape.hv, shape.v, shape.k].map(|dim| dim as usize);
    match layout {
        Layout::Vk => [hv, v, k],
        Layout::Kv => [hv, k, v],
    }
}

/// One token for each sequence: states of `pool` are read, updated and stored as `slots` says, and the outputs
/// `[.., HV, V]` returned, zeros for padded rows.
///
/// # Errors
/// An argument that does not fit; the text names it and its value, and nothing was written.
pub fn decode(inputs: &Inputs, pool: &StatePool, slots: &Slots) -> Result<Tensor> {
    let out = inputs.output(&inputs.cut()?.lead)?;
    decode_into(inputs, pool, slots, &out, Launch::Ordered)?;
    Ok(out)
}

pub(crate) fn decode_into(
    inputs: &Inputs,
    pool: &StatePool,
    slots: &Slots,
    out: &Tensor,
    launch: Launch,
) -> Result<()> {
    let tokens = inputs.cut()?.count;
    if !slots.are_of_a_decode() {
        bail!(
            "slots: a decode writes in place or to slots of its own; verify takes accepted counts and lanes"
        );
    }
    let mut operands = Operands::default();
    inputs.operands(&mut operands);
    slots.operands(&mut operands);
    operands.write("state", &pool.tensor);
    operands.write("out", out);
    operands.locked(|memory| {
        let (shape, n) = (inputs.shape, count("v", tokens)?);
        let states = pool.on("state", memory, &shape)?;
        let out = memory.rows("out", out, shape.value_elements())?;
        let call = Decode::new(inputs.on(memory, tokens)?, n, states, out);
        let mut call = call.with_start(slots.start.on(memory)?);
        call.slots = memory.some_table("slots", slots.slots.as_ref())?;
        call.null_slot = slots.null_slot;
        if let Write::Slots(table) = &slots.write {
            call.write_slots = Some(memory.table("write", table)?);
        }
        run(memory, inputs.q.device(), &call, launch)
    })
}

/// Any number of tokens a sequence, with states of a pool: drafts that are verified, prompts, tokens that were accepted.
///
/// Where states go is said by `slots.write`, and by `drafts` for the state after each token. T tokens give the bits of T
/// decodes; with 16-bit states that needs [`Inputs::round_state`]. Returns the outputs `[.., HV, V]`.
///
/// # Errors
/// An argument that does not fit; the text names it and its value, and nothing was written.
pub fn verify(
    inputs: &Inputs,
    tokens: &Tokens,
    pool: &StatePool,
    slots: &Slots,
    drafts: Option<&DraftStates>,
) -> Result<Tensor> {
    let out = inputs.output(&inputs.cut()?.lead)?;
    pooled(inputs, tokens, pool, slots, drafts, Some(&out))?;
    Ok(out)
}

/// [`verify`] without outputs: states advance, and nothing is worked out that nobody reads.
///
/// # Errors
/// As [`verify`].
pub fn advance(inputs: &Inputs, tokens: &Tokens, pool: &StatePool, slots: &Slots) -> Result<()> {
    pooled(inputs, tokens, pool, slots, None, None)
}

pub(crate) fn pooled(
    inputs: &Inputs,
    tokens: &Tokens,
    pool: &StatePool,
    slots: &Slots,
    drafts: Option<&DraftStates>,
    out: Option<&Tensor>,
) -> Result<()> {
    let total = inputs.cut()?.count;
    let mut operands = Operands::default();
    inputs.operands(&mut operands);
    tokens.operands(&mut operands);
    slots.operands(&mut operands);
    slots.state_operand(&mut operands, &pool.tensor);
    if let Some(drafts) = drafts {
        drafts.operands(&mut operands, true);
    }
    if let Some(out) = out {
        operands.write("out", out);
    }
    operands.locked(|memory| {
        let states = pool.on("state", memory, &inputs.shape)?;
        let table = memory.some_table("slots", slots.slots.as_ref())?;
        let accepted = memory.some_table("accepted", slots.accepted.as_ref())?;
        let source = match (table, accepted) {
            (None, None) => Source::Sequences(states),
            (Some(slots), None) => Source::Slots { pool: states, slots },
            (Some(slots), Some(accepted)) => Source::Accepted { pool: states, slots, accepted },
            (None, Some(_)) => bail!("accepted: without a table of slots there is none to choose"),
        };
        let target = match &slots.write {
            Write::InPlace => Target::InPlace,
            Write::Nowhere => Target::Nowhere,
            Write::Slots(table) => Target::Slots(memory.table("write", table)?),
            Write::EachToken(table) => Target::EachToken(memory.table("write", table)?),
        };
        let mut call = call(inputs, memory, tokens, total, (source, target), out)?;
        call = call.with_start(slots.start.on(memory)?);
        call.null_slot = slots.null_slot;
        call.intermediate = drafts.map(|drafts| drafts.on(memory, &inputs.shape, pool.layout)).transpose()?;
        run(memory, inputs.q.device(), &call, Launch::Ordered)
    })
}

fn call(
    inputs: &Inputs,
    memory: &Memory,
    tokens: &Tokens,
    total: u64,
    (source, target): (Source, Target),
    out: Option<&Tensor>,
) -> Result<Recurrent> {
    let width = inputs.shape.value_elements();
    let out = out.map(|out| memory.rows("out", out, width)).transpose()?;
    let tokens = tokens.on(memory, total)?;
    let call = Recurrent::new(inputs.on(memory, total)?, tokens, source, target, out);
    Ok(if inputs.round_state { call.with_rounded_state() } else { call })
}

/// Sequences with states of their own: from `initial`, `[N, HV, V, K]` (`[N, HV, K, V]` in layout KV), or from zeros. Returns
/// the outputs `[.., HV, V]` and the final states `[N, ..]`, of the type of the initial ones, or f32. `initial` stays as it is.
///
/// # Errors
/// An argument that does not fit; the text names it and its value.
pub fn recurrent_fwd(
    inputs: &Inputs,
    tokens: &Tokens,
    initial: Option<&Tensor>,
    layout: Layout,
) -> Result<(Tensor, Tensor)> {
    let cut = inputs.cut()?;
    let sequences = match tokens {
        Tokens::Each(each) => cut.count as usize / (*each).max(1),
        Tokens::Packed(cu_seqlens) => cu_seqlens.elem_count().saturating_sub(1),
    };
    let out = inputs.output(&cut.lead)?;
    let dims = [&[sequences][..], &state_dims(&inputs.shape, layout)].concat();
    let dtype = initial.map_or(DType::F32, Tensor::dtype);
    let last = crate::run::unfilled(dims, dtype, inputs.q.device())?;
    let mut operands = Operands::default();
    inputs.operands(&mut operands);
    tokens.operands(&mut operands);
    operands.read_some("initial", initial);
    operands.write("final", &last);
    operands.write("out", &out);
    operands.locked(|memory| {
        let pool = |field, tensor: &Tensor| {
            StatePool { tensor: tensor.clone(), layout }.on(field, memory, &inputs.shape)
        };
        let source = match initial {
            Some(initial) => {
                check_shape(
                    "initial",
                    initial,
                    &[&[sequences][..], &state_dims(&inputs.shape, layout)].concat(),
                )?;
                Source::Sequences(pool("initial", initial)?)
            }
            None => Source::Zeros,
        };
        if sequences == 0 {
            return Ok(());
        }
        let target = Target::Sequences(pool("final", &last)?);
        let call = call(inputs, memory, tokens, cut.count, (source, target), Some(&out))?;
        run(memory, inputs.q.device(), &call, Launch::Ordered)
    })?;
    Ok((out, last))
}

/// Commits drafts: the state after the last accepted token of each sequence goes from the buffer to its slot.
/// `accepted` `[N]` are counts; 0 commits nothing. In a tree the last accepted token counts by its place.
///
/// # Errors
/// An argument that does not fit; the text names it and its value, and nothing was written.
pub fn commit(
    shape: &gdn_host::HeadShape,
    drafts: &DraftStates,
    accepted: &Tensor,
    pool: &StatePool,
    slots: &Slots,
) -> Result<()> {
    let into = slots.of_commit()?;
    if !matches!(slots.start, Start::FromSlot) || slots.accepted.is_some() {
        bail!("slots: a commit starts from nowhere, its counts are `accepted`");
    }
    let mut operands = Operands::default();
    drafts.operands(&mut operands, false);
    operands.read("accepted", accepted);
    operands.read_some("slots", into);
    operands.write("state", &pool.tensor);
    operands.locked(|memory| {
        let accepted = memory.table("accepted", accepted)?;
        let call = CommitState {
            shape: *shape,
            batch: count("accepted", accepted.len)?,
            intermediate: drafts.on(memory, shape, pool.layout)?,
            accepted,
            state: pool.on("state", memory, shape)?,
            slots: memory.some_table("slots", into)?,
            null_slot: slots.null_slot,
        };
        run(memory, pool.tensor.device(), &call, Launch::Ordered)
    })
}
