//! The look-up: measured choices, a table for each class of device.
//!
//! For each [`Class`] of call a table has steps over the states a multiprocessor ([`Load`]); a step says which tile, how
//! many teams a block, how far ahead a block asks for states, and whether an early launch pays. `cargo xtask tune` writes
//! tables from measurements; the embedded ones lie beside this file. Nothing here knows a device by name: a device takes the
//! table whose memory gives a multiprocessor nearly as much.

mod text;

use super::{Caps, Class, Load};
use std::fmt;
use std::sync::LazyLock;

pub use text::TuningError;

/// A tile by its height among those that a module has ([`super::rows`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Height {
    /// The smallest: the shortest way from the first load to the last store.
    Small,
    /// The second: the fewest instructions for a row.
    Large,
    /// The third, where there is one: all rows of a head, in layout KV.
    Whole,
}

impl Height {
    pub(super) const ALL: [Height; 3] = [Height::Small, Height::Large, Height::Whole];

    const fn name(self) -> &'static str {
        match self {
            Height::Small => "small",
            Height::Large => "large",
            Height::Whole => "whole",
        }
    }
}

/// What is chosen for a class up to so many states a multiprocessor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The largest load that the step is for; `None`: any.
    pub up_to: Option<Load>,
    /// Height of the tile. A module that has fewer takes its tallest.
    pub tile: Height,
    /// Teams of a block; in layout VK a team is a warp. A block that may not have so many has as many as it may.
    pub teams: u32,
    /// How far ahead a block asks for states into the L2, in KiB of states for each multiprocessor; 0: not at all.
    pub ahead_kib: u32,
    /// Whether an early launch pays.
    pub early: bool,
}

/// Whose table a plan follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tuned {
    /// The operation has no choice in a table.
    Untuned,
    /// An embedded table, measured on this device.
    For(&'static str),
    /// The caller's.
    ByCaller,
}

impl fmt::Display for Tuned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tuned::Untuned => Ok(()),
            Tuned::For(device) => write!(f, "tuned for {device}"),
            Tuned::ByCaller => f.write_str("tuned by the caller's table"),
        }
    }
}

/// A table of choices.
///
/// Its text is lines for people and tools: `docs/KERNELS.md` describes it, [`Tuning::parse`] reads it and `to_string` writes
/// it. A caller's table may have some classes only; [`Gdn::with_tuning`](crate::Gdn::with_tuning) takes the others from the
/// embedded table.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuning {
    /// The device it was measured on.
    pub device: String,
    /// Its compute capability as `10 * major + minor`.
    pub compute: u32,
    /// GB/s that its memory gives a multiprocessor.
    pub gbps_per_sm: f64,
    /// The steps of each class, by load.
    pub classes: Vec<(Class, Vec<Step>)>,
    /// Comments at the head: where the lines come from.
    pub notes: Vec<String>,
    /// What a plan says that follows it.
    tuned: Tuned,
}

/// The embedded tables.
const EMBEDDED: [&str; 2] = [include_str!("h200.txt"), include_str!("h100.txt")];

static TABLES: LazyLock<Vec<Tuning>> = LazyLock::new(|| {
    let table = |text: &'static str| {
        let device = text.lines().find_map(|line| line.strip_prefix("device "))?;
        // A test reads every one of them.
        Tuning::parse(text).ok().map(|table| Tuning { tuned: Tuned::For(device), ..table })
    };
    EMBEDDED.into_iter().filter_map(table).collect()
});

impl Tuning {
    /// A table without a class, for a device.
    pub fn new(device: String, caps: &Caps) -> Tuning {
        Tuning {
            device,
            compute: caps.compute,
            gbps_per_sm: caps.gbps_per_sm(),
            classes: Vec::new(),
            notes: Vec::new(),
            tuned: Tuned::ByCaller,
        }
    }

    /// The embedded tables.
    pub fn embedded() -> &'static [Tuning] {
        &TABLES
    }

    /// The embedded table for a device: of the nearest bandwidth a multiprocessor, then of the nearest compute capability. A
    /// device whose bandwidth is not known takes the slowest.
    pub fn nearest(caps: &Caps) -> &'static Tuning {
        static NONE: LazyLock<Tuning> = LazyLock::new(|| Tuning::new(String::new(), &Caps::default()));
        let distance = |table: &Tuning| {
            let known = caps.gbps_per_sm().max(1.0);
            let bandwidth = (table.gbps_per_sm / known).ln().abs();
            // A generation weighs as much as a tenth of the bandwidth.
            bandwidth + 0.1 * f64::from((table.compute / 10).abs_diff(caps.compute / 10))
        };
        TABLES.iter().min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap_or(&NONE)
    }

    /// The steps of a class, by load; none where the table does not have it.
    pub fn steps(&self, class: Class) -> &[Step] {
        self.classes.iter().find(|(of, _)| *of == class).map_or(&[], |(_, steps)| steps)
    }

    /// What is chosen for a class and load; `None` where the table does not have the class.
    pub fn look_up(&self, class: Class, load: Load) -> Option<Step> {
        let steps = self.steps(class);
        steps.iter().find(|step| step.up_to.is_none_or(|up_to| load <= up_to)).or(steps.last()).copied()
    }

    /// Whose table a plan with this one follows for a class, and the step.
    pub(super) fn choose(&self, class: Class, load: Load, caps: &Caps) -> (Tuned, Step) {
        if let Some(step) = self.look_up(class, load) {
            return (self.tuned, step);
        }
        let table = Tuning::nearest(caps);
        let any = Step { up_to: None, tile: Height::Small, teams: 4, ahead_kib: 0, early: false };
        (table.tuned, table.look_up(class, load).unwrap_or(any))
    }
}

#[cfg(test)]
mod tests;
