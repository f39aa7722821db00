//! Calls on candle tensors: views, types, tables, pools, and what is refused, on the CPU.

mod common;

use candle_core::{DType, Device, Tensor};
use common::{noise, random_inputs, text, values};
use gdn_candle::*;

const CPU: Device = Device::Cpu;
const SHAPE: HeadShape = HeadShape { h: 1, hv: 2, k: 64, v: 64 };

fn inputs_of(shape: HeadShape, tokens: usize, of: DType, family: Family) -> Inputs {
    random_inputs(shape, tokens, of, family, 0)
}

fn inputs(tokens: usize) -> Inputs {
    inputs_of(SHAPE, tokens, DType::F32, Family::Gdn)
}

fn pool(slots: usize, layout: Layout) -> StatePool {
    let zeros = StatePool::zeros(&SHAPE, slots, DType::F32, layout, &CPU).unwrap();
    StatePool { tensor: noise(8, zeros.tensor.dims(), DType::F32), layout }
}

/// The rows of a tensor, each in the middle of a wider one.
fn widened(x: &Tensor, gap: usize) -> Tensor {
    let flat = x.flatten_from(1).unwrap();
    let (rows, width) = flat.dims2().unwrap();
    let beside = Tensor::full(f32::NAN, (rows, gap), &CPU).unwrap().to_dtype(x.dtype()).unwrap();
    Tensor::cat(&[&beside, &flat, &beside], 1).unwrap().narrow(1, gap, width).unwrap()
}

fn slots(entries: &[u32]) -> Slots {
    Slots::of(&Tensor::new(entries, &CPU).unwrap())
}

#[test]
fn views_give_what_dense_tensors_give() {
    for family in [Family::Gdn, Family::Kda] {
        let dense = inputs_of(SHAPE, 3, DType::F32, family);
        let mut views = dense.clone();
        for tensor in [&mut views.q, &mut views.k, &mut views.v] {
            *tensor = widened(tensor, 4);
        }
        if let (Decay::Gate { a, .. }, Beta::Logits { b, .. }) = (&mut views.decay, &mut views.beta) {
            (*a, *b) = (widened(a, 3), widened(b, 1));
        }
        let (one, other) = (pool(4, Layout::Vk), pool(4, Layout::Vk));
        let want = decode(&dense, &one, &slots(&[2, 0, 3])).unwrap();
        let got = decode(&views, &other, &slots(&[2, 0, 3])).unwrap();
        assert_eq!(got.dims(), [3, 2, 64]);
        assert_eq!(values(&got), values(&want));
        assert_eq!(values(&one.tensor), values(&other.tensor));
    }
}

#[test]
fn slots_of_a_pool_may_be_apart() {
    let dense = pool(3, Layout::Vk);
    // A slot has a head more than the layer: what another layer's pages would hold.
    let wide = Tensor::full(f32::NAN, (3, 3, 64, 64), &CPU).unwrap();
    let view = wide.narrow(1, 0, 2).unwrap();
    let pages = StatePool::from_tensor(&view, Layout::Vk).unwrap();
    let table = Tensor::new(&[0u32, 1, 2], &CPU).unwrap();
    // States come into the pages by a copy of whole slots.
    let all = LayerPool { state: pages.clone(), conv: ConvPool::zeros(256, 3, 3, DType::F32, &CPU).unwrap() };
    let conv = all.conv.tensor.copy().unwrap();
    all.restore(&Snapshot { state: dense.tensor.copy().unwrap(), conv }, &table).unwrap();
    let want = decode(&inputs(3), &dense, &slots(&[1, 2, 0])).unwrap();
    let got = decode(&inputs(3), &pages, &slots(&[1, 2, 0])).unwrap();
    assert_eq!(values(&got), values(&want));
    assert_eq!(values(&view), values(&dense.tensor));
    assert!(values(&wide.narrow(1, 2, 1).unwrap()).iter().all(|x| x.is_nan()), "the gap was written");
}

