//! The oracle: the recurrence as SPEC writes it, in f64, one loop after the other.
//!
//! It is naive on purpose: decay, correct, update, read out, in the order of the textbook, so that it can
//! be read beside the maths and shares nothing with the kernels. Formulas, with `h` the `V x K` state of a
//! value head:
//!
//! ```text
//! g    = -exp(A_log) * softplus(a + dt_bias)      or given
//! beta = sigmoid(b)                               or given
//! q    = q * rsqrt(sum q^2 + eps) * scale         the division only with l2norm
//! k    = k * rsqrt(sum k^2 + eps)
//! h    = exp(g) * h
//! d    = beta * (v - h k)
//! h    = h + d k^T
//! o    = h q
//! ```

use crate::call::HeadMap;
use crate::shape::HeadShape;
use half::{bf16, f16};

/// `log(1 + e^x)`, and `x` itself above the threshold.
pub fn softplus(x: f64, threshold: f64) -> f64 {
    if x > threshold { x } else { x.max(0.0) + (-x.abs()).exp().ln_1p() }
}

/// `1 / (1 + e^-x)`.
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Log decay of the softplus gate.
pub fn softplus_gate(a: f64, dt_bias: f64, a_log: f64, threshold: f64) -> f64 {
    -a_log.exp() * softplus(a + dt_bias, threshold)
}

/// A vector divided by its l2 norm.
pub fn l2norm(x: &[f64], eps: f64) -> Vec<f64> {
    let norm = (x.iter().map(|x| x * x).sum::<f64>() + eps).sqrt();
    x.iter().map(|x| x / norm).collect()
}

/// One token of one value head: updates `h` (`V` rows of `K`) and returns the `V` outputs. `q` and `k` are
/// as they enter the recurrence, normalised and scaled.
pub fn step(h: &mut [f64], q: &[f64], k: &[f64], v: &[f64], g: f64, beta: f64) -> Vec<f64> {
    h.iter_mut().for_each(|x| *x *= g.exp());
    let rows = h.chunks_exact_mut(k.len());
    rows.zip(v)
        .map(|(row, v)| {
            let hk: f64 = row.iter().zip(k).map(|(h, k)| h * k).sum();
            let d = beta * (v - hk);
            row.iter_mut().zip(k).for_each(|(h, k)| *h += d * k);
            row.iter().zip(q).map(|(h, q)| h * q).sum()
        })
        .collect()
}

/// The type beta is rounded through before it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BetaRounding {
    /// Not at all.
    None,
    /// Through bf16.
    Bf16,
    /// Through f16.
    F16,
}

/// How decode finds decay and beta.
#[derive(Clone, Copy, Debug)]
pub enum Gate<'a> {
    /// The softplus gate; `[HV]` each.
    Softplus {
        /// Logarithm of the decay rate.
        a_log: &'a [f64],
        /// Bias.
        dt_bias: &'a [f64],
        /// softplus(x) is x above this.
        threshold: f64,
    },
    /// `a` is the log decay.
    Given,
}

/// Inputs of a decode, widened to f64 and dense: the reference of [`crate::call::Decode`].
#[derive(Clone, Copy, Debug)]
pub struct Decode<'a> {
    /// Heads.
    pub shape: HeadShape,
    /// `[N, H, K]`.
    pub q: &'a [f64],
    /// `[N, H, K]`.
    pub k: &'a [f64],
    /// `[N, HV, V]`.
    pub v: &'a [f64],
    /// `[N, HV]`: gate input or log decay.
    pub a: &'a [f64],
    /// `[N, HV]`: logits or beta.
    pub b: &'a [f64],
    /// Decay.
    pub gate: Gate<'a>,
    /// Whether `b` is beta itself.
    pub beta_given: bool,
    /// Rounding of beta.
    pub beta_rounding: BetaRounding,
    /// eps of the l2norm, if there is one.
    pub l2norm: Option<f64>,
    /// Factor on q.
    pub scale: f64,
    /// Head map.
    pub heads: HeadMap,
    /// The slot each sequence starts from; `None` is a padded row.
    pub slots: &'a [Option<usize>],
    /// The slot each new state goes to; `None` keeps it nowhere.
    pub write_slots: &'a [Option<usize>],
    /// Sequences that start from zeros.
    pub from_zeros: &'a [bool],
}

