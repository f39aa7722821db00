//! Head shapes: what a layer looks like to one rank, and the shapes of published models.

use crate::key::{DType, Family, Layout, ModuleKey};
use thiserror::Error;

/// Heads of a gated-delta-rule layer on one tensor-parallel rank.
///
/// q and k have `h` heads of `k` elements, v and the output `hv` heads of `v` elements, and each value head
/// owns a `v` x `k` state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HeadShape {
    /// Key (and query) heads, H.
    pub h: u32,
    /// Value heads, HV: a multiple of H.
    pub hv: u32,
    /// Key dimension, K: 64, 96, 128 or 256.
    pub k: u32,
    /// Value dimension, V: a multiple of 32 from 32 to 512.
    pub v: u32,
}

/// A head shape that no kernel serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ShapeError {
    /// A head count of zero.
    #[error("{field} is 0: there must be at least one head")]
    NoHeads {
        /// `h` or `hv`.
        field: &'static str,
    },
    /// Value heads that do not divide evenly among key heads.
    #[error("hv = {hv} is not a multiple of h = {h}")]
    Ratio {
        /// Key heads.
        h: u32,
        /// Value heads.
        hv: u32,
    },
    /// A head dimension that there are no kernels for.
    #[error("{field} = {value} is not supported: it must be {want}")]
    Dimension {
        /// `k` or `v`.
        field: &'static str,
        /// The dimension.
        value: u32,
        /// What it may be.
        want: &'static str,
    },
    /// A state of more elements than the kernels' index arithmetic covers.
    #[error("hv * v * k = {elements} is past the limit: a sequence's state has fewer than 2^32 elements")]
    LargeState {
        /// Elements of a sequence's state.
        elements: u64,
    },
    /// More heads than the kernels' index arithmetic covers.
    #[error("hv = {hv} with h = {h} is past the limit: hv is at most {max}", max = HeadShape::MAX_HV)]
    TooManyHeads {
        /// Key heads.
        h: u32,
        /// Value heads.
        hv: u32,
    },
    /// Heads that cannot be split over the ranks.
    #[error("{field} = {value} cannot be divided by tensor-parallel size {ranks}")]
    Shard {
        /// `h` or `hv`.
        field: &'static str,
        /// Heads of the whole layer.
        value: u32,
        /// Ranks.
        ranks: u32,
    },
}

impl HeadShape {
    /// Largest number of value heads: the key head is found by a 31-bit reciprocal, which is exact while
    /// `hv * max(hv / h, h) < 2^31`.
    pub const MAX_HV: u32 = 32_768;

    /// A checked shape.
    ///
    /// # Errors
    /// [`ShapeError`] names the field and its value.
    pub fn new(h: u32, hv: u32, k: u32, v: u32) -> Result<Self, ShapeError> {
        let shape = HeadShape { h, hv, k, v };
        shape.check()?;
        Ok(shape)
    }

    /// Whether the kernels serve this shape.
    ///
    /// # Errors
    /// [`ShapeError`] names the field and its value.
    pub fn check(&self) -> Result<(), ShapeError> {
        let &HeadShape { h, hv, k, v } = self;
        for (field, heads) in [("h", h), ("hv", hv)] {
            if heads == 0 {
                return Err(ShapeError::NoHeads { field });
            }
        }
        if hv % h != 0 {
            return Err(ShapeError::Ratio { h, hv });
        }
        if hv > Self::MAX_HV {
            return Err(ShapeError::TooManyHeads { h, hv });
        }
        check_key_dimension(k)?;
        check_value_dimension(v)?;
        let elements = self.state_elements();
        if elements > u32::MAX.into() { Err(ShapeError::LargeState { elements }) } else { Ok(()) }
    }

    /// Value heads that share a key head, HV / H.
    pub fn ratio(&self) -> u32 {
        self.hv / self.h
    }

    /// Elements of one sequence's state, HV * V * K; `u64::MAX` if no number of 64 bits is.
    pub fn state_elements(&self) -> u64 {
        self.value_elements().saturating_mul(self.k.into())
    }

