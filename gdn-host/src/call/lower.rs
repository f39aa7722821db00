//! From a call to what is launched: the extents of its arguments, and the kernel's parameter struct.

use super::{Beta, Decay, Decode, Extent, HeadMap, Rows, Start, Table, Tensor};
use crate::plan::Plan;
use gdn_kernels::abi::{self, DType, DecodeParams, flags};

/// Most arguments a call has.
const FIELDS: usize = 12;

impl Decode {
    /// What the call touches, argument by argument. Arguments not given have no rows.
    pub fn extents(&self) -> [Extent; FIELDS] {
        let (s, n) = (&self.shape, u64::from(self.batch));
        let hv = u64::from(s.hv);
        let rows = |field, r: &Rows, width: u64, rows: u64, written| Extent {
            field,
            address: r.tensor.address,
            rows,
            row_bytes: width * r.tensor.dtype.size() as u64,
            stride_bytes: r.stride * r.tensor.dtype.size() as u64,
            written,
        };
        let table = |field, t: Option<&Table>, size: u64| Extent {
            field,
            address: t.map_or(0, |t| t.address),
            rows: t.map_or(0, |_| 1),
            row_bytes: n * size,
            stride_bytes: 0,
            written: false,
        };
        let none = |field| table(field, None, 1);
        let packed = |field, t: &Tensor| rows(field, &Rows { tensor: *t, stride: hv }, hv, 1, false);
        let (decay, a_log, dt_bias) = match &self.decay {
            Decay::Softplus { a, a_log, dt_bias, .. } => (
                rows("decay.a", a, hv, n, false),
                packed("decay.a_log", a_log),
                packed("decay.dt_bias", dt_bias),
            ),
            Decay::Given(g) => {
                (rows("decay.given", g, hv, n, false), none("decay.a_log"), none("decay.dt_bias"))
            }
        };
        let beta = match &self.beta {
            Beta::Logits { b, .. } => rows("beta.b", b, hv, n, false),
            Beta::Given(b) => rows("beta.given", b, hv, n, false),
        };
        let reset = match &self.start {
            Start::FromSlot => None,
            Start::Reset(t) | Start::HasInitialState(t) => Some(t),
        };
        let pool = Rows { tensor: self.state.tensor, stride: self.state.pitch };
        [
            rows("q", &self.q, s.key_elements(), n, false),
            rows("k", &self.k, s.key_elements(), n, false),
            rows("v", &self.v, s.value_elements(), n, false),
            decay,
            a_log,
            dt_bias,
            beta,
            rows("state", &pool, s.state_elements(), self.state.slots.into(), true),
            table("slots", Some(&self.slots), 4),
            table("write_slots", self.write_slots.as_ref(), 4),
            table("start", reset, 1),
            rows("out", &self.out, s.value_elements(), n, true),
        ]
    }

    /// The kernel argument of a checked call that is launched as `plan` says.
    pub fn params(&self, plan: &Plan) -> DecodeParams {
        let s = &self.shape;
        let mut bits = 0;
        let mut set = |flag: u32, on: bool| bits |= if on { flag } else { 0 };
        set(flags::L2NORM, self.l2norm.is_some());
        set(flags::DECAY_GIVEN, matches!(self.decay, Decay::Given(_)));
        set(flags::BETA_GIVEN, matches!(self.beta, Beta::Given(_)));
        set(flags::BETA_ROUNDED, matches!(self.beta, Beta::Logits { rounded: true, .. }));
        set(flags::OUT_F32, self.out.tensor.dtype == DType::F32);
        set(flags::HEADS_TILED, self.heads == HeadMap::Tiled);
        set(flags::RESET_INVERTED, matches!(self.start, Start::HasInitialState(_)));
        let mut gate = abi::Gate::default();
        let a = match &self.decay {
            Decay::Softplus { a, a_log, dt_bias, threshold } => {
                gate.a_log = a_log.address;
                gate.a_log_dtype = a_log.dtype as u32;
                gate.dt_bias = dt_bias.address;
                gate.dt_bias_dtype = dt_bias.dtype as u32;
                gate.softplus_threshold = *threshold;
                a
            }
            Decay::Given(g) => g,
        };
        let (Beta::Logits { b, .. } | Beta::Given(b)) = &self.beta;
        (gate.a, gate.a_stride, gate.a_dtype) = (a.tensor.address, a.stride as u32, a.tensor.dtype as u32);
        (gate.b, gate.b_stride, gate.b_dtype) = (b.tensor.address, b.stride as u32, b.tensor.dtype as u32);
        DecodeParams {
            inputs: abi::Inputs {
                q: self.q.tensor.address,
                k: self.k.tensor.address,
                v: self.v.tensor.address,
                q_stride: self.q.stride as u32,
                k_stride: self.k.stride as u32,
                v_stride: self.v.stride as u32,
                reserved: 0,
            },
            gate,
            pool: abi::Pool {
                state: self.state.tensor.address,
                slot: self.slots.address,
                write_slot: self.write_slots.map_or(0, |t| t.address),
                reset: match self.start {
                    Start::FromSlot => 0,
                    Start::Reset(t) | Start::HasInitialState(t) => t.address,
                },
                pitch: self.state.pitch as u32,
                slots: self.state.slots,
                null_slot: self.null_slot.unwrap_or(-1),
                reserved: 0,
            },
            out: self.out.tensor.address,
            out_stride: self.out.stride as u32,
            n: self.batch,
            h: s.h,
            hv: s.hv,
            v: s.v,
            tiles_log2: plan.tiles_log2,
            head_reciprocal: abi::head_reciprocal(match self.heads {
                HeadMap::Grouped => s.ratio(),
                HeadMap::Tiled => s.h,
            }),
            flags: bits,
            scale: self.scale.unwrap_or_else(|| (s.k as f32).sqrt().recip()),
            eps: self.l2norm.unwrap_or(1.0),
        }
    }
}
