//! The states of recurrent: where they come from and go, and what must not be the same memory.

use crate::calls::{self, BATCH, INPUTS, SHAPE, TOKENS, accepted, buffer, elsewhere, refused};
use gdn_host::{DType, Intermediate, Layout, Operation, Recurrent, Source, Start, StatePool, Table, Target};

fn valid() -> Recurrent {
    calls::recurrent()
}

#[track_caller]
fn refusal(change: impl FnOnce(&mut Recurrent)) -> String {
    refused(valid(), change)
}

fn pool(call: &mut Recurrent) -> &mut StatePool {
    match &mut call.source {
        Source::Zeros => panic!("the call has no pool"),
        Source::Sequences(pool) | Source::Slots { pool, .. } | Source::Accepted { pool, .. } => pool,
    }
}

/// The valid call with states by sequence: initial and final ones.
fn by_sequence() -> Recurrent {
    let mut space = elsewhere();
    let source = Source::Sequences(space.pool(DType::F32, 3));
    let mut call = valid();
    (call.source, call.target) = (source, Target::Sequences(space.pool(DType::F32, 3)));
    call
}

fn finals(call: &mut Recurrent) -> &mut StatePool {
    match &mut call.target {
        Target::Sequences(pool) => pool,
        other => panic!("states go to {other:?}"),
    }
}

/// The valid call with a buffer.
fn kept() -> Recurrent {
    valid().with_intermediate(buffer(&mut elsewhere(), DType::F32))
}

fn kept_buffer(call: &mut Recurrent) -> &mut Intermediate {
    call.intermediate.as_mut().unwrap()
}

#[test]
fn types_of_states() {
    let want = "type bf16 does not fit, expected f32, the type of q, or f16 with q in bf16; of any type in layout VK with K = 128";
    let inputs_in_f16 = |c: &mut Recurrent| {
        c.inputs.shape.k = 64;
        for rows in [&mut c.inputs.q, &mut c.inputs.k, &mut c.inputs.v] {
            rows.tensor.dtype = DType::F16;
        }
    };
    let source = |c: &mut Recurrent| {
        inputs_in_f16(c);
        pool(c).tensor.dtype = DType::Bf16;
    };
    assert_eq!(refusal(source), format!("source: {want}"));
    let zeros = |c: &mut Recurrent| {
        inputs_in_f16(c);
        c.source = Source::Zeros;
        finals(c).tensor.dtype = DType::Bf16;
    };
    assert_eq!(refused(by_sequence(), zeros), format!("target: {want}"));
    let only_buffer = |c: &mut Recurrent| {
        inputs_in_f16(c);
        (c.source, c.target) = (Source::Zeros, Target::Nowhere);
        kept_buffer(c).tensor.dtype = DType::Bf16;
    };
    assert_eq!(refused(kept(), only_buffer), format!("intermediate: {want}"));
    let other = "type bf16 does not fit, expected the type of the state";
    let target = refused(by_sequence(), |c| finals(c).tensor.dtype = DType::Bf16);
    assert_eq!(target, format!("target: {other}"));
    // Beside a state in f32 a buffer is of any type, beside others it is of theirs.
    for dtype in [DType::Bf16, DType::F16] {
        let mut call = kept();
        kept_buffer(&mut call).tensor.dtype = dtype;
        call.check().unwrap();
    }
    for dtype in [DType::F32, DType::F16] {
        let change = |c: &mut Recurrent| {
            pool(c).tensor.dtype = DType::Bf16;
            kept_buffer(c).tensor.dtype = dtype;
        };
        let text = "does not fit, expected the type of the state, or any beside a state in f32";
        assert_eq!(refused(kept(), change), format!("intermediate: type {} {text}", dtype.name()));
    }
}

#[test]
fn layouts_of_states() {
    let text = "target: it has another layout than the source";
    assert_eq!(refused(by_sequence(), |c| finals(c).layout = Layout::Kv), text);
    assert_eq!(refused(by_sequence(), |c| pool(c).layout = Layout::Kv), text);
    let mut call = by_sequence();
    (pool(&mut call).layout, finals(&mut call).layout) = (Layout::Kv, Layout::Kv);
    call.check().unwrap();
}

#[test]
fn combinations() {
    let zeros = "target: states that start from zeros have no pool to go back to";
    assert_eq!(refusal(|c| c.source = Source::Zeros), zeros);
    let slots = Target::Slots(elsewhere().table(BATCH));
    assert_eq!(refusal(|c| (c.source, c.target) = (Source::Zeros, slots)), zeros);
    let by_token = Target::EachToken(elsewhere().by_token());
    assert_eq!(refusal(|c| (c.source, c.target) = (Source::Zeros, by_token)), zeros);
    let tree = move |c: &mut Recurrent| {
        let mut space = calls::elsewhere();
        space.tensor(DType::F32, 0);
        (c.source, c.target) = (accepted(&mut space), by_token);
        kept_buffer(c).parent = Some(space.by_token());
    };
    let text = "target: states of a tree go to the intermediate buffer, not to slots by token";
    assert_eq!(refused(kept(), tree), text);
    let start = Start::Reset(elsewhere().table(BATCH));
    let text = "start: every sequence starts from zeros anyway";
    assert_eq!(refused(by_sequence(), |c| (c.source, c.start) = (Source::Zeros, start)), text);
}

