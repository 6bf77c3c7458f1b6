//! The page at `/` for people who look, and `/live.json`, from which it has what it shows.
//!
//! It is one file that needs nothing else. Each answer allows its own style and script by a number that
//! is used once, and nothing but requests to this server.

use axum::http::HeaderValue;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use serde::Serialize;

use super::respond::Reply;
use crate::engine::{Batching, ServedModel};
use crate::observe::LiveFigures;
use crate::protocol::{ModelState, datatype_name};
use crate::service::{Chosen, Service};
use crate::{Dimension, ServeError, TensorSpec};

const PAGE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// What is replaced in the page.
const STYLE_PLACE: &str = "/* style */";
const SCRIPT_PLACE: &str = "/* script */";
const NONCE_PLACE: &str = "NONCE";

/// `GET /`.
pub(super) fn page(_: &Service) -> Result<Reply, ServeError> {
    let nonce = format!("{:032x}", rand::random::<u128>());
    let page = PAGE.replace(NONCE_PLACE, &nonce).replacen(STYLE_PLACE, STYLE, 1).replacen(
        SCRIPT_PLACE,
        SCRIPT,
        1,
    );
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; \
         connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    );
    let policy = HeaderValue::from_str(&policy)
        .map_err(|error| ServeError::Runtime(format!("the page has no policy: {error}")))?;
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    let mut reply = Reply::bytes(page.into_bytes(), html);
    reply.headers.insert(CONTENT_SECURITY_POLICY, policy);
    reply.headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply.headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply.headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Ok(reply)
}

/// `GET /live.json`.
pub(super) fn live(service: &Service) -> Result<Reply, ServeError> {
    let chosen = service.models();
    let models = service.repository().index().into_iter().map(|entry| {
        let version = entry.version.as_deref();
        let of = |one: &&Chosen| {
            let identity = one.model.identity();
            identity.name == entry.name && Some(identity.version.as_str()) == version
        };
        let served = chosen.iter().find(of).map(ServedVersion::of);
        Tried {
            name: entry.name,
            version: entry.version,
            state: entry.state.name(),
            is_ready: entry.state == ModelState::Ready,
            reason: entry.reason,
            served,
        }
    });
    let mut reply = Reply::json(&Everything {
        version: env!("CARGO_PKG_VERSION"),
        not_ready: service.not_ready().map(|error| error.to_string()),
        models: models.collect(),
    })?;
    reply.headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(reply)
}

#[derive(Serialize)]
struct Everything {
    /// Of the program.
    version: &'static str,
    /// Why it should not be sent requests, if it should not.
    not_ready: Option<String>,
    models: Vec<Tried>,
}

/// A version of a model that was tried.
#[derive(Serialize)]
struct Tried {
    name: String,
    version: Option<String>,
    state: &'static str,
    is_ready: bool,
    reason: Option<String>,
    /// Where it answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    served: Option<ServedVersion>,
}

/// A version that answers.
#[derive(Serialize)]
struct ServedVersion {
    blake3: String,
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
    batching: Batches,
    sessions: usize,
    waiting: usize,
    last_minute: LastMinute,
}

#[derive(Serialize)]
struct Tensor {
    name: String,
    datatype: &'static str,
    /// Numbers, names of dimensions, and null for those without one; none where it is not known how many
    /// there are.
    shape: Option<Vec<serde_json::Value>>,
}

#[derive(Serialize)]
struct Batches {
    is_on: bool,
    why: String,
}

#[derive(Serialize)]
struct LastMinute {
    requests_per_second: f64,
    failures_per_second: f64,
    p50_ms: Option<f64>,
    p95_ms: Option<f64>,
    p99_ms: Option<f64>,
}

impl ServedVersion {
    fn of(chosen: &Chosen) -> Self {
        let Chosen { model, face } = chosen;
        let identity = model.identity();
        let tensors = |specs: &[TensorSpec]| specs.iter().map(Tensor::of).collect();
        ServedVersion {
            blake3: identity.digest.clone(),
            inputs: tensors(&identity.signature.inputs),
            outputs: tensors(&identity.signature.outputs),
            batching: Batches::of(model),
            sessions: model.settings().sessions,
            waiting: model.waiting(),
            last_minute: LastMinute::of(&face.live.figures()),
        }
    }
}

