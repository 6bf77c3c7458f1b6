//! Triton's extension that lists, loads and unloads models.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::elements::shown;
use crate::ServeError;

/// `POST v2/repository/index`, of which the answer is a list of [`IndexEntry`]. The body may be empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct IndexRequest {
    /// Whether only models that take requests are wanted.
    pub ready: bool,
}

impl IndexRequest {
    /// Reads the body.
    pub fn parse(body: &[u8]) -> Result<Self, ServeError> {
        object(body)
    }
}

/// One version of one model in the repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IndexEntry {
    /// The model.
    pub name: String,
    /// The version; none while none was ever loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Its state; none while it was never loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<ModelState>,
    /// Why it is in that state; empty where there is nothing to say.
    pub reason: String,
}

/// States of a model, in Triton's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ModelState {
    /// It takes requests.
    Ready,
    /// It takes none: it was unloaded, or could not be loaded.
    Unavailable,
    /// It is being loaded.
    Loading,
}

impl ModelState {
    /// As the protocol says it.
    pub fn name(self) -> &'static str {
        match self {
            ModelState::Ready => "READY",
            ModelState::Unavailable => "UNAVAILABLE",
            ModelState::Loading => "LOADING",
        }
    }
}

/// Reads `POST v2/repository/models/NAME/load`, of which the body may be empty.
///
/// Triton lets clients send a configuration, and whole models, in place of what stands in the repository.
/// What is served here is what was proven, so such requests are refused.
pub fn parse_load(body: &[u8]) -> Result<(), ServeError> {
    #[derive(Default, Deserialize)]
    struct Body {
        parameters: Option<BTreeMap<String, serde_json::Value>>,
    }
    let parameters = object::<Body>(body)?.parameters.unwrap_or_default();
    let replaces = |name: &&String| *name == "config" || name.starts_with("file:");
    match parameters.keys().find(replaces) {
        Some(name) => Err(ServeError::Unsupported(format!(
            "models are loaded as they stand in the repository: parameter '{}' is not served here",
            shown(name)
        ))),
        None => Ok(()),
    }
}

/// Reads `POST v2/repository/models/NAME/unload`, of which the body may be empty. No model depends on
/// another, so what it says about those that do is nothing.
pub fn parse_unload(body: &[u8]) -> Result<(), ServeError> {
    #[derive(Default, Deserialize)]
    struct Body {}
    object::<Body>(body).map(drop)
}

/// An object of JSON, or nothing.
fn object<T: Default + for<'a> Deserialize<'a>>(body: &[u8]) -> Result<T, ServeError> {
    let body = body.trim_ascii();
    if body.is_empty() {
        return Ok(T::default());
    }
    // A list of what an object has would be taken for one.
    if !body.starts_with(b"{") {
        return Err(ServeError::Invalid("the request is no object of JSON".to_owned()));
    }
    serde_json::from_slice(body).map_err(|error| {
        ServeError::Invalid(format!("the request is not as it should be: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(value: &impl Serialize) -> String {
        serde_json::to_string(value).unwrap()
    }

    #[test]
    fn the_index_leaves_out_what_there_is_not() {
        let mut entry = IndexEntry {
            name: "m".to_owned(),
            version: Some("1".to_owned()),
            state: Some(ModelState::Ready),
            reason: String::new(),
        };
        assert_eq!(json(&entry), r#"{"name":"m","version":"1","state":"READY","reason":""}"#);
        (entry.version, entry.state) = (None, None);
        assert_eq!(json(&entry), r#"{"name":"m","reason":""}"#);
    }

    #[test]
    fn the_index_is_asked_for_with_and_without_a_body() {
        assert_eq!(IndexRequest::parse(b" "), Ok(IndexRequest { ready: false }));
        assert_eq!(IndexRequest::parse(b"{}"), Ok(IndexRequest { ready: false }));
        assert_eq!(IndexRequest::parse(b"{\"ready\":true}"), Ok(IndexRequest { ready: true }));
        assert_eq!(IndexRequest::parse(b"{\"ready\":1}").unwrap_err().status(), 400);
    }

    #[test]
    fn models_are_loaded_as_they_stand_and_not_as_clients_send_them() {
        for body in ["", "{}", r#"{"parameters":null}"#, r#"{"parameters":{"other":[1]}}"#] {
            assert_eq!(parse_load(body.as_bytes()), Ok(()), "{body}");
        }
        for body in
            [r#"{"parameters":{"config":"{}"}}"#, r#"{"parameters":{"file:1/model.onnx":"AAAA"}}"#]
        {
            assert_eq!(parse_load(body.as_bytes()).unwrap_err().status(), 501, "{body}");
        }
        assert_eq!(parse_load(b"[").unwrap_err().status(), 400);
    }

    #[test]
    fn models_are_unloaded_whatever_else_is_said() {
        for body in ["", r#"{"parameters":{"unload_dependents":true}}"#] {
            assert_eq!(parse_unload(body.as_bytes()), Ok(()), "{body}");
        }
        for body in ["1", "[]", "{", "{}}"] {
            assert_eq!(parse_unload(body.as_bytes()).unwrap_err().status(), 400, "{body}");
        }
    }
}
