//! The operations that are timed, their shapes, and what they have to move.

use super::row::layout_name;
use clap::ValueEnum;
use gdn_host::plan::{self, Job};
use gdn_host::{DType, Family, HeadShape, Layout, ModuleKey, Tile};

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Op {
    /// One token, state updated in its slot.
    Decode,
    /// Several tokens, the state after each kept in a buffer, no write-back.
    Verify,
    /// Several tokens, state updated in its slot.
    Update,
    /// Decode with a decay per key.
    KdaDecode,
    /// Verify with a decay per key.
    KdaVerify,
    /// Update with a decay per key.
    KdaUpdate,
    /// One token with a ring of records, in steady state: one sequence in 16 folds.
    ReplayDecode,
    /// Several tokens with a ring of records, in steady state: with four tokens one sequence in six folds.
    ReplayVerify,
    /// The same drafts as a tree, in which two follow each.
    ReplayVerifyTree,
    /// Replay's decode with a decay per key.
    KdaReplayDecode,
    /// Replay's verify with a decay per key.
    KdaReplayVerify,
    /// Several tokens with a ring, where every sequence folds what the step before appended: it writes each state, as update does.
    ReplayUpdate,
    /// The same with a decay per key.
    KdaReplayUpdate,
    /// Accepted paths of drafts made contiguous, in 48 layers.
    ReplayCommit,
    /// True states stored elsewhere, in 48 layers.
    Materialise,
    /// Interleaved projections taken apart.
    UnpackQkvz,
    /// Causal convolution of one token, width 4, SiLU, over the channels of q, k and v.
    Conv1dUpdate,
    /// Gated RMSNorm of a decode's outputs.
    #[value(name = "gated_rmsnorm")]
    GatedRmsNorm,
    /// States copied from slots to slots.
    CopyState,
    /// States copied into the other layout.
    ConvertLayout,
}

impl Op {
    /// As in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Op::Decode => "decode",
            Op::Verify => "verify",
            Op::Update => "update",
            Op::KdaDecode => "kda_decode",
            Op::KdaVerify => "kda_verify",
            Op::KdaUpdate => "kda_update",
            Op::ReplayDecode => "replay_decode",
            Op::ReplayVerify => "replay_verify",
            Op::ReplayVerifyTree => "replay_verify_tree",
            Op::KdaReplayDecode => "kda_replay_decode",
            Op::KdaReplayVerify => "kda_replay_verify",
            Op::ReplayUpdate => "replay_update",
            Op::KdaReplayUpdate => "kda_replay_update",
            Op::ReplayCommit => "replay_commit",
            Op::Materialise => "materialise",
            Op::UnpackQkvz => "unpack_qkvz",
            Op::Conv1dUpdate => "conv1d_update",
            Op::GatedRmsNorm => "gated_rmsnorm",
            Op::CopyState => "copy_state",
            Op::ConvertLayout => "convert_layout",
        }
    }

    pub(super) fn family(self) -> Family {
        match self {
            Op::KdaDecode | Op::KdaVerify | Op::KdaUpdate => Family::Kda,
            Op::KdaReplayDecode | Op::KdaReplayVerify | Op::KdaReplayUpdate => Family::Kda,
            _ => Family::Gdn,
        }
    }

    /// Whether it goes through states, as decode does.
    pub fn is_recurrence(self) -> bool {
        matches!(self, Op::Decode | Op::KdaDecode) || self.has_several_tokens() || self.has_records()
    }

    /// Whether it works with rings of records.
    pub(super) fn has_records(self) -> bool {
        matches!(self, Op::ReplayDecode | Op::KdaReplayDecode) || self.has_drafts()
    }

    fn has_drafts(self) -> bool {
        self.folds_each() || matches!(self, Op::ReplayVerify | Op::ReplayVerifyTree | Op::KdaReplayVerify)
    }

    /// Whether every sequence folds.
    pub(super) fn folds_each(self) -> bool {
        matches!(self, Op::ReplayUpdate | Op::KdaReplayUpdate)
    }

    /// Whether one launch does it for [`LAYERS`].
    pub(super) fn is_for_all_layers(self) -> bool {
        matches!(self, Op::ReplayCommit | Op::Materialise)
    }

    /// Whether a call has as many tokens of each sequence as it is asked for.
    pub(super) fn takes_tokens(self) -> bool {
        self.has_several_tokens() || self == Op::ReplayCommit
    }

    /// Whether it has to read each state and write it back, and no more.
    pub(super) fn is_read_modify_write(self) -> bool {
        self.is_recurrence() && !self.is_verification() && !self.has_records()
    }

    pub(super) fn is_verification(self) -> bool {
        matches!(self, Op::Verify | Op::KdaVerify)
    }

    pub(super) fn has_several_tokens(self) -> bool {
        self.is_verification() || matches!(self, Op::Update | Op::KdaUpdate) || self.has_drafts()
    }
}

