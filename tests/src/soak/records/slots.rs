//! Slots of states with rings in device memory: the server's, or the one of a sequence alone.

use crate::device::{Device, place, place_layers};
use crate::soak::layer::{Layer, Memory, slot_bytes};
use anyhow::Result;
use gdn_host::{Launch, ReplayLayer, ReplayLayers, ReplayShape, ReplayState, StatePool, Table};

/// The states of a lane's layers, and what calls need besides.
pub struct Slots {
    /// Of each layer.
    pub memory: Vec<Memory>,
    /// Pools, rings and cursors of all layers.
    pub states: ReplayState,
    /// Live records of each slot.
    len: u64,
    /// A true state of each layer, as kernels that write states have it.
    plain: Vec<u64>,
    /// The layers with `plain` as their targets, and the address of their rows.
    to_plain: (Vec<ReplayLayer>, u64),
    /// Two entries of a table: a slot, and 0.
    entries: u64,
}

impl Slots {
    /// Empty rings; `memory` makes what a layer needs besides its states.
    pub fn new(
        device: &mut dyn Device,
        layers: &[Layer],
        shape: ReplayShape,
        memory: impl Fn(&mut dyn Device, &Layer) -> Result<Memory>,
    ) -> Result<Slots> {
        let (mut list, mut plain, mut memories) = (Vec::new(), Vec::new(), Vec::new());
        for layer in layers {
            memories.push(memory(device, layer)?);
            list.push(shape.layer_at(device.alloc(shape.layer_bytes())?));
            plain.push(device.alloc(shape.slot_bytes()[0])?);
        }
        let zeros = vec![0; shape.slots as usize];
        let [base, len] = [(); 2].map(|()| place(device, bytemuck::cast_slice::<i32, u8>(&zeros)));
        let (base, len) = (base?, len?);
        let rows = place_layers(device, &list)?;
        let of_slots = |address| Table::i32(address, shape.slots.into());
        let states = ReplayState::new(shape, list, rows, of_slots(base), of_slots(len))?;
        let to_plain = states.layers_to(&plain);
        let to_plain_rows = place_layers(device, &to_plain)?;
        let entries = place(device, &[0; 8])?;
        Ok(Slots { memory: memories, states, len, plain, to_plain: (to_plain, to_plain_rows), entries })
    }

    /// The true state and the windows in a slot, layer by layer.
    pub fn read(&self, device: &mut dyn Device, slot: usize) -> Result<Vec<Vec<u8>>> {
        let shape = self.states.shape();
        let from = self.name(device, slot)?;
        let first = Table::i32(self.entries + size_of::<i32>() as u64, 1);
        let (list, table) = &self.to_plain;
        let layers = ReplayLayers { list, table: *table };
        let target = StatePool::packed(self.plain[0], shape.state, 1, &shape.form.shape);
        device.run_all(&[&self.states.store(1, from, layers, target, first)], Launch::default())?;
        let layer = |(plain, memory): (&u64, &Memory)| -> Result<Vec<u8>> {
            let (windows, bytes) = memory.window(slot);
            Ok([device.read(*plain, shape.slot_bytes()[0])?, device.read(windows, bytes)?].concat())
        };
        self.plain.iter().zip(&self.memory).map(layer).collect()
    }

    /// Puts there what [`Self::read`] gave, all layers one behind the other: checkpoints, and an empty ring.
    pub fn write(&self, device: &mut dyn Device, slot: usize, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        for (i, memory) in self.memory.iter().enumerate() {
            let pool = self.states.pool(i)?.state;
            for (address, len) in [slot_bytes(&pool.tensor, pool.pitch, slot), memory.window(slot)] {
                let (first, behind) = rest.split_at(len as usize);
                device.write(address, first)?;
                rest = behind;
            }
        }
        let slot = self.name(device, slot)?;
        device.run_all(&[&self.states.empty(1, slot)], Launch::default())
    }

    /// Live records of a slot.
    pub fn live(&self, device: &dyn Device, slot: usize) -> Result<i32> {
        let entry = size_of::<i32>() as u64;
        let bytes = device.read(self.len + slot as u64 * entry, entry)?;
        Ok(bytemuck::pod_read_unaligned(&bytes))
    }

    /// A table that names one slot.
    fn name(&self, device: &mut dyn Device, slot: usize) -> Result<Table> {
        device.write(self.entries, &(slot as i32).to_le_bytes())?;
        Ok(Table::i32(self.entries, 1))
    }
}
