//! Which path is answered by what.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{Request, Response};
use axum::routing::{MethodRouter, get, post};

use super::body::BodyLimits;
use super::exchange::{Access, Exchange, Route, Shared};
use super::platforms::{self, VertexRoutes};
use super::respond::Reply;
use super::{health, infer, metadata, people, repository};
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

type Named = Path<(String, String)>;

/// All routes.
pub fn router(service: Arc<Service>, settings: &HttpSettings) -> Router {
    let shared = Shared { service, body: settings.body };
    let mut router = Router::new()
        .merge(open_inference())
        .merge(model_repository())
        .route("/predict", predict("/predict"))
        .route("/ping", ready("/ping", Protocol::SageMaker))
        .route("/invocations", invocations());
    if !settings.metrics_elsewhere {
        router = router.merge(metrics());
    }
    if let Some(routes) = &settings.vertex {
        router = router
            .route(&routes.health, ready("AIP_HEALTH_ROUTE", Protocol::Vertex))
            .route(&routes.predict, instances());
    }
    router.fallback(not_found).method_not_allowed_fallback(method_not_allowed).with_state(shared)
}

/// The routes of metrics alone.
pub fn metrics_router(service: Arc<Service>) -> Router {
    let shared = Shared { service, body: BodyLimits::default() };
    metrics()
        .merge(Router::new().route("/v2/health/live", live()))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(shared)
}

fn open_inference() -> Router<Shared> {
    Router::new()
        .route("/v2", said("/v2", |_| metadata::server()))
        .route("/v2/", said("/v2", |_| metadata::server()))
        .route("/v2/health/live", live())
        .route("/v2/health/ready", ready("/v2/health/ready", Protocol::OpenInference))
        .route("/v2/models", said("/v2/models", metadata::models))
        .route(
            "/v2/models/stats",
            said("/v2/models/stats", |service| metadata::statistics(service, None, None)),
        )
        .route("/v2/models/{name}", of_model("/v2/models/{name}", metadata::model))
        .route("/v2/models/{name}/ready", model_ready())
        .route("/v2/models/{name}/config", of_model("/v2/models/{name}/config", metadata::config))
        .route("/v2/models/{name}/stats", of_model("/v2/models/{name}/stats", statistics))
        .route("/v2/models/{name}/infer", infer_newest())
        .route("/v2/models/{name}/predict", predict_named())
        .route(
            "/v2/models/{name}/versions/{version}",
            of_version("/v2/models/{name}/versions/{version}", metadata::model),
        )
        .route("/v2/models/{name}/versions/{version}/ready", version_ready())
        .route(
            "/v2/models/{name}/versions/{version}/config",
            of_version("/v2/models/{name}/versions/{version}/config", metadata::config),
        )
        .route(
            "/v2/models/{name}/versions/{version}/stats",
            of_version("/v2/models/{name}/versions/{version}/stats", statistics),
        )
        .route("/v2/models/{name}/versions/{version}/infer", infer_version())
}

fn model_repository() -> Router<Shared> {
    const LOAD: Route =
        Route { protocol: Protocol::OpenInference, path: "/v2/repository/models/{name}/load" };
    const UNLOAD: Route =
        Route { protocol: Protocol::OpenInference, path: "/v2/repository/models/{name}/unload" };
    const INDEX: Route = Route { protocol: Protocol::OpenInference, path: "/v2/repository/index" };
    Router::new()
        .route(
            INDEX.path,
            post(async |State(shared): State<Shared>, request: Request<Body>| {
                let work = async |exchange: &mut Exchange| repository::index(exchange).await;
                shared.answer(INDEX, Access::Guarded, request, work).await
            }),
        )
        .route(
            LOAD.path,
            post(
                async |State(shared): State<Shared>,
                       Path(name): Path<String>,
                       request: Request<Body>| {
                    let work =
                        async |exchange: &mut Exchange| repository::load(exchange, &name).await;
                    shared.answer(LOAD, Access::Guarded, request, work).await
                },
            ),
        )
        .route(
            UNLOAD.path,
            post(
                async |State(shared): State<Shared>,
                       Path(name): Path<String>,
                       request: Request<Body>| {
                    let work =
                        async |exchange: &mut Exchange| repository::unload(exchange, &name).await;
                    shared.answer(UNLOAD, Access::Guarded, request, work).await
                },
            ),
        )
}

fn metrics() -> Router<Shared> {
    Router::new()
        .route("/metrics", opened("/metrics", |service| Ok(health::metrics(service))))
        .route(
            "/metrics/triton",
            opened("/metrics/triton", |service| Ok(health::triton_metrics(service))),
        )
}

fn statistics(service: &Service, name: &str, version: Option<&str>) -> Result<Reply, ServeError> {
    metadata::statistics(service, Some(name), version)
}

fn live() -> MethodRouter<Shared> {
    opened("/v2/health/live", |_| health::live())
}

fn ready(path: &'static str, protocol: Protocol) -> MethodRouter<Shared> {
    get(async move |State(shared): State<Shared>, request: Request<Body>| {
        let work = async |exchange: &mut Exchange| health::ready(&exchange.service());
        shared.answer(Route { protocol, path }, Access::Open, request, work).await
    })
}

