//! Charts as SVG, drawn by `plotters`. Colours are replaced by the page's style in the dark.
use super::PageError;
use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};
use serde_json::{Value, json};

/// Colours of runs, each at least 3:1 on white; style.css has each one's twin for the dark.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0x00, 0x5f, 0xb3),
    RGBColor(0xc4, 0x4e, 0x00),
    RGBColor(0x00, 0x7f, 0x5f),
    RGBColor(0xa8, 0x3b, 0x8f),
    RGBColor(0x8a, 0x6d, 0x00),
    RGBColor(0x4b, 0x55, 0x63),
];
const INK: RGBColor = RGBColor(0x1a, 0x1a, 0x1a);
const AXIS: RGBColor = RGBColor(0x70, 0x70, 0x70);
const GRID: RGBColor = RGBColor(0xd8, 0xd8, 0xd8);
const WIDTH: u32 = 720;

/// Colour of the run at a place.
fn colour(at: usize) -> RGBColor {
    COLOURS[at % COLOURS.len()]
}

/// A run's entry in the legend.
pub(super) fn key(at: usize, name: &str) -> Value {
    let RGBColor(r, g, b) = colour(at);
    json!({ "colour": format!("#{r:02X}{g:02X}{b:02X}"), "class": at % COLOURS.len(), "name": name })
}

/// What a chart is called and what it says to those who do not see it.
pub(super) struct Caption {
    pub(super) title: String,
    pub(super) text: String,
    pub(super) x: String,
    pub(super) y: String,
}

/// A line per run: place of the run, points with x growing.
pub(super) type Series = (usize, Vec<(f64, f64)>);

type Drawing<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn drawn(
    caption: &Caption,
    height: u32,
    draw: impl FnOnce(&Drawing<'_>) -> Result<(), Box<dyn std::error::Error>>,
) -> Result<String, PageError> {
    let failed = |detail: String| PageError::Chart { chart: caption.title.clone(), detail };
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        draw(&area).map_err(|error| failed(error.to_string()))?;
        area.present().map_err(|error| failed(error.to_string()))?;
    }
    // The library has no way to say what a picture shows.
    let end = svg.find('>').ok_or_else(|| failed("no SVG was drawn".into()))?;
    let escape = |text: &str| {
        text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
    };
    let about = format!(
        " role=\"img\" aria-label=\"{0}\"><title>{0}</title><desc>{1}</desc>",
        escape(&caption.title),
        escape(&caption.text)
    );
    svg.replace_range(end..=end, &about);
    Ok(svg)
}

fn text(size: i32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

/// Smallest and largest with some room; never empty.
fn span(values: impl Iterator<Item = f64>, room: f64) -> (f64, f64) {
    let (low, high) = values
        .filter(|it| it.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), it| (low.min(it), high.max(it)));
    if low > high {
        return (0.0, 1.0);
    }
    let pad = ((high - low) * room).max(high.abs() * 0.02).max(1e-9);
    (low - pad, high + pad)
}

/// Points with their names: run, x, y.
pub(super) fn scatter(
    caption: &Caption,
    points: &[(usize, &str, f64, f64)],
) -> Result<String, PageError> {
    let (x_low, x_high) = span(points.iter().map(|it| it.2), 0.18);
    let (y_low, y_high) = span(points.iter().map(|it| it.3), 0.15);
    drawn(caption, 360, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(x_low.max(0.0)..x_high, y_low..y_high)?;
        chart
            .configure_mesh()
            .axis_style(AXIS)
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .label_style(text(13))
            .axis_desc_style(text(14))
            .x_desc(&caption.x)
            .y_desc(&caption.y)
            .draw()?;
        for (at, name, x, y) in points {
            let style = colour(*at).filled();
            let place = chart.backend_coord(&(*x, *y));
            let shape = marker(*at, place, style);
            area.draw(&shape)?;
            // Names stand where there is room.
            let right = f64::from(place.0) > 0.75 * f64::from(WIDTH);
            let (side, shift) = if right { (HPos::Right, -10) } else { (HPos::Left, 10) };
            let style = text(13).pos(Pos::new(side, VPos::Center));
            area.draw(&Text::new((*name).to_owned(), (place.0 + shift, place.1), style))?;
        }
        Ok(())
    })
}

/// A shape per run, since colour alone does not tell everybody which is which.
fn marker(at: usize, (x, y): (i32, i32), style: ShapeStyle) -> Polygon<(i32, i32)> {
    let corners: &[(i32, i32)] = match at % 4 {
        0 => &[(-5, -2), (-2, -5), (2, -5), (5, -2), (5, 2), (2, 5), (-2, 5), (-5, 2)],
        1 => &[(-5, -5), (5, -5), (5, 5), (-5, 5)],
        2 => &[(0, -7), (6, 5), (-6, 5)],
        _ => &[(0, -7), (7, 0), (0, 7), (-7, 0)],
    };
    Polygon::new(corners.iter().map(|(dx, dy)| (x + dx, y + dy)).collect::<Vec<_>>(), style)
}

