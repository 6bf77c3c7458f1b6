//! What a failed verdict is due to.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::number::Float;

/// What one layer, or several that share a weight, cost when changed alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Culprit {
    /// The layers.
    pub layers: Vec<String>,
    /// What was done to the first of them.
    pub scheme: String,
    /// Lowest SQNR of any float output with only these changed, in dB.
    #[serde(with = "crate::number")]
    #[schemars(with = "Float")]
    pub sqnr_db: f64,
    /// Whether that was predicted from switching errors on and off, and not measured with a model in
    /// which only these are changed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub predicted: bool,
}

/// A layer that became slower, measured as a model of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SlowLayer {
    /// The layer.
    pub layer: String,
    /// Its operator.
    pub op: String,
    /// What was done to it.
    pub scheme: String,
    /// Time of the changed layer divided by that of the original one: 2 is twice as slow.
    #[serde(with = "crate::number")]
    #[schemars(with = "Float")]
    pub slowdown: f64,
    /// Time of the original layer, in milliseconds.
    #[serde(with = "crate::number")]
    #[schemars(with = "Float")]
    pub original_ms: f64,
}
