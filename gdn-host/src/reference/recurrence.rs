//! The recurrence. With `h` the `V x K` state of a value head, one token is
//!
//! ```text
//! x    = a + dt_bias
//! g    = -exp(A_log) * softplus(x)                softplus gate: log(1 + e^(s x)) / s
//!        lower_bound * sigmoid(exp(A_log) * x)    lower-bound gate
//!        a                                        given
//! beta = scale * sigmoid(b)                       or given
//! q    = q * rsqrt(sum q^2 + eps) * scale         the division only with l2norm
//! k    = k * rsqrt(sum k^2 + eps)
//! h    = h * exp(g)                               GDN: one factor; KDA: one for each column k
//! d    = beta * (v - h k)
//! h    = h + d k^T
//! o    = h q
//! ```
//!
//! [`sequence`] takes one sequence through its tokens and returns what each of them leaves. Where states come from
//! and where they go is its caller's business, so decode and every form of recurrent are the same function here.

use super::{round, sigmoid};
use crate::call::HeadMap;
use crate::key::Family;
use crate::shape::HeadShape;
use gdn_kernels::abi::DType;

/// `log(1 + e^(s x)) / s` with `s` = `beta`, and `x` itself where `s x` is above the threshold.
pub fn softplus(x: f64, beta: f64, threshold: f64) -> f64 {
    let y = beta * x;
    if y > threshold { x } else { (y.max(0.0) + (-y.abs()).exp().ln_1p()) / beta }
}

/// A vector divided by its l2 norm.
pub fn l2norm(x: &[f64], eps: f64) -> Vec<f64> {
    let norm = (x.iter().map(|x| x * x).sum::<f64>() + eps).sqrt();
    x.iter().map(|x| x / norm).collect()
}

/// One token of one value head: updates `h` (`V` rows of `K`) and returns the `V` outputs and the `V` corrections d. `q` and
/// `k` are as they enter the recurrence, normalised and scaled; `g` has a log decay for each column, `beta` a factor for each
/// row.
pub fn step(h: &mut [f64], q: &[f64], k: &[f64], v: &[f64], g: &[f64], beta: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    let decay: Vec<f64> = g.iter().map(|g| g.exp()).collect();
    let each = h.chunks_exact_mut(k.len()).enumerate().map(|(i, row)| {
        row.iter_mut().zip(&decay).for_each(|(h, e)| *h *= e);
        let d = beta[i] * (v[i] - dot(row, k));
        row.iter_mut().zip(k).for_each(|(h, k)| *h += d * k);
        (dot(row, q), d)
    });
    each.unzip()
}

/// How the decay of a token is found.
#[derive(Clone, Copy, Debug)]
pub enum Gate<'a> {
    /// `-exp(a_log) * softplus(a + dt_bias)`.
    Softplus {
        /// `[HV]`.
        a_log: &'a [f64],
        /// `[HV]`, in KDA `[HV, K]`.
        dt_bias: &'a [f64],
        /// `s` in [`softplus`].
        beta: f64,
        /// softplus(x) is x where `s x` is above this.
        threshold: f64,
    },
    /// `bound * sigmoid(exp(a_log) * (a + dt_bias))`.
    LowerBound {
        /// `[HV]`.
        a_log: &'a [f64],
        /// `[HV]`, in KDA `[HV, K]`.
        dt_bias: &'a [f64],
        /// The least log decay.
        bound: f64,
    },
    /// `a` is the log decay.
    Given,
    /// KDA: `a` is the log decay, by key head.
    GivenPerKeyHead,
}

/// How the beta of a token is found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Beta {
    /// `scale * sigmoid(b)`, rounded through a type if there is one.
    Logits {
        /// The factor.
        scale: f64,
        /// The type.
        rounded: Option<DType>,
    },
    /// `b` is beta.
    Given,
    /// `b` is beta, one for each row of V.
    GivenPerValue,
}

/// What holds for all tokens of a call.
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a> {
    /// Heads.
    pub shape: HeadShape,
    /// How many decays a head has.
    pub family: Family,
    /// Head map.
    pub heads: HeadMap,
    /// Decay.
    pub gate: Gate<'a>,
    /// Beta.
    pub beta: Beta,
    /// eps of the l2norm, if there is one.
    pub l2norm: Option<f64>,
    /// Factor on q.
    pub scale: f64,
}

/// The inputs of a token, widened to f64.
#[derive(Clone, Copy, Debug)]
pub struct Token<'a> {
    /// `[H, K]`.
    pub q: &'a [f64],
    /// `[H, K]`.
    pub k: &'a [f64],
    /// `[HV, V]`.
    pub v: &'a [f64],
    /// Gate input or log decay: `[HV]`, in KDA `[HV, K]`, or `[H, K]` by key head.
    pub a: &'a [f64],
    /// Logits or beta: `[HV]`, or `[HV, V]` by row.
    pub b: &'a [f64],
}

