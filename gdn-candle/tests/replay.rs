//! Sequences with rings of records against the same sequences on plain pools, on the CPU.

mod common;

use candle_core::{DType, Device, Tensor};
use common::{noise, random_inputs, text, values};
use gdn_candle::*;
use gdn_tests::compare::{rel_l2, widen};

const CPU: Device = Device::Cpu;
const SHAPE: HeadShape = HeadShape { h: 1, hv: 2, k: 128, v: 32 };
const LAYERS: usize = 2;
const SLOTS: usize = 6;
/// Rings are short, so that a few tokens fill them.
const RECORDS: usize = 4;
const DRAFTS: usize = 2;
/// The two work out the same in f64 and round at other places.
const LIMIT: f64 = 1e-6;

/// States with rings, and plain pools of the same slots.
struct Both {
    states: ReplayState,
    plain: Vec<StatePool>,
    seed: u64,
}

fn table(slots: &[u32]) -> Tensor {
    Tensor::new(slots, &CPU).unwrap()
}

fn is_near(have: &Tensor, want: &Tensor, what: &str) {
    assert_eq!(have.dims(), want.dims(), "{what}");
    let (have, want) = (widen(&values(have)), widen(&values(want)));
    let error = rel_l2(&have, &want);
    assert!(error <= LIMIT, "{what} is off by {error:.1e}");
}

impl Both {
    fn new(family: Family) -> Both {
        let config = ReplayConfig {
            records: RECORDS,
            drafts: DRAFTS,
            io: DType::F32,
            ..ReplayConfig::new(RecordForm::new(SHAPE, family), LAYERS, SLOTS)
        };
        let states = ReplayState::zeros(&config, &CPU).unwrap();
        // What a slot holds before its first sequence starts from zeros.
        let stale = noise(90, &[LAYERS, SLOTS, 2, 32, 128], DType::F32);
        states.restore(&stale, &table(&[0, 1, 2, 3, 4, 5])).unwrap();
        let plain = stale
            .chunk(LAYERS, 0)
            .unwrap()
            .iter()
            .map(|x| x.squeeze(0).unwrap().copy().unwrap())
            .collect::<Vec<_>>();
        let plain = plain.iter().map(|x| StatePool::from_tensor(x, Layout::Vk).unwrap()).collect();
        Both { states, plain, seed: 0 }
    }

    /// Inputs of so many tokens that no layer had yet.
    fn inputs(&mut self, tokens: usize) -> Inputs {
        self.seed += 10;
        let family = self.states.config().form.family;
        random_inputs(SHAPE, tokens, DType::F32, family, self.seed)
    }

    /// A token of each sequence in both.
    fn decode(&mut self, slots: &Slots, force: Option<&Tensor>) {
        let step = self.states.clone();
        let step = step.step(slots).unwrap();
        let step = match force {
            Some(force) => step.with_force(force),
            None => step,
        };
        let n = slots.slots.as_ref().unwrap().elem_count();
        for layer in 0..LAYERS {
            let inputs = self.inputs(n);
            let have = replay_decode(&inputs, &step, layer).unwrap();
            is_near(&have, &decode(&inputs, &self.plain[layer], slots).unwrap(), "an output");
        }
        replay_advance(&step, n, None).unwrap();
    }

    /// Drafts of each sequence in both, of which so many are accepted.
    fn draft(&mut self, slots: &[u32], accepted: &[u32]) {
        let (n, slots) = (slots.len(), Slots::of(&table(slots)));
        let accepted = table(accepted);
        let states = self.states.clone();
        let step = states.step(&slots).unwrap();
        for layer in 0..LAYERS {
            let inputs = self.inputs(n * DRAFTS);
            let have = replay_verify(&inputs, DRAFTS, &step, layer, None).unwrap();
            let buffer = Tensor::zeros((n, DRAFTS, 2, 32, 128), DType::F32, &CPU).unwrap();
            let (buffer, pool) = (DraftStates::new(&buffer), &self.plain[layer]);
            let nowhere = slots.clone().with_write(Write::Nowhere);
            let want = verify(&inputs, &Tokens::Each(DRAFTS), pool, &nowhere, Some(&buffer)).unwrap();
            is_near(&have, &want, "an output of a draft");
            commit(&SHAPE, &buffer, &accepted, pool, &slots).unwrap();
        }
        replay_advance(&step, n, Some((DRAFTS, &accepted))).unwrap();
    }

