//! The table of kernels, as the build sees it.

use gdn_kernels::abi::DType;

/// A line of the table in `gdn-kernels/src/lib.rs`.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// Entry name.
    pub(crate) name: String,
    pub(crate) op: &'static str,
    pub(crate) state: DType,
    pub(crate) io: DType,
    pub(crate) k: u32,
    pub(crate) rows: u32,
    /// Name of the parameter struct.
    pub(crate) params: &'static str,
    pub(crate) params_size: usize,
    pub(crate) max_threads: u32,
}

impl Kernel {
    /// The module that holds the kernel: `decode_f32_bf16_k128`.
    fn module(&self) -> String {
        format!("{}_{}_{}_k{}", self.op, self.state.name(), self.io.name(), self.k)
    }
}

/// The kernels of a PTX file.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) name: String,
    /// In the order of the table; never empty.
    pub(crate) kernels: Vec<Kernel>,
}

/// The whole table, by module, in the order of the table.
pub(crate) fn groups() -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for kernel in gdn_kernels::KERNELS {
        let kernel = Kernel {
            name: kernel.name.to_owned(),
            op: kernel.op,
            state: kernel.state,
            io: kernel.io,
            k: kernel.k,
            rows: kernel.rows,
            params: kernel.params,
            params_size: kernel.params_size,
            max_threads: kernel.max_threads,
        };
        let name = kernel.module();
        match groups.iter_mut().find(|group| group.name == name) {
            Some(group) => group.kernels.push(kernel),
            None => groups.push(Group { name, kernels: vec![kernel] }),
        }
    }
    groups
}
