//! Kernels that keep records of tokens instead of writing the state at each: ours and the peers'.

use super::super::row::{PEERS_RMW, Row};
use super::card::{Card, HEADS};
use super::parts::peer_name;
use super::tables::{Table, cells, groups, us};
use anyhow::{Result, ensure};

/// Someone is ahead who is so many times as fast.
const AHEAD: f64 = 1.01;
/// Keeping records pays where it saves so much of the time.
const PAYS: f64 = 0.97;

/// Operation, type of the state, and tokens of each sequence.
type Key = (String, String, u32);

fn key(row: &Row) -> Key {
    (row.shape.op.to_string(), row.shape.state.to_string(), row.tokens)
}

/// The operation that one with records stands in for.
fn plain_of(op: &str) -> String {
    op.replacen("replay_", "", 1)
}

/// As a reader calls an operation: several tokens are four where nothing else is said.
fn name((op, _, tokens): &Key) -> String {
    let op = plain_of(op);
    if matches!(tokens, 1 | 4) { op } else { format!("{op}, {tokens} tokens") }
}

fn at_heads(rows: &[Row]) -> impl Iterator<Item = &Row> {
    rows.iter().filter(|row| row.shape.heads() == HEADS && !row.early)
}

/// Ours that write the state, on the same work as rows with records.
fn plain<'a>(card: &'a Card, (op, state, tokens): &Key) -> Vec<&'a Row> {
    let rows = card.rows_of(&plain_of(op), "vk").into_iter();
    rows.filter(|row| row.shape.heads() == HEADS && row.shape.state == **state && row.tokens == *tokens)
        .collect()
}

fn records<'a>(card: &'a Card, of: &Key) -> Vec<&'a Row> {
    at_heads(&card.replay).filter(|row| key(row) == *of).collect()
}

/// Every kernel, the peers' operations first.
pub(super) fn table(card: &Card) -> Result<String> {
    ensure!(!card.replay_peers.is_empty(), "there is no file of replay kernels for this card");
    let mut table = Table::new(&["operation", "state", "kernel"]);
    let peers = groups(at_heads(&card.replay_peers), key);
    let own = groups(at_heads(&card.replay), key);
    let without_peer = own.into_iter().filter(|(of, _)| peers.iter().all(|(other, _)| other != of));
    let without_peer: Vec<_> = without_peer.map(|(of, rows)| (of, rows, false)).collect();
    let with_peer = peers.iter().map(|(of, rows)| (of.clone(), rows.clone(), true));
    for (of, rows, are_peers) in with_peer.chain(without_peer) {
        let batches: Vec<u32> = rows.iter().map(|row| row.shape.batch).collect();
        let mut first = [name(&of), of.1.clone()];
        let mut line = |kernel: &str, rows: &[&Row]| {
            let rows: Vec<_> =
                rows.iter().copied().filter(|row| batches.contains(&row.shape.batch)).collect();
            if !rows.is_empty() {
                let [op, state] = std::mem::take(&mut first);
                table.line(&[&op, &state, kernel], cells(&rows, |row| Some(us(row.us))));
            }
        };
        line("gdn, state written", &plain(card, &of));
        line("gdn, records", &records(card, &of));
        for (implementation, rows) in
            groups(rows.into_iter().filter(|_| are_peers), |row| row.implementation.clone())
        {
            line(peer_name(&implementation), &rows);
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
    let (mut shapes, mut places, mut many_drafts) = (0, Vec::new(), false);
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
        many_drafts |= of.2 > 1 && behind.iter().any(|(ours, _)| ours.shape.batch >= 64);
    }
    if places.is_empty() {
        return format!("No peer is ahead by 1 % or more at any of these {shapes} shapes.");
    }
    let advice = if many_drafts {
        " If you verify drafts for many sequences at once, use theirs for now."
    } else {
        ""
    };
    format!("A peer is ahead by 1 % or more in {}.{advice}", places.join("; "))
}

/// From which batch on keeping records pays, by operation and type of the state.
pub(super) fn pays(card: &Card) -> String {
    let mut places = Vec::new();
    for (of, rows) in groups(at_heads(&card.replay), key) {
        let plain = plain(card, &of);
        let mut measured: Vec<(u32, bool)> = rows
            .iter()
            .filter_map(|row| {
                let plain = best(plain.iter().copied(), row.shape.batch)?;
                Some((row.shape.batch, row.us <= PAYS * plain.us))
            })
            .collect();
        measured.sort_unstable();
        if measured.is_empty() {
            continue;
        }
        let from = measured.iter().rev().take_while(|(_, pays)| *pays).last();
        let when = from.map_or("at no batch".to_owned(), |(batch, _)| match batch {
            1 => "at every batch".to_owned(),
            batch => format!("from {batch} sequences on"),
        });
        places.push(format!("{} with a state in {} {when}", name(&of), of.1));
    }
    if places.is_empty() {
        return "From which batch on it pays was not measured with this build.".into();
    }
    format!("It saves 3 % or more of the time in {}.", places.join("; "))
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
    use super::super::super::row::{GDN, Shape};
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
            If you verify drafts for many sequences at once, use theirs for now.";
        assert_eq!(behind, want);
        let fast =
            ["replay_decode", "replay_verify"].map(|op| [row(op, GDN, 4, 8.0), row(op, GDN, 64, 50.2)]);
        let level = ahead(&card(fast.concat()));
        assert_eq!(level, "No peer is ahead by 1 % or more at any of these 4 shapes.");
    }

    #[test]
    fn records_pay_from_the_batch_on_behind_which_they_always_do() {
        assert!(pays(&card(Vec::new())).contains("not measured"));
        let rows = |four, many| vec![row("replay_decode", GDN, 4, four), row("replay_decode", GDN, 64, many)];
        let of = |four, many| pays(&card(rows(four, many)));
        assert_eq!(
            of(9.9, 60.0),
            "It saves 3 % or more of the time in decode with a state in f32 from 64 sequences on."
        );
        assert_eq!(
            of(9.0, 99.0),
            "It saves 3 % or more of the time in decode with a state in f32 at no batch."
        );
    }

    #[test]
    fn every_kernel_has_a_line() {
        let rows = vec![row("replay_decode", GDN, 4, 8.0), row("materialise", GDN, 4, 7.0)];
        let table = table(&card(rows)).unwrap();
        for line in [
            "| decode | f32 | gdn, state written | 10.00 | 100.0 |",
            "|  |  | gdn, records | 8.00 |  |",
            "|  |  | read and write alone (PyTorch) |  | 5.00 |",
            "| materialise | f32 | gdn, records | 7.00 |  |",
        ] {
            assert!(table.contains(line), "{table}");
        }
    }
}
