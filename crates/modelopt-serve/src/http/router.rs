//! Which path is answered by what: a table, which `openapi.rs` is held against.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{Request, Response};
use axum::routing::{MethodRouter, get, post};
use serde::de::DeserializeOwned;

use super::body::BodyLimits;
use super::exchange::{Access, Exchange, Route, Shared};
use super::platforms::{self, VertexRoutes};
use super::respond::Reply;
use super::{health, infer, metadata, openapi, page, people, repository};
use crate::ServeError;
use crate::observe::Protocol;
use crate::service::Service;

/// How the server is reached over HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpSettings {
    /// How large and slow bodies may be.
    pub body: BodyLimits,
    /// Vertex AI's routes, where it runs there.
    pub vertex: Option<VertexRoutes>,
    /// Whether metrics are on a port of their own, and not here.
    pub metrics_elsewhere: bool,
}

/// What stands in a path where it has braces. What is no text there is an error like any other.
struct Part<T>(Result<T, ServeError>);

impl<T: DeserializeOwned + Send> FromRequestParts<Shared> for Part<T> {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Infallible> {
        let read = Path::<T>::from_request_parts(parts, shared).await;
        Ok(Part(
            read.map(|Path(part)| part).map_err(|error| ServeError::Invalid(error.body_text())),
        ))
    }
}

/// A path, and what answers it.
pub(super) struct Served {
    pub(super) path: &'static str,
    answer: MethodRouter<Shared>,
}

/// All routes.
pub fn router(service: Arc<Service>, settings: &HttpSettings) -> Router {
    let shared = Shared { service, body: settings.body };
    let mut all = own();
    if !settings.metrics_elsewhere {
        all.extend(metrics());
    }
    let mut router = routed(all);
    if let Some(routes) = &settings.vertex {
        let health = Route { protocol: Protocol::Vertex, path: "AIP_HEALTH_ROUTE" };
        router =
            router.route(&routes.health, readiness(health)).route(&routes.predict, instances());
    }
    finished(router, shared)
}

/// The routes of metrics alone.
pub fn metrics_router(service: Arc<Service>) -> Router {
    let shared = Shared { service, body: BodyLimits::default() };
    finished(routed(metrics().into_iter().chain([live()])), shared)
}

fn routed(all: impl IntoIterator<Item = Served>) -> Router<Shared> {
    all.into_iter().fold(Router::new(), |router, one| router.route(one.path, one.answer))
}

fn finished(router: Router<Shared>, shared: Shared) -> Router {
    router.fallback(not_found).method_not_allowed_fallback(method_not_allowed).with_state(shared)
}

/// What every server has.
pub(super) fn own() -> Vec<Served> {
    let mut all = open_inference();
    all.extend(model_repository());
    all.extend([
        predict(),
        predict_named(),
        ready("/ping", Protocol::SageMaker),
        invocations(),
        said("/", page::page),
        said("/live.json", page::live),
        opened("/openapi.json", |_| Ok(openapi::document())),
    ]);
    all
}

/// What a server has that shows its metrics on the same port.
pub(super) fn metrics() -> [Served; 2] {
    [
        opened("/metrics", |service| Ok(health::metrics(service))),
        opened("/metrics/triton", |service| Ok(health::triton_metrics(service))),
    ]
}

fn open_inference() -> Vec<Served> {
    vec![
        said("/v2", |_| metadata::server()),
        said("/v2/", |_| metadata::server()),
        live(),
        ready("/v2/health/ready", Protocol::OpenInference),
        said("/v2/models", metadata::models),
        said("/v2/models/stats", |service| metadata::statistics(service, None, None)),
        of_model("/v2/models/{name}", metadata::model),
        model_ready(),
        of_model("/v2/models/{name}/config", metadata::config),
        of_model("/v2/models/{name}/stats", statistics),
        infer_newest(),
        of_version("/v2/models/{name}/versions/{version}", metadata::model),
        version_ready(),
        of_version("/v2/models/{name}/versions/{version}/config", metadata::config),
        of_version("/v2/models/{name}/versions/{version}/stats", statistics),
        infer_version(),
    ]
}

