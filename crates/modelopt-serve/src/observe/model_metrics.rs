//! What one version of a model does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::request_metrics::{
    Buckets, Histograms, ModelLabels, Protocol, RequestFamilies, RequestMetrics,
};
use super::triton;
use crate::Timing;
use crate::cache::CacheOutcome;

/// Those of whole requests with finer ones below: small models answer in microseconds.
const SECONDS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75,
    1.0, 2.5, 5.0, 7.5, 10.0,
];
const ROWS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// The series of all models.
#[derive(Clone)]
pub(super) struct ModelFamilies {
    pub(super) requests: RequestFamilies,
    queue_seconds: Histograms,
    compute_seconds: Histograms,
    batch_rows: Histograms,
    queue_length: Family<ModelLabels, Gauge>,
    cache_hits: Family<ModelLabels, Counter>,
    cache_misses: Family<ModelLabels, Counter>,
}

impl ModelFamilies {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let histograms = |buckets| Histograms::new_with_constructor(Buckets(buckets));
        let families = ModelFamilies {
            requests: RequestFamilies::registered(registry),
            queue_seconds: histograms(SECONDS),
            compute_seconds: histograms(SECONDS),
            batch_rows: histograms(ROWS),
            queue_length: Family::default(),
            cache_hits: Family::default(),
            cache_misses: Family::default(),
        };
        let all = families.clone();
        let help = "Time that a request waited for a session";
        registry.register("modelopt_queue_duration_seconds", help, all.queue_seconds);
        let help = "Time that a request was in the runtime";
        registry.register("modelopt_compute_duration_seconds", help, all.compute_seconds);
        let help = "Rows that were computed at once";
        registry.register("modelopt_batch_rows", help, all.batch_rows);
        registry.register("modelopt_queue_length", "Requests that wait", all.queue_length);
        let help = "Requests that were answered without computing";
        registry.register("modelopt_cache_hits", help, all.cache_hits);
        let help = "Requests whose answer was not kept";
        registry.register("modelopt_cache_misses", help, all.cache_misses);
        families
    }

    pub(super) fn remove(&self, labels: &ModelLabels) {
        self.requests.remove(labels);
        for histogram in [&self.queue_seconds, &self.compute_seconds, &self.batch_rows] {
            histogram.remove(labels);
        }
        self.queue_length.remove(labels);
        self.cache_hits.remove(labels);
        self.cache_misses.remove(labels);
    }
}

/// The metrics of one version of a model, by handles that are made once.
pub struct ModelMetrics {
    requests: RequestMetrics,
    queue_seconds: Histogram,
    compute_seconds: Histogram,
    batch_rows: Histogram,
    queue_length: Gauge,
    cache_hits: Counter,
    cache_misses: Counter,
    totals: Totals,
}

/// Sums of histograms, which do not tell them.
#[derive(Default)]
struct Totals {
    queue_ns: AtomicU64,
    compute_ns: AtomicU64,
    rows: AtomicU64,
    executions: AtomicU64,
}

impl ModelMetrics {
    pub(super) fn new(labels: ModelLabels, families: &ModelFamilies) -> Self {
        ModelMetrics {
            queue_seconds: families.queue_seconds.get_or_create_owned(&labels),
            compute_seconds: families.compute_seconds.get_or_create_owned(&labels),
            batch_rows: families.batch_rows.get_or_create_owned(&labels),
            queue_length: families.queue_length.get_or_create_owned(&labels),
            cache_hits: families.cache_hits.get_or_create_owned(&labels),
            cache_misses: families.cache_misses.get_or_create_owned(&labels),
            totals: Totals::default(),
            requests: RequestMetrics::new(labels, &families.requests),
        }
    }

    /// Counts a request that was answered with `code` after it `took` so long.
    pub fn answered(&self, protocol: Protocol, code: u16, took: Duration) {
        self.requests.answered(protocol, code, took);
    }

    /// Counts where the time of a request went that a session answered.
    pub fn computed(&self, timing: &Timing) {
        self.queue_seconds.observe(timing.queue.as_secs_f64());
        self.compute_seconds.observe(timing.compute.as_secs_f64());
        self.totals.queue_ns.fetch_add(timing.queue.as_nanos() as u64, Ordering::Relaxed);
        self.totals.compute_ns.fetch_add(timing.compute.as_nanos() as u64, Ordering::Relaxed);
    }

    /// Counts a run of the model over so many rows, once for all requests in it.
    pub fn executed(&self, rows: usize) {
        self.batch_rows.observe(rows as f64);
        self.totals.rows.fetch_add(rows as u64, Ordering::Relaxed);
        self.totals.executions.fetch_add(1, Ordering::Relaxed);
    }

    /// Says how many requests wait.
    pub fn set_queue_length(&self, requests: usize) {
        self.queue_length.set(requests as i64);
    }

    /// Counts where an answer came from.
    pub fn cached(&self, outcome: CacheOutcome) {
        match outcome {
            CacheOutcome::Hit | CacheOutcome::Shared => self.cache_hits.inc(),
            CacheOutcome::Miss => self.cache_misses.inc(),
            CacheOutcome::Off => 0,
        };
    }

    pub(super) fn for_triton(&self) -> triton::Model {
        let number = |sum: &AtomicU64| sum.load(Ordering::Relaxed);
        let duration = |sum: &AtomicU64| Duration::from_nanos(number(sum));
        triton::Model {
            name: self.requests.labels().model.clone(),
            version: self.requests.labels().version.clone(),
            codes: self.requests.by_code(),
            request: self.requests.total(),
            queue: duration(&self.totals.queue_ns),
            compute: duration(&self.totals.compute_ns),
            rows: number(&self.totals.rows),
            executions: number(&self.totals.executions),
            pending: self.queue_length.get(),
            cache_hits: self.cache_hits.get(),
            cache_misses: self.cache_misses.get(),
        }
    }
}
