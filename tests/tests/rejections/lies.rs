//! Decodes and recurrent calls whose numbers lie.

use crate::calls::{self, BATCH, TOKENS, elsewhere};
use gdn_host::{DType, Start, Table, Target, Tokens};
use gdn_tests::lies::survives;

#[test]
fn decodes() {
    let mut call = calls::decode();
    survives(&call);
    call.write_slots = Some(elsewhere().table(BATCH));
    survives(&call);
}

#[test]
fn recurrent_calls() {
    survives(&calls::recurrent());
    let mut space = elsewhere();
    let mut call = calls::recurrent();
    (call.source, call.target) = (calls::accepted(&mut space), Target::EachToken(space.by_token()));
    survives(&call);
    let mut buffer = calls::buffer(&mut space, DType::F32);
    (buffer.row, buffer.parent) = (Some(space.table(BATCH)), Some(space.by_token()));
    (call.target, call.intermediate) = (Target::InPlace, Some(buffer));
    survives(&call);
}

#[test]
fn packed_calls() {
    let mut space = elsewhere();
    let mut call = calls::recurrent();
    let cu_seqlens = space.table(BATCH + 1);
    call.tokens = Tokens::Packed { batch: BATCH as u32, total: (BATCH * TOKENS) as u32, cu_seqlens };
    call.target = Target::Sequences(space.pool(DType::F32, BATCH as u32));
    call.start = Start::Reset(Table::bytes(space.table(BATCH).address, BATCH));
    survives(&call);
}
