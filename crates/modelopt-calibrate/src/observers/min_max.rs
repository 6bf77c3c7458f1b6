//! The least and the largest number.

use serde::{Deserialize, Serialize};

use crate::extent::ENDLESS;
use crate::observer::{Observer, View};

/// The least and the largest finite number, over everything. Numbers that stand for infinity, as masks
/// have them, are no finite ones here: see [`Extent`](crate::Extent).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MinMax {
    /// Both, once there was a finite number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    range: Option<(f32, f32)>,
    /// How many finite numbers there were.
    finite: u64,
    /// How many numbers were infinite, stood for infinity, or were NaN.
    other: u64,
}

/// What [`MinMax`] ends in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Extremes {
    /// The least and the largest finite number; none without one.
    pub range: Option<(f32, f32)>,
    /// How many finite numbers were seen.
    pub finite: u64,
    /// How many infinite numbers, numbers that stand for infinity, and NaN were seen.
    pub other: u64,
}

/// A range that has both in it.
fn both(a: (f32, f32), b: (f32, f32)) -> (f32, f32) {
    // Of -0 and 0, which are equal, the sign must not depend on the order.
    (a.0.min(b.0) + 0.0, a.1.max(b.1) + 0.0)
}

impl MinMax {
    /// Of everything in a tensor.
    pub fn new() -> Self {
        MinMax::default()
    }

    fn widen(&mut self, range: Option<(f32, f32)>) {
        let Some(range) = range else { return };
        self.range = Some(self.range.map_or(both(range, range), |known| both(known, range)));
    }
}

impl Observer for MinMax {
    const KIND: &'static str = "min-max";

    type Statistic = Extremes;

    fn variant(&self) -> String {
        "all".to_owned()
    }

    fn see(&mut self, view: &View<'_>) {
        let extent = view.extent();
        self.finite += extent.finite;
        self.other += extent.infinite + extent.nans;
        self.widen(extent.range);
    }

    fn merge(&mut self, other: &Self) {
        self.finite += other.finite;
        self.other += other.other;
        self.widen(other.range);
    }

    fn statistic(&self) -> Extremes {
        Extremes { range: self.range, finite: self.finite, other: self.other }
    }

    fn is_sound(&self) -> bool {
        let ordered = |(low, high): (f32, f32)| low <= high && low > -ENDLESS && high < ENDLESS;
        self.range.is_some() == (self.finite > 0) && self.range.is_none_or(ordered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{is_lossless, is_order_independent, tensor};

    fn seen(numbers: &[f32]) -> MinMax {
        let mut range = MinMax::new();
        Observer::see(&mut range, &View::new(&tensor(&[numbers.len()], numbers), 0));
        range
    }

    #[test]
    fn what_is_not_finite_is_counted_apart() {
        let seen = seen(&[f32::NAN, 3.0, f32::INFINITY, -1.5, f32::NEG_INFINITY, -3.0e38]);
        let expected = Extremes { range: Some((-1.5, 3.0)), finite: 2, other: 4 };
        assert_eq!(seen.statistic(), expected);
        is_lossless(&seen);
    }

    #[test]
    fn nothing_has_no_range() {
        for numbers in [&[][..], &[f32::NAN]] {
            let seen = seen(numbers);
            assert_eq!(seen.statistic().range, None);
            is_lossless(&seen);
        }
    }

    #[test]
    fn the_sign_of_zero_does_not_depend_on_the_order() {
        let bits = |numbers: &[f32]| seen(numbers).range.map(|(a, b)| (a.to_bits(), b.to_bits()));
        assert_eq!(bits(&[0.0, -0.0]), bits(&[-0.0, 0.0]));
        assert_eq!(bits(&[-0.0]), bits(&[0.0]));
    }

    #[test]
    fn what_contradicts_itself_is_unsound() {
        assert!(!MinMax { range: Some((2.0, 1.0)), finite: 1, other: 0 }.is_sound());
        assert!(!MinMax { range: Some((f32::NAN, 1.0)), finite: 1, other: 0 }.is_sound());
        assert!(!MinMax { range: None, finite: 1, other: 0 }.is_sound());
        assert!(!MinMax { range: Some((1.0, 2.0)), finite: 0, other: 0 }.is_sound());
    }

    #[test]
    fn shards_add_up_to_the_whole() {
        is_order_independent(&MinMax::new(), &[3, 4]);
    }
}