    /// The states of some slots are the same in both.
    fn check(&self, slots: &[u32]) {
        let have = self.states.snapshot(&table(slots)).unwrap();
        for (layer, pool) in self.plain.iter().enumerate() {
            let want = pool.tensor.index_select(&table(slots), 0).unwrap();
            is_near(&have.get(layer).unwrap(), &want, &format!("a state of layer {layer}"));
        }
    }
}

#[test]
fn tokens_are_those_of_decode() {
    for family in [Family::Gdn, Family::Kda] {
        let mut both = Both::new(family);
        let fresh = Start::Reset(Tensor::new(&[1u8, 1, 1], &CPU).unwrap());
        let slots = Slots::of(&table(&[4, 1, 3]));
        both.decode(&slots.clone().with_start(fresh), None);
        for _ in 0..RECORDS + 2 {
            both.decode(&slots, None);
        }
        both.check(&[1, 3, 4]);
        // One folds though its ring has room, one starts anew, a row is padding.
        let force = Tensor::new(&[1u8, 0, 0], &CPU).unwrap();
        let again = Start::HasInitialState(Tensor::new(&[1u8, 1, 0], &CPU).unwrap());
        both.decode(&Slots::of(&table(&[3, u32::MAX, 1])).with_start(again), Some(&force));
        let folded = both.states.checkpoints(1).unwrap().tensor.get(3).unwrap();
        is_near(&folded, &both.plain[1].tensor.get(3).unwrap(), "a state that was folded");
        both.decode(&slots, None);
        both.check(&[0, 1, 2, 3, 4, 5]);
    }
}

#[test]
fn drafts_are_those_of_verify() {
    for family in [Family::Gdn, Family::Kda] {
        let mut both = Both::new(family);
        both.decode(&Slots::of(&table(&[2, 5])), None);
        for accepted in [[2, 0], [1, 2], [0, 1], [2, 2], [1, 1]] {
            both.draft(&[5, 2], &accepted);
            both.check(&[2, 5]);
        }
        both.decode(&Slots::of(&table(&[2, 5])), None);
        both.check(&[0, 1, 2, 3, 4, 5]);
    }
}

/// Both drafts follow the live window; the second is accepted.
#[test]
fn the_accepted_path_of_a_tree_is_what_stays() {
    let mut both = Both::new(Family::Gdn);
    let slots = Slots::of(&table(&[3]));
    both.decode(&slots, None);
    let states = both.states.clone();
    let step = states.step(&slots).unwrap();
    let parent = Tensor::new(&[[-1i32, -1]], &CPU).unwrap();
    for layer in 0..LAYERS {
        let inputs = both.inputs(DRAFTS);
        let have = replay_verify(&inputs, DRAFTS, &step, layer, Some(&parent)).unwrap();
        let row = |x: &Tensor| x.narrow(0, 1, 1).unwrap();
        let mut second = inputs.clone();
        (second.q, second.k, second.v) = (row(&inputs.q), row(&inputs.k), row(&inputs.v));
        if let (Decay::Gate { a, .. }, Beta::Logits { b, .. }) = (&mut second.decay, &mut second.beta) {
            (*a, *b) = (row(a), row(b));
        }
        is_near(&row(&have), &decode(&second, &both.plain[layer], &slots).unwrap(), "the second draft");
    }
    let one = table(&[1]);
    replay_commit(&step, &one, &Tensor::new(&[[1u32, 0]], &CPU).unwrap()).unwrap();
    replay_advance(&step, 1, Some((DRAFTS, &one))).unwrap();
    both.check(&[3]);
}

