//! `POST /predict`, for people with `curl`, and `POST /v2/models/NAME/predict` where there are several models.

use super::exchange::Exchange;
use super::respond::Reply;
use crate::ServeError;
use crate::protocol::{parse_predict, write_predict};

/// Answers inputs as people write them.
pub(super) async fn predict(
    exchange: &mut Exchange,
    name: Option<&str>,
) -> Result<Reply, ServeError> {
    let chosen = exchange.choose(name, None)?;
    let body = exchange.body().await?;
    let service = exchange.service();
    let settings = service.settings();
    let asked = parse_predict(&body, &chosen.model.identity().signature, &settings.limits)?;
    let is_one_row = asked.is_one_row;
    let answer = exchange.infer(&chosen, asked.inference).await?;
    Ok(Reply::written(write_predict(is_one_row, &answer, settings.classes.as_ref())?))
}
