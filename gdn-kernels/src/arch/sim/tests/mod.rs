//! Every check of the simulator, shown by a deliberately broken kernel; every primitive, by a good one.
//!
//! Kernels here are closures over the same functions that real kernels call. A [`Case`] is the memory,
//! extents and launch shape that one of them is given; its parameters are the addresses of its tensors.

mod early;
mod global;
mod grid;
mod races;
mod shared;
mod warp;

use super::fault::{Fault, FaultKind, Pattern};
use super::{Extent, Launch, Memory, launch};
use crate::{Columns, Kernel};

/// The machine as kernels see it. The simulator checks what a caller of the `unsafe` originals promises.
mod gpu {
    use crate::arch::sim;

    pub(super) use sim::thread::{block_idx_x, block_idx_y, block_idx_z, grid_dim_y, thread_idx_x};

    macro_rules! safe {
        ($($module:ident::$name:ident($($arg:ident: $ty:ty),*) $(-> $result:ty)?;)*) => {$(
            pub(in crate::arch::sim) fn $name($($arg: $ty),*) $(-> $result)? {
                // SAFETY: in the simulator nothing depends on a promise.
                unsafe { sim::$module::$name($($arg),*) }
            }
        )*};
    }
    safe! {
        thread::sync_threads();
        grid::wait();
        grid::launch_dependents();
        warp::shuffle_xor(value: f32, mask: u32) -> f32;
        warp::broadcast(value: f32, lane: u32, width: u32) -> f32;
        warp::reduce_or(bits: u32) -> u32;
        warp::sync_warp();
        shared::load_f32(byte: u32) -> f32;
        shared::store_f32(byte: u32, value: f32);
        memory::load_u8_if(condition: bool, address: u64) -> u32;
        memory::load_u16_if(condition: bool, address: u64) -> u32;
        memory::load_u32_if(condition: bool, address: u64) -> u32;
        memory::load_u32_or(other: u32, condition: bool, address: u64) -> u32;
        memory::load_u32(address: u64) -> u32;
        memory::load_u32x2(address: u64) -> [u32; 2];
        memory::load_u32x4(address: u64) -> [u32; 4];
        memory::load_u32x4_streaming(address: u64) -> [u32; 4];
        memory::prefetch_if(condition: bool, address: u64);
        memory::store_u16(address: u64, value: u32);
        memory::store_u32(address: u64, value: u32);
        memory::store_u32x4_streaming(address: u64, value: [u32; 4]);
    }
}

/// A launch in the making: by default one block of one warp, without shared memory.
struct Case {
    memory: Memory,
    extents: Vec<Extent>,
    params: Vec<u8>,
    grid: [u32; 3],
    block: u32,
    shared_bytes: u32,
    early: Option<&'static [&'static str]>,
}

impl Case {
    fn new() -> Case {
        Case {
            memory: Memory::new(),
            extents: Vec::new(),
            params: Vec::new(),
            grid: [1; 3],
            block: 32,
            shared_bytes: 0,
            early: None,
        }
    }

    /// An early launch that may read these tensors before its wait.
    fn early(mut self, readable: &'static [&'static str]) -> Case {
        self.early = Some(readable);
        self
    }

    fn grid(mut self, grid: [u32; 3]) -> Case {
        self.grid = grid;
        self
    }

    fn block(mut self, block: u32) -> Case {
        self.block = block;
        self
    }

    fn shared(mut self, bytes: u32) -> Case {
        self.shared_bytes = bytes;
        self
    }

    /// An input: the next parameter, and an extent of these bytes.
    fn input(mut self, name: &'static str, bytes: &[u8]) -> Case {
        let address = self.tensor(name, bytes.len() as u64, false);
        self.memory.write(address, bytes);
        self
    }

    /// An output: the next parameter, and a writable extent.
    fn output(mut self, name: &'static str, bytes: u64) -> Case {
        self.tensor(name, bytes, true);
        self
    }

    fn tensor(&mut self, name: &'static str, bytes: u64, writable: bool) -> u64 {
        let address = self.memory.alloc(bytes);
        self.extents.push(Extent { name, address, bytes, writable });
        self.params.extend(address.to_le_bytes());
        address
    }

    fn kernel(&self, run: fn(&[u8])) -> Kernel {
        Kernel {
            name: "test_kernel",
            op: "test",
            columns: Columns::default(),
            params: "TestParams",
            params_size: self.params.len(),
            max_threads: 1024,
            shared_bytes: 0,
            run,
        }
    }

    fn launch<'a>(&'a self, kernel: &'a Kernel) -> Launch<'a> {
        Launch {
            kernel,
            grid: self.grid,
            block: self.block,
            shared_bytes: self.shared_bytes,
            params: &self.params,
            extents: &self.extents,
            early: self.early,
        }
    }

    fn run(&self, kernel: fn(&[u8])) -> Result<(), Fault> {
        launch(&self.memory, &self.launch(&self.kernel(kernel)))
    }

    /// Runs a kernel that must fail, on that thread of block 0, with that text after "test_kernel, block
    /// (0, 0, 0), thread .. (warp .., lane ..): ".
    #[track_caller]
    fn fault(&self, kernel: fn(&[u8]), thread: u32, text: &str) -> FaultKind {
        let fault = self.run(kernel).expect_err("the kernel is broken");
        let (warp, lane) = (thread / 32, thread % 32);
        let whole =
            format!("test_kernel, block (0, 0, 0), thread {thread} (warp {warp}, lane {lane}): {text}");
        assert_eq!(fault.to_string(), whole);
        assert_eq!((fault.kernel, fault.block, fault.thread), ("test_kernel", [0; 3], thread));
        fault.kind
    }

    /// Runs a kernel that must not fail, and returns the first tensor as f32.
    #[track_caller]
    fn good(&self, kernel: fn(&[u8])) -> Vec<f32> {
        self.run(kernel).unwrap_or_else(|fault| panic!("{fault}"));
        let out = self.extents[0];
        let bytes = self.memory.read(out.address, out.bytes as usize);
        bytes.as_chunks().0.iter().map(|&word| f32::from_le_bytes(word)).collect()
    }
}

/// Parameter `i`: the address of the i-th tensor.
fn param(params: &[u8], i: usize) -> u64 {
    params.as_chunks().0.iter().map(|&word| u64::from_le_bytes(word)).nth(i).expect("a tensor of the case")
}

/// Stores this thread's f32 in the first tensor, indexed by thread.
fn put(params: &[u8], value: f32) {
    gpu::store_u32(param(params, 0) + 4 * u64::from(gpu::thread_idx_x()), value.to_bits());
}
