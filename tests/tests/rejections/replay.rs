//! Calls with a ring of records: what rings, cursors and layers are refused for. Inputs are decode's.

use crate::calls::{self, BATCH, SHAPE, Space, refused};
use gdn_host::{
    CallError, Cursors, DType, Entry, Family, Layout, Materialise, Operation, RecordForm, ReplayAdvance,
    ReplayCommit, ReplayDecode, ReplayFold, ReplayLayer, ReplayLayers, ReplayPool, ReplayShape, ReplayState,
    ReplayVerify, Rings, Start, Table,
};

const SLOTS: u32 = 5;
const RECORDS: u32 = 8;
const DRAFTS: u32 = 3;

fn pool(space: &mut Space) -> ReplayPool {
    let [k, d, g] = Rings::widths(&SHAPE, Family::Gdn, RECORDS);
    let mut rows = |dtype, width| space.rows(dtype, SLOTS.into(), width);
    let rings = Rings::new(RECORDS, rows(DType::Bf16, k), rows(DType::F32, d), rows(DType::F32, g));
    let cursors = Cursors::by_sequence(space.table(BATCH)).with_base(space.table(BATCH));
    ReplayPool::new(space.pool(DType::F32, SLOTS), rings, cursors).with_slots(space.table(BATCH))
}

fn decode() -> ReplayDecode {
    let plain = calls::decode();
    ReplayDecode::new(plain.inputs, BATCH as u32, pool(&mut calls::elsewhere()), plain.out)
}

fn verify() -> ReplayVerify {
    let mut space = calls::elsewhere();
    let pool = pool(&mut space);
    let inputs = space.inputs(BATCH * u64::from(DRAFTS));
    let out = space.rows(DType::Bf16, BATCH * u64::from(DRAFTS), SHAPE.value_elements());
    ReplayVerify::new(inputs, BATCH as u32, DRAFTS, pool, out)
}

#[track_caller]
fn refusal(change: impl FnOnce(&mut ReplayDecode)) -> String {
    refused(decode(), change)
}

#[test]
fn rings_have_a_length() {
    let of = |records| refusal(|c| c.pool.rings.records = records);
    assert_eq!(of(0), "pool.rings.records: 0 is not allowed, it must be 1 to 32 records");
    assert_eq!(of(33), "pool.rings.records: 33 is not allowed, it must be 1 to 32 records");
    assert_eq!(of(9), "pool.rings.k: stride 2048 is outside 2304..=4294967295 elements");
}

#[test]
fn live_records_leave_room_for_drafts() {
    let want = "it must be no more than the records of a ring, without those that drafts take";
    assert_eq!(refusal(|c| c.pool.most = Some(9)), format!("pool.most: 9 is not allowed, {want}"));
    assert_eq!(refused(verify(), |c| c.pool.most = Some(6)), format!("pool.most: 6 is not allowed, {want}"));
    let tokens = |tokens| refused(verify(), |c| c.tokens = tokens);
    assert_eq!(tokens(0), "tokens: 0 is not allowed, it must be 1 to 8 drafts");
    assert_eq!(tokens(9), "tokens: 9 is not allowed, it must be 1 to 8 drafts");
}

#[test]
fn rings_are_memory_of_a_type() {
    assert_eq!(refusal(|c| c.pool.rings.k.tensor.address = 0), "pool.rings.k: the address is null");
    let odd = refusal(|c| c.pool.rings.d.tensor.address += 8);
    assert!(odd.starts_with("pool.rings.d: address") && odd.ends_with("is not aligned to 16 bytes"), "{odd}");
    let k = refusal(|c| c.pool.rings.k.tensor.dtype = DType::F32);
    assert_eq!(k, "pool.rings.k: type f32 does not fit, expected the type of q");
    let d = refusal(|c| c.pool.rings.d.tensor.dtype = DType::Bf16);
    assert_eq!(d, "pool.rings.d: type bf16 does not fit, expected f32");
    let short = refusal(|c| c.pool.rings.g.tensor.len -= 1);
    assert_eq!(short, "pool.rings.g: has 159 elements, the call touches 160");
    let shared = refusal(|c| c.pool.rings.k.tensor.address = c.inputs.k.tensor.address);
    assert!(shared.contains("shares memory with"), "{shared}");
}

