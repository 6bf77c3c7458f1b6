//! What servers and models say about themselves.

use serde::Serialize;

use super::datatype::datatype_name;
use crate::{Dimension, ServeError, Signature, TensorSpec};

/// The platform of all models.
pub const PLATFORM: &str = "onnx_onnxv1";

/// The extensions of the protocol that are served.
pub const EXTENSIONS: &[&str] =
    &["binary_tensor_data", "model_configuration", "model_repository", "statistics"];

/// `GET v2`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServerMetadata {
    /// The server.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Extensions of the protocol.
    pub extensions: Vec<String>,
}

/// `GET v2/health/live`. The client of `KServe` reads the body, where others take the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Live {
    /// Whether the server answers.
    pub live: bool,
}

/// `GET v2/health/ready`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Ready {
    /// Whether all models take requests.
    pub ready: bool,
}

/// `GET v2/models/NAME/ready`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelReady {
    /// The model.
    pub name: String,
    /// Whether it takes requests.
    pub ready: bool,
}

/// `GET v2/models`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelList {
    /// Names.
    pub models: Vec<String>,
}

/// `GET v2/models/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelMetadata {
    /// The model.
    pub name: String,
    /// Versions that are served.
    pub versions: Vec<String>,
    /// Always [`PLATFORM`].
    pub platform: String,
    /// Inputs.
    pub inputs: Vec<TensorMetadata>,
    /// Outputs.
    pub outputs: Vec<TensorMetadata>,
}

/// One input or output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TensorMetadata {
    /// Name.
    pub name: String,
    /// Element type.
    pub datatype: String,
    /// Dimensions, of which -1 are those that vary. Where a model does not say how many there are, `[-1]`:
    /// the protocol has no word for that, and no shape at all would be a scalar.
    pub shape: Vec<i64>,
}

impl ModelMetadata {
    /// What there is to say about a model with this signature.
    pub fn of(name: &str, versions: Vec<String>, signature: &Signature) -> Self {
        let of = |specs: &[TensorSpec]| specs.iter().map(TensorMetadata::of).collect();
        ModelMetadata {
            name: name.to_owned(),
            versions,
            platform: PLATFORM.to_owned(),
            inputs: of(&signature.inputs),
            outputs: of(&signature.outputs),
        }
    }
}

impl TensorMetadata {
    fn of(spec: &TensorSpec) -> Self {
        TensorMetadata {
            name: spec.name.clone(),
            datatype: datatype_name(spec.dtype).unwrap_or_default().to_owned(),
            shape: dims(spec.shape.as_deref()),
        }
    }
}

/// Dimensions as numbers.
pub(crate) fn dims(shape: Option<&[Dimension]>) -> Vec<i64> {
    let size =
        |dim: &Dimension| dim.fixed().map_or(-1, |size| i64::try_from(size).unwrap_or(i64::MAX));
    shape.map_or_else(|| vec![-1], |dims| dims.iter().map(size).collect())
}

/// The body of every answer that is an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: String,
}

impl From<&ServeError> for ErrorBody {
    fn from(error: &ServeError) -> Self {
        ErrorBody { error: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use modelopt_graph::DataType;

    use super::*;

    fn json(value: &impl Serialize) -> String {
        serde_json::to_string(value).unwrap()
    }

    #[test]
    fn health_is_json_that_clients_read() {
        assert_eq!(json(&Live { live: true }), r#"{"live":true}"#);
        assert_eq!(json(&Ready { ready: false }), r#"{"ready":false}"#);
        let ready = ModelReady { name: "m".to_owned(), ready: true };
        assert_eq!(json(&ready), r#"{"name":"m","ready":true}"#);
    }

    #[test]
    fn models_say_what_they_take() {
        let batch = Dimension::Named("batch".to_owned());
        let shape = Some(vec![batch, Dimension::Fixed(64), Dimension::Any]);
        let x = TensorSpec { name: "x".to_owned(), dtype: DataType::FLOAT, shape };
        let y = TensorSpec { name: "y".to_owned(), dtype: DataType::STRING, shape: None };
        let signature = Signature { inputs: vec![x], outputs: vec![y] };
        let metadata = ModelMetadata::of("m", vec!["1".to_owned()], &signature);
        assert_eq!(
            json(&metadata),
            r#"{"name":"m","versions":["1"],"platform":"onnx_onnxv1","inputs":[{"name":"x","datatype":"FP32","shape":[-1,64,-1]}],"outputs":[{"name":"y","datatype":"BYTES","shape":[-1]}]}"#
        );
    }

    #[test]
    fn errors_are_a_text_under_a_key() {
        let error = ServeError::NotFound("there is no model 'm\"'".to_owned());
        assert_eq!(json(&ErrorBody::from(&error)), r#"{"error":"there is no model 'm\"'"}"#);
    }
}
