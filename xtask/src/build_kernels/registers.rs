//! How many registers a thread of a kernel gets at most, where ptxas left to itself takes too many.
//!
//! ptxas is best left to itself, but where more warps a multiprocessor are worth more than what it does with more registers. Its
//! registers come in steps of eight, but what it spills depends on the very number: those of the table are the ones near 64, 96
//! and 128 with which no entry spills on any device that is built for.

use super::kernel::Kernel;
use gdn_host::DType;

/// A row holds for a kernel if each of its cells does: `*` for any, `a|b` for either. `16bit` is f16 or bf16.
struct Row {
    /// Operation, K, layout, gate.
    module: [&'static str; 4],
    /// Types of state and inputs.
    types: [&'static str; 2],
    /// Height of the tile, and the target that the PTX is for.
    tile_and_target: [&'static str; 2],
    /// `None`: ptxas is left to itself.
    registers: Option<u32>,
}

const fn row(
    module: [&'static str; 4],
    types: [&'static str; 2],
    tile_and_target: [&'static str; 2],
    registers: u32,
) -> Row {
    Row { module, types, tile_and_target, registers: Some(registers) }
}

const fn free(
    module: [&'static str; 4],
    types: [&'static str; 2],
    tile_and_target: [&'static str; 2],
) -> Row {
    Row { module, types, tile_and_target, registers: None }
}

/// The first row that holds counts; a kernel of no row is left to ptxas.
#[rustfmt::skip]
const ROWS: &[Row] = &[
    // One token. Small tiles with a decay for each key: 32 warps a multiprocessor, 24 with an f32 state. In KV they get more than
    // ptxas would take by itself, for 2 % with one sequence.
    row(["decode", "64", "*", "kda"],  ["f32", "16bit"],   ["1", "*"], 65),
    row(["decode", "64", "*", "kda"],  ["*", "*"],         ["1", "*"], 64),
    row(["decode", "*", "*", "kda"],   ["f32", "*"],       ["2", "*"], 76),
    row(["decode", "*", "*", "kda"],   ["*", "*"],         ["2", "*"], 64),
    row(["decode", "128", "kv", "kda"], ["f32", "*"],      ["8", "*"], 104),
    // 16 warps: large tiles with a decay for each key in VK, teams that have a whole head's rows.
    row(["decode", "128", "vk", "kda"], ["*", "*"],        ["8", "*"], 128),
    row(["decode", "128|256", "*", "*"], ["*", "*"],       ["64", "*"], 128),
    // A decay a head: 16 warps with an f32 state, 20 with one of 16 bits.
    row(["decode", "96|128|256", "kv", "gdn"], ["*", "*"], ["16", "sm_80"], 113),
    row(["decode", "96|128|256", "kv", "gdn"], ["*", "*"], ["16", "*"], 97),
    row(["decode", "96|256", "kv", "*"], ["16bit", "*"],   ["*", "sm_80"], 110),
    row(["decode", "96|256", "kv", "*"], ["16bit", "*"],   ["*", "*"], 104),
    row(["decode", "128", "kv", "gdn"], ["16bit", "*"],    ["*", "sm_80"], 112),
    row(["decode", "96|128|256", "*", "gdn"], ["16bit", "*"], ["*", "*"], 96),
    row(["decode", "96|128|256", "vk", "gdn"], ["f32", "*"], ["*", "*"], 128),

    // Rings of records: three blocks of 128 threads, four for drafts of 16-bit states, for drafts by products (but for KDA's tall
    // tiles, which would spill) and for one token with decays of each key, five for one token of a 16-bit state.
    row(["replay_verify", "*", "*", "kda"], ["f32", "bf16"], ["16", "*"], 168),
    row(["replay_verify", "*", "*", "kda"], ["f32", "bf16"], ["*", "sm_80"], 132),
    row(["replay_verify", "*", "*", "*"], ["f32", "bf16"], ["*", "*"], 128),
    row(["replay_verify", "*", "*", "kda"], ["bf16", "bf16"], ["16", "sm_90"], 165),
    row(["replay_verify", "*", "*", "kda"], ["bf16", "bf16"], ["16", "*"], 168),
    row(["replay_verify", "*", "*", "kda"], ["bf16", "bf16"], ["*", "*"], 128),
    row(["replay_verify", "*", "*", "gdn"], ["f16", "f16"], ["16", "sm_90"], 132),
    row(["replay_verify", "*", "*", "kda"], ["16bit", "*"], ["*", "*"], 166),
    row(["replay_verify", "*", "*", "*"], ["f32", "*"],    ["*", "*"], 168),
    row(["replay_verify", "*", "*", "*"], ["*", "*"],      ["*", "sm_80"], 136),
    row(["replay_verify", "*", "*", "*"], ["*", "*"],      ["*", "*"], 128),
    row(["replay_decode", "*", "*", "kda"], ["*", "*"],    ["*", "sm_80"], 136),
    row(["replay_decode", "*", "*", "kda"], ["f32", "f32"], ["8", "*"], 136),
    row(["replay_decode", "*", "*", "kda"], ["*", "*"],    ["*", "*"], 128),
    row(["replay_decode", "128", "*", "gdn"], ["16bit", "*"], ["*", "*"], 96),

    // Several tokens: 16 warps where a lane holds 64 elements or a team is large, 17 to 20 where it holds 32.
    row(["recurrent", "*", "kv", "*"], ["f32", "*"],       ["32", "*"], 128),
    free(["recurrent", "*", "kv", "kda"], ["f32", "*"],    ["*", "*"]),
    free(["recurrent", "64", "kv", "*"], ["f32", "*"],     ["*", "*"]),
    free(["recurrent", "96", "kv", "*"], ["f32", "f32"],   ["*", "*"]),
    row(["recurrent", "96", "kv", "*"], ["f32", "*"],      ["*", "*"], 98),
    row(["recurrent", "96", "*", "*"], ["f32", "f32"],     ["*", "sm_80"], 103),
    row(["recurrent", "96", "*", "*"], ["f32", "f32"],     ["*", "*"], 100),
    row(["recurrent", "96", "*", "*"], ["f32", "*"],       ["*", "*"], 94),
    row(["recurrent", "128", "vk", "kda"], ["f32", "16bit"], ["*", "*"], 94),
    row(["recurrent", "128", "vk", "gdn"], ["f32", "*"],   ["*", "*"], 95),
    row(["recurrent", "256", "vk", "*"], ["f32", "16bit"], ["*", "sm_90"], 107),
    row(["recurrent", "256", "*", "*"], ["f32", "*"],      ["*", "*"], 104),
    row(["recurrent", "128", "*", "*"], ["f32", "*"],      ["*", "*"], 96),
    free(["recurrent", "256", "vk", "*"], ["16bit", "*"],  ["*", "*"]),
    row(["recurrent", "256", "kv", "*"], ["16bit", "*"],   ["*", "*"], 127),
    free(["recurrent", "64", "kv", "gdn"], ["16bit", "*"], ["8", "*"]),
    free(["recurrent", "128", "kv", "gdn"], ["f16", "*"],  ["*", "sm_80"]),
    row(["recurrent", "128", "kv", "gdn"], ["f16", "*"],   ["*", "*"], 130),
    row(["recurrent", "128", "kv", "gdn"], ["bf16", "*"],  ["*", "*"], 126),
    row(["recurrent", "96|128", "vk", "gdn"], ["16bit", "16bit"], ["8", "sm_80"], 125),
    row(["recurrent", "96", "vk", "*"], ["*", "*"],        ["*", "*"], 126),
    row(["recurrent", "*", "kv", "*"], ["*", "*"],         ["*", "*"], 128),
    row(["recurrent", "*", "vk", "*"], ["*", "*"],         ["8", "*"], 128),
    row(["recurrent", "*", "vk", "*"], ["*", "*"],         ["*", "*"], 120),

    // A convolution: 24 warps, 19 to 21 with states of f32.
    row(["conv1d_update", "*", "*", "*"], ["f32", "f16"],  ["*", "*"], 100),
    row(["conv1d_update", "*", "*", "*"], ["f32", "*"],    ["*", "*"], 96),
    row(["conv1d_update", "*", "*", "*"], ["*", "*"],      ["*", "sm_80"], 88),
    row(["conv1d_update", "*", "*", "*"], ["*", "*"],      ["*", "*"], 80),
];

impl Row {
    fn holds(&self, kernel: &Kernel, target: &str) -> bool {
        let Kernel { module, rows, .. } = kernel;
        let (k, rows) = (module.k.to_string(), rows.to_string());
        let layout = if module.is_kv() { "kv" } else { "vk" };
        let gate = if module.is_kda() { "kda" } else { "gdn" };
        let cells = self.module.iter().chain(&self.types).chain(&self.tile_and_target);
        let values = [
            [module.op.name(), &k],
            [layout, gate],
            [type_name(module.state), type_name(module.io)],
            [&rows, target],
        ];
        cells.zip(values.as_flattened()).all(|(cell, value)| {
            let is_16_bit = value.ends_with("f16");
            cell.split('|').any(|one| one == "*" || one == *value || one == "16bit" && is_16_bit)
        })
    }
}

fn type_name(dtype: Option<DType>) -> &'static str {
    dtype.map_or("-", DType::name)
}

/// Registers of a thread at most; `None` leaves ptxas to itself.
pub(crate) fn most(kernel: &Kernel, target: &str) -> Option<u32> {
    ROWS.iter().find(|row| row.holds(kernel, target)).and_then(|row| row.registers)
}

#[cfg(test)]
mod tests {
    use super::super::arch::Arch;
    use super::super::kernel::groups;
    use super::*;

    /// A row that no kernel has is a mistake in it, or left over.
    #[test]
    fn every_row_is_some_kernels() {
        let groups = groups();
        let mut used = vec![false; ROWS.len()];
        for kernel in groups.iter().flat_map(|group| &group.kernels) {
            for target in Arch::BUILT {
                if let Some(row) = ROWS.iter().position(|row| row.holds(kernel, &target.to_string())) {
                    used[row] = true;
                }
            }
        }
        for (row, used) in ROWS.iter().zip(used) {
            assert!(used, "{:?} {:?} {:?} is no kernel's", row.module, row.types, row.tile_and_target);
        }
    }
}
