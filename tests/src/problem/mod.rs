//! A problem: host data, where it lies in memory, and the options of the call.
//!
//! One type states every call of the recurrence, decode's and recurrent's, and runs on any [`Device`] and in the
//! oracle. Its data are f32 values that its types hold exactly, so both sides start from the same numbers. A state
//! is `[V, K]` on this side whatever the layout of the call; it is transposed on its way to memory and back.
//!
//! [`route`] says which states a sequence reads and which it leaves where, [`place`] puts a problem into memory,
//! [`solution`] reads the results back, [`check`] holds them against the oracle.

pub mod check;
pub mod place;
pub mod route;
pub mod solution;

pub use check::Written;
pub use place::{Call, Placed};
pub use route::{Origin, Place, Route};
pub use solution::{Memory, Solution};

use crate::device::Device;
use crate::strided::Strided;
use crate::table::TableForm;
use anyhow::Result;
use gdn_host::{DType, Family, HeadMap, HeadShape, Layout, ModuleKey, Tile, plan};
use std::fmt;
use std::ops::Range;

/// The tokens of a call, and with them its operation.
#[derive(Clone, Debug, PartialEq)]
pub enum Tokens {
    /// Decode: one for each sequence.
    One {
        /// Sequences.
        batch: usize,
    },
    /// Recurrent: as many for each sequence.
    Each {
        /// Sequences.
        batch: usize,
        /// Tokens of each.
        tokens: usize,
    },
    /// Recurrent: one sequence behind the other.
    Packed {
        /// N + 1 entries, as they are in memory: they may be nonsense.
        cu_seqlens: Vec<i64>,
        /// Tokens in all.
        total: usize,
        /// Whether entries are i64.
        is_i64: bool,
    },
}

impl Tokens {
    /// Packed sequences of these lengths.
    pub fn packed(lengths: &[usize], is_i64: bool) -> Tokens {
        let ends = lengths.iter().scan(0, |end, len| {
            *end += len;
            Some(*end as i64)
        });
        let cu_seqlens = std::iter::once(0).chain(ends).collect();
        Tokens::Packed { cu_seqlens, total: lengths.iter().sum(), is_i64 }
    }

    /// Sequences.
    pub fn batch(&self) -> usize {
        match self {
            Tokens::One { batch } | Tokens::Each { batch, .. } => *batch,
            Tokens::Packed { cu_seqlens, .. } => cu_seqlens.len() - 1,
        }
    }

    /// Tokens in all: rows of the inputs.
    pub fn total(&self) -> usize {
        match self {
            Tokens::One { batch } => *batch,
            Tokens::Each { batch, tokens } => batch * tokens,
            Tokens::Packed { total, .. } => *total,
        }
    }

    /// Rows of sequence `n`; a range that does not lie in the inputs is empty.
    pub fn range(&self, n: usize) -> Range<usize> {
        match self {
            Tokens::One { .. } => n..n + 1,
            Tokens::Each { tokens, .. } => n * tokens..(n + 1) * tokens,
            Tokens::Packed { cu_seqlens, total, .. } => {
                let row = |i: usize| usize::try_from(cu_seqlens[i]).ok().filter(|row| row <= total);
                match (row(n), row(n + 1)) {
                    (Some(begin), Some(end)) if begin <= end => begin..end,
                    _ => 0..0,
                }
            }
        }
    }

    /// Rows behind the last sequence.
    pub fn rest(&self) -> Range<usize> {
        let total = self.total();
        match self {
            Tokens::One { .. } | Tokens::Each { .. } => total..total,
            Tokens::Packed { cu_seqlens, .. } => {
                let end = cu_seqlens.last().and_then(|end| usize::try_from(*end).ok()).unwrap_or(total);
                end.min(total)..total
            }
        }
    }

    /// Whether the operation is decode.
    pub fn is_decode(&self) -> bool {
        matches!(self, Tokens::One { .. })
    }
}

