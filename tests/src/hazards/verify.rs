//! Verification of drafts: T tokens are T decodes.

use crate::device::Device;
use crate::problem::{Intermediate, Out, Problem, Solution, Source, Target, Tokens};
use crate::random::{Plain, draft};
use crate::strided::Strided;
use anyhow::{Result, ensure};
use gdn_host::{DType, Family, HeadShape, Layout, Tile};

const SHAPE: HeadShape = HeadShape { h: 1, hv: 2, k: 64, v: 64 };
const BATCH: usize = 2;
const TOKENS: usize = 3;

/// Token `t` of every sequence of a draft, as a decode from a pool of these states.
fn decode(p: &Problem, t: usize, states: &[f32]) -> Problem {
    let pick = |x: &Strided| {
        let rows = (0..BATCH).map(|n| n * TOKENS + t);
        let data = rows.flat_map(|row| x.data[row * x.width..(row + 1) * x.width].to_vec()).collect();
        Strided { data, ..x.clone() }
    };
    let (q, k, v, a, b) = (pick(&p.q), pick(&p.k), pick(&p.v), pick(&p.a), pick(&p.b));
    let tokens = Tokens::One { batch: BATCH };
    let mut one = Problem { tokens, q, k, v, a, b, intermediate: None, round_state: false, ..p.clone() };
    one.pool.data = states.to_vec();
    one
}

/// Holds a draft against its decodes: outputs, the state after each token, and what is left in the pool.
fn check_decodes(p: &Problem, verified: &Solution, device: &mut dyn Device) -> Result<()> {
    let (width, elements) = (p.width(), p.elements());
    let mut pool = p.pool.data.clone();
    for t in 0..TOKENS {
        let decoded = decode(p, t, &pool).run_and_check(device, Tile::Auto)?;
        for n in 0..BATCH {
            let row = n * TOKENS + t;
            let same =
                decoded.out[n * width..(n + 1) * width] == verified.out[row * width..(row + 1) * width];
            ensure!(same, "token {t} of sequence {n} has another output than its decode; {p:?}");
            let state = &verified.intermediate[row * elements..(row + 1) * elements];
            ensure!(
                decoded.state[n * elements..(n + 1) * elements] == *state,
                "token {t}: another state; {p:?}"
            );
        }
        pool = decoded.state.to_vec();
    }
    ensure!(pool == verified.state[..], "the pool is not what decodes leave; {p:?}");
    Ok(())
}

fn t_tokens_are_t_decodes(family: Family, state: DType, device: &mut dyn Device) -> Result<()> {
    for (layout, (k, v)) in [(Layout::Vk, (64, 64)), (Layout::Kv, (64, 64)), (Layout::Vk, (128, 64))] {
        let tokens = Tokens::Each { batch: BATCH, tokens: TOKENS };
        let plain = Plain::new(HeadShape { k, v, ..SHAPE }, tokens, state, 131);
        let mut p = Plain { family, layout, ..plain }.problem();
        p.keep_each_state(TOKENS);
        p.round_state = state != DType::F32;
        let verified = p.run_and_check(device, Tile::Auto)?;
        check_decodes(&p, &verified, device)?;
    }
    Ok(())
}

/// GDN with an f32 state.
pub fn t_tokens_of_gdn_are_t_decodes(device: &mut dyn Device) -> Result<()> {
    t_tokens_are_t_decodes(Family::Gdn, DType::F32, device)
}

/// KDA with an f32 state.
pub fn t_tokens_of_kda_are_t_decodes(device: &mut dyn Device) -> Result<()> {
    t_tokens_are_t_decodes(Family::Kda, DType::F32, device)
}

/// 16-bit states, which a decode rounds: with `round_state`.
pub fn t_tokens_with_16_bit_states_are_t_decodes(device: &mut dyn Device) -> Result<()> {
    for state in [DType::Bf16, DType::F16] {
        t_tokens_are_t_decodes(Family::Gdn, state, device)?;
        t_tokens_are_t_decodes(Family::Kda, state, device)?;
    }
    Ok(())
}

