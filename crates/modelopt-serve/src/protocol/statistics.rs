//! `GET v2/models/stats` and those of one model: counts and times since the start, in Triton's form.

use serde::Serialize;

/// The whole answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Statistics {
    /// One for each version of each model.
    pub model_stats: Vec<ModelStatistics>,
}

/// What one version of one model did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ModelStatistics {
    /// The model.
    pub name: String,
    /// The version.
    pub version: String,
    /// When it was last asked, in milliseconds since 1970.
    pub last_inference: u64,
    /// Rows that were computed.
    pub inference_count: u64,
    /// Batches that were computed.
    pub execution_count: u64,
    /// Times of requests.
    pub inference_stats: Phases,
    /// Times of batches by their rows.
    pub batch_stats: Vec<BatchStatistics>,
}

/// How often something was, and how long in total.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Duration {
    /// How often.
    pub count: u64,
    /// How long in total, in nanoseconds.
    pub ns: u64,
}

impl Duration {
    /// Counts one more.
    pub fn add(&mut self, time: std::time::Duration) {
        self.count = self.count.saturating_add(1);
        self.ns = self.ns.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }
}

/// Times of requests, by what was done in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Phases {
    /// Requests that were answered, from the cache as well.
    pub success: Duration,
    /// Requests that were not.
    pub fail: Duration,
    /// Waiting.
    pub queue: Duration,
    /// Putting a batch together.
    pub compute_input: Duration,
    /// The model.
    pub compute_infer: Duration,
    /// Taking a batch apart.
    pub compute_output: Duration,
    /// Answers from the cache.
    pub cache_hit: Duration,
    /// Looking into the cache, and putting into it what was not there.
    pub cache_miss: Duration,
}

/// Times of batches of so many rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BatchStatistics {
    /// Rows.
    pub batch_size: u64,
    /// Putting them together.
    pub compute_input: Duration,
    /// The model.
    pub compute_infer: Duration,
    /// Taking them apart.
    pub compute_output: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_that_of_triton() {
        let mut model = ModelStatistics { name: "m".to_owned(), ..ModelStatistics::default() };
        model.inference_stats.success.add(std::time::Duration::from_micros(3));
        model.batch_stats.push(BatchStatistics { batch_size: 4, ..BatchStatistics::default() });
        let text = serde_json::to_string(&Statistics { model_stats: vec![model] }).unwrap();
        let none = r#"{"count":0,"ns":0}"#;
        let phases = format!(
            r#"{{"success":{{"count":1,"ns":3000}},"fail":{none},"queue":{none},"compute_input":{none},"compute_infer":{none},"compute_output":{none},"cache_hit":{none},"cache_miss":{none}}}"#
        );
        let batch = format!(
            r#"{{"batch_size":4,"compute_input":{none},"compute_infer":{none},"compute_output":{none}}}"#
        );
        assert_eq!(
            text,
            format!(
                r#"{{"model_stats":[{{"name":"m","version":"","last_inference":0,"inference_count":0,"execution_count":0,"inference_stats":{phases},"batch_stats":[{batch}]}}]}}"#
            )
        );
    }
}
