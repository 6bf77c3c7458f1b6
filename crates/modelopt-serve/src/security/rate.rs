//! How often each client may ask.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::ShrinkableKeyedStateStore;
use governor::{Quota, RateLimiter};

use super::SecurityError;
use crate::ServeError;

/// Clients of different shards never wait for each other.
const SHARDS: usize = 16;
/// The bucket that clients of a full shard share.
const SHARED: u64 = 0;
/// Sweeping looks at every client.
const SWEEP_EVERY: Duration = Duration::from_millis(100);
/// A bucket that takes longer to fill is meant otherwise, and longer still cannot be counted.
const LONGEST_FILL: Duration = Duration::from_secs(30 * 24 * 3600);

/// How often each client may ask.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateSettings {
    /// Requests a second that a client may go on with.
    pub per_second: f64,
    /// Requests that it may send at once.
    pub burst: NonZeroU32,
    /// Clients that are told apart. Where there are more, the new ones share what a few may ask.
    pub clients: usize,
}

/// A bucket of tokens for each client.
pub(super) struct Rate<C: Clock = DefaultClock> {
    limiter: RateLimiter<u64, Buckets, C, NoOpMiddleware<C::Instant>>,
    buckets: Buckets,
    hasher: RandomState,
    start: C::Instant,
    /// When buckets were last swept, in nanoseconds since the start.
    swept: AtomicU64,
}

impl Rate {
    /// Buckets by `settings`.
    pub(super) fn new(settings: &RateSettings) -> Result<Self, SecurityError> {
        Rate::with_clock(settings, DefaultClock::default())
    }
}

impl<C: Clock> Rate<C> {
    fn with_clock(settings: &RateSettings, clock: C) -> Result<Self, SecurityError> {
        let wrong = || SecurityError::Rate(settings.per_second);
        let period =
            Duration::try_from_secs_f64(settings.per_second.recip()).map_err(|_| wrong())?;
        let fill = period.checked_mul(settings.burst.get()).filter(|fill| *fill <= LONGEST_FILL);
        let quota = Quota::with_period(period).filter(|_| fill.is_some()).ok_or_else(wrong)?;
        let buckets = Buckets::new(settings.clients);
        let start = clock.now();
        let quota = quota.allow_burst(settings.burst);
        let limiter = RateLimiter::new(quota, buckets.clone(), clock);
        let hasher = RandomState::new();
        Ok(Rate { limiter, buckets, hasher, start, swept: AtomicU64::new(0) })
    }

    /// Takes a token from the bucket of `client`.
    pub(super) fn take(&self, client: &impl Hash) -> Result<(), ServeError> {
        if self.buckets.full.load(Ordering::Relaxed) {
            self.sweep();
        }
        // Clients are known by a hash with a secret of this process: nobody can choose to share a bucket.
        let key = self.hasher.hash_one(client);
        self.limiter.check_key(&key).map_err(|until| ServeError::RateLimited {
            retry_after: until.wait_time_from(self.limiter.clock().now()),
        })
    }

    /// Forgets clients whose buckets are full again, which is as if they had never asked.
    fn sweep(&self) {
        let now = self.limiter.clock().now().duration_since(self.start).as_u64();
        let last = self.swept.load(Ordering::Relaxed);
        let due = last == 0 || now.saturating_sub(last) >= SWEEP_EVERY.as_nanos() as u64;
        let mine = || {
            self.swept
                .compare_exchange(last, now.max(1), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        };
        if due && mine() {
            self.buckets.full.store(false, Ordering::Relaxed);
            self.limiter.retain_recent();
        }
    }
}

type Shard = Mutex<HashMap<u64, Nanos>>;

/// When each bucket will be full again, for so many clients and no more.
#[derive(Clone)]
struct Buckets {
    shards: Arc<[Shard; SHARDS]>,
    clients_per_shard: usize,
    full: Arc<AtomicBool>,
}

impl Buckets {
    fn new(clients: usize) -> Self {
        Buckets {
            shards: Arc::new(std::array::from_fn(|_| Shard::default())),
            clients_per_shard: clients.div_ceil(SHARDS).max(1),
            full: Arc::default(),
        }
    }

