//! What the tokens of a layer are made of: heads, q, k, v, decay and beta.

use crate::memory::{Argument, gdn_rows, gdn_tensor};
use crate::read::{check_flags, check_reserved, check_zero, or_default, unknown};
use crate::status::Failure;
use gdn_host::{
    ALog, Beta, Decay, DtBias, Family, HeadMap, HeadShape, Inputs, Key, Logits, LowerBound, Query, Softplus,
    Value,
};

/// How many decays a value head has.
pub type gdn_family = u32;

/// One: gated delta net (Qwen3-Next, Qwen3.5).
pub const GDN_FAMILY_GDN: gdn_family = 0;
/// One for each element along K: Kimi delta attention.
pub const GDN_FAMILY_KDA: gdn_family = 1;

/// Value head `hv` uses key head `hv / (HV / H)`: Hugging Face order.
pub const GDN_HEADS_GROUPED: u32 = 0;
/// Value head `hv` uses key head `hv % H`: the order of GGUF weights.
pub const GDN_HEADS_TILED: u32 = 1;

/// `g = -exp(a_log) * softplus(a + dt_bias)`, with `softplus(x) = log(1 + e^(beta x)) / beta`.
pub const GDN_DECAY_SOFTPLUS: u32 = 0;
/// `g = bound * sigmoid(exp(a_log) * (a + dt_bias))`.
pub const GDN_DECAY_LOWER_BOUND: u32 = 1;
/// The log decay itself.
pub const GDN_DECAY_GIVEN: u32 = 2;
/// KDA: the log decay itself by key head.
pub const GDN_DECAY_GIVEN_PER_KEY_HEAD: u32 = 3;

/// `scale * sigmoid(b)`.
pub const GDN_BETA_LOGITS: u32 = 0;
/// Beta itself.
pub const GDN_BETA_GIVEN: u32 = 1;
/// Beta itself for every row of V.
pub const GDN_BETA_GIVEN_PER_VALUE: u32 = 2;

/// Of `gdn_beta.flags`: round beta through the type of `b`, as SGLang's packed decode and Hugging Face do.
pub const GDN_BETA_ROUNDED: u32 = 1;

/// Of `gdn_inputs.flags`: q and k are taken as they are, not normalised.
pub const GDN_NO_L2NORM: u32 = 1;

/// Heads of a layer on one tensor-parallel rank. q and k have H heads of K elements, v and the output HV heads of V elements;
/// each value head owns a state of V x K.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct gdn_shape {
    /// Key heads, H.
    pub h: u32,
    /// Value heads, HV: a multiple of H, at most 32,768.
    pub hv: u32,
    /// Key dimension, K: 64, 96, 128 or 256.
    pub k: u32,
    /// Value dimension, V: a multiple of 32 from 32 to 512.
    pub v: u32,
}

/// How a token's decay is found. Fields that the kind does not read are 0.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gdn_decay {
    /// `GDN_DECAY_*`; 0 is the gate of Qwen3-Next, Qwen3.5 and Kimi-Linear.
    pub kind: u32,
    /// 0.
    pub reserved: u32,
    /// With a gate: its raw input, rows of HV (KDA: `[HV, K]`).
    pub a: gdn_rows,
    /// Without a gate: the log decay, rows of HV (KDA: `[HV, K]`; by key head `[H, K]`).
    pub given: gdn_rows,
    /// With a gate: `[HV]`; absent: the rate `exp(a_log)` is 1. GGUF files hold `ssm_a = -exp(A_log)`: hand over `log(-ssm_a)`.
    pub a_log: gdn_tensor,
    /// With a gate: `[HV]` (KDA: `[HV, K]`); absent: nothing is added.
    pub dt_bias: gdn_tensor,
    /// Softplus: `beta` above; 0 stands for 1.
    pub beta: f32,
    /// Softplus: `softplus(x)` is x where `beta x` is above this; 0 stands for 20.
    pub threshold: f32,
    /// Lower bound: the least log decay, not positive; -5 in Kimi-K3.
    pub bound: f32,
    /// 0.
    pub reserved1: u32,
}

