//! What is done with rings for all layers at once: folds, copies of true states, commits of paths, cursors.

use super::replay::{FAMILIES, decode, drafts};
use crate::compare::{Tolerance, rel_l2, widen};
use crate::device::{Device, POISON, place_layers};
use crate::problem::{Source, StartFlags};
use crate::replay::{Call, Placed, ReplayProblem};
use crate::strided::decode_values;
use anyhow::{Context as _, Result, bail, ensure};
use gdn_host::{
    DType, Family, Materialise, Operation, RecordForm, ReplayAdvance, ReplayCommit, ReplayFold, ReplayLayer,
    ReplayLayers, StatePool, Table, Tensor, Tile,
};

/// A model's layers: problems with one set of cursors, and their memory.
struct Model {
    layers: Vec<ReplayProblem>,
    placed: Vec<Placed>,
}

impl Model {
    /// Three layers like this one, with other values.
    fn of(p: &ReplayProblem, device: &mut dyn Device) -> Result<Model> {
        device.reset();
        let layers: Vec<_> = (0..3)
            .map(|layer| {
                let mut p = p.clone();
                p.problem.fill_pool_values(900 + layer);
                p.rings = crate::replay::RingData::random(&p.problem, p.rings.records, 910 + layer);
                p.spoil_stale();
                p
            })
            .collect();
        let placed = layers.iter().map(|p| p.place(device)).collect::<Result<_>>()?;
        Ok(Model { layers, placed })
    }

    fn list(&self) -> Vec<ReplayLayer> {
        self.placed.iter().map(|placed| ReplayLayer::new(placed.pool())).collect()
    }

    fn form(&self) -> RecordForm {
        match &self.placed[0].call {
            Call::Decode(call) => RecordForm::of(&call.inputs),
            Call::Verify(call) => RecordForm::of(&call.inputs),
        }
    }

    fn batch(&self) -> u32 {
        self.layers[0].problem.tokens.batch() as u32
    }

    /// What memory holds now, layer by layer.
    fn now(&self, device: &dyn Device) -> Result<Vec<ReplayProblem>> {
        let read = |(p, placed): (&ReplayProblem, &Placed)| {
            let mut now = p.clone();
            now.take(&p.collect(device, placed)?);
            Ok(now)
        };
        self.layers.iter().zip(&self.placed).map(read).collect()
    }
}

/// What a problem's memory is, bit by bit: checkpoints and records.
fn bits(p: &ReplayProblem) -> [Vec<u32>; 4] {
    [&p.problem.pool.data, &p.rings.k.data, &p.rings.d.data, &p.rings.g.data]
        .map(|values| values.iter().map(|x| x.to_bits()).collect())
}

const WINDOWS: [(i32, i32); 5] = [(4, 3), (0, 0), (2, 5), (1, 1), (0, 9)];

/// Rows, slots and flags of every kind: the last row's window is none, the last but one has no slot.
fn problem(family: Family, state: DType) -> ReplayProblem {
    let mut p = decode(family, state, 5, 5, 740);
    p.problem.fill_pool(7, 741);
    p.rings = crate::replay::RingData::random(&p.problem, 5, 742);
    p.problem.source = Source::Slots(vec![6, 2, 0, -1, 3]);
    p.with_windows(&WINDOWS)
}

/// Every layer's true states become its checkpoints, those of the sequences that are named; nothing else is touched.
pub fn replay_fold_stores_true_states_of_all_layers(device: &mut dyn Device) -> Result<()> {
    for (family, state) in
        FAMILIES.into_iter().flat_map(|f| [DType::F32, DType::Bf16, DType::F16].map(|t| (f, t)))
    {
        for force in [None, Some(vec![1, 0, 255, 1, 1])] {
            let mut p = problem(family, state);
            p.force = force.clone();
            let model = Model::of(&p, device)?;
            let list = model.list();
            let layers = ReplayLayers { list: &list, table: place_layers(device, &list)? };
            let call = ReplayFold::new(model.form(), model.batch(), *model.placed[0].pool(), layers);
            device.run(&call, Tile::Auto)?;
            let allowed = Tolerance::oracle(DType::F32, state).state;
            for (layer, (before, after)) in model.layers.iter().zip(model.now(device)?).enumerate() {
                let mut want = before.clone();
                for n in 0..5 {
                    let Some((slot, _)) = before.window(n) else { continue };
                    if force.as_ref().is_some_and(|force| force[n] == 0) {
                        continue;
                    }
                    let elements = before.problem.elements();
                    let got = &after.problem.pool.data[slot * elements..(slot + 1) * elements];
                    let state = before.true_state_of(n).context("padding")?;
                    let error = rel_l2(&widen(got), &state);
                    ensure!(error <= allowed, "layer {layer}, sequence {n}: the fold is off by {error:.1e}");
                    want.problem.pool.data[slot * elements..(slot + 1) * elements].copy_from_slice(got);
                }
                ensure!(bits(&after) == bits(&want), "layer {layer}: something else was touched");
            }
        }
    }
    Ok(())
}

