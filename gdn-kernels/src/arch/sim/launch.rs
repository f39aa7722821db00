//! A launch: the shape it must have, and its grid.

use std::num::NonZero;
use std::sync::OnceLock;
use std::thread::available_parallelism;

use rayon::ThreadPool;
use rayon::prelude::*;

use super::extent::Extent;
use super::fault::{Fault, FaultKind};
use super::global_memory::Memory;
use super::scheduler::Block;
use super::touches::{MAX_BLOCKS, Touches};

/// Largest grid the hardware takes: x, y, z.
const MAX_GRID: [u32; 3] = [i32::MAX as u32, 65_535, 65_535];
/// Most shared memory any supported architecture gives a block (sm_90).
const MAX_SHARED: u32 = 227 << 10;
/// Blocks that run at once. Each thread of each of them has a stack, and a stack is two memory mappings, of
/// which Linux gives a process 65,530 by default.
const MAX_WORKERS: usize = 16;

/// A kernel, its arguments, and the shape of its grid.
#[derive(Clone, Copy)]
pub struct Launch<'a> {
    /// An entry of [`KERNELS`](crate::KERNELS).
    pub kernel: &'a crate::Kernel,
    /// Blocks: x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block, a multiple of 32.
    pub block: u32,
    /// Bytes of dynamic shared memory, behind what the kernel has of its own.
    pub shared_bytes: u32,
    /// The kernel's parameter struct.
    pub params: &'a [u8],
    /// What the kernel may touch: one for each tensor that the parameters point to.
    pub extents: &'a [Extent],
    /// In an early launch (programmatic dependent launch) the names of the extents that the kernel may read before it waits
    /// for its predecessor; `None` in an ordinary one.
    pub early: Option<&'a [&'a str]>,
}

/// Runs a kernel on every thread of a grid.
///
/// # Errors
/// The [`Fault`] of the lowest faulting block, counted with x fastest. Blocks after it may or may not have
/// run, so the contents of writable memory are then unspecified. That there is a fault does not depend on timing. Which
/// one is reported does not either, unless the launch has both races between blocks and other faults.
pub fn launch(memory: &Memory, launch: &Launch) -> Result<(), Fault> {
    launch.check()?;
    let touches = Touches::new(memory, false);
    let run = |block| Block::new(memory, launch, &touches, block).run().err();
    let Some(fault) = pool().install(|| (0..launch.blocks()).into_par_iter().find_map_first(run)) else {
        return Ok(());
    };
    Err(if fault.is_race() { in_order(memory, launch).unwrap_or(fault) } else { fault })
}

/// Runs a launch that has raced again, block after block: its first race, with names. `None` if a block went another way
/// now, which it only does where an address follows from what the launch itself writes.
fn in_order(memory: &Memory, launch: &Launch) -> Option<Fault> {
    let touches = Touches::new(memory, true);
    let run = |block| Block::new(memory, launch, &touches, block).run().err();
    pool().install(|| (0..launch.blocks()).find_map(run)).filter(Fault::is_race)
}

impl Launch<'_> {
    /// Blocks of the grid.
    fn blocks(&self) -> u64 {
        self.grid.into_iter().map(u64::from).product()
    }

    /// Index of a block in the grid, by its number.
    pub(super) fn index(&self, block: u64) -> [u32; 3] {
        let [x, y, _] = self.grid.map(u64::from);
        [block % x, block / x % y, block / (x * y)].map(|index| index as u32)
    }

    /// Refuses a shape that the kernel or the hardware would not take.
    fn check(&self) -> Result<(), Fault> {
        let (kernel, block, grid) = (self.kernel, self.block, self.grid);
        let message = if self.params.len() != kernel.params_size {
            let (given, wanted) = (self.params.len(), kernel.params_size);
            format!("{given} bytes of parameters, {} has {wanted}", kernel.params)
        } else if block == 0 || !block.is_multiple_of(32) {
            format!("blocks of {block} threads are not whole warps")
        } else if block > kernel.max_threads {
            format!("blocks of {block} threads, the kernel is limited to {}", kernel.max_threads)
        } else if grid.contains(&0) {
            format!("the grid {grid:?} has no blocks")
        } else if grid.iter().zip(MAX_GRID).any(|(&size, limit)| size > limit) {
            format!("the grid {grid:?} is larger than {MAX_GRID:?}")
        } else if self.blocks() > MAX_BLOCKS {
            format!("the grid {grid:?} has more than {MAX_BLOCKS} blocks")
        } else if self.shared_bytes > MAX_SHARED {
            format!("{} bytes of shared memory, no GPU has more than {MAX_SHARED}", self.shared_bytes)
        } else {
            return Ok(());
        };
        Err(Fault { kernel: kernel.name, block: [0; 3], thread: 0, kind: FaultKind::Shape(message) })
    }
}

/// The threads that blocks run on: a pool of the simulator's own, so that the number of stacks is bounded.
fn pool() -> &'static ThreadPool {
    static POOL: OnceLock<ThreadPool> = OnceLock::new();
    POOL.get_or_init(|| {
        let workers = available_parallelism().map_or(1, NonZero::get).min(MAX_WORKERS);
        let builder = rayon::ThreadPoolBuilder::new().num_threads(workers);
        builder.thread_name(|i| format!("gdn-sim-{i}")).build().expect("the system starts threads")
    })
}
