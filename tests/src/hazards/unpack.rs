//! Projections that are interleaved by key head, taken apart.

use crate::device::Device;
use crate::movement::unpack::UnpackProblem;
use crate::movement::{Bytes, TILES, TYPES};
use anyhow::{Context as _, Result};
use gdn_host::call::split_ba;
use gdn_host::{DType, HeadShape, Tile};

const SHAPE: HeadShape = HeadShape { h: 2, hv: 6, k: 64, v: 64 };

/// HV / H of 1, 2, 3, 4 and 8, and every type.
pub fn projections_of_one_to_eight_value_heads_a_key_head(device: &mut dyn Device) -> Result<()> {
    for (ratio, dtype) in [1, 2, 3, 4, 8].into_iter().flat_map(|ratio| TYPES.map(|dtype| (ratio, dtype))) {
        for tile in TILES {
            let shape = HeadShape { h: 3, hv: 3 * ratio, k: 64, v: 64 };
            let p = UnpackProblem::plain(shape, dtype, dtype, 2, 351);
            let text = || format!("ratio {ratio}, {}, {tile:?}", dtype.name());
            p.run_and_check(device, tile).with_context(text)?;
        }
    }
    Ok(())
}

/// qkvz and ba each of every type.
pub fn projections_of_every_type(device: &mut dyn Device) -> Result<()> {
    for (io, ba) in TYPES.into_iter().flat_map(|io| TYPES.map(|ba| (io, ba))) {
        let p = UnpackProblem::plain(SHAPE, io, ba, 2, 352);
        p.run_and_check(device, Tile::Auto).with_context(|| format!("{} {}", io.name(), ba.name()))?;
    }
    Ok(())
}

/// K and V of published models and between them, and the heads of Qwen3-Next.
pub fn projections_with_every_head_dimension(device: &mut dyn Device) -> Result<()> {
    for (k, v) in [(64, 64), (64, 128), (128, 64), (128, 128), (64, 32), (96, 192), (96, 160), (256, 512)] {
        for (h, hv) in [(1, 1), (2, 6), (16, 32), (5, 5)] {
            let shape = HeadShape { h, hv, k, v };
            let p = UnpackProblem::plain(shape, DType::Bf16, DType::Bf16, 2, 353);
            p.run_and_check(device, Tile::Auto).with_context(|| format!("{shape:?}"))?;
        }
    }
    Ok(())
}

/// Each tensor with a gap and an offset of its own; those of b and a are odd numbers of elements.
pub fn projections_with_strides_and_offsets(device: &mut dyn Device) -> Result<()> {
    for dtype in TYPES {
        let p = UnpackProblem::plain(SHAPE, dtype, dtype, 3, 354);
        let p = UnpackProblem {
            qkvz: p.qkvz.spaced(8, 16),
            ba: p.ba.spaced(3, 1),
            mixed_qkv: p.mixed_qkv.spaced(64, 8),
            z: p.z.spaced(16, 24),
            b: p.b.spaced(5, 7),
            a: p.a.spaced(1, 3),
            ..p
        };
        p.run_and_check(device, Tile::Auto).context(dtype.name())?;
    }
    Ok(())
}

/// b and a as views of one row, as Qwen3.5 has them: rows that interleave.
pub fn projections_into_one_row_of_b_and_a(device: &mut dyn Device) -> Result<()> {
    let heads = SHAPE.hv as usize;
    for dtype in TYPES {
        let p = UnpackProblem::plain(SHAPE, dtype, dtype, 3, 355);
        device.reset();
        let mut call = p.place(device)?;
        let both = Bytes::unwritten(dtype, 3, 2 * heads);
        let rows = both.place(device)?;
        (call.b, call.a) = split_ba(&rows, &SHAPE);
        device.run(&call, Tile::Auto)?;
        let want = p.expected();
        let row = heads * dtype.size();
        let sides = want.b.data.chunks(row).zip(want.a.data.chunks(row));
        let data: Vec<u8> = sides.flat_map(|(b, a)| [b, a].concat()).collect();
        Bytes { data, ..both }.check(device, rows.tensor.address, "b and a")?;
    }
    Ok(())
}

/// Tokens past 2^31 and 2^32 elements, of one tensor at a time.
pub fn projections_offset_past_2_31_elements(device: &mut dyn Device) -> Result<()> {
    let shape = HeadShape { h: 1, hv: 2, k: 64, v: 64 };
    let tensors: [fn(&mut UnpackProblem) -> &mut Bytes; 6] =
        [|p| &mut p.qkvz, |p| &mut p.ba, |p| &mut p.mixed_qkv, |p| &mut p.z, |p| &mut p.b, |p| &mut p.a];
    for tensor in tensors {
        let mut p = UnpackProblem::plain(shape, DType::Bf16, DType::Bf16, 5, 356);
        tensor(&mut p).stride = (1 << 30) + 64;
        p.run_and_check(device, Tile::Auto)?;
    }
    Ok(())
}

/// More tokens than a grid has blocks along y.
pub fn projections_of_more_than_65535_tokens(device: &mut dyn Device) -> Result<()> {
    let shape = HeadShape { h: 1, hv: 1, k: 64, v: 64 };
    UnpackProblem::plain(shape, DType::Bf16, DType::Bf16, 65_535 + 3, 357).run_and_check(device, Tile::Auto)
}

/// No token is no error.
pub fn projections_of_no_token(device: &mut dyn Device) -> Result<()> {
    UnpackProblem::plain(SHAPE, DType::F32, DType::F32, 0, 358).run_and_check(device, Tile::Auto)
}
