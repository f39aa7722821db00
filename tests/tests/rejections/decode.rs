//! Decode, and with it everything that the inputs of all calls are refused for.

use crate::calls::{self, BATCH, SHAPE, refused};
use gdn_host::{
    ALog, Beta, DType, Decay, Decode, DtBias, Entry, Family, Layout, Logits, LowerBound, Operation, Rows,
    Softplus, Start, Table, Tensor, call,
};

fn valid() -> Decode {
    calls::decode()
}

/// What a changed call is refused with.
#[track_caller]
fn refusal(change: impl FnOnce(&mut Decode)) -> String {
    refused(valid(), change)
}

fn softplus(call: &mut Decode) -> &mut Softplus {
    calls::softplus(&mut call.inputs)
}

fn logits(call: &mut Decode) -> &mut Rows {
    calls::beta(&mut call.inputs)
}

fn slots(call: &mut Decode) -> &mut Table {
    call.slots.as_mut().unwrap()
}

#[test]
fn valid_call_is_accepted() {
    valid().check().unwrap();
}

#[test]
fn null_addresses() {
    assert_eq!(refusal(|c| c.inputs.q.tensor.address = 0), "q: the address is null");
    assert_eq!(refusal(|c| c.inputs.k.tensor.address = 0), "k: the address is null");
    assert_eq!(refusal(|c| c.inputs.v.tensor.address = 0), "v: the address is null");
    assert_eq!(refusal(|c| softplus(c).a.tensor.address = 0), "decay.a: the address is null");
    assert_eq!(
        refusal(|c| softplus(c).a_log.as_mut().unwrap().address = 0),
        "decay.a_log: the address is null"
    );
    assert_eq!(
        refusal(|c| softplus(c).dt_bias.as_mut().unwrap().address = 0),
        "decay.dt_bias: the address is null"
    );
    assert_eq!(refusal(|c| logits(c).tensor.address = 0), "beta.b: the address is null");
    assert_eq!(refusal(|c| c.out.tensor.address = 0), "out: the address is null");
    assert_eq!(refusal(|c| c.state.tensor.address = 0), "state: the address is null");
    assert_eq!(refusal(|c| slots(c).address = 0), "slots: the address is null");
    let null = Table::i32(0, BATCH);
    assert_eq!(refusal(|c| c.write_slots = Some(null)), "write_slots: the address is null");
    assert_eq!(refusal(|c| c.start = Start::Reset(null)), "start: the address is null");
    let given = |c: &mut Decode| {
        let mut g = softplus(c).a;
        g.tensor.address = 0;
        c.inputs.decay = Decay::Given(g);
    };
    assert_eq!(refusal(given), "decay.given: the address is null");
    let beta = |c: &mut Decode| {
        let mut b = *logits(c);
        b.tensor.address = 0;
        c.inputs.beta = Beta::Given(b);
    };
    assert_eq!(refusal(beta), "beta.given: the address is null");
}

#[test]
fn misaligned_addresses() {
    let q = refusal(|c| c.inputs.q.tensor.address += 8);
    assert_eq!(q, "q: address 0x7f0040000008 is not aligned to 16 bytes");
    assert!(refusal(|c| c.inputs.k.tensor.address += 2).ends_with("is not aligned to 16 bytes"));
    assert!(refusal(|c| c.state.tensor.address += 4).starts_with("state: address 0x7f"));
    assert!(refusal(|c| c.inputs.v.tensor.address += 1).ends_with("is not aligned to 2 bytes"));
    assert!(refusal(|c| c.out.tensor.address += 1).starts_with("out: address"));
    assert!(
        refusal(|c| softplus(c).a_log.as_mut().unwrap().address += 2).ends_with("is not aligned to 4 bytes")
    );
    assert!(refusal(|c| slots(c).address += 2).starts_with("slots: address"));
    let odd = Table::i32(0x7f01_0000_0002, BATCH);
    assert!(refusal(|c| c.write_slots = Some(odd)).ends_with("is not aligned to 4 bytes"));
}

#[test]
fn strides() {
    let q = refusal(|c| c.inputs.q.stride = 260);
    assert_eq!(q, "q: stride of 260 elements (520 bytes) is not a multiple of 16 bytes");
    assert_eq!(refusal(|c| c.inputs.k.stride = 255), "k: stride 255 is outside 256..=4294967295 elements");
    assert!(refusal(|c| c.inputs.v.stride = 511).starts_with("v: stride 511 is outside 512..="));
    assert!(refusal(|c| softplus(c).a.stride = 3).starts_with("decay.a: stride 3 is outside 4..="));
    assert!(refusal(|c| logits(c).stride = 0).starts_with("beta.b: stride 0 is outside 4..="));
    assert!(refusal(|c| c.out.stride = 1).starts_with("out: stride 1 is outside 512..="));
    assert!(refusal(|c| c.inputs.q.stride = 1 << 33).starts_with("q: stride 8589934592 is outside"));
    assert!(refusal(|c| c.state.pitch -= 4).starts_with("state: stride 65532 is outside 65536..="));
    let pitch = refusal(|c| {
        c.state.pitch += 2;
        c.state.tensor.len *= 2;
    });
    assert_eq!(pitch, "state: stride of 65538 elements (262152 bytes) is not a multiple of 16 bytes");
}

