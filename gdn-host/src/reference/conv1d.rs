//! The oracle of [`crate::call::Conv1dUpdate`]: tap by tap, in f64.
//!
//! ```text
//! past = window, then the tokens in front of the token: its predecessors, or in a tree its ancestors
//! out  = act(bias + weight[0] * past[-(W - 1)] + ... + weight[W - 2] * past[-1] + weight[W - 1] * x)
//! ```

use super::sigmoid;
use gdn_kernels::abi::DType;
use half::{bf16, f16};

/// Inputs of a conv1d update, widened to f64 and dense.
#[derive(Clone, Copy, Debug)]
pub struct Conv1d<'a> {
    /// Channels.
    pub dim: usize,
    /// Taps, W.
    pub width: usize,
    /// `[tokens, dim]`.
    pub x: &'a [f64],
    /// `[dim, W]`, oldest tap first.
    pub weight: &'a [f64],
    /// `[dim]`.
    pub bias: Option<&'a [f64]>,
    /// SiLU behind the sum.
    pub silu: bool,
    /// The type each product (itself rounded to f32) is rounded to before it is added.
    pub round_products: Option<DType>,
    /// The first token of each sequence, and the end of its tokens.
    pub tokens: &'a [(usize, usize)],
    /// Entries of a channel, L.
    pub len: usize,
    /// The slot each sequence starts from; `None` is a padded row.
    pub slots: &'a [Option<usize>],
    /// The slot each new state goes to; `None` keeps it nowhere.
    pub write_slots: &'a [Option<usize>],
    /// The slots that states after each token go to, so many a sequence; `None` keeps a state nowhere.
    pub token_slots: Option<(&'a [Option<usize>], usize)>,
    /// Sequences that start from zeros.
    pub from_zeros: &'a [bool],
    /// Accepted tokens of each sequence's last draft.
    pub accepted: Option<&'a [usize]>,
    /// For each token the one in front of it, counted within its sequence; `None` is the window.
    pub parent: Option<&'a [Option<usize>]>,
}

/// What a conv1d update gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Conv1dResult {
    /// `[tokens, dim]`; padded rows are zeros.
    pub out: Vec<f64>,
    /// `[tokens, dim]`: the sum of the absolute values of what each output's sum is made of.
    pub magnitude: Vec<f64>,
    /// `[slots, dim, L]`.
    pub state: Vec<f64>,
    /// `[tokens, dim, W - 1]`: the window after each token.
    pub windows: Vec<f64>,
}

fn round(x: f64, dtype: Option<DType>) -> f64 {
    match dtype {
        None => x,
        Some(DType::F32) => f64::from(x as f32),
        Some(DType::Bf16) => bf16::from_f32(x as f32).to_f64(),
        Some(DType::F16) => f16::from_f32(x as f32).to_f64(),
    }
}

/// Convolves the tokens of every sequence. `state` is `[slots, dim, L]`, read as it was and returned as it becomes.
pub fn conv1d_update(call: &Conv1d, state: &[f64]) -> Conv1dResult {
    let mut result = Conv1dResult {
        out: vec![0.0; call.x.len()],
        magnitude: vec![0.0; call.x.len()],
        state: state.to_vec(),
        windows: vec![0.0; call.x.len() * (call.width - 1)],
    };
    for (n, &(begin, end)) in call.tokens.iter().enumerate() {
        let Some(slot) = call.slots[n].filter(|_| begin < end) else { continue };
        for channel in 0..call.dim {
            let entries = |slot: usize| {
                (slot * call.dim + channel) * call.len..(slot * call.dim + channel + 1) * call.len
            };
            let entries_before = match call.from_zeros[n] {
                true => vec![0.0; call.len],
                false => state[entries(slot)].to_vec(),
            };
            let first = call.accepted.map_or(call.len - (call.width - 1), |accepted| accepted[n] - 1);
            let window = &entries_before[first..first + call.width - 1];
            let x: Vec<f64> = (begin..end).map(|token| call.x[token * call.dim + channel]).collect();
            for t in 0..x.len() {
                convolve(call, begin, t, channel, window, &x, &mut result);
            }
            if let Some((slots, count)) = call.token_slots {
                for t in 0..x.len().min(count) {
                    let Some(slot) = slots[n * count + t] else { continue };
                    let all = [&entries_before[..], &x[..=t]].concat();
                    result.state[entries(slot)].copy_from_slice(&all[all.len() - call.len..]);
                }
            }
            if let Some(slot) = call.write_slots[n] {
                let after = &mut result.state[entries(slot)];
                match call.accepted {
                    None => {
                        let all = [entries_before, x].concat();
                        after.copy_from_slice(&all[all.len() - call.len..]);
                    }
                    Some(_) => {
                        let new = [&window[1..], &x].concat();
                        after[..new.len()].copy_from_slice(&new);
                    }
                }
            }
        }
    }
    result
}

