//! What a marker's words stand for.

use super::super::row::{PEERS_RMW, Row};
use super::card::{Card, Cards, HEADS};
use super::tables::{Table, cells, groups, markdown, us};
use super::{python, replay};
use anyhow::{Context as _, Result, bail, ensure};
use gdn_host::{Family, MODELS};

/// Batches of short tables.
const FEW: [u32; 6] = [1, 4, 8, 16, 64, 256];
/// The operations that the README shows beside the best peer.
const MAIN: [(&str, &str); 3] =
    [("decode", "decode"), ("verify", "verify, 4 tokens"), ("update", "update, 4 tokens")];
/// Operations without a state, whose rows are the same for every type of it.
const STATELESS: [&str; 3] = ["unpack_qkvz", "conv1d_update", "gated_rmsnorm"];

/// The Markdown that a marker's words ask for.
pub(super) fn part(cards: &Cards, words: &[&str]) -> Result<String> {
    Ok(match *words {
        ["models"] => models(),
        ["card", card] => device(&*cards.get(card)?),
        ["summary", card] => summary(&*cards.get(card)?)?,
        ["versus", card] => versus(&*cards.get(card)?, card),
        ["against", card, op] => against(&*cards.get(card)?, op)?,
        ["mean", card, op] => format!("{:.2}", mean(&Ratios::of(&*cards.get(card)?, op)?.all())),
        ["rest", card] => rest(&*cards.get(card)?),
        ["replay", card] => replay::table(&*cards.get(card)?)?,
        ["replay-fastest", card] => replay::fastest(&*cards.get(card)?),
        ["replay-ahead", card] => replay::ahead(&*cards.get(card)?),
        ["replay-pays", card] => replay::pays(&*cards.get(card)?),
        ["replay-tree", card] => replay::tree(&*cards.get(card)?),
        ["replay-layers", card] => replay::layers(&*cards.get(card)?),
        ["us", card, op, state, batch] => us(cards.get(card)?.row(op, state, batch.parse()?)?.us),
        ["early", card] => early(&*cards.get(card)?),
        ["layer", card] => layer(&*cards.get(card)?),
        ["load", card] => load(&*cards.get(card)?),
        ["load-most", card] => load_most(&*cards.get(card)?)?,
        ["host", card] => host(&*cards.get(card)?),
        ["python-host", card] => python::host(cards.folder(), card)?,
        ["python-tokens", card] => python::tokens(cards.folder(), card)?,
        _ => bail!("no part of the documents is called so"),
    })
}

/// Card, driver and day.
fn device(card: &Card) -> String {
    let ours = &card.ours;
    let driver = ours.driver.iter().map(|driver| format!("driver {driver}"));
    let words: Vec<_> =
        [ours.device.clone()].into_iter().chain(driver).chain(ours.date.iter().cloned()).collect();
    words.join(", ")
}

/// How a peer's file calls it, and how a reader does.
pub(super) fn peer_name(implementation: &str) -> &str {
    match implementation {
        "flashinfer" => "FlashInfer",
        "sglang" => "SGLang",
        "sglang-bv8" => "SGLang, BV 8",
        "sglang-bv32" => "SGLang, BV 32",
        "sglang-replay" => "SGLang replay",
        "sglang-replay-bv32" => "SGLang replay, BV 32",
        "sglang-replay-bv64" => "SGLang replay, BV 64",
        "sglang-replay-both" => "SGLang replay: fold, verify, output",
        "sglang-replay-verify" => "SGLang replay: verify without folds",
        "flashinfer-ucache-flush" => "FlashInfer u-cache with flush",
        "rmw" => "read and write alone (PyTorch)",
        other => other,
    }
}

/// Times of the best peer over ours.
struct Ratios<'a>(Vec<(f64, &'a Row, &'a Row)>);