/// Without `round_state` a 16-bit state stays f32 between tokens.
pub fn state_is_rounded_between_tokens_only_if_asked(device: &mut dyn Device) -> Result<()> {
    for state in [DType::Bf16, DType::F16] {
        let mut p = draft(SHAPE, 1, 6, state, 132);
        p.out = p.out.map(|out| Out { dtype: DType::F32, ..out });
        let exact = p.run_and_check(device, Tile::Auto)?;
        p.round_state = true;
        let rounded = p.run_and_check(device, Tile::Auto)?;
        let width = p.width();
        ensure!(exact.out[..width] == rounded.out[..width], "the first token was computed from other states");
        ensure!(exact.out[width..] != rounded.out[width..], "rounding the state made no difference");
        ensure!(p.check(&exact).is_err(), "the oracle does not tell rounded states from others");
    }
    Ok(())
}

/// vLLM's drafts: states by token, and the next draft starts behind the last token that was accepted. Whatever was
/// accepted, the outputs are those of one long draft.
pub fn draft_continues_where_the_last_one_was_accepted(device: &mut dyn Device) -> Result<()> {
    for accepted in 1..=TOKENS {
        // One sequence of 2 * TOKENS tokens, of which the second draft repeats what was not accepted.
        let mut whole = draft(SHAPE, 1, 2 * TOKENS, DType::F32, 133);
        whole.keep_each_state(2 * TOKENS);
        let expected = whole.run_and_check(device, Tile::Auto)?;
        let cut = |from: usize, pool: &[f32], last: i32| {
            let rows = |x: &Strided| {
                let data = x.data[from * x.width..(from + TOKENS) * x.width].to_vec();
                Strided { data, ..x.clone() }
            };
            let (q, k, v) = (rows(&whole.q), rows(&whole.k), rows(&whole.v));
            let (a, b) = (rows(&whole.a), rows(&whole.b));
            let mut p = Problem { q, k, v, a, b, intermediate: None, ..whole.clone() };
            p.tokens = Tokens::Each { batch: 1, tokens: TOKENS };
            p.fill_pool(TOKENS + 1, 134);
            p.pool.data[..pool.len()].copy_from_slice(pool);
            let slots = vec![3, 0, 2];
            p.source = Source::Accepted { slots: slots.clone(), width: TOKENS, accepted: vec![last] };
            p.target = Target::EachToken { slots, width: TOKENS };
            p
        };
        // The first draft starts from the slot of its first token.
        let mut first = cut(0, &[], 1);
        let elements = first.elements();
        first.pool.data[3 * elements..].copy_from_slice(&whole.pool.data);
        let first = first.run_and_check(device, Tile::Auto)?;
        ensure!(first.out[..] == expected.out[..TOKENS * whole.width()], "the first draft differs");
        let second = cut(accepted, &first.state, accepted as i32).run_and_check(device, Tile::Auto)?;
        let rows = accepted * whole.width()..(accepted + TOKENS) * whole.width();
        ensure!(second.out[..] == expected.out[rows], "the draft behind {accepted} accepted tokens differs");
    }
    Ok(())
}

/// SGLang's drafts: the pool is read only, and the buffer has what the accepted token left.
pub fn verification_leaves_the_pool_alone(device: &mut dyn Device) -> Result<()> {
    for state in [DType::F32, DType::Bf16, DType::F16] {
        let mut p = draft(SHAPE, BATCH, TOKENS, state, 135);
        p.target = Target::Nowhere;
        let pitch = TOKENS * p.elements();
        let row = Some(vec![1, 0]);
        p.intermediate = Some(Intermediate { dtype: None, rows: 2, steps: TOKENS, pitch, row, parent: None });
        let solution = p.run_and_check(device, Tile::Auto)?;
        ensure!(solution.state[..] == p.pool.data[..], "the pool was written");
    }
    Ok(())
}
