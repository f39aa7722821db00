//! What can go wrong between this crate and the driver.

/// An error of the CUDA driver, or on the way to it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DriverError {
    /// The driver's library could not be loaded; most often there is no NVIDIA driver on the
    /// machine.
    #[error("no CUDA driver: cannot load {}; if it is elsewhere, set GDN_LIBCUDA to its path", listed(.tried))]
    Missing {
        /// All that was tried: a library's name as given to the system's loader, and what is wrong
        /// with it.
        tried: Vec<(String, String)>,
    },
    /// The driver's library lacks a function that this crate needs.
    #[error("the CUDA driver has no function {name}; a driver for CUDA {since} or later is needed")]
    MissingSymbol {
        /// The missing function.
        name: &'static str,
        /// The oldest CUDA version whose driver has it and all else that the same use needs.
        since: &'static str,
    },
    /// `cuInit` failed; a machine with the driver but without a GPU gives `CUDA_ERROR_NO_DEVICE`
    /// here.
    #[error("the CUDA driver does not start: {name} ({code}): {description}")]
    Init {
        /// The driver's `CUresult`.
        code: u32,
        /// Its name, like `CUDA_ERROR_NO_DEVICE`.
        name: String,
        /// The driver's sentence about it.
        description: String,
    },
    /// A driver function failed. The cause may be an earlier kernel: what runs asynchronously fails
    /// in a later call.
    #[error("{function} failed: {name} ({code}): {description}")]
    Call {
        /// The driver function.
        function: &'static str,
        /// The driver's `CUresult`.
        code: u32,
        /// Its name, like `CUDA_ERROR_ILLEGAL_ADDRESS`.
        name: String,
        /// The driver's sentence about it.
        description: String,
    },
    /// The driver could not load a PTX module: its compiler refused it, or the device lacks what it
    /// asks for.
    #[error("the driver cannot load the PTX: {name} ({code}): {description}{}", labelled(.log))]
    Jit {
        /// The driver's `CUresult`.
        code: u32,
        /// Its name, like `CUDA_ERROR_INVALID_PTX`.
        name: String,
        /// The driver's sentence about it.
        description: String,
        /// What the compiler printed; empty if nothing.
        log: String,
    },
    /// The driver could not load a binary (cubin).
    #[error("the driver cannot load the binary: {name} ({code}): {description}{}", labelled(.log))]
    Binary {
        /// The driver's `CUresult`.
        code: u32,
        /// Its name, like `CUDA_ERROR_NO_BINARY_FOR_GPU`.
        name: String,
        /// The driver's sentence about it.
        description: String,
        /// What the driver printed; empty if nothing.
        log: String,
    },
    /// The calling thread has no current CUDA context.
    #[error("the calling thread has no current CUDA context; create one, or make one current on this thread")]
    NoContext,
    /// The calling thread has another current CUDA context than the kernels were loaded in.
    #[error(
        "the current CUDA context {current:#x} is not {loaded:#x}, which the kernels were loaded in; \
         make that one current on this thread"
    )]
    OtherContext {
        /// The thread's `CUcontext`.
        current: usize,
        /// The kernels' one.
        loaded: usize,
    },
    /// A range of bytes does not lie within a buffer.
    #[error("bytes {offset}..{offset}+{len} are outside a device buffer of {size} bytes")]
    OutOfRange {
        /// First byte of the range.
        offset: usize,
        /// Length of the range in bytes.
        len: usize,
        /// Size of the buffer in bytes.
        size: usize,
    },
}

impl DriverError {
    /// Whether the driver does not take an image for what it is, not for want of something else such as memory: the
    /// image is for other devices, or newer than the driver.
    ///
    /// These are the answers `CUDA_ERROR_INVALID_IMAGE` (200), `CUDA_ERROR_NO_BINARY_FOR_GPU` (209),
    /// `CUDA_ERROR_INVALID_PTX` (218) and `CUDA_ERROR_UNSUPPORTED_PTX_VERSION` (222). A driver that loads lazily may
    /// give them only when an entry is looked up.
    pub fn refuses_image(&self) -> bool {
        match self {
            DriverError::Jit { code, .. }
            | DriverError::Binary { code, .. }
            | DriverError::Call { code, .. } => {
                matches!(code, 200 | 209 | 218 | 222)
            }
            _ => false,
        }
    }
}

fn listed(tried: &[(String, String)]) -> String {
    let each = tried.iter().map(|(name, reason)| format!("{name} ({reason})"));
    each.collect::<Vec<_>>().join(", ")
}

fn labelled(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!("\n{log}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_driver_names_libraries_and_reasons() {
        let tried = ["a.so", "b.so"].map(|name| (name.into(), "no such file".into()));
        let error = DriverError::Missing { tried: tried.into() }.to_string();
        let text = "no CUDA driver: cannot load a.so (no such file), b.so (no such file); if it is elsewhere, set GDN_LIBCUDA";
        assert!(error.starts_with(text), "{error}");
    }

    #[test]
    fn failed_call_shows_function_code_and_name() {
        let error = DriverError::Call {
            function: "cuMemAlloc_v2",
            code: 2,
            name: "CUDA_ERROR_OUT_OF_MEMORY".into(),
            description: "out of memory".into(),
        };
        assert_eq!(error.to_string(), "cuMemAlloc_v2 failed: CUDA_ERROR_OUT_OF_MEMORY (2): out of memory");
    }

    #[test]
    fn jit_error_ends_with_the_compilers_log() {
        let error = |log: &str| DriverError::Jit {
            code: 218,
            name: "CUDA_ERROR_INVALID_PTX".into(),
            description: "a PTX JIT compilation failed".into(),
            log: log.into(),
        };
        let head =
            "the driver cannot load the PTX: CUDA_ERROR_INVALID_PTX (218): a PTX JIT compilation failed";
        assert_eq!(error("").to_string(), head);
        assert_eq!(error("ptxas fatal : x").to_string(), format!("{head}\nptxas fatal : x"));
    }

    #[test]
    fn refusal_of_an_image_is_told_from_other_failures() {
        let (name, description) = (String::new, String::new);
        let binary =
            |code| DriverError::Binary { code, name: name(), description: description(), log: name() };
        for code in [200, 209, 218, 222] {
            assert!(binary(code).refuses_image(), "{code}");
        }
        for code in [1, 2, 100, 201, 221, 500, 700, 801, 999] {
            assert!(!binary(code).refuses_image(), "{code}");
        }
        let function = "cuModuleGetFunction";
        let call = |code| DriverError::Call { function, code, name: name(), description: description() };
        assert!(call(209).refuses_image() && !call(500).refuses_image());
        assert!(!DriverError::NoContext.refuses_image());
    }

    #[test]
    fn errors_cross_threads() {
        fn holds<T: Send + Sync + 'static>() {}
        holds::<DriverError>();
    }
}
