//! The gate and the norms at the ends of their ranges.

use crate::compare::rel_l2;
use crate::device::Device;
use crate::problem::{Beta, Decay, Problem, Tokens};
use crate::random::{Noise, Plain, plain};
use crate::strided::Strided;
use anyhow::{Context as _, Result, ensure};
use gdn_host::{DType, Family, HeadShape, Tile};

const SHAPE: HeadShape = HeadShape { h: 1, hv: 4, k: 64, v: 64 };

/// The softplus gate of these tables, a head each.
fn softplus(a_log: &[f32], dt_bias: &[f32], threshold: f32) -> Decay {
    let table = |x: &[f32]| Strided::dense(DType::F32, x.len(), x.to_vec());
    Decay::Softplus { a_log: table(a_log), dt_bias: table(dt_bias), beta: 1.0, threshold }
}

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
    let (a_log, dt_bias) = ([200.0, -200.0, -200.0, 200.0], [0.0, 0.0, 3e38, -3e38]);
    p.decay = softplus(&a_log, &dt_bias, 20.0);
    let finite = |x: &[f32]| x.iter().all(|x| x.is_finite());
    for bound in [None, Some(-5.0)] {
        if let (Some(bound), Decay::Softplus { a_log, dt_bias, .. }) = (bound, p.decay.clone()) {
            p.decay = Decay::LowerBound { a_log, dt_bias, bound };
        }
        let solution = p.run(device, Tile::Auto)?;
        ensure!(finite(&solution.out) && finite(&solution.state), "a result of {:?} is not finite", p.decay);
    }
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
    p.give_decays(DType::F32, false, &mut noise);
    p.give_betas(DType::F32, false, &mut noise);
    p.run_and_check(device, Tile::Auto).map(drop)
}

/// A problem whose new state is the old one decayed and nothing else, a sequence for each gate input.
fn decay_only(a: &[f32], a_log: f32) -> Problem {
    let mut p = plain(HeadShape { hv: 1, ..SHAPE }, a.len(), DType::F32, 58);
    p.a = Strided::dense(DType::F32, 1, a.to_vec());
    p.decay = softplus(&[a_log], &[0.0], 20.0);
    p.beta = Beta::Given;
    p.b = Strided::dense(DType::F32, 1, vec![0.0; a.len()]);
    p
}

/// `ex2` of a product rounded to f32 is off by 7e-6 at -80: strong decays must be as exact as weak ones.
pub fn strong_decay_is_exact(device: &mut dyn Device) -> Result<()> {
    let mut p = decay_only(&[-0.1, -3.0, -11.3, -29.7, -52.9, -79.9, -81.3], 0.0);
    p.decay = Decay::Given;
    p.run_and_check(device, Tile::Auto).map(drop)
}

/// A small softplus times a large rate: `log(1 + t)` computed naively loses what the rounding of `1 + t`
/// loses, sixteenfold in the decay.
pub fn fast_head_with_small_softplus_is_exact(device: &mut dyn Device) -> Result<()> {
    let p = decay_only(&[-12.0, -9.1, -7.3, -6.2, -5.7, -4.9], 16f32.ln());
    let solution = p.run_and_check(device, Tile::Auto)?;
    let (got, want) = (p.written(&solution), p.oracle());
    for (n, ((_, got), (_, want))) in got.states.iter().zip(&want.states).enumerate() {
        let error = rel_l2(got, want);
        ensure!(error < 3e-7, "the decay of sequence {n} is off by {error:.2e}");
    }
    Ok(())
}

/// The option changes the result, and each way is what the oracle says.
pub fn beta_rounded_through_its_type(device: &mut dyn Device) -> Result<()> {
    for b_type in [DType::Bf16, DType::F16] {
        let mut p = plain(SHAPE, 2, DType::F32, 55);
        p.b = p.b.retyped(b_type);
        let exact = p.run_and_check(device, Tile::Auto)?;
        p.beta = Beta::Logits { rounded: true, scale: 1.0 };
        let rounded = p.run_and_check(device, Tile::Auto).context(b_type.name())?;
        ensure!(exact.state != rounded.state, "rounding beta made no difference");
    }
    Ok(())
}

/// Without l2norm, q and k enter as they are.
pub fn no_l2norm(device: &mut dyn Device) -> Result<()> {
    let mut p = plain(SHAPE, 2, DType::F32, 56);
    p.drop_l2norm();
    p.scale = Some(0.5);
    p.run_and_check(device, Tile::Auto).map(drop)
}

/// Above the threshold softplus is the identity: visible when the threshold is low.
pub fn threshold_of_softplus(device: &mut dyn Device) -> Result<()> {
    let mut p = plain(SHAPE, 2, DType::F32, 57);
    p.a = Strided::dense(DType::F32, 4, vec![0.25, 0.75, 1.5, -1.0, 0.5, 2.0, 3.0, 0.0]);
    p.decay = softplus(&[0.0; 4], &[0.0; 4], 20.0);
    let usual = p.run_and_check(device, Tile::Auto)?;
    p.decay = softplus(&[0.0; 4], &[0.0; 4], 1.0);
    let low = p.run_and_check(device, Tile::Auto)?;
    ensure!(usual.state != low.state, "the threshold makes no difference");
    Ok(())
}

