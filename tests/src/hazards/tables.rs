//! Tables as callers have them: of every type, a column of a wider table, absent; and indices that only a 64-bit table holds.

use crate::device::Device;
use crate::problem::{Intermediate, Origin, Place, Problem, Source, StartFlags, Target, Tokens};
use crate::random::{Plain, draft, plain};
use crate::table::TableForm;
use anyhow::{Context as _, Result, ensure};
use gdn_host::{DType, Entry, Family, HeadShape, Layout, Tile};

const SHAPE: HeadShape = HeadShape { h: 1, hv: 2, k: 64, v: 64 };

/// A decode with every table, and in large batches a look at a later sequence's slot.
fn decode(layout: Layout) -> Problem {
    let plain = Plain::new(SHAPE, Tokens::One { batch: 4 }, DType::F32, 401);
    let mut p = Plain { layout, ..plain }.problem();
    p.fill_pool(9, 402);
    p.source = Source::Slots(vec![7, -1, 0, 4]);
    p.target = Target::Slots(vec![2, 3, -1, 8]);
    p.start = StartFlags::Reset(vec![0, 1, 0, 1]);
    p
}

/// A draft with every table but parents.
fn by_token() -> Problem {
    let mut p = draft(SHAPE, 3, 2, DType::F32, 403);
    p.fill_pool(14, 404);
    p.source = Source::Accepted { slots: vec![7, 1, 9, 3, -1, 11], width: 2, accepted: vec![2, 1, 2] };
    p.target = Target::EachToken { slots: vec![2, 4, -1, 5, 6, 8], width: 2 };
    p.start = StartFlags::HasInitialState(vec![1, 0, 1]);
    p.keep_each_state(2);
    p.intermediate = p.intermediate.take().map(|i| Intermediate { row: Some(vec![2, 0, -1]), ..i });
    p
}

/// Trees with every table but those of slots by token.
fn trees() -> Problem {
    let mut p = draft(SHAPE, 2, 4, DType::F32, 405);
    p.fill_pool(5, 406);
    (p.source, p.target) = (Source::Slots(vec![4, 1]), Target::Slots(vec![0, 3]));
    p.make_tree(4, &[-1, 0, 0, 1, 3, 0, 1, -1]);
    p
}

/// The same tables of every type and stride give the same bits.
pub fn tables_of_every_type_and_stride(device: &mut dyn Device) -> Result<()> {
    for mut p in [decode(Layout::Vk), decode(Layout::Kv), by_token(), trees()] {
        let dense = p.run_and_check(device, Tile::Auto)?;
        for index in [Entry::I32, Entry::U32, Entry::I64] {
            for (flag, gap) in [(Entry::U8, 3), (Entry::I32, 0), (Entry::U32, 1)] {
                p.tables = TableForm { index, flag, gap };
                let solution = p.run_and_check(device, Tile::Auto)?;
                ensure!(solution == dense, "{:?} gives other bits: {p:?}", p.tables);
            }
        }
    }
    Ok(())
}

/// 2^32 in a table of i64 names nothing, though its lower half is 0: as a slot, a count, a row and a parent.
pub fn index_past_32_bits_names_nothing(device: &mut dyn Device) -> Result<()> {
    const FAR: i32 = i32::MIN;
    let tables = TableForm { index: Entry::I64, gap: 1, ..TableForm::default() };
    let mut decode = Problem { tables, ..decode(Layout::Vk) };
    (decode.source, decode.target) = (Source::Slots(vec![7, FAR, 1, 4]), Target::Slots(vec![2, 3, FAR, 8]));
    let mut counts = Problem { tables, ..by_token() };
    counts.source =
        Source::Accepted { slots: vec![7, FAR, 9, 3, 1, 11], width: 2, accepted: vec![2, FAR, 2] };
    counts.target = Target::EachToken { slots: vec![2, 4, 10, 5, FAR, 8], width: 2 };
    counts.intermediate =
        counts.intermediate.take().map(|i| Intermediate { row: Some(vec![2, 1, FAR]), ..i });
    let mut trees = Problem { tables, ..trees() };
    // A parent that was cut to 32 bits would be token 0.
    trees.make_tree(4, &[-1, 0, FAR, 1, 3, FAR, 1, 2]);
    for p in [decode, counts, trees] {
        p.run_and_check(device, Tile::Auto).with_context(|| format!("{p:?}"))?;
    }
    Ok(())
}

