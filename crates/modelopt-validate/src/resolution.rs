//! Which errors tell anything: where an output is next to nothing compared with what it is on other
//! samples, it consists of rounding errors of the original, and a ratio to those says nothing of the
//! candidate.
//!
//! A detector, say, answers 1 where there is text and 1e-7 where there is none: the last is what
//! float32 leaves of a difference of numbers near 1, and two builds of the same runtime differ in
//! it. Errors of elements below four units in the last place of the largest element of any sample
//! are none.

use modelopt_graph::DataType;

/// Exponents that a float64 can have.
const EXPONENTS: usize = 1 << 11;

/// Sums of squared errors by the binary exponent of the error.
#[derive(Debug)]
pub(crate) struct Magnitudes(Vec<f64>);

impl Default for Magnitudes {
    fn default() -> Self {
        Magnitudes(vec![0.0; EXPONENTS])
    }
}

impl Magnitudes {
    pub(crate) fn add(&mut self, originals: &[f64], candidates: &[f64]) {
        for (r, c) in originals.iter().zip(candidates) {
            let difference = r - c;
            if let Some(sum) = self.0.get_mut(usize::from(exponent(difference))) {
                *sum += difference * difference;
            }
        }
    }

    /// Those that are not 0.
    pub(crate) fn filled(self) -> Vec<(u16, f64)> {
        let sums = (0u16..).zip(self.0);
        sums.filter(|(_, sum)| *sum != 0.0).collect()
    }
}

/// The exponent as it is stored: 1023 for numbers from 1 to 2.
fn exponent(x: f64) -> u16 {
    (x.to_bits() >> 52) as u16 & 0x7ff
}

/// What one sample's errors are made of.
#[derive(Debug)]
pub(crate) struct Errors {
    /// The largest magnitude of the original's elements.
    pub(crate) peak: f64,
    /// Sum of squares of the original's elements.
    pub(crate) signal: f64,
    /// Sums of squared errors by [`exponent`].
    pub(crate) by_exponent: Vec<(u16, f64)>,
}

/// What was seen of one output, sample by sample.
#[derive(Debug, Default)]
pub(crate) struct Resolution {
    /// The largest magnitude of the original's elements over all samples.
    peak: f64,
    /// Whether it is that of samples which are not here.
    elsewhere: bool,
    samples: Vec<Seen>,
}

#[derive(Debug)]
struct Seen {
    sample: String,
    sqnr_db: f64,
    errors: Errors,
}

impl Resolution {
    /// Nothing seen yet, where other samples reach `peak`.
    pub(crate) fn beside(peak: Option<f64>) -> Self {
        let elsewhere = peak.is_some();
        Resolution { peak: peak.unwrap_or(0.0), elsewhere, samples: Vec::new() }
    }

    pub(crate) fn add(&mut self, sample: &str, sqnr_db: f64, errors: Errors) {
        self.peak = self.peak.max(errors.peak);
        self.samples.push(Seen { sample: sample.to_owned(), sqnr_db, errors });
    }

    /// The lowest ratio of the samples that have errors which the type resolves, with the sample;
    /// of all samples where none have, unless there are others elsewhere.
    pub(crate) fn worst(&self, dtype: DataType) -> Option<(f64, &str)> {
        // Four units in the last place are two binary digits above the last.
        let digits = match dtype {
            DataType::FLOAT => 21,
            DataType::DOUBLE => 50,
            _ => EXPONENTS as u16,
        };
        let floor = exponent(self.peak).saturating_sub(digits);
        let resolved = self.samples.iter().filter_map(|seen| Some((seen.resolved(floor)?, seen)));
        let plain = || self.samples.iter().map(|seen| (seen.sqnr_db, seen));
        let (sqnr_db, seen) = match lowest(resolved) {
            Some(found) => found,
            None if self.elsewhere => return Some((f64::INFINITY, &self.samples.first()?.sample)),
            None => lowest(plain())?,
        };
        Some((sqnr_db, &seen.sample))
    }
}