#[test]
fn tables_of_every_type_and_stride() {
    let want_pool = pool(5, Layout::Kv);
    let want = decode(&inputs(3), &want_pool, &slots(&[4, u32::MAX, 1])).unwrap();
    assert!(values(&want)[128..256].iter().all(|x| x.to_bits() == 0), "a padded row is zeros");
    let column = Tensor::new(&[[4i64, 7, 7], [-1, 7, 7], [1, 7, 7]], &CPU).unwrap().narrow(1, 0, 1).unwrap();
    let tables = [
        Tensor::new(&[4i32, -1, 1], &CPU).unwrap(),
        Tensor::new(&[4i64, 1 << 32, 1], &CPU).unwrap(),
        column.squeeze(1).unwrap(),
        Tensor::new(&[4u32, 99, 1], &CPU).unwrap(),
    ];
    for table in &tables {
        let pool = pool(5, Layout::Kv);
        let got = decode(&inputs(3), &pool, &Slots::of(table)).unwrap();
        assert_eq!(values(&got), values(&want));
        assert_eq!(values(&pool.tensor), values(&want_pool.tensor));
    }
    let pool = pool(5, Layout::Kv);
    let null = slots(&[4, 0, 1]).with_null_slot(0);
    assert_eq!(values(&decode(&inputs(3), &pool, &null).unwrap()), values(&want));
}

#[test]
fn layouts_and_gathered_states_agree() {
    let (vk, kv) = (pool(2, Layout::Vk), pool(2, Layout::Kv));
    let turned = vk.tensor.transpose(2, 3).unwrap().contiguous().unwrap();
    let kv = StatePool { tensor: turned, ..kv };
    // Without a table sequence n is in slot n.
    let want = decode(&inputs(2), &vk, &Slots::default()).unwrap();
    let got = decode(&inputs(2), &kv, &slots(&[0, 1])).unwrap();
    assert_eq!(values(&got), values(&want));
    assert_eq!(values(&kv.tensor.transpose(2, 3).unwrap()), values(&vk.tensor));
}

#[test]
fn every_type_of_inputs_states_and_outputs() {
    for (io, state) in [(DType::BF16, DType::F32), (DType::F16, DType::F32), (DType::BF16, DType::BF16)] {
        for out in [None, Some(DType::F32)] {
            let inputs = Inputs { out, ..inputs_of(SHAPE, 2, io, Family::Gdn) };
            let zeros = StatePool::zeros(&SHAPE, 2, state, Layout::Vk, &CPU).unwrap();
            let got = decode(&inputs, &zeros, &Slots::default()).unwrap();
            assert_eq!(got.dtype(), out.unwrap_or(io));
            assert_eq!(zeros.tensor.dtype(), state);
            assert!(values(&got).iter().any(|x| *x != 0.0));
        }
    }
}

#[test]
fn verified_tokens_are_as_many_decodes() {
    const T: usize = 3;
    for family in [Family::Gdn, Family::Kda] {
        let all = inputs_of(SHAPE, 2 * T, DType::F32, family);
        let lanes = pool(8, Layout::Vk);
        let drafts = DraftStates::new(&Tensor::zeros((2, T, 2, 64, 64), DType::F32, &CPU).unwrap());
        let write = Write::EachToken(Tensor::new(&[[2u32, 3, 4], [5, 6, 7]], &CPU).unwrap());
        let out =
            verify(&all, &Tokens::Each(T), &lanes, &slots(&[0, 1]).with_write(write), Some(&drafts)).unwrap();
        let steps = pool(8, Layout::Vk);
        assert_eq!(
            values(&lanes.tensor.narrow(0, 0, 2).unwrap()),
            values(&steps.tensor.narrow(0, 0, 2).unwrap())
        );
        for t in 0..T {
            let row = |x: &Tensor| {
                Tensor::cat(&[x.get(t).unwrap(), x.get(T + t).unwrap()].map(|x| x.unsqueeze(0).unwrap()), 0)
                    .unwrap()
            };
            let mut one = all.clone();
            (one.q, one.k, one.v) = (row(&all.q), row(&all.k), row(&all.v));
            if let (Decay::Gate { a, .. }, Beta::Logits { b, .. }) = (&mut one.decay, &mut one.beta) {
                (*a, *b) = (row(a), row(b));
            }
            let want = decode(&one, &steps, &slots(&[0, 1])).unwrap();
            assert_eq!(values(&row(&out)), values(&want));
            for (n, first) in [2, 5].into_iter().enumerate() {
                let want = values(&steps.tensor.get(n).unwrap());
                assert_eq!(values(&lanes.tensor.get(first + t).unwrap()), want);
                assert_eq!(values(&drafts.states.get(n).unwrap().get(t).unwrap()), want);
            }
        }
        // What was accepted of the drafts goes to the slots that they started from; 0 commits nothing.
        let accepted = Tensor::new(&[2u32, 0], &CPU).unwrap();
        let before = values(&lanes.tensor.get(1).unwrap());
        commit(&SHAPE, &drafts, &accepted, &lanes, &slots(&[0, 1])).unwrap();
        assert_eq!(values(&lanes.tensor.get(0).unwrap()), values(&lanes.tensor.get(3).unwrap()));
        assert_eq!(values(&lanes.tensor.get(1).unwrap()), before);
    }
}

