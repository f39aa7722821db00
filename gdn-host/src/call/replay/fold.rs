//! True states, stored where they were or elsewhere, in all layers.

use super::layers::{ReplayLayer, ReplayLayers, at};
use super::{RecordForm, ReplayPool};
use crate::call::check::{check_optional_flags, check_optional_table, check_value};
use crate::call::{CallError, Extent, Extents, HeadMap, Operation, Params, Start, StatePool, Table};
use crate::key::{ModuleKey, OpKind};
use crate::plan::{self, Caps, Job, Plan, PlanError, Tile, Tuning};
use gdn_kernels::abi::{self, flags};

/// Folds rings: the true state of each sequence that `pool.force` names, or of all, becomes its checkpoint, in all layers.
///
/// Cursors stay as they are; behind the call the caller makes these sequences' rings empty.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct ReplayFold<'a> {
    /// What records mean.
    pub form: RecordForm,
    /// Sequences, N, up to 65,535. With 0 nothing is launched.
    pub batch: u32,
    /// What a layer has; the addresses are those of `layers`. `start` and `most` have no meaning here.
    pub pool: ReplayPool,
    /// Layers.
    pub layers: ReplayLayers<'a>,
}

/// Stores the true state of each sequence into another slot or pool, in all layers: for a prefix that is kept, or a hand-over to
/// another process. Checkpoints, rings and cursors stay as they are.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Materialise<'a> {
    /// What records mean.
    pub form: RecordForm,
    /// Sequences, N, up to 65,535. With 0 nothing is launched.
    pub batch: u32,
    /// What a layer has; the addresses are those of `layers`. `start` and `most` have no meaning here.
    pub pool: ReplayPool,
    /// Layers.
    pub layers: ReplayLayers<'a>,
    /// What is written in a layer, of the type of the checkpoints; the address is [`ReplayLayer::target`]. It may be the pool of
    /// the checkpoints: then no target slot is another sequence's slot.
    pub target: StatePool,
    /// `[N]`: the slot that each true state goes to; one that names none, `pool.null_slot` among them, keeps nothing. Without it
    /// sequence n's is its own slot.
    pub target_slots: Option<Table>,
    /// `[N]`: records that are applied, up to those that are live; another number keeps nothing. Without it all are.
    pub count: Option<Table>,
}

impl<'a> ReplayFold<'a> {
    /// Folds all of `batch` sequences.
    pub const fn new(
        form: RecordForm,
        batch: u32,
        pool: ReplayPool,
        layers: ReplayLayers<'a>,
    ) -> ReplayFold<'a> {
        ReplayFold { form, batch, pool, layers }
    }

    fn fold(&self) -> Fold<'_> {
        let Self { form, batch, pool, layers } = self;
        Fold { form, batch: *batch, pool, layers, target: None, target_slots: None, count: None }
    }
}

impl<'a> Materialise<'a> {
    /// Stores all of `batch` sequences, each into the slot of `target` that has its own slot's number.
    pub const fn new(
        form: RecordForm,
        batch: u32,
        pool: ReplayPool,
        layers: ReplayLayers<'a>,
        target: StatePool,
    ) -> Materialise<'a> {
        Materialise { form, batch, pool, layers, target, target_slots: None, count: None }
    }

    /// The same into the slots of a table, `[N]`.
    pub const fn with_target_slots(self, slots: Table) -> Materialise<'a> {
        Materialise { target_slots: Some(slots), ..self }
    }

    /// The same behind so many records of each, `[N]`.
    pub const fn with_count(self, count: Table) -> Materialise<'a> {
        Materialise { count: Some(count), ..self }
    }

    fn fold(&self) -> Fold<'_> {
        let Self { form, batch, pool, layers, target, target_slots, count } = self;
        let (target_slots, count) = (target_slots.as_ref(), count.as_ref());
        Fold { form, batch: *batch, pool, layers, target: Some(target), target_slots, count }
    }
}

/// What both calls are.
pub(crate) struct Fold<'a> {
    pub(crate) form: &'a RecordForm,
    pub(crate) batch: u32,
    pub(crate) pool: &'a ReplayPool,
    pub(crate) layers: &'a ReplayLayers<'a>,
    /// The other pool, if true states do not go back.
    target: Option<&'a StatePool>,
    pub(crate) target_slots: Option<&'a Table>,
    pub(crate) count: Option<&'a Table>,
}

