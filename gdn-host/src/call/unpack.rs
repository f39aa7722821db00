//! The packed projections of a layer, and how they are taken apart.

use super::check::{VECTOR_BYTES, check_rows};
use super::copy::check_same_type;
use super::{CallError, Extent, Extents, Operation, Params, Rows};
use crate::key::ModuleKey;
use crate::plan::{self, Caps, Overlap, Plan, PlanError, Tile, Tuning};
use crate::shape::HeadShape;
use gdn_kernels::abi;

/// Takes the projections of Qwen3-Next apart, which are interleaved by key head, with `r = HV / H`:
///
/// ```text
/// qkvz  [q K | k K | v r V | z r V] for each key head   ->   mixed_qkv [q H K | k H K | v HV V],  z [HV V]
/// ba    [b r | a r]                 for each key head   ->   b [HV],  a [HV]
/// ```
///
/// Qwen3.5 stores `[q | k | v | z]` and `[b | a]`, of which [`split_qkvz`] and [`split_ba`] make views.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UnpackQkvz {
    /// Heads of this rank.
    pub shape: HeadShape,
    /// Tokens. With 0 nothing is launched.
    pub tokens: u32,
    /// Rows of `2 * H * K + 2 * HV * V`. 16-byte aligned, as is its stride.
    pub qkvz: Rows,
    /// Rows of `2 * HV`.
    pub ba: Rows,
    /// Rows of `2 * H * K + HV * V`, of the type of `qkvz`. 16-byte aligned, as is its stride.
    pub mixed_qkv: Rows,
    /// Rows of `HV * V`, of the type of `qkvz`. 16-byte aligned, as is its stride.
    pub z: Rows,
    /// Rows of HV, of the type of `ba`.
    pub b: Rows,
    /// Rows of HV, of the type of `ba`.
    pub a: Rows,
}

/// A tensor of a call: its field, its rows, their elements, the bytes they are aligned to, and whether it is written.
type Argument<'a> = (&'static str, &'a Rows, u64, u64, bool);

impl UnpackQkvz {
    fn arguments(&self) -> [Argument<'_>; 6] {
        let (keys, values) = (self.shape.key_elements().saturating_mul(2), self.shape.value_elements());
        let heads = u64::from(self.shape.hv);
        [
            ("qkvz", &self.qkvz, keys.saturating_add(values.saturating_mul(2)), VECTOR_BYTES, false),
            ("ba", &self.ba, 2 * heads, 1, false),
            ("mixed_qkv", &self.mixed_qkv, keys.saturating_add(values), VECTOR_BYTES, true),
            ("z", &self.z, values, VECTOR_BYTES, true),
            ("b", &self.b, heads, 1, true),
            ("a", &self.a, heads, 1, true),
        ]
    }

    /// Elements of `qkvz` as vectors of 16 bytes.
    fn vectors(&self, elements: u64) -> u64 {
        elements * self.qkvz.tensor.dtype.size() as u64 / VECTOR_BYTES
    }
}

impl Operation for UnpackQkvz {
    fn check_arguments(&self) -> Result<(), CallError> {
        self.shape.check()?;
        let same = |field, rows: &Rows, like: &Rows, want| {
            check_same_type(field, rows.tensor.dtype, like.tensor.dtype, want)
        };
        same("mixed_qkv", &self.mixed_qkv, &self.qkvz, "the type of qkvz")?;
        same("z", &self.z, &self.qkvz, "the type of qkvz")?;
        same("b", &self.b, &self.ba, "the type of ba")?;
        same("a", &self.a, &self.ba, "the type of ba")?;
        let mut arguments = self.arguments().into_iter();
        arguments.try_for_each(|(field, rows, width, vector, _)| {
            check_rows(field, rows, width, self.tokens.into(), vector)
        })
    }

    fn extents(&self) -> Extents {
        let mut extents = Extents::default();
        for (field, rows, width, _, written) in self.arguments() {
            extents.push(Extent::rows(field, rows, width, self.tokens.into(), written));
        }
        extents
    }

    fn is_empty(&self) -> bool {
        self.tokens == 0
    }

    fn overlap(&self) -> Overlap {
        Overlap::Start
    }

    fn plan_tuned(&self, caps: &Caps, _tuning: &Tuning, tile: Tile) -> Result<Plan, PlanError> {
        let vectors = self.vectors(2 * (self.shape.key_elements() + self.shape.value_elements()));
        let threads = vectors.div_ceil(abi::THREAD_VECTORS.into());
        plan::spread(ModuleKey::unpack_qkvz(), threads, self.tokens, caps, tile)
    }

    fn params(&self, _plan: &Plan) -> Params {
        let stride = |rows: &Rows| self.vectors(rows.stride) as u32;
        let [k_vectors, v_vectors] =
            [self.shape.k, self.shape.v].map(|width| self.vectors(width.into()) as u32);
        Params::new(&abi::UnpackQkvzParams {
            qkvz: self.qkvz.tensor.address,
            ba: self.ba.tensor.address,
            mixed_qkv: self.mixed_qkv.tensor.address,
            z: self.z.tensor.address,
            b: self.b.tensor.address,
            a: self.a.tensor.address,
            qkvz_stride: stride(&self.qkvz),
            mixed_qkv_stride: stride(&self.mixed_qkv),
            z_stride: stride(&self.z),
            ba_stride: self.ba.stride as u32,
            b_stride: self.b.stride as u32,
            a_stride: self.a.stride as u32,
            ba_dtype: self.ba.tensor.dtype as u32,
            n: self.tokens,
            h: self.shape.h,
            ratio: self.shape.ratio(),
            k_vectors,
            v_vectors,
            ratio_reciprocal: abi::head_reciprocal(self.shape.ratio()),
            k_reciprocal: abi::head_reciprocal(k_vectors),
            v_reciprocal: abi::head_reciprocal(v_vectors),
            reserved: 0,
        })
    }

    unsafe fn run_on_host(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.on_host() };
    }
}

/// Views of a row `[q | k | v | z]`, the order of Qwen3.5: `mixed_qkv`, which
/// [`split_mixed_qkv`](super::split_mixed_qkv) splits further, and `z`.
pub fn split_qkvz(qkvz: &Rows, shape: &HeadShape) -> (Rows, Rows) {
    let mixed = shape.key_elements().saturating_mul(2).saturating_add(shape.value_elements());
    (qkvz.view(0), qkvz.view(mixed))
}

/// Views of a row `[b | a]`, the order of Qwen3.5: `b` and `a`.
pub fn split_ba(ba: &Rows, shape: &HeadShape) -> (Rows, Rows) {
    (ba.view(0), ba.view(shape.hv.into()))
}
