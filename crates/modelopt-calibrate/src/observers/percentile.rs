//! Percentiles, from histograms.

use std::iter::zip;

use super::histogram::Distribution;

impl Distribution {
    /// The number that a share of all finite numbers, from 0 to 1, is not above, to within one bin:
    /// numbers of a bin are taken to be evenly spread. None without a finite number.
    pub fn percentile(&self, share: f64) -> Option<f64> {
        let (least, most) = self.extremes.range?;
        let total: u64 = self.counts.iter().sum();
        let rank = share.clamp(0.0, 1.0) * total as f64;
        let mut before = 0u64;
        for (place, &count) in zip(0u32.., &self.counts) {
            if count > 0 && (before + count) as f64 >= rank {
                let within = (rank - before as f64) / count as f64;
                let number = self.start + self.width * (f64::from(place) + within);
                return Some(number.clamp(f64::from(least), f64::from(most)));
            }
            before += count;
        }
        Some(f64::from(most))
    }

    /// The range that leaves out `1 - share` of all finite numbers, half of them on either side.
    pub fn central_range(&self, share: f64) -> Option<(f64, f64)> {
        let outside = (1.0 - share.clamp(0.0, 1.0)) / 2.0;
        Some((self.percentile(outside)?, self.percentile(1.0 - outside)?))
    }
}

#[cfg(test)]
mod tests {
    use crate::observer::{Observer, View};
    use crate::observers::Histogram;
    use crate::testing::tensor;

    fn seen(numbers: &[f32]) -> super::Distribution {
        let mut histogram = Histogram::new();
        let tensor = tensor(&[numbers.len()], numbers);
        Observer::see(&mut histogram, &View::new(&tensor, 0));
        histogram.statistic()
    }

    #[test]
    fn percentiles_are_right_to_within_a_bin() {
        let numbers: Vec<f32> = (0..=10_000u16).map(|x| f32::from(x) / 100.0 - 20.0).collect();
        let told = seen(&numbers);
        for share in [0.01, 0.1, 0.5, 0.9, 0.999] {
            let expected = share * 100.0 - 20.0;
            let found = told.percentile(share).unwrap();
            assert!((found - expected).abs() <= told.width, "{share}: {found}");
        }
        assert_eq!(told.percentile(0.0), Some(-20.0));
        assert_eq!(told.percentile(1.0), Some(80.0));
        let (low, high) = told.central_range(0.98).unwrap();
        assert!((low + 19.0).abs() <= told.width && (high - 79.0).abs() <= told.width);
    }

    #[test]
    fn one_outlier_is_left_out() {
        let mut numbers = vec![1.0; 100_000];
        numbers[500] = 1000.0;
        let told = seen(&numbers);
        assert!(told.percentile(0.9999).unwrap() <= 2.0);
        assert_eq!(told.percentile(1.0), Some(1000.0));
    }

    #[test]
    fn nothing_has_no_percentiles() {
        assert_eq!(seen(&[]).percentile(0.5), None);
        assert_eq!(seen(&[f32::NAN]).central_range(0.9), None);
        assert_eq!(seen(&[-3.0]).percentile(0.5), Some(-3.0));
    }
}