impl Tensor {
    fn of(spec: &TensorSpec) -> Self {
        let size = |dimension: &Dimension| match dimension {
            Dimension::Fixed(size) => (*size).into(),
            Dimension::Named(name) => name.as_str().into(),
            Dimension::Any => serde_json::Value::Null,
        };
        Tensor {
            name: spec.name.clone(),
            datatype: datatype_name(spec.dtype).unwrap_or_default(),
            shape: spec.shape.as_ref().map(|shape| shape.iter().map(size).collect()),
        }
    }
}

impl Batches {
    fn of(model: &ServedModel) -> Self {
        match model.batching() {
            Batching::On(evidence) => {
                let most = model.settings().max_batch_size;
                let sizes: Vec<String> = evidence.sizes.iter().map(ToString::to_string).collect();
                let why = format!(
                    "up to {most} rows run together: {} rows in batches of {} differed from the same \
                     rows alone by {:.1e} at most",
                    evidence.rows,
                    sizes.join(", "),
                    evidence.largest_difference
                );
                Batches { is_on: true, why }
            }
            Batching::Off(objection) => Batches { is_on: false, why: objection.to_string() },
            Batching::Stopped => Batches {
                is_on: false,
                why: "stopped: an output of a batch had not a row for each row".to_owned(),
            },
        }
    }
}

