//! The seam on the CPU: a whole grid run lane by lane, with the checks that a GPU does not make.
//!
//! Each thread of a block is a coroutine. The 32 lanes of a warp run one after the other up to the next
//! shuffle or warp barrier and meet there, all threads of a block meet at every block barrier, and blocks
//! run in parallel. So a kernel sees what it would see on a GPU, except that a lane is not interrupted
//! between two meeting points, and every one of these stops the launch with a [`Fault`] that says where:
//!
//! - an access that no [`Extent`] of the launch covers, that is misaligned, or that writes what is read-only;
//! - a load of a byte that nobody wrote, in global or shared memory;
//! - a shuffle or barrier that not all of its lanes reach, or reach with another exchange in mind;
//! - two accesses to one word of shared memory that nothing orders, one of them a store;
//! - two accesses of different blocks to one byte of global memory, one of them a store;
//! - in an early launch, an access before the wait for the predecessor, but to what it may read that early, or a successor let
//!   start before it;
//! - a launch whose shape the kernel or the hardware does not take; a panic.
//!
//! Global memory is simulated as well ([`Memory`]): its addresses are not the host's, and a 20 GB pool costs
//! only the pages that are touched. What is not checked is order in global memory *within* a block: two of its threads that
//! touch one address without agreeing on who comes first go unnoticed.
//!
//! | file            | contents                                                        |
//! |-----------------|-----------------------------------------------------------------|
//! | `interface`     | `thread`, `grid`, `warp`, `matrix`, `shared`, `memory`: what kernels call |
//! | `float`         | the GPU's approximations and conversions                         |
//! | `launch`        | a launch, its shape, its grid                                    |
//! | `scheduler`     | a block: its coroutines and where they meet                      |
//! | `lane`          | one thread: the coroutine, and how kernel code finds it          |
//! | `extent`        | what a launch lets its kernel touch                              |
//! | `global_memory` | the sparse store behind device addresses                         |
//! | `touches`       | which block touched what of global memory                        |
//! | `shared_memory` | a block's shared memory, and who touched what since which barrier |
//! | `fault`         | what went wrong, and where                                       |

mod extent;
mod fault;
pub(crate) mod float;
mod global_memory;
mod interface;
mod lane;
mod launch;
mod scheduler;
mod shared_memory;
#[cfg(test)]
mod tests;
mod touches;

pub use extent::Extent;
pub use fault::{Fault, FaultKind, Near, Other, Pattern};
pub use global_memory::Memory;
// `shared` waits for the first kernel that needs it.
#[allow(unused_imports)]
pub(crate) use interface::{compiler, grid, matrix, memory, shared, thread, warp};
pub use launch::{Launch, launch};
