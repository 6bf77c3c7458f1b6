//! Metrics as Prometheus reads them.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::encoding::{EncodeLabelSet, prometheus_text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::model_metrics::{ModelFamilies, ModelMetrics};
use super::process::Process;
use super::request_metrics::{ModelLabels, RequestMetrics};
use super::triton;
use crate::ServeError;

/// The content type of [`Metrics::text`].
pub const METRICS_CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// What is known about a model beside its name and version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFacts {
    /// BLAKE3 of the model file.
    pub blake3: String,
    /// What it computes in, such as `int8`.
    pub precision: String,
}

/// Figures that are counted elsewhere, at the time of a scrape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outside {
    /// Failures of what keeps answers.
    pub cache_errors: u64,
    /// Lines of the request log that were dropped.
    pub log_lines_dropped: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InfoLabels {
    model: String,
    version: String,
    blake3: String,
    precision: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

/// All metrics of the server.
pub struct Metrics {
    registry: Registry,
    families: ModelFamilies,
    info: Family<InfoLabels, Gauge>,
    rejected: Family<ReasonLabels, Counter>,
    cache_errors: Counter,
    log_lines_dropped: Counter,
    models: Mutex<BTreeMap<ModelLabels, Loaded>>,
    unknown: RequestMetrics,
}

struct Loaded {
    metrics: Arc<ModelMetrics>,
    info: InfoLabels,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let families = ModelFamilies::registered(&mut registry);
        let info = Family::default();
        registry.register("modelopt_model_info", "Models that are loaded", info.clone());
        let rejected = Family::default();
        let help = "Requests that were turned away before a model saw them";
        registry.register("modelopt_rejected", help, rejected.clone());
        let (cache_errors, log_lines_dropped) = (Counter::default(), Counter::default());
        let help = "Failures of what keeps answers";
        registry.register("modelopt_cache_errors", help, cache_errors.clone());
        let help = "Lines of the request log that were dropped";
        registry.register("modelopt_log_lines_dropped", help, log_lines_dropped.clone());
        registry.register_collector(Box::new(Process));
        let unknown = RequestMetrics::new(ModelLabels::new("", ""), &families.requests);
        Metrics {
            registry,
            families,
            info,
            rejected,
            cache_errors,
            log_lines_dropped,
            models: Mutex::default(),
            unknown,
        }
    }
}

impl Metrics {
    /// The metrics of a model that is loaded; the same ones when it is loaded again.
    pub fn model(&self, model: &str, version: &str, facts: &ModelFacts) -> Arc<ModelMetrics> {
        let labels = ModelLabels::new(model, version);
        let info = InfoLabels {
            model: model.to_owned(),
            version: version.to_owned(),
            blake3: facts.blake3.clone(),
            precision: facts.precision.clone(),
        };
        let mut models = self.models();
        self.info.get_or_create(&info).set(1);
        if let Some(loaded) = models.get_mut(&labels) {
            if loaded.info != info {
                self.info.remove(&loaded.info);
                loaded.info = info;
            }
            return Arc::clone(&loaded.metrics);
        }
        let metrics = Arc::new(ModelMetrics::new(labels.clone(), &self.families));
        models.insert(labels, Loaded { metrics: Arc::clone(&metrics), info });
        metrics
    }

    /// Where requests count that ask for no model that there is. Their names are no labels: a client could
    /// make up any number of them.
    pub fn unknown(&self) -> &RequestMetrics {
        &self.unknown
    }

    /// Ends the series of a model that was unloaded.
    pub fn forget(&self, model: &str, version: &str) {
        let labels = ModelLabels::new(model, version);
        if let Some(loaded) = self.models().remove(&labels) {
            self.info.remove(&loaded.info);
            self.families.remove(&labels);
        }
    }

    /// Counts a request that was turned away, if `error` is of that kind.
    pub fn rejected(&self, error: &ServeError) {
        if let Some(reason) = reason(error) {
            self.rejected.get_or_create(&ReasonLabels { reason }).inc();
        }
    }