/// What a token leaves.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// `[HV, V]`.
    pub out: Vec<f64>,
    /// `[HV, V, K]`: the state after the token.
    pub state: Vec<f64>,
    /// `[HV, V]`: the correction d of each row.
    pub correction: Vec<f64>,
    /// `[HV]`, in KDA `[HV, K]`: the log decay g.
    pub log_decay: Vec<f64>,
}

/// A tree of tokens.
#[derive(Clone, Copy, Debug)]
pub struct Tree<'a> {
    /// Token `t > 0` starts from the state after token `parents[t]`, or, if that is not in `0..t`, from where the
    /// sequence started. Tokens past the end of the list start from the token before them.
    pub parents: &'a [i32],
    /// Type of the buffer that states lie in between parent and child.
    pub buffer: DType,
}

/// What happens to the state between two tokens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Between<'a> {
    /// The state is rounded to this type after every token.
    pub round: Option<DType>,
    /// Without a tree each token starts from the one before it.
    pub tree: Option<Tree<'a>>,
}

/// Takes a sequence through its tokens, from the state `start` (`[HV, V, K]`).
pub fn sequence(layer: &Layer, tokens: &[Token], start: &[f64], between: &Between) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::with_capacity(tokens.len());
    for token in tokens {
        let mut step = layer.token(token, state_before(&steps, start, between));
        if let Some(dtype) = between.round {
            step.state.iter_mut().for_each(|h| *h = round(*h, dtype));
        }
        steps.push(step);
    }
    steps
}

/// The state that the token behind `steps` starts from.
fn state_before(steps: &[Step], start: &[f64], between: &Between) -> Vec<f64> {
    let t = steps.len();
    let Some(last) = steps.last() else { return start.to_vec() };
    let Some((tree, parent)) = between.tree.and_then(|tree| Some((tree, *tree.parents.get(t)?))) else {
        return last.state.clone();
    };
    match usize::try_from(parent).ok().and_then(|parent| steps.get(parent)) {
        Some(parent) => parent.state.iter().map(|h| round(*h, tree.buffer)).collect(),
        None => start.to_vec(),
    }
}

