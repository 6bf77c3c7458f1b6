//! How long a search may go on, and a way to end it early.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Ends a search from another thread, such as a signal handler: it stops at the next step with the
/// best that it has found.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Ends the search.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was ended.
    pub fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is left to spend.
#[derive(Debug)]
pub(crate) struct Budget {
    stop: Stop,
    deadline: Option<Instant>,
}

impl Budget {
    /// A budget that began at `started`.
    pub(crate) fn new(started: Instant, seconds: Option<f64>, stop: Stop) -> Self {
        let length = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        Budget { stop, deadline: length.and_then(|length| started.checked_add(length)) }
    }

    /// Time left; none if there is no limit.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Whether something that takes this long may still begin.
    pub(crate) fn allows(&self, cost: Duration) -> bool {
        !self.stop.is_stopped() && self.left().is_none_or(|left| left > cost)
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.is_stopped()
    }

    /// The handle that ends it.
    pub(crate) fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// The same, ending so much earlier.
    pub(crate) fn holding_back(&self, reserve: Duration) -> Self {
        let now = Instant::now();
        let earlier = |end: Instant| end.checked_sub(reserve).unwrap_or(now);
        Budget { stop: self.stop.clone(), deadline: self.deadline.map(earlier) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_ends_by_time_or_by_hand() {
        let now = Instant::now();
        let endless = Budget::new(now, None, Stop::default());
        assert!(endless.allows(Duration::from_secs(1 << 40)));
        let short = Budget::new(now, Some(60.0), Stop::default());
        assert!(short.allows(Duration::from_secs(1)) && !short.allows(Duration::from_secs(61)));
        assert!(!short.holding_back(Duration::from_secs(50)).allows(Duration::from_secs(20)));
        let stop = Stop::default();
        let stopped = Budget::new(now, None, stop.clone());
        stop.stop();
        assert!(!stopped.allows(Duration::ZERO) && stopped.is_stopped());
    }
}

#[cfg(test)]
mod edges;