impl<'a> Ratios<'a> {
    /// Of an operation in VK; at least one.
    fn of(card: &'a Card, op: &str) -> Result<Self> {
        let rows = card.rows_of(op, "vk").into_iter();
        let ratios: Vec<_> =
            rows.filter_map(|row| card.best_peer(row).map(|peer| (peer.us / row.us, row, peer))).collect();
        ensure!(!ratios.is_empty(), "no peer timed {op}");
        Ok(Ratios(ratios))
    }

    fn all(&self) -> Vec<f64> {
        self.0.iter().map(|(ratio, ..)| *ratio).collect()
    }
}

/// The geometric mean.
fn mean(ratios: &[f64]) -> f64 {
    (ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / ratios.len() as f64).exp()
}

/// The smallest and the largest.
fn bounds(ratios: &[f64]) -> (f64, f64) {
    let start = (f64::INFINITY, f64::NEG_INFINITY);
    ratios.iter().fold(start, |(low, high), &ratio| (low.min(ratio), high.max(ratio)))
}

/// Some sentences: the mean, the bounds, each peer by itself, and where one is ahead.
fn against(card: &Card, op: &str) -> Result<String> {
    let ratios = Ratios::of(card, op)?;
    let all = ratios.all();
    let (shapes, mean, (low, high)) = (all.len(), mean(&all), bounds(&all));
    let ahead: Vec<String> = ratios.0.iter().filter(|(ratio, ..)| *ratio < 1.0).map(behind).collect();
    let level = ratios.0.iter().filter(|(ratio, ..)| (1.0..1.01).contains(ratio)).count();
    let mut text = format!(
        "Over {shapes} shapes the best peer takes {mean:.2} times as long as this library in the geometric mean, from {low:.2} to {high:.2}."
    );
    let alone: Vec<String> = projects(card).into_iter().filter_map(|who| alone(card, op, who)).collect();
    text += &format!(" Each project by itself: {}.", alone.join(", "));
    match &*ahead {
        [] => text += " No peer is ahead at any of them.",
        ahead => text += &format!(" A peer is ahead at {} of them: {}.", ahead.len(), ahead.join("; ")),
    }
    if level > 0 {
        text += &format!(" At {level} shapes this library leads by less than 1 %.");
    }
    let dated = ratios.0.iter().filter(|(_, _, peer)| peer.date.is_some()).count();
    if dated > 0 {
        text += &format!(
            " At {dated} shapes the best peer's time is of another run, which its date in the file tells."
        );
    }
    Ok(text)
}

/// Who wrote the peers' kernels, each once.
fn projects(card: &Card) -> Vec<&str> {
    let mut names: Vec<_> = card.peers.iter().map(|peer| project(&peer.implementation)).collect();
    names.retain(|name| *name != project(PEERS_RMW));
    names.sort_unstable();
    names.dedup();
    names
}

/// The first word of a peer's name: its kernels of several tiles are one peer.
fn project(implementation: &str) -> &str {
    let name = peer_name(implementation);
    name.split_once([',', ' ']).map_or(name, |(name, _)| name)
}

/// How far one project's kernels are by themselves, if it timed the operation.
fn alone(card: &Card, op: &str, who: &str) -> Option<String> {
    let peers: Vec<Row> =
        card.peers.iter().filter(|peer| project(&peer.implementation) == who).cloned().collect();
    let rows = card.rows_of(op, "vk").into_iter();
    let ratios: Vec<f64> = rows.filter_map(|row| row.ratio_to_best(&peers)).collect();
    let (shapes, (low, high)) = (ratios.len(), bounds(&ratios));
    (shapes > 0).then(|| {
        let mean = mean(&ratios);
        format!("{who} {mean:.2} ({shapes} shapes, {low:.2} to {high:.2})")
    })
}

fn behind((ratio, row, peer): &(f64, &Row, &Row)) -> String {
    let (shape, by) = (&row.shape, (1.0 / ratio - 1.0) * 100.0);
    let who = peer_name(&peer.implementation);
    format!("{}, {} state, {} sequences ({who}, by {by:.1} %)", shape.heads(), shape.state, shape.batch)
}