fn model_repository() -> [Served; 3] {
    const INDEX: Route = route("/v2/repository/index");
    const LOAD: Route = route("/v2/repository/models/{name}/load");
    const UNLOAD: Route = route("/v2/repository/models/{name}/unload");
    [
        served(
            INDEX.path,
            post(async |State(shared): State<Shared>, request: Request<Body>| {
                let work = async |exchange: &mut Exchange| repository::index(exchange).await;
                shared.answer(INDEX, Access::Guarded, request, work).await
            }),
        ),
        served(
            LOAD.path,
            post(
                async |State(shared): State<Shared>,
                       Part(name): Part<String>,
                       request: Request<Body>| {
                    let work =
                        async |exchange: &mut Exchange| repository::load(exchange, &name?).await;
                    shared.answer(LOAD, Access::Guarded, request, work).await
                },
            ),
        ),
        served(
            UNLOAD.path,
            post(
                async |State(shared): State<Shared>,
                       Part(name): Part<String>,
                       request: Request<Body>| {
                    let work =
                        async |exchange: &mut Exchange| repository::unload(exchange, &name?).await;
                    shared.answer(UNLOAD, Access::Guarded, request, work).await
                },
            ),
        ),
    ]
}

fn statistics(service: &Service, name: &str, version: Option<&str>) -> Result<Reply, ServeError> {
    metadata::statistics(service, Some(name), version)
}

fn live() -> Served {
    opened("/v2/health/live", |_| health::live())
}

fn ready(path: &'static str, protocol: Protocol) -> Served {
    served(path, readiness(Route { protocol, path }))
}

fn readiness(route: Route) -> MethodRouter<Shared> {
    get(async move |State(shared): State<Shared>, request: Request<Body>| {
        let work = async |exchange: &mut Exchange| health::ready(&exchange.service());
        shared.answer(route, Access::Open, request, work).await
    })
}

/// What the server says to everybody.
fn opened(
    path: &'static str,
    say: impl Fn(&Service) -> Result<Reply, ServeError> + Clone + Send + Sync + 'static,
) -> Served {
    saying(path, Access::Open, say)
}

/// What the server says to those who may ask.
fn said(
    path: &'static str,
    say: impl Fn(&Service) -> Result<Reply, ServeError> + Clone + Send + Sync + 'static,
) -> Served {
    saying(path, Access::Guarded, say)
}

fn saying(
    path: &'static str,
    access: Access,
    say: impl Fn(&Service) -> Result<Reply, ServeError> + Clone + Send + Sync + 'static,
) -> Served {
    let answer = get(async move |State(shared): State<Shared>, request: Request<Body>| {
        let work = async |exchange: &mut Exchange| say(&exchange.service());
        shared.answer(route(path), access, request, work).await
    });
    served(path, answer)
}

type OfModel = fn(&Service, &str, Option<&str>) -> Result<Reply, ServeError>;

fn of_model(path: &'static str, say: OfModel) -> Served {
    let answer = get(
        async move |State(shared): State<Shared>,
                    Part(name): Part<String>,
                    request: Request<Body>| {
            let work = async |exchange: &mut Exchange| say(&exchange.service(), &name?, None);
            shared.answer(route(path), Access::Guarded, request, work).await
        },
    );
    served(path, answer)
}

fn of_version(path: &'static str, say: OfModel) -> Served {
    let answer = get(
        async move |State(shared): State<Shared>,
                    Part(parts): Part<(String, String)>,
                    request: Request<Body>| {
            let work = async |exchange: &mut Exchange| {
                let (name, version) = parts?;
                say(&exchange.service(), &name, Some(&version))
            };
            shared.answer(route(path), Access::Guarded, request, work).await
        },
    );
    served(path, answer)
}

fn model_ready() -> Served {
    const READY: Route = route("/v2/models/{name}/ready");
    let answer = get(
        async |State(shared): State<Shared>, Part(name): Part<String>, request: Request<Body>| {
            let work = async |exchange: &mut Exchange| {
                health::model_ready(&exchange.service(), &name?, None)
            };
            shared.answer(READY, Access::Open, request, work).await
        },
    );
    served(READY.path, answer)
}

