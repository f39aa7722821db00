//! What the tokens of a layer are made of: q, k, v, gate, beta and the options of the recurrence.

use super::check::{VECTOR_BYTES, check_eps, check_rows, check_tensor, check_value};
use super::{CallError, Extent, Extents, Rows, Tensor};
use crate::key::Family;
use crate::key::ModuleKey;
use crate::plan::{self, Plan};
use crate::shape::HeadShape;
use gdn_kernels::abi::{self, DType, flags};

/// How a token's decay is found. In KDA there are K decays a head where GDN has one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decay {
    /// `g = -exp(a_log) * softplus(a + dt_bias)`.
    Softplus {
        /// Raw gate input, rows of HV (KDA: `[HV, K]`).
        a: Rows,
        /// `[HV]`.
        a_log: Tensor,
        /// `[HV]` (KDA: `[HV, K]`).
        dt_bias: Tensor,
        /// softplus(x) is x above this; 20 in every published model.
        threshold: f32,
    },
    /// `g = bound * sigmoid(exp(a_log) * (a + dt_bias))`.
    LowerBound {
        /// Raw gate input, rows of HV (KDA: `[HV, K]`).
        a: Rows,
        /// `[HV]`.
        a_log: Tensor,
        /// `[HV]` (KDA: `[HV, K]`).
        dt_bias: Tensor,
        /// The least log decay; -5 in Kimi-K3.
        bound: f32,
    },
    /// The log decay itself, rows of HV (KDA: `[HV, K]`), from a caller with its own gate.
    Given(Rows),
    /// KDA: the log decay itself by key head, rows of `[H, K]`.
    GivenPerKeyHead(Rows),
}

/// How a token's beta is found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Beta {
    /// `sigmoid(b)`, rows of HV.
    Logits {
        /// Raw beta input.
        b: Rows,
        /// Round beta through the type of `b`, as SGLang's packed decode and Hugging Face do.
        rounded: bool,
    },
    /// Beta itself, rows of HV.
    Given(Rows),
    /// Beta itself for every row of V, rows of `[HV, V]`.
    GivenPerValue(Rows),
}

/// Which key head a value head uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HeadMap {
    /// `hv / (HV / H)`: Hugging Face order.
    #[default]
    Grouped,
    /// `hv % H`: the order of GGUF weights.
    Tiled,
}

/// The inputs of a call's tokens, one row a token, and what holds for all of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Inputs {
    /// Heads of this rank.
    pub shape: HeadShape,
    /// GDN or KDA.
    pub family: Family,
    /// Queries, rows of `[H, K]`, before normalisation and scale. 16-byte aligned, as is its stride.
    pub q: Rows,
    /// Keys, rows of `[H, K]`, before normalisation. 16-byte aligned, as is its stride.
    pub k: Rows,
    /// Values, rows of `[HV, V]`.
    pub v: Rows,
    /// Decay.
    pub decay: Decay,
    /// Beta.
    pub beta: Beta,
    /// Divide q and k by `sqrt(sum of squares + eps)`; the value is eps (1e-6 in every published model).
    pub l2norm: Option<f32>,
    /// Factor on q; `None` is `K^-1/2`.
    pub scale: Option<f32>,
    /// Head map.
    pub heads: HeadMap,
}

impl Inputs {
    /// Type of q, k and v.
    pub fn io(&self) -> DType {
        self.q.tensor.dtype
    }

    pub(super) fn check_options(&self) -> Result<(), CallError> {
        self.shape.check()?;
        let same = |field, have: DType| match have == self.io() {
            true => Ok(()),
            false => Err(CallError::Type { field, have: have.name(), want: "the type of q" }),
        };
        same("k", self.k.tensor.dtype)?;
        same("v", self.v.tensor.dtype)?;
        if let Some(scale) = self.scale {
            check_value("scale", scale, scale.is_finite(), "finite")?;
        }
        if let Some(eps) = self.l2norm {
            check_eps("l2norm", eps)?;
        }
        match self.decay {
            Decay::Softplus { threshold: t, .. } => {
                check_value("decay.threshold", t, t.is_finite() && t >= 0.0, "finite and not negative")
            }
            Decay::LowerBound { bound, .. } => check_value(
                "decay.bound",
                bound,
                bound.is_finite() && bound <= 0.0,
                "finite and not positive",
            ),
            Decay::GivenPerKeyHead(_) if self.family == Family::Gdn => Err(CallError::Combination {
                field: "decay",
                problem: "a decay per key head exists in KDA only",
            }),
            Decay::Given(_) | Decay::GivenPerKeyHead(_) => Ok(()),
        }
    }

