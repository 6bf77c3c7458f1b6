//! Rows of a name, a bar and a figure.

use plotters::style::RGBColor;

use super::axis::Axis;
use super::canvas::{Anchor, Canvas, GRID, LIMIT, MUTED, TEXT, WIDTH, fitted, svg};

const ROW: f64 = 24.0;
const BAR: f64 = 12.0;
const NAMES: f64 = 130.0;
const GAP: f64 = 8.0;
const TOP: f64 = 30.0;
const UNDER: f64 = 44.0;

/// One row.
pub(super) struct Row {
    pub(super) name: String,
    /// Ends of bars from 0, those behind first; infinity is a whole row.
    pub(super) bars: Vec<(f64, RGBColor)>,
    /// Where the limit is.
    pub(super) limit: Option<f64>,
    pub(super) figure: String,
    pub(super) color: RGBColor,
}

/// What is around the rows.
pub(super) struct Frame<'a> {
    pub(super) legend: &'a [(RGBColor, &'a str)],
    pub(super) axis: Axis,
    pub(super) title: &'a str,
    /// Room for the figures at the right.
    pub(super) figures: f64,
}

pub(super) fn bars(rows: &[Row], frame: &Frame<'_>) -> String {
    let bottom = TOP + ROW * rows.len() as f64;
    let right = WIDTH - frame.figures;
    let place = |x: f64| NAMES + frame.axis.at(x) * (right - NAMES);
    svg(bottom + UNDER, |canvas| {
        canvas.legend(frame.legend, (NAMES, 12.0));
        for (tick, label) in frame.axis.ticks() {
            canvas.line(&[(place(tick), TOP), (place(tick), bottom)], GRID, 1.0);
            canvas.text(&label, (place(tick), bottom + 12.0), Anchor::Middle, MUTED);
        }
        let middle = f64::midpoint(NAMES, right);
        canvas.text(frame.title, (middle, bottom + 32.0), Anchor::Middle, MUTED);
        for (at, row) in rows.iter().enumerate() {
            draw(canvas, row, TOP + ROW * (at as f64 + 0.5), &place);
        }
    })
}

fn draw(canvas: &Canvas<'_>, row: &Row, y: f64, place: &impl Fn(f64) -> f64) {
    let name = fitted(&row.name, NAMES - GAP);
    canvas.text(&name, (NAMES - GAP, y), Anchor::End, TEXT);
    for &(end, color) in &row.bars {
        let length = place(end) - NAMES;
        if length >= 0.5 {
            canvas.rectangle((NAMES, y - BAR / 2.0), (length, BAR), color);
        }
    }
    if let Some(limit) = row.limit.filter(|limit| limit.is_finite()) {
        let x = place(limit);
        canvas.line(&[(x, y - ROW / 2.0 + 2.0), (x, y + ROW / 2.0 - 2.0)], LIMIT, 2.0);
    }
    canvas.text(&row.figure, (WIDTH - 2.0, y), Anchor::End, row.color);
}