/// How a token's beta is found. Fields that the kind does not read are 0.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gdn_beta {
    /// `GDN_BETA_*`; 0 is what published models have.
    pub kind: u32,
    /// `GDN_BETA_ROUNDED` or 0.
    pub flags: u32,
    /// Logits: rows of HV.
    pub b: gdn_rows,
    /// Beta itself, rows of HV; for every row of V `[HV, V]`.
    pub given: gdn_rows,
    /// Logits: factor on the sigmoid; 0 stands for 1. It is 2 where negative eigenvalues are allowed (OLMo-Hybrid).
    pub scale: f32,
    /// 0.
    pub reserved: u32,
}

/// The inputs of a call's tokens, one row a token, and what holds for all of them.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gdn_inputs {
    /// Heads of this rank.
    pub shape: gdn_shape,
    /// `GDN_FAMILY_GDN` or `GDN_FAMILY_KDA`.
    pub family: gdn_family,
    /// `GDN_HEADS_GROUPED` or `GDN_HEADS_TILED`.
    pub heads: u32,
    /// `GDN_NO_L2NORM` or 0.
    pub flags: u32,
    /// q and k are divided by `sqrt(sum of squares + l2norm)`; 0 stands for 1e-6.
    pub l2norm: f32,
    /// Factor on q; 0 stands for `K^-1/2`.
    pub scale: f32,
    /// 0.
    pub reserved: u32,
    /// Queries, rows of `[H, K]`, before normalisation and scale. 16-byte aligned, as is their stride.
    pub q: gdn_rows,
    /// Keys, rows of `[H, K]`, before normalisation, of the type of q. 16-byte aligned, as is their stride.
    pub k: gdn_rows,
    /// Values, rows of `[HV, V]`, of the type of q.
    pub v: gdn_rows,
    /// Decay.
    pub decay: gdn_decay,
    /// Beta.
    pub beta: gdn_beta,
    /// 0.
    pub reserved1: [u64; 4],
}

impl gdn_shape {
    pub(crate) fn to_host(self) -> HeadShape {
        let gdn_shape { h, hv, k, v } = self;
        HeadShape { h, hv, k, v }
    }
}

pub(crate) fn family(field: &str, have: gdn_family) -> Result<Family, Failure> {
    match have {
        GDN_FAMILY_GDN => Ok(Family::Gdn),
        GDN_FAMILY_KDA => Ok(Family::Kda),
        other => unknown(field, other, "GDN_FAMILY_GDN or GDN_FAMILY_KDA"),
    }
}

pub(crate) fn heads(field: &str, have: u32) -> Result<HeadMap, Failure> {
    match have {
        GDN_HEADS_GROUPED => Ok(HeadMap::Grouped),
        GDN_HEADS_TILED => Ok(HeadMap::Tiled),
        other => unknown(field, other, "GDN_HEADS_GROUPED or GDN_HEADS_TILED"),
    }
}

/// The eps with which keys are normalised, if they are.
pub(crate) fn l2norm(field: &str, flags: u32, have: f32) -> Result<Option<f32>, Failure> {
    match flags & GDN_NO_L2NORM {
        0 => Ok(Some(or_default(have, 1e-6))),
        _ => check_zero(field, have, "GDN_NO_L2NORM is set").map(|()| None),
    }
}

