//! How the numbers of a tensor become integers of 8 bits.

use crate::choices::TensorRange;

/// The largest integer of an activation: they are unsigned.
const LARGEST: f32 = 255.0;

/// A range that is narrower has no step that float32 can express with its reciprocal.
const NARROWEST: f32 = 1e-30;

/// `x ≈ scale * (q - zero)`, with `q` from 0 to 255.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Affine {
    pub(crate) scale: f32,
    pub(crate) zero: u8,
}

impl Affine {
    /// For numbers in a range. Zero is in it, and exact: padding adds zeros, and Relu makes them.
    pub(crate) fn of(min: f32, max: f32) -> Self {
        let (min, max) = (f64::from(min.min(0.0)), f64::from(max.max(0.0)));
        let scale = ((max - min) / f64::from(LARGEST)) as f32;
        if !scale.is_finite() || scale < NARROWEST {
            // All of its numbers are zero, or next to it.
            return Affine { scale: 1.0, zero: 0 };
        }
        let zero = (-min / f64::from(scale)).round_ties_even().clamp(0.0, f64::from(LARGEST));
        Affine { scale, zero: zero as u8 }
    }

    pub(crate) fn of_range(range: &TensorRange) -> Self {
        Affine::of(range.min, range.max)
    }

    /// For the numbers of a constant; none where some are not finite.
    pub(crate) fn of_numbers(numbers: &[f32]) -> Option<Self> {
        let ends = |(low, high): (f32, f32), &x: &f32| (low.min(x), high.max(x));
        let (low, high) = numbers.iter().fold((0f32, 0f32), ends);
        numbers.iter().all(|x| x.is_finite()).then(|| Affine::of(low, high))
    }

    /// The smallest number that it can express.
    pub(crate) fn low(self) -> f32 {
        -f32::from(self.zero) * self.scale
    }

    /// The largest one.
    pub(crate) fn high(self) -> f32 {
        (LARGEST - f32::from(self.zero)) * self.scale
    }

    /// A number as an integer, as `QuantizeLinear` makes it.
    pub(crate) fn quantize(self, x: f32) -> u8 {
        ((x / self.scale).round_ties_even() + f32::from(self.zero)).clamp(0.0, LARGEST) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_exact_and_ends_are_within_a_step() {
        for (min, max) in [(-1.0, 2.0), (0.0, 6.0), (-3.5, 0.0), (0.5, 4.0), (-8.0, -0.1)] {
            let affine = Affine::of(min, max);
            assert_eq!(affine.quantize(0.0), affine.zero);
            assert!((affine.low() - min.min(0.0)).abs() <= affine.scale, "{affine:?}");
            assert!((affine.high() - max.max(0.0)).abs() <= affine.scale, "{affine:?}");
        }
        assert_eq!(Affine::of(0.0, 6.0).zero, 0);
        assert_eq!(Affine::of(-3.0, 0.0).zero, 255);
    }

    #[test]
    fn an_empty_range_stands_for_zero() {
        for (min, max) in [(0.0, 0.0), (0.0, 1e-38), (-1e-40, 0.0), (f32::MIN, f32::MAX)] {
            let affine = Affine::of(min, max);
            assert!(affine.scale.is_normal(), "{affine:?}");
            assert!((1.0 / affine.scale).is_finite());
            assert_eq!(affine.quantize(0.0), affine.zero);
        }
    }

    #[test]
    fn what_lies_outside_saturates() {
        let affine = Affine::of(-1.0, 1.0);
        assert_eq!(affine.quantize(9.0), 255);
        assert_eq!(affine.quantize(-9.0), 0);
    }

    #[test]
    fn constants_have_their_own_range() {
        assert_eq!(Affine::of_numbers(&[-1.0, 3.0]), Some(Affine::of(-1.0, 3.0)));
        assert_eq!(Affine::of_numbers(&[1.0, f32::NAN]), None);
    }
}
