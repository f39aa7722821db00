//! The table of kernels, as the build sees it.

use gdn_host::ModuleKey;
use gdn_kernels::Columns;

/// A line of the table in `gdn-kernels/src/lib.rs`.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// Entry name.
    pub(crate) name: String,
    /// The module that holds it.
    pub(crate) module: ModuleKey,
    /// Height of a warp's tile; 0 without tiles.
    pub(crate) rows: u32,
    /// Name of the parameter struct.
    pub(crate) params: &'static str,
    pub(crate) params_size: usize,
    pub(crate) max_threads: u32,
}

/// The kernels of a PTX file.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) name: String,
    /// In the order of the table; never empty.
    pub(crate) kernels: Vec<Kernel>,
}

/// The whole table, by module, in the order of the table.
///
/// # Panics
/// At a section whose name is no operation of gdn-host's, with its gate and layout: nothing could launch it.
pub(crate) fn groups() -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for kernel in gdn_kernels::KERNELS {
        let Columns { state, io, k, rows } = kernel.columns;
        let module = ModuleKey::of_section(kernel.op, state, io, k);
        let module =
            module.unwrap_or_else(|| panic!("{}: gdn-host's OpKind has no {}", kernel.name, kernel.op));
        let kernel = Kernel {
            name: kernel.name.to_owned(),
            module,
            rows,
            params: kernel.params,
            params_size: kernel.params_size,
            max_threads: kernel.max_threads,
        };
        let name = kernel.module.to_string();
        match groups.iter_mut().find(|group| group.name == name) {
            Some(group) => group.kernels.push(kernel),
            None => groups.push(Group { name, kernels: vec![kernel] }),
        }
    }
    groups
}
