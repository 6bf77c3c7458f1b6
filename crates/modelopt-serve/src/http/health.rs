//! Whether the server and its models answer, and what is counted.

use axum::http::{HeaderValue, StatusCode};

use super::respond::Reply;
use crate::ServeError;
use crate::observe::METRICS_CONTENT_TYPE;
use crate::protocol::{Live, ModelReady, Ready};
use crate::service::Service;

/// `GET /v2/health/live`: the process answers.
pub(super) fn live() -> Result<Reply, ServeError> {
    Reply::json(&Live { live: true })
}

/// `GET /v2/health/ready`, and what platforms ask in its place.
pub(super) fn ready(service: &Service) -> Result<Reply, ServeError> {
    let ready = service.not_ready().is_none();
    Ok(Reply::json(&Ready { ready })?.with(status(ready)))
}

/// `GET /v2/models/NAME/ready`.
pub(super) fn model_ready(
    service: &Service,
    name: &str,
    version: Option<&str>,
) -> Result<Reply, ServeError> {
    match service.repository().not_ready(name, version) {
        Some(error @ ServeError::NotFound(_)) => Err(error),
        not_ready => {
            let ready = not_ready.is_none();
            Ok(Reply::json(&ModelReady { name: name.to_owned(), ready })?.with(status(ready)))
        }
    }
}

/// `GET /metrics`.
pub(super) fn metrics(service: &Service) -> Reply {
    let content_type = HeaderValue::from_static(METRICS_CONTENT_TYPE);
    Reply::bytes(service.metrics_text().into_bytes(), content_type)
}

/// `GET /metrics/triton`: the same under the names that Triton has for it.
pub(super) fn triton_metrics(service: &Service) -> Reply {
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Reply::bytes(service.triton_metrics_text().into_bytes(), content_type)
}

fn status(ready: bool) -> StatusCode {
    if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}
