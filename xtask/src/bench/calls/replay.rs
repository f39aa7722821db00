//! Calls with rings of records: steps, and what is done for all layers at once.

use super::super::ops::{LAYERS, LIVE, Op, Spec};
use super::{Calls, Memory, NORMALS};
use anyhow::Result;
use gdn_host::{
    Cursors, DType, Family, Materialise, Operation, RecordForm, ReplayCommit, ReplayDecode, ReplayLayer,
    ReplayLayers, ReplayPool, ReplayVerify, Rings, Rows, StatePool, Table, Tensor,
};

/// Log decays of records, rings of so many elements.
fn decays(memory: &mut Memory, batch: u32, width: u64) -> Result<Rows> {
    let len = (u64::from(batch) * width) as usize;
    let some: Vec<f32> = (0..len.min(NORMALS)).map(|_| -0.1 * memory.noise.uniform()).collect();
    let decays: Vec<f32> = some.iter().copied().cycle().take(len).collect();
    memory.rows(&decays, DType::F32, width)
}

/// Steps of decode or verification, each on states and rings of its own.
pub(super) fn steps(memory: &mut Memory, spec: &Spec, launches: usize) -> Result<Calls> {
    let Spec { shape, batch, tokens, state, io, .. } = *spec;
    let (inputs, slots) = (memory.inputs(spec)?, memory.shuffled(batch)?);
    let total = u64::from(batch) * u64::from(tokens);
    let out = memory.normal(total, shape.value_elements(), io)?;
    // Windows are as full as in the steady state of a server: staggered over the sequences.
    let is_decode = !spec.op.has_several_tokens();
    let every_third = |count| (0..count).map(|i| 3 * i).collect::<Vec<u32>>();
    let (most, records, levels) = match inputs.family {
        _ if is_decode => (LIVE - 1, LIVE, (0..LIVE).collect()),
        // All have as many records as drafts, and room for no more.
        _ if spec.op.folds_each() => (tokens, 2 * tokens, vec![tokens]),
        Family::Gdn => (LIVE, LIVE + tokens, every_third(6)),
        // Of those that a ring of KDA may have, drafts take some.
        Family::Kda => (LIVE - tokens, LIVE, every_third(LIVE.saturating_sub(2 * tokens) / 3 + 2)),
    };
    let live = memory.staggered(batch, levels)?;
    let is_tree = spec.op == Op::ReplayVerifyTree;
    let parent = if is_tree { Some(binary_trees(memory, batch, tokens)?) } else { None };
    let widths = Rings::widths(&shape, inputs.family, records);
    let pools = memory.states(state, spec.state_bytes(), launches)?;
    memory.pools.clone_from(&pools);
    memory.slots = Some(slots);
    let bytes = |width: u64, dtype: DType| u64::from(batch) * width * dtype.size() as u64;
    let keys = memory.states(io, bytes(widths[0], io), launches)?;
    let corrections = memory.states(DType::F32, bytes(widths[1], DType::F32), launches)?;
    let mut call = |i: usize| -> Result<Box<dyn Operation>> {
        let rows = |tensor, stride| Rows { tensor, stride };
        let g = decays(memory, batch, widths[2])?;
        let rings = Rings::new(records, rows(keys[i], widths[0]), rows(corrections[i], widths[1]), g);
        let pitch = shape.state_elements();
        let state = StatePool { tensor: pools[i], slots: batch, pitch, layout: spec.layout };
        let pool =
            ReplayPool::new(state, rings, Cursors::by_sequence(live)).with_slots(slots).with_most(most);
        Ok(match is_decode {
            true => Box::new(ReplayDecode::new(inputs, batch, pool, out)),
            false => {
                let verify = ReplayVerify::new(inputs, batch, tokens, pool, out);
                Box::new(parent.map_or(verify, |parent| verify.with_parent(parent)))
            }
        })
    };
    (0..launches).map(&mut call).collect()
}

