//! Calls that are accepted, for the tests to spoil.

use gdn_host::{
    ALog, Beta, DType, Decay, Decode, DtBias, HeadShape, Inputs, Intermediate, Key, Layout, Logits,
    Operation, Query, Recurrent, Rows, Softplus, Source, StatePool, Table, Target, Tensor, Tokens, Value,
};

pub const SHAPE: HeadShape = HeadShape { h: 2, hv: 4, k: 128, v: 128 };
/// Sequences.
pub const BATCH: u64 = 3;
/// Tokens of each sequence of a recurrent call.
pub const TOKENS: u64 = 2;

/// Addresses for tensors, each with a gigabyte of its own.
pub struct Space(u64);

impl Space {
    pub fn new() -> Space {
        Space(0x7f00_0000_0000)
    }

    pub fn tensor(&mut self, dtype: DType, len: u64) -> Tensor {
        self.0 += 1 << 30;
        Tensor { address: self.0, dtype, len }
    }

    pub fn rows(&mut self, dtype: DType, count: u64, width: u64) -> Rows {
        Rows { tensor: self.tensor(dtype, count * width), stride: width }
    }

    pub fn table(&mut self, len: u64) -> Table {
        Table::i32(self.tensor(DType::F32, len).address, len)
    }

    /// Rows of an entry for each token of a sequence.
    pub fn by_token(&mut self) -> Table {
        self.table(BATCH).with_columns(TOKENS)
    }

    pub fn flags(&mut self) -> Table {
        Table::bytes(self.tensor(DType::F32, BATCH).address, BATCH)
    }

    pub fn pool(&mut self, dtype: DType, slots: u32) -> StatePool {
        let pitch = SHAPE.state_elements();
        let tensor = self.tensor(dtype, u64::from(slots) * pitch);
        StatePool { tensor, slots, pitch, layout: Layout::Vk }
    }

    /// bf16 inputs of so many tokens, GDN with a softplus gate.
    pub fn inputs(&mut self, tokens: u64) -> Inputs {
        let mut rows = |width| self.rows(DType::Bf16, tokens, width);
        let (q, k, v) =
            (rows(SHAPE.key_elements()), rows(SHAPE.key_elements()), rows(SHAPE.value_elements()));
        let (a, b) = (rows(SHAPE.hv.into()), rows(SHAPE.hv.into()));
        let (a_log, dt_bias) = (self.tensor(DType::F32, 4), self.tensor(DType::F32, 4));
        let decay = Softplus::new(a, ALog(a_log), DtBias(dt_bias));
        Inputs::gdn(SHAPE, Query(q), Key(k), Value(v), decay, Logits::new(b))
    }
}

/// A decode that is accepted.
pub fn decode() -> Decode {
    let mut space = Space::new();
    let (inputs, state, slots) = (space.inputs(BATCH), space.pool(DType::F32, 5), space.table(BATCH));
    let out = space.rows(DType::Bf16, BATCH, SHAPE.value_elements());
    Decode::new(inputs, BATCH as u32, state, out).with_slots(slots)
}

/// A recurrent call that is accepted: a draft of two tokens for each sequence, states in slots and updated there.
pub fn recurrent() -> Recurrent {
    let mut space = Space::new();
    let inputs = space.inputs(BATCH * TOKENS);
    let tokens = Tokens::Each { batch: BATCH as u32, tokens: TOKENS as u32 };
    let source = Source::Slots { pool: space.pool(DType::F32, 5), slots: space.table(BATCH) };
    let out = space.rows(DType::Bf16, BATCH * TOKENS, SHAPE.value_elements());
    Recurrent::new(inputs, tokens, source, Target::InPlace, out)
}

/// The inputs that every call of the recurrence reads.
pub const INPUTS: [&str; 7] = ["q", "k", "v", "decay.a", "decay.a_log", "decay.dt_bias", "beta.b"];

/// Memory that no call above uses.
pub fn elsewhere() -> Space {
    Space(0x7f80_0000_0000)
}

/// A buffer of a row for each sequence and a step for each token.
pub fn buffer(space: &mut Space, dtype: DType) -> Intermediate {
    let pitch = TOKENS * SHAPE.state_elements();
    let tensor = space.tensor(dtype, BATCH * pitch);
    Intermediate::new(tensor, BATCH as u32, TOKENS as u32, pitch)
}

/// Slots by token, from those of the last draft.
pub fn accepted(space: &mut Space) -> Source {
    let (pool, slots, accepted) = (space.pool(DType::F32, 6), space.by_token(), space.table(BATCH));
    Source::Accepted { pool, slots, accepted }
}

/// What a changed call is refused with.
#[track_caller]
pub fn refused<T: Operation>(mut call: T, change: impl FnOnce(&mut T)) -> String {
    call.check().expect("the unchanged call is refused");
    change(&mut call);
    call.check().expect_err("the call was accepted").to_string()
}

/// The softplus gate.
pub fn softplus(inputs: &mut Inputs) -> &mut Softplus {
    match &mut inputs.decay {
        Decay::Softplus(gate) => gate,
        _ => panic!("the call's gate is softplus"),
    }
}

/// The rows of beta.
pub fn beta(inputs: &mut Inputs) -> &mut Rows {
    match &mut inputs.beta {
        Beta::Logits(logits) => &mut logits.b,
        Beta::Given(b) | Beta::GivenPerValue(b) => b,
    }
}
