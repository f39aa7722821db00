//! What is done once for all layers behind a step: accepted paths of trees made contiguous, and cursors moved.

use super::layers::{ReplayLayer, ReplayLayers};
use super::{RecordForm, ReplayDecode, ReplayPool, ReplayVerify};
use crate::call::check::{check_table, check_value};
use crate::call::{CallError, Extent, Extents, Operation, Params, Table};
use crate::key::ModuleKey;
use crate::plan::{self, Caps, Overlap, Plan, PlanError, Tile, Tuning};
use gdn_kernels::abi::{self, Entry, MOST_DRAFTS};

/// The commit of accepted paths: behind a [`ReplayVerify`] of trees, the records of each sequence's accepted drafts move to the
/// first places behind its live window, in all layers. Then [`ReplayAdvance`] makes them live. A chain needs none.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct ReplayCommit<'a> {
    /// What records mean.
    pub form: RecordForm,
    /// Sequences, N, up to 65,535. With 0 nothing is launched.
    pub batch: u32,
    /// Drafts of each sequence, T.
    pub tokens: u32,
    /// What a layer has, as the verification was given it, cursors not yet moved; the addresses are those of `layers`.
    pub pool: ReplayPool,
    /// Layers. Targets mean nothing here.
    pub layers: ReplayLayers<'a>,
    /// `[N]`: accepted drafts, `0..=T`; another number moves nothing.
    pub accepted: Table,
    /// `[N, T]`: the accepted drafts of each sequence in rising order; entries behind them are ignored. An entry that does not rise
    /// ends the path.
    pub path: Table,
}

impl<'a> ReplayCommit<'a> {
    /// The commit of drafts of whatever verification; [`Self::behind`] takes from it what is the same.
    pub const fn new(
        form: RecordForm,
        batch: u32,
        tokens: u32,
        pool: ReplayPool,
        layers: ReplayLayers<'a>,
        accepted: Table,
        path: Table,
    ) -> ReplayCommit<'a> {
        ReplayCommit { form, batch, tokens, pool, layers, accepted, path }
    }

    /// The commit behind a verification.
    pub fn behind(
        verify: &ReplayVerify,
        layers: ReplayLayers<'a>,
        accepted: Table,
        path: Table,
    ) -> ReplayCommit<'a> {
        let &ReplayVerify { ref inputs, batch, tokens, pool, .. } = verify;
        ReplayCommit::new(RecordForm::of(inputs), batch, tokens, pool, layers, accepted, path)
    }

    /// Units of a record that a thread moves: of the keys, of the corrections and of the log decays of a head.
    fn units(&self) -> [u32; 3] {
        let (shape, size) = (&self.form.shape, self.pool.io().size() as u32);
        let decays = if self.form.is_kda() { shape.k / 4 } else { 1 };
        [shape.k * size / 16, shape.v / 4, decays]
    }

    /// What it touches in a layer.
    fn layer_extents(&self, layer: &ReplayLayer) -> Extents {
        let mut extents = Extents::default();
        self.pool.at(layer).push_rings(&mut extents, &self.form, true);
        extents
    }
}

impl Operation for ReplayCommit<'_> {
    fn check_arguments(&self) -> Result<(), CallError> {
        self.form.check()?;
        check_value("tokens", self.tokens, (1..=MOST_DRAFTS).contains(&self.tokens), "1 to 8 drafts")?;
        self.pool.check_options(self.form.family, self.tokens)?;
        if self.batch == 0 {
            return Ok(());
        }
        self.layers.check(&self.form, &self.pool, self.batch)?;
        check_table("accepted", &self.accepted, self.batch.into(), 1)?;
        check_table("path", &self.path, self.batch.into(), self.tokens.into())
    }

    fn extents(&self) -> Extents {
        let mut extents = Extents::default();
        extents.push(self.layers.extent());
        self.pool.push_tables(&mut extents);
        extents.push_table("accepted", Some(&self.accepted));
        extents.push_table("path", Some(&self.path));
        extents
    }

    fn each_extent(&self, see: &mut dyn FnMut(&Extent)) {
        self.extents().iter().for_each(&mut *see);
        for layer in self.layers.list {
            self.layer_extents(layer).iter().for_each(&mut *see);
        }
    }

    fn is_empty(&self) -> bool {
        self.batch == 0
    }

    fn overlap(&self) -> Overlap {
        Overlap::Start
    }

    fn plan_tuned(&self, caps: &Caps, _tuning: &Tuning, tile: Tile) -> Result<Plan, PlanError> {
        let (shape, [k, d, g]) = (&self.form.shape, self.units());
        let units = u64::from(shape.h) * u64::from(k) + u64::from(shape.hv) * (u64::from(d) + u64::from(g));
        let layers = self.layers.count();
        let batch = self.batch.saturating_mul(layers);
        let plan = plan::spread(ModuleKey::replay_commit(), units, batch, caps, tile)?;
        Ok(Plan { grid: [plan.grid[0], self.batch, layers], ..plan })
    }

    fn params(&self, _plan: &Plan) -> Params {
        let (pool, shape, [k_vectors, d_vectors, g_units]) = (&self.pool, &self.form.shape, self.units());
        let rings = pool.rings();
        Params::new(&abi::ReplayCommitParams {
            layers: self.layers.table,
            cursors: pool.cursors(),
            slot: Table::to_abi(pool.slots.as_ref()),
            reset: Table::to_abi(pool.start.table()),
            accepted: Table::to_abi(Some(&self.accepted)),
            path: Table::to_abi(Some(&self.path)),
            k_pitch: rings.k_pitch,
            d_pitch: rings.d_pitch,
            g_pitch: rings.g_pitch,
            records: rings.records,
            k_vectors,
            d_vectors,
            g_units,
            k_size: pool.io().size() as u32,
            h: shape.h,
            hv: shape.hv,
            k_reciprocal: abi::head_reciprocal(k_vectors),
            d_reciprocal: abi::head_reciprocal(d_vectors),
            g_reciprocal: abi::head_reciprocal(g_units),
            slots: pool.state.slots,
            null_slot: pool.null_slot.unwrap_or(-1),
            tokens: self.tokens,
            n: self.batch,
            layer_count: self.layers.count(),
            flags: pool.flags(),
            reserved: 0,
        })
    }

    fn check(&self) -> Result<(), CallError> {
        self.check_arguments()?;
        if self.is_empty() {
            return Ok(());
        }
        self.layers.list.iter().try_for_each(|layer| {
            let mut extents = self.extents();
            self.layer_extents(layer).iter().for_each(|extent| extents.push(*extent));
            extents.check_overlap()
        })
    }

    unsafe fn run_on_host(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.on_host() };
    }
}