/// Without a table of slots sequence n is in slot n, and no slot is null.
pub fn absent_slots_are_the_sequences(device: &mut dyn Device) -> Result<()> {
    for (family, layout) in [(Family::Gdn, Layout::Vk), (Family::Gdn, Layout::Kv), (Family::Kda, Layout::Vk)]
    {
        for batch in [1, 5] {
            let plain = Plain::new(SHAPE, Tokens::One { batch }, DType::F32, 407);
            let mut p = Plain { family, layout, ..plain }.problem();
            p.fill_pool(2 * batch + 1, 408);
            let listed = p.run_and_check(device, Tile::Auto)?;
            p.source = Source::Sequences;
            ensure!(p.run_and_check(device, Tile::Auto)? == listed, "slots of their own give other bits");
            p.null_slot = Some(0);
            ensure!(p.run_and_check(device, Tile::Auto)? == listed, "slot 0 is null without a table");
            // The null slot is one in a table of targets.
            p.target =
                Target::Slots((0..batch as i32).map(|n| if n == 1 { 0 } else { n + batch as i32 }).collect());
            p.run_and_check(device, Tile::Auto)?;
        }
    }
    Ok(())
}

/// States by token in a table of their own: what the sequences started from stays what it was.
pub fn slots_by_token_beside_the_slots_of_the_start(device: &mut dyn Device) -> Result<()> {
    let slots = Target::EachToken { slots: vec![8, 2, 9, 11, -1, 4, 12, 10, 7], width: 3 };
    for (source, family, layout, state) in [
        (Source::Slots(vec![5, 0, 6]), Family::Gdn, Layout::Vk, DType::F32),
        (Source::Slots(vec![5, 1, -1]), Family::Kda, Layout::Kv, DType::Bf16),
        (Source::Sequences, Family::Gdn, Layout::Kv, DType::F32),
        (
            Source::Accepted { slots: vec![5, 3, 0], width: 1, accepted: vec![1; 3] },
            Family::Kda,
            Layout::Vk,
            DType::F32,
        ),
    ] {
        let plain = Plain::new(SHAPE, Tokens::packed(&[4, 1, 3], false), state, 409);
        let mut p = Plain { family, layout, ..plain }.problem();
        p.fill_pool(13, 410);
        if source == Source::Sequences {
            p.target = Target::EachToken { slots: vec![8, 3, 9, 11, -1, 4, 12, 10, 7], width: 3 };
        } else {
            p.target = slots.clone();
        }
        p.source = source;
        let routes = p.routes();
        let anchors: Vec<Place> = routes
            .iter()
            .filter_map(|route| match route.origin {
                Origin::Slot(slot) => Some(Place::Pool(slot)),
                Origin::Padding | Origin::Zeros => None,
            })
            .collect();
        let overwritten =
            |place: &Place| routes.iter().any(|r| r.stores.iter().any(|store| store.1 == *place));
        ensure!(!anchors.iter().any(overwritten), "the problem writes where it starts");
        p.run_and_check(device, Tile::Auto)?;
    }
    Ok(())
}

/// Large batches ask for a later sequence's state: its slot is read from the same tables.
pub fn later_slots_of_every_type(device: &mut dyn Device) -> Result<()> {
    let shape = HeadShape { h: 1, hv: 1, k: 64, v: 64 };
    let mut p = plain(shape, 300, DType::F32, 411);
    let dense = p.run(device, Tile::Auto)?;
    for index in [Entry::U32, Entry::I64] {
        p.tables = TableForm { index, gap: 2, ..TableForm::default() };
        ensure!(p.run(device, Tile::Auto)? == dense, "a table of {index:?} gives other bits");
    }
    p.source = Source::Sequences;
    ensure!(p.run(device, Tile::Auto)? == dense, "no table gives other bits");
    Ok(())
}
