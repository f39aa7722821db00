//! Arguments of the operations, as typed calls over borrowed device memory, and their validation.
//!
//! A call holds addresses, types, strides and lengths, never data. [`Operation::check`] looks at every field
//! before anything is launched: what it accepts, the kernels run without touching a byte outside the
//! buffers it was given. It allocates nothing and takes about a tenth of a microsecond.
//!
//! A call is made by its constructor, of what it cannot do without; every option has a default, and is a public field and
//! a `with_` method of a `#[non_exhaustive]` struct. Operands that would fit each other's places have types of their own
//! where there is a choice ([`Query`], [`Key`], [`Value`], [`ALog`], [`DtBias`]).

mod check;
mod conv1d;
mod convert;
mod copy;
mod decode;
mod error;
mod extent;
mod gates;
mod inputs;
mod intermediate;
mod norm;
mod recurrent;
pub(crate) mod replay;
mod state;
mod table;
mod tokens;
mod unpack;

pub use conv1d::{Accepted, Conv1dUpdate, ConvPool, ConvTarget, DraftWindows};
pub use convert::ConvertLayout;
pub use copy::{CommitState, CopyState};
pub use decode::Decode;
pub use error::CallError;
pub use extent::{Extent, Extents};
pub use gates::{ALog, Beta, Decay, DtBias, Logits, LowerBound, Softplus};
pub use inputs::{HeadMap, Inputs, Key, Query, Value, split_mixed_qkv};
pub use intermediate::Intermediate;
pub use norm::{Activation, GatedRmsNorm, HeadStrides};
pub use recurrent::{Recurrent, Source, Target};
pub use replay::{
    Cursors, Materialise, RecordForm, ReplayAdvance, ReplayCommit, ReplayDecode, ReplayFold, ReplayLayer,
    ReplayLayers, ReplayPool, ReplayShape, ReplayState, ReplayVerify, Rings,
};
pub use state::{SlotPool, Start, StatePool};
pub use table::Table;
pub use tokens::Tokens;
pub use unpack::{UnpackQkvz, split_ba, split_qkvz};

use crate::plan::{Caps, Overlap, Plan, PlanError, Tile, Tuning};
use bytemuck::Pod;
use gdn_kernels::abi::DType;

/// A borrowed, densely packed run of elements in device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Device address of the first element.
    pub address: u64,
    /// Element type.
    pub dtype: DType,
    /// Elements that may be touched, from the address on.
    pub len: u64,
}

/// A borrowed tensor of one row per token: a row is packed, rows are `stride` elements apart.
///
/// A view of a wider row (of `mixed_qkv`, of `ba`) is a `Rows` whose address points into the first row and
/// whose stride is the wide row's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    /// The memory.
    pub tensor: Tensor,
    /// Elements from one token's row to the next one's.
    pub stride: u64,
}

impl Tensor {
    /// A run of `len` elements.
    pub const fn new(address: u64, dtype: DType, len: u64) -> Tensor {
        Tensor { address, dtype, len }
    }
}

impl Rows {
    /// `count` rows of `width` elements, one behind the other.
    pub const fn packed(address: u64, dtype: DType, count: u64, width: u64) -> Rows {
        Rows { tensor: Tensor { address, dtype, len: count.saturating_mul(width) }, stride: width }
    }

    /// The view that starts at element `offset` of each row; one past the memory's end has no elements.
    pub fn view(&self, offset: u64) -> Rows {
        let t = self.tensor;
        let address = t.address.saturating_add(offset.saturating_mul(t.dtype.size() as u64));
        Rows { tensor: Tensor { address, len: t.len.saturating_sub(offset), ..t }, stride: self.stride }
    }
}

/// An operation's arguments: what [`Gdn`](crate::Gdn) launches.
///
/// Implemented by the calls of this module, and meant for them: a kernel relies on its call's checks.
pub trait Operation {
    /// Checks every argument on its own.
    ///
    /// # Errors
    /// The first [`CallError`] found; it names the field and its value.
    fn check_arguments(&self) -> Result<(), CallError>;

    /// What a call whose arguments were checked touches, argument by argument.
    fn extents(&self) -> Extents;

    /// Shows everything that it touches: [`Self::extents`], and of a call for many layers what it touches in each.
    fn each_extent(&self, see: &mut dyn FnMut(&Extent)) {
        self.extents().iter().for_each(see);
    }

    /// Whether there is nothing to launch.
    fn is_empty(&self) -> bool;

    /// What an early launch of it does before its predecessor has ended ([`Launch::early`](crate::Launch::early)).
    fn overlap(&self) -> Overlap {
        Overlap::Never
    }

    /// Which kernel, block and grid, by a table of measured choices: [`crate::plan`].
    ///
    /// # Errors
    /// [`PlanError`] when a tile asked for does not exist, or when the call has more blocks than a grid.
    fn plan_tuned(&self, caps: &Caps, tuning: &Tuning, tile: Tile) -> Result<Plan, PlanError>;

    /// [`Self::plan_tuned`] by the embedded table that is nearest to the device.
    ///
    /// # Errors
    /// As [`Self::plan_tuned`].
    fn plan(&self, caps: &Caps, tile: Tile) -> Result<Plan, PlanError> {
        self.plan_tuned(caps, Tuning::nearest(caps), tile)
    }

    /// The kernel's argument for a checked call that is not empty and is launched as `plan` says.
    fn params(&self, plan: &Plan) -> Params;

    /// Runs a checked call on memory of this process, by the oracle: [`reference::host::run`](crate::reference::host::run) checks
    /// and calls it.
    ///
    /// # Safety
    /// As [`reference::host::run`](crate::reference::host::run), of a call that was checked and is not empty.
    unsafe fn run_on_host(&self);

    /// Checks every argument, and that nothing written shares memory with anything else.
    ///
    /// # Errors
    /// The first [`CallError`] found; it names the field and its value.
    fn check(&self) -> Result<(), CallError> {
        self.check_arguments()?;
        if self.is_empty() { Ok(()) } else { self.extents().check_overlap() }
    }
}

/// A kernel's argument: the bytes of its parameter struct, held inline so that a launch allocates nothing.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub struct Params {
    bytes: [u8; Params::CAPACITY],
    len: usize,
}

impl Params {
    /// Bytes of the largest parameter struct.
    const CAPACITY: usize = 384;

    /// The argument of a kernel that takes a `P`.
    pub fn new<P: Pod>(params: &P) -> Params {
        const { assert!(size_of::<P>() <= Params::CAPACITY && align_of::<P>() <= 8) }
        let mut block = Params { bytes: [0; Params::CAPACITY], len: size_of::<P>() };
        block.bytes[..size_of::<P>()].copy_from_slice(bytemuck::bytes_of(params));
        block
    }

    /// The parameter struct's bytes, 8-byte aligned.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}
