//! How far ahead a block asks for a state into the L2, so that the memory has work while blocks end and start.

use super::Caps;
use crate::artifact::ModuleKey;
use crate::shape::HeadShape;

/// Several tokens: sequences from one that is worked on to the one whose blocks, `blocks` a sequence, start when its own are
/// done. A block asks at its start, while its own state is on its way.
pub(super) fn of_wave(blocks: u32, warps: u32, caps: &Caps) -> u32 {
    // What fits a multiprocessor with the 128 registers of a large tile.
    const WARPS: u32 = 16;
    (caps.sms * WARPS / warps).div_ceil(blocks)
}

/// A single token: sequences whose states are 10 MB on an H100, or 0 for none. A block asks when its step is done, and with
/// any tile about eight megabytes are then on their way: what lies nearer is asked for twice, what lies 14 MB off and more is
/// driven out of the L2 before it is used.
///
/// Measured (`docs/BENCHMARKS.md`): on an H100 in layout VK it pays from 32 states a multiprocessor on, below it costs up to
/// 4 %; in layout KV it pays there as well and costs up to 1 % below. Where memory is fast ([`Caps::has_fast_memory`], an H200)
/// it pays from 96 states a multiprocessor on, 1 to 6 %, and costs as much below.
pub(super) fn of_bytes(module: ModuleKey, shape: &HeadShape, batch: u32, caps: &Caps) -> u32 {
    /// Bytes of states for each multiprocessor.
    const BYTES: u64 = 80 << 10;
    let sms = u64::from(caps.sms);
    // States for each multiprocessor from which it pays.
    let least = match caps.has_fast_memory() {
        true => 96,
        false if module.is_kv() => 0,
        false => 32,
    };
    if u64::from(batch) * u64::from(shape.hv) < least * sms {
        return 0;
    }
    let bytes = shape.state_elements() * module.state.map_or(0, |state| state.size() as u64);
    (BYTES * sms).checked_div(bytes).map_or(0, |sequences| sequences.max(1) as u32)
}