impl LastMinute {
    fn of(figures: &LiveFigures) -> Self {
        let ms = |time: Option<std::time::Duration>| time.map(|time| time.as_secs_f64() * 1e3);
        LastMinute {
            requests_per_second: figures.requests_per_second,
            failures_per_second: figures.failures_per_second,
            p50_ms: ms(figures.p50),
            p95_ms: ms(figures.p95),
            p99_ms: ms(figures.p99),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::{HeaderMap, Request, StatusCode};
    use futures_util::StreamExt;
    use serde_json::{Value, json};
    use tower::ServiceExt;
    use xtask::testdata::fixture;

    use super::super::{HttpSettings, router};
    use super::*;
    use crate::Signature;
    use crate::cache::Cache;
    use crate::engine::{EngineSettings, Repository, Runtimes, Source};
    use crate::security::{Guard, GuardSettings};
    use crate::service::{Parts, ServiceSettings};

    async fn service(guard: Guard) -> std::sync::Arc<Service> {
        let runtimes = Runtimes::open("tract".parse().unwrap(), None, None).unwrap();
        let describe = |model: &_| Signature::of(model).map_err(|error| error.to_string());
        let source = Source::at(&fixture("digits/mlp.onnx"));
        let repository = Repository::new(source, runtimes, EngineSettings::default(), describe);
        repository.load_all().await.unwrap();
        let (cache, settings) = (Cache::off(), ServiceSettings::default());
        Service::new(Parts { repository, cache, guard, log: None, settings })
    }

    async fn asked(
        service: &std::sync::Arc<Service>,
        method: &str,
        path: &str,
        body: &str,
    ) -> (StatusCode, HeaderMap, String) {
        let request = Request::builder().method(method).uri(path);
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let router = router(std::sync::Arc::clone(service), &HttpSettings::default());
        let (parts, body) = router.oneshot(request).await.unwrap().into_parts();
        let pieces: Vec<_> = body.into_data_stream().map(Result::unwrap).collect().await;
        (parts.status, parts.headers, String::from_utf8(pieces.concat()).unwrap())
    }

    #[tokio::test]
    async fn each_page_allows_its_own_style_and_script_and_nothing_else() {
        let service = service(Guard::default()).await;
        let mut nonces = Vec::new();
        for _ in 0..2 {
            let (status, headers, page) = asked(&service, "GET", "/", "").await;
            assert_eq!(status, StatusCode::OK);
            let policy = headers[CONTENT_SECURITY_POLICY].to_str().unwrap();
            let nonce =
                policy.split("script-src 'nonce-").nth(1).unwrap().split('\'').next().unwrap();
            assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"));
            assert!(policy.contains(&format!("style-src 'nonce-{nonce}'")));
            assert_eq!(page.matches(nonce).count(), 2);
            for place in [STYLE_PLACE, SCRIPT_PLACE, NONCE_PLACE] {
                assert!(!page.contains(place), "{place}");
            }
            assert!(page.contains("prefers-color-scheme") && page.contains("setInterval"));
            nonces.push(nonce.to_owned());
        }
        assert_ne!(nonces[0], nonces[1]);
    }

    #[test]
    fn the_page_has_no_handlers_or_styles_that_the_policy_would_stop() {
        for stopped in [" onclick=", " onload=", " style=", "javascript:", "http://", "https://"] {
            assert!(!PAGE.contains(stopped), "{stopped}");
        }
        assert!(!SCRIPT.contains("innerHTML") && !SCRIPT.contains("eval("));
    }

    #[tokio::test]
    async fn figures_are_of_what_was_asked() {
        let service = service(Guard::default()).await;
        let pixels = json!({ "image": [[vec![vec![0.5; 8]; 8]]] }).to_string();
        for _ in 0..3 {
            assert_eq!(asked(&service, "POST", "/predict", &pixels).await.0, StatusCode::OK);
        }
        assert_eq!(asked(&service, "POST", "/predict", "{}").await.0, StatusCode::BAD_REQUEST);
        let (_, headers, live) = asked(&service, "GET", "/live.json", "").await;
        assert_eq!(headers[CACHE_CONTROL], "no-store");
        let live: Value = serde_json::from_str(&live).unwrap();
        assert_eq!(live["not_ready"], Value::Null);
        let model = &live["models"][0];
        assert_eq!((&model["name"], &model["version"]), (&json!("mlp"), &json!("1")));
        assert_eq!((&model["state"], &model["is_ready"]), (&json!("READY"), &json!(true)));
        let served = &model["served"];
        let input = json!({ "name": "image", "datatype": "FP32", "shape": ["batch", 1, 8, 8] });
        assert_eq!(served["inputs"][0], input);
        assert_eq!(served["batching"]["is_on"], true);
        assert!(served["batching"]["why"].as_str().unwrap().contains("up to 8 rows"), "{served}");
        let last = &served["last_minute"];
        let rate = |key: &str| last[key].as_f64().unwrap();
        let (all, failed) = (rate("requests_per_second"), rate("failures_per_second"));
        assert!(failed > 0.0 && (all / failed - 4.0).abs() < 1e-9, "{last}");
        assert!(rate("p50_ms") > 0.0 && rate("p50_ms") <= rate("p99_ms"));
    }

    #[tokio::test]
    async fn models_that_do_not_answer_are_named_with_the_reason() {
        let service = service(Guard::default()).await;
        service.repository().unload("mlp").await.unwrap();
        let (_, _, live) = asked(&service, "GET", "/live.json", "").await;
        let live: Value = serde_json::from_str(&live).unwrap();
        let model = &live["models"][0];
        assert_eq!((&model["state"], &model["is_ready"]), (&json!("UNAVAILABLE"), &json!(false)));
        assert_eq!((&model["reason"], model.get("served")), (&json!("it was unloaded"), None));
    }

    #[tokio::test]
    async fn behind_a_guard_only_those_who_may_ask_see_it() {
        let folder = tempfile::tempdir().unwrap();
        let keys = folder.path().join("keys");
        std::fs::write(&keys, "me:correct-horse-battery").unwrap();
        let guard = GuardSettings { api_keys: Some(keys), ..GuardSettings::default() };
        let service = service(Guard::new(&guard).unwrap()).await;
        for (path, status) in [("/", 401), ("/live.json", 401), ("/openapi.json", 200)] {
            assert_eq!(asked(&service, "GET", path, "").await.0.as_u16(), status, "{path}");
        }
    }

    #[tokio::test]
    async fn a_path_that_is_no_text_is_an_error_in_json() {
        let service = service(Guard::default()).await;
        let (status, _, body) = asked(&service, "GET", "/v2/models/%ff", "").await;
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status.as_u16(), body["error"].is_string()), (400, true));
    }
}
