//! Random decode problems: shapes, types, strides, options and indices drawn by proptest.

use crate::problem::{Problem, StartFlags};
use crate::strided::{Strided, round};
use anyhow::{Result, anyhow};
use gdn_host::{DType, HeadMap, HeadShape};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

/// Data for a problem, from a seed: a small generator of its own, since a problem has thousands of values
/// and proptest need not shrink them.
pub struct Noise(u64);

impl Noise {
    /// A generator; equal seeds give equal values.
    pub fn new(seed: u64) -> Self {
        Noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Uniform in [0, 1).
    pub fn uniform(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }

    /// About normal: the sum of four uniforms, scaled.
    pub fn normal(&mut self, sigma: f32) -> f32 {
        let sum: f32 = (0..4).map(|_| self.uniform()).sum();
        (sum - 2.0) * 3f32.sqrt() * sigma
    }

    /// `len` normal values.
    pub fn normals(&mut self, len: usize, sigma: f32) -> Vec<f32> {
        (0..len).map(|_| self.normal(sigma)).collect()
    }
}

/// A plain problem of dense rows: sequence n in slot n, all options as Qwen3-Next has them, bf16 inputs.
pub fn plain(shape: HeadShape, batch: usize, state_type: DType, seed: u64) -> Problem {
    let mut noise = Noise::new(seed);
    let (keys, values) = (shape.key_elements() as usize, shape.value_elements() as usize);
    let (hv, elements) = (shape.hv as usize, shape.state_elements() as usize);
    let io = DType::Bf16;
    let slots = batch.max(1);
    let states = noise.normals(slots * elements, 0.1);
    Problem {
        shape,
        batch,
        q: Strided::dense(io, keys, noise.normals(batch * keys, 1.0)),
        k: Strided::dense(io, keys, noise.normals(batch * keys, 1.0)),
        v: Strided::dense(io, values, noise.normals(batch * values, 1.0)),
        packed_stride: None,
        a: Strided::dense(io, hv, noise.normals(batch * hv, 1.0)),
        b: Strided::dense(io, hv, noise.normals(batch * hv, 1.0)),
        gate: Some((
            Strided::dense(DType::F32, hv, (0..hv).map(|_| (1.0 + 15.0 * noise.uniform()).ln()).collect()),
            Strided::dense(DType::F32, hv, noise.normals(hv, 1.0)),
        )),
        threshold: 20.0,
        beta_given: false,
        beta_rounded: false,
        state_type,
        state: states.iter().map(|&x| round(x, state_type)).collect(),
        slots,
        pitch: elements,
        slot: (0..batch as i32).collect(),
        write_slot: None,
        null_slot: None,
        start: StartFlags::None,
        out_type: io,
        out_stride: values,
        l2norm: Some(1e-6),
        scale: None,
        heads: HeadMap::Grouped,
    }
}

fn dtype() -> impl Strategy<Value = DType> {
    prop_oneof![Just(DType::F32), Just(DType::Bf16), Just(DType::F16)]
}

/// Shapes with every ratio that models have, small enough to simulate.
fn shape() -> impl Strategy<Value = HeadShape> {
    let dim = || prop_oneof![Just(64u32), Just(128u32)];
    (1u32..=3, prop_oneof![Just(1u32), Just(2), Just(3), Just(4), Just(8)], dim(), dim())
        .prop_map(|(h, ratio, k, v)| HeadShape { h, hv: h * ratio, k, v })
        .prop_filter("small", |s| s.hv <= 8)
}

/// Redraws logits whose sigmoid lies so close to the middle of two values of its type that f32 and f64
/// arithmetic may round it to different ones.
fn avoid_ties(b: &mut Strided, noise: &mut Noise) {
    let tie = |x: f32| {
        let beta = gdn_host::reference::sigmoid(x.into());
        let near = |sign: f64| round((beta * (1.0 + sign * 1e-5)) as f32, b.dtype);
        near(1.0) != near(-1.0)
    };
    for x in &mut b.data {
        while b.dtype != DType::F32 && tie(*x) {
            *x = round(noise.normal(1.0), b.dtype);
        }
    }
}

/// The first `count` problems of [`decode`], the same every time: a record must be repeatable.
///
/// # Errors
/// A draw that proptest gave up on.
pub fn fixed(count: u32) -> impl Iterator<Item = Result<Problem>> {
    let (mut runner, strategy) = (TestRunner::deterministic(), decode());
    (0..count).map(move |_| {
        let tree = strategy.new_tree(&mut runner).map_err(|reason| anyhow!("{reason}"))?;
        Ok(tree.current())
    })
}

/// A decode problem with everything drawn that may vary.
pub fn decode() -> impl Strategy<Value = Problem> {
    let types = (dtype(), dtype(), dtype(), dtype(), dtype(), any::<bool>());
    let options = (
        any::<[bool; 6]>(),
        prop_oneof![Just(1e-6f32), Just(1e-3f32)],
        prop_oneof![Just(None), Just(Some(1.0f32)), Just(Some(0.05f32))],
        prop_oneof![Just(20.0f32), Just(0.5f32)],
    );
    // Gaps in vectors of eight elements, so that q and k stay aligned.
    let gaps = (0usize..3, 0usize..3, 0usize..5, 0usize..3, 0usize..5);
    let rows = (1usize..=4).prop_flat_map(|batch| {
        let index = prop_oneof![3 => Just(0i32), 1 => Just(-1i32), 1 => Just(i32::MIN), 1 => Just(1000)];
        (
            Just(batch),
            prop::collection::vec(index.clone(), batch),
            prop::collection::vec(index, batch),
            prop::collection::vec(any::<bool>(), batch),
            Just((0..(2 * batch + 1) as i32).collect::<Vec<_>>()).prop_shuffle(),
        )
    });
    (shape(), types, options, gaps, rows, any::<u64>()).prop_map(
        |(shape, types, options, gaps, rows, seed)| {
            let (state_type, io, a_type, b_type, table_type, out_f32) = types;
            let (flags, eps, scale, threshold) = options;
            let [l2norm, gated, beta_given, beta_rounded, tiled, packed] = flags;
            let (batch, read, write, fresh, order) = rows;
            let mut p = plain(shape, batch, state_type, seed);
            let mut noise = Noise::new(seed ^ 0x5eed);

            let retype = |x: &Strided, t: DType| Strided::dense(t, x.width, x.data.clone());
            (p.q, p.k, p.v) = (retype(&p.q, io), retype(&p.k, io), retype(&p.v, io));
            (p.q.stride, p.q.offset) = (p.q.width + 8 * gaps.0, 8 * gaps.1);
            p.k.stride = p.k.width + 8 * gaps.1;
            (p.v.stride, p.v.offset) = (p.v.width + gaps.2, gaps.3);
            if packed {
                p.packed_stride = Some(p.q.width + p.k.width + p.v.width + 8 * gaps.0);
            }
            (p.a, p.b) = (retype(&p.a, a_type), retype(&p.b, b_type));
            (p.a.stride, p.a.offset) = (p.a.width + gaps.4, gaps.3);
            p.b.stride = p.b.width + gaps.2;
            match &mut p.gate {
                Some((a_log, dt_bias)) if gated => {
                    *a_log = retype(a_log, table_type);
                    *dt_bias = retype(dt_bias, a_type);
                }
                gate => {
                    *gate = None;
                    let decays = (0..p.a.data.len()).map(|_| -3.0 * noise.uniform()).collect();
                    p.a.data = Strided::dense(a_type, p.a.width, decays).data;
                }
            }
            p.beta_given = beta_given;
            p.beta_rounded = beta_rounded && !beta_given;
            if beta_given {
                let betas = (0..p.b.data.len()).map(|_| noise.uniform()).collect();
                p.b.data = Strided::dense(b_type, p.b.width, betas).data;
            }
            if p.beta_rounded {
                avoid_ties(&mut p.b, &mut noise);
            }
            p.threshold = threshold;
            p.l2norm = l2norm.then_some(eps);
            if !l2norm {
                // Raw keys of norm one keep the recurrence stable.
                let shrink = |x: &mut Strided| {
                    let scale = (shape.k as f32).sqrt().recip();
                    x.data.iter_mut().for_each(|x| *x = round(*x * scale, io));
                };
                shrink(&mut p.q);
                shrink(&mut p.k);
            }
            p.scale = scale;
            p.heads = if tiled { HeadMap::Tiled } else { HeadMap::Grouped };

            p.slots = 2 * batch + 1;
            let elements = shape.state_elements() as usize;
            p.state = noise.normals(p.slots * elements, 0.1);
            p.state.iter_mut().for_each(|x| *x = round(*x, state_type));
            p.pitch = elements + 8 * gaps.4;
            // Read and write slots are distinct numbers of one shuffled list; some rows are padding.
            let pick = |index: &i32, at: usize| if *index == 0 { order[at] } else { *index };
            p.slot = read.iter().enumerate().map(|(n, i)| pick(i, n)).collect();
            if gaps.0 > 0 {
                let targets = write.iter().enumerate().map(|(n, i)| pick(i, batch + n));
                p.write_slot = Some(targets.collect());
            }
            p.null_slot = (gaps.3 == 1).then_some(order[0]);
            let bytes: Vec<u8> = fresh.iter().map(|f| if *f { 3 } else { 0 }).collect();
            p.start = match gaps.1 {
                0 => StartFlags::None,
                1 => StartFlags::Reset(bytes),
                _ => StartFlags::HasInitialState(bytes),
            };
            p.out_type = if out_f32 { DType::F32 } else { io };
            p.out_stride = shape.value_elements() as usize + gaps.4;
            p
        },
    )
}
