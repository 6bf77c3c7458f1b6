//! Answers kept in a Redis that many replicas share.
//!
//! A Redis that fails is left alone: the first failure opens the circuit, every request is a miss at once, and
//! a probe in the background closes the circuit when the Redis answers again.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, Cmd, FromRedisValue, RedisResult};
use tokio::sync::Semaphore;

use super::{CacheKey, CacheLimits, encoding};
use crate::Answer;

/// What a request waits for a Redis, at most and once: the next one finds the circuit open.
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(50);
/// Only the start and the probe wait for connections.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(250);
/// The pause before the first probe. It doubles with each that fails.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A larger answer would not come over a network in time.
const LARGEST: usize = 1 << 20;
/// Answers on their way to the Redis. Where there are more, they are not kept.
const MOST_WRITES: usize = 64;
/// Other programs may share the Redis, and other layouts of values.
const PREFIX: &[u8] = b"modelopt:answer:1:";

/// Why there can be no cache at an address.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("the address of the Redis cannot be used: {0}")]
pub struct RedisError(String);

/// Answers in a Redis.
pub(super) struct Redis {
    link: Arc<Link>,
    largest: usize,
    time_to_live: Duration,
}

/// The circuit.
struct Link {
    client: Client,
    /// None while the circuit is open.
    connection: ArcSwapOption<ConnectionManager>,
    failures: Arc<AtomicU64>,
    writes: Arc<Semaphore>,
}

impl Redis {
    /// Answers in the Redis at `url`, if there is one now or later. Counts in `failures`.
    pub(super) async fn new(
        url: &str,
        limits: CacheLimits,
        failures: Arc<AtomicU64>,
    ) -> Result<Self, RedisError> {
        // The reason says what is wrong with an address, and not the address, which may have a password.
        let client = Client::open(url).map_err(|error| RedisError(error.to_string()))?;
        let link = Arc::new(Link {
            client,
            connection: ArcSwapOption::empty(),
            failures,
            writes: Arc::new(Semaphore::new(MOST_WRITES)),
        });
        match link.connect().await {
            Ok(connection) => link.connection.store(Some(Arc::new(connection))),
            Err(reason) => {
                link.count();
                tracing::warn!(reason, "the Redis does not answer; answers are not kept");
                link.probe();
            }
        }
        let largest = limits.largest.min(LARGEST);
        Ok(Redis { link, largest, time_to_live: limits.time_to_live })
    }

    /// The answer that is kept under `key`. What is none of ours is none.
    pub(super) async fn get(&self, key: &CacheKey) -> Option<Arc<Answer>> {
        let mut command = Cmd::new();
        command.arg("GET").arg(name(key));
        let bytes = self.link.ask::<Option<Vec<u8>>>(&command).await??;
        encoding::decode(key, &Bytes::from(bytes)).map(Arc::new)
    }

    /// Keeps `answer`, without waiting until it is kept.
    pub(super) fn put(&self, key: CacheKey, answer: &Answer) {
        if self.link.connection.load().is_none() {
            return;
        }
        let Ok(permit) = Arc::clone(&self.link.writes).try_acquire_owned() else {
            self.link.count();
            return;
        };
        let Some(bytes) = encoding::encode(&key, answer, self.largest) else { return };
        let mut command = Cmd::new();
        let milliseconds = (self.time_to_live.as_millis() as u64).max(1);
        command.arg("SET").arg(name(&key)).arg(bytes).arg("PX").arg(milliseconds);
        let link = Arc::clone(&self.link);
        tokio::spawn(async move {
            link.ask::<()>(&command).await;
            drop(permit);
        });
    }
}

