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
    /// Operation: `decode`, `kda_recurrent`. Entries of one operation that agree in all columns but the
    /// rows are one module.
    pub op: &'static str,
    /// What the line's columns say.
    pub columns: Columns,
    /// Name of the parameter struct in [`crate::abi`].
    pub params: &'static str,
    /// Bytes of the parameter struct.
    pub params_size: usize,
    /// Largest number of threads of a block.
    pub max_threads: u32,
    /// Bytes of shared memory that a block has; part of the kernel, not of its launch.
    pub shared_bytes: u32,
    /// Runs one thread of the kernel on the bytes of its parameter struct; [`crate::arch::sim`] calls it.
    pub(crate) run: unsafe fn(&[u8]),
}

/// The columns of a line; an operation has those that it needs.
#[cfg(not(target_arch = "nvptx64"))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// Type of the state, or of an input that has a type of its own.
    pub state: Option<crate::abi::DType>,
    /// Type of the inputs.
    pub io: Option<crate::abi::DType>,
    /// Key dimension K, or the length of a row; 0 if the operation takes any.
    pub k: u32,
    /// Rows a lane group works on; 0 if the operation has no tiles.
    pub rows: u32,
}

/// A function of a kernel's module with the arguments that the section gives, then those of the line. A kernel of tiles is told
/// as well how many threads its blocks have at most.
macro_rules! call {
    ($module:ident $function:ident ($($fixed:ty),*) ($state:tt, $io:tt, $k:tt, $rows:tt) $threads:literal ($($p:expr)?)) => {
        $crate::$module::$function::<$($fixed,)* $state, $io, $k, $rows, $threads>($($p)?)
    };
    ($module:ident $function:ident ($($fixed:ty),*) ($($column:tt),*) $threads:literal ($($p:expr)?)) => {
        $crate::$module::$function::<$($fixed,)* $($column),*>($($p)?)
    };
}

/// Bytes of shared memory of a kernel: none, those of a block of tiles, or those of one with a ring of records.
#[cfg(not(target_arch = "nvptx64"))]
macro_rules! shared {
    (none $($of_kernel:tt)*) => { 0 };
    (token $module:ident ($layout:ty, $gate:ty) ($state:ty, $io:ty, $k:literal, $rows:literal) $threads:literal) => {{
        <$crate::$module::Room<$gate, $io, $k, $rows, $threads, 1> as $crate::arch::Piece>::BYTES
    }};
    (drafts $module:ident ($layout:ty, $gate:ty) ($state:ty, $io:ty, $k:literal, $rows:literal) $threads:literal) => {{
        <$crate::$module::Room<$gate, $io, $k, $rows, $threads, { $crate::abi::MOST_DRAFTS as usize }> as $crate::arch::Piece>::BYTES
    }};
    (products $module:ident ($layout:ty, $gate:ty) ($state:ty, $io:ty, $k:literal, $rows:literal) $threads:literal) => {{
        <$crate::$module::RoomOfProducts<$gate, $k, $rows, $threads> as $crate::arch::Piece>::BYTES
    }};
    (records $module:ident ($layout:ty, $gate:ty) ($state:ty, $io:ty, $k:literal, $rows:literal) $threads:literal) => {{
        <$crate::$module::Room<$gate, $io, $k, $rows, $threads, 0> as $crate::arch::Piece>::BYTES
    }};
    (tiles $module:ident ($layout:ty, $gate:ty) ($state:ty, $io:ty, $k:literal, $rows:literal) $threads:literal) => {{
        <$crate::tile::Shared<$layout, $state, $crate::$module::Front, $k, $rows, $threads> as $crate::arch::Piece>::BYTES
    }};
}

/// The columns of a line as a record.
#[cfg(not(target_arch = "nvptx64"))]
macro_rules! columns {
    () => { $crate::table::Columns { state: None, io: None, k: 0, rows: 0 } };
    ($io:ty) => { $crate::table::Columns { io: $crate::table::dtype!($io), ..$crate::table::columns!() } };
    ($state:ty, $io:ty) => {
        $crate::table::Columns { state: $crate::table::dtype!($state), ..$crate::table::columns!($io) }
    };
    ($state:ty, $io:ty, $k:literal) => {
        $crate::table::Columns { k: $k, ..$crate::table::columns!($state, $io) }
    };
    ($state:ty, $io:ty, $k:literal, $rows:literal) => {
        $crate::table::Columns { rows: $rows, ..$crate::table::columns!($state, $io, $k) }
    };
}

#[cfg(not(target_arch = "nvptx64"))]
macro_rules! dtype {
    ($ty:ty) => {
        Some(<$ty as $crate::element::Element>::DTYPE)
    };
}

#[cfg(target_arch = "nvptx64")]
macro_rules! kernels {
    ($($op:ident = $module:ident::$function:ident $fixed:tt ($params:ident, $shared:ident) {
        $($name:ident: ($($column:tt),*) $threads:literal;)*
    })*) => {$($(
        /// # Safety
        /// See the documentation of the parameter struct.
        #[unsafe(no_mangle)]
        pub unsafe extern "ptx-kernel" fn $name(p: $crate::abi::$params) {
            // SAFETY: the host's promise.
            unsafe { $crate::table::call!($module $function $fixed ($($column),*) $threads (&p)) }
        }
    )*)*};
}

#[cfg(not(target_arch = "nvptx64"))]
macro_rules! kernels {
    ($($op:ident = $module:ident::$function:ident $fixed:tt ($params:ident, $shared:ident) {
        $($name:ident: ($($column:tt),*) $threads:literal;)*
    })*) => {
        /// Every kernel, in the order of the table. Unit tests, which are of the simulator, would compile them all once more.
        #[cfg(not(test))]
        pub static KERNELS: &[$crate::Kernel] = &[$($(
            $crate::Kernel {
                name: stringify!($name),
                op: stringify!($op),
                columns: $crate::table::columns!($($column),*),
                params: stringify!($params),
                params_size: size_of::<$crate::abi::$params>(),
                max_threads: $threads,
                shared_bytes: $crate::table::shared!($shared $module $fixed ($($column),*) $threads) as u32,
                run: {
                    unsafe fn run(bytes: &[u8]) {
                        let p: $crate::abi::$params = bytemuck::pod_read_unaligned(bytes);
                        // SAFETY: the host's promise.
                        unsafe { $crate::table::call!($module $function $fixed ($($column),*) $threads (&p)) }
                    }
                    run
                },
            },
        )*)*];
    };
}
pub(crate) use {call, kernels};
#[cfg(not(target_arch = "nvptx64"))]
pub(crate) use {columns, dtype, shared};