#[test]
fn accepted_counts_choose_the_lane_that_a_draft_starts_from() {
    let lanes = pool(4, Layout::Vk);
    let table = Tensor::new(&[[0i32, 1], [2, 3]], &CPU).unwrap();
    let counts = Tensor::new(&[2i32, 1], &CPU).unwrap();
    let from_lanes = Slots::of(&table).with_accepted(&counts).with_write(Write::Nowhere);
    let got = verify(&inputs(2), &Tokens::Each(1), &lanes, &from_lanes, None).unwrap();
    let want = verify(&inputs(2), &Tokens::Each(1), &lanes, &slots(&[1, 2]).with_write(Write::Nowhere), None);
    assert_eq!(values(&got), values(&want.unwrap()));
}

#[test]
fn packed_sequences_are_each_by_itself() {
    let all = inputs(4);
    let ends = Tensor::new(&[0i32, 1, 1, 4], &CPU).unwrap();
    let initial = noise(9, &[3, 2, 64, 64], DType::F32);
    let (out, last) = recurrent_fwd(&all, &Tokens::Packed(ends), Some(&initial), Layout::Vk).unwrap();
    assert_eq!(out.dims(), [4, 2, 64]);
    assert_eq!(values(&last.get(1).unwrap()), values(&initial.get(1).unwrap()), "it had no token");
    let first = |x: &Tensor| x.narrow(0, 0, 1).unwrap();
    let mut one = all.clone();
    (one.q, one.k, one.v) = (first(&all.q), first(&all.k), first(&all.v));
    if let (Decay::Gate { a, .. }, Beta::Logits { b, .. }) = (&mut one.decay, &mut one.beta) {
        (*a, *b) = (first(a), first(b));
    }
    let (alone, state) = recurrent_fwd(&one, &Tokens::Each(1), Some(&first(&initial)), Layout::Vk).unwrap();
    assert_eq!(values(&first(&out)), values(&alone));
    assert_eq!(values(&first(&last)), values(&state));
    // Advanced without an output, a pool holds the same.
    let pool = StatePool::from_tensor(&initial.copy().unwrap(), Layout::Vk).unwrap();
    advance(&one, &Tokens::Each(1), &pool, &slots(&[0])).unwrap();
    assert_eq!(values(&first(&pool.tensor)), values(&state));
}

#[test]
fn sequences_start_from_zeros_where_flags_say_so() {
    let flags = Tensor::new(&[1u8, 0], &CPU).unwrap();
    let (some, zeros) =
        (pool(2, Layout::Vk), StatePool::zeros(&SHAPE, 2, DType::F32, Layout::Vk, &CPU).unwrap());
    let got = decode(&inputs(2), &some, &slots(&[0, 1]).with_start(Start::Reset(flags))).unwrap();
    let want = decode(&inputs(2), &zeros, &slots(&[0, 1])).unwrap();
    assert_eq!(values(&got)[..128], values(&want)[..128]);
    assert_ne!(values(&got)[128..], values(&want)[128..]);
}

