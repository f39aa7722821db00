//! The same step launched early: `cargo run --release -p gdn-host --example 05_early`
//!
//! With `Launch { early: true, .. }` a kernel may start before the one in front of it has ended. Results are the same bit for bit. It asks a
//! promise of the caller, which `Launch::early` states: what stands in front of a decode must not write its tables.

mod common;
#[path = "common/step.rs"]
mod step;

use common::{Gpu, states};
use gdn_host::Launch;
use step::Step;

/// Steps one behind the other; a step reads the state that the one before it left.
const STEPS: usize = 8;

fn main() -> common::Outcome {
    let gpu = Gpu::open();
    let gdn = step::load()?;
    let step = Step::new(2);
    let mut results = Vec::new();
    for early in [false, true] {
        let launch = Launch { early, ..Launch::default() };
        let on_gpu = step.upload(&gpu, &states(2))?;
        let calls = on_gpu.calls();
        let prepared =
            calls.iter().map(|call| gdn.prepare(call.as_ref(), launch)).collect::<Result<Vec<_>, _>>()?;
        let is_early: Vec<bool> = prepared.iter().map(|call| call.plan().early).collect();
        println!("asked for early: {early}; convolution, decode and norm are: {is_early:?}");
        for call in (0..STEPS).flat_map(|_| &prepared) {
            // SAFETY: the buffers are live and as long as the calls say; there are no tables that a kernel could write.
            unsafe { call.launch(gpu.stream.as_stream())? };
        }
        results.push((gpu.download(&on_gpu.out)?, gpu.download(&on_gpu.state)?));
    }
    let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let [plain, early] = [0, 1].map(|i| (bits(&results[i].0), bits(&results[i].1)));
    println!("{STEPS} early steps give the bits of plain ones: {}", plain == early);
    if plain == early { Ok(()) } else { Err("the results differ".into()) }
}
