//! The gate and the norms at the ends of their ranges.

use crate::compare::{rel_l2, widen};
use crate::device::Device;
use crate::problem::Problem;
use crate::random::{Noise, plain};
use crate::strided::Strided;
use anyhow::{Context as _, Result, ensure};
use gdn_host::{DType, HeadShape, Tile};

const SHAPE: HeadShape = HeadShape { h: 1, hv: 4, k: 64, v: 64 };

/// |a| and |b| up to 1e4: exp must not overflow on the way, and decay must be exactly 1 or 0 at the ends.
pub fn gate_inputs_up_to_1e4(device: &mut dyn Device) -> Result<()> {
    let extremes = [1e4, -1e4, 100.0, -100.0, 20.0, 20.5, -20.0, 88.8, -88.8, 0.0, 5.0, -5.0];
    let mut p = plain(SHAPE, 3, DType::F32, 51);
    p.a = Strided::dense(DType::F32, 4, extremes.to_vec());
    p.b = Strided::dense(DType::F32, 4, extremes.iter().rev().copied().collect());
    let solution = p.run_and_check(device, Tile::Auto)?;
    let finite = |x: &[f32]| x.iter().all(|x| x.is_finite());
    ensure!(finite(&solution.out) && finite(&solution.state), "a result is not finite");
    Ok(())
}

/// A_log and dt_bias so large or small that a naive product is infinity times zero.
pub fn gate_tables_at_the_ends_of_f32(device: &mut dyn Device) -> Result<()> {
    let mut p = plain(SHAPE, 1, DType::F32, 52);
    p.a = Strided::dense(DType::F32, 4, vec![-1e4, 1e4, 3e38, -3e38]);
    p.gate = Some((
        Strided::dense(DType::F32, 4, vec![200.0, -200.0, -200.0, 200.0]),
        Strided::dense(DType::F32, 4, vec![0.0, 0.0, 3e38, -3e38]),
    ));
    let solution = p.run(device, Tile::Auto)?;
    let finite = |x: &[f32]| x.iter().all(|x| x.is_finite());
    ensure!(finite(&solution.out) && finite(&solution.state), "a result is not finite");
    Ok(())
}

/// The norm of a zero vector is not divided by.
pub fn zero_query_and_key(device: &mut dyn Device) -> Result<()> {
    for state in [DType::F32, DType::Bf16] {
        let mut p = plain(SHAPE, 2, state, 53);
        p.q.data[..64].fill(0.0);
        p.k.data[..64].fill(0.0);
        let solution = p.run_and_check(device, Tile::Auto)?;
        ensure!(solution.out[..4 * 64].iter().all(|x| *x == 0.0), "a zero query has an output");
    }
    Ok(())
}

/// A caller with its own gate: log decay and beta in f32.
pub fn decay_and_beta_given(device: &mut dyn Device) -> Result<()> {
    let mut p = plain(SHAPE, 3, DType::F32, 54);
    let mut noise = Noise::new(540);
    p.gate = None;
    p.a = Strided::dense(DType::F32, 4, (0..12).map(|_| -4.0 * noise.uniform()).collect());
    p.beta_given = true;
    p.b = Strided::dense(DType::F32, 4, (0..12).map(|_| noise.uniform()).collect());
    p.run_and_check(device, Tile::Auto).map(drop)
}

/// A problem whose new state is the old one decayed and nothing else, a sequence for each gate input.
fn decay_only(a: &[f32], a_log: f32) -> Problem {
    let mut p = plain(HeadShape { hv: 1, ..SHAPE }, a.len(), DType::F32, 58);
    p.a = Strided::dense(DType::F32, 1, a.to_vec());
    p.gate = Some((Strided::dense(DType::F32, 1, vec![a_log]), Strided::dense(DType::F32, 1, vec![0.0])));
    p.beta_given = true;
    p.b = Strided::dense(DType::F32, 1, vec![0.0; a.len()]);
    p
}

/// `ex2` of a product rounded to f32 is off by 7e-6 at -80: strong decays must be as exact as weak ones.
pub fn strong_decay_is_exact(device: &mut dyn Device) -> Result<()> {
    let mut p = decay_only(&[-0.1, -3.0, -11.3, -29.7, -52.9, -79.9, -81.3], 0.0);
    p.gate = None;
    p.run_and_check(device, Tile::Auto).map(drop)
}

/// A small softplus times a large rate: `log(1 + t)` computed naively loses what the rounding of `1 + t`
/// loses, sixteenfold in the decay.
pub fn fast_head_with_small_softplus_is_exact(device: &mut dyn Device) -> Result<()> {
    let p = decay_only(&[-12.0, -9.1, -7.3, -6.2, -5.7, -4.9], 16f32.ln());
    let solution = p.run_and_check(device, Tile::Auto)?;
    let (_, state) = p.oracle();
    let elements = p.shape.state_elements() as usize;
    for (n, (got, want)) in widen(&solution.state).chunks(elements).zip(state.chunks(elements)).enumerate() {
        let error = rel_l2(got, want);
        ensure!(error < 3e-7, "the decay of sequence {n} is off by {error:.2e}");
    }
    Ok(())
}

/// The option changes the result, and each way is what the oracle says.
pub fn beta_rounded_through_its_type(device: &mut dyn Device) -> Result<()> {
    for b_type in [DType::Bf16, DType::F16] {
        let mut p = plain(SHAPE, 2, DType::F32, 55);
        p.b = Strided::dense(b_type, 4, p.b.data.clone());
        let exact = p.run_and_check(device, Tile::Auto)?;
        p.beta_rounded = true;
        let rounded = p.run_and_check(device, Tile::Auto).context(b_type.name())?;
        ensure!(exact.state != rounded.state, "rounding beta made no difference");
    }
    Ok(())
}

/// Without l2norm, q and k enter as they are.
pub fn no_l2norm(device: &mut dyn Device) -> Result<()> {
    let mut p = plain(SHAPE, 2, DType::F32, 56);
    p.l2norm = None;
    let unit = |x: &Strided| Strided::dense(x.dtype, x.width, x.data.iter().map(|x| x / 8.0).collect());
    (p.q, p.k) = (unit(&p.q), unit(&p.k));
    p.scale = Some(0.5);
    p.run_and_check(device, Tile::Auto).map(drop)
}

/// Above the threshold softplus is the identity: visible when the threshold is low.
pub fn threshold_of_softplus(device: &mut dyn Device) -> Result<()> {
    let mut p = plain(SHAPE, 2, DType::F32, 57);
    p.a = Strided::dense(DType::F32, 4, vec![0.25, 0.75, 1.5, -1.0, 0.5, 2.0, 3.0, 0.0]);
    p.gate = Some((Strided::dense(DType::F32, 4, vec![0.0; 4]), Strided::dense(DType::F32, 4, vec![0.0; 4])));
    let usual = p.run_and_check(device, Tile::Auto)?;
    p.threshold = 1.0;
    let low = p.run_and_check(device, Tile::Auto)?;
    let (a, b) = (widen(&usual.state), widen(&low.state));
    ensure!(a != b, "the threshold makes no difference");
    Ok(())
}
