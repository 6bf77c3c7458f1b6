//! What rounding to 16 bits would lose.

use modelopt_rewrite::{Precision, Rounding, rounding};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::exact_sum::ExactSum;
use crate::observer::{Observer, View};

/// What rounding to a 16-bit type takes from a tensor: overflow, numbers that vanish, and the ratio
/// of signal to noise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SixteenBit {
    #[serde(serialize_with = "write_name", deserialize_with = "read_name")]
    to: Precision,
    /// The largest magnitude of a finite number.
    largest: f32,
    /// Whether a finite number becomes infinite.
    overflows: bool,
    /// Of the squares of finite numbers.
    signal: ExactSum,
    /// Of the squares of what rounding takes away.
    noise: ExactSum,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives references")]
fn write_name<S: Serializer>(to: &Precision, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(to.name())
}

fn read_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Precision, D::Error> {
    let name = String::deserialize(deserializer)?;
    let known = Precision::ALL.into_iter().find(|to| to.name() == name);
    known.ok_or_else(|| serde::de::Error::custom(format!("there is no 16-bit type '{name}'")))
}

impl SixteenBit {
    /// Rounding to a type.
    pub fn new(to: Precision) -> Self {
        let (signal, noise) = (ExactSum::default(), ExactSum::default());
        SixteenBit { to, largest: 0.0, overflows: false, signal, noise }
    }
}

impl Observer for SixteenBit {
    const KIND: &'static str = "sixteen-bit";

    type Statistic = Rounding;

    fn variant(&self) -> String {
        self.to.name().to_owned()
    }

    fn see(&mut self, view: &View<'_>) {
        let own = rounding(view.numbers(), self.to);
        self.largest = self.largest.max(own.largest);
        self.overflows |= own.overflows;
        self.signal.add(own.signal);
        self.noise.add(own.noise);
    }

    fn merge(&mut self, other: &Self) {
        self.largest = self.largest.max(other.largest);
        self.overflows |= other.overflows;
        self.signal.merge(&other.signal);
        self.noise.merge(&other.noise);
    }

    fn statistic(&self) -> Rounding {
        Rounding {
            largest: self.largest,
            signal: self.signal.value(),
            noise: self.noise.value(),
            overflows: self.overflows,
        }
    }

    fn is_sound(&self) -> bool {
        let sum = |sum: &ExactSum| sum.value() >= 0.0;
        self.largest >= 0.0 && self.largest.is_finite() && sum(&self.signal) && sum(&self.noise)
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "numbers are exact here")]
mod tests {
    use super::*;
    use crate::testing::{is_lossless, is_order_independent, tensor};

    fn seen(numbers: &[f32]) -> SixteenBit {
        let mut seen = SixteenBit::new(Precision::Fp16);
        Observer::see(&mut seen, &View::new(&tensor(&[numbers.len()], numbers), 0));
        seen
    }

    #[test]
    fn overflow_of_any_sample_counts() {
        let mut all = seen(&[1.0, -2.0]);
        assert_eq!(all.statistic().objection(Precision::Fp16, 40.0), None);
        Observer::merge(&mut all, &seen(&[65520.0]));
        assert!(all.statistic().overflows);
        assert_eq!(all.statistic().largest, 65520.0);
        is_lossless(&all);
    }

    #[test]
    fn numbers_that_vanish_are_noise() {
        let lost = seen(&[1e-12]).statistic();
        assert!(lost.objection(Precision::Fp16, 40.0).unwrap().contains("too small"));
        assert!(seen(&[1e-12, 0.5]).statistic().objection(Precision::Fp16, 40.0).is_none());
    }

    #[test]
    fn it_is_what_all_numbers_at_once_lose() {
        let numbers = [0.1, 3.0, f32::NAN, f32::INFINITY, -7.7];
        assert_eq!(seen(&numbers).statistic(), rounding(&numbers, Precision::Fp16));
        assert_eq!(seen(&[]).statistic(), rounding(&[], Precision::Fp16));
        is_lossless(&seen(&numbers));
        is_lossless(&seen(&[]));
    }

    #[test]
    fn shards_add_up_to_the_whole() {
        for to in Precision::ALL {
            is_order_independent(&SixteenBit::new(to), &[3, 4]);
        }
    }
}
