//! Gated RMSNorm: rows, types, gates, and what rounds where.

use crate::device::Device;
use crate::neighbours::norm::NormProblem;
use crate::neighbours::random::plain_norm;
use crate::random::Noise;
use crate::strided::{Strided, round};
use anyhow::{Context as _, Result, ensure};
use gdn_host::{Activation, DType, Tile};

const TYPES: [DType; 3] = [DType::F32, DType::Bf16, DType::F16];
const GATES: [Activation; 2] = [Activation::Silu, Activation::Sigmoid];

/// Every type of x with the types of z that go with it, both dimensions, both gates.
pub fn norm_every_pair_of_types(device: &mut dyn Device) -> Result<()> {
    for io in TYPES {
        for x in [DType::F32, io] {
            for (v, activation) in [64, 128].into_iter().flat_map(|v| GATES.map(|gate| (v, gate))) {
                let mut p = plain_norm(3, v, 2, x, io, 201);
                p.activation = activation;
                let what = || format!("x {}, z {}, V {v}, {activation:?}", x.name(), io.name());
                p.run_and_check(device).with_context(what)?;
            }
        }
    }
    Ok(())
}

/// Weights of every type.
pub fn norm_every_type_of_weights(device: &mut dyn Device) -> Result<()> {
    for io in TYPES {
        for weight in TYPES {
            let mut p = plain_norm(2, 128, 2, io, io, 202);
            p.weight = Strided::dense(weight, 128, p.weight.data);
            p.run_and_check(device).with_context(|| format!("{} weights", weight.name()))?;
        }
    }
    Ok(())
}

/// Head counts that do not fill a warp, or need several blocks.
pub fn norm_of_any_number_of_heads(device: &mut dyn Device) -> Result<()> {
    for v in [64, 128] {
        for hv in [1, 2, 3, 5, 17, 48] {
            let p = plain_norm(hv, v, 2, DType::Bf16, DType::Bf16, 203);
            let whole = p.run_and_check(device).with_context(|| format!("{hv} heads of {v}"))?;
            for warps in [1, 2, 4, 8] {
                let same = p.run(device, Tile::Exact { rows: 0, warps })? == whole;
                ensure!(same, "blocks of {warps} warps give other bits for {hv} heads");
            }
        }
    }
    Ok(())
}

/// A padded row's output of the recurrence: zeros stay zeros, not 0/0.
pub fn norm_of_zero_rows_is_zero(device: &mut dyn Device) -> Result<()> {
    for (io, activation) in TYPES.into_iter().flat_map(|io| GATES.map(|gate| (io, gate))) {
        let mut p = plain_norm(2, 128, 3, io, io, 204);
        p.activation = activation;
        p.x.data[256..512].fill(0.0);
        let out = p.run_and_check(device)?.out;
        ensure!(out[256..512].iter().all(|x| *x == 0.0), "a row of zeros is not zero");
        ensure!(out[..256].iter().any(|x| *x != 0.0), "the other rows are");
    }
    Ok(())
}

/// eps counts beside the mean, not the sum, of squares, and inside the root.
pub fn norm_eps_of_the_size_of_the_mean(device: &mut dyn Device) -> Result<()> {
    for eps in [1e-6, 1e-5, 1.0, 1e4] {
        for size in [1e-3, 1.0] {
            let mut p = plain_norm(2, 64, 2, DType::F32, DType::F32, 205);
            p.eps = eps;
            p.x.data.iter_mut().for_each(|x| *x *= size);
            p.run_and_check(device).with_context(|| format!("eps {eps}, size {size}"))?;
        }
    }
    Ok(())
}

/// Gate inputs of any size and either sign: no infinity, no NaN.
pub fn norm_large_gate_inputs(device: &mut dyn Device) -> Result<()> {
    for (io, size) in [(DType::F32, 1e30), (DType::Bf16, 1e4), (DType::F16, 6e4)] {
        for activation in GATES {
            let mut p = plain_norm(2, 128, 2, io, io, 206);
            p.activation = activation;
            // Of size 1 and small weights, so that an f16 holds the products.
            p.weight.data.iter_mut().for_each(|w| *w = round(0.125 * w.signum(), io));
            p.z.data = p.z.data.iter().map(|z| round(z.signum() * size, io)).collect();
            let out = p.run_and_check(device)?.out;
            ensure!(out.iter().all(|x| x.is_finite()), "a result is not finite");
        }
    }
    Ok(())
}

/// Rows with gaps, and z a view into a wider row of projections.
pub fn norm_strided_rows(device: &mut dyn Device) -> Result<()> {
    for io in TYPES {
        let mut p = plain_norm(3, 128, 3, io, io, 207);
        (p.x.stride, p.x.offset) = (p.x.width + 8, 16);
        (p.z.stride, p.z.offset) = (4 * p.z.width, 3 * p.z.width);
        p.out_stride += 24;
        p.weight.offset = 8;
        p.run_and_check(device)?;
    }
    Ok(())
}

