//! Many figures side by side, without names.

use plotters::style::RGBColor;

use super::axis::Axis;
use super::canvas::{Anchor, GRID, MUTED, WIDTH, svg};

const HEIGHT: f64 = 250.0;
const LEFT: f64 = 48.0;
const RIGHT: f64 = WIDTH - 16.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = HEIGHT - 46.0;

/// What one column shows.
pub(super) enum Mark {
    /// Heights from 0, those behind first.
    Stack(Vec<(f64, RGBColor)>),
    /// A dot; infinity is at the upper end.
    Dot(f64, RGBColor),
}

pub(super) struct Frame<'a> {
    pub(super) legend: &'a [(RGBColor, &'a str)],
    pub(super) axis: Axis,
    /// Above the vertical axis.
    pub(super) title: &'a str,
    /// Under the horizontal axis.
    pub(super) under: &'a str,
    /// Labels of the first and the last column.
    pub(super) ends: [String; 2],
}

pub(super) fn columns(marks: &[Mark], frame: &Frame<'_>) -> String {
    let height = |x: f64| BOTTOM - frame.axis.at(x) * (BOTTOM - TOP);
    let pitch = (RIGHT - LEFT) / marks.len().max(1) as f64;
    svg(HEIGHT, |canvas| {
        canvas.legend(frame.legend, (LEFT, 12.0));
        canvas.text(frame.title, (LEFT, TOP - 16.0), Anchor::Start, MUTED);
        for (tick, label) in frame.axis.ticks() {
            canvas.line(&[(LEFT, height(tick)), (RIGHT, height(tick))], GRID, 1.0);
            canvas.text(&label, (LEFT - 8.0, height(tick)), Anchor::End, MUTED);
        }
        for (at, mark) in marks.iter().enumerate() {
            let left = LEFT + pitch * at as f64;
            match mark {
                Mark::Stack(heights) => {
                    for &(x, color) in heights.iter().filter(|(x, _)| *x > 0.0) {
                        let size = ((pitch * 0.7).max(1.0), BOTTOM - height(x));
                        canvas.rectangle((left + pitch * 0.15, height(x)), size, color);
                    }
                }
                Mark::Dot(x, color) => canvas.dot((left + pitch / 2.0, height(*x)), *color),
            }
        }
        let [first, last] = &frame.ends;
        canvas.text(first, (LEFT, BOTTOM + 14.0), Anchor::Start, MUTED);
        canvas.text(last, (RIGHT, BOTTOM + 14.0), Anchor::End, MUTED);
        canvas.text(
            frame.under,
            (f64::midpoint(LEFT, RIGHT), HEIGHT - 12.0),
            Anchor::Middle,
            MUTED,
        );
    })
}
