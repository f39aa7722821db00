//! Where drafts and sequences start and end: slots, initial and final states, zeros.

use crate::device::Device;
use crate::problem::{Origin, Place, Problem, Source, StartFlags, Target, Tokens};
use crate::random::{Plain, draft};
use anyhow::{Context as _, Result, ensure};
use gdn_host::{DType, Family, HeadShape, Layout, Tile};

const SHAPE: HeadShape = HeadShape { h: 1, hv: 2, k: 64, v: 64 };
const TYPES: [DType; 3] = [DType::F32, DType::Bf16, DType::F16];

/// A draft of two tokens for each of three sequences, with a pool of five slots.
fn slots(state: DType, seed: u64) -> Problem {
    let mut p = draft(SHAPE, 3, 2, state, seed);
    p.fill_pool(5, seed + 1);
    p.source = Source::Slots(vec![4, 0, 2]);
    p
}

/// Sequences that fork from one prefix read one slot and write their own.
pub fn drafts_from_one_slot_go_to_slots_of_their_own(device: &mut dyn Device) -> Result<()> {
    for state in TYPES {
        let mut p = slots(state, 161);
        p.source = Source::Slots(vec![3, 3, 3]);
        for target in [Target::Slots(vec![4, 0, 1]), Target::Slots(vec![2, -1, 5])] {
            p.target = target;
            p.run_and_check(device, Tile::Auto)?;
        }
        p.keep_final_states();
        p.run_and_check(device, Tile::Auto)?;
    }
    Ok(())
}

/// No output: states advance, and are those of the call that has one.
pub fn advancing_states_without_an_output(device: &mut dyn Device) -> Result<()> {
    for family in [Family::Gdn, Family::Kda] {
        let tokens = Tokens::Each { batch: 2, tokens: 3 };
        let mut p = Plain { family, ..Plain::new(SHAPE, tokens, DType::F32, 162) }.problem();
        let with = p.run_and_check(device, Tile::Auto)?;
        p.out = None;
        let without = p.run_and_check(device, Tile::Auto)?;
        ensure!(without.state == with.state, "the states depend on the output");
    }
    Ok(())
}

/// A pool that is read only has the bits it had, NaN among them.
pub fn read_only_pool_is_exact(device: &mut dyn Device) -> Result<()> {
    for state in TYPES {
        let mut p = slots(state, 163);
        let elements = p.elements();
        p.pool.data[elements..2 * elements].fill(f32::NAN);
        p.target = Target::Nowhere;
        p.run_and_check(device, Tile::Auto)?;
        p.keep_final_states();
        p.run_and_check(device, Tile::Auto)?;
    }
    Ok(())
}

/// From zeros without a pool: only final states, or only outputs.
pub fn from_zeros_without_a_pool(device: &mut dyn Device) -> Result<()> {
    for (layout, state) in TYPES.into_iter().flat_map(|t| [(Layout::Vk, t), (Layout::Kv, t)]) {
        let tokens = Tokens::packed(&[2, 0, 3], false);
        let mut p = Plain { layout, ..Plain::new(SHAPE, tokens, state, 164) }.problem();
        p.start_from_zeros();
        let kept = p.run_and_check(device, Tile::Auto)?;
        p.out = None;
        ensure!(p.run_and_check(device, Tile::Auto)?.final_state == kept.final_state, "other final states");
    }
    let mut p = draft(SHAPE, 2, 3, DType::F32, 165);
    p.start_from_zeros();
    let kept = p.run_and_check(device, Tile::Auto)?;
    p.target = Target::Nowhere;
    ensure!(p.run_and_check(device, Tile::Auto)?.out == kept.out, "outputs depend on final states");
    Ok(())
}

/// States by sequence: `null_slot` is a value in tables, and sequence 0 is no padding because it is sequence 0.
pub fn null_slot_does_not_pad_states_by_sequence(device: &mut dyn Device) -> Result<()> {
    let mut p = draft(SHAPE, 3, 2, DType::F32, 166);
    p.source = Source::Sequences;
    p.null_slot = Some(0);
    for target in [Target::InPlace, Target::Sequences { slots: 3, pitch: p.elements() }] {
        p.target = target;
        let routes = p.routes();
        ensure!(routes[0].origin == Origin::Slot(0) && !routes[0].stores.is_empty(), "sequence 0 is padding");
        p.run_and_check(device, Tile::Auto)?;
    }
    // In a table it does: sequence 0's state is not kept.
    p.fill_pool(5, 167);
    p.target = Target::Slots(vec![0, 4, 3]);
    ensure!(p.routes()[0].stores.is_empty(), "the null slot is written");
    p.run_and_check(device, Tile::Auto)?;
    p.start_from_zeros();
    p.run_and_check(device, Tile::Auto).map(drop)
}

