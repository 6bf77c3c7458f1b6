//! How often a model was asked in the last minute and how long that took, for people who look.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const SECONDS: u64 = 60;
/// Steps from one power of two to the next: a quantile is off by a sixteenth at most.
const STEPS: u64 = 8;
/// Up to 2²⁶ microseconds, which is a minute; longer requests count as that.
const BUCKETS: usize = ((26 - 3) * STEPS + STEPS) as usize;

/// The last minute of one model: a histogram of durations for each second.
pub struct Live {
    start: Instant,
    ring: Mutex<Vec<Second>>,
}

#[derive(Clone)]
struct Second {
    /// Since the start.
    number: u64,
    failed: u32,
    durations: [u32; BUCKETS],
}

/// What the last minute was like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LiveFigures {
    /// Requests a second.
    pub requests_per_second: f64,
    /// Those of them that were not answered well.
    pub failures_per_second: f64,
    /// The time that half of the requests took at most; none where there were no requests.
    pub p50: Option<Duration>,
    /// The same for 95 of 100.
    pub p95: Option<Duration>,
    /// The same for 99 of 100.
    pub p99: Option<Duration>,
}

impl Default for Live {
    fn default() -> Self {
        Live::from(Instant::now())
    }
}

impl Live {
    fn from(start: Instant) -> Self {
        let empty = Second { number: 0, failed: 0, durations: [0; BUCKETS] };
        Live { start, ring: Mutex::new(vec![empty; SECONDS as usize]) }
    }

    /// Counts a request that took so long and was answered well or not.
    pub fn record(&self, took: Duration, well: bool) {
        self.record_at(Instant::now(), took, well);
    }

    /// The figures of the last minute, or of the time since the start where that is less.
    pub fn figures(&self) -> LiveFigures {
        self.figures_at(Instant::now())
    }

    fn record_at(&self, now: Instant, took: Duration, well: bool) {
        let now = now.saturating_duration_since(self.start).as_secs();
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(second) = ring.get_mut((now % SECONDS) as usize) else { return };
        if second.number != now {
            *second = Second { number: now, failed: 0, durations: [0; BUCKETS] };
        }
        second.failed = second.failed.saturating_add(u32::from(!well));
        if let Some(count) = second.durations.get_mut(bucket(took)) {
            *count = count.saturating_add(1);
        }
    }

    fn figures_at(&self, now: Instant) -> LiveFigures {
        let since = now.saturating_duration_since(self.start);
        let mut sum = [0u64; BUCKETS];
        let mut failed = 0u64;
        {
            let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
            for second in ring.iter().filter(|second| second.number + SECONDS > since.as_secs()) {
                failed += u64::from(second.failed);
                for (sum, &count) in sum.iter_mut().zip(&second.durations) {
                    *sum += u64::from(count);
                }
            }
        }
        // The ring holds the seconds before this one and what there is of this one.
        let held = (SECONDS - 1) as f64 + f64::from(since.subsec_nanos()) / 1e9;
        let span = since.as_secs_f64().min(held).max(1.0);
        let requests = sum.iter().sum::<u64>();
        LiveFigures {
            requests_per_second: requests as f64 / span,
            failures_per_second: failed as f64 / span,
            p50: quantile(&sum, requests, 0.5),
            p95: quantile(&sum, requests, 0.95),
            p99: quantile(&sum, requests, 0.99),
        }
    }
}

/// The middle of the bucket with the request that is at `part` of all.
fn quantile(sum: &[u64; BUCKETS], requests: u64, part: f64) -> Option<Duration> {
    let rank = ((requests as f64 * part).ceil() as u64).max(1);
    let mut seen = 0;
    let found = sum.iter().position(|&count| {
        seen += count;
        seen >= rank
    })?;
    let (low, high) = (lower_bound(found), lower_bound(found + 1));
    Some(Duration::from_nanos((low + high) * 1_000 / 2))
}

/// Buckets of one microsecond up to the number of steps, then so many for each power of two.
fn bucket(took: Duration) -> usize {
    let microseconds = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    if microseconds < STEPS {
        return microseconds as usize;
    }
    let power = microseconds.ilog2();
    let step = (microseconds >> (power - STEPS.ilog2())) - STEPS;
    let bucket = u64::from(power - STEPS.ilog2() + 1) * STEPS + step;
    (bucket as usize).min(BUCKETS - 1)
}

/// The least microseconds that fall into a bucket.
fn lower_bound(bucket: usize) -> u64 {
    let (power, step) = (bucket as u64 / STEPS, bucket as u64 % STEPS);
    if power == 0 { step } else { (STEPS + step) << (power - 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: Option<Duration>, milliseconds: f64) {
        let found = found.unwrap().as_secs_f64() * 1e3;
        assert!((found / milliseconds - 1.0).abs() <= 1.0 / 16.0 + 1e-9, "{found}");
    }

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        for microseconds in 0..100_000 {
            let bucket = bucket(Duration::from_micros(microseconds));
            assert!(lower_bound(bucket) <= microseconds && microseconds < lower_bound(bucket + 1));
        }
        assert_eq!(bucket(Duration::from_micros((1 << 26) - 1)), BUCKETS - 1);
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn rates_and_quantiles_are_those_of_what_was_recorded() {
        let start = Instant::now();
        let live = Live::from(start);
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        for request in 0..1_000u64 {
            let took = Duration::from_micros(100 * (request + 1));
            live.record_at(at(request as f64 / 100.0), took, request % 10 != 0);
        }
        let figures = live.figures_at(at(10.0));
        assert!((figures.requests_per_second - 100.0).abs() < 1e-9);
        assert!((figures.failures_per_second - 10.0).abs() < 1e-9);
        near(figures.p50, 50.0);
        near(figures.p95, 95.0);
        near(figures.p99, 99.0);
    }

    #[test]
    fn what_was_a_minute_ago_is_gone_and_rates_are_of_the_minute() {
        let start = Instant::now();
        let live = Live::from(start);
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        live.record_at(at(0.5), Duration::from_secs(1), true);
        assert!(live.figures_at(at(59.9)).p50.is_some());
        let none = live.figures_at(at(60.0));
        assert_eq!((none.requests_per_second, none.p50, none.p99), (0.0, None, None));
        // One request a second for three minutes, the first two of them slow.
        for second in 0..180 {
            let took = Duration::from_millis(if second < 120 { 500 } else { 2 });
            live.record_at(at(f64::from(second) + 0.5), took, true);
        }
        let figures = live.figures_at(at(179.9));
        assert!((figures.requests_per_second - 1.0).abs() < 0.02, "{figures:?}");
        near(figures.p99, 2.0);
    }

    #[test]
    fn a_model_that_was_just_loaded_has_no_rate_out_of_nothing() {
        let live = Live::default();
        assert_eq!(live.figures().requests_per_second.to_bits(), 0.0f64.to_bits());
        live.record(Duration::from_millis(1), true);
        assert!(live.figures().requests_per_second <= 1.0);
    }
}
