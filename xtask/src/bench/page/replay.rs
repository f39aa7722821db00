//! Kernels that keep records of tokens instead of writing the state at each: ours and the peers'.

use super::super::ops::LAYERS;
use super::super::row::{GDN, PEERS_RMW, Row};
use super::card::{Card, HEADS};
use super::parts::peer_name;
use super::tables::{Table, cells, groups, us};
use anyhow::{Result, ensure};
use std::collections::BTreeSet;

/// Someone is ahead who is so many times as fast.
const AHEAD: f64 = 1.01;
/// Keeping records pays where it saves so much of the time.
const PAYS: f64 = 0.97;

/// Operation, type of the state, and tokens of each sequence.
type Key = (String, String, u32);

const CHAIN: &str = "replay_verify";
const TREE: &str = "replay_verify_tree";
/// It moves records and no state, and is the same for every type of it.
const COMMIT: &str = "replay_commit";
const MATERIALISE: &str = "materialise";

/// Sequences from which on calls for all layers have enough to move.
const MANY: u32 = 16;

fn key(row: &Row) -> Key {
    (row.shape.op.to_string(), row.shape.state.to_string(), row.tokens)
}

/// The operation that one with records stands in for; itself where there is none.
fn plain_of(op: &str) -> String {
    if op == TREE { "verify".into() } else { op.replacen("replay_", "", 1) }
}

/// As a reader calls an operation: several tokens are four where nothing else is said.
fn name((op, _, tokens): &Key) -> String {
    let name = match &**op {
        COMMIT => format!("commit, {LAYERS} layers"),
        MATERIALISE => format!("{MATERIALISE}, {LAYERS} layers"),
        op => plain_of(op),
    };
    let name = if matches!(tokens, 1 | 4) { name } else { format!("{name}, {tokens} tokens") };
    if op == TREE { name + " as a tree" } else { name }
}

fn at_heads(rows: &[Row]) -> impl Iterator<Item = &Row> {
    rows.iter().filter(|row| row.shape.heads() == HEADS && !row.early)
}

/// Ours that write the state, on the same work as rows with records: of the same run, if they are in the same file.
fn plain<'a>(card: &'a Card, (records, state, tokens): &Key) -> Vec<&'a Row> {
    let op = plain_of(records);
    if op == *records {
        return Vec::new();
    }
    let is_it = |row: &&Row| {
        let Row { shape, .. } = row;
        (&*shape.op, &*shape.state, row.tokens) == (&*op, &**state, *tokens) && shape.layout == "vk"
    };
    let beside: Vec<_> =
        at_heads(&card.replay).filter(|row| row.implementation == GDN).filter(is_it).collect();
    if !beside.is_empty() {
        return beside;
    }
    card.rows().filter(|row| row.shape.heads() == HEADS).filter(is_it).collect()
}

/// Ours with records. Roofs, and kernels that write the state, stand in the same file.
fn own(card: &Card) -> impl Iterator<Item = &Row> {
    let is_shown = |row: &&Row| {
        let op = &*row.shape.op;
        let has_records = op.contains("replay_") || op == MATERIALISE;
        row.implementation == GDN && has_records && (op != COMMIT || row.shape.state == "f32")
    };
    at_heads(&card.replay).filter(is_shown)
}

fn records<'a>(card: &'a Card, of: &Key) -> Vec<&'a Row> {
    own(card).filter(|row| key(row) == *of).collect()
}

/// Every kernel, the peers' operations first.
pub(super) fn table(card: &Card) -> Result<String> {
    ensure!(!card.replay_peers.is_empty(), "there is no file of replay kernels for this card");
    let mut table = Table::new(&["operation", "state", "kernel"]);
    let peers = groups(at_heads(&card.replay_peers), key);
    let own = groups(own(card), key);
    let without_peer = own.into_iter().filter(|(of, _)| peers.iter().all(|(other, _)| other != of));
    let without_peer: Vec<_> = without_peer.map(|(of, rows)| (of, rows, false)).collect();
    let with_peer = peers.iter().map(|(of, rows)| (of.clone(), rows.clone(), true));
    for (of, rows, are_peers) in with_peer.chain(without_peer) {
        let batches: Vec<u32> = rows.iter().map(|row| row.shape.batch).collect();
        let state = if of.0 == COMMIT { String::new() } else { of.1.clone() };
        let mut first = [name(&of), state];
        let mut line = |kernel: &str, rows: &[&Row], cell: fn(&Row) -> Option<String>| {
            let rows = rows.iter().copied().filter(|row| batches.contains(&row.shape.batch));
            let rows: Vec<_> = rows.filter(|row| cell(row).is_some()).collect();
            if !rows.is_empty() {
                let [op, state] = std::mem::take(&mut first);
                table.line(&[&op, &state, kernel], cells(&rows, cell));
            }
        };
        let time: fn(&Row) -> Option<String> = |row| Some(us(row.us));
        line("gdn, state written", &plain(card, &of), time);
        let records = records(card, &of);
        line("gdn, records", &records, time);
        line("of a copy", &records, |row| row.share_of_copy.map(|share| format!("{share:.2}")));
        for (implementation, rows) in
            groups(rows.into_iter().filter(|_| are_peers), |row| row.implementation.clone())
        {
            line(peer_name(&implementation), &rows, time);
        }
    }
    Ok(table.text())
}