/// States by sequence updated in place, in a pool with room for more.
pub fn states_by_sequence_in_place(device: &mut dyn Device) -> Result<()> {
    for layout in [Layout::Vk, Layout::Kv] {
        let mut p = draft(SHAPE, 3, 2, DType::Bf16, 168);
        p.fill_pool(4, 169);
        p.pool.layout = layout;
        p.source = Source::Sequences;
        p.run_and_check(device, Tile::Auto)?;
        p.pool.pitch += 8;
        p.target = Target::Sequences { slots: 5, pitch: p.elements() + 16 };
        p.run_and_check(device, Tile::Auto)?;
    }
    Ok(())
}

/// A padded draft, its inputs NaN: outputs of all its tokens are zeros, and no slot, final state or step is touched,
/// wherever states go.
pub fn padded_draft_touches_nothing(device: &mut dyn Device) -> Result<()> {
    for (index, null_slot) in [(-1, None), (i32::MIN, None), (5, None), (i32::MAX, None), (1, Some(1))] {
        let mut p = slots(DType::F32, 170);
        p.source = Source::Slots(vec![4, index, 2]);
        p.null_slot = null_slot;
        p.keep_each_state(2);
        for x in [&mut p.q, &mut p.k, &mut p.v, &mut p.a, &mut p.b] {
            let rows = 2 * x.width..4 * x.width;
            x.data[rows].fill(f32::NAN);
        }
        p.start = StartFlags::Reset(vec![0, 1, 0]);
        ensure!(p.routes()[1].is_padding() && p.routes()[1].stores.is_empty(), "index {index} is no padding");
        let targets = [
            Target::InPlace,
            Target::Nowhere,
            Target::Slots(vec![4, 3, 2]),
            Target::Sequences { slots: 3, pitch: p.elements() },
        ];
        for target in targets {
            p.target = target;
            p.run_and_check(device, Tile::Auto).with_context(|| format!("index {index}"))?;
        }
        p.tokens = Tokens::packed(&[2, 2, 2], true);
        p.run_and_check(device, Tile::Auto)?;
    }
    Ok(())
}

/// A recycled slot holds NaN; a draft that starts from zeros must not see it, nor a later token of it.
pub fn reset_of_a_draft_ignores_its_slot(device: &mut dyn Device) -> Result<()> {
    for state in TYPES {
        let mut p = slots(state, 171);
        p.pool.data[..p.shape.state_elements() as usize].fill(f32::NAN);
        p.start = StartFlags::Reset(vec![0, 1, 0]);
        let reset = p.run_and_check(device, Tile::Auto)?;
        p.start = StartFlags::HasInitialState(vec![1, 0, 9]);
        ensure!(p.run_and_check(device, Tile::Auto)? == reset, "the two flags do not agree");
        p.start = StartFlags::None;
        ensure!(p.run(device, Tile::Auto)?.out.iter().any(|x| x.is_nan()), "the slot is not read");
    }
    Ok(())
}

/// Slots that no sequence names hold NaN: no output, state or step may show it.
pub fn nan_in_a_slot_no_draft_names(device: &mut dyn Device) -> Result<()> {
    for state in TYPES {
        let mut p = slots(state, 172);
        let elements = p.elements();
        for slot in [1, 3] {
            p.pool.data[slot * elements..(slot + 1) * elements].fill(f32::NAN);
        }
        p.make_tree(2, &[0, 0, 0, -1, 0, 0]);
        let solution = p.run_and_check(device, Tile::Auto)?;
        let finite = |x: &[f32]| x.iter().all(|x| x.is_finite());
        ensure!(finite(&solution.out) && finite(&solution.intermediate), "NaN reached a result");
        // Nor a slot that is only written.
        p.intermediate = None;
        p.target = Target::Slots(vec![1, 3, -1]);
        let places: Vec<_> = p.routes().iter().flat_map(|r| r.stores.iter().map(|s| s.1)).collect();
        ensure!(places == [1, 3].map(Place::Pool), "the problem writes {places:?}");
        ensure!(finite(&p.run_and_check(device, Tile::Auto)?.state), "NaN reached a new state");
    }
    Ok(())
}