#[test]
fn convolutions_of_either_order_and_length() {
    const DIM: usize = 8;
    let (x, filter) = (noise(11, &[2, DIM], DType::F32), Filter::new(&noise(12, &[DIM, 4], DType::F32)));
    let state = noise(13, &[3, DIM, 3], DType::F32);
    let run =
        |pool: &ConvPool| conv1d_update(&x, &filter, &Tokens::Each(1), pool, &slots(&[2, 0]), None).unwrap();
    let taps = ConvPool::from_tensor(&state.copy().unwrap()).unwrap();
    let want = run(&taps);
    // vLLM's [slots, L, dim].
    let turned = state.transpose(1, 2).unwrap().contiguous().unwrap();
    let channels = ConvPool::from_tensor(&turned.transpose(1, 2).unwrap()).unwrap();
    assert_eq!(values(&run(&channels)), values(&want));
    assert_eq!(values(&channels.tensor), values(&taps.tensor));
    // Windows of four entries, the oldest of which no tap reaches.
    let longer = Tensor::cat(&[&Tensor::full(f32::NAN, (3, DIM, 1), &CPU).unwrap(), &state], 2).unwrap();
    let longer = ConvPool::from_tensor(&longer).unwrap();
    assert_eq!(values(&run(&longer)), values(&want));
    let kept = longer.tensor.narrow(2, 1, 3).unwrap();
    assert_eq!(values(&kept), values(&taps.tensor));
}

#[test]
fn norms_of_views_and_of_either_gate() {
    let (x, z) = (noise(14, &[3, 2, 64], DType::BF16), noise(15, &[3, 2, 64], DType::BF16));
    let weight = noise(16, &[64], DType::F32);
    for norm in [Norm::silu(&weight, 1e-6), Norm::sigmoid(&weight, 1e-5)] {
        let want = gated_rmsnorm(&x, &z, &norm).unwrap();
        assert_eq!((want.dims(), want.dtype()), (&[3, 2, 64][..], DType::BF16));
        let got = gated_rmsnorm(&x, &widened(&z, 5), &norm).unwrap();
        assert_eq!(values(&got), values(&want));
    }
    let silu = values(&gated_rmsnorm(&x, &z, &Norm::silu(&weight, 1e-6)).unwrap());
    let sigmoid = values(&gated_rmsnorm(&x, &z, &Norm::sigmoid(&weight, 1e-6)).unwrap());
    assert_ne!(silu, sigmoid);
}

/// A layer and its pools, of either family.
fn layer(family: Family) -> (Layer, LayerPool) {
    let columns = if family == Family::Kda { vec![2, 64] } else { vec![2] };
    let gate = Gate::softplus(&noise(21, &[2], DType::F32), &noise(22, &columns, DType::F32));
    let filter = Filter::new(&noise(23, &[256, 1, 4], DType::F32));
    let norm = Norm::silu(&noise(24, &[64], DType::F32), 1e-6);
    let layer = match family {
        Family::Gdn => Layer::gdn(SHAPE, filter, gate, norm),
        Family::Kda => Layer::kda(SHAPE, filter, gate, norm),
    };
    let pool = LayerPool::zeros(&SHAPE, 4, (DType::F32, Layout::Vk), (DType::F32, 4), &CPU).unwrap();
    (layer, pool)
}

fn projected(family: Family, tokens: usize) -> Projected {
    let columns = if family == Family::Kda { vec![tokens, 2, 64] } else { vec![tokens, 2] };
    Projected {
        qkv: noise(25, &[tokens, 256], DType::F32),
        z: noise(26, &[tokens, 128], DType::F32),
        a: noise(27, &columns, DType::F32),
        b: noise(28, &[tokens, 2], DType::F32),
    }
}

