//! Calls whose numbers lie: lengths, strides, counts and addresses that no memory has.
//!
//! A check must refuse them, or accept what is sound, and neither panic nor wrap. [`survives`] draws such calls from one that
//! is accepted.

use gdn_host::plan::{Height, Step};
use gdn_host::{
    Accepted, Beta, CallError, Caps, CommitState, Conv1dUpdate, ConvTarget, ConvertLayout, CopyState, Decay,
    Decode, DraftWindows, GatedRmsNorm, HeadShape, Inputs, Intermediate, Operation, Recurrent, Rows,
    SlotPool, Source, Start, StatePool, Table, Target, Tensor, Tile, Tokens, UnpackQkvz,
};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::TestRunner;

/// A number of a call.
pub enum Number<'a> {
    /// Sequences, tokens, slots, heads.
    Count(&'a mut u32),
    /// A device address.
    Address(&'a mut u64),
    /// Elements of a tensor.
    Len(&'a mut u64),
    /// Rows of a table.
    Entries(&'a mut u64),
    /// Entries of a row of a table.
    Columns(&'a mut u64),
    /// Elements from one row to the next.
    Stride(&'a mut u64),
}

/// What has numbers.
pub trait Numbers {
    /// Shows each number, with the argument it belongs to as errors name it.
    fn visit(&mut self, argument: &'static str, see: &mut dyn FnMut(&'static str, Number));
}

macro_rules! numbers {
    ($($ty:ty: |$this:ident, $argument:pat_param, $see:ident| $body:block)*) => {$(
        impl Numbers for $ty {
            fn visit(&mut self, $argument: &'static str, $see: &mut dyn FnMut(&'static str, Number)) {
                let $this = self;
                $body
            }
        }
    )*};
}

impl<T: Numbers> Numbers for Option<T> {
    fn visit(&mut self, argument: &'static str, see: &mut dyn FnMut(&'static str, Number)) {
        if let Some(some) = self {
            some.visit(argument, see);
        }
    }
}

numbers! {
    Tensor: |x, argument, see| {
        see(argument, Number::Address(&mut x.address));
        see(argument, Number::Len(&mut x.len));
    }
    Rows: |x, argument, see| {
        x.tensor.visit(argument, see);
        see(argument, Number::Stride(&mut x.stride));
    }
    Table: |x, argument, see| {
        see(argument, Number::Address(&mut x.address));
        see(argument, Number::Entries(&mut x.len));
        see(argument, Number::Columns(&mut x.columns));
        see(argument, Number::Stride(&mut x.stride));
    }
    HeadShape: |x, argument, see| {
        for number in [&mut x.h, &mut x.hv, &mut x.k, &mut x.v] {
            see(argument, Number::Count(number));
        }
    }
    SlotPool: |x, argument, see| {
        x.tensor.visit(argument, see);
        see(argument, Number::Count(&mut x.slots));
        see(argument, Number::Stride(&mut x.pitch));
    }
    StatePool: |x, argument, see| {
        x.tensor.visit(argument, see);
        see(argument, Number::Count(&mut x.slots));
        see(argument, Number::Stride(&mut x.pitch));
    }
    Start: |x, _, see| {
        match x {
            Start::FromSlot => {}
            Start::Reset(table) | Start::HasInitialState(table) => table.visit("start", see),
        }
    }
    Tokens: |x, argument, see| {
        match x {
            Tokens::Each { batch, tokens } => {
                see(argument, Number::Count(batch));
                see(argument, Number::Count(tokens));
            }
            Tokens::Packed { batch, total, cu_seqlens } => {
                see(argument, Number::Count(batch));
                see(argument, Number::Count(total));
                cu_seqlens.visit("tokens.cu_seqlens", see);
            }
        }
    }
    Intermediate: |x, argument, see| {
        x.tensor.visit(argument, see);
        see(argument, Number::Count(&mut x.rows));
        see(argument, Number::Count(&mut x.steps));
        see(argument, Number::Stride(&mut x.pitch));
        x.row.visit("intermediate.row", see);
        x.parent.visit("intermediate.parent", see);
    }
    Inputs: |x, _, see| {
        x.shape.visit("shape", see);
        x.q.visit("q", see);
        x.k.visit("k", see);
        x.v.visit("v", see);
        match &mut x.decay {
            Decay::Softplus(gate) => {
                gate.a.visit("decay.a", see);
                gate.a_log.visit("decay.a_log", see);
                gate.dt_bias.visit("decay.dt_bias", see);
            }
            Decay::LowerBound(gate) => {
                gate.a.visit("decay.a", see);
                gate.a_log.visit("decay.a_log", see);
                gate.dt_bias.visit("decay.dt_bias", see);
            }
            Decay::Given(rows) | Decay::GivenPerKeyHead(rows) => rows.visit("decay.given", see),
        }
        match &mut x.beta {
            Beta::Logits(logits) => logits.b.visit("beta.b", see),
            Beta::Given(rows) | Beta::GivenPerValue(rows) => rows.visit("beta.given", see),
        }
    }
    Decode: |x, _, see| {
        x.inputs.visit("", see);
        see("batch", Number::Count(&mut x.batch));
        x.state.visit("state", see);
        x.slots.visit("slots", see);
        x.write_slots.visit("write_slots", see);
        x.start.visit("start", see);
        x.out.visit("out", see);
    }
    Source: |x, argument, see| {
        match x {
            Source::Zeros => {}
            Source::Sequences(pool) => pool.visit(argument, see),
            Source::Slots { pool, slots } => {
                pool.visit(argument, see);
                slots.visit("source.slots", see);
            }
            Source::Accepted { pool, slots, accepted } => {
                pool.visit(argument, see);
                slots.visit("source.slots", see);
                accepted.visit("source.accepted", see);
            }
        }
    }
    Recurrent: |x, _, see| {
        x.inputs.visit("", see);
        x.tokens.visit("tokens", see);
        x.source.visit("source", see);
        match &mut x.target {
            Target::Slots(slots) | Target::EachToken(slots) => slots.visit("target.slots", see),
            Target::Sequences(pool) => pool.visit("target", see),
            _ => {}
        }
        x.start.visit("start", see);
        x.intermediate.visit("intermediate", see);
        x.out.visit("out", see);
    }
    CopyState: |x, _, see| {
        see("copies", Number::Count(&mut x.copies));
        see("elements", Number::Len(&mut x.elements));
        x.source.visit("source", see);
        x.source_slots.visit("source_slots", see);
        x.target.visit("target", see);
        x.target_slots.visit("target_slots", see);
    }
    CommitState: |x, _, see| {
        x.shape.visit("shape", see);
        see("batch", Number::Count(&mut x.batch));
        x.intermediate.visit("intermediate", see);
        x.accepted.visit("accepted", see);
        x.state.visit("state", see);
        x.slots.visit("slots", see);
    }
    ConvertLayout: |x, _, see| {
        x.shape.visit("shape", see);
        see("copies", Number::Count(&mut x.copies));
        x.source.visit("source", see);
        x.source_slots.visit("source_slots", see);
        x.target.visit("target", see);
        x.target_slots.visit("target_slots", see);
    }
    UnpackQkvz: |x, _, see| {
        x.shape.visit("shape", see);
        see("tokens", Number::Count(&mut x.tokens));
        x.qkvz.visit("qkvz", see);
        x.ba.visit("ba", see);
        x.mixed_qkv.visit("mixed_qkv", see);
        x.z.visit("z", see);
        x.b.visit("b", see);
        x.a.visit("a", see);
    }
    DraftWindows: |x, argument, see| {
        x.tensor.visit(argument, see);
        see(argument, Number::Count(&mut x.rows));
        see(argument, Number::Count(&mut x.steps));
        see(argument, Number::Stride(&mut x.pitch));
        x.row.visit("intermediate.row", see);
    }
    Conv1dUpdate: |x, _, see| {
        see("dim", Number::Count(&mut x.dim));
        see("width", Number::Count(&mut x.width));
        x.tokens.visit("tokens", see);
        x.x.visit("x", see);
        x.weight.visit("weight", see);
        x.bias.visit("bias", see);
        x.state.tensor.visit("state", see);
        see("state.slots", Number::Count(&mut x.state.slots));
        see("state.len", Number::Count(&mut x.state.len));
        see("state", Number::Stride(&mut x.state.pitch));
        see("state.channel_stride", Number::Stride(&mut x.state.channel_stride));
        see("state.tap_stride", Number::Stride(&mut x.state.tap_stride));
        x.slots.visit("slots", see);
        if let ConvTarget::Slots(table) | ConvTarget::EachToken(table) = &mut x.target {
            table.visit("target", see);
        }
        x.start.visit("start", see);
        if let Some(Accepted::Entry(table) | Accepted::Slot(table)) = &mut x.accepted {
            table.visit("accepted", see);
        }
        x.parent.visit("parent", see);
        x.intermediate.visit("intermediate", see);
        x.out.visit("out", see);
    }
    GatedRmsNorm: |x, _, see| {
        see("hv", Number::Count(&mut x.hv));
        see("v", Number::Count(&mut x.v));
        let strides = &mut x.head_strides;
        for (argument, stride) in [("x", &mut strides.x), ("z", &mut strides.z), ("out", &mut strides.out)] {
            if let Some(stride) = stride {
                see(argument, Number::Stride(stride));
            }
        }
        see("tokens", Number::Count(&mut x.tokens));
        x.x.visit("x", see);
        x.z.visit("z", see);
        x.weight.visit("weight", see);
        x.out.visit("out", see);
    }
}

/// Numbers at which arithmetic goes wrong; a count takes what of them fits.
fn extreme() -> impl Strategy<Value = u64> {
    const POWERS: [u32; 10] = [0, 1, 4, 7, 15, 16, 31, 32, 33, 63];
    let near = POWERS.iter().flat_map(|power| [(1 << power) - 1, 1 << power]);
    let last = [u64::MAX / 4, u64::MAX / 2 - 15, u64::MAX - 15, u64::MAX];
    let round = [64, 65_535 * 65_535, 65_535 * 65_535 + 1, u64::from(u32::MAX) & !15];
    select(near.chain(last).chain(round).collect::<Vec<u64>>())
}

/// Changes one number.
fn change<C: Numbers>(call: &mut C, which: usize, value: u64) {
    let mut i = 0;
    call.visit("", &mut |_, number| {
        if i == which {
            match number {
                Number::Count(x) => *x = value.min(u32::MAX.into()) as u32,
                Number::Address(x)
                | Number::Len(x)
                | Number::Entries(x)
                | Number::Columns(x)
                | Number::Stride(x) => *x = value,
            }
        }
        i += 1;
    });
}

/// Sets the numbers of an argument that `which` picks.
fn set<C: Numbers>(call: &mut C, argument: &str, mut which: impl FnMut(Number)) {
    call.visit("", &mut |name, number| {
        if name == argument {
            which(number);
        }
    });
}

/// Lengths and strides as the refusals ask for, until there is another one.
fn settle<C: Operation + Numbers>(call: &mut C) {
    for _ in 0..64 {
        match call.check_arguments() {
            Err(CallError::TooShort { field, need, .. }) => set(call, field, |number| {
                if let Number::Len(len) = number {
                    *len = need;
                }
            }),
            Err(CallError::Stride { field, min, .. }) => set(call, field, |number| {
                if let Number::Stride(stride) = number {
                    *stride = min;
                }
            }),
            Err(CallError::TableLength { field, need, .. }) => set(call, field, |number| {
                if let Number::Entries(entries) = number {
                    *entries = need;
                }
            }),
            Err(CallError::TableColumns { field, need, .. }) => set(call, field, |number| {
                if let Number::Columns(columns) = number {
                    *columns = need;
                }
            }),
            _ => return,
        }
    }
}

/// Goes the whole way to a launch, as far as the call gets.
fn go(call: &dyn Operation) -> Result<(), TestCaseError> {
    if let Err(error) = call.check() {
        prop_assert!(!error.to_string().is_empty());
        if let CallError::Stride { min, max, .. } = error {
            prop_assert!(min <= max, "{error}");
        }
    }
    for extent in call.extents().iter() {
        prop_assert!(extent.span() >= extent.row_bytes || extent.rows == 0);
    }
    if call.check_arguments().is_err() || call.is_empty() {
        return Ok(());
    }
    for extent in call.extents().iter() {
        prop_assert!(extent.address.checked_add(extent.span()).is_some(), "{extent:?}");
    }
    for (sms, memory_gbps) in [(132, 3352), (1, 0), (0, 0), (u32::MAX, u32::MAX)] {
        let caps = Caps { sms, compute: 90, memory_gbps };
        let (tile, ahead_kib) = (Height::Whole, u32::MAX);
        let step = Step { up_to: None, tile, teams: u32::MAX, ahead_kib, early: true };
        let exact = Tile::Exact { rows: u32::MAX, warps: u32::MAX };
        for tile in [Tile::Auto, Tile::Rows(u32::MAX), exact, Tile::Step(step)] {
            let Ok(plan) = call.plan(&caps, tile) else { continue };
            let [x, y, z] = plan.grid;
            prop_assert!((1..=i32::MAX as u32).contains(&x), "{plan}");
            prop_assert!((1..=65_535).contains(&y) && (1..=65_535).contains(&z), "{plan}");
            call.params(&plan);
        }
    }
    Ok(())
}

/// Holds that calls with any numbers are refused or launched, without a panic, from one that is accepted.
///
/// # Panics
/// With the numbers, if a call does not survive.
#[track_caller]
pub fn survives<C: Operation + Numbers + Clone>(accepted: &C) {
    assert_eq!(accepted.check(), Ok(()));
    let mut count = 0;
    accepted.clone().visit("", &mut |_, _| count += 1);
    let changes = prop::collection::vec((any::<Index>(), extreme()), 1..5);
    let lies = (changes, any::<bool>(), any::<bool>());
    let mut runner = TestRunner::new(ProptestConfig::with_cases(4000));
    let result = runner.run(&lies, |(changes, endless, honest)| {
        let mut call = accepted.clone();
        if endless {
            call.visit("", &mut |_, number| {
                if let Number::Len(len) = number {
                    *len = u64::MAX;
                }
            });
        }
        for (which, value) in changes {
            change(&mut call, which.index(count), value);
        }
        if honest {
            settle(&mut call);
        }
        go(&call)
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}
