//! Random recurrent problems.

use super::Noise;
use super::options::{Options, options};
use crate::problem::{Intermediate, Problem, Source, StartFlags, Target, Tokens};
use gdn_host::{DType, Layout};
use proptest::prelude::*;

/// Where sequences may start.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Begin {
    Zeros,
    Sequences,
    Slots,
    Accepted,
}

/// Where states may go.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Nowhere,
    InPlace,
    Slots,
    Sequences,
    EachToken,
}

/// What is drawn of the states, besides the indices, which follow from the seed.
#[derive(Clone, Debug)]
struct Addressing {
    begin: Begin,
    end: End,
    /// Steps of the buffer; 0: none.
    steps: usize,
    row_table: bool,
    tree: bool,
    round_state: bool,
    advance_only: bool,
    null_slot: bool,
    /// Whether all sequences start from one slot.
    fork: bool,
    /// Whether states by token go to the slots that sequences start from.
    one_table: bool,
    start: u8,
    /// Slots of a sequence by token.
    width: usize,
}

fn addressing() -> impl Strategy<Value = Addressing> {
    let begin = prop_oneof![
        1 => Just(Begin::Zeros),
        1 => Just(Begin::Sequences),
        1 => Just(Begin::Slots),
        2 => Just(Begin::Accepted)
    ];
    let end = prop_oneof![
        1 => Just(End::Nowhere),
        1 => Just(End::InPlace),
        1 => Just(End::Slots),
        1 => Just(End::Sequences),
        2 => Just(End::EachToken)
    ];
    (begin, end, 0usize..=6, any::<[bool; 7]>(), 0u8..3, 1usize..=4).prop_map(
        |(begin, end, steps, flags, start, width)| {
            let [row_table, tree, round_state, advance_only, null_slot, fork, one_table] = flags;
            Addressing {
                begin,
                end,
                steps,
                row_table,
                tree,
                round_state,
                advance_only,
                null_slot,
                fork,
                one_table,
                start,
                width,
            }
        },
    )
}

fn tokens() -> impl Strategy<Value = Tokens> {
    let each = (1usize..=3, 0usize..=5).prop_map(|(batch, tokens)| Tokens::Each { batch, tokens });
    let lengths = prop::collection::vec(0usize..=4, 1..=4);
    let packed = (lengths, any::<bool>(), 0usize..=2).prop_map(|(lengths, is_i64, more)| {
        let tokens = Tokens::packed(&lengths, is_i64);
        let Tokens::Packed { cu_seqlens, total, is_i64 } = tokens else { return tokens };
        // Rows behind the last sequence are nobody's.
        Tokens::Packed { cu_seqlens, total: total + more, is_i64 }
    });
    prop_oneof![each, packed]
}

/// A recurrent problem with everything drawn that may vary.
pub fn recurrent() -> impl Strategy<Value = Problem> {
    (options(), tokens(), addressing()).prop_map(|(options, tokens, addressing)| {
        let mut p = options.problem(tokens);
        addressing.fitted().apply(&mut p, &options);
        p
    })
}

/// A shuffled `0..len`.
fn shuffled(len: usize, noise: &mut Noise) -> Vec<i32> {
    let mut order: Vec<i32> = (0..len as i32).collect();
    for i in (1..len).rev() {
        order.swap(i, noise.below(i + 1));
    }
    order
}

/// An index, or, one time in five, one that names nothing.
fn or_nothing(index: i32, noise: &mut Noise) -> i32 {
    let nothing = [-1, i32::MIN, 1000, i32::MAX];
    if noise.below(5) == 0 { nothing[noise.below(4)] } else { index }
}

impl Addressing {
    /// The nearest combination that a call may have.
    fn fitted(mut self) -> Self {
        if self.begin == Begin::Zeros && matches!(self.end, End::InPlace | End::Slots | End::EachToken) {
            self.end = End::Sequences;
        }
        self.tree &= self.end != End::EachToken;
        self.advance_only &= self.end != End::Nowhere || self.steps > 0;
        self
    }

