//! Rows of slots by token (vLLM): which slot a draft starts from, and which it writes.

use crate::device::Device;
use crate::problem::{Origin, Place, Problem, Source, StartFlags, Target, Tokens};
use crate::random::{Plain, draft};
use anyhow::{Result, ensure};
use gdn_host::{DType, Family, HeadShape, Layout, Tile};

const SHAPE: HeadShape = HeadShape { h: 1, hv: 2, k: 64, v: 64 };

/// A draft for each row of `slots`, from a pool of twelve.
fn by_token(slots: &[[i32; 3]], accepted: &[i32], tokens: usize, seed: u64) -> Problem {
    let mut p = draft(SHAPE, slots.len(), tokens, DType::F32, seed);
    p.fill_pool(12, seed + 1);
    let slots = slots.as_flattened().to_vec();
    p.source = Source::Accepted { slots: slots.clone(), width: 3, accepted: accepted.to_vec() };
    p.target = Target::EachToken { slots, width: 3 };
    p
}

/// Each count names another slot.
pub fn accepted_count_selects_the_slot(device: &mut dyn Device) -> Result<()> {
    let slots = [[7, 2, 9], [1, 5, 0], [11, 4, 3]];
    let mut p = by_token(&slots, &[1, 2, 3], 2, 141);
    let origins: Vec<_> = p.routes().iter().map(|route| route.origin).collect();
    ensure!(origins == [7, 5, 3].map(Origin::Slot), "the problem starts from {origins:?}");
    p.run_and_check(device, Tile::Auto)?;
    for target in [Target::InPlace, Target::Nowhere, Target::Slots(vec![6, 8, -1])] {
        p.target = target;
        p.run_and_check(device, Tile::Auto)?;
    }
    p.keep_final_states();
    p.start = StartFlags::HasInitialState(vec![1, 0, 1]);
    p.run_and_check(device, Tile::Auto).map(drop)
}

/// A count that names no token: nothing is read, nothing is written, outputs are zeros.
pub fn accepted_0_or_past_the_width_is_padding(device: &mut dyn Device) -> Result<()> {
    for count in [0, 4, -1, i32::MIN, i32::MAX] {
        let mut p = by_token(&[[7, 2, 9], [1, 5, 0], [11, 4, 3]], &[1, count, 3], 2, 142);
        p.keep_each_state(2);
        ensure!(p.routes()[1].is_padding(), "a count of {count} is no padding");
        p.run_and_check(device, Tile::Auto)?;
    }
    Ok(())
}

/// The slot that the count selects names nothing: a padded row, whatever the other slots of its row name.
pub fn accepted_slot_that_names_nothing_is_padding(device: &mut dyn Device) -> Result<()> {
    for slot in [-1, 12, i32::MAX, 6] {
        let mut p = by_token(&[[7, slot, 9], [1, 5, 0]], &[2, 1], 3, 143);
        p.null_slot = Some(6);
        ensure!(p.routes()[0].is_padding(), "slot {slot} is no padding");
        p.run_and_check(device, Tile::Auto)?;
    }
    Ok(())
}

/// States by token are scattered over the pool; entries that name nothing are skipped, and only they.
pub fn states_by_token_are_scattered(device: &mut dyn Device) -> Result<()> {
    let slots = [[10, -1, 2], [0, 7, 12], [i32::MIN, 4, 1]];
    for (family, layout) in [(Family::Gdn, Layout::Vk), (Family::Kda, Layout::Kv)] {
        let mut p = by_token(&slots, &[1, 2, 3], 3, 144);
        let plain = Plain::new(SHAPE, p.tokens.clone(), DType::F32, 144);
        let other = Plain { family, layout, ..plain }.problem();
        p = Problem { family, a: other.a, decay: other.decay, ..p };
        p.pool.layout = layout;
        p.null_slot = Some(4);
        let places: Vec<_> = p.routes().iter().flat_map(|r| r.stores.iter().map(|s| s.1)).collect();
        ensure!(places == [10, 2, 0, 7, 1].map(Place::Pool), "the problem writes {places:?}");
        p.run_and_check(device, Tile::Auto)?;
    }
    Ok(())
}

/// More tokens than a row has slots: the states of the others are not kept, and do not go to the slots of the next
/// row, whose sequence has no tokens.
pub fn more_tokens_than_slots_by_token(device: &mut dyn Device) -> Result<()> {
    let mut p = by_token(&[[7, 2, 9], [1, 5, 0]], &[3, 2], 3, 145);
    p.tokens = Tokens::Packed { cu_seqlens: vec![0, 5, 5], total: 6, is_i64: false };
    ensure!(p.routes()[0].stores.len() == 3, "five tokens are to write {:?}", p.routes()[0].stores);
    p.run_and_check(device, Tile::Auto).map(drop)
}

/// Drafts of different lengths, none among them.
pub fn states_by_token_of_packed_drafts(device: &mut dyn Device) -> Result<()> {
    let mut p = by_token(&[[7, 2, 9], [1, 5, 0], [11, 4, 3]], &[2, 3, 1], 2, 146);
    p.tokens = Tokens::packed(&[1, 0, 5], true);
    p.run_and_check(device, Tile::Auto).map(drop)
}

/// A row of one slot is a pool with plain slots.
pub fn row_of_one_slot_is_a_plain_pool(device: &mut dyn Device) -> Result<()> {
    let mut p = draft(SHAPE, 2, 2, DType::Bf16, 147);
    p.source = Source::Slots(vec![1, 0]);
    let plain = p.run_and_check(device, Tile::Auto)?;
    p.source = Source::Accepted { slots: vec![1, 0], width: 1, accepted: vec![1, 1] };
    ensure!(p.run_and_check(device, Tile::Auto)? == plain, "the two ways to name a slot differ");
    Ok(())
}
