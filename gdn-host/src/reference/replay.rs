//! Records: what tokens leave in a ring instead of a new state.
//!
//! ```text
//! h = exp(g) h + d k^T                            for each record, oldest first; k normalised
//! ```
//!
//! The true state is formed so, one record after the other, where the kernels work from its parts.

use super::recurrence::Layer;

/// What a token leaves.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// `[H, K]`: its key as it came in.
    pub key: Vec<f64>,
    /// `[HV, V]`: its correction d of each row.
    pub correction: Vec<f64>,
    /// `[HV]`, in KDA `[HV, K]`: its log decay g.
    pub log_decay: Vec<f64>,
}

impl Record {
    /// Applies it to a state, `[HV, V, K]`.
    pub fn apply(&self, layer: &Layer, state: &mut [f64]) {
        let [k, v] = [layer.shape.k, layer.shape.v].map(|dim| dim as usize);
        let heads = state.chunks_exact_mut(v * k);
        let decays = self.log_decay.chunks_exact(layer.decays());
        for (head, ((h, d), g)) in heads.zip(self.correction.chunks_exact(v)).zip(decays).enumerate() {
            let at = layer.key_head(head) * k;
            let key = layer.normalise(&self.key[at..at + k]);
            let decay: Vec<f64> = g.iter().map(|g| g.exp()).collect();
            for (row, d) in h.chunks_exact_mut(k).zip(d) {
                for (i, h) in row.iter_mut().enumerate() {
                    *h = *h * decay[i % decay.len()] + d * key[i];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::HeadMap;
    use crate::key::Family;
    use crate::reference::recurrence::{Beta, Between, Gate, Token, sequence};
    use crate::shape::HeadShape;

    /// What a token leaves as a record gives the state that it leaves.
    #[test]
    fn records_give_the_states_of_their_tokens() {
        for (family, heads) in [(Family::Gdn, HeadMap::Grouped), (Family::Kda, HeadMap::Tiled)] {
            let shape = HeadShape { h: 2, hv: 4, k: 2, v: 3 };
            let (gate, beta) = (Gate::Given, Beta::Given);
            let layer = Layer { shape, family, heads, gate, beta, l2norm: Some(1e-6), scale: 0.5 };
            let values = |n: usize, at: f64| (0..n).map(|i| (at + 0.7 * i as f64).sin()).collect::<Vec<_>>();
            let (key, a, b) = (values(4, 1.0), values(4 * layer.decays(), 2.0), values(4, 3.0));
            let (value, start) = (values(12, 4.0), values(24, 5.0));
            let token = Token { q: &key, k: &key, v: &value, a: &a, b: &b };
            let left = &sequence(&layer, &[token], &start, &Between::default())[0];
            let (correction, log_decay) = (left.correction.clone(), left.log_decay.clone());
            let mut state = start;
            Record { key, correction, log_decay }.apply(&layer, &mut state);
            let error = state.iter().zip(&left.state).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max);
            assert!(error < 1e-14, "{family:?}: off by {error}");
        }
    }
}
