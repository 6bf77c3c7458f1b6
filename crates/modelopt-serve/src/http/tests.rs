//! The routes, asked as clients ask them, with a model that runs.

use std::num::NonZero;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::cache::{Cache, CacheLimits};
use crate::engine::{EngineSettings, Repository, Runtimes, Source};
use crate::security::{Guard, GuardSettings, RateSettings};
use crate::service::{Parts, Service, ServiceSettings};

struct Answered {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answered {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn error(&self) -> String {
        self.json()["error"].as_str().unwrap().to_owned()
    }
}

struct Server {
    router: axum::Router,
    _root: tempfile::TempDir,
}

impl Server {
    async fn new(change: impl FnOnce(&mut Parts, &mut HttpSettings)) -> Self {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("digits/3");
        std::fs::create_dir_all(&folder).unwrap();
        let model = xtask::testdata::fixture("digits/mlp.onnx");
        std::fs::copy(model, folder.join("model.onnx")).unwrap();
        let runtimes = Runtimes::open("tract".parse().unwrap(), None, None).unwrap();
        let (source, settings) = (Source::at(root.path()), EngineSettings::default());
        let describe = |model: &_| crate::Signature::of(model).map_err(|error| error.to_string());
        let repository = Repository::new(source, runtimes, settings, describe);
        assert!(repository.load_all().await.unwrap().is_empty());
        let (cache, guard) = (Cache::off(), Guard::default());
        let settings = ServiceSettings::default();
        let mut parts = Parts { repository, cache, guard, log: None, settings };
        let mut http = HttpSettings::default();
        change(&mut parts, &mut http);
        Server { router: router(Service::new(parts), &http), _root: root }
    }

    async fn plain() -> Self {
        Server::new(|_, _| ()).await
    }