/// How decays are found; the gate input, or the log decay, is [`Problem::a`].
#[derive(Clone, Debug)]
pub enum Decay {
    /// `gdn_host::Decay::Softplus`.
    Softplus {
        /// `[HV]`.
        a_log: Strided,
        /// `[HV]`, in KDA `[HV, K]`.
        dt_bias: Strided,
        /// `s` in `log(1 + e^(s x)) / s`.
        beta: f32,
        /// softplus(x) is x where `s x` is above this.
        threshold: f32,
    },
    /// `gdn_host::Decay::LowerBound`.
    LowerBound {
        /// `[HV]`.
        a_log: Strided,
        /// `[HV]`, in KDA `[HV, K]`.
        dt_bias: Strided,
        /// The least log decay.
        bound: f32,
    },
    /// `gdn_host::Decay::Given`.
    Given,
    /// `gdn_host::Decay::GivenPerKeyHead`.
    GivenPerKeyHead,
}

/// How betas are found; the logits, or the betas, are [`Problem::b`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Beta {
    /// `gdn_host::Beta::Logits`.
    Logits {
        /// Whether beta is rounded through the type of b.
        rounded: bool,
        /// Factor on the sigmoid.
        scale: f32,
    },
    /// `gdn_host::Beta::Given`.
    Given,
    /// `gdn_host::Beta::GivenPerValue`.
    GivenPerValue,
}

/// The pool of states that sequences start from, and the type and layout of every state of the call.
#[derive(Clone)]
pub struct Pool {
    /// Type of the state.
    pub dtype: DType,
    /// Layout in memory.
    pub layout: Layout,
    /// `[slots, HV, V, K]`, dense. Empty with [`Source::Zeros`].
    pub data: Vec<f32>,
    /// Slots.
    pub slots: usize,
    /// Elements from slot to slot in memory.
    pub pitch: usize,
}

/// Where sequences start. Decode has neither zeros nor counts.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// From zeros.
    Zeros,
    /// Sequence n from slot n.
    Sequences,
    /// From the slot named.
    Slots(Vec<i32>),
    /// From the slot of the last accepted token.
    Accepted {
        /// `[N, width]`.
        slots: Vec<i32>,
        /// Slots of a sequence.
        width: usize,
        /// `[N]`.
        accepted: Vec<i32>,
    },
}

/// Where last states go. Decode knows the first two places of a pool.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// To the slot they came from.
    InPlace,
    /// To the slots named.
    Slots(Vec<i32>),
    /// Nowhere.
    Nowhere,
    /// Sequence n's to slot n of another tensor.
    Sequences {
        /// Slots of it.
        slots: usize,
        /// Elements from slot to slot in memory.
        pitch: usize,
    },
    /// The state after each token to a slot of its own.
    EachToken {
        /// `[N, width]`.
        slots: Vec<i32>,
        /// Slots of a sequence.
        width: usize,
    },
}

/// Start flags.
#[derive(Clone, Debug, PartialEq)]
pub enum StartFlags {
    /// No table.
    None,
    /// `Start::Reset`.
    Reset(Vec<u8>),
    /// `Start::HasInitialState`.
    HasInitialState(Vec<u8>),
}

/// The buffer for the state after each token.
#[derive(Clone, Debug, PartialEq)]
pub struct Intermediate {
    /// Type, if it is not the pool's.
    pub dtype: Option<DType>,
    /// Rows.
    pub rows: usize,
    /// States of a row.
    pub steps: usize,
    /// Elements from row to row in memory.
    pub pitch: usize,
    /// Row of each sequence, if there is a table.
    pub row: Option<Vec<i32>>,
    /// Parent of each token, `[N, steps]`.
    pub parent: Option<Vec<i32>>,
}

/// The output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Out {
    /// Type.
    pub dtype: DType,
    /// Elements from row to row.
    pub stride: usize,
}