#[test]
fn states_move_with_what_their_rings_hold() {
    let mut both = Both::new(Family::Gdn);
    // The slot that the fork goes to has a record of its own.
    both.decode(&Slots::of(&table(&[1, 2, 4])), None);
    let (before, kept) = (both.states.snapshot(&table(&[1, 2])).unwrap(), table(&[1, 2]));
    // A fork goes its own way.
    both.states.copy(&table(&[1]), &table(&[4])).unwrap();
    for pool in &both.plain {
        LayerPool { state: pool.clone(), conv: ConvPool::zeros(8, 3, SLOTS, DType::F32, &CPU).unwrap() }
            .copy(&table(&[1]), &table(&[4]))
            .unwrap();
    }
    both.check(&[1, 2, 4]);
    both.decode(&Slots::of(&table(&[4, 1])), None);
    both.check(&[1, 2, 4]);
    // The state within the ring, behind the first of two tokens.
    let within = both.states.snapshot_within(&table(&[1, 2]), &table(&[1, 1])).unwrap();
    is_near(&within, &before, "a state behind a record");
    let too_far = both.states.snapshot_within(&table(&[1]), &table(&[RECORDS as u32])).unwrap();
    assert!(values(&too_far).iter().all(|x| *x == 0.0), "records that are not live were applied");
    // Back to what was kept, with empty rings.
    both.states.restore(&before, &kept).unwrap();
    is_near(&both.states.snapshot(&kept).unwrap(), &before, "a restored state");
    both.states.fold(&table(&[4])).unwrap();
    for (layer, pool) in both.plain.iter().enumerate() {
        let folded = both.states.checkpoints(layer).unwrap().tensor.get(4).unwrap();
        is_near(&folded, &pool.tensor.get(4).unwrap(), "a folded state");
    }
    both.states.reset(&table(&[4, u32::MAX])).unwrap();
    let all = values(&both.states.snapshot(&table(&[4, 3])).unwrap().get(0).unwrap());
    let (reset, stale) = all.split_at(all.len() / 2);
    assert!(reset.iter().all(|x| *x == 0.0) && stale.iter().any(|x| *x != 0.0));
}

/// What sequences share is copied where a step gives them slots of their own.
#[test]
fn an_allocators_steps() {
    let mut both = Both::new(Family::Gdn);
    let mut slots = SlotAllocator::new(SLOTS as u32, None);
    let first = slots.begin().unwrap();
    let step = |both: &mut Both, slots: &mut SlotAllocator, sequences: &[Sequence]| {
        let tables = slots.step(sequences).unwrap();
        let step_slots = both.states.begin(&tables).unwrap().slots().clone();
        both.decode(&step_slots, None);
        slots.written(sequences).unwrap();
        let written: Vec<u32> = tables.write_slots.iter().map(|slot| *slot as u32).collect();
        both.check(&written);
    };
    for _ in 0..3 {
        step(&mut both, &mut slots, &[first]);
    }
    let second = slots.fork(first).unwrap();
    let prompt = slots.snapshot(second).unwrap();
    for _ in 0..2 {
        step(&mut both, &mut slots, &[second, first]);
    }
    let third = slots.begin_at(prompt).unwrap();
    step(&mut both, &mut slots, &[first, third]);
}

/// A layer's step with rings is the plain one, for tokens and for drafts.
#[test]
fn a_layers_step() {
    let columns = 2 * 128 + 2 * 32;
    let gate = Gate::softplus(&noise(21, &[2], DType::F32), &noise(22, &[2], DType::F32));
    let filter = Filter::new(&noise(23, &[columns, 4], DType::F32));
    let layer = Layer::gdn(SHAPE, filter, gate, Norm::silu(&noise(24, &[32], DType::F32), 1e-6));
    let config = ReplayConfig {
        records: RECORDS,
        drafts: DRAFTS,
        io: DType::F32,
        ..ReplayConfig::new(layer.record_form(), 1, 3)
    };
    let states = ReplayState::zeros(&config, &CPU).unwrap();
    let pool = || LayerPool::zeros(&SHAPE, 3, (DType::F32, Layout::Vk), (DType::F32, 4), &CPU).unwrap();
    let (plain, conv) = (pool(), pool().conv);
    let projected = |tokens: usize, seed: u64| {
        let rows = |seed, width| noise(seed, &[tokens, width], DType::F32);
        Projected {
            qkv: rows(seed, columns),
            z: rows(seed + 1, 64),
            a: rows(seed + 2, 2),
            b: rows(seed + 3, 2),
        }
    };
    let slots = Slots::of(&table(&[2, 0]));
    for round in 0..3 {
        let one = projected(2, 100 + round);
        let step = states.step(&slots).unwrap();
        let have = replay_layer_step(&layer, &one, &conv, &step, 0, None).unwrap();
        replay_advance(&step, 2, None).unwrap();
        is_near(&have, &layer_step(&layer, &one, &Tokens::Each(1), &plain, &slots, None).unwrap(), "a token");

        let some = projected(2 * DRAFTS, 200 + round);
        let drafts = Drafts::zeros(&layer, &plain, 2, DRAFTS).unwrap();
        let accepted = table(&[1 + round as u32 % 2, 2]);
        let nowhere = slots.clone().with_write(Write::Nowhere);
        let want = layer_step(&layer, &some, &Tokens::Each(DRAFTS), &plain, &nowhere, Some(&drafts)).unwrap();
        layer_commit(&layer, &drafts, &accepted, &plain, &slots).unwrap();
        let windows = DraftWindows::zeros(&layer.filter, &conv, 2, DRAFTS).unwrap();
        let have = replay_layer_step(&layer, &some, &conv, &step, 0, Some((DRAFTS, &windows))).unwrap();
        conv1d_commit(&windows, &accepted, &conv, &slots).unwrap();
        replay_advance(&step, 2, Some((DRAFTS, &accepted))).unwrap();
        is_near(&have, &want, "drafts");
        assert_eq!(values(&conv.tensor), values(&plain.conv.tensor));
    }
}