/// Horizontal bars: a group per category, in it a bar per run; values from 0 to `most`.
pub(super) fn bars(
    caption: &Caption,
    (categories, most): (&[String], f64),
    runs: &[(usize, Vec<Option<f64>>)],
) -> Result<String, PageError> {
    let rows = categories.len() * (runs.len() + 1);
    let height = 70 + 17 * rows as u32;
    drawn(caption, height, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .margin_right(56)
            .x_label_area_size(44)
            .y_label_area_size(210)
            .build_cartesian_2d(0.0..most, 0.0..rows as f64)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .y_labels(0)
            .axis_style(AXIS)
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .label_style(text(13))
            .axis_desc_style(text(14))
            .x_desc(&caption.x)
            .draw()?;
        for (category, name) in categories.iter().enumerate() {
            let top = rows as f64 - (category * (runs.len() + 1)) as f64 - 0.5;
            for (row, (at, values)) in runs.iter().enumerate() {
                let Some(value) = values[category] else { continue };
                let (high, low) = (top - row as f64 - 0.06, top - row as f64 - 0.94);
                let bar = [(0.0, low), (value.clamp(0.0, most), high)];
                chart.draw_series([Rectangle::new(bar, colour(*at).filled())])?;
                let (x, y) =
                    chart.backend_coord(&(value.clamp(0.0, most), f64::midpoint(high, low)));
                let style = text(12).pos(Pos::new(HPos::Left, VPos::Center));
                area.draw(&Text::new(format!("{value:.3}"), (x + 4, y), style))?;
            }
            let middle = top - runs.len() as f64 / 2.0;
            let (x, y) = chart.backend_coord(&(0.0, middle));
            let style = text(13).pos(Pos::new(HPos::Right, VPos::Center));
            area.draw(&Text::new(shortened(name, 30), (x - 8, y), style))?;
        }
        Ok(())
    })
}

fn shortened(name: &str, most: usize) -> String {
    if name.chars().count() <= most {
        return name.to_owned();
    }
    name.chars().take(most - 1).chain(['…']).collect()
}

/// A line per run on a logarithmic y axis; values of 0 and less are left out.
pub(super) fn log_lines(caption: &Caption, series: &[Series]) -> Result<String, PageError> {
    let all = || series.iter().flat_map(|(_, points)| points).filter(|it| it.1 > 0.0);
    let (low, high) = span(all().map(|it| it.1.log10()), 0.05);
    let (x_low, x_high) = span(all().map(|it| it.0), 0.0);
    drawn(caption, 320, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(72)
            .build_cartesian_2d(x_low..x_high, (10_f64.powf(low)..10_f64.powf(high)).log_scale())?;
        chart
            .configure_mesh()
            .axis_style(AXIS)
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .label_style(text(13))
            .axis_desc_style(text(14))
            .x_label_formatter(&|x| format!("{x:.0}"))
            .y_label_formatter(&|y| format!("{y:.0e}"))
            .x_desc(&caption.x)
            .y_desc(&caption.y)
            .draw()?;
        for (at, points) in series {
            let style = colour(*at).stroke_width(2);
            let points: Vec<(f64, f64)> = points.iter().copied().filter(|it| it.1 > 0.0).collect();
            let places: Vec<_> = points.iter().map(|it| chart.backend_coord(it)).collect();
            chart.draw_series(LineSeries::new(points, style))?;
            for place in places {
                area.draw(&marker(*at, place, colour(*at).filled()))?;
            }
        }
        Ok(())
    })
}

/// Shares of positions per bin, a stepped line per run; `edges` are the bins' lower ends, as powers
/// of ten.
pub(super) fn histogram(
    caption: &Caption,
    edges: &[f64],
    series: &[(usize, Vec<f64>)],
) -> Result<String, PageError> {
    let (_, most) = span(series.iter().flat_map(|it| it.1.iter().copied()), 0.05);
    let step = edges.get(1).map_or(1.0, |second| second - edges[0]);
    let (first, last) = (edges[0], edges[edges.len() - 1] + step);
    drawn(caption, 320, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(first..last, 0.0..most)?;
        chart
            .configure_mesh()
            .axis_style(AXIS)
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .label_style(text(13))
            .axis_desc_style(text(14))
            .x_label_formatter(&|x| format!("{:.0e}", 10_f64.powf(*x)))
            .y_label_formatter(&|y| format!("{:.0} %", 100.0 * y))
            .x_desc(&caption.x)
            .y_desc(&caption.y)
            .draw()?;
        for (at, shares) in series {
            let steps = edges.iter().zip(shares);
            let points: Vec<(f64, f64)> =
                steps.flat_map(|(edge, share)| [(*edge, *share), (edge + step, *share)]).collect();
            chart.draw_series(LineSeries::new(points, colour(*at).stroke_width(2)))?;
        }
        Ok(())
    })
}
