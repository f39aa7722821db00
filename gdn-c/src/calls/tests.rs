//! Every field of C ends up in the field of gdn-host that it names: structs whose fields all differ, against calls that were
//! made by gdn-host's own constructors.

use super::Call;
use crate::*;
use gdn_host::*;

/// A struct of zeros, as C programs begin with.
pub(super) fn zeroed<T: Copy>() -> T {
    // SAFETY: the structs of this crate are integers, floats and pointers.
    unsafe { std::mem::MaybeUninit::zeroed().assume_init() }
}

pub(super) const SHAPE: gdn_shape = gdn_shape { h: 2, hv: 4, k: 128, v: 64 };
pub(super) const HOST_SHAPE: HeadShape = HeadShape { h: 2, hv: 4, k: 128, v: 64 };

pub(super) fn rows(address: u64, dtype: gdn_dtype) -> gdn_rows {
    gdn_rows { address, len: address + 1, stride: address + 2, dtype, reserved: 0 }
}

pub(super) fn host_rows(address: u64, dtype: DType) -> Rows {
    Rows { tensor: Tensor::new(address, dtype, address + 1), stride: address + 2 }
}

pub(super) fn tensor(address: u64, dtype: gdn_dtype) -> gdn_tensor {
    gdn_tensor { address, len: address + 1, dtype, reserved: 0 }
}

pub(super) fn host_tensor(address: u64, dtype: DType) -> Tensor {
    Tensor::new(address, dtype, address + 1)
}

pub(super) fn table(address: u64, dtype: gdn_dtype) -> gdn_table {
    gdn_table { address, len: address + 1, columns: address + 2, stride: address + 3, dtype, reserved: 0 }
}

pub(super) fn host_table(address: u64, entry: Entry) -> Table {
    Table { address, entry, len: address + 1, columns: address + 2, stride: address + 3 }
}

pub(super) fn pool(address: u64, dtype: gdn_dtype, layout: gdn_layout) -> gdn_pool {
    gdn_pool { address, len: address + 1, pitch: address + 2, slots: 7, dtype, layout, reserved: 0 }
}

pub(super) fn host_pool(address: u64, dtype: DType, layout: Layout) -> StatePool {
    StatePool { tensor: host_tensor(address, dtype), slots: 7, pitch: address + 2, layout }
}

fn buffer(address: u64) -> gdn_intermediate {
    let (row, parent) = (table(address + 100, GDN_I32), table(address + 200, GDN_U32));
    let (len, pitch) = (address + 1, address + 2);
    gdn_intermediate { address, len, pitch, rows: 5, steps: 6, dtype: GDN_F16, reserved: 0, row, parent }
}

fn host_buffer(address: u64) -> Intermediate {
    Intermediate::new(host_tensor(address, DType::F16), 5, 6, address + 2)
        .with_row(host_table(address + 100, Entry::I32))
        .with_parent(host_table(address + 200, Entry::U32))
}

/// Kimi's gate and rounded beta, everything but the defaults.
pub(super) fn inputs() -> gdn_inputs {
    gdn_inputs {
        shape: SHAPE,
        family: GDN_FAMILY_KDA,
        heads: GDN_HEADS_TILED,
        l2norm: 0.5,
        scale: 0.25,
        q: rows(10, GDN_BF16),
        k: rows(20, GDN_F16),
        v: rows(30, GDN_F32),
        decay: gdn_decay {
            kind: GDN_DECAY_LOWER_BOUND,
            a: rows(40, GDN_F32),
            a_log: tensor(50, GDN_BF16),
            dt_bias: tensor(60, GDN_F16),
            bound: -5.0,
            ..zeroed()
        },
        beta: gdn_beta { flags: GDN_BETA_ROUNDED, b: rows(70, GDN_F16), scale: 2.0, ..zeroed() },
        ..zeroed()
    }
}