    /// There are kernels for the family, K, and the types of inputs and state; `field` is what the state is called. `module`
    /// is the module that has them.
    pub(super) fn check_served(&self, field: &'static str, module: ModuleKey) -> Result<(), CallError> {
        if plan::is_served(module) {
            return Ok(());
        }
        let have = module.state.map_or("none", DType::name);
        Err(match (self.shape.k, module.is_kda(), self.io()) {
            (96 | 256, true, _) => {
                CallError::Combination { field: "family", problem: "KDA has kernels for K = 64 and 128 only" }
            }
            (96 | 256, false, DType::F16) => {
                CallError::Type { field: "q", have: "f16", want: "f32 or bf16, with this K" }
            }
            (96 | 256, false, DType::F32) => {
                CallError::Type { field, have, want: "f32, with q in f32 and this K" }
            }
            (96 | 256, false, DType::Bf16) => {
                CallError::Type { field, have, want: "f32 or bf16, with q in bf16 and this K" }
            }
            _ => CallError::Type {
                field,
                have,
                want: "f32, the type of q, or f16 with q in bf16; of any type in layout VK with K = 128",
            },
        })
    }

    /// An output, of `tokens` rows.
    pub(super) fn check_out(&self, out: &Rows, tokens: u64) -> Result<(), CallError> {
        let have = out.tensor.dtype;
        if have != self.io() && have != DType::F32 {
            return Err(CallError::Type { field: "out", have: have.name(), want: "the type of q, or f32" });
        }
        check_rows("out", out, self.shape.value_elements(), tokens, 1)
    }

    pub(super) fn check_memory(&self, tokens: u64) -> Result<(), CallError> {
        let s = &self.shape;
        check_rows("q", &self.q, s.key_elements(), tokens, VECTOR_BYTES)?;
        check_rows("k", &self.k, s.key_elements(), tokens, VECTOR_BYTES)?;
        check_rows("v", &self.v, s.value_elements(), tokens, 1)?;
        let (field, a) = self.gate_rows();
        check_rows(field, a, self.gate_width(), tokens, 1)?;
        if let Some((a_log, dt_bias)) = self.gate_tables() {
            check_tensor("decay.a_log", a_log, s.hv.into(), 1)?;
            check_tensor("decay.dt_bias", dt_bias, self.gate_width(), 1)?;
        }
        let (field, b) = self.beta_rows();
        check_rows(field, b, self.beta_width(), tokens, 1)
    }

    pub(super) fn push_extents(&self, extents: &mut Extents, tokens: u64) {
        let s = &self.shape;
        let mut rows = |field, r: &Rows, width| extents.push(Extent::rows(field, r, width, tokens, false));
        rows("q", &self.q, s.key_elements());
        rows("k", &self.k, s.key_elements());
        rows("v", &self.v, s.value_elements());
        let ((a_field, a), (b_field, b)) = (self.gate_rows(), self.beta_rows());
        rows(a_field, a, self.gate_width());
        rows(b_field, b, self.beta_width());
        if let Some((a_log, dt_bias)) = self.gate_tables() {
            let mut table = |field, t: &Tensor, len| {
                extents.push(Extent::rows(field, &Rows { tensor: *t, stride: len }, len, 1, false));
            };
            table("decay.a_log", a_log, s.hv.into());
            table("decay.dt_bias", dt_bias, self.gate_width());
        }
    }

    /// The gate's rows, and what they are called.
    fn gate_rows(&self) -> (&'static str, &Rows) {
        match &self.decay {
            Decay::Softplus { a, .. } | Decay::LowerBound { a, .. } => ("decay.a", a),
            Decay::Given(g) | Decay::GivenPerKeyHead(g) => ("decay.given", g),
        }
    }

    /// `a_log` and `dt_bias`.
    fn gate_tables(&self) -> Option<(&Tensor, &Tensor)> {
        match &self.decay {
            Decay::Softplus { a_log, dt_bias, .. } | Decay::LowerBound { a_log, dt_bias, .. } => {
                Some((a_log, dt_bias))
            }
            Decay::Given(_) | Decay::GivenPerKeyHead(_) => None,
        }
    }

