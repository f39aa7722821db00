//! What a launch lets its kernel touch.
//!
//! A kernel is handed bare addresses. The extents say what lies behind them, as the documentation of the
//! parameter struct promises it: one for each tensor. They may overlap (q, k and v may be views of one packed row,
//! and a pool may be listed as read and as written), so that an access is fine if any one extent covers it.

use super::fault::{FaultKind, Near, Other};
use super::global_memory::{Memory, Place};

/// A range of global memory that a launch's arguments give the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Name of the argument, for messages.
    pub name: &'static str,
    /// Address of the first byte.
    pub address: u64,
    /// Number of bytes.
    pub bytes: u64,
    /// Whether the kernel may store to it.
    pub writable: bool,
}

impl Extent {
    /// Whether the range lies wholly inside.
    fn covers(&self, address: u64, bytes: u64) -> bool {
        address >= self.address && bytes <= self.bytes && address - self.address <= self.bytes - bytes
    }

    /// Bytes between the extent and an address; 0 inside.
    fn distance(&self, address: u64) -> u64 {
        let last = self.address.saturating_add(self.bytes.max(1)).saturating_sub(1);
        self.address.saturating_sub(address).max(address.saturating_sub(last))
    }
}

/// An access of a kernel to global memory.
#[derive(Clone, Copy)]
pub(super) struct Access {
    /// First byte.
    pub(super) address: u64,
    /// Number of bytes: 1, 2, 4, 8 or 16.
    pub(super) bytes: u32,
    /// A store, not a load.
    pub(super) store: bool,
}

impl Access {
    /// Checks alignment and extents.
    pub(super) fn check(self, extents: &[Extent]) -> Result<(), FaultKind> {
        let Access { address, bytes, store } = self;
        let near = || nearest(extents, address);
        if !address.is_multiple_of(u64::from(bytes)) {
            return Err(FaultKind::Misaligned { address, bytes, store, near: near() });
        }
        let mut covering =
            extents.iter().filter(|extent| extent.covers(address, u64::from(bytes))).peekable();
        if let Some(first) = covering.peek().copied() {
            if store && !covering.any(|extent| extent.writable) {
                return Err(FaultKind::ReadOnly { address, bytes, near: Some(first.near(address)) });
            }
            return Ok(());
        }
        Err(FaultKind::OutOfBounds { address, bytes, store, near: near() })
    }

    /// Checks that a thread that has not waited for its predecessor may do this: read what lies in an extent of these names.
    pub(super) fn check_before_wait(self, extents: &[Extent], readable: &[&str]) -> Result<(), FaultKind> {
        let Access { address, bytes, store } = self;
        let mut covering = extents.iter().filter(|extent| extent.covers(address, u64::from(bytes)));
        if !store && covering.any(|extent| readable.contains(&extent.name)) {
            return Ok(());
        }
        Err(FaultKind::BeforeWait { address, bytes, store, near: nearest(extents, address) })
    }

    /// Checks, then finds the memory.
    pub(super) fn place(self, memory: &Memory, extents: &[Extent]) -> Result<Place, FaultKind> {
        self.check(extents)?;
        let Access { address, bytes, store } = self;
        let unallocated = || FaultKind::Unallocated { address, bytes, store, near: nearest(extents, address) };
        memory.locate(address, bytes as usize).ok_or_else(unallocated)
    }

    /// Loads up to 16 bytes.
    pub(super) fn load(
        self,
        memory: &Memory,
        place: Place,
        extents: &[Extent],
    ) -> Result<[u8; 16], FaultKind> {
        let mut value = [0; 16];
        let loaded = memory.load(place, &mut value[..self.bytes as usize]);
        let unwritten = |address| FaultKind::Uninitialised { address, near: nearest(extents, address) };
        loaded.map(|()| value).map_err(unwritten)
    }

    /// The fault of an access that races with another block's.
    pub(super) fn races(self, other: Option<Other>, extents: &[Extent]) -> FaultKind {
        let Access { address, bytes, store } = self;
        let (other, near) = (other.map(Box::new), nearest(extents, address));
        FaultKind::GlobalRace { address, bytes, store, other, near }
    }
}

impl Extent {
    fn near(&self, address: u64) -> Near {
        Near { name: self.name, bytes: self.bytes, offset: i128::from(address) - i128::from(self.address) }
    }
}

/// The extent closest to an address; of several, the first.
fn nearest(extents: &[Extent], address: u64) -> Option<Near> {
    extents.iter().min_by_key(|extent| extent.distance(address)).map(|extent| extent.near(address))
}
