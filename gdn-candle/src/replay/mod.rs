//! Replay on candle tensors: states that are seldom written, with rings of records beside them.

mod state;
mod step;

pub use state::{ReplayConfig, ReplayState};
pub use step::{ReplayStep, replay_advance, replay_commit, replay_decode, replay_verify};
pub(crate) use step::{decode_into, verify_into};