/// The fastest of rows at a batch.
fn best<'a>(rows: impl IntoIterator<Item = &'a Row>, batch: u32) -> Option<&'a Row> {
    let rows = rows.into_iter().filter(|row| row.shape.batch == batch);
    rows.min_by(|a, b| a.us.total_cmp(&b.us))
}

/// The fastest kernel of ours and of the peers', with and without records, at each batch of the peers' kernels with records.
fn pairs(card: &Card) -> Vec<(Key, Vec<(&Row, &Row)>)> {
    let rivals = at_heads(&card.replay_peers).filter(|row| row.implementation != PEERS_RMW);
    let beside = groups(rivals, key).into_iter().map(|(of, rivals)| {
        let mut batches: Vec<u32> = rivals.iter().map(|row| row.shape.batch).collect();
        batches.sort_unstable();
        batches.dedup();
        let (plain, records) = (plain(card, &of), records(card, &of));
        let written = |batch| best(plain.iter().copied(), batch).and_then(|row| row.best_peer(&card.peers));
        let pair = |batch: u32| {
            let ours = best(plain.iter().chain(&records).copied(), batch)?;
            let theirs = best(rivals.iter().copied().chain(written(batch)), batch)?;
            Some((ours, theirs))
        };
        let pairs = batches.into_iter().filter_map(pair).collect();
        (of, pairs)
    });
    beside.collect()
}

/// The fastest of either side.
pub(super) fn fastest(card: &Card) -> String {
    let mut table = Table::new(&["us a launch", "state", ""]);
    for (of, pairs) in pairs(card) {
        let line = |row: fn(&(&Row, &Row)) -> f64| {
            pairs.iter().map(|pair| (pair.0.shape.batch, us(row(pair)))).collect::<Vec<_>>()
        };
        table.line(&[&name(&of), &of.1, "gdn"], line(|pair| pair.0.us));
        table.line(&["", "", "best peer"], line(|pair| pair.1.us));
    }
    table.text()
}

/// Where a peer is ahead, and what to do about it.
pub(super) fn ahead(card: &Card) -> String {
    let (mut shapes, mut places, mut many_drafts) = (0, Vec::new(), BTreeSet::new());
    for (of, pairs) in pairs(card) {
        shapes += pairs.len();
        let behind: Vec<_> = pairs.iter().filter(|(ours, peer)| ours.us > AHEAD * peer.us).collect();
        let Some((ours, peer)) = behind.iter().max_by(|a, b| (a.0.us / a.1.us).total_cmp(&(b.0.us / b.1.us)))
        else {
            continue;
        };
        let batches: Vec<_> = behind.iter().map(|(ours, _)| ours.shape.batch.to_string()).collect();
        let (by, who) = (ours.us / peer.us, peer_name(&peer.implementation));
        let (op, state, batches) = (name(&of), &of.1, list(&batches));
        places.push(format!(
            "{op} with a state in {state}, {batches} sequences (up to {by:.2} times as fast: {who})"
        ));
        if of.2 > 1 && behind.iter().any(|(ours, _)| ours.shape.batch >= 64) {
            many_drafts.insert(of.1.clone());
        }
    }
    if places.is_empty() {
        return format!("No peer is ahead by 1 % or more at any of these {shapes} shapes.");
    }
    let advice = match &*many_drafts.into_iter().collect::<Vec<_>>() {
        [] => String::new(),
        states => format!(
            " If you verify drafts for many sequences at once with a state in {}, use theirs for now.",
            list(states)
        ),
    };
    format!("A peer is ahead by 1 % or more in {}.{advice}", places.join("; "))
}

