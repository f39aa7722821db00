//! Decode: one token for each sequence, gating fused, state updated in its slot.
//!
//! This is SGLang's `fused_sigmoid_gating_delta_rule_update` for T = 1 and, since inputs are strided, its
//! packed form too. The arithmetic is [`crate::tile`]'s; this file is what surrounds it: which block works
//! on what, which slot a sequence reads and writes, and in which order loads are issued.
//!
//! # Blocks
//!
//! A block of `W` warps works on `BV = W * WARP_ROWS` rows of one state: block x is `value head * tiles +
//! tile`, and y and z together count sequences. Warps share nothing, so there is no barrier and no shared
//! memory, and `W` is free at launch: with two kernels, one whose warp has 4 rows and one whose warp has 16
//! (32 for K = 64), BV runs from 4 to 128. Each warp works out
//! norms and gate for itself; the instructions are hidden behind the state's loads, whereas sharing them
//! through shared memory would put a barrier between the loads and their use.
//!
//! # Order of loads
//!
//! Decode is bound by memory, and in small batches by latency: slot index -> state -> done is the longest
//! chain. So the slot index is asked for first, the whole tile's state as soon as it is there, and the
//! inputs (q, k, gate, v) behind it, where they arrive first all the same: they come from L2, the state
//! from DRAM. Nothing loaded is looked at before everything is in flight.
//!
//! # What it takes
//!
//! On an H100 with the heads of Qwen3-Next (16:32) and cold L2 a launch takes 3.5 us for one sequence with an
//! f32 state, and from 128 sequences on moves 2.9 TB/s of state, read plus written. In between the number of
//! instructions of a warp counts as well: at batch 4 with a bf16 state, when each multiprocessor has about 31
//! warps of 500 instructions, one address for both loads of a gate input (see [`Scalar`]) instead of two, and
//! one v and one output a lane instead of all rows' in each, took 5.4 us down to 5.0.

use crate::abi::{DecodeParams, flags};
use crate::arch::{memory, thread};
use crate::math::{Element, Scalar, exp, round_to, sigmoid, softplus_gate};
use crate::tile::{Keys, Place, Tile};

/// The kernel body. `S` is the type of the state, `T` that of q, k and v.
///
/// # Safety
/// `p` describes buffers as its documentation says, and the launch is shaped as [`DecodeParams`] says.
#[inline(always)]
pub unsafe fn decode<S: Element, T: Element, const K: u32, const ROWS: usize>(p: &DecodeParams) {
    let n = thread::block_idx_y() + thread::block_idx_z() * thread::grid_dim_y();
    if n >= p.n {
        return;
    }
    let place = Place::of_this_thread::<K>();
    let head = thread::block_idx_x() >> p.tiles_log2;
    let tile = thread::block_idx_x() & ((1 << p.tiles_log2) - 1);
    let first_row = tile * (p.v >> p.tiles_log2) + place.warp * Tile::<K, ROWS>::WARP_ROWS;
    let row0 = head * p.v + first_row;

    // SAFETY: n < N, head < HV and the warp's rows < V, so every address below lies in its buffer; the slot
    // is used only after it was checked against the pool.
    unsafe {
        let slot = memory::load_u32(p.pool.slot + 4 * n as u64) as i32;
        let separate = p.pool.write_slot != 0;
        let write_slot = memory::load_u32_if(separate, p.pool.write_slot + 4 * n as u64) as i32;
        let reset = memory::load_u8_if(p.pool.reset != 0, p.pool.reset + n as u64);
        if !names_slot(p, slot) {
            store_out::<T, K, ROWS>(p, n, row0, place, 0.0);
            return;
        }

        let in_slot = row0 as u64 * (K as u64 * S::SIZE);
        let lane_state = Tile::<K, ROWS>::lane_address::<S>(p.pool.state + in_slot, place);
        let state_at = |slot: i32| lane_state + wide(slot as u32, p.pool.pitch) * S::SIZE;
        let fresh = p.pool.reset != 0 && (reset != 0) != (p.flags & flags::RESET_INVERTED != 0);
        let state = if fresh { [S::ZERO; ROWS] } else { Tile::<K, ROWS>::load::<S>(state_at(slot)) };

        let key_head = key_head(p, head) * K;
        let k_at = p.inputs.k + (wide(n, p.inputs.k_stride) + key_head as u64) * T::SIZE;
        let q_at = p.inputs.q + (wide(n, p.inputs.q_stride) + key_head as u64) * T::SIZE;
        let v_at = p.inputs.v + (wide(n, p.inputs.v_stride) + row0 as u64) * T::SIZE;
        let k = T::load_vector(k_at, place.lane, K, S::VECTOR);
        let q = T::load_vector(q_at, place.lane, K, S::VECTOR);
        let gate = GateInputs::load(p, n, head);
        let (carries, carried_row) = Tile::<K, ROWS>::carried(place);
        let v = T::load_bits_if(carries, v_at + carried_row as u64 * T::SIZE);

        let l2norm = p.flags & flags::L2NORM != 0;
        let keys = Keys::new::<K>(T::unpack(q), T::unpack(k), l2norm, p.eps, p.scale);
        let (decay, beta) = gate.evaluate(p);
        let mut h = Tile::<K, ROWS>::unpack::<S>(state);
        let out = h.step(&keys, decay, beta, T::widen(v), place);
        let write_slot = if separate { write_slot } else { slot };
        if names_slot(p, write_slot) {
            h.store::<S>(state_at(write_slot));
        }
        store_out::<T, K, ROWS>(p, n, row0, place, out);
    }
}

