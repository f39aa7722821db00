//! Conversions between the layouts of a state.

use super::copy::state_pool;
use super::{Bytes, dtype, indices, place_optional, slot_of};
use crate::device::Device;
use crate::table::TableForm;
use anyhow::Result;
use gdn_host::{ConvertLayout, DType, HeadShape, Layout, Tile};
use proptest::prelude::*;

/// Conversions of slots.
#[derive(Clone, Debug)]
pub struct ConvertProblem {
    /// Heads.
    pub shape: HeadShape,
    /// Layout of the source; the target has the other one.
    pub layout: Layout,
    /// Number of copies.
    pub copies: usize,
    /// Where copies come from.
    pub source: Bytes,
    /// Their slots.
    pub source_slots: Option<Vec<i32>>,
    /// Where they go.
    pub target: Bytes,
    /// Their slots.
    pub target_slots: Option<Vec<i32>>,
    /// An index that names no slot.
    pub null_slot: Option<i32>,
    /// How tables lie in memory.
    pub tables: TableForm,
}

/// The other layout.
pub fn other(layout: Layout) -> Layout {
    match layout {
        Layout::Vk => Layout::Kv,
        Layout::Kv => Layout::Vk,
    }
}

impl ConvertProblem {
    /// Conversions of dense slots, copy n from slot n to slot n.
    pub fn plain(shape: HeadShape, dtype: DType, layout: Layout, copies: usize, seed: u64) -> ConvertProblem {
        let elements = shape.state_elements() as usize;
        ConvertProblem {
            shape,
            layout,
            copies,
            source: Bytes::random(dtype, copies, elements, seed),
            source_slots: None,
            target: Bytes::random(dtype, copies, elements, seed + 1),
            target_slots: None,
            null_slot: None,
            tables: TableForm::default(),
        }
    }

    /// The target as it must come out.
    pub fn expected(&self) -> Bytes {
        let mut out = self.target.clone();
        let (k, v) = (self.shape.k as usize, self.shape.v as usize);
        // Where element (v, k) of a head lies in each layout.
        let place = |layout, row: usize, column: usize| match layout {
            Layout::Vk => row * k + column,
            Layout::Kv => column * v + row,
        };
        for n in 0..self.copies {
            let from = slot_of(self.source_slots.as_ref(), n, self.source.rows, self.null_slot);
            let to = slot_of(self.target_slots.as_ref(), n, out.rows, self.null_slot);
            let (Some(from), Some(to)) = (from, to) else { continue };
            for head in 0..self.shape.hv as usize {
                for (row, column) in (0..v).flat_map(|row| (0..k).map(move |column| (row, column))) {
                    let at = |layout| head * k * v + place(layout, row, column);
                    let bytes = self.source.elements(from, at(self.layout), 1);
                    let target = out.elements(to, at(other(self.layout)), 1);
                    out.data[target].copy_from_slice(&self.source.data[bytes]);
                }
            }
        }
        out
    }

    /// Runs the problem and holds every byte of both pools against what must be there.
    pub fn run_and_check(&self, device: &mut dyn Device, tile: Tile) -> Result<()> {
        device.reset();
        let source = self.source.place_pool(device)?;
        let target = self.target.place_pool(device)?;
        let call = ConvertLayout {
            shape: self.shape,
            copies: self.copies as u32,
            source: state_pool(&source, self.layout),
            source_slots: place_optional(device, self.tables, self.source_slots.as_ref())?,
            target: state_pool(&target, other(self.layout)),
            target_slots: place_optional(device, self.tables, self.target_slots.as_ref())?,
            null_slot: self.null_slot,
        };
        device.run(&call, tile)?;
        self.source.check(device, source.tensor.address, "source")?;
        self.expected().check(device, target.tensor.address, "target")
    }
}

/// Random conversions.
pub fn conversions() -> impl Strategy<Value = ConvertProblem> {
    let dim = || prop::sample::select(vec![64u32, 128]);
    let shape = (1u32..=3, dim(), dim()).prop_map(|(hv, k, v)| HeadShape { h: 1, hv, k, v });
    let layout = prop::sample::select(vec![Layout::Vk, Layout::Kv]);
    (shape, dtype(), layout, 1usize..=3, any::<[bool; 3]>(), [0usize..3, 0..3], any::<u64>()).prop_flat_map(
        |(shape, dtype, layout, copies, [by_table, to_table, null], gaps, seed)| {
            let slots = copies + 1;
            (indices(copies, slots), indices(copies, slots)).prop_map(move |(from, to)| {
                let elements = shape.state_elements() as usize;
                let pool =
                    |seed, gap: usize| Bytes::random(dtype, slots, elements, seed).spaced(8 * gap, 16 * gap);
                ConvertProblem {
                    shape,
                    layout,
                    copies,
                    source: pool(seed, gaps[0]),
                    source_slots: by_table.then_some(from),
                    target: pool(seed ^ 1, gaps[1]),
                    null_slot: null.then_some(to[0].max(0)),
                    target_slots: to_table.then_some(to),
                    tables: TableForm::drawn(seed),
                }
            })
        },
    )
}