/// What the server says to everybody.
fn opened(
    path: &'static str,
    say: impl Fn(&Service) -> Result<Reply, ServeError> + Clone + Send + Sync + 'static,
) -> MethodRouter<Shared> {
    saying(path, Access::Open, say)
}

/// What the server says to those who may ask.
fn said(
    path: &'static str,
    say: impl Fn(&Service) -> Result<Reply, ServeError> + Clone + Send + Sync + 'static,
) -> MethodRouter<Shared> {
    saying(path, Access::Guarded, say)
}

fn saying(
    path: &'static str,
    access: Access,
    say: impl Fn(&Service) -> Result<Reply, ServeError> + Clone + Send + Sync + 'static,
) -> MethodRouter<Shared> {
    get(async move |State(shared): State<Shared>, request: Request<Body>| {
        let work = async |exchange: &mut Exchange| say(&exchange.service());
        shared.answer(route(path), access, request, work).await
    })
}

type OfModel = fn(&Service, &str, Option<&str>) -> Result<Reply, ServeError>;

fn of_model(path: &'static str, say: OfModel) -> MethodRouter<Shared> {
    get(
        async move |State(shared): State<Shared>,
                    Path(name): Path<String>,
                    request: Request<Body>| {
            let work = async |exchange: &mut Exchange| say(&exchange.service(), &name, None);
            shared.answer(route(path), Access::Guarded, request, work).await
        },
    )
}

fn of_version(path: &'static str, say: OfModel) -> MethodRouter<Shared> {
    get(
        async move |State(shared): State<Shared>,
                    Path((name, version)): Named,
                    request: Request<Body>| {
            let work =
                async |exchange: &mut Exchange| say(&exchange.service(), &name, Some(&version));
            shared.answer(route(path), Access::Guarded, request, work).await
        },
    )
}

fn model_ready() -> MethodRouter<Shared> {
    get(async |State(shared): State<Shared>, Path(name): Path<String>, request: Request<Body>| {
        let work =
            async |exchange: &mut Exchange| health::model_ready(&exchange.service(), &name, None);
        shared.answer(route("/v2/models/{name}/ready"), Access::Open, request, work).await
    })
}

fn version_ready() -> MethodRouter<Shared> {
    get(
        async |State(shared): State<Shared>,
               Path((name, version)): Named,
               request: Request<Body>| {
            let work = async |exchange: &mut Exchange| {
                health::model_ready(&exchange.service(), &name, Some(&version))
            };
            let route = route("/v2/models/{name}/versions/{version}/ready");
            shared.answer(route, Access::Open, request, work).await
        },
    )
}

fn infer_newest() -> MethodRouter<Shared> {
    post(async |State(shared): State<Shared>, Path(name): Path<String>, request: Request<Body>| {
        let work = async |exchange: &mut Exchange| infer::infer(exchange, &name, None).await;
        shared.answer(route("/v2/models/{name}/infer"), Access::Guarded, request, work).await
    })
}

fn infer_version() -> MethodRouter<Shared> {
    post(
        async |State(shared): State<Shared>,
               Path((name, version)): Named,
               request: Request<Body>| {
            let work =
                async |exchange: &mut Exchange| infer::infer(exchange, &name, Some(&version)).await;
            let route = route("/v2/models/{name}/versions/{version}/infer");
            shared.answer(route, Access::Guarded, request, work).await
        },
    )
}

fn predict(path: &'static str) -> MethodRouter<Shared> {
    post(async move |State(shared): State<Shared>, request: Request<Body>| {
        let work = async |exchange: &mut Exchange| people::predict(exchange, None).await;
        let route = Route { protocol: Protocol::Predict, path };
        shared.answer(route, Access::Guarded, request, work).await
    })
}

fn predict_named() -> MethodRouter<Shared> {
    post(async |State(shared): State<Shared>, Path(name): Path<String>, request: Request<Body>| {
        let work = async |exchange: &mut Exchange| people::predict(exchange, Some(&name)).await;
        let route = Route { protocol: Protocol::Predict, path: "/v2/models/{name}/predict" };
        shared.answer(route, Access::Guarded, request, work).await
    })
}

fn invocations() -> MethodRouter<Shared> {
    post(async |State(shared): State<Shared>, request: Request<Body>| {
        let work = async |exchange: &mut Exchange| platforms::invocations(exchange).await;
        let route = Route { protocol: Protocol::SageMaker, path: "/invocations" };
        shared.answer(route, Access::Guarded, request, work).await
    })
}

fn instances() -> MethodRouter<Shared> {
    post(async |State(shared): State<Shared>, request: Request<Body>| {
        let work = async |exchange: &mut Exchange| platforms::instances(exchange).await;
        let route = Route { protocol: Protocol::Vertex, path: "AIP_PREDICT_ROUTE" };
        shared.answer(route, Access::Guarded, request, work).await
    })
}

fn route(path: &'static str) -> Route {
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
