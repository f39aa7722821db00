//! Who is in a step, what the step does with them, and what its tables say.

use super::{Member, NO_SLOTS, Server};
use crate::soak::Plant;
use crate::soak::step::{Field, Form, Kind, MOST_TOKENS};
use anyhow::{Context as _, Result, ensure};
use gdn_host::slots::StepTables;

impl Server<'_> {
    /// Sequences in rows, in any order and with gaps between them: the rest of the rows is padding.
    pub(super) fn choose(&mut self) -> Vec<Member> {
        let most = self.size().most_rows().min(self.live.len());
        let count = if self.chance(70) { most } else { 1 + self.noise.below(most) };
        let rows = self.size().batches.iter().copied().find(|rows| *rows >= count).unwrap_or(count);
        let lives = self.drawn(self.live.len(), count);
        let places = self.drawn(rows, count);
        let member = |(live, row)| Member { live, row, tokens: 1, accepted: 1, forced: false };
        lives.into_iter().zip(places).map(member).collect()
    }

    /// `count` different numbers below `end`, in any order.
    fn drawn(&mut self, end: usize, count: usize) -> Vec<usize> {
        let mut numbers: Vec<usize> = (0..end).collect();
        for i in 0..count {
            let other = i + self.noise.below(end - i);
            numbers.swap(i, other);
        }
        numbers.truncate(count);
        numbers
    }

    /// The allocator's tables say what the server knows: each sequence starts where its state is.
    pub(super) fn check_tables(&self, members: &[Member], tables: &StepTables) -> Result<()> {
        for (i, member) in members.iter().enumerate() {
            let live = &self.live[member.live];
            let from = (tables.reset[i] == 0).then_some(tables.slots[i] as usize);
            ensure!(
                from == live.slot,
                "sequence {} at step {}: it starts from slot {from:?}, but its state is in {:?}",
                live.number,
                self.step,
                live.slot
            );
        }
        Ok(())
    }

    /// Draws what the step does, and writes its tables.
    pub(super) fn fill(&mut self, members: &mut [Member], given: &StepTables) -> Result<Form> {
        let kind = Kind::DRAWN[self.noise.below(Kind::DRAWN.len())];
        let rows = self.size().batches.iter().copied().find(|rows| members.iter().all(|m| m.row < *rows));
        let rows = rows.context("a step of more rows than the largest")?;
        let tokens = if kind.is_decode() { 1 } else { 2 + self.noise.below(MOST_TOKENS - 1) };
        let form = Form { kind, rows, tokens };
        for member in members.iter_mut() {
            member.tokens = if kind == Kind::Prompt { 1 + self.noise.below(tokens) } else { tokens };
            member.accepted = if kind.is_draft() { self.noise.below(tokens + 1) } else { member.tokens };
            member.forced = self.noise.below(16) == 0;
        }
        self.fill_padding(form);
        self.fill_tokens(form, members);
        // Slots by token stand behind those of the allocator.
        let first = self.size().slots as usize;
        for (i, member) in members.iter().enumerate() {
            self.tables.of(Field::Slots)[member.row] = given.slots[i];
            self.tables.of(Field::WriteSlots)[member.row] = given.write_slots[i];
            self.tables.of(Field::Reset)[member.row] = i32::from(given.reset[i]);
            if given.reset[i] == 0 {
                self.tables.of(Field::Stated)[member.row] = given.write_slots[i];
            }
            self.tables.of(Field::Accepted)[member.row] = member.accepted as i32;
            self.tables.of(Field::Force)[member.row] = i32::from(member.forced);
            if kind.is_draft() && member.accepted > 0 {
                let picked = form.picked(first, member.row, member.accepted);
                self.tables.of(Field::Picked)[member.row] = picked as i32;
            }
        }
        let (from, to) = given.copies();
        self.tables.of(Field::CopyFrom)[..from.len()].copy_from_slice(&from);
        self.tables.of(Field::CopyTo)[..to.len()].copy_from_slice(&to);
        for token in 0..form.total() {
            self.tables.of(Field::DraftSlots)[token] = (first + token) as i32;
        }
        self.make_mistake(kind, members, given);
        Ok(form)
    }

    /// Rows that no sequence has: they name no slot, and everything else they say must not matter.
    fn fill_padding(&mut self, form: Form) {
        for row in 0..form.rows {
            let nothing = NO_SLOTS[self.noise.below(NO_SLOTS.len())];
            self.tables.of(Field::Slots)[row] = nothing;
            self.tables.of(Field::WriteSlots)[row] = nothing;
            self.tables.of(Field::Reset)[row] = (row % 2) as i32;
            self.tables.of(Field::Accepted)[row] = 1;
            self.tables.of(Field::Picked)[row] = -1;
            self.tables.of(Field::CopyFrom)[row] = -1;
            self.tables.of(Field::CopyTo)[row] = -1;
            self.tables.of(Field::Stated)[row] = -1;
            self.tables.of(Field::Force)[row] = (row / 2 % 2) as i32;
        }
    }

    /// The rows of noise of every token, and where the tokens of prompts end.
    fn fill_tokens(&mut self, form: Form, members: &[Member]) {
        let vocabulary = self.size().vocabulary;
        let mut of_row: Vec<Option<&Member>> = vec![None; form.rows];
        members.iter().for_each(|member| of_row[member.row] = Some(member));
        let mut at = 0;
        self.tables.of(Field::Ends)[0] = 0;
        for (row, member) in of_row.into_iter().enumerate() {
            let padding =
                if form.kind == Kind::Prompt { self.noise.below(form.tokens + 1) } else { form.tokens };
            for t in 0..member.map_or(padding, |member| member.tokens) {
                let token = match member {
                    Some(Member { live, accepted, .. }) => {
                        let lineage = &self.live[*live].tokens;
                        let token = lineage.token(lineage.len() + t, vocabulary);
                        // What is rejected is another token than the one that comes there.
                        if t < *accepted { token } else { (token + 1) % vocabulary }
                    }
                    None => self.noise.below(vocabulary),
                };
                self.tables.of(Field::Tokens)[at] = token as i32;
                at += 1;
            }
            self.tables.of(Field::Ends)[row + 1] = at as i32;
        }
        self.tables.of(Field::Tokens)[at..form.total()].fill(-1);
    }

    fn make_mistake(&mut self, kind: Kind, members: &[Member], given: &StepTables) {
        let mut accepted = members.iter().filter(|member| member.accepted > 0);
        match (self.plant, kind, accepted.next(), accepted.next()) {
            (Some(Plant::DroppedCommit), Kind::DraftToBuffer, Some(member), _) => {
                self.tables.of(Field::Accepted)[member.row] = 0;
                self.plant = None;
            }
            (Some(Plant::SwappedCopies), Kind::DraftToSlots, Some(one), Some(other)) => {
                self.tables.of(Field::Picked).swap(one.row, other.row);
                self.plant = None;
            }
            // Kernels that write states read what is shared where it is: only rings need the copy.
            (Some(Plant::MissingCopy), Kind::Decode, ..) if !given.copies().0.is_empty() => {
                self.tables.of(Field::CopyFrom)[0] = -1;
                self.plant = None;
            }
            (Some(Plant::SecretFold), Kind::Decode, ..) => {
                let with_records = |member: &&Member| {
                    let live = &self.live[member.live];
                    live.past.live() > 0 && live.slot.is_some() && !member.forced
                };
                if let Some(member) = members.iter().find(with_records) {
                    self.tables.of(Field::Force)[member.row] = 1;
                    self.plant = None;
                }
            }
            _ => {}
        }
    }
}
