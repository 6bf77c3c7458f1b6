//! What every request goes through: it is admitted, timed, answered, counted and logged.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::header::{AUTHORIZATION, CONNECTION};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use bytes::Bytes;

use super::body::{self, BodyLimits};
use super::respond::{HEADER_LENGTH, Reply};
use crate::observe::{LoggedValues, Protocol, RequestRecord, TraceContext};
use crate::protocol::parse_header_length;
use crate::security::{Client, Credentials};
use crate::service::{Chosen, Looked, Service};
use crate::{Answer, Inference, ServeError, Timing};

static API_KEY: HeaderName = HeaderName::from_static("x-api-key");
static TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");

/// Which route a request took, as it is counted and logged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route {
    /// Its protocol.
    pub(super) protocol: Protocol,
    /// Its path, with names of parameters.
    pub(super) path: &'static str,
}

/// What all routes share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) service: Arc<Service>,
    pub(super) body: BodyLimits,
}

/// A request that is being answered, and what is to be told of it.
pub(super) struct Exchange {
    service: Arc<Service>,
    limits: BodyLimits,
    route: Route,
    parts: Parts,
    body: Option<Body>,
    since: Instant,
    time: SystemTime,
    seen: Seen,
}

/// What becomes known on the way.
#[derive(Default)]
struct Seen {
    client: Option<Client>,
    request_bytes: u64,
    id: Option<String>,
    chosen: Option<Chosen>,
    timing: Option<Timing>,
    looked: Looked,
    values: Option<LoggedValues>,
}

/// Who may ask for a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Everybody.
    Open,
    /// Those whom the guard admits.
    Guarded,
}

impl Shared {
    /// Answers a request by `work`.
    pub(super) async fn answer(
        self,
        route: Route,
        access: Access,
        request: Request<Body>,
        work: impl AsyncFnOnce(&mut Exchange) -> Result<Reply, ServeError>,
    ) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let mut exchange = Exchange {
            service: self.service,
            limits: self.body,
            route,
            parts,
            body: Some(body),
            since: Instant::now(),
            time: SystemTime::now(),
            seen: Seen::default(),
        };
        let result = match exchange.admit(access) {
            Ok(()) => work(&mut exchange).await,
            Err(error) => Err(error),
        };
        exchange.end(result)
    }
}

impl Exchange {
    fn admit(&mut self, access: Access) -> Result<(), ServeError> {
        if access == Access::Open {
            return Ok(());
        }
        let text = |name: &HeaderName| self.headers().get(name)?.to_str().ok();
        let credentials = Credentials {
            authorization: text(&AUTHORIZATION),
            api_key: text(&API_KEY),
            address: self.address(),
        };
        self.seen.client = Some(self.service.admit(&credentials)?);
        Ok(())
    }

    fn address(&self) -> Option<IpAddr> {
        let peer = self.parts.extensions.get::<ConnectInfo<SocketAddr>>();
        peer.map(|ConnectInfo(address)| address.ip())
    }

    pub(super) fn service(&self) -> Arc<Service> {
        Arc::clone(&self.service)
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    /// What `Inference-Header-Content-Length` says, where there is one.
    pub(super) fn header_length(&self) -> Result<Option<usize>, ServeError> {
        let value = self.headers().get(&HEADER_LENGTH);
        value.map(|value| parse_header_length(value.as_bytes())).transpose()
    }

    /// The body.
    pub(super) async fn body(&mut self) -> Result<Bytes, ServeError> {
        let Some(body) = self.body.take() else { return Ok(Bytes::new()) };
        let bytes = body::read(&self.parts.headers, body, &self.limits).await?;
        self.seen.request_bytes = bytes.len() as u64;
        Ok(bytes)
    }

    /// The model that a request is for: the one that is named, or the only one.
    pub(super) fn choose(
        &mut self,
        name: Option<&str>,
        version: Option<&str>,
    ) -> Result<Chosen, ServeError> {
        let chosen = match name {
            Some(name) => self.service.model(name, version)?,
            None => self.service.default_model()?,
        };
        self.seen.chosen = Some(chosen.clone());
        Ok(chosen)
    }

    /// What the model answers.
    pub(super) async fn infer(
        &mut self,
        chosen: &Chosen,
        inference: Inference,
    ) -> Result<Arc<Answer>, ServeError> {
        self.seen.id.clone_from(&inference.id);
        let logged = self.service.log().is_some_and(crate::observe::RequestLog::wants_values);
        let inputs = logged.then(|| inference.inputs.clone());
        let service = Arc::clone(&self.service);
        let answer = service.infer(chosen, inference, &mut self.seen.looked).await?;
        self.seen.timing = Some(answer.timing);
        if let Some(inputs) = inputs {
            self.seen.values = Some(LoggedValues::of(&inputs, Some(&answer.outputs)));
        }
        Ok(answer)
    }

    /// Counts and logs what became of it.
    fn end(self, result: Result<Reply, ServeError>) -> Response<Body> {
        let (mut reply, error) = match result {
            Ok(reply) => (reply.packed_for(&self.parts.headers), None),
            Err(error) => (Reply::error(&error), Some(error)),
        };
        let (took, code) = (self.since.elapsed(), reply.status.as_u16());
        if self.service.is_draining() {
            // Clients that keep connections open are to leave before the server does.
            reply.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let metrics = self.service.metrics();
        if let Some(error) = &error {
            metrics.rejected(error);
        }
        match &self.seen.chosen {
            Some(Chosen { face, .. }) => {
                face.metrics.answered(self.route.protocol, code, took);
                face.live.record(took, error.is_none());
            }
            None => metrics.unknown().answered(self.route.protocol, code, took),
        }
        if let Some(log) = self.service.log() {
            let trace = self.headers().get(&TRACE_PARENT).and_then(|value| value.to_str().ok());
            log.write(RequestRecord {
                time: self.time,
                trace: TraceContext::of(trace),
                method: method(&self.parts.method),
                route: self.route.path.into(),
                status: code,
                took,
                request_bytes: self.seen.request_bytes,
                response_bytes: reply.body.len() as u64,
                error,
                id: self.seen.id,
                client: self.seen.client,
                model: self.seen.chosen.map(|chosen| Arc::clone(&chosen.face.logged)),
                timing: self.seen.timing,
                cache: self.seen.looked.cache,
                inputs: self.seen.looked.inputs,
                values: self.seen.values,
            });
        }
        reply.into_response()
    }
}

fn method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        _ => "_OTHER",
    }
}