pub(super) fn host_inputs() -> Inputs {
    let (a_log, dt_bias) = (ALog(host_tensor(50, DType::Bf16)), DtBias(host_tensor(60, DType::F16)));
    let decay = LowerBound::new(host_rows(40, DType::F32), a_log, dt_bias, -5.0);
    let beta = Logits::new(host_rows(70, DType::F16)).with_rounding(true).with_scale(2.0);
    let (q, k) = (Query(host_rows(10, DType::Bf16)), Key(host_rows(20, DType::F16)));
    Inputs::kda(HOST_SHAPE, q, k, Value(host_rows(30, DType::F32)), decay, beta)
        .with_heads(HeadMap::Tiled)
        .with_l2norm(Some(0.5))
        .with_scale(0.25)
}

#[test]
fn decode() {
    let call = gdn_decode_call {
        batch: 3,
        flags: GDN_NULL_SLOT,
        null_slot: 9,
        inputs: inputs(),
        state: pool(80, GDN_F16, GDN_LAYOUT_KV),
        slots: table(90, GDN_I64),
        write_slots: table(110, GDN_U32),
        start: gdn_start { kind: GDN_START_HAS_INITIAL_STATE, reserved: 0, table: table(120, GDN_U8) },
        out: rows(130, GDN_F32),
        ..zeroed()
    };
    let pool = host_pool(80, DType::F16, Layout::Kv);
    let host = Decode::new(host_inputs(), 3, pool, host_rows(130, DType::F32))
        .with_slots(host_table(90, Entry::I64))
        .with_write_slots(host_table(110, Entry::U32))
        .with_start(Start::HasInitialState(host_table(120, Entry::U8)))
        .with_null_slot(9);
    assert_eq!(call.operation(), Ok(host));
}

#[test]
fn zeros_are_the_defaults_of_published_models() {
    let inputs = gdn_inputs {
        shape: SHAPE,
        q: rows(10, GDN_F32),
        k: rows(20, GDN_F32),
        v: rows(30, GDN_F32),
        decay: gdn_decay { a: rows(40, GDN_F32), ..zeroed() },
        beta: gdn_beta { b: rows(50, GDN_F32), ..zeroed() },
        ..zeroed()
    };
    let of = |address| host_rows(address, DType::F32);
    let (decay, beta) = (Softplus::new(of(40), None, None), Logits::new(of(50)));
    let host = Inputs::gdn(HOST_SHAPE, Query(of(10)), Key(of(20)), Value(of(30)), decay, beta);
    assert_eq!(inputs.read(), Ok(host));
    let unnormalised = gdn_inputs { flags: GDN_NO_L2NORM, ..inputs };
    assert_eq!(unnormalised.read(), Ok(host.with_l2norm(None)));
    let softplus = gdn_decay { beta: 3.0, threshold: 4.0, ..inputs.decay };
    let mut host = host;
    host.decay = decay.with_beta(3.0).with_threshold(4.0).into();
    assert_eq!(gdn_inputs { decay: softplus, ..inputs }.read(), Ok(host));
}

#[test]
fn every_decay_and_beta() {
    let given = rows(40, GDN_F32);
    let read = |decay: u32, beta: u32| {
        let decay = gdn_decay { kind: decay, given, ..zeroed() };
        let beta = gdn_beta { kind: beta, given, ..zeroed() };
        let read = gdn_inputs { decay, beta, ..inputs() }.read().unwrap();
        (read.decay, read.beta)
    };
    let given = host_rows(40, DType::F32);
    assert_eq!(read(GDN_DECAY_GIVEN, GDN_BETA_GIVEN), (Decay::Given(given), Beta::Given(given)));
    assert_eq!(
        read(GDN_DECAY_GIVEN_PER_KEY_HEAD, GDN_BETA_GIVEN_PER_VALUE),
        (Decay::GivenPerKeyHead(given), Beta::GivenPerValue(given))
    );
}

