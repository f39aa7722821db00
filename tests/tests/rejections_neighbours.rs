//! Every argument that conv1d update and gated RMSNorm refuse, with its message. Addresses are made up: nothing is
//! launched.

use gdn_host::plan::Overlap;
use gdn_host::{
    Accepted, Caps, Conv1dUpdate, ConvPool, ConvTarget, DType, DraftWindows, GatedRmsNorm, Operation, Rows,
    Start, Table, Tensor, Tile, Tokens,
};
use gdn_tests::lies::survives;

const DIM: u64 = 64;
const BATCH: u64 = 3;
const TOKENS: u64 = 2;
const CAPS: Caps = Caps { sms: 132, compute: 90, memory_gbps: 3352 };

/// Memory of its own for each tensor.
struct Addresses(u64);

impl Addresses {
    fn tensor(&mut self, dtype: DType, len: u64) -> Tensor {
        self.0 += 1 << 30;
        Tensor { address: self.0, dtype, len }
    }

    fn rows(&mut self, dtype: DType, count: u64, width: u64) -> Rows {
        Rows { tensor: self.tensor(dtype, count * width), stride: width }
    }

    fn table(&mut self, len: u64) -> Table {
        Table::i32(self.tensor(DType::F32, 0).address, len)
    }
}

/// A conv1d update that is accepted, of a pool with taps contiguous.
fn conv() -> Conv1dUpdate {
    let mut at = Addresses(0x7f00_0000_0000);
    let tokens = Tokens::Each { batch: BATCH as u32, tokens: TOKENS as u32 };
    let (dim, steps) = (DIM as u32, TOKENS as u32);
    let (x, weight) = (at.rows(DType::Bf16, BATCH * TOKENS, DIM), at.tensor(DType::Bf16, DIM * 4));
    let bias = at.tensor(DType::F32, DIM);
    let state = ConvPool::taps_contiguous(at.tensor(DType::Bf16, 5 * DIM * 3), 5, dim, 3);
    let slots = at.table(BATCH);
    let buffer = DraftWindows::new(at.tensor(DType::Bf16, 4 * TOKENS * DIM * 3), 4, steps, dim, 4);
    let row = Some(at.table(BATCH));
    let out = at.rows(DType::Bf16, BATCH * TOKENS, DIM);
    let mut call = Conv1dUpdate::new(dim, 4, tokens, x, weight, state, out);
    (call.bias, call.slots) = (Some(bias), Some(slots));
    call.intermediate = Some(DraftWindows { row, ..buffer });
    call
}

/// A norm that is accepted.
fn norm() -> GatedRmsNorm {
    let mut at = Addresses(0x7f00_0000_0000);
    let (x, z) = (at.rows(DType::F32, BATCH, 512), at.rows(DType::Bf16, BATCH, 512));
    let (weight, out) = (at.tensor(DType::Bf16, 128), at.rows(DType::Bf16, BATCH, 512));
    GatedRmsNorm::new(4, 128, BATCH as u32, x, z, weight, out)
}

/// What a changed conv1d update is refused with.
#[track_caller]
fn refused(change: impl FnOnce(&mut Conv1dUpdate)) -> String {
    let mut call = conv();
    change(&mut call);
    call.check().expect_err("the call was accepted").to_string()
}

/// What a changed norm is refused with.
#[track_caller]
fn refused_norm(change: impl FnOnce(&mut GatedRmsNorm)) -> String {
    let mut call = norm();
    change(&mut call);
    call.check().expect_err("the call was accepted").to_string()
}

fn windows(call: &mut Conv1dUpdate) -> &mut DraftWindows {
    call.intermediate.as_mut().expect("the call has windows")
}

fn slots(call: &mut Conv1dUpdate) -> &mut Table {
    call.slots.as_mut().expect("the call has slots")
}

fn other_table() -> Table {
    Table::i32(0x7f10_0000_0000, BATCH)
}

#[test]
fn valid_calls_are_accepted() {
    conv().check().unwrap();
    norm().check().unwrap();
}

