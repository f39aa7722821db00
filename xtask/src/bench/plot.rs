//! Plots of rows, as SVG: one an operation and kind, a line for each head shape and type of the state.

use super::row::{GDN, PEERS_RMW, Row};
use anyhow::{Context as _, Result, anyhow, ensure};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// What is drawn over the batch.
struct Kind {
    /// In the file's name.
    name: &'static str,
    /// At the axis.
    unit: &'static str,
    /// Whether the axis is logarithmic.
    log: bool,
}

const TIME: Kind = Kind { name: "time", unit: "microseconds a launch", log: true };
const SHARE: Kind = Kind { name: "roof", unit: "time of read-modify-write / time", log: false };
const RATIO: Kind = Kind { name: "ratio", unit: "time of the best peer / time", log: false };
const PEERS: Kind = Kind { name: "peers", unit: "time of a peer / time of gdn", log: false };

/// What a row has to say; `None` where it was not measured.
type Value<'a> = &'a dyn Fn(&Row) -> Option<f64>;

/// A line: its label, and batch and value of its points.
struct Series {
    label: String,
    points: Vec<(f64, f64)>,
}

/// A plot: its file's name, and the SVG.
pub(super) type Plot = (String, String);

/// Writes plots into a folder, which is made if it is not there: the files.
///
/// # Errors
/// A folder or file that cannot be written.
pub(super) fn write(dir: &Path, plots: &[Plot]) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let write = |(name, svg): &Plot| {
        let file = dir.join(name);
        std::fs::write(&file, svg).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(file)
    };
    plots.iter().map(write).collect()
}

/// Draws whatever the rows give: times always, shares of the roof where roofs were measured; where peers were measured,
/// ratios to the best of them for all heads, and all of them for the first heads.
///
/// # Errors
/// No rows of ours.
pub(super) fn draw(device: &str, rows: &[Row], peers: &[Row]) -> Result<Vec<Plot>> {
    let ours: Vec<&Row> = rows.iter().filter(|r| r.implementation == GDN).collect();
    ensure!(!ours.is_empty(), "no rows to plot");
    let mut works: Vec<_> = ours.iter().map(|r| (&*r.shape.op, &*r.shape.layout)).collect();
    works.sort_unstable();
    works.dedup();
    let mut plots = Vec::new();
    for (op, layout) in works {
        let rows: Vec<&Row> =
            ours.iter().copied().filter(|r| (&*r.shape.op, &*r.shape.layout) == (op, layout)).collect();
        let values: [(&Kind, Value); 3] =
            [(&TIME, &|r| Some(r.us)), (&SHARE, &|r| r.share_of_roof), (&RATIO, &|r| r.ratio_to_best(peers))];
        let lines = values.map(|(kind, value)| (kind, series(&rows, value)));
        let lines = lines.into_iter().chain([(&PEERS, peer_series(&rows, peers))]);
        for (kind, series) in lines.filter(|(_, series)| !series.is_empty()) {
            let name = format!("{op}-{layout}-{}.svg", kind.name);
            let heads = if kind.name == PEERS.name {
                format!(", heads {}", rows[0].shape.heads())
            } else {
                String::new()
            };
            let title = format!("{op}, layout {layout}{heads}, {device}");
            // The backend's errors borrow the drawing area, so they are turned into text here.
            let svg = chart(&title, kind, &series).map_err(|error| anyhow!("{name}: {error}"))?;
            plots.push((name, svg));
        }
    }
    Ok(plots)
}

/// A line for each peer and type of the state, of the first heads, and ours, which is 1 by definition.
fn peer_series(rows: &[&Row], peers: &[Row]) -> Vec<Series> {
    let Some(first) = rows.first().map(|row| row.shape.heads()) else { return Vec::new() };
    let mut lines: Vec<Series> = Vec::new();
    for row in rows.iter().filter(|row| row.shape.heads() == first) {
        for peer in peers.iter().filter(|p| p.same_work(row) && p.implementation != PEERS_RMW) {
            let label = format!("{} {}", peer.implementation, row.shape.state);
            push(&mut lines, label, (f64::from(row.shape.batch.max(1)), peer.us / row.us));
        }
    }
    let batches = lines.iter().flat_map(|line| line.points.iter().map(|point| point.0));
    let (low, high) = batches.fold((f64::INFINITY, 0.0_f64), |(low, high), x| (low.min(x), high.max(x)));
    if high > 0.0 {
        lines.insert(0, Series { label: GDN.into(), points: vec![(low, 1.0), (high, 1.0)] });
    }
    lines
}

/// Adds a point to the line of that label.
fn push(lines: &mut Vec<Series>, label: String, point: (f64, f64)) {
    match lines.iter_mut().find(|line| line.label == label) {
        Some(line) => line.points.push(point),
        None => lines.push(Series { label, points: vec![point] }),
    }
}