/// Decodes one token a sequence. `states` is `[slots, HV, V, K]`, read as it was and returned as it becomes;
/// the other result is the output, `[N, HV, V]`.
pub fn decode(call: &Decode, states: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let &HeadShape { h: heads, hv, k, v } = &call.shape;
    let (heads, hv, k, v) = (heads as usize, hv as usize, k as usize, v as usize);
    let mut after = states.to_vec();
    let mut out = vec![0.0; call.slots.len() * hv * v];
    for (n, slot) in call.slots.iter().enumerate() {
        let Some(slot) = slot else { continue };
        for head in 0..hv {
            let key_head = match call.heads {
                HeadMap::Grouped => head / (hv / heads),
                HeadMap::Tiled => head % heads,
            };
            let key = (n * heads + key_head) * k..(n * heads + key_head + 1) * k;
            let normalise = |x: &[f64]| call.l2norm.map_or(x.to_vec(), |eps| l2norm(x, eps));
            let q: Vec<f64> = normalise(&call.q[key.clone()]).iter().map(|q| q * call.scale).collect();
            let key = normalise(&call.k[key]);

            let at = n * hv + head;
            let g = match call.gate {
                Gate::Given => call.a[at],
                Gate::Softplus { a_log, dt_bias, threshold } => {
                    softplus_gate(call.a[at], dt_bias[head], a_log[head], threshold)
                }
            };
            let beta = if call.beta_given { call.b[at] } else { sigmoid(call.b[at]) };
            let beta = match call.beta_rounding {
                BetaRounding::None => beta,
                BetaRounding::Bf16 => bf16::from_f64(beta).to_f64(),
                BetaRounding::F16 => f16::from_f64(beta).to_f64(),
            };

            let state = |slot: usize| (slot * hv + head) * v * k..(slot * hv + head + 1) * v * k;
            let mut h = match call.from_zeros[n] {
                true => vec![0.0; v * k],
                false => states[state(*slot)].to_vec(),
            };
            let o = step(&mut h, &q, &key, &call.v[at * v..(at + 1) * v], g, beta);
            out[at * v..(at + 1) * v].copy_from_slice(&o);
            if let Some(slot) = call.write_slots[n] {
                after[state(slot)].copy_from_slice(&h);
            }
        }
    }
    (out, after)
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;

    /// Two rows, two columns, worked out by hand.
    #[test]
    fn step_by_hand() {
        let mut h = [1.0, 2.0, 3.0, 4.0];
        let o = step(&mut h, &[1.0, 1.0], &[1.0, 0.0], &[10.0, 20.0], 0.5f64.ln(), 0.5);
        // Decayed: [.5 1; 1.5 2]. h k = [.5, 1.5], d = .5 * [9.5, 18.5].
        assert_relative_eq!(h[..], [5.25, 1.0, 10.75, 2.0], epsilon = 1e-12);
        assert_relative_eq!(o[..], [6.25, 12.75], epsilon = 1e-12);
    }

    #[test]
    fn gate_functions_hold_at_the_ends() {
        assert_eq!(softplus(1e4, 20.0), 1e4);
        assert_eq!(softplus(-1e4, 20.0), 0.0);
        assert_relative_eq!(softplus(0.0, 20.0), 2.0f64.ln());
        assert_eq!(sigmoid(-1e4), 0.0);
        assert_eq!(sigmoid(1e4), 1.0);
        assert_eq!(softplus_gate(1e4, 0.0, 0.0, 20.0), -1e4);
    }

    #[test]
    fn l2norm_gives_unit_vectors_and_keeps_zero() {
        assert_relative_eq!(l2norm(&[3.0, 4.0], 0.0)[..], [0.6, 0.8], epsilon = 1e-12);
        assert_eq!(l2norm(&[0.0, 0.0], 1e-6), [0.0, 0.0]);
    }
}