#[test]
fn null_and_misaligned_addresses() {
    assert_eq!(refused(|c| c.x.tensor.address = 0), "x: the address is null");
    assert_eq!(refused(|c| c.out.tensor.address = 0), "out: the address is null");
    assert_eq!(refused(|c| c.weight.address = 0), "weight: the address is null");
    assert_eq!(refused(|c| c.state.tensor.address = 0), "state: the address is null");
    assert_eq!(refused(|c| slots(c).address = 0), "slots: the address is null");
    assert_eq!(refused(|c| windows(c).tensor.address = 0), "intermediate: the address is null");
    let null = Table::i32(0, BATCH);
    assert_eq!(refused(|c| c.target = ConvTarget::Slots(null)), "target: the address is null");
    assert_eq!(refused(|c| c.target = ConvTarget::EachToken(null)), "target: the address is null");
    assert_eq!(refused(|c| c.start = Start::Reset(null)), "start: the address is null");
    assert_eq!(refused(|c| windows(c).row = Some(null)), "intermediate.row: the address is null");
    assert!(refused(|c| c.x.tensor.address += 1).ends_with("is not aligned to 2 bytes"));
    assert!(refused(|c| c.state.tensor.address += 1).starts_with("state: address 0x7f"));
    assert!(refused(|c| c.bias.as_mut().unwrap().address += 2).starts_with("bias: address"));
    assert!(refused(|c| slots(c).address += 2).starts_with("slots: address"));

    assert_eq!(refused_norm(|c| c.x.tensor.address = 0), "x: the address is null");
    assert_eq!(refused_norm(|c| c.weight.address = 0), "weight: the address is null");
    let aligned = "is not aligned to 16 bytes";
    assert!(refused_norm(|c| c.x.tensor.address += 8).ends_with(aligned));
    assert!(refused_norm(|c| c.z.tensor.address += 1).ends_with("is not aligned to 2 bytes"));
    assert!(refused_norm(|c| c.out.tensor.address += 8).ends_with(aligned));
    assert!(refused_norm(|c| c.weight.address += 4).starts_with("weight: address"));
}

#[test]
fn strides_and_lengths() {
    assert!(refused(|c| c.x.stride = 63).starts_with("x: stride 63 is outside 64..="));
    assert!(refused(|c| c.out.stride = 1 << 33).starts_with("out: stride 8589934592 is outside"));
    assert_eq!(refused(|c| c.x.tensor.len -= 1), "x: has 383 elements, the call touches 384");
    assert!(refused(|c| c.weight.len = 255).starts_with("weight: has 255 elements, the call touches 256"));
    assert!(refused(|c| c.bias.as_mut().unwrap().len = 1).starts_with("bias: has 1 elements"));
    assert!(refused(|c| slots(c).len = 2).starts_with("slots: has 2 rows"));
    assert!(
        refused(|c| c.accepted = Some(Accepted::Entry(Table { len: 1, ..other_table() })))
            .starts_with("state.len: 3")
    );
    assert!(refused(|c| windows(c).pitch -= 1).starts_with("intermediate: stride 383 is outside 384..="));
    assert!(refused(|c| windows(c).tensor.len -= 1).starts_with("intermediate: has 1535 elements"));
    assert!(
        refused(|c| windows(c).row = Some(Table { len: 4, ..other_table() })).starts_with("intermediate.row")
    );
    let parent = Table { len: 2, ..other_table() }.with_columns(TOKENS);
    assert!(refused(|c| c.parent = Some(parent)).starts_with("parent: has 2 rows, the call needs 3"));

    assert!(refused_norm(|c| c.z.stride = 511).starts_with("z: stride 511 is outside 512..="));
    let text = refused_norm(|c| c.out.stride = 516);
    assert_eq!(text, "out: stride of 516 elements (1032 bytes) is not a multiple of 16 bytes");
    assert!(refused_norm(|c| c.head_strides.x = Some(127)).starts_with("x: stride 127 is outside 128..="));
    assert!(
        refused_norm(|c| c.head_strides.z = Some(1 << 32)).starts_with("z: stride 4294967296 is outside")
    );
    // The stride of tokens holds the heads that are so far apart.
    assert!(
        refused_norm(|c| c.head_strides.out = Some(136)).starts_with("out: stride 512 is outside 536..=")
    );
    let text = refused_norm(|c| c.head_strides.x = Some(129));
    assert_eq!(text, "x: stride of 129 elements (516 bytes) is not a multiple of 16 bytes");
    assert!(refused_norm(|c| c.out.tensor.len -= 1).starts_with("out: has 1535 elements"));
    assert!(refused_norm(|c| c.weight.len = 64).starts_with("weight: has 64 elements"));
}

