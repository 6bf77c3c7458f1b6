//! How the times of both models are distributed.

use modelopt_validate::{Distribution, LatencyComparison};

use super::Plot;
use super::axis::Axis;
use super::canvas::{AFTER, Anchor, BEFORE, Canvas, GRID, MUTED, WIDTH, svg};
use crate::wording;

const HEIGHT: f64 = 250.0;
const LEFT: f64 = 48.0;
const RIGHT: f64 = WIDTH - 16.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = HEIGHT - 46.0;
/// More points than this cannot be told apart.
const MOST_POINTS: usize = 200;
/// The axis ends at this share of the runs; the slowest would leave no room for the rest.
const SHOWN: f64 = 0.99;

/// Cumulative distributions of both, if there are times.
pub(crate) fn latency(latency: &LatencyComparison) -> Option<Plot> {
    let sides = [("original", &latency.original, BEFORE), ("candidate", &latency.candidate, AFTER)];
    let times = sides.map(|(_, side, _)| times(side));
    let present = || times.iter().filter(|times| !times.is_empty());
    let low = present().map(|times| times[0]).min_by(f64::total_cmp)?;
    let shown = |times: &Vec<f64>| times[(SHOWN * (times.len() - 1) as f64).ceil() as usize];
    let high = present().map(shown).max_by(f64::total_cmp)?;

    let (factor, unit) = wording::time_unit(high);
    let axis = Axis::around(low * factor, high * factor);
    let legend = sides.map(|(name, side, color)| {
        (color, format!("{name} p50 {}", wording::milliseconds(side.p50_ms)))
    });
    let drawing = svg(HEIGHT, |canvas| {
        let entries = legend.each_ref().map(|(color, name)| (*color, name.as_str()));
        canvas.legend(&entries, (8.0, 12.0));
        frame(canvas, &axis, unit);
        for ((_, _, color), times) in sides.iter().zip(&times) {
            let scaled: Vec<_> = times.iter().map(|time| time * factor).collect();
            canvas.line(&steps(&scaled, &axis), *color, 2.0);
        }
    });
    let caption = format!(
        "Share of runs that took at most so long, up to the 99th percentile; curves further left \
         are faster. Ratio of paired runs {}.",
        wording::ratio(latency)
    );
    Some(Plot::new("Latency", caption, drawing))
}

/// Finite times in ascending order, thinned out evenly.
fn times(side: &Distribution) -> Vec<f64> {
    let mut all: Vec<f64> = side.quantiles_ms.iter().copied().filter(|x| x.is_finite()).collect();
    all.sort_by(f64::total_cmp);
    if all.len() <= MOST_POINTS {
        return all;
    }
    let last = all.len() - 1;
    (0..MOST_POINTS).map(|at| all[at * last / (MOST_POINTS - 1)]).collect()
}

fn frame(canvas: &Canvas<'_>, axis: &Axis, unit: &str) {
    canvas.text("share of runs", (LEFT, TOP - 16.0), Anchor::Start, MUTED);
    for share in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let y = height(share);
        canvas.line(&[(LEFT, y), (RIGHT, y)], GRID, 1.0);
        let label = wording::rough_percent(share);
        canvas.text(&label, (LEFT - 8.0, y), Anchor::End, MUTED);
    }
    for (tick, label) in axis.ticks() {
        let x = place(axis, tick);
        canvas.line(&[(x, BOTTOM), (x, BOTTOM + 4.0)], MUTED, 1.0);
        canvas.text(&label, (x, BOTTOM + 14.0), Anchor::Middle, MUTED);
    }
    let title = format!("time of one run ({unit})");
    canvas.text(&title, (f64::midpoint(LEFT, RIGHT), HEIGHT - 12.0), Anchor::Middle, MUTED);
}

/// A step up at each time; all the way to the right end where the last lies before it.
fn steps(times: &[f64], axis: &Axis) -> Vec<(f64, f64)> {
    let Some(first) = times.first() else { return Vec::new() };
    let mut points = vec![(place(axis, *first), height(0.0))];
    for (at, time) in times.iter().enumerate() {
        let x = place(axis, *time);
        points.push((x, height(at as f64 / times.len() as f64)));
        // What is slower than the axis is long stays out of sight.
        if axis.at(*time) < 1.0 {
            points.push((x, height((at + 1) as f64 / times.len() as f64)));
        } else {
            return points;
        }
    }
    points.push((RIGHT, height(1.0)));
    points
}

fn place(axis: &Axis, time: f64) -> f64 {
    LEFT + axis.at(time) * (RIGHT - LEFT)
}

fn height(share: f64) -> f64 {
    BOTTOM - share * (BOTTOM - TOP)
}
