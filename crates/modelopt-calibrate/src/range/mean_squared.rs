//! The range with the least mean squared error.

use std::iter::zip;

use super::ends::{Ends, search};
use crate::observers::Distribution;

/// The range with the least error of clipping and rounding together, as integers represent it: 0 is one of
/// the levels.
pub(super) fn range(seen: &Distribution, levels: u32) -> (f32, f32) {
    let Some(reach) = Reach::of(seen) else { return (0.0, 0.0) };
    let ends = search(reach.ends(), 1, |ends| match reach.grid(ends, levels) {
        Some(grid) => error(seen, &grid),
        None => f64::INFINITY,
    });
    let grid = reach.grid(ends, levels);
    grid.map_or((0.0, 0.0), |grid| (grid.low as f32, grid.high as f32))
}

/// From where to where numbers are, 0 included.
struct Reach {
    low: f64,
    high: f64,
    width: f64,
}

/// Levels at multiples of a step.
#[derive(Debug)]
struct Grid {
    step: f64,
    low: f64,
    high: f64,
}

impl Reach {
    /// None for what is 0 throughout, or empty.
    fn of(seen: &Distribution) -> Option<Self> {
        let (least, most) = seen.extremes.range?;
        let (low, high) = (f64::from(least).min(0.0), f64::from(most).max(0.0));
        (low < high).then_some(Reach { low, high, width: seen.width })
    }

    /// How many bins there are on either side of 0.
    fn ends(&self) -> Ends {
        let bins = |length: f64| (length / self.width).ceil() as usize;
        Ends { below: bins(-self.low), above: bins(self.high) }
    }

    /// The levels of a range that ends there; none for one of no length.
    fn grid(&self, ends: Ends, levels: u32) -> Option<Grid> {
        let low = (-(ends.below as f64) * self.width).max(self.low);
        let high = (ends.above as f64 * self.width).min(self.high);
        let last = f64::from(levels.max(2) - 1);
        let step = (high - low) / last;
        if step <= 0.0 {
            return None;
        }
        // The level that is 0.
        let zero = (-low / step).round();
        Some(Grid { step, low: -zero * step, high: (last - zero) * step })
    }
}

impl Grid {
    /// The squared error of numbers that are evenly spread from `from` to `to`, on average.
    fn error(&self, from: f64, to: f64) -> f64 {
        let length = to - from;
        if length <= self.step * 1e-9 {
            return self.error_at(from);
        }
        (self.area(to) - self.area(from)) / length
    }

    fn error_at(&self, x: f64) -> f64 {
        let inside = x.clamp(self.low, self.high);
        let rounded = (inside / self.step).round() * self.step;
        (x - rounded).powi(2)
    }

    /// The integral of the squared error from 0 to a number.
    fn area(&self, x: f64) -> f64 {
        let inside = x.clamp(self.low, self.high);
        let outside = x - inside;
        let steps = inside / self.step;
        let nearest = (steps + 0.5).floor();
        let rest = steps - nearest;
        // Each whole step has a twelfth, as uniform rounding errors have.
        let rounding = (nearest / 12.0 + rest.powi(3) / 3.0) * self.step.powi(3);
        rounding + outside.powi(3) / 3.0
    }
}

/// The mean squared error of all numbers on a grid.
fn error(seen: &Distribution, grid: &Grid) -> f64 {
    let Some((least, most)) = seen.extremes.range else { return 0.0 };
    let (least, most) = (f64::from(least), f64::from(most));
    let mut sum = 0.0;
    let mut total = 0.0;
    for (place, &count) in zip(0u32.., &seen.counts) {
        if count == 0 {
            continue;
        }
        let begin = seen.start + f64::from(place) * seen.width;
        let from = begin.clamp(least, most);
        let to = (begin + seen.width).clamp(least, most);
        // Zeros are exact.
        let zeros = if begin == 0.0 { seen.zeros } else { 0 };
        sum += (count - zeros.min(count)) as f64 * grid.error(from, to);
        total += count as f64;
    }
    if total > 0.0 { sum / total } else { 0.0 }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "numbers are exact here")]
mod tests {
    use super::*;

    fn grid(low: f64, high: f64, levels: u32) -> Grid {
        let reach = Reach { low, high, width: 1e-3 };
        reach.grid(reach.ends(), levels).unwrap()
    }

    #[test]
    fn zero_is_a_level() {
        for (low, high) in [(-1.0, 1.0), (-0.3, 2.0), (0.0, 5.0), (-7.0, 0.0)] {
            let grid = grid(low, high, 256);
            let level = -grid.low / grid.step;
            assert!((level - level.round()).abs() < 1e-9, "{grid:?}");
            assert!(((grid.high - grid.low) / grid.step - 255.0).abs() < 1e-9);
            assert!((grid.low - low).abs() <= grid.step / 2.0 + 1e-12);
        }
    }

    #[test]
    fn the_error_in_closed_form_is_that_of_many_numbers() {
        let grid = grid(-0.4, 1.0, 16);
        for (from, to) in [(-0.9, -0.2), (0.0, 0.3), (0.7, 1.9), (1.2, 1.3), (-2.0, 2.0)] {
            let count = 200_000;
            let at = |n: i32| from + (to - from) * (f64::from(n) + 0.5) / f64::from(count);
            let mean = (0..count).map(|n| grid.error_at(at(n))).sum::<f64>() / f64::from(count);
            let closed = grid.error(from, to);
            assert!((mean - closed).abs() <= 1e-6 * mean.max(1e-6), "{from} {to}: {mean} {closed}");
        }
        assert_eq!(grid.error(grid.step, grid.step), 0.0);
    }
}
