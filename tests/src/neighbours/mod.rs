//! Problems of the recurrence's neighbours, conv1d update and gated RMSNorm: the counterparts of
//! [`crate::problem`], which is decode's.

pub mod conv1d;
pub mod hf_layer;
pub mod layer;
pub mod norm;
#[cfg(feature = "hazards")]
pub mod random;
pub mod recorded;

use anyhow::{Result, ensure};
use gdn_host::DType;

/// Holds outputs against the oracle's one by one: `sums` are the sizes of the sums behind them, whose terms may cancel.
///
/// # Errors
/// The first element that is further off than rounding to its type, and f32 arithmetic on its sum, explain.
fn check_elements(name: &str, dtype: DType, got: &[f32], want: &[f64], sums: &[f64]) -> Result<()> {
    // Half a unit of the type, and what exp, rsqrt and a handful of f32 operations may add.
    let (relative, absolute) = match dtype {
        DType::F32 => (2e-6, 1e-36),
        DType::Bf16 => (2f64.powi(-8) + 2e-6, 1e-36),
        DType::F16 => (2f64.powi(-11) + 2e-6, 2f64.powi(-25)),
    };
    ensure!(got.len() == want.len(), "{name}: {} elements, not {}", got.len(), want.len());
    for (i, ((&got, want), sum)) in got.iter().zip(want).zip(sums).enumerate() {
        let error = (f64::from(got) - want).abs();
        let allowed = relative * want.abs() + 5e-7 * sum + absolute;
        ensure!(error <= allowed, "{name}: element {i} is {got:e}, not {want:e}; allowed is {allowed:.1e}");
    }
    Ok(())
}
