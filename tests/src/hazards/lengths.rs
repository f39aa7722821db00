//! How many tokens sequences have: none, one, sixteen, and ranges that are nonsense.

use crate::device::Device;
use crate::problem::{Out, Problem, Source, StartFlags, Target, Tokens};
use crate::random::{Plain, draft};
use anyhow::{Context as _, Result, ensure};
use gdn_host::{DType, Family, HeadShape, Layout, Tile};

const SHAPE: HeadShape = HeadShape { h: 1, hv: 2, k: 64, v: 64 };

fn packed(lengths: &[usize], state: DType, seed: u64) -> Problem {
    Plain::new(SHAPE, Tokens::packed(lengths, false), state, seed).problem()
}

/// A draft of no tokens between two others: its slot stays as it is, wherever states go.
pub fn empty_sequence_touches_no_slot(device: &mut dyn Device) -> Result<()> {
    let mut p = packed(&[2, 0, 1], DType::F32, 101);
    p.fill_pool(6, 102);
    for target in [Target::InPlace, Target::Slots(vec![3, 4, 5])] {
        p.target = target;
        ensure!(p.routes()[1].stores.is_empty(), "the empty sequence is to write {:?}", p.routes()[1]);
        p.run_and_check(device, Tile::Auto)?;
    }
    let slots: Vec<i32> = (0..6).collect();
    p.source = Source::Accepted { slots: slots.clone(), width: 2, accepted: vec![2, 1, 2] };
    p.target = Target::EachToken { slots, width: 2 };
    p.keep_each_state(2);
    p.run_and_check(device, Tile::Auto).map(drop)
}

/// The final state of a sequence without tokens is its initial one, bit for bit, or zeros if it starts from zeros.
pub fn empty_sequence_ends_where_it_started(device: &mut dyn Device) -> Result<()> {
    for state in [DType::F32, DType::Bf16, DType::F16] {
        let mut p = packed(&[0, 2, 0], state, 103);
        p.keep_final_states();
        p.start = StartFlags::Reset(vec![0, 0, 1]);
        let elements = p.elements();
        for source in [Source::Sequences, Source::Slots(vec![2, 1, 0])] {
            p.source = source;
            let from = if p.source == Source::Sequences { 0 } else { 2 };
            let s = p.run_and_check(device, Tile::Auto)?;
            let initial = &p.pool.data[from * elements..][..elements];
            ensure!(s.final_state[..elements] == *initial, "the initial state was not handed through");
            ensure!(s.final_state[2 * elements..].iter().all(|x| x.to_bits() == 0), "no zeros after a reset");
        }
    }
    let mut p = packed(&[0, 2, 0], DType::F32, 104);
    p.start_from_zeros();
    p.run_and_check(device, Tile::Auto).map(drop)
}

/// No token at all: states in slots stay, final states are the initial ones.
pub fn all_sequences_empty(device: &mut dyn Device) -> Result<()> {
    for tokens in [Tokens::packed(&[0, 0, 0], true), Tokens::Each { batch: 3, tokens: 0 }] {
        let mut p = Plain::new(SHAPE, tokens, DType::Bf16, 105).problem();
        let solution = p.run_and_check(device, Tile::Auto)?;
        ensure!(solution.out.is_empty(), "an output without a token");
        p.keep_final_states();
        let solution = p.run_and_check(device, Tile::Auto)?;
        ensure!(solution.final_state == solution.state, "final states are not the initial ones");
        p.start_from_zeros();
        p.run_and_check(device, Tile::Auto)?;
    }
    Ok(())
}

/// N = 0.
pub fn no_sequence_and_no_token(device: &mut dyn Device) -> Result<()> {
    for tokens in [Tokens::packed(&[], false), Tokens::Each { batch: 0, tokens: 3 }] {
        let p = Plain::new(SHAPE, tokens, DType::F32, 106).problem();
        let solution = p.run_and_check(device, Tile::Auto)?;
        ensure!(solution.out.is_empty(), "an output without a sequence");
    }
    Ok(())
}

/// The two types of the table.
pub fn lengths_as_i32_and_as_i64_agree(device: &mut dyn Device) -> Result<()> {
    let mut p = packed(&[1, 0, 4, 2], DType::F32, 107);
    let narrow = p.run_and_check(device, Tile::Auto)?;
    p.tokens = Tokens::packed(&[1, 0, 4, 2], true);
    ensure!(p.run_and_check(device, Tile::Auto)? == narrow, "the types of cu_seqlens give other bits");
    // The same length each is one more way to say it.
    let each = draft(SHAPE, 3, 2, DType::F32, 108);
    let p = Problem { tokens: Tokens::packed(&[2, 2, 2], false), ..each.clone() };
    let same = p.run_and_check(device, Tile::Auto)? == each.run_and_check(device, Tile::Auto)?;
    ensure!(same, "packed sequences of one length give other bits");
    Ok(())
}

