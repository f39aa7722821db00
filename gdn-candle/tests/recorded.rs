//! The recorded cases on candle tensors, on the CPU.

mod common;

use anyhow::{Context as _, Result, bail};
use candle_core::{Device, Tensor};
use common::{inputs, rows, states, states_back, tensor, values};
use gdn_candle::{
    Activation, ConvPool, DraftStates, DraftWindows, Filter, Gate, Layer, LayerPool, Layout, Norm, Projected,
    Slots, StatePool, Tokens, Write, conv1d_update, decode, gated_rmsnorm, layer_step, recurrent_fwd, verify,
};
use gdn_tests::case::recurrence::{Recorded, records};
use gdn_tests::case::{Case, list};
use gdn_tests::compare::{Tolerance, rel_l2, widen, worst_vector};
use gdn_tests::golden_dir;
use gdn_tests::neighbours::layer::LayerCase;
use gdn_tests::neighbours::recorded::{ConvCase, NormCase};
use gdn_tests::parity::recurrence::Distance;
use gdn_tests::problem::{self, Memory, Problem, Solution, Source, Target};

const CPU: Device = Device::Cpu;

fn cases() -> impl Iterator<Item = Case> {
    list(&golden_dir()).unwrap().into_iter().map(|file| Case::read(&file).unwrap())
}

fn slots_of(table: &[i32]) -> Result<Tensor> {
    Ok(Tensor::from_slice(table, table.len(), &CPU)?)
}

fn tokens(p: &Problem) -> Result<Tokens> {
    Ok(match &p.tokens {
        problem::Tokens::One { .. } => Tokens::Each(1),
        problem::Tokens::Each { tokens, .. } => Tokens::Each(*tokens),
        problem::Tokens::Packed { cu_seqlens, .. } => {
            Tokens::Packed(Tensor::from_slice(cu_seqlens, cu_seqlens.len(), &CPU)?)
        }
    })
}

/// What this crate's functions make of a problem.
fn solve(p: &Problem) -> Result<Solution> {
    let (inputs, layout) = (inputs(p)?, p.pool.layout);
    let out_type = p.out.context("a recording has an output")?.dtype;
    let memory = |x: Vec<f32>, of| Memory::new(x, of);
    if let Target::Sequences { .. } = p.target {
        let initial = match p.source {
            Source::Zeros => None,
            _ => Some(states(&p.pool.data, p.pool.dtype, &[p.pool.slots], p)?),
        };
        let (out, last) = recurrent_fwd(&inputs, &tokens(p)?, initial.as_ref(), layout)?;
        return Ok(Solution {
            out: memory(values(&out), out_type),
            state: memory(p.pool.data.clone(), p.pool.dtype),
            final_state: memory(states_back(&last, layout), p.pool.dtype),
            intermediate: Memory::default(),
        });
    }
    let pool = StatePool::from_tensor(&states(&p.pool.data, p.pool.dtype, &[p.pool.slots], p)?, layout)?;
    let Source::Slots(table) = &p.source else { bail!("{:?} is not recorded", p.source) };
    let mut slots = Slots::of(&slots_of(table)?);
    if matches!(p.target, Target::Nowhere) {
        slots.write = Write::Nowhere;
    }
    let drafts = p.intermediate.as_ref().map(|buffer| -> Result<_> {
        let of = buffer.dtype.context("a buffer's type is recorded")?;
        let zeros = vec![0.0; buffer.rows * buffer.steps * p.elements()];
        let drafts = DraftStates::new(&states(&zeros, of, &[buffer.rows, buffer.steps], p)?);
        let rows = buffer.row.as_ref().map(|row| slots_of(row)).transpose()?;
        let table =
            |parent: &Vec<i32>| Ok::<_, anyhow::Error>(slots_of(parent)?.reshape(((), buffer.steps))?);
        let parent = buffer.parent.as_ref().map(table).transpose()?;
        Ok((DraftStates { rows, parent, ..drafts }, of))
    });
    let drafts = drafts.transpose()?;
    let out = match p.tokens {
        problem::Tokens::One { .. } => decode(&inputs, &pool, &slots)?,
        _ => verify(&inputs, &tokens(p)?, &pool, &slots, drafts.as_ref().map(|(drafts, _)| drafts))?,
    };
    let buffer = drafts.map(|(drafts, of)| memory(states_back(&drafts.states, layout), of));
    Ok(Solution {
        out: memory(values(&out), out_type),
        state: memory(states_back(&pool.tensor, layout), p.pool.dtype),
        final_state: Memory::default(),
        intermediate: buffer.unwrap_or_default(),
    })
}

