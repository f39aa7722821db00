//! Rings beside plain decode, step by step: where every token folds, and over a long run.

use super::replay::{FAMILIES, decode};
use crate::compare::{rel_l2, widen};
use crate::device::Device;
use crate::problem::Tokens;
use crate::problem::check::Exact;
use crate::random::Plain;
use crate::replay::{Call, ReplayProblem};
use crate::strided::{alloc_rows, decode_values, round};
use anyhow::{Result, ensure};
use gdn_host::reference::recurrence::Between;
use gdn_host::{
    Beta, DType, Decay, Decode, Family, HeadShape, Inputs, Operation, ReplayAdvance, ReplayDecode, Rows,
    StatePool, Tensor, Tile,
};

/// A ring of which no record may be live folds each token: it is plain decode.
pub fn replay_without_live_records_is_decode(device: &mut dyn Device) -> Result<()> {
    for family in FAMILIES {
        let mut p = decode(family, DType::F32, 2, 1, 707).with_windows(&[(0, 0), (0, 0)]);
        p.most = Some(0);
        let mut plain = p.problem.clone();
        for step in 0..4 {
            let (replayed, decoded) = (p.run_and_check(device, Tile::Auto)?, plain.run(device, Tile::Auto)?);
            let error = distance(&replayed.state.values, &decoded.state.values);
            ensure!(error <= 1e-6, "{family:?}: the state of step {step} is {error:.1e} from decode's");
            p.advance(&replayed);
            plain.pool.data = decoded.state.values;
        }
    }
    Ok(())
}

fn distance(got: &[f32], want: &[f32]) -> f64 {
    rel_l2(&widen(got), &widen(want))
}

/// The inputs of one token of many.
fn of_token(all: &Inputs, t: u64) -> Inputs {
    let row = |rows: &mut Rows| *rows = rows.view(t * rows.stride);
    let mut one = *all;
    [&mut one.q, &mut one.k, &mut one.v].into_iter().for_each(row);
    match (&mut one.decay, &mut one.beta) {
        (Decay::Softplus(decay), Beta::Logits(beta)) => [&mut decay.a, &mut beta.b].into_iter().for_each(row),
        other => unreachable!("plain problems have other gates: {other:?}"),
    }
    one
}

/// As many tokens as the device takes quickly, which forget little: at every fold the state in f32 is within 1e-6 of the exact
/// one. In the mean it is within 1e-6 of plain decode's too, nearer to the exact one than that is, and no further off in the
/// second half than in the first. (At a single fold plain decode's may be further off itself.)
pub fn replay_does_not_drift(device: &mut dyn Device) -> Result<()> {
    const RECORDS: usize = 6;
    /// Folds until as much is forgotten as is rounded: errors begin at 0.
    const BEGINNING: usize = 100;
    let folds = device.tokens_of_a_long_run() / (RECORDS as u64 + 1);
    for (family, k) in [(Family::Gdn, 64), (Family::Kda, 128)] {
        // The tokens of some folds, over and over.
        let tokens = (RECORDS as u64 + 1) * folds.min(586);
        let shape = HeadShape { h: 1, hv: 1, k, v: 32 };
        let each = Tokens::Each { batch: 1, tokens: tokens as usize };
        let plain = Plain { family, ..Plain::new(shape, each, DType::F32, 708) };
        let mut p = ReplayProblem::new(&plain, RECORDS).with_windows(&[(0, 0)]);
        let a = &mut p.problem.a;
        a.data.iter_mut().for_each(|x| *x = round(*x - 6.0, a.dtype));
        device.reset();
        let placed = p.place(device)?;
        let Call::Verify(all) = &placed.call else { anyhow::bail!("several tokens are no decode") };
        let beside = alloc_rows(device, &p.problem.pool_rows())?;
        let pool = StatePool { tensor: beside.tensor, ..all.pool.state };
        let exact = Exact::of(&p.problem);
        let mut want = widen(&p.problem.pool.data[..p.problem.elements()]);
        let row = |fold: u64, i: u64| ((RECORDS as u64 + 1) * fold + i) % tokens;
        let (mut errors, mut plain_errors, mut distances) = (Vec::new(), Vec::new(), Vec::new());
        for fold in 0..folds {
            let steps: Vec<Box<dyn Operation>> = (0..=RECORDS as u64)
                .flat_map(|i| -> [Box<dyn Operation>; 3] {
                    let inputs = of_token(&all.inputs, row(fold, i));
                    let replayed = ReplayDecode::new(inputs, 1, all.pool, all.out);
                    let advance = ReplayAdvance::behind_decode(&replayed);
                    [Box::new(replayed), Box::new(advance), Box::new(Decode::new(inputs, 1, pool, all.out))]
                })
                .collect();
            device.run_side_by_side(&[steps], Some(row(fold, 0)))?;
            let rows = (0..=RECORDS as u64).map(|i| row(fold, i) as usize);
            if let Some(last) = exact.sequence(rows, &want, &Between::default()).pop() {
                want = last.state;
            }
            let state = |rows: &Tensor| -> Result<Vec<f64>> {
                let bytes = device.read(rows.address, 4 * p.problem.elements() as u64)?;
                Ok(widen(&decode_values(&bytes, DType::F32)))
            };
            let (folded, decoded) = (state(&all.pool.state.tensor)?, state(&pool.tensor)?);
            let error = rel_l2(&folded, &want);
            ensure!(error <= 1e-6, "{family:?}: at fold {fold} the state is {error:.1e} from the exact one");
            errors.push(error);
            plain_errors.push(rel_l2(&decoded, &want));
            distances.push(rel_l2(&folded, &decoded));
        }
        let mean = |errors: &[f64]| errors.iter().sum::<f64>() / errors.len() as f64;
        let (off, plain_off, apart) = (mean(&errors), mean(&plain_errors), mean(&distances));
        ensure!(apart <= 1e-6, "{family:?}: states are {apart:.1e} from decode's in the mean");
        ensure!(apart > 0.0, "{family:?}: the states were never folded, or decode's are the same bits");
        ensure!(
            off <= plain_off,
            "{family:?}: states are {off:.1e} off in the mean, decode's {plain_off:.1e}"
        );
        let (first, second) = errors[BEGINNING..].split_at((errors.len() - BEGINNING) / 2);
        let (first, second) = (mean(first), mean(second));
        ensure!(second <= 1.25 * first, "{family:?}: states drift off, from {first:.1e} to {second:.1e}");
    }
    Ok(())
}