impl Fold<'_> {
    /// The pool that true states of a layer go to.
    pub(crate) fn target_in(&self, layer: &ReplayLayer) -> StatePool {
        at(*self.target.unwrap_or(&self.pool.state), layer.target)
    }

    fn module(&self) -> ModuleKey {
        let (form, pool) = (self.form, self.pool);
        ModuleKey::replay(OpKind::ReplayFold, form.family, pool.state.tensor.dtype, pool.io(), form.shape.k)
    }

    fn check_arguments(&self) -> Result<(), CallError> {
        self.form.check()?;
        if self.pool.start != Start::FromSlot {
            let problem = "a sequence that starts from zeros has no state to store";
            return Err(CallError::Combination { field: "pool.start", problem });
        }
        self.pool.check_options(self.form.family, 0)?;
        self.form.check_served(self.module())?;
        if self.batch == 0 {
            return Ok(());
        }
        self.layers.check(self.form, self.pool, self.batch)?;
        check_optional_flags("pool.force", self.pool.force.as_ref(), self.batch)?;
        let Some(target) = self.target else {
            let goes_back = |layer: &ReplayLayer| layer.target == layer.state;
            return match self.layers.list.iter().all(goes_back) {
                true => Ok(()),
                false => Err(CallError::Combination {
                    field: "layers",
                    problem: "a fold stores states where they were: `target` must be `state`",
                }),
            };
        };
        let (have, want) = (target.tensor.dtype, self.pool.state.tensor.dtype);
        if have != want {
            return Err(CallError::Type {
                field: "target",
                have: have.name(),
                want: "the type of the checkpoints",
            });
        }
        if target.layout != self.pool.state.layout {
            let problem = "it has another layout than the checkpoints";
            return Err(CallError::Combination { field: "target", problem });
        }
        let elements = self.form.shape.state_elements();
        self.layers.list.iter().try_for_each(|layer| at(*target, layer.target).check("target", elements))?;
        if self.target_slots.is_none() {
            let enough = target.slots >= self.pool.state.slots;
            check_value("target", target.slots, enough, "as many slots as the checkpoints have")?;
        }
        check_optional_table("target_slots", self.target_slots, self.batch)?;
        check_optional_table("count", self.count, self.batch)
    }

    /// What a launch touches besides the layers.
    fn extents(&self) -> Extents {
        let mut extents = Extents::default();
        extents.push(self.layers.extent());
        self.pool.push_tables(&mut extents);
        extents.push_table("target_slots", self.target_slots);
        extents.push_table("count", self.count);
        extents
    }

    /// What it touches in a layer.
    fn layer_extents(&self, layer: &ReplayLayer) -> Extents {
        let mut extents = Extents::default();
        let pool = self.pool.at(layer);
        let goes_back = layer.target == layer.state;
        pool.push_memory(&mut extents, self.form, [goes_back, false]);
        if let Some(target) = self.target.filter(|_| !goes_back) {
            extents.push(at(*target, layer.target).extent("target", &self.form.shape, true));
        }
        extents
    }

    fn check_overlap(&self) -> Result<(), CallError> {
        self.layers.list.iter().try_for_each(|layer| {
            let mut extents = self.extents();
            self.layer_extents(layer).iter().for_each(|extent| extents.push(*extent));
            extents.check_overlap()
        })
    }

    fn plan(&self, caps: &Caps, tuning: &Tuning, tile: Tile) -> Result<Plan, PlanError> {
        let layers = self.layers.count();
        let batch = self.batch.saturating_mul(layers);
        let (module, shape) = (self.module(), self.form.shape);
        let plan = plan::tiled(&Job { module, shape, batch, stores_each: false }, caps, tuning, tile)?;
        Ok(Plan { grid: [plan.grid[0], self.batch, layers], ..plan })
    }

    fn params(&self, plan: &Plan) -> Params {
        let (pool, form) = (self.pool, self.form);
        let rings = pool.rings();
        let target = self.target.unwrap_or(&pool.state);
        Params::new(&abi::ReplayFoldParams {
            layers: self.layers.table,
            cursors: pool.cursors(),
            slot: Table::to_abi(pool.slots.as_ref()),
            target_slot: Table::to_abi(self.target_slots),
            count: Table::to_abi(self.count),
            force: Table::to_abi(pool.force.as_ref()),
            k_pitch: rings.k_pitch,
            d_pitch: rings.d_pitch,
            g_pitch: rings.g_pitch,
            records: rings.records,
            pitch: pool.state.pitch as u32,
            target_pitch: target.pitch as u32,
            slots: pool.state.slots,
            target_slots: target.slots,
            null_slot: pool.null_slot.unwrap_or(-1),
            n: self.batch,
            layer_count: self.layers.count(),
            eps: form.l2norm.unwrap_or(1.0),
            layer: form.layer(plan, pool.flags()),
        })
    }
}

macro_rules! operation {
    ($($call:ident)*) => {$(
        impl Operation for $call<'_> {
            fn check_arguments(&self) -> Result<(), CallError> {
                self.fold().check_arguments()
            }

            fn extents(&self) -> Extents {
                self.fold().extents()
            }

            fn each_extent(&self, see: &mut dyn FnMut(&Extent)) {
                let fold = self.fold();
                fold.extents().iter().for_each(&mut *see);
                for layer in self.layers.list {
                    fold.layer_extents(layer).iter().for_each(&mut *see);
                }
            }

            fn is_empty(&self) -> bool {
                self.batch == 0
            }

            fn plan_tuned(&self, caps: &Caps, tuning: &Tuning, tile: Tile) -> Result<Plan, PlanError> {
                self.fold().plan(caps, tuning, tile)
            }

            fn params(&self, plan: &Plan) -> Params {
                self.fold().params(plan)
            }

            fn check(&self) -> Result<(), CallError> {
                self.check_arguments()?;
                if self.is_empty() { Ok(()) } else { self.fold().check_overlap() }
            }

            unsafe fn run_on_host(&self) {
                // SAFETY: the caller's promise.
                unsafe { self.fold().on_host() };
            }
        }
    )*};
}
operation!(ReplayFold Materialise);

impl RecordForm {
    /// Heads and options as the kernels take them; `more` are the call's own flags.
    fn layer(&self, plan: &Plan, more: u32) -> abi::Layer {
        let shape = &self.shape;
        let (divisor, tiled) = match self.heads {
            HeadMap::Grouped => (shape.ratio(), 0),
            HeadMap::Tiled => (shape.h, flags::HEADS_TILED),
        };
        abi::Layer {
            h: shape.h,
            hv: shape.hv,
            v: shape.v,
            tiles_reciprocal: abi::head_reciprocal(plan.tiles.max(1)),
            head_reciprocal: abi::head_reciprocal(divisor),
            flags: more | tiled | if self.l2norm.is_some() { flags::L2NORM } else { 0 },
        }
    }
}
