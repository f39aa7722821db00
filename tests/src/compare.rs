//! How far two results are apart.

use gdn_host::DType;

/// `||got - want|| / ||want||`, and the plain norm of the difference where `want` is zero. NaN anywhere is
/// infinity.
pub fn rel_l2(got: &[f64], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len(), "compared tensors have different lengths");
    let difference: f64 = got.iter().zip(want).map(|(g, w)| (g - w).powi(2)).sum();
    let norm: f64 = want.iter().map(|w| w * w).sum();
    let error = if norm == 0.0 { difference.sqrt() } else { (difference / norm).sqrt() };
    if error.is_nan() { f64::INFINITY } else { error }
}

/// The largest [`rel_l2`] of any vector of `width` elements: a global norm hides errors in small rows.
pub fn worst_vector(got: &[f64], want: &[f64], width: usize) -> f64 {
    let pairs = got.chunks(width).zip(want.chunks(width));
    pairs.map(|(g, w)| rel_l2(g, w)).fold(0.0, f64::max)
}

/// A difference, beside the size of what was expected and an absolute error that is allowed in any case.
#[derive(Clone, Copy, Debug, Default)]
pub struct Error {
    difference: f64,
    norm: f64,
    floor: f64,
}

impl Error {
    /// The difference of two vectors.
    pub fn of(got: &[f64], want: &[f64], floor: f64) -> Self {
        let l2 = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
        let difference = l2(&mut got.iter().zip(want).map(|(g, w)| g - w));
        Error { difference, norm: l2(&mut want.iter().copied()), floor }
    }

    /// The error of this vector and another one side by side.
    pub fn add(&mut self, other: &Error) {
        self.difference = self.difference.hypot(other.difference);
        self.norm = self.norm.hypot(other.norm);
        self.floor = self.floor.hypot(other.floor);
    }

    /// Whether the relative error is within `limit`, but for the floor. NaN never is.
    pub fn within(&self, limit: f64) -> bool {
        self.difference.is_finite() && self.difference <= limit * self.norm + self.floor
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.3e} ({:.1e} of it excused)", self.difference / self.norm, self.floor / self.norm)
    }
}

/// f32 as f64.
pub fn widen(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// Largest relative L2 errors that a comparison allows.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    /// Output.
    pub out: f64,
    /// Each head's output vector on its own.
    pub head: f64,
    /// State.
    pub state: f64,
    /// What a head's output may be off by whatever its size, in units of `scale |q| |k| |v|`: outputs shrink with
    /// `k q`, a sum that may cancel.
    pub floor: f64,
}

impl Tolerance {
    /// Against recorded outputs of a kernel with the same numerics.
    pub fn recorded(out: DType, state: DType) -> Self {
        let (out, head) = match out {
            DType::F32 => (1e-6, 3e-6),
            _ => (1e-3, 3e-3),
        };
        let state = if state == DType::F32 { 1e-6 } else { 3e-4 };
        Tolerance { out, head, state, floor: 0.0 }
    }

    /// Against a whole recorded layer of transformers. In 16 bits it rounds between operations that are one kernel here: what
    /// l2norm divides, the sum of the convolution before its SiLU, the normalised value before its weight.
    pub fn layer(io: DType) -> Self {
        if io == DType::F32 {
            return Self::recorded(io, io);
        }
        Tolerance { out: 1e-2, head: 3e-2, state: 1e-2, floor: 0.0 }
    }

    /// Against the f64 oracle, whose results are not rounded to the stored type.
    pub fn oracle(out: DType, state: DType) -> Self {
        let out = rounding(out);
        // A head vector is at most 1.6 times worse than the whole in the recorded cases; see golden's README.
        Tolerance { out, head: 2.0 * out, state: rounding(state), floor: 1e-6 }
    }

    /// The same where tokens start from states that were rounded to `state`. The oracle rounds them too, so the
    /// error of a rounding does not add up from token to token: what is left are the few elements, one in some
    /// thousand, so close to the middle of two values that f32 and f64 round them to different ones. A tenth of a
    /// rounding covers them, and a rounding that is missing is ten times as much.
    pub fn with_rounded_states(self, state: DType) -> Self {
        if state == DType::F32 {
            return self;
        }
        let out = self.out.max(0.1 * rounding(state));
        let states = self.state.max(0.1 * rounding(state));
        Tolerance { out, head: 2.0 * out, state: states, floor: rounding(state) / 300.0 }
    }
}

/// The error of rounding to a type, with room; for f32 that of the arithmetic.
fn rounding(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 2e-6,
        DType::Bf16 => 3e-3,
        DType::F16 => 5e-4,
    }
}
