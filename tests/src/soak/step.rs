//! A step of the server: what kind it is, and the tables that its calls read.

use crate::device::Device;
use anyhow::Result;
use gdn_host::{Table, Tokens};

/// Tokens of a sequence in one step at most.
pub const MOST_TOKENS: usize = 4;

/// Tokens of a sequence alone that are queued at once.
pub const QUEUED: usize = 16;

/// Records that a ring has room for: so few that rings fold and wrap around at every age of a sequence.
pub const RECORDS: usize = 12;

/// Drafts of a step at most, for which a ring keeps room.
pub const DRAFTS: usize = MOST_TOKENS;

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A token for each sequence, from its slot to the one it writes.
    Decode,
    /// The same where kernels update in place: shared states are copied in front.
    CopyAndDecode,
    /// One token or several of a prompt, of each sequence another number.
    Prompt,
    /// A draft whose states go to a buffer; accepted ones are committed.
    DraftToBuffer,
    /// A draft whose states go to a slot for each token; accepted ones are copied.
    DraftToSlots,
}

impl Kind {
    /// Every kind, decodes as often as everything else.
    pub const DRAWN: [Kind; 10] = [
        Kind::Decode,
        Kind::Decode,
        Kind::Decode,
        Kind::CopyAndDecode,
        Kind::CopyAndDecode,
        Kind::Prompt,
        Kind::DraftToBuffer,
        Kind::DraftToBuffer,
        Kind::DraftToSlots,
        Kind::DraftToSlots,
    ];

    /// What it is counted as.
    pub fn counted(self) -> &'static str {
        match self {
            Kind::Decode => "decode steps",
            Kind::CopyAndDecode => "decode steps behind copies",
            Kind::Prompt => "prompt steps",
            Kind::DraftToBuffer => "draft steps with a buffer",
            Kind::DraftToSlots => "draft steps with slots by token",
        }
    }

    /// Whether sequences have one token.
    pub fn is_decode(self) -> bool {
        matches!(self, Kind::Decode | Kind::CopyAndDecode)
    }

    /// Whether tokens may be rejected.
    pub fn is_draft(self) -> bool {
        matches!(self, Kind::DraftToBuffer | Kind::DraftToSlots)
    }
}

/// The form of a step: steps of one form have the same calls, only their tables say other things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Form {
    /// What it does.
    pub kind: Kind,
    /// Rows, padding included.
    pub rows: usize,
    /// Tokens of a row: all have as many in a draft, at most as many in prompts.
    pub tokens: usize,
}

impl Form {
    /// Tokens of the step, padding included.
    pub fn total(&self) -> usize {
        self.rows * self.tokens
    }

    /// Which tokens are whose.
    pub fn these(&self, tables: &Tables) -> Tokens {
        let batch = self.rows as u32;
        match self.kind {
            Kind::Prompt => {
                let cu_seqlens = tables.table(Field::Ends, self.rows + 1);
                Tokens::Packed { batch, total: self.total() as u32, cu_seqlens }
            }
            _ => Tokens::Each { batch, tokens: self.tokens as u32 },
        }
    }

    /// A slot for each token of a draft.
    pub fn draft_slots(&self, tables: &Tables) -> Table {
        tables.table(Field::DraftSlots, self.rows).with_columns(self.tokens as u64)
    }

    /// The index of what stands behind `count` tokens of a row: among those of the buffer, or among slots, of which those by token
    /// begin at `first`.
    pub fn picked(&self, first: usize, row: usize, count: usize) -> usize {
        match self.kind {
            Kind::DraftToBuffer => row * MOST_TOKENS + count - 1,
            _ => first + row * self.tokens + count - 1,
        }
    }
}

/// The tables of a step. Each has a place of its own in one stretch of memory, so that one write brings them all and a
/// graph's calls find them again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Row of noise that each token is.
    Tokens,
    /// Slot that each row's state is read from.
    Slots,
    /// Slot that it is written to.
    WriteSlots,
    /// Whether a row starts from zeros.
    Reset,
    /// Accepted tokens of a draft, as the commit of states reads them.
    Accepted,
    /// Where the copies behind a draft come from: of windows in the buffer, or of slots by token.
    Picked,
    /// Copies in front: from.
    CopyFrom,
    /// Copies in front: to.
    CopyTo,
    /// A slot for each token of a draft.
    DraftSlots,
    /// Where rows of prompts begin and end.
    Ends,
    /// Whether a row's ring is folded now.
    Force,
    /// The slots to write in which there is a state already, or is one behind the copies.
    Stated,
}

/// Fields there are.
const FIELDS: usize = 12;

/// The tables of steps in device memory, and what the next step's say.
pub struct Tables {
    address: u64,
    /// Entries of a field.
    room: usize,
    entries: Vec<i32>,
}

impl Tables {
    /// Room for the tables of a step of so many rows.
    pub fn new(device: &mut dyn Device, rows: usize) -> Result<Tables> {
        let room = rows * MOST_TOKENS + 1;
        let address = device.alloc((FIELDS * room * size_of::<i32>()) as u64)?;
        Ok(Tables { address, room, entries: vec![0; FIELDS * room] })
    }

    /// What a field says.
    pub fn of(&mut self, field: Field) -> &mut [i32] {
        let from = field as usize * self.room;
        &mut self.entries[from..from + self.room]
    }

    /// A field's first entries, as calls read them.
    pub fn table(&self, field: Field, len: usize) -> Table {
        Table::i32(self.address + (field as usize * self.room * size_of::<i32>()) as u64, len as u64)
    }

    /// Brings them to the device.
    pub fn write(&self, device: &mut dyn Device) -> Result<()> {
        device.write(self.address, bytemuck::cast_slice(&self.entries))
    }
}
