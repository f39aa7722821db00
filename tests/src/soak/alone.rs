//! A sequence alone: its tokens one after the other, a batch of one, in a slot that nobody else has.

use super::layer::{Layer, Memory};
use super::tokens::Lineage;
use crate::device::Device;
use anyhow::Result;
use gdn_host::{Operation, Start, Table, Tokens};

/// Tokens that are queued at once.
const QUEUED: usize = 16;

/// Memory of the sequence that is alone.
pub struct Alone {
    memory: Vec<Memory>,
    /// The rows of noise of the queued tokens, and in front of them a flag: start from zeros.
    tables: u64,
}

impl Alone {
    /// A slot in each layer.
    pub fn new(device: &mut dyn Device, layers: &[Layer]) -> Result<Alone> {
        let memory = layers.iter().map(|layer| layer.memory(device, QUEUED, 1)).collect::<Result<_>>()?;
        let tables = device.alloc(((1 + QUEUED) * size_of::<i32>()) as u64)?;
        Ok(Alone { memory, tables })
    }

    /// What tokens leave in the slot of each layer: the state and the windows.
    pub fn decode(
        &self,
        device: &mut dyn Device,
        layers: &[Layer],
        lineage: &Lineage,
        vocabulary: usize,
    ) -> Result<Vec<Vec<u8>>> {
        let positions: Vec<usize> = (0..lineage.len()).collect();
        for (chunk, positions) in positions.chunks(QUEUED).enumerate() {
            let tokens = positions.iter().map(|&position| lineage.token(position, vocabulary) as i32);
            let entries: Vec<i32> = [1].into_iter().chain(tokens).collect();
            device.write(self.tables, bytemuck::cast_slice(&entries))?;
            let lanes = layers
                .iter()
                .zip(&self.memory)
                .map(|(layer, memory)| self.calls(layer, memory, positions.len(), chunk == 0));
            let lanes: Vec<Vec<Box<dyn Operation>>> = lanes.collect();
            device.run_side_by_side(&lanes, None)?;
        }
        self.memory.iter().map(|memory| memory.read(device, 0)).collect()
    }

    fn calls(
        &self,
        layer: &Layer,
        memory: &Memory,
        count: usize,
        from_zeros: bool,
    ) -> Vec<Box<dyn Operation>> {
        let flag = Table::i32(self.tables, 1);
        let tokens = Table::i32(self.tables + size_of::<i32>() as u64, count as u64);
        let mut calls: Vec<Box<dyn Operation>> = vec![Box::new(layer.gather(memory, tokens))];
        for i in 0..count {
            let start = if from_zeros && i == 0 { Start::Reset(flag) } else { Start::FromSlot };
            let mut conv = layer.conv(memory, i, Tokens::Each { batch: 1, tokens: 1 });
            conv.start = start;
            calls.push(Box::new(conv));
            calls.push(Box::new(layer.decode(memory, i, 1).with_start(start)));
        }
        calls
    }
}