/// Layers of what is done for all of them at once, about as many as models have.
pub(super) const LAYERS: u64 = 48;
/// Most live records, as the peers' rings have them. A decode behind the fifteenth folds, as SGLang's does.
pub(super) const LIVE: u32 = 16;

/// Taps of the convolution in every published model.
pub(super) const CONV_WIDTH: u64 = 4;

/// A shape to time.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Operation.
    pub op: Op,
    /// Heads.
    pub shape: HeadShape,
    /// Type of the state.
    pub state: DType,
    /// Type of q, k and v.
    pub io: DType,
    /// Layout of the state.
    pub layout: Layout,
    /// Sequences.
    pub batch: u32,
    /// Tokens of each.
    pub tokens: u32,
}

impl Spec {
    /// With the tokens that the operation takes, `tokens` if it takes several.
    pub fn new(op: Op, shape: HeadShape, state: DType, layout: Layout, batch: u32, tokens: u32) -> Spec {
        let tokens = if op.takes_tokens() { tokens } else { 1 };
        Spec { op, shape, state, io: DType::Bf16, layout, batch, tokens }
    }

    /// The module that the operation needs.
    pub fn module(&self) -> ModuleKey {
        let key = match self.op {
            Op::Decode | Op::KdaDecode => ModuleKey::decode,
            Op::Verify | Op::Update | Op::KdaVerify | Op::KdaUpdate => ModuleKey::recurrent,
            Op::ReplayDecode | Op::KdaReplayDecode => {
                return ModuleKey::replay_decode(self.op.family(), self.state, self.io, self.shape.k);
            }
            Op::ReplayVerify
            | Op::ReplayVerifyTree
            | Op::KdaReplayVerify
            | Op::ReplayUpdate
            | Op::KdaReplayUpdate => {
                return ModuleKey::replay_verify(self.op.family(), self.state, self.io, self.shape.k);
            }
            Op::ReplayCommit => return ModuleKey::replay_commit(),
            Op::Materialise => {
                return ModuleKey::replay_fold(Family::Gdn, self.state, self.io, self.shape.k);
            }
            Op::UnpackQkvz => return ModuleKey::unpack_qkvz(),
            Op::Conv1dUpdate => return ModuleKey::conv1d_update(self.io, self.io),
            Op::GatedRmsNorm => return ModuleKey::gated_rmsnorm(self.io, self.io, self.shape.v),
            Op::CopyState => return ModuleKey::copy_state(),
            Op::ConvertLayout => return ModuleKey::convert_layout(self.state),
        };
        key(self.op.family(), self.layout, self.state, self.io, self.shape.k)
    }

    /// What its plan follows from, if it is one of the recurrence.
    pub fn job(&self) -> Job {
        let stores_each = self.op.is_verification();
        Job { module: self.module(), shape: self.shape, batch: self.batch, stores_each }
    }

    /// As tables call it.
    pub fn name(&self) -> String {
        let Spec { op, shape, state, layout, batch, .. } = self;
        let (state, layout) = (state.name(), layout_name(*layout));
        format!("{} {}:{} {layout} {state:4} batch {batch:4}", op.name(), shape.h, shape.hv)
    }

