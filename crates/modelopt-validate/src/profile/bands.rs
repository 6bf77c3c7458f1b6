//! Elements that stand apart from all others by their value: masks, paddings and other numbers
//! that stand for something else than a quantity.
//!
//! ```text
//! before:  [ 0.3  -1e9   2.1  -1e9  -0.7 ]   one signal of 10¹⁸
//! after:   [ 0.3    .    2.1    .   -0.7 ]   and -1e9 at two places, which must stay
//! ```

use super::part::is_noise_beside;
use crate::elements::Floats;

/// Exponents that a float64 can have.
const EXPONENTS: usize = 1 << 11;

/// A number that comes several times, in more than one column, and is this many times everything below
/// it stands apart. In one column it may be what equal rows have in common.
const CONSTANT_RATIO: f64 = 2.0;
/// In one column it must be so many times what is below.
const COLUMN_RATIO: f64 = 100.0;
/// How often it must come.
const FEWEST_EQUAL: u64 = 3;
/// Numbers that are not the same stand apart by this factor.
const RATIO: f64 = 8.0;
/// A single number that is so many times everything else is none of them.
const LONE_RATIO: f64 = 1e4;
/// So many of them there must be, above and below.
const FEWEST: u64 = 16;
/// And be this close to each other.
const SPREAD: f64 = 4.0;
/// Numbers that are closer to each other than this are one with something added.
const ONE: f64 = 1.02;
/// More than this many kinds of numbers that stand for something are not looked for.
const MOST_BANDS: usize = 3;

/// Elements whose magnitude is at least `low`, and less than that of the next band.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Band {
    /// The least magnitude.
    pub(crate) low: f64,
    /// The number that all of them are, but for a little that is added; `None` if they are numbers
    /// of their own.
    pub(crate) sentinel: Option<f64>,
    /// By how much such a number may change, relative to itself.
    pub(crate) tolerance: f64,
}

/// The place of the band that a number belongs to.
pub(crate) fn band_of(bands: &[Band], x: f64) -> Option<usize> {
    let size = x.abs();
    bands.iter().rposition(|band| size >= band.low)
}

/// How many elements there are of each binary magnitude.
#[derive(Debug)]
pub(crate) struct Spectrum {
    bins: Vec<Bin>,
    /// Elements, and those of them that are NaN.
    elements: u64,
    nan: u64,
}

#[derive(Clone, Copy, Debug)]
struct Bin {
    count: u64,
    /// Of magnitudes.
    least: f64,
    most: f64,
    /// Of the numbers themselves.
    low: f64,
    high: f64,
    /// The column that all of them are in.
    column: Option<usize>,
}

impl Default for Spectrum {
    fn default() -> Self {
        let none = Bin {
            count: 0,
            least: f64::INFINITY,
            most: 0.0,
            low: f64::INFINITY,
            high: f64::NEG_INFINITY,
            column: None,
        };
        Spectrum { bins: vec![none; EXPONENTS], elements: 0, nan: 0 }
    }
}

impl Bin {
    fn join(self, other: Bin) -> Bin {
        let column = match (self.count, other.count) {
            (0, _) => other.column,
            (_, 0) => self.column,
            _ => self.column.filter(|_| self.column == other.column),
        };
        Bin {
            column,
            count: self.count + other.count,
            least: self.least.min(other.least),
            most: self.most.max(other.most),
            low: self.low.min(other.low),
            high: self.high.max(other.high),
        }
    }
}

impl Spectrum {
    pub(crate) fn add(&mut self, shape: &[usize], floats: &Floats<'_>) {
        let columns = match shape {
            [_, .., columns] => (*columns).max(1),
            _ => 1,
        };
        let mut at = 0;
        floats.each_block(|block| {
            for &x in block {
                let exponent = (x.abs().to_bits() >> 52) as usize;
                if let Some(bin) = self.bins.get_mut(exponent).filter(|_| x.is_finite()) {
                    let (size, column) = (x.abs(), Some(at % columns));
                    let one = Bin { count: 1, least: size, most: size, low: x, high: x, column };
                    *bin = bin.join(one);
                }
                at += 1;
                self.nan += u64::from(x.is_nan());
            }
        });
        self.elements += floats.len() as u64;
    }

    /// Whether there is not one number.
    pub(crate) fn is_nan(&self) -> bool {
        self.elements > 0 && self.nan == self.elements
    }

    /// The bands, the smallest first.
    pub(crate) fn bands(&self) -> Vec<Band> {
        let mut filled: Vec<Bin> = self.bins.iter().filter(|bin| bin.count > 0).copied().collect();
        let all = filled.iter().copied().reduce(Bin::join);
        // Nothing stands apart between 0 and 1, nor beside zeros alone.
        if all.is_none_or(|all| all.most <= 1.0) {
            return Vec::new();
        }
        let mut bands = Vec::new();
        while bands.len() < MOST_BANDS {
            let Some((band, rest)) = highest(&filled) else { break };
            filled.truncate(rest);
            bands.insert(0, band);
        }
        bands
    }
}

/// The band above the highest gap that makes one, and how many bins are below it.
fn highest(filled: &[Bin]) -> Option<(Band, usize)> {
    (1..filled.len()).rev().find_map(|cut| {
        let above = filled[cut..].iter().copied().reduce(Bin::join)?;
        let below = filled[..cut].iter().copied().reduce(Bin::join)?;
        Some((band(above, below)?, cut))
    })
}