/// One beta for each row of V: rows of beta 0 only decay, and equal betas are the beta of their head.
pub fn beta_for_each_row(device: &mut dyn Device) -> Result<()> {
    for tokens in [Tokens::One { batch: 2 }, Tokens::Each { batch: 1, tokens: 2 }] {
        for family in [Family::Gdn, Family::Kda] {
            let mut p = Plain { family, ..Plain::new(SHAPE, tokens.clone(), DType::F32, 71) }.problem();
            for dtype in [DType::F32, DType::Bf16, DType::F16] {
                p.give_betas(dtype, true, &mut Noise::new(72));
                p.b.data.iter_mut().step_by(3).for_each(|beta| *beta = 0.0);
                (p.b.stride, p.b.offset) = (p.b.width + 3, 1);
                p.run_and_check(device, Tile::Auto)?;
            }
            p.give_betas(DType::F32, false, &mut Noise::new(73));
            let by_head = p.run_and_check(device, Tile::Auto)?;
            let rows = p.b.data.iter().flat_map(|beta| [*beta; 64]).collect();
            (p.b, p.beta) = (Strided::dense(DType::F32, p.width(), rows), Beta::GivenPerValue);
            ensure!(p.run_and_check(device, Tile::Auto)? == by_head, "equal betas by row give other bits");
        }
    }
    Ok(())
}

/// Every type of a, b, a_log and dt_bias, each different from its neighbours.
pub fn every_type_of_the_gate(device: &mut dyn Device) -> Result<()> {
    let types = [DType::F32, DType::Bf16, DType::F16];
    for (i, rounded) in [(0, false), (1, true), (2, true)] {
        let of = |j: usize| types[(i + j) % 3];
        let mut p = plain(SHAPE, 2, DType::F32, 74);
        (p.a, p.b, p.beta) = (p.a.retyped(of(0)), p.b.retyped(of(1)), Beta::Logits { rounded, scale: 1.0 });
        if let Decay::Softplus { a_log, dt_bias, .. } = &mut p.decay {
            (*a_log, *dt_bias) = (a_log.retyped(of(2)), dt_bias.retyped(of(1)));
        }
        p.run_and_check(device, Tile::Auto)?;
    }
    Ok(())
}

/// Where a NaN was put.
#[derive(Clone, Copy, Debug)]
enum Poisoned {
    A,
    B,
}

/// A problem of two sequences of two tokens each, or a decode of four sequences, with a NaN for head 1 in row 2 of a
/// gate input.
fn poison(p: &mut Problem, what: Poisoned) {
    let x = if let Poisoned::A = what { &mut p.a } else { &mut p.b };
    // The first entry of head 1.
    let at = 2 * x.width + x.width / 4;
    x.data[at] = f32::NAN;
}

/// A NaN in a gate input shows in every output of its head from its token on, in the head's state, and nowhere else.
pub fn nan_in_a_gate_input_shows_where_it_belongs(device: &mut dyn Device) -> Result<()> {
    let tokens = [Tokens::One { batch: 4 }, Tokens::Each { batch: 2, tokens: 2 }];
    for (family, tokens) in
        [Family::Gdn, Family::Kda].into_iter().flat_map(|f| tokens.clone().map(|t| (f, t)))
    {
        let p = Plain { family, ..Plain::new(SHAPE, tokens, DType::F32, 75) }.problem();
        let mut bounded = p.clone();
        if let Decay::Softplus { a_log, dt_bias, .. } = p.decay.clone() {
            bounded.decay = Decay::LowerBound { a_log, dt_bias, bound: -5.0 };
        }
        let mut given = p.clone();
        given.give_decays(DType::F32, false, &mut Noise::new(76));
        given.give_betas(DType::F32, false, &mut Noise::new(77));
        for (clean, what) in [p, bounded, given].iter().flat_map(|p| [(p, Poisoned::A), (p, Poisoned::B)]) {
            check_nan(clean, what, device).with_context(|| format!("NaN in {what:?}; {clean:?}"))?;
        }
    }
    Ok(())
}

