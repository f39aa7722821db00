//! A made-up server: sequences come and go for thousands of steps, and each one's state must stay what its own tokens make it.
//!
//! The server lives as a runtime does. A [`SlotAllocator`](gdn_host::slots::SlotAllocator) says which slots a step reads and
//! writes. Lanes of layers with pools of their own follow its tables ([`lane`]), each on a stream of its own where the device has
//! streams: layers whose states are written at each step ([`plain`]), and layers that keep records ([`records`]). Sequences arrive,
//! go on from cached prefixes, fork, decode, verify drafts of which some or all tokens are rejected, are swapped out and in, and
//! finish. Rings are folded where they are full, and at random. Batches change their size, rows are padded, and steps are replayed
//! from graphs where the device has graphs.
//!
//! The test is a sequence alone: the same tokens, one call of batch 1 a token, in a slot that nobody else has. At random moments,
//! when sequences finish, and at the end, the true states and the windows of all layers must have its bits. Those of states with
//! records depend on when rings were folded, so that a sequence knows its [`past`], which is repeated alone; without it they must
//! be near plain decode's.
//!
//! Nothing grows with the run. A token is a row of a pool of noise on the device, found from a seed and a position ([`tokens`]); a
//! copy gathers the rows of a step. A sequence is a few numbers, and an event or two for each of its steps ([`past`]).

pub mod lane;
pub mod layer;
pub mod past;
pub mod plain;
pub mod records;
pub mod server;
pub mod step;
pub mod tokens;

use crate::device::Device;
use anyhow::{Context as _, Result, ensure};
use gdn_host::HeadShape;
use std::time::{Duration, Instant};

/// How much of everything there is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Heads of the layers whose states are written.
    pub shape: HeadShape,
    /// Heads of the layers with records.
    pub records: HeadShape,
    /// Slots of the allocator.
    pub slots: u32,
    /// Sequences in the pool at most.
    pub live: usize,
    /// Rows of a step: steps are padded to one of these.
    pub batches: &'static [usize],
    /// Tokens at which a sequence finishes, at most.
    pub longest: usize,
    /// Different tokens.
    pub vocabulary: usize,
}

impl Size {
    /// Small heads and batches, for the simulator.
    pub const SMALL: Size = Size {
        shape: HeadShape { h: 1, hv: 1, k: 64, v: 32 },
        records: HeadShape { h: 1, hv: 1, k: 128, v: 32 },
        slots: 14,
        live: 11,
        batches: &[1, 2, 4, 8],
        longest: 24,
        vocabulary: 128,
    };

    /// Heads of a model's rank and large batches, for a GPU.
    pub const LARGE: Size = Size {
        shape: HeadShape { h: 2, hv: 4, k: 128, v: 128 },
        records: HeadShape { h: 2, hv: 4, k: 128, v: 128 },
        slots: 448,
        live: 320,
        batches: &[1, 2, 4, 8, 16, 32, 64, 128, 256],
        longest: 400,
        vocabulary: 4096,
    };

    /// Rows of the largest step.
    pub fn most_rows(&self) -> usize {
        self.batches.last().copied().unwrap_or(0)
    }
}

/// What a run does.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Everything that is drawn follows from it.
    pub seed: u64,
    /// Sequence-steps: sequences, summed up over the steps.
    pub steps: u64,
    /// When to stop before that.
    pub time: Option<Duration>,
    /// A sequence is checked after one in so many of its steps, besides the checks at its end.
    pub check_one_in: usize,
    /// How much of everything there is.
    pub size: Size,
    /// A mistake to be made on purpose.
    pub plant: Option<Plant>,
}

/// A mistake of a server, to see that the soak finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// One accepted draft is not committed in one layer.
    DroppedCommit,
    /// Two sequences get each other's state from the slots of their drafts.
    SwappedCopies,
    /// A sequence that goes on from what it shared gets no copy of it where layers keep records.
    MissingCopy,
    /// A ring is folded that nobody told to.
    SecretFold,
}

/// What a run did, by name, in the order of [`Summary::NAMES`].
#[derive(Clone, Debug)]
pub struct Summary {
    counts: [u64; Summary::NAMES.len()],
    /// The largest distance from plain decode, of each kind of state for which only a distance is promised.
    pub furthest: Vec<(String, f64)>,
    /// How long it took.
    pub time: Duration,
}

impl Summary {
    /// What is counted.
    pub const NAMES: [&'static str; 24] = [
        "steps",
        "steps from a graph",
        "sequence-steps",
        "padded rows",
        "tokens",
        "decode steps",
        "decode steps behind copies",
        "prompt steps",
        "draft steps with a buffer",
        "draft steps with slots by token",
        "drafted tokens",
        "rejected tokens",
        "folded rings",
        "rings told to fold",
        "sequences",
        "begun at a snapshot",
        "forks",
        "snapshots",
        "evicted snapshots",
        "swapped out",
        "swapped in",
        "steps without room",
        "finished",
        "checks",
    ];

    /// Nothing yet.
    pub fn new() -> Summary {
        Summary { counts: [0; Summary::NAMES.len()], furthest: Vec::new(), time: Duration::ZERO }
    }

    /// Counts something of [`Self::NAMES`].
    ///
    /// # Panics
    /// Another name.
    pub fn add(&mut self, name: &'static str, count: usize) {
        let place = Self::NAMES.iter().position(|known| *known == name);
        self.counts[place.unwrap_or_else(|| panic!("nothing is called {name}"))] += count as u64;
    }

    /// Every count.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Self::NAMES.into_iter().zip(self.counts)
    }

    /// A count of [`Self::NAMES`]; 0 for another name.
    pub fn get(&self, name: &str) -> u64 {
        self.iter().find(|(known, _)| *known == name).map_or(0, |(_, count)| count)
    }
}

impl Default for Summary {
    fn default() -> Self {
        Summary::new()
    }
}

/// Runs the server until it has done its steps or its time is over, and then checks every sequence. `progress` sees what was done
/// after each step.
///
/// # Errors
/// A sequence whose state is not its own; the text names the seed, the sequence and the step. A call that a device refuses.
pub fn run(
    device: &mut dyn Device,
    options: &Options,
    progress: &mut dyn FnMut(&Summary),
) -> Result<Summary> {
    ensure!(options.check_one_in > 0, "check_one_in is 0: 1 checks a sequence after each of its steps");
    let start = Instant::now();
    let mut done = || -> Result<Summary> {
        let mut server = server::Server::new(device, options)?;
        let is_over = |time: Duration| options.time.is_some_and(|limit| time >= limit);
        while server.summary().get("sequence-steps") < options.steps && !is_over(start.elapsed()) {
            server.step()?;
            progress(server.summary());
        }
        server.end()
    };
    let summary = done().with_context(|| format!("seed {}", options.seed))?;
    Ok(Summary { time: start.elapsed(), ..summary })
}
