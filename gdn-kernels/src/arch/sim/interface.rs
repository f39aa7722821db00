//! What kernels call: the modules of the seam, function for function those of `../nvptx`.
//!
//! They are `unsafe` where the GPU's are, so that kernels read the same; here nothing depends on the promise.

// Real kernels need not use every primitive.
#![allow(dead_code)]

/// Indices of the running thread and the block barrier.
pub(crate) mod thread {
    use crate::arch::sim::lane::{Stop, current};

    pub(crate) fn thread_idx_x() -> u32 {
        current(|lane| lane.thread)
    }

    pub(crate) fn block_dim_x() -> u32 {
        current(|lane| lane.block.launch.block)
    }

    pub(crate) fn block_idx_x() -> u32 {
        current(|lane| lane.block.index[0])
    }

    pub(crate) fn block_idx_y() -> u32 {
        current(|lane| lane.block.index[1])
    }

    pub(crate) fn block_idx_z() -> u32 {
        current(|lane| lane.block.index[2])
    }

    pub(crate) fn grid_dim_y() -> u32 {
        current(|lane| lane.block.launch.grid[1])
    }

    /// Block barrier. Every thread of the block must reach it.
    pub(crate) unsafe fn sync_threads() {
        current(|lane| lane.stop(Stop::Barrier));
    }
}

/// Exchange among the 32 lanes of a warp.
pub(crate) mod warp {
    use crate::arch::sim::fault::Pattern;
    use crate::arch::sim::lane::{Stop, current};

    /// The value of lane `lane ^ mask`. All 32 lanes must call it together with the same mask.
    pub(crate) unsafe fn shuffle_xor(value: f32, mask: u32) -> f32 {
        exchange(value, Pattern::Xor(mask))
    }

    /// The value of lane `lane` of the own group of `width` lanes (a power of two). All 32 lanes must call it
    /// together with the same width; each names a lane of its own.
    pub(crate) unsafe fn broadcast(value: f32, lane: u32, width: u32) -> f32 {
        exchange(value, Pattern::Broadcast { lane, width })
    }

    fn exchange(value: f32, pattern: Pattern) -> f32 {
        f32::from_bits(current(|lane| lane.stop(Stop::Shuffle { bits: value.to_bits(), pattern })))
    }

    /// The bitwise or of what the 32 lanes have. They call it together.
    pub(crate) unsafe fn reduce_or(bits: u32) -> u32 {
        [16, 8, 4, 2, 1].into_iter().fold(bits, |bits, mask| {
            // SAFETY: the caller's promise.
            bits | unsafe { shuffle_xor(f32::from_bits(bits), mask) }.to_bits()
        })
    }

    /// Orders the warp's memory accesses. All 32 lanes must call it together.
    pub(crate) unsafe fn sync_warp() {
        current(|lane| lane.stop(Stop::WarpSync));
    }
}

/// Products of small matrices by a warp.
pub(crate) mod matrix {
    use super::warp::broadcast;
    use crate::arch::sim::lane::current;
    use half::{bf16, f16};

    /// `c + a b` of 16 x 16 and 16 x 8 elements of bf16, summed in f32. All 32 lanes call it together. With lane `4 g + t` the
    /// words of a are rows g, g + 8, g, g + 8, columns 2 t and 2 t + 1 of each and, of the last two, eight columns
    /// further; those of b are column g, rows as columns of a; those of c are rows g, g, g + 8, g + 8, columns 2 t and 2 t + 1.
    pub(crate) unsafe fn multiply_bf16(c: [f32; 4], a: [u32; 4], b: [u32; 2]) -> [f32; 4] {
        multiply(c, a, b, |bits| bf16::from_bits(bits).to_f32())
    }

    /// The same of f16.
    pub(crate) unsafe fn multiply_f16(c: [f32; 4], a: [u32; 4], b: [u32; 2]) -> [f32; 4] {
        multiply(c, a, b, |bits| f16::from_bits(bits).to_f32())
    }

