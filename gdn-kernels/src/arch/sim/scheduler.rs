//! A block: its threads, and where they meet.
//!
//! Warps run one after the other, each up to the point where all its lanes wait for the block or have
//! returned; the lanes of a warp run one after the other, each up to its next shuffle or barrier. All of this
//! is in the order of the thread index, so a block behaves the same every time, and so does its first fault.

use std::cell::RefCell;
use std::fmt;

use super::fault::{Fault, FaultKind};
use super::global_memory::Memory;
use super::lane::{At, Lane, Thread};
use super::launch::Launch;
use super::shared_memory::SharedMemory;
use super::touches::Touches;

/// Lanes of a warp.
const WARP: usize = 32;

/// What the threads of a block have in common.
pub(super) struct Block<'a> {
    pub(super) memory: &'a Memory,
    pub(super) launch: &'a Launch<'a>,
    pub(super) touches: &'a Touches,
    /// Number in the grid, x fastest.
    pub(super) number: u64,
    /// Index in the grid: x, y, z.
    pub(super) index: [u32; 3],
    pub(super) shared: RefCell<SharedMemory>,
}

impl<'a> Block<'a> {
    pub(super) fn new(
        memory: &'a Memory,
        launch: &'a Launch<'a>,
        touches: &'a Touches,
        number: u64,
    ) -> Block<'a> {
        let shared = RefCell::new(SharedMemory::new(launch.kernel.shared_bytes + launch.shared_bytes, launch.block));
        Block { memory, launch, touches, number, index: launch.index(number), shared }
    }

    /// Runs the block to its end or its first fault.
    pub(super) fn run(&self) -> Result<(), Fault> {
        let lanes: Vec<Lane> = (0..self.launch.block).map(|thread| Lane::new(self, thread)).collect();
        let mut threads: Vec<Thread> = lanes.iter().map(Thread::new).collect();
        loop {
            for (warp, threads) in threads.chunks_mut(WARP).enumerate() {
                self.run_warp(warp as u32, threads)?;
            }
            // Every thread is at a block barrier or has returned.
            let Some(waiting) = threads.iter().find(|thread| thread.at == At::Barrier) else {
                return Ok(());
            };
            if let Some(others) = others(&threads, "thread", |at| at == At::Barrier) {
                return Err(self.fault(waiting, FaultKind::UnconvergedBarrier { others }));
            }
            self.shared.borrow_mut().block_barrier();
        }
    }

    /// Runs a warp until all its lanes wait for the block or have returned.
    fn run_warp(&self, warp: u32, threads: &mut [Thread]) -> Result<(), Fault> {
        let mut answers = [0; WARP];
        loop {
            for (thread, answer) in threads.iter_mut().zip(answers) {
                thread.resume(answer).map_err(|kind| self.fault(thread, kind))?;
            }
            let meeting = threads.iter().find(|thread| !matches!(thread.at, At::Barrier | At::Returned));
            let Some(first) = meeting else { return Ok(()) };
            if let Err(kind) = converged(threads, first.at) {
                return Err(self.fault(first, kind));
            }
            match first.at {
                At::Shuffle { .. } => answers = exchange(threads),
                _ => self.shared.borrow_mut().warp_barrier(warp),
            }
        }
    }

    fn fault(&self, thread: &Thread, kind: FaultKind) -> Fault {
        Fault { kernel: self.launch.kernel.name, block: self.index, thread: thread.index(), kind }
    }
}

/// Checks that all lanes of a warp are where the one at `at`, a shuffle or a warp barrier, waits for them.
fn converged(threads: &[Thread], at: At) -> Result<(), FaultKind> {
    let At::Shuffle { pattern, .. } = at else {
        return match others(threads, "lane", |other| other == at) {
            Some(others) => Err(FaultKind::UnconvergedWarpSync { others }),
            None => Ok(()),
        };
    };
    if let Some(others) = others(threads, "lane", |other| matches!(other, At::Shuffle { .. })) {
        return Err(FaultKind::UnconvergedShuffle { pattern, others });
    }
    let same = |other| matches!(other, At::Shuffle { pattern: theirs, .. } if theirs.meets(pattern));
    match others(threads, "lane", same) {
        Some(others) => Err(FaultKind::MismatchedShuffle { pattern, others }),
        None => Ok(()),
    }
}

/// What each lane of a shuffle gets.
fn exchange(threads: &[Thread]) -> [u32; WARP] {
    let shuffle = |lane: usize| match threads[lane].at {
        At::Shuffle { bits, pattern } => (bits, pattern),
        _ => unreachable!("the warp has converged"),
    };
    std::array::from_fn(|lane| shuffle(shuffle(lane).1.source(lane)).0)
}

/// Where those threads are that are not `here`, in words, or `None` if all are. `unit` is "lane" or "thread";
/// its numbers count from the start of `threads`.
fn others(threads: &[Thread], unit: &str, here: impl Fn(At) -> bool) -> Option<String> {
    let mut runs: Vec<String> = Vec::new();
    let mut first = 0;
    while first < threads.len() {
        let at = threads[first].at;
        let alike = |thread: &&Thread| at.same_place(thread.at);
        let count = threads[first..].iter().take_while(alike).count();
        match (here(at), count) {
            (true, _) => {}
            (false, 1) => runs.push(format!("{unit} {first} {at}")),
            (false, _) => runs.push(format!("{unit}s {first}-{} {at}", first + count - 1)),
        }
        first += count;
    }
    (!runs.is_empty()).then(|| runs.join(", "))
}

impl At {
    /// Equal but for the value that is exchanged.
    fn same_place(self, other: At) -> bool {
        match (self, other) {
            (At::Shuffle { pattern, .. }, At::Shuffle { pattern: theirs, .. }) => pattern == theirs,
            _ => self == other,
        }
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            At::Start => write!(f, "not started"),
            At::Shuffle { pattern, .. } => write!(f, "at {pattern}"),
            At::WarpSync => write!(f, "at sync_warp"),
            At::Barrier => write!(f, "at sync_threads"),
            At::Returned => write!(f, "returned"),
        }
    }
}