/// Everything a call of the recurrence is made of.
#[derive(Clone)]
pub struct Problem {
    /// Heads.
    pub shape: HeadShape,
    /// How many decays a head has.
    pub family: Family,
    /// Tokens.
    pub tokens: Tokens,
    /// Queries, a row for each token.
    pub q: Strided,
    /// Keys.
    pub k: Strided,
    /// Values.
    pub v: Strided,
    /// If set, q, k and v share one buffer of rows of this many elements.
    pub packed_stride: Option<usize>,
    /// Gate input or log decay.
    pub a: Strided,
    /// Beta logits, or beta.
    pub b: Strided,
    /// Decay.
    pub decay: Decay,
    /// Beta.
    pub beta: Beta,
    /// eps of the l2norm.
    pub l2norm: Option<f32>,
    /// Scale.
    pub scale: Option<f32>,
    /// Head map.
    pub heads: HeadMap,
    /// States.
    pub pool: Pool,
    /// Where sequences start.
    pub source: Source,
    /// Start flags.
    pub start: StartFlags,
    /// Where they end.
    pub target: Target,
    /// Null slot.
    pub null_slot: Option<i32>,
    /// Buffer of states.
    pub intermediate: Option<Intermediate>,
    /// Whether the state is rounded after every token.
    pub round_state: bool,
    /// Output; decode always has one.
    pub out: Option<Out>,
    /// How all its tables lie in memory.
    pub tables: TableForm,
    /// Whether `a_log` and `dt_bias` are left out where they are zeros.
    pub omit_zeros: bool,
}

/// Without the thousands of values.
impl fmt::Debug for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let p = self;
        writeln!(f, "{:?} {:?}, {:?}, q {:?}, k {:?}, v {:?}", p.family, p.shape, p.tokens, p.q, p.k, p.v)?;
        writeln!(f, "packed {:?}, a {:?}, b {:?}, decay {:?}", p.packed_stride, p.a, p.b, p.decay)?;
        writeln!(f, "beta {:?}, l2norm {:?}, scale {:?}, {:?}", p.beta, p.l2norm, p.scale, p.heads)?;
        let Pool { dtype, layout, slots, pitch, .. } = &p.pool;
        writeln!(f, "state {} {layout:?} x {slots} pitch {pitch}, {:?}", dtype.name(), p.source)?;
        writeln!(f, "start {:?}, target {:?}, null {:?}", p.start, p.target, p.null_slot)?;
        write!(f, "{:?}, round {}, out {:?}, {:?}", p.intermediate, p.round_state, p.out, p.tables)
    }
}

impl Problem {
    /// Runs the problem; an error if the device refuses it, or if a gap between rows or slots was written.
    pub fn run(&self, device: &mut dyn Device, tile: Tile) -> Result<Solution> {
        device.reset();
        let placed = self.place(device)?;
        device.run(placed.call.operation(), tile)?;
        self.collect(device, &placed)
    }

    /// Runs on the device and holds the result against the oracle.
    pub fn run_and_check(&self, device: &mut dyn Device, tile: Tile) -> Result<Solution> {
        let solution = self.run(device, tile)?;
        self.check(&solution)?;
        Ok(solution)
    }

    /// Every tile there is for the problem.
    pub fn tiles(&self) -> Vec<Tile> {
        let key = match self.tokens {
            Tokens::One { .. } => ModuleKey::decode,
            Tokens::Each { .. } | Tokens::Packed { .. } => ModuleKey::recurrent,
        };
        let module = key(self.family, self.pool.layout, self.pool.dtype, self.io(), self.shape.k);
        plan::tiles(module, &self.shape).collect()
    }

    /// Type of q, k and v.
    pub fn io(&self) -> DType {
        self.q.dtype
    }

    /// Type of the buffer.
    pub fn buffer_type(&self) -> DType {
        self.intermediate.as_ref().and_then(|i| i.dtype).unwrap_or(self.pool.dtype)
    }

    /// Elements of a state.
    pub fn elements(&self) -> usize {
        self.shape.state_elements() as usize
    }

    /// Elements of an output row.
    pub fn width(&self) -> usize {
        self.shape.value_elements() as usize
    }
}