#[test]
fn tables_of_slots() {
    let slots = |table: Table| {
        move |c: &mut Recurrent| {
            if let Source::Slots { slots, .. } = &mut c.source {
                *slots = table;
            }
        }
    };
    let at = |address, len| Table::i32(address, len);
    let good = elsewhere().table(0).address;
    assert_eq!(refusal(slots(at(good, 2))), "source.slots: has 2 rows, the call needs 3");
    assert_eq!(refusal(slots(at(good, 6))), "source.slots: has 6 rows, the call needs 3");
    assert_eq!(refusal(slots(at(0, 3))), "source.slots: the address is null");
    assert!(
        refusal(slots(at(good + 2, 3))).starts_with("source.slots: address 0x7f8040000002 is not aligned")
    );
    let target = |table| move |c: &mut Recurrent| c.target = Target::Slots(table);
    assert_eq!(refusal(target(at(good, 4))), "target.slots: has 4 rows, the call needs 3");
    assert_eq!(refusal(target(at(0, 3))), "target.slots: the address is null");
    assert!(
        refusal(target(at(good + 1, 3))).starts_with("target.slots: address 0x7f8040000001 is not aligned")
    );
}

#[test]
fn rows_of_slots_by_token() {
    let valid = || {
        let mut space = elsewhere();
        let (source, target) = (accepted(&mut space), Target::EachToken(space.by_token()));
        let mut call = valid();
        (call.source, call.target) = (source, target);
        call
    };
    let change = |change: fn(&mut Table, &mut Table, &mut Table)| {
        move |c: &mut Recurrent| {
            if let (Source::Accepted { slots, accepted, .. }, Target::EachToken(to)) =
                (&mut c.source, &mut c.target)
            {
                change(slots, accepted, to);
            }
        }
    };
    let refusal = |f: fn(&mut Table, &mut Table, &mut Table)| refused(valid(), change(f));
    let columns = "0 is not allowed, it must be a table of rows of at least 1 entry";
    assert_eq!(refusal(|slots, _, _| slots.columns = 0), format!("source.slots: {columns}"));
    assert_eq!(refusal(|_, _, to| to.columns = 0), format!("target.slots: {columns}"));
    assert_eq!(refusal(|slots, _, _| slots.len = 2), "source.slots: has 2 rows, the call needs 3");
    assert_eq!(refusal(|_, _, to| to.len = 6), "target.slots: has 6 rows, the call needs 3");
    assert_eq!(refusal(|slots, _, _| slots.address = 0), "source.slots: the address is null");
    assert_eq!(refusal(|_, _, to| to.address = 0), "target.slots: the address is null");
    let stride = "stride 1 is outside 2..=1073741823 elements";
    assert_eq!(refusal(|slots, _, _| slots.stride = 1), format!("source.slots: {stride}"));
    assert_eq!(refusal(|_, _, to| to.stride = 1), format!("target.slots: {stride}"));
    assert_eq!(refusal(|_, accepted, _| accepted.len = 6), "source.accepted: has 6 rows, the call needs 3");
    assert_eq!(refusal(|_, accepted, _| accepted.address = 0), "source.accepted: the address is null");
    assert!(refusal(|_, accepted, _| accepted.address += 1).ends_with("is not aligned to 4 bytes"));
    let columns = refusal(|_, accepted, _| *accepted = accepted.with_columns(2));
    assert_eq!(columns, "source.accepted: has rows of 2 entries, the call needs 1");
}

#[test]
fn pools() {
    assert_eq!(refusal(|c| pool(c).tensor.address = 0), "source: the address is null");
    assert!(refusal(|c| pool(c).tensor.address += 8).ends_with("is not aligned to 16 bytes"));
    assert!(refusal(|c| pool(c).pitch -= 4).starts_with("source: stride 65532 is outside 65536..="));
    let slots = "is not allowed, it must be a pool of 1 to 2^31 - 1 slots";
    assert_eq!(refusal(|c| pool(c).slots = 0), format!("source: 0 {slots}"));
    assert_eq!(refusal(|c| pool(c).slots = 6), "source: has 327680 elements, the call touches 393216");
    let few = "2 is not allowed, it must be as many states as there are sequences";
    assert_eq!(refused(by_sequence(), |c| pool(c).slots = 2), format!("source: {few}"));
    assert_eq!(refused(by_sequence(), |c| finals(c).slots = 2), format!("target: {few}"));
    assert_eq!(refused(by_sequence(), |c| finals(c).slots = 0), format!("target: 0 {slots}"));
    assert_eq!(refused(by_sequence(), |c| finals(c).tensor.address = 0), "target: the address is null");
    let short = refused(by_sequence(), |c| finals(c).tensor.len -= 1);
    assert_eq!(short, "target: has 196607 elements, the call touches 196608");
    let pitch = refused(by_sequence(), |c| finals(c).pitch += 2);
    assert_eq!(pitch, "target: stride of 65538 elements (262152 bytes) is not a multiple of 16 bytes");
}

