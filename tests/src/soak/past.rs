//! What happened to a sequence's rings: bits of states with records depend on when they were folded.

use super::step::{DRAFTS, RECORDS};

/// Something that happened, in all layers alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The true state was stored and the ring emptied: it was copied, swapped out, or kernels take over that write the state.
    Stored,
    /// So many tokens by kernels that write the state.
    Written(usize),
    /// A token by decode; whether it was told to fold.
    Decoded {
        /// It was.
        forced: bool,
    },
    /// Drafts that were verified; whether they were told to fold.
    Drafted {
        /// Drafts.
        tokens: usize,
        /// Those that were accepted.
        accepted: usize,
        /// They were.
        forced: bool,
    },
}

impl Event {
    /// Tokens that have inputs.
    pub fn tokens(self) -> usize {
        match self {
            Event::Stored => 0,
            Event::Decoded { .. } => 1,
            Event::Written(tokens) | Event::Drafted { tokens, .. } => tokens,
        }
    }
}

/// All of it, from a sequence's first token on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Past {
    events: Vec<Event>,
    live: usize,
}

impl Past {
    /// What happened, in order.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Live records now.
    pub fn live(&self) -> usize {
        self.live
    }

    /// Notes that something happened; whether a ring with records was folded by it.
    pub fn push(&mut self, event: Event) -> bool {
        let most = RECORDS - DRAFTS;
        let (folds, live) = match event {
            Event::Stored | Event::Written(_) => (true, 0),
            Event::Decoded { forced } => {
                // It folds with the token, and so does the first one of all, whose state is zeros.
                let folds = forced || self.events.is_empty() || self.live + 1 > most;
                (folds, if folds { 0 } else { self.live + 1 })
            }
            Event::Drafted { tokens, accepted, forced } => {
                // It folds in front of the drafts.
                let folds = forced || self.live + tokens > most;
                (folds, accepted + if folds { 0 } else { self.live })
            }
        };
        let had_records = std::mem::replace(&mut self.live, live) > 0;
        self.events.push(event);
        folds && had_records
    }
}
