//! How often which numbers occur.

use std::iter::zip;

use serde::{Deserialize, Serialize};

use super::min_max::{Extremes, MinMax};
use crate::extent::{ENDLESS, ENDLESS_BITS};
use crate::observer::{Observer, View};
use crate::packed;

/// The most bins on either side of 0, as a power of two: what reaches farther has at least half of them.
const SIDE_BITS: i32 = 12;
const SIDE: i32 = 1 << SIDE_BITS;

/// The exponent of the smallest float32.
const FINEST: i32 = -149;
/// The exponent of the widest bins that numbers need which do not stand for infinity.
const COARSEST: i32 = ENDLESS_BITS as i32 - SIDE_BITS;

/// No place of a bin.
const NOWHERE: i32 = i32::MAX;

/// Numbers whose bins are computed at once.
const BLOCK: usize = 256;

/// Counts of finite numbers, but for those that stand for infinity, in bins whose width is a power of
/// two.
///
/// The range grows by doubling: two bins become one. Bins lie at multiples of their width, so
/// that no number has to be looked at again, and the result does not depend on the order of samples:
/// the largest magnitude alone decides how wide bins are, at most 1/2048 of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Histogram {
    bins: Bins,
    extremes: MinMax,
    /// How many numbers are exactly 0.
    zeros: u64,
}

/// What [`Histogram`] ends in.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    /// The least and the largest number, and how many there were.
    pub extremes: Extremes,
    /// Width of a bin.
    pub width: f64,
    /// Where the first bin begins.
    pub start: f64,
    /// How many numbers there are in each bin, from its begin on and below its end.
    pub counts: Vec<u64>,
    /// How many of those in the bin that begins at 0 are exactly that: integers represent it exactly.
    pub zeros: u64,
}

/// Counts without empty bins at either end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bins {
    /// Bins are `2^exponent` wide.
    exponent: i32,
    /// Where the first bin begins, in bins.
    first: i32,
    #[serde(with = "packed::counts")]
    counts: Vec<u64>,
}

/// `2^exponent`, exactly, for exponents of normal float64 numbers.
fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((1023 + i64::from(exponent)) as u64) << 52)
}

/// The exponent of the bins that a number of this magnitude needs.
fn exponent_for(magnitude: f32) -> i32 {
    // float32 numbers are all normal as float64, but for 0.
    let exponent = (f64::from(magnitude).to_bits() >> 52) as i32 - 1023;
    (exponent - SIDE_BITS + 1).max(FINEST)
}

/// Which bin a number is in; none for what is not finite or stands for infinity. A number times a power
/// of two is exact as float64, however small.
fn bin(x: f32, scale: f64) -> i32 {
    let scaled = f64::from(x) * scale;
    let whole = scaled as i32;
    let below = whole - i32::from(f64::from(whole) > scaled);
    if x.abs() < ENDLESS { below } else { NOWHERE }
}

fn count_at(counts: &mut [u64], place: i32) {
    if let Some(count) = counts.get_mut(place.wrapping_add(SIDE) as usize) {
        *count += 1;
    }
}

impl Bins {
    const EMPTY: Bins = Bins { exponent: FINEST, first: 0, counts: Vec::new() };

    /// Counts numbers that reach no farther than this magnitude, leaving out what stands for infinity.
    fn of(numbers: &[f32], reach: f32) -> Self {
        let exponent = exponent_for(reach);
        let scale = power_of_two(-exponent);
        // Equal numbers come one after the other, and a count that was just written takes long to read.
        let mut tables = [vec![0u64; 2 * SIDE as usize], vec![0u64; 2 * SIDE as usize]];
        let mut places = [NOWHERE; BLOCK];
        for block in numbers.chunks(BLOCK) {
            for (place, &x) in zip(&mut places, block) {
                *place = bin(x, scale);
            }
            let (pairs, last) = places.get(..block.len()).unwrap_or_default().as_chunks::<2>();
            for pair in pairs {
                for (table, &place) in zip(&mut tables, pair) {
                    count_at(table, place);
                }
            }
            let [first, _] = &mut tables;
            for &place in last {
                count_at(first, place);
            }
        }
        let [mut counts, others] = tables;
        zip(&mut counts, others).for_each(|(count, other)| *count += other);
        Bins { exponent, first: -SIDE, counts }.trimmed()
    }

