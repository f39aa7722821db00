//! Which states a sequence reads, and where it leaves which.
//!
//! The addressing of the kernels once more, sequence by sequence, without any number of a state in it: recordings,
//! the oracle and results are all cut up along it.

use super::{Problem, Source, StartFlags, Target};
use anyhow::{Result, ensure};
use std::collections::HashSet;
use std::ops::Range;

/// What a sequence starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nothing: a padded row.
    Padding,
    /// Zeros.
    Zeros,
    /// A slot of the pool.
    Slot(usize),
}

/// A state in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// A slot of the pool.
    Pool(usize),
    /// A slot of the tensor of final states.
    Final(usize),
    /// A state of the buffer: `row * steps + step`.
    Buffer(usize),
}

/// The way of a sequence.
#[derive(Clone, Debug)]
pub struct Route<'a> {
    /// Its rows of the inputs and the output.
    pub tokens: Range<usize>,
    /// Where it starts.
    pub origin: Origin,
    /// Parents of its tokens, if they are a tree.
    pub parents: Option<&'a [i32]>,
    /// Which state goes where: that after a token, or `None` for the one the sequence started from.
    pub stores: Vec<(Option<usize>, Place)>,
}

impl Route<'_> {
    /// Whether the sequence is padding.
    pub fn is_padding(&self) -> bool {
        self.origin == Origin::Padding
    }
}

impl Problem {
    /// The route of every sequence.
    pub fn routes(&self) -> Vec<Route<'_>> {
        (0..self.tokens.batch()).map(|n| self.route(n)).collect()
    }

    /// The slot of the pool that an entry of a table names, if it names one.
    fn named(&self, index: i32) -> Option<usize> {
        let slot = usize::try_from(index).ok().filter(|slot| *slot < self.pool.slots)?;
        (Some(index) != self.null_slot).then_some(slot)
    }

    /// The slot that a sequence starts from.
    pub(crate) fn slot(&self, n: usize) -> Option<usize> {
        match &self.source {
            Source::Zeros => None,
            Source::Sequences => Some(n),
            Source::Slots(slots) => self.named(slots[n]),
            Source::Accepted { slots, width, accepted } => {
                let last = usize::try_from(accepted[n]).ok()?.checked_sub(1).filter(|last| last < width)?;
                self.named(slots[n * width + last])
            }
        }
    }

    pub(crate) fn is_reset(&self, n: usize) -> bool {
        match &self.start {
            StartFlags::None => false,
            StartFlags::Reset(flags) => flags[n] != 0,
            StartFlags::HasInitialState(flags) => flags[n] == 0,
        }
    }

    fn route(&self, n: usize) -> Route<'_> {
        let tokens = self.tokens.range(n);
        let origin = match (&self.source, self.slot(n)) {
            (Source::Zeros, _) => Origin::Zeros,
            (_, None) => Origin::Padding,
            (_, Some(_)) if self.is_reset(n) => Origin::Zeros,
            (_, Some(slot)) => Origin::Slot(slot),
        };
        let mut route = Route { tokens, origin, parents: None, stores: Vec::new() };
        if !route.is_padding() {
            self.buffer_stores(n, &mut route);
            self.target_stores(n, &mut route);
        }
        route
    }

    /// What goes to the buffer, and what tokens start from there.
    fn buffer_stores<'a>(&'a self, n: usize, route: &mut Route<'a>) {
        let Some(buffer) = &self.intermediate else { return };
        let row = buffer.row.as_ref().map_or(n as i32, |rows| rows[n]);
        let Some(row) = usize::try_from(row).ok().filter(|row| *row < buffer.rows) else { return };
        let steps = buffer.steps;
        let stored = 0..route.tokens.len().min(steps);
        route.stores.extend(stored.map(|t| (Some(t), Place::Buffer(row * steps + t))));
        route.parents = buffer.parent.as_ref().map(|parents| &parents[n * steps..(n + 1) * steps]);
    }

    /// What goes to the target.
    fn target_stores(&self, n: usize, route: &mut Route) {
        let last = route.tokens.len().checked_sub(1);
        let place = match &self.target {
            Target::Nowhere => None,
            // A pool is not touched for a sequence without tokens; its final state is its initial one.
            Target::InPlace => self.slot(n).filter(|_| last.is_some()).map(Place::Pool),
            Target::Slots(slots) => self.named(slots[n]).filter(|_| last.is_some()).map(Place::Pool),
            Target::Sequences { .. } => Some(Place::Final(n)),
            Target::EachToken { slots, width } => {
                let row = slots[n * width..(n + 1) * width].iter().take(route.tokens.len());
                let named = row.enumerate().filter_map(|(t, &slot)| Some((t, self.named(slot)?)));
                route.stores.extend(named.map(|(t, slot)| (Some(t), Place::Pool(slot))));
                None
            }
        };
        route.stores.extend(place.map(|place| (last, place)));
    }

    /// Refuses a problem whose result is not defined: a row or a state written twice, or a state written by one
    /// sequence and read by another.
    pub(super) fn check_defined(routes: &[Route]) -> Result<()> {
        let (mut rows, mut states) = (HashSet::new(), HashSet::new());
        for (n, route) in routes.iter().enumerate() {
            for row in route.tokens.clone() {
                ensure!(rows.insert(row), "the problem writes row {row} twice");
            }
            for (_, place) in &route.stores {
                ensure!(states.insert(*place), "the problem writes {place:?} twice");
                let Place::Pool(slot) = *place else { continue };
                let mut readers = (0..routes.len()).filter(|m| routes[*m].origin == Origin::Slot(slot));
                ensure!(readers.all(|m| m == n), "the problem reads and writes {place:?}");
            }
        }
        Ok(())
    }
}