#[test]
fn recurrent() {
    let accepted = gdn_source {
        kind: GDN_SOURCE_ACCEPTED,
        pool: pool(80, GDN_F32, GDN_LAYOUT_VK),
        slots: table(90, GDN_I32),
        accepted: table(100, GDN_I64),
        ..zeroed()
    };
    let call = gdn_recurrent_call {
        flags: GDN_NULL_SLOT | GDN_ROUND_STATE,
        null_slot: 1,
        inputs: inputs(),
        tokens: gdn_tokens {
            kind: GDN_TOKENS_PACKED,
            batch: 3,
            count: 12,
            cu_seqlens: table(110, GDN_I32),
            ..zeroed()
        },
        source: accepted,
        start: gdn_start { kind: GDN_START_RESET, table: table(120, GDN_U8), ..zeroed() },
        target: gdn_target { kind: GDN_TARGET_EACH_TOKEN, slots: table(130, GDN_U32), ..zeroed() },
        intermediate: buffer(1000),
        out: rows(140, GDN_BF16),
        ..zeroed()
    };
    let pool = host_pool(80, DType::F32, Layout::Vk);
    let slots = host_table(90, Entry::I32);
    let accepted = host_table(100, Entry::I64);
    let tokens = Tokens::Packed { batch: 3, total: 12, cu_seqlens: host_table(110, Entry::I32) };
    let source = Source::Accepted { pool, slots, accepted };
    let target = Target::EachToken(host_table(130, Entry::U32));
    let host = Recurrent::new(host_inputs(), tokens, source, target, host_rows(140, DType::Bf16))
        .with_start(Start::Reset(host_table(120, Entry::U8)))
        .with_null_slot(1)
        .with_intermediate(host_buffer(1000))
        .with_rounded_state();
    assert_eq!(call.operation(), Ok(host));
}

#[test]
fn every_source_target_and_kind_of_tokens() {
    let (of_pool, of_table) = (pool(80, GDN_F32, GDN_LAYOUT_KV), table(90, GDN_I32));
    let source = |kind, pool, slots| gdn_source { kind, pool, slots, ..zeroed() }.read();
    let target = |kind, pool, slots| gdn_target { kind, pool, slots, ..zeroed() }.read();
    let (pool, slots) = (host_pool(80, DType::F32, Layout::Kv), host_table(90, Entry::I32));
    assert_eq!(source(GDN_SOURCE_ZEROS, zeroed(), zeroed()), Ok(Source::Zeros));
    assert_eq!(source(GDN_SOURCE_SEQUENCES, of_pool, zeroed()), Ok(Source::Sequences(pool)));
    assert_eq!(source(GDN_SOURCE_SLOTS, of_pool, of_table), Ok(Source::Slots { pool, slots }));
    assert_eq!(target(GDN_TARGET_NOWHERE, zeroed(), zeroed()), Ok(Target::Nowhere));
    assert_eq!(target(GDN_TARGET_IN_PLACE, zeroed(), zeroed()), Ok(Target::InPlace));
    assert_eq!(target(GDN_TARGET_SLOTS, zeroed(), of_table), Ok(Target::Slots(slots)));
    assert_eq!(target(GDN_TARGET_SEQUENCES, of_pool, zeroed()), Ok(Target::Sequences(pool)));
    let each = gdn_tokens { kind: GDN_TOKENS_EACH, batch: 2, count: 5, ..zeroed() };
    assert_eq!(each.read(), Ok(Tokens::Each { batch: 2, tokens: 5 }));
}

