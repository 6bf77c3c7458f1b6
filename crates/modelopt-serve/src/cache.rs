//! Answers that are kept, so that equal requests are computed once.
//!
//! An answer is known by the [`CacheKey`] of model, inputs and wanted outputs. It is kept in this process or
//! in a Redis that many replicas share. Requests that are equal and under way at the same time share one
//! computation, wherever answers are kept. Whatever is wrong with what keeps answers costs a computation, and
//! never an error.

mod embedded;
mod encoding;
mod flight;
mod key;
mod redis;
#[cfg(test)]
mod testing;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use self::key::{CacheKey, InputDigest};
pub use self::redis::RedisError;

use self::embedded::Embedded;
use self::flight::{Flights, Role};
use self::redis::Redis;
use crate::{Answer, ServeError};

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheOutcome {
    /// It was kept.
    Hit,
    /// It was computed for this request.
    Miss,
    /// It was computed for an equal request that was under way.
    Shared,
    /// Nothing is kept here.
    Off,
}

impl CacheOutcome {
    /// As logs and headers have it.
    pub fn name(self) -> &'static str {
        match self {
            CacheOutcome::Hit => "hit",
            CacheOutcome::Miss => "miss",
            CacheOutcome::Shared => "shared",
            CacheOutcome::Off => "off",
        }
    }
}

/// How much is kept and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheLimits {
    /// Bytes that answers may take in this process. A Redis has its own limit.
    pub bytes: u64,
    /// The largest answer that is kept, in bytes. In a Redis that is 1 MiB at most: it is asked over a
    /// network, for a time that requests do not notice.
    pub largest: usize,
    /// How long an answer is kept.
    pub time_to_live: Duration,
}

impl Default for CacheLimits {
    fn default() -> Self {
        CacheLimits { bytes: 256 << 20, largest: 16 << 20, time_to_live: Duration::from_secs(300) }
    }
}

/// Answers that are kept.
pub struct Cache {
    store: Store,
    flights: Flights,
    failures: Arc<AtomicU64>,
}

enum Store {
    Off,
    Embedded(Embedded),
    Redis(Redis),
}

impl Cache {
    /// Keeps nothing.
    pub fn off() -> Self {
        Cache::of(Store::Off, Arc::default())
    }

    /// Keeps answers in this process.
    pub fn embedded(limits: CacheLimits) -> Self {
        Cache::of(Store::Embedded(Embedded::new(limits)), Arc::default())
    }

    /// Keeps answers in the Redis at `url` (`redis://HOST:PORT/DATABASE`). Whether there is one is another
    /// matter: while there is none, every request is a miss.
    ///
    /// # Errors
    /// If that is no such address.
    pub async fn redis(url: &str, limits: CacheLimits) -> Result<Self, RedisError> {
        let failures = Arc::<AtomicU64>::default();
        let redis = Redis::new(url, limits, Arc::clone(&failures)).await?;
        Ok(Cache::of(Store::Redis(redis), failures))
    }

    fn of(store: Store, failures: Arc<AtomicU64>) -> Self {
        Cache { store, flights: Flights::default(), failures }
    }

    /// Whether anything is kept, so that a key is worth making.
    pub fn is_on(&self) -> bool {
        !matches!(self.store, Store::Off)
    }

    /// How often what keeps answers failed.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// The answer to what `key` stands for: the one that is kept, or the one that an equal request is
    /// computing, or what `compute` says.
    ///
    /// Errors are not kept. One is the answer to all requests that wait for the same computation, save where
    /// it says nothing about them: where the client that it is computed for went away or had a shorter
    /// deadline, one of those that wait computes in its place. A request that waits has its own deadline: who
    /// has one ends the call by it. An answer that is kept took no time and says so.
    pub async fn answer(
        &self,
        key: CacheKey,
        compute: impl Future<Output = Result<Answer, ServeError>>,
    ) -> (Result<Arc<Answer>, ServeError>, CacheOutcome) {
        if !self.is_on() {
            return (compute.await.map(Arc::new), CacheOutcome::Off);
        }
        loop {
            // Without a flight: what is kept in this process is there at once.
            if let Store::Embedded(embedded) = &self.store
                && let Some(answer) = embedded.get(&key).await
            {
                return (Ok(answer), CacheOutcome::Hit);
            }
            match self.flights.join(key) {
                Role::Waits(landing) => {
                    if let Some(result) = landing.result().await
                        && !is_of_one_request(&result)
                    {
                        return (result, CacheOutcome::Shared);
                    }
                }
                Role::Flies(flight) => {
                    if let Some(answer) = self.kept(&key).await {
                        flight.land(Ok(Arc::clone(&answer)));
                        return (Ok(answer), CacheOutcome::Hit);
                    }
                    let result = compute.await.map(Arc::new);
                    if let Ok(answer) = &result {
                        self.keep(key, answer).await;
                    }
                    flight.land(result.clone());
                    return (result, CacheOutcome::Miss);
                }
            }
        }
    }

    async fn kept(&self, key: &CacheKey) -> Option<Arc<Answer>> {
        match &self.store {
            Store::Off => None,
            // It may have been put there since it was looked for.
            Store::Embedded(embedded) => embedded.get(key).await,
            Store::Redis(redis) => redis.get(key).await,
        }
    }

