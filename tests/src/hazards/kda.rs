//! Kimi delta attention: a decay for each element along K.

use crate::device::Device;
use crate::problem::{Decay, Problem, Tokens};
use crate::random::{Noise, Plain};
use crate::strided::Strided;
use anyhow::{Context as _, Result, ensure};
use gdn_host::{DType, Family, HeadMap, HeadShape, Layout, Tile};

const SHAPE: HeadShape = HeadShape { h: 2, hv: 4, k: 64, v: 64 };
const TYPES: [DType; 3] = [DType::F32, DType::Bf16, DType::F16];

fn kda(shape: HeadShape, tokens: Tokens, state: DType, seed: u64) -> Problem {
    Plain { family: Family::Kda, ..Plain::new(shape, tokens, state, seed) }.problem()
}

/// Decode and a draft of two tokens.
fn both(shape: HeadShape, state: DType, seed: u64) -> [Problem; 2] {
    let tokens = [Tokens::One { batch: 2 }, Tokens::Each { batch: 1, tokens: 2 }];
    tokens.map(|tokens| kda(shape, tokens, state, seed))
}

/// The lower-bound gate with the tables of a softplus gate.
fn lower_bound(decay: &Decay, bound: f32) -> Decay {
    match decay.clone() {
        Decay::Softplus { a_log, dt_bias, .. } => Decay::LowerBound { a_log, dt_bias, bound },
        other => other,
    }
}

/// Softplus with either threshold, lower bound, given by value head and by key head: each is what the oracle says,
/// and no two are the same.
pub fn every_gate_of_kda(device: &mut dyn Device) -> Result<()> {
    let mut noise = Noise::new(181);
    for p in both(SHAPE, DType::F32, 182) {
        let with = |decay: Decay| Problem { decay, ..p.clone() };
        let Decay::Softplus { a_log, dt_bias, .. } = p.decay.clone() else { continue };
        let mut gates = vec![
            p.clone(),
            with(Decay::Softplus { a_log, dt_bias, beta: 1.0, threshold: 0.5 }),
            with(lower_bound(&p.decay, -5.0)),
            with(lower_bound(&p.decay, -1.0)),
        ];
        for per_key_head in [false, true] {
            let mut given = p.clone();
            given.give_decays(DType::F32, per_key_head, &mut noise);
            gates.push(given);
        }
        let mut states = Vec::new();
        for gate in gates {
            let solution = gate.run_and_check(device, Tile::Auto).with_context(|| format!("{gate:?}"))?;
            ensure!(!states.contains(&solution.state), "{:?} makes no difference", gate.decay);
            states.push(solution.state);
        }
    }
    Ok(())
}

/// The lower-bound gate exists in GDN too.
pub fn lower_bound_gate_of_gdn(device: &mut dyn Device) -> Result<()> {
    for tokens in [Tokens::One { batch: 2 }, Tokens::Each { batch: 1, tokens: 3 }] {
        let mut p = Plain::new(SHAPE, tokens, DType::F32, 183).problem();
        let softplus = p.run_and_check(device, Tile::Auto)?;
        p.decay = lower_bound(&p.decay, -5.0);
        ensure!(p.run_and_check(device, Tile::Auto)?.state != softplus.state, "the gate makes no difference");
    }
    Ok(())
}

/// A decay by key head is that of each of its value heads, in either head map.
pub fn decay_by_key_head(device: &mut dyn Device) -> Result<()> {
    for heads in [HeadMap::Grouped, HeadMap::Tiled] {
        for mut p in both(HeadShape { h: 2, hv: 6, ..SHAPE }, DType::F32, 184) {
            p.heads = heads;
            p.give_decays(DType::Bf16, true, &mut Noise::new(185));
            let by_key_head = p.run_and_check(device, Tile::Auto)?;
            // The same decays by value head.
            let k = p.shape.k as usize;
            let key_head = |head: usize| if heads == HeadMap::Grouped { head / 3 } else { head % 2 };
            let row = |row: &[f32]| -> Vec<f32> {
                (0..6).flat_map(|head| row[key_head(head) * k..][..k].to_vec()).collect()
            };
            let decays = p.a.data.chunks(2 * k).flat_map(row).collect();
            (p.a, p.decay) = (Strided::dense(DType::Bf16, 6 * k, decays), Decay::Given);
            let same = p.run_and_check(device, Tile::Auto)? == by_key_head;
            ensure!(same, "{heads:?}: decays by key head give other bits");
        }
    }
    Ok(())
}

/// As many key heads as value heads, in numbers that are no powers of two: Kimi-K3 has 96, and 12 or 6 a rank.
pub fn heads_of_kimi_on_a_rank(device: &mut dyn Device) -> Result<()> {
    for heads in [1, 3, 6, 12] {
        for p in both(HeadShape { h: heads, hv: heads, ..SHAPE }, DType::F32, 186) {
            p.run_and_check(device, Tile::Auto).with_context(|| format!("{heads} heads"))?;
        }
    }
    Ok(())
}

/// Every type of the gate input with every type of the bias, for states whose lanes hold K in either way.
pub fn every_type_of_gate_input_and_bias(device: &mut dyn Device) -> Result<()> {
    let pairs = TYPES.into_iter().flat_map(|a| TYPES.map(|bias| (a, bias)));
    for (a_type, bias_type) in pairs {
        for (state, k) in [(DType::F32, 64), (DType::Bf16, 64), (DType::F32, 128), (DType::F16, 128)] {
            let mut p =
                kda(HeadShape { h: 1, hv: 2, k, v: 64 }, Tokens::Each { batch: 1, tokens: 2 }, state, 187);
            p.a = p.a.retyped(a_type);
            p.b = p.b.retyped(bias_type);
            if let Decay::Softplus { a_log, dt_bias, .. } = &mut p.decay {
                (*a_log, *dt_bias) = (a_log.retyped(a_type), dt_bias.retyped(bias_type));
            }
            let what = || format!("a {}, dt_bias {}, {p:?}", a_type.name(), bias_type.name());
            p.run_and_check(device, Tile::Auto).with_context(what)?;
        }
    }
    Ok(())
}

/// Gate rows with gaps, at an offset.
pub fn gate_rows_of_kda_with_gaps(device: &mut dyn Device) -> Result<()> {
    for layout in [Layout::Vk, Layout::Kv] {
        for mut p in both(SHAPE, DType::F32, 188) {
            p.pool.layout = layout;
            (p.a.stride, p.a.offset) = (p.a.width + 24, 8);
            p.run_and_check(device, Tile::Auto)?;
        }
    }
    Ok(())
}

/// Decays so strong that a column is forgotten beside one that is kept, in one row.
pub fn columns_forgotten_beside_columns_kept(device: &mut dyn Device) -> Result<()> {
    for mut p in both(SHAPE, DType::F32, 189) {
        p.give_decays(DType::F32, false, &mut Noise::new(190));
        let ends = [0.0, -100.0, -1e-7, -30.0, -1e4, -87.0, -0.5];
        p.a.data.iter_mut().enumerate().for_each(|(i, g)| *g = ends[i % 7]);
        p.run_and_check(device, Tile::Auto)?;
    }
    Ok(())
}
