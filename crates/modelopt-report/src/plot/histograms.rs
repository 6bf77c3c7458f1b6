//! How often which numbers occur in tensors that are quantized by ranges, and where they are clipped.

use super::Plot;
use super::axis::Axis;
use super::canvas::{AFTER, Anchor, BAD, Canvas, LIMIT, MUTED, WIDTH, svg};
use crate::{NumberHistogram, ObservedNumbers, QuantizedTensor, wording};

/// As many tensors are drawn: those that lose most come first.
const MOST_TENSORS: usize = 24;
/// Longest name above a histogram, in characters.
const NAME: usize = 48;

const HEIGHT: f64 = 130.0;
const LEFT: f64 = 10.0;
const RIGHT: f64 = WIDTH - 10.0;
const TOP: f64 = 24.0;
const BOTTOM: f64 = HEIGHT - 26.0;

/// Histograms of the tensors that were observed.
pub(crate) fn histograms(tensors: &[QuantizedTensor]) -> Vec<Plot> {
    let seen = tensors.iter().filter_map(|tensor| Some((tensor, tensor.observed.as_ref()?)));
    let drawn = seen.filter(|(_, seen)| !seen.histogram.counts.is_empty());
    drawn.take(MOST_TENSORS).map(|(tensor, seen)| histogram(tensor, seen)).collect()
}

fn histogram(tensor: &QuantizedTensor, seen: &ObservedNumbers) -> Plot {
    let range = [tensor.min, tensor.max].map(f64::from);
    let NumberHistogram { start, width, ref counts } = seen.histogram;
    let end = start + width * counts.len() as f64;
    let axis = Axis::around(start.min(range[0]), end.max(range[1]));
    let place = |x: f64| LEFT + axis.at(x) * (RIGHT - LEFT);
    let most = counts.iter().copied().max().unwrap_or(0);
    let drawing = svg(HEIGHT, |canvas| {
        canvas.legend(&[(AFTER, "kept"), (BAD, "clipped"), (LIMIT, "range")], (LEFT, 10.0));
        for (at, &count) in counts.iter().enumerate().filter(|&(_, &count)| count > 0) {
            let low = start + width * at as f64;
            let high = low + width;
            let is_kept = high > range[0] && low < range[1];
            let top = BOTTOM - height(count, most) * (BOTTOM - TOP);
            let size = ((place(high) - place(low)).max(1.0), BOTTOM - top);
            canvas.rectangle((place(low), top), size, if is_kept { AFTER } else { BAD });
        }
        for end in range {
            canvas.line(&[(place(end), TOP - 4.0), (place(end), BOTTOM + 4.0)], LIMIT, 1.5);
        }
        ticks(canvas, &axis, place);
    });
    let [low, high] = range.map(wording::number);
    let caption = format!(
        "From {low} to {high}; {} clipped, {} in rounding and clipping. Heights are logarithmic.",
        wording::percent(seen.clipped),
        wording::decibels(seen.sqnr_db),
    );
    Plot::new(wording::shortened(&tensor.tensor, NAME), caption, drawing)
}

fn ticks(canvas: &Canvas<'_>, axis: &Axis, place: impl Fn(f64) -> f64) {
    canvas.line(&[(LEFT, BOTTOM), (RIGHT, BOTTOM)], MUTED, 1.0);
    for (tick, label) in axis.ticks() {
        canvas.text(&label, (place(tick), BOTTOM + 14.0), Anchor::Middle, MUTED);
    }
}

/// Between 0 and 1: numbers that are rare are seen beside those that are frequent.
fn height(count: u64, most: u64) -> f64 {
    (count as f64).ln_1p() / (most as f64).ln_1p().max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_numbers_are_seen() {
        assert!(height(1, 1_000_000) > 0.04);
        assert!((height(7, 7) - 1.0).abs() < 1e-12 && height(0, 0).abs() < 1e-12);
        assert!(height(u64::MAX, u64::MAX) <= 1.0);
    }
}
