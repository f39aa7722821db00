//! Decode of gated-delta-rule layers (GDN as in Qwen3-Next and Qwen3.5, KDA as in Kimi) on NVIDIA GPUs from Rust,
//! without a CUDA toolkit, PyTorch or a JIT compiler of one's own.
//!
//! The kernels are Rust, compiled ahead of time to PTX, and for GPUs on which they were proven to machine code, and
//! embedded; the driver's library is opened at run time, so the crate builds and tests on machines without a GPU.
//! Everything speaks raw handles: device addresses are `u64`, streams are pointers, both borrowed from whatever
//! allocated them. The features `cust` and `cudarc` turn those crates' types into handles.
//!
//! ```no_run
//! use gdn_host::{call::split_mixed_qkv, driver::Stream, *};
//!
//! /// One token for each of `n` sequences in a layer of Qwen3-Next: bf16 inputs, f32 states in a pool of `slots`.
//! ///
//! /// # Safety
//! /// `p` are addresses of device memory, as long as `Addresses` says, that nothing else works on until the launch has run.
//! unsafe fn decode(gdn: &Gdn, p: &Addresses, n: u32, slots: u32, stream: Stream) -> Result<(), Error> {
//!     let shape = HeadShape { h: 16, hv: 32, k: 128, v: 128 };
//!     let rows = |address, width| Rows::packed(address, DType::Bf16, n.into(), width);
//!     let table = |address| Tensor::new(address, DType::F32, 32);
//!     let (q, k, v) = split_mixed_qkv(&rows(p.mixed_qkv, 8192), &shape); // three views, nothing is copied
//!     let decay = Softplus::new(rows(p.a, 32), ALog(table(p.a_log)), DtBias(table(p.dt_bias)));
//!     let inputs = Inputs::gdn(shape, q, k, v, decay, Logits::new(rows(p.b, 32)));
//!     let pool = StatePool::packed(p.pool, DType::F32, slots, &shape);
//!     let call = Decode::new(inputs, n, pool, rows(p.out, 4096)).with_slots(Table::i32(p.slots, n.into()));
//!     // SAFETY: the caller's promise.
//!     unsafe { gdn.run(&call, stream) }
//! }
//!
//! /// Device addresses, from any allocator.
//! struct Addresses {
//!     mixed_qkv: u64, // bf16 [n, 8192]: q, k and v of a token side by side, as the convolution leaves them
//!     a: u64,         // bf16 [n, 32]
//!     b: u64,         // bf16 [n, 32]
//!     a_log: u64,     // f32 [32]
//!     dt_bias: u64,   // f32 [32]
//!     pool: u64,      // f32 [slots, 32, 128, 128]
//!     slots: u64,     // i32 [n]; negative: a padded row
//!     out: u64,       // bf16 [n, 4096]
//! }
//!
//! /// Once, with a context current: cudarc's, candle's, PyTorch's, or that of `driver::Context::primary(0)`.
//! fn load() -> Result<Gdn, LoadError> {
//!     Gdn::load(&[ModuleKey::decode(Family::Gdn, Layout::Vk, DType::F32, DType::Bf16, 128)])
//! }
//! ```
//!
//! # Where to look
//!
//! | to | see |
//! |---|---|
//! | load kernels, run and prepare calls | [`Gdn`], [`Prepared`], [`ModuleKey`], [`Code`] |
//! | take one token a sequence | [`Decode`] |
//! | take several: short prompts, drafts, trees | [`Recurrent`], with [`Tokens`], [`Source`], [`Target`], [`Intermediate`] |
//! | take tokens or drafts without writing the state each time | [`ReplayDecode`], [`ReplayVerify`], with [`ReplayPool`], [`Rings`], [`Cursors`] |
//! | fold or copy true states, commit trees, move cursors | [`ReplayFold`], [`Materialise`], [`ReplayCommit`], [`ReplayAdvance`] |
//! | have pools, rings and cursors of all layers as one thing | [`ReplayState`], [`ReplayShape`], with [`mod@slots`] |
//! | name inputs, gates and heads | [`Inputs`], [`Decay`], [`Beta`], [`HeadShape`], [`HeadMap`], [`Family`] |
//! | name memory | [`Tensor`], [`Rows`], [`Table`], [`StatePool`], [`SlotPool`], [`Layout`], [`Start`] |
//! | move states | [`CopyState`], [`CommitState`], [`ConvertLayout`] |
//! | do what stands around the recurrence | [`UnpackQkvz`], [`Conv1dUpdate`], [`GatedRmsNorm`] |
//! | choose a tile, launch early | [`Launch`], [`Tile`], [`Plan`] |
//! | take cudarc's or cust's buffers | [`interop`] |
//! | work without either | [`driver`] |
//! | check a result in f64 | [`mod@reference`] |
//!
//! The way of a call: [`Operation::check`] looks at its arguments, [`Operation::plan`] chooses kernel, BV and grid from
//! the shape and the device, [`Gdn::run`] launches. Bad arguments are a [`CallError`] that names the field.

#![warn(missing_docs)]

pub mod artifact;
pub mod call;
pub mod driver;
mod gdn;
pub mod interop;
mod key;
#[cfg_attr(not(test), allow(dead_code, reason = "the build script writes what is read here"))]
mod listing;
mod load;
#[cfg_attr(not(feature = "embed"), allow(dead_code, reason = "without kernels there is nothing to restore"))]
mod move_to_front;
#[doc(hidden)]
pub mod packing;
pub mod plan;
pub mod reference;
pub mod shape;
pub mod slots;
mod table;

pub use artifact::Files;
pub use call::{
    ALog, Accepted, Activation, Beta, CallError, CommitState, Conv1dUpdate, ConvPool, ConvTarget,
    ConvertLayout, CopyState, Cursors, Decay, Decode, DraftWindows, DtBias, GatedRmsNorm, HeadMap,
    HeadStrides, Inputs, Intermediate, Key, Logits, LowerBound, Materialise, Operation, Query, RecordForm,
    Recurrent, ReplayAdvance, ReplayCommit, ReplayDecode, ReplayFold, ReplayLayer, ReplayLayers, ReplayPool,
    ReplayShape, ReplayState, ReplayVerify, Rings, Rows, SlotPool, Softplus, Source, Start, StatePool, Table,
    Target, Tensor, Tokens, UnpackQkvz, Value,
};
pub use gdn::{Error, Gdn, Prepared, all_modules, device_caps};
pub use gdn_kernels::abi::Entry;
pub use key::{DType, Family, Layout, ModuleKey, OpKind};
pub use load::{Code, LoadError, LoadedFile, find_module};
pub use plan::{Caps, Launch, Plan, Tile, Tuning};
pub use shape::{HeadShape, MODELS, Model, ShapeError};
