//! Answers, and errors as the protocol writes them: `{"error": "…"}` with every status.

use std::io::Write;

use axum::body::Body;
use axum::http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use serde::Serialize;

use crate::ServeError;
use crate::protocol::ErrorBody;

/// The header that says how much of a body is JSON, where binary data follows it.
pub(super) static HEADER_LENGTH: HeaderName =
    HeaderName::from_static("inference-header-content-length");

/// Smaller answers are not worth packing.
const WORTH_PACKING: usize = 1024;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// An answer before it is sent.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Reply {
    /// What JSON says.
    pub(super) fn json(value: &impl Serialize) -> Result<Self, ServeError> {
        let body = serde_json::to_vec(value).map_err(|error| {
            ServeError::Runtime(format!("the answer cannot be written: {error}"))
        })?;
        Ok(Reply::bytes(body, JSON))
    }

    /// Bytes of a content type.
    pub(super) fn bytes(body: Vec<u8>, content_type: HeaderValue) -> Self {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, content_type)]);
        Reply { status: StatusCode::OK, headers, body }
    }

    /// JSON that is written already.
    pub(super) fn written(body: Vec<u8>) -> Self {
        Reply::bytes(body, JSON)
    }

    /// An error.
    pub(super) fn error(error: &ServeError) -> Self {
        let body = serde_json::to_vec(&ErrorBody::from(error)).unwrap_or_default();
        let status = StatusCode::from_u16(error.status());
        let mut reply = Reply::bytes(body, JSON).with(status.unwrap_or_default());
        match error {
            ServeError::Unauthorized(_) => {
                reply.headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            ServeError::RateLimited { retry_after } => {
                let seconds = retry_after.as_secs_f64().ceil().max(1.0) as u64;
                reply.headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
            }
            ServeError::QueueFull { .. } => {
                reply.headers.insert(RETRY_AFTER, HeaderValue::from(1));
            }
            _ => {}
        }
        reply
    }

    /// The same with another status.
    pub(super) fn with(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// The same, packed if the client takes that and it is worth it.
    pub(super) fn packed_for(mut self, asked: &HeaderMap) -> Self {
        if self.body.len() < WORTH_PACKING || self.headers.contains_key(CONTENT_ENCODING) {
            return self;
        }
        let taken = asked.get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
        let takes = |encoding: &str| {
            taken.unwrap_or_default().split(',').any(|one| {
                let (name, rest) = one.split_once(';').unwrap_or((one, ""));
                name.trim().eq_ignore_ascii_case(encoding) && !is_refused(rest)
            })
        };
        let fast = Compression::fast();
        let packed = if takes("gzip") {
            let mut encoder = GzEncoder::new(Vec::new(), fast);
            encoder.write_all(&self.body).and_then(|()| encoder.finish()).map(|body| ("gzip", body))
        } else if takes("deflate") {
            let mut encoder = ZlibEncoder::new(Vec::new(), fast);
            encoder
                .write_all(&self.body)
                .and_then(|()| encoder.finish())
                .map(|body| ("deflate", body))
        } else {
            return self;
        };
        if let Ok((name, body)) = packed {
            self.headers.insert(CONTENT_ENCODING, HeaderValue::from_static(name));
            self.body = body;
        }
        self
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

/// Whether the quality of an encoding is 0.
fn is_refused(parameters: &str) -> bool {
    let quality = parameters.trim().strip_prefix("q=").and_then(|q| q.trim().parse::<f32>().ok());
    quality.is_some_and(|quality| quality <= 0.0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn errors_are_json_with_what_helps() {
        let error = ServeError::RateLimited { retry_after: Duration::from_millis(1200) };
        let reply = Reply::error(&error);
        assert_eq!(
            (reply.status.as_u16(), reply.headers[RETRY_AFTER].to_str().unwrap()),
            (429, "2")
        );
        let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(body["error"], error.to_string());
        let reply = Reply::error(&ServeError::Unauthorized("no token".to_owned()));
        assert_eq!(reply.headers[WWW_AUTHENTICATE], "Bearer");
    }

    #[test]
    fn answers_are_packed_where_clients_take_it() {
        let packed = |accepted: &str, size: usize| {
            let asked =
                HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_str(accepted).unwrap())]);
            let reply = Reply::written(vec![b' '; size]).packed_for(&asked);
            let encoding = reply.headers.get(CONTENT_ENCODING);
            (encoding.map(|name| name.to_str().unwrap().to_owned()), reply.body.len() < size)
        };
        assert_eq!(packed("gzip", 5000), (Some("gzip".to_owned()), true));
        assert_eq!(packed("br, deflate;q=0.5", 5000), (Some("deflate".to_owned()), true));
        assert_eq!(packed("gzip;q=0", 5000), (None, false));
        assert_eq!(packed("gzip", 100), (None, false));
        assert_eq!(packed("br", 5000), (None, false));
    }
}