#[test]
fn one_row_needs_no_stride() {
    let mut call = valid();
    call.batch = 1;
    slots(&mut call).len = 1;
    for rows in [&mut call.inputs.q, &mut call.inputs.k, &mut call.inputs.v, &mut call.out] {
        rows.stride = 0;
    }
    call.check().unwrap();
}

#[test]
fn lengths() {
    assert_eq!(refusal(|c| c.inputs.q.tensor.len -= 1), "q: has 767 elements, the call touches 768");
    assert!(refusal(|c| c.inputs.v.tensor.len = 0).starts_with("v: has 0 elements"));
    assert!(refusal(|c| c.inputs.v.stride = 600).starts_with("v: has 1536 elements, the call touches 1712"));
    assert!(
        refusal(|c| softplus(c).a_log.as_mut().unwrap().len = 3).starts_with("decay.a_log: has 3 elements")
    );
    assert!(
        refusal(|c| softplus(c).dt_bias.as_mut().unwrap().len = 1)
            .starts_with("decay.dt_bias: has 1 elements")
    );
    assert!(refusal(|c| c.out.tensor.len -= 1).starts_with("out: has 1535 elements"));
    assert!(
        refusal(|c| c.state.slots = 6).starts_with("state: has 327680 elements, the call touches 393216")
    );
    assert_eq!(refusal(|c| slots(c).len = 2), "slots: has 2 rows, the call needs 3");
    assert_eq!(refusal(|c| slots(c).len = 4), "slots: has 4 rows, the call needs 3");
    let short = Table::i32(0x7f01_0000_0000, 1);
    assert!(refusal(|c| c.write_slots = Some(short)).starts_with("write_slots: has 1 rows"));
    assert!(refusal(|c| c.start = Start::Reset(short)).starts_with("start: has 1 rows"));
    assert!(refusal(|c| c.start = Start::HasInitialState(short)).starts_with("start: has 1 rows"));
}

#[test]
fn types() {
    let k = refusal(|c| c.inputs.k.tensor.dtype = DType::F16);
    assert_eq!(k, "k: type f16 does not fit, expected the type of q");
    assert!(refusal(|c| c.inputs.v.tensor.dtype = DType::F32).starts_with("v: type f32 does not fit"));
    let out = refusal(|c| c.out.tensor.dtype = DType::F16);
    assert_eq!(out, "out: type f16 does not fit, expected the type of q, or f32");
}

/// A state in f32, in the type of q, or in f16 under bf16 has kernels everywhere with K = 64 and 128; other pairs of types are
/// in layout VK with K = 128. K = 96 and 256 are for GDN, with f32 and bf16.
#[test]
fn pairs_of_types() {
    let state = |dtype: DType, layout: Layout, family: Family| {
        move |c: &mut Decode| {
            (c.state.tensor.dtype, c.state.layout) = (dtype, layout);
            c.inputs.family = family;
            c.inputs.decay = Decay::Given(calls::elsewhere().rows(DType::F32, BATCH, 4 * 128));
        }
    };
    let all = [DType::F32, DType::Bf16, DType::F16];
    let kinds = [Layout::Vk, Layout::Kv].into_iter().flat_map(|l| [(l, Family::Gdn), (l, Family::Kda)]);
    for (dtype, (layout, family)) in kinds.flat_map(|kind| all.map(|dtype| (dtype, kind))) {
        let change = state(dtype, layout, family);
        let mut call = valid();
        change(&mut call);
        call.check().unwrap();
        // Under f16 a bf16 state is one of the other pairs.
        let under_f16 = |k: u32| {
            move |c: &mut Decode| {
                change(c);
                c.inputs.shape.k = k;
                for rows in [&mut c.inputs.q, &mut c.inputs.k, &mut c.inputs.v, &mut c.out] {
                    rows.tensor.dtype = DType::F16;
                }
            }
        };
        for k in [64, 128] {
            if dtype == DType::Bf16 && (layout == Layout::Kv || family == Family::Kda && k == 64) {
                assert_eq!(refusal(under_f16(k)), format!("state: type bf16 does not fit, expected {WANT}"));
            } else {
                let mut call = valid();
                under_f16(k)(&mut call);
                call.check().unwrap();
            }
        }
    }
    let of_k = |k: u32, io: DType, state: DType, family: Family| {
        refusal(|c| {
            (c.inputs.shape.k, c.inputs.family, c.state.tensor.dtype) = (k, family, state);
            for rows in [&mut c.inputs.q, &mut c.inputs.k, &mut c.inputs.v] {
                rows.tensor.dtype = io;
            }
        })
    };
    let (f32, bf16, f16) = (DType::F32, DType::Bf16, DType::F16);
    let (gdn, kda) = (Family::Gdn, Family::Kda);
    assert_eq!(of_k(96, bf16, f32, kda), "family: KDA has kernels for K = 64 and 128 only");
    assert_eq!(of_k(96, f16, f32, gdn), "q: type f16 does not fit, expected f32 or bf16, with this K");
    let text = "state: type f16 does not fit, expected f32 or bf16, with q in bf16 and this K";
    assert_eq!(of_k(256, bf16, f16, gdn), text);
    let text = "state: type bf16 does not fit, expected f32, with q in f32 and this K";
    assert_eq!(of_k(256, f32, bf16, gdn), text);
}