    /// As `--layouts` calls that of the state.
    pub fn layout_name(&self) -> &'static str {
        layout_name(self.layout)
    }

    /// Whether each sequence has one token.
    pub fn is_one_token(&self) -> bool {
        !self.op.has_several_tokens()
    }

    /// Every tile there is, or every size of a block where the operation has no tiles.
    pub fn tiles(&self) -> Vec<Tile> {
        match self.op.is_recurrence() || self.op == Op::Materialise {
            true => plan::tiles(self.module(), &self.shape).collect(),
            false => [1, 2, 4, 8].map(|warps| Tile::Exact { rows: 0, warps }).to_vec(),
        }
    }

    /// Channels of q, k and v, which the convolution runs over.
    pub(super) fn channels(&self) -> u64 {
        2 * self.shape.key_elements() + self.shape.value_elements()
    }

    /// Bytes of the states of all sequences.
    pub fn state_bytes(&self) -> u64 {
        u64::from(self.batch) * self.shape.state_elements() * self.state.size() as u64
    }

    /// Bytes of a record of GDN, with the keys of all key heads.
    fn record_bytes(&self) -> u64 {
        let f32s = self.shape.value_elements() + u64::from(self.shape.hv);
        self.shape.key_elements() * self.io.size() as u64 + 4 * f32s
    }

    /// Live records of all sequences where their numbers are staggered: none, one and so on up to one less than [`LIVE`].
    fn live_records(&self) -> u64 {
        (0..self.batch).map(|n| u64::from(n % LIVE)).sum()
    }

    /// Bytes that a launch has of its own.
    pub fn cold_bytes(&self) -> u64 {
        let rows = u64::from(self.batch) * self.io.size() as u64;
        match self.op {
            Op::Decode | Op::KdaDecode | Op::Update | Op::KdaUpdate => self.state_bytes(),
            Op::ReplayDecode | Op::KdaReplayDecode => self.state_bytes(),
            Op::ReplayVerify | Op::ReplayVerifyTree | Op::KdaReplayVerify => self.state_bytes(),
            Op::ReplayUpdate | Op::KdaReplayUpdate => 2 * self.state_bytes(),
            Op::Verify | Op::KdaVerify => self.state_bytes() * (1 + u64::from(self.tokens)),
            Op::UnpackQkvz => {
                let z = self.shape.value_elements();
                2 * rows * (self.channels() + z + 2 * u64::from(self.shape.hv))
            }
            Op::Conv1dUpdate => rows * self.channels() * (CONV_WIDTH - 1),
            Op::GatedRmsNorm => 3 * rows * self.shape.value_elements(),
            Op::CopyState | Op::ConvertLayout => 2 * self.state_bytes(),
            Op::Materialise => LAYERS * (2 * self.state_bytes() + self.live_records() * self.record_bytes()),
            Op::ReplayCommit => {
                LAYERS * u64::from(self.batch) * u64::from(self.tokens - 1) * 2 * self.record_bytes()
            }
        }
    }

    /// Launches of a graph at most: operations on small inputs take more of them to leave the L2.
    pub fn most_launches(&self) -> usize {
        if matches!(self.op, Op::UnpackQkvz | Op::Conv1dUpdate | Op::GatedRmsNorm) { 512 } else { 48 }
    }

    /// Bytes that a launch has to read and write: of states, or where there are none of its inputs and outputs.
    pub fn moved_bytes(&self) -> u64 {
        match self.op {
            op if op.is_read_modify_write() => 2 * self.state_bytes(),
            Op::Conv1dUpdate => {
                let rows = u64::from(self.batch) * self.channels() * self.io.size() as u64;
                2 * self.cold_bytes() + 2 * rows
            }
            _ => self.cold_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A materialisation writes each state once, and reads it and the live records: one head of 128 x 128 in bf16 has 32 KiB, a
    /// record of it a key of 256 bytes, a correction of 512 and a decay of 4.
    #[test]
    fn a_materialisation_moves_states_and_live_records() {
        let shape = HeadShape { h: 1, hv: 1, k: 128, v: 128 };
        let spec = |batch| Spec::new(Op::Materialise, shape, DType::Bf16, Layout::Vk, batch, 4);
        for (batch, records) in [(1, 0), (4, 6), (16, 120), (17, 120), (18, 121)] {
            assert_eq!(spec(batch).moved_bytes(), 48 * (u64::from(batch) * 2 * 32_768 + records * 772));
        }
    }
}
