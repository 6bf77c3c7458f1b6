//! The description of all routes, which is checked in as `docs/openapi.json` and served as it is there.

use super::respond::Reply;

const DOCUMENT: &str = include_str!("../../../../docs/openapi.json");

/// `GET /openapi.json`.
pub(super) fn document() -> Reply {
    Reply::written(DOCUMENT.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use axum::body::Body;
    use axum::http::{Request, StatusCode};
    use serde_json::Value;
    use tower::ServiceExt;

    use super::super::router::{HttpSettings, metrics, own, router};
    use super::*;
    use crate::ServeError;
    use crate::cache::Cache;
    use crate::engine::{EngineSettings, Repository, Runtimes, Source};
    use crate::security::Guard;
    use crate::service::{Parts, Service, ServiceSettings};

    /// All keys of the paths of `OpenAPI` that are methods.
    const METHODS: [&str; 8] =
        ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

    fn parsed() -> Value {
        serde_json::from_str(DOCUMENT).unwrap()
    }

    /// All operations: path, method, and what is said of it.
    fn operations(document: &Value) -> Vec<(&str, &str, &Value)> {
        let paths = document["paths"].as_object().unwrap().iter();
        let operations = paths.flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().iter();
            methods
                .filter(|(key, _)| METHODS.contains(&key.as_str()))
                .map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
        });
        operations.collect()
    }

    /// Where something is, by a reference in the document.
    fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
        let Some(reference) = value["$ref"].as_str() else { return value };
        document.pointer(reference.strip_prefix('#').unwrap()).unwrap()
    }

    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str).map(ToOwned::to_owned));
                members.values().for_each(|member| references(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    /// A server without models.
    fn server() -> axum::Router {
        let root = tempfile::tempdir().unwrap();
        let runtimes = Runtimes::open("tract".parse().unwrap(), None, None).unwrap();
        let describe = |_: &_| Err(String::new());
        let source = Source::at(root.path());
        let repository = Repository::new(source, runtimes, EngineSettings::default(), describe);
        let (cache, guard) = (Cache::off(), Guard::default());
        let settings = ServiceSettings::default();
        let parts = Parts { repository, cache, guard, log: None, settings };
        router(Service::new(parts), &HttpSettings::default())
    }

    #[tokio::test]
    async fn every_route_is_described_and_nothing_else() {
        let document = parsed();
        let described: BTreeSet<(String, String)> = operations(&document)
            .into_iter()
            .map(|(path, method, _)| (path.to_owned(), method.to_ascii_uppercase()))
            .collect();
        let server = server();
        let mut served = BTreeSet::new();
        for path in own().iter().chain(&metrics()).map(|one| one.path) {
            let asked = path.replace("{name}", "m").replace("{version}", "1");
            for method in ["GET", "POST", "PUT", "DELETE", "PATCH"] {
                let request = Request::builder().method(method).uri(&asked);
                let request = request.body(Body::empty()).unwrap();
                let answer = server.clone().oneshot(request).await.unwrap();
                if answer.status() != StatusCode::METHOD_NOT_ALLOWED {
                    served.insert((path.to_owned(), method.to_owned()));
                }
            }
        }
        assert!(served.len() > 20);
        assert_eq!(described, served);
    }

    #[test]
    fn every_reference_leads_somewhere_and_everything_is_used() {
        let document = parsed();
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        for reference in &found {
            assert!(document.pointer(&reference[1..]).is_some(), "{reference} leads nowhere");
        }
        for kind in ["schemas", "responses", "parameters"] {
            for name in document["components"][kind].as_object().unwrap().keys() {
                let reference = format!("#/components/{kind}/{name}");
                assert!(found.contains(&reference), "{reference} is not used");
            }
        }
    }

    #[test]
    fn every_answer_but_a_good_one_is_an_error_in_json() {
        let document = parsed();
        let statuses: BTreeSet<String> =
            all_errors().iter().map(|e| e.status().to_string()).collect();
        for (path, method, operation) in operations(&document) {
            let parameters = operation["parameters"].as_array().map_or(0, Vec::len);
            assert_eq!(path.matches('{').count(), parameters, "{method} {path}");
            for (status, response) in operation["responses"].as_object().unwrap() {
                let response = resolved(&document, response);
                assert!(response["description"].is_string(), "{method} {path}: {status}");
                if status == "200" {
                    continue;
                }
                assert!(statuses.contains(status), "{method} {path}: {status} never comes");
                let schema = &response["content"]["application/json"]["schema"];
                let schema = resolved(&document, schema);
                // Health says that it is not ready, and is no error.
                let is_health = status == "503" && schema["required"].to_string().contains("ready");
                let is_error = schema["required"].to_string().contains("error");
                assert!(is_error || is_health, "{method} {path}: {status}");
            }
        }
    }

    #[test]
    fn whatever_can_happen_to_an_inference_is_described() {
        let document = parsed();
        for (path, method, operation) in operations(&document) {
            let responses = &operation["responses"];
            assert!(responses["200"].is_object(), "{method} {path}");
            let is_inference =
                ["infer", "predict", "invocations"].iter().any(|end| path.ends_with(end));
            for error in all_errors() {
                let status = error.status().to_string();
                let can_come = match &error {
                    ServeError::MethodNotAllowed { .. } => false,
                    ServeError::Forbidden(_) => path.ends_with("load"),
                    _ => is_inference,
                };
                let told = &responses[&status];
                assert!(!can_come || told.is_object(), "{method} {path} may answer {status}");
            }
        }
    }

    #[test]
    fn its_version_is_that_of_the_program() {
        assert_eq!(parsed()["info"]["version"], env!("CARGO_PKG_VERSION"));
    }

    fn all_errors() -> Vec<ServeError> {
        let text = String::new;
        let (seconds, limit) = (std::time::Duration::from_secs(1), 1);
        vec![
            ServeError::Invalid(text()),
            ServeError::Unauthorized(text()),
            ServeError::Forbidden(text()),
            ServeError::NotFound(text()),
            ServeError::MethodNotAllowed { method: text(), path: text() },
            ServeError::TooSlow(text()),
            ServeError::TooLarge { what: "", bytes: 1, limit },
            ServeError::TooMany { what: text(), count: 1, limit },
            ServeError::UnsupportedMedia(text()),
            ServeError::RateLimited { retry_after: seconds },
            ServeError::Runtime(text()),
            ServeError::Unsupported(text()),
            ServeError::QueueFull { model: text(), waiting: 1 },
            ServeError::NotReady(text()),
            ServeError::DeadlineExceeded(seconds),
        ]
    }
}