#[test]
fn layouts_of_the_pool() {
    let text = refused(|c| c.state.tap_stride = 2);
    assert_eq!(text, "state.tap_stride: 2 is not allowed, it must be 1, unless state.channel_stride is");
    let text = refused(|c| c.state.channel_stride = 2);
    assert!(text.starts_with("state.channel_stride: stride 2 is outside 3..="), "{text}");
    let text = refused(|c| (c.state.channel_stride, c.state.tap_stride) = (1, 63));
    assert!(text.starts_with("state.tap_stride: stride 63 is outside 64..="), "{text}");
    let text = refused(|c| (c.state.channel_stride, c.state.tap_stride) = (1, 1));
    assert!(text.starts_with("state.tap_stride: stride 1 is outside 64..="), "{text}");
    assert!(refused(|c| c.state.pitch -= 1).starts_with("state: stride 191 is outside 192..="));
    // A gap behind each channel makes a slot longer.
    assert!(refused(|c| c.state.channel_stride = 4).starts_with("state: stride 192 is outside 255..="));
    assert!(refused(|c| c.state.slots = 6).starts_with("state: has 960 elements, the call touches 1152"));
    assert!(refused(|c| c.state.slots = 0).starts_with("state.slots: 0 is not allowed"));
    assert!(refused(|c| c.state.slots = 1 << 31).starts_with("state.slots: 2147483648 is not"));
    let text = refused(|c| c.state.len = 2);
    assert_eq!(text, "state.len: 2 is not allowed, it must be at least width - 1");
}

#[test]
fn values_and_types() {
    assert_eq!(refused(|c| c.width = 5), "width: 5 is not allowed, it must be 2, 3 or 4");
    assert!(refused(|c| c.width = 1).starts_with("width: 1 is not allowed"));
    assert!(refused(|c| c.dim = 0).starts_with("dim: 0 is not allowed"));
    assert!(refused(|c| c.null_slot = Some(-1)).starts_with("null_slot: -1 is not allowed"));
    assert!(refused(|c| windows(c).rows = 0).starts_with("intermediate.rows: 0"));
    assert!(refused(|c| windows(c).steps = 0).starts_with("intermediate.steps: 0"));
    let text = refused(|c| c.out.tensor.dtype = DType::F32);
    assert_eq!(text, "out: type f32 does not fit, expected the type of x");
    assert!(refused(|c| c.state.tensor.dtype = DType::F16).starts_with("state: type f16 does not fit"));
    assert!(refused(|c| windows(c).tensor.dtype = DType::F16).starts_with("intermediate: type f16"));
    let many = |c: &mut Conv1dUpdate| c.tokens = Tokens::Each { batch: 1 << 20, tokens: 1 << 12 };
    assert_eq!(refused(many), "tokens: 4294967296 is not allowed, it must be fewer than 2^32 tokens in all");

    let want = "is not allowed, it must be a multiple of 32 from 32 to 512";
    for v in [0, 16, 100, 544] {
        assert_eq!(refused_norm(|c| c.v = v), format!("v: {v} {want}"));
    }
    assert!(refused_norm(|c| c.hv = 0).starts_with("hv: 0 is not allowed"));
    assert_eq!(refused_norm(|c| c.eps = 0.0), "eps: 0 is not allowed, it must be a positive eps");
    assert!(refused_norm(|c| c.eps = f32::NAN).starts_with("eps: NaN"));
    let text = refused_norm(|c| c.x.tensor.dtype = DType::F16);
    assert_eq!(text, "x: type f16 does not fit, expected the type of z, or f32");
    let text = refused_norm(|c| c.out.tensor.dtype = DType::F32);
    assert_eq!(text, "out: type f32 does not fit, expected the type of z");
}

