//! What the server and its models say about themselves.

use std::time::UNIX_EPOCH;

use super::respond::Reply;
use crate::ServeError;
use crate::engine::{self, Batching, ServedModel};
use crate::protocol::{
    BatchStatistics, BatchingConfig, Duration, EXTENSIONS, ModelConfig, ModelList, ModelMetadata,
    ModelStatistics, PLATFORM, Phases, ServerMetadata, Statistics,
};
use crate::service::Service;

/// `GET /v2`.
pub(super) fn server() -> Result<Reply, ServeError> {
    Reply::json(&ServerMetadata {
        name: "modelopt".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        extensions: EXTENSIONS.iter().map(|&name| name.to_owned()).collect(),
    })
}

/// `GET /v2/models`.
pub(super) fn models(service: &Service) -> Result<Reply, ServeError> {
    Reply::json(&ModelList { models: service.repository().names() })
}

/// `GET /v2/models/NAME`.
pub(super) fn model(
    service: &Service,
    name: &str,
    version: Option<&str>,
) -> Result<Reply, ServeError> {
    let model = service.repository().get(name, version)?;
    let index = service.repository().index().into_iter();
    let versions = index.filter(|entry| entry.name == name).filter_map(|entry| entry.version);
    Reply::json(&ModelMetadata::of(name, versions.collect(), &model.identity().signature))
}

/// `GET /v2/models/NAME/config`.
pub(super) fn config(
    service: &Service,
    name: &str,
    version: Option<&str>,
) -> Result<Reply, ServeError> {
    let model = service.repository().get(name, version)?;
    let settings = model.settings();
    let is_on = matches!(model.batching(), Batching::On(_)) && settings.max_batch_size > 1;
    let batching = is_on.then(|| BatchingConfig {
        preferred_batch_size: settings.preferred_batch_size.clone(),
        max_queue_delay_microseconds: settings.max_queue_delay_microseconds,
        preserve_ordering: false,
        priority_levels: settings.priority_levels,
        default_priority_level: settings.default_priority_level,
    });
    let most = if is_on { settings.max_batch_size } else { 0 };
    let signature = &model.identity().signature;
    Reply::json(&ModelConfig::of(name, PLATFORM, signature, most, batching))
}

/// `GET /v2/models/stats`, and those of one model.
pub(super) fn statistics(
    service: &Service,
    name: Option<&str>,
    version: Option<&str>,
) -> Result<Reply, ServeError> {
    let models = match name {
        None => service.repository().models(),
        Some(name) if version.is_some() => vec![service.repository().get(name, version)?],
        Some(name) => {
            let mut models = service.repository().models();
            models.retain(|model| model.identity().name == name);
            if models.is_empty() {
                // Says why.
                models.push(service.repository().get(name, None)?);
            }
            models
        }
    };
    let model_stats = models.iter().map(|model| statistics_of(model)).collect();
    Reply::json(&Statistics { model_stats })
}

fn statistics_of(model: &ServedModel) -> ModelStatistics {
    let (identity, counted) = (model.identity(), model.statistics());
    let last = counted.last_inference.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    ModelStatistics {
        name: identity.name.clone(),
        version: identity.version.clone(),
        last_inference: last.map_or(0, |time| time.as_millis() as u64),
        inference_count: counted.inference_count,
        execution_count: counted.execution_count,
        inference_stats: Phases {
            success: duration(counted.success),
            fail: duration(counted.failure),
            queue: duration(counted.queue),
            compute_input: duration(counted.compute_input),
            compute_infer: duration(counted.compute_infer),
            compute_output: duration(counted.compute_output),
            ..Phases::default()
        },
        batch_stats: counted.batches.iter().map(batch).collect(),
    }
}

fn batch((&rows, tally): (&usize, &engine::BatchTally)) -> BatchStatistics {
    BatchStatistics {
        batch_size: rows as u64,
        compute_input: duration(tally.compute_input),
        compute_infer: duration(tally.compute_infer),
        compute_output: duration(tally.compute_output),
    }
}

fn duration(tally: engine::Tally) -> Duration {
    Duration { count: tally.count, ns: tally.ns }
}