    async fn ask(&self, request: Request<Body>) -> Answered {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 1 << 24).await.unwrap().to_vec();
        Answered { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    async fn get(&self, path: &str) -> Answered {
        self.ask(Request::get(path).body(Body::empty()).unwrap()).await
    }

    async fn post(&self, path: &str, body: &Value) -> Answered {
        self.ask(Request::post(path).body(Body::from(body.to_string())).unwrap()).await
    }
}

fn infer() -> Value {
    let data: Vec<f32> = (0..64).map(|at| at as f32 / 64.0).collect();
    json!({
        "id": "seven",
        "inputs": [{"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": data}],
    })
}

#[tokio::test]
async fn a_model_is_described_and_answers() {
    let server = Server::plain().await;
    let metadata = server.get("/v2/models/digits").await.json();
    assert_eq!(metadata["versions"], json!(["3"]));
    assert_eq!(metadata["inputs"][0]["shape"], json!([-1, 1, 8, 8]));
    let answered = server.post("/v2/models/digits/infer", &infer()).await;
    assert_eq!(answered.status, 200);
    let answer = answered.json();
    assert_eq!((&answer["id"], &answer["model_version"]), (&json!("seven"), &json!("3")));
    assert_eq!(answer["outputs"][0]["shape"], json!([1, 10]));
    let versioned = server.post("/v2/models/digits/versions/3/infer", &infer()).await.json();
    assert_eq!(versioned["outputs"], answer["outputs"]);
    let row = |row: i32| (0..8).map(|at| f64::from(row * 8 + at) / 64.0).collect::<Vec<_>>();
    let plain = json!({"image": [[(0..8).map(row).collect::<Vec<_>>()]]});
    let predicted = server.post("/predict", &plain).await;
    assert_eq!(predicted.status, 200);
    assert_eq!(predicted.json()["scores"][0], answer["outputs"][0]["data"]);
    let statistics = server.get("/v2/models/digits/stats").await.json();
    assert_eq!(statistics["model_stats"][0]["inference_count"], 3);
}

#[tokio::test]
async fn binary_outputs_follow_the_json() {
    let server = Server::plain().await;
    let mut asked = infer();
    asked["parameters"] = json!({"binary_data_output": true});
    let answered = server.post("/v2/models/digits/infer", &asked).await;
    let length = answered.headers["inference-header-content-length"].to_str().unwrap();
    let length: usize = length.parse().unwrap();
    let head: Value = serde_json::from_slice(&answered.body[..length]).unwrap();
    assert_eq!(head["outputs"][0]["parameters"]["binary_data_size"], 40);
    assert_eq!(answered.body.len(), length + 40);
}

#[tokio::test]
async fn every_route_and_every_error_is_json() {
    let server = Server::plain().await;
    for path in [
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        "/ping",
        "/v2/models",
        "/v2/models/stats",
        "/v2/models/digits/config",
        "/v2/models/digits/ready",
        "/v2/models/digits/versions/3/ready",
    ] {
        let answered = server.get(path).await;
        assert_eq!(answered.status, 200, "{path}");
        answered.json();
    }
    for (path, status) in [
        ("/v2/models/none", 404),
        ("/v2/models/digits/versions/4", 404),
        ("/nowhere", 404),
        ("/v2/models/digits/infer", 405),
    ] {
        let answered = server.get(path).await;
        assert_eq!(answered.status, status, "{path}");
        assert!(!answered.error().is_empty());
    }
    let request = Request::builder().method(Method::DELETE).uri("/v2").body(Body::empty());
    assert_eq!(server.ask(request.unwrap()).await.error(), "DELETE is not a method of /v2");
    let answered = server.post("/v2/models/digits/infer", &json!({"inputs": 1})).await;
    assert_eq!(answered.status, 400);
    let answered = server.post("/v2/repository/models/digits/unload", &json!({})).await;
    assert_eq!(answered.status, 403);
}

#[tokio::test]
async fn clients_load_and_unload_where_they_may() {
    let server = Server::new(|parts, _| parts.settings.model_control = true).await;
    let index = server.post("/v2/repository/index", &json!({})).await.json();
    assert_eq!(index[0]["state"], "READY");
    let unloaded = server.post("/v2/repository/models/digits/unload", &json!({})).await;
    assert_eq!(unloaded.status, 200);
    assert_ne!(server.post("/v2/models/digits/infer", &infer()).await.status, 200);
    assert_eq!(server.post("/v2/repository/models/digits/load", &json!({})).await.status, 200);
    assert_eq!(server.post("/v2/models/digits/infer", &infer()).await.status, 200);
}

#[tokio::test]
async fn a_guard_refuses_requests_and_leaves_health_open() {
    let keys = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(keys.path(), "ann: 0123456789abcdef0123456789abcdef\n").unwrap();
    let api_keys = Some(keys.path().to_owned());
    let guarded = GuardSettings { api_keys, ..GuardSettings::default() };
    let server = Server::new(|parts, _| parts.guard = Guard::new(&guarded).unwrap()).await;
    assert_eq!(server.post("/v2/models/digits/infer", &infer()).await.status, 401);
    assert_eq!(server.get("/v2/models").await.status, 401);
    assert_eq!(server.get("/v2/health/ready").await.status, 200);
    let request = Request::post("/v2/models/digits/infer")
        .header("x-api-key", "0123456789abcdef0123456789abcdef")
        .body(Body::from(infer().to_string()));
    assert_eq!(server.ask(request.unwrap()).await.status, 200);
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_back() {
    let rate = RateSettings { per_second: 1.0, burst: NonZero::<u32>::MIN, clients: 100 };
    let settings = GuardSettings { rate: Some(rate), ..GuardSettings::default() };
    let server = Server::new(|parts, _| parts.guard = Guard::new(&settings).unwrap()).await;
    assert_eq!(server.get("/v2/models").await.status, 200);
    let refused = server.get("/v2/models").await;
    assert_eq!((refused.status, refused.headers.contains_key("retry-after")), (429, true));
}

#[tokio::test]
async fn equal_requests_are_kept_and_counted() {
    let server =
        Server::new(|parts, _| parts.cache = Cache::embedded(CacheLimits::default())).await;
    let first = server.post("/v2/models/digits/infer", &infer()).await;
    let second = server.post("/v2/models/digits/infer", &infer()).await;
    assert_eq!(first.body, second.body);
    let text = String::from_utf8(server.get("/metrics").await.body).unwrap();
    let of = |name: &str| text.lines().find(|line| line.starts_with(name)).map(ToOwned::to_owned);
    assert!(of("modelopt_cache_hits_total").unwrap().ends_with(" 1"), "{text}");
    assert!(of("modelopt_batch_rows_count").unwrap().ends_with(" 1"), "{text}");
}

#[tokio::test]
async fn platforms_have_their_routes() {
    let vertex = VertexRoutes { health: "/h".to_owned(), predict: "/p".to_owned() };
    let server = Server::new(|_, http| http.vertex = Some(vertex)).await;
    assert_eq!(server.get("/h").await.status, 200);
    let image: Vec<Vec<f32>> = (0..8).map(|_| vec![0.5; 8]).collect();
    let instances = json!({"instances": [[image.clone()], [image.clone()]]});
    let answered = server.post("/p", &instances).await;
    assert_eq!(answered.status, 200, "{:?}", String::from_utf8(answered.body));
    assert_eq!(answered.json()["predictions"].as_array().unwrap().len(), 2);
    let invoked = server.post("/invocations", &infer()).await;
    assert_eq!(invoked.json()["id"], "seven");
}
