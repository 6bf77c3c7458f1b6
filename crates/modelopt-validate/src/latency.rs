//! How much slower or faster a model became.

use serde::{Deserialize, Serialize};

/// The outcome of a paired latency measurement: both sessions alive at once, runs interleaved
/// original, candidate, original, candidate after warm-up.
///
/// Ratios are `candidate / original` of one pair: 0.5 is twice as fast, 1.05 is 5 % slower.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LatencyComparison {
    /// Median over the pairs.
    #[serde(with = "crate::number")]
    pub ratio_median: f64,
    /// Lower end of the bootstrap confidence interval of the median.
    #[serde(with = "crate::number")]
    pub ratio_low: f64,
    /// Upper end of the bootstrap confidence interval of the median.
    #[serde(with = "crate::number")]
    pub ratio_high: f64,
    /// Confidence of the interval, in (0, 1); 0.95 by convention.
    #[serde(with = "crate::number")]
    pub confidence: f64,
    /// Number of pairs measured, warm-up left out.
    pub pairs: usize,
    /// Median latency of the original in milliseconds.
    #[serde(with = "crate::number")]
    pub original_median_ms: f64,
    /// Median latency of the candidate in milliseconds.
    #[serde(with = "crate::number")]
    pub candidate_median_ms: f64,
    /// Threads each session computed with.
    pub threads: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_it_writes() {
        let latency = LatencyComparison {
            ratio_median: 0.5,
            ratio_low: 0.25,
            ratio_high: f64::INFINITY,
            confidence: 0.95,
            pairs: 30,
            original_median_ms: 2.0,
            candidate_median_ms: 1.0,
            threads: 1,
        };
        let json = serde_json::to_string(&latency).unwrap();
        assert_eq!(serde_json::from_str::<LatencyComparison>(&json).unwrap(), latency);
    }
}