    /// Elements of one token's q or k, H * K.
    pub fn key_elements(&self) -> u64 {
        self.h as u64 * self.k as u64
    }

    /// Elements of one token's v or output, HV * V.
    pub fn value_elements(&self) -> u64 {
        self.hv as u64 * self.v as u64
    }

    /// The shape one of `ranks` tensor-parallel ranks works on.
    ///
    /// # Errors
    /// [`ShapeError::Shard`] when the heads do not divide.
    pub fn shard(&self, ranks: u32) -> Result<Self, ShapeError> {
        for (field, value) in [("h", self.h), ("hv", self.hv)] {
            if ranks == 0 || value % ranks != 0 {
                return Err(ShapeError::Shard { field, value, ranks });
            }
        }
        Self::new(self.h / ranks, self.hv / ranks, self.k, self.v)
    }
}

fn check_key_dimension(k: u32) -> Result<(), ShapeError> {
    match k {
        64 | 96 | 128 | 256 => Ok(()),
        value => Err(ShapeError::Dimension { field: "k", value, want: "64, 96, 128 or 256" }),
    }
}

/// Whether the kernels serve heads of V elements.
pub(crate) fn check_value_dimension(v: u32) -> Result<(), ShapeError> {
    match v {
        32..=512 if v.is_multiple_of(32) => Ok(()),
        value => Err(ShapeError::Dimension { field: "v", value, want: "a multiple of 32 from 32 to 512" }),
    }
}

/// A published model and its layers with this recurrence.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// Name as its publisher writes it.
    pub name: &'static str,
    /// How many decays a head has.
    pub family: Family,
    /// Heads of the whole layer (tensor-parallel size 1).
    pub shape: HeadShape,
    /// Layers of the model that use the recurrence, where they are known.
    pub layers: Option<u32>,
}

impl Model {
    /// The model of this name, as its publisher writes it.
    pub fn find(name: &str) -> Option<&'static Model> {
        MODELS.iter().find(|model| model.name == name)
    }

    /// The modules that steps of its layers need, for [`Gdn::load`](crate::Gdn::load): the recurrence over one token and over
    /// several, commits and copies, the convolution with conv states of type `conv`, the gated norm, and for GDN the unpacking
    /// of Qwen3-Next's projections. Types for which the recurrence has no kernels are refused when they are loaded.
    pub fn modules(&self, layout: Layout, state: DType, io: DType, conv: DType) -> Vec<ModuleKey> {
        let (family, k, v) = (self.family, self.shape.k, self.shape.v);
        let mut keys = vec![
            ModuleKey::decode(family, layout, state, io, k),
            ModuleKey::recurrent(family, layout, state, io, k),
            ModuleKey::copy_state(),
            ModuleKey::conv1d_update(conv, io),
        ];
        // Heads of a length that the norm has kernels for, and any other or unaligned ones.
        keys.extend(matches!(v, 64 | 128).then(|| ModuleKey::gated_rmsnorm(io, io, v)));
        keys.push(ModuleKey::gated_rmsnorm(io, io, 0));
        keys.extend((family == Family::Gdn).then(ModuleKey::unpack_qkvz));
        keys
    }
}

/// A GDN model with heads of 128 x 128.
const fn gdn(name: &'static str, h: u32, hv: u32, layers: u32) -> Model {
    let shape = HeadShape { h, hv, k: 128, v: 128 };
    Model { name, family: Family::Gdn, shape, layers: Some(layers) }
}

/// A KDA model, which has as many value heads as key heads.
const fn kda(name: &'static str, heads: u32, k: u32, layers: Option<u32>) -> Model {
    Model { name, family: Family::Kda, shape: HeadShape { h: heads, hv: heads, k, v: 128 }, layers }
}

