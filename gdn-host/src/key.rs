//! What tells one module of kernels from another. Artifacts, calls and plans all speak of it, and it of none of them.

use std::fmt;

pub use gdn_kernels::abi::DType;

/// How many decays a value head has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Family {
    /// One: gated delta net (Qwen3-Next, Qwen3.5).
    #[default]
    Gdn,
    /// One for each element along K: Kimi delta attention.
    Kda,
}

impl Family {
    pub(crate) const ALL: [Family; 2] = [Family::Gdn, Family::Kda];
}

/// The layout of a head's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Layout {
    /// `[V, K]`, K contiguous: SGLang, vLLM, FlashInfer.
    #[default]
    Vk,
    /// `[K, V]`, V contiguous: FLA, Hugging Face.
    Kv,
}

impl Layout {
    pub(crate) const ALL: [Layout; 2] = [Layout::Vk, Layout::Kv];
}

/// What the kernels of a module do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OpKind {
    /// The recurrence over one token a sequence: [`Decode`](crate::Decode).
    Decode,
    /// The recurrence over several tokens a sequence: [`Recurrent`](crate::Recurrent).
    Recurrent,
    /// The recurrence over one token a sequence, with a ring of records: [`ReplayDecode`](crate::ReplayDecode).
    ReplayDecode,
    /// The recurrence over drafts, with a ring of records: [`ReplayVerify`](crate::ReplayVerify).
    ReplayVerify,
    /// [`ReplayFold`](crate::ReplayFold) and [`Materialise`](crate::Materialise).
    ReplayFold,
    /// [`ReplayCommit`](crate::ReplayCommit).
    ReplayCommit,
    /// [`ReplayAdvance`](crate::ReplayAdvance).
    ReplayAdvance,
    /// [`CopyState`](crate::CopyState) and [`CommitState`](crate::CommitState).
    CopyState,
    /// [`ConvertLayout`](crate::ConvertLayout).
    ConvertLayout,
    /// [`UnpackQkvz`](crate::UnpackQkvz).
    UnpackQkvz,
    /// [`Conv1dUpdate`](crate::Conv1dUpdate).
    Conv1dUpdate,
    /// [`GatedRmsNorm`](crate::GatedRmsNorm).
    GatedRmsNorm,
}

impl OpKind {
    const ALL: [OpKind; 12] = [
        OpKind::Decode,
        OpKind::Recurrent,
        OpKind::ReplayDecode,
        OpKind::ReplayVerify,
        OpKind::ReplayFold,
        OpKind::ReplayCommit,
        OpKind::ReplayAdvance,
        OpKind::CopyState,
        OpKind::ConvertLayout,
        OpKind::UnpackQkvz,
        OpKind::Conv1dUpdate,
        OpKind::GatedRmsNorm,
    ];

    /// Its name in entry names and manifests, where gate and layout may stand around it: `decode`.
    pub const fn name(self) -> &'static str {
        match self {
            OpKind::Decode => "decode",
            OpKind::Recurrent => "recurrent",
            OpKind::ReplayDecode => "replay_decode",
            OpKind::ReplayVerify => "replay_verify",
            OpKind::ReplayFold => "replay_fold",
            OpKind::ReplayCommit => "replay_commit",
            OpKind::ReplayAdvance => "replay_advance",
            OpKind::CopyState => "copy_state",
            OpKind::ConvertLayout => "convert_layout",
            OpKind::UnpackQkvz => "unpack_qkvz",
            OpKind::Conv1dUpdate => "conv1d_update",
            OpKind::GatedRmsNorm => "gated_rmsnorm",
        }
    }

    /// Whether it is the recurrence, whose kernels differ by gate and layout.
    pub const fn is_recurrence(self) -> bool {
        matches!(self, OpKind::Decode | OpKind::Recurrent) || self.has_records()
    }

    /// Whether it is the recurrence with a ring of records.
    pub const fn has_records(self) -> bool {
        matches!(self, OpKind::ReplayDecode | OpKind::ReplayVerify | OpKind::ReplayFold)
    }
}

/// What a module holds: the kernels of an operation for one choice of gate, layout, types and dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ModuleKey {
    /// Operation.
    pub op: OpKind,
    /// Gate of the recurrence; other operations have none.
    pub family: Option<Family>,
    /// Layout of the recurrence's states; other operations take both, or none.
    pub layout: Option<Layout>,
    /// Type of the state, or of an input that has a type of its own.
    pub state: Option<DType>,
    /// Type of the inputs.
    pub io: Option<DType>,
    /// Key dimension or length of a row; 0 if the operation takes any.
    pub k: u32,
}

impl ModuleKey {
    const fn of(op: OpKind, state: Option<DType>, io: Option<DType>, k: u32) -> Self {
        ModuleKey { op, family: None, layout: None, state, io, k }
    }

    const fn recurrence(op: OpKind, family: Family, layout: Layout) -> Self {
        ModuleKey { family: Some(family), layout: Some(layout), ..Self::of(op, None, None, 0) }
    }

    /// The kernels of [`Decode`](crate::Decode) for one pair of types and one key dimension: all that a model needs.
    pub const fn decode(family: Family, layout: Layout, state: DType, io: DType, k: u32) -> Self {
        let key = Self::recurrence(OpKind::Decode, family, layout);
        ModuleKey { state: Some(state), io: Some(io), k, ..key }
    }

    /// The kernels of [`Recurrent`](crate::Recurrent).
    pub const fn recurrent(family: Family, layout: Layout, state: DType, io: DType, k: u32) -> Self {
        let key = Self::recurrence(OpKind::Recurrent, family, layout);
        ModuleKey { state: Some(state), io: Some(io), k, ..key }
    }

