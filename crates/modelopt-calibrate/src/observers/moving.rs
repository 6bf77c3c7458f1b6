//! What samples reach on average.

use serde::{Deserialize, Serialize};

use crate::exact_sum::ExactSum;
use crate::extent::ENDLESS;
use crate::observer::{Observer, View};

/// The mean, over samples, of the least and of the largest number of each.
///
/// A mean that moves with the samples, as some tools take it, depends on their order and cannot be put
/// together from shards. This is what it stands for: each sample counts the same. Samples without a
/// finite number do not count.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moving {
    /// The sum of what samples begin at.
    low: ExactSum,
    /// The sum of what they end at.
    high: ExactSum,
    /// How many there were.
    samples: u64,
}

impl Moving {
    /// Of everything in a tensor.
    pub fn new() -> Self {
        Moving::default()
    }
}

impl Observer for Moving {
    const KIND: &'static str = "moving";

    /// Both means; none without a finite number.
    type Statistic = Option<(f64, f64)>;

    fn variant(&self) -> String {
        "all".to_owned()
    }

    fn see(&mut self, view: &View<'_>) {
        if let Some((low, high)) = view.extent().range {
            self.low.add(f64::from(low));
            self.high.add(f64::from(high));
            self.samples += 1;
        }
    }

    fn merge(&mut self, other: &Self) {
        self.low.merge(&other.low);
        self.high.merge(&other.high);
        self.samples += other.samples;
    }

    fn statistic(&self) -> Self::Statistic {
        let count = self.samples as f64;
        (self.samples > 0).then(|| (self.low.value() / count, self.high.value() / count))
    }

    fn is_sound(&self) -> bool {
        let (low, high) = (self.low.value(), self.high.value());
        let most = f64::from(ENDLESS) * self.samples as f64;
        low <= high && low >= -most && high <= most
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{is_lossless, is_order_independent, tensor};

    fn seen(samples: &[&[f32]]) -> Moving {
        let mut moving = Moving::new();
        for (numbers, place) in samples.iter().zip(0..) {
            Observer::see(&mut moving, &View::new(&tensor(&[numbers.len()], numbers), place));
        }
        moving
    }

    #[test]
    fn each_sample_counts_the_same() {
        let moving = seen(&[&[-1.0, 0.5, 3.0], &[-3.0, 5.0], &[1.0; 7]]);
        assert_eq!(moving.statistic(), Some((-1.0, 3.0)));
        is_lossless(&moving);
    }

    #[test]
    fn what_is_not_finite_does_not_count() {
        let odd = seen(&[&[f32::NAN], &[], &[-f32::INFINITY, 2.0, -3.0e38], &[4.0]]);
        assert_eq!(odd.statistic(), Some((3.0, 3.0)));
        assert_eq!(seen(&[&[], &[f32::NAN]]).statistic(), None);
        is_lossless(&seen(&[]));
    }

    #[test]
    fn what_contradicts_itself_is_unsound() {
        let sum = |x: f64| -> ExactSum { [x].into_iter().collect() };
        assert!(Moving { low: sum(-1.0), high: sum(2.0), samples: 2 }.is_sound());
        assert!(!Moving { low: sum(2.0), high: sum(-1.0), samples: 2 }.is_sound());
        assert!(!Moving { low: sum(-1.0), high: sum(2.0), samples: 0 }.is_sound());
        assert!(!Moving { low: sum(f64::NAN), high: sum(2.0), samples: 1 }.is_sound());
        assert!(!Moving { low: sum(-1.0), high: sum(1e300), samples: 1 }.is_sound());
    }

    #[test]
    fn shards_add_up_to_the_whole() {
        is_order_independent(&Moving::new(), &[3, 4]);
    }
}
