//! The same figures under the names that Triton Inference Server gives them.
//!
//! Dashboards and autoscalers were made for these names, which break the rules of Prometheus: so they are on a
//! page of their own. Times are in microseconds. What Triton tells and this server does not measure, such as
//! the time to copy inputs, is left out.

use std::fmt::{Display, Write};
use std::time::Duration;

/// The figures of one version of a model.
pub(super) struct Model {
    pub(super) name: String,
    pub(super) version: String,
    /// Requests by the code of their answer.
    pub(super) codes: Vec<(u16, u64)>,
    pub(super) request: Duration,
    pub(super) queue: Duration,
    pub(super) compute: Duration,
    /// Rows in all executions together.
    pub(super) rows: u64,
    pub(super) executions: u64,
    pub(super) pending: i64,
    pub(super) cache_hits: u64,
    pub(super) cache_misses: u64,
}

const REASONS: [&str; 4] = ["REJECTED", "CANCELED", "BACKEND", "OTHER"];

/// The page for `models`.
pub(super) fn text(models: &[Model]) -> String {
    let mut page = Page { models, text: String::new() };
    let name = "nv_inference_request_success";
    page.counter(name, "Number of successful inference requests", |model| model.count(None));
    page.failures();
    let name = "nv_inference_count";
    page.counter(name, "Number of inferences performed", |model| model.rows);
    let name = "nv_inference_exec_count";
    page.counter(name, "Number of model executions performed", |model| model.executions);
    let name = "nv_inference_request_duration_us";
    page.counter(name, "Cumulative inference request duration in microseconds", |model| {
        model.request.as_micros()
    });
    let name = "nv_inference_queue_duration_us";
    page.counter(name, "Cumulative inference queuing duration in microseconds", |model| {
        model.queue.as_micros()
    });
    let name = "nv_inference_compute_infer_duration_us";
    page.counter(name, "Cumulative compute inference duration in microseconds", |model| {
        model.compute.as_micros()
    });
    let name = "nv_cache_num_hits_per_model";
    page.counter(name, "Number of cache hits per model", |model| model.cache_hits);
    let name = "nv_cache_num_misses_per_model";
    page.counter(name, "Number of cache misses per model", |model| model.cache_misses);
    let name = "nv_inference_pending_request_count";
    page.head(name, "Instantaneous number of pending requests per model", "gauge");
    for model in models {
        page.line(name, model, None, model.pending);
    }
    page.text
}

struct Page<'a> {
    models: &'a [Model],
    text: String,
}

impl Page<'_> {
    // Writing to a string does not fail.
    fn head(&mut self, name: &str, help: &str, kind: &str) {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, model: &Model, reason: Option<&str>, value: impl Display) {
        let (version, model) = (escaped(&model.version), escaped(&model.name));
        let reason = reason.map(|reason| format!(",reason=\"{reason}\"")).unwrap_or_default();
        let _ = writeln!(
            self.text,
            "{name}{{model=\"{model}\",version=\"{version}\"{reason}}} {value}"
        );
    }

    fn counter<T: Display>(&mut self, name: &str, help: &str, value: impl Fn(&Model) -> T) {
        self.head(name, help, "counter");
        for model in self.models {
            self.line(name, model, None, value(model));
        }
    }

    fn failures(&mut self) {
        let name = "nv_inference_request_failure";
        self.head(name, "Number of failed inference requests", "counter");
        for model in self.models {
            for reason in REASONS {
                self.line(name, model, Some(reason), model.count(Some(reason)));
            }
        }
    }
}

impl Model {
    /// Requests that failed for a reason, or that did not.
    fn count(&self, reason: Option<&str>) -> u64 {
        let counts = self.codes.iter().filter(|(code, _)| failure(*code) == reason);
        counts.map(|(_, count)| count).sum()
    }
}

/// What Triton calls the failure that a code stands for.
fn failure(code: u16) -> Option<&'static str> {
    match code {
        200..=299 => None,
        429 | 503 | 504 => Some("REJECTED"),
        499 => Some("CANCELED"),
        500 => Some("BACKEND"),
        _ => Some("OTHER"),
    }
}

fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_apart_and_names_are_escaped() {
        let model = Model {
            name: "a\\b\"c\nd".to_owned(),
            version: "7".to_owned(),
            codes: vec![
                (200, 10),
                (400, 1),
                (404, 2),
                (429, 3),
                (499, 4),
                (500, 5),
                (503, 6),
                (504, 7),
            ],
            request: Duration::ZERO,
            queue: Duration::ZERO,
            compute: Duration::ZERO,
            rows: 0,
            executions: 0,
            pending: 0,
            cache_hits: 0,
            cache_misses: 0,
        };
        let text = text(&[model]);
        let labels = r#"{model="a\\b\"c\nd",version="7""#;
        assert!(text.contains(&format!("nv_inference_request_success{labels}}} 10\n")), "{text}");
        for (reason, count) in [("REJECTED", 16), ("CANCELED", 4), ("BACKEND", 5), ("OTHER", 3)] {
            let line =
                format!("nv_inference_request_failure{labels},reason=\"{reason}\"}} {count}\n");
            assert!(text.contains(&line), "{line}{text}");
        }
    }

    #[test]
    fn without_models_there_are_only_names() {
        assert!(text(&[]).lines().all(|line| line.starts_with('#')));
    }
}
