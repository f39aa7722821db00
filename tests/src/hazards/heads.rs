//! Which key head a value head uses.

use crate::device::Device;
use crate::random::plain;
use anyhow::{Context as _, Result, ensure};
use gdn_host::{DType, HeadMap, HeadShape, Tile};

/// HV / H of 1, 2, 3, 4 and 8.
pub fn one_to_eight_value_heads_a_key_head(device: &mut dyn Device) -> Result<()> {
    for ratio in [1, 2, 3, 4, 8] {
        let shape = HeadShape { h: 2, hv: 2 * ratio, k: 64, v: 64 };
        let p = plain(shape, 2, DType::F32, 31 + u64::from(ratio));
        p.run_and_check(device, Tile::Auto).with_context(|| format!("ratio {ratio}"))?;
    }
    Ok(())
}

/// Qwen3.5-27B at tensor-parallel size 8.
pub fn two_key_heads_and_six_value_heads(device: &mut dyn Device) -> Result<()> {
    let p = plain(HeadShape { h: 2, hv: 6, k: 128, v: 128 }, 1, DType::Bf16, 41);
    p.run_and_check(device, Tile::Auto).map(drop)
}

/// `hv % H` and `hv / (HV / H)` differ, and each is the one that was asked for.
pub fn tiled_head_map(device: &mut dyn Device) -> Result<()> {
    let mut p = plain(HeadShape { h: 3, hv: 6, k: 64, v: 64 }, 2, DType::F32, 42);
    let grouped = p.run_and_check(device, Tile::Auto)?;
    p.heads = HeadMap::Tiled;
    let tiled = p.run_and_check(device, Tile::Auto)?;
    ensure!(grouped.out != tiled.out, "the head map makes no difference");
    Ok(())
}
