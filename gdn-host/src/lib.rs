//! Decode of gated-delta-rule layers (GDN as in Qwen3-Next and Qwen3.5, KDA as in Kimi) on NVIDIA GPUs from Rust,
//! without a CUDA toolkit, PyTorch or a JIT compiler of one's own.
//!
//! The kernels are Rust, compiled ahead of time to PTX, and for GPUs on which they were proven to machine code, and
//! embedded; the driver's library is opened at run time, so the crate builds and tests on machines without a GPU.
//! Everything speaks raw handles: device addresses are `u64`, streams are pointers, both borrowed from whatever
//! allocated them. The features `cust` and `cudarc` turn those crates' types into handles.
//!
//! ```no_run
//! use gdn_host::{DType, Family, Gdn, Layout, ModuleKey};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let context = gdn_host::driver::Context::primary(0)?; // or any runtime's current context
//! let gdn = Gdn::load(&[ModuleKey::decode(Family::Gdn, Layout::Vk, DType::F32, DType::Bf16, 128)])?;
//! # let call: gdn_host::Decode = unimplemented!();
//! // SAFETY: the call's addresses and lengths are those of live device buffers.
//! unsafe { gdn.run(&call, gdn_host::driver::Stream::DEFAULT)? };
//! # Ok(()) }
//! ```
//!
//! The way of a call: [`Operation::check`] looks at its arguments, [`Operation::plan`] chooses kernel, BV and grid
//! from the shape and the device, [`Gdn::run`] launches. [`mod@reference`] holds the same operations in f64.

#![warn(missing_docs)]

pub mod artifact;
pub mod call;
pub mod driver;
mod gdn;
pub mod interop;
mod key;
mod load;
pub mod plan;
pub mod reference;
pub mod shape;
pub mod slots;
mod table;

pub use artifact::Files;
pub use call::{
    ALog, Accepted, Activation, Beta, CallError, CommitState, Conv1dUpdate, ConvPool, ConvTarget,
    ConvertLayout, CopyState, Decay, Decode, DraftWindows, DtBias, GatedRmsNorm, HeadMap, HeadStrides,
    Inputs, Intermediate, Key, Logits, LowerBound, Operation, Query, Recurrent, Rows, SlotPool, Softplus,
    Source, Start, StatePool, Table, Target, Tensor, Tokens, UnpackQkvz, Value,
};
pub use gdn::{Error, Gdn, Prepared, all_modules, device_caps};
pub use gdn_kernels::abi::Entry;
pub use key::{DType, Family, Layout, ModuleKey, OpKind};
pub use load::{Code, LoadError, LoadedFile};
pub use plan::{Caps, Launch, Plan, Tile, Tuning};
pub use shape::{HeadShape, MODELS, Model, ShapeError};