/// One channel of token `t` of the sequence that begins at `begin`; `x` is the channel of the whole sequence.
fn convolve(
    call: &Conv1d,
    begin: usize,
    t: usize,
    channel: usize,
    window: &[f64],
    x: &[f64],
    result: &mut Conv1dResult,
) {
    // From the token back: itself, what is in front of it, and so on; then the window, from its newest entry.
    let mut past = Vec::new();
    let mut at = Some(t);
    while let Some(t) = at {
        past.push(x[t]);
        at = match call.parent {
            None => t.checked_sub(1),
            Some(parent) => parent[begin + t].filter(|parent| *parent < t),
        };
    }
    past.extend(window.iter().rev());

    let weight = &call.weight[channel * call.width..(channel + 1) * call.width];
    let products = weight.iter().rev().zip(&past).map(|(w, x)| round(w * x, call.round_products));
    let bias = call.bias.map_or(0.0, |bias| bias[channel]);
    let sum = bias + products.clone().sum::<f64>();
    let at = (begin + t) * call.dim + channel;
    result.out[at] = if call.silu { sum * sigmoid(sum) } else { sum };
    result.magnitude[at] = bias.abs() + products.map(f64::abs).sum::<f64>();
    let kept = call.width - 1;
    for (i, entry) in result.windows[at * kept..(at + 1) * kept].iter_mut().enumerate() {
        *entry = past[kept - 1 - i];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Conv1d = Conv1d {
        dim: 1,
        width: 3,
        x: &[],
        weight: &[1.0, 10.0, 100.0],
        bias: None,
        silu: false,
        round_products: None,
        tokens: &[],
        len: 2,
        slots: &[Some(0)],
        write_slots: &[Some(0)],
        token_slots: None,
        from_zeros: &[false],
        accepted: None,
        parent: None,
    };

    /// The digits of an output say which inputs it was made of.
    #[test]
    fn two_tokens_by_hand() {
        let (x, bias) = ([3.0, 4.0], [0.5]);
        let call = Conv1d { x: &x, bias: Some(&bias), tokens: &[(0, 2)], ..PLAIN };
        let result = conv1d_update(&call, &[1.0, 2.0]);
        assert_eq!(result.out, [321.5, 432.5]);
        assert_eq!(result.windows, [2.0, 3.0, 3.0, 4.0]);
        assert_eq!(result.state, [3.0, 4.0]);
    }

    #[test]
    fn states_after_each_token_by_hand() {
        let (x, slots) = ([3.0, 4.0, 5.0], [Some(1), None]);
        let call = Conv1d { x: &x, tokens: &[(0, 3)], write_slots: &[None], ..PLAIN };
        let result = conv1d_update(&Conv1d { token_slots: Some((&slots, 2)), ..call }, &[1.0, 2.0, 0.0, 0.0]);
        assert_eq!(result.state, [1.0, 2.0, 2.0, 3.0]);
    }

    #[test]
    fn tree_by_hand() {
        // 0 and 1 are roots, 2 follows 0.
        let (x, parent) = ([3.0, 4.0, 5.0], [None, None, Some(0)]);
        let call = Conv1d { x: &x, parent: Some(&parent), tokens: &[(0, 3)], ..PLAIN };
        let result = conv1d_update(&call, &[1.0, 2.0]);
        assert_eq!(result.out, [321.0, 421.0, 532.0]);
        assert_eq!(result.windows, [2.0, 3.0, 2.0, 4.0, 3.0, 5.0]);
        assert_eq!(result.state, [4.0, 5.0]);
    }

    /// Of a draft of three tokens (4, 5, 6) the first was accepted.
    #[test]
    fn accepted_window_by_hand() {
        let x = [7.0, 8.0];
        let call = Conv1d { x: &x, tokens: &[(0, 2)], len: 4, accepted: Some(&[1]), ..PLAIN };
        let result = conv1d_update(&call, &[3.0, 4.0, 5.0, 6.0]);
        assert_eq!(result.out, [743.0, 874.0]);
        assert_eq!(result.state, [4.0, 7.0, 8.0, 6.0]);
    }
}