/// A draft of four tokens of which three stay is three steps.
#[test]
fn drafts_of_a_layer_that_stay_are_steps() {
    for family in [Family::Gdn, Family::Kda] {
        let ((layer, pool), (_, steps)) = (layer(family), layer(family));
        let (all, at) = (projected(family, 4), slots(&[2]));
        let drafts = Drafts::zeros(&layer, &pool, 1, 4).unwrap();
        let nowhere = at.clone().with_write(Write::Nowhere);
        let out = layer_step(&layer, &all, &Tokens::Each(4), &pool, &nowhere, Some(&drafts)).unwrap();
        assert!(values(&pool.state.tensor).iter().all(|x| *x == 0.0), "the pool was written");
        layer_commit(&layer, &drafts, &Tensor::new(&[3u32], &CPU).unwrap(), &pool, &at).unwrap();
        for t in 0..3 {
            let row = |x: &Tensor| x.narrow(0, t, 1).unwrap();
            let one = Projected { qkv: row(&all.qkv), z: row(&all.z), a: row(&all.a), b: row(&all.b) };
            let want = layer_step(&layer, &one, &Tokens::Each(1), &steps, &at, None).unwrap();
            assert_eq!(values(&row(&out)), values(&want));
        }
        assert_eq!(values(&pool.state.tensor), values(&steps.state.tensor));
        assert_eq!(values(&pool.conv.tensor), values(&steps.conv.tensor));
    }
}

#[test]
fn slots_are_reset_copied_kept_and_put_back() {
    let (_, zeros) = layer(Family::Gdn);
    let full = |seed, of: &Tensor| noise(seed, of.dims(), DType::F32);
    let (state, conv) = (full(31, &zeros.state.tensor), full(32, &zeros.conv.tensor));
    let pool = LayerPool::from_tensors(&state.copy().unwrap(), Layout::Vk, &conv.copy().unwrap()).unwrap();
    let table = |slots: &[u32]| Tensor::new(slots, &CPU).unwrap();
    let slot = |pool: &LayerPool, i: usize| {
        [values(&pool.state.tensor.get(i).unwrap()), values(&pool.conv.tensor.get(i).unwrap())]
    };
    let before: Vec<_> = (0..4).map(|i| slot(&pool, i)).collect();
    let kept = pool.snapshot(&table(&[3, 1])).unwrap();
    pool.copy(&table(&[0]), &table(&[3])).unwrap();
    assert_eq!(slot(&pool, 3), before[0]);
    pool.reset(&table(&[0, 1])).unwrap();
    assert!([0, 1].iter().all(|i| slot(&pool, *i).concat().iter().all(|x| *x == 0.0)));
    assert_eq!(slot(&pool, 2), before[2]);
    pool.restore(&kept, &table(&[0, u32::MAX])).unwrap();
    assert_eq!(slot(&pool, 0), before[3]);
    pool.restore(&kept, &table(&[3, 1])).unwrap();
    assert_eq!((slot(&pool, 3), slot(&pool, 1)), (before[3].clone(), before[1].clone()));
}

/// Threads that share a pool and a packed row wait for each other, and for nothing else.
#[test]
fn threads_share_pools() {
    let (one, other) = (pool(8, Layout::Vk), pool(8, Layout::Vk));
    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let one = &one;
            scope.spawn(move || {
                for _ in 0..5 {
                    decode(&inputs(2), one, &slots(&[2 * thread, 2 * thread + 1])).unwrap();
                }
            });
        }
    });
    for pair in 0..4u32 {
        for _ in 0..5 {
            decode(&inputs(2), &other, &slots(&[2 * pair, 2 * pair + 1])).unwrap();
        }
    }
    assert_eq!(values(&one.tensor), values(&other.tensor));
}

