//! The promises about bits: a row depends on its own sequence only.

use crate::device::Device;
use crate::problem::{Problem, Solution, Source, Tokens};
use crate::random::{Plain, plain};
use crate::strided::Strided;
use anyhow::{Result, ensure};
use gdn_host::{DType, Family, HeadShape, Layout, Tile};

const TYPES: [DType; 3] = [DType::F32, DType::Bf16, DType::F16];
const LAYOUTS: [Layout; 2] = [Layout::Vk, Layout::Kv];

/// Runs a problem with every tile; all must give the bits of the first.
pub(super) fn same_for_every_tile(p: &Problem, device: &mut dyn Device) -> Result<Solution> {
    let first = p.run_and_check(device, Tile::Auto)?;
    for tile in p.tiles() {
        ensure!(p.run(device, tile)? == first, "{tile:?} gives other bits; {p:?}");
    }
    Ok(first)
}

/// BV from the smallest to the largest, with low and high tiles of a warp.
pub fn same_bits_for_every_tile(device: &mut dyn Device) -> Result<()> {
    for state in TYPES {
        for (k, v) in [(128, 128), (64, 128), (128, 64), (128, 96), (64, 160)] {
            let p = plain(HeadShape { h: 1, hv: 2, k, v }, 2, state, 61);
            let first = same_for_every_tile(&p, device)?;
            // A BV of its own choice as well as rows and warps.
            for bv in [4, 8, 16, 32, 64, 128].into_iter().filter(|bv| v.is_multiple_of(*bv)) {
                ensure!(p.run(device, Tile::Rows(bv))? == first, "BV {bv} gives other bits; {p:?}");
            }
        }
    }
    Ok(())
}

/// The same of keys and values that are no power of two, or larger than 128.
pub fn same_bits_for_every_tile_of_other_dimensions(device: &mut dyn Device) -> Result<()> {
    for (layout, state) in LAYOUTS.into_iter().flat_map(|l| [(l, DType::F32), (l, DType::Bf16)]) {
        for (k, v) in [(96, 192), (96, 32), (256, 512), (256, 96)] {
            for tokens in [Tokens::One { batch: 2 }, Tokens::Each { batch: 1, tokens: 2 }] {
                let shape = HeadShape { h: 1, hv: 2, k, v };
                same_for_every_tile(
                    &Plain { layout, ..Plain::new(shape, tokens, state, 66) }.problem(),
                    device,
                )?;
            }
        }
    }
    Ok(())
}

/// The same of several tokens.
pub fn same_bits_for_every_tile_of_several_tokens(device: &mut dyn Device) -> Result<()> {
    for (family, state) in [Family::Gdn, Family::Kda].into_iter().flat_map(|f| TYPES.map(|t| (f, t))) {
        for (k, v) in [(128, 128), (64, 64)] {
            let tokens = Tokens::Each { batch: 1, tokens: 3 };
            let shape = HeadShape { h: 1, hv: 1, k, v };
            let mut p = Plain { family, ..Plain::new(shape, tokens, state, 64) }.problem();
            p.make_tree(3, &[0, 0, 0]);
            same_for_every_tile(&p, device)?;
        }
    }
    Ok(())
}

/// The sequence of row `n` alone, in a batch of one.
fn alone(p: &Problem, n: usize) -> Problem {
    let Source::Slots(slots) = &p.source else { panic!("the problem starts from slots") };
    let rows = p.tokens.range(n);
    let cut = |x: &Strided| {
        let data = x.data[rows.start * x.width..rows.end * x.width].to_vec();
        Strided { data, ..x.clone() }
    };
    let tokens = match &p.tokens {
        Tokens::One { .. } => Tokens::One { batch: 1 },
        _ => Tokens::Each { batch: 1, tokens: rows.len() },
    };
    let (q, k, v, a, b) = (cut(&p.q), cut(&p.k), cut(&p.v), cut(&p.a), cut(&p.b));
    Problem { tokens, q, k, v, a, b, source: Source::Slots(vec![slots[n]]), ..p.clone() }
}

/// Each sequence of a problem first, last, alone, and in another slot of its pool of five.
fn check_places(p: &Problem, slots: [i32; 5], device: &mut dyn Device) -> Result<()> {
    let p = Problem { source: Source::Slots(slots.to_vec()), ..p.clone() };
    let whole = p.run_and_check(device, Tile::Auto)?;
    let elements = p.elements();
    let state = |s: &Solution, i: usize| s.state[i * elements..(i + 1) * elements].to_vec();
    for (n, home) in slots.into_iter().map(|slot| slot as usize).enumerate() {
        let rows = p.tokens.range(n);
        let out = &whole.out[rows.start * p.width()..rows.end * p.width()];
        let mut one = alone(&p, n);
        let single = one.run(device, Tile::Auto)?;
        ensure!(&*single.out == out, "sequence {n} alone has another output");
        ensure!(state(&single, home) == state(&whole, home), "sequence {n} alone has another state");
        // The same state in another slot.
        let other = (home + 2) % 5;
        one.pool.data.copy_within(home * elements..(home + 1) * elements, other * elements);
        one.source = Source::Slots(vec![other as i32]);
        let moved = one.run(device, Tile::Auto)?;
        ensure!(state(&moved, other) == state(&whole, home), "sequence {n} has another state elsewhere");
        ensure!(&*moved.out == out, "sequence {n} has another output elsewhere");
    }
    Ok(())
}

/// The same sequence first, last, alone, and in another slot.
pub fn same_bits_at_every_place_of_a_batch(device: &mut dyn Device) -> Result<()> {
    for state in [DType::F32, DType::Bf16] {
        let p = plain(HeadShape { h: 1, hv: 2, k: 128, v: 128 }, 5, state, 62);
        check_places(&p, [3, 0, 4, 2, 1], device)?;
    }
    Ok(())
}

/// The same of sequences of different lengths.
pub fn same_bits_at_every_place_of_a_packed_batch(device: &mut dyn Device) -> Result<()> {
    for family in [Family::Gdn, Family::Kda] {
        let tokens = Tokens::packed(&[2, 1, 3, 1, 2], false);
        let shape = HeadShape { h: 1, hv: 2, k: 64, v: 64 };
        let p = Plain { family, ..Plain::new(shape, tokens, DType::F32, 65) }.problem();
        check_places(&p, [3, 0, 4, 2, 1], device)?;
    }
    let tokens = Tokens::packed(&[2, 1, 3, 1, 2], false);
    let p = Plain::new(HeadShape { h: 2, hv: 2, k: 96, v: 192 }, tokens, DType::F32, 67).problem();
    check_places(&p, [3, 0, 4, 2, 1], device)?;
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