    fn trimmed(mut self) -> Self {
        let Some(last) = self.counts.iter().rposition(|&count| count > 0) else {
            return Bins::EMPTY;
        };
        self.counts.truncate(last + 1);
        let empty = self.counts.iter().take_while(|&&count| count == 0).count();
        self.counts.drain(..empty);
        self.first += empty as i32;
        self
    }

    /// The places of all bins once bins are `2^exponent` wide, with their counts.
    fn coarsened(&self, exponent: i32) -> impl Iterator<Item = (i32, u64)> {
        // More than all bits of a place leave only its sign.
        let by = (exponent - self.exponent).clamp(0, 31);
        zip(self.first.., &self.counts).map(move |(place, &count)| (place >> by, count))
    }

    fn add(&mut self, other: &Bins) {
        let exponent = self.exponent.max(other.exponent);
        let mut counts = vec![0u64; 2 * SIDE as usize];
        for (place, more) in self.coarsened(exponent).chain(other.coarsened(exponent)) {
            if let Some(count) = counts.get_mut(place.wrapping_add(SIDE) as usize) {
                *count += more;
            }
        }
        *self = Bins { exponent, first: -SIDE, counts }.trimmed();
    }

    /// How many numbers there are, unless that does not fit a count.
    fn total(&self) -> Option<u64> {
        self.counts.iter().try_fold(0u64, |total, &count| total.checked_add(count))
    }

    /// How many numbers are in the bin that begins at 0.
    fn at_zero(&self) -> u64 {
        let place = usize::try_from(-i64::from(self.first)).ok();
        place.and_then(|place| self.counts.get(place)).copied().unwrap_or_default()
    }

    fn is_sound(&self) -> bool {
        let ends = [self.counts.first(), self.counts.last()];
        let full = ends.into_iter().flatten().all(|&count| count > 0);
        let end = self.counts.len() as i64 + i64::from(self.first);
        (FINEST..=COARSEST).contains(&self.exponent)
            && self.first >= -SIDE
            && end <= i64::from(SIDE)
            && full
            && (!self.counts.is_empty() || *self == Bins::EMPTY)
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { bins: Bins::EMPTY, extremes: MinMax::new(), zeros: 0 }
    }
}

impl Histogram {
    /// Of everything in a tensor.
    pub fn new() -> Self {
        Histogram::default()
    }
}

impl Observer for Histogram {
    const KIND: &'static str = "histogram";

    type Statistic = Distribution;

    fn variant(&self) -> String {
        "all".to_owned()
    }

    fn see(&mut self, view: &View<'_>) {
        Observer::see(&mut self.extremes, view);
        let extent = view.extent();
        self.zeros += extent.zeros;
        if let Some((low, high)) = extent.range {
            self.bins.add(&Bins::of(view.numbers(), high.max(-low)));
        }
    }

    fn merge(&mut self, other: &Self) {
        Observer::merge(&mut self.extremes, &other.extremes);
        self.bins.add(&other.bins);
        self.zeros += other.zeros;
    }

    fn statistic(&self) -> Distribution {
        let width = power_of_two(self.bins.exponent);
        Distribution {
            extremes: self.extremes.statistic(),
            width,
            start: f64::from(self.bins.first) * width,
            counts: self.bins.counts.clone(),
            zeros: self.zeros,
        }
    }

    fn is_sound(&self) -> bool {
        let counted = self.bins.total() == Some(self.extremes.statistic().finite);
        let zeros = self.zeros <= self.bins.at_zero();
        self.bins.is_sound() && self.extremes.is_sound() && counted && zeros
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "numbers are exact here")]
mod tests {
    use super::*;
    use crate::testing::{is_lossless, is_order_independent, tensor};

    fn seen(samples: &[&[f32]]) -> Histogram {
        let mut histogram = Histogram::new();
        for numbers in samples {
            let tensor = tensor(&[numbers.len()], numbers);
            Observer::see(&mut histogram, &View::new(&tensor, 0));
        }
        histogram
    }

