//! What a failed verdict is due to.

use serde::{Deserialize, Serialize};

/// What one layer, or several that share a weight, cost when changed alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Culprit {
    /// The layers.
    pub layers: Vec<String>,
    /// What was done to the first of them.
    pub scheme: String,
    /// Lowest SQNR of any float output with only these changed, in dB.
    #[serde(with = "crate::number")]
    pub sqnr_db: f64,
}