/// What a state may be with K = 64 and 128.
const WANT: &str = "f32, the type of q, or f16 with q in bf16; of any type in layout VK with K = 128";

#[test]
fn values() {
    let scale = refusal(|c| c.inputs.scale = Some(f32::INFINITY));
    assert_eq!(scale, "scale: inf is not allowed, it must be finite");
    assert!(refusal(|c| c.inputs.scale = Some(f32::NAN)).starts_with("scale: NaN"));
    assert_eq!(
        refusal(|c| c.inputs.l2norm = Some(0.0)),
        "l2norm: 0 is not allowed, it must be a positive eps"
    );
    assert!(refusal(|c| c.inputs.l2norm = Some(-1e-6)).starts_with("l2norm: -"));
    assert!(refusal(|c| softplus(c).threshold = f32::NAN).starts_with("decay.threshold: NaN"));
    assert!(refusal(|c| softplus(c).threshold = -1.0).starts_with("decay.threshold: -1"));
    let bound = |bound| {
        move |c: &mut Decode| {
            let gate = *softplus(c);
            c.inputs.decay =
                LowerBound::new(gate.a, gate.a_log.map(ALog), gate.dt_bias.map(DtBias), bound).into();
        }
    };
    let beta = "is not allowed, it must be positive, and 2^-126 to 2^126";
    assert_eq!(refusal(|c| softplus(c).beta = 0.0), format!("decay.beta: 0 {beta}"));
    assert!(refusal(|c| softplus(c).beta = -1.0).starts_with("decay.beta: -1"));
    assert!(refusal(|c| softplus(c).beta = f32::NAN).starts_with("decay.beta: NaN"));
    assert!(refusal(|c| softplus(c).beta = f32::INFINITY).starts_with("decay.beta: inf"));
    let scale =
        |scale| move |c: &mut Decode| c.inputs.beta = Logits::new(*logits(c)).with_scale(scale).into();
    assert_eq!(refusal(scale(f32::NAN)), "beta.scale: NaN is not allowed, it must be finite");
    assert!(refusal(scale(f32::INFINITY)).starts_with("beta.scale: inf"));
    let text = "decay.bound: 0.5 is not allowed, it must be finite and not positive";
    assert_eq!(refusal(bound(0.5)), text);
    assert!(refusal(bound(f32::NEG_INFINITY)).starts_with("decay.bound: -inf"));
    assert!(refusal(bound(f32::NAN)).starts_with("decay.bound: NaN"));
    assert!(refusal(|c| c.null_slot = Some(-1)).starts_with("null_slot: -1 is not allowed"));
    assert!(refusal(|c| c.state.slots = 0).starts_with("state: 0 is not allowed, it must be a pool of 1 to"));
    assert!(refusal(|c| c.state.slots = 1 << 31).starts_with("state: 2147483648 is not"));
}

#[test]
fn beta_for_each_row() {
    let per_value = |len: u64, stride: u64| {
        move |c: &mut Decode| {
            let tensor = calls::elsewhere().tensor(DType::F32, len);
            c.inputs.beta = Beta::GivenPerValue(Rows { tensor, stride });
        }
    };
    let mut call = valid();
    per_value(3 * 512, 512)(&mut call);
    call.check().unwrap();
    assert!(refusal(per_value(3 * 512, 4)).starts_with("beta.given: stride 4 is outside 512..="));
    assert_eq!(refusal(per_value(1535, 512)), "beta.given: has 1535 elements, the call touches 1536");
}

