//! What a model has done since it was loaded, in the terms of Triton's statistics.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::ServeError;

/// How often something was done, and how long it took together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How often.
    pub count: u64,
    /// Nanoseconds.
    pub ns: u64,
}

impl Tally {
    fn add(&mut self, time: Duration) {
        self.count += 1;
        self.ns = self.ns.saturating_add(nanoseconds(time));
    }
}

/// Runs with one number of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchTally {
    /// Putting inputs together.
    pub compute_input: Tally,
    /// In the runtime.
    pub compute_infer: Tally,
    /// Taking outputs apart.
    pub compute_output: Tally,
}

/// Why requests were not answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// The queue was full, or the model not ready.
    pub rejected: u64,
    /// The deadline passed.
    pub late: u64,
    /// The client went away.
    pub cancelled: u64,
    /// The runtime failed, or the request did not fit the model.
    pub failed: u64,
}

/// What a model has done since it was loaded.
///
/// Requests are counted in `success` and `failure`, rows in `inference_count` and runs of the model in
/// `execution_count`: the average batch is the second divided by the third. Requests that failed count
/// in no other figure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Requests answered, and their time from arrival to answer.
    pub success: Tally,
    /// Requests not answered, and the time they took.
    pub failure: Tally,
    /// The same by reason.
    pub failures: Failures,
    /// Rows answered.
    pub inference_count: u64,
    /// Runs of the model that succeeded.
    pub execution_count: u64,
    /// Time of answered requests in the queue.
    pub queue: Tally,
    /// Time of answered requests while inputs were put together, that of the whole batch for each.
    pub compute_input: Tally,
    /// Time of answered requests in the runtime.
    pub compute_infer: Tally,
    /// Time of answered requests while outputs were taken apart.
    pub compute_output: Tally,
    /// Runs by their number of rows.
    pub batches: BTreeMap<usize, BatchTally>,
    /// When the last request was answered.
    pub last_inference: Option<SystemTime>,
}

/// How long the steps of one run took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Steps {
    pub(crate) input: Duration,
    pub(crate) infer: Duration,
    pub(crate) output: Duration,
}

impl Steps {
    pub(crate) fn total(self) -> Duration {
        self.input + self.infer + self.output
    }
}

/// One request of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered {
    pub(crate) queue: Duration,
    pub(crate) total: Duration,
}

/// Counts; all figures are of the same moment.
#[derive(Debug, Default)]
pub(crate) struct Counters(Mutex<Statistics>);

impl Counters {
    pub(crate) fn snapshot(&self) -> Statistics {
        self.lock().clone()
    }

    /// A run that answered these requests.
    pub(crate) fn ran(&self, rows: usize, steps: Steps, requests: &[Answered]) {
        let mut counts = self.lock();
        counts.execution_count += 1;
        counts.inference_count += rows as u64;
        let batch = counts.batches.entry(rows).or_default();
        batch.compute_input.add(steps.input);
        batch.compute_infer.add(steps.infer);
        batch.compute_output.add(steps.output);
        for request in requests {
            counts.success.add(request.total);
            counts.queue.add(request.queue);
            counts.compute_input.add(steps.input);
            counts.compute_infer.add(steps.infer);
            counts.compute_output.add(steps.output);
        }
        counts.last_inference = Some(SystemTime::now());
    }

    /// A request that was not answered.
    pub(crate) fn failed(&self, error: &ServeError, after: Duration) {
        let mut counts = self.lock();
        counts.failure.add(after);
        match error {
            ServeError::QueueFull { .. } | ServeError::NotReady(_) => {
                counts.failures.rejected += 1;
            }
            ServeError::DeadlineExceeded(_) => counts.failures.late += 1,
            _ => counts.failures.failed += 1,
        }
    }

    /// A request whose client went away.
    pub(crate) fn cancelled(&self, after: Duration) {
        let mut counts = self.lock();
        counts.failure.add(after);
        counts.failures.cancelled += 1;
    }

    fn lock(&self) -> MutexGuard<'_, Statistics> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_rows_and_runs_are_counted_apart() {
        let counters = Counters::default();
        let ms = Duration::from_millis;
        let steps = Steps { input: ms(1), infer: ms(10), output: ms(2) };
        let requests = [3, 5].map(|queue| Answered { queue: ms(queue), total: ms(queue + 13) });
        counters.ran(6, steps, &requests);
        counters.ran(1, steps, &requests[..1]);
        let counts = counters.snapshot();
        assert_eq!(
            (counts.success.count, counts.inference_count, counts.execution_count),
            (3, 7, 2)
        );
        assert_eq!(counts.queue, Tally { count: 3, ns: 11_000_000 });
        assert_eq!(counts.compute_infer, Tally { count: 3, ns: 30_000_000 });
        assert_eq!(counts.batches[&6].compute_infer, Tally { count: 1, ns: 10_000_000 });
        assert_eq!(counts.batches.keys().collect::<Vec<_>>(), [&1, &6]);
        assert!(counts.last_inference.is_some());
    }

    #[test]
    fn failures_have_reasons() {
        let counters = Counters::default();
        let full = ServeError::QueueFull { model: "m".to_owned(), waiting: 3 };
        let late = ServeError::DeadlineExceeded(Duration::from_millis(1));
        for error in [full, late.clone(), late, ServeError::Runtime("broken".to_owned())] {
            counters.failed(&error, Duration::from_millis(1));
        }
        counters.cancelled(Duration::from_millis(1));
        let counts = counters.snapshot();
        let expected = Failures { rejected: 1, late: 2, cancelled: 1, failed: 1 };
        assert_eq!((counts.failures, counts.failure.count), (expected, 5));
        assert_eq!((counts.success, counts.last_inference), (Tally::default(), None));
    }
}
