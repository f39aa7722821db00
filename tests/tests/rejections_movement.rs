//! Every argument that copies, commits, conversions and the unpacking of projections refuse, with its message.
//! Addresses are made up: nothing is launched.

use gdn_host::call::{split_ba, split_mixed_qkv, split_qkvz};
use gdn_host::plan::Overlap;
use gdn_host::{
    Caps, CommitState, ConvertLayout, CopyState, DType, HeadShape, Intermediate, Layout, Operation, Rows,
    SlotPool, StatePool, Table, Tensor, Tile, UnpackQkvz,
};
use gdn_tests::lies::survives;

const SHAPE: HeadShape = HeadShape { h: 2, hv: 4, k: 64, v: 128 };
const ELEMENTS: u64 = 4 * 64 * 128;
const N: u32 = 3;
const CAPS: Caps = Caps { sms: 132, compute: 90, memory_gbps: 3352 };

/// The `i`-th gigabyte of an address space.
fn tensor(i: u64, dtype: DType, len: u64) -> Tensor {
    Tensor { address: 0x7f00_0000_0000 + (i << 30), dtype, len }
}

fn table(i: u64) -> Table {
    Table::i32(tensor(i, DType::F32, 0).address, N.into())
}

fn pool(i: u64, layout: Layout) -> StatePool {
    StatePool { tensor: tensor(i, DType::Bf16, 5 * ELEMENTS), slots: 5, pitch: ELEMENTS, layout }
}

fn copy() -> CopyState {
    CopyState {
        copies: N,
        elements: ELEMENTS,
        source: pool(0, Layout::Vk).into(),
        source_slots: Some(table(1)),
        target: pool(2, Layout::Vk).into(),
        target_slots: Some(table(3)),
        null_slot: None,
    }
}

fn commit() -> CommitState {
    let buffer = tensor(0, DType::Bf16, 3 * 2 * ELEMENTS);
    CommitState {
        shape: SHAPE,
        batch: N,
        intermediate: Intermediate::new(buffer, 3, 2, 2 * ELEMENTS),
        accepted: table(1),
        state: pool(2, Layout::Kv),
        slots: Some(table(3)),
        null_slot: None,
    }
}

fn convert() -> ConvertLayout {
    ConvertLayout {
        shape: SHAPE,
        copies: N,
        source: pool(0, Layout::Vk),
        source_slots: None,
        target: pool(1, Layout::Kv),
        target_slots: Some(table(2)),
        null_slot: Some(0),
    }
}

fn unpack() -> UnpackQkvz {
    let rows = |i, dtype, width| Rows { tensor: tensor(i, dtype, u64::from(N) * width), stride: width };
    UnpackQkvz {
        shape: SHAPE,
        tokens: N,
        qkvz: rows(0, DType::Bf16, 1280),
        ba: rows(1, DType::F32, 8),
        mixed_qkv: rows(2, DType::Bf16, 768),
        z: rows(3, DType::Bf16, 512),
        b: rows(4, DType::F32, 4),
        a: rows(5, DType::F32, 4),
    }
}

/// What a changed call is refused with.
#[track_caller]
fn refusal<C: Operation>(mut call: C, change: impl FnOnce(&mut C)) -> String {
    change(&mut call);
    call.check().expect_err("the call was accepted").to_string()
}

#[test]
fn valid_calls_are_accepted() {
    copy().check().unwrap();
    commit().check().unwrap();
    convert().check().unwrap();
    unpack().check().unwrap();
}

#[test]
fn copies_refuse_bad_memory() {
    let refusal = |change: fn(&mut CopyState)| refusal(copy(), change);
    assert_eq!(refusal(|c| c.source.tensor.address = 0), "source: the address is null");
    assert_eq!(refusal(|c| c.target.tensor.address = 0), "target: the address is null");
    assert!(refusal(|c| c.target.tensor.address += 8).ends_with("is not aligned to 16 bytes"));
    assert_eq!(refusal(|c| c.source_slots = Some(Table::i32(0, 3))), "source_slots: the address is null");
    let slots = refusal(|c| c.target_slots = Some(Table { len: 2, ..table(3) }));
    assert_eq!(slots, "target_slots: has 2 rows, the call needs 3");
    assert!(
        refusal(|c| c.source.slots = 6).starts_with("source: has 163840 elements, the call touches 196608")
    );
    assert!(refusal(|c| c.target.slots = 0).starts_with("target: 0 is not allowed, it must be a pool of"));
    assert!(refusal(|c| c.target.pitch -= 8).starts_with("target: stride 32760 is outside 32768..="));
    let pitch = refusal(|c| {
        c.source.pitch += 4;
        c.source.tensor.len *= 2;
    });
    assert_eq!(pitch, "source: stride of 32772 elements (65544 bytes) is not a multiple of 16 bytes");
}