/// A line for each head shape and type of the state that has values, in the order of the rows.
fn series(rows: &[&Row], value: Value) -> Vec<Series> {
    let mut lines: Vec<Series> = Vec::new();
    for row in rows {
        let Some(value) = value(row).filter(|v| v.is_finite() && *v > 0.0) else { continue };
        let label = format!("{} {}", row.shape.heads(), row.shape.state);
        let point = (f64::from(row.shape.batch.max(1)), value);
        push(&mut lines, label, point);
    }
    for line in &mut lines {
        line.points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    lines
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// One plot. Logarithmic axes are of base 2, drawn as linear ones of the logarithm.
fn chart(title: &str, kind: &Kind, series: &[Series]) -> Result<String, Box<dyn std::error::Error>> {
    let mut svg = String::new();
    let area: Area = SVGBackend::with_string(&mut svg, (860, 520)).into_drawing_area();
    area.fill(&WHITE)?;
    let scale = |y: f64| if kind.log { y.log2() } else { y };
    let points = || series.iter().flat_map(|line| &line.points);
    let x = range(points().map(|p| p.0.log2()));
    let y = range(points().map(|p| scale(p.1)));
    let y = if kind.log { y } else { 0.0..y.end.max(1.05) };
    let mut chart: Chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 20))
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(x, y)?;
    let power = |v: &f64| if v.fract().abs() < 1e-6 { format!("{}", v.exp2()) } else { String::new() };
    let label = |v: &f64| if kind.log { power(v) } else { format!("{v:.1}") };
    let mut mesh = chart.configure_mesh();
    mesh.x_desc("sequences").y_desc(kind.unit).x_labels(12).y_labels(12);
    mesh.x_label_formatter(&power).y_label_formatter(&label).light_line_style(WHITE).draw()?;
    for (i, line) in series.iter().enumerate() {
        let colour = Palette99::pick(i).stroke_width(2);
        let points: Vec<_> = line.points.iter().map(|p| (p.0.log2(), scale(p.1))).collect();
        chart
            .draw_series(LineSeries::new(points.iter().copied(), colour))?
            .label(line.label.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour));
        chart.draw_series(points.iter().map(|&p| Circle::new(p, 3, colour.filled())))?;
    }
    let position = if kind.log { SeriesLabelPosition::UpperLeft } else { SeriesLabelPosition::LowerRight };
    chart.configure_series_labels().position(position).background_style(WHITE).border_style(BLACK).draw()?;
    area.present()?;
    drop(chart);
    drop(area);
    Ok(svg)
}

/// A range that holds all values, with some room; never empty.
fn range(values: impl Iterator<Item = f64>) -> Range<f64> {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    let room = ((high - low) * 0.05).max(0.2);
    low - room..high + room
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Row> {
        let text = r#"{"device": "card", "rows": [
            {"op":"decode","impl":"gdn","h":16,"hv":32,"state":"f32","io":"bf16","layout":"vk","batch":1,"tokens":1,
             "us":3.6,"share_of_roof":0.9},
            {"op":"decode","impl":"rmw_gdn","h":16,"hv":32,"state":"f32","io":"bf16","layout":"vk","batch":1,"tokens":1,
             "us":3.24},
            {"op":"decode","impl":"gdn","h":16,"hv":32,"state":"f32","io":"bf16","layout":"vk","batch":64,"tokens":1,
             "us":94.0,"share_of_roof":0.99},
            {"op":"decode","impl":"gdn","h":4,"hv":8,"state":"bf16","io":"bf16","layout":"vk","batch":1,"tokens":1,"us":2.3},
            {"op":"verify","impl":"gdn","h":4,"hv":8,"state":"f32","io":"bf16","layout":"vk","batch":1,"tokens":4,"us":5.0}
        ]}"#;
        let saved: super::super::saved::Saved = serde_json::from_str(text).unwrap();
        saved.rows
    }

    #[test]
    fn plots_have_a_labelled_line_for_each_shape_and_type() {
        let rows = rows();
        let peer = Row { implementation: "sglang-bv8".into(), us: 4.4, ..rows[0].clone() };
        let plots = draw("card", &rows, &[peer]).unwrap();
        let names: Vec<_> = plots.iter().map(|(name, _)| name.as_str()).collect();
        let all =
            ["decode-vk-time", "decode-vk-roof", "decode-vk-ratio", "decode-vk-peers", "verify-vk-time"];
        assert_eq!(names, all.map(|name| format!("{name}.svg")));
        let text = |i: usize| plots[i].1.as_str();
        let time = text(0);
        for part in ["16:32 f32", "4:8 bf16", "sequences", "microseconds a launch", "decode, layout vk, card"]
        {
            assert!(time.contains(part), "{part}");
        }
        assert!(text(1).contains("16:32 f32") && !text(1).contains("4:8 bf16"), "no roof was measured there");
        assert!(text(2).contains("16:32 f32") && text(2).contains("time of the best peer"));
        assert!(
            text(3).contains("sglang-bv8 f32") && text(3).contains("heads 16:32") && !text(3).contains("4:8")
        );
    }

    #[test]
    fn rows_without_ours_are_an_error() {
        assert!(draw("card", &[], &[]).unwrap_err().to_string().contains("no rows to plot"));
    }
}