/// True states behind so many records, in other slots of another pool; checkpoints and rings stay.
pub fn materialise_stores_true_states_elsewhere(device: &mut dyn Device) -> Result<()> {
    const COUNTS: [i32; 5] = [2, 0, 5, 1, 1];
    const TARGETS: [i32; 5] = [3, 1, 0, 2, 4];
    for (family, state) in FAMILIES.into_iter().flat_map(|f| [DType::F32, DType::Bf16].map(|t| (f, t))) {
        let model = Model::of(&problem(family, state), device)?;
        let elements = model.layers[0].problem.elements();
        let len = 5 * elements as u64;
        let mut list = model.list();
        for layer in &mut list {
            *layer = layer.with_target(device.alloc(len * state.size() as u64)?);
        }
        let layers = ReplayLayers { list: &list, table: place_layers(device, &list)? };
        let pool = *model.placed[0].pool();
        let tensor = Tensor { address: 0, dtype: state, len };
        let target = StatePool { tensor, slots: 5, pitch: elements as u64, layout: pool.state.layout };
        let tables = model.layers[0].problem.tables;
        let call = Materialise::new(model.form(), model.batch(), pool, layers, target)
            .with_target_slots(tables.indices(device, &TARGETS, 1)?)
            .with_count(tables.indices(device, &COUNTS, 1)?);
        device.run(&call, Tile::Auto)?;
        for ((layer, before), after) in list.iter().zip(&model.layers).zip(model.now(device)?) {
            ensure!(bits(&after) == bits(before), "a checkpoint or a record was touched");
            let bytes = device.read(layer.target, len * state.size() as u64)?;
            for (n, target) in TARGETS.into_iter().enumerate() {
                let place = &bytes[target as usize * elements * state.size()..][..elements * state.size()];
                let Some(_) = before.window(n) else {
                    ensure!(place.iter().all(|byte| *byte == POISON), "padding was stored");
                    continue;
                };
                let mut cut = before.clone();
                cut.len[n] = COUNTS[n];
                let want = cut.true_state_of(n).context("padding")?;
                let error = rel_l2(&widen(&decode_values(place, state)), &want);
                let allowed = Tolerance::oracle(DType::F32, state).state;
                ensure!(error <= allowed, "sequence {n} is off by {error:.1e}");
            }
        }
        // A number past the live records keeps nothing.
        let before = device.read(list[0].target, len * state.size() as u64)?;
        let count = tables.indices(device, &[4, 1, 6, 0, 0], 1)?;
        device.run(&call.with_count(count), Tile::Auto)?;
        ensure!(
            device.read(list[0].target, len * state.size() as u64)? == before,
            "too many records were applied"
        );
    }
    Ok(())
}

/// A fold of one layer gives the bits of a decode's that folds with a token that changes nothing, and of every tile.
pub fn replay_fold_has_the_same_bits_for_every_tile(device: &mut dyn Device) -> Result<()> {
    for family in FAMILIES {
        let mut first = None;
        for warps in [1, 2, 4] {
            let model = Model::of(&problem(family, DType::F32), device)?;
            let list = model.list();
            let layers = ReplayLayers { list: &list, table: place_layers(device, &list)? };
            let call = ReplayFold::new(model.form(), model.batch(), *model.placed[0].pool(), layers);
            device.run(&call, Tile::Exact { rows: 8, warps })?;
            let now: Vec<_> = model.now(device)?.iter().map(bits).collect();
            ensure!(*first.get_or_insert_with(|| now.clone()) == now, "{warps} warps give other bits");
        }
    }
    Ok(())
}

/// The cursors as memory holds them now.
fn cursors_now(p: &mut ReplayProblem, device: &dyn Device, placed: &Placed) -> Result<()> {
    let read = |table: &Table| -> Result<Vec<i32>> {
        let bytes = device.read(table.address, 4 * table.len)?;
        Ok(bytes.as_chunks().0.iter().map(|entry| i32::from_le_bytes(*entry)).collect())
    };
    let cursors = &placed.pool().cursors;
    p.len = read(&cursors.len)?;
    p.base = cursors.base.as_ref().map(read).transpose()?;
    Ok(())
}