#[test]
fn every_recorded_recurrence() {
    let mut count = 0;
    for case in cases().filter(|case| records(case.op())) {
        let Recorded { problem: p, solution } = case.recurrence().unwrap();
        let got = solve(&p).unwrap_or_else(|error| panic!("{}: {error:#}", case.file));
        let limit = Tolerance::recorded(p.out.unwrap().dtype, p.pool.dtype);
        let distance = Distance::between(&p.written(&got), &p.written(&solution), p.shape.v as usize);
        assert_eq!(distance.beyond(&limit), [""; 0], "{}: {distance:?}", case.file);
        p.check_untouched(&got, 0).unwrap_or_else(|error| panic!("{}: {error}", case.file));
        count += 1;
    }
    assert_eq!(count, 16);
}

#[test]
fn every_recorded_convolution() {
    let mut count = 0;
    for case in cases().filter(|case| case.op() == "conv1d_update") {
        let recorded = ConvCase::new(&case).unwrap();
        let p = &recorded.problem;
        let (dim, width, batch) = (p.dim, p.width, p.lens.len());
        let pool = tensor(&p.pool.state, p.state_type, &[p.pool.slots, dim, p.pool.len]).unwrap();
        let pool = ConvPool::from_tensor(&pool).unwrap();
        let mut filter = Filter::new(&tensor(&p.weight.data, p.weight.dtype, &[dim, width]).unwrap());
        filter.bias = p.bias.as_ref().map(|bias| tensor(&bias.data, bias.dtype, &[dim]).unwrap());
        (filter.silu, filter.round_products) = (p.silu, p.round_products);
        let each = p.lens[0];
        let windows = p.windows.as_ref().map(|buffer| {
            let dims = (buffer.rows, buffer.steps, dim, width - 1);
            Tensor::zeros(dims, common::dtype(p.window_type), &CPU).unwrap()
        });
        let drafts = DraftWindows {
            windows: windows.clone(),
            rows: None,
            parent: p.parent.as_ref().map(|x| slots_of(x).unwrap().reshape((batch, each)).unwrap()),
            taken_back: None,
        };
        let mut slots = Slots::of(&slots_of(&p.slot).unwrap());
        if !p.update {
            slots.write = Write::Nowhere;
        }
        let x = rows(&p.x, &[dim]).unwrap();
        let out = conv1d_update(&x, &filter, &Tokens::Each(each), &pool, &slots, Some(&drafts)).unwrap();
        let limit = Tolerance::recorded(p.io(), p.state_type);
        for (n, _) in p.read_slots().iter().enumerate().filter(|(_, slot)| slot.is_some()) {
            let row = n * each * dim..(n + 1) * each * dim;
            let (got, want) = (widen(&values(&out)[row.clone()]), widen(&recorded.out[row]));
            assert!(rel_l2(&got, &want) <= limit.out, "{}: sequence {n}", case.file);
        }
        assert_eq!(values(&pool.tensor), recorded.state, "{}", case.file);
        if let (Some(got), Some(want)) = (windows, &recorded.windows) {
            let of_valid = |x: &[f32]| -> Vec<f32> {
                let each = x.len() / batch;
                let valid = p.read_slots().into_iter().enumerate().filter(|(_, slot)| slot.is_some());
                valid.flat_map(|(n, _)| x[n * each..(n + 1) * each].to_vec()).collect()
            };
            assert_eq!(of_valid(&values(&got)), of_valid(want), "{}", case.file);
        }
        count += 1;
    }
    assert_eq!(count, 3);
}

