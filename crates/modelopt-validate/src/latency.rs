//! How much slower or faster a model became: what was measured.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::number::Float;

/// The outcome of a paired latency measurement: both sessions alive at once, runs interleaved
/// original, candidate, original, candidate after warm-up.
///
/// Ratios are `candidate / original` of one pair: 0.5 is twice as fast, 1.05 is 5 % slower.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LatencyComparison {
    /// Median over the pairs.
    #[serde(with = "crate::number")]
    #[schemars(with = "Float")]
    pub ratio_median: f64,
    /// Lower end of the bootstrap confidence interval of the median.
    #[serde(with = "crate::number")]
    #[schemars(with = "Float")]
    pub ratio_low: f64,
    /// Upper end of the bootstrap confidence interval of the median.
    #[serde(with = "crate::number")]
    #[schemars(with = "Float")]
    pub ratio_high: f64,
    /// Confidence of the interval, in (0, 1).
    #[serde(with = "crate::number")]
    #[schemars(with = "Float")]
    pub confidence: f64,
    /// Number of pairs measured, warm-up left out.
    pub pairs: usize,
    /// How noisy the machine was: half the distance between the quartiles of the original's
    /// times, as a share of their median.
    #[serde(with = "crate::number")]
    #[schemars(with = "Float")]
    pub noise: f64,
    /// Times of the original.
    pub original: Distribution,
    /// Times of the candidate.
    pub candidate: Distribution,
    /// Threads each session computed with; 0 for all of the machine.
    pub threads: usize,
    /// What a call of the runtime costs that computes nothing, in milliseconds, if it was measured.
    #[serde(default, with = "crate::number::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Float>")]
    pub call_ms: Option<f64>,
}

/// Clocks, caches and the scheduler make runs differ by this much, in milliseconds.
const CLOCK_MS: f64 = 0.005;

/// No call costs more than this, in milliseconds: one that seems to was interrupted.
const MOST_CALL_MS: f64 = 0.1;

impl LatencyComparison {
    /// By how much the candidate's median is above the original's, in milliseconds; below 0 it is
    /// faster.
    pub fn lost_ms(&self) -> f64 {
        self.candidate.p50_ms - self.original.p50_ms
    }

    /// The least difference that says anything of the models, in milliseconds: 5 µs, or what an
    /// empty call costs if that is more, but at most 100 µs.
    pub fn floor_ms(&self) -> f64 {
        self.call_ms.map_or(CLOCK_MS, |call| call.clamp(CLOCK_MS, MOST_CALL_MS))
    }

    /// Whether the medians differ by more than [`LatencyComparison::floor_ms`].
    pub fn is_told(&self) -> bool {
        // What is no number does not pass for a small one.
        let slight = self.lost_ms().abs() <= self.floor_ms();
        !slight
    }
}

/// Times of one model, one run each, in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Distribution {
    /// Number of runs.
    pub runs: usize,
    /// Mean.
    #[serde(with = "crate::number")]
    #[schemars(with = "Float")]
    pub mean_ms: f64,
    /// Median.
    #[serde(with = "crate::number")]
    #[schemars(with = "Float")]
    pub p50_ms: f64,
    /// Nine of ten runs took at most this long.
    #[serde(with = "crate::number")]
    #[schemars(with = "Float")]
    pub p90_ms: f64,
    /// 99 of a hundred runs took at most this long.
    #[serde(with = "crate::number")]
    #[schemars(with = "Float")]
    pub p99_ms: f64,
    /// Runs per second, one after the other.
    #[serde(with = "crate::number")]
    #[schemars(with = "Float")]
    pub throughput_per_s: f64,
    /// The times in ascending order: all of them, or as many evenly spaced quantiles as a plot
    /// needs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quantiles_ms: Vec<f64>,
}

/// What a model costs a process of its own.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Footprint {
    /// Time from opening the file to a session that is ready, in milliseconds.
    #[serde(with = "crate::number")]
    #[schemars(with = "Float")]
    pub load_ms: f64,
    /// Most memory that was resident after loading and running once, in bytes; what the process
    /// held before is left out.
    pub peak_bytes: u64,
}
