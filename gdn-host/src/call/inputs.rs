//! What the tokens of a layer are made of: q, k, v, gate, beta and the options of the recurrence.

use super::check::{VECTOR_BYTES, check_eps, check_rows, check_tensor, check_value};
use super::{Beta, CallError, Decay, Extent, Extents, Rows, Tensor};
use crate::key::Family;
use crate::key::ModuleKey;
use crate::plan::{self, Plan};
use crate::shape::HeadShape;
use gdn_kernels::abi::{self, DType, flags};

/// Queries, rows of `[H, K]`, before normalisation and scale. 16-byte aligned, as is their stride.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query(pub Rows);

/// Keys, rows of `[H, K]`, before normalisation. 16-byte aligned, as is their stride.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(pub Rows);

/// Values, rows of `[HV, V]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value(pub Rows);

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
#[non_exhaustive]
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
    /// Inputs of gated delta net, one decay a head, as published models have them: q and k are normalised with an eps of
    /// 1e-6, q is scaled by `K^-1/2`, key heads are grouped.
    ///
    /// q, k and v have types of their own, because swapped they would compile, and where sizes agree run. The rows of decay
    /// and beta are told apart by where they stand only: `a` makes the decay, `b` makes beta.
    pub fn gdn(
        shape: HeadShape,
        q: Query,
        k: Key,
        v: Value,
        decay: impl Into<Decay>,
        beta: impl Into<Beta>,
    ) -> Inputs {
        let (family, decay, beta) = (Family::Gdn, decay.into(), beta.into());
        let (l2norm, scale, heads) = (Some(1e-6), None, HeadMap::Grouped);
        Inputs { shape, family, q: q.0, k: k.0, v: v.0, decay, beta, l2norm, scale, heads }
    }

    /// Inputs of Kimi delta attention, one decay for each element along K; else as [`Inputs::gdn`].
    pub fn kda(
        shape: HeadShape,
        q: Query,
        k: Key,
        v: Value,
        decay: impl Into<Decay>,
        beta: impl Into<Beta>,
    ) -> Inputs {
        Inputs { family: Family::Kda, ..Inputs::gdn(shape, q, k, v, decay, beta) }
    }

    /// The same inputs normalised with another eps, or not at all.
    pub fn with_l2norm(self, l2norm: Option<f32>) -> Inputs {
        Inputs { l2norm, ..self }
    }

    /// The same inputs with another factor on q.
    pub fn with_scale(self, scale: f32) -> Inputs {
        Inputs { scale: Some(scale), ..self }
    }

    /// The same inputs with another head map.
    pub fn with_heads(self, heads: HeadMap) -> Inputs {
        Inputs { heads, ..self }
    }

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
        if self.family == Family::Gdn && matches!(self.decay, Decay::GivenPerKeyHead(_)) {
            let problem = "a decay per key head exists in KDA only";
            return Err(CallError::Combination { field: "decay", problem });
        }
        self.decay.check()?;
        self.beta.check()
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
        let (field, a) = self.decay.rows();
        check_rows(field, a, self.gate_width(), tokens, 1)?;
        for (field, table, len) in self.gate_tables() {
            check_tensor(field, table, len, 1)?;
        }
        let (field, b) = self.beta.rows();
        check_rows(field, b, self.beta_width(), tokens, 1)
    }

    pub(super) fn push_extents(&self, extents: &mut Extents, tokens: u64) {
        let s = &self.shape;
        let mut rows = |field, r: &Rows, width| extents.push(Extent::rows(field, r, width, tokens, false));
        rows("q", &self.q, s.key_elements());
        rows("k", &self.k, s.key_elements());
        rows("v", &self.v, s.value_elements());
        let ((a_field, a), (b_field, b)) = (self.decay.rows(), self.beta.rows());
        rows(a_field, a, self.gate_width());
        rows(b_field, b, self.beta_width());
        for (field, table, len) in self.gate_tables() {
            extents.push(Extent::rows(field, &Rows { tensor: *table, stride: len }, len, 1, false));
        }
    }

    /// `a_log` and `dt_bias`, those that there are: what they are called, and their elements.
    fn gate_tables(&self) -> impl Iterator<Item = (&'static str, &Tensor, u64)> {
        let (a_log, dt_bias) = self.decay.tables();
        let tables =
            [("decay.a_log", a_log, self.shape.hv.into()), ("decay.dt_bias", dt_bias, self.gate_width())];
        tables.into_iter().filter_map(|(field, table, len)| Some((field, table?, len)))
    }

    /// Elements of a row of the gate.
    pub(crate) fn gate_width(&self) -> u64 {
        let s = &self.shape;
        let heads = if matches!(self.decay, Decay::GivenPerKeyHead(_)) { s.h } else { s.hv };
        match self.family {
            Family::Gdn => heads.into(),
            Family::Kda => u64::from(heads) * u64::from(s.k),
        }
    }

    /// Elements of a row of beta.
    pub(crate) fn beta_width(&self) -> u64 {
        match self.beta {
            Beta::Logits(_) | Beta::Given(_) => self.shape.hv.into(),
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
            scale: self.scale.unwrap_or_else(|| (self.shape.k as f32).sqrt().recip()),
            eps: self.l2norm.unwrap_or(1.0),
            reserved: 0,
        }
    }

    /// The gate as the kernels take it.
    pub(super) fn gate(&self) -> abi::Gate {
        let ((_, a), (_, b)) = (self.decay.rows(), self.beta.rows());
        let mut gate = abi::Gate {
            a: a.tensor.address,
            b: b.tensor.address,
            a_stride: a.stride as u32,
            b_stride: b.stride as u32,
            a_dtype: a.tensor.dtype as u32,
            b_dtype: b.tensor.dtype as u32,
            ..abi::Gate::default()
        };
        let (a_log, dt_bias) = self.decay.tables();
        if let Some(a_log) = a_log {
            (gate.a_log, gate.a_log_dtype) = (a_log.address, a_log.dtype as u32);
        }
        if let Some(dt_bias) = dt_bias {
            (gate.dt_bias, gate.dt_bias_dtype) = (dt_bias.address, dt_bias.dtype as u32);
        }
        match &self.decay {
            Decay::Softplus(softplus) => {
                (gate.softplus_beta, gate.softplus_threshold) = (softplus.beta, softplus.threshold);
            }
            Decay::LowerBound(lower_bound) => gate.lower_bound = lower_bound.bound,
            Decay::Given(_) | Decay::GivenPerKeyHead(_) => {}
        }
        if let Beta::Logits(logits) = &self.beta {
            gate.beta_scale = logits.scale;
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
        set(flags::LOWER_BOUND, matches!(self.decay, Decay::LowerBound(_)));
        set(flags::BETA_GIVEN, !matches!(self.beta, Beta::Logits(_)));
        set(flags::BETA_PER_VALUE, matches!(self.beta, Beta::GivenPerValue(_)));
        set(flags::BETA_ROUNDED, matches!(&self.beta, Beta::Logits(logits) if logits.rounded));
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
        }
    }
}

/// Views of q, k and v in a packed row `[q | k | v]`, `mixed` being rows of at least
/// `2 * H * K + HV * V` elements (the input of SGLang's packed decode).
pub fn split_mixed_qkv(mixed: &Rows, shape: &HeadShape) -> (Query, Key, Value) {
    let keys = shape.key_elements();
    (Query(mixed.view(0)), Key(mixed.view(keys)), Value(mixed.view(keys.saturating_mul(2))))
}
