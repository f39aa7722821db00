//! Recorded cases of replay: a sequence of steps that fold where the recording did.

use super::{ReplayProblem, RingData};
use crate::case::Case;
use crate::compare::{rel_l2, widen, worst_vector};
use crate::device::Device;
use crate::parity::Outcome;
use crate::problem::{Beta, Decay, Out, Pool, Problem, Source, StartFlags, Target, Tokens};
use crate::strided::Strided;
use crate::table::TableForm;
use anyhow::{Result, ensure};
use gdn_host::{Family, HeadMap, HeadShape, Layout, Tile};

/// Whether an operation of the case format is this file's.
pub fn records(op: &str) -> bool {
    op == "replay_decode"
}

/// Allowed against a recording whose kernel takes its products of records in bf16: the output, a head of it, the state.
const LIMITS: [f64; 3] = [3e-3, 1e-2, 3e-3];

/// Runs a case: outputs of all steps, and the state behind the last.
///
/// # Errors
/// A case that cannot be run. One that runs and differs is an outcome that did not pass.
pub fn run(case: &Case, device: &mut dyn Device) -> Result<Outcome> {
    case.demand("gate_kind", &["gdn"])?;
    case.demand("gate", &["softplus"])?;
    case.demand("layout", &["VK"])?;
    case.demand("beta_rounding", &["none", "b_dtype"])?;
    let shape = HeadShape::new(case.number("H")?, case.number("HV")?, case.number("K")?, case.number("V")?)?;
    let (batch, steps, records): (usize, usize, usize) =
        (case.number("B")?, case.number("steps")?, case.number("L")?);
    let slots: usize = case.number("slots")?;
    let (elements, width) = (shape.state_elements() as usize, shape.value_elements() as usize);
    let mixed = case.values("mixed_qkv")?;
    let stride = mixed.shape.last().copied().unwrap_or(0);
    let keys = shape.key_elements() as usize;
    ensure!(
        mixed.data.len() == steps * batch * stride && stride >= 2 * keys + width,
        "tensor mixed_qkv has shape {:?}",
        mixed.shape
    );
    let hv = shape.hv as usize;
    let (a, b) = (case.rows("a", steps * batch, hv)?, case.rows("b", steps * batch, hv)?);
    let position = case.indices32("ring_pos", steps * batch)?;
    let state = case.sized("state_in", slots * elements)?;
    let pool = Pool { dtype: state.dtype, layout: Layout::Vk, data: state.data, slots, pitch: elements };
    let want = case.sized("out", steps * batch * width)?;
    let cut = |x: &Strided, step: usize| {
        Strided::dense(
            x.dtype,
            x.width,
            x.data[step * batch * x.width..(step + 1) * batch * x.width].to_vec(),
        )
    };
    let columns = |step: usize, from: usize, width: usize| {
        let rows = mixed.data.chunks(stride).skip(step * batch).take(batch);
        Strided::dense(mixed.dtype, width, rows.flat_map(|row| row[from..from + width].to_vec()).collect())
    };
    let problem = Problem {
        shape,
        family: Family::Gdn,
        tokens: Tokens::One { batch },
        q: columns(0, 0, keys),
        k: columns(0, keys, keys),
        v: columns(0, 2 * keys, width),
        packed_stride: Some(stride),
        a: cut(&a, 0),
        b: cut(&b, 0),
        decay: Decay::Softplus {
            a_log: case.rows("A_log", 1, hv)?,
            dt_bias: case.rows("dt_bias", 1, hv)?,
            beta: case.number("softplus_beta")?,
            threshold: case.number("softplus_threshold")?,
        },
        beta: Beta::Logits { rounded: case.meta("beta_rounding")? == "b_dtype", scale: 1.0 },
        l2norm: if case.flag("l2norm")? { Some(case.number("eps")?) } else { None },
        scale: Some(case.number("scale")?),
        heads: HeadMap::Grouped,
        pool,
        source: Source::Slots(case.indices32("slot_idx", batch)?),
        start: StartFlags::None,
        target: Target::InPlace,
        null_slot: None,
        intermediate: None,
        round_state: false,
        out: Some(Out { dtype: want.dtype, stride: width }),
        tables: TableForm::default(),
        omit_zeros: false,
    };
    let rings = RingData::random(&problem, records, 0);
    let force = case.if_there("force_flush", |name| case.indices32(name, steps * batch))?;
    let most = Some(records as u32 - 1);
    let mut step = ReplayProblem {
        problem,
        rings,
        base: None,
        len: position[..batch].to_vec(),
        by_slot: false,
        force: None,
        most,
        parent: None,
    };
    ensure!(step.len.iter().all(|len| *len == 0), "the case begins with records, in another form than ours");
    step.spoil_stale();
    let mut got = Vec::new();
    for i in 0..steps {
        let p = &mut step.problem;
        (p.q, p.k, p.v) = (columns(i, 0, keys), columns(i, keys, keys), columns(i, 2 * keys, width));
        (p.a, p.b) = (cut(&a, i), cut(&b, i));
        ensure!(
            step.len == position[i * batch..(i + 1) * batch],
            "step {i} begins with {:?} records",
            step.len
        );
        let of_step =
            |force: &Vec<i32>| force[i * batch..(i + 1) * batch].iter().map(|f| u8::from(*f != 0)).collect();
        step.force = force.as_ref().map(of_step);
        let solution = step.run(device, Tile::Auto)?;
        got.extend(solution.out.values.iter().copied());
        step.advance(&solution);
        // The recording's cursor is a place, and goes back to 0.
        step.base = None;
    }
    let (got, want) = (widen(&got), widen(&want.data));
    let state =
        rel_l2(&widen(&step.problem.pool.data), &widen(&case.sized("state_out", slots * elements)?.data));
    let (out, head) = (rel_l2(&got, &want), worst_vector(&got, &want, shape.v as usize));
    let errors = [("out", out), ("a head of out", head), ("state", state)];
    let beyond = errors.into_iter().zip(LIMITS).filter(|((_, error), limit)| error > limit);
    let notes: Vec<String> =
        beyond.map(|((what, error), _)| format!("{what} is off by {error:.2e}")).collect();
    let behind = case.indices32("ring_pos_out", batch)?;
    ensure!(step.len == behind, "the last step leaves {:?} records, not {behind:?}", step.len);
    Ok(Outcome {
        pass: notes.is_empty(),
        rel_l2_out: Some(out),
        rel_l2_state: Some(state),
        tolerance: format!("{:.0e} / head {:.0e} / state {:.0e}", LIMITS[0], LIMITS[1], LIMITS[2]),
        note: notes.join("; "),
        ..Outcome::default()
    })
}
