//! Replay: states that are seldom written, and the rings of records beside them.
//!
//! [`ReplayDecode`] and [`ReplayVerify`] read a state, the slot's *checkpoint*, and append a record of each token to the slot's
//! ring instead of writing the state. Once in a while the ring is folded: the true state becomes the checkpoint. What is
//! computed is in `docs/NUMERICS.md`, "Replay".

mod pool;
mod step;

pub use pool::{Cursors, ReplayPool, Rings};
pub use step::{ReplayDecode, ReplayVerify};