fn check_nan(clean: &Problem, what: Poisoned, device: &mut dyn Device) -> Result<()> {
    let before = clean.run_and_check(device, Tile::Auto)?;
    let mut p = clean.clone();
    poison(&mut p, what);
    let after = p.run(device, Tile::Auto)?;
    // The sequence of row 2; its state is in the slot of its number.
    let n = (0..p.tokens.batch()).position(|n| p.tokens.range(n).contains(&2)).unwrap_or_default();
    let (rows, v) = (2..p.tokens.range(n).end, p.shape.v as usize);
    for (i, (before, after)) in before.out.chunks(v).zip(after.out.chunks(v)).enumerate() {
        let (row, head) = (i / 4, i % 4);
        if head == 1 && rows.contains(&row) {
            ensure!(after.iter().all(|x| x.is_nan()), "row {row} of the head does not show it");
        } else {
            ensure!(before == after, "row {row}, head {head} shows it");
        }
    }
    let head = v * p.shape.k as usize;
    for (i, (before, after)) in before.state.chunks(head).zip(after.state.chunks(head)).enumerate() {
        let (slot, head) = (i / 4, i % 4);
        if head == 1 && slot == n {
            ensure!(after.iter().any(|x| x.is_nan()), "the state does not show it");
        } else {
            ensure!(before == after, "slot {slot}, head {head} shows it");
        }
    }
    Ok(())
}

/// softplus with an `s` of its own: on both sides of its threshold, and where `s x` is infinite.
pub fn softplus_with_a_beta(device: &mut dyn Device) -> Result<()> {
    for family in [Family::Gdn, Family::Kda] {
        for tokens in [Tokens::One { batch: 3 }, Tokens::Each { batch: 2, tokens: 3 }] {
            let p = Plain { family, ..Plain::new(SHAPE, tokens, DType::F32, 78) }.problem();
            let mut outputs = Vec::new();
            for (beta, threshold) in [(1.0, 20.0), (0.5, 20.0), (4.0, 20.0), (4.0, 0.5), (0.125, 0.0)] {
                let mut p = p.clone();
                if let Decay::Softplus { beta: s, threshold: t, .. } = &mut p.decay {
                    (*s, *t) = (beta, threshold);
                }
                outputs.push(p.run_and_check(device, Tile::Auto)?);
            }
            let all_differ = (1..outputs.len()).all(|i| !outputs[..i].contains(&outputs[i]));
            ensure!(all_differ, "two forms of softplus give the same bits");
            let mut far = p;
            if let Decay::Softplus { beta, .. } = &mut far.decay {
                *beta = 1e30;
            }
            far.a.data.iter_mut().for_each(|a| *a *= 1e20);
            far.a = far.a.retyped(DType::F32);
            let solution = far.run(device, Tile::Auto)?;
            ensure!(solution.state.iter().all(|x| x.is_finite()), "softplus of a large s x is not finite");
        }
    }
    Ok(())
}

/// A beta of up to 2, as negative eigenvalues want it; rounded behind the factor.
pub fn beta_of_a_scaled_sigmoid(device: &mut dyn Device) -> Result<()> {
    for tokens in [Tokens::One { batch: 3 }, Tokens::Each { batch: 2, tokens: 3 }] {
        let mut p = Plain::new(SHAPE, tokens, DType::F32, 79).problem();
        let plain = p.run_and_check(device, Tile::Auto)?;
        p.beta = Beta::Logits { rounded: false, scale: 2.0 };
        let doubled = p.run_and_check(device, Tile::Auto)?;
        ensure!(doubled != plain, "the factor makes no difference");
        // A logit in bf16 whose sigmoid is far from the middle of two numbers of bf16, before and behind the factor.
        p.b.data.fill(1.0);
        p.beta = Beta::Logits { rounded: true, scale: 1.5 };
        p.run_and_check(device, Tile::Auto)?;
    }
    Ok(())
}

/// Without `a_log` the rate is 1, without `dt_bias` nothing is added.
pub fn absent_gate_tables(device: &mut dyn Device) -> Result<()> {
    for family in [Family::Gdn, Family::Kda] {
        for tokens in [Tokens::One { batch: 2 }, Tokens::Each { batch: 2, tokens: 2 }] {
            let p = Plain { family, ..Plain::new(SHAPE, tokens, DType::F32, 80) }.problem();
            let Decay::Softplus { a_log, dt_bias, .. } = p.decay.clone() else { continue };
            let zeros = |x: &Strided| Strided { data: vec![0.0; x.data.len()], ..x.clone() };
            for (a_log, dt_bias) in [
                (zeros(&a_log), dt_bias.clone()),
                (a_log.clone(), zeros(&dt_bias)),
                (zeros(&a_log), zeros(&dt_bias)),
            ] {
                let bounded =
                    Decay::LowerBound { a_log: a_log.clone(), dt_bias: dt_bias.clone(), bound: -5.0 };
                for decay in [Decay::Softplus { a_log, dt_bias, beta: 1.0, threshold: 20.0 }, bounded] {
                    let mut p = Problem { decay, ..p.clone() };
                    let given = p.run_and_check(device, Tile::Auto)?;
                    p.omit_zeros = true;
                    ensure!(p.run_and_check(device, Tile::Auto)? == given, "absent tables are not zeros");
                }
            }
        }
    }
    Ok(())
}