#[test]
fn shapes() {
    assert_eq!(refusal(|c| c.inputs.shape.hv = 5), "shape: hv = 5 is not a multiple of h = 2");
    assert!(refusal(|c| c.inputs.shape.k = 112).starts_with("shape: k = 112 is not supported"));
    assert_eq!(refusal(|c| c.inputs.shape.h = 0), "shape: h is 0: there must be at least one head");
}

#[test]
fn overlapping_buffers() {
    let same = refusal(|c| c.out.tensor.address = c.inputs.v.tensor.address);
    assert_eq!(same, "out: shares memory with v");
    assert_eq!(
        refusal(|c| c.out.tensor.address = c.state.tensor.address + 4096),
        "state: shares memory with out"
    );
    let slots = refusal(|c| slots(c).address = c.state.tensor.address);
    assert_eq!(slots, "state: shares memory with slots");
    let touching = refusal(|c| c.inputs.q.tensor.address = c.out.tensor.address - 768 * 2 + 16);
    assert_eq!(touching, "out: shares memory with q");
}

#[test]
fn rows_that_interleave_do_not_overlap() {
    let mut call = valid();
    // out in the columns behind v of one wide row.
    (call.inputs.v.stride, call.inputs.v.tensor.len) = (1024, 3 * 1024);
    (call.out.stride, call.out.tensor.len) = (1024, 2 * 1024 + 512);
    call.out.tensor.address = call.inputs.v.tensor.address + 512 * 2;
    call.check().unwrap();
    call.out.tensor.address -= 2;
    assert_eq!(call.check().unwrap_err().to_string(), "out: shares memory with v");
    // In front of them, wrapping around the row.
    call.out.tensor.address = call.inputs.v.tensor.address - 512 * 2;
    call.check().unwrap();
    call.out.tensor.address += 2;
    assert_eq!(call.check().unwrap_err().to_string(), "out: shares memory with v");
}

#[test]
fn empty_batch_needs_no_memory() {
    let mut call = valid();
    call.batch = 0;
    call.inputs.q.tensor.address = 0;
    call.check().unwrap();
}

#[test]
fn packed_row_splits_into_views() {
    let width = 2 * 256 + 512 + 8;
    let tensor = Tensor { address: 0x7f00_0000_0000, dtype: DType::Bf16, len: BATCH * width };
    let (q, k, v) = call::split_mixed_qkv(&Rows { tensor, stride: width }, &SHAPE);
    let (q, k, v) = (q.0, k.0, v.0);
    assert_eq!([q.tensor.address, k.tensor.address, v.tensor.address].map(|a| a & 0xffff), [0, 512, 1024]);
    let mut call = valid();
    (call.inputs.q, call.inputs.k, call.inputs.v) = (q, k, v);
    call.check().unwrap();
    call.inputs.v.tensor.len -= 9;
    assert!(call.check().unwrap_err().to_string().starts_with("v: has"));
}

/// A table whose entries are of a type that its field does not take, and rows that overlap.
#[test]
fn types_and_strides_of_tables() {
    let index = "type u8 does not fit, expected i32, u32 or i64";
    assert_eq!(refusal(|c| slots(c).entry = Entry::U8), format!("slots: {index}"));
    let bytes = Table::bytes(0x7f01_0000_0000, BATCH);
    assert_eq!(refusal(|c| c.write_slots = Some(bytes)), format!("write_slots: {index}"));
    let wide = Table { entry: Entry::I64, ..bytes };
    let flag = "start: type i64 does not fit, expected u8, i32 or u32";
    assert_eq!(refusal(|c| c.start = Start::Reset(wide)), flag);
    assert_eq!(refusal(|c| c.start = Start::HasInitialState(wide)), flag);
    assert_eq!(refusal(|c| slots(c).stride = 0), "slots: stride 0 is outside 1..=1073741823 elements");
    assert!(refusal(|c| slots(c).stride = 1 << 32).starts_with("slots: stride 4294967296 is outside"));
    let two = refusal(|c| *slots(c) = slots(c).with_columns(2));
    assert_eq!(two, "slots: has rows of 2 entries, the call needs 1");
    let odd = refusal(|c| *slots(c) = Table::i64(0x7f01_0000_0004, BATCH));
    assert_eq!(odd, "slots: address 0x7f0100000004 is not aligned to 8 bytes");
    let mut call = valid();
    call.slots = Some(Table::i64(0x7f01_0000_0000, BATCH).with_stride(7));
    call.start = Start::Reset(Table::u32(0x7e02_0000_0000, BATCH).with_stride(1 << 29));
    call.check().unwrap();
}

/// Without a table sequence n is in slot n, so there must be one.
#[test]
fn pool_without_slots() {
    let mut call = valid();
    call.slots = None;
    call.check().unwrap();
    let few = refusal(|c| (c.slots, c.state.slots) = (None, 2));
    assert_eq!(few, "state: 2 is not allowed, it must be as many states as there are sequences");
}