#[test]
fn combinations_that_make_no_sense() {
    let each_token =
        |c: &mut Conv1dUpdate| c.target = ConvTarget::EachToken(other_table().with_columns(TOKENS));
    let tree = |c: &mut Conv1dUpdate| {
        each_token(c);
        c.parent = Some(other_table().with_columns(TOKENS));
    };
    assert!(refused(tree).starts_with("target: windows of a tree go to the intermediate buffer"));
    let taken_back = |c: &mut Conv1dUpdate| {
        each_token(c);
        c.accepted = Some(Accepted::Entry(other_table()));
    };
    assert!(refused(taken_back).starts_with("target: a slot for each token holds no drafts"));
    let long = |c: &mut Conv1dUpdate| {
        each_token(c);
        c.state = ConvPool::taps_contiguous(c.state.tensor, 5, DIM as u32, 5);
    };
    assert_eq!(
        refused(long),
        "state.len: 5 is not allowed, it must be at most 4 where each token has a slot"
    );
    let choose = |c: &mut Conv1dUpdate| (c.slots, c.accepted) = (None, Some(Accepted::Slot(other_table())));
    assert_eq!(refused(choose), "accepted: without a table of slots there is none to choose");
    let few = |c: &mut Conv1dUpdate| (c.slots, c.state.slots) = (None, 2);
    assert!(
        refused(few)
            .starts_with("state.slots: 2 is not allowed, it must be at least the number of sequences")
    );
    let both = |c: &mut Conv1dUpdate| {
        c.accepted = Some(Accepted::Entry(other_table()));
        c.parent = Some(other_table().with_columns(TOKENS));
    };
    assert!(refused(both).starts_with("parent: the accepted tokens of a tree"));
    let packed = |c: &mut Conv1dUpdate| {
        let cu_seqlens = Table::i32(0x7f20_0000_0000, BATCH + 1);
        c.tokens = Tokens::Packed { batch: BATCH as u32, total: 6, cu_seqlens };
    };
    let tree = |c: &mut Conv1dUpdate| {
        packed(c);
        c.parent = Some(other_table().with_columns(TOKENS));
    };
    assert_eq!(refused(tree), "parent: trees need sequences of the same number of tokens");
    let short = |c: &mut Conv1dUpdate| {
        packed(c);
        slots(c).len = 2;
    };
    assert!(refused(short).starts_with("slots: has 2 rows"));
    // Two drafts may be taken back from a window of four entries, not of three.
    let drafts = |c: &mut Conv1dUpdate| c.accepted = Some(Accepted::Entry(other_table()));
    let text = refused(drafts);
    assert!(text.starts_with("state.len: 3 is not allowed, it must be at least width - 2 + T"), "{text}");
    let mut call = conv();
    drafts(&mut call);
    (call.state.len, call.state.channel_stride, call.state.pitch) = (4, 4, DIM * 4);
    call.state.tensor.len = 5 * DIM * 4;
    call.check().unwrap();
    call.accepted = Some(Accepted::Entry(Table { address: 0, ..other_table() }));
    assert_eq!(call.check().unwrap_err().to_string(), "accepted: the address is null");
}

#[test]
fn overlapping_buffers() {
    let text = refused(|c| c.out.tensor.address = c.x.tensor.address + 2);
    assert_eq!(text, "out: shares memory with x");
    assert_eq!(refused(|c| slots(c).address = c.state.tensor.address), "state: shares memory with slots");
    let text = refused(|c| windows(c).tensor.address = c.state.tensor.address);
    assert!(text.contains("shares memory with"), "{text}");
    assert_eq!(refused_norm(|c| c.out.tensor.address = c.z.tensor.address), "out: shares memory with z");
    // A pool that is only read may lie anywhere.
    let mut call = conv();
    call.target = ConvTarget::Nowhere;
    slots(&mut call).address = call.state.tensor.address;
    call.check().unwrap();
}