    fn apply(&self, p: &mut Problem, options: &Options) {
        let (batch, gaps) = (p.tokens.batch(), options.gaps);
        let mut noise = Noise::new(options.seed ^ 0xadd2);
        let slots = batch * (2 * self.width + 1) + 1;
        // Sequence n of `Begin::Sequences` is in slot n; all other slots are distinct numbers of one shuffled list.
        let mut order = match self.begin {
            Begin::Sequences => (batch as i32..slots as i32).collect(),
            _ => shuffled(slots, &mut noise),
        };
        p.null_slot = self.null_slot.then(|| order[order.len() - 1]);
        let mut table = |len: usize| -> Vec<i32> {
            order.drain(..len).map(|slot| or_nothing(slot, &mut noise)).collect()
        };
        match self.begin {
            Begin::Zeros => {}
            Begin::Sequences => p.source = Source::Sequences,
            Begin::Slots => {
                let slots = table(batch);
                let fork = self.fork && self.end != End::InPlace;
                p.source = Source::Slots(if fork { vec![slots[0]; batch] } else { slots });
            }
            Begin::Accepted => {
                let slots = table(batch * self.width);
                let accepted =
                    (0..batch).map(|n| (n + slots.len()) as i32 % (self.width as i32 + 2)).collect();
                p.source = Source::Accepted { slots, width: self.width, accepted };
            }
        }
        p.target = match self.end {
            End::Nowhere => Target::Nowhere,
            End::InPlace => Target::InPlace,
            End::Slots => Target::Slots(table(batch)),
            End::Sequences => Target::Sequences { slots: batch + gaps[0], pitch: p.elements() + 8 * gaps[2] },
            End::EachToken => match &p.source {
                // vLLM's way: the table that sequences start from.
                Source::Accepted { slots, width, .. } if self.one_table => {
                    Target::EachToken { slots: slots.clone(), width: *width }
                }
                _ => Target::EachToken { slots: table(batch * self.width), width: self.width },
            },
        };
        if self.begin == Begin::Zeros {
            p.fill_pool(0, 0);
            p.source = Source::Zeros;
        } else {
            p.fill_pool(slots, options.seed + 1);
            p.start = self.start_flags(batch, &mut noise);
        }
        p.pool.pitch += 8 * gaps[4];
        p.round_state = self.round_state;
        p.out = p.out.filter(|_| !self.advance_only);
        p.intermediate = self.intermediate(p, gaps[1], &mut noise);
        if self.begin == Begin::Zeros && self.end == End::Nowhere {
            // Without a pool there is no other layout, and without a buffer no type.
            p.pool.layout = Layout::Vk;
            match &mut p.intermediate {
                Some(buffer) => buffer.dtype = None,
                None => p.pool.dtype = DType::F32,
            }
        }
    }

    fn start_flags(&self, batch: usize, noise: &mut Noise) -> StartFlags {
        let bytes = (0..batch).map(|_| [0, 0, 1, 255][noise.below(4)]).collect();
        match self.start {
            0 => StartFlags::None,
            1 => StartFlags::Reset(bytes),
            _ => StartFlags::HasInitialState(bytes),
        }
    }

    fn intermediate(&self, p: &Problem, gap: usize, noise: &mut Noise) -> Option<Intermediate> {
        let (batch, steps) = (p.tokens.batch(), self.steps);
        let rows = 1 + noise.below(batch + 1);
        let order = shuffled(rows.max(batch), noise);
        let row = order.into_iter().take(batch).map(|row| or_nothing(row, noise)).collect();
        let parent = (0..batch * steps).map(|i| noise.below(i % steps + 3) as i32 - 2).collect();
        (steps > 0).then(|| Intermediate {
            // Beside an f32 pool the buffer may be of any type.
            dtype: (p.pool.dtype == DType::F32)
                .then(|| [DType::F32, DType::Bf16, DType::F16][noise.below(3)]),
            rows,
            steps,
            pitch: steps * p.elements() + 8 * gap,
            row: self.row_table.then_some(row),
            parent: self.tree.then_some(parent),
        })
    }
}
