//! What this crate adds to a launch before the driver is called: check, plan and parameters. No GPU needed:
//! `cargo bench -p gdn-host`.

#[path = "../examples/common/mod.rs"]
#[allow(dead_code)]
mod common;

use divan::{Bencher, black_box};
use gdn_host::{Caps, DType, Decode, Operation, Table, Tensor, Tile};

/// A call on made-up addresses, a gigabyte apart.
fn call() -> Decode {
    let mut next = 0x7f00_0000_0000;
    let mut tensor = |dtype| {
        next += 1 << 30;
        Tensor { address: next, dtype, len: 1 << 27 }
    };
    let mut bf16 = || tensor(DType::Bf16);
    let (q, k, v, a, b, out) = (bf16(), bf16(), bf16(), bf16(), bf16(), bf16());
    let (a_log, dt_bias, state) = (tensor(DType::F32), tensor(DType::F32), tensor(DType::F32));
    let slots = Table::i32(tensor(DType::F32).address, common::BATCH as u64);
    common::call(&common::Tensors { q, k, v, a, b, a_log, dt_bias, state, slots, out })
}

fn main() {
    divan::main();
}

#[divan::bench]
fn check(bencher: Bencher) {
    let call = call();
    bencher.bench_local(|| black_box(&call).check());
}

#[divan::bench]
fn check_plan_and_parameters(bencher: Bencher) {
    let call = call();
    let caps = Caps { sms: 132, compute: 90, memory_gbps: 3352 };
    bencher.bench_local(|| {
        let call = black_box(&call);
        call.check()?;
        let plan = call.plan(&caps, Tile::Auto)?;
        Ok::<_, Box<dyn std::error::Error>>(call.params(&plan))
    });
}
