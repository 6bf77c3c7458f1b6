//! `POST /v2/models/NAME[/versions/VERSION]/infer`.

use axum::http::HeaderValue;

use super::exchange::Exchange;
use super::respond::{HEADER_LENGTH, Reply};
use crate::ServeError;
use crate::protocol::{self, parse_infer};
use crate::service::Chosen;

/// Answers a request of the Open Inference Protocol.
pub(super) async fn infer(
    exchange: &mut Exchange,
    name: &str,
    version: Option<&str>,
) -> Result<Reply, ServeError> {
    let chosen = exchange.choose(Some(name), version)?;
    let header = exchange.header_length()?;
    let body = exchange.body().await?;
    let limits = exchange.service().settings().limits;
    let asked = parse_infer(header, &body, &chosen.model.identity().signature, &limits)?;
    let (id, wanted) = (asked.inference.id.clone(), asked.wanted);
    let answer = exchange.infer(&chosen, asked.inference).await?;
    let body = written(&chosen, id.as_deref(), &answer, &wanted)?;
    let content_type = HeaderValue::from_static(body.content_type());
    let mut reply = Reply::bytes(body.bytes, content_type);
    if let Some(length) = body.header {
        reply.headers.insert(HEADER_LENGTH.clone(), HeaderValue::from(length));
    }
    Ok(reply)
}

/// An answer in the protocol's form.
pub(super) fn written(
    chosen: &Chosen,
    id: Option<&str>,
    answer: &crate::Answer,
    wanted: &protocol::Wanted,
) -> Result<protocol::ReplyBody, ServeError> {
    let identity = chosen.model.identity();
    protocol::Reply { model: &identity.name, version: &identity.version, id, answer, wanted }
        .write()
}