#[test]
fn copies_refuse_what_does_not_go_together() {
    let refusal = |change: fn(&mut CopyState)| refusal(copy(), change);
    let dtype = refusal(|c| c.target.tensor.dtype = DType::F16);
    assert_eq!(dtype, "target: type f16 does not fit, expected the type of the source");
    let layout = refusal(|c| c.target.layout = Some(Layout::Kv));
    assert_eq!(layout, "target: it has another layout than the source: ConvertLayout transposes");
    let want = "it must be a multiple of 16 bytes, and 1 to 2^32 - 1 elements";
    assert_eq!(refusal(|c| c.elements = 12), format!("elements: 12 is not allowed, {want}"));
    assert_eq!(refusal(|c| c.elements = 0), format!("elements: 0 is not allowed, {want}"));
    assert!(refusal(|c| c.elements = 1 << 32).starts_with("elements: 4294967296 is not allowed"));
    assert!(refusal(|c| c.elements = u64::MAX).starts_with("elements: 18446744073709552000 is not allowed"));
    assert!(refusal(|c| c.null_slot = Some(-1)).starts_with("null_slot: -1 is not allowed"));
    let few = refusal(|c| {
        c.source_slots = None;
        c.source.slots = 2;
    });
    let want = "it must be at least the number of copies where no table names slots";
    assert_eq!(few, format!("source: 2 is not allowed, {want}"));
    // Windows of a convolution say nothing of layouts.
    let mut call = copy();
    (call.source.layout, call.target.layout) = (None, Some(Layout::Kv));
    call.check().unwrap();
}

#[test]
fn copies_within_one_pool_need_a_table() {
    let mut call = CopyState { target: copy().source, ..copy() };
    call.check().unwrap();
    assert_eq!(call.extents().iter().filter(|e| e.written).count(), 1);
    call.source_slots = None;
    call.check().unwrap();
    call.target_slots = None;
    let text = "target_slots: within one pool and without tables every slot is copied onto itself";
    assert_eq!(call.check().unwrap_err().to_string(), text);
}

#[test]
fn pools_that_overlap_in_part() {
    let copied = |change: fn(&mut CopyState)| refusal(copy(), change);
    let shifted = copied(|c| c.target.tensor.address = c.source.tensor.address + 2 * ELEMENTS);
    assert_eq!(shifted, "target: shares memory with source");
    // Fewer slots of the same pool: the pool must be stated the same way on both sides.
    let fewer = copied(|c| c.target = SlotPool { slots: 3, ..c.source });
    assert_eq!(fewer, "target: shares memory with source");
    let table = copied(|c| c.source_slots = Some(Table::i32(c.target.tensor.address, 3)));
    assert_eq!(table, "target: shares memory with source_slots");
    let in_place = refusal(convert(), |c| c.target.tensor.address = c.source.tensor.address);
    assert_eq!(in_place, "target: shares memory with source");
    let buffer = refusal(commit(), |c| c.state.tensor.address = c.intermediate.tensor.address + 4096);
    assert_eq!(buffer, "state: shares memory with intermediate");
    let accepted = refusal(commit(), |c| c.accepted.address = c.state.tensor.address);
    assert_eq!(accepted, "state: shares memory with accepted");

    // Layers that interleave in one page are pools apart.
    let mut call = copy();
    for pool in [&mut call.source, &mut call.target] {
        (pool.pitch, pool.tensor.len) = (2 * ELEMENTS, 9 * ELEMENTS);
    }
    call.target.tensor.address = call.source.tensor.address + 2 * ELEMENTS;
    call.check().unwrap();
    call.target.tensor.address -= 16;
    assert_eq!(call.check().unwrap_err().to_string(), "target: shares memory with source");
}

