//! The committed results of a card.

use super::super::row::{GDN, PEERS_RMW, Row, Shape};
use super::super::saved::Saved;
use anyhow::{Context as _, Result};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Files of a folder, each card's read once.
pub(super) struct Cards {
    folder: PathBuf,
    read: RefCell<BTreeMap<String, Rc<Card>>>,
}

/// What is known of a card.
pub(super) struct Card {
    /// `CARD.json`.
    pub(super) ours: Saved,
    /// Rows of `CARD-peers.json`, measured in the same run on the same card.
    pub(super) peers: Vec<Row>,
    /// Rows of `CARD-replay-peers.json`, of the peers' kernels that do not write the state; empty without the file.
    pub(super) replay_peers: Vec<Row>,
    /// Rows of `CARD-replay.json`, of ours; empty without the file.
    pub(super) replay: Vec<Row>,
}

impl Cards {
    pub(super) fn new(folder: PathBuf) -> Cards {
        Cards { folder, read: RefCell::default() }
    }

    /// Where results lie.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The results of a card, named as its files are.
    pub(super) fn get(&self, name: &str) -> Result<Rc<Card>> {
        if let Some(card) = self.read.borrow().get(name) {
            return Ok(card.clone());
        }
        let path = |suffix: &str| self.folder.join(format!("{name}{suffix}.json"));
        let ours = Saved::read(&path(""))?;
        let optional = |suffix| {
            let path = path(suffix);
            if path.exists() { Saved::peers(&path, &ours.device) } else { Ok(Vec::new()) }
        };
        let card = Rc::new(Card {
            peers: Saved::peers(&path("-peers"), &ours.device)?,
            replay_peers: optional("-replay-peers")?,
            replay: optional("-replay")?,
            ours,
        });
        self.read.borrow_mut().insert(name.to_owned(), card.clone());
        Ok(card)
    }
}

impl Card {
    /// Our plain launches.
    pub(super) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.ours.rows.iter().filter(|row| row.implementation == GDN && !row.early)
    }

    /// Those of an operation and a layout.
    pub(super) fn rows_of(&self, op: &str, layout: &str) -> Vec<&Row> {
        self.rows().filter(|row| row.shape.op == op && row.shape.layout == layout).collect()
    }

    /// Whether peers timed the operation in that layout.
    pub(super) fn is_versus(&self, shape: &Shape) -> bool {
        let same = |peer: &Shape| (&peer.op, &peer.layout) == (&shape.op, &shape.layout);
        self.peers.iter().any(|peer| peer.implementation != PEERS_RMW && same(&peer.shape))
    }

    /// The fastest peer on the same work as a row.
    pub(super) fn best_peer(&self, row: &Row) -> Option<&Row> {
        row.best_peer(&self.peers)
    }

    /// The one row of ours for a shape of Qwen3-Next in VK.
    pub(super) fn row(&self, op: &str, state: &str, batch: u32) -> Result<&Row> {
        let is_it = |row: &&Row| {
            let shape = &row.shape;
            (&*shape.op, &*shape.state, &*shape.layout) == (op, state, "vk")
                && shape.batch == batch
                && shape.heads() == HEADS
        };
        self.rows()
            .find(is_it)
            .with_context(|| format!("{op} {state} {HEADS} batch {batch} was not measured"))
    }
}

/// Heads of Qwen3-Next-80B, Qwen3.5-4B, 9B and 35B, which stand for all where one shape is shown.
pub(super) const HEADS: &str = "16:32";
