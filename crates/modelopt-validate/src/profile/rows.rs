//! Rows in which something is chosen: the class with the highest score, the next token.

use super::bands::{Band, band_of};
use super::part::{PROBABILITY_SCALE, Part};
use crate::elements::Floats;

/// More than any vocabulary in use; a longer axis is hardly classes.
const MOST_CLASSES: usize = 200_000;

/// Rows that sum up to 1 within this are made by a Softmax.
const SUM_SLACK: f64 = 2e-2;

/// The share of the size of a part below which margins say nothing.
const LEAST_MARGIN: f64 = 0.25;

/// Rows along an axis of an output.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rows {
    axis: usize,
    /// The places along the axis that take part; all if empty.
    places: Vec<usize>,
    /// The part that they belong to.
    pub(crate) part: usize,
    probability: bool,
    /// Whether all rows sum up to 1.
    pub(crate) sums_to_one: bool,
    /// What elements of a row are like, on all samples; see [`size`].
    typical: f64,
    fourths: f64,
    squares: f64,
}

impl Rows {
    /// The rows of an output that may be choices. `shape` has 0 for sizes that change, and nothing
    /// where the rank does.
    pub(crate) fn of(shape: &[usize], cut: Option<usize>, parts: &[Part]) -> Vec<Rows> {
        let rank = shape.len();
        let classes = |axis: usize| (2..=MOST_CLASSES).contains(&shape[axis]);
        let rows = |axis: usize, places: Vec<usize>, part: usize| Rows {
            axis,
            places,
            part,
            probability: parts.get(part).is_some_and(|part| part.probability),
            sums_to_one: true,
            typical: 0.0,
            fourths: 0.0,
            squares: 0.0,
        };
        if let Some(axis) = cut {
            let scores = parts.iter().enumerate().filter(|(_, part)| part.probability);
            return scores
                .filter_map(|(at, part)| {
                    let places: Vec<usize> = part.ranges.iter().cloned().flatten().collect();
                    (places.len() > 1).then(|| rows(axis, places, at))
                })
                .collect();
        }
        if rank < 2 {
            return Vec::new();
        }
        let scores = parts.first().is_some_and(|part| part.probability);
        let mut axes: Vec<usize> = vec![rank - 1];
        // Scores, and maps of classes.
        if (scores && rank > 2) || rank == 4 {
            axes.push(1);
        }
        axes.retain(|&axis| classes(axis));
        axes.into_iter().map(|axis| rows(axis, Vec::new(), 0)).collect()
    }

    /// The rows along an axis of a tensor that is not an output by itself.
    pub(crate) fn among(shape: &[usize], axis: usize, floats: &Floats<'_>) -> Rows {
        let mut rows = Rows {
            axis,
            places: Vec::new(),
            part: 0,
            probability: false,
            sums_to_one: false,
            typical: 0.0,
            fourths: 0.0,
            squares: 0.0,
        };
        rows.look(shape, floats, &[]);
        let (mut count, mut squares) = (0.0, 0.0);
        floats.each_block(|block| {
            for x in block.iter().filter(|x| x.is_finite()) {
                count += 1.0;
                squares += x * x;
            }
        });
        rows.settle((squares / f64::max(count, 1.0)).sqrt());
        rows
    }

    /// The positions of each row's elements in a tensor of this shape.
    pub(crate) fn fibers(&self, shape: &[usize], see: impl FnMut(&[usize])) {
        fibers(shape, self.axis, &self.places, see);
    }

    /// Takes in what the original makes of a sample.
    pub(crate) fn look(&mut self, shape: &[usize], floats: &Floats<'_>, bands: &[Band]) {
        let (mut fourths, mut squares, mut ones) = (0.0, 0.0, true);
        let mut row: Vec<f64> = Vec::new();
        self.fibers(shape, |at| {
            row.clear();
            let own = at.iter().map(|&at| floats.get(at));
            row.extend(own.filter(|x| x.is_finite() && band_of(bands, *x).is_none()));
            let (fourth, square) = moments(&row);
            fourths += fourth;
            squares += square;
            ones &= (row.iter().sum::<f64>() - 1.0).abs() <= SUM_SLACK;
        });
        self.fourths += fourths;
        self.squares += squares;
        self.sums_to_one &= ones;
    }

    /// When all samples were looked at; `rms` is that of the part.
    pub(crate) fn settle(&mut self, rms: f64) {
        self.typical = size(self.fourths, self.squares).max(rms * LEAST_MARGIN);
        self.sums_to_one &= self.probability;
        if self.probability {
            self.typical = self.typical.max(PROBABILITY_SCALE);
        }
    }

    /// The size of what is chosen among in a row: that of its own elements, but at least what is
    /// usual.
    pub(crate) fn size(&self, row: &[f64]) -> f64 {
        let (fourths, squares) = moments(row);
        size(fourths, squares).max(self.typical)
    }
}

/// The positions of elements along an axis, one row after the other; `places` are those along the
/// axis that count, all if empty.
pub(crate) fn fibers(
    shape: &[usize],
    axis: usize,
    places: &[usize],
    mut see: impl FnMut(&[usize]),
) {
    let Some(&count) = shape.get(axis) else { return };
    let inner: usize = shape[axis + 1..].iter().product();
    let outer: usize = shape[..axis].iter().product();
    let all: Vec<usize>;
    let places = if places.is_empty() {
        all = (0..count).collect();
        &all
    } else {
        places
    };
    let mut at = vec![0; places.len()];
    for block in 0..outer {
        for offset in 0..inner {
            for (at, place) in at.iter_mut().zip(places) {
                *at = (block * count + place) * inner + offset;
            }
            see(&at);
        }
    }
}

/// Sums of fourth powers and squares around the mean.
fn moments(row: &[f64]) -> (f64, f64) {
    let mean = row.iter().sum::<f64>() / row.len().max(1) as f64;
    row.iter().fold((0.0, 0.0), |(fourths, squares), x| {
        let square = (x - mean).powi(2);
        (fourths + square * square, squares + square)
    })
}

/// How large the elements are that make up a row, `√(Σ d⁴ / Σ d²)`: 1 for a single 1 among zeros,
/// 1.7 standard deviations for noise.
fn size(fourths: f64, squares: f64) -> f64 {
    if squares > 0.0 { (fourths / squares).sqrt() } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_lie_along_any_axis() {
        let mut seen = Vec::new();
        fibers(&[2, 3, 2], 1, &[], |at| seen.push(at.to_vec()));
        assert_eq!(seen, [[0, 2, 4], [1, 3, 5], [6, 8, 10], [7, 9, 11]]);
        seen.clear();
        fibers(&[1, 3, 2], 1, &[1, 2], |at| seen.push(at.to_vec()));
        assert_eq!(seen, [[2, 4], [3, 5]]);
    }

    #[test]
    fn the_size_of_a_row_is_that_of_what_stands_out() {
        let mut one_hot = vec![0.0; 1000];
        one_hot[7] = 1.0;
        let (fourths, squares) = moments(&one_hot);
        assert!((size(fourths, squares) - 1.0).abs() < 0.01);
        let noise: Vec<f64> = (0..1000).map(|i| (f64::from(i) * 1.7).sin()).collect();
        let (fourths, squares) = moments(&noise);
        assert!((0.8..0.9).contains(&size(fourths, squares)));
        assert_eq!(size(0.0, 0.0), 0.0);
    }
}
