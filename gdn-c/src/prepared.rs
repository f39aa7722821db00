//! How a call is launched, and calls that were checked and planned for many launches.

use crate::context::gdn_context;
use crate::read::{check_flags, check_reserved, not_null, read, versioned};
use crate::status::{Failure, GDN_ERROR_NOT_LOADED, gdn_status, guarded};
use crate::text::write_text;
use gdn_host::driver::Stream;
use gdn_host::{Launch, Operation, Plan, Prepared, Tile};
use std::ffi::{c_char, c_void};
use std::sync::Arc;

/// Of `gdn_launch.flags`: start before the predecessor in the stream has ended (programmatic dependent launch), where that is
/// possible and pays.
///
/// What the caller guarantees: neither the predecessor in the stream, nor any earlier kernel that can still be running when
/// the predecessor itself was started early, writes a table of a decode; and such an earlier kernel writes nothing else that
/// the call reads or writes. The other operations that are launched so (conv1d_update, gated_rmsnorm, unpack_qkvz, and
/// replay_decode, replay_verify, replay_advance and replay_commit) read nothing before their predecessor has ended. The result is the same bit for bit.
pub const GDN_LAUNCH_EARLY: u32 = 1;

/// How a call is launched; NULL in its place, and zeros in its fields, are the ordinary choice. The result is the same bit for
/// bit whatever is asked for.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gdn_launch {
    /// `sizeof(gdn_launch)`.
    pub size: u32,
    /// `GDN_LAUNCH_EARLY` or 0.
    pub flags: u32,
    /// Rows of V a block works on; 0: by the table of measured choices.
    pub bv: u32,
    /// For sweeps, with `warps` and without `bv`: height of a warp's tile; 0 for an operation without tiles.
    pub rows: u32,
    /// For sweeps: warps of a block.
    pub warps: u32,
    /// 0.
    pub reserved: u32,
}

versioned!(gdn_launch);

impl gdn_launch {
    /// # Safety
    /// `launch` is NULL or points to a struct as long as its `size` says.
    pub(crate) unsafe fn read(launch: *const gdn_launch) -> Result<Launch, Failure> {
        if launch.is_null() {
            return Ok(Launch::default());
        }
        // SAFETY: the caller's promise.
        let launch = unsafe { read(launch)? };
        check_flags("launch.flags", launch.flags, GDN_LAUNCH_EARLY)?;
        check_reserved("launch.reserved", launch.reserved)?;
        let gdn_launch { bv, rows, warps, .. } = launch;
        let tile = match (bv, rows, warps) {
            (0, 0, 0) => Tile::Auto,
            (bv, 0, 0) => Tile::Rows(bv),
            (0, rows, warps) => Tile::Exact { rows, warps },
            _ => {
                return Err(Failure::argument(format!(
                    "launch.bv: {bv} does not go with rows ({rows}) and warps ({warps}), which choose a tile of their own"
                )));
            }
        };
        Ok(Launch { tile, early: launch.flags & GDN_LAUNCH_EARLY != 0 })
    }
}

/// A checked and planned call. It may be launched many times, from any thread, and keeps its context alive.
pub struct gdn_prepared {
    /// What is launched; of a context that only plans there is nothing.
    launchable: Option<Prepared<'static>>,
    plan: Plan,
    /// Has the kernels. Behind `launchable`, so that it goes last.
    _context: Arc<gdn_context>,
}

/// Handles are shared between threads.
const fn is_shared<T: Send + Sync>() {}
const _: () = is_shared::<gdn_prepared>();

impl gdn_prepared {
    pub(crate) fn new(
        context: Arc<gdn_context>,
        call: &dyn Operation,
        launch: Launch,
    ) -> Result<gdn_prepared, Failure> {
        let (plan, launchable) = context.prepare(call, launch)?;
        // SAFETY: it borrows what the context owns, at an address that does not change, and the context lives as long as this
        // struct, which hands no copy of it out.
        let launchable = launchable
            .map(|prepared| unsafe { std::mem::transmute::<Prepared<'_>, Prepared<'static>>(prepared) });
        Ok(gdn_prepared { launchable, plan, _context: context })
    }
}

/// Launches a prepared call in the order of `stream`: the driver's call behind a look at the current context, and nothing else.
/// The addresses are those of the call; the tables are read when the kernel runs. It may be captured into a graph, which must
/// not outlive the context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gdn_prepared_launch(
    prepared: *const gdn_prepared,
    stream: *mut c_void,
) -> gdn_status {
    guarded(|| {
        // SAFETY: the caller's promise: a handle of `gdn_*_prepare` that was not destroyed.
        let prepared = unsafe { &*not_null(prepared, "the prepared call")? };
        let Some(launchable) = &prepared.launchable else { return Err(plans_only()) };
        // SAFETY: the caller's promise about addresses, tables and the stream.
        unsafe { Ok(launchable.launch(Stream::from_raw(stream))?) }
    })
}

/// Writes the plan as a line of text: kernel, BV, grid, block, `early` if it is launched so, and whose measurements chose it.
/// At most `size` bytes are written, the last of them a NUL; the length of the whole text is returned, without the NUL. With
/// `size` 0 nothing is written. The text of NULL is empty.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gdn_prepared_plan(
    prepared: *const gdn_prepared,
    buffer: *mut c_char,
    size: usize,
) -> usize {
    // SAFETY: the caller's promise: NULL or a handle, and `size` bytes at `buffer`.
    unsafe { write_text(buffer, size, || prepared.as_ref().map(|prepared| prepared.plan.to_string())) }
}

/// Whether a prepared call is launched early: 1, or 0 where that was not asked for, is not possible or does not pay.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gdn_prepared_is_early(prepared: *const gdn_prepared) -> i32 {
    // SAFETY: the caller's promise: NULL or a handle.
    unsafe { prepared.as_ref() }.is_some_and(|prepared| prepared.plan.early).into()
}

/// Frees a prepared call; NULL is nothing. Launches that were made go on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gdn_prepared_destroy(prepared: *mut gdn_prepared) {
    guarded(|| {
        if !prepared.is_null() {
            // SAFETY: the caller's promise: a handle, used for the last time.
            drop(unsafe { Box::from_raw(prepared) });
        }
        Ok(())
    });
}

/// A launch by a context that only plans.
pub(crate) fn plans_only() -> Failure {
    Failure::new(GDN_ERROR_NOT_LOADED, "the context is of a described device: it plans and launches nothing")
}
