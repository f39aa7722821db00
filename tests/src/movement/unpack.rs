//! Unpacking of the projections that are interleaved by key head.

use super::{Bytes, dtype};
use crate::device::Device;
use anyhow::Result;
use gdn_host::{DType, HeadShape, Tile, UnpackQkvz};
use proptest::prelude::*;

/// Projections to be taken apart.
#[derive(Clone, Debug)]
pub struct UnpackProblem {
    /// Heads.
    pub shape: HeadShape,
    /// Tokens.
    pub tokens: usize,
    /// `[tokens, H, (q K | k K | v r V | z r V)]`.
    pub qkvz: Bytes,
    /// `[tokens, H, (b r | a r)]`.
    pub ba: Bytes,
    /// `[tokens, (q H K | k H K | v HV V)]`.
    pub mixed_qkv: Bytes,
    /// `[tokens, HV, V]`.
    pub z: Bytes,
    /// `[tokens, HV]`.
    pub b: Bytes,
    /// `[tokens, HV]`.
    pub a: Bytes,
}

/// A part of a group: its elements, the output that it goes to, and where the part starts there.
struct Part {
    width: usize,
    out: usize,
    start: usize,
}

/// Takes rows of `groups` groups apart: in the outputs a part's groups lie behind each other.
fn deal(from: &Bytes, groups: usize, parts: &[Part], outs: &mut [&mut Bytes]) {
    for row in 0..from.rows {
        let mut at = 0;
        for (group, part) in (0..groups).flat_map(|group| parts.iter().map(move |part| (group, part))) {
            let out = &mut outs[part.out];
            let place = out.elements(row, part.start + group * part.width, part.width);
            out.data[place].copy_from_slice(&from.data[from.elements(row, at, part.width)]);
            at += part.width;
        }
    }
}

impl UnpackProblem {
    /// Dense rows.
    pub fn plain(shape: HeadShape, io: DType, ba: DType, tokens: usize, seed: u64) -> UnpackProblem {
        let (keys, values) = (2 * shape.key_elements() as usize, shape.value_elements() as usize);
        let heads = shape.hv as usize;
        UnpackProblem {
            shape,
            tokens,
            qkvz: Bytes::random(io, tokens, keys + 2 * values, seed),
            ba: Bytes::random(ba, tokens, 2 * heads, seed + 1),
            mixed_qkv: Bytes::unwritten(io, tokens, keys + values),
            z: Bytes::unwritten(io, tokens, values),
            b: Bytes::unwritten(ba, tokens, heads),
            a: Bytes::unwritten(ba, tokens, heads),
        }
    }

    /// The problem with its outputs as they must come out.
    pub fn expected(&self) -> UnpackProblem {
        let mut out = self.clone();
        let (h, r) = (self.shape.h as usize, self.shape.ratio() as usize);
        let (k, v) = (self.shape.k as usize, r * self.shape.v as usize);
        let part = |width, out, start| Part { width, out, start };
        let qkvz = [part(k, 0, 0), part(k, 0, h * k), part(v, 0, 2 * h * k), part(v, 1, 0)];
        deal(&self.qkvz, h, &qkvz, &mut [&mut out.mixed_qkv, &mut out.z]);
        deal(&self.ba, h, &[part(r, 0, 0), part(r, 1, 0)], &mut [&mut out.b, &mut out.a]);
        out
    }

    /// Puts the problem into device memory.
    pub fn place(&self, device: &mut dyn Device) -> Result<UnpackQkvz> {
        Ok(UnpackQkvz {
            shape: self.shape,
            tokens: self.tokens as u32,
            qkvz: self.qkvz.place(device)?,
            ba: self.ba.place(device)?,
            mixed_qkv: self.mixed_qkv.place(device)?,
            z: self.z.place(device)?,
            b: self.b.place(device)?,
            a: self.a.place(device)?,
        })
    }

    /// Runs the problem and holds every byte of inputs and outputs against what must be there.
    pub fn run_and_check(&self, device: &mut dyn Device, tile: Tile) -> Result<()> {
        device.reset();
        let call = self.place(device)?;
        device.run(&call, tile)?;
        let want = self.expected();
        let tensors = [
            (&want.qkvz, &call.qkvz, "qkvz"),
            (&want.ba, &call.ba, "ba"),
            (&want.mixed_qkv, &call.mixed_qkv, "mixed_qkv"),
            (&want.z, &call.z, "z"),
            (&want.b, &call.b, "b"),
            (&want.a, &call.a, "a"),
        ];
        tensors.into_iter().try_for_each(|(want, rows, name)| want.check(device, rows.tensor.address, name))
    }
}

/// Random projections.
pub fn projections() -> impl Strategy<Value = UnpackProblem> {
    let dim = || prop::sample::select(vec![64u32, 128]);
    let ratio = prop::sample::select(vec![1u32, 2, 3, 4, 5, 8]);
    let shape = (1u32..=3, ratio, dim(), dim()).prop_map(|(h, r, k, v)| HeadShape { h, hv: h * r, k, v });
    let gaps = prop::collection::vec((0usize..3, 0usize..3), 6);
    (shape, dtype(), dtype(), 1usize..=3, gaps, any::<u64>()).prop_map(
        |(shape, io, ba, tokens, gaps, seed)| {
            let p = UnpackProblem::plain(shape, io, ba, tokens, seed);
            let wide = |x: Bytes, i: usize| x.spaced(8 * gaps[i].0, 8 * gaps[i].1);
            UnpackProblem {
                qkvz: wide(p.qkvz, 0),
                mixed_qkv: wide(p.mixed_qkv, 1),
                z: wide(p.z, 2),
                ba: p.ba.spaced(gaps[3].0, gaps[3].1),
                b: p.b.spaced(gaps[4].0, gaps[4].1),
                a: p.a.spaced(gaps[5].0, gaps[5].1),
                ..p
            }
        },
    )
}