    /// Elements of a row of the gate.
    fn gate_width(&self) -> u64 {
        let s = &self.shape;
        let heads = if matches!(self.decay, Decay::GivenPerKeyHead(_)) { s.h } else { s.hv };
        match self.family {
            Family::Gdn => heads.into(),
            Family::Kda => u64::from(heads) * u64::from(s.k),
        }
    }

    fn beta_rows(&self) -> (&'static str, &Rows) {
        match &self.beta {
            Beta::Logits { b, .. } => ("beta.b", b),
            Beta::Given(b) | Beta::GivenPerValue(b) => ("beta.given", b),
        }
    }

    fn beta_width(&self) -> u64 {
        match self.beta {
            Beta::Logits { .. } | Beta::Given(_) => self.shape.hv.into(),
            Beta::GivenPerValue(_) => self.shape.value_elements(),
        }
    }

    /// q, k and v as the kernels take them.
    pub(super) fn to_abi(self) -> abi::Inputs {
        abi::Inputs {
            q: self.q.tensor.address,
            k: self.k.tensor.address,
            v: self.v.tensor.address,
            q_stride: self.q.stride as u32,
            k_stride: self.k.stride as u32,
            v_stride: self.v.stride as u32,
            reserved: 0,
        }
    }

    /// The gate as the kernels take it.
    pub(super) fn gate(&self) -> abi::Gate {
        let ((_, a), (_, b)) = (self.gate_rows(), self.beta_rows());
        let mut gate = abi::Gate {
            a: a.tensor.address,
            b: b.tensor.address,
            a_stride: a.stride as u32,
            b_stride: b.stride as u32,
            a_dtype: a.tensor.dtype as u32,
            b_dtype: b.tensor.dtype as u32,
            softplus_beta: 1.0,
            beta_scale: 1.0,
            ..abi::Gate::default()
        };
        if let Some((a_log, dt_bias)) = self.gate_tables() {
            (gate.a_log, gate.a_log_dtype) = (a_log.address, a_log.dtype as u32);
            (gate.dt_bias, gate.dt_bias_dtype) = (dt_bias.address, dt_bias.dtype as u32);
        }
        match self.decay {
            Decay::Softplus { threshold, .. } => gate.softplus_threshold = threshold,
            Decay::LowerBound { bound, .. } => gate.lower_bound = bound,
            Decay::Given(_) | Decay::GivenPerKeyHead(_) => {}
        }
        gate
    }

    /// Heads, options and factors as the kernels take them; `more` are the call's own flags.
    pub(super) fn layer(&self, plan: &Plan, out: Option<&Rows>, more: u32) -> abi::Layer {
        let s = &self.shape;
        let mut bits = more;
        let mut set = |flag: u32, on: bool| bits |= if on { flag } else { 0 };
        set(flags::L2NORM, self.l2norm.is_some());
        set(flags::DECAY_GIVEN, matches!(self.decay, Decay::Given(_) | Decay::GivenPerKeyHead(_)));
        set(flags::DECAY_PER_KEY_HEAD, matches!(self.decay, Decay::GivenPerKeyHead(_)));
        set(flags::LOWER_BOUND, matches!(self.decay, Decay::LowerBound { .. }));
        set(flags::BETA_GIVEN, !matches!(self.beta, Beta::Logits { .. }));
        set(flags::BETA_PER_VALUE, matches!(self.beta, Beta::GivenPerValue(_)));
        set(flags::BETA_ROUNDED, matches!(self.beta, Beta::Logits { rounded: true, .. }));
        set(flags::OUT_F32, out.is_some_and(|out| out.tensor.dtype == DType::F32));
        set(flags::HEADS_TILED, self.heads == HeadMap::Tiled);
        set(flags::EARLY, plan.early);
        abi::Layer {
            h: s.h,
            hv: s.hv,
            v: s.v,
            tiles_reciprocal: abi::head_reciprocal(plan.tiles.max(1)),
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

/// Views of q, k and v in a packed row `[q | k | v]`, `mixed` being rows of at least
/// `2 * H * K + HV * V` elements (the input of SGLang's packed decode).
pub fn split_mixed_qkv(mixed: &Rows, shape: &HeadShape) -> (Rows, Rows, Rows) {
    (mixed.view(0), mixed.view(shape.key_elements()), mixed.view(2 * shape.key_elements()))
}
