//! Plots of benchmark rows, as SVG.

use super::Row;
use anyhow::{Result, anyhow};
use plotters::prelude::*;
use std::path::Path;

/// One plot an operation, layout and head shape: GB/s of state traffic over the batch, a line a state type.
pub(super) fn draw(dir: &Path, device: &str, rows: &[Row]) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    let kind = |r: &Row| (r.spec.op, r.spec.layout, r.spec.shape);
    let mut kinds: Vec<_> = rows.iter().map(kind).collect();
    kinds.dedup();
    for (op, layout, shape) in kinds {
        let rows: Vec<&Row> = rows.iter().filter(|r| kind(r) == (op, layout, shape)).collect();
        let (op, layout) = (op.name(), super::layout_name(layout));
        let file = dir.join(format!("{op}-{layout}-{}-{}.svg", shape.h, shape.hv));
        let title = format!("{op} {}:{} {layout} on {device}", shape.h, shape.hv);
        // The backend's errors borrow the drawing area, so they are turned into text here.
        draw_one(&file, &title, &rows).map_err(|error| anyhow!("{}: {error}", file.display()))?;
        println!("{}", file.display());
    }
    Ok(())
}

fn draw_one(file: &Path, title: &str, rows: &[&Row]) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::new(file, (800, 480)).into_drawing_area();
    area.fill(&WHITE)?;
    let batches = rows.iter().map(|r| r.spec.batch).min().unwrap_or(1)
        ..rows.iter().map(|r| r.spec.batch).max().unwrap_or(2) + 1;
    let top = rows.iter().map(|r| r.gbps).fold(0.0, f64::max) * 1.1;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 20))
        .margin(16)
        .x_label_area_size(40)
        .y_label_area_size(64)
        .build_cartesian_2d((f64::from(batches.start)..f64::from(batches.end)).log_scale(), 0.0..top)?;
    chart.configure_mesh().x_desc("sequences").y_desc("GB/s of state read and written").draw()?;
    let mut states: Vec<_> = rows.iter().map(|r| r.spec.state).collect();
    states.dedup();
    for (i, state) in states.into_iter().enumerate() {
        let points = rows.iter().filter(|r| r.spec.state == state).map(|r| (f64::from(r.spec.batch), r.gbps));
        let points: Vec<_> = points.collect();
        let colour = Palette99::pick(i).stroke_width(2);
        chart
            .draw_series(LineSeries::new(points.iter().copied(), colour))?
            .label(state.name())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour));
        chart.draw_series(points.iter().map(|&p| Circle::new(p, 3, colour.filled())))?;
    }
    chart.configure_series_labels().background_style(WHITE).border_style(BLACK).draw()?;
    area.present()?;
    Ok(())
}
