//! The slot allocator against a model that keeps every sequence's tokens: no slot is lost, none is shared by accident.

use gdn_host::slots::{Sequence, SlotAllocator, SlotError, Snapshot, StepTables};
use proptest::prelude::*;
use std::collections::HashMap;

/// Slots of the pools; slot 0 is padding.
const SLOTS: u32 = 7;

/// Tokens that a state has seen.
type State = Vec<u32>;

/// What a test does next; the numbers choose among what there is.
#[derive(Clone, Debug)]
enum Action {
    Begin,
    BeginAt(usize),
    Fork(usize),
    Snapshot(usize),
    Hold(usize),
    Release(usize),
    /// A step of the sequences whose bits are set in the first mask; those of the second are written.
    Step(u8, u8),
    Park(usize),
    Resume(usize),
    Receive,
    Finish(usize),
}

fn action() -> impl Strategy<Value = Action> {
    let number = 0..16usize;
    prop_oneof![
        2 => Just(Action::Begin),
        2 => number.clone().prop_map(Action::BeginAt),
        2 => number.clone().prop_map(Action::Fork),
        2 => number.clone().prop_map(Action::Snapshot),
        1 => number.clone().prop_map(Action::Hold),
        3 => number.clone().prop_map(Action::Release),
        6 => (any::<u8>(), any::<u8>()).prop_map(|(all, written)| Action::Step(all, written)),
        1 => number.clone().prop_map(Action::Park),
        1 => number.clone().prop_map(Action::Resume),
        1 => Just(Action::Receive),
        2 => number.prop_map(Action::Finish),
    ]
}

/// What is true: the tokens of each sequence and snapshot, and what each slot of the pool holds.
#[derive(Default)]
struct Model {
    sequences: Vec<(Sequence, State)>,
    parked: HashMap<Sequence, State>,
    snapshots: Vec<(Snapshot, State)>,
    held: HashMap<Snapshot, usize>,
    pool: HashMap<i32, State>,
    token: u32,
}

impl Model {
    fn pick<T: Copy>(list: &[(T, State)], i: usize) -> Option<(T, State)> {
        if list.is_empty() { None } else { Some(list[i % list.len()].clone()) }
    }

    /// Runs a step as kernels do: everything is read before anything is written.
    fn run(&mut self, chosen: &[Sequence], written: &[Sequence], tables: &StepTables) {
        let mut targets: Vec<i32> = tables.write_slots.clone();
        targets.sort_unstable();
        targets.dedup();
        assert_eq!(targets.len(), chosen.len(), "two sequences write one slot: {tables:?}");
        let states: Vec<State> = chosen
            .iter()
            .enumerate()
            .map(|(i, sequence)| {
                let (from, to) = (tables.slots[i], tables.write_slots[i]);
                assert!(from > 0 && to > 0 && from < SLOTS as i32 && to < SLOTS as i32, "{tables:?}");
                // Nobody else reads what this one writes.
                let others = tables.slots.iter().enumerate().filter(|(j, _)| *j != i);
                assert!(others.into_iter().all(|(_, slot)| *slot != to), "{tables:?}");
                let state =
                    if tables.reset[i] == 1 { State::new() } else { self.pool.get(&from).cloned().unwrap() };
                let known = self.sequences.iter().find(|(of, _)| of == sequence).unwrap();
                assert_eq!(state, known.1, "{sequence:?} starts from another state: {tables:?}");
                state
            })
            .collect();
        for (i, (sequence, mut state)) in chosen.iter().zip(states).enumerate() {
            if written.contains(sequence) {
                self.token += 1;
                state.push(self.token);
                self.pool.insert(tables.write_slots[i], state.clone());
                self.sequences.iter_mut().find(|(of, _)| of == sequence).unwrap().1 = state;
            }
        }
    }
}