impl gdn_decay {
    fn read(&self) -> Result<Decay, Failure> {
        check_reserved("decay.reserved", self.reserved)?;
        check_reserved("decay.reserved1", self.reserved1)?;
        let (has_gate, is_softplus) = match self.kind {
            GDN_DECAY_SOFTPLUS => (true, true),
            GDN_DECAY_LOWER_BOUND => (true, false),
            GDN_DECAY_GIVEN | GDN_DECAY_GIVEN_PER_KEY_HEAD => (false, false),
            other => return unknown("decay.kind", other, "one of GDN_DECAY_*"),
        };
        if !is_softplus {
            check_zero("decay.beta", self.beta, "it is softplus's")?;
            check_zero("decay.threshold", self.threshold, "it is softplus's")?;
        }
        if self.kind != GDN_DECAY_LOWER_BOUND {
            check_zero("decay.bound", self.bound, "it is that of GDN_DECAY_LOWER_BOUND")?;
        }
        if !has_gate {
            let why = "the decay is given, no gate is applied";
            self.a.absent("decay.a", why)?;
            self.a_log.absent("decay.a_log", why)?;
            self.dt_bias.absent("decay.dt_bias", why)?;
            let given = self.given.required("decay.given")?;
            let by_value = self.kind == GDN_DECAY_GIVEN;
            return Ok(if by_value { Decay::Given(given) } else { Decay::GivenPerKeyHead(given) });
        }
        self.given.absent("decay.given", "a gate makes the decay")?;
        let a = self.a.required("decay.a")?;
        let a_log = self.a_log.optional("decay.a_log")?.map(ALog);
        let dt_bias = self.dt_bias.optional("decay.dt_bias")?.map(DtBias);
        Ok(if is_softplus {
            let (beta, threshold) = (or_default(self.beta, 1.0), or_default(self.threshold, 20.0));
            Softplus::new(a, a_log, dt_bias).with_beta(beta).with_threshold(threshold).into()
        } else {
            LowerBound::new(a, a_log, dt_bias, self.bound).into()
        })
    }
}

impl gdn_beta {
    fn read(&self) -> Result<Beta, Failure> {
        check_flags("beta.flags", self.flags, GDN_BETA_ROUNDED)?;
        check_reserved("beta.reserved", self.reserved)?;
        match self.kind {
            GDN_BETA_LOGITS => {
                self.given.absent("beta.given", "beta is made of logits")?;
                let logits = Logits::new(self.b.required("beta.b")?).with_rounding(self.flags != 0);
                Ok(logits.with_scale(or_default(self.scale, 1.0)).into())
            }
            GDN_BETA_GIVEN | GDN_BETA_GIVEN_PER_VALUE => {
                let why = "beta is given";
                self.b.absent("beta.b", why)?;
                check_zero("beta.scale", self.scale, why)?;
                check_zero("beta.flags", self.flags, why)?;
                let given = self.given.required("beta.given")?;
                let by_head = self.kind == GDN_BETA_GIVEN;
                Ok(if by_head { Beta::Given(given) } else { Beta::GivenPerValue(given) })
            }
            other => unknown("beta.kind", other, "one of GDN_BETA_*"),
        }
    }
}

impl gdn_inputs {
    pub(crate) fn read(&self) -> Result<Inputs, Failure> {
        let family = family("family", self.family)?;
        let heads = heads("heads", self.heads)?;
        check_flags("inputs.flags", self.flags, GDN_NO_L2NORM)?;
        check_reserved("inputs.reserved", self.reserved)?;
        for word in self.reserved1 {
            check_reserved("inputs.reserved1", word)?;
        }
        let l2norm = l2norm("l2norm", self.flags, self.l2norm)?;
        let (q, k, v) = (self.q.required("q")?, self.k.required("k")?, self.v.required("v")?);
        let (q, k, v) = (Query(q), Key(k), Value(v));
        let (shape, decay, beta) = (self.shape.to_host(), self.decay.read()?, self.beta.read()?);
        let inputs = match family {
            Family::Gdn => Inputs::gdn(shape, q, k, v, decay, beta),
            Family::Kda => Inputs::kda(shape, q, k, v, decay, beta),
        };
        let inputs = inputs.with_l2norm(l2norm).with_heads(heads);
        Ok(if self.scale == 0.0 { inputs } else { inputs.with_scale(self.scale) })
    }
}
