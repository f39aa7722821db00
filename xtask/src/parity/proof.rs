//! What `--hazards` and `--record` run besides recorded cases: every hazard and random problems.

use crate::report;
use anyhow::{Context as _, Result, ensure};
use gdn_host::{Code, Tile};
use gdn_tests::device::{Device, Gpu};
use gdn_tests::parity::Outcome;
use gdn_tests::random::Tiled;
use gdn_tests::{hazards, random};

/// Every hazard, and so many random problems.
pub fn run(count: u32, device: &mut dyn Device) -> Vec<Outcome> {
    let bar = report::progress(hazards::ALL.len() + (count + count / 2) as usize, "hazards");
    let mut outcomes = Vec::new();
    for (name, hazard) in hazards::ALL {
        let result = hazard(device);
        outcomes.push(judged("hazard", name, "against the f64 oracle, bits where promised", result));
        bar.inc(1);
    }
    let mut random = |kind: &str, count: u32, result: Result<()>| {
        let name = format!("{count} random problems{kind}");
        outcomes.push(judged("random", &name, "against the f64 oracle, bits across tiles", result));
    };
    let (records, step) = (" with records", &mut || bar.inc(1));
    random("", count, random_problems("", random::fixed(count), device, step));
    let replays = random::fixed_replay(count / 2);
    random(records, count / 2, random_problems(records, replays, device, step));
    bar.finish_and_clear();
    outcomes
}

/// Whether all codes give the same bits for so many random problems.
pub fn same_bits_from_all(codes: &[(String, Code)], count: u32) -> Outcome {
    let names: Vec<_> = codes.iter().map(|(name, _)| name.as_str()).collect();
    let name = format!("{count} random problems with each of {}", names.join(", "));
    judged("random", &name, "bits", compare_bits(codes, count))
}

/// An outcome of something that only holds or does not.
fn judged(op: &str, name: &str, tolerance: &str, result: Result<()>) -> Outcome {
    Outcome {
        file: name.into(),
        op: op.into(),
        pass: result.is_ok(),
        rel_l2_out: None,
        rel_l2_state: None,
        tolerance: tolerance.into(),
        note: result.err().map_or_else(String::new, |error| format!("{error:#}")),
    }
}

/// Runs each random problem with each code and compares bits.
fn compare_bits(codes: &[(String, Code)], count: u32) -> Result<()> {
    let mut gpus = codes.iter().map(|(_, code)| Gpu::open(*code)).collect::<Result<Vec<_>>>()?;
    for (i, problem) in random::fixed(count).enumerate() {
        let problem = problem?;
        let solutions = gpus.iter_mut().map(|gpu| problem.run(gpu, Tile::Auto));
        let solutions = solutions.collect::<Result<Vec<_>>>()?;
        let same = solutions.windows(2).all(|pair| pair[0] == pair[1]);
        ensure!(same, "they give different bits; random problem {i}: {problem:?}");
    }
    Ok(())
}

/// Runs each random problem, holds it against the oracle, and compares bits across tiles.
fn random_problems<P: Tiled>(
    kind: &str,
    problems: impl Iterator<Item = Result<P>>,
    device: &mut dyn Device,
    step: &mut dyn FnMut(),
) -> Result<()> {
    for (i, problem) in problems.enumerate() {
        let problem = problem?;
        let describe = || format!("random problem {i}{kind}: {problem:?}");
        let solution = problem.run_and_check(device, Tile::Auto).with_context(describe)?;
        let tiles = problem.tiles();
        for tile in [tiles.first(), tiles.last()].into_iter().flatten().copied() {
            let same = problem.run(device, tile).with_context(describe)? == solution;
            ensure!(same, "{tile:?} gives other bits; {}", describe());
        }
        step();
    }
    Ok(())
}