/// The 64-bit product of an index and a stride.
#[inline(always)]
fn wide(index: u32, stride: u32) -> u64 {
    index as u64 * stride as u64
}

/// Whether an index names a slot of the pool; otherwise it is padding and nothing is touched.
#[inline(always)]
fn names_slot(p: &DecodeParams, slot: i32) -> bool {
    // A negative index is a large u32.
    (slot as u32) < p.pool.slots && slot != p.pool.null_slot
}

/// The key head of value head `head`, by multiplication with the reciprocal of the divisor.
#[inline(always)]
fn key_head(p: &DecodeParams, head: u32) -> u32 {
    let quotient = ((head as u64 * p.head_reciprocal as u64) >> 31) as u32;
    if p.flags & flags::HEADS_TILED != 0 { head - quotient * p.h } else { quotient }
}

/// The gate's inputs, loaded but not yet looked at.
struct GateInputs {
    a: Scalar,
    b: Scalar,
    a_log: Scalar,
    dt_bias: Scalar,
}

impl GateInputs {
    /// # Safety
    /// `n` and `head` lie in the gate's tables.
    #[inline(always)]
    unsafe fn load(p: &DecodeParams, n: u32, head: u32) -> GateInputs {
        let (g, head) = (&p.gate, head as u64);
        let gated = p.flags & flags::DECAY_GIVEN == 0;
        // SAFETY: the caller's promise; with `DECAY_GIVEN` the last two tables are not there and not read.
        unsafe {
            GateInputs {
                a: Scalar::load_if(true, g.a, wide(n, g.a_stride) + head, g.a_dtype),
                b: Scalar::load_if(true, g.b, wide(n, g.b_stride) + head, g.b_dtype),
                a_log: Scalar::load_if(gated, g.a_log, head, g.a_log_dtype),
                dt_bias: Scalar::load_if(gated, g.dt_bias, head, g.dt_bias_dtype),
            }
        }
    }

    /// Decay `e^g` and beta.
    #[inline(always)]
    fn evaluate(self, p: &DecodeParams) -> (f32, f32) {
        let (a, b) = (self.a.to_f32(), self.b.to_f32());
        let g = if p.flags & flags::DECAY_GIVEN != 0 {
            a
        } else {
            let threshold = p.gate.softplus_threshold;
            softplus_gate(a, self.dt_bias.to_f32(), self.a_log.to_f32(), threshold)
        };
        let mut beta = if p.flags & flags::BETA_GIVEN != 0 { b } else { sigmoid(b) };
        if p.flags & flags::BETA_ROUNDED != 0 {
            beta = round_to(beta, p.gate.b_dtype);
        }
        (exp(g), beta)
    }
}

/// Stores a warp's outputs, one instruction for all of them: each lane that carries a row stores its output.
///
/// # Safety
/// The rows lie in the output.
#[inline(always)]
unsafe fn store_out<T: Element, const K: u32, const ROWS: usize>(
    p: &DecodeParams,
    n: u32,
    row0: u32,
    place: Place,
    out: f32,
) {
    let (carries, carried_row) = Tile::<K, ROWS>::carried(place);
    if carries {
        let at = wide(n, p.out_stride) + (row0 + carried_row) as u64;
        // SAFETY: the caller's promise.
        unsafe {
            if p.flags & flags::OUT_F32 != 0 {
                f32::store(p.out + at * f32::SIZE, out);
            } else {
                T::store(p.out + at * T::SIZE, out);
            }
        }
    }
}
