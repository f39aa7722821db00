//! Conv1d update: the slots that the call's sequences name, gathered for the oracle and put back.

use super::memory::{clear, entry, named, named_or_row, read, read_run, write, write_run};
use crate::call::{Accepted, Conv1dUpdate, ConvTarget};
use crate::reference::conv1d::{Conv1d, Conv1dResult, conv1d_update};

/// Slots of a pool that a call touches, in the order in which they were met.
#[derive(Default)]
struct Touched(Vec<u64>);

impl Touched {
    /// The place of a slot among them.
    fn place(&mut self, slot: u64) -> usize {
        self.0.iter().position(|touched| *touched == slot).unwrap_or_else(|| {
            self.0.push(slot);
            self.0.len() - 1
        })
    }
}

/// What the sequences of a call read and write.
#[derive(Default)]
struct Ways {
    touched: Touched,
    tokens: Vec<(usize, usize)>,
    slots: Vec<Option<usize>>,
    write_slots: Vec<Option<usize>>,
    token_slots: Vec<Option<usize>>,
    from_zeros: Vec<bool>,
    accepted: Vec<usize>,
}

impl Conv1dUpdate {
    /// The call on host memory.
    ///
    /// # Safety
    /// As [`super::run`]; the call was checked.
    pub(crate) unsafe fn on_host(&self) {
        let (dim, total) = (u64::from(self.dim), self.tokens.total());
        // SAFETY: the caller's promise.
        unsafe {
            let ways = self.ways();
            let x: Vec<f64> =
                (0..total).flat_map(|t| read_run(&self.x.tensor, t * self.x.stride, dim)).collect();
            let weight = read_run(&self.weight, 0, dim * u64::from(self.width));
            let bias = self.bias.as_ref().map(|bias| read_run(bias, 0, dim));
            let state: Vec<f64> = ways.touched.0.iter().flat_map(|slot| self.read_slot(*slot)).collect();
            let parent = self.parents();
            let result = conv1d_update(
                &Conv1d {
                    dim: self.dim as usize,
                    width: self.width as usize,
                    x: &x,
                    weight: &weight,
                    bias: bias.as_deref(),
                    silu: self.silu,
                    round_products: self.round_products.then_some(self.x.tensor.dtype),
                    tokens: &ways.tokens,
                    len: self.state.len as usize,
                    slots: &ways.slots,
                    write_slots: &ways.write_slots,
                    token_slots: self.token_columns().map(|columns| (&ways.token_slots[..], columns)),
                    from_zeros: &ways.from_zeros,
                    accepted: matches!(self.accepted, Some(Accepted::Entry(_))).then_some(&ways.accepted),
                    parent: parent.as_deref(),
                },
                &state,
            );
            self.leave(&ways, &result);
        }
    }

    /// Slots of a sequence in the table that states after each token go to.
    fn token_columns(&self) -> Option<usize> {
        let ConvTarget::EachToken(table) = &self.target else { return None };
        Some(table.columns as usize)
    }

    unsafe fn ways(&self) -> Ways {
        let mut ways = Ways::default();
        for n in 0..u64::from(self.tokens.batch()) {
            // SAFETY: the caller's promise.
            unsafe {
                let range = self.tokens.range(n);
                let slot = self.slot(n, range.end - range.start);
                let place = slot.map(|slot| ways.touched.place(slot));
                let named = |table, column| named(entry(table, n, column), self.state.slots, self.null_slot);
                let written = match &self.target {
                    ConvTarget::InPlace => place,
                    ConvTarget::Slots(table) => {
                        slot.and_then(|_| named(table, 0)).map(|slot| ways.touched.place(slot))
                    }
                    ConvTarget::EachToken(table) => {
                        for column in 0..table.columns {
                            let slot = slot.and_then(|_| named(table, column));
                            ways.token_slots.push(slot.map(|slot| ways.touched.place(slot)));
                        }
                        None
                    }
                    ConvTarget::Nowhere => None,
                };
                ways.tokens.push((range.start as usize, range.end as usize));
                ways.slots.push(place);
                ways.write_slots.push(written.filter(|_| !range.is_empty()));
                ways.from_zeros.push(self.start.is_from_zeros(n));
                ways.accepted.push(self.accepted_of(n).map_or(0, |accepted| accepted as usize));
            }
        }
        ways
    }

