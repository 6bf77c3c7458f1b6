//! Sums of floats that do not depend on the order in which they are made, so that statistics of
//! shards add up to those of the whole, to the last bit.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::packed;

/// The exact sum of some float64 numbers.
///
/// It is kept as numbers that do not overlap (Shewchuk, Adaptive Precision Floating-Point Arithmetic,
/// 1997), of which there are two or three as a rule. Sums of float32 numbers and of their squares
/// never overflow. NaN and infinities add up as float64 does.
#[derive(Clone, Debug, Default)]
pub struct ExactSum {
    /// From the smallest to the largest, none of them 0.
    parts: Vec<f64>,
    /// The sum of what is not finite; 0 without any.
    special: f64,
}

impl ExactSum {
    /// Adds a number.
    pub fn add(&mut self, number: f64) {
        if !number.is_finite() {
            self.special += number;
            return;
        }
        let mut carried = number;
        self.parts.retain_mut(|part| {
            let (high, low) = two_sum(carried, *part);
            (carried, *part) = (high, low);
            low != 0.0
        });
        if carried.is_finite() {
            self.parts.extend((carried != 0.0).then_some(carried));
        } else {
            self.special += carried;
        }
    }

    /// Adds what another sum has.
    pub fn merge(&mut self, other: &ExactSum) {
        other.parts.iter().for_each(|&part| self.add(part));
        self.special += other.special;
    }

    /// The sum, rounded once, to the nearest float64.
    pub fn value(&self) -> f64 {
        if self.special != 0.0 {
            return self.special;
        }
        let mut rest = self.parts.iter().rev();
        let mut high = rest.next().copied().unwrap_or(0.0);
        while let Some(&part) = rest.next() {
            let (sum, low) = two_sum(high, part);
            high = sum;
            if low == 0.0 {
                continue;
            }
            // Exactly between two float64 numbers, what is left says which is nearer.
            if let Some(&next) = rest.next()
                && (low < 0.0) == (next < 0.0)
            {
                let (up, lost) = two_sum(high, low * 2.0);
                high = if lost == 0.0 { up } else { high };
            }
            break;
        }
        high
    }

    /// The only numbers for this sum of which each is what the ones before it leave, rounded.
    fn canonical(&self) -> Vec<f64> {
        let mut rest = ExactSum { parts: self.parts.clone(), special: 0.0 };
        let mut numbers = Vec::new();
        while !rest.parts.is_empty() {
            let number = rest.value();
            numbers.push(number);
            rest.add(-number);
        }
        numbers.extend((self.special != 0.0).then_some(self.special));
        numbers
    }
}

/// A sum of two numbers, and what rounding takes from it.
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let b_of_sum = sum - a;
    (sum, (a - (sum - b_of_sum)) + (b - b_of_sum))
}

/// Bit by bit, so that NaN is equal to itself.
impl PartialEq for ExactSum {
    fn eq(&self, other: &Self) -> bool {
        let bits = |sum: &ExactSum| -> Vec<u64> {
            let known = |x: &f64| if x.is_nan() { f64::NAN.to_bits() } else { x.to_bits() };
            sum.canonical().iter().map(known).collect()
        };
        bits(self) == bits(other)
    }
}

impl FromIterator<f64> for ExactSum {
    fn from_iter<I: IntoIterator<Item = f64>>(numbers: I) -> Self {
        let mut sum = ExactSum::default();
        numbers.into_iter().for_each(|number| sum.add(number));
        sum
    }
}

impl Serialize for ExactSum {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        packed::serialize(&self.canonical(), serializer)
    }
}

impl<'de> Deserialize<'de> for ExactSum {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(packed::deserialize::<f64, D>(deserializer)?.into_iter().collect())
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "numbers are exact here")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_numbers_are_not_lost_beside_large_ones() {
        let sum: ExactSum = [1e100, 1.0, -1e100, 1e-30, 2.0].into_iter().collect();
        assert_eq!(sum.value(), 3.0);
        let sum: ExactSum = [1e100, 1e-30, -1e100].into_iter().collect();
        assert_eq!(sum.value(), 1e-30);
        // 2^53 + 1 lies between two numbers; a little more decides.
        let sum: ExactSum = [9_007_199_254_740_992.0, 1.0, 1e-20].into_iter().collect();
        assert_eq!(sum.value(), 9_007_199_254_740_994.0);
        let sum: ExactSum = [9_007_199_254_740_992.0, 1.0].into_iter().collect();
        assert_eq!(sum.value(), 9_007_199_254_740_992.0);
    }

    #[test]
    fn what_is_not_finite_adds_up_as_usual() {
        assert_eq!(ExactSum::default().value(), 0.0);
        let infinite: ExactSum = [1.0, f64::INFINITY].into_iter().collect();
        assert_eq!(infinite.value(), f64::INFINITY);
        let mut both = infinite.clone();
        both.merge(&[f64::NEG_INFINITY].into_iter().collect());
        assert!(both.value().is_nan());
        assert_eq!(both, both.clone());
        assert_ne!(both, infinite);
    }

    proptest! {
        #[test]
        fn order_and_grouping_do_not_count(
            numbers in prop::collection::vec(any::<f32>().prop_filter("finite", |x| x.is_finite()), 0..40),
            cut in 0usize..40,
        ) {
            let squares = || numbers.iter().map(|&x| f64::from(x) * f64::from(x));
            let whole: ExactSum = squares().collect();
            let backwards: ExactSum = squares().rev().collect();
            prop_assert_eq!(&whole, &backwards);
            prop_assert_eq!(whole.value().to_bits(), backwards.value().to_bits());
            let cut = cut.min(numbers.len());
            let mut merged: ExactSum = squares().skip(cut).collect();
            merged.merge(&squares().take(cut).collect());
            prop_assert_eq!(&whole, &merged);
        }
    }
}
