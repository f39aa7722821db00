//! What random problems of both operations have in common: everything but which states they read and write.

use super::{Noise, Plain};
use crate::problem::{Beta, Decay, Out, Problem, Tokens};
use crate::strided::{Strided, round};
use crate::table::TableForm;
use gdn_host::{DType, Entry, Family, HeadMap, HeadShape, Layout};
use proptest::prelude::*;

/// The gates.
#[derive(Clone, Copy, Debug)]
enum Gate {
    Softplus,
    LowerBound,
    Given,
    GivenPerKeyHead,
}

/// The drawn options.
#[derive(Clone, Debug)]
pub(super) struct Options {
    shape: HeadShape,
    family: Family,
    layout: Layout,
    /// Types of the state, of q, k and v, and of a, b, a_log and dt_bias.
    types: [DType; 6],
    gate: Gate,
    softplus_beta: f32,
    threshold: f32,
    /// Whether a_log and dt_bias are left out.
    omitted: [bool; 2],
    beta: Beta,
    l2norm: Option<f32>,
    scale: Option<f32>,
    heads: HeadMap,
    packed: bool,
    out_f32: bool,
    /// Gaps between rows and in front of them, in elements, or in vectors of eight of them.
    pub(super) gaps: [usize; 5],
    tables: TableForm,
    pub(super) seed: u64,
}

fn dtype() -> impl Strategy<Value = DType> {
    prop_oneof![Just(DType::F32), Just(DType::Bf16), Just(DType::F16)]
}

/// Shapes with every ratio that models have, small enough to simulate.
fn shape() -> impl Strategy<Value = HeadShape> {
    let k = prop_oneof![3 => Just(64u32), 3 => Just(128), 1 => Just(96), 1 => Just(256)];
    let v = prop_oneof![3 => Just(64u32), 3 => Just(128), 2 => (1u32..=16).prop_map(|v| 32 * v)];
    (1u32..=3, prop_oneof![Just(1u32), Just(2), Just(3), Just(4), Just(8)], k, v)
        .prop_map(|(h, ratio, k, v)| HeadShape { h, hv: h * ratio, k, v })
        .prop_filter("small", |s| s.hv <= 8 && s.state_elements() <= 4 * 128 * 128)
}

fn tables() -> impl Strategy<Value = TableForm> {
    let index = prop_oneof![Just(Entry::I32), Just(Entry::U32), Just(Entry::I64)];
    let flag = prop_oneof![Just(Entry::U8), Just(Entry::I32), Just(Entry::U32)];
    (index, flag, 0usize..3).prop_map(|(index, flag, gap)| TableForm { index, flag, gap })
}

/// Options with everything drawn that may vary.
pub(super) fn options() -> impl Strategy<Value = Options> {
    let kind = (
        shape(),
        prop_oneof![Just(Family::Gdn), Just(Family::Kda)],
        prop_oneof![Just(Layout::Vk), Just(Layout::Kv)],
        [dtype(), dtype(), dtype(), dtype(), dtype(), dtype()],
    );
    let gate = prop_oneof![
        Just(Gate::Softplus),
        Just(Gate::LowerBound),
        Just(Gate::Given),
        Just(Gate::GivenPerKeyHead)
    ];
    let beta = prop_oneof![
        (any::<bool>(), prop_oneof![Just(1.0f32), Just(2.0), Just(0.75)])
            .prop_map(|(rounded, scale)| Beta::Logits { rounded, scale }),
        Just(Beta::Given),
        Just(Beta::GivenPerValue)
    ];
    let numbers = (
        prop_oneof![Just(20.0f32), Just(0.5f32)],
        prop_oneof![2 => Just(1.0f32), 1 => Just(0.5), 1 => Just(3.0)],
        prop_oneof![Just(None), Just(Some(1e-6f32)), Just(Some(1e-3f32))],
        prop_oneof![Just(None), Just(Some(1.0f32)), Just(Some(0.05f32))],
        prop_oneof![Just(HeadMap::Grouped), Just(HeadMap::Tiled)],
    );
    let gaps = [0usize..3, 0..3, 0..5, 0..3, 0..5];
    (kind, gate, beta, numbers, any::<[bool; 4]>(), gaps, tables(), any::<u64>()).prop_map(
        |(
            (shape, family, layout, types),
            gate,
            beta,
            numbers,
            [packed, out_f32, no_rate, no_bias],
            gaps,
            tables,
            seed,
        )| {
            let (threshold, softplus_beta, l2norm, scale, heads) = numbers;
            // KDA has no kernels for other dimensions.
            let family = if matches!(shape.k, 64 | 128) { family } else { Family::Gdn };
            let seed = seed >> 1;
            Options {
                shape,
                family,
                layout,
                types,
                gate,
                softplus_beta,
                threshold,
                omitted: [no_rate, no_bias],
                beta,
                l2norm,
                scale,
                heads,
                packed,
                out_f32,
                gaps,
                tables,
                seed,
            }
        },
    )
}

