//! Triton's extension that lists, loads and unloads models.

use super::exchange::Exchange;
use super::respond::Reply;
use crate::ServeError;
use crate::engine::LoadError;
use crate::protocol::{IndexEntry, IndexRequest, ModelState, parse_load, parse_unload};
use crate::service::Service;

/// `POST /v2/repository/index`.
pub(super) async fn index(exchange: &mut Exchange) -> Result<Reply, ServeError> {
    let asked = IndexRequest::parse(&exchange.body().await?)?;
    let index = exchange.service().repository().index().into_iter();
    let wanted =
        index.filter(|entry| !asked.ready || entry.state == ModelState::Ready).map(|entry| {
            IndexEntry {
                name: entry.name,
                version: entry.version,
                state: Some(entry.state),
                reason: entry.reason.unwrap_or_default(),
            }
        });
    Reply::json(&wanted.collect::<Vec<_>>())
}

/// `POST /v2/repository/models/NAME/load`.
pub(super) async fn load(exchange: &mut Exchange, name: &str) -> Result<Reply, ServeError> {
    let service = allowed(exchange)?;
    parse_load(&exchange.body().await?)?;
    service.repository().load(name).await.map_err(LoadError::into_serve_error)?;
    Reply::json(&serde_json::json!({}))
}

/// `POST /v2/repository/models/NAME/unload`.
pub(super) async fn unload(exchange: &mut Exchange, name: &str) -> Result<Reply, ServeError> {
    let service = allowed(exchange)?;
    parse_unload(&exchange.body().await?)?;
    service.repository().unload(name).await.map_err(LoadError::into_serve_error)?;
    Reply::json(&serde_json::json!({}))
}

fn allowed(exchange: &Exchange) -> Result<std::sync::Arc<Service>, ServeError> {
    let service = exchange.service();
    if service.settings().model_control {
        return Ok(service);
    }
    Err(ServeError::Forbidden(
        "clients may not load and unload models here; who runs the server can allow it".to_owned(),
    ))
}
