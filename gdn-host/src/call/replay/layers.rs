//! All layers of a model in one launch: their memory by a table of addresses.

use super::{RecordForm, ReplayPool};
use crate::call::check::{check_address, check_end, check_value};
use crate::call::{CallError, Extent, StatePool};
use gdn_kernels::abi::{DType, LAYER_COLUMNS};

/// The addresses of a layer.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayLayer {
    /// Slot 0 of its checkpoints.
    pub state: u64,
    /// Slot 0 of its rings of keys.
    pub k: u64,
    /// Slot 0 of its rings of corrections.
    pub d: u64,
    /// Slot 0 of its rings of log decays.
    pub g: u64,
    /// Slot 0 of the pool that its true states go to; `state` where they go back.
    pub target: u64,
}

impl ReplayLayer {
    /// A layer whose true states go back to its checkpoints.
    pub const fn new(pool: &ReplayPool) -> ReplayLayer {
        let (state, rings) = (pool.state.tensor.address, &pool.rings);
        let (k, d, g) = (rings.k.tensor.address, rings.d.tensor.address, rings.g.tensor.address);
        ReplayLayer { state, k, d, g, target: state }
    }

    /// The same with true states that go to another pool.
    pub const fn with_target(self, target: u64) -> ReplayLayer {
        ReplayLayer { target, ..self }
    }

    /// Its row of the table that kernels read: `u64[5]`, little-endian.
    pub fn row(&self) -> [u8; 8 * LAYER_COLUMNS as usize] {
        let mut row = [0; 8 * LAYER_COLUMNS as usize];
        let columns = [self.state, self.k, self.d, self.g, self.target];
        for (bytes, column) in row.chunks_exact_mut(8).zip(columns) {
            bytes.copy_from_slice(&column.to_le_bytes());
        }
        row
    }
}

/// Layers whose slots, pitches, types and cursors are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayLayers<'a> {
    /// Their addresses, for checks.
    pub list: &'a [ReplayLayer],
    /// Device address of the same, [`ReplayLayer::row`] by row, 8-byte aligned. What stands there is the caller's promise: kernels
    /// go where it says.
    pub table: u64,
}

impl ReplayLayers<'_> {
    /// Layers at most, and sequences of a call for all layers.
    pub(super) const MOST: u32 = 65_535;

    pub(super) fn count(&self) -> u32 {
        self.list.len() as u32
    }

    /// The table and each layer's memory, which is like the pool's.
    pub(super) fn check(&self, form: &RecordForm, pool: &ReplayPool, batch: u32) -> Result<(), CallError> {
        let (count, most) = (self.list.len(), Self::MOST);
        check_value("batch", batch, batch <= most, "at most 65535 sequences")?;
        let is_sound = (1..=most as usize).contains(&count);
        check_value("layers", count as f64, is_sound, "1 to 65535 layers")?;
        check_address("layers.table", self.table, 8)?;
        check_end("layers.table", self.table, count as u64 * u64::from(LAYER_COLUMNS), 8)?;
        self.list.iter().try_for_each(|layer| pool.at(layer).check_memory(form, batch))
    }

    /// The table's extent.
    pub(super) fn extent(&self) -> Extent {
        let row_bytes = 8 * u64::from(LAYER_COLUMNS) * self.list.len() as u64;
        let (address, stride_bytes) = (self.table, row_bytes);
        Extent { field: "layers.table", address, rows: 1, row_bytes, stride_bytes, written: false }
    }
}

impl ReplayPool {
    /// The same pool in another layer.
    pub(crate) fn at(&self, layer: &ReplayLayer) -> ReplayPool {
        let mut pool = *self;
        pool.state = at(self.state, layer.state);
        pool.rings.k.tensor.address = layer.k;
        pool.rings.d.tensor.address = layer.d;
        pool.rings.g.tensor.address = layer.g;
        pool
    }

    /// Type of keys.
    pub(super) fn io(&self) -> DType {
        self.rings.k.tensor.dtype
    }
}

/// The same pool of states elsewhere.
pub(super) fn at(mut pool: StatePool, address: u64) -> StatePool {
    pool.tensor.address = address;
    pool
}
