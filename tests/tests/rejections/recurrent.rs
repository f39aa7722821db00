//! Recurrent: tokens, options and the output. Its states are in `states.rs`, its inputs are decode's.

use crate::calls::{self, BATCH, INPUTS, SHAPE, accepted, buffer, elsewhere, refused};
use gdn_host::{DType, Entry, Operation, Recurrent, Source, Start, Table, Target, Tokens};

fn valid() -> Recurrent {
    calls::recurrent()
}

#[track_caller]
fn refusal(change: impl FnOnce(&mut Recurrent)) -> String {
    refused(valid(), change)
}

/// Packed sequences with a table of `len` entries at an address.
fn packed(total: u32, entry: Entry, address: u64, len: u64) -> Tokens {
    Tokens::Packed { batch: BATCH as u32, total, cu_seqlens: Table::new(address, entry, len) }
}

const TABLE: u64 = 0x7f90_0000_0000;

#[test]
fn table_of_lengths() {
    for (entry, align) in [(Entry::I32, 4), (Entry::U32, 4), (Entry::I64, 8)] {
        let mut call = valid();
        call.tokens = packed(6, entry, TABLE, BATCH + 1);
        call.check().unwrap();
        let refusal = |address, len| refusal(|c| c.tokens = packed(6, entry, address, len));
        assert_eq!(refusal(TABLE, 3), "tokens.cu_seqlens: has 3 rows, the call needs 4");
        assert_eq!(refusal(TABLE, 5), "tokens.cu_seqlens: has 5 rows, the call needs 4");
        assert_eq!(refusal(0, 4), "tokens.cu_seqlens: the address is null");
        let odd = refusal(TABLE + align / 2, 4);
        assert!(odd.ends_with(&format!("is not aligned to {align} bytes")), "{odd}");
    }
}

#[test]
fn inputs_and_output_have_a_row_for_each_token() {
    let q = refusal(|c| c.inputs.q.tensor.len -= 1);
    assert_eq!(q, "q: has 1535 elements, the call touches 1536");
    let more = refusal(|c| c.tokens = Tokens::Each { batch: 3, tokens: 3 });
    assert_eq!(more, "q: has 1536 elements, the call touches 2304");
    let total = refusal(|c| c.tokens = packed(7, Entry::I32, TABLE, 4));
    assert_eq!(total, "q: has 1536 elements, the call touches 1792");
    let out = refusal(|c| c.out.as_mut().unwrap().tensor.len -= 1);
    assert_eq!(out, "out: has 3071 elements, the call touches 3072");
    assert!(
        refusal(|c| c.out.as_mut().unwrap().stride = 511).starts_with("out: stride 511 is outside 512..=")
    );
    assert_eq!(refusal(|c| c.out.as_mut().unwrap().tensor.address = 0), "out: the address is null");
    let f16 = refusal(|c| c.out.as_mut().unwrap().tensor.dtype = DType::F16);
    assert_eq!(f16, "out: type f16 does not fit, expected the type of q, or f32");
}

#[test]
fn more_tokens_than_32_bits_count() {
    let tokens = refusal(|c| c.tokens = Tokens::Each { batch: 1 << 16, tokens: 1 << 16 });
    assert_eq!(tokens, "tokens: 4294967296 is not allowed, it must be fewer than 2^32 tokens in all");
}

#[test]
fn options() {
    assert!(refusal(|c| c.inputs.scale = Some(f32::NAN)).starts_with("scale: NaN is not allowed"));
    assert!(refusal(|c| c.inputs.l2norm = Some(0.0)).starts_with("l2norm: 0 is not allowed"));
    assert!(refusal(|c| c.null_slot = Some(-2)).starts_with("null_slot: -2 is not allowed"));
    assert!(refusal(|c| c.inputs.shape.v = 48).starts_with("shape: v = 48 is not supported"));
    assert_eq!(
        refusal(|c| c.inputs.v.tensor.dtype = DType::F16),
        "v: type f16 does not fit, expected the type of q"
    );
    let short = Table::i32(TABLE, 2);
    assert_eq!(refusal(|c| c.start = Start::Reset(short)), "start: has 2 rows, the call needs 3");
    let null = Table::i32(0, BATCH);
    assert_eq!(refusal(|c| c.start = Start::HasInitialState(null)), "start: the address is null");
}

#[test]
fn call_that_asks_for_nothing() {
    let nothing = refusal(|c| (c.target, c.out) = (Target::Nowhere, None));
    assert_eq!(nothing, "out: neither an output nor a state is asked for");
    let mut call = valid();
    call.out = None;
    call.check().unwrap();
    call.target = Target::Nowhere;
    call.intermediate = Some(buffer(&mut elsewhere(), DType::F32));
    call.check().unwrap();
}

/// Without sequences, or without tokens and with states that stay where they are, no memory is asked for.
#[test]
fn empty_calls_need_no_memory() {
    for tokens in [Tokens::Each { batch: 0, tokens: 2 }, Tokens::Each { batch: 3, tokens: 0 }] {
        let mut call = valid();
        call.tokens = tokens;
        call.inputs.q.tensor.address = 0;
        call.source = Source::Zeros;
        (call.target, call.out) = (Target::Nowhere, Some(call.inputs.q));
        call.check().unwrap();
        assert!(call.is_empty());
        // Final states are written even so.
        call.target = Target::Sequences(elsewhere().pool(DType::F32, 2));
        let refused = call.check().map_err(|error| error.to_string());
        let wanted = "target: 2 is not allowed, it must be as many states as there are sequences";
        let empty = matches!(call.tokens, Tokens::Each { batch: 0, .. });
        assert_eq!(refused, if empty { Ok(()) } else { Err(wanted.to_string()) });
    }
}

/// What a call touches is listed argument by argument: what is not listed is not held against overlaps.
#[test]
fn every_argument_has_an_extent() {
    let mut space = elsewhere();
    let mut call = valid();
    call.tokens = packed(6, Entry::I64, TABLE, BATCH + 1);
    call.source = accepted(&mut space);
    call.start = Start::Reset(space.flags());
    call.target = Target::Slots(space.table(BATCH));
    let mut intermediate = buffer(&mut space, DType::F32);
    (intermediate.row, intermediate.parent) = (Some(space.table(BATCH)), Some(space.by_token()));
    call.intermediate = Some(intermediate);
    call.check().unwrap();
    let extents = call.extents();
    let mut fields: Vec<&str> = extents.iter().map(|e| e.field).collect();
    fields.sort_unstable();
    let tables = ["tokens.cu_seqlens", "source.slots", "source.accepted", "start", "target.slots"];
    let states = ["source", "intermediate", "intermediate.row", "intermediate.parent"];
    let mut all = [&INPUTS[..], &tables, &states, &["out"]].concat();
    all.sort_unstable();
    assert_eq!(fields, all);
    let span = |field| extents.iter().find(|e| e.field == field).unwrap().span();
    assert_eq!(span("tokens.cu_seqlens"), 8 * 4);
    assert_eq!(span("source.slots"), 4 * 6);
    assert_eq!(span("start"), 3);
    assert_eq!(span("intermediate"), 6 * SHAPE.state_elements() * 4);
    let written = |e: &&gdn_host::call::Extent| e.written;
    let written: Vec<&str> = extents.iter().filter(written).map(|e| e.field).collect();
    assert_eq!(written, ["source", "intermediate", "out"]);
}
