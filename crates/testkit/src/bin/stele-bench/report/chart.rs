//! A bar for each side of each row, as SVG: written by hand, for it is a dozen kinds of line.

use super::{Report, Row, shown};

const WIDTH: f64 = 860.0;
const LABELS_WIDTH: f64 = 330.0;
const VALUES_WIDTH: f64 = 170.0;
const BAR: f64 = 16.0;
const GAP: f64 = 12.0;
const TOP: f64 = 44.0;
/// Readable on light and dark grounds, and by those who do not see red and green.
const COLOURS: [&str; 4] = ["#1b7fbd", "#d98a1f", "#7a7a7a", "#8e5aa8"];

/// Draws a report. Bars compare within a row alone, for rows have units of their own.
pub(super) fn svg(report: &Report) -> String {
    let bars: usize = report.rows.iter().map(|row| row.sides.len()).sum();
    let height = TOP + bars as f64 * BAR + report.rows.len() as f64 * GAP + GAP;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" \
         fill=\"#ffffff\"/>\n<text x=\"12\" y=\"24\" font-size=\"15\" font-weight=\"bold\">{}</text>\n",
        escaped(report.bench)
    );
    let mut y = TOP;
    for row in &report.rows {
        svg += &bars_of(row, y).concat();
        y += row.sides.len() as f64 * BAR + GAP;
    }
    svg + "</svg>\n"
}

/// The bars of one row with their words.
fn bars_of(row: &Row, top: f64) -> Vec<String> {
    let most = row.sides.iter().map(|side| side.max).fold(f64::MIN_POSITIVE, f64::max);
    let scale = (WIDTH - LABELS_WIDTH - VALUES_WIDTH) / most;
    let label = format!("<text x=\"12\" y=\"{}\">{}</text>\n", top + BAR - 4.0, escaped(&row.work));
    let bars = row.sides.iter().enumerate().map(|(at, side)| {
        let y = top + at as f64 * BAR;
        let base = y + BAR - 4.0;
        let (width, colour) = ((side.median * scale).max(1.0), COLOURS[at % COLOURS.len()]);
        let (from, to) = (LABELS_WIDTH + side.min * scale, LABELS_WIDTH + side.max * scale);
        let (middle, bar) = (y + BAR / 2.0 - 1.0, BAR - 3.0);
        format!(
            "<rect x=\"{LABELS_WIDTH}\" y=\"{y}\" width=\"{width:.1}\" height=\"{bar}\" fill=\"{colour}\"/>\n\
             <line x1=\"{from:.1}\" x2=\"{to:.1}\" y1=\"{middle}\" y2=\"{middle}\" stroke=\"#202020\"/>\n\
             <text x=\"{:.1}\" y=\"{base}\">{} {}: {}</text>\n",
            to + 6.0,
            shown(side.median),
            escaped(row.unit),
            escaped(&side.name)
        )
    });
    std::iter::once(label).chain(bars).collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