/// A range that does not lie in the inputs is a caller's error; it must not reach memory.
pub fn range_past_the_inputs_is_empty(device: &mut dyn Device) -> Result<()> {
    const MIN: i64 = i32::MIN as i64;
    const MAX: i64 = i32::MAX as i64;
    let narrow = [[0, 2, 5, 3], [0, 2, 4, MAX], [-1, 2, 3, 3], [2, 1, 3, -3], [0, 3, MIN, MAX], [4, 4, 4, 4]];
    let high = 1 << 32;
    let wide = [
        [0, 2, 3 + high, 3],
        [high, high + 1, high + 2, high + 3],
        [i64::MIN, 1, 2, i64::MAX],
        [0, 1, -high, 2],
    ];
    let narrow = narrow.into_iter().flat_map(|cu| [(cu, false), (cu, true)]);
    for (cu_seqlens, is_i64) in narrow.chain(wide.map(|cu| (cu, true))) {
        let what = || format!("cu_seqlens {cu_seqlens:?}, i64: {is_i64}");
        let mut p = packed(&[1, 1, 1], DType::F32, 109);
        p.tokens = Tokens::Packed { cu_seqlens: cu_seqlens.to_vec(), total: 3, is_i64 };
        ensure!((0..3).any(|n| p.tokens.range(n).is_empty()), "every range is sound: {}", what());
        p.run_and_check(device, Tile::Auto).with_context(what)?;
        p.keep_final_states();
        p.keep_each_state(3);
        p.run_and_check(device, Tile::Auto).with_context(what)?;
    }
    Ok(())
}

/// Drafts of 1 to 16 tokens; a longer one begins with the results of a shorter one.
pub fn up_to_16_draft_tokens(device: &mut dyn Device) -> Result<()> {
    for state in [DType::F32, DType::Bf16, DType::F16] {
        let mut longest = draft(HeadShape { hv: 1, ..SHAPE }, 1, 16, state, 110);
        longest.keep_each_state(16);
        longest.round_state = state == DType::F16;
        let whole = longest.run_and_check(device, Tile::Auto)?;
        for tokens in [1, 2, 3, 7, 8, 15] {
            let mut p = Problem { tokens: Tokens::Each { batch: 1, tokens }, ..longest.clone() };
            for x in [&mut p.q, &mut p.k, &mut p.v, &mut p.a, &mut p.b] {
                x.data.truncate(tokens * x.width);
            }
            let part = p.run_and_check(device, Tile::Auto)?;
            let (out, states) = (tokens * p.width(), tokens * p.elements());
            ensure!(part.out[..] == whole.out[..out], "{tokens} of 16 tokens have another output");
            ensure!(
                part.intermediate[..states] == whole.intermediate[..states],
                "{tokens} tokens: other states"
            );
            let last = &whole.intermediate[states - p.elements()..states];
            ensure!(part.state[..] == *last, "{tokens} tokens end in another state than the buffer's");
        }
    }
    Ok(())
}

/// Rows behind the last sequence are zeros: behind empty sequences, behind none but empty ones, and where there is none.
pub fn rows_behind_the_last_sequence_are_zeros(device: &mut dyn Device) -> Result<()> {
    for (family, layout) in [(Family::Gdn, Layout::Vk), (Family::Kda, Layout::Kv)] {
        for ends in [&[2, 4, 4][..], &[0, 0, 0], &[1], &[]] {
            for total in [6, 70] {
                let cu_seqlens = std::iter::once(0).chain(ends.iter().copied()).collect();
                let tokens = Tokens::Packed { cu_seqlens, total, is_i64: total == 6 };
                let plain = Plain::new(SHAPE, tokens, DType::F32, 111);
                let mut p = Plain { family, layout, ..plain }.problem();
                ensure!(!p.tokens.rest().is_empty(), "no row is behind {ends:?}");
                p.run_and_check(device, Tile::Auto)?;
                // A padded sequence does its share of the rest.
                p.source = Source::Slots(vec![-1; ends.len()]);
                p.out = p.out.map(|out| Out { dtype: DType::F32, stride: out.stride + 3 });
                p.run_and_check(device, Tile::Auto)?;
                p.start_from_zeros();
                if !ends.is_empty() {
                    p.run_and_check(device, Tile::Auto)?;
                }
            }
        }
    }
    Ok(())
}