impl Options {
    /// Whether replay has kernels for its dimensions.
    pub(super) fn has_records(&self) -> bool {
        self.shape.k == 128 || self.is_for_decode()
    }

    /// Whether only replay's decode has kernels for its dimensions.
    pub(super) fn is_for_decode(&self) -> bool {
        self.shape.k == 64 && self.family == Family::Gdn && self.types[1] != DType::F16
    }

    /// A problem with these options: sequence n in slot n.
    pub(super) fn problem(&self, tokens: Tokens) -> Problem {
        let [state, io, ..] = self.types;
        let &Options { shape, family, layout, seed, .. } = self;
        // The nearest that kernels exist for.
        let is_common = matches!(shape.k, 64 | 128);
        let io = if is_common || io != DType::F16 { io } else { DType::Bf16 };
        let is_mixed =
            shape.k == 128 && layout == Layout::Vk || is_common && (state, io) == (DType::F16, DType::Bf16);
        let state = if is_mixed || state == DType::F32 { state } else { io };
        let mut p = Plain { shape, family, layout, state, io, tokens, seed }.problem();
        let mut noise = Noise::new(seed ^ 0x5eed);
        self.set_gate(&mut p, &mut noise);
        self.set_beta(&mut p, &mut noise);
        self.set_strides(&mut p);
        match self.l2norm {
            Some(eps) => p.l2norm = Some(eps),
            None => p.drop_l2norm(),
        }
        (p.scale, p.heads, p.tables) = (self.scale, self.heads, self.tables);
        p.out = p.out.map(|Out { dtype, stride }| Out {
            dtype: if self.out_f32 { DType::F32 } else { dtype },
            stride: stride + self.gaps[4],
        });
        p
    }

    fn set_gate(&self, p: &mut Problem, noise: &mut Noise) {
        let [_, _, a_type, _, a_log_type, dt_bias_type] = self.types;
        match self.gate {
            Gate::Given => return p.give_decays(a_type, false, noise),
            Gate::GivenPerKeyHead => return p.give_decays(a_type, self.family == Family::Kda, noise),
            Gate::Softplus | Gate::LowerBound => p.a = p.a.retyped(a_type),
        }
        let Decay::Softplus { a_log, dt_bias, .. } = &p.decay else { return };
        let (mut a_log, mut dt_bias) = (a_log.retyped(a_log_type), dt_bias.retyped(dt_bias_type));
        for (table, omitted) in [&mut a_log, &mut dt_bias].into_iter().zip(self.omitted) {
            if omitted {
                table.data.fill(0.0);
            }
        }
        p.omit_zeros = true;
        p.decay = match self.gate {
            Gate::LowerBound => Decay::LowerBound { a_log, dt_bias, bound: -5.0 },
            _ => Decay::Softplus { a_log, dt_bias, beta: self.softplus_beta, threshold: self.threshold },
        };
    }

    fn set_beta(&self, p: &mut Problem, noise: &mut Noise) {
        let b_type = self.types[3];
        match self.beta {
            Beta::Given => p.give_betas(b_type, false, noise),
            Beta::GivenPerValue => p.give_betas(b_type, true, noise),
            Beta::Logits { rounded, scale } => {
                (p.b, p.beta) = (p.b.retyped(b_type), self.beta);
                if rounded {
                    avoid_ties(&mut p.b, scale, noise);
                }
            }
        }
    }

    /// Gaps in vectors of eight elements where rows are to stay aligned.
    fn set_strides(&self, p: &mut Problem) {
        let gaps = self.gaps;
        (p.q.stride, p.q.offset) = (p.q.width + 8 * gaps[0], 8 * gaps[1]);
        p.k.stride = p.k.width + 8 * gaps[1];
        (p.v.stride, p.v.offset) = (p.v.width + gaps[2], gaps[3]);
        if self.packed {
            p.packed_stride = Some(p.q.width + p.k.width + p.v.width + 8 * gaps[0]);
        }
        let unit = if self.family == Family::Kda { 8 } else { 1 };
        (p.a.stride, p.a.offset) = (p.a.width + unit * gaps[4], unit * gaps[3]);
        p.b.stride = p.b.width + gaps[2];
    }
}

/// Redraws logits whose sigmoid lies so close to the middle of two values of its type that f32 and f64
/// arithmetic may round it to different ones.
fn avoid_ties(b: &mut Strided, scale: f32, noise: &mut Noise) {
    let dtype = b.dtype;
    let tie = |x: f32| {
        let beta = f64::from(scale) * gdn_host::reference::sigmoid(x.into());
        let near = |sign: f64| round((beta * (1.0 + sign * 1e-5)) as f32, dtype);
        near(1.0) != near(-1.0)
    };
    for x in &mut b.data {
        while dtype != DType::F32 && tie(*x) {
            *x = round(noise.normal(1.0), dtype);
        }
    }
}
