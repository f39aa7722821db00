//! Plots of benchmark rows, as SVG.

use super::Row;
use anyhow::{Result, anyhow};
use plotters::prelude::*;
use std::path::Path;

/// One plot a head shape: share of time per byte, as GB/s of state traffic over the batch, a line a state type.
pub(super) fn draw(dir: &Path, device: &str, rows: &[Row]) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    let mut shapes: Vec<_> = rows.iter().map(|r| r.shape).collect();
    shapes.dedup();
    for shape in shapes {
        let rows: Vec<&Row> = rows.iter().filter(|r| r.shape == shape).collect();
        let file = dir.join(format!("decode-{}-{}.svg", shape.h, shape.hv));
        let title = format!("decode {}:{} on {device}", shape.h, shape.hv);
        // The backend's errors borrow the drawing area, so they are turned into text here.
        draw_one(&file, &title, &rows).map_err(|error| anyhow!("{}: {error}", file.display()))?;
        println!("{}", file.display());
    }
    Ok(())
}

fn draw_one(file: &Path, title: &str, rows: &[&Row]) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::new(file, (800, 480)).into_drawing_area();
    area.fill(&WHITE)?;
    let batches =
        rows.iter().map(|r| r.batch).min().unwrap_or(1)..rows.iter().map(|r| r.batch).max().unwrap_or(2) + 1;
    let top = rows.iter().map(|r| r.gbps).fold(0.0, f64::max) * 1.1;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 20))
        .margin(16)
        .x_label_area_size(40)
        .y_label_area_size(64)
        .build_cartesian_2d((f64::from(batches.start)..f64::from(batches.end)).log_scale(), 0.0..top)?;
    chart.configure_mesh().x_desc("sequences").y_desc("GB/s of state read and written").draw()?;
    let mut states: Vec<_> = rows.iter().map(|r| r.state).collect();
    states.dedup();
    for (i, state) in states.into_iter().enumerate() {
        let points = rows.iter().filter(|r| r.state == state).map(|r| (f64::from(r.batch), r.gbps));
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
