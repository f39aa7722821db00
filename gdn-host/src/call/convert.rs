//! Conversion of states between layouts.

use super::check::check_null_slot;
use super::copy::{Side, check_same_type};
use super::{CallError, Extents, Operation, Params, StatePool, Table};
use crate::key::{Layout, ModuleKey};
use crate::plan::{self, Caps, Plan, PlanError, Tile, Tuning};
use crate::shape::HeadShape;
use gdn_kernels::abi;

/// Copies of states from a pool of one layout to a pool of the other one, VK to KV or KV to VK: what lies between a
/// prefill and a decode that want different ones. Only bits move.
///
/// Copy n goes from slot `source_slots[n]` to slot `target_slots[n]`. A copy one of whose indices is negative,
/// `null_slot`, or past its pool is not done. The pools share no memory, and no two copies may go to one slot.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConvertLayout {
    /// Heads of this rank.
    pub shape: HeadShape,
    /// Number of copies. With 0 nothing is launched.
    pub copies: u32,
    /// Where copies come from.
    pub source: StatePool,
    /// `[copies]`: slot that each copy comes from. Without it copy n comes from slot n.
    pub source_slots: Option<Table>,
    /// Where copies go, of the source's type and the other layout.
    pub target: StatePool,
    /// `[copies]`: slot that each copy goes to. Without it copy n goes to slot n.
    pub target_slots: Option<Table>,
    /// An index value of either table that names no slot, besides the negative ones (vLLM: 0).
    pub null_slot: Option<i32>,
}

/// How the heads' matrices of the source are cut into the tiles of warps.
struct Tiles {
    rows: u32,
    columns: u32,
    /// Tiles side by side.
    across: u32,
    /// Tiles of a matrix.
    of_head: u32,
}

impl ConvertLayout {
    fn source(&self) -> Side<'_> {
        let fields = ["source", "source_slots"];
        Side { fields, pool: self.source.into(), slots: self.source_slots.as_ref() }
    }

    fn target(&self) -> Side<'_> {
        let fields = ["target", "target_slots"];
        Side { fields, pool: self.target.into(), slots: self.target_slots.as_ref() }
    }

    fn tiles(&self) -> Tiles {
        let (rows, columns) = match self.source.layout {
            Layout::Vk => (self.shape.v, self.shape.k),
            Layout::Kv => (self.shape.k, self.shape.v),
        };
        let size = self.source.tensor.dtype.size() as u32;
        let across = (columns * size).div_ceil(abi::CONVERT_TILE_COLUMNS);
        Tiles { rows, columns, across, of_head: (rows * size).div_ceil(abi::CONVERT_TILE_ROWS) * across }
    }
}

impl Operation for ConvertLayout {
    fn check_arguments(&self) -> Result<(), CallError> {
        self.shape.check()?;
        check_null_slot(self.null_slot)?;
        let (source, target) = (&self.source, &self.target);
        check_same_type("target", target.tensor.dtype, source.tensor.dtype, "the type of the source")?;
        let problem = match (source.layout, target.layout) {
            (Layout::Vk, Layout::Vk) => Some("source and target both have the layout VK: CopyState copies"),
            (Layout::Kv, Layout::Kv) => Some("source and target both have the layout KV: CopyState copies"),
            (Layout::Vk, Layout::Kv) | (Layout::Kv, Layout::Vk) => None,
        };
        if let Some(problem) = problem {
            return Err(CallError::Combination { field: "target", problem });
        }
        if self.copies == 0 {
            return Ok(());
        }
        let elements = self.shape.state_elements();
        self.source().check(elements, self.copies)?;
        self.target().check(elements, self.copies)
    }

    fn extents(&self) -> Extents {
        let mut extents = Extents::default();
        let elements = self.shape.state_elements();
        self.source().push_extents(&mut extents, elements, false);
        self.target().push_extents(&mut extents, elements, true);
        extents
    }

    fn is_empty(&self) -> bool {
        self.copies == 0
    }

    fn plan_tuned(&self, caps: &Caps, _tuning: &Tuning, tile: Tile) -> Result<Plan, PlanError> {
        let module = ModuleKey::convert_layout(self.source.tensor.dtype);
        let warps = u64::from(self.shape.hv) * u64::from(self.tiles().of_head);
        plan::spread(module, 32 * warps, self.copies, caps, tile)
    }

    fn params(&self, _plan: &Plan) -> Params {
        let Tiles { rows, columns, across, of_head } = self.tiles();
        Params::new(&abi::ConvertLayoutParams {
            source: self.source().to_abi(self.null_slot),
            target: self.target().to_abi(self.null_slot),
            n: self.copies,
            heads: self.shape.hv,
            rows,
            columns,
            tiles_reciprocal: abi::head_reciprocal(of_head),
            columns_reciprocal: abi::head_reciprocal(across),
        })
    }

    unsafe fn run_on_host(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.on_host() };
    }
}