    fn shards(&self) -> impl Iterator<Item = MutexGuard<'_, HashMap<u64, Nanos>>> {
        self.shards.iter().map(unpoisoned)
    }
}

/// The map of a shard is whole after every statement, so that a panic elsewhere leaves it whole.
fn unpoisoned(shard: &Shard) -> MutexGuard<'_, HashMap<u64, Nanos>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl StateStore for Buckets {
    type Key = u64;

    fn measure_and_replace<T, F, E>(&self, key: &u64, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let Some(shard) = self.shards.get(*key as usize % SHARDS) else {
            // There is a shard for each remainder.
            return f(None).map(|(result, _)| result);
        };
        let mut shard = unpoisoned(shard);
        let mut key = *key;
        if shard.len() >= self.clients_per_shard && !shard.contains_key(&key) {
            self.full.store(true, Ordering::Relaxed);
            key = SHARED;
        }
        let (result, state) = f(shard.get(&key).copied())?;
        shard.insert(key, state);
        Ok(result)
    }
}

impl ShrinkableKeyedStateStore<u64> for Buckets {
    fn retain_recent(&self, drop_below: Nanos) {
        for mut shard in self.shards() {
            shard.retain(|_, state| *state > drop_below);
        }
    }

    fn len(&self) -> usize {
        self.shards().map(|shard| shard.len()).sum()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    fn rate(
        per_second: f64,
        burst: u32,
        clients: usize,
    ) -> (Rate<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        let burst = NonZeroU32::new(burst).unwrap();
        let settings = RateSettings { per_second, burst, clients };
        (Rate::with_clock(&settings, clock.clone()).unwrap(), clock)
    }

    fn wait(result: Result<(), ServeError>) -> Option<Duration> {
        match result {
            Ok(()) => None,
            Err(ServeError::RateLimited { retry_after }) => Some(retry_after),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn a_client_may_burst_and_then_waits_as_long_as_it_is_told() {
        let (rate, clock) = rate(10.0, 3, 100);
        for _ in 0..3 {
            assert_eq!(wait(rate.take(&"alice")), None);
        }
        assert_eq!(wait(rate.take(&"alice")), Some(Duration::from_millis(100)));
        assert_eq!(wait(rate.take(&"bob")), None);
        clock.advance(Duration::from_millis(60));
        assert_eq!(wait(rate.take(&"alice")), Some(Duration::from_millis(40)));
        clock.advance(Duration::from_millis(40));
        assert_eq!(wait(rate.take(&"alice")), None);
        assert!(wait(rate.take(&"alice")).is_some());
    }

    #[test]
    fn clients_beyond_the_limit_share_buckets_and_known_ones_keep_theirs() {
        let (rate, _) = rate(1.0, 2, 64);
        assert_eq!(wait(rate.take(&"known")), None);
        let answered = (0..5_000).filter(|client| rate.take(client).is_ok()).count();
        // A token for each client that is told apart, and the bursts of the shared buckets.
        assert!((64..=64 + 2 * SHARDS).contains(&answered), "{answered}");
        assert!(rate.buckets.len() <= 64 + SHARDS, "{}", rate.buckets.len());
        assert_eq!(wait(rate.take(&"known")), None);
        assert!(wait(rate.take(&"known")).is_some());
    }

    #[test]
    fn clients_that_are_gone_make_room() {
        let (rate, clock) = rate(1.0, 1, 64);
        for client in 0..1_000 {
            let _ = rate.take(&client);
        }
        clock.advance(Duration::from_secs(60));
        let answered = (1_000..1_020).filter(|client| rate.take(client).is_ok()).count();
        assert_eq!(answered, 20);
        assert!(rate.buckets.len() <= 21, "{}", rate.buckets.len());
    }

    #[test]
    fn a_rate_that_lets_nobody_in_is_refused() {
        for per_second in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-300, 1e-9, 1e300] {
            let burst = NonZeroU32::MIN;
            let settings = RateSettings { per_second, burst, clients: 1 };
            assert!(Rate::new(&settings).is_err(), "{per_second}");
        }
    }
}
