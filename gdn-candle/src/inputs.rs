//! What the tokens of a layer are made of: q, k, v, decay, beta, and the options of the recurrence.

use crate::lock::{Memory, Operands};
use crate::memory::{Cut, cut};
use candle_core::{DType, Result, Tensor};
use gdn_host::{ALog, DtBias, Family, HeadMap, HeadShape, Key, Query, Value};

/// The function that makes a decay of its input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum GateKind {
    /// `g = -exp(a_log) * softplus(a + dt_bias)`: Qwen, Kimi-Linear.
    Softplus,
    /// `g = bound * sigmoid(exp(a_log) * (a + dt_bias))`: Kimi-K3, with a bound of -5.
    LowerBound(f32),
}

/// A layer's gate: its function and its weights.
#[derive(Clone, Debug)]
pub struct Gate {
    /// The function.
    pub kind: GateKind,
    /// `[HV]`; without it the rate `exp(a_log)` is 1.
    pub a_log: Option<Tensor>,
    /// `[HV]`, in KDA `[HV, K]`; without it nothing is added.
    pub dt_bias: Option<Tensor>,
}

impl Gate {
    /// The gate of Qwen and Kimi-Linear. `a_log` is `A_log` as Hugging Face stores it; GGUF files hold `-exp(A_log)`.
    pub fn softplus(a_log: &Tensor, dt_bias: &Tensor) -> Gate {
        let kind = GateKind::Softplus;
        Gate { kind, a_log: Some(a_log.clone()), dt_bias: Some(dt_bias.clone()) }
    }

    /// The gate of Kimi-K3.
    pub fn lower_bound(a_log: &Tensor, dt_bias: &Tensor, bound: f32) -> Gate {
        Gate { kind: GateKind::LowerBound(bound), ..Gate::softplus(a_log, dt_bias) }
    }

    /// The decays that it makes of rows `[.., HV]`, in KDA `[.., HV, K]`.
    pub fn of(&self, a: &Tensor) -> Decay {
        Decay::Gate { a: a.clone(), gate: self.clone() }
    }
}

/// How a token's decay is found. In KDA there are K decays a head where GDN has one.
#[derive(Clone, Debug)]
pub enum Decay {
    /// By a gate from its raw input.
    Gate {
        /// Rows of `[HV]`, in KDA `[HV, K]`.
        a: Tensor,
        /// The gate.
        gate: Gate,
    },
    /// The log decay itself, rows of `[HV]`, in KDA `[HV, K]`.
    Given(Tensor),
    /// KDA: the log decay itself by key head, rows of `[H, K]`.
    GivenPerKeyHead(Tensor),
}

/// How a token's beta is found.
#[derive(Clone, Debug)]
pub enum Beta {
    /// `scale * sigmoid(b)`.
    Logits {
        /// Rows of `[HV]`.
        b: Tensor,
        /// Round beta through the type of `b`, as Hugging Face does.
        rounded: bool,
        /// 1, or 2 where negative eigenvalues are allowed (OLMo-Hybrid).
        scale: f32,
    },
    /// Beta itself, rows of `[HV]`.
    Given(Tensor),
    /// Beta itself for every row of V, rows of `[HV, V]`.
    GivenPerValue(Tensor),
}

impl Beta {
    /// `sigmoid(b)`, in f32.
    pub fn logits(b: &Tensor) -> Beta {
        Beta::Logits { b: b.clone(), rounded: false, scale: 1.0 }
    }
}

/// The inputs of a call's tokens, one row a token, and what holds for all of them.
///
/// q, k and v are rows of `[H, K]`, `[H, K]` and `[HV, V]`, in any number of dimensions: `[N, H, K]`, `[B, T, H, K]` and
/// `[N, H * K]` say the same. A row is packed; rows may be any distance apart, so that views of a packed projection do
/// ([`split_qkv`]). Addresses and distances of q and k are multiples of 16 bytes. The output has the dimensions of v in front
/// of `[HV, V]`.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// Heads of this rank.
    pub shape: HeadShape,
    /// GDN or KDA.
    pub family: Family,
    /// Queries, before normalisation and scale.
    pub q: Tensor,
    /// Keys, before normalisation.
    pub k: Tensor,
    /// Values.
    pub v: Tensor,
    /// Decay.
    pub decay: Decay,
    /// Beta.
    pub beta: Beta,
    /// Divide q and k by `sqrt(sum of squares + eps)`; the value is eps, 1e-6 by default.
    pub l2norm: Option<f32>,
    /// Factor on q; `None` is `K^-1/2`.
    pub scale: Option<f32>,
    /// Which key head a value head uses: in Hugging Face's order by default.
    pub heads: HeadMap,
    /// Round the running state to its type after every token, so that with a 16-bit state too T tokens give the bits of T
    /// decodes. Off by default; with f32 states there is no difference.
    pub round_state: bool,
    /// Type of the output: that of q by default, or F32.
    pub out: Option<DType>,
}

impl Inputs {
    /// Inputs of gated delta net, one decay a head.
    pub fn gdn(shape: HeadShape, q: &Tensor, k: &Tensor, v: &Tensor, decay: Decay, beta: Beta) -> Inputs {
        let (q, k, v) = (q.clone(), k.clone(), v.clone());
        let (family, l2norm, scale, heads) = (Family::Gdn, Some(1e-6), None, HeadMap::Grouped);
        let (round_state, out) = (false, None);
        Inputs { shape, family, q, k, v, decay, beta, l2norm, scale, heads, round_state, out }
    }