/// What keeping records takes of the time of writing the state, by operation, type of the state and batch; bold where it pays.
pub(super) fn pays(card: &Card) -> String {
    let mut table = Table::new(&["time with records over time without", "state"]);
    let steps = own(card).filter(|row| row.shape.op != TREE);
    for (of, rows) in groups(steps, key) {
        let plain = plain(card, &of);
        let share = |row: &Row| {
            let share = row.us / best(plain.iter().copied(), row.shape.batch)?.us;
            Some(if share <= PAYS { format!("**{share:.2}**") } else { format!("{share:.2}") })
        };
        table.line(&[&name(&of), &of.1], cells(&rows, share));
    }
    table.text()
}

/// What a tree costs beside a chain of as many drafts.
pub(super) fn tree(card: &Card) -> String {
    let chain_of = |tree: &Row| {
        let is_it = |row: &&Row| {
            row.shape.op == CHAIN
                && (&row.shape.state, row.shape.batch, row.tokens)
                    == (&tree.shape.state, tree.shape.batch, tree.tokens)
        };
        own(card).find(is_it)
    };
    let trees = own(card).filter(|row| row.shape.op == TREE);
    let ratios: Vec<f64> = trees.filter_map(|tree| Some(tree.us / chain_of(tree)?.us)).collect();
    let Some(most) = ratios.iter().copied().reduce(f64::max) else {
        return "What a tree of drafts costs beside a chain was not measured with this build.".into();
    };
    let shapes = ratios.len();
    format!(
        "A tree of drafts takes at most {most:.2} times as long as a chain of as many, over {shapes} shapes."
    )
}

/// How near the calls for all layers come to a copy of as many bytes.
pub(super) fn layers(card: &Card) -> String {
    let share_of = |op: &str| {
        let rows = own(card).filter(|row| row.shape.op == op && row.shape.batch >= MANY);
        rows.filter_map(|row| row.share_of_copy).reduce(f64::min)
    };
    match (share_of(COMMIT), share_of(MATERIALISE)) {
        (Some(commit), Some(materialise)) => format!(
            "From {MANY} sequences on the commit of {LAYERS} layers comes to {commit:.2} of a copy of as many bytes or more, their \
             materialisation to {materialise:.2}."
        ),
        _ => "How near commits and materialisations come to a copy was not measured with this build.".into(),
    }
}

