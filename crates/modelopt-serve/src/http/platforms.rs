//! The routes of Amazon SageMaker and Google Vertex AI.

use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;

use super::exchange::Exchange;
use super::infer::written;
use super::respond::Reply;
use crate::ServeError;
use crate::protocol::{
    AnswerForm, parse_instances, parse_invocation, write_predict, write_predictions,
};

/// The routes that Vertex AI names by its environment variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VertexRoutes {
    /// Where it asks whether the server is ready.
    pub health: String,
    /// Where it sends instances.
    pub predict: String,
}

/// `POST /invocations` of SageMaker.
pub(super) async fn invocations(exchange: &mut Exchange) -> Result<Reply, ServeError> {
    let chosen = exchange.choose(None, None)?;
    let content_type = exchange.headers().get(CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok()).map(ToOwned::to_owned);
    let header = exchange.header_length()?;
    let body = exchange.body().await?;
    let service = exchange.service();
    let settings = service.settings();
    let signature = &chosen.model.identity().signature;
    let asked =
        parse_invocation(content_type.as_deref(), header, &body, signature, &settings.limits)?;
    let id = asked.inference.id.clone();
    let answer = exchange.infer(&chosen, asked.inference).await?;
    match asked.form {
        AnswerForm::Infer(wanted) => {
            let body = written(&chosen, id.as_deref(), &answer, &wanted)?;
            let content_type = AnswerForm::content_type(body.header);
            let content_type = HeaderValue::from_str(&content_type)
                .unwrap_or(HeaderValue::from_static("application/octet-stream"));
            Ok(Reply::bytes(body.bytes, content_type))
        }
        AnswerForm::Predict { is_one_row } => {
            Ok(Reply::written(write_predict(is_one_row, &answer, settings.classes.as_ref())?))
        }
    }
}

/// Vertex AI's `POST` of instances.
pub(super) async fn instances(exchange: &mut Exchange) -> Result<Reply, ServeError> {
    let chosen = exchange.choose(None, None)?;
    let body = exchange.body().await?;
    let limits = exchange.service().settings().limits;
    let (inference, count) = parse_instances(&body, &chosen.model.identity().signature, &limits)?;
    let answer = exchange.infer(&chosen, inference).await?;
    Ok(Reply::written(write_predictions(&answer, count)?))
}
