//! Convolution, decode and norm, a whole step of a layer: `cargo run --release -p gdn-host --example 04_layer`
//!
//! The convolution writes one packed row a token, `[q | k | v]`. The decode takes it as three views, and nothing is
//! copied between the three launches.

mod common;
#[path = "common/step.rs"]
mod step;

use common::{Gpu, judge, states};
use gdn_host::Launch;
use step::Step;

fn main() -> common::Outcome {
    let gpu = Gpu::open();
    let gdn = step::load()?;
    let step = Step::new(2);
    let on_gpu = step.upload(&gpu, &states(2))?;
    for call in on_gpu.calls() {
        // SAFETY: the buffers are live and as long as the calls say, and all work on them is queued on one stream.
        unsafe { gdn.run_with(call.as_ref(), Launch::default(), gpu.stream.as_stream())? };
    }
    let want = step.oracle(&states(2));
    judge("outputs of the layer", &gpu.download(&on_gpu.out)?, &want.out)?;
    judge("states", &gpu.download(&on_gpu.state)?, &want.state)?;
    judge("windows of the convolution", &gpu.download(&on_gpu.windows)?, &want.windows)?;
    Ok(())
}