#[test]
fn every_recorded_norm() {
    let mut count = 0;
    for case in cases().filter(|case| case.op() == "gated_rmsnorm") {
        let recorded = NormCase::new(&case).unwrap();
        let p = &recorded.problem;
        let weight = tensor(&p.weight.data, p.weight.dtype, &[p.v]).unwrap();
        let norm = Norm { weight, eps: p.eps, activation: p.activation };
        let heads = |x| rows(x, &[p.hv, p.v]).unwrap();
        let out = gated_rmsnorm(&heads(&p.x), &heads(&p.z), &norm).unwrap();
        let limit = Tolerance::recorded(p.z.dtype, p.z.dtype);
        let (got, want) = (widen(&values(&out)), widen(&recorded.out));
        assert!(rel_l2(&got, &want) <= limit.out, "{}", case.file);
        assert!(worst_vector(&got, &want, p.v) <= limit.head, "{}", case.file);
        count += 1;
    }
    assert_eq!(count, 2);
}

/// Successive tokens through a layer's step, on the same pools.
#[test]
fn the_recorded_layer() {
    let case = cases().find(|case| case.op() == "layer_step").unwrap();
    let recorded = LayerCase::new(&case).unwrap();
    let (conv, p, norm) = (&recorded.layer.conv, &recorded.layer.core, &recorded.layer.norm);
    let problem::Decay::Softplus { a_log, dt_bias, .. } = &p.decay else { panic!("{:?}", p.decay) };
    let table = |x: &gdn_tests::strided::Strided| tensor(&x.data, x.dtype, &[x.data.len()]).unwrap();
    let weight = tensor(&conv.weight.data, conv.weight.dtype, &[conv.dim, conv.width]).unwrap();
    let filter = Filter { round_products: conv.round_products, silu: conv.silu, ..Filter::new(&weight) };
    assert_eq!(norm.activation, Activation::Silu);
    let mut layer = Layer::gdn(
        p.shape,
        filter,
        Gate::softplus(&table(a_log), &table(dt_bias)),
        Norm::silu(&table(&norm.weight), norm.eps),
    );
    layer.beta_rounded = matches!(p.beta, problem::Beta::Logits { rounded: true, .. });
    let state = states(&p.pool.data, p.pool.dtype, &[p.pool.slots], p).unwrap();
    let windows =
        tensor(&conv.pool.state, conv.state_type, &[conv.pool.slots, conv.dim, conv.pool.len]).unwrap();
    let pool = LayerPool::from_tensors(&state, Layout::Vk, &windows).unwrap();
    let slots = Slots::of(&slots_of(&conv.slot).unwrap());
    let (io, limit) = (conv.io(), Tolerance::recorded(conv.io(), p.pool.dtype));
    let (hv, v) = (norm.hv, norm.v);
    for step in &recorded.steps {
        let projected = Projected {
            qkv: tensor(&step.x, io, &[0, conv.dim]).unwrap(),
            z: tensor(&step.z, io, &[0, hv, v]).unwrap(),
            a: tensor(&step.a, p.a.dtype, &[0, hv]).unwrap(),
            b: tensor(&step.b, p.b.dtype, &[0, hv]).unwrap(),
        };
        let out = layer_step(&layer, &projected, &Tokens::Each(1), &pool, &slots, None).unwrap();
        let out = values(&out);
        for (n, _) in conv.slot.iter().enumerate().filter(|(_, slot)| **slot >= 0) {
            let row = n * hv * v..(n + 1) * hv * v;
            let (got, want) = (widen(&out[row.clone()]), widen(&step.out[row]));
            assert!(rel_l2(&got, &want) <= limit.out && worst_vector(&got, &want, v) <= limit.head);
        }
    }
    assert_eq!(values(&pool.conv.tensor), recorded.conv_state);
    let error = rel_l2(&widen(&values(&pool.state.tensor)), &widen(&recorded.state));
    assert!(error <= limit.state, "state is off by {error:.2e}");
}
