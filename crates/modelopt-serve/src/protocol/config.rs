//! `GET v2/models/NAME/config`: the fields of Triton's model configuration that clients read.

use serde::Serialize;

use super::datatype::config_name;
use super::metadata::{PLATFORM, dims};
use crate::{Signature, TensorSpec};

/// The configuration of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelConfig {
    /// The model.
    pub name: String,
    /// What kind of model it is.
    pub platform: String,
    /// The runtime.
    pub backend: String,
    /// Rows of a batch at most; 0 where rows of requests are not put together. Above 0, shapes here are
    /// those of one row.
    pub max_batch_size: usize,
    /// Inputs.
    pub input: Vec<TensorConfig>,
    /// Outputs.
    pub output: Vec<TensorConfig>,
    /// How requests are put together, where they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dynamic_batching: Option<BatchingConfig>,
}

/// One input or output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TensorConfig {
    /// Name.
    pub name: String,
    /// Element type, such as `TYPE_FP32`.
    pub data_type: String,
    /// Dimensions without the one of the batch; -1 are those that vary.
    pub dims: Vec<i64>,
}

/// How requests are put together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BatchingConfig {
    /// Rows of batches that are run at once.
    pub preferred_batch_size: Vec<usize>,
    /// How long the oldest request waits for others.
    pub max_queue_delay_microseconds: u64,
    /// Whether answers leave in the order in which requests came.
    pub preserve_ordering: bool,
    /// How many priorities there are; 0 for none.
    pub priority_levels: u32,
    /// The priority of requests that say none.
    pub default_priority_level: u32,
}

impl ModelConfig {
    /// The configuration of a model that takes batches of `max_batch_size` rows, or none where it is 0.
    pub fn of(
        name: &str,
        backend: &str,
        signature: &Signature,
        max_batch_size: usize,
        dynamic_batching: Option<BatchingConfig>,
    ) -> Self {
        let of = |specs: &[TensorSpec]| {
            specs.iter().map(|spec| TensorConfig::of(spec, max_batch_size > 0)).collect()
        };
        ModelConfig {
            name: name.to_owned(),
            platform: PLATFORM.to_owned(),
            backend: backend.to_owned(),
            max_batch_size,
            input: of(&signature.inputs),
            output: of(&signature.outputs),
            dynamic_batching,
        }
    }
}

impl TensorConfig {
    fn of(spec: &TensorSpec, is_batched: bool) -> Self {
        let shape = spec.shape.as_deref();
        let row = match shape {
            Some([_, row @ ..]) if is_batched => Some(row),
            other => other,
        };
        TensorConfig {
            name: spec.name.clone(),
            data_type: config_name(spec.dtype).unwrap_or_default().to_owned(),
            dims: dims(row),
        }
    }
}

#[cfg(test)]
mod tests {
    use modelopt_graph::DataType;

    use super::*;
    use crate::Dimension;

    fn signature() -> Signature {
        let spec = |name: &str, shape: &[Dimension]| TensorSpec {
            name: name.to_owned(),
            dtype: DataType::FLOAT,
            shape: Some(shape.to_vec()),
        };
        Signature {
            inputs: vec![spec("x", &[Dimension::Any, Dimension::Fixed(64)])],
            outputs: vec![spec("y", &[Dimension::Any])],
        }
    }

    #[test]
    fn shapes_of_batched_models_are_those_of_a_row() {
        let batching = BatchingConfig { preferred_batch_size: vec![8], ..Default::default() };
        let config = ModelConfig::of("m", "tract", &signature(), 8, Some(batching));
        assert_eq!(
            serde_json::to_string(&config).unwrap(),
            r#"{"name":"m","platform":"onnx_onnxv1","backend":"tract","max_batch_size":8,"input":[{"name":"x","data_type":"TYPE_FP32","dims":[64]}],"output":[{"name":"y","data_type":"TYPE_FP32","dims":[]}],"dynamic_batching":{"preferred_batch_size":[8],"max_queue_delay_microseconds":0,"preserve_ordering":false,"priority_levels":0,"default_priority_level":0}}"#
        );
    }

    #[test]
    fn shapes_of_others_are_whole_and_nothing_is_said_of_batches() {
        let config = ModelConfig::of("m", "tract", &signature(), 0, None);
        assert_eq!(config.input[0].dims, [-1, 64]);
        assert!(!serde_json::to_string(&config).unwrap().contains("dynamic_batching"));
    }
}
