//! Cost against size.

use plotters::prelude::*;
use std::path::Path;

/// A picture of lines, both axes logarithmic.
pub fn draw(path: &Path, title: &str, unit: &str, lines: &[(String, Vec<(f64, f64)>)]) -> Result<(), String> {
    let all = || lines.iter().flat_map(|(_, points)| points).copied();
    let range = |pick: fn((f64, f64)) -> f64| {
        let (low, high) = all().map(pick).fold((f64::MAX, 0.0f64), |(l, h), v| (l.min(v), h.max(v)));
        (low.max(1e-3) / 1.5)..(high.max(2e-3) * 1.5)
    };
    let drawn = || -> Result<(), Box<dyn std::error::Error>> {
        let area = SVGBackend::new(path, (760, 480)).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(56)
            .build_cartesian_2d(range(|p| p.0).log_scale(), range(|p| p.1).log_scale())?;
        chart.configure_mesh().x_desc(unit).y_desc("seconds").light_line_style(WHITE.mix(0.0)).draw()?;
        for (i, (name, points)) in lines.iter().enumerate() {
            let color = Palette99::pick(i).to_rgba();
            let line = LineSeries::new(points.iter().copied(), color.stroke_width(2)).point_size(3);
            let sample = move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2));
            chart.draw_series(line)?.label(name).legend(sample);
        }
        let mut legend = chart.configure_series_labels();
        legend.position(SeriesLabelPosition::UpperLeft).background_style(WHITE.mix(0.9));
        legend.border_style(BLACK.mix(0.3)).draw()?;
        area.present()?;
        Ok(())
    };
    drawn().map_err(|e| format!("{}: {e}", path.display()))
}
