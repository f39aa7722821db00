//! Problems from a seed: plain ones for the hazards, and random ones with shapes, types, strides, options and indices
//! drawn by proptest.

#[cfg(feature = "hazards")]
mod decode;
#[cfg(feature = "hazards")]
mod drawn;
#[cfg(feature = "hazards")]
mod options;
mod plain;
#[cfg(feature = "hazards")]
mod recurrent;
#[cfg(feature = "hazards")]
mod replay;
#[cfg(feature = "hazards")]
mod tiled;

pub use plain::{Plain, draft, plain};
#[cfg(feature = "hazards")]
pub use {
    decode::decode,
    drawn::{fixed, fixed_replay},
    recurrent::recurrent,
    replay::replay,
    tiled::Tiled,
};

/// Data for a problem, from a seed: a small generator of its own, since a problem has thousands of values
/// and proptest need not shrink them.
pub struct Noise(u64);

impl Noise {
    /// A generator; equal seeds give equal values.
    pub fn new(seed: u64) -> Self {
        Noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Uniform in [0, 1).
    pub fn uniform(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }

    /// Uniform in `0..end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() >> 32) as usize % end
    }

    /// `len` values, uniform in [low, high).
    pub fn uniforms(&mut self, len: usize, low: f32, high: f32) -> Vec<f32> {
        (0..len).map(|_| low + (high - low) * self.uniform()).collect()
    }

    /// About normal: the sum of four uniforms, scaled.
    pub fn normal(&mut self, sigma: f32) -> f32 {
        let sum: f32 = (0..4).map(|_| self.uniform()).sum();
        (sum - 2.0) * 3f32.sqrt() * sigma
    }

    /// `len` normal values.
    pub fn normals(&mut self, len: usize, sigma: f32) -> Vec<f32> {
        (0..len).map(|_| self.normal(sigma)).collect()
    }
}
