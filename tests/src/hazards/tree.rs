//! Drafts that are trees: a token starts from its parent's state, which the buffer holds.

use crate::device::Device;
use crate::problem::{Intermediate, Problem, Source, StartFlags, Target, Tokens};
use crate::random::{Plain, draft};
use crate::strided::Strided;
use anyhow::{Result, ensure};
use gdn_host::{DType, Family, HeadShape, Layout, Tile};

const SHAPE: HeadShape = HeadShape { h: 1, hv: 2, k: 64, v: 64 };
const TYPES: [DType; 3] = [DType::F32, DType::Bf16, DType::F16];

/// A draft for one sequence, of the family and layout named.
fn one(tokens: usize, family: Family, layout: Layout, state: DType, seed: u64) -> Problem {
    let tokens = Tokens::Each { batch: 1, tokens };
    Plain { family, layout, ..Plain::new(SHAPE, tokens, state, seed) }.problem()
}

/// The same call with some of its token rows only.
fn with_rows(p: &Problem, rows: &[usize]) -> Problem {
    let pick = |x: &Strided| {
        let data = rows.iter().flat_map(|row| x.data[row * x.width..(row + 1) * x.width].to_vec()).collect();
        Strided { data, ..x.clone() }
    };
    let (q, k, v, a, b) = (pick(&p.q), pick(&p.k), pick(&p.v), pick(&p.a), pick(&p.b));
    let tokens = Tokens::Each { batch: 1, tokens: rows.len() };
    Problem { tokens, q, k, v, a, b, intermediate: None, ..p.clone() }
}

/// A chain written as a tree is the chain, bit for bit; with a 16-bit state where the chain is rounded too.
pub fn tree_that_is_a_chain_gives_the_bits_of_the_chain(device: &mut dyn Device) -> Result<()> {
    for (family, layout, state) in
        TYPES.into_iter().flat_map(|t| [(Family::Gdn, Layout::Vk, t), (Family::Kda, Layout::Kv, t)])
    {
        let mut p = one(4, family, layout, state, 121);
        p.round_state = state != DType::F32;
        p.keep_each_state(4);
        let chain = p.run_and_check(device, Tile::Auto)?;
        p.make_tree(4, &[-1, 0, 1, 2]);
        let tree = p.run_and_check(device, Tile::Auto)?;
        ensure!(chain == tree, "the tree gives other bits; {p:?}");
        // Reading a parent back rounds as well as `round_state` does.
        p.round_state = false;
        let unrounded = p.run_and_check(device, Tile::Auto)?;
        ensure!(unrounded == tree, "the edges of the tree are not rounded; {p:?}");
    }
    Ok(())
}

/// Siblings, a grandchild of the first token, a branch taken up late: each token is the end of the chain of its
/// ancestors.
pub fn parents_that_skip(device: &mut dyn Device) -> Result<()> {
    let parents = [0, 0, 0, 1, 1, 0, 2, 3];
    let ancestors: [&[usize]; 8] =
        [&[0], &[0, 1], &[0, 2], &[0, 1, 3], &[0, 1, 4], &[0, 5], &[0, 2, 6], &[0, 1, 3, 7]];
    for (family, state) in TYPES.into_iter().flat_map(|t| [(Family::Gdn, t), (Family::Kda, t)]) {
        let mut p = one(8, family, Layout::Vk, state, 122);
        p.make_tree(8, &parents);
        let tree = p.run_and_check(device, Tile::Auto)?;
        for (t, path) in ancestors.iter().enumerate() {
            let mut chain = with_rows(&p, path);
            chain.round_state = true;
            let chain = chain.run(device, Tile::Auto)?;
            let (width, elements) = (p.width(), p.elements());
            let out = &tree.out[t * width..(t + 1) * width];
            ensure!(chain.out[(path.len() - 1) * width..] == *out, "token {t} has another output; {p:?}");
            let state = &tree.intermediate[t * elements..(t + 1) * elements];
            ensure!(chain.state[..] == *state, "token {t} has another state; {p:?}");
        }
    }
    Ok(())
}

/// Itself, a later token, a negative one: such a token is a child of what the sequence started from.
pub fn parent_out_of_range_starts_from_the_initial_state(device: &mut dyn Device) -> Result<()> {
    let parents = [7, 1, 0, -1, 5, i32::MAX, i32::MIN];
    for state in TYPES {
        let mut p = with_rows(&one(2, Family::Gdn, Layout::Vk, state, 123), &[0, 0, 1, 0, 0, 0, 0]);
        p.make_tree(7, &parents);
        for reset in [false, true] {
            p.start = if reset { StartFlags::Reset(vec![1]) } else { StartFlags::None };
            let s = p.run_and_check(device, Tile::Auto)?;
            let out = |t: usize| &s.out[t * p.width()..(t + 1) * p.width()];
            let state = |t: usize| &s.intermediate[t * p.elements()..(t + 1) * p.elements()];
            for t in [1, 3, 4, 5, 6] {
                ensure!(out(t) == out(0) && state(t) == state(0), "token {t} did not start anew");
            }
        }
    }
    Ok(())
}

/// The last state of a tree goes back to the slot that tokens of the same tree start from.
pub fn tree_updates_the_slot_that_it_starts_from(device: &mut dyn Device) -> Result<()> {
    let mut p = draft(SHAPE, 2, 4, DType::F32, 124);
    p.source = Source::Slots(vec![1, 0]);
    p.make_tree(4, &[0, 0, -1, 0, 0, -1, 1, -1]);
    p.run_and_check(device, Tile::Auto).map(drop)
}

/// Trees of different shapes side by side, one of them padding, one without a row of the buffer: it is a chain, and
/// nothing reads its parents.
pub fn trees_of_several_sequences(device: &mut dyn Device) -> Result<()> {
    for state in [DType::F32, DType::Bf16] {
        let mut p = draft(SHAPE, 4, 4, state, 125);
        p.fill_pool(5, 126);
        (p.source, p.target) = (Source::Slots(vec![4, -1, 2, 0]), Target::Nowhere);
        p.make_tree(4, &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, -1, 0, 2]);
        p.intermediate = p.intermediate.take().map(|i| Intermediate { row: Some(vec![3, 1, -1, 0]), ..i });
        ensure!(p.routes()[2].parents.is_none(), "a sequence without a row has parents");
        p.run_and_check(device, Tile::Auto)?;
    }
    Ok(())
}

/// Tokens past the steps of the buffer have no parents either, and follow the one before.
pub fn tokens_past_the_steps_of_a_tree(device: &mut dyn Device) -> Result<()> {
    for state in [DType::F32, DType::F16] {
        let mut p = draft(SHAPE, 2, 5, state, 127);
        p.make_tree(3, &[0, 0, 0, 0, -1, 0]);
        p.run_and_check(device, Tile::Auto)?;
    }
    Ok(())
}
