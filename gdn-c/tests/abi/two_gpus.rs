//! Two GPUs of one process, if there are two: each has a context and kernels of its own, and neither is launched for the other.

use crate::support::*;
use gdn::*;
use gdn_host::driver::{Context as Cuda, Device, DeviceBuffer, OwnedStream};
use std::ptr::{null, null_mut};
use std::sync::Barrier;

const ELEMENTS: u32 = 1 << 16;
const BYTES: usize = 4 * ELEMENTS as usize;

/// A GPU: libgdn's context, the CUDA context, and memory.
struct Gpu {
    context: Context,
    stream: OwnedStream,
    source: DeviceBuffer,
    target: DeviceBuffer,
    cuda: Cuda,
}

impl Gpu {
    /// It is current on the calling thread from here on.
    fn open(ordinal: u32) -> Gpu {
        let options = gdn_context_options {
            size: size::<gdn_context_options>(),
            flags: GDN_PRIMARY_CONTEXT,
            device: ordinal,
            ..zeroed()
        };
        let key = gdn_key { op: GDN_OP_COPY_STATE, ..zeroed() };
        let mut context = null_mut();
        // SAFETY: all pointers are to live structs.
        let status = unsafe { gdn_context_create(null(), &key, 1, &options, &mut context) };
        assert_eq!(status, GDN_OK, "{}", last_error());
        let cuda = Cuda::current().unwrap();
        let filled = |byte| {
            let buffer = DeviceBuffer::alloc(&cuda, BYTES).unwrap();
            buffer.fill(byte).unwrap();
            buffer
        };
        let (source, target) = (filled(7 + ordinal as u8), filled(0));
        cuda.synchronize().unwrap();
        Gpu { context: Context(context), stream: OwnedStream::new(&cuda).unwrap(), source, target, cuda }
    }

    /// A copy of the one slot.
    fn call(&self) -> gdn_copy_state_call {
        let pool = |buffer: &DeviceBuffer| gdn_pool {
            address: buffer.address(),
            len: ELEMENTS.into(),
            pitch: ELEMENTS.into(),
            slots: 1,
            dtype: GDN_F32,
            layout: GDN_LAYOUT_VK,
            ..zeroed()
        };
        gdn_copy_state_call {
            size: size::<gdn_copy_state_call>(),
            copies: 1,
            elements: ELEMENTS.into(),
            source: pool(&self.source),
            target: pool(&self.target),
            ..zeroed()
        }
    }

    fn launch(&self) -> gdn_status {
        // SAFETY: a handle, a live struct, a stream, and memory that outlives the launch.
        unsafe { gdn_copy_state(self.context.0, &self.call(), null(), self.stream.as_stream().as_raw()) }
    }

    /// What the target holds, if that is one byte throughout.
    fn holds(&self) -> Option<u8> {
        self.stream.synchronize().unwrap();
        let bytes = self.target.read(0, BYTES).unwrap();
        bytes.iter().all(|byte| *byte == bytes[0]).then_some(bytes[0])
    }
}

/// Whether there are two GPUs; if not, what was not tested.
fn are_two() -> bool {
    let count = Device::count();
    let are = matches!(count, Ok(2..));
    if !are {
        let found = count.map_or_else(|error| error.to_string(), |count| format!("GPUs here: {count}"));
        eprintln!("not tested: two GPUs are needed ({found})");
    }
    are
}

#[test]
fn a_context_serves_its_gpu_alone() {
    if !are_two() {
        return;
    }
    let (first, second) = (Gpu::open(0), Gpu::open(1));
    // The second is current.
    assert_eq!(first.launch(), GDN_ERROR_CUDA_CONTEXT, "{}", last_error());
    assert_eq!(second.launch(), GDN_OK, "{}", last_error());
    assert_eq!((first.holds(), second.holds()), (Some(0), Some(8)));
    first.cuda.make_current().unwrap();
    assert_eq!(first.launch(), GDN_OK, "{}", last_error());
    assert_eq!(first.holds(), Some(7));
}

#[test]
fn threads_each_have_a_gpu() {
    if !are_two() {
        return;
    }
    let barrier = Barrier::new(2);
    std::thread::scope(|scope| {
        for ordinal in 0..2 {
            let barrier = &barrier;
            scope.spawn(move || {
                let gpu = Gpu::open(ordinal);
                barrier.wait();
                for _ in 0..200 {
                    gpu.target.fill(0).unwrap();
                    gpu.cuda.synchronize().unwrap();
                    assert_eq!(gpu.launch(), GDN_OK, "{}", last_error());
                    assert_eq!(gpu.holds(), Some(7 + ordinal as u8));
                }
            });
        }
    });
}
