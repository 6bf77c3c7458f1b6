//! Where numbers stand on an axis, and its round ticks.

/// Beyond this an axis makes no sense, and arithmetic on it could overflow.
const HUGE: f64 = 1e15;

/// A range of numbers with round ends.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    step: f64,
}

impl Axis {
    /// From 0 to at least `high`.
    pub(super) fn from_zero(high: f64) -> Self {
        let high = if high > 0.0 { high.clamp(1e-9, HUGE) } else { 1.0 };
        let step = round_step(high / 4.0);
        Axis { low: 0.0, high: (high / step).ceil() * step, step }
    }

    /// From at most `low` to at least `high`.
    pub(super) fn around(low: f64, high: f64) -> Self {
        let (low, high) = (low.clamp(-HUGE, HUGE), high.clamp(-HUGE, HUGE));
        // An axis always has some length, and one that its numbers can resolve.
        let pad = (0.05 * (high - low)).max(low.abs().max(high.abs()) * 1e-3).max(1e-9);
        let (low, high) = (low - pad, high + pad);
        Axis { low, high, step: round_step((high - low) / 6.0) }
    }

    /// From 0 at the lower end to 1 at the upper; what lies beyond is at the end.
    pub(super) fn at(&self, x: f64) -> f64 {
        let share = (x - self.low) / (self.high - self.low);
        if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) }
    }

    /// Ticks and their labels.
    pub(super) fn ticks(&self) -> Vec<(f64, String)> {
        let first = (self.low / self.step).ceil();
        let decimals = (-self.step.log10().floor()).clamp(0.0, 12.0) as usize;
        (0..12)
            .map(|count| (first + f64::from(count)) * self.step)
            .take_while(|&tick| tick <= self.high + self.step * 1e-6)
            .map(|tick| (tick, label(tick, decimals)))
            .collect()
    }
}

fn label(tick: f64, decimals: usize) -> String {
    if tick.abs() >= 1e6 { format!("{tick:.1e}") } else { format!("{tick:.decimals$}") }
}

/// The smallest of 1, 2, 5, 10, 20, 50 … that is not below `step`.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let factors = [1.0, 2.0, 5.0];
    factors
        .into_iter()
        .map(|factor| factor * power)
        .find(|&round| round >= step)
        .unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(axis: &Axis) -> String {
        axis.ticks().into_iter().map(|(_, label)| label).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(labels(&Axis::from_zero(38.25)), "0 10 20 30 40");
        assert_eq!(labels(&Axis::from_zero(0.7)), "0.0 0.2 0.4 0.6 0.8");
        assert_eq!(labels(&Axis::around(4.02, 4.4)), "4.1 4.2 4.3 4.4");
        assert_eq!(labels(&Axis::from_zero(0.0)), "0.0 0.5 1.0");
    }

    proptest! {
        #[test]
        fn any_numbers_make_an_axis(low in any::<f64>(), high in any::<f64>(), x in any::<f64>()) {
            let (low, high) = (low.min(high), high.max(low));
            for axis in [Axis::from_zero(high), Axis::around(low, high)] {
                prop_assert!(axis.high > axis.low && axis.high.is_finite(), "{axis:?}");
                prop_assert!((0.0..=1.0).contains(&axis.at(x)));
                prop_assert!((1..=12).contains(&axis.ticks().len()), "{:?}", axis.ticks());
            }
        }
    }
}