#[test]
fn conv1d_update() {
    let call = gdn_conv1d_update_call {
        flags: GDN_NULL_SLOT | GDN_NO_SILU | GDN_ROUND_PRODUCTS,
        null_slot: 4,
        dim: 24,
        width: 3,
        target_kind: GDN_CONV_SLOTS,
        accepted_kind: GDN_ACCEPTED_SLOT,
        tokens: gdn_tokens { kind: GDN_TOKENS_EACH, batch: 2, count: 5, ..zeroed() },
        x: rows(10, GDN_BF16),
        weight: tensor(20, GDN_F32),
        bias: tensor(30, GDN_F16),
        state: gdn_conv_pool {
            address: 40,
            elements: 41,
            pitch: 42,
            channel_stride: 43,
            tap_stride: 44,
            slots: 45,
            len: 46,
            dtype: GDN_F32,
            reserved: 0,
        },
        slots: table(50, GDN_I32),
        target: table(60, GDN_U32),
        start: gdn_start { kind: GDN_START_RESET, table: table(70, GDN_I32), ..zeroed() },
        accepted: table(80, GDN_I64),
        parent: table(90, GDN_I32),
        intermediate: gdn_windows {
            address: 100,
            len: 101,
            pitch: 102,
            rows: 103,
            steps: 104,
            dtype: GDN_F16,
            reserved: 0,
            row: table(110, GDN_I32),
        },
        out: rows(120, GDN_BF16),
        ..zeroed()
    };
    let state = ConvPool {
        tensor: host_tensor(40, DType::F32),
        slots: 45,
        pitch: 42,
        len: 46,
        channel_stride: 43,
        tap_stride: 44,
    };
    let tokens = Tokens::Each { batch: 2, tokens: 5 };
    let (x, out) = (host_rows(10, DType::Bf16), host_rows(120, DType::Bf16));
    let mut host = Conv1dUpdate::new(24, 3, tokens, x, host_tensor(20, DType::F32), state, out);
    host.bias = Some(host_tensor(30, DType::F16));
    (host.silu, host.round_products, host.null_slot) = (false, true, Some(4));
    host.slots = Some(host_table(50, Entry::I32));
    host.target = ConvTarget::Slots(host_table(60, Entry::U32));
    host.start = Start::Reset(host_table(70, Entry::I32));
    host.accepted = Some(Accepted::Slot(host_table(80, Entry::I64)));
    host.parent = Some(host_table(90, Entry::I32));
    let row = Some(host_table(110, Entry::I32));
    host.intermediate =
        Some(DraftWindows { tensor: host_tensor(100, DType::F16), rows: 103, steps: 104, pitch: 102, row });
    assert_eq!(call.operation(), Ok(host));
    let entry = gdn_conv1d_update_call { accepted_kind: GDN_ACCEPTED_ENTRY, ..call };
    assert_eq!(entry.operation().unwrap().accepted, Some(Accepted::Entry(host_table(80, Entry::I64))));
    let each = gdn_conv1d_update_call { target_kind: GDN_CONV_EACH_TOKEN, ..call };
    assert_eq!(each.operation().unwrap().target, ConvTarget::EachToken(host_table(60, Entry::U32)));
    let nowhere = gdn_conv1d_update_call { target_kind: GDN_CONV_NOWHERE, target: zeroed(), ..call };
    assert_eq!(nowhere.operation().unwrap().target, ConvTarget::Nowhere);
    let plain = gdn_conv1d_update_call { flags: 0, null_slot: 0, ..call }.operation().unwrap();
    assert_eq!((plain.silu, plain.round_products, plain.null_slot), (true, false, None));
}

#[test]
fn gated_rmsnorm() {
    let call = gdn_gated_rmsnorm_call {
        tokens: 3,
        hv: 4,
        v: 64,
        activation: GDN_ACTIVATION_SIGMOID,
        eps: 1e-5,
        flags: GDN_HEAD_STRIDES,
        x: rows(10, GDN_F32),
        z: rows(20, GDN_BF16),
        weight: tensor(30, GDN_F16),
        out: rows(40, GDN_BF16),
        x_head_stride: 50,
        z_head_stride: 60,
        out_head_stride: 70,
        ..zeroed()
    };
    let (x, z, out) = (host_rows(10, DType::F32), host_rows(20, DType::Bf16), host_rows(40, DType::Bf16));
    let mut host = GatedRmsNorm::new(4, 64, 3, x, z, host_tensor(30, DType::F16), out);
    (host.activation, host.eps) = (Activation::Sigmoid, 1e-5);
    host.head_strides = HeadStrides { x: Some(50), z: Some(60), out: Some(70) };
    assert_eq!(call.operation(), Ok(host));
}