    #[test]
    fn a_number_is_in_the_bin_it_belongs_to() {
        let numbers = [-1.0, -0.3, 0.0, 1e-9, 0.5, 0.7, 1.0, 1.5];
        let told = seen(&[&numbers]).statistic();
        assert_eq!(told.counts.iter().sum::<u64>(), 8);
        assert_eq!(told.width, 1.0 / 2048.0);
        assert_eq!(told.zeros, 1);
        for x in numbers {
            let bin = ((f64::from(x) - told.start) / told.width).floor() as usize;
            assert!(told.counts[bin] > 0, "{x}");
        }
        // 0 and what is next to it share one.
        assert!(told.counts.contains(&2));
    }

    #[test]
    fn the_range_grows_by_doubling() {
        let grown = seen(&[&[1.0, -0.001], &[1e-30], &[4000.0, -1.0]]);
        assert_eq!(grown, seen(&[&[4000.0, 1.0, 1e-30, -0.001, -1.0]]));
        assert_eq!(grown.statistic().width, 1.0);
        // The whole range of numbers in one.
        let widest = seen(&[&[f32::MIN_POSITIVE / 4.0], &[1.2e30], &[-1.2e30], &[1e-45]]);
        assert!(widest.is_sound());
        assert_eq!(widest.statistic().counts.iter().sum::<u64>(), 4);
    }

    #[test]
    fn what_stands_for_infinity_leaves_the_resolution_to_others() {
        let numbers = [-3.0e38, 0.5, f32::MIN, -f32::INFINITY, -0.25, 1.0, f32::MAX];
        let masked = seen(&[&numbers]);
        assert!(masked.is_sound());
        let told = masked.statistic();
        assert_eq!((told.extremes.range, told.extremes.other), (Some((-0.25, 1.0)), 4));
        assert_eq!(told.width, 1.0 / 2048.0);
        is_lossless(&masked);
    }

    #[test]
    fn bins_are_right_at_their_edges_on_either_side() {
        // Closer to 0 than any bin is wide, and still below it.
        let told = seen(&[&[-1e-40, 1e-40, -1.0, 1.0, 1.0 - f32::EPSILON]]).statistic();
        let at = |x: f64| told.counts[((x - told.start) / told.width) as usize];
        assert_eq!(
            (at(-told.width), at(0.0), at(-1.0), at(1.0), at(1.0 - told.width)),
            (1, 1, 1, 1, 1)
        );
        // All in one bin, more than one block of them.
        let same = vec![0.75; 3 * BLOCK + 1];
        assert_eq!(seen(&[&same]).statistic().counts, [same.len() as u64]);
    }

    #[test]
    fn nothing_and_zeros() {
        let none = seen(&[&[], &[f32::NAN, f32::INFINITY]]);
        assert!(none.statistic().counts.is_empty() && none.is_sound());
        is_lossless(&none);
        let mut zeros = seen(&[&[0.0, -0.0]]);
        assert_eq!((zeros.statistic().counts, zeros.statistic().zeros), (vec![2], 2));
        Observer::merge(&mut zeros, &seen(&[&[1024.0]]));
        assert_eq!(zeros, seen(&[&[0.0, 1024.0, 0.0]]));
        is_lossless(&zeros);
    }

    #[test]
    fn what_contradicts_itself_is_unsound() {
        let sound = seen(&[&[1.0, 2.0]]);
        assert!(sound.is_sound());
        let with = |bins: Bins| Histogram { bins, ..sound.clone() }.is_sound();
        assert!(!with(Bins { exponent: COARSEST + 1, ..sound.bins.clone() }));
        assert!(!with(Bins { first: -SIDE - 1, ..sound.bins.clone() }));
        assert!(!with(Bins { first: i32::MAX, ..sound.bins.clone() }));
        assert!(!with(Bins { counts: vec![0, 2], ..sound.bins.clone() }));
        assert!(!with(Bins { counts: vec![u64::MAX, u64::MAX], ..sound.bins.clone() }));
        assert!(!with(Bins { counts: vec![1], ..sound.bins.clone() }));
        assert!(!with(Bins::EMPTY));
        assert!(!Histogram { zeros: 1, ..sound.clone() }.is_sound());
        let zeros = seen(&[&[0.0, 0.0, -1.0]]);
        assert!(zeros.is_sound() && !Histogram { zeros: 3, ..zeros.clone() }.is_sound());
    }

    #[test]
    fn shards_add_up_to_the_whole() {
        is_order_independent(&Histogram::new(), &[3, 4]);
    }
}