impl Link {
    /// What the Redis says to `command`; `None` where it fails or is left alone.
    async fn ask<T: FromRedisValue>(self: &Arc<Self>, command: &Cmd) -> Option<T> {
        let connection = self.connection.load_full()?;
        let mut own = ConnectionManager::clone(&connection);
        let (reason, broken) = match in_time(RESPONSE_TIMEOUT, command.query_async(&mut own)).await
        {
            Ok(Ok(said)) => return Some(said),
            // An answer such as that of a key with another type: the Redis is there.
            Ok(Err(error)) => (error.to_string(), is_broken(&error)),
            Err(late) => (late, true),
        };
        self.count();
        if broken {
            self.open(&connection, &reason);
        } else {
            tracing::debug!(reason, "the Redis refused a command");
        }
        None
    }

    /// Opens the circuit, unless another request did or it has been closed again since.
    fn open(self: &Arc<Self>, failed: &Arc<ConnectionManager>, reason: &str) {
        let before = self.connection.compare_and_swap(failed, None);
        if before.as_ref().is_some_and(|before| Arc::ptr_eq(before, failed)) {
            tracing::warn!(reason, "the Redis fails; answers are not kept until it is back");
            self.probe();
        }
    }

    /// Tries in the background until the Redis answers, then closes the circuit.
    fn probe(self: &Arc<Self>) {
        // Ends with the cache.
        let link = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut pause = FIRST_PAUSE;
            loop {
                tokio::time::sleep(pause).await;
                let Some(link) = link.upgrade() else { return };
                if let Ok(connection) = link.connect().await {
                    link.connection.store(Some(Arc::new(connection)));
                    tracing::info!("the Redis is back");
                    return;
                }
                link.count();
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        });
    }

    async fn connect(&self) -> Result<ConnectionManager, String> {
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT))
            .set_number_of_retries(0);
        let connect = async {
            let mut connection =
                ConnectionManager::new_with_config(self.client.clone(), config).await?;
            redis::cmd("PING").query_async::<()>(&mut connection).await?;
            RedisResult::Ok(connection)
        };
        in_time(CONNECT_TIMEOUT, connect).await?.map_err(|error| error.to_string())
    }

    fn count(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }
}

fn is_broken(error: &redis::RedisError) -> bool {
    error.is_io_error() || error.is_timeout() || error.is_unrecoverable_error()
}

async fn in_time<T>(limit: Duration, what: impl Future<Output = T>) -> Result<T, String> {
    let late = |_| format!("no answer within {} ms", limit.as_millis());
    tokio::time::timeout(limit, what).await.map_err(late)
}