/// `a, b and c`.
fn list(words: &[String]) -> String {
    match words {
        [words @ .., last] if !words.is_empty() => format!("{} and {last}", words.join(", ")),
        _ => words.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::row::{COPY, Shape};
    use super::super::super::saved::Saved;
    use super::*;

    fn row(op: &str, who: &str, batch: u32, us: f64) -> Row {
        let shape = Shape {
            op: op.to_owned().into(),
            h: 16,
            hv: 32,
            k: 128,
            v: 128,
            state: "f32".into(),
            io: "bf16".into(),
            layout: "vk".into(),
            batch,
        };
        let tokens = if op.ends_with("verify") { 4 } else { 1 };
        serde_json::from_value::<Row>(serde_json::json!({
            "impl": who, "op": "", "h": 0, "hv": 0, "state": "", "io": "", "layout": "", "batch": 0,
            "tokens": tokens, "us": us,
        }))
        .map(|row| Row { shape, ..row })
        .unwrap()
    }

    fn card(replay: Vec<Row>) -> Card {
        let mut ours = serde_json::from_str::<Saved>(r#"{ "device": "a GPU", "rows": [] }"#).unwrap();
        let plain = |op: &str| [row(op, GDN, 4, 10.0), row(op, GDN, 64, 100.0)];
        ours.rows = [plain("decode"), plain("verify")].concat();
        let peers = vec![row("decode", "sglang", 4, 9.0), row("decode", PEERS_RMW, 4, 1.0)];
        let with_records = ["replay_decode", "replay_verify"].into_iter().flat_map(|op| {
            [row(op, "sglang-replay", 4, 12.0), row(op, PEERS_RMW, 64, 5.0), row(op, "flashinfer", 64, 50.0)]
        });
        Card { ours, peers, replay_peers: with_records.collect(), replay }
    }

    #[test]
    fn the_fastest_of_each_side_are_beside_each_other() {
        // The peer that writes the state is the faster one of theirs at 4 sequences, the roof is none.
        let want = "| us a launch | state |  | 4 | 64 |\n|---|---|---|---|---|\n\
            | decode | f32 | gdn | 10.00 | 100.0 |\n|  |  | best peer | 9.00 | 50.00 |\n\
            | verify | f32 | gdn | 10.00 | 100.0 |\n|  |  | best peer | 12.00 | 50.00 |\n";
        assert_eq!(fastest(&card(Vec::new())), want);
        let with_records = card(vec![row("replay_decode", GDN, 64, 40.0)]);
        assert!(fastest(&with_records).contains("| decode | f32 | gdn | 10.00 | 40.00 |"));
    }

    #[test]
    fn who_is_ahead_follows_from_the_numbers() {
        let behind = ahead(&card(Vec::new()));
        let want = "A peer is ahead by 1 % or more in decode with a state in f32, 4 and 64 sequences (up to 2.00 times as fast: FlashInfer); \
            verify with a state in f32, 64 sequences (up to 2.00 times as fast: FlashInfer). \
            If you verify drafts for many sequences at once with a state in f32, use theirs for now.";
        assert_eq!(behind, want);
        let fast =
            ["replay_decode", "replay_verify"].map(|op| [row(op, GDN, 4, 8.0), row(op, GDN, 64, 50.2)]);
        let level = ahead(&card(fast.concat()));
        assert_eq!(level, "No peer is ahead by 1 % or more at any of these 4 shapes.");
    }

    #[test]
    fn records_pay_where_they_save_time() {
        assert_eq!(pays(&card(Vec::new())), "Not measured with this build.\n");
        let rows = vec![row("replay_decode", GDN, 4, 9.9), row("replay_decode", GDN, 64, 96.9)];
        let head = "| time with records over time without | state | 4 | 64 |\n|---|---|---|---|\n";
        let of = |rows: &[Row]| pays(&card(rows.to_vec()));
        assert_eq!(of(&rows), format!("{head}| decode | f32 | 0.99 | **0.97** |\n"));
        // What was timed in the same run counts, not the 10 and 100 us of the other file.
        let beside = [row("decode", GDN, 4, 11.0), row("decode", GDN, 64, 97.0)];
        assert_eq!(of(&[&rows[..], &beside].concat()), format!("{head}| decode | f32 | **0.90** | 1.00 |\n"));
    }

    #[test]
    fn every_kernel_has_a_line() {
        let roof = Row { implementation: COPY.into(), ..row("materialise", COPY, 4, 6.3) };
        let materialise = Row { share_of_copy: Some(0.9), ..row("materialise", GDN, 4, 7.0) };
        let rows = vec![row("replay_decode", GDN, 4, 8.0), materialise, roof];
        let table = table(&card(rows)).unwrap();
        for line in [
            "| decode | f32 | gdn, state written | 10.00 | 100.0 |",
            "|  |  | gdn, records | 8.00 |  |",
            "|  |  | read and write alone (PyTorch) |  | 5.00 |",
            "| materialise, 48 layers | f32 | gdn, records | 7.00 |  |",
            "|  |  | of a copy | 0.90 |  |",
        ] {
            assert!(table.contains(line), "{table}");
        }
        assert!(!table.contains("6.30"), "a roof is no kernel with records: {table}");
    }

    #[test]
    fn trees_stand_beside_chains_and_calls_for_all_layers_beside_copies() {
        let unmeasured = card(Vec::new());
        assert!(tree(&unmeasured).contains("not measured") && layers(&unmeasured).contains("not measured"));
        let of_eight = |op: &str, batch, us| Row { tokens: 8, ..row(op, GDN, batch, us) };
        let drafts = [(CHAIN, 4, 10.0), (CHAIN, 64, 100.0), (TREE, 4, 11.2), (TREE, 64, 105.0)];
        let share = |op: &str, batch, share| Row { share_of_copy: Some(share), ..row(op, GDN, batch, 1.0) };
        let shares = [(COMMIT, 4, 0.5), (COMMIT, 16, 0.93), (COMMIT, 64, 0.91), (MATERIALISE, 64, 0.95)];
        let rows = drafts.map(|(op, batch, us)| of_eight(op, batch, us)).into_iter();
        let measured = card(rows.chain(shares.map(|(op, batch, of)| share(op, batch, of))).collect());
        let want = "A tree of drafts takes at most 1.12 times as long as a chain of as many, over 2 shapes.";
        assert_eq!(tree(&measured), want);
        let want = "From 16 sequences on the commit of 48 layers comes to 0.91 of a copy of as many bytes or more, their \
                    materialisation to 0.95.";
        assert_eq!(layers(&measured), want);
    }
}