impl Layer<'_> {
    /// The key head of a value head.
    pub fn key_head(&self, head: usize) -> usize {
        match self.heads {
            HeadMap::Grouped => head / self.shape.ratio() as usize,
            HeadMap::Tiled => head % self.shape.h as usize,
        }
    }

    /// A key or a query as it enters the recurrence, but for the scale.
    pub fn normalise(&self, x: &[f64]) -> Vec<f64> {
        self.l2norm.map_or(x.to_vec(), |eps| l2norm(x, eps))
    }

    /// Log decays of a head: one, in KDA one for each column.
    pub fn decays(&self) -> usize {
        if self.family == Family::Kda { self.shape.k as usize } else { 1 }
    }

    /// One token of all heads, from a state.
    fn token(&self, token: &Token, state: Vec<f64>) -> Step {
        let [hv, k, v] = [self.shape.hv, self.shape.k, self.shape.v].map(|dim| dim as usize);
        let mut left = Step { out: Vec::new(), state, correction: Vec::new(), log_decay: Vec::new() };
        for (head, state) in left.state.chunks_exact_mut(v * k).enumerate().take(hv) {
            let key_head = self.key_head(head);
            let columns = key_head * k..(key_head + 1) * k;
            let query: Vec<f64> =
                self.normalise(&token.q[columns.clone()]).iter().map(|q| q * self.scale).collect();
            let key = self.normalise(&token.k[columns]);
            let g: Vec<f64> = (0..k).map(|i| self.log_decay(token, head, key_head, i)).collect();
            let beta: Vec<f64> = (0..v).map(|i| self.beta(token, head, i)).collect();
            let (out, correction) = step(state, &query, &key, &token.v[head * v..(head + 1) * v], &g, &beta);
            left.out.extend(out);
            left.correction.extend(correction);
            left.log_decay.extend(&g[..self.decays()]);
        }
        left
    }

    /// The log decay of column `i` of a head.
    fn log_decay(&self, token: &Token, head: usize, key_head: usize, i: usize) -> f64 {
        let at = |head: usize| match self.family {
            Family::Gdn => head,
            Family::Kda => head * self.shape.k as usize + i,
        };
        match self.gate {
            Gate::Softplus { a_log, dt_bias, beta, threshold } => {
                -a_log[head].exp() * softplus(token.a[at(head)] + dt_bias[at(head)], beta, threshold)
            }
            Gate::LowerBound { a_log, dt_bias, bound } => {
                bound * sigmoid(a_log[head].exp() * (token.a[at(head)] + dt_bias[at(head)]))
            }
            Gate::Given => token.a[at(head)],
            Gate::GivenPerKeyHead => token.a[at(key_head)],
        }
    }

    /// The beta of row `i` of a head.
    fn beta(&self, token: &Token, head: usize, i: usize) -> f64 {
        match self.beta {
            Beta::Logits { scale, rounded } => {
                let beta = scale * sigmoid(token.b[head]);
                rounded.map_or(beta, |dtype| round(beta, dtype))
            }
            Beta::Given => token.b[head],
            Beta::GivenPerValue => token.b[head * self.shape.v as usize + i],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;

    /// Two rows, two columns, worked out by hand.
    #[test]
    fn step_by_hand() {
        let mut h = [1.0, 2.0, 3.0, 4.0];
        let half = 0.5f64.ln();
        let (o, d) = step(&mut h, &[1.0, 1.0], &[1.0, 0.0], &[10.0, 20.0], &[half; 2], &[0.5; 2]);
        // Decayed: [.5 1; 1.5 2]. h k = [.5, 1.5], d = .5 * [9.5, 18.5].
        assert_relative_eq!(h[..], [5.25, 1.0, 10.75, 2.0], epsilon = 1e-12);
        assert_relative_eq!(o[..], [6.25, 12.75], epsilon = 1e-12);
        assert_relative_eq!(d[..], [4.75, 9.25], epsilon = 1e-12);
    }

    /// The same with a decay for each column and a beta for each row.
    #[test]
    fn step_by_hand_with_decay_by_column_and_beta_by_row() {
        let mut h = [1.0, 2.0, 3.0, 4.0];
        let g = [0.5f64.ln(), 0.25f64.ln()];
        let (o, d) = step(&mut h, &[1.0, 1.0], &[0.0, 1.0], &[10.0, 20.0], &g, &[0.5, 0.0]);
        // Decayed: [.5 .5; 1.5 1]. h k = [.5, 1], d = [4.75, 0].
        assert_relative_eq!(h[..], [0.5, 5.25, 1.5, 1.0], epsilon = 1e-12);
        assert_relative_eq!(o[..], [5.75, 2.5], epsilon = 1e-12);
        assert_relative_eq!(d[..], [4.75, 0.0], epsilon = 1e-12);
    }

    #[test]
    fn softplus_holds_at_the_ends() {
        assert_eq!(softplus(1e4, 1.0, 20.0), 1e4);
        assert_eq!(softplus(-1e4, 1.0, 20.0), 0.0);
        assert_relative_eq!(softplus(0.0, 1.0, 20.0), 2.0f64.ln());
        assert_eq!(softplus(0.75, 1.0, 0.5), 0.75);
        assert_relative_eq!(softplus(0.75, 2.0, 20.0), (1.0 + 1.5f64.exp()).ln() / 2.0);
        // The threshold is held against s x.
        assert_eq!(softplus(0.75, 2.0, 1.0), 0.75);
        assert_ne!(softplus(0.75, 0.5, 0.5), 0.75);
    }

    #[test]
    fn l2norm_gives_unit_vectors_and_keeps_zero() {
        assert_relative_eq!(l2norm(&[3.0, 4.0], 0.0)[..], [0.6, 0.8], epsilon = 1e-12);
        assert_eq!(l2norm(&[0.0, 0.0], 1e-6), [0.0, 0.0]);
    }

    /// One head of 1 x 1, where a token is `h = e h + beta (v - e h)` with k = q = 1.
    fn tiny(a: &[f64], b: &[f64], v: &[f64], between: &Between) -> Vec<f64> {
        let layer = Layer {
            shape: HeadShape { h: 1, hv: 1, k: 1, v: 1 },
            family: Family::Gdn,
            heads: HeadMap::Grouped,
            gate: Gate::Given,
            beta: Beta::Given,
            l2norm: None,
            scale: 1.0,
        };
        let one = [1.0];
        let token = |t: usize| Token { q: &one, k: &one, v: &v[t..=t], a: &a[t..=t], b: &b[t..=t] };
        let tokens: Vec<Token> = (0..v.len()).map(token).collect();
        sequence(&layer, &tokens, &[8.0], between).iter().map(|s| s.state[0]).collect()
    }

    #[test]
    fn tokens_follow_their_parents() {
        let (a, b, v) = ([0.0; 5], [0.5; 5], [0.0, 4.0, 0.0, 2.0, 0.0]);
        let chain = tiny(&a, &b, &v, &Between::default());
        assert_eq!(chain, [4.0, 4.0, 2.0, 2.0, 1.0]);
        // Token 2 is a child of 0, token 3 starts anew; token 4 is past the list and follows token 3.
        let tree = Tree { parents: &[7, 0, 0, -1], buffer: DType::F32 };
        let tree = tiny(&a, &b, &v, &Between { round: None, tree: Some(tree) });
        assert_eq!(tree, [4.0, 4.0, 2.0, 5.0, 2.5]);
    }

    #[test]
    fn states_are_rounded_between_tokens_where_asked() {
        let ulp = 2f64.powi(-7);
        let (a, b, v) = ([0.0; 2], [0.5, 0.0], [-6.0 + ulp, 0.0]);
        let state = |round, tree| tiny(&a, &b, &v, &Between { round, tree });
        let exact = 1.0 + 0.5 * ulp;
        assert_eq!(state(None, None), [exact, exact]);
        assert_eq!(state(Some(DType::Bf16), None), [1.0, 1.0]);
        // At the edge of a tree the buffer rounds, and the state of the parent itself is not touched.
        let tree = Tree { parents: &[0, 0], buffer: DType::Bf16 };
        assert_eq!(state(None, Some(tree)), [exact, 1.0]);
    }
}
