//! Buffers of 16 bits beside pools of f32.

use crate::device::Device;
use crate::problem::{Intermediate, Problem, Target, Tokens};
use crate::random::Plain;
use crate::strided::round;
use anyhow::{Result, ensure};
use gdn_host::{DType, Family, HeadShape, Layout, Tile};

const TYPES: [DType; 2] = [DType::Bf16, DType::F16];

/// Drafts of four tokens from an f32 pool, of every layout, family and dimension.
fn drafts() -> impl Iterator<Item = Problem> {
    let shape = |k| HeadShape { h: 1, hv: 2, k, v: 64 };
    [64, 96, 128].into_iter().flat_map(move |k| {
        [
            (Family::Gdn, Layout::Vk),
            (Family::Gdn, Layout::Kv),
            (Family::Kda, Layout::Vk),
            (Family::Kda, Layout::Kv),
        ]
        .into_iter()
        .filter(move |(family, _)| k != 96 || *family == Family::Gdn)
        .map(move |(family, layout)| {
            let plain = Plain::new(shape(k), Tokens::Each { batch: 2, tokens: 4 }, DType::F32, 421);
            Plain { family, layout, ..plain }.problem()
        })
    })
}

fn with_type(p: &Problem, dtype: DType) -> Problem {
    let intermediate = p.intermediate.clone().map(|i| Intermediate { dtype: Some(dtype), ..i });
    Problem { intermediate, ..p.clone() }
}

/// The states of a chain are those of an f32 buffer, rounded once; outputs and the pool are the same.
pub fn narrow_buffer_holds_the_states_rounded(device: &mut dyn Device) -> Result<()> {
    for mut p in drafts() {
        p.keep_each_state(3);
        p.intermediate =
            p.intermediate.take().map(|i| Intermediate { pitch: i.pitch + 8, row: Some(vec![1, -1]), ..i });
        let wide = p.run_and_check(device, Tile::Auto)?;
        for dtype in TYPES {
            let narrow = with_type(&p, dtype).run_and_check(device, Tile::Auto)?;
            ensure!(
                (&narrow.out, &narrow.state) == (&wide.out, &wide.state),
                "the buffer's type changes other bits"
            );
            let (first, row) = (3 * p.elements(), 3 * p.elements());
            let kept = first..first + row;
            let rounded = wide.intermediate[kept.clone()].iter().map(|x| round(*x, dtype));
            ensure!(
                rounded.eq(narrow.intermediate[kept].iter().copied()),
                "{dtype:?} states are not those of f32, rounded"
            );
        }
    }
    Ok(())
}

/// A tree's tokens start from states as the buffer holds them: a skipped token, the one before, and the start.
pub fn tree_in_a_narrow_buffer_starts_from_rounded_states(device: &mut dyn Device) -> Result<()> {
    for mut p in drafts() {
        p.target = Target::Nowhere;
        p.make_tree(4, &[-1, 0, 0, 2, -1, -1, 1, 0]);
        let wide = p.run_and_check(device, Tile::Auto)?;
        for dtype in TYPES {
            let narrow = with_type(&p, dtype).run_and_check(device, Tile::Auto)?;
            let width = p.width();
            ensure!(narrow.out[..width] == wide.out[..width], "the first token starts from the pool");
            ensure!(narrow.intermediate[..] != wide.intermediate[..], "the edges are not rounded");
        }
    }
    Ok(())
}
