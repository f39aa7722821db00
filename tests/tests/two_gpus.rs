//! Two GPUs of one process: each has a context, kernels and memory of its own. Where there is one GPU or none, the tests say so.

use anyhow::Result;
use gdn_host::driver::{Device as Card, DriverError, Graph, OwnedStream};
use gdn_host::{DType, Error, Family, HeadShape, Launch, Layout, ModuleKey, Tile};
use gdn_tests::device::{Gpu, POISON};
use gdn_tests::problem::Problem;
use gdn_tests::random::{draft, plain};
use std::sync::Barrier;

const SHAPE: HeadShape = HeadShape { h: 2, hv: 4, k: 128, v: 128 };

/// Whether there are two GPUs; if not, what was not tested.
fn are_two() -> bool {
    let count = Card::count();
    if matches!(count, Ok(2..)) {
        return true;
    }
    let found = count.map_or_else(|error| error.to_string(), |count| format!("GPUs here: {count}"));
    eprintln!("not tested: two GPUs are needed ({found})");
    false
}

fn modules() -> [ModuleKey; 2] {
    [ModuleKey::decode, ModuleKey::recurrent]
        .map(|of| of(Family::Gdn, Layout::Vk, DType::F32, DType::Bf16, 128))
}

fn open(ordinal: u32) -> Result<Gpu> {
    Gpu::open_on(ordinal, &modules())
}

/// Decodes and drafts, small ones and some that fill a GPU.
fn problems() -> Vec<Problem> {
    let of = |seed| match seed % 3 {
        0 => plain(SHAPE, 3, DType::F32, seed),
        1 => plain(SHAPE, 150, DType::F32, seed),
        _ => draft(SHAPE, 5, 4, DType::F32, seed),
    };
    (0..6).map(of).collect()
}

#[test]
fn threads_each_have_a_gpu() -> Result<()> {
    if !are_two() {
        return Ok(());
    }
    let barrier = Barrier::new(2);
    let work = |ordinal| {
        let gpu = open(ordinal);
        barrier.wait();
        let mut gpu = gpu?;
        problems()
            .iter()
            .map(|problem| problem.run_and_check(&mut gpu, Tile::Auto))
            .collect::<Result<Vec<_>>>()
    };
    let [first, second] = std::thread::scope(|scope| {
        let work = &work;
        [0, 1].map(|ordinal| scope.spawn(move || work(ordinal))).map(|thread| thread.join().unwrap())
    });
    for (problem, (first, second)) in problems().iter().zip(first?.iter().zip(&second?)) {
        let (first, second) = (problem.written(first), problem.written(second));
        assert!(first.out == second.out && first.states == second.states, "the GPUs gave other bits");
    }
    Ok(())
}

/// Kernels stay with the context that they were loaded in: a launch under another one is refused, and nothing is written.
#[test]
fn a_thread_takes_turns() -> Result<()> {
    if !are_two() {
        return Ok(());
    }
    let (mut first, mut second) = (open(0)?, open(1)?);
    for problem in problems() {
        problem.run_and_check(&mut second, Tile::Auto)?;
        let refused = problem.run(&mut first, Tile::Auto).map(drop).unwrap_err();
        let refused = refused.downcast_ref::<Error>();
        assert!(matches!(refused, Some(Error::Driver(DriverError::OtherContext { .. }))), "{refused:?}");
        let context = first.context().clone();
        let _entered = context.enter()?;
        problem.run_and_check(&mut first, Tile::Auto)?;
    }
    Ok(())
}

#[test]
fn each_gpu_has_graphs() -> Result<()> {
    if !are_two() {
        return Ok(());
    }
    let problem = plain(SHAPE, 3, DType::F32, 7);
    let mut recorded = Vec::new();
    for ordinal in [0, 1] {
        let mut gpu = open(ordinal)?;
        let placed = problem.place(&mut gpu)?;
        gpu.context().synchronize()?;
        let stream = OwnedStream::new(gpu.context())?;
        let prepared = gpu.gdn().prepare(placed.call.operation(), Launch::default())?;
        // SAFETY: memory of `place`, which lives as long as the GPU, and the context is current.
        let graph = Graph::capture(&stream, |stream| unsafe { prepared.launch(stream) })?;
        recorded.push((graph, stream, placed, gpu));
    }
    // Both are launched before either is waited for.
    for (graph, stream, _, gpu) in &recorded {
        let _entered = gpu.context().enter()?;
        // SAFETY: as above.
        unsafe { graph.launch(stream.as_stream())? };
    }
    for (_, stream, placed, gpu) in &recorded {
        stream.synchronize()?;
        let solution = problem.collect(gpu, placed)?;
        problem.check(&solution)?;
        problem.check_untouched(&solution, POISON)?;
    }
    Ok(())
}
