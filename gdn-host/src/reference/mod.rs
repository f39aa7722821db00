//! The oracle: the operations as the specification writes them, in f64, one loop after the other.
//!
//! It is naive on purpose, so that it can be read beside the maths, and it shares nothing with the kernels. Each
//! operation has a file; what several of them use is here.

pub mod conv1d;
pub mod host;
pub mod norm;
pub mod recurrence;
pub mod replay;

use gdn_kernels::abi::DType;
use half::{bf16, f16};

/// `1 / (1 + e^-x)`.
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `x` rounded to a type, nearest even, and back. By way of f32, as kernels round; `half`'s own conversions from f64 ignore the
/// lower 32 bits, which a tie may depend on.
pub fn round(x: f64, dtype: DType) -> f64 {
    let x = x as f32;
    match dtype {
        DType::F32 => x.into(),
        DType::Bf16 => bf16::from_f32(x).to_f64(),
        DType::F16 => f16::from_f32(x).to_f64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sigmoid_holds_at_the_ends() {
        assert_eq!(sigmoid(-1e4), 0.0);
        assert_eq!(sigmoid(0.0), 0.5);
        assert_eq!(sigmoid(1e4), 1.0);
    }

    #[test]
    fn rounding_is_to_nearest_even() {
        let ulp = 2f64.powi(-7);
        assert_eq!(round(1.0 + 0.5 * ulp, DType::Bf16), 1.0);
        assert_eq!(round(1.0 + 1.5 * ulp, DType::Bf16), 1.0 + 2.0 * ulp);
        assert_eq!(round(1.0 + 2f64.powi(-11), DType::F16), 1.0);
        assert_eq!(round(1.0 + 2f64.powi(-23), DType::F32), 1.0 + 2f64.powi(-23));
        // Just above the middle, in bits that only an f32 has.
        assert_eq!(round(1.0 + 0.5 * ulp + 2f64.powi(-23), DType::Bf16), 1.0 + ulp);
        assert!(round(f64::NAN, DType::F16).is_nan());
    }
}
