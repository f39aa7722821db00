//! The oracle of [`crate::call::GatedRmsNorm`], in f64.

use super::sigmoid;
use crate::call::Activation;

/// `x * rsqrt(mean(x^2) + eps) * weight * act(z)` over rows of as many elements as there are weights.
pub fn gated_rmsnorm(x: &[f64], z: &[f64], weight: &[f64], activation: Activation, eps: f64) -> Vec<f64> {
    let rows = x.chunks(weight.len()).zip(z.chunks(weight.len()));
    let of_row = |(x, z): (&[f64], &[f64])| {
        let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        let factor = (mean + eps).sqrt().recip();
        let gate = |z: f64| match activation {
            Activation::Silu => z * sigmoid(z),
            Activation::Sigmoid => sigmoid(z),
        };
        x.iter().zip(z).zip(weight).map(|((x, z), w)| x * factor * w * gate(*z)).collect::<Vec<_>>()
    };
    rows.flat_map(of_row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;

    #[test]
    fn norm_by_hand() {
        // The mean of squares is 12.5, with eps 12.5 the root is 5.
        let out = gated_rmsnorm(&[3.0, 4.0], &[0.0, 0.0], &[10.0, 1.0], Activation::Sigmoid, 12.5);
        assert_relative_eq!(out[..], [3.0, 0.4], epsilon = 1e-12);
        let out = gated_rmsnorm(&[3.0, 4.0], &[0.0, 1e3], &[10.0, 1.0], Activation::Silu, 12.5);
        assert_relative_eq!(out[..], [0.0, 800.0], epsilon = 1e-12);
    }
}