/// Whether some numbers stand apart from those below them, and as what.
fn band(above: Bin, below: Bin) -> Option<Band> {
    if below.most == 0.0 || below.low == below.high || is_noise_beside(below.most, above.least) {
        return None;
    }
    let gap = above.least / below.most;
    let same = above.low == above.high;
    let narrow = above.most <= above.least * ONE && above.low.signum() == above.high.signum();
    let many = above.count >= FEWEST && below.count >= FEWEST;
    // A lone number far above all others: one masked element.
    let lone = same && gap >= LONE_RATIO && below.count > above.count;
    let least = if above.column.is_some() { COLUMN_RATIO } else { CONSTANT_RATIO };
    let repeated = same && above.count >= FEWEST_EQUAL && gap >= least;
    let sentinel = Some(f64::midpoint(above.low, above.high));
    let low = above.least;
    if repeated || lone {
        // What half precision makes of it is still the same.
        return Some(Band { low, sentinel, tolerance: 4e-3 });
    }
    if gap >= RATIO && narrow && above.count >= FEWEST_EQUAL && below.count >= FEWEST {
        return Some(Band { low, sentinel, tolerance: ONE - 1.0 + 4e-3 });
    }
    let close = above.most <= above.least * SPREAD;
    (gap >= RATIO && many && close).then_some(Band { low, sentinel: None, tolerance: 0.0 })
}

#[cfg(test)]
mod tests {
    use modelopt_graph::Tensor;

    use super::*;

    fn bands(values: &[f32]) -> Vec<Band> {
        bands_of(&[1, values.len()], values)
    }

    fn bands_of(shape: &[usize], values: &[f32]) -> Vec<Band> {
        let tensor = Tensor::of(shape.to_vec(), values).unwrap();
        let mut spectrum = Spectrum::default();
        spectrum.add(shape, &Floats::of(&tensor).unwrap());
        spectrum.bands()
    }

    /// Numbers like logits, up to 9.
    fn logits(count: usize) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * 1.7).sin() * 9.0).collect()
    }

    /// Every third logit is replaced.
    fn masked(by: impl Fn(f32) -> f32) -> Vec<f32> {
        logits(60)
            .into_iter()
            .enumerate()
            .map(|(i, x)| if i % 3 == 0 { by(x) } else { x })
            .collect()
    }

    #[test]
    fn masks_of_all_sizes_stand_apart() {
        for mask in [-1e9, -1e4, -65504.0, f32::MIN, 1e30, -100.0, -20.0] {
            let found = bands(&masked(|_| mask));
            assert_eq!(found.len(), 1, "{mask}");
            assert_eq!(found[0].sentinel, Some(f64::from(mask)));
        }
    }

    #[test]
    fn something_may_be_added_to_a_mask() {
        let found = bands(&masked(|x| x - 1e4));
        assert!(found[0].sentinel.is_some_and(|x| (x + 1e4).abs() < 10.0), "{found:?}");
        assert_eq!(bands(&masked(|x| x - 1e9)).len(), 1);
        let found = bands(&masked(|x| x - 200.0));
        assert_eq!((found.len(), found[0].sentinel), (1, None));
    }

    #[test]
    fn one_masked_element_is_enough() {
        let mut values = logits(20);
        values[3] = -1e9;
        assert_eq!(bands(&values)[0].sentinel, Some(-1e9));
    }

    #[test]
    fn two_kinds_of_masks_are_two_bands() {
        let values: Vec<f32> =
            logits(60).into_iter().enumerate().map(|(i, x)| [x, x, -1e4, x, -1e9][i % 5]).collect();
        let found: Vec<_> = bands(&values).iter().map(|band| band.sentinel).collect();
        assert_eq!(found, [Some(-1e4), Some(-1e9)]);
    }

    #[test]
    fn ordinary_numbers_do_not_stand_apart() {
        assert_eq!(bands(&logits(200)), []);
        // A heavy tail, some large numbers, a clipped range, signs, few numbers, zeros.
        let tail: Vec<f32> = (1..200).map(|i| 1.0 / (i as f32 / 200.0).powi(2)).collect();
        assert_eq!(bands(&tail), []);
        assert_eq!(bands(&[0.1, 0.05, 3.0]), []);
        let clipped: Vec<f32> = logits(100).into_iter().map(|x| x.clamp(0.0, 6.0)).collect();
        assert_eq!(bands(&clipped), []);
        assert_eq!(bands(&[-1.0, 1.0, 1.0, -1.0]), []);
        assert_eq!(bands(&[0.0, 0.0, 0.0, 5.0, 5.0, 5.0]), []);
        assert_eq!(bands(&[]), []);
    }

    #[test]
    fn what_equal_rows_have_in_common_does_not_stand_apart() {
        let rows = [9.1, 2.0, -1.0].repeat(4);
        assert_eq!(bands_of(&[4, 3], &rows), []);
        assert_eq!(bands_of(&[12], &rows), []);
        // A class that is masked in all rows.
        assert_eq!(bands_of(&[4, 3], &[-1e4, 2.0, -1.0].repeat(4))[0].sentinel, Some(-1e4));
    }

    #[test]
    fn rounding_errors_beside_a_constant_are_not_what_it_stands_apart_from() {
        let values: Vec<f32> =
            (0..40).map(|i| if i % 2 == 0 { 5.0 } else { 1e-7 * i as f32 }).collect();
        assert_eq!(bands(&values), []);
    }

    #[test]
    fn numbers_find_their_band() {
        let bands = bands(&masked(|_| -1e9));
        assert_eq!(band_of(&bands, 3.0), None);
        assert_eq!((band_of(&bands, -1e9), band_of(&bands, 2e9)), (Some(0), Some(0)));
    }
}