#[test]
fn copies_and_conversions() {
    let (source, target) = (pool(80, GDN_F32, GDN_LAYOUT_VK), pool(90, GDN_BF16, GDN_LAYOUT_KV));
    let (source_slots, target_slots) = (table(100, GDN_I32), table(110, GDN_I64));
    let (flags, null_slot) = (GDN_NULL_SLOT, 2);
    let (copies, elements) = (3, 64);
    let zeros: gdn_copy_state_call = zeroed();
    let copy = gdn_copy_state_call {
        copies,
        flags,
        null_slot,
        elements,
        source,
        source_slots,
        target,
        target_slots,
        ..zeros
    };
    let zeros: gdn_convert_layout_call = zeroed();
    let convert = gdn_convert_layout_call {
        copies,
        flags,
        null_slot,
        shape: SHAPE,
        source,
        source_slots,
        target,
        target_slots,
        ..zeros
    };
    let (source, target) = (host_pool(80, DType::F32, Layout::Vk), host_pool(90, DType::Bf16, Layout::Kv));
    let source_slots = Some(host_table(100, Entry::I32));
    let target_slots = Some(host_table(110, Entry::I64));
    let (shape, null_slot) = (HOST_SHAPE, Some(2));
    let host = ConvertLayout { shape, copies, source, source_slots, target, target_slots, null_slot };
    assert_eq!(convert.operation(), Ok(host));
    let (source, target) = (source.into(), target.into());
    let host = CopyState { copies, elements, source, source_slots, target, target_slots, null_slot };
    assert_eq!(copy.operation(), Ok(host));
}

#[test]
fn commits_and_unpacking() {
    let commit = gdn_commit_state_call {
        batch: 3,
        flags: GDN_NULL_SLOT,
        null_slot: 2,
        shape: SHAPE,
        intermediate: buffer(1000),
        accepted: table(10, GDN_I32),
        state: pool(20, GDN_F16, GDN_LAYOUT_VK),
        slots: table(30, GDN_I64),
        ..zeroed()
    };
    let host = CommitState {
        shape: HOST_SHAPE,
        batch: 3,
        intermediate: host_buffer(1000),
        accepted: host_table(10, Entry::I32),
        state: host_pool(20, DType::F16, Layout::Vk),
        slots: Some(host_table(30, Entry::I64)),
        null_slot: Some(2),
    };
    assert_eq!(commit.operation(), Ok(host));
    let unpack = gdn_unpack_qkvz_call {
        tokens: 3,
        shape: SHAPE,
        qkvz: rows(10, GDN_F32),
        ba: rows(20, GDN_F32),
        mixed_qkv: rows(30, GDN_F32),
        z: rows(40, GDN_F32),
        b: rows(50, GDN_F32),
        a: rows(60, GDN_F32),
        ..zeroed()
    };
    let of = |address| host_rows(address, DType::F32);
    let [qkvz, ba, mixed_qkv, z, b, a] = [10, 20, 30, 40, 50, 60].map(of);
    let host = UnpackQkvz { shape: HOST_SHAPE, tokens: 3, qkvz, ba, mixed_qkv, z, b, a };
    assert_eq!(unpack.operation(), Ok(host));
}

#[test]
fn helpers_give_what_gdn_hosts_constructors_give() {
    let shape = HOST_SHAPE;
    let rows = gdn_rows_packed(64, GDN_BF16, 3, 40);
    let host = Rows::packed(64, DType::Bf16, 3, 40);
    assert_eq!(rows.required("q"), Ok(host));
    assert_eq!(gdn_rows_view(rows, 8).required("k"), Ok(host.view(8)));
    let wide = gdn_rows_packed(64, GDN_F32, 3, 40);
    assert_eq!(gdn_rows_view(wide, 8).required("k"), Ok(Rows::packed(64, DType::F32, 3, 40).view(8)));
    let table = gdn_table_packed(64, GDN_I64, 3, 2);
    assert_eq!(table.required("slots"), Ok(Table::i64(64, 3).with_columns(2)));
    let pool = gdn_pool_packed(64, GDN_F16, 9, SHAPE);
    assert_eq!(pool.required("state"), Ok(StatePool::packed(64, DType::F16, 9, &shape)));
    let buffer = gdn_intermediate_packed(64, GDN_F16, 9, 4, SHAPE);
    assert_eq!(buffer.required("intermediate"), Ok(Intermediate::packed(64, DType::F16, 9, 4, &shape)));
}
