//! How many requests were answered how, and how long they took.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Those of OpenTelemetry's `http.server.request.duration`.
const SECONDS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// Codes that are told apart. Each status of an error of this crate is one of them, 499 a client that went
/// away.
pub(super) const CODES: [(u16, &str); 15] = [
    (200, "200"),
    (400, "400"),
    (401, "401"),
    (403, "403"),
    (404, "404"),
    (405, "405"),
    (408, "408"),
    (413, "413"),
    (415, "415"),
    (429, "429"),
    (499, "499"),
    (500, "500"),
    (501, "501"),
    (503, "503"),
    (504, "504"),
];
const OTHER: &str = "other";

/// By which protocol a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// The Open Inference Protocol over HTTP.
    OpenInference,
    /// The same over gRPC.
    Grpc,
    /// Plain JSON.
    Predict,
    /// The routes of Amazon `SageMaker`.
    SageMaker,
    /// The routes of Google Vertex AI.
    Vertex,
}

const PROTOCOLS: [&str; 5] = ["v2", "grpc", "predict", "sagemaker", "vertex"];

impl Protocol {
    /// The value of the label.
    pub fn name(self) -> &'static str {
        PROTOCOLS.get(self as usize).copied().unwrap_or(OTHER)
    }
}

/// Which version of which model.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, EncodeLabelSet)]
pub(super) struct ModelLabels {
    pub(super) model: String,
    pub(super) version: String,
}

impl ModelLabels {
    pub(super) fn new(model: &str, version: &str) -> Self {
        ModelLabels { model: model.to_owned(), version: version.to_owned() }
    }

    fn request(&self, protocol: &'static str, code: &'static str) -> RequestLabels {
        let (model, version) = (self.model.clone(), self.version.clone());
        RequestLabels { model, version, protocol, code }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    model: String,
    version: String,
    protocol: &'static str,
    code: &'static str,
}

/// Upper bounds of the buckets of a histogram.
#[derive(Clone)]
pub(super) struct Buckets(pub(super) &'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

pub(super) type Histograms = Family<ModelLabels, Histogram, Buckets>;

/// The series of all models.
#[derive(Clone)]
pub(super) struct RequestFamilies {
    requests: Family<RequestLabels, Counter>,
    seconds: Histograms,
}

impl RequestFamilies {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let families = RequestFamilies {
            requests: Family::default(),
            seconds: Histograms::new_with_constructor(Buckets(SECONDS)),
        };
        let RequestFamilies { requests, seconds } = families.clone();
        registry.register("modelopt_requests", "Requests that were answered", requests);
        let help = "Time from the first byte of a request to the last of its answer";
        registry.register("modelopt_request_duration_seconds", help, seconds);
        families
    }

    pub(super) fn remove(&self, labels: &ModelLabels) {
        for protocol in PROTOCOLS {
            for code in CODES.iter().map(|(_, code)| *code).chain([OTHER]) {
                self.requests.remove(&labels.request(protocol, code));
            }
        }
        self.seconds.remove(labels);
    }
}

/// The requests for one version of a model: handles, so that counting a request writes no text and looks
/// nothing up.
pub struct RequestMetrics {
    labels: ModelLabels,
    families: RequestFamilies,
    /// By protocol and code, made when first counted; the last one of each protocol is for other codes.
    counters: [[OnceLock<Counter>; CODES.len() + 1]; PROTOCOLS.len()],
    seconds: Histogram,
    /// The sum of the histogram, which does not tell it.
    nanoseconds: AtomicU64,
}

impl RequestMetrics {
    pub(super) fn new(labels: ModelLabels, families: &RequestFamilies) -> Self {
        RequestMetrics {
            counters: Default::default(),
            seconds: families.seconds.get_or_create_owned(&labels),
            nanoseconds: AtomicU64::new(0),
            families: families.clone(),
            labels,
        }
    }

    /// Counts a request that was answered with `code` after it `took` so long.
    pub fn answered(&self, protocol: Protocol, code: u16, took: Duration) {
        self.seconds.observe(took.as_secs_f64());
        self.nanoseconds.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
        let place = CODES.iter().position(|(known, _)| *known == code).unwrap_or(CODES.len());
        let counter = self.counters.get(protocol as usize).and_then(|codes| codes.get(place));
        let Some(counter) = counter else { return };
        let made = || {
            let code = CODES.get(place).map_or(OTHER, |(_, code)| code);
            self.families.requests.get_or_create_owned(&self.labels.request(protocol.name(), code))
        };
        counter.get_or_init(made).inc();
    }

    pub(super) fn labels(&self) -> &ModelLabels {
        &self.labels
    }

    /// How many requests were answered with each code.
    pub(super) fn by_code(&self) -> Vec<(u16, u64)> {
        let sum = |place: usize| {
            let counters = self.counters.iter().filter_map(|codes| codes.get(place)?.get());
            counters.map(Counter::get).sum()
        };
        CODES.iter().enumerate().map(|(place, (code, _))| (*code, sum(place))).collect()
    }

    /// How long all requests took together.
    pub(super) fn total(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ServeError;

    #[test]
    fn the_codes_of_errors_are_told_apart() {
        for (code, text) in CODES {
            assert_eq!(code.to_string(), text);
        }
        let errors = [
            ServeError::RateLimited { retry_after: Duration::ZERO },
            ServeError::TooLarge { what: "the body", bytes: 2, limit: 1 },
            ServeError::DeadlineExceeded(Duration::ZERO),
        ];
        for error in errors {
            assert!(CODES.iter().any(|(code, _)| *code == error.status()));
        }
    }

    #[test]
    fn requests_are_summed_over_protocols() {
        let families = RequestFamilies::registered(&mut Registry::default());
        let requests = RequestMetrics::new(ModelLabels::new("m", "1"), &families);
        let took = Duration::from_millis(2);
        for (protocol, code) in [
            (Protocol::OpenInference, 200),
            (Protocol::Vertex, 200),
            (Protocol::Grpc, 504),
            (Protocol::Grpc, 777),
        ] {
            requests.answered(protocol, code, took);
        }
        let counted: Vec<_> =
            requests.by_code().into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [(200, 2), (504, 1)]);
        assert_eq!(requests.total(), took * 4);
        assert_eq!(Protocol::SageMaker.name(), "sagemaker");
    }
}
