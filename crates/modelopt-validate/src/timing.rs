//! Measures latency: two models in pairs, or one alone.

use std::time::{Duration, Instant};

use indexmap::IndexMap;
use modelopt_graph::Tensor;
use modelopt_runtime::{Rounds, RuntimeError, Session, Timed, time_in_turn};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::{Distribution, LatencyComparison};

/// How long to measure; the `[latency]` table of `modelopt.toml`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct LatencyOptions {
    /// Fewest pairs of runs.
    pub min_pairs: usize,
    /// Least time for all pairs, in seconds.
    pub min_seconds: f64,
    /// Most time, in seconds: reached where the machine is so noisy that the interval stays wide.
    /// Even then a few pairs are measured.
    pub max_seconds: f64,
}

impl Default for LatencyOptions {
    fn default() -> Self {
        LatencyOptions { min_pairs: 20, min_seconds: 1.0, max_seconds: 10.0 }
    }
}

/// Pairs that are measured however long they take, and of which at most so many are kept.
const FEWEST: usize = 5;
const MOST: usize = 20_000;
/// Longer than anybody measures, in seconds.
const LONGEST: f64 = 1e9;
/// Warm-up ends after a fifth of a second or ten runs of each.
const WARMING: Rounds = Rounds { count: 10, seconds: 0.0, fewest: 1, most: 10, most_seconds: 0.2 };
/// An interval that is narrower than this, relative to the median, is good enough.
const NARROW: f64 = 0.02;
/// Confidence of the interval. A gate in a build pipeline fails often enough for good reasons.
const CONFIDENCE: f64 = 0.99;
/// Resamples of the bootstrap.
const RESAMPLES: usize = 1000;
/// Quantiles that are kept for plots.
const QUANTILES: usize = 101;

type Inputs = IndexMap<String, Tensor>;

/// Runs both models in turn on the same inputs, original first, and compares their times.
///
/// The interval of the ratio's median comes from the percentile bootstrap (Efron 1979) over pairs,
/// so that whatever slows the machine for a while, and both models with it, cancels.
pub fn compare_latency(
    original: &mut dyn Session,
    candidate: &mut dyn Session,
    inputs: &Inputs,
    threads: usize,
    options: &LatencyOptions,
) -> Result<LatencyComparison, RuntimeError> {
    let mut both = [Timed { session: original, inputs }, Timed { session: candidate, inputs }];
    time_in_turn(&mut both, &WARMING)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let started = Instant::now();
    let mut next_look = options.min_pairs.max(FEWEST);
    let interval = loop {
        let rounds = remaining(options, next_look, ours.len(), started.elapsed());
        let mut times = time_in_turn(&mut both, &rounds)?.into_iter();
        ours.extend(times.next().into_iter().flatten().map(told));
        theirs.extend(times.next().into_iter().flatten().map(told));
        let (pairs, seconds) = (ours.len(), started.elapsed().as_secs_f64());
        let interval = Interval::of(&ratios(&ours, &theirs));
        if seconds >= options.max_seconds || pairs >= MOST || interval.is_narrow() {
            break interval;
        }
        next_look = pairs + pairs / 4 + 1;
    };
    let (original, candidate) = (distribution(&ours), distribution(&theirs));
    Ok(LatencyComparison {
        ratio_median: interval.median,
        ratio_low: interval.low,
        ratio_high: interval.high,
        confidence: CONFIDENCE,
        pairs: ours.len(),
        noise: spread(&ours),
        original,
        candidate,
        threads,
        call_ms: None,
    })
}

/// Times of one model alone.
pub fn measure_latency(
    session: &mut dyn Session,
    inputs: &Inputs,
    options: &LatencyOptions,
) -> Result<Distribution, RuntimeError> {
    let mut alone = [Timed { session, inputs }];
    time_in_turn(&mut alone, &WARMING)?;
    let rounds = remaining(options, options.min_pairs, 0, Duration::ZERO);
    let times: Vec<f64> =
        time_in_turn(&mut alone, &rounds)?.into_iter().flatten().map(told).collect();
    Ok(distribution(&times))
}

/// What is left to measure until the figures are looked at again.
fn remaining(options: &LatencyOptions, next_look: usize, done: usize, elapsed: Duration) -> Rounds {
    // What a worker is told must be a number.
    let left = |seconds: f64| (seconds - elapsed.as_secs_f64()).clamp(0.0, LONGEST);
    Rounds {
        count: next_look.saturating_sub(done),
        seconds: left(options.min_seconds),
        fewest: FEWEST.saturating_sub(done),
        most: MOST.saturating_sub(done),
        most_seconds: left(options.max_seconds),
    }
}

/// A time as it is told: a clock that did not move would make ratios infinite.
fn told(ms: f64) -> f64 {
    ms.max(1e-6)
}

fn ratios(original: &[f64], candidate: &[f64]) -> Vec<f64> {
    original.iter().zip(candidate).map(|(a, b)| b / a).collect()
}

/// A median and its confidence interval.
struct Interval {
    median: f64,
    low: f64,
    high: f64,
}