    /// The kernels of [`ReplayDecode`](crate::ReplayDecode).
    pub const fn replay_decode(family: Family, state: DType, io: DType, k: u32) -> Self {
        Self::replay(OpKind::ReplayDecode, family, state, io, k)
    }

    /// The kernels of [`ReplayVerify`](crate::ReplayVerify).
    pub const fn replay_verify(family: Family, state: DType, io: DType, k: u32) -> Self {
        Self::replay(OpKind::ReplayVerify, family, state, io, k)
    }

    /// The kernels of [`ReplayFold`](crate::ReplayFold) and [`Materialise`](crate::Materialise).
    pub const fn replay_fold(family: Family, state: DType, io: DType, k: u32) -> Self {
        Self::replay(OpKind::ReplayFold, family, state, io, k)
    }

    /// The kernel of [`ReplayCommit`](crate::ReplayCommit), for every type.
    pub const fn replay_commit() -> Self {
        Self::of(OpKind::ReplayCommit, None, None, 0)
    }

    /// The kernel of [`ReplayAdvance`](crate::ReplayAdvance).
    pub const fn replay_advance() -> Self {
        Self::of(OpKind::ReplayAdvance, None, None, 0)
    }

    pub(crate) const fn replay(op: OpKind, family: Family, state: DType, io: DType, k: u32) -> Self {
        ModuleKey { state: Some(state), io: Some(io), k, ..Self::recurrence(op, family, Layout::Vk) }
    }

    /// The kernel of [`CopyState`](crate::CopyState) and [`CommitState`](crate::CommitState), for every type.
    pub const fn copy_state() -> Self {
        Self::of(OpKind::CopyState, None, None, 0)
    }

    /// The kernel of [`ConvertLayout`](crate::ConvertLayout) for states of one type.
    pub const fn convert_layout(state: DType) -> Self {
        Self::of(OpKind::ConvertLayout, None, Some(state), 0)
    }

    /// The kernel of [`UnpackQkvz`](crate::UnpackQkvz), for every type.
    pub const fn unpack_qkvz() -> Self {
        Self::of(OpKind::UnpackQkvz, None, None, 0)
    }

    /// The kernel of [`Conv1dUpdate`](crate::Conv1dUpdate) for conv states of a type, and inputs and outputs of a type.
    pub const fn conv1d_update(state: DType, io: DType) -> Self {
        Self::of(OpKind::Conv1dUpdate, Some(state), Some(io), 0)
    }

    /// The kernel of [`GatedRmsNorm`](crate::GatedRmsNorm) for the types of x and of z, and heads of `v` elements; 0 for
    /// heads of any number.
    pub const fn gated_rmsnorm(x: DType, io: DType, v: u32) -> Self {
        Self::of(OpKind::GatedRmsNorm, Some(x), Some(io), v)
    }

    /// The module of a section of the kernel table with these columns. The section's name is [`Self::section`]'s.
    pub fn of_section(name: &str, state: Option<DType>, io: Option<DType>, k: u32) -> Option<Self> {
        let forms = OpKind::ALL.into_iter().flat_map(Self::forms);
        let form = forms.into_iter().find(|form| form.section() == name)?;
        Some(ModuleKey { state, io, k, ..form })
    }

    /// An operation with each gate and layout that its kernels differ by.
    fn forms(op: OpKind) -> Vec<Self> {
        if !op.is_recurrence() {
            return vec![Self::of(op, None, None, 0)];
        }
        let layouts = |family| Layout::ALL.map(|layout| Self::recurrence(op, family, layout));
        Family::ALL.into_iter().flat_map(layouts).collect()
    }

    /// The operation with its gate and layout, as the kernel table and the manifest name it: `decode`, `kda_recurrent_kv`.
    pub fn section(&self) -> String {
        let gate = if self.is_kda() { "kda_" } else { "" };
        let layout = if self.is_kv() { "_kv" } else { "" };
        format!("{gate}{}{layout}", self.op.name())
    }

    /// Of the recurrence: whether a head has a decay for each key (KDA).
    pub fn is_kda(&self) -> bool {
        self.family == Some(Family::Kda)
    }

    /// Of the recurrence: whether V is contiguous in states.
    pub fn is_kv(&self) -> bool {
        self.layout == Some(Layout::Kv)
    }

    /// Of the recurrence: whether it takes several tokens a sequence.
    pub fn has_several_tokens(&self) -> bool {
        self.op == OpKind::Recurrent
    }
}

/// `decode_f32_bf16_k128`: the name of the module, and of its entries but for `gdn_` and the rows.
impl fmt::Display for ModuleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.section())?;
        for dtype in [self.state, self.io].into_iter().flatten() {
            write!(f, "_{}", dtype.name())?;
        }
        if self.k > 0 { write!(f, "_k{}", self.k) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_has_one_name_and_the_name_one_section() {
        let key = ModuleKey::recurrent(Family::Kda, Layout::Kv, DType::F32, DType::Bf16, 128);
        assert_eq!(
            (key.section().as_str(), key.to_string().as_str()),
            ("kda_recurrent_kv", "kda_recurrent_kv_f32_bf16_k128")
        );
        for op in OpKind::ALL {
            for form in ModuleKey::forms(op) {
                assert_eq!(ModuleKey::of_section(&form.section(), None, None, 0), Some(form));
            }
        }
        assert_eq!(ModuleKey::of_section("kda_copy_state", None, None, 0), None);
        assert_eq!(ModuleKey::copy_state().to_string(), "copy_state");
    }
}
