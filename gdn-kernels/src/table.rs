//! What a line of the table in `lib.rs` becomes.
//!
//! On `nvptx64` an `extern "ptx-kernel"` function of that name, and nothing else: the entry's launch bound
//! is written into the PTX by `xtask build-kernels`, which reads it from the host's table, since rustc has
//! no attribute for it. On the host a [`Kernel`] record.

/// A kernel as the host sees it: its name, the shape of its launch, and its body for the simulator.
#[cfg(not(target_arch = "nvptx64"))]
#[derive(Clone, Copy)]
pub struct Kernel {
    /// Entry name in the PTX.
    pub name: &'static str,
    /// Operation, the name of the source file: `decode`.
    pub op: &'static str,
    /// Type of the state.
    pub state: crate::abi::DType,
    /// Type of q, k and v.
    pub io: crate::abi::DType,
    /// Key dimension, K.
    pub k: u32,
    /// Rows a lane group works on.
    pub rows: u32,
    /// Name of the parameter struct in [`crate::abi`].
    pub params: &'static str,
    /// Bytes of the parameter struct.
    pub params_size: usize,
    /// Largest number of threads of a block.
    pub max_threads: u32,
    /// Runs one thread of the kernel on the bytes of its parameter struct; [`crate::arch::sim`] calls it.
    pub(crate) run: unsafe fn(&[u8]),
}

#[cfg(target_arch = "nvptx64")]
macro_rules! kernels {
    ($($op:ident($params:ident) {
        $($name:ident: $state:ty, $io:ty, $k:literal, $rows:literal, $threads:literal;)*
    })*) => {$($(
        /// # Safety
        /// See the documentation of the parameter struct.
        #[unsafe(no_mangle)]
        pub unsafe extern "ptx-kernel" fn $name(p: $crate::abi::$params) {
            // SAFETY: the host's promise.
            unsafe { $crate::$op::$op::<$state, $io, $k, $rows>(&p) }
        }
    )*)*};
}

#[cfg(not(target_arch = "nvptx64"))]
macro_rules! kernels {
    ($($op:ident($params:ident) {
        $($name:ident: $state:ty, $io:ty, $k:literal, $rows:literal, $threads:literal;)*
    })*) => {
        /// Every kernel, in the order of the table.
        pub static KERNELS: &[$crate::Kernel] = &[$($(
            $crate::Kernel {
                name: stringify!($name),
                op: stringify!($op),
                state: <$state as $crate::math::Element>::DTYPE,
                io: <$io as $crate::math::Element>::DTYPE,
                k: $k,
                rows: $rows,
                params: stringify!($params),
                params_size: size_of::<$crate::abi::$params>(),
                max_threads: $threads,
                run: {
                    unsafe fn run(bytes: &[u8]) {
                        let p: $crate::abi::$params = bytemuck::pod_read_unaligned(bytes);
                        // SAFETY: the host's promise.
                        unsafe { $crate::$op::$op::<$state, $io, $k, $rows>(&p) }
                    }
                    run
                },
            },
        )*)*];
    };
}
pub(crate) use kernels;

/// Kernels neither panic nor call: the build lints the PTX for it, and drops this function.
#[cfg(target_arch = "nvptx64")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