#[test]
fn refusals_name_argument_and_value() {
    let (good, some) = (inputs(2), pool(2, Layout::Vk));
    let refused = |inputs: &Inputs, slots: &Slots| text(decode(inputs, &some, slots));
    let with = |change: &dyn Fn(&mut Inputs)| {
        let mut inputs = good.clone();
        change(&mut inputs);
        refused(&inputs, &Slots::default())
    };
    let q = with(&|x| x.q = noise(1, &[3, 1, 64], DType::F32));
    assert_eq!(q, "q: has 3 rows of 64 elements, the call has 2 tokens");
    let k = with(&|x| x.k = noise(1, &[2, 1, 64], DType::BF16));
    assert_eq!(k, "k: type bf16 does not fit, expected the type of q");
    let v = with(&|x| x.v = noise(1, &[2, 2, 40], DType::F32));
    assert_eq!(v, "v: shape [2, 2, 40] has no rows of 128 elements");
    let v = with(&|x| x.v = x.v.transpose(0, 1).unwrap());
    assert!(v.starts_with("v: shape [2, 2, 64] with strides [64, 128, 1] has no packed rows"), "{v}");
    let q = with(&|x| x.q = x.q.to_dtype(DType::F64).unwrap());
    assert_eq!(q, "q: no call takes type F64");
    let q = with(&|x| x.q = widened(&x.q, 1));
    assert_eq!(q, "q: stride of 66 elements (264 bytes) is not a multiple of 16 bytes");
    let b = with(&|x| x.beta = Beta::logits(&noise(1, &[2, 3], DType::F32)));
    assert_eq!(b, "beta.b: shape [2, 3] has no rows of 2 elements");
    let scale = with(&|x| x.scale = Some(f32::NAN));
    assert_eq!(scale, "scale: NaN is not allowed, it must be finite");
    let heads = with(&|x| x.shape.k = 80);
    assert!(heads.contains("80"), "{heads}");

    let floats = Slots::of(&noise(1, &[2], DType::F32));
    assert_eq!(refused(&good, &floats), "slots: type F32 does not fit, expected U8, U32, I32 or I64");
    let bytes = Slots::of(&Tensor::new(&[0u8, 1], &CPU).unwrap());
    assert_eq!(refused(&good, &bytes), "slots: type u8 does not fit, expected i32, u32 or i64");
    assert_eq!(refused(&good, &slots(&[0])), "slots: has 1 rows, the call needs 2");
    let lanes = slots(&[0, 1]).with_write(Write::Nowhere);
    assert!(refused(&good, &lanes).starts_with("slots: a decode writes in place"));
    let state = text(StatePool::from_tensor(&noise(1, &[2, 64, 64], DType::F32), Layout::Vk));
    assert_eq!(state, "state: shape [2, 64, 64] does not fit, expected [_, _, _, _]");
    let narrow = StatePool::from_tensor(&noise(1, &[2, 2, 64, 32], DType::F32), Layout::Vk).unwrap();
    let state = text(decode(&good, &narrow, &Slots::default()));
    assert_eq!(state, "state: shape [2, 2, 64, 32] does not fit, expected [_, 2, 64, 64]");
    let few = text(decode(&inputs(3), &some, &Slots::default()));
    assert!(few.starts_with("state: 2 is not allowed"), "{few}");
    let tokens = text(verify(&inputs(3), &Tokens::Each(2), &some, &Slots::default(), None));
    assert_eq!(tokens, "tokens: 3 rows are no sequences of 2 tokens");
    assert_eq!(values(&some.tensor), values(&pool(2, Layout::Vk).tensor), "a refused call wrote");
}

/// A pool that is also an input: its lock is taken once, and the overlap is named.
#[test]
fn a_pool_among_the_inputs_is_an_error_and_no_deadlock() {
    let some = pool(2, Layout::Vk);
    let mut inputs = inputs(1);
    inputs.q = some.tensor.get(0).unwrap().get(0).unwrap().narrow(0, 0, 1).unwrap();
    assert_eq!(text(decode(&inputs, &some, &slots(&[0]))), "state: shares memory with q");
    let x = noise(1, &[1, 2, 64], DType::F32);
    let norm = Norm::silu(&x.get(0).unwrap().get(0).unwrap(), 1e-6);
    assert_eq!(values(&gated_rmsnorm(&x, &x, &norm).unwrap()).len(), 128);
}

#[test]
fn nothing_is_done_for_no_sequence() {
    let empty = Inputs {
        q: noise(1, &[0, 1, 64], DType::F32),
        k: noise(1, &[0, 1, 64], DType::F32),
        v: noise(1, &[0, 2, 64], DType::F32),
        decay: Decay::Given(noise(1, &[0, 2], DType::F32)),
        beta: Beta::logits(&noise(1, &[0, 2], DType::F32)),
        ..inputs(1)
    };
    assert_eq!(decode(&empty, &pool(1, Layout::Vk), &Slots::default()).unwrap().dims(), [0, 2, 64]);
    assert_eq!(loaded(&CPU), []);
    preload(&CPU, &[ModuleKey::copy_state()]).unwrap();
    unload(&CPU);
}
