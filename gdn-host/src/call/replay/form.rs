//! What the records of a ring mean: heads, gate, and how keys are normalised.

use crate::call::check::check_eps;
use crate::call::{CallError, HeadMap, Inputs};
use crate::key::{Family, ModuleKey};
use crate::plan;
use crate::shape::HeadShape;

/// What the records of a ring mean, for calls that have no token: the same as in the [`Inputs`] whose tokens they are of.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct RecordForm {
    /// Heads of this rank.
    pub shape: HeadShape,
    /// GDN or KDA.
    pub family: Family,
    /// The eps with which keys are normalised, if they are.
    pub l2norm: Option<f32>,
    /// Head map.
    pub heads: HeadMap,
}

impl RecordForm {
    /// That of published models: keys are normalised with an eps of 1e-6, key heads are grouped.
    pub const fn new(shape: HeadShape, family: Family) -> RecordForm {
        RecordForm { shape, family, l2norm: Some(1e-6), heads: HeadMap::Grouped }
    }

    /// That of a call's tokens.
    pub const fn of(inputs: &Inputs) -> RecordForm {
        let Inputs { shape, family, l2norm, heads, .. } = *inputs;
        RecordForm { shape, family, l2norm, heads }
    }

    pub(super) fn is_kda(&self) -> bool {
        self.family == Family::Kda
    }

    pub(super) fn check(&self) -> Result<(), CallError> {
        self.shape.check()?;
        self.l2norm.map_or(Ok(()), |eps| check_eps("l2norm", eps))
    }

    /// There are kernels for the family, K, and the types of keys and checkpoints.
    pub(super) fn check_served(&self, module: ModuleKey) -> Result<(), CallError> {
        if plan::is_served(module) {
            return Ok(());
        }
        Err(match self.shape.k {
            128 => CallError::Type {
                field: "pool.state",
                have: module.state.map_or("none", crate::key::DType::name),
                want: "f32, the type of q, or f16 with q in bf16",
            },
            _ => CallError::Combination {
                field: "shape",
                problem: "replay has kernels for K = 128, and decode of GDN for K = 64 with q in f32 or bf16",
            },
        })
    }
}