/// Cursors behind decodes: one record more, or none where it folded; by sequence and by slot, padding as it was.
pub fn replay_cursors_behind_a_decode(device: &mut dyn Device) -> Result<()> {
    for by_slot in [false, true] {
        let mut p = problem(Family::Gdn, DType::F32);
        p.problem.start = StartFlags::Reset(vec![0, 1, 0, 1, 0]);
        p.force = Some(vec![0, 0, 0, 0, 0]);
        if by_slot {
            (p.base, p.len, p.by_slot) = (Some(vec![2, 9, 0, 0, 9, 9, 4]), vec![5, 9, 0, 9, 9, 9, 3], true);
        }
        for forced in [0, 1] {
            p.force = Some(vec![forced; 5]);
            device.reset();
            let placed = p.place(device)?;
            let Call::Decode(decode) = placed.call else { bail!("it is decode") };
            device.run_all(&[&decode, &ReplayAdvance::behind_decode(&decode)], Tile::Auto.into())?;
            let mut want = p.clone();
            want.advance(&p.collect(device, &placed)?);
            let mut got = want.clone();
            cursors_now(&mut got, device, &placed)?;
            ensure!((&got.len, &got.base) == (&want.len, &want.base), "{:?}, {:?}", got.len, got.base);
        }
    }
    Ok(())
}

/// Behind verified drafts the next true state is that of the accepted path: chains and trees, all, some and none accepted, folded or
/// not, wherever windows begin; in all layers.
pub fn replay_commit_leaves_the_accepted_path(device: &mut dyn Device) -> Result<()> {
    // Two branches behind token 0, and one that starts anew.
    const PARENTS: [i32; 5] = [-1, 0, 0, 2, -1];
    const PATHS: [&[i32]; 4] = [&[0, 2, 3], &[4], &[], &[0, 1]];
    const WINDOWS: [(i32, i32); 4] = [(9, 4), (3, 6), (11, 2), (0, 5)];
    for (family, is_tree) in FAMILIES.into_iter().flat_map(|f| [(f, true), (f, false)]) {
        let mut p = drafts(family, DType::F32, 4, 5, 12, 743);
        p.problem.source = Source::Slots(vec![3, 1, 0, 2]);
        p.parent = is_tree.then(|| PARENTS.repeat(4));
        p.force = Some(vec![1, 0, 0, 0]);
        p.problem.start = StartFlags::Reset(vec![0, 0, 0, 1]);
        let model = Model::of(&p.with_windows(&WINDOWS), device)?;
        let chain: [&[i32]; 4] = [&[0, 1, 2], &[0], &[], &[0, 1, 2, 3, 4]];
        let paths = if is_tree { PATHS } else { chain };
        let tables = model.layers[0].problem.tables;
        // A number that is none accepts nothing.
        let accepted = paths.map(|path| if path.is_empty() { 99 } else { path.len() as i32 });
        let accepted = tables.indices(device, &accepted, 1)?;
        let padded = |path: &&[i32]| (0..5).map(|i| path.get(i).copied().unwrap_or(77)).collect::<Vec<_>>();
        let path = tables.indices(device, &paths.iter().flat_map(padded).collect::<Vec<_>>(), 5)?;
        let list = model.list();
        let layers = ReplayLayers { list: &list, table: place_layers(device, &list)? };
        let calls: Vec<&dyn Operation> = model.placed.iter().map(|placed| placed.call.operation()).collect();
        device.run_all(&calls, Tile::Auto.into())?;
        let Call::Verify(verify) = model.placed[0].call else { bail!("it is verification") };
        let commit = ReplayCommit::behind(&verify, layers, accepted, path);
        let advance = ReplayAdvance::behind_verify(&verify, accepted);
        match is_tree {
            true => device.run_all(&[&commit, &advance], Tile::Auto.into())?,
            false => device.run(&advance, Tile::Auto)?,
        }
        for (layer, (before, mut after)) in model.layers.iter().zip(model.now(device)?).enumerate() {
            cursors_now(&mut after, device, &model.placed[0])?;
            after.problem.start = StartFlags::None;
            let oracle = before.flat().oracle();
            for (n, path) in paths.iter().enumerate() {
                let start = before.true_state_of(n).context("padding")?;
                let fresh = n == 3;
                let want = match path.last() {
                    Some(&t) => {
                        let place = crate::problem::Place::Buffer(n * 5 + t as usize);
                        let found = oracle.states.iter().find(|(at, _)| *at == place);
                        found.map(|(_, state)| state.clone()).context("the oracle has no such state")?
                    }
                    None if fresh => vec![0.0; start.len()],
                    None => start,
                };
                let got = after.true_state_of(n).context("the window is none")?;
                let error = rel_l2(&got, &want);
                ensure!(error <= 2e-6, "{family:?}, layer {layer}, sequence {n}: off by {error:.1e}");
                let (_, window) = after.window(n).context("the window is none")?;
                let kept = if before.folds(n) { 0 } else { before.window(n).context("padding")?.1.len };
                ensure!(window.len == kept + path.len(), "sequence {n} has {} records", window.len);
            }
        }
    }
    Ok(())
}