#[test]
fn states_are_of_a_layout_and_type_with_kernels() {
    let layout = refusal(|c| c.pool.state.layout = Layout::Kv);
    assert_eq!(layout, "pool.state: replay has kernels for layout VK only");
    // An f16 state under bf16 is served, a bf16 state under f16 is not.
    let mut mixed = decode();
    mixed.pool.state.tensor.dtype = DType::F16;
    mixed.check().unwrap();
    let dtype = refusal(|c| {
        c.pool.state.tensor.dtype = DType::Bf16;
        for rows in [&mut c.inputs.q, &mut c.inputs.k, &mut c.inputs.v, &mut c.pool.rings.k] {
            rows.tensor.dtype = DType::F16;
        }
    });
    let want = "pool.state: type bf16 does not fit, expected f32, the type of q, or f16 with q in bf16";
    assert_eq!(dtype, want);
    let k = refusal(|c| c.inputs.shape.k = 96);
    let want = "shape: replay has kernels for K = 128, and decode of GDN for K = 64 with q in f32 or bf16";
    assert_eq!(k, want);
}

/// A state for drafts, of a layer, with its tables.
fn state(
    change: impl FnOnce(&mut ReplayShape, &mut Vec<ReplayLayer>, &mut Table),
) -> Result<ReplayState, CallError> {
    let form = RecordForm::new(SHAPE, Family::Gdn);
    let mut shape = ReplayShape::new(form, DType::F32, DType::Bf16, SLOTS, RECORDS).with_drafts(DRAFTS);
    let (mut layers, mut len) =
        (vec![shape.layer_at(1 << 42), shape.layer_at(1 << 43)], Table::i32(1 << 40, SLOTS.into()));
    change(&mut shape, &mut layers, &mut len);
    ReplayState::new(shape, layers, 1 << 41, Table::i32((1 << 40) + 4096, SLOTS.into()), len)
}

#[test]
fn states_of_all_layers_are_checked_once() {
    let refused = |change: fn(&mut ReplayShape, &mut Vec<ReplayLayer>, &mut Table)| {
        state(change).expect_err("the state was accepted").to_string()
    };
    let states = state(|_, _, _| ()).unwrap();
    assert_eq!(states.pool(1).unwrap().most, Some(RECORDS - DRAFTS), "decode leaves places for drafts");
    let layer = states.pool(2).unwrap_err().to_string();
    assert_eq!(layer, "layer: 2 is not allowed, it must be below the number of layers");
    let want = "it must be no more than the records of a ring, without those that drafts take";
    assert_eq!(refused(|shape, _, _| shape.drafts = 9), format!("pool.most: 0 is not allowed, {want}"));
    let more = refused(|shape, _, _| (shape.records, shape.drafts) = (32, 9));
    assert_eq!(more, "drafts: 9 is not allowed, it must be at most 8 drafts");
    let none = refused(|_, layers, _| layers.clear());
    assert_eq!(none, "layers: 0 is not allowed, it must be 1 to 65535 layers");
    assert_eq!(refused(|_, layers, _| layers[1].d = 0), "pool.rings.d: the address is null");
    let shared = refused(|_, layers, _| layers[1].g = layers[1].state);
    assert!(shared.contains("shares memory with"), "{shared}");
    let twice = refused(|_, layers, _| layers[1] = layers[0]);
    assert_eq!(twice, "layers: shares memory with another layer");
    let crossed = refused(|_, layers, _| layers[1].k = layers[0].d);
    assert_eq!(crossed, twice);
    let short = refused(|_, _, len| len.len = 4);
    assert_eq!(short, "pool.cursors.len: has 4 rows, the call needs 5");
    let wide = refused(|_, _, len| len.entry = Entry::I64);
    assert_eq!(wide, "pool.cursors.len: type i64 does not fit, expected i32 or u32, where they are moved");
    let bytes = states.shape().slot_bytes();
    assert_eq!(bytes, [4 * 128 * 128 * 4, 2 * 8 * 128 * 2, 4 * 8 * 128 * 4, 4 * 8 * 4]);
    assert_eq!(states.shape().layer_bytes(), bytes.iter().sum::<u64>() * u64::from(SLOTS));
    assert_eq!(states.shape().modules().len(), 5);
    for key in states.shape().modules() {
        let prefix = format!("gdn_{key}");
        assert!(gdn_kernels::KERNELS.iter().any(|kernel| kernel.name.starts_with(&prefix)), "{key}");
    }
}

