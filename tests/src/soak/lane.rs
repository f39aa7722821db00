//! Layers that keep their states in one way, and their memory: what the server asks of them.

use super::Size;
use super::layer::Calls;
use super::past::Past;
use super::plain::Plain;
use super::records::Records;
use super::step::{Form, Tables};
use super::tokens::Lineage;
use crate::device::Device;
use crate::random::Noise;
use anyhow::Result;
use gdn_host::{DType, Family, Layout};

/// Layers with memory in the server's slots, and with memory of a sequence alone.
pub trait Lane {
    /// The calls of a step, in their order.
    ///
    /// # Errors
    /// A layer that is not there.
    fn calls(&self, tables: &Tables, form: Form) -> Result<Calls<'_>>;

    /// The true state and the windows in a slot.
    ///
    /// # Errors
    /// A call or a copy that the device refuses.
    fn read(&self, device: &mut dyn Device, slot: usize) -> Result<Vec<u8>>;

    /// Puts there what [`Self::read`] gave.
    ///
    /// # Errors
    /// As [`Self::read`].
    fn write(&self, device: &mut dyn Device, slot: usize, bytes: &[u8]) -> Result<()>;

    /// How a slot differs from what a sequence's tokens make of it alone; `None` if it does not.
    ///
    /// # Errors
    /// As [`Self::read`].
    fn difference(
        &mut self,
        device: &mut dyn Device,
        slot: usize,
        tokens: &Lineage,
        past: &Past,
    ) -> Result<Option<String>>;

    /// What was furthest off where only a distance is promised, and how far.
    fn furthest(&self) -> Option<(String, f64)> {
        None
    }
}

/// The lanes of the server: GDN with f32 states in VK, and KDA with bf16 states in KV, written at each step; and two layers each of
/// GDN with f32 states and of KDA with bf16 states, with rings of records.
///
/// # Errors
/// A device without the memory.
pub fn all(device: &mut dyn Device, size: &Size, noise: &mut Noise) -> Result<Vec<Box<dyn Lane>>> {
    Ok(vec![
        Box::new(Plain::new(device, size, (Family::Gdn, Layout::Vk, DType::F32), noise)?),
        Box::new(Plain::new(device, size, (Family::Kda, Layout::Kv, DType::Bf16), noise)?),
        Box::new(Records::new(device, size, (Family::Gdn, DType::F32), noise)?),
        Box::new(Records::new(device, size, (Family::Kda, DType::Bf16), noise)?),
    ])
}

/// How bytes differ; `None` if they do not.
pub fn differ(got: &[u8], want: &[u8]) -> Option<String> {
    let count = got.iter().zip(want).filter(|(got, want)| got != want).count();
    (count > 0 || got.len() != want.len()).then(|| format!("{count} of {} bytes differ", got.len()))
}