/// The first of the lowest ratios; NaN is below all.
fn lowest<'a>(ratios: impl Iterator<Item = (f64, &'a Seen)>) -> Option<(f64, &'a Seen)> {
    ratios.reduce(|a, b| if a.0.is_nan() || a.0 <= b.0 { a } else { b })
}

impl Seen {
    /// The ratio to errors of at least this exponent; none if there are no such errors.
    fn resolved(&self, floor: u16) -> Option<f64> {
        if self.sqnr_db.is_nan() {
            return Some(self.sqnr_db);
        }
        let parts = &self.errors.by_exponent;
        let noise: f64 =
            parts.iter().filter(|(exponent, _)| *exponent >= floor).map(|(_, sum)| sum).sum();
        let all = parts.iter().all(|(exponent, _)| *exponent >= floor);
        if noise == 0.0 {
            // Equal everywhere, or too large to be squared.
            return (self.sqnr_db == f64::NEG_INFINITY).then_some(self.sqnr_db);
        }
        Some(if all { self.sqnr_db } else { 10.0 * (self.errors.signal / noise).log10() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of samples with one element each besides a peak: the ratio to its error.
    fn worst(samples: &[(f64, f64, f64)], dtype: DataType) -> (f64, String) {
        let mut seen = Resolution::default();
        for (index, &(peak, sqnr_db, error)) in samples.iter().enumerate() {
            seen.add(&index.to_string(), sqnr_db, errors(peak, &[error]));
        }
        let (sqnr_db, sample) = seen.worst(dtype).unwrap();
        (sqnr_db, sample.to_owned())
    }

    fn errors(peak: f64, errors: &[f64]) -> Errors {
        let mut magnitudes = Magnitudes::default();
        magnitudes.add(errors, &vec![0.0; errors.len()]);
        Errors { peak, signal: peak * peak, by_exponent: magnitudes.filled() }
    }

    #[test]
    fn noise_beside_a_signal_does_not_count() {
        let samples = [(1.0, 50.0, 1e-3), (1e-7, 0.8, 1.2e-7), (1e-3, 30.0, 1e-5)];
        assert_eq!(worst(&samples, DataType::FLOAT), (30.0, "2".into()));
        assert_eq!(worst(&samples, DataType::FLOAT16), (0.8, "1".into()));
    }

    #[test]
    fn noise_alone_is_all_there_is() {
        assert_eq!(worst(&[(1e-7, 0.8, 1.2e-7)], DataType::FLOAT), (0.8, "0".into()));
        assert_eq!(worst(&[(1.0, 140.0, 1e-8), (1.0, 150.0, 0.0)], DataType::FLOAT).0, 140.0);
    }

    #[test]
    fn what_is_not_known_is_worst() {
        let (sqnr_db, sample) =
            worst(&[(1.0, 5.0, 0.1), (1.0, f64::NAN, f64::NAN)], DataType::FLOAT);
        assert!(sqnr_db.is_nan());
        assert_eq!(sample, "1");
    }

    #[test]
    fn errors_that_are_not_resolved_are_not_counted_beside_those_that_are() {
        let mut seen = Resolution::default();
        seen.add("text", 60.0, errors(1.0, &[1e-3]));
        // A thousand roundings of the sigmoid, and one error of a tenth of what there is.
        let mut small = vec![1.5e-7; 1000];
        small.push(1e-6);
        seen.add("none", 5.0, errors(1e-5, &small));
        let (sqnr_db, sample) = seen.worst(DataType::FLOAT).unwrap();
        assert!((sqnr_db - 20.0).abs() < 1e-6, "{sqnr_db}");
        assert_eq!(sample, "none");
    }

    #[test]
    fn a_sample_is_judged_beside_those_elsewhere() {
        let mut seen = Resolution::beside(Some(1.0));
        seen.add("none", 0.8, errors(1e-7, &[1.2e-7]));
        assert_eq!(seen.worst(DataType::FLOAT).unwrap().0, f64::INFINITY);
        seen.add("some", 30.0, errors(1e-3, &[1e-5]));
        assert_eq!(seen.worst(DataType::FLOAT), Some((30.0, "some")));
    }
}