/// Moves the cursors behind a step: one small launch, when all layers have taken it.
///
/// Behind a decode that folded, a sequence has no live record; behind another it has one more. Behind a verification the accepted
/// drafts are live: behind those that were, or, where it folded, they alone. Rows that were padding keep their cursors.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct ReplayAdvance {
    /// Sequences, N. With 0 nothing is launched.
    pub batch: u32,
    /// Drafts of each sequence; 1 behind a decode.
    pub tokens: u32,
    /// Any layer's, as the step was given it. Its cursors are written: tables of i32 or u32. Behind a verification they have a
    /// `base`.
    pub pool: ReplayPool,
    /// `[N]`: accepted drafts; a number outside `0..=tokens` accepts none. Without it the step was a decode.
    pub accepted: Option<Table>,
}

impl ReplayAdvance {
    /// The cursors behind a verification of `tokens` drafts, or, without `accepted`, behind a decode.
    pub const fn new(batch: u32, tokens: u32, pool: ReplayPool, accepted: Option<Table>) -> ReplayAdvance {
        ReplayAdvance { batch, tokens, pool, accepted }
    }

    /// The cursors behind a decode.
    pub const fn behind_decode(decode: &ReplayDecode) -> ReplayAdvance {
        ReplayAdvance { batch: decode.batch, tokens: 1, pool: decode.pool, accepted: None }
    }

    /// The cursors behind a verification, of which so many drafts were accepted, `[N]`.
    pub const fn behind_verify(verify: &ReplayVerify, accepted: Table) -> ReplayAdvance {
        let &ReplayVerify { batch, tokens, pool, .. } = verify;
        ReplayAdvance { batch, tokens, pool, accepted: Some(accepted) }
    }

    /// Places of a ring that a step's tokens take besides those that may be live.
    pub(crate) fn free(&self) -> u32 {
        if self.accepted.is_some() { self.tokens } else { 0 }
    }
}

impl Operation for ReplayAdvance {
    fn check_arguments(&self) -> Result<(), CallError> {
        let pool = &self.pool;
        check_value("tokens", self.tokens, (1..=MOST_DRAFTS).contains(&self.tokens), "1 to 8 drafts")?;
        // Of either family: that the ring is not too long was the step's to check.
        pool.check_options(crate::key::Family::Gdn, self.free())?;
        if self.accepted.is_some() && pool.cursors.base.is_none() {
            let problem = "windows do not begin at place 0 behind a verification: cursors need a `base`";
            return Err(CallError::Combination { field: "pool.cursors", problem });
        }
        if self.batch == 0 {
            return Ok(());
        }
        let tables = [
            ("pool.cursors.len", Some(&pool.cursors.len)),
            ("pool.cursors.base", pool.cursors.base.as_ref()),
        ];
        for (field, table) in tables {
            if let Some(have) =
                table.map(|table| table.entry).filter(|e| !matches!(e, Entry::I32 | Entry::U32))
            {
                return Err(CallError::Type {
                    field,
                    have: have.name(),
                    want: "i32 or u32, where they are moved",
                });
            }
        }
        if let Some(accepted) = &self.accepted {
            check_table("accepted", accepted, self.batch.into(), 1)?;
        }
        pool.check_tables(self.batch)
    }

    fn extents(&self) -> Extents {
        let mut extents = Extents::default();
        self.pool.push_tables(&mut extents);
        let mut moved = Extents::default();
        for extent in extents.iter() {
            let written = matches!(extent.field, "pool.cursors.base" | "pool.cursors.len");
            moved.push(Extent { written, ..*extent });
        }
        moved.push_table("accepted", self.accepted.as_ref());
        moved
    }

    fn is_empty(&self) -> bool {
        self.batch == 0
    }

    fn overlap(&self) -> Overlap {
        Overlap::Start
    }

    fn plan_tuned(&self, caps: &Caps, _tuning: &Tuning, tile: Tile) -> Result<Plan, PlanError> {
        plan::spread(ModuleKey::replay_advance(), self.batch.into(), 1, caps, tile)
    }

    fn params(&self, _plan: &Plan) -> Params {
        let pool = &self.pool;
        Params::new(&abi::ReplayAdvanceParams {
            cursors: pool.cursors(),
            slot: Table::to_abi(pool.slots.as_ref()),
            reset: Table::to_abi(pool.start.table()),
            force: Table::to_abi(pool.force.as_ref()),
            accepted: Table::to_abi(self.accepted.as_ref()),
            records: pool.rings.records,
            most: pool.most(self.free()),
            tokens: self.tokens,
            n: self.batch,
            slots: pool.state.slots,
            null_slot: pool.null_slot.unwrap_or(-1),
            flags: pool.flags(),
            reserved: 0,
        })
    }

    unsafe fn run_on_host(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.on_host() };
    }
}