fn name(key: &CacheKey) -> Vec<u8> {
    [PREFIX, key.bytes()].concat()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::time::Instant;

    use super::super::testing::{RedisServer, answer, key};
    use super::super::{Cache, CacheOutcome};
    use super::*;
    use crate::ServeError;

    /// A request on a busy machine: a Redis that hangs costs one response timeout.
    const BOUND: Duration = Duration::from_millis(150);

    async fn cache(server: &RedisServer) -> Arc<Cache> {
        Arc::new(Cache::redis(&server.url(), CacheLimits::default()).await.unwrap())
    }

    async fn ask(cache: &Cache, seed: u64) -> CacheOutcome {
        let compute = async { Ok::<_, ServeError>(answer(&[seed as f32])) };
        let (result, outcome) = cache.answer(key(seed), compute).await;
        assert_eq!(result.unwrap().outputs, answer(&[seed as f32]).outputs);
        outcome
    }

    /// Asks until it is a hit, and says how many requests that took.
    async fn until_hit(cache: &Cache, seed: u64) -> usize {
        for asked in 1..=200 {
            if ask(cache, seed).await == CacheOutcome::Hit {
                return asked;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("no hit");
    }

    #[tokio::test]
    #[ignore = "needs redis-server: cargo xtask test"]
    async fn an_answer_of_one_replica_is_a_hit_of_another_and_of_a_later_one() {
        let server = RedisServer::start();
        let (one, two) = (cache(&server).await, cache(&server).await);
        assert_eq!(ask(&one, 1).await, CacheOutcome::Miss);
        until_hit(&one, 1).await;
        assert_eq!(ask(&two, 1).await, CacheOutcome::Hit);
        drop((one, two));
        let later = cache(&server).await;
        assert_eq!(ask(&later, 1).await, CacheOutcome::Hit);
        assert_eq!(ask(&later, 2).await, CacheOutcome::Miss);
        assert_eq!(later.failures(), 0);
    }

    #[tokio::test]
    #[ignore = "needs redis-server: cargo xtask test"]
    async fn what_is_none_of_ours_is_a_miss_and_is_replaced() {
        let server = RedisServer::start();
        let cache = cache(&server).await;
        let client = Client::open(server.url()).unwrap();
        let mut other = client.get_multiplexed_async_connection().await.unwrap();
        let foreign = redis::cmd("SET").arg(name(&key(1))).arg(b"\x80\x04pickle").clone();
        foreign.query_async::<()>(&mut other).await.unwrap();
        assert_eq!(ask(&cache, 1).await, CacheOutcome::Miss);
        until_hit(&cache, 1).await;
        // Another type under the key: the command fails, and the Redis is still there for others.
        let list = redis::cmd("RPUSH").arg(name(&key(2))).arg("x").clone();
        list.query_async::<()>(&mut other).await.unwrap();
        assert_eq!(ask(&cache, 2).await, CacheOutcome::Miss);
        assert_eq!(cache.failures(), 1);
        assert_eq!(ask(&cache, 1).await, CacheOutcome::Hit);
        let left = redis::cmd("PTTL").arg(name(&key(1))).clone();
        let left: i64 = left.query_async(&mut other).await.unwrap();
        assert!((1..=300_000).contains(&left), "{left}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    #[ignore = "needs redis-server: cargo xtask test"]
    async fn a_redis_that_is_killed_and_restarted_under_load_fails_nothing_and_slows_nothing() {
        let mut server = RedisServer::start();
        let cache = cache(&server).await;
        let over = Arc::new(AtomicBool::new(false));
        let load: Vec<_> = (0..8)
            .map(|worker| {
                let (cache, over) = (Arc::clone(&cache), Arc::clone(&over));
                tokio::spawn(async move {
                    let (mut asked, mut waited, mut slowest) = (0, 0, Duration::ZERO);
                    while !over.load(Ordering::Relaxed) {
                        let start = Instant::now();
                        ask(&cache, (asked * 7 + worker) % 50).await;
                        let took = start.elapsed();
                        slowest = slowest.max(took);
                        waited += usize::from(took >= RESPONSE_TIMEOUT);
                        asked += 1;
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    (asked, waited, slowest)
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.kill();
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert!(cache.failures() > 0);
        server.restart();
        until_hit(&cache, 1).await;
        server.hang();
        tokio::time::sleep(Duration::from_millis(700)).await;
        server.go_on();
        until_hit(&cache, 1).await;
        over.store(true, Ordering::Relaxed);
        for worker in load {
            let (asked, waited, slowest) = worker.await.unwrap();
            assert!(asked > 100, "{asked}");
            assert!(slowest < BOUND, "{slowest:?}");
            // For the Redis that hangs, and perhaps for a busy machine.
            assert!(waited <= 3, "{waited}");
        }
    }

    #[tokio::test]
    #[ignore = "needs redis-server: cargo xtask test"]
    async fn where_there_is_no_redis_requests_do_not_look_for_it() {
        let mut server = RedisServer::start();
        server.kill();
        let cache = cache(&server).await;
        assert_eq!(cache.failures(), 1);
        let start = Instant::now();
        for seed in 0..1_000 {
            assert_eq!(ask(&cache, seed).await, CacheOutcome::Miss);
        }
        assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
        server.restart();
        until_hit(&cache, 1).await;
    }

    #[tokio::test]
    async fn an_address_that_is_none_is_an_error_that_does_not_repeat_it() {
        for url in [
            "nonsense",
            "rediss://:secret@host/",
            "http://:secret@host/",
            "redis://:secret@host:port/",
            "",
        ] {
            let error = Cache::redis(url, CacheLimits::default()).await.err().unwrap();
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
