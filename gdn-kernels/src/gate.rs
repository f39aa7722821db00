//! Gates: from a token's raw inputs to its decay and beta.
//!
//! GDN has one decay per value head ([`PerHead`]), KDA one per value head and element along K ([`PerKey`]); a
//! kernel is generic over which. Either kind knows three gates, told apart by flags:
//!
//! ```text
//! decay = e^g,   x = a + dt_bias
//! softplus       g = -exp(a_log) * softplus(x),   softplus(x) = log(1 + e^(s x)) / s
//! lower bound    g = lower_bound * sigmoid(exp(a_log) * x)
//! given          g = a
//! ```
//!
//! A decay takes about a hundred instructions; who works it out for whom is [`crate::token`]'s matter.

use crate::abi::{Gate as Inputs, flags};
use crate::arch::float;
use crate::element::{ROW, Scalar, round_to};
use crate::keys::Decay;
use crate::math::{exp, finite, sigmoid, softplus};

/// Which of a gate's tables a block reads.
#[derive(Clone, Copy)]
pub(crate) struct Heads {
    /// Value head.
    pub(crate) value: u32,
    /// Its key head.
    pub(crate) key: u32,
}

/// How many decays a head has.
pub(crate) trait Gate: 'static {
    /// A token's decay as a lane applies it.
    type Decay: Decay;

    /// Whether each key has a decay of its own.
    const PER_KEY: bool;

    /// Decays of a token and head.
    fn decays(k: u32) -> u32;

    /// Where decay `i` of a head is among those of a token, and where its bias is among those of all heads.
    fn index(heads: Heads, i: u32, k: u32, options: u32) -> (u32, u32);

    /// A lane's decays: `single` where a head has one, else those that `piece` gives.
    fn of_lane(piece: impl FnOnce() -> [f32; ROW], single: f32) -> Self::Decay;
}

/// GDN: one decay per value head.
pub(crate) struct PerHead;

impl Gate for PerHead {
    type Decay = f32;

    const PER_KEY: bool = false;

    #[inline(always)]
    fn decays(_k: u32) -> u32 {
        1
    }

    #[inline(always)]
    fn index(heads: Heads, _i: u32, _k: u32, _options: u32) -> (u32, u32) {
        (heads.value, heads.value)
    }

    #[inline(always)]
    fn of_lane(_piece: impl FnOnce() -> [f32; ROW], single: f32) -> f32 {
        single
    }
}

/// KDA: one decay per value head and element along K.
pub(crate) struct PerKey;

impl Gate for PerKey {
    type Decay = [f32; ROW];

    const PER_KEY: bool = true;

    #[inline(always)]
    fn decays(k: u32) -> u32 {
        k
    }

    #[inline(always)]
    fn index(heads: Heads, i: u32, k: u32, options: u32) -> (u32, u32) {
        let head = if options & flags::DECAY_PER_KEY_HEAD != 0 { heads.key } else { heads.value };
        (head * k + i, heads.value * k + i)
    }

    #[inline(always)]
    fn of_lane(piece: impl FnOnce() -> [f32; ROW], _single: f32) -> [f32; ROW] {
        piece()
    }
}

/// What a decay is made of, loaded but not yet looked at.
#[derive(Clone, Copy)]
pub(crate) struct DecayInputs {
    a: Scalar,
    bias: Scalar,
    a_log: Scalar,
}

impl DecayInputs {
    /// Issues the loads of decay `i` of a token whose row of gate inputs starts at element `row` of `gate.a`.
    ///
    /// # Safety
    /// Row and head lie in the gate's tensors.
    #[inline(always)]
    pub(crate) unsafe fn load<G: Gate>(
        gate: &Inputs,
        options: u32,
        row: u64,
        heads: Heads,
        i: u32,
        k: u32,
    ) -> Self {
        let (at, bias_at) = G::index(heads, i, k, options);
        // SAFETY: the caller's promise; a tensor that is not there is not read, and is zero.
        unsafe {
            DecayInputs {
                a: Scalar::load_if(true, gate.a, row + at as u64, gate.a_dtype),
                bias: Scalar::load_if(gate.dt_bias != 0, gate.dt_bias, bias_at as u64, gate.dt_bias_dtype),
                a_log: Scalar::load_if(gate.a_log != 0, gate.a_log, heads.value as u64, gate.a_log_dtype),
            }
        }
    }

    /// The same decay's of another token, whose row starts at element `row`.
    ///
    /// # Safety
    /// Row and head lie in the gate's tensors.
    #[inline(always)]
    pub(crate) unsafe fn of_row<G: Gate>(self, gate: &Inputs, options: u32, row: u64, heads: Heads, i: u32, k: u32) -> Self {
        let (at, _) = G::index(heads, i, k, options);
        // SAFETY: the caller's promise.
        DecayInputs { a: unsafe { Scalar::load_if(true, gate.a, row + at as u64, gate.a_dtype) }, ..self }
    }

    /// The same inputs, as [`Scalar::awaited`] says.
    ///
    /// # Safety
    /// The warp is converged.
    #[inline(always)]
    pub(crate) unsafe fn awaited(self, bits: u32) -> DecayInputs {
        // SAFETY: the caller's promise.
        let [a, bias, a_log] = [self.a, self.bias, self.a_log].map(|x| unsafe { x.awaited(bits) });
        DecayInputs { a, bias, a_log }
    }

    /// The decay.
    #[inline(always)]
    pub(crate) fn decay(self, gate: &Inputs, options: u32) -> f32 {
        exp(self.log_decay(gate, options))
    }

    /// The logarithm of the decay.
    #[inline(always)]
    pub(crate) fn log_decay(self, gate: &Inputs, options: u32) -> f32 {
        let a = self.a.to_f32();
        if options & flags::DECAY_GIVEN != 0 {
            a
        } else {
            let (x, rate) = (a + self.bias.to_f32(), exp(self.a_log.to_f32()));
            if options & flags::LOWER_BOUND != 0 {
                gate.lower_bound * sigmoid(rate * finite(x))
            } else {
                let s = gate.softplus_beta;
                -rate * softplus(finite(s * x), gate.softplus_threshold) * float::rcp(s)
            }
        }
    }

    /// Those of several decays at once: which gate it is, is asked once.
    #[inline(always)]
    pub(crate) fn log_decays<const N: usize>(decays: [DecayInputs; N], gate: &Inputs, options: u32) -> [f32; N] {
        let of_gate = |known: u32| decays.map(|decay| decay.log_decay(gate, known));
        if options & flags::DECAY_GIVEN != 0 {
            of_gate(flags::DECAY_GIVEN)
        } else if options & flags::LOWER_BOUND != 0 {
            of_gate(flags::LOWER_BOUND)
        } else {
            of_gate(0)
        }
    }
}

/// Issues the load of element `at` of `gate.b`.
///
/// # Safety
/// The element lies in `gate.b`.
#[inline(always)]
pub(crate) unsafe fn load_beta(gate: &Inputs, at: u64) -> Scalar {
    // SAFETY: the caller's promise.
    unsafe { Scalar::load_if(true, gate.b, at, gate.b_dtype) }
}

/// Beta of a loaded input.
#[inline(always)]
pub(crate) fn beta(gate: &Inputs, options: u32, b: Scalar) -> f32 {
    let b = b.to_f32();
    let beta = if options & flags::BETA_GIVEN != 0 { b } else { gate.beta_scale * sigmoid(b) };
    if options & flags::BETA_ROUNDED != 0 { round_to(beta, gate.b_dtype) } else { beta }
}
