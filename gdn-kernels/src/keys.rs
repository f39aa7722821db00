//! A token as lanes apply it to their rows: query and key with the factors on them, decay, beta.

use crate::arch::{float, warp};
use crate::element::ROW;
use crate::layout::lanes;

/// A lane's share of the dot product of two vectors.
#[cfg_attr(target_arch = "nvptx64", inline(always))]
pub(crate) fn dot(x: &[f32; ROW], y: &[f32; ROW]) -> f32 {
    let mut sum = x[0] * y[0];
    let mut i = 1;
    while i < ROW {
        sum = float::fma(x[i], y[i], sum);
        i += 1;
    }
    sum
}

/// The sum of `value` over the neighbouring lanes that share a row, a piece each, in every one of them.
#[cfg_attr(target_arch = "nvptx64", inline(always))]
pub(crate) fn reduce<const K: u32>(mut value: f32) -> f32 {
    let mut distance = lanes(K) / 2;
    while distance > 0 {
        // SAFETY: kernels call this from all 32 lanes (padded rows leave block by block).
        value += unsafe { warp::shuffle_xor(value, distance) };
        distance /= 2;
    }
    value
}

/// Query and key of a token as a lane sees them, and the factors that normalisation and scale come to.
pub(crate) struct Keys {
    pub(crate) q: [f32; ROW],
    pub(crate) k: [f32; ROW],
    pub(crate) factors: Factors,
}

/// What a token's query and key come to besides themselves.
#[derive(Clone, Copy)]
pub(crate) struct Factors {
    /// Factor on q: l2norm and scale.
    pub(crate) q: f32,
    /// Factor on k: l2norm.
    pub(crate) k: f32,
    /// Dot product of the scaled vectors.
    pub(crate) kq: f32,
}

impl Factors {
    /// Takes the sums of a token's query and key over neighbouring lanes that hold a piece each.
    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    pub(crate) fn new<const K: u32>([q, k]: [[f32; ROW]; 2], l2norm: bool, eps: f32, scale: f32) -> Factors {
        let kq = reduce::<K>(dot(&k, &q));
        let q_norm = float::rsqrt(reduce::<K>(dot(&q, &q)) + eps);
        let k_norm = float::rsqrt(reduce::<K>(dot(&k, &k)) + eps);
        let q_factor = if l2norm { q_norm * scale } else { scale };
        let k_factor = if l2norm { k_norm } else { 1.0 };
        Factors { q: q_factor, k: k_factor, kq: kq * (k_factor * q_factor) }
    }
}

/// A token's decay as a lane applies it.
pub(crate) trait Decay: Copy {
    /// No decay.
    const NONE: Self;
    /// This decay and another one.
    fn and(self, other: Self) -> Self;
    /// A key or query with the decay of its elements, if elements have decays of their own.
    fn on_key(self, x: &[f32; ROW]) -> [f32; ROW];
    /// The decay of a row's sum, if it is not in the key already.
    fn on_sum(self) -> f32;
    /// The decay of element `i` of a row's piece.
    fn on_element(self, i: usize) -> f32;
}

/// GDN: one decay for the whole state of a head.
impl Decay for f32 {
    const NONE: f32 = 1.0;

    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    fn and(self, other: f32) -> f32 {
        self * other
    }

    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    fn on_key(self, x: &[f32; ROW]) -> [f32; ROW] {
        *x
    }

    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    fn on_sum(self) -> f32 {
        self
    }

    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    fn on_element(self, _i: usize) -> f32 {
        self
    }
}

/// KDA: one decay for each element along K.
impl Decay for [f32; ROW] {
    const NONE: [f32; ROW] = [1.0; ROW];

    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    fn and(self, other: [f32; ROW]) -> [f32; ROW] {
        core::array::from_fn(|i| self[i] * other[i])
    }

    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    fn on_key(self, x: &[f32; ROW]) -> [f32; ROW] {
        core::array::from_fn(|i| self[i] * x[i])
    }

    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    fn on_sum(self) -> f32 {
        1.0
    }

    #[cfg_attr(target_arch = "nvptx64", inline(always))]
    fn on_element(self, i: usize) -> f32 {
        self[i]
    }
}

/// A token as a lane applies it to its rows.
pub(crate) struct Token<D> {
    pub(crate) keys: Keys,
    pub(crate) decay: D,
    /// Of the row that the lane carries.
    pub(crate) beta: f32,
}