#[test]
fn cursors_have_a_row_for_each_sequence_or_slot() {
    let short = refusal(|c| c.pool.cursors.len.len = 2);
    assert_eq!(short, "pool.cursors.len: has 2 rows, the call needs 3");
    let by_slot = refusal(|c| c.pool.cursors.by_slot = true);
    assert_eq!(by_slot, "pool.cursors.len: has 3 rows, the call needs 5");
    let base = refusal(|c| c.pool.cursors.base = Some(Table::bytes(1 << 40, BATCH)));
    assert_eq!(base, "pool.cursors.base: type u8 does not fit, expected i32, u32 or i64");
    let force = refusal(|c| c.pool.force = Some(Table::i64(1 << 40, BATCH)));
    assert_eq!(force, "pool.force: type i64 does not fit, expected u8, i32 or u32");
    let parent = refused(verify(), |c| c.parent = Some(Table::i32(1 << 40, BATCH)));
    assert_eq!(parent, "parent: has rows of 1 entries, the call needs 3");
}

#[test]
fn cursors_that_are_moved_are_words() {
    let decode = decode();
    ReplayAdvance::behind_decode(&decode).check().unwrap();
    let wide = refused(ReplayAdvance::behind_decode(&decode), |c| c.pool.cursors.len.entry = Entry::I64);
    assert_eq!(wide, "pool.cursors.len: type i64 does not fit, expected i32 or u32, where they are moved");
    let accepted = Table::i32(1 << 40, BATCH);
    let advance = ReplayAdvance::behind_verify(&verify(), accepted);
    let base = refused(advance, |c| c.pool.cursors.base = None);
    let want = "pool.cursors: windows do not begin at place 0 behind a verification: cursors need a `base`";
    assert_eq!(base, want);
}

#[test]
fn layers_are_listed_and_like_the_pool() {
    let (decode, verify) = (decode(), verify());
    let form = RecordForm::of(&decode.inputs);
    let layer = ReplayLayer::new(&decode.pool);
    let (none, odd): ([ReplayLayer; 0], _) = ([], [layer.with_target(layer.state + (1 << 32))]);
    let of = |list| ReplayLayers { list, table: 1 << 41 };
    let fold = |list| ReplayFold::new(form, BATCH as u32, decode.pool, of(list));
    let whole = [layer];
    fold(&whole).check().unwrap();
    let empty = fold(&none).check().unwrap_err().to_string();
    assert_eq!(empty, "layers: 0 is not allowed, it must be 1 to 65535 layers");
    let elsewhere = fold(&odd).check().unwrap_err().to_string();
    assert_eq!(elsewhere, "layers: a fold stores states where they were: `target` must be `state`");
    let table = refused(fold(&whole), |c| c.layers.table = 0);
    assert_eq!(table, "layers.table: the address is null");
    let start = refused(fold(&whole), |c| c.pool.start = Start::Reset(Table::bytes(1 << 40, BATCH)));
    assert_eq!(start, "pool.start: a sequence that starts from zeros has no state to store");
    let copy = Materialise::new(form, BATCH as u32, decode.pool, of(&odd), decode.pool.state);
    copy.check().unwrap();
    let dtype = refused(copy, |c| c.target.tensor.dtype = DType::F16);
    assert_eq!(dtype, "target: type f16 does not fit, expected the type of the checkpoints");
    let path = Table::i32(1 << 42, BATCH).with_columns(DRAFTS.into());
    let commit = ReplayCommit::behind(&verify, of(&whole), Table::i32(1 << 40, BATCH), path);
    let columns = refused(commit, |c| c.path.columns = 2);
    assert_eq!(columns, "path: has rows of 2 entries, the call needs 3");
}