#[test]
fn commits_refuse_bad_arguments() {
    let refusal = |change: fn(&mut CommitState)| refusal(commit(), change);
    assert_eq!(refusal(|c| c.intermediate.tensor.address = 0), "intermediate: the address is null");
    assert_eq!(refusal(|c| c.accepted.address = 0), "accepted: the address is null");
    assert_eq!(refusal(|c| c.state.tensor.address = 0), "state: the address is null");
    assert_eq!(refusal(|c| c.accepted.len = 4), "accepted: has 4 rows, the call needs 3");
    let slots = refusal(|c| c.slots = Some(Table { len: 1, ..table(3) }));
    assert_eq!(slots, "slots: has 1 rows, the call needs 3");
    let row = refusal(|c| c.intermediate.row = Some(Table { len: 1, ..table(4) }));
    assert_eq!(row, "intermediate.row: has 1 rows, the call needs 3");
    assert!(refusal(|c| c.intermediate.steps = 0).starts_with("intermediate.steps: 0 is not allowed"));
    assert!(refusal(|c| c.intermediate.rows = 0).starts_with("intermediate.rows: 0 is not allowed"));
    let want = "it must be at least the number of copies where no table names slots";
    assert_eq!(refusal(|c| c.intermediate.rows = 2), format!("intermediate.rows: 2 is not allowed, {want}"));
    assert!(
        refusal(|c| c.intermediate.steps = 3).starts_with("intermediate: stride 65536 is outside 98304..=")
    );
    assert!(refusal(|c| c.intermediate.tensor.len -= 1).starts_with("intermediate: has 196607 elements"));
    let few = refusal(|c| (c.slots, c.state.slots) = (None, 2));
    assert_eq!(few, format!("state: 2 is not allowed, {want}"));
    let dtype = refusal(|c| c.state.tensor.dtype = DType::F16);
    assert_eq!(dtype, "state: type f16 does not fit, expected the type of the intermediate states");
    assert!(refusal(|c| c.null_slot = Some(i32::MIN)).starts_with("null_slot: -2147483648 is not allowed"));
    assert_eq!(refusal(|c| c.shape.hv = 5), "shape: hv = 5 is not a multiple of h = 2");
}

#[test]
fn conversions_refuse_bad_arguments() {
    let refusal = |change: fn(&mut ConvertLayout)| refusal(convert(), change);
    let both = |layout| format!("target: source and target both have the layout {layout}: CopyState copies");
    assert_eq!(refusal(|c| c.target.layout = Layout::Vk), both("VK"));
    assert_eq!(refusal(|c| c.source.layout = Layout::Kv), both("KV"));
    let dtype = refusal(|c| c.target.tensor.dtype = DType::F32);
    assert_eq!(dtype, "target: type f32 does not fit, expected the type of the source");
    assert!(refusal(|c| c.source.tensor.address += 4).ends_with("is not aligned to 16 bytes"));
    assert!(refusal(|c| c.source.tensor.len -= 1).starts_with("source: has 163839 elements"));
    assert!(refusal(|c| c.source.slots = 2).starts_with("source: 2 is not allowed, it must be at least"));
    assert!(
        refusal(|c| c.target_slots = Some(Table { len: 9, ..table(2) })).starts_with("target_slots: has 9")
    );
    assert!(refusal(|c| c.null_slot = Some(-7)).starts_with("null_slot: -7 is not allowed"));
    assert!(refusal(|c| c.shape.k = 97).starts_with("shape: k = 97 is not supported"));
}

