//! Tables that make two sequences write one place, or one write what another reads: a caller's error, which the simulator
//! tells. A GPU would run it, and leave what comes last.

use anyhow::Result;
use gdn_host::{DType, HeadShape, Layout, Tile};
use gdn_tests::device::Sim;
use gdn_tests::movement::convert::ConvertProblem;
use gdn_tests::movement::copy::{CommitProblem, CopyProblem};
use gdn_tests::neighbours::conv1d::{ConvProblem, WindowData};
use gdn_tests::neighbours::random::plain_conv;
use gdn_tests::problem::{Intermediate, Problem, Source, Target, Tokens};
use gdn_tests::random::{Plain, draft, plain};

const SHAPE: HeadShape = HeadShape { h: 1, hv: 2, k: 64, v: 64 };
/// Channels of a convolution: several blocks in each sequence.
const DIM: usize = 264;

/// Holds that the simulator names two accesses of different blocks, and the argument.
#[track_caller]
fn races<T>(result: Result<T>, argument: &str) {
    let Err(error) = result else { panic!("the race went unnoticed") };
    let text = error.to_string();
    let block = text.split("block ").skip(1).map(|rest| rest.split(", thread").next());
    let blocks: Vec<_> = block.collect();
    assert!(text.contains(" races with a ") && text.contains(&format!(" of `{argument}` ")), "{text}");
    assert!(blocks.len() == 2 && blocks[0] != blocks[1], "{text}");
}

/// A decode of three sequences, with five slots.
fn decode(slots: [i32; 3]) -> Problem {
    let mut p = plain(SHAPE, 3, DType::F32, 901);
    p.fill_pool(5, 902);
    p.source = Source::Slots(slots.into());
    p
}

/// Two tokens for each of three sequences, with five slots.
fn drafts() -> Problem {
    let mut p = draft(SHAPE, 3, 2, DType::Bf16, 903);
    p.fill_pool(5, 904);
    p.source = Source::Slots(vec![4, 0, 2]);
    p
}

#[test]
fn one_slot_of_two_sequences() {
    races(decode([1, 4, 1]).run(&mut Sim::default(), Tile::Auto), "state");
    for tile in decode([0; 3]).tiles() {
        races(decode([1, 1, 0]).run(&mut Sim::default(), tile), "state");
    }
}

#[test]
fn write_slots() {
    for (slots, write_slots) in [([0, 1, 2], [3, 4, 3]), ([0, 1, 2], [3, 0, 4]), ([3, 3, 2], [3, 0, 1])] {
        let mut p = decode(slots);
        p.target = Target::Slots(write_slots.into());
        races(p.run(&mut Sim::default(), Tile::Auto), "state");
    }
}

#[test]
fn slots_of_drafts() {
    for target in [vec![1, 3, 1], vec![1, 2, 3]] {
        let mut p = drafts();
        p.target = Target::Slots(target);
        races(p.run(&mut Sim::default(), Tile::Auto), "source");
    }
    let mut p = drafts();
    p.source = Source::Slots(vec![2, 2, 0]);
    races(p.run(&mut Sim::default(), Tile::Auto), "source");
}

#[test]
fn slots_by_token() {
    let mut p = drafts();
    p.target = Target::EachToken { slots: vec![4, 1, 0, 3, 2, 1], width: 2 };
    races(p.run(&mut Sim::default(), Tile::Auto), "source");
}

#[test]
fn rows_of_the_buffer() {
    let mut p = drafts();
    let (pitch, row) = (2 * p.elements(), Some(vec![2, 0, 2]));
    p.intermediate = Some(Intermediate { dtype: None, rows: 3, steps: 2, pitch, row, parent: None });
    races(p.run(&mut Sim::default(), Tile::Auto), "intermediate");
}

/// Ranges of tokens that overlap: a row of the output has two owners.
#[test]
fn one_token_of_two_sequences() {
    let tokens = Tokens::Packed { cu_seqlens: vec![0, 2, 1, 3], total: 3, is_i64: false };
    let p = Plain::new(SHAPE, tokens, DType::F32, 905).problem();
    assert_eq!((p.tokens.range(0), p.tokens.range(2)), (0..2, 1..3));
    races(p.run(&mut Sim::default(), Tile::Auto), "out");
}

#[test]
fn one_target_of_two_copies() {
    let mut p = CopyProblem::plain(DType::F32, 3, 2048, 906);
    p.target_slots = Some(vec![2, 0, 2]);
    races(p.run_and_check(&mut Sim::default(), Tile::Auto), "target");
    // Within a pool: one copy's target is another one's source.
    let mut p = CopyProblem::plain(DType::F32, 4, 2048, 906);
    (p.target, p.copies) = (None, 2);
    (p.source_slots, p.target_slots) = (Some(vec![0, 1]), Some(vec![1, 2]));
    races(p.run_and_check(&mut Sim::default(), Tile::Auto), "target");
}

#[test]
fn one_slot_of_two_commits() {
    let mut p = CommitProblem::plain(SHAPE, DType::Bf16, 2, 1, 907);
    p.slots = Some(vec![1, 1]);
    races(p.run_and_check(&mut Sim::default(), Tile::Auto), "state");
}

#[test]
fn one_target_of_two_conversions() {
    let mut p = ConvertProblem::plain(SHAPE, DType::F32, Layout::Vk, 2, 908);
    p.target_slots = Some(vec![0, 0]);
    races(p.run_and_check(&mut Sim::default(), Tile::Auto), "target");
}

fn conv(tokens: usize) -> ConvProblem {
    plain_conv(DIM, 4, 3, tokens, DType::Bf16, 909)
}

#[test]
fn slots_of_a_convolution() {
    let mut p = conv(1);
    p.slot = vec![0, 2, 0];
    races(p.run(&mut Sim::default(), Tile::Auto), "state");
    let mut p = conv(1);
    p.write_slot = Some(vec![1, 2, 0]);
    races(p.run(&mut Sim::default(), Tile::Auto), "state");
}

#[test]
fn windows_of_a_convolution() {
    let mut p = conv(2);
    let (pitch, row) = (2 * 3 * DIM, Some(vec![1, 1, 0]));
    p.windows = Some(WindowData { rows: 3, steps: 2, pitch, row });
    races(p.run(&mut Sim::default(), Tile::Auto), "intermediate");
}
