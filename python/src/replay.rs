//! Replay: steps with a ring of records, and what is done with the rings of all layers at once.

use crate::arguments::Arguments;
use crate::array::Array;
use crate::error::argument;
use crate::inputs::{Dims, Raw, count, head_map, start_flags, table};
use crate::submit::launch;
use gdn_host::{
    Cursors, Family, HeadMap, HeadShape, Launch, Layout, Materialise, RecordForm, ReplayAdvance,
    ReplayCommit, ReplayDecode, ReplayFold, ReplayLayer, ReplayLayers, ReplayPool, ReplayVerify, Rings, Rows,
    Tokens,
};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// A layer's checkpoints and rings.
#[derive(Clone, Copy)]
struct Memory {
    state: Array,
    k: Array,
    d: Array,
    g: Array,
}

impl Memory {
    fn read(args: &mut Arguments) -> PyResult<Memory> {
        let (state, k) = (args.written("pool.state")?, args.written("pool.k")?);
        Ok(Memory { state, k, d: args.written("pool.d")?, g: args.written("pool.g")? })
    }

    fn arrays(&self) -> [&Array; 4] {
        [&self.state, &self.k, &self.d, &self.g]
    }

    fn dims(&self) -> PyResult<Dims> {
        Dims::of_state(&self.state, Layout::Vk)
    }

    /// What records mean by their shapes: key heads by the rings of keys, the family by those of decays.
    fn form(&self, l2norm: Option<f32>, heads: HeadMap) -> PyResult<RecordForm> {
        let dims = self.dims()?;
        let family = if self.g.rank() == 4 { Family::Kda } else { Family::Gdn };
        let mut form = RecordForm::new(dims.shape(self.k.dim(1))?, family);
        (form.l2norm, form.heads) = (l2norm, heads);
        Ok(form)
    }

    fn pool(&self, cursors: Cursors) -> PyResult<ReplayPool> {
        let (dims, slots, records) = (self.dims()?, self.state.dim(0), self.k.dim(2));
        let keys = [slots, self.k.dim(1), records, dims.k];
        let corrections = [slots, dims.hv, records, dims.v];
        let decays = [slots, dims.hv, records, dims.k];
        let decays = if self.g.rank() == 4 { &decays[..] } else { &decays[..3] };
        let rings = Rings::new(
            count("records", records)?,
            ring(&self.k, &keys)?,
            ring(&self.d, &corrections)?,
            ring(&self.g, decays)?,
        );
        Ok(ReplayPool::new(dims.pool(&self.state)?, rings, cursors))
    }

    /// Rings of keys have as many heads as the keys.
    fn check_heads(&self, shape: &HeadShape) -> PyResult<()> {
        if self.k.dim(1) == u64::from(shape.h) {
            return Ok(());
        }
        Err(self
            .k
            .wrong_shape(&format!("[slots, {}, records, {}], with the key heads of q", shape.h, shape.k)))
    }
}

/// Rings of one kind, a row for each slot.
fn ring(array: &Array, want: &[u64]) -> PyResult<Rows> {
    let have: Vec<u64> = array.shape().iter().map(|dim| *dim as u64).collect();
    if have != want {
        return Err(array.wrong_shape(&format!("{want:?}")));
    }
    let pool = array.pool()?;
    Ok(Rows { tensor: pool.tensor, stride: pool.pitch })
}

/// The cursors: their lengths, where windows begin, and whether they are counted by slot.
struct RawCursors {
    length: Array,
    base: Option<Array>,
    by_slot: bool,
}

impl RawCursors {
    fn read(args: &mut Arguments) -> PyResult<RawCursors> {
        let (length, base) = (args.written("pool.length")?, args.optional_written("pool.base")?);
        Ok(RawCursors { length, base, by_slot: args.flag("pool")? })
    }

    fn cursors(&self) -> PyResult<Cursors> {
        let length = self.length.table()?;
        let cursors = if self.by_slot { Cursors::by_slot(length) } else { Cursors::by_sequence(length) };
        Ok(match table(self.base.as_ref())? {
            Some(base) => cursors.with_base(base),
            None => cursors,
        })
    }
}

/// What a call says of its sequences.
struct Sequences {
    slots: Option<Array>,
    start: Option<Array>,
    force: Option<Array>,
    inverted: bool,
    null_slot: Option<i32>,
    most: Option<u32>,
}

impl Sequences {
    fn read(args: &mut Arguments) -> PyResult<Sequences> {
        let (slots, start, force) =
            (args.optional("slots")?, args.optional("start")?, args.optional("force")?);
        let inverted = args.flag("has_initial_state")?;
        let (null_slot, most) = (args.number("null_slot")?, args.number("most")?);
        Ok(Sequences { slots, start, force, inverted, null_slot, most })
    }

