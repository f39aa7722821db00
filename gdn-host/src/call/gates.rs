//! How a token's decay and beta are found.

use super::check::check_value;
use super::{CallError, Rows, Tensor};

/// `A_log`, the logarithm of the decay rate, `[HV]`. Beside a [`DtBias`] of the same length it has a type of its own, so that
/// the two cannot be swapped. GGUF files hold `ssm_a = -exp(A_log)`: hand over `log(-ssm_a)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ALog(pub Tensor);

/// `dt_bias`, what is added to the gate's input, `[HV]` (KDA: `[HV, K]`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DtBias(pub Tensor);

/// The gate `g = -exp(a_log) * softplus(a + dt_bias)`, with `softplus(x) = log(1 + e^(s x)) / s`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Softplus {
    /// Raw gate input, rows of HV (KDA: `[HV, K]`).
    pub a: Rows,
    /// `[HV]`; without it the rate `exp(a_log)` is 1.
    pub a_log: Option<Tensor>,
    /// `[HV]` (KDA: `[HV, K]`); without it nothing is added.
    pub dt_bias: Option<Tensor>,
    /// `s` above; 1 in every published model.
    pub beta: f32,
    /// softplus(x) is x where `s x` is above this; 20 in every published model.
    pub threshold: f32,
}

impl Softplus {
    /// The gate of published models. Either tensor may be `None`.
    pub fn new(a: Rows, a_log: impl Into<Option<ALog>>, dt_bias: impl Into<Option<DtBias>>) -> Softplus {
        let (a_log, dt_bias) = (a_log.into().map(|x| x.0), dt_bias.into().map(|x| x.0));
        Softplus { a, a_log, dt_bias, beta: 1.0, threshold: 20.0 }
    }

    /// The same gate with another `s` in softplus.
    pub fn with_beta(self, beta: f32) -> Softplus {
        Softplus { beta, ..self }
    }

    /// The same gate with another threshold.
    pub fn with_threshold(self, threshold: f32) -> Softplus {
        Softplus { threshold, ..self }
    }
}

/// The gate `g = bound * sigmoid(exp(a_log) * (a + dt_bias))`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct LowerBound {
    /// Raw gate input, rows of HV (KDA: `[HV, K]`).
    pub a: Rows,
    /// `[HV]`; without it `exp(a_log)` is 1.
    pub a_log: Option<Tensor>,
    /// `[HV]` (KDA: `[HV, K]`); without it nothing is added.
    pub dt_bias: Option<Tensor>,
    /// The least log decay; -5 in Kimi-K3.
    pub bound: f32,
}

impl LowerBound {
    /// The gate with its bound. Either tensor may be `None`.
    pub fn new(
        a: Rows,
        a_log: impl Into<Option<ALog>>,
        dt_bias: impl Into<Option<DtBias>>,
        bound: f32,
    ) -> LowerBound {
        LowerBound { a, a_log: a_log.into().map(|x| x.0), dt_bias: dt_bias.into().map(|x| x.0), bound }
    }
}

/// How a token's decay is found. In KDA there are K decays a head where GDN has one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decay {
    /// `g = -exp(a_log) * softplus(a + dt_bias)`.
    Softplus(Softplus),
    /// `g = bound * sigmoid(exp(a_log) * (a + dt_bias))`.
    LowerBound(LowerBound),
    /// The log decay itself, rows of HV (KDA: `[HV, K]`), from a caller with its own gate.
    Given(Rows),
    /// KDA: the log decay itself by key head, rows of `[H, K]`.
    GivenPerKeyHead(Rows),
}

impl From<Softplus> for Decay {
    fn from(gate: Softplus) -> Decay {
        Decay::Softplus(gate)
    }
}

impl From<LowerBound> for Decay {
    fn from(gate: LowerBound) -> Decay {
        Decay::LowerBound(gate)
    }
}

impl Decay {
    pub(super) fn check(&self) -> Result<(), CallError> {
        match self {
            Decay::Softplus(gate) => {
                let (t, s) = (gate.threshold, gate.beta);
                check_value("decay.threshold", t, t.is_finite() && t >= 0.0, "finite and not negative")?;
                // Its reciprocal has to be a normal number, too.
                let in_range = (f32::MIN_POSITIVE..=f32::MIN_POSITIVE.recip()).contains(&s);
                check_value("decay.beta", s, in_range, "positive, and 2^-126 to 2^126")
            }
            Decay::LowerBound(gate) => {
                let sound = gate.bound.is_finite() && gate.bound <= 0.0;
                check_value("decay.bound", gate.bound, sound, "finite and not positive")
            }
            Decay::Given(_) | Decay::GivenPerKeyHead(_) => Ok(()),
        }
    }

    /// The gate's rows, and what they are called.
    pub(crate) fn rows(&self) -> (&'static str, &Rows) {
        match self {
            Decay::Softplus(gate) => ("decay.a", &gate.a),
            Decay::LowerBound(gate) => ("decay.a", &gate.a),
            Decay::Given(g) | Decay::GivenPerKeyHead(g) => ("decay.given", g),
        }
    }

    /// `a_log` and `dt_bias`, those that there are.
    pub(crate) fn tables(&self) -> (Option<&Tensor>, Option<&Tensor>) {
        match self {
            Decay::Softplus(gate) => (gate.a_log.as_ref(), gate.dt_bias.as_ref()),
            Decay::LowerBound(gate) => (gate.a_log.as_ref(), gate.dt_bias.as_ref()),
            Decay::Given(_) | Decay::GivenPerKeyHead(_) => (None, None),
        }
    }
}

/// `beta = scale * sigmoid(b)`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Logits {
    /// Raw beta input, rows of HV.
    pub b: Rows,
    /// Round beta through the type of `b`, as SGLang's packed decode and Hugging Face do.
    pub rounded: bool,
    /// Factor on the sigmoid: 1, or 2 where negative eigenvalues are allowed (OLMo-Hybrid).
    pub scale: f32,
}

impl Logits {
    /// `sigmoid(b)`, in f32.
    pub fn new(b: Rows) -> Logits {
        Logits { b, rounded: false, scale: 1.0 }
    }

    /// The same beta rounded through the type of `b`, or not.
    pub fn with_rounding(self, rounded: bool) -> Logits {
        Logits { rounded, ..self }
    }

    /// The same beta with another factor on the sigmoid.
    pub fn with_scale(self, scale: f32) -> Logits {
        Logits { scale, ..self }
    }
}

/// How a token's beta is found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Beta {
    /// From its logits.
    Logits(Logits),
    /// Beta itself, rows of HV.
    Given(Rows),
    /// Beta itself for every row of V, rows of `[HV, V]`.
    GivenPerValue(Rows),
}

impl From<Logits> for Beta {
    fn from(logits: Logits) -> Beta {
        Beta::Logits(logits)
    }
}

impl Beta {
    pub(super) fn check(&self) -> Result<(), CallError> {
        let Beta::Logits(logits) = self else { return Ok(()) };
        check_value("beta.scale", logits.scale, logits.scale.is_finite(), "finite")
    }

    /// The rows, and what they are called.
    pub(crate) fn rows(&self) -> (&'static str, &Rows) {
        match self {
            Beta::Logits(logits) => ("beta.b", &logits.b),
            Beta::Given(b) | Beta::GivenPerValue(b) => ("beta.given", b),
        }
    }
}