    /// What the lanes hold goes from lane to lane, so that one that does not take part is a fault.
    fn multiply(c: [f32; 4], a: [u32; 4], b: [u32; 2], widen: impl Fn(u16) -> f32) -> [f32; 4] {
        let lane = current(|lane| lane.thread % 32);
        let (g, t) = (lane / 4, lane % 4);
        // SAFETY: the caller's promise.
        let word = |word: u32, lane: u32| unsafe { broadcast(f32::from_bits(word), lane, 32) }.to_bits();
        let pair = |word: u32| [word as u16, (word >> 16) as u16].map(|bits| f64::from(widen(bits)));
        let mut sums = [0.0f64; 4];
        for k in 0..4 {
            let rows = a.map(|a| pair(word(a, 4 * g + k)));
            let columns = [2 * t, 2 * t + 1].map(|column| b.map(|b| pair(word(b, 4 * column + k))));
            for (i, sum) in sums.iter_mut().enumerate() {
                let (row, column) = (i / 2, columns[i % 2]);
                for half in 0..2 {
                    let [x, y] = [rows[row + 2 * half], column[half]];
                    *sum += x[0] * y[0] + x[1] * y[1];
                }
            }
        }
        std::array::from_fn(|i| (f64::from(c[i]) + sums[i]) as f32)
    }
}

/// Programmatic dependent launch: here a kernel starts when its predecessor is done.
pub(crate) mod grid {
    use crate::arch::sim::lane::current;

    /// Waits until the predecessor is done. Here it is; what an early launch must not do before is a fault.
    pub(crate) unsafe fn wait() {
        current(|lane| lane.wait());
    }

    /// Lets the successor start; here it does when this launch has ended.
    pub(crate) unsafe fn launch_dependents() {
        current(|lane| lane.trigger());
    }
}

/// Loads and stores of the block's shared memory, addressed in bytes from its start.
pub(crate) mod shared {
    use crate::arch::Piece;
    use crate::arch::sim::extent::Access;
    use crate::arch::sim::lane::current;

    /// The address of the block's own piece: its start. How many bytes there are is the launch's.
    pub(crate) fn block<P: Piece>() -> u32 {
        0
    }

    /// Eight bytes as two f32; 8-byte aligned.
    pub(crate) unsafe fn store_f32x2(byte: u32, values: [f32; 2]) {
        for (i, value) in (0..).zip(values) {
            // SAFETY: the caller's promise.
            unsafe { store_f32(byte + 4 * i, value) };
        }
    }

    /// Eight bytes as two f32; 8-byte aligned.
    pub(crate) unsafe fn load_f32x2(byte: u32) -> [f32; 2] {
        // SAFETY: the caller's promise.
        [0, 4].map(|i| unsafe { load_f32(byte + i) })
    }

    /// Begins to copy sixteen bytes of global memory here; both addresses are 16-byte aligned. The thread finds them
    /// behind [`wait_copies`], others behind a barrier as well.
    pub(crate) unsafe fn begin_copy(byte: u32, from: u64) {
        current(|lane| lane.begin_copy(byte, Access { address: from, bytes: 16, store: false }));
    }

    /// Waits for the copies that the thread has begun: only now they are stored here.
    pub(crate) unsafe fn wait_copies() {
        current(|lane| lane.wait_copies());
    }

    /// Sixteen bytes as four f32; 16-byte aligned.
    pub(crate) unsafe fn load_f32x4(byte: u32) -> [f32; 4] {
        // SAFETY: the caller's promise.
        [0, 4, 8, 12].map(|i| unsafe { load_f32(byte + i) })
    }

    /// Sixteen bytes as four f32; 16-byte aligned.
    pub(crate) unsafe fn store_f32x4(byte: u32, values: [f32; 4]) {
        for (i, value) in (0..).zip(values) {
            // SAFETY: the caller's promise.
            unsafe { store_f32(byte + 4 * i, value) };
        }
    }

    /// Four bytes as f32; 4-byte aligned.
    pub(crate) unsafe fn load_f32(byte: u32) -> f32 {
        current(|lane| {
            let result = lane.block.shared.borrow_mut().load(lane.thread, byte);
            f32::from_bits(lane.checked(result))
        })
    }

    /// Four bytes as f32; 4-byte aligned.
    pub(crate) unsafe fn store_f32(byte: u32, value: f32) {
        current(|lane| {
            let result = lane.block.shared.borrow_mut().store(lane.thread, byte, value.to_bits());
            lane.checked(result);
        });
    }
}

/// Loads and stores of global memory; addresses are plain `u64` device addresses.
pub(crate) mod memory {
    use crate::arch::sim::extent::Access;
    use crate::arch::sim::lane::current;