    fn of(&self, mut pool: ReplayPool) -> PyResult<ReplayPool> {
        pool.slots = table(self.slots.as_ref())?;
        pool.start = start_flags(self.start, self.inverted)?;
        pool.force = table(self.force.as_ref())?;
        (pool.null_slot, pool.most) = (self.null_slot, self.most);
        Ok(pool)
    }

    /// How many they are: by the first table that has a row for each of them, or all slots.
    fn count(&self, more: Option<&Array>, cursors: &RawCursors, pool: &ReplayPool) -> PyResult<u32> {
        let by_sequence = Some(&cursors.length).filter(|_| !cursors.by_slot);
        let tables = [self.slots.as_ref(), more, self.start.as_ref(), self.force.as_ref(), by_sequence];
        match tables.into_iter().flatten().next() {
            Some(table) => count("slots", table.dim(0)),
            None => Ok(pool.state.slots),
        }
    }
}

/// One token for each sequence; the schema is `replay_decode` in `gdn/_schemas.py`.
#[pyfunction]
#[pyo3(signature = (*args))]
pub fn replay_decode(py: Python, args: &Bound<PyTuple>) -> PyResult<()> {
    let mut args = Arguments::new(args);
    let (memory, cursors) = (Memory::read(&mut args)?, RawCursors::read(&mut args)?);
    let (raw, sequences) = (Raw::read(&mut args)?, Sequences::read(&mut args)?);
    let out = args.written("out")?;
    let launch = launch(args.number("bv")?, args.flag("early")?);
    let (inputs, tokens) = raw.inputs(memory.dims()?)?;
    let pool = sequences.of(memory.pool(cursors.cursors()?)?)?;
    let out = out.rows(inputs.shape.value_elements(), tokens)?;
    memory.check_heads(&inputs.shape)?;
    let call = ReplayDecode::new(inputs, count("q", tokens)?, pool, out);
    args.submit(py, &call, launch)
}

/// Drafts of each sequence; the schema is `replay_verify` in `gdn/_schemas.py`.
#[pyfunction]
#[pyo3(signature = (*args))]
pub fn replay_verify(py: Python, args: &Bound<PyTuple>) -> PyResult<()> {
    let mut args = Arguments::new(args);
    let (memory, cursors) = (Memory::read(&mut args)?, RawCursors::read(&mut args)?);
    let (raw, sequences) = (Raw::read(&mut args)?, Sequences::read(&mut args)?);
    let parents = args.optional("parents")?;
    let out = args.written("out")?;
    let launch = launch(args.number("bv")?, args.flag("early")?);
    let (inputs, total) = raw.inputs(memory.dims()?)?;
    let Tokens::Each { batch, tokens } = raw.tokens(None)? else {
        return Err(raw.q.wrong_shape("[N, T, H, K]"));
    };
    let pool = sequences.of(memory.pool(cursors.cursors()?)?)?;
    let out = out.rows(inputs.shape.value_elements(), total)?;
    memory.check_heads(&inputs.shape)?;
    let mut call = ReplayVerify::new(inputs, batch, tokens, pool, out);
    call.parent = table(parents.as_ref())?;
    args.submit(py, &call, launch)
}

/// The cursors behind a step; the schema is `replay_advance` in `gdn/_schemas.py`.
#[pyfunction]
#[pyo3(signature = (*args))]
pub fn replay_advance(py: Python, args: &Bound<PyTuple>) -> PyResult<()> {
    let mut args = Arguments::new(args);
    let (memory, cursors) = (Memory::read(&mut args)?, RawCursors::read(&mut args)?);
    let sequences = Sequences::read(&mut args)?;
    let accepted = args.optional("accepted")?;
    let tokens = args.number("tokens")?;
    let launch = launch(None, args.flag("early")?);
    let pool = sequences.of(memory.pool(cursors.cursors()?)?)?;
    let batch = sequences.count(accepted.as_ref(), &cursors, &pool)?;
    let call = ReplayAdvance::new(batch, tokens, pool, table(accepted.as_ref())?);
    args.submit(py, &call, launch)
}

/// All layers as they come: each layer's memory, the table of addresses that kernels read, and what stands there.
struct Layers {
    memory: Memory,
    list: Vec<ReplayLayer>,
    table: u64,
}