    /// Inputs of Kimi delta attention, one decay for each element along K.
    pub fn kda(shape: HeadShape, q: &Tensor, k: &Tensor, v: &Tensor, decay: Decay, beta: Beta) -> Inputs {
        Inputs { family: Family::Kda, ..Inputs::gdn(shape, q, k, v, decay, beta) }
    }

    /// Inputs whose q, k and v are one packed row `[q | k | v]`, as a convolution over all three leaves it.
    ///
    /// # Errors
    /// A last dimension that is not theirs.
    pub fn packed(
        shape: HeadShape,
        family: Family,
        qkv: &Tensor,
        decay: Decay,
        beta: Beta,
    ) -> Result<Inputs> {
        let (q, k, v) = split_qkv(qkv, &shape)?;
        Ok(Inputs { family, ..Inputs::gdn(shape, &q, &k, &v, decay, beta) })
    }

    /// How v is cut into rows: what an output looks like, and how many tokens there are.
    pub(crate) fn cut(&self) -> Result<Cut> {
        cut("v", &self.v, self.shape.value_elements())
    }

    /// An output for these tokens, not filled.
    pub(crate) fn output(&self, lead: &[usize]) -> Result<Tensor> {
        let heads = [self.shape.hv, self.shape.v].map(|dim| dim as usize);
        let dtype = self.out.unwrap_or(self.q.dtype());
        crate::run::unfilled([lead, &heads].concat(), dtype, self.q.device())
    }

    /// The tensors that a call reads.
    pub(crate) fn operands<'a>(&'a self, operands: &mut Operands<'a>) {
        operands.read("q", &self.q);
        operands.read("k", &self.k);
        operands.read("v", &self.v);
        match &self.decay {
            Decay::Gate { a, gate } => {
                operands.read("decay.a", a);
                operands.read_some("decay.a_log", gate.a_log.as_ref());
                operands.read_some("decay.dt_bias", gate.dt_bias.as_ref());
            }
            Decay::Given(g) | Decay::GivenPerKeyHead(g) => operands.read("decay.given", g),
        }
        match &self.beta {
            Beta::Logits { b, .. } => operands.read("beta.b", b),
            Beta::Given(b) | Beta::GivenPerValue(b) => operands.read("beta.given", b),
        }
    }

    /// The inputs of `tokens` tokens as a call has them.
    pub(crate) fn on(&self, memory: &Memory, tokens: u64) -> Result<gdn_host::Inputs> {
        let shape = self.shape;
        let rows = |field, tensor, width| memory.rows_of(field, tensor, width, tokens);
        let q = Query(rows("q", &self.q, shape.key_elements())?);
        let k = Key(rows("k", &self.k, shape.key_elements())?);
        let v = Value(rows("v", &self.v, shape.value_elements())?);
        let columns = if self.family == Family::Kda { u64::from(shape.k) } else { 1 };
        let decay = match &self.decay {
            Decay::Gate { a, gate } => {
                let a = rows("decay.a", a, u64::from(shape.hv) * columns)?;
                let dense = |field, tensor: &Option<Tensor>| {
                    tensor.as_ref().map(|tensor| memory.dense(field, tensor)).transpose()
                };
                let a_log = dense("decay.a_log", &gate.a_log)?.map(ALog);
                let dt_bias = dense("decay.dt_bias", &gate.dt_bias)?.map(DtBias);
                match gate.kind {
                    GateKind::Softplus => gdn_host::Softplus::new(a, a_log, dt_bias).into(),
                    GateKind::LowerBound(bound) => gdn_host::LowerBound::new(a, a_log, dt_bias, bound).into(),
                }
            }
            Decay::Given(g) => gdn_host::Decay::Given(rows("decay.given", g, u64::from(shape.hv) * columns)?),
            Decay::GivenPerKeyHead(g) => {
                gdn_host::Decay::GivenPerKeyHead(rows("decay.given", g, u64::from(shape.h) * columns)?)
            }
        };
        let beta = match &self.beta {
            Beta::Logits { b, rounded, scale } => {
                let b = rows("beta.b", b, shape.hv.into())?;
                gdn_host::Logits::new(b).with_rounding(*rounded).with_scale(*scale).into()
            }
            Beta::Given(b) => gdn_host::Beta::Given(rows("beta.given", b, shape.hv.into())?),
            Beta::GivenPerValue(b) => {
                gdn_host::Beta::GivenPerValue(rows("beta.given", b, shape.value_elements())?)
            }
        };
        let inputs = match self.family {
            Family::Gdn => gdn_host::Inputs::gdn(shape, q, k, v, decay, beta),
            Family::Kda => gdn_host::Inputs::kda(shape, q, k, v, decay, beta),
        };
        let inputs = inputs.with_l2norm(self.l2norm).with_heads(self.heads);
        Ok(self.scale.map_or(inputs, |scale| inputs.with_scale(scale)))
    }
}

/// Views of q, k and v in packed rows `[q | k | v]`, the last dimension of `qkv`. Nothing is copied.
///
/// # Errors
/// A last dimension that is not theirs.
pub fn split_qkv(qkv: &Tensor, shape: &HeadShape) -> Result<(Tensor, Tensor, Tensor)> {
    let (keys, values) = (shape.key_elements() as usize, shape.value_elements() as usize);
    let Some(last) = qkv.rank().checked_sub(1).filter(|last| qkv.dims()[*last] == 2 * keys + values) else {
        let want = 2 * keys + values;
        candle_core::bail!("qkv: shape {:?} does not end in the {want} columns of q, k and v", qkv.dims());
    };
    let columns = |from, len| qkv.narrow(last, from, len);
    Ok((columns(0, keys)?, columns(keys, keys)?, columns(2 * keys, values)?))
}