    /// `N` words as loaded by an access of `bytes` bytes, zero-extended.
    fn load<const N: usize>(address: u64, bytes: u32) -> [u32; N] {
        let value = current(|lane| lane.load(Access { address, bytes, store: false }));
        std::array::from_fn(|i| u32::from_le_bytes(std::array::from_fn(|byte| value[4 * i + byte])))
    }

    /// The first `bytes` bytes of the words.
    fn store<const N: usize>(address: u64, bytes: u32, words: [u32; N]) {
        let mut value = [0; 16];
        for (chunk, word) in value.chunks_exact_mut(4).zip(words) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        current(|lane| lane.store(Access { address, bytes, store: true }, &value));
    }

    /// One byte, zero-extended; 0 without a load when the condition is false.
    pub(crate) unsafe fn load_u8_if(condition: bool, address: u64) -> u32 {
        if condition { load::<1>(address, 1)[0] } else { 0 }
    }

    /// Two bytes, zero-extended; 0 without a load when the condition is false.
    pub(crate) unsafe fn load_u16_if(condition: bool, address: u64) -> u32 {
        if condition { load::<1>(address, 2)[0] } else { 0 }
    }

    /// Four bytes; 0 without a load when the condition is false.
    pub(crate) unsafe fn load_u32_if(condition: bool, address: u64) -> u32 {
        // SAFETY: the caller's promise.
        unsafe { load_u32_or(0, condition, address) }
    }

    /// Four bytes; `other` without a load when the condition is false.
    pub(crate) unsafe fn load_u32_or(other: u32, condition: bool, address: u64) -> u32 {
        if condition { load::<1>(address, 4)[0] } else { other }
    }

    /// Four bytes, by a load of its own.
    pub(crate) unsafe fn load_u32_anew(address: u64) -> u32 {
        // SAFETY: the caller's promise.
        unsafe { load_u32(address) }
    }

    /// Asks for the line of an address into the L2, if the condition is true. Here there is none, but whoever asks for what
    /// it may not read is told. An early launch may ask before its wait: whoever still writes there does so through the L2.
    pub(crate) unsafe fn prefetch_if(condition: bool, address: u64) {
        if condition {
            current(|lane| lane.prefetch(Access { address, bytes: 4, store: false }));
        }
    }

    /// Four bytes.
    pub(crate) unsafe fn load_u32(address: u64) -> u32 {
        load::<1>(address, 4)[0]
    }

    /// Eight bytes as two words; 8-byte aligned.
    pub(crate) unsafe fn load_u32x2(address: u64) -> [u32; 2] {
        load(address, 8)
    }

    /// Sixteen bytes; 16-byte aligned.
    pub(crate) unsafe fn load_u32x4(address: u64) -> [u32; 4] {
        load(address, 16)
    }

    /// Sixteen bytes that this kernel reads once; 16-byte aligned.
    pub(crate) unsafe fn load_u32x4_streaming(address: u64) -> [u32; 4] {
        load(address, 16)
    }

    /// Sixteen bytes that this kernel reads once; 16-byte aligned. Zeros without a load when the condition is false.
    pub(crate) unsafe fn load_u32x4_streaming_if(condition: bool, address: u64) -> [u32; 4] {
        if condition { load(address, 16) } else { [0; 4] }
    }

    /// Two bytes, the low half of `value`.
    pub(crate) unsafe fn store_u16(address: u64, value: u32) {
        store(address, 2, [value]);
    }

    /// Four bytes.
    pub(crate) unsafe fn store_u32(address: u64, value: u32) {
        store(address, 4, [value]);
    }

    /// Eight bytes; 8-byte aligned.
    pub(crate) unsafe fn store_u32x2(address: u64, value: [u32; 2]) {
        store(address, 8, value);
    }

    /// Sixteen bytes; 16-byte aligned.
    pub(crate) unsafe fn store_u32x4(address: u64, value: [u32; 4]) {
        store(address, 16, value);
    }

    /// Sixteen bytes that nobody reads soon; 16-byte aligned.
    pub(crate) unsafe fn store_u32x4_streaming(address: u64, value: [u32; 4]) {
        store(address, 16, value);
    }
}

/// What the compiler is not to know.
pub(crate) mod compiler {
    /// `x`, without what the compiler knows of it.
    pub(crate) fn opaque(x: u32) -> u32 {
        x
    }
}