#[test]
fn output_in_place_of_the_input() {
    let mut call = conv();
    call.out = call.x;
    call.check().unwrap();
    let mut other = call;
    (other.out.stride, other.out.tensor.len) = (72, 5 * 72 + 64);
    assert_eq!(other.check().unwrap_err().to_string(), "out: shares memory with x");
    // A tree reads inputs again whose place an output would have taken.
    call.parent = Some(other_table().with_columns(TOKENS));
    assert_eq!(call.check().unwrap_err().to_string(), "out: shares memory with x");
}

#[test]
fn nothing_to_do_needs_no_memory() {
    let mut call = conv();
    call.tokens = Tokens::Each { batch: 0, tokens: 1 };
    call.x.tensor.address = 0;
    call.check().unwrap();
    assert!(call.is_empty());
    let mut call = norm();
    (call.tokens, call.x.tensor.address) = (0, 0);
    call.check().unwrap();
    assert!(call.is_empty());
}

#[test]
fn plans() {
    let call = conv();
    let plan = call.plan(&CAPS, Tile::Auto).unwrap();
    assert_eq!(plan.to_string(), "gdn_conv1d_update_bf16_bf16 grid 1x3x1 block 32");
    // 8192 channels of 256 sequences: 2048 threads each, blocks of eight warps.
    let mut large = call;
    (large.dim, large.tokens) = (8192, Tokens::Each { batch: 256, tokens: 1 });
    assert_eq!(large.plan(&CAPS, Tile::Auto).unwrap().grid, [8, 256, 1]);
    // A channel a thread where something is not aligned.
    let mut odd = large;
    odd.x.tensor.address += 2;
    assert_eq!(odd.plan(&CAPS, Tile::Auto).unwrap().grid, [32, 256, 1]);
    let two = call.plan(&CAPS, Tile::Exact { rows: 0, warps: 2 }).unwrap();
    assert_eq!(two.block(), 64);
    let text = "tile: conv1d_update has none: take Tile::Auto, or Tile::Exact with 0 rows and 1 to 8 warps";
    for tile in [Tile::Rows(8), Tile::Exact { rows: 1, warps: 1 }] {
        assert_eq!(call.plan(&CAPS, tile).unwrap_err().to_string(), text);
    }
    assert!(call.plan(&CAPS, Tile::Exact { rows: 0, warps: 16 }).is_err());
    assert!(call.plan(&CAPS, Tile::Exact { rows: 0, warps: 0 }).is_err());

    assert_eq!([call.overlap(), norm().overlap()], [Overlap::Start; 2]);
    let plan = norm().plan(&CAPS, Tile::Auto).unwrap();
    assert_eq!(plan.to_string(), "gdn_gated_rmsnorm_f32_bf16_k128 grid 2x3x1 block 32");
    // A warp a head where V is another one, or z not aligned to a vector.
    let mut other = norm();
    other.z.tensor.address += 2;
    let plan = other.plan(&CAPS, Tile::Auto).unwrap();
    assert_eq!(plan.to_string(), "gdn_gated_rmsnorm_f32_bf16 grid 4x3x1 block 32");
    other = norm();
    (other.hv, other.v) = (2, 192);
    assert_eq!(
        other.plan(&CAPS, Tile::Auto).unwrap().to_string(),
        "gdn_gated_rmsnorm_f32_bf16 grid 2x3x1 block 32"
    );
}

#[test]
fn numbers_that_lie() {
    survives(&conv());
    let mut call = conv();
    (call.state.channel_stride, call.state.tap_stride) = (1, DIM);
    call.intermediate = None;
    survives(&call);
    survives(&norm());
    let mut call = norm();
    (call.head_strides.x, call.head_strides.out) = (Some(128), Some(128));
    survives(&call);
}