impl Interval {
    /// Of at least one number.
    fn of(numbers: &[f64]) -> Self {
        let mut random = SmallRng::seed_from_u64(numbers.len() as u64);
        let mut resample = vec![0.0; numbers.len()];
        let mut medians: Vec<f64> = (0..RESAMPLES)
            .map(|_| {
                for slot in &mut resample {
                    *slot = numbers[random.random_range(0..numbers.len())];
                }
                median(&mut resample)
            })
            .collect();
        medians.sort_by(f64::total_cmp);
        let tail = (1.0 - CONFIDENCE) / 2.0;
        Interval {
            median: median(&mut numbers.to_vec()),
            low: quantile(&medians, tail),
            high: quantile(&medians, 1.0 - tail),
        }
    }

    fn is_narrow(&self) -> bool {
        self.high - self.low <= NARROW * self.median
    }
}

/// The middle one, or the mean of the middle two.
fn median(numbers: &mut [f64]) -> f64 {
    let middle = numbers.len() / 2;
    let even = numbers.len().is_multiple_of(2);
    let (below, &mut upper, _) = numbers.select_nth_unstable_by(middle, f64::total_cmp);
    match below.iter().copied().max_by(f64::total_cmp) {
        Some(lower) if even => f64::midpoint(lower, upper),
        _ => upper,
    }
}

/// Interpolated between neighbours, of sorted numbers.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * place.fract()
}

fn spread(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    (quantile(&sorted, 0.75) - quantile(&sorted, 0.25)) / 2.0 / quantile(&sorted, 0.5)
}

fn distribution(times: &[f64]) -> Distribution {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    let mean_ms = sorted.iter().sum::<f64>() / sorted.len() as f64;
    let kept = sorted.len().min(QUANTILES);
    let share = |index: usize| index as f64 / (kept - 1).max(1) as f64;
    Distribution {
        runs: sorted.len(),
        mean_ms,
        p50_ms: quantile(&sorted, 0.5),
        p90_ms: quantile(&sorted, 0.9),
        p99_ms: quantile(&sorted, 0.99),
        throughput_per_s: 1e3 / mean_ms,
        quantiles_ms: (0..kept).map(|index| quantile(&sorted, share(index))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;
    use modelopt_runtime::Outputs;

    use super::*;

    /// Takes as long as it is told, busily.
    struct Takes(Duration);

    impl Session for Takes {
        fn run(&mut self, _: &Inputs) -> Result<Outputs, RuntimeError> {
            let started = Instant::now();
            while started.elapsed() < self.0 {
                std::hint::spin_loop();
            }
            Ok(Outputs::new())
        }
    }

    fn quick() -> LatencyOptions {
        LatencyOptions { min_pairs: 20, min_seconds: 0.0, max_seconds: 0.5 }
    }

    #[test]
    fn a_model_that_takes_twice_as_long_is_twice_as_slow() {
        let (mut fast, mut slow) =
            (Takes(Duration::from_micros(100)), Takes(Duration::from_micros(200)));
        // Whatever else runs, most pairs see neither model interrupted, at one time or another.
        let is_twice = (0..20).any(|_| {
            let latency =
                compare_latency(&mut fast, &mut slow, &Inputs::new(), 1, &quick()).unwrap();
            assert!(latency.pairs >= 5, "{latency:?}");
            assert!(latency.ratio_low <= latency.ratio_median, "{latency:?}");
            assert!(latency.ratio_median <= latency.ratio_high, "{latency:?}");
            assert!(latency.original.p50_ms >= 0.1, "{latency:?}");
            assert!(latency.candidate.p50_ms >= 0.2, "{latency:?}");
            (1.7..2.3).contains(&latency.ratio_median)
        });
        assert!(is_twice, "never found to take twice as long");
    }

    #[test]
    fn times_of_one_model_are_summed_up() {
        let numbers: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        let times = distribution(&numbers);
        assert_eq!((times.runs, times.quantiles_ms.len()), (200, QUANTILES));
        assert_relative_eq!(times.p50_ms, 100.5);
        assert_relative_eq!(times.p90_ms, 180.1);
        assert_relative_eq!(times.p99_ms, 198.01);
        assert_relative_eq!(times.throughput_per_s, 1000.0 / 100.5);
        assert_eq!((times.quantiles_ms[0], times.quantiles_ms[QUANTILES - 1]), (1.0, 200.0));
        let once = distribution(&[3.0]);
        assert_eq!((once.p50_ms, once.p99_ms, once.quantiles_ms), (3.0, 3.0, vec![3.0]));
        let measured =
            measure_latency(&mut Takes(Duration::ZERO), &Inputs::new(), &quick()).unwrap();
        assert!(measured.runs >= 5);
    }

    #[test]
    fn the_interval_holds_the_median_and_shrinks_with_more_numbers() {
        let noise = |count: u32| (0..count).map(|i| 1.0 + f64::from(i * 7919 % 101) / 1000.0);
        let few = Interval::of(&noise(20).collect::<Vec<_>>());
        let many = Interval::of(&noise(2000).collect::<Vec<_>>());
        for interval in [&few, &many] {
            assert!(interval.low <= interval.median && interval.median <= interval.high);
        }
        assert!(many.high - many.low < (few.high - few.low) / 2.0);
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn an_outlier_does_not_move_the_verdict() {
        let mut ratios = vec![1.0; 30];
        for slow in ratios.iter_mut().take(8) {
            *slow = 9.0;
        }
        let interval = Interval::of(&ratios);
        assert_eq!((interval.median, interval.low), (1.0, 1.0));
    }
}