fn check(actions: &[Action]) {
    let mut slots = SlotAllocator::new(SLOTS, Some(0));
    let mut model = Model::default();
    for action in actions {
        let before = slots.clone();
        let done: Result<(), SlotError> = (|| {
            match *action {
                Action::Begin => model.sequences.push((slots.begin()?, State::new())),
                Action::BeginAt(i) => {
                    if let Some((snapshot, state)) = Model::pick(&model.snapshots, i) {
                        model.sequences.push((slots.begin_at(snapshot)?, state));
                    }
                }
                Action::Fork(i) => {
                    if let Some((sequence, state)) = Model::pick(&model.sequences, i) {
                        model.sequences.push((slots.fork(sequence)?, state));
                    }
                }
                Action::Snapshot(i) => {
                    if let Some((sequence, state)) = Model::pick(&model.sequences, i) {
                        let snapshot = slots.snapshot(sequence)?;
                        *model.held.entry(snapshot).or_default() += 1;
                        if model.snapshots.iter().all(|(of, _)| *of != snapshot) {
                            model.snapshots.push((snapshot, state));
                        }
                    }
                }
                Action::Hold(i) => {
                    if let Some((snapshot, _)) = Model::pick(&model.snapshots, i) {
                        slots.hold(snapshot)?;
                        *model.held.entry(snapshot).or_default() += 1;
                    }
                }
                Action::Release(i) => {
                    if let Some((snapshot, _)) = Model::pick(&model.snapshots, i) {
                        let holders = model.held.get(&snapshot).copied().unwrap_or(0);
                        let result = slots.release(snapshot);
                        assert_eq!(result.is_ok(), holders > 0, "{result:?}");
                        result?;
                        model.held.insert(snapshot, holders - 1);
                    }
                }
                Action::Step(all, written) => {
                    let in_mask = |mask: u8| {
                        let numbered =
                            model.sequences.iter().enumerate().filter(move |(i, _)| mask >> (i % 8) & 1 == 1);
                        numbered.map(|(_, (sequence, _))| *sequence)
                    };
                    let chosen: Vec<Sequence> = in_mask(all).collect();
                    let written: Vec<Sequence> = in_mask(all & written).collect();
                    let tables = slots.step(&chosen)?;
                    model.run(&chosen, &written, &tables);
                    slots.written(&written)?;
                }
                Action::Park(i) => {
                    if let Some((sequence, state)) = Model::pick(&model.sequences, i) {
                        let slot = slots.park(sequence)?;
                        assert_eq!(model.pool.get(&(slot as i32)), Some(&state));
                        model.sequences.retain(|(of, _)| *of != sequence);
                        model.parked.insert(sequence, state);
                    }
                }
                Action::Resume(i) => {
                    let mut parked: Vec<_> = model.parked.keys().copied().collect();
                    parked.sort_unstable();
                    if let Some(&sequence) = parked.get(i % parked.len().max(1)) {
                        let slot = slots.resume(sequence)?;
                        let state = model.parked.remove(&sequence).unwrap();
                        model.pool.insert(slot as i32, state.clone());
                        model.sequences.push((sequence, state));
                    }
                }
                Action::Receive => {
                    let (sequence, slot) = slots.receive()?;
                    model.token += 1;
                    let state = vec![model.token];
                    model.pool.insert(slot as i32, state.clone());
                    model.sequences.push((sequence, state));
                }
                Action::Finish(i) => {
                    if let Some((sequence, _)) = Model::pick(&model.sequences, i) {
                        slots.finish(sequence)?;
                        model.sequences.retain(|(of, _)| *of != sequence);
                    }
                }
            }
            Ok(())
        })();
        match done {
            Ok(()) => {}
            Err(SlotError::Full { wanted, free }) => {
                assert!(free < wanted, "{action:?}");
                assert_eq!(slots.available(), before.available(), "{action:?} changed something");
            }
            // Snapshots that were evicted, and sequences that have no state to keep.
            Err(SlotError::NoSnapshot(snapshot)) => {
                assert_eq!(
                    model.held.get(&snapshot).copied().unwrap_or(0),
                    0,
                    "{action:?}: a held one is gone"
                );
                model.snapshots.retain(|(of, _)| *of != snapshot);
            }
            Err(SlotError::NoState(_) | SlotError::NotHeld(_)) => {}
            Err(error) => panic!("{action:?}: {error}"),
        }
    }
    // When all is over every slot can be had again.
    for (sequence, _) in model.sequences {
        slots.finish(sequence).unwrap();
    }
    for sequence in model.parked.into_keys() {
        slots.finish(sequence).unwrap();
    }
    for (snapshot, holders) in model.held {
        (0..holders).for_each(|_| slots.release(snapshot).unwrap());
    }
    assert_eq!(slots.available(), SLOTS as usize - 1, "slots are lost");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn every_sequence_goes_on_from_its_own_tokens(actions in prop::collection::vec(action(), 1..80)) {
        check(&actions);
    }
}