#[test]
fn projections_refuse_bad_arguments() {
    let refusal = |change: fn(&mut UnpackQkvz)| refusal(unpack(), change);
    assert_eq!(refusal(|c| c.qkvz.tensor.address = 0), "qkvz: the address is null");
    assert!(refusal(|c| c.z.tensor.address += 8).ends_with("is not aligned to 16 bytes"));
    assert!(refusal(|c| c.b.tensor.address += 2).ends_with("is not aligned to 4 bytes"));
    let stride = refusal(|c| c.mixed_qkv.stride = 772);
    assert_eq!(stride, "mixed_qkv: stride of 772 elements (1544 bytes) is not a multiple of 16 bytes");
    assert!(refusal(|c| c.qkvz.stride = 1272).starts_with("qkvz: stride 1272 is outside 1280..="));
    assert!(refusal(|c| c.ba.stride = 7).starts_with("ba: stride 7 is outside 8..="));
    assert_eq!(refusal(|c| c.a.tensor.len = 11), "a: has 11 elements, the call touches 12");
    let z = refusal(|c| c.z.tensor.dtype = DType::F32);
    assert_eq!(z, "z: type f32 does not fit, expected the type of qkvz");
    assert!(refusal(|c| c.mixed_qkv.tensor.dtype = DType::F16).starts_with("mixed_qkv: type f16"));
    let b = refusal(|c| c.b.tensor.dtype = DType::Bf16);
    assert_eq!(b, "b: type bf16 does not fit, expected the type of ba");
    assert!(refusal(|c| c.a.tensor.dtype = DType::F16).starts_with("a: type f16"));
    assert_eq!(refusal(|c| c.z.tensor.address = c.qkvz.tensor.address), "z: shares memory with qkvz");
    assert_eq!(refusal(|c| c.a.tensor.address = c.b.tensor.address + 16), "b: shares memory with a");
    assert_eq!(refusal(|c| c.shape.h = 3), "shape: hv = 4 is not a multiple of h = 3");
}

#[test]
fn nothing_to_do_needs_no_memory() {
    let null = Tensor { address: 0, dtype: DType::Bf16, len: 0 };
    let mut call = copy();
    (call.copies, call.source.tensor) = (0, null);
    call.check().unwrap();
    let mut call = commit();
    (call.batch, call.state.tensor) = (0, null);
    call.check().unwrap();
    let mut call = convert();
    (call.copies, call.target.tensor) = (0, null);
    call.check().unwrap();
    let mut call = unpack();
    (call.tokens, call.qkvz.tensor) = (0, null);
    call.check().unwrap();
}

#[test]
fn tiles_of_rows_do_not_exist() {
    let calls: [(&str, &dyn Operation); 4] = [
        ("copy_state", &copy()),
        ("copy_state", &commit()),
        ("convert_layout", &convert()),
        ("unpack_qkvz", &unpack()),
    ];
    for (op, call) in calls {
        let text =
            format!("tile: {op} has none: take Tile::Auto, or Tile::Exact with 0 rows and 1 to 8 warps");
        for tile in [Tile::Rows(16), Tile::Exact { rows: 2, warps: 4 }, Tile::Exact { rows: 0, warps: 9 }] {
            assert_eq!(call.plan(&CAPS, tile).unwrap_err().to_string(), text);
        }
        let plan = call.plan(&CAPS, Tile::Exact { rows: 0, warps: 8 }).unwrap();
        assert_eq!((plan.warps, plan.rows, plan.bv), (8, 0, 0));
        let overlap = if op == "unpack_qkvz" { Overlap::Start } else { Overlap::Never };
        assert_eq!((call.overlap(), plan.early), (overlap, false));
    }
    assert_eq!(convert().plan(&CAPS, Tile::Auto).unwrap().entry(), "gdn_convert_layout_bf16");
}

#[test]
fn rows_of_qwen3_5_split_into_views() {
    let width = 1280 + 8;
    let qkvz = Rows { tensor: tensor(0, DType::Bf16, 2 * width), stride: width };
    let (mixed, z) = split_qkvz(&qkvz, &SHAPE);
    let (_, k, v) = split_mixed_qkv(&mixed, &SHAPE);
    let at = |rows: Rows| (rows.tensor.address - qkvz.tensor.address, rows.tensor.len, rows.stride);
    assert_eq!(at(mixed), (0, 2 * width, width));
    assert_eq!(at(k.0), (2 * 128, 2 * width - 128, width));
    assert_eq!(at(v.0), (2 * 256, 2 * width - 256, width));
    assert_eq!(at(z), (2 * 768, 2 * width - 768, width));
    let ba = Rows { tensor: tensor(1, DType::F32, 16), stride: 8 };
    let (b, a) = split_ba(&ba, &SHAPE);
    assert_eq!((b.tensor.address, b.tensor.len, b.stride), (ba.tensor.address, 16, 8));
    assert_eq!((a.tensor.address, a.tensor.len, a.stride), (ba.tensor.address + 16, 12, 8));
}

#[test]
fn numbers_that_lie() {
    survives(&copy());
    survives(&commit());
    survives(&convert());
    survives(&unpack());
}
