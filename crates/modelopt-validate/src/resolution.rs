//! Which samples tell anything: where an output is next to nothing compared with what it is on
//! other samples, it consists of rounding errors of the original, and a ratio to those says
//! nothing of the candidate.
//!
//! A detector, say, answers 1 where there is text and 1e-7 where there is none: the last is what
//! float32 leaves of a difference of numbers near 1, and two builds of the same runtime differ in
//! it.

use modelopt_graph::DataType;

/// How many units in the last place of the largest element two float evaluations in another order
/// differ by.
const ULPS: f64 = 4.0;

/// What was seen of one output, sample by sample.
#[derive(Debug, Default)]
pub(crate) struct Resolution {
    /// The largest magnitude of the original's elements over all samples.
    peak: f64,
    samples: Vec<Seen>,
}

#[derive(Debug)]
struct Seen {
    sample: String,
    sqnr_db: f64,
    max_abs_error: f64,
}

impl Resolution {
    pub(crate) fn add(&mut self, sample: &str, peak: f64, sqnr_db: f64, max_abs_error: f64) {
        self.peak = self.peak.max(peak);
        self.samples.push(Seen { sample: sample.to_owned(), sqnr_db, max_abs_error });
    }

    /// The lowest ratio of the samples whose errors are above what the type resolves, with the
    /// sample; of all samples where none are.
    pub(crate) fn worst(&self, dtype: DataType) -> Option<(f64, &str)> {
        let epsilon = match dtype {
            DataType::FLOAT => f64::from(f32::EPSILON),
            DataType::DOUBLE => f64::EPSILON,
            _ => 0.0,
        };
        let floor = ULPS * epsilon * self.peak;
        // NaN is above everything.
        let tells =
            |seen: &&Seen| !matches!(seen.max_abs_error.partial_cmp(&floor), Some(o) if o.is_le());
        let lowest = |a: &Seen, b: &Seen| a.sqnr_db.is_nan() || a.sqnr_db <= b.sqnr_db;
        let worst = |samples: &mut dyn Iterator<Item = &Seen>| -> Option<usize> {
            let mut best: Option<&Seen> = None;
            for seen in samples {
                best = Some(match best {
                    Some(known) if lowest(known, seen) => known,
                    _ => seen,
                });
            }
            let best = best?;
            self.samples.iter().position(|seen| std::ptr::eq(seen, best))
        };
        let place = worst(&mut self.samples.iter().filter(tells))
            .or_else(|| worst(&mut self.samples.iter()))?;
        let seen = self.samples.get(place)?;
        Some((seen.sqnr_db, &seen.sample))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worst(samples: &[(f64, f64, f64)], dtype: DataType) -> (f64, String) {
        let mut seen = Resolution::default();
        for (index, &(peak, sqnr_db, error)) in samples.iter().enumerate() {
            seen.add(&index.to_string(), peak, sqnr_db, error);
        }
        let (sqnr_db, sample) = seen.worst(dtype).unwrap();
        (sqnr_db, sample.to_owned())
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
}
