//! Replay: states that are seldom written, and the rings of records beside them.
//!
//! [`ReplayDecode`] and [`ReplayVerify`] read a state, the slot's *checkpoint*, and append a record of each token to the slot's
//! ring instead of writing the state. Once in a while the ring is folded: the true state becomes the checkpoint. What is
//! computed is in `docs/NUMERICS.md`, "Replay".
//!
//! Behind a step of all layers the cursors are moved, once ([`ReplayAdvance`]), where drafts were trees after [`ReplayCommit`].
//! [`ReplayFold`] and [`Materialise`] store true states without a token. These calls take all layers in one launch
//! ([`ReplayLayers`]). [`ReplayState`] is what they all work on: pools, rings and cursors of a model.

mod cursors;
mod fold;
mod form;
mod layers;
mod pool;
mod state;
mod step;

pub(crate) use fold::Fold;
pub(crate) use step::Step;

pub use cursors::{ReplayAdvance, ReplayCommit};
pub use fold::{Materialise, ReplayFold};
pub use form::RecordForm;
pub use layers::{ReplayLayer, ReplayLayers};
pub use pool::{Cursors, ReplayPool, Rings};
pub use state::{ReplayShape, ReplayState};
pub use step::{ReplayDecode, ReplayVerify};