impl Layers {
    fn read(args: &mut Arguments) -> PyResult<Layers> {
        let lists =
            [args.list("pool.state")?, args.list("pool.k")?, args.list("pool.d")?, args.list("pool.g")?];
        let table = args.tensor("layers")?;
        let addresses = args.addresses("layers")?;
        let count = lists[0].len();
        let refused = |problem: String| Err(argument("layers", problem));
        if lists.iter().any(|list| list.len() != count) || count == 0 || addresses.len() != 5 * count {
            return refused(format!("there are {count} layers, and not as many of everything"));
        }
        if table.shape() != [count as i64, 5] || table.table()?.entry.size() != 8 {
            return Err(table.wrong_shape(&format!("[{count}, 5] of int64")));
        }
        let of =
            |at: usize| Memory { state: lists[0][at], k: lists[1][at], d: lists[2][at], g: lists[3][at] };
        let memory = of(0);
        let mut layers = Vec::with_capacity(count);
        for (at, row) in addresses.chunks_exact(5).enumerate() {
            let layer = of(at);
            for ((have, first), address) in layer.arrays().into_iter().zip(memory.arrays()).zip(row) {
                if !have.lies_as(first) {
                    return refused(format!(
                        "{} of layer {at} has another type, shape or strides than layer 0",
                        have.field
                    ));
                }
                if have.address() != *address {
                    return refused(format!(
                        "{} of layer {at} is not where it was when the table was made",
                        have.field
                    ));
                }
            }
            let [state, k, d, g, target] = [row[0], row[1], row[2], row[3], row[4]];
            layers.push(ReplayLayer { state, k, d, g, target });
        }
        Ok(Layers { memory, list: layers, table: table.address() })
    }

    fn all(&self) -> ReplayLayers<'_> {
        ReplayLayers { list: &self.list, table: self.table }
    }
}

/// Accepted paths of trees; the schema is `replay_commit` in `gdn/_schemas.py`.
#[pyfunction]
#[pyo3(signature = (*args))]
pub fn replay_commit(py: Python, args: &Bound<PyTuple>) -> PyResult<()> {
    let mut args = Arguments::new(args);
    let (layers, cursors) = (Layers::read(&mut args)?, RawCursors::read(&mut args)?);
    let sequences = Sequences::read(&mut args)?;
    let (accepted, path) = (args.tensor("accepted")?, args.tensor("path")?);
    let launch = launch(None, args.flag("early")?);
    // A commit moves records as they are, whatever they mean.
    let form = layers.memory.form(Some(1e-6), HeadMap::Grouped)?;
    let pool = sequences.of(layers.memory.pool(cursors.cursors()?)?)?;
    let batch = sequences.count(Some(&accepted), &cursors, &pool)?;
    let (tokens, accepted, path) = (count("path", path.dim(1))?, accepted.table()?, path.table()?);
    let call = ReplayCommit::new(form, batch, tokens, pool, layers.all(), accepted, path);
    args.submit(py, &call, launch)
}

/// Folds; the schema is `replay_fold` in `gdn/_schemas.py`.
#[pyfunction]
#[pyo3(signature = (*args))]
pub fn replay_fold(py: Python, args: &Bound<PyTuple>) -> PyResult<()> {
    let mut args = Arguments::new(args);
    let (layers, cursors) = (Layers::read(&mut args)?, RawCursors::read(&mut args)?);
    let sequences = Sequences::read(&mut args)?;
    let (l2norm, tiled) = (args.number("l2norm")?, args.flag("head_map")?);
    let form = layers.memory.form(l2norm, head_map(tiled))?;
    let pool = sequences.of(layers.memory.pool(cursors.cursors()?)?)?;
    let batch = sequences.count(None, &cursors, &pool)?;
    let call = ReplayFold::new(form, batch, pool, layers.all());
    args.submit(py, &call, Launch::default())
}

/// True states stored elsewhere; the schema is `materialise` in `gdn/_schemas.py`.
#[pyfunction]
#[pyo3(signature = (*args))]
pub fn materialise(py: Python, args: &Bound<PyTuple>) -> PyResult<()> {
    let mut args = Arguments::new(args);
    let (layers, cursors) = (Layers::read(&mut args)?, RawCursors::read(&mut args)?);
    let sequences = Sequences::read(&mut args)?;
    let targets = args.list("targets")?;
    let (target_slots, records) = (args.optional("target_slots")?, args.optional("count")?);
    let (l2norm, tiled) = (args.number("l2norm")?, args.flag("head_map")?);
    let (form, dims) = (layers.memory.form(l2norm, head_map(tiled))?, layers.memory.dims()?);
    let first = targets.first().unwrap_or(&layers.memory.state);
    if !targets.is_empty() && targets.len() != layers.list.len() {
        return Err(argument(
            "targets",
            format!("there are {} for {} layers", targets.len(), layers.list.len()),
        ));
    }
    for (at, (target, layer)) in targets.iter().zip(&layers.list).enumerate() {
        if !target.lies_as(first) || target.address() != layer.target {
            return Err(argument("targets", format!("that of layer {at} is not what the table was made of")));
        }
    }
    let pool = sequences.of(layers.memory.pool(cursors.cursors()?)?)?;
    let batch = sequences.count(target_slots.as_ref(), &cursors, &pool)?;
    let mut call = Materialise::new(form, batch, pool, layers.all(), dims.pool(first)?);
    call.target_slots = table(target_slots.as_ref())?;
    call.count = table(records.as_ref())?;
    args.submit(py, &call, Launch::default())
}
