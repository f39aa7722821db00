//! What this crate adds to a launch before the driver is called: check, plan and parameters. No GPU needed:
//! `cargo bench -p gdn-host`.

use divan::{Bencher, black_box};
use gdn_host::{
    ALog, Caps, DType, Decode, DtBias, HeadShape, Inputs, Key, Logits, Operation, Query, Rows, Softplus,
    StatePool, Table, Tensor, Tile, Value,
};

/// A layer of Qwen3-Next for two sequences, on made-up addresses, a gigabyte apart.
fn call() -> Decode {
    let mut next = 0x7f00_0000_0000;
    let mut address = || {
        next += 1 << 30;
        next
    };
    let shape = HeadShape { h: 16, hv: 32, k: 128, v: 128 };
    let mut rows = |width| Rows::packed(address(), DType::Bf16, 2, width);
    let (keys, values) = (shape.key_elements(), shape.value_elements());
    let (q, k, v) = (Query(rows(keys)), Key(rows(keys)), Value(rows(values)));
    let (a, b, out) = (rows(32), rows(32), rows(values));
    let mut table = || Tensor::new(address(), DType::F32, 32);
    let decay = Softplus::new(a, ALog(table()), DtBias(table()));
    let pool = StatePool::packed(address(), DType::F32, 8, &shape);
    Decode::new(Inputs::gdn(shape, q, k, v, decay, Logits::new(b)), 2, pool, out)
        .with_slots(Table::i32(address(), 2))
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
