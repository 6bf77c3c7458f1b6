//! What a tensor's numbers reach, looked at once for all observers.

/// Numbers from this magnitude on stand for infinity, as masks have them: about 1.3e30. Nothing that
/// is computed with comes near it, and one of them would leave no resolution to anything else.
pub(crate) const ENDLESS: f32 = f32::from_bits((127 + ENDLESS_BITS) << 23);

/// The same as a power of two.
pub(crate) const ENDLESS_BITS: u32 = 100;

/// Numbers that are compared at once, so that the compiler can use vectors.
const LANES: usize = 16;

/// The reach of some numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Extent {
    /// The least and the largest of those that are finite and do not stand for infinity.
    pub range: Option<(f32, f32)>,
    /// How many of those there are.
    pub finite: u64,
    /// How many of those are exactly 0.
    pub zeros: u64,
    /// How many are infinite or stand for infinity.
    pub infinite: u64,
    /// How many are NaN.
    pub nans: u64,
}

/// What one lane has seen.
#[derive(Clone, Copy)]
struct Lane {
    low: f32,
    high: f32,
    finite: u32,
    zeros: u32,
    nans: u32,
}

impl Lane {
    const EMPTY: Lane =
        Lane { low: f32::INFINITY, high: f32::NEG_INFINITY, finite: 0, zeros: 0, nans: 0 };

    fn see(&mut self, x: f32) {
        let finite = x.abs() < ENDLESS;
        let (up, down) = if finite { (x, x) } else { (f32::INFINITY, f32::NEG_INFINITY) };
        self.low = if up < self.low { up } else { self.low };
        self.high = if down > self.high { down } else { self.high };
        self.finite += u32::from(finite);
        self.zeros += u32::from(x == 0.0);
        self.nans += u32::from(x.is_nan());
    }
}

impl Extent {
    /// That of some numbers.
    pub fn of(numbers: &[f32]) -> Self {
        // Counts of a lane fit, however long a tensor is.
        const MOST: usize = LANES << 30;
        let mut extent = Extent::default();
        for part in numbers.chunks(MOST) {
            let (blocks, rest) = part.as_chunks::<LANES>();
            let mut lanes = [Lane::EMPTY; LANES];
            for block in blocks {
                for (lane, &x) in lanes.iter_mut().zip(block) {
                    lane.see(x);
                }
            }
            for (lane, &x) in lanes.iter_mut().zip(rest) {
                lane.see(x);
            }
            for lane in &lanes {
                extent.take(lane);
            }
        }
        extent.infinite = numbers.len() as u64 - extent.finite - extent.nans;
        extent
    }

    fn take(&mut self, lane: &Lane) {
        self.finite += u64::from(lane.finite);
        self.zeros += u64::from(lane.zeros);
        self.nans += u64::from(lane.nans);
        if lane.finite > 0 {
            // Of -0 and 0, which are equal, the sign must not depend on the order.
            let (low, high) = self.range.unwrap_or((lane.low, lane.high));
            self.range = Some((low.min(lane.low) + 0.0, high.max(lane.high) + 0.0));
        }
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "numbers are exact here")]
mod tests {
    use super::*;

    #[test]
    fn every_number_counts_once() {
        let numbers = [
            f32::NAN,
            3.0,
            f32::INFINITY,
            -1.5,
            f32::MIN,
            0.0,
            -0.0,
            -ENDLESS,
            f32::from_bits(ENDLESS.to_bits() - 1),
        ];
        let expected = Extent { range: None, finite: 5, zeros: 2, infinite: 3, nans: 1 };
        let seen = Extent::of(&numbers);
        assert_eq!(Extent { range: None, ..seen }, expected);
        assert!(seen.range.is_some_and(|(low, high)| low == -1.5 && high < ENDLESS));
    }

    #[test]
    fn every_place_of_a_tensor_is_looked_at() {
        for length in [1, 15, 16, 17, 33] {
            for place in 0..length {
                let mut numbers = vec![1.0; length];
                numbers[place] = -7.0;
                assert_eq!(Extent::of(&numbers).range.unwrap().0, -7.0, "{place} of {length}");
            }
        }
    }

    #[test]
    fn nothing_reaches_nowhere() {
        assert_eq!(Extent::of(&[]), Extent::default());
        assert_eq!(Extent::of(&[f32::NAN]).range, None);
        let zero = Extent::of(&[-0.0]).range.unwrap();
        assert_eq!((zero.0.to_bits(), zero.1.to_bits()), (0, 0));
    }
}