#[test]
fn a_prefix_is_shared_without_a_copy() {
    let mut slots = SlotAllocator::new(4, None);
    let first = slots.begin().unwrap();
    let step = slots.step(&[first]).unwrap();
    assert_eq!((step.reset.as_slice(), step.is_in_place()), (&[1][..], true));
    slots.written(&[first]).unwrap();
    let prefix = slots.snapshot(first).unwrap();
    let second = slots.begin_at(prefix).unwrap();
    let step = slots.step(&[first, second]).unwrap();
    assert_eq!(step.slots[0], step.slots[1]);
    assert!(step.write_slots[0] != step.write_slots[1] && !step.write_slots.contains(&step.slots[0]));
    assert_eq!(step.reset, [0, 0]);
    // For kernels that only update in place.
    assert_eq!(step.copies(), (step.slots.clone(), step.write_slots.clone()));
    slots.written(&[first]).unwrap();
    // Nothing of the second one's draft was accepted: it starts from the prefix again, and keeps its slot.
    let again = slots.step(&[first, second]).unwrap();
    assert_eq!((again.slots[1], again.write_slots[1]), (step.slots[1], step.write_slots[1]));
    assert_eq!(again.slots[0], step.write_slots[0]);
}

#[test]
fn the_snapshot_that_was_not_used_for_longest_is_evicted_first() {
    let mut slots = SlotAllocator::new(3, None);
    let mut prefixes = Vec::new();
    for _ in 0..2 {
        let sequence = slots.begin().unwrap();
        slots.step(&[sequence]).unwrap();
        slots.written(&[sequence]).unwrap();
        prefixes.push(slots.snapshot(sequence).unwrap());
        slots.finish(sequence).unwrap();
    }
    prefixes.iter().for_each(|prefix| slots.release(*prefix).unwrap());
    // The older one is used once more.
    let reader = slots.begin_at(prefixes[0]).unwrap();
    slots.finish(reader).unwrap();
    let sequences = [slots.begin().unwrap(), slots.begin().unwrap()];
    slots.step(&sequences).unwrap();
    assert_eq!(slots.begin_at(prefixes[1]), Err(SlotError::NoSnapshot(prefixes[1])));
    assert_eq!(slots.begin_at(prefixes[0]), Err(SlotError::Full { wanted: 1, free: 0 }));
}

#[test]
fn what_is_refused_is_named_and_changes_nothing() {
    let mut slots = SlotAllocator::new(2, Some(0));
    let sequence = slots.begin().unwrap();
    assert_eq!(slots.snapshot(sequence), Err(SlotError::NoState(sequence)));
    assert_eq!(slots.park(sequence), Err(SlotError::NoState(sequence)));
    assert_eq!(slots.written(&[sequence]), Err(SlotError::NotInStep(sequence)));
    assert_eq!(slots.step(&[sequence, sequence]), Err(SlotError::Twice(sequence)));
    assert_eq!(slots.step(&[sequence]).unwrap().slots, [1]);
    slots.written(&[sequence]).unwrap();
    assert_eq!(slots.snapshot(sequence), Err(SlotError::Full { wanted: 1, free: 0 }));
    assert_eq!(slots.resume(sequence), Err(SlotError::NotParked(sequence)));
    assert_eq!(slots.park(sequence), Ok(1));
    assert_eq!(slots.step(&[sequence]), Err(SlotError::Parked(sequence)));
    assert_eq!(slots.resume(sequence), Ok(1));
    slots.finish(sequence).unwrap();
    assert_eq!(slots.finish(sequence), Err(SlotError::NoSequence(sequence)));
}
