//! How far ahead a block asks for a state into the L2, so that the memory has work while blocks end and start.

use super::{Caps, Job};
use gdn_kernels::abi::DType;

/// Several tokens: sequences from one that is worked on to the one whose blocks, `blocks` a sequence, start when its own are
/// done. A block asks at its start, while its own state is on its way. 0 where each token's f32 state is stored, which leaves
/// the memory no time for more.
pub(super) fn of_wave(job: &Job, blocks: u32, warps: u32, caps: &Caps) -> u32 {
    // What fits a multiprocessor with the 128 registers of a large tile.
    const WARPS: u32 = 16;
    if job.stores_each && job.module.state == Some(DType::F32) {
        return 0;
    }
    let of_wave = caps.sms * WARPS / warps;
    // Rounded down, two waves ask for all of the second (an f32 state's 256 states: 4 % faster); many waves want the sequence
    // more (1 %), but not in layout KV. With stores after each token that was not measured.
    let is_few_waves = u64::from(job.batch) * u64::from(blocks) < 4 * u64::from(of_wave);
    match is_few_waves && !job.stores_each || job.module.is_kv() {
        true => (of_wave / blocks).max(1),
        false => of_wave.div_ceil(blocks),
    }
}

/// A single token: sequences whose states are 10 MB on an H100 (9 MB in layout KV), or 0 for none. With any tile about eight
/// megabytes are on their way when a block asks: what lies nearer is asked for twice, what lies 14 MB off and more is driven
/// out of the L2 before it is used.
///
/// Measured (`docs/BENCHMARKS.md`):
///
/// - On an H100 in layout VK it pays from 32 states a multiprocessor on, below it costs up to 7 %. But a 16-bit state with a decay
///   per head, whose wave of blocks is those ten megabytes, wants it throughout: in the second wave it takes up to 3 % less (1 %
///   more where two waves just hold the batch, or where whole sequences come to 9 MB).
/// - In layout KV, where a block waits for all of its 16 to 32 KiB and then has all of it to store, it pays as soon as there is a
///   second wave of blocks, 5 % with an f32 state.
/// - Where memory is fast ([`Caps::has_fast_memory`], an H200) it pays in layout VK from the same 32 states on with a decay per
///   head (1 to 4 %; an f32 state wants 13 MB, as more is on its way), from 96 on with one per key; and for a 16-bit state where
///   two waves of blocks hold the batch, three to four states (1 to 3 % at 512 states, but 2 % the other way at 768). In KV it
///   pays for a 16-bit state throughout, 5 %; for an f32 one in the first waves, up to 600 KiB a multiprocessor (2 to 6 %), and
///   from 64 states on (up to 8 %): in between it costs 1 to 2 %.
pub(super) fn of_bytes(job: &Job, caps: &Caps) -> u32 {
    let (module, sms) = (job.module, u64::from(caps.sms));
    let (is_kv, is_kda, is_f32) = (module.is_kv(), module.is_kda(), module.state == Some(DType::F32));
    let is_fast = caps.has_fast_memory();
    // Bytes of states for each multiprocessor.
    let bytes = match is_kv {
        true => 72 << 10,
        false if is_fast && is_f32 => 96 << 10,
        false => 82 << 10,
    };
    let of_sequence = job.shape.state_elements() * module.state.map_or(0, |state| state.size() as u64);
    let is_first_waves = of_sequence * u64::from(job.batch) < (600 << 10) * sms;
    let has_states = |least: u64| job.states() >= least * sms;
    let is_two_waves = has_states(3) && job.states() <= 4 * sms;
    let pays = match (is_fast, is_kv) {
        (true, true) => !is_f32 || is_first_waves || has_states(64),
        (true, false) if is_kda => has_states(96),
        (true, false) => has_states(32) || is_two_waves && !is_f32,
        (false, true) => true,
        (false, false) => !(is_f32 || is_kda) || has_states(32),
    };
    if !pays {
        return 0;
    }
    (bytes * sms).checked_div(of_sequence).map_or(0, |sequences| sequences.max(1) as u32)
}