#[test]
fn refusals_name_argument_and_value() {
    let form = RecordForm::new(SHAPE, Family::Gdn);
    let good = ReplayConfig { records: RECORDS, io: DType::F32, ..ReplayConfig::new(form, 1, 2) };
    let config = |config: ReplayConfig| text(ReplayState::zeros(&config, &CPU));
    assert_eq!(
        config(ReplayConfig { state: DType::F64, ..good }),
        "state: type F64 does not fit, expected F32, BF16 or F16"
    );
    let records = config(ReplayConfig { records: 33, ..good });
    assert_eq!(records, "pool.rings.records: 33 is not allowed, it must be 1 to 32 records");
    let drafts = config(ReplayConfig { drafts: 5, ..good });
    assert!(drafts.starts_with("pool.most: "), "{drafts}");
    let types = config(ReplayConfig { state: DType::BF16, ..good });
    assert!(types.starts_with("pool.state: type bf16 does not fit"), "{types}");

    let states = ReplayState::zeros(&good, &CPU).unwrap();
    let slots = Slots::of(&table(&[1, 0]));
    let nowhere = text(states.step(&slots.clone().with_write(Write::Nowhere)));
    assert_eq!(nowhere, "slots.write: a sequence with a ring works in one slot");
    let accepted = text(states.step(&slots.clone().with_accepted(&table(&[1, 1]))));
    assert!(accepted.starts_with("slots.accepted: "), "{accepted}");
    let step = states.step(&slots).unwrap();
    let inputs = random_inputs(SHAPE, 2, DType::F32, Family::Gdn, 0);
    assert_eq!(
        text(replay_decode(&inputs, &step, 1)),
        "layer: 1 is not allowed, it must be below the number of layers"
    );
    let other = Inputs { l2norm: None, ..inputs.clone() };
    assert!(text(replay_decode(&other, &step, 0)).starts_with("inputs: RecordForm"));
    let tokens = text(replay_verify(&inputs, 3, &step, 0, None));
    assert_eq!(tokens, "tokens: 2 rows are no sequences of 3 drafts");
    let half = random_inputs(SHAPE, 2, DType::BF16, Family::Gdn, 0);
    assert!(text(replay_decode(&half, &step, 0)).starts_with("pool.rings.k: type f32 does not fit"));
    let counts = text(states.copy(&table(&[0]), &table(&[1, 0])));
    assert_eq!(counts, "to: has 2 slots, from has 1");
    let shape = text(states.restore(&noise(1, &[1, 1, 2, 32, 128], DType::F32), &table(&[0, 1])));
    assert_eq!(shape, "states: shape [1, 1, 2, 32, 128] does not fit, expected [1, 2, 2, 32, 128]");
    let all = values(&states.snapshot(&table(&[0, 1])).unwrap());
    assert!(all.iter().all(|x| *x == 0.0), "a refused call wrote");
}