    async fn keep(&self, key: CacheKey, answer: &Answer) {
        match &self.store {
            Store::Off => {}
            Store::Embedded(embedded) => embedded.put(key, answer).await,
            Store::Redis(redis) => redis.put(key, answer),
        }
    }
}

/// Whether a result says nothing about an equal request.
fn is_of_one_request(result: &Result<Arc<Answer>, ServeError>) -> bool {
    matches!(result, Err(ServeError::DeadlineExceeded(_)))
}

#[cfg(test)]
mod tests {
    use super::testing::{answer, key};
    use super::*;

    async fn compute(computed: &AtomicU64, took: Duration) -> Result<Answer, ServeError> {
        computed.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(took).await;
        Ok(answer(&[1.0]))
    }

    fn embedded() -> Arc<Cache> {
        Arc::new(Cache::embedded(CacheLimits::default()))
    }

    const SHORT: Duration = Duration::from_millis(30);

    #[tokio::test]
    async fn an_answer_is_computed_once_and_kept_by_its_key() {
        let (cache, computed) = (embedded(), AtomicU64::new(0));
        let (first, outcome) = cache.answer(key(1), compute(&computed, SHORT)).await;
        assert_eq!((outcome, computed.load(Ordering::Relaxed)), (CacheOutcome::Miss, 1));
        let (second, outcome) = cache.answer(key(1), compute(&computed, SHORT)).await;
        assert_eq!((outcome, computed.load(Ordering::Relaxed)), (CacheOutcome::Hit, 1));
        let second = second.unwrap();
        assert_eq!(second.outputs, first.unwrap().outputs);
        assert_eq!(second.timing, crate::Timing::default());
        let (_, outcome) = cache.answer(key(2), compute(&computed, SHORT)).await;
        assert_eq!((outcome, computed.load(Ordering::Relaxed)), (CacheOutcome::Miss, 2));
    }

    #[tokio::test]
    async fn a_cache_that_is_off_computes_each_time() {
        let (cache, computed) = (Cache::off(), AtomicU64::new(0));
        for _ in 0..2 {
            let (result, outcome) = cache.answer(key(1), compute(&computed, SHORT)).await;
            assert_eq!((result.is_ok(), outcome), (true, CacheOutcome::Off));
        }
        assert_eq!(computed.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn equal_requests_at_once_compute_once() {
        let (cache, computed) = (embedded(), Arc::new(AtomicU64::new(0)));
        let requests: Vec<_> = (0..32)
            .map(|_| {
                let (cache, computed) = (Arc::clone(&cache), Arc::clone(&computed));
                tokio::spawn(async move { cache.answer(key(1), compute(&computed, SHORT)).await })
            })
            .collect();
        let mut outcomes = Vec::new();
        for request in requests {
            let (result, outcome) = request.await.unwrap();
            assert!(result.is_ok());
            outcomes.push(outcome);
        }
        assert_eq!(computed.load(Ordering::Relaxed), 1);
        assert_eq!(outcomes.iter().filter(|&&o| o == CacheOutcome::Miss).count(), 1);
        assert_eq!(outcomes.iter().filter(|&&o| o == CacheOutcome::Shared).count(), 31);
    }

    #[tokio::test]
    async fn an_error_is_told_to_all_that_wait_and_not_kept() {
        let (cache, computed) = (embedded(), AtomicU64::new(0));
        let broken = || async {
            computed.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(SHORT).await;
            Err(ServeError::Runtime("broken".to_owned()))
        };
        let (a, b) = tokio::join!(cache.answer(key(1), broken()), cache.answer(key(1), broken()));
        assert_eq!(a.0.unwrap_err(), ServeError::Runtime("broken".to_owned()));
        assert_eq!(b.0.unwrap_err(), ServeError::Runtime("broken".to_owned()));
        assert_eq!((a.1, b.1), (CacheOutcome::Miss, CacheOutcome::Shared));
        assert_eq!(computed.load(Ordering::Relaxed), 1);
        let (result, outcome) = cache.answer(key(1), compute(&computed, SHORT)).await;
        assert_eq!((result.is_ok(), outcome), (true, CacheOutcome::Miss));
    }

    #[tokio::test]
    async fn the_deadline_of_one_request_is_not_that_of_another() {
        let (cache, computed) = (embedded(), AtomicU64::new(0));
        let late = async {
            tokio::time::sleep(SHORT).await;
            Err(ServeError::DeadlineExceeded(SHORT))
        };
        let patient = cache.answer(key(1), compute(&computed, SHORT));
        let (late, patient) = tokio::join!(cache.answer(key(1), late), patient);
        assert_eq!(late.0.unwrap_err(), ServeError::DeadlineExceeded(SHORT));
        assert_eq!((patient.0.is_ok(), patient.1), (true, CacheOutcome::Miss));
    }

    #[tokio::test]
    async fn where_a_client_goes_away_one_that_waits_computes() {
        let (cache, computed) = (embedded(), Arc::new(AtomicU64::new(0)));
        let mut requests = Vec::new();
        for _ in 0..4 {
            let (cache, computed) = (Arc::clone(&cache), Arc::clone(&computed));
            requests.push(tokio::spawn(async move {
                cache.answer(key(1), compute(&computed, SHORT * 10)).await
            }));
            tokio::time::sleep(SHORT / 3).await;
        }
        requests.remove(0).abort();
        for request in requests {
            assert!(request.await.unwrap().0.is_ok());
        }
        assert_eq!(computed.load(Ordering::Relaxed), 2);
    }
}
