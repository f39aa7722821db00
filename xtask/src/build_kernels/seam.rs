//! What the kernels reach the GPU's threads and warps through: `gdn-kernels/src/arch` has two implementations.

use clap::ValueEnum;

/// An implementation of `arch` for GPUs, and what a build over it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Seam {
    /// rustc's intrinsics and inline PTX: what is embedded
    Nvptx,
    /// Rust-CUDA's crate; docs/RUST_CUDA.md says which sources of it compile
    #[value(name = "cuda_std")]
    CudaStd,
}

impl Seam {
    /// Its name on the command line and of its folders.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Seam::Nvptx => "nvptx",
            Seam::CudaStd => "cuda_std",
        }
    }

    /// Cargo's flags of the build.
    pub(crate) fn cargo_flags(self) -> &'static [&'static str] {
        match self {
            Seam::Nvptx => &["-Zbuild-std=core"],
            Seam::CudaStd => &["-Zbuild-std=core,alloc", "--features=cuda_std"],
        }
    }

    /// The compiler's flags for every crate, besides those that all builds have.
    ///
    /// `cuda_std` is written for `cuda_builder`, which gives its crates these attributes. Many of its functions have no
    /// `#[inline]`: without the threshold they are calls in the kernels.
    pub(crate) fn rustflags(self) -> &'static [&'static str] {
        match self {
            Seam::Nvptx => &[],
            Seam::CudaStd => &[
                "-Zcrate-attr=no_std",
                "-Zcrate-attr=feature(register_tool)",
                "-Zcrate-attr=register_tool(nvvm_internal)",
                "-Zcross-crate-inline-threshold=always",
            ],
        }
    }

    /// Folder of `gdn-kernels/src/arch` that a build over it leaves out, and that its source hash does not see.
    pub(crate) fn unused_folder(self) -> Option<&'static str> {
        (self == Seam::Nvptx).then_some("cuda_std")
    }

    /// What is missing, if `log` says that cargo failed for lack of it.
    pub(crate) fn missing(self, log: &str) -> Option<String> {
        let failed = self == Seam::CudaStd && log.contains("error: could not compile `cuda_std`");
        failed.then(|| {
            "this cuda_std does not compile for the GPU: the one that crates.io has never does, and its maintained sources \
             have to be named after `--`. docs/RUST_CUDA.md says where they are and how to name them."
                .to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Seam;

    #[test]
    fn failure_of_cuda_std_says_what_is_missing_and_no_other_does() {
        let log = "error[E0658]: x\nerror: could not compile `cuda_std` (lib) due to 34 previous errors; 2 warnings emitted\n";
        let missing = Seam::CudaStd.missing(log).unwrap();
        assert!(missing.contains("maintained sources") && missing.contains("docs/RUST_CUDA.md"), "{missing}");
        assert_eq!(
            Seam::CudaStd.missing("error: could not compile `gdn-kernels` (lib) due to 1 previous error"),
            None
        );
        assert_eq!(Seam::Nvptx.missing(log), None);
    }
}
