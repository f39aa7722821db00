//! The promises about bits: a row depends on its own sequence only.

use crate::device::Device;
use crate::problem::{Problem, Solution};
use crate::random::plain;
use crate::strided::Strided;
use anyhow::{Result, ensure};
use gdn_host::{DType, HeadShape, Tile, plan};

/// BV from the smallest to the largest, with few and many rows a lane group.
pub fn same_bits_for_every_tile(device: &mut dyn Device) -> Result<()> {
    for state in [DType::F32, DType::Bf16, DType::F16] {
        for (k, v) in [(128, 128), (64, 128), (128, 64)] {
            let p = plain(HeadShape { h: 1, hv: 2, k, v }, 2, state, 61);
            let first = p.run_and_check(device, Tile::Auto)?;
            let named = [4, 8, 16, 32, 64, 128].into_iter().filter(|bv| *bv <= v).map(Tile::Rows);
            for tile in plan::tiles(&p.shape).chain(named) {
                let same = p.run(device, tile)? == first;
                ensure!(same, "{tile:?} gives other bits for state {}, {k}x{v}", state.name());
            }
        }
    }
    Ok(())
}

/// The sequence of row `n` alone, in a batch of one.
fn alone(p: &Problem, n: usize) -> Problem {
    let row = |x: &Strided| {
        let data = x.data[n * x.width..(n + 1) * x.width].to_vec();
        Strided { data, ..x.clone() }
    };
    let (q, k, v, a, b) = (row(&p.q), row(&p.k), row(&p.v), row(&p.a), row(&p.b));
    Problem { batch: 1, q, k, v, a, b, slot: vec![p.slot[n]], ..p.clone() }
}

/// The same sequence first, last, alone, and in another slot.
pub fn same_bits_at_every_place_of_a_batch(device: &mut dyn Device) -> Result<()> {
    for state in [DType::F32, DType::Bf16] {
        let shape = HeadShape { h: 1, hv: 2, k: 128, v: 128 };
        let mut p = plain(shape, 5, state, 62);
        p.slot = vec![3, 0, 4, 2, 1];
        let whole = p.run_and_check(device, Tile::Auto)?;
        let (width, elements) = (shape.value_elements() as usize, shape.state_elements() as usize);
        let out = |s: &Solution, n: usize| s.out[n * width..(n + 1) * width].to_vec();
        let slot = |s: &Solution, i: usize| s.state[i * elements..(i + 1) * elements].to_vec();
        for n in 0..5 {
            let mut one = alone(&p, n);
            let single = one.run(device, Tile::Auto)?;
            ensure!(out(&single, 0) == out(&whole, n), "row {n} alone has another output");
            let home = p.slot[n] as usize;
            ensure!(slot(&single, home) == slot(&whole, home), "row {n} alone has another state");
            // The same state in another slot.
            let other = (home + 2) % 5;
            let state = p.state[home * elements..(home + 1) * elements].to_vec();
            one.state[other * elements..(other + 1) * elements].copy_from_slice(&state);
            one.slot = vec![other as i32];
            let moved = one.run(device, Tile::Auto)?;
            ensure!(slot(&moved, other) == slot(&whole, home), "row {n} has another state elsewhere");
            ensure!(out(&moved, 0) == out(&whole, n), "row {n} has another output elsewhere");
        }
    }
    Ok(())
}

/// Repeating a call repeats its bits.
pub fn same_bits_when_repeated(device: &mut dyn Device) -> Result<()> {
    let p = plain(HeadShape { h: 2, hv: 4, k: 128, v: 128 }, 2, DType::F32, 63);
    let first = p.run_and_check(device, Tile::Auto)?;
    for _ in 0..10 {
        ensure!(p.run(device, Tile::Auto)? == first, "a repetition gives other bits");
    }
    Ok(())
}