#[test]
fn buffers_of_states() {
    let refusal = |change: &dyn Fn(&mut Intermediate)| refused(kept(), |c| change(kept_buffer(c)));
    let least = "0 is not allowed, it must be at least 1";
    assert_eq!(refusal(&|i| i.rows = 0), format!("intermediate.rows: {least}"));
    assert_eq!(refusal(&|i| i.steps = 0), format!("intermediate.steps: {least}"));
    assert!(refusal(&|i| i.steps = 3).starts_with("intermediate: stride 131072 is outside 196608..="));
    assert!(refusal(&|i| i.pitch -= 4).starts_with("intermediate: stride 131068 is outside 131072..="));
    assert!(refusal(&|i| i.pitch = 1 << 32).starts_with("intermediate: stride 4294967296 is outside"));
    let pitch = refusal(&|i| i.pitch += 2);
    assert_eq!(pitch, "intermediate: stride of 131074 elements (524296 bytes) is not a multiple of 16 bytes");
    let short = refusal(&|i| i.rows = 4);
    assert_eq!(short, "intermediate: has 393216 elements, the call touches 524288");
    assert_eq!(refusal(&|i| i.tensor.address = 0), "intermediate: the address is null");
    assert!(refusal(&|i| i.tensor.address += 4).ends_with("is not aligned to 16 bytes"));
    let table = |address, len| Some(Table::i32(address, len));
    let good = 0x7f90_0000_0000;
    let rows = refusal(&|i| i.row = table(good, 4));
    assert_eq!(rows, "intermediate.row: has 4 rows, the call needs 3");
    assert_eq!(refusal(&|i| i.row = table(0, 3)), "intermediate.row: the address is null");
    let parents = refusal(&|i| i.parent = table(good, 3));
    assert_eq!(parents, "intermediate.parent: has rows of 1 entries, the call needs 2");
    let by_token = |address, len| table(address, len).map(|table| table.with_columns(TOKENS));
    assert_eq!(
        refusal(&|i| i.parent = by_token(good, 6)),
        "intermediate.parent: has 6 rows, the call needs 3"
    );
    assert_eq!(refusal(&|i| i.parent = by_token(0, 3)), "intermediate.parent: the address is null");
    assert!(refusal(&|i| i.parent = by_token(good + 2, 3)).ends_with("is not aligned to 4 bytes"));
}

#[test]
fn final_states_share_no_memory() {
    let place = |field: &'static str| {
        let overlap = move |c: &mut Recurrent| {
            let extents = c.extents();
            finals(c).tensor.address = extents.iter().find(|e| e.field == field).unwrap().address;
        };
        let with_all = || {
            let mut space = elsewhere();
            let mut call = by_sequence();
            space.pool(DType::F32, 0);
            space.pool(DType::F32, 0);
            let mut intermediate = buffer(&mut space, DType::F32);
            (intermediate.row, intermediate.parent) = (Some(space.table(BATCH)), Some(space.by_token()));
            (call.intermediate, call.start) = (Some(intermediate), Start::Reset(space.flags()));
            call
        };
        refused(with_all(), overlap)
    };
    let others = ["source", "start", "intermediate", "intermediate.row", "intermediate.parent", "out"];
    for field in INPUTS.into_iter().chain(others) {
        assert_eq!(place(field), format!("target: shares memory with {field}"));
    }
}

#[test]
fn buffer_and_pool_share_no_memory() {
    let shared = |c: &mut Recurrent| kept_buffer(c).tensor.address = pool(c).tensor.address + 4096;
    assert_eq!(refused(kept(), shared), "source: shares memory with intermediate");
    // A pool that is read only is no better.
    let read_only = || {
        let mut call = kept();
        call.target = Target::Nowhere;
        call
    };
    assert_eq!(refused(read_only(), shared), "intermediate: shares memory with source");
    let slots = |c: &mut Recurrent| {
        let extents = c.extents();
        let slots = extents.iter().find(|e| e.field == "source.slots").unwrap().address;
        kept_buffer(c).tensor.address = slots & !15;
    };
    assert_eq!(refused(kept(), slots), "intermediate: shares memory with source.slots");
    let out = |c: &mut Recurrent| {
        c.out.as_mut().unwrap().tensor.address = pool(c).tensor.address;
    };
    assert_eq!(refused(read_only(), out), "out: shares memory with source");
}

/// Final states in the padding of a pool of the same pitch: rows that interleave do not touch.
#[test]
fn final_states_beside_initial_ones_in_one_pool() {
    let mut call = by_sequence();
    let elements = SHAPE.state_elements();
    let initial = pool(&mut call);
    (initial.pitch, initial.tensor.len) = (2 * elements, 5 * elements);
    let address = initial.tensor.address + 4 * elements;
    let last = finals(&mut call);
    (last.pitch, last.tensor.len, last.tensor.address) = (2 * elements, 5 * elements, address);
    call.check().unwrap();
    finals(&mut call).tensor.address -= 16;
    assert_eq!(call.check().unwrap_err().to_string(), "target: shares memory with source");
}