fn version_ready() -> Served {
    const READY: Route = route("/v2/models/{name}/versions/{version}/ready");
    let answer = get(
        async |State(shared): State<Shared>,
               Part(parts): Part<(String, String)>,
               request: Request<Body>| {
            let work = async |exchange: &mut Exchange| {
                let (name, version) = parts?;
                health::model_ready(&exchange.service(), &name, Some(&version))
            };
            shared.answer(READY, Access::Open, request, work).await
        },
    );
    served(READY.path, answer)
}

fn infer_newest() -> Served {
    const INFER: Route = route("/v2/models/{name}/infer");
    let answer = post(
        async |State(shared): State<Shared>, Part(name): Part<String>, request: Request<Body>| {
            let work = async |exchange: &mut Exchange| infer::infer(exchange, &name?, None).await;
            shared.answer(INFER, Access::Guarded, request, work).await
        },
    );
    served(INFER.path, answer)
}

fn infer_version() -> Served {
    const INFER: Route = route("/v2/models/{name}/versions/{version}/infer");
    let answer = post(
        async |State(shared): State<Shared>,
               Part(parts): Part<(String, String)>,
               request: Request<Body>| {
            let work = async |exchange: &mut Exchange| {
                let (name, version) = parts?;
                infer::infer(exchange, &name, Some(&version)).await
            };
            shared.answer(INFER, Access::Guarded, request, work).await
        },
    );
    served(INFER.path, answer)
}

fn predict() -> Served {
    const PREDICT: Route = Route { protocol: Protocol::Predict, path: "/predict" };
    let answer = post(async |State(shared): State<Shared>, request: Request<Body>| {
        let work = async |exchange: &mut Exchange| people::predict(exchange, None).await;
        shared.answer(PREDICT, Access::Guarded, request, work).await
    });
    served(PREDICT.path, answer)
}

fn predict_named() -> Served {
    const PREDICT: Route = Route { protocol: Protocol::Predict, path: "/v2/models/{name}/predict" };
    let answer = post(
        async |State(shared): State<Shared>, Part(name): Part<String>, request: Request<Body>| {
            let work =
                async |exchange: &mut Exchange| people::predict(exchange, Some(&name?)).await;
            shared.answer(PREDICT, Access::Guarded, request, work).await
        },
    );
    served(PREDICT.path, answer)
}

fn invocations() -> Served {
    const INVOCATIONS: Route = Route { protocol: Protocol::SageMaker, path: "/invocations" };
    let answer = post(async |State(shared): State<Shared>, request: Request<Body>| {
        let work = async |exchange: &mut Exchange| platforms::invocations(exchange).await;
        shared.answer(INVOCATIONS, Access::Guarded, request, work).await
    });
    served(INVOCATIONS.path, answer)
}

fn instances() -> MethodRouter<Shared> {
    const INSTANCES: Route = Route { protocol: Protocol::Vertex, path: "AIP_PREDICT_ROUTE" };
    post(async |State(shared): State<Shared>, request: Request<Body>| {
        let work = async |exchange: &mut Exchange| platforms::instances(exchange).await;
        shared.answer(INSTANCES, Access::Guarded, request, work).await
    })
}

fn served(path: &'static str, answer: MethodRouter<Shared>) -> Served {
    Served { path, answer }
}

const fn route(path: &'static str) -> Route {
    Route { protocol: Protocol::OpenInference, path }
}

async fn not_found(State(shared): State<Shared>, request: Request<Body>) -> Response<Body> {
    let route = Route { protocol: Protocol::OpenInference, path: "_OTHER" };
    let path = request.uri().path().chars().take(200).collect::<String>();
    let work = async |_: &mut Exchange| {
        Err(ServeError::NotFound(format!(
            "there is nothing at {path}; the routes are in /openapi.json"
        )))
    };
    shared.answer(route, Access::Open, request, work).await
}

async fn method_not_allowed(
    State(shared): State<Shared>,
    request: Request<Body>,
) -> Response<Body> {
    let route = Route { protocol: Protocol::OpenInference, path: "_OTHER" };
    let path = request.uri().path().chars().take(200).collect::<String>();
    let method = request.method().as_str().chars().take(20).collect::<String>();
    let work = async |_: &mut Exchange| Err(ServeError::MethodNotAllowed { method, path });
    shared.answer(route, Access::Open, request, work).await
}
