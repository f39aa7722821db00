//! Early launches: a kernel that starts before its predecessor has ended gives the bits of one that does not.

use crate::device::Device;
use crate::problem::{Problem, Solution, Source, Tokens};
use crate::random::{Plain, plain};
use anyhow::{Result, ensure};
use gdn_host::{DType, Family, HeadShape, Launch, Layout, Operation, Tile};

const FAMILIES: [Family; 2] = [Family::Gdn, Family::Kda];
const LAYOUTS: [Layout; 2] = [Layout::Vk, Layout::Kv];

/// Steps in a row: each starts while the one before may still store the states that it reads.
const STEPS: usize = 12;

/// A problem's call, `STEPS` times on the same states.
fn steps(p: &Problem, device: &mut dyn Device, launch: Launch) -> Result<Solution> {
    device.reset();
    let placed = p.place(device)?;
    let calls: [&dyn Operation; STEPS] = [placed.call.operation(); STEPS];
    device.run_all(&calls, launch)?;
    p.collect(device, &placed)
}

fn same(p: &Problem, device: &mut dyn Device) -> Result<()> {
    let plain = steps(p, device, Launch::default())?;
    for tile in p.tiles() {
        let early = steps(p, device, Launch { tile, early: true })?;
        ensure!(early == plain, "{tile:?}, launched early, gives other bits; {p:?}");
    }
    Ok(())
}

/// Every type of state, both families and layouts, grids of one block to several a multiprocessor.
pub fn early_steps_in_a_row_give_the_bits_of_plain_ones(device: &mut dyn Device) -> Result<()> {
    for state in [DType::F32, DType::Bf16, DType::F16] {
        for (family, layout) in FAMILIES.into_iter().flat_map(|family| LAYOUTS.map(|layout| (family, layout)))
        {
            let shape = HeadShape { h: 1, hv: 2, k: 128, v: 128 };
            let plain = Plain::new(shape, Tokens::One { batch: 2 }, state, 71);
            let mut p = Plain { family, ..plain }.problem();
            p.pool.layout = layout;
            same(&p, device)?;
        }
    }
    Ok(())
}

/// A padded row's zeros are written, and nothing else of it.
pub fn early_padded_rows_stay_zero(device: &mut dyn Device) -> Result<()> {
    let mut p = plain(HeadShape { h: 1, hv: 1, k: 64, v: 64 }, 3, DType::F32, 72);
    p.source = Source::Slots(vec![0, -1, 2]);
    let launch = Launch { tile: Tile::Auto, early: true };
    ensure!(steps(&p, device, launch)? == steps(&p, device, Launch::default())?, "padded rows differ; {p:?}");
    Ok(())
}