/// An f32 x is used as it is, not rounded to the type of z first; the result is rounded once.
pub fn norm_rounds_once(device: &mut dyn Device) -> Result<()> {
    for io in [DType::Bf16, DType::F16] {
        let run =
            |p: &NormProblem, device: &mut dyn Device| Ok::<_, anyhow::Error>(p.run_and_check(device)?.out);
        let mut p = plain_norm(2, 128, 2, DType::F32, io, 208);
        let narrow = run(&p, device)?;
        let mut rounded = p.clone();
        rounded.x = Strided::dense(io, p.x.width, p.x.data.clone());
        ensure!(run(&rounded, device)? != narrow, "x was rounded first");
        // The same in f32, rounded at the end.
        p.z.dtype = DType::F32;
        let wide = run(&p, device)?;
        let once = wide.iter().map(|&x| round(x, io));
        ensure!(once.eq(narrow.iter().copied()), "rounding differs from that of the f32 output");
    }
    Ok(())
}

/// Tokens past a grid's blocks along y, and none at all.
pub fn norm_grid_past_65535(device: &mut dyn Device) -> Result<()> {
    let mut p = plain_norm(1, 64, 1, DType::Bf16, DType::Bf16, 209);
    p.tokens = 65_535 + 3;
    p.x.data =
        Noise::new(210).normals(p.tokens, 1.0).iter().flat_map(|x| [round(*x, DType::Bf16); 64]).collect();
    p.z.data = p.z.data.repeat(p.tokens);
    p.run_and_check(device)?;
    let none = plain_norm(2, 64, 0, DType::F32, DType::F16, 211).run_and_check(device)?;
    ensure!(none.out.is_empty(), "an output without a token");
    Ok(())
}

/// A token's bits do not depend on the tokens beside it, nor do repetitions change them.
pub fn norm_same_bits_at_every_place_of_a_batch(device: &mut dyn Device) -> Result<()> {
    let p = plain_norm(3, 128, 4, DType::F32, DType::Bf16, 212);
    let whole = p.run_and_check(device)?;
    ensure!(p.run(device, Tile::Auto)? == whole, "a repetition gives other bits");
    let width = p.x.width;
    for token in 0..4 {
        let mut one = p.clone();
        one.tokens = 1;
        one.x.data = p.x.data[token * width..(token + 1) * width].to_vec();
        one.z.data = p.z.data[token * width..(token + 1) * width].to_vec();
        let out = one.run(device, Tile::Auto)?.out;
        ensure!(out == whole.out[token * width..(token + 1) * width], "token {token} alone has other bits");
    }
    Ok(())
}

/// Rows of every length there is, of every pair of types.
pub fn norm_rows_of_every_length(device: &mut dyn Device) -> Result<()> {
    for io in TYPES {
        for x in [DType::F32, io] {
            for v in (32..=512).step_by(32) {
                let mut p = plain_norm(3, v, 2, x, io, 211);
                p.activation = GATES[v / 32 % 2];
                let what = || format!("x {}, z {}, V {v}", x.name(), io.name());
                p.run_and_check(device).with_context(what)?;
            }
        }
    }
    Ok(())
}

/// Outputs that take the place of x give the bits of outputs elsewhere.
pub fn norm_in_place(device: &mut dyn Device) -> Result<()> {
    for io in TYPES {
        for (hv, v, gap) in [(3, 128, 0), (5, 64, 8), (2, 192, 8), (9, 128, 0), (1, 512, 0)] {
            let mut p = plain_norm(hv, v, 3, io, io, 212);
            p.head_gaps[0] = gap;
            let apart = p.run_and_check(device)?;
            p.in_place = true;
            ensure!(p.run_and_check(device)? == apart, "in place gives other bits: {}, V {v}", io.name());
        }
    }
    Ok(())
}

/// A gate input that lies anywhere gives the bits of one that is 16-byte aligned.
pub fn norm_gate_aligned_to_an_element(device: &mut dyn Device) -> Result<()> {
    for io in TYPES {
        for v in [64, 128, 192, 384] {
            let mut p = plain_norm(3, v, 2, io, io, 213);
            let aligned = p.run_and_check(device)?;
            for (offset, gap, head_gap) in [(1, 0, 0), (0, 3, 0), (8, 8, 1), (3, 1, 5)] {
                (p.z.offset, p.z.stride, p.head_gaps[1]) = (offset, p.z.width + gap, head_gap);
                let what = || format!("{}, V {v}, offset {offset}, gaps {gap} and {head_gap}", io.name());
                let solution = p.run_and_check(device).with_context(what)?;
                ensure!(solution == aligned, "other bits: {}", what());
            }
        }
    }
    Ok(())
}

/// Heads that are further apart than V, each tensor's by its own stride; what lies between them belongs to others.
pub fn norm_heads_with_gaps(device: &mut dyn Device) -> Result<()> {
    for (x, io) in [(DType::F32, DType::Bf16), (DType::F16, DType::F16), (DType::F32, DType::F32)] {
        for v in [64, 128, 96] {
            let mut p = plain_norm(4, v, 3, x, io, 214);
            let packed = p.run_and_check(device)?;
            p.head_gaps = [8, 16, 24];
            ensure!(p.run_and_check(device)? == packed, "V {v}: other bits with gaps");
        }
    }
    Ok(())
}