/// Ours beside the best peer, at the heads of Qwen3-Next.
fn summary(card: &Card) -> Result<String> {
    let mut table = Table::new(&["us a launch", "state", ""]);
    for (op, name) in MAIN {
        let rows: Vec<&Row> =
            card.rows_of(op, "vk").into_iter().filter(|row| row.shape.heads() == HEADS).collect();
        ensure!(!rows.is_empty(), "{op} was not measured");
        for (state, rows) in groups(rows, |row| row.shape.state.clone()) {
            table.line(&[name, &state, "gdn"], cells(&rows, |row| Some(us(row.us))));
            table.line(&["", "", "best peer"], cells(&rows, |row| card.best_peer(row).map(|p| us(p.us))));
        }
    }
    Ok(table.at(&FEW))
}

/// A section an operation that peers timed: plot, table, and what it comes to.
fn versus(card: &Card, name: &str) -> String {
    let versus = card.rows().filter(|row| card.is_versus(&row.shape));
    let mut text = String::new();
    for ((op, layout), rows) in groups(versus, |row| (row.shape.op.clone(), row.shape.layout.clone())) {
        text += &format!("### {op}\n\n");
        text += &format!(
            "![{op}: times of the peers over ours](benchmarks/plots/{name}/{op}-{layout}-peers.svg)\n\n"
        );
        let mut table = Table::new(&["heads", "state", ""]);
        for ((heads, state), rows) in groups(rows, |row| (row.shape.heads(), row.shape.state.clone())) {
            table.line(&[&heads, &state, "us"], cells(&rows, |row| Some(us(row.us))));
            let ratio = |row: &Row| card.best_peer(row).map(|peer| format!("{:.2}", peer.us / row.us));
            table.line(&["", "", "ratio"], cells(&rows, ratio));
            let share = |row: &Row| row.share_of_roof.map(|share| format!("{share:.2}"));
            table.line(&["", "", "of roof"], cells(&rows, share));
        }
        text += &table.text();
        // The layout is VK wherever a peer was timed; `against` says so by its sentence alone.
        if let Ok(sentence) = against(card, &op) {
            text += &format!("\n{sentence}\n\n");
        }
    }
    text
}

/// Operations that no peer was timed on: microseconds, and GB/s of what has to move.
fn rest(card: &Card) -> String {
    let is_shown = |row: &&Row| {
        let shape = &row.shape;
        !card.is_versus(shape) && (!STATELESS.contains(&&*shape.op) || shape.state == "bf16")
    };
    let mut table = Table::new(&["operation", "layout", "heads", "state"]);
    let key = |row: &Row| {
        let shape = &row.shape;
        (shape.op.clone(), shape.layout.clone(), shape.heads(), shape.state.clone())
    };
    for ((op, layout, heads, state), rows) in groups(card.rows().filter(is_shown), key) {
        let state = if STATELESS.contains(&&*op) { "" } else { &*state };
        let cell = |row: &Row| Some(format!("{} ({:.0})", us(row.us), row.gbps));
        table.line(&[&op, &layout.to_uppercase(), &heads, state], cells(&rows, cell));
    }
    table.at(&FEW)
}

/// What a launch adds behind a kernel of 2 us, plainly and early.
fn early(card: &Card) -> String {
    let mut table = Table::new(&["operation", "layout", "state", ""]);
    let shortest = card.ours.chained.iter().map(|row| row.producer_us).fold(f64::INFINITY, f64::min);
    let rows = card
        .ours
        .chained
        .iter()
        .filter(|row| row.early && row.producer_us == shortest && row.shape.heads() == HEADS);
    let key = |row: &super::super::chained::Chained| {
        (row.shape.op.clone(), row.shape.layout.clone(), row.shape.state.clone())
    };
    for ((op, layout, state), rows) in groups(rows, key) {
        let cells = |cell: fn(&super::super::chained::Chained) -> String| {
            rows.iter().map(move |row| (row.shape.batch, cell(row))).collect::<Vec<_>>()
        };
        table.line(&[&op, &layout.to_uppercase(), &state, "plain, us"], cells(|row| us(row.plain_us)));
        table.line(&["", "", "", "early"], cells(|row| format!("{:.2}", row.ratio)));
        table.line(&["", "", "", "all early"], cells(|row| format!("{:.2}", row.all_early_ratio)));
    }
    table.text()
}