/// Published models, GDN first.
pub const MODELS: &[Model] = &[
    gdn("Qwen3-Next-80B-A3B", 16, 32, 36),
    gdn("Qwen3.5-0.8B", 16, 16, 18),
    gdn("Qwen3.5-2B", 16, 16, 18),
    gdn("Qwen3.5-4B", 16, 32, 24),
    gdn("Qwen3.5-9B", 16, 32, 24),
    gdn("Qwen3.5-27B", 16, 48, 48),
    gdn("Qwen3.5-35B-A3B", 16, 32, 30),
    gdn("Qwen3.5-122B-A10B", 16, 64, 36),
    gdn("Qwen3.5-397B-A17B", 16, 64, 45),
    Model {
        shape: HeadShape { h: 30, hv: 30, k: 96, v: 192 },
        layers: None,
        ..gdn("OLMo-Hybrid-7B", 30, 30, 0)
    },
    kda("Kimi-Linear-48B-A3B", 32, 128, Some(20)),
    kda("Kimi-K3", 96, 128, Some(69)),
    kda("GLM-5.3-Flash", 64, 64, None),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_model_is_served_at_every_tensor_parallel_size() {
        for m in MODELS {
            for ranks in [1, 2, 4, 8].into_iter().filter(|ranks| m.shape.h.is_multiple_of(*ranks)) {
                let shape = m.shape.shard(ranks).unwrap_or_else(|e| panic!("{}: {e}", m.name));
                assert_eq!(shape.ratio(), m.shape.ratio(), "{}", m.name);
            }
        }
    }

    #[test]
    fn every_module_of_a_model_exists_for_every_gpu() {
        for m in MODELS {
            assert_eq!(Model::find(m.name).map(|found| found.name), Some(m.name));
            for layout in Layout::ALL {
                let modules = m.modules(layout, DType::F32, DType::Bf16, DType::Bf16);
                assert!(
                    modules.iter().any(
                        |key| key.op == crate::OpKind::Recurrent && key.is_kv() == (layout == Layout::Kv)
                    )
                );
                for key in modules {
                    crate::find_module(key, 80).unwrap_or_else(|e| panic!("{}: {e}", m.name));
                }
            }
        }
        assert!(Model::find("qwen3-next-80b-a3b").is_none());
    }

    #[test]
    fn refusals_name_field_and_value() {
        let refusal = |h, hv, k, v| HeadShape::new(h, hv, k, v).unwrap_err().to_string();
        assert_eq!(refusal(0, 4, 128, 128), "h is 0: there must be at least one head");
        assert_eq!(refusal(4, 0, 128, 128), "hv is 0: there must be at least one head");
        assert_eq!(refusal(4, 6, 128, 128), "hv = 6 is not a multiple of h = 4");
        let text = "k = 192 is not supported: it must be 64, 96, 128 or 256";
        assert_eq!(refusal(1, 1, 192, 128), text);
        for v in [0, 16, 48, 544] {
            let text = format!("v = {v} is not supported: it must be a multiple of 32 from 32 to 512");
            assert_eq!(refusal(1, 1, 128, v), text);
        }
        let text =
            "hv * v * k = 4294967296 is past the limit: a sequence's state has fewer than 2^32 elements";
        assert_eq!(refusal(1, 32_768, 256, 512), text);
        assert!(refusal(1, 40_000, 128, 128).contains("hv is at most 32768"));
        let sharded = HeadShape::new(2, 6, 128, 128).unwrap().shard(4).unwrap_err();
        assert_eq!(sharded.to_string(), "h = 2 cannot be divided by tensor-parallel size 4");
    }

    #[test]
    fn reciprocal_finds_the_quotient_of_every_head() {
        let exact = |d: u32, hv: u32| {
            let m = gdn_kernels::abi::head_reciprocal(d) as u64;
            (0..hv).all(|x| (x as u64 * m) >> 31 == (x / d) as u64)
        };
        for d in 1..=256 {
            assert!(exact(d, HeadShape::MAX_HV), "divisor {d}");
        }
        for d in [1000, 4096, 16_384, 32_767, 32_768] {
            assert!(exact(d, HeadShape::MAX_HV), "divisor {d}");
        }
    }
}
