#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

mod conv;
mod inputs;
#[cfg(feature = "cuda")]
mod kernels;
mod layer;
mod lock;
mod memory;
mod norm;
mod pool;
mod recurrence;
mod replay;
mod run;
mod slots;

pub use conv::{DraftWindows, Filter, conv1d_commit, conv1d_update};
pub use gdn_host::slots::{Sequence, SlotAllocator, SlotError, StepTables};
pub use gdn_host::{Activation, Family, HeadMap, HeadShape, Layout, ModuleKey, RecordForm};
pub use inputs::{Beta, Decay, Gate, GateKind, Inputs, split_qkv};
pub use layer::{Drafts, Layer, Projected, layer_commit, layer_step, replay_layer_step};
pub use norm::{Norm, gated_rmsnorm};
pub use pool::{ConvPool, LayerPool, Snapshot, StatePool};
pub use recurrence::{DraftStates, Tokens, advance, commit, decode, recurrent_fwd, verify};
pub use replay::{
    ReplayConfig, ReplayState, ReplayStep, replay_advance, replay_commit, replay_decode, replay_verify,
};
pub use slots::{Slots, Start, Write};

use candle_core::{Device, Result};

/// Loads kernels onto a device, those that are not there yet: at start-up, and before a stream is captured. A call loads what
/// it lacks by itself, but not under capture. [`Layer::modules`] lists a layer's. On the CPU there is nothing to load.
///
/// Loaded kernels are shared by all threads and all candle devices of a GPU, and stay until [`unload`].
///
/// # Errors
/// A module that there is not, that cargo features leave out, or that the driver refuses.
pub fn preload(device: &Device, modules: &[ModuleKey]) -> Result<()> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => kernels::preload(device, modules),
        _ => {
            let _ = modules;
            Ok(())
        }
    }
}

/// Unloads a GPU's kernels, and lets go of its context. Calls that come later load them anew. A graph that was captured must not
/// be replayed afterwards.
pub fn unload(device: &Device) {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => kernels::unload(device),
        _ => {}
    }
}

/// The kernels that are loaded on a device; none on the CPU.
pub fn loaded(device: &Device) -> Vec<ModuleKey> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => kernels::loaded(device),
        _ => Vec::new(),
    }
}