    /// All metrics in the text format of Prometheus, of [`METRICS_CONTENT_TYPE`].
    pub fn text(&self, outside: &Outside) -> String {
        // Counted elsewhere, and only ever upwards.
        self.cache_errors.inner().store(outside.cache_errors, Ordering::Relaxed);
        self.log_lines_dropped.inner().store(outside.log_lines_dropped, Ordering::Relaxed);
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = prometheus_text::encode(&mut text, &self.registry);
        text
    }

    /// What Triton would call by its own names, for dashboards that were made for it.
    pub fn triton_text(&self) -> String {
        let models = self.models();
        triton::text(&models.values().map(|model| model.metrics.for_triton()).collect::<Vec<_>>())
    }

    fn models(&self) -> MutexGuard<'_, BTreeMap<ModelLabels, Loaded>> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a request was turned away; none where it was looked at.
fn reason(error: &ServeError) -> Option<&'static str> {
    match error {
        ServeError::Unauthorized(_) => Some("unauthorized"),
        ServeError::Forbidden(_) => Some("forbidden"),
        ServeError::TooSlow(_) => Some("too_slow"),
        ServeError::TooLarge { .. } | ServeError::TooMany { .. } => Some("too_large"),
        ServeError::RateLimited { .. } => Some("rate_limited"),
        ServeError::QueueFull { .. } => Some("queue_full"),
        ServeError::NotReady(_) => Some("not_ready"),
        ServeError::DeadlineExceeded(_) => Some("deadline"),
        ServeError::Invalid(_)
        | ServeError::NotFound(_)
        | ServeError::MethodNotAllowed { .. }
        | ServeError::UnsupportedMedia(_)
        | ServeError::Runtime(_)
        | ServeError::Unsupported(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Output, Stdio};
    use std::time::Duration;

    use super::super::request_metrics::Protocol;
    use super::*;
    use crate::Timing;
    use crate::cache::CacheOutcome;

    fn facts(blake3: &str) -> ModelFacts {
        ModelFacts { blake3: blake3.to_owned(), precision: "int8".to_owned() }
    }

    fn busy() -> Metrics {
        let metrics = Metrics::default();
        let digits = metrics.model("digits", "1", &facts("abc"));
        let took = Duration::from_millis(20);
        digits.answered(Protocol::OpenInference, 200, took);
        digits.answered(Protocol::OpenInference, 200, took);
        digits.answered(Protocol::Grpc, 503, took);
        digits.answered(Protocol::Predict, 418, took);
        let (queue, compute) = (Duration::from_micros(300), Duration::from_millis(3));
        digits.computed(&Timing { queue, compute, batch_rows: 2 });
        digits.executed(2);
        digits.set_queue_length(5);
        for outcome in
            [CacheOutcome::Hit, CacheOutcome::Shared, CacheOutcome::Miss, CacheOutcome::Off]
        {
            digits.cached(outcome);
        }
        metrics.unknown().answered(Protocol::OpenInference, 404, took);
        let full = ServeError::QueueFull { model: "digits".to_owned(), waiting: 5 };
        metrics.rejected(&full);
        metrics.rejected(&ServeError::Invalid("no".to_owned()));
        metrics
    }

    fn promtool(text: &str) -> Output {
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool is installed");
        promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        promtool.wait_with_output().unwrap()
    }

    #[track_caller]
    fn has(text: &str, line: &str) {
        assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
    }

    #[test]
    fn what_happened_is_counted_under_the_names_of_the_table() {
        let text = busy().text(&Outside { cache_errors: 7, log_lines_dropped: 1 });
        let model = r#"model="digits",version="1""#;
        has(&text, &format!("modelopt_requests_total{{{model},protocol=\"v2\",code=\"200\"}} 2"));
        has(&text, &format!("modelopt_requests_total{{{model},protocol=\"grpc\",code=\"503\"}} 1"));
        let other =
            format!("modelopt_requests_total{{{model},protocol=\"predict\",code=\"other\"}} 1");
        has(&text, &other);
        let nobody = r#"model="",version="",protocol="v2",code="404""#;
        has(&text, &format!("modelopt_requests_total{{{nobody}}} 1"));
        let bucket =
            |le: &str| format!("modelopt_request_duration_seconds_bucket{{{model},le=\"{le}\"}}");
        has(&text, &format!("{} 0", bucket("0.01")));
        has(&text, &format!("{} 4", bucket("0.025")));
        has(&text, &format!("{} 4", bucket("+Inf")));
        has(&text, &format!("modelopt_queue_duration_seconds_sum{{{model}}} 0.0003"));
        has(&text, &format!("modelopt_compute_duration_seconds_count{{{model}}} 1"));
        has(&text, &format!("modelopt_batch_rows_sum{{{model}}} 2.0"));
        has(&text, &format!("modelopt_queue_length{{{model}}} 5"));
        has(&text, &format!("modelopt_cache_hits_total{{{model}}} 2"));
        has(&text, &format!("modelopt_cache_misses_total{{{model}}} 1"));
        has(&text, &format!("modelopt_model_info{{{model},blake3=\"abc\",precision=\"int8\"}} 1"));
        has(&text, "modelopt_rejected_total{reason=\"queue_full\"} 1");
        assert!(!text.contains("reason=\"invalid\""));
        has(&text, "modelopt_cache_errors_total 7");
        has(&text, "modelopt_log_lines_dropped_total 1");
        for name in ["process_resident_memory_bytes", "process_start_time_seconds"] {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
            assert!(line.unwrap().parse::<f64>().unwrap() > 1e6, "{name}");
        }
    }

    #[test]
    #[ignore = "needs promtool: cargo xtask test"]
    fn promtool_finds_nothing_to_complain_about() {
        let metrics = busy();
        metrics.model("a \"quoted\\\nname\"", "2", &facts("")).executed(3);
        for text in
            [metrics.text(&Outside::default()), Metrics::default().text(&Outside::default())]
        {
            let Output { status, stdout, stderr } = promtool(&text);
            let told = [stdout, stderr].map(|out| String::from_utf8(out).unwrap()).concat();
            assert!(status.success() && told.is_empty(), "{told}\n{text}");
        }
        // It does complain where there is a reason.
        assert!(!promtool("# TYPE a counter\na 1\n").status.success());
    }

    #[test]
    #[ignore = "needs promtool: cargo xtask test"]
    fn triton_has_its_own_names_for_the_same_figures() {
        let text = busy().triton_text();
        let model = r#"model="digits",version="1""#;
        has(&text, &format!("nv_inference_request_success{{{model}}} 2"));
        has(&text, &format!("nv_inference_request_failure{{{model},reason=\"REJECTED\"}} 1"));
        has(&text, &format!("nv_inference_request_failure{{{model},reason=\"OTHER\"}} 0"));
        has(&text, &format!("nv_inference_count{{{model}}} 2"));
        has(&text, &format!("nv_inference_exec_count{{{model}}} 1"));
        has(&text, &format!("nv_inference_request_duration_us{{{model}}} 80000"));
        has(&text, &format!("nv_inference_queue_duration_us{{{model}}} 300"));
        has(&text, &format!("nv_inference_compute_infer_duration_us{{{model}}} 3000"));
        has(&text, &format!("nv_inference_pending_request_count{{{model}}} 5"));
        has(&text, &format!("nv_cache_num_hits_per_model{{{model}}} 2"));
        has(&text, &format!("nv_cache_num_misses_per_model{{{model}}} 1"));
        // Prometheus reads it, although these names break its rules: that is status 3, not 1.
        assert_eq!(promtool(&text).status.code(), Some(3));
    }

    #[test]
    fn a_model_keeps_its_series_when_it_is_loaded_again_and_loses_them_when_it_is_unloaded() {
        let metrics = busy();
        metrics.model("digits", "1", &facts("def")).executed(1);
        let text = metrics.text(&Outside::default());
        has(&text, "modelopt_batch_rows_count{model=\"digits\",version=\"1\"} 2");
        assert!(text.contains("blake3=\"def\"") && !text.contains("blake3=\"abc\""));
        metrics.forget("digits", "1");
        let text = metrics.text(&Outside::default());
        assert!(!text.contains("digits") && !metrics.triton_text().contains("digits"), "{text}");
        assert!(text.contains("code=\"404\""));
    }
}