    /// The count of sequence `n`, if it is positive.
    unsafe fn accepted_of(&self, n: u64) -> Option<u64> {
        let (Accepted::Entry(table) | Accepted::Slot(table)) = self.accepted.as_ref()?;
        // SAFETY: the caller's promise.
        u64::try_from(unsafe { entry(table, n, 0) }).ok().filter(|count| *count > 0)
    }

    /// The slot that sequence `n` of so many tokens starts from, `None` for a padded row.
    unsafe fn slot(&self, n: u64, tokens: u64) -> Option<u64> {
        // SAFETY: the caller's promise.
        unsafe {
            let column = match &self.accepted {
                None => 0,
                Some(Accepted::Slot(_)) => {
                    self.accepted_of(n).filter(|count| *count <= self.slot_columns())? - 1
                }
                Some(Accepted::Entry(_)) => {
                    // Drafts that the window holds besides what a convolution needs.
                    let room = u64::from(self.state.len + 2 - self.width);
                    self.accepted_of(n).filter(|count| *count <= room && tokens <= room)?;
                    0
                }
            };
            match &self.slots {
                Some(slots) => named(entry(slots, n, column), self.state.slots, self.null_slot),
                None => named_or_row(None, n, self.state.slots, None),
            }
        }
    }

    unsafe fn parents(&self) -> Option<Vec<Option<usize>>> {
        let parent = self.parent.as_ref()?;
        let of = |n: u64| {
            // SAFETY: the caller's promise.
            (0..parent.columns).map(move |t| usize::try_from(unsafe { entry(parent, n, t) }).ok())
        };
        Some((0..u64::from(self.tokens.batch())).flat_map(of).collect())
    }

    /// Where the entries of a slot lie, in the order of `[dim, L]`.
    fn places(&self, slot: u64) -> impl Iterator<Item = u64> {
        let pool = self.state;
        let entries = move |channel: u64| {
            (0..u64::from(pool.len)).map(move |tap| channel * pool.channel_stride + tap * pool.tap_stride)
        };
        (0..u64::from(self.dim)).flat_map(entries).map(move |at| slot * pool.pitch + at)
    }

    unsafe fn read_slot(&self, slot: u64) -> Vec<f64> {
        // SAFETY: the caller's promise; the slot is one of the pool's.
        self.places(slot).map(|at| unsafe { read(&self.state.tensor, at) }).collect()
    }

    /// Stores what the oracle found.
    unsafe fn leave(&self, ways: &Ways, result: &Conv1dResult) {
        let dim = self.dim as usize;
        let slot_elements = dim * self.state.len as usize;
        // SAFETY: the caller's promise.
        unsafe {
            clear(&self.out, dim as u64, self.tokens.rest());
            for (n, &(begin, end)) in ways.tokens.iter().enumerate() {
                for token in begin..end {
                    // Of padded rows the oracle has zeros.
                    let at = token as u64 * self.out.stride;
                    write_run(&self.out.tensor, at, &result.out[token * dim..(token + 1) * dim]);
                }
                if ways.slots[n].is_some() {
                    self.leave_windows(n as u64, begin..end, result);
                }
            }
            for place in ways.write_slots.iter().chain(&ways.token_slots).flatten() {
                let values = &result.state[place * slot_elements..(place + 1) * slot_elements];
                for (at, value) in self.places(ways.touched.0[*place]).zip(values) {
                    write(&self.state.tensor, at, *value);
                }
            }
        }
    }

    unsafe fn leave_windows(&self, n: u64, tokens: std::ops::Range<usize>, result: &Conv1dResult) {
        let Some(windows) = &self.intermediate else { return };
        let elements = self.dim as usize * (self.width as usize - 1);
        // SAFETY: the caller's promise.
        unsafe {
            let Some(row) = named_or_row(windows.row.as_ref(), n, windows.rows, None) else { return };
            for (t, token) in tokens.take(windows.steps as usize).enumerate() {
                let at = row * windows.pitch + (t * elements) as u64;
                write_run(&windows.tensor, at, &result.windows[token * elements..(token + 1) * elements]);
            }
        }
    }
}
