//! What KDA asks of its gate, in either operation.

use crate::calls::{self, BATCH, TOKENS, elsewhere, refused};
use gdn_host::{ALog, DType, Decay, Decode, DtBias, Family, LowerBound, Operation, Recurrent, Rows};

/// Elements of a row of the gate: four heads of 128.
const WIDTH: u64 = 4 * 128;

/// A gate of KDA for so many tokens.
fn gate(tokens: u64) -> Decay {
    let mut space = elsewhere();
    let a = space.rows(DType::Bf16, tokens, WIDTH);
    let (a_log, dt_bias) = (space.tensor(DType::F32, 4), space.tensor(DType::F32, WIDTH));
    LowerBound::new(a, ALog(a_log), DtBias(dt_bias), -5.0).into()
}

fn decode() -> Decode {
    let mut call = calls::decode();
    (call.inputs.family, call.inputs.decay) = (Family::Kda, gate(BATCH));
    call
}

fn recurrent() -> Recurrent {
    let mut call = calls::recurrent();
    (call.inputs.family, call.inputs.decay) = (Family::Kda, gate(BATCH * TOKENS));
    call
}

/// What both operations refuse a changed gate with; `a` is the row of the gate that the change is given.
#[track_caller]
fn refusal(change: impl Fn(&mut Decay)) -> String {
    let texts = [
        refused(decode(), |c| change(&mut c.inputs.decay)),
        refused(recurrent(), |c| change(&mut c.inputs.decay)),
    ];
    // The two calls differ in their number of tokens alone.
    let [decode, recurrent] =
        texts.clone().map(|text| text.split(", the call touches").next().map(String::from));
    assert_eq!(decode, recurrent);
    texts[0].clone()
}

fn rows(decay: &mut Decay) -> &mut Rows {
    match decay {
        Decay::Softplus(gate) => &mut gate.a,
        Decay::LowerBound(gate) => &mut gate.a,
        Decay::Given(a) | Decay::GivenPerKeyHead(a) => a,
    }
}

#[test]
fn gate_rows_have_k_entries_for_each_head() {
    assert!(refusal(|d| rows(d).stride = 4).starts_with("decay.a: stride 4 is outside 512..="));
    let off = refusal(|d| rows(d).tensor.address += 1);
    assert_eq!(off, "decay.a: address 0x7f8040000001 is not aligned to 2 bytes");
    let short = refusal(|d| rows(d).tensor.len = 1535);
    assert_eq!(short, "decay.a: has 1535 elements, the call touches 1536");
    assert_eq!(refusal(|d| rows(d).tensor.address = 0), "decay.a: the address is null");
}

#[test]
fn tables_of_the_gate() {
    let tables = |change: fn(&mut gdn_host::Tensor)| {
        move |decay: &mut Decay| {
            let Decay::LowerBound(gate) = decay else { panic!("the gate is a lower bound") };
            change(gate.dt_bias.as_mut().unwrap());
        }
    };
    let short = refusal(tables(|bias| bias.len = 4));
    assert_eq!(short, "decay.dt_bias: has 4 elements, the call touches 512");
    let off = refusal(tables(|bias| bias.address += 2));
    assert!(
        off.starts_with("decay.dt_bias: address 0x7f80") && off.ends_with("not aligned to 4 bytes"),
        "{off}"
    );
}

#[test]
fn given_decays() {
    let given = |make: fn(Rows) -> Decay, width: u64| {
        move |decay: &mut Decay| {
            let tensor = elsewhere().tensor(DType::F32, BATCH * TOKENS * width);
            *decay = make(Rows { tensor, stride: width });
        }
    };
    let mut call = decode();
    given(Decay::Given, WIDTH)(&mut call.inputs.decay);
    call.check().unwrap();
    // By key head a row is half as long: two heads of 128.
    given(Decay::GivenPerKeyHead, 256)(&mut call.inputs.decay);
    call.check().unwrap();
    assert!(refusal(given(Decay::Given, 256)).starts_with("decay.given: stride 256 is outside 512..="));
    assert!(
        refusal(given(Decay::GivenPerKeyHead, 128)).starts_with("decay.given: stride 128 is outside 256..=")
    );
}

#[test]
fn decay_by_key_head_is_kda_only() {
    let by_key_head = Decay::GivenPerKeyHead(elsewhere().rows(DType::F32, BATCH * TOKENS, 256));
    let text = "decay: a decay per key head exists in KDA only";
    assert_eq!(refused(calls::decode(), |c| c.inputs.decay = by_key_head), text);
    assert_eq!(refused(calls::recurrent(), |c| c.inputs.decay = by_key_head), text);
}