/// The parents of drafts that are trees, in which two follow each draft.
fn binary_trees(memory: &mut Memory, batch: u32, tokens: u32) -> Result<Table> {
    let parents = (0..batch).flat_map(|_| (0..tokens).map(|draft| draft.saturating_sub(1) / 2));
    let parents = memory.table(parents)?;
    Ok(Table::i32(parents.address, batch.into()).with_columns(tokens.into()))
}

/// The same call for all layers again and again: their memory together is several times any L2.
pub(super) fn all_layers(memory: &mut Memory, spec: &Spec, launches: usize) -> Result<Calls> {
    let Spec { shape, batch, tokens, state, io, .. } = *spec;
    let is_commit = spec.op == Op::ReplayCommit;
    let (form, records) = (RecordForm::new(shape, Family::Gdn), LIVE + tokens);
    let (slots, live) = (memory.shuffled(batch)?, memory.staggered(batch, (0..LIVE).collect())?);
    let widths = Rings::widths(&shape, Family::Gdn, records);
    let bytes = |width: u64, dtype: DType| u64::from(batch) * width * dtype.size() as u64;
    let decays = (0..LAYERS).map(|_| decays(memory, batch, widths[2])).collect::<Result<Vec<_>>>()?;
    let mut tensors = |width, dtype, count| memory.states(dtype, bytes(width, dtype), count);
    let layers = LAYERS as usize;
    let (keys, corrections) = (tensors(widths[0], io, layers)?, tensors(widths[1], DType::F32, layers)?);
    // Of all layers, one behind the other. A commit touches no state: its layers share one, and its roof has memory of its own.
    let pitch = shape.state_elements();
    let layer_bytes = if is_commit { 0 } else { spec.state_bytes() };
    // The roof of a materialisation reads from the states, and past them as many bytes as records have.
    let states =
        memory.states(state, if is_commit { spec.state_bytes() } else { spec.moved_bytes() / 2 }, 1)?[0];
    let half = memory.states(DType::F32, spec.moved_bytes() / 2, if is_commit { 2 } else { 1 })?;
    memory.copied = Some(if is_commit { [half[0], half[1]] } else { [states, half[0]] });
    let of_layer = |all: &Tensor, layer: usize| all.address + layer as u64 * layer_bytes;
    let rows = |tensor, stride| Rows { tensor, stride };
    let pool_of = |layer: usize| {
        let len = u64::from(batch) * pitch;
        let tensor = Tensor { address: of_layer(&states, layer), len, ..states };
        let state = StatePool { tensor, slots: batch, pitch, layout: spec.layout };
        let (k, d) = (rows(keys[layer], widths[0]), rows(corrections[layer], widths[1]));
        let rings = Rings::new(records, k, d, decays[layer]);
        ReplayPool::new(state, rings, Cursors::by_sequence(live)).with_slots(slots).with_most(LIVE)
    };
    let list: Vec<ReplayLayer> = (0..layers)
        .map(|layer| {
            let own = ReplayLayer::new(&pool_of(layer));
            if is_commit { own } else { own.with_target(of_layer(&half[0], layer)) }
        })
        .collect();
    let pool = pool_of(0);
    let table = memory.bytes(&list.iter().flat_map(ReplayLayer::row).collect::<Vec<_>>())?;
    // Calls borrow their list, and are kept until the program ends.
    let layers = ReplayLayers { list: list.leak(), table };
    if is_commit {
        // The first draft is rejected, the others move down.
        let accepted = memory.table((0..batch).map(|_| tokens.saturating_sub(1)))?;
        let path = memory.table((0..batch).flat_map(|_| (1..=tokens).map(|draft| draft % tokens)))?;
        let path = Table::i32(path.address, batch.into()).with_columns(tokens.into());
        let commit = ReplayCommit::new(form, batch, tokens, pool, layers, accepted, path);
        return Ok((0..launches).map(|_| Box::new(commit) as Box<dyn Operation>).collect());
    }
    let tensor = Tensor { address: layers.list[0].target, ..pool.state.tensor };
    let materialise = Materialise::new(form, batch, pool, layers, StatePool { tensor, ..pool.state });
    Ok((0..launches).map(|_| Box::new(materialise) as Box<dyn Operation>).collect())
}