/// A layer's step of three launches.
fn layer(card: &Card) -> String {
    let mut table = Table::new(&["recurrence", "layout", "state", ""]);
    let rows = card.ours.layer.iter().filter(|row| row.shape.heads() == HEADS);
    for ((op, layout, state), rows) in
        groups(rows, |row| (row.shape.op.clone(), row.shape.layout.clone(), row.shape.state.clone()))
    {
        let plain = rows.iter().map(|row| (row.shape.batch, us(row.plain_us)));
        table.line(&[&op, &layout.to_uppercase(), &state, "plain, us"], plain);
        table.line(&["", "", "", "early, us"], rows.iter().map(|row| (row.shape.batch, us(row.early_us))));
    }
    table.text()
}

/// Loading, by module.
fn load(card: &Card) -> String {
    let headings = ["module", "machine code, ms", "PTX, cache off, ms", "PTX, cache filled, ms"];
    let row = |(name, times): (&String, &super::super::load::Times)| {
        let binary = times.binary.map_or_else(String::new, |ms| format!("{ms:.1}"));
        vec![format!("`{name}`"), binary, format!("{:.0}", times.cold), format!("{:.1}", times.warm)]
    };
    markdown(&headings.map(str::to_owned), &card.ours.load().map(row).collect::<Vec<_>>())
}

/// Milliseconds of the module that takes longest to load as machine code.
fn load_most(card: &Card) -> Result<String> {
    let times = card.ours.load().filter_map(|(_, times)| times.binary);
    Ok(format!("{:.1}", times.reduce(f64::max).context("no machine code was loaded")?))
}

/// What a launch costs the host.
fn host(card: &Card) -> String {
    let host = card.ours.host_launch_us.as_ref();
    let ways = [
        ("a launch", host.map(|host| &host.plain)),
        ("an early launch", host.and_then(|host| host.early.as_ref())),
        ("a launch replayed as a graph of its own", host.map(|host| &host.graph)),
        ("a kernel that does nothing", host.map(|host| &host.nothing)),
    ];
    let rows: Vec<Vec<String>> = ways
        .into_iter()
        .filter_map(|(name, times)| times.map(|times| (name, times)))
        .map(|(name, times)| {
            let driver = times.driver.map_or_else(String::new, us);
            vec![name.to_owned(), us(times.median), driver, us(times.done)]
        })
        .collect();
    let headings = ["", "host, us", "of it the driver's, us", "until it has run, us"].map(str::to_owned);
    markdown(&headings, &rows)
}

/// The models of `gdn_host::MODELS`, and over how many ranks each can be split.
fn models() -> String {
    let headings =
        ["model", "recurrence", "heads H:HV", "K x V", "layers", "tensor parallel"].map(str::to_owned);
    let row = |model: &gdn_host::Model| {
        let shape = model.shape;
        let family = match model.family {
            Family::Gdn => "GDN",
            Family::Kda => "KDA",
        };
        let layers = model.layers.map_or_else(|| "not published".to_owned(), |layers| layers.to_string());
        let ranks = [1, 2, 4, 8].into_iter().filter(|ranks| shape.shard(*ranks).is_ok());
        let ranks: Vec<_> = ranks.map(|ranks| ranks.to_string()).collect();
        let heads = format!("{}:{}", shape.h, shape.hv);
        let dimensions = format!("{} x {}", shape.k, shape.v);
        vec![model.name.to_owned(), family.to_owned(), heads, dimensions, layers, ranks.join(", ")]
    };
    markdown(&headings, &MODELS.iter().map(row).collect::<Vec<_>>())
}
